"""A city as one checkpoint sees it: its packed tiles, a vector for each, and facts about each tile.

Not a command. `python precompute_embeddings.py` fills its cache of vectors, searches and exports.
"""

import dataclasses
import hashlib
import importlib
import time
from contextlib import nullcontext
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from cache_files import DamagedFile, load_cache, save_cache
from checkpoint import Checkpoint, build_encoder
from cli import TilesFlags, UserError
from devices import pick_device
from distributed import ProcessGroup
from files import digest, locked
from inference import Embedder
from pretrained import load_model
from progress_bars import warn
from tile_facts import LayerScale, compass_zones, content_density, dominant_layers, layer_scale
from tile_files import read_manifest
from tile_grid import TileIndex, hilbert_order, latlon_of_tile
from tile_levels import FAR_TILES
from tile_store import TileStore, open_store

PICTURE_PX = 128  # edge of the tiles that people look at, if the network sees smaller ones
CACHE_FORMAT = "vectors-1"


def __getattr__(name: str) -> Any:
    """`LocationEncoder` and `LocationEmbedder` have a module of their own, which is slow to import."""
    if name in ("LocationEncoder", "LocationEmbedder"):
        return getattr(importlib.import_module("location_encoder"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


# --- vectors and facts -------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Embeddings:
    """Vectors of N tiles and facts about them.

    `tile_xy (N, 2) int32`; `vectors (N, D) float32` of unit length; `dominant_layer (N,) int8` into `LAYERS`, -1 for
    a blank tile; `zone (N,) int8` into `ZONES`; `density (N,) float32` 0 to 1; `blank (N,) bool`; `layer_intensity
    (N, L) float32`, the mean brightness of each layer, 0 to 1. `content (N,) uint64` is a digest of each tile's pixels.
    `key` names the vectors: it is equal for an equal checkpoint, equal tiles and an equal choice of them, in any folder
    and any process.
    """

    tile_xy: np.ndarray
    vectors: np.ndarray
    zoom: int
    key: str
    dominant_layer: np.ndarray
    zone: np.ndarray
    density: np.ndarray
    blank: np.ndarray
    layer_intensity: np.ndarray
    content: np.ndarray
    model_key: str

    def __len__(self) -> int:
        return len(self.tile_xy)

    @cached_property
    def latlon(self) -> np.ndarray:
        """Latitude and longitude of the tile centres, `(N, 2) float64`, in degrees."""
        return latlon_of_tile(self.tile_xy + 0.5, self.zoom)

    @cached_property
    def _index(self) -> TileIndex:
        return TileIndex(self.tile_xy)

    def rows(self, tile_xy: np.ndarray) -> np.ndarray:
        """Row of each coordinate of `tile_xy (..., 2)`, -1 where there is no tile."""
        return self._index.rows(tile_xy)

    def take(self, rows: np.ndarray) -> "Embeddings":
        """Only the tiles of `rows`, in that order; the key follows the choice."""
        picked = {name: getattr(self, name)[rows] for name in _PER_TILE}
        key = embeddings_key(self.model_key, picked["tile_xy"], picked["content"])
        return Embeddings(**picked, zoom=self.zoom, key=key, model_key=self.model_key)

    def with_content(self) -> "Embeddings":
        """Only the tiles on which something is drawn: they are searched and projected."""
        return self.take(np.flatnonzero(~self.blank)) if self.blank.any() else self


_PER_TILE = ("tile_xy", "vectors", "dominant_layer", "zone", "density", "blank", "layer_intensity", "content")


def embeddings_key(model_key: str, tile_xy: np.ndarray, content: np.ndarray) -> str:
    """The name of the vectors that a checkpoint gives these tiles."""
    return digest(CACHE_FORMAT, model_key, tile_xy, content)


@dataclasses.dataclass
class City:
    """A city as one checkpoint sees it: its packed tiles and their vectors.

    `rows` are the store's rows of the embedded tiles. `load_city` computed the vectors of `computed` tiles, found
    those of `reused` tiles in the cache, left out `missing` tiles, and took `seconds`.
    """

    store: TileStore
    checkpoint: Checkpoint
    embeddings: Embeddings
    rows: np.ndarray
    device: torch.device
    cache_dir: Path = TilesFlags.cache_dir
    computed: int = 0
    reused: int = 0
    missing: int = 0
    seconds: float = 0.0

    def with_content(self) -> "City":
        """The same city, of whose embedded tiles only those remain on which something is drawn.

        Raises `UserError` if there are none.
        """
        drawn = self.embeddings.with_content()
        if not len(drawn):
            raise UserError(f"every tile of {self.store.tiles_root} is blank; draw another area with render_tiles.py")
        return dataclasses.replace(self, embeddings=drawn, rows=self.store.grid.rows(drawn.tile_xy))

    @cached_property
    def pictures(self) -> TileStore:
        """The same tiles, row by row, large enough to look at."""
        if self.store.tile_size >= PICTURE_PX:
            return self.store
        own, cache_dir = self.store, self.cache_dir
        sharp = open_store(own.tiles_root, PICTURE_PX, zoom=own.zoom, tms=own.tms, cache_dir=cache_dir, quick=True)
        return sharp if np.array_equal(sharp.tile_xy, own.tile_xy) else own

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """Where the tiles come from: the `extract` and its `attribution`, as far as the tiles folder says it."""
        return read_manifest(self.store.tiles_root)

    @cached_property
    def encoder(self) -> nn.Module:
        """The encoder, built when it is first needed."""
        return build_encoder(self.checkpoint, self.device)

    @cached_property
    def embedder(self) -> Embedder:
        """The encoder with the tiles on its device, for places and for tiles with a layer blanked."""
        return Embedder(self.encoder, self.store)


# --- opening a city ----------------------------------------------------------------------------------------


def load_city(
    tiles: TilesFlags,
    model_path: Path | str,
    *,
    device: str = "auto",
    group: ProcessGroup | None = None,
    batch_size: int | None = None,
    max_tiles: int | None = None,
    seed: int = 42,
    force: bool = False,
    cached_only: bool = False,
    quick: bool = False,
) -> City:
    """Open a city's tiles as the checkpoint wants them and get a vector for each, from the cache if it is there.

    `max_tiles` picks that many tiles with content, spread evenly over the city. `force` embeds all tiles again.
    `cached_only` embeds none: tiles without a cached vector are left out, with a warning. `quick` opens the pack as
    `open_store` describes it. The processes of `group` share the work, and its main process writes. If the work is
    stopped, the finished vectors are kept. Raises `UserError` for tiles of another zoom, and with `cached_only` if no
    vector is cached.
    """
    started = time.perf_counter()
    checkpoint = load_model(model_path)
    if checkpoint.zoom != tiles.zoom:
        raise UserError(
            f"{model_path} was trained on tiles of zoom {checkpoint.zoom}, these have zoom {tiles.zoom}; "
            f"pass --zoom {checkpoint.zoom}, or train on zoom {tiles.zoom}"
        )
    group = group or ProcessGroup(pick_device(device))

    # the tiles and what is known about them
    with group.main_process_first():
        store = open_store_for(checkpoint, tiles, quick=quick)
    cache = VectorCache(tiles, checkpoint)
    rows = pick_rows(store, max_tiles, seed)
    content = cache.contents(store, rows)
    todo = group.broadcast_array(content if force else cache.missing(content))

    # the vectors that are missing
    computed, left_out, embedder = 0, 0, None
    if cached_only:
        known = np.isin(content, cache.content)
        rows, content, left_out = rows[known], content[known], int((~known).sum())
        if group.is_main_process:
            cache.report_left_out(left_out, len(known))
    elif len(todo):
        if not store.verify(rows[np.isin(content, todo)]).all():  # the pack is damaged: pack again
            with group.main_process_first():
                store = open_store_for(checkpoint, tiles, verify=True)
            rows = pick_rows(store, max_tiles, seed)
            content = cache.contents(store, rows)
        embedder = Embedder(build_encoder(checkpoint, group.device), store, batch_size=batch_size)
        computed = int(np.isin(content, embed_missing(cache, embedder, rows, content, group, force)).sum())

    embeddings = with_facts(store, rows, cache.lookup(content), content, cache.model_key)
    city = City(store, checkpoint, embeddings, rows, group.device, tiles.cache_dir, computed, len(rows) - computed)
    city.missing, city.seconds = left_out, time.perf_counter() - started
    if embedder is not None:
        city.embedder = embedder
    return city


def with_facts(
    store: TileStore,
    rows: np.ndarray,
    vectors: np.ndarray,
    content: np.ndarray,
    model_key: str,
    *,
    scale: LayerScale | None = None,
    corners: np.ndarray | None = None,
) -> Embeddings:
    """The vectors of the store's `rows` and facts about these tiles.

    Facts are relative to the whole city: to the `scale` of its layers and to the `corners (2, 2)` of its area. By
    default the city is the store.
    """
    scale = scale or layer_scale(store.layer_intensity)
    return Embeddings(
        tile_xy=store.tile_xy[rows],
        vectors=vectors,
        zoom=store.zoom,
        key=embeddings_key(model_key, store.tile_xy[rows], content),
        dominant_layer=dominant_layers(store, scale)[rows],
        zone=compass_zones(store.unwrapped_xy, corners)[rows],
        density=content_density(store, scale)[rows],
        blank=store.blank[rows],
        layer_intensity=store.layer_intensity[rows],
        content=content,
        model_key=model_key,
    )


def open_store_for(
    checkpoint: Checkpoint, tiles: TilesFlags, *, verify: bool = False, quick: bool = False
) -> TileStore:
    """The packed tiles as a checkpoint wants them: its tile size, and shrunk its way. See `open_store`."""
    return open_store(
        tiles.tiles_root,
        checkpoint.tile_size,
        zoom=tiles.zoom,
        shrink=checkpoint.shrink,
        cache_dir=tiles.cache_dir,
        tms=tiles.tms,
        verify=verify,
        quick=quick,
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
    along = drawn[np.argsort(hilbert_order(store.unwrapped_xy[drawn]), kind="stable")]
    edges = np.arange(max_tiles + 1) * len(drawn) // max_tiles
    chosen = edges[:-1] + np.random.default_rng(seed).random(max_tiles) * np.diff(edges)
    return np.sort(along[chosen.astype(np.int64)])


def tile_contents(store: TileStore, rows: np.ndarray, surroundings: bool = False) -> np.ndarray:
    """Digest of each tile's pixels, `(n,) uint64`: tiles that look alike in all layers share one.

    With `surroundings` it also depends on the tiles around, as far as an encoder that uses them can see.
    """
    if surroundings:
        reach = FAR_TILES // 2
        step = np.arange(-reach, reach + 1)
        offsets = np.stack(np.meshgrid(step, step), axis=-1).reshape(-1, 2)
        own = np.append(tile_contents(store, np.arange(len(store))), np.uint64(0))  # the last one: no tile
        factors = np.random.default_rng(0).integers(1 << 63, size=len(offsets), dtype=np.uint64) * 2 + 1
        total = np.zeros(len(rows), dtype=np.uint64)
        for offset, factor in zip(offsets, factors, strict=True):  # sums of 64-bit products, modulo 2^64
            total += own[store.grid.rows(store.tile_xy[rows] + offset)] * factor
        return total
    planes = store.plane_digest[store.plane_of[rows]]
    planes = planes.reshape(len(rows), planes.shape[1] * planes.shape[2])
    digests = (hashlib.blake2b(row, digest_size=8).digest() for row in planes)
    return np.frombuffer(b"".join(digests), dtype=np.uint64)


# --- the cache of vectors ----------------------------------------------------------------------------------


class VectorCache:
    """The vectors that one checkpoint gives the distinct tiles of a city, found by the tiles' content.

    `content (M,) uint64` is sorted; `vectors (M, D) float32` belong to it. There is one file for each checkpoint and
    tiles folder. A tile that changed has no vector there, so it alone is embedded again; a vector that no tile of the
    city needs any longer is dropped at the next `write`.
    """

    def __init__(self, tiles: TilesFlags, checkpoint: Checkpoint):
        self.model_key = checkpoint.key()
        name = digest([str(Path(tiles.tiles_root).resolve()), tiles.zoom, self.model_key])[:16]
        self.path = Path(tiles.cache_dir) / f"vectors-{name}.l2v"
        self.dimension = checkpoint.encoder_config["embedding_dim"]
        self.surroundings = checkpoint.uses_surroundings
        self.warned = False
        self.read()

    def read(self) -> None:
        """Load the file; a damaged one counts as empty."""
        self.content = np.empty(0, np.uint64)
        self.vectors = np.empty((0, self.dimension), np.float32)
        try:
            loaded = load_cache(self.path, CACHE_FORMAT)
        except DamagedFile as error:
            if not self.warned:
                warn(f"{error}; its tiles have to be embedded again")
            self.warned = True
        else:
            if loaded is not None:
                self.content, self.vectors = loaded[0]["content"], loaded[0]["vectors"]

    def contents(self, store: TileStore, rows: np.ndarray) -> np.ndarray:
        """Digest of what the encoder sees of each of the store's `rows`; see `tile_contents`."""
        return tile_contents(store, rows, self.surroundings)

    def missing(self, content: np.ndarray) -> np.ndarray:
        """The distinct ones among `content` that have no vector."""
        return np.setdiff1d(content, self.content)

    def lookup(self, content: np.ndarray) -> np.ndarray:
        """The vectors `(n, D)` of `content (n,)`, all of which must be there."""
        return self.vectors[np.searchsorted(self.content, content)]

    def report_left_out(self, count: int, total: int) -> None:
        """Warn that `count` of `total` tiles have no vector; raise `UserError` if none has one."""
        embed = "`python precompute_embeddings.py` without --skip_embeddings"
        if count == total:
            raise UserError(f"none of the {total:,} tiles has a cached vector in {self.path.parent}; run {embed} first")
        if count:
            have = "has a cached vector" if total - count == 1 else "have a cached vector"
            warn(f"{total - count:,} of {total:,} tiles {have}; {count:,} are left out. Run {embed} to embed them too")

    def write(self, store: TileStore, content: np.ndarray, vectors: np.ndarray) -> None:
        """Write new vectors, and the known ones that some tile of the city still needs.

        If the work was stopped there are fewer `vectors` than `content`: they belong to the first ones.
        """
        content = content[: len(vectors)]
        kept = np.isin(self.content, self.contents(store, np.arange(len(store)))) & ~np.isin(self.content, content)
        content = np.concatenate([self.content[kept], content])
        vectors = np.concatenate([self.vectors[kept], vectors])
        order = np.argsort(content)
        save_cache(self.path, CACHE_FORMAT, {"content": content[order], "vectors": vectors[order]})


def embed_missing(
    cache: VectorCache, embedder: Embedder, rows: np.ndarray, content: np.ndarray, group: ProcessGroup, force: bool
) -> np.ndarray:
    """Embed the tiles whose `content` the cache lacks (or all with `force`), write them, return their content."""
    with locked(cache.path.with_suffix(".lock")) if group.is_main_process else nullcontext():
        cache.read()  # another process may have embedded some while this one waited for the lock
        todo = group.broadcast_array(np.unique(content) if force else cache.missing(content))
        distinct, first = np.unique(content, return_index=True)
        row_of = rows[first[np.searchsorted(distinct, todo)]]
        order = embedder.fast_order(row_of)
        todo, own = todo[order], np.array_split(row_of[order], group.size)[group.rank]
        batches = [np.empty((0, cache.dimension), np.float32)]
        try:
            batches.extend(embedder.embed_batches(own))
        except BaseException:  # keep the batches that are finished
            if group.size == 1:
                cache.write(embedder.store, todo, np.concatenate(batches))
            raise
        embedded = group.gather_rows(np.concatenate(batches), len(todo))
        if group.is_main_process:
            cache.write(embedder.store, todo, embedded)
        group.barrier()
    cache.read()
    return todo
