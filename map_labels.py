"""Labels per tile: what the tiles do not show, and counts of what they do.

Not a command; `python render_tiles.py --labels labels.parquet` writes them.
"""

from typing import Any

import numpy as np
import pyarrow as pa

from layers import DRAWN_PREFIX, LAYERS
from map_index import UNIT, DrawIndex, centres_inside, cut_segments, draw_order, reaching_into, segments
from map_style import FILL, LINE, POINT, Style
from osm_extract import Features
from tile_area import TileArea
from tile_grid import tile_of_latlon

_FINE = 8  # samples along the edge of a tile (three zoom levels) from which its majority land use is counted


def labels_table(features: Features, style: Style, area: TileArea, index: DrawIndex) -> pa.Table:
    """One row per tile: what the masks do not show, and counts of what they do.

    `levels` (mean `building:levels`) over `buildings_with_levels`, `addresses`, `poi_<kind>`, `landuse` (the class of
    the landcover layer that covers most), `highway` (the class of the roads layer with the greatest length), then
    `drawn:<layer>` and `drawn:<layer>:<class>`, the number of objects that touch the tile.
    """
    count = len(area.tile_xy)
    columns: dict[str, Any] = {
        "z": np.full(count, area.zoom, dtype=np.int32),
        "x": area.tile_xy[:, 0].astype(np.int32),
        "y": area.tile_xy[:, 1].astype(np.int32),
    }
    tile, inside = _tiles_of(features.levels[:, :2], area)
    known = np.bincount(tile, minlength=count)
    total = np.bincount(tile, features.levels[inside, 2], minlength=count)
    columns["levels"] = pa.array(total / np.maximum(known, 1), mask=known == 0)
    columns["buildings_with_levels"] = known.astype(np.int32)
    columns["addresses"] = _count(_tiles_of(features.addresses, area)[0], count)
    # Points of interest by kind.
    kinds = sorted({row.poi for row in style.classes if row.poi})
    of_class = np.array([kinds.index(row.poi) if row.poi else -1 for row in style.classes])
    items = np.flatnonzero((features.item_kind == POINT) & (of_class[features.item_class] >= 0))
    place = features.lonlat[features.point_start[features.ring_start[features.item_object[items]]]]
    tile, inside = _tiles_of(place, area)
    kind = of_class[features.item_class[items[inside]]]
    columns |= {f"poi_{name}": _count(tile[kind == i], count) for i, name in enumerate(kinds)}
    # The names of the classes that prevail.
    features = reaching_into(features, area)
    names = np.array([row.name for row in style.classes], dtype=object)
    for column, number in (
        ("landuse", _majority_landuse(features, style, area)),
        ("highway", _dominant_highway(features, style, area)),
    ):
        columns[column] = pa.array(names[np.maximum(number, 0)], type=pa.string(), mask=number < 0)
    return pa.table(columns | _drawn_columns(style, index, count))


def _tiles_of(lonlat: np.ndarray, area: TileArea) -> tuple[np.ndarray, np.ndarray]:
    """Tile rows of the places that lie in the area, and which places these are."""
    x, y = np.floor(tile_of_latlon(lonlat[:, 1], lonlat[:, 0], area.zoom)).astype(np.int64).T
    tile = area.number(area.unwrapped_x(x), y)
    return tile[tile >= 0], np.flatnonzero(tile >= 0)


def _count(tile: np.ndarray, count: int) -> np.ndarray:
    return np.bincount(tile, minlength=count).astype(np.int32)


def _majority_landuse(features: Features, style: Style, area: TileArea) -> np.ndarray:
    """The class that covers most of each tile, -1 where none does; what is drawn on top counts."""
    zoom, (rows, columns) = area.zoom + 3, np.multiply(area.wanted.shape, _FINE).tolist()
    cover = np.full((len(area.tile_xy), _FINE * _FINE), -1, dtype=np.int16)
    units = np.rint(tile_of_latlon(features.lonlat[:, 1], features.lonlat[:, 0], zoom) * UNIT).astype(np.int64)
    layer = np.array([row.layer for row in style.classes])[features.item_class]
    order = draw_order(features, style, units)
    chosen = order[(layer[order] == LAYERS.index("landcover")) & (features.item_kind[order] == FILL)]
    for item in chosen.tolist():
        ends = segments(features, units, features.item_object[item])
        x, y = centres_inside(ends, area.x0 * _FINE, area.y0 * _FINE, columns, rows)
        tile, sample = area.number(x // _FINE, y // _FINE), y % _FINE * _FINE + x % _FINE
        cover[tile[tile >= 0], sample[tile >= 0]] = features.item_class[item]
    votes = np.stack([(cover == number).sum(axis=1) for number in range(len(style.classes))], axis=1)
    return np.where(votes.any(axis=1), votes.argmax(axis=1), -1)


def _dominant_highway(features: Features, style: Style, area: TileArea) -> np.ndarray:
    """The class of road with the greatest length on each tile, -1 where there is none."""
    layer = LAYERS.index("roads")
    numbers = [number for number, row in enumerate(style.classes) if row.layer == layer]
    local = np.full(len(style.classes), -1)
    local[numbers] = np.arange(len(numbers))
    items = np.flatnonzero((features.item_kind == LINE) & (local[features.item_class] >= 0))
    start = features.point_start[features.ring_start[features.item_object[items]]]
    count = features.point_start[features.ring_start[features.item_object[items]] + 1] - start - 1
    first = np.repeat(start - np.cumsum(count) + count, count) + np.arange(count.sum())
    world = tile_of_latlon(features.lonlat[:, 1], features.lonlat[:, 0], area.zoom)
    pieces, segment = cut_segments(np.stack([world[first], world[first + 1]], axis=1), 1 / 16)
    owner = np.repeat(local[features.item_class[items]], count)[segment]
    x, y = np.floor(pieces.mean(axis=1)).astype(np.int64).T
    tile = area.number(x, y)
    length = np.linalg.norm(pieces[:, 1] - pieces[:, 0], axis=1)
    inside = tile >= 0
    total = np.zeros((len(area.tile_xy), len(numbers)))
    np.add.at(total, (tile[inside], owner[inside]), length[inside])
    return np.where(total.any(axis=1), np.array(numbers)[total.argmax(axis=1)], -1)


def _drawn_columns(style: Style, index: DrawIndex, count: int) -> dict[str, np.ndarray]:
    """Objects drawn on each tile, by layer and by class."""
    tile = np.repeat(np.arange(count), np.diff(index.tile_start))
    number, owner = index.item_class[index.pair_item], index.osm_key[index.item_object[index.pair_item]]
    layer = np.array([row.layer for row in style.classes])[number]
    chosen = {f"{DRAWN_PREFIX}{name}": layer == i for i, name in enumerate(LAYERS)}
    for i, row in enumerate(style.classes):
        chosen[f"{DRAWN_PREFIX}{LAYERS[row.layer]}:{row.name}"] = number == i
    columns = {}
    for name, here in chosen.items():
        once = np.unique(np.stack([tile[here], owner[here]], axis=1), axis=0)[:, 0]  # an object may be drawn twice
        columns[name] = _count(once, count)
    return columns
