"""A city's vectors straight from its extract: every tile is drawn, shrunk and embedded in one pass, without PNG files.

Not a command. `python embed.py CITY.osm.pbf` and `LocationEncoder.read` use it.
"""

import contextlib
import ctypes
import dataclasses
import functools
import secrets
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from functools import cached_property
from multiprocessing import parent_process
from pathlib import Path
from typing import Any, override

import numpy as np
import torch
from torch import Tensor, nn

from cache_files import load_cache, load_intact, save_cache
from checkpoint import Checkpoint, build_encoder, load_checkpoint, save_checkpoint
from cli import UserError
from data_loader import copy_to
from devices import pick_device
from embeddings import City, tile_contents, with_facts
from files import digest, file_digest
from inference import Embedder, fast_forward, padded
from layers import LAYERS, STYLE_PATH
from map_index import STYLE_PX, DrawIndex, build_index
from map_style import load_style
from multiscale import PLANE_FEATURES, PLANES_AT_ONCE, MultiscaleEncoder
from osm_extract import ATTRIBUTION, read_features
from osm_file import extract_info
from progress_bars import progress
from render_tiles import choose_area
from tile_area import TileArea, box_text, check_overlap
from tile_facts import LayerScale
from tile_files import plane_digest, resize_tile
from tile_grid import METATILE, Box, hilbert_order, metatiles_of, near_any, tile_of_latlon
from tile_levels import FAR_TILES, LEVELS, SIZED_LAYERS, coarse_levels, piece_sizes
from tile_painter import Painter
from tile_store import TileStore
from tile_workers import completed

PRELOAD = ("torch", "skia")  # imported once for all worker processes
SAVE_EVERY_S = 20  # finished tiles are written this often: a run that is killed loses no more
TILES_AT_ONCE = 32  # tiles that the published network embeds together on a CPU
PLACES_AT_ONCE = 256  # places that a process embeds at a time
FEW_PLACES = 1024  # so many are embedded in the main process
MOST_SYMBOLS = 50_000  # outlines of objects that a painter keeps
AREA, ENCODER, DRAWN_LEVELS = "area.l2v", "encoder.pth", "levels.l2v"  # files in a drawing's folder
FORMAT = "streaming-3"


# --- tiles that are drawn when they are asked for ----------------------------------------------------------


class DrawnPlanes:
    """Planes that are drawn when they are asked for; they stand for the array `planes` of a packed store.

    `plane_of (N, L)` numbers the planes of the tiles of `area`, in the same order; `index` says what lies on them.
    """

    nbytes = 0

    def __init__(self, area: TileArea, index: DrawIndex, plane_of: np.ndarray, tile_size: int, shrink: str):
        self.area, self.index, self.plane_of = area, index, plane_of
        self.tile_size, self.shrink = tile_size, shrink

    @cached_property
    def _painter(self) -> Painter:
        return Painter(self.index, STYLE_PX)

    @cached_property
    def _place(self) -> np.ndarray:
        """A tile and a layer that show each plane, `(P, 2)`."""
        planes, first = np.unique(self.plane_of, return_index=True)
        place = np.full((int(planes.max(initial=0)) + 1, 2), -1)
        place[planes] = np.column_stack(np.divmod(first, self.plane_of.shape[1]))
        return place

    def of_tile(self, row: int) -> Iterator[tuple[int, np.ndarray]]:
        """The layers of a tile that show something, and their planes `(S, S) uint8`."""
        if len(self._painter.symbols) > MOST_SYMBOLS:
            self._painter.symbols.clear()
        x, y = self.area.unwrapped_xy[row].tolist()
        for layer, plane in self._painter.layers(row, x, y):
            yield layer, resize_tile(plane, self.tile_size, self.shrink).copy()  # the painter uses its array again

    def __getitem__(self, numbers: np.ndarray) -> np.ndarray:
        """The planes `(n, S, S) uint8` of `numbers (n,)`."""
        tile, layer = self._place[numbers].T
        out = np.zeros((len(tile), self.tile_size, self.tile_size), dtype=np.uint8)
        for row in np.unique(tile[np.asarray(numbers) > 0]).tolist():  # plane 0 is blank
            planes = dict(self.of_tile(row))
            for i in np.flatnonzero(tile == row).tolist():
                out[i] = planes.get(int(layer[i]), 0)
        return out


class DrawnTiles(TileStore):
    """The tiles of an extract. Coarser levels are in memory; full resolution is drawn again when it is asked for."""

    @classmethod
    def of(
        cls,
        folder: Path,
        area: TileArea,
        index: DrawIndex,
        checkpoint: Checkpoint,
        plane_of: np.ndarray,
        levels: dict[int, np.ndarray],
        sizes: np.ndarray,
        size_row: np.ndarray,
        intensity: np.ndarray | None = None,
        digests: np.ndarray | None = None,
    ) -> "DrawnTiles":
        """The tiles of `area` as a checkpoint wants them. Facts need `intensity` and `digests` of planes."""
        size, shrink = checkpoint.tile_size, checkpoint.shrink
        planes: Any = DrawnPlanes(area, index, plane_of, size, shrink)
        return cls(
            tiles_root=folder,
            zoom=area.zoom,
            tile_size=size,
            shrink=shrink,
            tile_xy=area.tile_xy.astype(np.int32),
            planes=planes,
            plane_of=plane_of,
            plane_intensity=np.zeros(0, dtype=np.float32) if intensity is None else intensity,
            plane_digest=np.zeros((0, 16), dtype=np.uint8) if digests is None else digests,
            levels=levels,
            sizes=sizes,
            size_row=size_row,
            meta={},
        )

    @override
    def tiles(self, rows: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        shape = (len(rows), len(LAYERS), self.tile_size, self.tile_size)
        out = np.empty(shape, dtype=np.uint8) if out is None else out
        out.fill(0)
        for tile, row in zip(out, np.asarray(rows).tolist(), strict=True):
            for layer, plane in self.drawn_layers(row) if row >= 0 else ():
                tile[layer] = plane
        return out

    @override
    def drawn_layers(self, row: int) -> Iterator[tuple[int, np.ndarray]]:
        drawn: Any = self.planes
        return drawn.of_tile(row)

    @override
    def verify(self, rows: np.ndarray) -> np.ndarray:
        return np.ones(len(rows), dtype=bool)

    @cached_property
    @override
    def unwrapped_xy(self) -> np.ndarray:
        """Those of the area: the tiles of a block cannot tell that others lie across 180 degrees."""
        drawn: Any = self.planes
        return drawn.area.unwrapped_xy


class DrawnEmbedder(Embedder):
    """An encoder over `DrawnTiles`; it uses what the pass over the tiles has computed, and draws the rest again.

    `found` holds, for the multiscale encoder, the features `(P, F)` of every plane; for the published one, the vectors
    `(N, D)` of all tiles. `known (N,) bool` are the tiles that the pass has embedded.
    """

    def __init__(self, encoder: nn.Module, store: DrawnTiles, found: np.ndarray, known: np.ndarray):
        cpu = next(encoder.parameters()).device.type == "cpu"
        at_once = METATILE**2 if isinstance(encoder, MultiscaleEncoder) else TILES_AT_ONCE
        super().__init__(encoder, store, batch_size=at_once if cpu else None, resident=False)
        self.found, self.known = found, known

    @override
    def embed_batches(self, rows: np.ndarray) -> Iterator[np.ndarray]:
        if self.known[rows].all() and not isinstance(self.encoder, MultiscaleEncoder):
            yield self.found[rows]
        else:
            yield from super().embed_batches(rows)

    @override
    def tile_input(self, rows: np.ndarray) -> tuple[Tensor, ...]:
        if not self.known[rows].all():
            return super().tile_input(rows)
        return (copy_to(self.found[self.store.plane_of[rows]].reshape(len(rows), -1), self.device),)


# --- what is drawn where -----------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Drawing:
    """An extract that is ready to be drawn: the tiles in its box, and what lies on each.

    `folder` holds the index, from which the worker processes draw. `key` is a digest of extract, style and box.
    """

    extract: Path
    folder: Path
    key: str
    area: TileArea
    index: DrawIndex
    box: Box


def open_drawing(
    extract: Path | str, box: Box | None, zoom: int, folder: Path, style_path: Path = STYLE_PATH
) -> Drawing:
    """Read an extract and find what lies on which tile; what an earlier run left in `folder` is used.

    Raises `UserError` for an extract that cannot be read and for a box outside of it.
    """
    extract = Path(extract)
    style, info = load_style(style_path), extract_info(extract)
    check_overlap(box, info.box, extract)
    key = digest(FORMAT, file_digest(extract), style.digest, zoom, box, STYLE_PX)
    loaded = load_intact(folder / AREA, key)
    if loaded is None:
        features = read_features(extract, style, box, folder)
        area, found_box = choose_area(features, style, box, zoom, extract)
        index = build_index(features, style, area)
        if not len(index.pair_item):
            raise UserError(f"the box {box_text(found_box)} holds nothing of {extract} that is drawn")
        # Remove it before the index is replaced: it may belong to another extract or box.
        (folder / AREA).unlink(missing_ok=True)
        index.save(folder)
        del features, index
        save_cache(folder / AREA, key, {"wanted": area.wanted}, {"place": [area.x0, area.y0], "box": found_box})
    else:
        area, found_box = _load_area(folder, zoom), tuple(loaded[1]["box"])
    return Drawing(extract, folder, key, area, DrawIndex.load(folder), found_box)


def _load_area(folder: Path, zoom: int) -> TileArea:
    loaded = load_cache(folder / AREA)
    assert loaded is not None
    x0, y0 = loaded[1]["place"]
    return TileArea(zoom, x0, y0, np.array(loaded[0]["wanted"]))


# --- the pass over the tiles -------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class PassJob:
    """What every worker process needs to know; index, encoder and, for places, levels lie in `folder`."""

    folder: Path
    zoom: int
    token: str = dataclasses.field(default_factory=lambda: secrets.token_hex(8))  # another pass, another encoder


@dataclasses.dataclass
class DrawnCity(City):
    """A city that was drawn from an extract; `embeddings` are those of its embedded tiles, perhaps of none."""

    drawing: Drawing = dataclasses.field(kw_only=True)

    @cached_property
    @override
    def pictures(self) -> TileStore:
        """The same tiles at full resolution."""
        drawing, store = self.drawing, self.store
        planes: Any = DrawnPlanes(drawing.area, drawing.index, store.plane_of, STYLE_PX, store.shrink)
        return dataclasses.replace(store, tile_size=STYLE_PX, planes=planes)

    @cached_property
    @override
    def manifest(self) -> dict[str, Any]:
        return {"extract": self.drawing.extract.name, "attribution": ATTRIBUTION}

    def take(self, rows: np.ndarray) -> "DrawnCity":
        """Some of its embedded tiles, by their place among them."""
        city = dataclasses.replace(self, embeddings=self.embeddings.take(rows), rows=self.rows[rows])
        city.embedder = self.embedder
        return city


@dataclasses.dataclass
class Planes:
    """Planes that show something: where they lie, and what is kept of each.

    `place (M, 3)` are tile, layer, and whether the features are known; `digest (M, 16)`, `intensity (M,)`, `fine` and
    `coarse` (the levels) are as in `TileStore`. `features (M, F)` are those of the multiscale encoder. `sizes` are only
    those of planes of `SIZED_LAYERS`, in their order.
    """

    place: np.ndarray
    digest: np.ndarray
    intensity: np.ndarray
    fine: np.ndarray
    coarse: np.ndarray
    features: np.ndarray
    sizes: np.ndarray

    @classmethod
    def of(
        cls,
        pixels: list[np.ndarray],
        digests: list[bytes],
        features: np.ndarray,
        number: np.ndarray,
        place: np.ndarray,
    ) -> "Planes":
        """What is kept of planes; `number (M,)` says for each which of `pixels`, `digests` and `features` it has."""
        levels = coarse_levels(pixels)
        digest = np.frombuffer(b"".join(digests), dtype=np.uint8).reshape(-1, 16)
        intensity = np.array([plane.mean() / 255 for plane in pixels], dtype=np.float32)
        fine, coarse = (levels[px][number] for px in LEVELS)
        sized, of_sized = np.unique(number[np.isin(place[:, 1], SIZED_LAYERS)], return_inverse=True)
        sizes = piece_sizes([pixels[i] for i in sized])[of_sized]
        return cls(place, digest[number], intensity[number], fine, coarse, features[number], sizes)

    @property
    def sized(self) -> np.ndarray:
        """`(M,) bool`: planes of `SIZED_LAYERS`."""
        return np.isin(self.place[:, 1], SIZED_LAYERS)

    @classmethod
    def joined(cls, parts: list["Planes"]) -> "Planes":
        """Several of them as one."""
        return cls(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in vars(parts[0])})

    def only(self, rows: np.ndarray) -> "Planes":
        """Some of them, by number."""
        sized = self.sized
        sizes = self.sizes[(np.cumsum(sized) - 1)[rows[sized[rows]]]]
        return Planes(**{name: column[rows] for name, column in vars(self).items() if name != "sizes"}, sizes=sizes)


def embed_city(
    drawing: Drawing,
    checkpoint: Checkpoint,
    pool: Executor,
    jobs: int,
    *,
    device: str = "auto",
    rows: np.ndarray | None = None,
    around: np.ndarray | None = None,
    resumable: bool = False,
    scale: LayerScale | None = None,
    corners: np.ndarray | None = None,
) -> DrawnCity:
    """Draw and embed tiles in one pass, with `jobs` processes of `pool`.

    `rows` are the tiles to embed, all by default; those in their surroundings are drawn too. `around (M, 2)` are
    further tiles, counted on beyond 180 degrees, whose surroundings are drawn, so that `embed_places` sees them. A
    `resumable` pass writes what is finished to the drawing's folder and goes on from what is there. `scale` and
    `corners` are for `with_facts`.
    """
    started = time.perf_counter()
    area, folder, surroundings = drawing.area, drawing.folder, checkpoint.uses_surroundings
    wanted = np.zeros(len(area.tile_xy), dtype=bool)  # tiles to embed
    wanted[slice(None) if rows is None else rows] = True
    drawn = wanted.copy()
    if surroundings and not wanted.all():
        places = area.unwrapped_xy[wanted]
        places = places if around is None else np.unique(np.concatenate([places, around]), axis=0)
        drawn |= near_any(area.unwrapped_xy, places, FAR_TILES // 2 + 1)
    save_checkpoint(folder / ENCODER, checkpoint.without_training())

    # The pass: worker processes draw blocks of tiles, and what the second sweep needs of them is kept.
    key = digest(drawing.key, checkpoint.key(), np.packbits(wanted), np.packbits(drawn))
    parts, table, left = _Parts(folder, key if resumable else None), _PlaneTable(checkpoint, len(drawn)), drawn.copy()
    for tiles, vectors, planes in parts.finished():
        left[tiles] = False
        table.add(tiles, vectors, planes)
    job, place = PassJob(folder, area.zoom), area.unwrapped_xy
    tasks = ((job, block, place[block], wanted[block]) for block in metatiles_of(np.flatnonzero(left), place))
    with progress(total=int(drawn.sum()), desc="drawing", unit=" tiles") as bar:
        bar.update(int((drawn & ~left).sum()))
        try:
            for tiles, vectors, planes in completed(pool, _embed_metatile, tasks, 2 * jobs):
                table.add(tiles, vectors, planes)
                parts.keep(tiles, vectors, planes)
                bar.update(len(tiles))
        except BaseException:
            parts.write()
            raise
    del parts  # what was not written to disk is in the table as well

    # The second sweep: surroundings and head.
    store, features = table.store(drawing)
    encoder = build_encoder(checkpoint, pick_device(device))
    embedder = DrawnEmbedder(encoder, store, features if surroundings else table.vectors, wanted)
    chosen = np.flatnonzero(wanted)
    content = tile_contents(store, chosen, surroundings)
    vectors = embedder.embed_tiles(chosen)
    embeddings = with_facts(store, chosen, vectors, content, checkpoint.key(), scale=scale, corners=corners)
    city = DrawnCity(store, checkpoint, embeddings, chosen, embedder.device, computed=len(chosen), drawing=drawing)
    city.embedder, city.seconds = embedder, time.perf_counter() - started
    return city


class _PlaneTable:
    """Collects what a pass finds; every distinct plane of a layer is kept once, and plane 0 is blank."""

    def __init__(self, checkpoint: Checkpoint, count: int):
        self.checkpoint = checkpoint
        self.plane_of = np.zeros((count, len(LAYERS)), dtype=np.int32)
        self.vectors = np.zeros((count, checkpoint.encoder_config["embedding_dim"]), dtype=np.float32)
        self.parts: list[Planes] = []
        self.number: dict[bytes, int] = {}  # of a plane, by digest, layer, and whether its features are known

    def add(self, tiles: np.ndarray, vectors: np.ndarray, planes: Planes) -> None:
        """Take over finished `tiles (n,)`; `vectors (n, D)`, or `(0, D)` if they come later."""
        if len(vectors):
            self.vectors[tiles] = vectors
        kinds = np.concatenate([planes.digest, planes.place[:, 1:].astype(np.uint8)], axis=1)
        before = len(self.number)
        numbers = np.array([self.number.setdefault(bytes(kind), len(self.number) + 1) for kind in kinds], np.int32)
        self.plane_of[planes.place[:, 0], planes.place[:, 1]] = numbers
        distinct, first = np.unique(numbers, return_index=True)
        self.parts.append(planes.only(first[distinct > before]))

    def store(self, drawing: Drawing) -> tuple[DrawnTiles, np.ndarray]:
        """The tiles of the drawing with their levels, and the features `(P, F)` of all planes."""
        size = self.checkpoint.tile_size
        blank = np.zeros((size, size), dtype=np.uint8)
        width = self.parts[0].features.shape[1] if self.parts else 0
        nothing, no_layer = np.zeros(1, np.int64), np.array([[0, -1, 0]])
        first = Planes.of([blank], [plane_digest(blank)], np.zeros((1, width), np.float32), nothing, no_layer)
        planes, self.parts = Planes.joined([first, *self.parts]), []
        sizes = np.concatenate([piece_sizes([blank]), planes.sizes])
        size_row = np.where(planes.sized, np.cumsum(planes.sized), 0).astype(np.int32)
        with contextlib.suppress(OSError, AttributeError, TypeError):  # glibc keeps what was freed in small pieces
            ctypes.CDLL(None).malloc_trim(0)
        store = DrawnTiles.of(
            drawing.extract,
            drawing.area,
            drawing.index,
            self.checkpoint,
            self.plane_of,
            dict(zip(LEVELS, (planes.fine, planes.coarse), strict=True)),
            sizes,
            size_row,
            planes.intensity,
            planes.digest,
        )
        return store, planes.features


class _Parts:
    """Finished tiles on disk, from which a pass that was stopped goes on; without a key, nothing is written."""

    def __init__(self, folder: Path, key: str | None):
        self.folder, self.key = folder, key
        self.waiting: list[tuple[np.ndarray, np.ndarray, Planes]] = []
        self.count, self.written = 0, time.monotonic()

    def finished(self) -> Iterator[tuple[np.ndarray, np.ndarray, Planes]]:
        """What an earlier run of the same pass wrote; files of other passes are removed."""
        for path in sorted(self.folder.glob("part-*.l2v")):
            loaded = load_intact(path, self.key) if self.key else None
            if loaded is None:
                path.unlink()
                continue
            columns = {name: np.array(column) for name, column in loaded[0].items()}
            self.count = int(path.stem.removeprefix("part-")) + 1
            yield columns.pop("tiles"), columns.pop("vectors"), Planes(**columns)

    def keep(self, tiles: np.ndarray, vectors: np.ndarray, planes: Planes) -> None:
        """Write finished tiles, together with others, when enough time has passed."""
        if self.key is not None:
            self.waiting.append((tiles, vectors, planes))
            if time.monotonic() - self.written > SAVE_EVERY_S:
                self.write()

    def write(self) -> None:
        """Write what is not on disk yet."""
        if self.key is not None and self.waiting:
            tiles, vectors, planes = zip(*self.waiting, strict=True)
            columns = {"tiles": np.concatenate(tiles), "vectors": np.concatenate(vectors)}
            save_cache(self.folder / f"part-{self.count:05}.l2v", self.key, columns | vars(Planes.joined(list(planes))))
            self.waiting, self.count, self.written = [], self.count + 1, time.monotonic()


# --- any place ---------------------------------------------------------------------------------------------


def embed_places(city: DrawnCity, latlon: np.ndarray, pool: Executor, jobs: int) -> np.ndarray:
    """The vectors `(M, D) float32` of places `latlon (M, 2)` in degrees, all of them on tiles of the city.

    Each is that of the window around the place, which is drawn for it, and of the place's surroundings.
    """
    latlon = np.asarray(latlon, dtype=np.float64).reshape(-1, 2)
    if len(latlon) <= FEW_PLACES or jobs == 1:
        return city.embedder.embed_places(latlon)
    store, folder = city.store, city.drawing.folder
    levels = {str(px): level for px, level in store.levels.items()}
    tables = {"plane_of": store.plane_of, "sizes": store.sizes, "size_row": store.size_row}
    save_cache(folder / DRAWN_LEVELS, FORMAT, levels | tables)
    tile_xy = np.floor(tile_of_latlon(latlon[:, 0], latlon[:, 1], store.zoom)).astype(np.int64)
    order = np.argsort(hilbert_order(tile_xy), kind="stable")  # neighbours share tiles
    chunks = [order[first : first + PLACES_AT_ONCE] for first in range(0, len(order), PLACES_AT_ONCE)]
    job = PassJob(folder, store.zoom)
    vectors = np.empty((len(latlon), city.embedder.dimension), dtype=np.float32)
    with progress(total=len(latlon), desc="embedding places", unit=" places") as bar:
        for chunk, found in completed(pool, _embed_chunk, ((job, chunk, latlon[chunk]) for chunk in chunks), 2 * jobs):
            vectors[chunk] = found
            bar.update(len(chunk))
    return vectors


# --- in the worker processes -------------------------------------------------------------------------------


@functools.lru_cache(maxsize=1)
def _load_encoder(job: PassJob) -> tuple[nn.Module, Checkpoint]:
    if parent_process() is not None:
        torch.set_num_threads(1)  # there are as many processes as cores
    checkpoint = load_checkpoint(job.folder / ENCODER)
    return build_encoder(checkpoint), checkpoint


@functools.lru_cache(maxsize=1)
def _load_painter(job: PassJob) -> Painter:
    return Painter(DrawIndex.load(job.folder), STYLE_PX)


def _embed_metatile(
    job: PassJob, tiles: np.ndarray, place: np.ndarray, wanted: np.ndarray
) -> tuple[np.ndarray, np.ndarray, Planes]:
    """Draw `tiles (n,)` at `place (n, 2)`, and embed those that are `wanted (n,) bool`.

    Returns `tiles`, their vectors `(n, D)` or none, and their planes.
    """
    painter, (encoder, checkpoint) = _load_painter(job), _load_encoder(job)
    size, dimension = checkpoint.tile_size, checkpoint.encoder_config["embedding_dim"]
    painter.symbols.clear()
    pixels: list[np.ndarray] = []  # of distinct planes
    known: dict[tuple[int, bool, bytes], int] = {}
    planes = []
    for tile, ((x, y), embed) in enumerate(zip(place.tolist(), wanted.tolist(), strict=True)):
        for layer, drawn in painter.layers(int(tiles[tile]), x, y):
            small = resize_tile(drawn, size, checkpoint.shrink)
            if small.any():  # faint marks may vanish when a tile is shrunk
                at = known.setdefault((layer, embed, plane_digest(small)), len(pixels))
                if at == len(pixels):
                    pixels.append(small.copy())  # the painter uses its array again
                planes.append((at, tile, layer, embed))
    number, *where = np.array(planes, dtype=np.int64).reshape(-1, 4).T
    shown = np.column_stack([tiles[where[0]], *where[1:]])
    if isinstance(encoder, MultiscaleEncoder):
        vectors = np.zeros((0, dimension), dtype=np.float32)
        features = _plane_features(encoder, pixels, np.array([key[:2] for key in known], dtype=np.int64).reshape(-1, 2))
    else:
        vectors = _tile_vectors(job, where[0], where[1], [pixels[i] for i in number], len(tiles))
        features = np.zeros((len(pixels), 0), np.float32)
    digests = [key[2] for key in known]
    return tiles, vectors, Planes.of(pixels, digests, features, number, shown)


def _plane_features(encoder: MultiscaleEncoder, pixels: list[np.ndarray], kind: np.ndarray) -> np.ndarray:
    """Features `(P, F)` of planes; `kind (P, 2)` are the layer, and whether they are needed (zeros if not)."""
    features = np.zeros((len(pixels), PLANE_FEATURES), dtype=np.float32)
    wanted = np.flatnonzero(kind[:, 1])
    with torch.inference_mode():
        for first in range(0, len(wanted), PLANES_AT_ONCE):
            chosen = wanted[first : first + PLANES_AT_ONCE]
            batch = padded(chosen, PLANES_AT_ONCE)
            planes = torch.from_numpy(np.stack([pixels[i] for i in batch]))
            found = encoder.plane_features(planes, torch.from_numpy(kind[batch, 0])).numpy()
            features[chosen] = found[: len(chosen)]
    return features


def _tile_vectors(
    job: PassJob, tile: np.ndarray, layer: np.ndarray, pixels: list[np.ndarray], count: int
) -> np.ndarray:
    """Vectors `(count, D)` that the published encoder gives the tiles of a metatile; blank ones are embedded once.

    `tile (M,)` and `layer (M,)` say where `pixels`, M planes, lie.
    """
    size = _load_encoder(job)[1].tile_size
    shown, row = np.unique(tile, return_inverse=True)
    tiles = np.zeros((len(shown), len(LAYERS), size, size), dtype=np.uint8)
    for *place, plane in zip(row, layer, pixels, strict=True):
        tiles[tuple(place)] = plane
    vectors = np.repeat(_blank_vector(job)[None], count, axis=0)
    vectors[shown] = _run_network(job, tiles)
    return vectors


def _run_network(job: PassJob, tiles: np.ndarray) -> np.ndarray:
    """What the published encoder gives `tiles (n, L, S, S)`, in batches of one size."""
    dimension = _load_encoder(job)[1].encoder_config["embedding_dim"]
    network, found = _load_network(job), [np.zeros((0, dimension), np.float32)]
    for first in range(0, len(tiles), TILES_AT_ONCE):
        batch = tiles[first : first + TILES_AT_ONCE]
        found.append(network(torch.from_numpy(padded(batch, TILES_AT_ONCE))).cpu().numpy()[: len(batch)])
    return np.concatenate(found)


@functools.lru_cache(maxsize=1)
def _load_network(job: PassJob) -> Callable[..., Tensor]:
    return fast_forward(_load_encoder(job)[0])


@functools.lru_cache(maxsize=1)
def _blank_vector(job: PassJob) -> np.ndarray:
    size = _load_encoder(job)[1].tile_size
    return _run_network(job, np.zeros((1, len(LAYERS), size, size), dtype=np.uint8))[0]


@functools.lru_cache(maxsize=1)
def _load_tiles(job: PassJob) -> Embedder:
    """The encoder over the drawn tiles, in this process."""
    encoder, checkpoint = _load_encoder(job)
    loaded = load_cache(job.folder / DRAWN_LEVELS, FORMAT)
    assert loaded is not None
    levels = {px: loaded[0][str(px)] for px in LEVELS}
    area, index = _load_area(job.folder, job.zoom), DrawIndex.load(job.folder)
    plane_of, sizes, size_row = (loaded[0][name] for name in ("plane_of", "sizes", "size_row"))
    return Embedder(encoder, DrawnTiles.of(job.folder, area, index, checkpoint, plane_of, levels, sizes, size_row))


def _embed_chunk(job: PassJob, chunk: np.ndarray, latlon: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`chunk (n,)` and the vectors `(n, D)` of its places."""
    return chunk, _load_tiles(job).embed_places(latlon)
