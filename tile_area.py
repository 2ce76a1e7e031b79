"""The tiles of a run: a rectangle of the tile grid, also across 180 degrees, and which of its tiles count.

Not a command.
"""

import dataclasses
import math
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
import shapely

from cli import UserError
from progress_bars import warn
from tile_grid import Box, tile_of_latlon, unwrapped

BOX_TOLERANCE = 1e-7  # degrees; boxes are written with seven decimals, a tile beyond the edge by less is not in it
MAX_TILES = 4_000_000
NULL_ISLAND = 0.5  # degrees around latitude 0, longitude 0, where there is nothing but water
CELLS_AROUND = 2048  # objects are grouped by cells of a 2048 x 2048 grid of the world, 10 to 20 km wide
FEW_OBJECTS = 3  # a group far from the rest that holds no more than these, or a thousandth, was put there by mistake


@dataclasses.dataclass(frozen=True)
class TileArea:
    """The tiles of a run: a rectangle of the grid, and which of its cells count: `wanted (rows, columns) bool`.

    The rectangle begins in column `x0` of the grid. One that crosses 180 degrees goes on beyond column `2 ** zoom - 1`.
    """

    zoom: int
    x0: int
    y0: int
    wanted: np.ndarray

    @classmethod
    def of_box(cls, box: Box, zoom: int, limit: int = MAX_TILES) -> Self:
        """All tiles that share more than a hair's breadth with `box`; west > east crosses 180 degrees.

        Raises `UserError` if these are more than `limit`.
        """
        x0, y0, columns, rows = tile_range(box, zoom)
        if columns * rows > limit:
            raise UserError(
                f"the box {box_text(box)} holds {columns * rows:,} tiles at zoom {zoom}, more than {limit:,}; give a "
                "smaller --bbox or --zoom"
            )
        return cls(zoom, x0, y0, np.ones((rows, columns), dtype=bool))

    @classmethod
    def of_tiles(cls, tile_xy: np.ndarray, zoom: int) -> Self:
        """The smallest rectangle that holds all of `tile_xy (N, 2)`."""
        tile_xy = unwrapped(tile_xy, zoom)
        (x0, y0), (x1, y1) = tile_xy.min(axis=0).tolist(), tile_xy.max(axis=0).tolist()
        return cls(zoom, x0, y0, np.ones((y1 - y0 + 1, x1 - x0 + 1), dtype=bool))

    @property
    def columns_around(self) -> int:
        """Columns of the grid all around the Earth."""
        return 1 << self.zoom

    @cached_property
    def columns_rows(self) -> np.ndarray:
        """`(N, 2) int64`: place in the rectangle of each tile that counts, sorted by column, then row."""
        return np.stack(np.nonzero(self.wanted.T), axis=1)

    @cached_property
    def unwrapped_xy(self) -> np.ndarray:
        """`(N, 2) int64`: column and row of each tile; columns go on beyond 180 degrees."""
        return self.columns_rows + np.array([self.x0, self.y0])

    @cached_property
    def tile_xy(self) -> np.ndarray:
        """`(N, 2) int64` slippy-map numbers in the order of `columns_rows`."""
        return self.unwrapped_xy % self.columns_around

    @cached_property
    def _number(self) -> np.ndarray:
        number = np.full(self.wanted.shape, -1, dtype=np.int32)
        column, row = self.columns_rows.T
        number[row, column] = np.arange(len(column))
        return number

    def number(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Row in `tile_xy` of each tile, -1 outside. Columns go on beyond 180 degrees, as in `unwrapped_x`."""
        column, row = x - self.x0, y - self.y0
        inside = (column >= 0) & (row >= 0) & (column < self.wanted.shape[1]) & (row < self.wanted.shape[0])
        found = self._number[np.where(inside, row, 0), np.where(inside, column, 0)]
        return np.where(inside, found, -1).astype(np.int64)

    def unwrapped_x(self, x: np.ndarray) -> np.ndarray:
        """Columns counted on from the area's west edge beyond 180 degrees."""
        return self.x0 + (x - self.x0) % self.columns_around


def tile_range(box: Box, zoom: int) -> tuple[int, int, int, int]:
    """First column, first row, number of columns and number of rows of the tiles that `box` touches."""
    west, south, east, north = box
    east += 360 * (west > east)
    e = BOX_TOLERANCE
    corners = tile_of_latlon(np.array([north - e, south + e]), np.array([west + e, east - e]), zoom)
    (x0, y0), (x1, y1) = np.floor(corners).astype(int).tolist()
    last = (1 << zoom) - 1
    y0, y1 = max(0, min(y0, last)), max(0, min(y1, last))
    return x0, y0, max(1, min(x1 - x0 + 1, 1 << zoom)), max(1, y1 - y0 + 1)


def box_text(box: Box) -> str:
    """`west,south,east,north` as `--bbox` takes it."""
    return ",".join(f"{value:.7g}" for value in box)


def boxes_overlap(a: Box, b: Box) -> bool:
    """Whether two boxes share more than an edge; each may cross 180 degrees."""

    def spans(box: Box) -> list[tuple[float, float]]:
        return [(box[0], box[2])] if box[0] <= box[2] else [(box[0], 180.0), (-180.0, box[2])]

    across = any(w < other_e and other_w < e for w, e in spans(a) for other_w, other_e in spans(b))
    return across and a[1] < b[3] and b[1] < a[3]


def check_overlap(box: Box | None, covered: Box | None, extract: Path) -> None:
    """Raise `UserError` if both boxes are known, and `box` holds nothing of what the extract says it covers."""
    if box and covered and not boxes_overlap(box, covered):
        raise UserError(f"--bbox {box_text(box)} lies outside of {extract}, which covers {box_text(covered)} (W,S,E,N)")


def common_box(a: Box, b: Box) -> Box:
    """What two boxes have in common; the whole width of `a` if that is two pieces, one at each end."""
    pieces = []
    for turn in (-360, 0, 360):
        west, east = max(a[0] + turn, b[0]), min(a[0] + turn + _width(a), b[0] + _width(b))
        if west < east:
            pieces.append((west, east))
    west, east = pieces[0] if len(pieces) == 1 else (a[0], a[2])
    west, east = (edge - 360 * (edge > 180) + 360 * (edge < -180) for edge in (west, east))
    return west, max(a[1], b[1]), east, min(a[3], b[3])


def _width(box: Box) -> float:
    return (box[2] - box[0]) % 360 or 360.0


# --- the box of the data -----------------------------------------------------------------------------------


def data_box(
    bounds: np.ndarray, points: np.ndarray, zoom: int, counts: np.ndarray | None = None
) -> tuple[Box, np.ndarray]:
    """The box that holds objects with `bounds (M, 4)`, and which of them reach far beyond it or lie far from it.

    `bounds` are west, south, east, north in degrees; objects across 180 degrees have east > 180. `points (M,)` are the
    numbers of their points: the box is around the group of objects that has most of them. It has west > east where it
    crosses 180 degrees. It leaves out objects that are few and far away, such as a node that somebody put at 0, 0 by
    mistake: with them it would hold almost nothing but empty tiles. With `counts (M,)`, a row stands for as many
    objects in the same cells.
    """
    counts = np.ones(len(bounds)) if counts is None else counts
    few = max(FEW_OBJECTS, int(counts.sum()) // 1000)
    corners = [tile_of_latlon(bounds[:, lat], bounds[:, lon], zoom) for lat, lon in ((3, 0), (1, 2))]
    small = np.prod(corners[1] - corners[0], axis=1) <= MAX_TILES
    if not small.any() or counts[~small].sum() > few:
        small[:] = True
    group = np.full(len(bounds), -1)
    group[small] = _groups(bounds[small])
    sizes = np.bincount(group[small], counts[small])
    weights = np.bincount(group[small], points[small])
    weights[group[small & (np.abs(bounds) < NULL_ISLAND).all(axis=1)]] = 0  # where places without a place end up
    kept = group == weights.argmax()
    tiles = tile_count(_box_around(bounds[kept]), zoom)
    for number in np.argsort(-weights, kind="stable")[1:]:
        candidate = kept | (group == number)
        own = tile_count(_box_around(bounds[group == number]), zoom)
        together = tile_count(_box_around(bounds[candidate]), zoom)
        if sizes[number] > few or together <= 16 * (tiles + own) + 10_000:
            kept, tiles = candidate, tiles + own
    return _box_around(bounds[kept]), np.flatnonzero(~kept)


def tile_count(box: Box, zoom: int) -> int:
    """Number of tiles that `box` touches."""
    return math.prod(tile_range(box, zoom)[2:])


def _box_around(bounds: np.ndarray) -> Box:
    """The smallest box that holds all bounds: it starts after the widest gap between their longitudes."""
    south, north = float(bounds[:, 1].min()), float(bounds[:, 3].max())
    west, east = bounds[np.argsort(bounds[:, 0], kind="stable")][:, [0, 2]].T
    reach = np.maximum.accumulate(east)
    gaps = west[1:] - reach[:-1]
    last_gap = west[0] + 360 - reach[-1]
    if len(gaps) and gaps.max() > max(last_gap, 0):
        widest = int(gaps.argmax())
        start, end = float(west[widest + 1]), float(max(reach[widest], reach[-1] - 360))
    elif last_gap > 0:
        start, end = float(west[0]), float(reach[-1])
    else:
        return -180.0, south, 180.0, north
    return start, south, end if end <= 180 else end - 360, north


def _groups(bounds: np.ndarray) -> np.ndarray:
    """Number of the group that each object belongs to, `(M,) int64`: groups are at least a cell of 10 km apart."""
    from scipy.sparse import coo_matrix  # slow to import
    from scipy.sparse.csgraph import connected_components

    cells = np.floor(
        np.concatenate(
            [
                tile_of_latlon(bounds[:, lat], bounds[:, lon], CELLS_AROUND.bit_length() - 1)
                for lat in (1, 3)
                for lon in (0, 2)
            ]
        )
    ).astype(np.int64)
    codes, of_corner = np.unique(cells[:, 0] % CELLS_AROUND * CELLS_AROUND + cells[:, 1], return_inverse=True)
    x, y = np.divmod(codes, CELLS_AROUND)
    corners = of_corner.reshape(4, -1)
    edges = [np.stack([corners[0], corners[k]]) for k in (1, 2, 3)]  # an object holds its corners together
    for dx, dy in ((1, -1), (1, 0), (1, 1), (0, 1)):
        wanted = (x + dx) % CELLS_AROUND * CELLS_AROUND + y + dy
        place = np.minimum(np.searchsorted(codes, wanted), len(codes) - 1)
        found = np.flatnonzero(codes[place] == wanted)
        edges.append(np.stack([found, place[found]]))
    start, end = np.concatenate(edges, axis=1)
    graph = coo_matrix((np.ones(len(start)), (start, end)), shape=(len(codes), len(codes)))
    return connected_components(graph, directed=False)[1][corners[0]].astype(np.int64)


def near_tiles(area: TileArea, occupied: np.ndarray) -> TileArea:
    """`area` without the tiles that hold nothing, and next to which nothing is either: `occupied (N,) bool`.

    Raises `UserError` if more than `MAX_TILES` are left.
    """
    mask = np.zeros(np.add(area.wanted.shape, 2), dtype=bool)
    column, row = area.columns_rows[occupied].T
    for dx in range(3):
        for dy in range(3):
            mask[row + dy, column + dx] = True
    near = dataclasses.replace(area, wanted=mask[1:-1, 1:-1] & area.wanted)
    if len(near.tile_xy) > MAX_TILES:
        raise UserError(
            f"{len(near.tile_xy):,} tiles at zoom {area.zoom} hold something, more than {MAX_TILES:,}; give a smaller "
            "--bbox or --zoom"
        )
    return near


# --- the boundary of a city --------------------------------------------------------------------------------


def clipped(area: TileArea, boundaries: list[tuple[str, str]], path: Path) -> TileArea:
    """The tiles inside the administrative boundary that fits the box best, or `area` where there is none.

    `boundaries` are names and hexadecimal WKB; `path` is where they come from, for the message.
    """
    around, middle = area.columns_around, area.x0 + area.wanted.shape[1] / 2

    def to_tiles(lonlat: np.ndarray) -> np.ndarray:
        place = tile_of_latlon(lonlat[:, 1], lonlat[:, 0], area.zoom)
        place[:, 0] += around * np.round((middle - place[:, 0]) / around)  # the copy next to the area
        return place

    best, name, shape = 0.5, "", None
    box = shapely.box(area.x0, area.y0, area.x0 + area.wanted.shape[1], area.y0 + area.wanted.shape[0])
    for candidate, wkb in boundaries:
        outline = shapely.transform(shapely.from_wkb(wkb), to_tiles)
        extent = shapely.box(*outline.bounds)
        likeness = extent.intersection(box).area / extent.union(box).area
        if likeness > best:
            best, name, shape = likeness, candidate, outline
    if shape is None:
        warn(f"{path} holds no administrative boundary that fits the box; drawing the box")
        return area
    shapely.prepare(shape)
    wanted = np.zeros_like(area.wanted)
    column, row = area.columns_rows.T
    x, y = area.unwrapped_xy.T
    wanted[row, column] = shapely.intersects(shape, shapely.box(x, y, x + 1, y + 1))
    warn(
        f"staying inside the boundary of {name or 'a place without a name'}: {wanted.sum():,} of {wanted.size:,} tiles"
    )
    return dataclasses.replace(area, wanted=wanted)
