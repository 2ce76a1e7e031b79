"""The page of the live app for vectors without tiles: a dataset folder or a Parquet file that `embed.py` wrote.

Not a command. `streamlit run streamlit_app.py -- --vectors FOLDER` shows it at work.

An overview stands for the whole area. When the map shows few enough tiles, all of these are loaded. The search looks at
every tile, loaded or not.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any, NoReturn

import numpy as np
import streamlit as st

import explorer_data as explorer
import projections
import tile_grid
import tile_images
from app_address import URL, clear_picked, parse_tile, set_picked, tile_name
from app_city import VectorSource, View, city_key, open_projection, place_among, placing
from app_controls import choose_view
from app_jobs import NotReady, escape, jobs, run_job, show_error, show_warnings
from app_places import choose_latlon
from app_projector import show_counts
from app_view import (
    CLUSTERS,
    answer_picture_requests,
    components,
    load_plotly,
    pack_payload,
    packed_projection,
    packed_similarities,
    payloads,
    send_map,
    send_view,
    show_gallery,
)
from cli import UserError
from colourings import NOTHING_DRAWN
from embeddings import City, Embeddings
from files import digest
from layers import LAYERS
from progress_bars import progress_listener
from projections import Projection
from similarity import map_link
from tile_facts import ZONES
from vector_city import (
    IN_VIEW,
    VectorCity,
    VectorSearch,
    VectorTiles,
    layer_map,
    open_vectors,
    place_of,
    read_overview,
    vector_city,
)

SLOT = "vectors"
AROUND = 0.25  # of its width, by which more than what the map shows is loaded
TABS = PICKED, ANYWHERE, STATISTICS = ("Picked tile", "Any place", "Statistics")


@dataclasses.dataclass(frozen=True)
class Opened:
    """What is known of all tiles, those of the overview with their clusters, and the map of main layers."""

    all: VectorTiles
    overview: VectorCity
    cluster: np.ndarray
    frame: dict[str, Any]
    image: str


def vectors_page(source: VectorSource) -> None:
    """Draw the page: the linked view, then what the open tab says."""
    view = choose_view()
    top, view_area = st.container(), st.container()
    with top:
        opened = open_source(source)
        show_heading(opened)
        projection = open_projection(source, opened.overview, view)
        search = open_index(source, opened.all)
    tabs = dict(zip(TABS, st.tabs(TABS, key="vectors_below", bind=URL), strict=True))
    tab = next((name for name, element in tabs.items() if element.open), PICKED)
    row = picked_row(opened.all)
    with tabs[tab]:
        if tab == ANYWHERE:
            row = choose_anywhere(opened)
        elif tab == PICKED:
            row = choose_random(opened.all, row)
        min_km = 0.0 if tab == STATISTICS else choose_distance()
    own = others = opened.overview.embeddings.take(np.zeros(0, np.int64))
    distances = np.zeros(0)
    if row >= 0:
        own = opened.all.read(np.array([row]))
    if row >= 0 and search is not None and tab != STATISTICS:
        where = place_of(opened.all, row)
        found, distances = search.query(own.vectors[0], explorer.NEIGHBOURS, latlon=where, min_km=min_km, without=row)
        others = opened.all.read(found)
    with view_area:
        show_view(opened, view, projection, own, others)
    load_plotly(view)
    with tabs[tab]:
        if tab == STATISTICS:
            show_statistics(opened, projection)
        elif row < 0:
            st.caption("Pick a tile in the embedding or on the map to see it here.")
        else:
            show_tile(opened.all, own, others, distances, search is not None)


# --- opening -----------------------------------------------------------------------------------------------


def open_source(source: VectorSource) -> Opened:
    """What is known of all tiles. While it is being read, shows progress and stops the page."""
    place = st.container()
    key = digest("open", source.stamp())
    if not jobs().pending(key):
        try:
            return _opened(source)
        except NotReady:
            pass
    run_job(place, key, "Read the vectors", partial(_open, source))
    st.stop()


@st.cache_resource(max_entries=4, show_spinner="Opening the vectors", hash_funcs={VectorSource: VectorSource.stamp})
def _opened(source: VectorSource) -> Opened:
    """The same from the files of earlier runs; raises `NotReady` before any long work."""

    def refuse(step: str, _done: float, _total: float | None) -> NoReturn:
        raise NotReady(step)

    with progress_listener(refuse):
        return _open(source)


def _open(source: VectorSource) -> Opened:
    cache_dir = source.tiles.cache_dir
    tiles = open_vectors(source.path, cache_dir)
    overview = vector_city(tiles, read_overview(tiles, cache_dir, source.max_tiles))
    shown = overview.embeddings
    cluster = projections.clusters(shown.vectors, CLUSTERS, cache_dir=cache_dir, key=shown.key)
    frame, image = layer_map(tiles)
    return Opened(tiles, overview, cluster, frame, tile_images.data_uri(image, "png"))


def open_index(source: VectorSource, tiles: VectorTiles) -> VectorSearch | None:
    """Search in all tiles; None, below a progress bar, while the index is being built."""
    place = st.container()
    key = digest("search", source.stamp())
    if not jobs().pending(key) and tiles.is_searchable_at_once():
        return _search(tiles)
    run_job(place, key, "Build the search index", tiles.search)
    return None


@st.cache_resource(
    max_entries=4,
    show_spinner="Opening the search index",
    hash_funcs={VectorTiles: lambda tiles: tiles.about["key"]},
)
def _search(tiles: VectorTiles) -> VectorSearch:
    return tiles.search()


def show_heading(opened: Opened) -> None:
    """One line that says what is open, and the warnings of opening it."""
    show_warnings()
    tiles, count = opened.all, len(opened.overview.embeddings)
    part = "" if count == len(tiles) else f" · {count:,} of them in the overview; zoom in on the map to load all"
    size = f"{len(tiles):,} tiles with content · {tiles.about['dimensions']} dimensions"
    st.markdown(f"**{escape(str(tiles.path))}** · {size}{part}")


# --- the linked view ---------------------------------------------------------------------------------------


def show_view(opened: Opened, view: View, projection: Projection, own: Embeddings, found: Embeddings) -> None:
    """The embedding and the map of what is loaded, with the picked tile, if any, and the tiles that were found."""
    tiles = opened.all
    city, cluster = loaded_city(opened)
    place = partial(place_among, placing(opened.overview, projection))
    if city is not opened.overview:
        placed = place(city.embeddings.vectors[len(opened.overview.embeddings) :])  # it begins with the overview
        projection = dataclasses.replace(projection, points=np.concatenate([projection.points, placed]))
    key = city_key(city)
    ids = [explorer.tile_id(tiles.zoom, xy) for xy in (*own.tile_xy, *found.tile_xy)]
    row = int(city.embeddings.rows(own.tile_xy)[0]) if len(own) else -1
    more = {
        "tile": ids[0] if len(own) else "",
        "marked": ids[len(own) :],
        "similarities": packed_similarities(city, row) if row >= 0 else None,
        "pins": pins(city, projection, place, joined(own, found)) if len(own) else [],
        "series": tiles.about["key"],
        "follows": len(opened.overview.embeddings) < len(tiles),
    }
    packed = packed_projection(city, projection)
    send_view(key, packed, view, SLOT, None, more, partial(keep_click, tiles), keep_ground)
    payload = payloads().get(key) or pack_payload(city, cluster, opened.frame)
    components()["city"](key=f"city {SLOT}", data=payload)
    send_map(key, opened.image, SLOT)
    answer_picture_requests(city, SLOT)


def keep_click(tiles: VectorTiles, tile: dict | None, point: dict | None) -> None:
    """Keep a click: on the map the tile under the very point, loaded or not."""
    if point:
        at = tile_grid.tile_of_latlon(np.array(point["lat"]), np.array(point["lon"]), tiles.zoom)
        xy = np.floor(at).astype(np.int64)
        if tiles.rows(xy) >= 0:
            set_picked(SLOT, xy)
            return
    if tile:
        set_picked(SLOT, (tile["x"], tile["y"]))
    else:
        clear_picked(SLOT)


def keep_ground(shown: list[float] | None) -> None:
    """Keep what the map shows."""
    st.session_state[f"{SLOT} ground"] = shown


def loaded_city(opened: Opened) -> tuple[VectorCity, np.ndarray]:
    """The overview with the tiles that the map shows, if these are few enough, and the cluster of each tile."""
    tiles, shown = opened.all, st.session_state.get(f"{SLOT} ground")
    if shown is None or len(opened.overview.embeddings) == len(tiles):
        return opened.overview, opened.cluster
    key, *before = st.session_state.get(f"{SLOT} loaded", ("",))
    if key != tiles.about["key"] or not _covers(before, shown):
        left, top, right, bottom = shown
        across, down = AROUND * (right - left), AROUND * (bottom - top)
        before = np.round([left - across, top - down, right + across, bottom + down]).astype(int).tolist()
        if not 0 < len(tiles.rows_within(*before)) <= IN_VIEW:
            return opened.overview, opened.cluster
        st.session_state[f"{SLOT} loaded"] = (tiles.about["key"], *before)
    return _loaded(opened, tuple(before))


def _covers(outer: list[float], inner: list[float]) -> bool:
    if not outer:
        return False
    return outer[0] <= inner[0] and outer[1] <= inner[1] and outer[2] >= inner[2] and outer[3] >= inner[3]


@st.cache_resource(
    max_entries=8,
    show_spinner="Loading the tiles in view",
    hash_funcs={Opened: lambda opened: opened.overview.embeddings.key},
)
def _loaded(opened: Opened, rectangle: tuple[int, int, int, int]) -> tuple[VectorCity, np.ndarray]:
    """The overview and every tile of a part of the map, and the cluster of each."""
    tiles, overview = opened.all, opened.overview.embeddings
    rows = tiles.rows_within(*rectangle)
    more = tiles.read(rows[overview.rows(tiles.tile_xy[rows]) < 0])
    return vector_city(tiles, joined(overview, more)), np.concatenate([opened.cluster, _nearest(opened, more.vectors)])


def joined(first: Embeddings, second: Embeddings) -> Embeddings:
    """The tiles of both."""
    arrays: dict[str, Any] = {
        name: np.concatenate([value, getattr(second, name)])
        for name, value in vars(first).items()
        if isinstance(value, np.ndarray) and name in {field.name for field in dataclasses.fields(Embeddings)}
    }
    return dataclasses.replace(first, **arrays, key=digest(first.key, second.key))


def _nearest(opened: Opened, vectors: np.ndarray) -> np.ndarray:
    """The cluster with the nearest mean for each of `vectors (n, D)`."""
    known = opened.overview.embeddings.vectors
    means = np.stack([known[opened.cluster == one].mean(axis=0) for one in range(opened.cluster.max() + 1)])
    return (np.square(means).sum(axis=1) / 2 - vectors @ means.T).argmin(axis=1).astype(opened.cluster.dtype)


def pins(
    city: City, projection: Projection, place: Callable[[np.ndarray], np.ndarray], wanted: Embeddings
) -> list[dict[str, Any]]:
    """Those of the `wanted` tiles, the picked one first, that are not loaded: on the map and in the flat projection."""
    missing = np.flatnonzero(city.embeddings.rows(wanted.tile_xy) < 0)
    flat = explorer.flat_position(projection, place(wanted.vectors[missing]))
    return [
        {
            "tile": (wanted.tile_xy[one] + 0.5).tolist(),
            "point": point,
            "label": str(one) if one else "",
        }
        for one, point in zip(missing.tolist(), flat, strict=True)
    ]


# --- choosing a tile ---------------------------------------------------------------------------------------


def picked_row(tiles: VectorTiles) -> int:
    """Row of the tile in the page's address, -1 if it is none of these."""
    xy = parse_tile(st.query_params.get(f"{SLOT}_tile"))
    return -1 if xy is None else int(tiles.rows(np.array(xy)))


def choose_random(tiles: VectorTiles, row: int) -> int:
    """The picked tile, or another one at random after a click on a button."""
    if st.button("Random tile", icon=":material/casino:", key=f"{SLOT} random"):
        row = int(np.random.default_rng().integers(len(tiles)))
        set_picked(SLOT, tiles.tile_xy[row])
    return row


def choose_anywhere(opened: Opened) -> int:
    """Row of the tile at a typed latitude and longitude; -1, with a message, where there is none."""
    with st.container(horizontal=True):
        latlon = choose_latlon(opened.overview, SLOT)
    try:
        return opened.all.row_at(latlon)
    except UserError as error:
        show_error(error)
        return -1


def choose_distance() -> float:
    """How far away similar tiles have to be, in kilometres."""
    label = "At least this far away (km)"
    return st.sidebar.number_input(label, 0.0, 20_000.0, 0.0, 0.5, key=f"{SLOT}_min_km", bind=URL)


# --- showing it --------------------------------------------------------------------------------------------


def show_tile(
    tiles: VectorTiles, own: Embeddings, others: Embeddings, distances: np.ndarray, is_searched: bool
) -> None:
    """A tile with its facts and a link to a map, and the tiles most similar to it of all."""
    left, right = st.columns([1, 3], gap="large")
    lat, lon = own.latlon[0]
    with left:
        st.markdown(f"**Tile {tile_name(own.tile_xy[0])}**")
        layer = LAYERS[own.dominant_layer[0]] if own.dominant_layer[0] >= 0 else NOTHING_DRAWN
        st.caption(f"{lat:.5f}, {lon:.5f}  \n{layer} · {ZONES[own.zone[0]]} · density {own.density[0]:.0%}")
        st.link_button("Open on openstreetmap.org", map_link(lat, lon, tiles.zoom), icon=":material/map:")
        show_layer_shares(own.layer_intensity[0])
    with right:
        st.markdown("##### Most similar tiles")
        if not is_searched:
            st.caption("The search index is being built.")
        elif not len(distances):
            st.caption("No tile is that far away. Choose a smaller distance.")
        else:
            km = tile_grid.great_circle_km(others.latlon, own.latlon[0])
            names = np.array([*LAYERS, NOTHING_DRAWN])[others.dominant_layer]
            notes = [
                f"{rank}. distance {distance:.3f}\n{name}, {away:,.1f} km"
                for rank, (distance, name, away) in enumerate(zip(distances, names, km, strict=True), start=1)
            ]
            city = vector_city(tiles, others)
            show_gallery("similar tiles", "Most similar tiles", city, np.arange(len(others)), notes, slot=SLOT)
            st.caption("A picture shows the tile's layers: as wide as their share, as high as the tile is full.")


def show_layer_shares(intensity: np.ndarray) -> None:
    """How bright each layer of a tile is on average, as bars."""
    order = [i for i in np.argsort(-intensity) if intensity[i] > 0]
    rows = [{"layer": LAYERS[i], "brightness": float(intensity[i])} for i in order]
    bar = st.column_config.ProgressColumn("Mean brightness", format="percent", min_value=0, max_value=1)
    st.dataframe(rows, column_config={"layer": "Layer", "brightness": bar}, hide_index=True, width="stretch")


def show_statistics(opened: Opened, projection: Projection) -> None:
    """Figures about all tiles, and about the overview."""
    tiles, overview = opened.all, opened.overview.embeddings
    cells = st.columns(4)
    cells[0].metric("Tiles with content", f"{len(tiles):,}")
    cells[1].metric("Tiles in the overview", f"{len(overview):,}")
    cells[2].metric("Dimensions", f"{tiles.about['dimensions']}")
    cells[3].metric("Mean density", f"{overview.density.mean():.0%}")
    layers, zones = st.columns(2, gap="large")
    with layers:
        show_counts("Dominant layer", [*LAYERS, NOTHING_DRAWN], tiles.layer)
    with zones:
        show_counts("Geographic zone", ZONES, overview.zone)
    st.caption(
        f"Zones, density and {projections.TITLES[projection.algorithm]} are those of the overview. "
        f"The vectors come from the encoder {tiles.about['encoder'][:12]}."
    )
