"""Run an encoder over the tiles of a store and over any places between them.

Not a command. `python precompute_embeddings.py` uses it.
"""

import copy
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from cli import UserError
from data_loader import TileDataset, copy_to
from devices import compute_dtype, network_input
from layers import LAYERS
from model import Encoder
from multiscale import MultiscaleEncoder
from progress_bars import progress
from tile_grid import MAX_LATITUDE, METATILE, area_bounds, metatile_starts, metatiles_of, tile_of_latlon
from tile_levels import FAR_TILES, NEAR_TILES, SURROUND_LAYERS
from tile_store import TileStore

SMALL_MAPS = 16  # the multiscale encoder keeps this many times less per pixel
SHARED_FROM = METATILE**2 // 4  # with so many tiles of a metatile it pays to compute the surroundings of all of them
SINGLES_AT_ONCE = 16  # other tiles are padded to a multiple of this
# Pixels of one layer per batch, unless --batch_size: they keep the device busy without much memory (0.2 GB on a CPU).
BATCH_PIXELS = {"cpu": 1 << 18, "cuda": 1 << 23, "mps": 1 << 21}


class Embedder:
    """An encoder and the tiles of a store on one device, ready to compute vectors.

    The tiles are copied to the device once if they fit, and the encoder is prepared once, for the life of this object.
    `device` moves the encoder; without it the tiles go where the encoder is. `resident` is that of `TileDataset`.
    """

    def __init__(
        self,
        encoder: nn.Module,
        store: TileStore,
        device: torch.device | str | None = None,
        batch_size: int | None = None,
        resident: bool | None = None,
    ):
        if device is not None:
            encoder.to(device)
        config: Any = encoder.config
        self.store, self.encoder, self.dimension = store, encoder, int(config.embedding_dim)
        self.device = next(encoder.parameters()).device
        pixels = BATCH_PIXELS[self.device.type] * (SMALL_MAPS if encoder.uses_surroundings else 1)
        self.batch_size = batch_size or max(1, pixels // store.tile_size**2)
        self.tiles = TileDataset(store, self.device, resident)
        self.network = fast_forward(encoder)

    def embed_tiles(self, rows: np.ndarray) -> np.ndarray:
        """The vectors `(n, D) float32` of the store's `rows (n,)`."""
        rows = np.asarray(rows)
        order = self.fast_order(rows)
        vectors = np.empty((len(rows), self.dimension), dtype=np.float32)
        vectors[order] = self._joined(self.embed_batches(rows[order]))
        return vectors

    def fast_order(self, rows: np.ndarray) -> np.ndarray:
        """The order `(n,)` in which `rows (n,)` are embedded fastest.

        An encoder that sees the surroundings shares work between neighbours.
        """
        if not isinstance(self.encoder, MultiscaleEncoder) or not len(rows):
            return np.arange(len(rows))
        return np.concatenate(metatiles_of(np.arange(len(rows)), self.store.tile_xy[rows]))

    def embed_batches(self, rows: np.ndarray) -> Iterator[np.ndarray]:
        """The vectors of the store's `rows`, one batch at a time, so that memory stays small. Shows progress.

        The order of `rows` does not change a vector, but `fast_order` is the fastest.
        """
        rows = np.asarray(rows)
        with progress(total=len(rows), desc="embedding tiles", unit="tile") as bar:
            if isinstance(self.encoder, MultiscaleEncoder):
                found = self.forward(self._load_neighbours, self._neighbours(rows), self._embed_neighbours)
            else:
                found = self.forward(lambda rows: self._inputs(self.store.tile_xy[rows] + 0.5), self._split(rows))
            for vectors in found:
                yield vectors
                bar.update(len(vectors))

    # The multiscale encoder sees neighbouring tiles in windows that overlap. What they have in common is computed once
    # for a metatile.

    def tile_input(self, rows: np.ndarray) -> tuple[Tensor, ...]:
        """The planes of the tiles `rows (B,)`, or the features that the encoder would compute of them."""
        return self.tiles.planes_of(rows)

    def _neighbours(self, rows: np.ndarray) -> Iterator[np.ndarray]:
        """Batches of `rows` that end where a metatile ends, if possible."""
        ends, start = metatile_starts(self.store.tile_xy[rows]).tolist(), 0
        for edge, after in pairwise([*ends, len(rows), len(rows) + self.batch_size + 1]):
            if after - start > self.batch_size:
                yield from self._split(rows[start:edge])
                start = edge

    def _load_neighbours(self, rows: np.ndarray) -> tuple[Any, ...]:
        """The tiles of `rows (B,)`, windows of surroundings, and which place in the windows belongs to each tile."""
        tile_xy = self.store.tile_xy[rows].astype(np.int64)
        metatile, inverse, counts = np.unique(tile_xy // METATILE, axis=0, return_inverse=True, return_counts=True)
        shared = counts >= SHARED_FROM
        number = np.cumsum(shared) - 1
        inverse = inverse.reshape(-1)
        x, y = (tile_xy % METATILE).T
        place = (number[inverse] * METATILE + y) * METATILE + x
        windows = []
        if shared.any():
            windows.append((METATILE, (metatile[shared] + 0.5) * METATILE))
        single = np.flatnonzero(~shared[inverse])
        if len(single):
            place[single] = shared.sum() * METATILE**2 + np.arange(len(single))
            count = -(-len(single) // SINGLES_AT_ONCE) * SINGLES_AT_ONCE
            windows.append((1, padded(tile_xy[single] + 0.5, count)))
        loaded = [
            (places, *(self.tiles.surroundings(centre, tiles, places) for tiles in (NEAR_TILES, FAR_TILES)))
            for places, centre in windows
        ]
        return self.tile_input(rows), copy_to(place, self.device), loaded

    def _embed_neighbours(
        self, tile: tuple[Tensor, ...], place: Tensor, windows: list[tuple[int, Tensor, Tensor]]
    ) -> Tensor:
        encoder: Any = self.encoder
        with torch.inference_mode():
            parts = [encoder.surround_features(near, far, places) for places, near, far in windows]
            near, far = (torch.cat(part)[place] for part in zip(*parts, strict=True))
            features = [self._tile_features(tile), near, far]
            # In batches of different sizes, sums are added up in another order.
            fill = max(0, self.batch_size - len(place))
            summaries = encoder.summaries([F.pad(part, (0, 0, 0, fill)) for part in features])
            return encoder.final(encoder.join(summaries))[: len(place)]

    def _tile_features(self, tile: tuple[Tensor, ...]) -> Tensor:
        """The features `(B, L * F)` of what `tile_input` gives."""
        encoder: Any = self.encoder
        return tile[0] if len(tile) == 1 else encoder.shared_tile_features(*tile)

    def _inputs(self, centre: np.ndarray) -> tuple[Tensor, ...]:
        return self.tiles.inputs(centre, bool(self.encoder.uses_surroundings))

    def embed_places(self, latlon: np.ndarray) -> np.ndarray:
        """The vectors `(M, D) float32` of any places `latlon (M, 2)` in degrees.

        Each vector is that of a window, one tile wide, whose centre is the place, and of its surroundings.
        Raises `UserError` for coordinates that are not on the map and for a place where there is no tile.
        """
        latlon = np.asarray(latlon, dtype=np.float64).reshape(-1, 2)
        valid = (np.abs(latlon[:, 0]) <= MAX_LATITUDE) & (np.abs(latlon[:, 1]) <= 180)
        if not valid.all():
            lat, lon = latlon[~valid][0]
            raise UserError(
                f"latitude {lat:g}, longitude {lon:g} is not on the map; expected degrees, latitude first, "
                f"-{MAX_LATITUDE:.2f} to {MAX_LATITUDE:.2f}, then longitude, -180 to 180"
            )
        centre = tile_of_latlon(latlon[:, 0], latlon[:, 1], self.store.zoom)
        covered = self.store.grid.rows(np.floor(centre).astype(np.int64)) >= 0
        if not covered.all():
            lat, lon = latlon[~covered][0]
            west, south, east, north = area_bounds(self.store.tile_xy, self.store.zoom)
            raise UserError(
                f"no tile lies at latitude {lat:g}, longitude {lon:g}; the tiles of {self.store.tiles_root} cover "
                f"latitude {south:.4f} to {north:.4f}, longitude {west:.4f} to {east:.4f}"
            )
        return self._joined(self.forward(self._inputs, self._split(centre)))

    def embed_without(self, pairs: np.ndarray) -> np.ndarray:
        """The vectors `(M, D) float32` of tiles without a part; `pairs (M, 2)` are the store's row and the part.

        Parts 0 to L - 1 are the layers, which are blanked, also in the surroundings. For an encoder that sees the
        surroundings, part L is the tile itself and part L + 1 its surroundings.
        """
        batches = self._split(np.asarray(pairs))
        if isinstance(self.encoder, MultiscaleEncoder):
            return self._joined(self.forward(self._load_without, batches, self._embed_without))

        def load(pairs: np.ndarray) -> tuple[Tensor, ...]:
            (tiles,) = self._inputs(self.store.tile_xy[pairs[:, 0]] + 0.5)
            tiles[np.arange(len(pairs)), pairs[:, 1]] = 0
            return (tiles,)

        return self._joined(self.forward(load, batches))

    # The multiscale encoder: a tile is measured once, however many of its parts are left out in turn.

    def _load_without(self, pairs: np.ndarray) -> tuple[Any, ...]:
        """What `_embed_without` takes for `pairs (B, 2)`: the tiles that occur, and which pair lacks what.

        `place (B,)` is the tile of each pair, `keep (B, 3)` the scales that it keeps. The pairs `blanked (M,)` lack the
        `layers (M,)`.
        """
        rows, part = pairs.T
        own, place = np.unique(rows, return_inverse=True)
        windows = [self.tiles.surroundings(self.store.tile_xy[own] + 0.5, tiles) for tiles in (NEAR_TILES, FAR_TILES)]
        count = len(LAYERS)
        keep = np.stack([part != count, part != count + 1, part != count + 1], axis=1)
        blanked = np.flatnonzero(part < count)
        where = [copy_to(array, self.device) for array in (place, keep, blanked, part[blanked])]
        return self.tile_input(own), windows, *where

    def _embed_without(
        self,
        tile: tuple[Tensor, ...],
        windows: list[Tensor],
        place: Tensor,
        keep: Tensor,
        blanked: Tensor,
        layers: Tensor,
    ) -> Tensor:
        encoder: Any = self.encoder
        with torch.inference_mode():
            features = [self._tile_features(tile), *encoder.surround_features(*windows)]
            features = [part[place] for part in features]
            if len(blanked):
                features[0].unflatten(1, (len(LAYERS), -1))[blanked, layers] = 0
                shown = torch.tensor([*SURROUND_LAYERS, -1], device=self.device) != layers[:, None]  # (M, channels)
                shown = shown.to(torch.uint8)[..., None, None]
                changed = encoder.surround_features(*(window[place[blanked]] * shown for window in windows))
                for part, without in zip(features[1:], changed, strict=True):
                    part[blanked] = without
            return encoder.final(encoder.join(encoder.summaries(features), keep))

    def _split(self, items: np.ndarray) -> Iterator[np.ndarray]:
        for start in range(0, len(items), self.batch_size):
            yield items[start : start + self.batch_size]

    def forward(
        self,
        load: Callable[[np.ndarray], tuple[Any, ...]],
        batches: Iterable[np.ndarray],
        network: Callable[..., Tensor] | None = None,
    ) -> Iterator[np.ndarray]:
        """The vectors of `batches`, one after the other; `load` gives the inputs of `network` for a batch.

        The default is the encoder's network. On a GPU, results are copied back one batch late, because a copy waits for
        the GPU, which by then already works on the next batch.
        """
        network = network or self.network
        if self.device.type == "cpu":
            yield from (network(*load(batch)).numpy() for batch in batches)
            return
        previous = None
        for inputs in self._loaded(load, batches):
            current = network(*inputs)
            if previous is not None:
                yield previous.cpu().numpy()
            previous = current
        if previous is not None:
            yield previous.cpu().numpy()

    def _loaded(
        self, load: Callable[[np.ndarray], tuple[Any, ...]], batches: Iterable[np.ndarray]
    ) -> Iterator[tuple[Any, ...]]:
        """The inputs of each batch. Beside CUDA, a thread loads the next ones while the network runs.

        MPS crashes when several threads use it (https://github.com/pytorch/pytorch/issues/197805).
        """
        if self.device.type != "cuda":
            yield from map(load, batches)
            return
        with ThreadPoolExecutor(1) as pool:
            futures = (pool.submit(load, batch) for batch in batches)
            loading = next(futures, None)
            while loading is not None:
                inputs = loading.result()
                loading = next(futures, None)
                yield inputs

    def _joined(self, batches: Iterable[np.ndarray]) -> np.ndarray:
        return np.concatenate([np.empty((0, self.dimension), np.float32), *batches])


def padded(items: np.ndarray, size: int) -> np.ndarray:
    """`items (n, ...)` and copies of the first one, `size` in all.

    A network that runs on batches of one size gives a vector that does not depend on how many others it is computed
    with: in batches of different sizes, sums are added up in another order.
    """
    return np.concatenate([items, np.repeat(items[:1], size - len(items), axis=0)]) if len(items) < size else items


def fast_forward(encoder: nn.Module) -> Callable[..., Tensor]:
    """The encoder's forward pass for embedding: unit vectors `(B, D) float32` of what `TileDataset.inputs` gives.

    The published network runs with batch norm folded into its convolutions, which use the device's precision
    (`compute_dtype`): in bfloat16 the vectors have a cosine of more than 0.9999 with those in float32. Its head runs in
    float32: rounding there would blur the distances between near neighbours. Other encoders run as they are.
    """
    if not isinstance(encoder, Encoder):

        def plain(*inputs: Tensor) -> Tensor:
            with torch.inference_mode():
                return encoder(*inputs)

        return plain
    blocks, dtype = copy.deepcopy(encoder.blocks).eval(), compute_dtype(next(encoder.parameters()).device)
    for block in blocks:
        assert isinstance(block, nn.Sequential)
        convolution, norm = block[0], block[1]
        assert isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
        block[0], block[1] = fuse_conv_bn_eval(convolution, norm), nn.Identity()
    blocks = blocks.to(dtype)

    def folded(tiles: Tensor) -> Tensor:
        with torch.inference_mode():
            return encoder.unit_vectors(blocks(network_input(tiles, dtype)).float())

    return folded


def precision_name(encoder: nn.Module) -> str:
    """The name of the precision in which most of the encoder runs; see `fast_forward`."""
    dtype = compute_dtype(next(encoder.parameters()).device) if isinstance(encoder, Encoder) else torch.float32
    return str(dtype).removeprefix("torch.")
