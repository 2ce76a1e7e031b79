"""A table of a visitor's own places in the live app: its rows get vectors, are shown, searched with and exported.

Not a command. `streamlit run streamlit_app.py` shows it at work.
"""

import dataclasses
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import streamlit as st

from app_city import Source, cached_object, cached_value, city_key, place_among, placing
from app_jobs import jobs, run_job, show_error
from app_places import Place
from cache_files import load_intact, save_cache
from cli import UserError
from embeddings import City
from explorer_data import flat_position
from files import digest
from progress_bars import progress
from projections import Projection
from tile_grid import tile_of_latlon
from user_tables import PARQUET, TABLES, VECTOR_FILES, Places, read_places, rows_on_tiles, write_frame

KINDS = [suffix.removeprefix(".") for suffix in (*TABLES, *VECTOR_FILES, *PARQUET)]
FORMATS = (".parquet", ".csv", ".geojson", ".gpkg")
MOST_PINS = 2_000  # places that are drawn; all of them get vectors
AT_ONCE = 256  # places between two updates of the progress bar


@dataclasses.dataclass(frozen=True)
class EmbeddedTable:
    """A table with a vector for each of its N rows, `vectors (N, D)`: NaN for a row off the map. `key` names it."""

    name: str
    places: Places
    vectors: np.ndarray
    key: str

    @property
    def known(self) -> np.ndarray:
        """Rows that have a vector."""
        return np.flatnonzero(np.isfinite(self.vectors[:, 0]))


# --- reading and embedding ---------------------------------------------------------------------------------


def choose_table(source: Source, city: City) -> EmbeddedTable | None:
    """The uploaded table with its vectors; None, with a message or a progress bar, until there is one."""
    file = st.file_uploader(
        "A table of places",
        type=KINDS,
        key="points",
        help="CSV, GeoJSON, GeoPackage or Parquet. It goes to this server only.",
    )
    with st.popover("Columns", help="If the coordinates are not found or not in degrees"):
        names = ("Latitude column", "Longitude column", "Coordinate system, such as EPSG:32636")
        lat, lon, crs = (st.text_input(name, key=f"points {name}").strip() or None for name in names)
    if file is None:
        st.caption("Each row gets the vector of the window around its place, as with `python embed.py --points`.")
        return None
    try:
        places = _read(file.name, file.getvalue(), lat, lon, crs)
        key = digest("points", city_key(city), places.lat, places.lon)
        path = source.tiles.cache_dir / f"points-{key[:16]}.l2v"
        found = None if jobs().pending(key) else load_intact(path, key)
        if found is None:
            inside, _ = rows_on_tiles(places, city.store.grid, city.store.zoom)  # says what is wrong with the places
            work = partial(_embed, city, places, inside, path, key)
            run_job(st.container(), key, "Embed the places", work)
            return None
    except UserError as error:
        show_error(error)
        return None
    return EmbeddedTable(file.name, places, found[0]["vectors"], digest(key, file.name, file.getvalue()))


@cached_object(max_entries=8)
def _read(name: str, data: bytes, lat: str | None, lon: str | None, crs: str | None) -> Places:
    """The places of an uploaded file; messages name it as the visitor does."""
    with tempfile.TemporaryDirectory(prefix="loc2vec-") as folder:
        path = Path(folder, Path(name).name)
        path.write_bytes(data)
        try:
            return dataclasses.replace(read_places(path, lat=lat, lon=lon, crs=crs), path=Path(name))
        except UserError as error:
            raise UserError(str(error).replace(f"{folder}/", "")) from None


def _embed(city: City, places: Places, inside: np.ndarray, path: Path, key: str) -> None:
    """Embed the rows `inside (M,)`, each distinct place once, and keep the vectors of all rows."""
    latlon = np.column_stack([places.lat, places.lon])[inside]
    distinct, place = np.unique(latlon, axis=0, return_inverse=True)
    parts = [np.empty((0, city.embedder.dimension), np.float32)]
    with progress(total=len(distinct), desc="embedding places", unit="place") as bar:
        for start in range(0, len(distinct), AT_ONCE):
            parts.append(city.embedder.embed_places(distinct[start : start + AT_ONCE]))
            bar.update(len(parts[-1]))
    vectors = np.full((len(places), city.embedder.dimension), np.nan, np.float32)
    vectors[inside] = np.concatenate(parts)[place.reshape(-1)]
    save_cache(path, key, {"vectors": vectors})


# --- showing -----------------------------------------------------------------------------------------------


def show_table(table: EmbeddedTable, city: City) -> Place | None:
    """What became of the rows, the table, and its export; returns the place of the row that is chosen in it."""
    places, known = table.places, table.known
    lost = [
        f"{count:,} {why}"
        for count, why in (
            (places.missing, "without coordinates"),
            (places.impossible, "with coordinates that do not exist"),
            (len(places) - len(known) - places.missing - places.impossible, "not on a tile of this city"),
        )
        if count
    ]
    shown = f"; the first {MOST_PINS:,} are drawn" if len(known) > MOST_PINS else ""
    st.markdown(
        f"**{len(known):,} of {len(places):,} rows have a vector**" + "".join(f", {part}" for part in lost) + shown
    )
    frame = places.frame
    plain = frame.drop(columns=frame.geometry.name) if isinstance(frame, geopandas.GeoDataFrame) else frame
    chosen = st.dataframe(plain, key="points rows", on_select="rerun", selection_mode="single-row", height=220)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        suffix = st.selectbox("Format", FORMATS, key="points format", width=140)
        stem = Path(table.name).stem
        st.download_button(
            "Download with vectors",
            partial(_exported, table, suffix),
            f"{stem}-vectors{suffix}",
            icon=":material/download:",
        )
    rows: list[int] = chosen["selection"]["rows"]
    if not rows or rows[0] not in known:
        st.caption("Choose a row to see the tiles most like it." if not rows else "This row is not on the map.")
        return None
    lat, lon = float(places.lat[rows[0]]), float(places.lon[rows[0]])
    return Place(city, (lat, lon), None, table.vectors[rows[0]])


def table_pins(table: EmbeddedTable, city: City, projection: Projection) -> list[dict[str, Any]]:
    """Where the places are on the map and in the flat projection."""
    rows = table.known[:MOST_PINS]
    tile = tile_of_latlon(table.places.lat[rows], table.places.lon[rows], city.store.zoom)
    flat = flat_position(projection, place_among(placing(city, projection), table.vectors[rows]))
    return [{"tile": where, "point": point, "label": ""} for where, point in zip(tile.tolist(), flat, strict=True)]


def _exported(table: EmbeddedTable, suffix: str) -> bytes:
    return _file(suffix, table)


@cached_value(max_entries=8, hash_funcs={EmbeddedTable: lambda table: table.key})
def _file(suffix: str, table: EmbeddedTable) -> bytes:
    """The table with its vectors as a file."""
    with tempfile.TemporaryDirectory(prefix="loc2vec-") as folder:
        path = Path(folder, f"table{suffix}")
        write_frame(path, table.places.frame, table.vectors, table.places)
        return path.read_bytes()
