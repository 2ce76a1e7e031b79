"""Baseline vectors that need no training: coordinates, pixels, brightness, shapes and counts.

Not a command; `python evaluate.py --baselines` evaluates them.
"""

import itertools
import math
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from layers import DRAWN_PREFIX, LAYERS
from probes import Candidate, standardise
from tile_grid import BLOCK
from tile_store import TileStore, open_store
from vectors import principal_components

PCA_SIZE, PCA_PX = 256, 16
SHAPE_PX = 256  # tile size from which shapes are measured; smaller tiles are measured as they are
NEIGHBOUR_RADII = (1, 3)  # means over 3 x 3 and 7 x 7 tiles
PROFILE_CLASSES = 16  # of brightness, in each layer
PROFILE_STEEPNESS = 64  # a class counts nearly in proportion while it covers less than a 64th of a tile


def baselines(
    store: TileStore,
    sharp: TileStore,
    rows: np.ndarray,
    drawn: dict[str, np.ndarray],
    untrained: Candidate,
    seed: int,
) -> list[Candidate]:
    """Vectors of the tiles `rows` of `store`; each at its own size and, if larger than the encoder's, cut to that.

    `sharp` holds the same tiles at full resolution, `drawn` the counts of drawn objects on `rows` by column of the
    labels file, `untrained` the vectors of an encoder that was not trained.
    """
    size = untrained.vectors.shape[1]
    tile_xy = store.tile_xy[rows]
    profiles = brightness_profiles(store)
    varied = profiles[rows].std(axis=0) > 0
    found = [
        Candidate("coordinates", tile_xy.astype(np.float64)),
        Candidate("coordinates, as waves", coordinate_waves(tile_xy, size, seed)),
        Candidate("channel means + deviations", channel_statistics(store)[rows]),
        Candidate("brightness profiles", profiles[rows][:, varied]),
        Candidate("brightness profiles + neighbours", with_neighbours(store, profiles[:, varied])[rows]),
        Candidate("PCA of pixels", pixel_pca(store, rows)),
        Candidate("shapes at full resolution", shape_statistics(sharp)[sharp.grid.rows(tile_xy)]),
    ]
    by_layer = {name: column for name, column in drawn.items() if name.removeprefix(DRAWN_PREFIX) in LAYERS}
    by_class = {name: column for name, column in drawn.items() if name not in by_layer}
    for name, columns in (("counts per layer", by_layer), ("counts per class", by_class)):
        if columns:
            counts = np.log1p(np.nan_to_num(np.stack(list(columns.values()), axis=1)))
            counts = counts[:, counts.std(axis=0) > 0]
            everywhere = np.zeros((len(store), counts.shape[1]))  # nothing is drawn on the other tiles
            everywhere[rows] = counts
            found.append(Candidate(name, counts))
            found.append(Candidate(f"{name} + neighbours", with_neighbours(store, everywhere)[rows]))
    found += [cut_to(candidate, size) for candidate in found if candidate.vectors.shape[1] > size]
    return [*found, untrained]


def coordinate_waves(tile_xy: np.ndarray, size: int, seed: int) -> np.ndarray:
    """Random Fourier features of the position, `(N, size)`: coordinates with as many numbers as the vectors have."""
    place = (tile_xy - tile_xy.mean(axis=0)) / BLOCK
    waves = np.random.default_rng([seed, 0xC0]).normal(size=(2, size // 2))
    return np.concatenate([np.sin(place @ waves), np.cos(place @ waves)], axis=1)


def channel_statistics(store: TileStore) -> np.ndarray:
    """Mean and deviation of each layer's pixels, `(N, 24)`."""
    chunks = [store.planes[i : i + 256].reshape(-1, store.tile_size**2) for i in range(0, len(store.planes), 256)]
    deviation = np.concatenate([chunk.std(axis=1) for chunk in chunks]) / 255
    return np.concatenate([store.layer_intensity, deviation[store.plane_of]], axis=1)


def brightness_profile(tiles: Tensor) -> Tensor:
    """The share of its pixels that each class of brightness covers in each layer of a tile, on a logarithmic scale.

    `tiles (B, C, S, S) uint8` to `(B, C * 16) float32`: log(1 + 64 share) / log(65), which is 0 where a class is absent
    and 1 where it fills the layer. Blank pixels belong to no class. The logarithm keeps a few dots visible beside whole
    areas; for dots alone it is nearly linear, so that they can be counted. Rotating a tile changes nothing.
    """
    pixels = tiles.flatten(2)
    drawn = torch.where(pixels == 0, PROFILE_CLASSES, pixels >> 4).long()  # one more class, for blank pixels
    counts = torch.zeros(*pixels.shape[:2], PROFILE_CLASSES + 1, device=tiles.device)
    counts.scatter_add_(2, drawn, counts.new_ones(()).expand(drawn.shape))
    shares = counts[:, :, :PROFILE_CLASSES] / pixels.shape[2]
    return (PROFILE_STEEPNESS * shares).log1p().flatten(1) / math.log1p(PROFILE_STEEPNESS)


def brightness_profiles(store: TileStore) -> np.ndarray:
    """The brightness profiles `(N, 192)` of all tiles."""
    parts = np.array_split(np.arange(len(store)), -(-len(store) // 128))
    return torch.cat([brightness_profile(torch.from_numpy(store.tiles(part))) for part in parts]).numpy()


def with_neighbours(store: TileStore, values: np.ndarray) -> np.ndarray:
    """`values (N, D)` of all tiles, and their means over the 3 x 3 and 7 x 7 tiles around each, `(N, 3 D)`.

    Places without a tile, beyond the edge of the data, are left out of the means.
    """
    columns = [values]
    for radius in NEIGHBOUR_RADII:
        total, number = np.zeros_like(values), np.zeros((len(values), 1), dtype=values.dtype)
        for offset in itertools.product(range(-radius, radius + 1), repeat=2):
            rows = store.grid.rows(store.tile_xy + np.array(offset))
            there = rows >= 0
            total[there] += values[rows[there]]
            number[there] += 1
        columns.append(total / number)
    return np.concatenate(columns, axis=1)


def shape_statistics(store: TileStore) -> np.ndarray:
    """Five numbers for each layer of each tile, `(N, 60)`.

    They are the share of drawn pixels, the length of their edge in tile sides, log(1 + number of connected pieces),
    the mean intensity of all pixels, and the share of the tile that the largest piece covers.
    """
    from scipy import ndimage

    side = store.tile_size
    numbers = np.zeros((len(store.planes), 5), dtype=np.float32)
    for i in range(1, len(store.planes)):  # plane 0 is blank
        drawn = store.planes[i] > 0
        edge = (drawn[1:] != drawn[:-1]).sum() + (drawn[:, 1:] != drawn[:, :-1]).sum()
        pieces, count = ndimage.label(drawn)
        largest = np.bincount(pieces.reshape(-1))[1:].max(initial=0)
        numbers[i] = drawn.mean(), edge / side, np.log1p(count), store.planes[i].mean() / 255, largest / side**2
    return numbers[store.plane_of].reshape(len(store), -1)


def pixel_pca(store: TileStore, rows: np.ndarray) -> np.ndarray:
    """The first principal components of the tiles' pixels, shrunk to 16 px, `(N, 256)`."""
    step = store.tile_size // PCA_PX
    small = [
        store.tiles(part)
        .reshape(len(part), len(LAYERS), PCA_PX, step, PCA_PX, step)
        .mean(axis=(3, 5), dtype=np.float32)
        for part in np.array_split(rows, -(-len(rows) // 256))
    ]
    return principal(np.concatenate(small).reshape(len(rows), -1), PCA_SIZE)


def principal(vectors: np.ndarray, size: int) -> np.ndarray:
    """Coordinates on the first principal axes, `(N, size)`; fewer where there are fewer."""
    return principal_components(vectors, min(size, *vectors.shape))[0].astype(np.float32)


def cut_to(candidate: Candidate, size: int) -> Candidate:
    """The same candidate with `size` numbers, by PCA of its standardised vectors; of components, the first ones."""
    name = f"{candidate.name}, PCA {size}"
    if candidate.name.startswith("PCA "):  # standardised components are all alike: their own PCA would be arbitrary
        return Candidate(name, candidate.vectors[:, :size])
    standardised = standardise(candidate.vectors, np.ones(len(candidate.vectors), dtype=bool))
    return Candidate(name, principal(standardised, size))


def open_sharp(store: TileStore, cache_dir: Path) -> TileStore:
    """The same tiles at the size of their files, at most 256 px."""
    with Image.open(store.tile_path(0, 0)) as image:
        return open_at(store, min(image.width, SHAPE_PX), cache_dir)


def open_at(store: TileStore, size: int, cache_dir: Path) -> TileStore:
    """The same tiles at another size in pixels."""
    return open_store(store.tiles_root, size, zoom=store.zoom, cache_dir=cache_dir, tms=store.tms, quick=True)
