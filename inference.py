"""Run an encoder over tiles and places in batches.

Not a command. `python precompute_embeddings.py` shows it at work.
"""

import copy
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from cli import UserError
from data_loader import DeviceTiles
from devices import compute_dtype
from layers import LAYERS
from model import Encoder
from progress_bars import progress
from tile_grid import latlon_of_tile, tile_of_latlon
from tile_store import TileStore

BATCH_PIXELS = {"cpu": 1 << 18, "cuda": 1 << 23, "mps": 1 << 21}  # pixels of one layer per batch, unless --batch_size


# --- embedding ---------------------------------------------------------------------------------------------


def embed_tiles(
    encoder: Encoder,
    store: TileStore,
    rows: np.ndarray,
    device: torch.device | str | None = None,
    batch_size: int | None = None,
) -> np.ndarray:
    """The vectors `(n, D) float32` of the store's `rows`; `device` moves the encoder there first."""
    _moved(encoder, device)
    return _joined(encoder, embed_batches(encoder, store, np.asarray(rows), batch_size))


def embed_batches(
    encoder: Encoder, store: TileStore, rows: np.ndarray, batch_size: int | None = None
) -> Iterator[np.ndarray]:
    """The vectors of the store's `rows`, batch by batch; memory is bounded by the batch. Shows progress."""
    device = next(encoder.parameters()).device
    batch_size = batch_size or default_batch_size(device, store.tile_size)
    tiles = DeviceTiles(store, device)
    chunks = _chunks(rows, batch_size)
    with progress(total=len(rows), desc="embedding tiles", unit="tile") as bar:
        for vectors in _forward_all(encoder, tiles.tiles, chunks):
            yield vectors
            bar.update(len(vectors))


def default_batch_size(device: torch.device, tile_size: int) -> int:
    """Tiles per batch that keep the device busy without much memory (about 0.2 GB on a CPU)."""
    return max(1, BATCH_PIXELS[device.type] // tile_size**2)


def _forward_all(encoder: Encoder, load: Callable[..., Tensor], chunks: list[np.ndarray]) -> Iterator[np.ndarray]:
    """Vectors of each chunk, while a thread assembles the next one and a GPU works a batch ahead of the copy back."""
    network = fast_forward(encoder)
    previous = None
    with ThreadPoolExecutor(1) as pool:
        pending = pool.submit(network_input, load, chunks[0]) if chunks else None
        for following in [*chunks[1:], None] if chunks else []:
            tiles = pending.result()
            if following is not None:
                pending = pool.submit(network_input, load, following)
            current = network(tiles)
            if previous is not None:
                yield previous.cpu().numpy()
            previous = current
    if previous is not None:
        yield previous.cpu().numpy()


def network_input(load: Callable[..., Tensor], chunk: np.ndarray) -> Tensor:
    """What `load` gives for a chunk as `(B, 12, S, S)` in 0..1, `channels_last`, in the device's precision."""
    tiles = load(chunk).contiguous(memory_format=torch.channels_last)
    return tiles.to(compute_dtype(tiles.device)).div_(255)


def fast_forward(encoder: Encoder) -> Callable[[Tensor], Tensor]:
    """The encoder's forward pass for embedding: unit vectors `(B, D) float32` of what `network_input` gives.

    Batch norm is folded into the convolutions, which run in the device's precision (`compute_dtype`): in bfloat16 the
    vectors have a cosine of more than 0.9999 with the float32 ones. The head runs in float32, where
    rounding would blur the distances between near neighbours and costs nothing to avoid.
    """
    blocks = copy.deepcopy(encoder.blocks).eval()
    for block in blocks:
        block[0], block[1] = fuse_conv_bn_eval(block[0], block[1]), nn.Identity()
    blocks = blocks.to(compute_dtype(next(encoder.parameters()).device))

    def network(tiles: Tensor) -> Tensor:
        with torch.inference_mode():
            return encoder.vectors(encoder.head(blocks(tiles).float()), tiles)

    return network


def precision_name(device: torch.device) -> str:
    """The name of the precision the network runs in on this device."""
    return str(compute_dtype(device)).removeprefix("torch.")


def _moved(encoder: Encoder, device: torch.device | str | None) -> torch.device:
    """Move the encoder to `device`, if one is named, and tell where it is."""
    if device is not None:
        encoder.to(device)
    return next(encoder.parameters()).device


def _chunks(items: np.ndarray, size: int) -> list[np.ndarray]:
    return [items[start : start + size] for start in range(0, len(items), size)]


def _joined(encoder: Encoder, parts: Iterable[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.empty((0, encoder.config.embedding_dim), np.float32), *parts])


def embed_places(
    encoder: Encoder, store: TileStore, latlon: np.ndarray, device: torch.device | str | None = None
) -> np.ndarray:
    """The vectors `(M, D) float32` of any places `latlon (M, 2)` in degrees.

    Each place's window, one tile wide, is cut around it out of up to four tiles. Raises `UserError` for a place on
    which no tile lies.
    """
    latlon = _checked_latlon(latlon)
    at = tile_of_latlon(*latlon.T, store.zoom)
    outside = store.grid.rows(np.floor(at).astype(np.int64)) < 0
    if outside.any():
        raise UserError(_outside(store, latlon[outside][0]))
    origin = np.round((at - 0.5) * store.tile_size).astype(np.int64)
    device = _moved(encoder, device)
    chunks = _chunks(origin, default_batch_size(device, store.tile_size))
    return _joined(encoder, _forward_all(encoder, DeviceTiles(store, device).windows, chunks))


def _checked_latlon(latlon: np.ndarray) -> np.ndarray:
    latlon = np.asarray(latlon, dtype=np.float64).reshape(-1, 2)
    wrong = ~((np.abs(latlon[:, 0]) <= 85.05) & (np.abs(latlon[:, 1]) <= 180))
    if wrong.any():
        raise UserError(
            f"latitude {latlon[wrong][0, 0]:g}, longitude {latlon[wrong][0, 1]:g} is no place on the map; "
            "expected degrees, latitude first, -85.05 to 85.05, then longitude, -180 to 180"
        )
    return latlon


def _outside(store: TileStore, place: np.ndarray) -> str:
    low, high = store.tile_xy.min(axis=0), store.tile_xy.max(axis=0) + 1
    (north, west), (south, east) = latlon_of_tile(np.array([low, high]), store.zoom)
    return (
        f"no tile lies at latitude {place[0]:g}, longitude {place[1]:g}; the tiles of {store.tiles_root} cover "
        f"latitude {south:.4f} to {north:.4f}, longitude {west:.4f} to {east:.4f}"
    )


# --- why two tiles match -----------------------------------------------------------------------------------


def vectors_without(
    encoder: Encoder, store: TileStore, pairs: np.ndarray, device: torch.device | str | None = None
) -> np.ndarray:
    """The vectors `(M, D) float32` of tiles with one layer blanked, for `pairs (M, 2)` of a store's row and a layer."""
    device = _moved(encoder, device)
    tiles = DeviceTiles(store, device)

    def load(chunk: np.ndarray) -> Tensor:
        batch = tiles.tiles(chunk[:, 0])
        batch[torch.arange(len(chunk)), torch.from_numpy(chunk[:, 1])] = 0
        return batch

    chunks = _chunks(np.asarray(pairs), default_batch_size(device, store.tile_size))
    return _joined(encoder, _forward_all(encoder, load, chunks))


def layer_contributions(
    encoder: Encoder,
    store: TileStore,
    row_a: int | np.ndarray,
    row_b: int | np.ndarray,
    device: torch.device | str | None = None,
) -> np.ndarray:
    """How much each layer adds to the cosine similarity of two tiles of the store, `(12,) float32`.

    It is the similarity minus the similarity with that layer blanked in both: above 0 the layer makes them alike,
    below 0 it tells them apart, and a layer that both lack adds exactly 0. Arrays of M rows give `(M, 12)`.
    """
    pairs = np.stack(np.broadcast_arrays(row_a, row_b), axis=-1)
    rows, inverse = np.unique(pairs, return_inverse=True)
    inverse = inverse.reshape(pairs.shape)
    whole = embed_tiles(encoder, store, rows, device)
    without = np.repeat(whole[:, None], len(LAYERS), axis=1)
    at, layer = np.nonzero(store.plane_of[rows])
    without[at, layer] = vectors_without(encoder, store, np.column_stack([rows[at], layer]))
    a, b = inverse[..., 0], inverse[..., 1]
    similarity = (whole[a] * whole[b]).sum(axis=-1)
    return similarity[..., None] - (without[a] * without[b]).sum(axis=-1)
