"""Baseline vectors that need no training.

Not a command.
"""

import dataclasses

import numpy as np
import torch

from layers import DRAWN_PREFIX, LAYERS
from probes import BLOCK, standardise
from profiles import brightness_profile
from tile_store import TileStore

PCA_SIZE, PCA_PX = 256, 16


# --- what is evaluated -------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Candidate:
    """Vectors under a name: `vectors (N, D)`; `metric` says which of them are near: cosine, or standardised."""

    name: str
    vectors: np.ndarray
    metric: str = "standardised"


# --- baselines ---------------------------------------------------------------------------------------------


def baselines(
    store: TileStore, rows: np.ndarray, drawn: dict[str, np.ndarray], untrained: Candidate, seed: int
) -> list[Candidate]:
    """What needs no training, each at its own size and, where that is larger, cut to the encoder's size by PCA."""
    size = untrained.vectors.shape[1]
    found = [
        Candidate("coordinates", store.tile_xy[rows].astype(np.float64)),
        Candidate("coordinates, as waves", coordinate_waves(store.tile_xy[rows], size, seed)),
        Candidate("channel means + deviations", channel_statistics(store)[rows]),
        Candidate("brightness profiles", brightness_profiles(store, rows)),
        Candidate("PCA of pixels", pixel_pca(store, rows, seed)),
    ]
    by_layer = {name: column for name, column in drawn.items() if name.removeprefix(DRAWN_PREFIX) in LAYERS}
    by_class = {name: column for name, column in drawn.items() if name not in by_layer}
    for name, columns in (("counts per layer", by_layer), ("counts per class", by_class)):
        if columns:
            counts = np.log1p(np.nan_to_num(np.stack(list(columns.values()), axis=1)))
            found.append(Candidate(name, counts[:, counts.std(axis=0) > 0]))
    found += [cut_to(candidate, size) for candidate in found if candidate.vectors.shape[1] > size]
    return [*found, untrained]


def coordinate_waves(tile_xy: np.ndarray, size: int, seed: int) -> np.ndarray:
    """Random Fourier features of the position, `(N, size)`: coordinates as rich as the vectors are."""
    place = (tile_xy - tile_xy.mean(axis=0)) / BLOCK
    waves = np.random.default_rng([seed, 0xC0]).normal(size=(2, size // 2))
    return np.concatenate([np.sin(place @ waves), np.cos(place @ waves)], axis=1)


def channel_statistics(store: TileStore) -> np.ndarray:
    """Mean and deviation of each layer's pixels, `(N, 24)`."""
    chunks = [store.planes[i : i + 256].reshape(-1, store.tile_size**2) for i in range(0, len(store.planes), 256)]
    deviation = np.concatenate([chunk.std(axis=1) for chunk in chunks]) / 255
    return np.concatenate([store.layer_mass, deviation[store.plane_of]], axis=1)


def brightness_profiles(store: TileStore, rows: np.ndarray) -> np.ndarray:
    """How much of each brightness every layer shows, `(N, 192)` at most: what `train.py --profile_dims` sums up."""
    parts = np.array_split(rows, -(-len(rows) // 128))
    profiles = torch.cat([brightness_profile(torch.from_numpy(store.tiles(part))) for part in parts]).numpy()
    return profiles[:, profiles.std(axis=0) > 0]


def pixel_pca(store: TileStore, rows: np.ndarray, seed: int) -> np.ndarray:
    """The first principal components of the tiles' pixels, shrunk to 16 px, `(N, 256)`."""
    step = store.tile_size // PCA_PX
    small = [
        store.tiles(part)
        .reshape(len(part), len(LAYERS), PCA_PX, step, PCA_PX, step)
        .mean(axis=(3, 5), dtype=np.float32)
        for part in np.array_split(rows, -(-len(rows) // 256))
    ]
    return principal(np.concatenate(small).reshape(len(rows), -1), PCA_SIZE, seed)


def principal(vectors: np.ndarray, size: int, seed: int) -> np.ndarray:
    """Coordinates on the first `size` principal axes, `(N, size)`."""
    centred = torch.from_numpy(np.ascontiguousarray(vectors - vectors.mean(axis=0), dtype=np.float32))
    torch.manual_seed(seed)
    size = min(size, *centred.shape)
    _, _, axes = torch.svd_lowrank(centred, q=min(size + 10, *centred.shape), niter=3)
    return (centred @ axes[:, :size]).numpy()


def cut_to(candidate: Candidate, size: int) -> Candidate:
    """The same candidate at another size, by PCA of its standardised vectors."""
    whole = standardise(candidate.vectors, np.ones(len(candidate.vectors), dtype=bool))
    return Candidate(f"{candidate.name}, PCA {size}", principal(whole, size, 0))
