"""Labels and vectors from tables, aligned with the tiles of a city.

Not a command; `python evaluate.py` reads them.
"""

import contextlib
import dataclasses
import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cli import UserError
from layers import DRAWN_PREFIX
from tile_grid import TileGrid, latlon_of_tile, tile_of_latlon

if TYPE_CHECKING:
    import pandas as pd

MIN_TILES = 200  # a label known on fewer tiles is left out
MIN_SOME = 50  # so is a count that is above zero on fewer, and a class with fewer
MAX_CLASSES = 64  # text with more distinct values is names or addresses, not classes
NO_TARGETS = ("z", "zoom", "row", "id", "buildings_with_levels")  # keys, and what a mean is taken over
KEYS = (("x", "y"), ("tile_x", "tile_y"), ("lat", "lon"), ("latitude", "longitude"), ("lat", "lng"))
DRAWN_LABELS = re.compile("poi_.*|landuse|highway")  # labels of render_tiles.py that its tiles show


@dataclasses.dataclass(frozen=True)
class Target:
    """One label: `values (N,)` float, NaN where unknown; of a class label, the index into `classes`.

    `drawn` says that the tiles show what the label counts, so that its scores only tell whether it was kept.
    """

    name: str
    values: np.ndarray
    classes: tuple[str, ...] = ()
    drawn: bool = False

    @property
    def known(self) -> np.ndarray:
        """`(N,) bool`: tiles that have this label."""
        return ~np.isnan(self.values)


# --- labels ------------------------------------------------------------------------------------------------


def read_labels(path: Path, tile_xy: np.ndarray, zoom: int) -> tuple[list[Target], dict[str, np.ndarray]]:
    """Targets and counts of drawn objects, aligned with `tile_xy (N, 2)`.

    `path` is a table (Parquet, CSV), a vector file (GeoJSON) or an `.osm.pbf` extract. Several rows of one tile are
    averaged; for a class label the most frequent class counts. Whole, non-negative numbers are counts and enter as
    log(1 + n). Labels on too few tiles are left out. `drawn:` columns are returned as counts and are no targets; a
    table that has them was written by `render_tiles.py --labels`, so it is known which of its labels are drawn.

    Raises `UserError` if nothing in the file lies on these tiles, or nothing in it can be predicted.
    """
    table, rows = load_columns(path, tile_xy, zoom)
    counts = [name for name in table if name.startswith(DRAWN_PREFIX)]
    drawn = {name: mean_by_tile(table.pop(name), rows, len(tile_xy)) for name in counts}
    targets = []
    for name, column in table.items():
        read = _class_target if column.dtype == object else _number_target
        target = read(name, column, rows, len(tile_xy))
        if target is not None:
            is_drawn = bool(drawn) and DRAWN_LABELS.fullmatch(name) is not None
            targets.append(dataclasses.replace(target, drawn=is_drawn))
    if not targets:
        raise UserError(
            f"{path} has no column that can be predicted; expected numbers or classes on {MIN_TILES}+ tiles"
        )
    return targets, drawn


def load_columns(path: Path, tile_xy: np.ndarray, zoom: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Columns of the rows of a file that lie on a tile, and the tile of each, `(R,)`, as its row of `tile_xy (N, 2)`.

    Of the pairs of key columns, the first that puts a row on a tile counts; if none does, the geometry. None of the
    key columns is returned. Raises `UserError` if no row lies on a tile.
    """
    from user_tables import has_shapes  # slow to import: it loads GDAL

    frame = None if path.suffix.lower() == ".pbf" else _existing_frame(path)
    table = read_extract(path, tile_xy, zoom) if frame is None else _columns(frame)
    grid, pairs = TileGrid(tile_xy, zoom), key_pairs(table)
    keys = {name for pair in pairs for name in pair}  # no labels, whichever of them counts
    shapes = frame is not None and has_shapes(frame)
    if not pairs and not shapes:
        raise UserError(_keys_expected(table, path))
    inside = np.zeros(0, dtype=bool)
    for pair in pairs:
        rows = grid.rows(keyed_tiles(table, pair, zoom))
        inside = rows >= 0
        if inside.any():
            break
    if frame is not None and shapes and not inside.any():
        table, tiles = columns_of_shapes(frame, path, tile_xy, zoom, keys)
        rows = grid.rows(tiles)
        inside = rows >= 0
    if not inside.any():
        raise UserError(
            f"no row of {path} lies on a tile of this city; expected x,y at zoom {zoom}, lat,lon in degrees, or shapes"
        )
    kept = [name for name in table if name not in keys and name.lower() not in NO_TARGETS]
    return {name: table[name][inside] for name in kept}, rows[inside]


def mean_by_tile(column: np.ndarray, rows: np.ndarray, count: int) -> np.ndarray:
    """The mean of a column of numbers `(R,)` on each of `count` tiles, NaN where it has none; `rows (R,)` are tiles."""
    column = column.astype(np.float64)
    kept = np.isfinite(column)
    total = np.bincount(rows[kept], column[kept], minlength=count)
    number = np.bincount(rows[kept], minlength=count)
    return np.where(number > 0, total / np.maximum(number, 1), np.nan)


def _number_target(name: str, column: np.ndarray, rows: np.ndarray, count: int) -> Target | None:
    if column.ndim != 1:
        return None
    values = mean_by_tile(column, rows, count)
    known = column[~np.isnan(column.astype(np.float64))]
    is_count = len(known) > 0 and known.min() >= 0 and bool((known == np.floor(known)).all())
    too_few = (~np.isnan(values)).sum() < MIN_TILES or (is_count and (values > 0).sum() < MIN_SOME)
    if too_few or np.nanstd(values) == 0:
        return None
    return Target(name, np.log1p(values) if is_count else values)


def _class_target(name: str, column: np.ndarray, rows: np.ndarray, count: int) -> Target | None:
    known = np.array([value is not None and value != "" for value in column], dtype=bool)
    if not known.any():
        return None
    names, codes = np.unique(column[known].astype(str), return_inverse=True)
    if len(names) > MAX_CLASSES:
        return None
    votes = np.zeros((count, len(names)))
    np.add.at(votes, (rows[known], codes), 1)
    values = np.where(votes.any(axis=1), votes.argmax(axis=1), -1)
    frequent = [code for code in range(len(names)) if (values == code).sum() >= MIN_SOME]
    if len(frequent) < 2 or (values >= 0).sum() < MIN_TILES:
        return None
    new = np.full(len(names) + 1, np.nan)  # the last entry serves the tiles without a class, -1
    new[frequent] = np.arange(len(frequent))
    return Target(name, new[values], tuple(names[frequent]))


# --- reading files -----------------------------------------------------------------------------------------


def read_table(path: Path) -> dict[str, np.ndarray]:
    """Columns of any table or vector file that `user_tables` reads, as arrays. Raises `UserError` for anything else."""
    return _columns(_existing_frame(path))


def _existing_frame(path: Path) -> "pd.DataFrame":
    from user_tables import read_frame

    if not path.exists():
        raise UserError(f"nothing at {path}; `python render_tiles.py CITY.osm.pbf --labels {path}` writes labels")
    return read_frame(path)


def _columns(frame: "pd.DataFrame") -> dict[str, np.ndarray]:
    return {str(name): _column(frame[name]) for name in frame.columns}


def read_extract(path: Path, tile_xy: np.ndarray, zoom: int) -> dict[str, np.ndarray]:
    """The columns that `render_tiles.py --labels` would write for these tiles."""
    from map_index import build_index  # the renderer is slow to import and needed here only
    from map_labels import labels_table
    from map_style import load_style
    from osm_extract import read_features
    from tile_area import TileArea

    style = load_style()
    features = read_features(path, style)
    area = TileArea.of_tiles(tile_xy, zoom)
    table = labels_table(features, style, area, build_index(features, style, area))
    return {name: _column(column) for name, column in table.to_pandas().items()}


def columns_of_shapes(
    frame: "pd.DataFrame", path: Path, tile_xy: np.ndarray, zoom: int, without: set[str]
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Columns of a table with geometries by tile: a row per pair of feature and tile, and its tile `(R, 2)`.

    A polygon counts for every tile whose centre it covers. One too small to cover a centre counts for the tile that it
    lies in, and so does a point. The columns `without` are left out.
    """
    import geopandas
    import shapely

    from user_tables import GEOMETRY_NAMES, find_places, find_polygons

    places = find_places(frame.drop(columns=[name for name in frame.columns if name in without]), path)
    frame = places.frame
    tile, owner = np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
    if isinstance(frame, geopandas.GeoDataFrame) and frame.geom_type.str.contains("Polygon").any():
        frame = find_polygons(frame, path)
        centres = latlon_of_tile(tile_xy + 0.5, zoom)
        shapes = shapely.STRtree(frame.geometry.to_numpy())
        tile, owner = shapes.query(shapely.points(centres[:, ::-1]), predicate="intersects")
    rest = np.setdiff1d(np.flatnonzero(np.isfinite(places.lat)), owner)
    small = np.floor(tile_of_latlon(places.lat[rest], places.lon[rest], zoom)).astype(np.int64)
    owner = np.concatenate([owner, rest])
    shown = frame.geometry.name if isinstance(frame, geopandas.GeoDataFrame) else ""
    names = [name for name in frame.columns if name != shown and name.lower() not in GEOMETRY_NAMES]
    return {name: _column(frame[name])[owner] for name in names}, np.concatenate([tile_xy[tile], small])


def _column(column: "pd.Series") -> np.ndarray:
    """A column as an array: numbers `(R,)`, lists of numbers of one length `(R, D)`, text and truth values as objects.

    A missing list is a row of NaN. Anything else, such as dates, geometries and lists that differ in length, becomes
    None: nothing to predict.
    """
    if column.dtype.kind in "iuf":
        exact = column.dtype.kind != "f" and not column.isna().any()
        return column.to_numpy() if exact else column.to_numpy(dtype=np.float64, na_value=np.nan)
    import pandas as pd

    cells = [None if cell is pd.NA or (isinstance(cell, float) and np.isnan(cell)) else cell for cell in column]
    first = next((cell for cell in cells if cell is not None), None)
    if isinstance(first, list | np.ndarray):
        gap = np.full(len(first), np.nan)
        with contextlib.suppress(TypeError, ValueError):  # they differ in length, or hold something else than numbers
            lists = np.array([gap if cell is None else cell for cell in cells], dtype=np.float64)
            if lists.ndim == 2 and lists.shape[1]:
                return lists
    if isinstance(first, str):
        return np.array([cell if isinstance(cell, str) else None for cell in cells], dtype=object)
    if isinstance(first, bool | np.bool_):
        return np.array([None if cell is None else str(bool(cell)).lower() for cell in cells], dtype=object)
    return np.full(len(column), None, dtype=object)


def key_pairs(table: dict[str, np.ndarray]) -> list[tuple[str, str]]:
    """The pairs of columns that may say where a row lies: those of `KEYS` that hold numbers, under their own names."""
    names = {name.lower(): name for name, column in table.items() if column.ndim == 1 and column.dtype != object}
    return [(names[first], names[second]) for first, second in KEYS if first in names and second in names]


def keyed_tiles(table: dict[str, np.ndarray], pair: tuple[str, str], zoom: int) -> np.ndarray:
    """The tile of each row by a pair of key columns, `(R, 2)`; -1 for a row that has none."""
    a, b = (table[name].astype(np.float64) for name in pair)
    place = np.stack([a, b], axis=1) if pair[0].lower().endswith("x") else tile_of_latlon(a, b, zoom)
    known = np.isfinite(place).all(axis=1, keepdims=True)
    return np.where(known, np.clip(place, -1, 1e9), -1).astype(np.int64)


def _keys_expected(table: dict[str, np.ndarray], path: Path) -> str:
    return (
        f"{path} has the columns {', '.join(table)}; expected the keys x and y, or lat and lon, as numbers among them"
    )


def read_vectors(path: Path, zoom: int) -> tuple[np.ndarray, np.ndarray]:
    """`tile_xy (N, 2)` and `vectors (N, D)` of a table whose vectors are one list column, or columns such as e0, e1.

    Of numbered columns, the largest set with one prefix and consecutive numbers counts. Rows without a vector or a
    place are left out, and so are those that a column `blank` marks, as `precompute_embeddings.py --export` writes it.
    """
    table = read_table(path)
    blank, pairs = table.pop("blank", None), key_pairs(table)
    if not pairs:
        raise UserError(_keys_expected(table, path))
    tile_xy = keyed_tiles(table, pairs[0], zoom)
    lists = [column for column in table.values() if column.ndim == 2]
    families: dict[str, dict[int, np.ndarray]] = {}
    for name, column in table.items():
        if (match := re.fullmatch(r"(\D*)(\d+)", name)) and column.dtype != object and column.ndim == 1:
            families.setdefault(match[1], {})[int(match[2])] = column
    consecutive = [family for family in families.values() if max(family) - min(family) == len(family) - 1]
    numbered = max(consecutive, key=len, default={})
    if not lists and len(numbered) < 2:
        raise UserError(
            f"{path} holds no vectors; expected one column of lists of the same length, or columns such as e0, e1, e2"
        )
    vectors = lists[0] if lists else np.stack([numbered[number] for number in sorted(numbered)], axis=1)
    kept = np.isfinite(vectors).all(axis=1) & (tile_xy >= 0).all(axis=1)
    if blank is not None:  # CSV has True as text
        kept &= np.array([str(cell).lower() != "true" for cell in blank])
    if not kept.any():
        raise UserError(f"{path} has no row with a vector and a place")
    _, first = np.unique(tile_xy[kept], axis=0, return_index=True)
    return tile_xy[kept][first].astype(np.int32), vectors[kept][first].astype(np.float32)
