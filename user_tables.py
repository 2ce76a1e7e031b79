"""Tables of a user's own places: read CSV, GeoJSON, GeoPackage and Parquet as they come, write them with vectors.

Not a command. `python embed.py CITY.osm.pbf --points shops.csv` and `python evaluate.py --labels prices.csv` use it.
"""

import contextlib
import csv
import dataclasses
import io
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pandas as pd
import pyogrio
import pyproj
import shapely

from cli import UserError
from files import atomic_path, named_errors
from progress_bars import warn
from tile_grid import Box, TileGrid, area_bounds, inside_box, tile_of_latlon

DEGREES = "EPSG:4326"
TABLES = (".csv", ".tsv", ".txt")
VECTOR_FILES = (".geojson", ".json", ".gpkg", ".shp", ".fgb", ".kml", ".gml")
PARQUET = (".parquet", ".geoparquet", ".pq")
OUTPUTS = (".parquet", ".csv", ".geojson", ".gpkg", ".npy")
ENCODINGS = ("utf-8-sig", "cp1251")  # tried in this order; cp1251 accepts nearly any bytes
LATITUDE_NAMES = ("lat", "latitude", "lat_deg", "geo_lat", "широта", "breitengrad", "latitud", "y")
LONGITUDE_NAMES = (
    "lon",
    "lng",
    "long",
    "longitude",
    "lon_deg",
    "geo_lon",
    "довгота",
    "долгота",
    "längengrad",
    "longitud",
    "x",
)
VIRTUAL, HEAD_BYTES = b"<OGRVRT", 4096  # how a virtual file of GDAL begins
RESERVED = ("fid", "geom")  # columns that GeoPackage keeps for itself
GEOMETRY_NAMES = ("geometry", "wkt", "geom", "the_geom")
# No leading zeros: 0042 is a code, not a number. At least one digit before an exponent: so is E40.
NUMBER = re.compile(r"[+-]?(?=[.,]?\d)(0|[1-9]\d*)?([.,]\d+)?([eE][+-]?\d+)?")
MOST_DIGITS = 18  # of a whole number that 64 bits hold


@dataclasses.dataclass(frozen=True)
class Places:
    """The rows of a user's table, in their order, with all columns, and where each of them is.

    `frame` holds N rows. `lat`, `lon (N,) float64` are degrees, NaN for a row without usable coordinates. `missing` and
    `impossible` count the rows without coordinates and those with coordinates that do not exist.
    """

    path: Path
    frame: pd.DataFrame
    lat: np.ndarray
    lon: np.ndarray
    missing: int
    impossible: int

    def __len__(self) -> int:
        return len(self.frame)


# --- reading -----------------------------------------------------------------------------------------------


def read_frame(path: Path | str, *, encoding: str | None = None) -> pd.DataFrame:
    """All columns of a table or vector file; a file with geometries gives a `GeoDataFrame`.

    Understands CSV with any usual separator, encoding and decimal sign, every vector format of GDAL, Parquet and
    GeoParquet. Raises `UserError` for a missing, empty or unreadable file.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"no file at {path}; name a CSV, GeoJSON, GeoPackage or Parquet file")
    suffix = path.suffix.lower()
    if path.is_file():
        with path.open("rb") as file:
            if VIRTUAL in file.read(HEAD_BYTES):
                raise UserError(
                    f"{path} is a virtual file of GDAL, which points to others; name the file that holds the data"
                )
    try:
        if suffix in PARQUET or path.is_dir():
            frame = _read_parquet(path)
        elif suffix in VECTOR_FILES:
            frame = _read_vector_file(path)
        elif suffix in TABLES:
            frame = _read_csv(path, encoding)
        else:
            raise UserError(f"{path} has the ending {suffix or '(none)'!r}; expected .csv, .geojson, .gpkg or .parquet")
    except (UserError, MemoryError):
        raise
    except Exception as error:  # parsers of damaged files raise anything
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise UserError(f"{path} cannot be read as {suffix.removeprefix('.')}: {_first_line(error)}") from None
    if not len(frame):
        raise UserError(f"{path} has no rows")
    if frame.columns.duplicated().any():
        twice = frame.columns[frame.columns.duplicated()][0]
        raise UserError(f"{path} has two columns named {twice!r}; rename one of them")
    return frame


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


@contextlib.contextmanager
def _usable_geometries(path: Path) -> Iterator[None]:
    """Context in which geometries that GEOS or PROJ cannot handle raise `UserError`."""
    try:
        yield
    except (shapely.errors.ShapelyError, pyproj.exceptions.ProjError) as error:
        raise UserError(f"{path} holds a geometry that cannot be used: {_first_line(error)}") from None


def _read_parquet(path: Path) -> pd.DataFrame:
    try:
        return geopandas.read_parquet(path, page_checksum_verification=True)
    except ValueError as error:
        if "geo metadata" not in str(error).lower() and "geospatial" not in str(error).lower():
            raise
        return pd.read_parquet(path, page_checksum_verification=True)


def _read_vector_file(path: Path) -> pd.DataFrame:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        frame = pyogrio.read_dataframe(path)
    if said := list(dict.fromkeys(str(each.message) for each in caught)):
        warn(f"{path}: {said[0]}" + (f" (and {len(said) - 1} more)" if len(said) > 1 else ""))
    return frame


def _read_csv(path: Path, encoding: str | None) -> pd.DataFrame:
    """Read every cell as text first, so that codes such as 0042 stay what they are; then turn columns into numbers."""
    data = path.read_bytes()
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        encodings: tuple[str, ...] = ("utf-16",)
    else:
        encodings = (encoding,) if encoding else ENCODINGS
    text = None
    for name in encodings:
        try:
            text = data.decode(name)
            break
        except LookupError:
            raise UserError(f"--encoding {name} is unknown; try utf-8 or cp1251") from None
        except UnicodeDecodeError:
            continue
    if text is None:
        raise UserError(f"{path} is not text in {' or '.join(encodings)}; name its encoding with --encoding")
    if "\0" in text:
        raise UserError(f"{path} is not a text file; expected a CSV table")
    text = text.lstrip("\r\n")
    header = next(csv.reader(io.StringIO(text), delimiter="\0"), [""])[0]
    bare = re.sub(r'"[^"]*"', "", header)
    separator = max(",;\t|", key=bare.count) if any(mark in bare for mark in ",;\t|") else ","
    try:
        frame = pd.read_csv(io.StringIO(text), sep=separator, dtype=str, keep_default_na=False, skipinitialspace=True)
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise UserError(f"{path} is not a regular CSV table: {str(error).strip()}") from None
    if not isinstance(frame.index, pd.RangeIndex):  # rows with more cells than the header has names
        names, frame = frame.columns, frame.reset_index()
        if (frame.iloc[:, len(names) :] != "").any(axis=None):
            raise UserError(f"{path} has rows with more cells than the header has names; name every column")
        frame = frame.iloc[:, : len(names)].set_axis(names, axis=1)
    frame.columns = [str(name).strip() for name in frame.columns]
    for name in frame.columns:
        cells = frame[name].str.strip()
        filled = cells != ""
        decimal_comma = separator != "," and cells.str.contains(",", regex=False).any()
        if (
            filled.any()
            and cells[filled].str.fullmatch(NUMBER.pattern).all()
            and (decimal_comma or not cells.str.contains(",").any())
        ):
            numbers = cells.where(filled).str.replace(",", ".", regex=False)
            whole = cells[filled].str.fullmatch(r"[+-]?\d+").all()
            if whole and cells.str.lstrip("+-").str.len().max() > MOST_DIGITS:
                continue  # an id, which stays text
            gaps = whole and not filled.all()  # a float would round an id
            frame[name] = pd.to_numeric(numbers, dtype_backend="numpy_nullable") if gaps else pd.to_numeric(numbers)
    return frame


def read_places(
    path: Path | str,
    *,
    lat: str | None = None,
    lon: str | None = None,
    crs: str | None = None,
    encoding: str | None = None,
) -> Places:
    """Read a table of places. `lat` and `lon` name the coordinate columns; by default they are recognised.

    `crs` is the coordinate reference system of the columns, or replaces that of the file. Geometries other than points
    count with their centroid. Raises `UserError` when no coordinates are found or when they look swapped or projected.
    """
    return find_places(read_frame(path, encoding=encoding), path, lat=lat, lon=lon, crs=crs)


def find_places(
    frame: pd.DataFrame,
    path: Path | str = "the table",
    *,
    lat: str | None = None,
    lon: str | None = None,
    crs: str | None = None,
) -> Places:
    """The places of a table in memory; `path` names it in messages. See `read_places`."""
    path, system = Path(path), _system(crs) if crs else None
    if isinstance(frame, geopandas.GeoDataFrame) and not (lat or lon):
        return _geometry_places(path, frame, system)
    lat_name, lon_name = _coordinate_columns(path, frame, lat, lon)
    if lat_name is None:
        wkt = next(name for name in frame.columns if str(name).lower() in GEOMETRY_NAMES)
        shapes = _shapes_of(frame[wkt])
        return _geometry_places(path, geopandas.GeoDataFrame(frame, geometry=shapes, crs=system or DEGREES), system)
    y, x = (_numbers(path, frame, name) for name in (lat_name, lon_name))
    missing = ~(np.isfinite(x) & np.isfinite(y))
    if system is not None:
        x, y = pyproj.Transformer.from_crs(system, DEGREES, always_xy=True).transform(x, y)
    return _checked(path, frame, np.asarray(y), np.asarray(x), missing, f"columns {lat_name} and {lon_name}")


def has_shapes(frame: pd.DataFrame) -> bool:
    """Whether a table has geometries, or a column of well-known text."""
    return isinstance(frame, geopandas.GeoDataFrame) or any(str(name).lower() in GEOMETRY_NAMES for name in frame)


def _shapes_of(wkt: pd.Series) -> np.ndarray:
    """Geometries of a column of well-known text, None for a cell that holds none."""
    texts = [text if isinstance(text, str) and text else None for text in wkt]
    return shapely.from_wkt(np.array(texts, dtype=object), on_invalid="ignore")


def _system(crs: str) -> pyproj.CRS:
    try:
        return pyproj.CRS.from_user_input(crs)
    except pyproj.exceptions.CRSError:
        raise UserError(
            f"--crs {crs} is not a coordinate reference system; expected a code such as EPSG:4326"
        ) from None


def _geometry_places(path: Path, frame: geopandas.GeoDataFrame, system: pyproj.CRS | None) -> Places:
    """Places of a file with geometries: points, or the centroid of anything else."""
    frame = frame.set_crs(system or frame.crs or DEGREES, allow_override=system is not None)
    with _usable_geometries(path):
        shapes = np.array(frame.geometry.to_crs(DEGREES), dtype=object)
        missing = shapely.is_missing(shapes) | shapely.is_empty(shapes)
        shapes[missing] = None
        centres = shapely.centroid(shapes)
    return _checked(path, frame, shapely.get_y(centres), shapely.get_x(centres), missing, "the geometry column")


def _coordinate_columns(
    path: Path, frame: pd.DataFrame, lat: str | None, lon: str | None
) -> tuple[str | None, str | None]:
    """Names of the coordinate columns, or None twice when a column holds WKT instead."""
    names = {str(name).strip().lower(): name for name in frame.columns}
    found = []
    for asked, known, flag in ((lat, LATITUDE_NAMES, "--lat"), (lon, LONGITUDE_NAMES, "--lon")):
        if asked is not None and asked not in frame.columns:
            raise UserError(f"{path} has no column {asked!r} ({flag}); it has {', '.join(map(str, frame.columns))}")
        found.append(asked if asked is not None else next((names[name] for name in known if name in names), None))
    if None not in found:
        return found[0], found[1]
    if any(name in names for name in GEOMETRY_NAMES):
        return None, None
    raise UserError(
        f"{path} has the columns {', '.join(map(str, frame.columns))}; expected coordinates in columns such as lat and "
        "lon. Name them with --lat COLUMN --lon COLUMN"
    )


def _numbers(path: Path, frame: pd.DataFrame, name: Any) -> np.ndarray:
    """A column as float64, NaN for cells that are empty; text that is no number counts as empty unless all of it is."""
    cells = frame[name]
    if not pd.api.types.is_numeric_dtype(cells):
        cells = pd.to_numeric(cells.astype(str).str.strip().str.replace(",", ".", regex=False), errors="coerce")
        if cells.isna().all():
            raise UserError(
                f"the column {name} of {path} begins with {str(frame[name].iloc[0])[:40]!r}; expected numbers"
            )
    return cells.to_numpy(dtype=np.float64, na_value=np.nan)


def _checked(
    path: Path, frame: pd.DataFrame, lat: np.ndarray, lon: np.ndarray, missing: np.ndarray, where: str
) -> Places:
    """Leave out coordinates that do not exist; raise `UserError` when nearly all of them look like something else."""
    known = np.flatnonzero(~missing)
    possible = (np.abs(lat) <= 90) & (np.abs(lon) <= 180)
    if len(known) and not possible[known].any():
        sample = f"{lat[known[0]]:g}, {lon[known[0]]:g}"
        if (np.abs(lon[known]) <= 90).all() and (np.abs(lat[known]) <= 180).all():
            raise UserError(
                f"{path}: {where} look swapped: {sample} is not latitude, longitude. "
                "Name the columns with --lat and --lon"
            )
        raise UserError(
            f"{path}: {where} hold {sample}, which are not degrees. If they are metres of a projected system, name it "
            "with --crs, for example --crs EPSG:3857 or --crs EPSG:32636 (UTM 36N)"
        )
    usable = ~missing & possible
    return Places(
        path=path,
        frame=frame,
        lat=np.where(usable, lat, np.nan),
        lon=np.where(usable, lon, np.nan),
        missing=int(missing.sum()),
        impossible=int((~missing & ~possible).sum()),
    )


def rows_inside(places: Places, box: Box) -> np.ndarray:
    """`(N,) bool`: rows within `box` (west, south, east, north in degrees).

    Raises `UserError` when not one row is inside, and says when swapped coordinates would be.
    """
    found = inside_box(places.lat, places.lon, box)
    if found.any():
        return found
    west, south, east, north = box
    text = f"latitude {south:.4f} to {north:.4f}, longitude {west:.4f} to {east:.4f}"
    if inside_box(places.lon, places.lat, box).any():
        raise UserError(
            f"{places.path}: latitude and longitude look swapped: the map covers {text}, and the rows are "
            "inside it only with the two exchanged. Name the columns with --lat and --lon"
        )
    known = np.flatnonzero(np.isfinite(places.lat))
    first = (
        f"the first row is at {places.lat[known[0]]:.5f}, {places.lon[known[0]]:.5f}"
        if len(known)
        else "no row has coordinates"
    )
    raise UserError(f"{places.path}: not one of {len(places):,} rows is on the map, which covers {text}; {first}")


def rows_on_tiles(
    places: Places, grid: TileGrid, zoom: int, *, none_is_error: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the places that lie on a tile of `grid`, `(M,)`, and these tiles, `(M, 2)`.

    With `none_is_error` it raises `UserError` when not one place is in the box of the tiles.
    """
    box = area_bounds(np.stack([grid.origin, grid.origin + grid.shape - 1]), zoom)
    inside = np.flatnonzero(rows_inside(places, box) if none_is_error else inside_box(places.lat, places.lon, box))
    tile = np.floor(tile_of_latlon(places.lat[inside], places.lon[inside], zoom)).astype(np.int64)
    on_tile = grid.rows(tile) >= 0
    return inside[on_tile], tile[on_tile]


def read_polygons(path: Path | str, *, crs: str | None = None, encoding: str | None = None) -> geopandas.GeoDataFrame:
    """Polygons of any vector file in degrees (EPSG:4326), with all columns, repaired where they cross themselves.

    Raises `UserError` when the file holds no polygon.
    """
    return find_polygons(read_frame(path, encoding=encoding), path, crs=crs)


def find_polygons(
    frame: pd.DataFrame, path: Path | str = "the table", *, crs: str | None = None
) -> geopandas.GeoDataFrame:
    """The polygons of a table in memory; `path` names it in messages. See `read_polygons`."""
    path, system = Path(path), _system(crs) if crs else None
    if not isinstance(frame, geopandas.GeoDataFrame):
        wkt = next((name for name in frame.columns if str(name).lower() in GEOMETRY_NAMES), None)
        if wkt is None:
            raise UserError(f"{path} holds no geometries; expected polygons, as GeoJSON, GeoPackage or GeoParquet")
        shapes = _shapes_of(frame[wkt])
        frame = geopandas.GeoDataFrame(frame.drop(columns=[wkt]), geometry=shapes, crs=system or DEGREES)
    frame = frame.set_crs(system or frame.crs or DEGREES, allow_override=system is not None)
    with _usable_geometries(path):
        frame = frame.to_crs(DEGREES)
        frame = frame.set_geometry(shapely.make_valid(frame.geometry.to_numpy()))
    kinds = frame.geometry.geom_type.dropna()
    if not kinds.isin(["Polygon", "MultiPolygon", "GeometryCollection"]).any():
        raise UserError(f"{path} holds {', '.join(sorted(set(kinds))) or 'no geometries'}; expected polygons")
    bounds = frame.total_bounds
    if np.isfinite(bounds).any() and (np.abs(bounds[[0, 2]]).max() > 360 or np.abs(bounds[[1, 3]]).max() > 90):
        raise UserError(
            f"{path}: the coordinates are not degrees (largest {np.abs(bounds).max():g}); name the system with --crs"
        )
    return frame


# --- writing -----------------------------------------------------------------------------------------------


def check_output(path: Path | str) -> Path:
    """The path of an output. Raises `UserError` for an ending that is not one of `OUTPUTS`."""
    path = Path(path)
    if path.suffix.lower() not in OUTPUTS:
        raise UserError(f"{path} has the ending {path.suffix or '(none)'!r}; expected one of {', '.join(OUTPUTS)}")
    return path


def write_frame(path: Path | str, frame: pd.DataFrame, vectors: np.ndarray, places: Places | None = None) -> None:
    """Write `frame` with one vector per row, `vectors (N, D)`; rows of NaN mean no vector.

    The formats that need geometries get points of `places` when the frame has none.

    Parquet gets one list column `embedding`, CSV and GeoPackage get one column per number (e0, e1, …), GeoJSON a list,
    and `.npy` the vectors alone. The file appears whole or not at all.
    """
    path = check_output(path)
    suffix = path.suffix.lower()
    known = np.isfinite(vectors).all(axis=1)
    with atomic_path(path) as temporary, named_errors(path):
        if suffix == ".npy":
            np.save(temporary, vectors.astype(np.float32))
        elif suffix == ".parquet":
            rows = [row if ok else None for row, ok in zip(vectors.astype(np.float32), known, strict=True)]
            add_columns(frame, {"embedding": rows}).to_parquet(temporary, index=False)
        elif suffix == ".geojson":
            lists = [[float(f"{v:.7g}") for v in row] if ok else None for row, ok in zip(vectors, known, strict=True)]
            shapes = _with_geometry(path, frame, places).geometry.to_crs(DEGREES)
            table = add_columns(_writable(_without_geometry(frame)), {"embedding": lists})
            table = geopandas.GeoDataFrame(table, geometry=shapes.to_numpy(), crs=DEGREES)
            table.to_file(temporary, driver="GeoJSON", engine="pyogrio")
        else:
            numbers = number_columns(np.where(known[:, None], vectors, np.nan).astype(np.float32))
            if suffix == ".csv":
                whole = add_columns(frame, numbers)
                if isinstance(frame, geopandas.GeoDataFrame):
                    whole = pd.DataFrame(whole).assign(**{frame.geometry.name: frame.geometry.to_wkt()})
                whole.to_csv(temporary, index=False)
            else:
                shapes = _with_geometry(path, frame, places).geometry
                table, taken = add_columns(_writable(_without_geometry(frame)), numbers), set(RESERVED)
                names = list(map(str, table.columns))
                for i, name in enumerate(names):  # GeoPackage takes `ID` and `id` for one name
                    while name.lower() in taken:
                        name += "_"
                    taken.add(name.lower())
                    names[i] = name
                table = geopandas.GeoDataFrame(
                    table.set_axis(names, axis=1), geometry=shapes.to_numpy(), crs=shapes.crs
                )
                table.to_file(temporary, driver="GPKG", layer="places", engine="pyogrio")


def add_columns(frame: pd.DataFrame, columns: dict[str, Any]) -> pd.DataFrame:
    """`frame` with further columns on its right, each a sequence of N values; a name that is taken gets underscores.

    Rows are taken in their order: the index may name a row twice, as after `pd.concat`, so it is no key.
    """
    taken, added = set(map(str, frame.columns)), {}
    for name, values in columns.items():
        while name in taken:
            name += "_"
        taken.add(name)
        added[name] = values
    return pd.concat([frame, pd.DataFrame(added, index=frame.index)], axis=1)


def number_columns(vectors: np.ndarray) -> dict[str, np.ndarray]:
    """The columns e0, e1, … of `vectors (N, D)`."""
    return {f"e{i}": column for i, column in enumerate(np.ascontiguousarray(vectors.T))}


def _without_geometry(frame: pd.DataFrame) -> pd.DataFrame:
    """The columns beside the geometry; further geometries become well-known text."""
    if not isinstance(frame, geopandas.GeoDataFrame):
        return frame
    table = pd.DataFrame(frame.drop(columns=[frame.geometry.name]))
    texts = {name: geopandas.GeoSeries(table[name]).to_wkt() for name in table if table[name].dtype == "geometry"}
    return table.assign(**texts)


def _writable(frame: pd.DataFrame) -> pd.DataFrame:
    """The same columns in types that GDAL can write: durations become seconds."""
    frame = frame.copy(deep=False)
    for i, dtype in enumerate(frame.dtypes):
        if pd.api.types.is_timedelta64_dtype(dtype):
            frame.isetitem(i, frame.iloc[:, i].dt.total_seconds())
        elif dtype == np.float16:
            frame.isetitem(i, frame.iloc[:, i].astype(np.float32))
    return frame


def _with_geometry(path: Path, frame: pd.DataFrame, places: Places | None) -> geopandas.GeoDataFrame:
    if isinstance(frame, geopandas.GeoDataFrame):
        return frame
    if places is None:
        raise UserError(f"{path}: the table has no geometries to write; use .parquet or .csv")
    points = shapely.points(places.lon, places.lat)
    points[np.isnan(places.lat)] = None
    return geopandas.GeoDataFrame(frame, geometry=points, crs=DEGREES)
