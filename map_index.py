"""What lies on which tile: the tile grid, the spatial index that the renderer draws from, and labels per tile.

Not a command itself; `python render_tiles.py --labels labels.parquet` shows it at work. Nothing here draws.
"""

import dataclasses
import errno
import math
from functools import cached_property
from pathlib import Path

import numpy as np
import shapely

from cli import UserError
from map_style import FILL, LINE, POINT, Style
from osm_extract import Features
from progress_bars import warn
from tile_grid import Box, tile_of_latlon

UNIT = 1 << 14  # coordinates are whole 16384ths of a tile: 1/64 of a pixel of a 256-px tile, under 2 cm on the ground
STYLE_PX = 256  # the style table's pixels are those of a tile of this size
EARTH_M = 40_075_016.686
BOX_TOLERANCE = 1e-7  # degrees; boxes are written with seven decimals, a tile beyond the edge by less is not in it
MAX_TILES = 4_000_000


@dataclasses.dataclass(frozen=True)
class TileArea:
    """The tiles of a run: a rectangle of the grid, and which of its cells count: `wanted (rows, columns) bool`."""

    zoom: int
    x0: int
    y0: int
    wanted: np.ndarray

    @classmethod
    def of_box(cls, box: Box, zoom: int) -> "TileArea":
        """All tiles that share more than a hair's breadth with `box`."""
        west, south, east, north = box
        e = BOX_TOLERANCE
        corners = tile_of_latlon(np.array([north - e, south + e]), np.array([west + e, east - e]), zoom)
        (x0, y0), (x1, y1) = np.floor(corners).astype(int)
        if (x1 - x0 + 1) * (y1 - y0 + 1) > MAX_TILES:
            raise UserError(
                f"the box holds more than {MAX_TILES:,} tiles at zoom {zoom}; give a smaller --bbox or --zoom"
            )
        return cls(zoom, int(x0), int(y0), np.ones((y1 - y0 + 1, x1 - x0 + 1), dtype=bool))

    @cached_property
    def tile_xy(self) -> np.ndarray:
        """`(N, 2) int64`, sorted by x, then y."""
        columns, rows = np.nonzero(self.wanted.T)
        return np.stack([columns + self.x0, rows + self.y0], axis=1)

    @cached_property
    def _number(self) -> np.ndarray:
        number = np.full(self.wanted.T.shape, -1, dtype=np.int64)
        number[self.wanted.T] = np.arange(self.wanted.sum())
        return number.T

    def number(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Row in `tile_xy` of each tile, -1 outside."""
        column, row = x - self.x0, y - self.y0
        inside = (column >= 0) & (row >= 0) & (column < self.wanted.shape[1]) & (row < self.wanted.shape[0])
        return np.where(inside, self._number[np.where(inside, row, 0), np.where(inside, column, 0)], -1)


def clipped(area: TileArea, features: Features, path: Path) -> TileArea:
    """The tiles inside the administrative boundary that fits the box best, or `area` where there is none."""
    best, name, shape = 0.5, "", None
    box = shapely.box(area.x0, area.y0, area.x0 + area.wanted.shape[1], area.y0 + area.wanted.shape[0])
    for candidate, wkb in features.boundaries:
        outline = shapely.transform(
            shapely.from_wkb(wkb), lambda lonlat: tile_of_latlon(lonlat[:, 1], lonlat[:, 0], area.zoom)
        )
        extent = shapely.box(*outline.bounds)
        likeness = extent.intersection(box).area / extent.union(box).area
        if likeness > best:
            best, name, shape = likeness, candidate, outline
    if shape is None:
        warn(f"{path} holds no administrative boundary that fits the box; drawing the box")
        return area
    shapely.prepare(shape)
    x, y = area.tile_xy.T
    wanted = np.zeros_like(area.wanted)
    wanted[y - area.y0, x - area.x0] = shapely.intersects(shape, shapely.box(x, y, x + 1, y + 1))
    warn(
        f"staying inside the boundary of {name or 'a place without a name'}: {wanted.sum():,} of {wanted.size:,} tiles"
    )
    return TileArea(area.zoom, area.x0, area.y0, wanted)


# --- the spatial index -------------------------------------------------------------------------------------


@dataclasses.dataclass
class DrawIndex:
    """What is drawn on which tile, as flat arrays that all processes share.

    `points (P, 2) int32` are offsets, in units, from the corner of the object's own `origin` tile, so that what is
    computed from them never depends on who draws it. Tile t draws `pair_item[tile_start[t]:tile_start[t + 1]]` in this
    order; item j is object `item_object[j]`, drawn as `item_kind[j]` in class `item_class[j]` with
    `item_size[j]` (line width or radius, in tiles). `class_look (C, 4)` is layer, grey of points, of lines, of fills.
    """

    points: np.ndarray
    point_start: np.ndarray
    ring_start: np.ndarray
    origin: np.ndarray
    osm_key: np.ndarray
    item_object: np.ndarray
    item_class: np.ndarray
    item_kind: np.ndarray
    item_size: np.ndarray
    class_look: np.ndarray
    tile_start: np.ndarray
    pair_item: np.ndarray

    def save(self, folder: Path) -> None:
        """Write each array to its own file."""
        for field in dataclasses.fields(self):
            path = folder / f"{field.name}.npy"
            try:
                np.save(path, getattr(self, field.name))
            except OSError as error:  # NumPy drops the number of the error; all it meets here is a full disk
                raise OSError(error.errno or errno.ENOSPC, "cannot write the index", str(path)) from None

    @classmethod
    def load(cls, folder: Path) -> "DrawIndex":
        """Map the arrays that `save` wrote."""
        names = [field.name for field in dataclasses.fields(cls)]
        mapped = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in names}
        return cls(**{name: array.view(np.ndarray) for name, array in mapped.items()})  # np.memmap is slow to index


def build_index(features: Features, style: Style, area: TileArea) -> DrawIndex:
    """Project the objects and find the tiles that each touches, its width included."""
    world = tile_of_latlon(features.lonlat[:, 1], features.lonlat[:, 0], area.zoom)
    units = np.rint(world * UNIT).astype(np.int64)
    first_point = features.point_start[features.ring_start]
    low, high = _bounds(units, first_point)
    origin = low // UNIT
    owner = np.repeat(np.arange(len(origin)), np.diff(first_point))
    size = _item_sizes(features, style, area.zoom, (low + high)[:, 1] / (2 * UNIT))
    pairs = _pairs(features, units, first_point, size, area)
    rank = np.empty(len(size), dtype=np.int64)
    rank[draw_order(features, style, units)] = np.arange(len(size))
    tile, item = pairs[np.lexsort((rank[pairs[:, 1]], pairs[:, 0]))].T
    return DrawIndex(
        points=(units - origin[owner] * UNIT).astype(np.int32),
        point_start=features.point_start,
        ring_start=features.ring_start,
        origin=origin,
        osm_key=features.osm_key,
        item_object=features.item_object,
        item_class=features.item_class,
        item_kind=features.item_kind,
        item_size=size,
        class_look=np.array([(row.layer, row.gray, row.gray, row.fill_gray) for row in style.classes]),
        tile_start=np.searchsorted(tile, np.arange(len(area.tile_xy) + 1)),
        pair_item=item.astype(np.int32),
    )


def _bounds(units: np.ndarray, first_point: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if len(units) == 0:
        return np.zeros((0, 2), np.int64), np.zeros((0, 2), np.int64)
    return np.minimum.reduceat(units, first_point[:-1]), np.maximum.reduceat(units, first_point[:-1])


def _item_sizes(features: Features, style: Style, zoom: int, middle_y: np.ndarray) -> np.ndarray:
    """Line widths and disc radii in tiles; metres become pixels at each object's own latitude."""
    rows = style.classes
    metres = np.array([row.line["width_m"] if row.line else 0 for row in rows], dtype=np.float64)
    least = np.array([row.line["min_px"] if row.line else 0 for row in rows], dtype=np.float64)
    radius = np.array([row.point["radius_px"] if row.point else 0 for row in rows], dtype=np.float64)
    n = float(1 << zoom)
    tile_m = EARTH_M / n / np.cosh(math.pi * (1 - 2 * middle_y / n))  # cosh of the Mercator ordinate is 1 / cos(lat)
    number = features.item_class
    width = np.maximum(metres[number] / tile_m[features.item_object], least[number] / STYLE_PX)
    size = np.where(
        features.item_kind == LINE, width, np.where(features.item_kind == POINT, radius[number] / STYLE_PX, 0)
    )
    return np.rint(size * UNIT) / UNIT


def draw_order(features: Features, style: Style, units: np.ndarray) -> np.ndarray:
    """Items in the order of drawing: by layer; fills, the biggest first; lines; points; the first class on top."""
    layer = np.array([row.layer for row in style.classes])[features.item_class]
    importance = np.where(features.item_kind == FILL, 0, -features.item_class)
    stage = np.array([2, 1, 0])[features.item_kind]  # POINT, LINE, FILL
    area = np.where(features.item_kind == FILL, -_surface(features, units)[features.item_object], 0)
    return np.lexsort((features.item_class, features.osm_key[features.item_object], area, importance, stage, layer))


def _surface(features: Features, units: np.ndarray) -> np.ndarray:
    """Twice the area of each object in square units; holes count against it."""
    if len(units) == 0:
        return np.zeros(0)
    local = units - np.repeat(units[features.point_start[:-1]], np.diff(features.point_start), axis=0)
    following = np.roll(local, -1, axis=0)
    cross = (local[:, 0] * following[:, 1] - local[:, 1] * following[:, 0]).astype(np.float64)
    cross[features.point_start[1:] - 1] = 0  # rings repeat their first point; nothing crosses over to the next ring
    return np.abs(np.add.reduceat(cross, features.point_start[features.ring_start[:-1]]))


def _pairs(
    features: Features, units: np.ndarray, first_point: np.ndarray, size: np.ndarray, area: TileArea
) -> np.ndarray:
    """All `(tile, item)` where the item may leave a mark: exact to a piece of half a tile."""
    pad = np.where(features.item_kind == LINE, size / 2, size) * UNIT + 1
    low, high = _bounds(units, first_point)
    low, high = low[features.item_object] - pad[:, None], high[features.item_object] + pad[:, None]
    inside = _touches(low, high, area)
    spread = np.ceil((high - low) / UNIT).max(axis=1) > 2
    near = np.flatnonzero(inside & ~spread)
    found = [_cells(low[near], high[near], near, area)]
    far = np.flatnonzero(inside & spread)
    found += [_pairs_of_one(features, units, first_point, item, pad[item], area) for item in far]
    tile, item = np.concatenate(found).T
    return np.stack(np.divmod(np.unique(tile * len(size) + item), max(1, len(size))), axis=1)  # quicker than by rows


def _touches(low: np.ndarray, high: np.ndarray, area: TileArea) -> np.ndarray:
    rows, columns = area.wanted.shape
    start = np.array([area.x0, area.y0]) * UNIT
    end = start + np.array([columns, rows]) * UNIT
    return ((high >= start) & (low < end)).all(axis=1)


def _cells(low: np.ndarray, high: np.ndarray, item: np.ndarray, area: TileArea) -> np.ndarray:
    """`(tile, item)` for every tile that the boxes `low`, `high` (in units) touch."""
    first = np.floor(low / UNIT).astype(np.int64)
    across, down = (np.floor(high / UNIT).astype(np.int64) - first + 1).T
    count = across * down
    box = np.repeat(np.arange(len(item)), count)
    step = np.arange(len(box)) - np.repeat(np.cumsum(count) - count, count)
    tile = area.number(first[box, 0] + step % across[box], first[box, 1] + step // across[box])
    return np.stack([tile, item[box]], axis=1)[tile >= 0]


def _pairs_of_one(
    features: Features, units: np.ndarray, first_point: np.ndarray, item: int, pad: float, area: TileArea
) -> np.ndarray:
    owner = features.item_object[item]
    start, end = first_point[owner], first_point[owner + 1]
    kind = features.item_kind[item]
    if kind == POINT:
        return _cells(units[start:end] - pad, units[start:end] + pad, np.array([item]), area)
    ends = segments(features, units, owner)
    pieces, _ = cut_segments(ends, UNIT / 2)
    found = _cells(pieces.min(axis=1) - pad, pieces.max(axis=1) + pad, np.full(len(pieces), item), area)
    if kind == FILL:
        inner = area.number(*centres_inside(ends, area))
        found = np.concatenate([found, np.stack([inner, np.full(len(inner), item)], axis=1)[inner >= 0]])
    return found


def segments(features: Features, units: np.ndarray, owner: int) -> np.ndarray:
    """The segments `(N, 2, 2)` of all rings of an object."""
    rings = features.ring_start[owner], features.ring_start[owner + 1]
    start, end = features.point_start[rings[0]], features.point_start[rings[1]]
    ends = np.stack([units[start : end - 1], units[start + 1 : end]], axis=1)
    return np.delete(ends, features.point_start[rings[0] + 1 : rings[1]] - start - 1, axis=0)


def cut_segments(ends: np.ndarray, longest: float) -> tuple[np.ndarray, np.ndarray]:
    """Cut segments `(N, 2, 2)` into pieces no longer than `longest` along either axis; also tell whose they are."""
    count = np.maximum(1, np.ceil(np.abs(ends[:, 1] - ends[:, 0]).max(axis=1) / longest)).astype(np.int64)
    segment = np.repeat(np.arange(len(ends)), count)
    step = np.arange(len(segment)) - np.repeat(np.cumsum(count) - count, count)
    start, way = ends[segment, 0], ends[segment, 1] - ends[segment, 0]
    share = (np.stack([step, step + 1], axis=1) / count[segment, None])[:, :, None]
    return start[:, None, :] + way[:, None, :] * share, segment


def centres_inside(ends: np.ndarray, area: TileArea) -> tuple[np.ndarray, np.ndarray]:
    """Tiles of `area` whose centre lies inside the rings made of the segments `ends` (even-odd), as x and y."""
    rows, columns = area.wanted.shape
    low, high = ends[:, :, 1].min(axis=1), ends[:, :, 1].max(axis=1)
    xs, ys = [], []
    for y in range(max(area.y0, int(low.min() // UNIT)), min(area.y0 + rows, int(high.max() // UNIT) + 1)):
        centre = (y + 0.5) * UNIT
        (x0, y0), (x1, y1) = ends[(low <= centre) & (high > centre)].transpose(1, 2, 0)
        crossing = np.sort(x0 + (centre - y0) * (x1 - x0) / (y1 - y0))
        x = np.arange(area.x0, area.x0 + columns)
        within = np.searchsorted(crossing, (x + 0.5) * UNIT) % 2 == 1
        xs.append(x[within])
        ys.append(np.full(int(within.sum()), y))
    return (np.concatenate(xs), np.concatenate(ys)) if xs else (np.zeros(0, np.int64), np.zeros(0, np.int64))
