"""Cut the map of a large extract into square blocks of tiles, each with what lies around it, with bounded memory.

Not a command. `python embed.py COUNTRY.osm.pbf -o FOLDER/` uses it.
"""

import dataclasses
import json
import shutil
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from cache_files import load_intact, save_cache
from cli import UserError
from files import atomic_write, digest, remove_work, save_array
from map_index import (
    STYLE_PX,
    UNIT,
    MapObjects,
    centres_inside,
    class_style,
    cut_segments,
    object_segments,
    project,
    ranges,
    reach_of_items,
)
from map_style import FILL, load_style
from osm_extract import Features, stream_features
from osm_file import extract_info
from progress_bars import progress
from tile_area import CELLS_AROUND, MAX_TILES, TileArea, check_overlap, data_box, tile_count, tile_range
from tile_grid import Box, hilbert_order, tile_of_latlon
from tile_levels import FAR_TILES

BLOCK_TILES = 128  # edge of a block in tiles
SEEN_TILES = FAR_TILES // 2  # an encoder sees this many tiles in each direction
# Objects are kept up to this many tiles around a block: one more, because tiles beside drawn ones count too.
MARGIN_TILES = SEEN_TILES + 1
FEW_BLOCKS = 4  # an object in no more blocks than this is kept in all that its bounds touch
FORMAT = "blocks-1"
PLAN, CHUNKS = "plan.json", "chunks"


# --- the plan ----------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Plan:
    """How an extract is cut: everything that a block needs to know besides its own objects.

    The area begins in column `x0`, row `y0` of the grid of `zoom`; columns go on beyond 180 degrees. A block `(bx, by)`
    holds the tiles from `bx * block_tiles` and `by * block_tiles` on. `whole` says whether all tiles of the area count,
    or only those that hold something and those beside them. `classes (C, 4)` are those of `map_index.class_style`.
    `key` is a digest of extract, style, box and cutting; `broken` counts the objects that could not be drawn.
    """

    key: str
    extract: str
    extract_digest: str
    style_digest: str
    zoom: int
    block_tiles: int
    x0: int
    y0: int
    columns: int
    rows: int
    whole: bool
    box: Box
    blocks: tuple[tuple[int, int], ...]
    classes: tuple[tuple[int, int, int, int], ...]
    broken: dict[str, int]

    @property
    def blocks_around(self) -> int:
        """Columns of blocks all around the Earth."""
        return (1 << self.zoom) // self.block_tiles

    def name(self, block: tuple[int, int]) -> str:
        """`X_Y`: what files of a block are called, with X counted from -180 degrees."""
        return f"{block[0] % self.blocks_around}_{block[1]}"

    def area(self, block: tuple[int, int], margin: int = 0) -> TileArea:
        """The tiles of a block and of `margin` tiles around it that lie in the area."""
        low = np.array(block) * self.block_tiles - margin
        high = low + self.block_tiles + 2 * margin
        start, end = np.array([self.x0, self.y0]), np.array([self.x0 + self.columns, self.y0 + self.rows])
        if self.columns == 1 << self.zoom:  # all around the Earth there is no edge in the west or east
            start[0], end[0] = low[0], high[0]
        low, high = np.maximum(low, start), np.minimum(high, end)
        columns, rows = (high - low).tolist()
        return TileArea(self.zoom, int(low[0]), int(low[1]), np.ones((rows, columns), dtype=bool))


def prepare(
    extract: Path, digest_of_extract: str, style_path: Path, box: Box | None, zoom: int, block_tiles: int, folder: Path
) -> Plan:
    """Read an extract and write the objects of each block to `folder`; what an earlier run finished there is used.

    `block_tiles` is a power of two, so that whole blocks go around the Earth. The whole extract is never in memory.
    Raises `UserError` for an extract that cannot be read or holds nothing.
    """
    style, info = load_style(style_path), extract_info(extract)
    check_overlap(box, info.box, extract)
    block_tiles = min(block_tiles, 1 << zoom)
    key = digest(FORMAT, digest_of_extract, style.digest, zoom, box, block_tiles, STYLE_PX)
    plan = load_plan(folder, key)
    if plan is not None:
        return plan
    remove_work(folder, PLAN)
    (folder / CHUNKS).mkdir(parents=True)
    cutter = _Cutter(folder / CHUNKS, zoom, block_tiles, tile_range(box, zoom) if box else None)
    broken: dict[str, int] = {}
    for features in stream_features(extract, style, box, folder):
        cutter.add(features, project(features, style, zoom))
        broken = {what: len(names) for what, names in features.broken.items()}
    if not cutter.extent.found:
        raise UserError(f"{extract} holds nothing that the style table draws")
    box = box or cutter.extent.box(zoom)
    x0, y0, columns, rows = tile_range(box, zoom)
    whole = tile_count(box, zoom) <= MAX_TILES
    plan = Plan(
        key=key,
        extract=extract.name,
        extract_digest=digest_of_extract,
        style_digest=style.digest,
        zoom=zoom,
        block_tiles=block_tiles,
        x0=x0,
        y0=y0,
        columns=columns,
        rows=rows,
        whole=whole,
        box=box,
        blocks=(),
        classes=tuple(map(tuple, class_style(style).tolist())),
        broken=broken,
    )
    return _write_parts(plan, folder)


def load_plan(folder: Path, key: str) -> Plan | None:
    """The plan that `prepare` finished in `folder`; None if there is none of this key."""
    try:
        values = json.loads((folder / PLAN).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    if values.get("key") != key:
        return None
    for name in ("box", "blocks", "classes"):
        values[name] = tuple(tuple(row) if isinstance(row, list) else row for row in values[name])
    return Plan(**values)


def part_path(folder: Path, plan: Plan, block: tuple[int, int]) -> Path:
    """The file with the objects of a block."""
    return folder / f"{plan.name(block)}.l2v"


def load_part(path: Path, plan: Plan) -> MapObjects:
    """The objects of a block, as `prepare` wrote them. Raises `UserError` for a file that is missing or damaged."""
    loaded = load_intact(path, plan.key)
    if loaded is None:
        raise UserError(f"{path} is missing or damaged; remove {path.parent} and run the same command again")
    return MapObjects(**loaded[0])


def _write_parts(plan: Plan, folder: Path) -> Plan:
    """Gather the objects of each block from the chunks; the plan comes last, when all is there."""
    chunks = [_Chunk(path) for path in sorted((folder / CHUNKS).iterdir())]
    side, around = plan.block_tiles, plan.blocks_around
    columns = np.arange(plan.x0 // side, (plan.x0 + plan.columns - 1) // side + 1)
    rows = np.arange(plan.y0 // side, (plan.y0 + plan.rows - 1) // side + 1)
    if plan.columns == 1 << plan.zoom:
        columns = columns[:around]
    blocks = np.stack(np.meshgrid(columns, rows, indexing="ij"), axis=-1).reshape(-1, 2)
    if not plan.whole:
        held = {(x % around, y) for chunk in chunks for x, y in chunk.place}
        blocks = np.array([block for block in blocks.tolist() if (block[0] % around, block[1]) in held]).reshape(-1, 2)
    order = np.argsort(hilbert_order(blocks), kind="stable")
    plan = dataclasses.replace(plan, blocks=tuple((x, y) for x, y in blocks[order].tolist()))
    for block in progress(plan.blocks, desc="writing blocks", unit=" blocks"):
        pieces = []
        for turn in (-1, 0, 1):  # what lies across 180 degrees
            for chunk in chunks:
                piece = chunk.objects((block[0] + turn * around, block[1]))
                if piece is not None:
                    shift = np.array([turn * around * side, 0])
                    pieces.append(dataclasses.replace(piece, origin=piece.origin - shift))
        save_cache(part_path(folder, plan, block), plan.key, vars(_joined(pieces)))
    with atomic_write(folder / PLAN, "w") as file:
        json.dump(dataclasses.asdict(plan), file)
    del chunks
    shutil.rmtree(folder / CHUNKS)
    return plan


# --- which objects lie in which block ----------------------------------------------------------------------


class _Cutter:
    """Sorts batches of objects into blocks, and writes each batch to a chunk on disk."""

    def __init__(self, folder: Path, zoom: int, block_tiles: int, tiles: tuple[int, int, int, int] | None):
        self.folder, self.side, self.around = folder, block_tiles, (1 << zoom) // block_tiles
        self.extent, self.count = _Extent(), 0
        self.tiles = tiles  # x0, y0, columns, rows, if only some are wanted

    def add(self, features: Features, objects: MapObjects) -> None:
        """Write what the blocks need of a batch."""
        owner, blocks = blocks_of(objects, self.side, MARGIN_TILES)
        if self.tiles is not None:
            x0, y0, columns, rows = self.tiles
            first = np.array([x0, y0]) // self.side
            last = (np.array([x0 + columns, y0 + rows]) - 1) // self.side
            offset = blocks - first
            offset[:, 0] %= self.around
            wanted = ((offset >= 0) & (offset <= last - first)).all(axis=1)
            owner, blocks = owner[wanted], blocks[wanted]
        if not len(owner):
            return
        self.extent.add(features, np.unique(owner))
        order = np.lexsort((owner, blocks[:, 1], blocks[:, 0]))
        owner, blocks = owner[order], blocks[order]
        cut = objects.large[owner] & (np.bincount(owner, minlength=len(objects.large))[owner] > 1)
        self._write(blocks[~cut], _taken(objects, owner[~cut]))
        reach, pieces, places = _reach(objects), [], []
        for number, block in zip(owner[cut].tolist(), blocks[cut].tolist(), strict=True):
            margin = MARGIN_TILES + 1 + int(np.ceil(reach[number] / UNIT))
            low = np.array(block) * self.side - margin
            piece = cut_object(objects, number, low, low + self.side + 2 * margin)
            if piece is not None:
                pieces.append(piece)
                places.append(block)
        self._write(np.array(places).reshape(-1, 2), _joined(pieces))

    def _write(self, blocks: np.ndarray, objects: MapObjects) -> None:
        if len(blocks):
            folder = self.folder / f"{self.count:06}"
            folder.mkdir()
            for name, column in (vars(objects) | {"blocks": blocks}).items():
                save_array(folder / f"{name}.npy", column)
            self.count += 1


def blocks_of(objects: MapObjects, block_tiles: int, margin: int) -> tuple[np.ndarray, np.ndarray]:
    """Which objects leave a mark in which blocks, or no more than `margin` tiles beside them.

    Returns the numbers of the objects `(K,)` and the blocks `(K, 2)`, each pair once. An object without items is in no
    block. Columns of blocks go on beyond 180 degrees.
    """
    side, reach = block_tiles * UNIT, _reach(objects)
    drawn = np.flatnonzero(np.isfinite(reach))
    pad = reach + margin * UNIT
    low, high = objects.bounds()
    first = np.zeros_like(low)
    across = np.zeros_like(low)
    first[drawn] = np.floor((low[drawn] - pad[drawn, None]) / side)
    across[drawn] = np.floor((high[drawn] + pad[drawn, None]) / side) - first[drawn] + 1
    few = across[drawn].prod(axis=1) <= FEW_BLOCKS
    owner, cells = _cells(first[drawn[few]], across[drawn[few]])
    owners, found = [drawn[few][owner]], [cells]
    filled = np.zeros(len(reach), dtype=bool)
    filled[objects.item_object[objects.item_kind == FILL]] = True
    for number in drawn[~few].tolist():
        ends = object_segments(objects, number)
        if len(ends):
            pieces, _ = cut_segments(ends, side / 2)
            start = np.floor((pieces.min(axis=1) - pad[number]) / side).astype(np.int64)
            cells = _cells(start, np.floor((pieces.max(axis=1) + pad[number]) / side).astype(np.int64) - start + 1)[1]
        else:  # a point
            cells = _cells(first[[number]], across[[number]])[1]
        if filled[number]:
            inner = centres_inside(ends / block_tiles, *first[number].tolist(), *across[number].tolist())
            cells = np.concatenate([cells, np.stack(inner, axis=1)])
        cells = np.unique(cells, axis=0)
        owners.append(np.full(len(cells), number))
        found.append(cells)
    return np.concatenate(owners), np.concatenate(found)


def _cells(first: np.ndarray, across: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The cells `(K, 2)` of rectangles that begin at `first (N, 2)`, and whose they are `(K,)`."""
    count = across.prod(axis=1)
    owner = np.repeat(np.arange(len(first)), count)
    step = np.arange(len(owner)) - np.repeat(np.cumsum(count) - count, count)
    return owner, first[owner] + np.stack([step % across[owner, 0], step // across[owner, 0]], axis=1)


def _reach(objects: MapObjects) -> np.ndarray:
    """How far each object leaves a mark around itself, in units; minus infinity if it is not drawn."""
    reach = np.full(len(objects.osm_key), -np.inf)
    np.maximum.at(reach, objects.item_object, np.maximum(reach_of_items(objects), objects.item_size * UNIT))
    return reach


def cut_object(objects: MapObjects, number: int, low: np.ndarray, high: np.ndarray) -> MapObjects | None:
    """What the tiles from `low (2,)` to below `high (2,)` need of a large object; None if that is nothing.

    Rings beyond one edge of this window are left out. Of a long ring, the points beyond an edge between two others in
    the same row or column of tiles are left out. That is less than what every tile of the window leaves out by the same
    rule when it is drawn, so not one pixel changes.
    """
    rings = np.arange(objects.ring_start[number], objects.ring_start[number + 1])
    first, end = objects.point_start[rings[0]], objects.point_start[rings[-1] + 1]
    points = objects.points[first:end]
    tile = points // UNIT + objects.origin[number]
    starts = objects.point_start[rings] - first
    seen = ((np.maximum.reduceat(tile, starts) >= low) & (np.minimum.reduceat(tile, starts) < high)).all(axis=1)
    if not seen.any():
        return None
    cell = np.clip(tile, low - 1, high)
    same = (cell[1:] == cell[:-1]).all(axis=1)
    keep = ((cell >= low) & (cell < high)).all(axis=1)
    keep[1:-1] |= ~(same[1:] & same[:-1])
    counts = np.diff(np.append(starts, len(points)))
    ring = np.repeat(np.arange(len(rings)), counts)
    keep |= ~objects.long_ring[rings][ring]
    keep[starts] = keep[starts + counts - 1] = True
    keep &= seen[ring]
    items = slice(*np.searchsorted(objects.item_object, [number, number + 1]))
    return MapObjects(
        points=points[keep],
        point_start=np.append(0, np.cumsum(np.bincount(ring[keep], minlength=len(rings))[seen])),
        ring_start=np.array([0, int(seen.sum())]),
        origin=objects.origin[[number]],
        osm_key=objects.osm_key[[number]],
        surface=objects.surface[[number]],
        large=objects.large[[number]],
        long_ring=objects.long_ring[rings][seen],
        item_object=np.zeros_like(objects.item_object[items]),
        item_class=objects.item_class[items],
        item_kind=objects.item_kind[items],
        item_size=objects.item_size[items],
    )


# --- parts of MapObjects -----------------------------------------------------------------------------------


def _taken(objects: MapObjects, chosen: np.ndarray) -> MapObjects:
    """The objects `chosen (K,)`, in this order; one may come several times."""
    rings = ranges(objects.ring_start[chosen], objects.ring_start[chosen + 1])
    points = ranges(objects.point_start[rings], objects.point_start[rings + 1])
    first = np.searchsorted(objects.item_object, np.arange(len(objects.osm_key) + 1))
    items = ranges(first[chosen], first[chosen + 1])
    return MapObjects(
        points=objects.points[points],
        point_start=np.append(0, np.cumsum(np.diff(objects.point_start)[rings])),
        ring_start=np.append(0, np.cumsum(np.diff(objects.ring_start)[chosen])),
        origin=objects.origin[chosen],
        osm_key=objects.osm_key[chosen],
        surface=objects.surface[chosen],
        large=objects.large[chosen],
        long_ring=objects.long_ring[rings],
        item_object=np.repeat(np.arange(len(chosen)), np.diff(first)[chosen]),
        item_class=objects.item_class[items],
        item_kind=objects.item_kind[items],
        item_size=objects.item_size[items],
    )


_PER_POINT_OR_RING = ("point_start", "ring_start", "item_object")  # numbers that count on when objects are joined


def _joined(pieces: list[MapObjects]) -> MapObjects:
    """The objects of all pieces, one piece after the other."""
    pieces = [_nothing(), *pieces]
    columns = {
        name: np.concatenate([getattr(piece, name) for piece in pieces])
        for name in vars(pieces[0])
        if name not in _PER_POINT_OR_RING
    }
    shift = np.cumsum([0, *(len(piece.osm_key) for piece in pieces)])
    return MapObjects(
        **columns,
        point_start=np.append(0, np.cumsum(np.concatenate([np.diff(piece.point_start) for piece in pieces]))),
        ring_start=np.append(0, np.cumsum(np.concatenate([np.diff(piece.ring_start) for piece in pieces]))),
        item_object=np.concatenate([piece.item_object + n for piece, n in zip(pieces, shift, strict=False)]),
    )


def _nothing() -> MapObjects:
    whole, start = np.zeros(0, np.int64), np.zeros(1, np.int64)
    return MapObjects(
        points=np.zeros((0, 2), np.int32),
        point_start=start,
        ring_start=start,
        origin=np.zeros((0, 2), np.int64),
        osm_key=whole,
        surface=np.zeros(0),
        large=np.zeros(0, bool),
        long_ring=np.zeros(0, bool),
        item_object=whole,
        item_class=np.zeros(0, np.int32),
        item_kind=np.zeros(0, np.int8),
        item_size=np.zeros(0),
    )


class _Chunk:
    """Objects on disk, sorted by block."""

    def __init__(self, folder: Path):
        self.columns: dict[str, Any] = {
            path.stem: np.load(path, mmap_mode="r").view(np.ndarray) for path in folder.glob("*.npy")
        }
        codes = self.columns.pop("blocks")
        blocks, first = np.unique(codes, axis=0, return_index=True)
        self.ends = np.append(first, len(codes))
        self.place = {tuple(block): i for i, block in enumerate(blocks.tolist())}

    @cached_property
    def all(self) -> MapObjects:
        return MapObjects(**self.columns)

    def objects(self, block: tuple[int, int]) -> MapObjects | None:
        """The objects of a block; None if there are none."""
        i = self.place.get(block)
        return None if i is None else _taken(self.all, np.arange(self.ends[i], self.ends[i + 1]))


# --- where the map is --------------------------------------------------------------------------------------


class _Extent:
    """Gathers the bounds of all objects, those in the same cells of 10 km as one, so that `data_box` can be told."""

    def __init__(self) -> None:
        self.rows = np.zeros((0, 6))  # west, south, east, north, points, objects

    @property
    def found(self) -> bool:
        return len(self.rows) > 0

    def add(self, features: Features, drawn: np.ndarray) -> None:
        """Take over the bounds of the objects `drawn`."""
        counts = features.point_counts()[drawn].astype(np.float64)
        rows = np.column_stack([features.bounds()[drawn], counts, np.ones(len(drawn))])
        self.rows = self._together(np.concatenate([self.rows, self._together(rows)]))

    @staticmethod
    def _together(rows: np.ndarray) -> np.ndarray:
        zoom = CELLS_AROUND.bit_length() - 1
        cells = np.hstack([np.floor(tile_of_latlon(rows[:, lat], rows[:, lon], zoom)) for lat, lon in ((1, 0), (3, 2))])
        _, number = np.unique(cells, axis=0, return_inverse=True)
        order = np.argsort(number.reshape(-1), kind="stable")
        start = np.flatnonzero(np.diff(number.reshape(-1)[order], prepend=-1))
        rows = rows[order]
        low, high = np.minimum.reduceat(rows[:, :2], start), np.maximum.reduceat(rows[:, 2:4], start)
        return np.hstack([low, high, np.add.reduceat(rows[:, 4:], start)])

    def box(self, zoom: int) -> Box:
        """The box that holds the objects; see `data_box`."""
        return data_box(self.rows[:, :4], self.rows[:, 4], zoom, self.rows[:, 5])[0]
