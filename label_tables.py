"""Labels and vectors from tables: Parquet, CSV or an extract.

Not a command; `python evaluate.py` reads them.
"""

import dataclasses
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.dataset

from cli import UserError
from tile_grid import TileGrid, tile_of_latlon

MIN_TILES = 200  # a label known on fewer tiles is left out
MIN_SOME = 50  # so is a count that is above zero on fewer, and a class with fewer
NO_TARGETS = ("z", "zoom", "row", "id", "buildings_with_levels")  # keys, and what a mean is taken over
PREFIX_DRAWN = "drawn:"  # columns of the labels file that count what the masks draw: baselines, never targets


@dataclasses.dataclass(frozen=True)
class Target:
    """One label: `values (N,)` float, NaN where unknown; of a class label, the index into `classes`."""

    name: str
    values: np.ndarray
    classes: tuple[str, ...] = ()

    @property
    def known(self) -> np.ndarray:
        """`(N,) bool`: tiles that have this label."""
        return ~np.isnan(self.values)

    @property
    def score(self) -> str:
        """What the probes of this label are scored by."""
        return "macro F1" if self.classes else "R2"


# --- reading tables ----------------------------------------------------------------------------------------


def read_table(path: Path) -> dict[str, np.ndarray]:
    """Columns of a Parquet file or folder, or of a CSV file, as arrays. Raises `UserError` for anything else."""
    if not path.exists():
        raise UserError(f"nothing at {path}; `python render_tiles.py CITY.osm.pbf --labels {path}` writes labels")
    try:
        if path.suffix.lower() in (".csv", ".tsv", ".txt"):
            parse = pyarrow.csv.ParseOptions(delimiter="," if path.suffix.lower() == ".csv" else "\t")
            table = pyarrow.csv.read_csv(path, parse_options=parse)
        else:
            table = pyarrow.dataset.dataset(path, format="parquet").to_table()
    except (pa.ArrowInvalid, pa.ArrowTypeError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the disk's fault, not the table's
        raise UserError(f"{path} is neither a Parquet nor a CSV table: {error}") from error
    if len(set(table.column_names)) < len(table.column_names):
        raise UserError(f"{path} names a column twice: {', '.join(table.column_names)}; rename one")
    return {name: _column(table[name]) for name in table.column_names}


def read_extract(path: Path, tile_xy: np.ndarray, zoom: int) -> dict[str, np.ndarray]:
    """The columns that `render_tiles.py --labels` would write for these tiles."""
    from map_index import TileArea, build_index
    from map_labels import labels_table
    from map_style import load_style
    from osm_extract import read_features

    style = load_style()
    features = read_features(path, style)
    x0, y0 = tile_xy.min(axis=0).tolist()
    columns, rows = (tile_xy.max(axis=0) - tile_xy.min(axis=0) + 1).tolist()
    area = TileArea(zoom, x0, y0, np.ones((rows, columns), dtype=bool))
    table = labels_table(features, style, area, build_index(features, style, area))
    return {name: _column(table[name]) for name in table.column_names}


def _column(column: pa.ChunkedArray) -> np.ndarray:
    kind = column.type
    if pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind) or pa.types.is_large_list(kind):
        flat = pc.list_flatten(column).to_numpy()
        return flat.reshape(len(column), -1) if len(column) and len(flat) % len(column) == 0 else flat[:0]
    if pa.types.is_boolean(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return np.array(column.cast(pa.string()).to_pylist(), dtype=object)
    if pa.types.is_dictionary(kind):
        return _column(column.cast(kind.value_type))
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        exact = column.null_count == 0 and pa.types.is_integer(kind)
        return column.to_numpy() if exact else column.cast(pa.float64()).to_numpy()
    return np.full(len(column), None, dtype=object)  # dates, geometries: nothing to learn from


KEYS = (("x", "y"), ("tile_x", "tile_y"), ("lat", "lon"), ("latitude", "longitude"), ("lat", "lng"))


def _coordinates(column: np.ndarray, name: str, path: Path) -> np.ndarray:
    if column.ndim != 1 or column.dtype == object:
        raise UserError(f"the column {name} of {path} begins with {str(column[:1])[:40]}; expected numbers")
    return column.astype(np.float64)


def take_keys(table: dict[str, np.ndarray], path: Path, zoom: int) -> np.ndarray:
    """Remove the key columns from `table` and return the tile of each row, `(R, 2)`; -1 for a row that has none."""
    names = {name.lower(): name for name in table}
    for first, second in KEYS:
        if first in names and second in names:
            a, b = (_coordinates(table.pop(names[name]), name, path) for name in (first, second))
            for extra in NO_TARGETS:
                table.pop(names.get(extra, ""), None)
            place = np.stack([a, b], axis=1) if "x" in first else tile_of_latlon(a, b, zoom)
            known = np.isfinite(place).all(axis=1, keepdims=True)
            return np.where(known, np.clip(place, -1, 1e9), -1).astype(np.int64)
    raise UserError(f"{path} has the columns {', '.join(table)}; expected the keys x and y, or lat and lon, among them")


def read_labels(path: Path, tile_xy: np.ndarray, zoom: int) -> tuple[list[Target], dict[str, np.ndarray]]:
    """Targets and the counts of drawn objects, aligned with `tile_xy (N, 2)`, of a table or an `.osm.pbf` extract.

    Several rows of one tile are averaged, of a class label the most frequent counts. Whole, non-negative numbers are
    counts and enter as log(1 + n). Labels on too few tiles are left out; `drawn:` columns are no targets.
    """
    table = read_extract(path, tile_xy, zoom) if path.suffix.lower() == ".pbf" else read_table(path)
    rows = TileGrid(tile_xy, zoom).rows(take_keys(table, path, zoom))
    inside = rows >= 0
    if not inside.any():
        raise UserError(
            f"no row of {path} lies on a tile of this city; expected x,y at zoom {zoom} or lat,lon in degrees"
        )
    drawn = {name: _mean_by_tile(table.pop(name), rows, len(tile_xy)) for name in list(table) if PREFIX_DRAWN in name}
    targets = []
    for name, column in table.items():
        target = _class_target if column.dtype == object else _number_target
        targets += target(name, column[inside], rows[inside], len(tile_xy))
    if not targets:
        raise UserError(
            f"{path} has no column that can be predicted; expected numbers or classes on {MIN_TILES}+ tiles"
        )
    return targets, drawn


def _mean_by_tile(column: np.ndarray, rows: np.ndarray, count: int) -> np.ndarray:
    column = column.astype(np.float64)
    kept = (rows >= 0) & ~np.isnan(column)
    total = np.bincount(rows[kept], column[kept], minlength=count)
    number = np.bincount(rows[kept], minlength=count)
    return np.where(number > 0, total / np.maximum(number, 1), np.nan)


def _number_target(name: str, column: np.ndarray, rows: np.ndarray, count: int) -> list[Target]:
    if column.ndim != 1:
        return []
    values = _mean_by_tile(column, rows, count)
    known = column[~np.isnan(column.astype(np.float64))]
    is_count = np.issubdtype(column.dtype, np.integer) and len(known) and known.min() >= 0
    too_few = (~np.isnan(values)).sum() < MIN_TILES or (is_count and (values > 0).sum() < MIN_SOME)
    if too_few or np.nanstd(values) == 0:
        return []
    return [Target(name, np.log1p(values) if is_count else values)]


def _class_target(name: str, column: np.ndarray, rows: np.ndarray, count: int) -> list[Target]:
    known = np.array([value is not None and value != "" for value in column], dtype=bool)
    if not known.any():
        return []
    names, codes = np.unique(column[known].astype(str), return_inverse=True)
    if len(names) > 64:  # names and addresses, not classes
        return []
    votes = np.zeros((count, len(names)))
    np.add.at(votes, (rows[known], codes), 1)
    values = np.where(votes.any(axis=1), votes.argmax(axis=1), -1)
    frequent = [code for code in range(len(names)) if (values == code).sum() >= MIN_SOME]
    if len(frequent) < 2:
        return []
    new = np.full(len(names) + 1, np.nan)
    new[frequent] = np.arange(len(frequent))
    return [Target(name, new[values], tuple(names[frequent]))]


def read_vectors(path: Path, zoom: int) -> tuple[np.ndarray, np.ndarray]:
    """`tile_xy (N, 2)` and `vectors (N, D)` of a table whose vectors are one list column, or columns such as e0, e1.

    Rows that a column `blank` marks, as `precompute_embeddings.py --export` writes it, are left out.
    """
    table = read_table(path)
    blank = table.pop("blank", None)
    tile_xy = take_keys(table, path, zoom)
    lists = [column for column in table.values() if column.ndim == 2]
    numbered = [table[name] for name in table if re.fullmatch(r"\D*\d+", name) and table[name].dtype != object]
    if not lists and len(numbered) < 2:
        raise UserError(f"{path} holds no vectors; expected one column of lists, or columns such as e0, e1, e2")
    vectors = lists[0] if lists else np.stack(numbered, axis=1)
    if len(vectors) != len(tile_xy):
        raise UserError(f"the vectors in {path} differ in length; expected the same length for every tile")
    kept = np.ones(len(tile_xy), dtype=bool) if blank is None else blank != "true"
    _, first = np.unique(tile_xy[kept], axis=0, return_index=True)
    return tile_xy[kept][first].astype(np.int32), np.nan_to_num(vectors[kept][first].astype(np.float32))
