"""What lies on which tile: the spatial index that the renderer draws from.

Not a command; `python render_tiles.py` builds one. Nothing here draws.
"""

import dataclasses
import math
from pathlib import Path

import numpy as np

from files import save_array
from map_style import FILL, LINE, POINT, Style
from osm_extract import Features
from tile_area import TileArea
from tile_grid import tile_of_latlon

UNIT = 1 << 14  # coordinates are whole 16384ths of a tile: 1/64 of a pixel of a 256-px tile, under 2 cm on the ground
STYLE_PX = 256  # the style table's pixels are those of a tile of this size
EARTH_M = 40_075_016.686
REACH_TILES = 8  # no symbol of a style reaches farther than this beyond its object
LONG_PATH = 256  # points; of longer rings, and of objects with more points, a tile draws only what it can see


@dataclasses.dataclass
class MapObjects:
    """The objects of a map on the tile grid, in units, without anything that depends on an area.

    The arrays that `DrawIndex` has too mean the same. `surface (M,) float64` is twice the area of each object, holes
    counted against it, and decides the order of drawing. `large (M,)` are the objects with more than `LONG_PATH`
    points, `long_ring (R,)` such rings. Sizes, surfaces and these two are those of the whole object, also where only
    a part of it is kept.
    """

    points: np.ndarray
    point_start: np.ndarray
    ring_start: np.ndarray
    origin: np.ndarray
    osm_key: np.ndarray
    surface: np.ndarray
    large: np.ndarray
    long_ring: np.ndarray
    item_object: np.ndarray
    item_class: np.ndarray
    item_kind: np.ndarray
    item_size: np.ndarray

    @property
    def units(self) -> np.ndarray:
        """Absolute coordinates `(P, 2) int64`, in units."""
        return self.points + np.repeat(self.origin * UNIT, self.point_counts(), axis=0)

    def point_counts(self) -> np.ndarray:
        """Number of points of each object, `(M,) int64`."""
        return np.diff(self.point_start[self.ring_start])

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """The least and the greatest coordinates of each object, `(M, 2) int64`, in units."""
        first = self.point_start[self.ring_start[:-1]]
        if not len(first):
            return np.zeros((0, 2), np.int64), np.zeros((0, 2), np.int64)
        corner = self.origin * UNIT
        return np.minimum.reduceat(self.points, first) + corner, np.maximum.reduceat(self.points, first) + corner


@dataclasses.dataclass
class DrawIndex:
    """What is drawn on which tile, as flat arrays that all processes share.

    `points (P, 2) int32` are offsets, in units, from the corner of the object's own `origin` tile, so that what is
    computed from them never depends on who draws it. Tile t draws `pair_item[tile_start[t]:tile_start[t + 1]]` in this
    order; item j is object `item_object[j]`, drawn as `item_kind[j]` in class `item_class[j]` with
    `item_size[j]` (line width or radius, in tiles). `class_style (C, 4)` is layer, gray of points, of lines, of fills.
    `large` and `long_ring` are as in `MapObjects`.
    """

    points: np.ndarray
    point_start: np.ndarray
    ring_start: np.ndarray
    origin: np.ndarray
    osm_key: np.ndarray
    large: np.ndarray
    long_ring: np.ndarray
    item_object: np.ndarray
    item_class: np.ndarray
    item_kind: np.ndarray
    item_size: np.ndarray
    class_style: np.ndarray
    tile_start: np.ndarray
    pair_item: np.ndarray

    def save(self, folder: Path) -> None:
        """Write each array to its own file."""
        for field in dataclasses.fields(self):
            save_array(folder / f"{field.name}.npy", getattr(self, field.name))

    @classmethod
    def load(cls, folder: Path) -> "DrawIndex":
        """Map the arrays that `save` wrote."""
        names = [field.name for field in dataclasses.fields(cls)]
        mapped = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in names}
        return cls(**{name: array.view(np.ndarray) for name, array in mapped.items()})  # np.memmap is slow to index


def build_index(features: Features, style: Style, area: TileArea) -> DrawIndex:
    """Project the objects and find the tiles that each touches, its width included."""
    return index_tiles(project(reaching_into(features, area), style, area.zoom), class_style(style), area)


def class_style(style: Style) -> np.ndarray:
    """Layer, gray of points, of lines and of fills of each class, `(C, 4) int64`."""
    return np.array([(row.layer, row.gray, row.gray, row.fill_gray) for row in style.classes])


def project(features: Features, style: Style, zoom: int) -> MapObjects:
    """The objects on the grid of a zoom level."""
    world = tile_of_latlon(features.lonlat[:, 1], features.lonlat[:, 0], zoom)
    units = np.rint(world * UNIT).astype(np.int64)
    first_point = features.point_start[features.ring_start]
    low = high = np.zeros((0, 2), np.int64)
    if len(units):
        low, high = np.minimum.reduceat(units, first_point[:-1]), np.maximum.reduceat(units, first_point[:-1])
    origin = low // UNIT
    owner = np.repeat(np.arange(len(origin)), np.diff(first_point))
    return MapObjects(
        points=(units - origin[owner] * UNIT).astype(np.int32),
        point_start=features.point_start,
        ring_start=features.ring_start,
        origin=origin,
        osm_key=features.osm_key,
        surface=_surfaces(features, units),
        large=np.diff(first_point) > LONG_PATH,
        long_ring=np.diff(features.point_start) > LONG_PATH,
        item_object=features.item_object,
        item_class=features.item_class,
        item_kind=features.item_kind,
        item_size=_item_sizes(features, style, zoom, (low + high)[:, 1] / (2 * UNIT)),
    )


def index_tiles(objects: MapObjects, classes: np.ndarray, area: TileArea) -> DrawIndex:
    """Find the tiles of `area` that each object touches; `classes` are those of `class_style`."""
    pairs = _pairs(objects, area)
    rank = np.empty(len(objects.item_size), dtype=np.int64)
    rank[_order(objects, classes[:, 0], objects.surface)] = np.arange(len(rank))
    tile, item = pairs[np.lexsort((rank[pairs[:, 1]], pairs[:, 0]))].T
    kept = {field.name for field in dataclasses.fields(DrawIndex)}
    return DrawIndex(
        **{name: column for name, column in vars(objects).items() if name in kept},
        class_style=classes,
        tile_start=np.searchsorted(tile, np.arange(len(area.tile_xy) + 1)),
        pair_item=item.astype(np.int32),
    )


def reaching_into(features: Features, area: TileArea) -> Features:
    """`features`, and copies of the objects that reach into `area` from across 180 degrees.

    Away from 180 degrees there are none, and `features` itself is returned.
    """
    start, end = area.x0 - REACH_TILES, area.x0 + area.wanted.shape[1] + REACH_TILES
    bounds = features.bounds()
    west, east = (bounds[:, [0, 2]].T + 180) / 360 * area.columns_around
    for turn in (-1, 1):
        shift = turn * area.columns_around
        copied = np.flatnonzero((west + shift < end) & (east + shift > start))
        features = _with_copies(features, copied, turn * 360) if len(copied) else features
    return features


def _with_copies(features: Features, objects: np.ndarray, degrees: float) -> Features:
    """`features` and copies of some objects `degrees` farther east; the copies come last."""
    rings = ranges(features.ring_start[objects], features.ring_start[objects + 1])
    points = ranges(features.point_start[rings], features.point_start[rings + 1])
    place = np.full(len(features.osm_key), -1)
    place[objects] = len(features.osm_key) + np.arange(len(objects))
    items = np.flatnonzero(place[features.item_object] >= 0)
    ring_counts, point_counts = np.diff(features.ring_start)[objects], np.diff(features.point_start)[rings]
    return dataclasses.replace(
        features,
        lonlat=np.concatenate([features.lonlat, features.lonlat[points] + np.array([degrees, 0])]),
        point_start=np.append(features.point_start, features.point_start[-1] + np.cumsum(point_counts)),
        ring_start=np.append(features.ring_start, features.ring_start[-1] + np.cumsum(ring_counts)),
        osm_key=np.append(features.osm_key, features.osm_key[objects]),
        item_object=np.append(features.item_object, place[features.item_object[items]]),
        item_class=np.append(features.item_class, features.item_class[items]),
        item_kind=np.append(features.item_kind, features.item_kind[items]),
    )


def ranges(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """All numbers of the ranges `start[i]:end[i]`, one range after the other."""
    count = end - start
    return np.repeat(start - np.cumsum(count) + count, count) + np.arange(count.sum())


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
    return _order(features, np.array([row.layer for row in style.classes]), _surfaces(features, units))


def _order(items: Features | MapObjects, layer_of: np.ndarray, surface: np.ndarray) -> np.ndarray:
    importance = np.where(items.item_kind == FILL, 0, -items.item_class)
    stage = np.array([2, 1, 0])[items.item_kind]  # POINT, LINE, FILL
    area = np.where(items.item_kind == FILL, -surface[items.item_object], 0)
    layer = layer_of[items.item_class]
    return np.lexsort((items.item_class, items.osm_key[items.item_object], area, importance, stage, layer))


def _surfaces(features: Features, units: np.ndarray) -> np.ndarray:
    """Twice the area of each object in square units, `(M,) float64`; holes count against it."""
    if not len(units):
        return np.zeros(len(features.osm_key))
    local = units - np.repeat(units[features.point_start[:-1]], np.diff(features.point_start), axis=0)
    following = np.roll(local, -1, axis=0)
    cross = (local[:, 0] * following[:, 1] - local[:, 1] * following[:, 0]).astype(np.float64)
    cross[features.point_start[1:] - 1] = 0  # rings repeat their first point; the next ring starts anywhere
    return np.abs(np.add.reduceat(cross, features.point_start[features.ring_start[:-1]]))


# --- tiles of an object ------------------------------------------------------------------------------------


def _pairs(objects: MapObjects, area: TileArea) -> np.ndarray:
    """All `(tile, item)` where the item may leave a mark: exact to a piece of half a tile."""
    size, kind, owner = objects.item_size, objects.item_kind, objects.item_object
    low, high = objects.bounds()
    pad = reach_of_items(objects)
    low, high = low[owner] - pad[:, None], high[owner] + pad[:, None]
    rows, columns = area.wanted.shape
    start = np.array([area.x0, area.y0]) * UNIT
    inside = ((high >= start) & (low < start + np.array([columns, rows]) * UNIT)).all(axis=1)
    spread = np.ceil((high - low) / UNIT).max(axis=1) > 2
    near = np.flatnonzero(inside & ~spread)
    found = [_cells(low[near], high[near], near, area)]
    for item in np.flatnonzero(inside & spread):  # what spreads over many tiles is cut into pieces
        if kind[item] == POINT:
            found.append(_cells(low[[item]], high[[item]], np.array([item]), area))
            continue
        ends = object_segments(objects, owner[item])
        pieces, _ = cut_segments(ends, UNIT / 2)
        whole = np.full(len(pieces), item)
        found.append(_cells(pieces.min(axis=1) - pad[item], pieces.max(axis=1) + pad[item], whole, area))
        if kind[item] == FILL:
            inner = area.number(*centres_inside(ends, area.x0, area.y0, columns, rows))
            found.append(np.stack([inner, np.full(len(inner), item)], axis=1)[inner >= 0])
    tile, item = np.concatenate(found).T
    return np.stack(np.divmod(np.unique(tile * len(size) + item), max(1, len(size))), axis=1)  # quicker than by rows


def reach_of_items(objects: MapObjects) -> np.ndarray:
    """How far each item leaves a mark beyond its object, in units, `(J,) float64`."""
    return np.where(objects.item_kind == LINE, objects.item_size / 2, objects.item_size) * UNIT + 1


def _cells(low: np.ndarray, high: np.ndarray, item: np.ndarray, area: TileArea) -> np.ndarray:
    """`(tile, item)` for every tile that the boxes `low`, `high` (in units) touch."""
    first = np.floor(low / UNIT).astype(np.int64)
    across, down = (np.floor(high / UNIT).astype(np.int64) - first + 1).T
    count = across * down
    box = np.repeat(np.arange(len(item)), count)
    step = np.arange(len(box)) - np.repeat(np.cumsum(count) - count, count)
    tile = area.number(first[box, 0] + step % across[box], first[box, 1] + step // across[box])
    return np.stack([tile, item[box]], axis=1)[tile >= 0]


def segments(features: Features, units: np.ndarray, owner: int) -> np.ndarray:
    """The segments `(N, 2, 2)` of all rings of an object."""
    start, end = features.point_start[features.ring_start[owner : owner + 2]]
    return _segments(features, units[start:end], owner)


def object_segments(objects: MapObjects, owner: int) -> np.ndarray:
    """The same in absolute units, `int64`."""
    start, end = objects.point_start[objects.ring_start[owner : owner + 2]]
    return _segments(objects, objects.points[start:end] + objects.origin[owner] * UNIT, owner)


def _segments(rings_of: Features | MapObjects, points: np.ndarray, owner: int) -> np.ndarray:
    first, last = rings_of.ring_start[owner : owner + 2]
    ends = np.stack([points[:-1], points[1:]], axis=1)
    return np.delete(ends, rings_of.point_start[first + 1 : last] - rings_of.point_start[first] - 1, axis=0)


def cut_segments(ends: np.ndarray, longest: float) -> tuple[np.ndarray, np.ndarray]:
    """Cut segments `(N, 2, 2)` into pieces no longer than `longest` along either axis; also tell whose they are."""
    count = np.maximum(1, np.ceil(np.abs(ends[:, 1] - ends[:, 0]).max(axis=1) / longest)).astype(np.int64)
    segment = np.repeat(np.arange(len(ends)), count)
    step = np.arange(len(segment)) - np.repeat(np.cumsum(count) - count, count)
    start, way = ends[segment, 0], ends[segment, 1] - ends[segment, 0]
    share = (np.stack([step, step + 1], axis=1) / count[segment, None])[:, :, None]
    return start[:, None, :] + way[:, None, :] * share, segment


def centres_inside(ends: np.ndarray, x0: int, y0: int, columns: int, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Tiles of a rectangle whose centre lies inside the rings made of the segments `ends` (even-odd), as x and y."""
    low, high = ends[:, :, 1].min(axis=1), ends[:, :, 1].max(axis=1)
    xs, ys = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for y in range(max(y0, int(low.min() // UNIT)), min(y0 + rows, int(high.max() // UNIT) + 1)):
        centre = (y + 0.5) * UNIT
        (from_x, from_y), (to_x, to_y) = ends[(low <= centre) & (high > centre)].transpose(1, 2, 0)
        crossing = np.sort(from_x + (centre - from_y) * (to_x - from_x) / (to_y - from_y))
        x = np.arange(x0, x0 + columns)
        within = np.searchsorted(crossing, (x + 0.5) * UNIT) % 2 == 1
        xs.append(x[within])
        ys.append(np.full(int(within.sum()), y))
    return np.concatenate(xs), np.concatenate(ys)
