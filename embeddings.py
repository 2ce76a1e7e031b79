"""One vector for every tile of a city and for any latitude/longitude, with facts about each tile, cached by content.

Not a command itself. `python precompute_embeddings.py` fills its cache, searches and exports.
"""

import copy
import dataclasses
import hashlib
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from datetime import timedelta
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from cli import TilesFlags, UserError, progress, warn
from data_loader import LAYERS, DeviceTiles, TileStore, latlon_of_tile, open_store, tile_of_latlon
from files import DamagedFile, digest, load_cache, locked, save_cache
from model import Checkpoint, Encoder, build_encoder, compute_dtype, load_checkpoint, pick_device

ZONES = ("Centre", "North", "Northeast", "East", "Southeast", "South", "Southwest", "West", "Northwest")
VECTORS_FORMAT = 1
PICTURE_PX = 128  # edge of the tiles that people look at, where the network sees smaller ones
_FORMAT_KEY = f"vectors-{VECTORS_FORMAT}"

THIN_MASS = 0.02  # a layer that covers less than this of a tile is a hairline, however rare it is elsewhere
BATCH_PIXELS = {"cpu": 1 << 18, "cuda": 1 << 23, "mps": 1 << 21}  # pixels of one layer per batch, unless --batch_size


# --- facts about tiles -------------------------------------------------------------------------------------


def layer_prominence(store: TileStore) -> np.ndarray:
    """How much each layer catches the eye on each tile, `(N, 12) float32`, 0 where it is blank.

    Fills (landcover) carry a hundred times the mass of lines and dots (power, places), so that plain mass would call
    nearly every tile landcover. A layer counts by its mass relative to what it usually has on the tiles of this city
    where it is drawn at all; `THIN_MASS` is added to that, so that a rare hairline does not outshine a whole quarter.
    """
    mass = store.layer_mass
    drawn = (mass > 0).sum(axis=0)
    usual = mass.sum(axis=0) / np.maximum(drawn, 1)
    return mass / (usual + THIN_MASS)


def dominant_layers(store: TileStore) -> np.ndarray:
    """The most prominent layer of each tile, `(N,) int8` index into `LAYERS`; -1 for a blank tile."""
    prominence = layer_prominence(store)
    return np.where(prominence.any(axis=1), prominence.argmax(axis=1), -1).astype(np.int8)


def content_density(store: TileStore) -> np.ndarray:
    """How much the map says about each tile, `(N,) float32`: 0 is a blank tile, 1 one whose 12 layers are all full.

    The mean over the layers of how full each is, where full is the mass that one in twenty tiles with that layer
    exceeds: every layer counts alike, so a built-up crossing is denser than a forest that fills its tile.
    """
    mass = store.layer_mass
    full = np.array([np.percentile(layer[layer > 0], 95) if layer.any() else 1.0 for layer in mass.T])
    return np.minimum(mass / full, 1).mean(axis=1).astype(np.float32)


def compass_zones(tile_xy: np.ndarray) -> np.ndarray:
    """Geographic zone of each tile, `(N,) int8` index into `ZONES`.

    The centre is a disc round the middle of the area's bounding box that holds a ninth of it; the rest is eight
    sectors of 45 degrees.
    """
    low, high = tile_xy.min(axis=0).astype(np.float64), tile_xy.max(axis=0).astype(np.float64)
    east, south = (tile_xy - (low + high) / 2).T
    radius = math.sqrt((high - low + 1).prod() / (9 * math.pi))
    sector = np.round(np.arctan2(east, -south) / (math.pi / 4)).astype(np.int64) % 8
    return np.where(np.hypot(east, south) <= radius, 0, sector + 1).astype(np.int8)


# --- vectors and facts -------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Embeddings:
    """Vectors of N tiles and facts about them.

    `tile_xy (N, 2) int32`; `vectors (N, D) float32` of unit length; `dominant_layer (N,) int8` into `LAYERS`, -1 for
    a blank tile; `zone (N,) int8` into `ZONES`; `density (N,) float32` 0 to 1; `blank (N,) bool`. `content (N,)
    uint64` is a digest of each tile's pixels. `key` names the vectors: equal for an equal checkpoint, equal tiles and
    an equal choice of them, in any folder and any process.
    """

    tile_xy: np.ndarray
    vectors: np.ndarray
    zoom: int
    key: str
    dominant_layer: np.ndarray
    zone: np.ndarray
    density: np.ndarray
    blank: np.ndarray
    content: np.ndarray
    model_key: str

    def __len__(self) -> int:
        return len(self.tile_xy)

    @cached_property
    def latlon(self) -> np.ndarray:
        """Latitude and longitude of the tile centres, `(N, 2) float64`, in degrees."""
        return latlon_of_tile(self.tile_xy + 0.5, self.zoom)

    @cached_property
    def _row_of(self) -> tuple[np.ndarray, np.ndarray]:
        codes = _codes(self.tile_xy)
        order = np.argsort(codes)
        return codes[order], order

    def rows(self, tile_xy: np.ndarray) -> np.ndarray:
        """Row of each coordinate of `tile_xy (..., 2)`, -1 where there is no tile."""
        codes, order = self._row_of
        wanted = _codes(np.asarray(tile_xy))
        at = np.minimum(np.searchsorted(codes, wanted), len(codes) - 1)
        return np.where(codes[at] == wanted, order[at], -1)

    def take(self, rows: np.ndarray) -> "Embeddings":
        """Only the tiles of `rows`, in that order; the key follows the choice."""
        picked = {name: getattr(self, name)[rows] for name in _PER_TILE}
        key = _embeddings_key(self.model_key, picked["tile_xy"], picked["content"])
        return Embeddings(**picked, zoom=self.zoom, key=key, model_key=self.model_key)

    def with_content(self) -> "Embeddings":
        """Only the tiles on which something is drawn: what is searched and projected."""
        return self if not self.blank.any() else self.take(np.flatnonzero(~self.blank))


_PER_TILE = ("tile_xy", "vectors", "dominant_layer", "zone", "density", "blank", "content")


def _codes(tile_xy: np.ndarray) -> np.ndarray:
    return (tile_xy[..., 0].astype(np.int64) << 32) + tile_xy[..., 1]


def _embeddings_key(model_key: str, tile_xy: np.ndarray, content: np.ndarray) -> str:
    return digest(_FORMAT_KEY, model_key, tile_xy, content)


@dataclasses.dataclass
class City:
    """A city seen by one checkpoint: its packed tiles and their vectors.

    `rows` are the store's rows of the embedded tiles. `computed` counts the tiles that `load_city` embedded, `reused`
    those whose vector it had, `seconds` how long all of that took.
    """

    store: TileStore
    checkpoint: Checkpoint
    embeddings: Embeddings
    rows: np.ndarray
    device_name: str = "auto"
    cache_dir: Path = TilesFlags.cache_dir
    computed: int = 0
    reused: int = 0
    seconds: float = 0.0

    @cached_property
    def pictures(self) -> TileStore:
        """The same tiles, row by row, sharp enough to look at where the network sees smaller ones."""
        if self.store.tile_size >= PICTURE_PX:
            return self.store
        sharp = open_store(
            self.store.tiles_root, PICTURE_PX, zoom=self.store.zoom, cache_dir=self.cache_dir, quick=True
        )
        return sharp if np.array_equal(sharp.tile_xy, self.store.tile_xy) else self.store

    @cached_property
    def device(self) -> torch.device:
        """Where the encoder runs."""
        return pick_device(self.device_name)

    @cached_property
    def encoder(self) -> Encoder:
        """The encoder, built when it is first needed."""
        return build_encoder(self.checkpoint, self.device)


def load_city(
    tiles: TilesFlags,
    model_path: Path | str,
    *,
    device: str = "auto",
    batch_size: int | None = None,
    max_tiles: int | None = None,
    seed: int = 42,
    force: bool = False,
    cached_only: bool = False,
    quick: bool = False,
) -> City:
    """Open a city's tiles as the checkpoint wants them and get a vector for each, from the cache where it has one.

    `max_tiles` picks that many tiles with content, spread evenly over the city. `force` embeds all of them anew;
    `cached_only` raises `UserError` instead of embedding; `quick` opens the pack as `open_store` describes it. Under
    `torchrun` the ranks share the tiles out and rank 0 writes. When the work is stopped, the vectors that are finished
    are kept.
    """
    started = time.perf_counter()
    checkpoint = load_checkpoint(model_path)
    if checkpoint.zoom != tiles.zoom:
        raise UserError(
            f"{model_path} was trained on tiles of zoom {checkpoint.zoom}, these have zoom {tiles.zoom}; "
            f"pass --zoom {checkpoint.zoom}, or train on zoom {tiles.zoom}"
        )
    ranks = Ranks()
    with ranks.first_then_others():
        store = _open(tiles, checkpoint, quick=quick)
    cache = _VectorCache(tiles, checkpoint)
    rows = pick_rows(store, max_tiles, seed)
    content = tile_contents(store, rows)
    todo = ranks.share(content if force else cache.missing(content))
    if len(todo) and not cached_only:
        if not store.whole(rows[np.isin(content, todo)]).all():
            with ranks.first_then_others():
                store = _open(tiles, checkpoint, verify=True)
            rows = pick_rows(store, max_tiles, seed)
            content = tile_contents(store, rows)
        work = _Work(store, rows, content, build_encoder(checkpoint, ranks.device(device)), batch_size)
        todo = cache.fill(work, ranks, force)
    city = City(store, checkpoint, _embeddings(store, rows, content, cache), rows, device, tiles.cache_dir)
    city.computed = int(np.isin(content, todo).sum())
    city.reused, city.seconds = len(rows) - city.computed, time.perf_counter() - started
    return city


def _open(tiles: TilesFlags, checkpoint: Checkpoint, verify: bool = False, quick: bool = False) -> TileStore:
    return open_store(
        tiles.tiles_root,
        checkpoint.tile_size,
        zoom=tiles.zoom,
        shrink=checkpoint.shrink,
        cache_dir=tiles.cache_dir,
        verify=verify,
        quick=quick,
    )


def _embeddings(store: TileStore, rows: np.ndarray, content: np.ndarray, cache: "_VectorCache") -> Embeddings:
    """Look the vectors up and work the facts out, over the whole city, for the tiles of `rows`."""
    tile_xy, model_key = store.tile_xy[rows], cache.model_key
    return Embeddings(
        tile_xy=tile_xy,
        vectors=cache.vectors(content),
        zoom=store.zoom,
        key=_embeddings_key(model_key, tile_xy, content),
        dominant_layer=dominant_layers(store)[rows],
        zone=compass_zones(store.tile_xy)[rows],
        density=content_density(store)[rows],
        blank=store.blank[rows],
        content=content,
        model_key=model_key,
    )


def pick_rows(store: TileStore, max_tiles: int | None = None, seed: int = 42) -> np.ndarray:
    """Rows of the store to embed, sorted: all of them, or at most `max_tiles` with content, spread evenly.

    The sample takes one tile from each of `max_tiles` equal stretches of a Hilbert curve over the city.
    """
    if max_tiles is None:
        return np.arange(len(store))
    drawn = np.flatnonzero(~store.blank)
    if not len(drawn):
        raise UserError(f"every tile of {store.tiles_root} is blank; draw another area with render_tiles.py")
    if max_tiles >= len(drawn):
        return drawn
    along = drawn[np.argsort(_hilbert(store.tile_xy[drawn]), kind="stable")]
    edges = np.arange(max_tiles + 1) * len(drawn) // max_tiles
    chosen = edges[:-1] + np.random.default_rng(seed).random(max_tiles) * np.diff(edges)
    return np.sort(along[chosen.astype(np.int64)])


def _hilbert(tile_xy: np.ndarray) -> np.ndarray:
    """Position of each tile along a Hilbert curve over the area, `(N,) int64`."""
    x, y = (tile_xy - tile_xy.min(axis=0)).T.astype(np.int64)
    position = np.zeros(len(x), dtype=np.int64)
    side = 1 << int(max(x.max(), y.max(), 1)).bit_length()
    while side := side >> 1:
        right, below = (x & side) > 0, (y & side) > 0
        position += side * side * ((3 * right) ^ below)
        mirrored = right & ~below
        x, y = np.where(mirrored, side - 1 - (x & (side - 1)), x), np.where(mirrored, side - 1 - (y & (side - 1)), y)
        x, y = np.where(below, x, y), np.where(below, y, x)
    return position


# --- the cache of vectors ----------------------------------------------------------------------------------


def tile_contents(store: TileStore, rows: np.ndarray) -> np.ndarray:
    """Digest of each tile's pixels, `(n,) uint64`: tiles that look alike in all layers share one."""
    planes = store.plane_digest[store.plane_of[rows]].reshape(len(rows), -1)
    digests = (hashlib.blake2b(row, digest_size=8).digest() for row in planes)
    return np.frombuffer(b"".join(digests), dtype=np.uint64)


@dataclasses.dataclass
class _Work:
    """What has to be embedded and with what."""

    store: TileStore
    rows: np.ndarray
    content: np.ndarray
    encoder: Encoder
    batch_size: int | None


class _VectorCache:
    """The vectors of a city's distinct tiles under one checkpoint, found by the tiles' content.

    One file per checkpoint, tiles folder and way of shrinking. A tile that changed is a tile that is not there:
    nothing else is embedded again, and what no tile of the city looks like any more is dropped at the next writing.
    """

    def __init__(self, tiles: TilesFlags, checkpoint: Checkpoint):
        self.model_key = checkpoint.key()
        name = digest([str(Path(tiles.tiles_root).resolve()), tiles.zoom, self.model_key])[:16]
        self.path = Path(tiles.cache_dir) / f"vectors-{name}.l2v"
        self.dimension = checkpoint.encoder_config["embedding_dim"]
        self.damaged = False
        self.read()

    def read(self) -> None:
        """Load the file; a damaged one counts as empty."""
        loaded = None
        try:
            loaded = load_cache(self.path, _FORMAT_KEY)
        except DamagedFile as error:
            if not self.damaged:
                warn(f"{error}; its tiles have to be embedded again")
            self.damaged = True
        empty = {"content": np.empty(0, np.uint64), "vectors": np.empty((0, self.dimension), np.float32)}
        self.known = loaded[0] if loaded else empty

    def missing(self, content: np.ndarray) -> np.ndarray:
        """The distinct ones among `content` that have no vector."""
        return np.setdiff1d(content, self.known["content"])

    def vectors(self, content: np.ndarray) -> np.ndarray:
        """The vectors `(n, D)` of `content (n,)`. Raises `UserError` when some are not there."""
        if len(missing := self.missing(content)):
            lost = int(np.isin(content, missing).sum())
            raise UserError(
                f"{lost:,} of {len(content):,} tiles have no cached vector in {self.path.parent}; "
                "run `python precompute_embeddings.py` without --skip_embeddings first"
            )
        return self.known["vectors"][np.searchsorted(self.known["content"], content)]

    def fill(self, work: _Work, ranks: "Ranks", force: bool) -> np.ndarray:
        """Embed what is missing (or all with `force`), write it, and return the content that was embedded."""
        with locked(self.path.with_suffix(".lock")) if ranks.first else nullcontext():
            self.read()
            todo = ranks.share(np.unique(work.content) if force else self.missing(work.content))
            mine = np.array_split(todo, ranks.count)[ranks.rank]
            parts: list[np.ndarray] = [np.empty((0, self.dimension), np.float32)]
            try:
                rows = work.rows[_first_of(work.content, mine)]
                parts.extend(embed_batches(work.encoder, work.store, rows, work.batch_size))
            except BaseException:
                if ranks.count == 1:
                    self._write(work.store, mine, np.concatenate(parts))
                raise
            fresh = ranks.gather(np.concatenate(parts), len(todo))
            if ranks.first:
                self._write(work.store, todo, fresh)
            ranks.wait()
        self.read()
        return todo

    def _write(self, store: TileStore, content: np.ndarray, vectors: np.ndarray) -> None:
        """Write the fresh vectors and the known ones that some tile of the city still needs.

        `vectors` may be fewer than `content` when the work was stopped: they belong to the first ones.
        """
        content = content[: len(vectors)]
        kept = np.isin(self.known["content"], tile_contents(store, np.arange(len(store))))
        kept &= ~np.isin(self.known["content"], content)
        content = np.concatenate([self.known["content"][kept], content])
        vectors = np.concatenate([self.known["vectors"][kept], vectors])
        order = np.argsort(content)
        save_cache(self.path, _FORMAT_KEY, {"content": content[order], "vectors": vectors[order]})


def _first_of(content: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Index of the first occurrence in `content` of each of `wanted`."""
    distinct, first = np.unique(content, return_index=True)
    return first[np.searchsorted(distinct, wanted)]


# --- several processes -------------------------------------------------------------------------------------


class Ranks:
    """The processes that `torchrun` started, or just this one."""

    def __init__(self) -> None:
        self.count, self.rank = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))
        if self.count > 1 and not torch.distributed.is_initialized():
            torch.distributed.init_process_group("gloo", timeout=timedelta(days=1))

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes and prints."""
        return self.rank == 0

    def device(self, name: str) -> torch.device:
        """The device of this process: several on one machine take one GPU each."""
        device = pick_device(name)
        if device.type == "cuda" and self.count > 1:
            return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)) % torch.cuda.device_count())
        return device

    def close(self) -> None:
        """Leave the group of processes."""
        if self.count > 1 and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()

    def wait(self) -> None:
        """Return once every process came here."""
        if self.count > 1:
            torch.distributed.barrier()

    def first_then_others(self) -> "_FirstThenOthers":
        """Context that the first process leaves before the others enter it."""
        return _FirstThenOthers(self)

    def share(self, array: np.ndarray) -> np.ndarray:
        """The first process's array, in every process; all arrays are one-dimensional and of 8-byte numbers."""
        if self.count == 1:
            return array
        length = torch.tensor([len(array)])
        torch.distributed.broadcast(length, 0)
        tensor = torch.empty(int(length), dtype=torch.int64)
        if self.first:
            tensor = torch.from_numpy(array.view(np.int64).copy())
        torch.distributed.broadcast(tensor, 0)
        return tensor.numpy().view(array.dtype)

    def gather(self, part: np.ndarray, total: int) -> np.ndarray:
        """All parts `(n_rank, D)`, as `np.array_split` cut them, put together `(total, D)`, in the first process."""
        if self.count == 1:
            return part
        whole = torch.zeros((total, part.shape[1]))
        mine = np.array_split(np.arange(total), self.count)[self.rank]
        whole[torch.from_numpy(mine)] = torch.from_numpy(part)
        torch.distributed.reduce(whole, 0)
        return whole.numpy()


class _FirstThenOthers:
    def __init__(self, ranks: Ranks):
        self.ranks = ranks

    def __enter__(self) -> None:
        if not self.ranks.first:
            self.ranks.wait()

    def __exit__(self, kind: type | None, *_: object) -> None:
        if self.ranks.first and kind is None:
            self.ranks.wait()


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
