"""Run an encoder over the tiles of a store and over any places between them.

Not a command. `python precompute_embeddings.py` uses it.
"""

import copy
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from cli import UserError
from data_loader import TileDataset
from devices import compute_dtype, network_input
from layers import LAYERS
from model import Encoder
from progress_bars import progress
from tile_grid import MAX_LATITUDE, area_bounds, tile_of_latlon
from tile_store import TileStore

SMALL_MAPS = 16  # the multiscale encoder keeps this many times less per pixel
BATCH_PIXELS = {"cpu": 1 << 18, "cuda": 1 << 23, "mps": 1 << 21}  # pixels of one layer per batch, unless --batch_size


class Embedder:
    """An encoder and the tiles of a store on one device, ready to compute vectors.

    The tiles are copied to the device once, and the encoder is prepared once, for the life of this object. `device`
    moves the encoder; without it the tiles go where the encoder is.
    """

    def __init__(
        self,
        encoder: nn.Module,
        store: TileStore,
        device: torch.device | str | None = None,
        batch_size: int | None = None,
    ):
        if device is not None:
            encoder.to(device)
        config: Any = encoder.config
        self.store, self.encoder, self.dimension = store, encoder, int(config.embedding_dim)
        self.device = next(encoder.parameters()).device
        self.batch_size = batch_size or default_batch_size(encoder, self.device, store.tile_size)
        self.tiles = TileDataset(store, self.device)
        self.network = fast_forward(encoder)

    def embed_tiles(self, rows: np.ndarray) -> np.ndarray:
        """The vectors `(n, D) float32` of the store's `rows (n,)`."""
        return self._joined(self.embed_batches(rows))

    def embed_batches(self, rows: np.ndarray) -> Iterator[np.ndarray]:
        """The vectors of the store's `rows`, one batch at a time, so that memory stays small. Shows progress."""
        with progress(total=len(rows), desc="embedding tiles", unit="tile") as bar:
            for vectors in self.forward(lambda rows: self._inputs(self.store.tile_xy[rows] + 0.5), np.asarray(rows)):
                yield vectors
                bar.update(len(vectors))

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
        return self._joined(self.forward(self._inputs, centre))

    def embed_without(self, pairs: np.ndarray) -> np.ndarray:
        """The vectors `(M, D) float32` of tiles without a part; `pairs (M, 2)` are the store's row and the part.

        Parts 0 to L - 1 are the layers, which are blanked, also in the surroundings. For an encoder that sees the
        surroundings, part L is the tile itself and part L + 1 its surroundings.
        """
        count = len(LAYERS)

        def load(pairs: np.ndarray) -> tuple[Tensor, ...]:
            rows, part = pairs.T
            inputs = self._inputs(self.store.tile_xy[rows] + 0.5)
            layered = np.flatnonzero(part < count)
            for tensor in inputs:
                for first in range(0, tensor.shape[1] - 1, count):  # the last channel of surroundings is a mask
                    tensor[layered, part[layered] + first] = 0
            if not self.encoder.uses_surroundings:
                return inputs
            keep = np.stack([part != count, part != count + 1, part != count + 1], axis=1)
            return (*inputs, torch.from_numpy(keep).to(self.device))

        return self._joined(self.forward(load, np.asarray(pairs)))

    def forward(
        self,
        load: Callable[[np.ndarray], tuple[Tensor, ...]],
        items: np.ndarray,
        network: Callable[..., Tensor] | None = None,
    ) -> Iterator[np.ndarray]:
        """The vectors of `items`, one batch at a time; `load` gives the inputs of `network` for a batch of them.

        The default is the encoder's network.

        A thread loads the next batch while the network runs. Results are copied back one batch late, because a copy
        waits for the GPU, which by then already works on the next batch.
        """
        network, previous = network or self.network, None
        with ThreadPoolExecutor(1) as pool:
            starts = range(0, len(items), self.batch_size)
            batches = (pool.submit(load, items[start : start + self.batch_size]) for start in starts)
            loading = next(batches, None)
            while loading is not None:
                inputs = loading.result()
                loading = next(batches, None)
                current = network(*inputs)
                if previous is not None:
                    yield previous.cpu().numpy()
                previous = current
        if previous is not None:
            yield previous.cpu().numpy()

    def _joined(self, batches: Iterable[np.ndarray]) -> np.ndarray:
        return np.concatenate([np.empty((0, self.dimension), np.float32), *batches])


def default_batch_size(encoder: nn.Module, device: torch.device, tile_size: int) -> int:
    """Tiles per batch that keep the device busy without much memory (about 0.2 GB on a CPU)."""
    pixels = BATCH_PIXELS[device.type] * (SMALL_MAPS if encoder.uses_surroundings else 1)
    return max(1, pixels // tile_size**2)


def fast_forward(encoder: nn.Module) -> Callable[..., Tensor]:
    """The encoder's forward pass for embedding: unit vectors `(B, D) float32` of what `TileDataset.inputs` gives.

    The published network runs with batch norm folded into its convolutions, which use the device's precision
    (`compute_dtype`): in bfloat16 the vectors have a cosine of more than 0.9999 with those in float32. Its head runs in
    float32: rounding there would blur the distances between near neighbours. Other encoders run as they are; one that
    sees the surroundings also takes `keep (B, 3) bool`, which of its scales to use.
    """
    if not isinstance(encoder, Encoder):
        other: Any = encoder

        def plain(*inputs: Tensor) -> Tensor:
            with torch.inference_mode():
                if len(inputs) == 4:
                    return other.final(other(*inputs[:3], keep=inputs[3][None])[:, 0])
                return other(*inputs)

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
