"""One vector for every tile of a city and for any latitude/longitude, with facts about each tile, cached by content.

Not a command itself. `python precompute_embeddings.py` fills its cache, searches and exports.
"""

import dataclasses
import hashlib
import time
from contextlib import nullcontext
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from cache_files import DamagedFile, load_cache, save_cache
from checkpoint import Checkpoint, build_encoder, load_checkpoint
from cli import TilesFlags, UserError
from devices import pick_device
from distributed import Ranks
from files import digest, locked
from inference import embed_batches
from model import Encoder
from progress_bars import warn
from tile_facts import compass_zones, content_density, dominant_layers
from tile_grid import hilbert_order, latlon_of_tile, tile_codes
from tile_store import TileStore, open_store

VECTORS_FORMAT = 1
PICTURE_PX = 128  # edge of the tiles that people look at, where the network sees smaller ones
_FORMAT_KEY = f"vectors-{VECTORS_FORMAT}"


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
        codes = tile_codes(self.tile_xy)
        order = np.argsort(codes)
        return codes[order], order

    def rows(self, tile_xy: np.ndarray) -> np.ndarray:
        """Row of each coordinate of `tile_xy (..., 2)`, -1 where there is no tile."""
        codes, order = self._row_of
        wanted = tile_codes(np.asarray(tile_xy))
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
    along = drawn[np.argsort(hilbert_order(store.tile_xy[drawn]), kind="stable")]
    edges = np.arange(max_tiles + 1) * len(drawn) // max_tiles
    chosen = edges[:-1] + np.random.default_rng(seed).random(max_tiles) * np.diff(edges)
    return np.sort(along[chosen.astype(np.int64)])


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
