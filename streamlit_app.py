"""The live explorer: a city's embedding space beside its map, similarity search, any place, two models.

streamlit run streamlit_app.py
streamlit run streamlit_app.py -- --model_path checkpoints/best_model.pth --tiles_root 12_layer_tiles/tiles
python run_interactive_viz.py streamlit
"""

import dataclasses
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NoReturn, override

import numpy as np
import plotly.graph_objects as go
import streamlit as st

import explorer_data as explorer
import inference
import projections
import similarity
import tile_grid
import tile_images
from app_parts import (
    URL,
    Place,
    Rings,
    any_place,
    choose_any_place,
    choose_place,
    forget_picked,
    gallery,
    keep_picked,
    load_plotly,
    nearest,
    picked_place,
    picked_row,
    show_layers,
    show_linked_view,
    show_place,
    tile_name,
    tile_place,
)
from app_state import (
    Source,
    View,
    figures,
    find_checkpoints,
    find_tiles,
    index_of,
    once,
    open_city,
    open_projection,
    show_error,
)
from cli import (
    DeviceFlags,
    ModelFlags,
    Parser,
    TilesFlags,
    UserError,
    WorkError,
    add_flags,
    flag,
    positive_int,
    read_flags,
)
from embeddings import City
from layers import LAYERS
from projections import ALGORITHMS, DEFAULT_SETTINGS, Projection
from similarity import METRICS, Search, SearchQuality
from tile_facts import ZONES
from vectors import principal_components

NAMES = projections.TITLES
COLOURINGS = {
    "layer": "Dominant layer",
    "zone": "Geographic zone",
    "density": "Content density",
    "cluster": "Cluster",
    "similarity": "Similarity to the picked tile",
    "principal": "First three components (RGB)",
}
NEIGHBOURS = 12  # most alike tiles beside a picked one
WALK_STEPS = 8  # tiles between the two ends
SLOTS = ("a", "b", "c")
SUM, WALK = "A + B − C", "Walk"  # tabs
AGREEMENT_SAMPLE = 500


@dataclasses.dataclass(frozen=True)
class AppFlags:
    """App."""

    max_tiles: int | None = flag(None, "show at most this many tiles, spread evenly (default: all)", type=positive_int)


# --- sidebar -----------------------------------------------------------------------------------------------


def read_app_flags() -> tuple[TilesFlags, ModelFlags, DeviceFlags, AppFlags]:
    """The flags after `--` of `streamlit run streamlit_app.py -- --model_path …`."""

    class AppParser(Parser):
        @override
        def error(self, message: str) -> NoReturn:
            raise UserError(f"{message}. `python streamlit_app.py --help` lists every flag")

    parser = AppParser(__doc__)
    groups = (TilesFlags, ModelFlags, DeviceFlags, AppFlags)
    for group in groups:
        add_flags(parser, group)
    args = parser.parse_args()
    return tuple(read_flags(group, args) for group in groups)


def choose_source(flags: tuple) -> Source:
    """What the sidebar says is to be opened."""
    tiles, model, device, app = flags
    with st.sidebar.expander("Data", expanded=True):
        model_path = choose_path("Checkpoint", "model", find_checkpoints(model.model_path))
        tiles_root = choose_path("Tiles", "tiles", find_tiles(tiles.tiles_root))
        limit = st.number_input(
            "Tiles at most",
            min_value=0,
            value=app.max_tiles or 0,
            step=1000,
            key="max_tiles",
            bind=URL,
            help="Spread evenly over the city; 0 shows every tile with something on it",
        )
    tiles = dataclasses.replace(tiles, tiles_root=tiles_root)
    return Source(tiles, model_path, int(limit) or None, device)


def choose_path(label: str, key: str, options: list[str]) -> Path:
    """A path out of `options`, or another one typed in or named by the address."""
    typed = st.session_state.get(key) or st.query_params.get(key)
    options = list(dict.fromkeys([*options, *([typed] if typed else [])]))
    help_text = "Choose, or type another path and press Enter"
    chosen = st.selectbox(label, options, key=key, bind=URL, accept_new_options=True, help=help_text)
    return Path(chosen or options[0])


def choose_view(where: Any = st.sidebar) -> View:
    """Algorithm with its main parameters, 2-D or 3-D, and colouring."""
    with where:
        algorithm = st.segmented_control(
            "Algorithm", ALGORITHMS, default="PCA", key="algorithm", bind=URL, format_func=NAMES.get, required=True
        )
        dimensions = st.segmented_control(
            "Dimensions", [2, 3], default=2, key="dimensions", bind=URL, format_func=lambda d: f"{d}-D", required=True
        )
        colouring = st.selectbox("Colour by", list(COLOURINGS), key="colour", bind=URL, format_func=COLOURINGS.get)
        return View(algorithm, dimensions, choose_settings(algorithm), colouring)


def choose_settings(algorithm: str) -> dict:
    """The parameters of the algorithm that matter most, as sliders."""
    settings = dict(DEFAULT_SETTINGS[algorithm])
    if algorithm == "TSNE":
        perplexity = float(settings["perplexity"])
        settings["perplexity"] = st.slider(
            "Perplexity", 5.0, 100.0, perplexity, 5.0, key="perplexity", bind=URL, help="How many neighbours count"
        )
    if algorithm == "UMAP":
        neighbours, min_dist = int(settings["n_neighbors"]), float(settings["min_dist"])
        settings["n_neighbors"] = st.slider(
            "Neighbours", 2, 100, neighbours, key="n_neighbors", bind=URL, help="Few: fine structure. Many: the whole"
        )
        settings["min_dist"] = st.slider(
            "Least distance", 0.0, 0.99, min_dist, 0.05, key="min_dist", bind=URL, help="How tightly points may pack"
        )
    return settings


# --- projector ---------------------------------------------------------------------------------------------


def projector_page(source: Source) -> None:
    """The embedding beside the map, the picked tile, and figures about it all."""
    view = choose_view()
    city = open_city(source)
    show_heading(source, city)
    place = picked_place(city, "projector")
    rings = choose_rings(source, city, place)
    show_linked_view(source, city, view, picked=picked_row(city, "projector"), rings=rings)
    load_plotly()
    panels = {
        "Picked tile": lambda: show_alike(source, city, place),
        "Any place": lambda: show_alike(source, city, choose_any_place(city)),
        SUM: lambda: show_sum(source, city, place),
        WALK: lambda: show_walk(source, city, place),
        "Statistics": lambda: show_statistics(city, open_projection(source, city, view)),
    }
    show_open_tab(st.tabs(list(panels), key="below", bind=URL), tuple(panels.values()))


def show_open_tab(tabs: Any, panels: tuple[Callable[[], None], ...]) -> None:
    """Draw only the tab that is open: what the others show is not computed."""
    for tab, panel in zip(tabs, panels, strict=True):
        if tab.open:
            with tab:
                panel()


def show_heading(source: Source, city: City) -> None:
    """What is open, in one line, and what went wrong on the way to it."""
    for warning in st.session_state.pop("warnings", []):
        st.warning(warning, icon=":material/warning:")
    checkpoint = city.checkpoint
    epoch = f"epoch {checkpoint.epoch}" if checkpoint.epoch else "untrained"
    st.markdown(
        f"**{source.tiles.tiles_root}** · {len(city.embeddings.tile_xy):,} tiles of {city.store.tile_size} px · "
        f"**{source.model_path.name}** ({epoch}, {city.embeddings.vectors.shape[1]} dimensions)"
    )


def show_alike(source: Source, city: City, place: Place | None) -> None:
    """A place large, with its layers and the tiles most like it."""
    if place is None:
        st.caption("Pick a tile in the embedding or on the map to see it here.")
        return
    left, right = st.columns([1, 3], gap="large")
    with left:
        show_place(place)
    with right:
        rows, found = nearest(index_of(source, city), place, city, NEIGHBOURS)
        st.markdown("##### Most alike")
        notes = [f"distance {distance:.3f}" for distance in found]
        gallery("alike", city, city.embeddings.tile_xy[rows], notes, slot="projector", edge=84)
        st.markdown("##### Layers")
        show_layers(place)


# --- arithmetic and walks ----------------------------------------------------------------------------------


def choose_rings(source: Source, city: City, place: Place | None) -> Rings:
    """What the open tab is about: the tiles most like the picked one, a sum with its answers, or a walk."""
    tab = st.session_state.get("below") or st.query_params.get("below")
    slots = slot_rows(city)
    if tab == SUM and min(slots) >= 0:
        rows = sum_of(source, city)[0]
        numbers = map(str, range(1, len(rows) + 1))
        return Rings([*rows, *slots], (*numbers, *map(str.upper, SLOTS)))
    if tab == WALK and min(slots[:2]) >= 0:
        rows = walk_between(source, city)
        return Rings(rows, tuple(walk_labels(len(rows))), path=True)
    return Rings(nearest(index_of(source, city), place, city, NEIGHBOURS)[0] if place else ())


def slot_rows(city: City) -> list[int]:
    """Rows of the tiles in A, B and C; -1 for an empty one."""
    return [picked_row(city, slot) for slot in SLOTS]


def sum_of(source: Source, city: City) -> tuple[np.ndarray, np.ndarray]:
    """Rows and distances of the tiles most like A + B - C, without those three."""
    slots = slot_rows(city)
    vector = similarity.arithmetic(*city.embeddings.vectors[slots])
    rows, found = index_of(source, city).query(vector[None], NEIGHBOURS + len(SLOTS))
    kept = np.flatnonzero((rows[0] >= 0) & ~np.isin(rows[0], slots))[:NEIGHBOURS]
    return rows[0][kept], found[0][kept]


def walk_between(source: Source, city: City) -> np.ndarray:
    """Rows of the tiles on the way from A to B, both included."""
    return similarity.walk(index_of(source, city), *slot_rows(city)[:2], WALK_STEPS)


def walk_labels(count: int) -> list[str]:
    """What is written beside each tile of a walk."""
    return ["A", *map(str, range(1, count - 1)), "B"] if count > 1 else ["A"]


def show_sum(source: Source, city: City, place: Place | None) -> None:
    """The tiles in A, B and C, and those most like A + B - C."""
    show_slots(city, place, dict(zip(SLOTS, ("", "+", "−"), strict=True)))
    if min(slot_rows(city)) < 0:
        st.caption("Like A, with what B has over C: pick tiles and put them into A, B and C.")
        return
    rows, found = sum_of(source, city)
    st.markdown("##### A + B − C is most like")
    notes = [f"{rank}. distance {distance:.3f}" for rank, distance in enumerate(found, start=1)]
    gallery("sum", city, city.embeddings.tile_xy[rows], notes, slot="projector", edge=84)


def show_walk(source: Source, city: City, place: Place | None) -> None:
    """The tiles in A and B, and those on the way from one to the other."""
    show_slots(city, place, dict(zip(SLOTS[:2], ("", "→"), strict=True)))
    if min(slot_rows(city)[:2]) < 0:
        st.caption("Put two tiles into A and B to see the tiles on the way from one to the other.")
        return
    rows = walk_between(source, city)
    st.markdown("##### On the way")
    gallery("walk", city, city.embeddings.tile_xy[rows], walk_labels(len(rows)), slot="projector", edge=84)
    st.caption("Even steps between the two vectors; at each, the nearest tile not met before.")


def show_slots(city: City, place: Place | None, signs: dict[str, str]) -> None:
    """A card for each slot, with the sign that stands before it."""
    with st.container(horizontal=True):
        for slot, sign in signs.items():
            with st.container(width=170):
                show_slot(city, place, slot, f"{sign} {slot.upper()}".strip())


def show_slot(city: City, place: Place | None, slot: str, title: str) -> None:
    """The slot's tile, a button that puts the picked tile there, and one that empties it."""
    row, name = picked_row(city, slot), slot.upper()
    where = "" if row < 0 else f" · {tile_name(city.embeddings.tile_xy[row])}"
    st.markdown(f"**{title}**{where}")
    if row >= 0:
        st.image(tile_place(city, row).picture(168), width=120)
    fill = partial(keep_picked, slot, place.xy if place else None)
    st.button(f"Put the picked tile into {name}", key=f"put {slot}", disabled=place is None, on_click=fill)
    if row >= 0:
        st.button(f"Empty {name}", key=f"empty {slot}", type="tertiary", on_click=partial(forget_picked, slot))


# --- similarity search -------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class SearchSettings:
    """How to search."""

    metric: str
    trees: int
    quality: int
    results: int
    min_km: float

    def search_k(self) -> int:
        """Annoy's effort: how many nodes a query looks at."""
        return self.quality * self.trees * self.results


def choose_search() -> SearchSettings:
    """Metric, trees, quality and number of results, from the sidebar."""
    with st.sidebar:
        if not similarity.annoy_available():
            st.warning("Annoy is not installed, so every search is exact and slower; `pip install annoy` mends it")
        metric = st.selectbox("Distance metric", METRICS, key="metric", bind=URL, format_func=str.capitalize)
        trees = st.slider("Number of trees", 10, 500, similarity.DEFAULT_TREES, 10, key="trees", bind=URL)
        quality = st.slider("Search quality", 1, 20, 1, key="quality", bind=URL, help="Higher: better and slower")
        results = st.slider("Number of results", 5, 50, 12, key="results", bind=URL)
        min_km = st.number_input("At least this far away (km)", 0.0, 100.0, 0.0, 0.5, key="min_km", bind=URL)
    return SearchSettings(metric, trees, quality, results, min_km)


def search_page(source: Source) -> None:
    """Find the places most like one of this city or of another."""
    settings = choose_search()
    city = open_city(source)
    other = choose_other_city(source, city)
    show_heading(source, city)
    place = choose_place(other, "query" if other is city else "other")
    left, right = st.columns([1, 3], gap="large")
    with left:
        show_place(place)
    with right:
        index = index_of(source, city, settings.metric, settings.trees)
        rows, found = ask(index, place, city, settings)
        chosen = show_results(city, rows, found, settings)
    if not len(rows):
        return
    tabs = st.tabs(["Side by side", "In the embedding", "Index"], key="panel", bind=URL)
    panels = (
        lambda: show_side_by_side(place, tile_place(city, chosen), settings.metric),
        lambda: show_in_embedding(source, city, place, rows),
        lambda: show_index(index, city, settings),
    )
    show_open_tab(tabs, panels)


def show_in_embedding(source: Source, city: City, place: Place, rows: np.ndarray) -> None:
    """The embedding with the query and its results highlighted."""
    view = choose_view(st.container(horizontal=True))
    own = int(city.embeddings.rows(np.array([place.xy]))[0]) if place.xy else -1
    show_linked_view(source, city, view, key="query", picked=own, rings=Rings(rows))
    load_plotly()


def choose_other_city(source: Source, city: City) -> City:
    """The city that the query comes from: this one, or another folder of tiles seen by the same checkpoint."""
    here = str(source.tiles.tiles_root)
    with st.sidebar:
        root = choose_path("Query from", "from", find_tiles(source.tiles.tiles_root))
    return city if str(root) == here else open_city(source.with_(tiles_root=root))


def ask(index: Search, place: Place, city: City, settings: SearchSettings) -> tuple[np.ndarray, np.ndarray]:
    """What `nearest` finds with these settings; says how long it took."""
    started = time.perf_counter()
    rows, found = nearest(index, place, city, settings.results, search_k=settings.search_k(), min_km=settings.min_km)
    milliseconds = (time.perf_counter() - started) * 1000
    kind = f"Annoy, {index.trees} trees" if index.kind == "annoy" else "exact search"
    st.caption(f"{len(rows)} of {len(city.embeddings):,} tiles in {milliseconds:.1f} ms ({kind}, {settings.metric})")
    return rows, found


def show_results(city: City, rows: np.ndarray, found: np.ndarray, settings: SearchSettings) -> int:
    """The results as pictures with their distances; the row that is looked at closely (-1 without results)."""
    if not len(rows):
        st.info(f"No tile lies at least {settings.min_km:g} km away; a smaller distance finds some.")
        return -1
    chosen = picked_row(city, "result")
    chosen = chosen if chosen in rows else int(rows[0])
    notes = [f"{rank}. distance {distance:.3f}" for rank, distance in enumerate(found, start=1)]
    marked = tuple(map(int, city.embeddings.tile_xy[chosen]))
    gallery("most alike", city, city.embeddings.tile_xy[rows], notes, slot="result", marked=marked)
    return chosen


def show_side_by_side(query: Place, result: Place, metric: str) -> None:
    """Query and result beside each other, their distances, and what makes them alike."""
    left, right, figures = st.columns([1, 1, 1.4], gap="large")
    with left:
        st.markdown("##### Query")
        show_place(query)
    with right:
        st.markdown("##### Result")
        show_place(result)
    with figures:
        st.markdown("##### Distances")
        show_distances(query, result, metric)
        show_reasons(query, result)
    st.markdown("##### Layers of the query")
    show_layers(query)
    st.markdown("##### Layers of the result")
    show_layers(result)


def show_distances(query: Place, result: Place, metric: str) -> None:
    """The distance of two places by every metric, and on the ground."""
    cells = [st.columns(3), st.columns(3)]
    for cell, name in zip([*cells[0], cells[1][0]], METRICS, strict=True):
        distance = similarity.distances(query.vector, result.vector, name)
        cell.metric(name.capitalize() + (" ●" if name == metric else ""), f"{float(distance):.3f}")
    cells[1][1].metric("Cosine", f"{float(query.vector @ result.vector):.3f}")
    apart = tile_grid.great_circle_km(np.array(query.latlon), np.array(result.latlon))
    cells[1][2].metric("Apart", f"{float(apart):,.1f} km")


def show_reasons(query: Place, result: Place) -> None:
    """How much each layer adds to the similarity of two tiles of one city."""
    if query.city is not result.city or query.row < 0:
        st.caption("Which layers make two places alike is worked out for two tiles of one city.")
        return
    parts = contributions(query.city, query.row, result.row)
    order = [channel for channel in np.argsort(parts) if abs(parts[channel]) > 1e-4]
    figure = go.Figure(
        go.Bar(
            x=parts[order],
            y=[LAYERS[channel] for channel in order],
            orientation="h",
            marker_color=[tile_images.LAYER_COLOURS[LAYERS[channel]] for channel in order],
            hovertemplate="%{y}: %{x:+.3f}<extra></extra>",
        )
    )
    figure.update_layout(height=60 + 24 * len(order), margin={"l": 0, "r": 0, "t": 0, "b": 0})
    st.markdown("##### Why they match")
    st.plotly_chart(figure, key="reasons", config={"displayModeBar": False})
    st.caption("Cosine similarity that goes when the layer is blanked in both; left of 0 it tells them apart.")


@figures(max_entries=2048, show_spinner="Blanking each layer")
def contributions(city: City, row_a: int, row_b: int) -> np.ndarray:
    """What each layer adds to the similarity of two tiles, `(12,)`."""
    return inference.layer_contributions(city.encoder, city.store, row_a, row_b, city.device)


def show_index(index: Search, city: City, settings: SearchSettings) -> None:
    """Measured recall and latency of the index at the chosen parameters."""
    quality = index_quality(city, index, settings.search_k())
    cells = st.columns(4)
    cells[0].metric("Index", "Annoy" if index.kind == "annoy" else "Exact")
    cells[1].metric(f"Recall of the {quality.k} nearest", f"{quality.recall:.1%}")
    cells[2].metric("Median query", f"{quality.p50_ms:.2f} ms")
    cells[3].metric("99 % of queries under", f"{quality.p99_ms:.2f} ms")
    st.caption(
        f"Measured here on tiles of this city: {index.metric} distance, {index.trees} trees, "
        f"{settings.search_k():,} nodes a query. More trees or a higher quality find more of the true neighbours."
    )


@figures(max_entries=64, show_spinner="Measuring the index")
def index_quality(city: City, index: Search, search_k: int) -> SearchQuality:  # noqa: ARG001 - the city names it
    """Recall and latency of the index at these parameters."""
    return similarity.measure(index, sample=200, k=10, search_k=search_k)


# --- two checkpoints ---------------------------------------------------------------------------------------


def compare_page(source: Source) -> None:
    """Two checkpoints side by side on the same tiles."""
    view = choose_view()
    with st.sidebar:
        own, *others = find_checkpoints(source.model_path)
        other_path = choose_path("Compare with", "with", [*others, own])
    pair = [source, source.with_(model_path=other_path)]
    cities = same_tiles([open_city(one) for one in pair])
    place = choose_place(cities[0], "query")
    left, *columns = st.columns([1, 2, 2], gap="medium")
    with left:
        show_place(place)
    near = []
    for side, one, city, column in zip(("left", "right"), pair, cities, columns, strict=True):
        with column:
            near.append(show_one_model(side, one, city, view, place))
    load_plotly()
    with left:
        show_agreement(cities, near)


def show_one_model(side: str, source: Source, city: City, view: View, place: Place) -> np.ndarray:
    """One checkpoint's embedding and its tiles most like the place; their rows."""
    show_heading(source, city)
    here = place if place.city is city else see_again(place, city)
    rows, found = nearest(index_of(source, city), here, city, NEIGHBOURS)
    own = int(city.embeddings.rows(np.array([place.xy]))[0]) if place.xy else -1
    show_linked_view(source, city, view, key=side, slot="query", picked=own, rings=Rings(rows), panes="embedding")
    notes = [f"distance {distance:.3f}" for distance in found]
    gallery(f"{side} alike", city, city.embeddings.tile_xy[rows], notes, slot="query", edge=84)
    return rows


def see_again(place: Place, city: City) -> Place:
    """The same place through another checkpoint."""
    if place.xy is None:
        return any_place(city, place.latlon)
    return tile_place(city, int(city.embeddings.rows(np.array([place.xy]))[0]))


@once(max_entries=4)
def same_tiles(cities: list[City]) -> list[City]:
    """The cities with only the tiles that all of them have, in the same order."""
    common = cities[0].embeddings.tile_xy
    for city in cities[1:]:
        common = common[city.embeddings.rows(common) >= 0]
    if not len(common):
        raise UserError("the two checkpoints share no tile; choose one tiles folder and the same number of tiles")
    taken = [city.embeddings.take(city.embeddings.rows(common)) for city in cities]
    return [dataclasses.replace(city, embeddings=some) for city, some in zip(cities, taken, strict=True)]


def show_agreement(cities: list[City], near: list[np.ndarray]) -> None:
    """How far the two checkpoints agree, for this place and over the city."""
    shared, correlation = agreement(cities)
    st.metric("Neighbours shared, this place", f"{len(np.intersect1d(*near))} of {NEIGHBOURS}")
    st.metric("Neighbours shared, whole city", f"{shared:.0%}", help=f"Mean over up to {AGREEMENT_SAMPLE} tiles")
    st.metric("Similarities correlate", f"{correlation:.2f}", help="Between cosine similarities of random pairs")


@figures(max_entries=16, show_spinner="Comparing the checkpoints")
def agreement(cities: list[City]) -> tuple[float, float]:
    """Mean share of nearest neighbours in common, and the correlation of cosine similarities of random pairs."""
    count = len(cities[0].embeddings)
    rng = np.random.default_rng(0)
    rows = rng.permutation(count)[:AGREEMENT_SAMPLE]
    others = rng.integers(count, size=len(rows))
    k = min(NEIGHBOURS, count - 1)
    near, cosines = [], []
    for city in cities:
        vectors = city.embeddings.vectors
        search = similarity.open_search(vectors, metric="angular", exact=True)
        near.append(search.query(vectors[rows], k + 1)[0])
        cosines.append((vectors[rows] * vectors[others]).sum(axis=1))
    shared = [len(np.intersect1d(a[a != row], b[b != row])) / k for a, b, row in zip(*near, rows, strict=True)]
    return float(np.mean(shared)), float(np.corrcoef(cosines)[0, 1])


# --- statistics --------------------------------------------------------------------------------------------


def show_statistics(city: City, projection: Projection) -> None:
    """What the tiles, the vectors and the projection are like, in figures."""
    shown = city.embeddings
    spread, held = vector_figures(city)
    cells = [*st.columns(4), *st.columns(4)]
    cells[0].metric("Tiles shown", f"{len(shown):,}")
    cells[1].metric("Blank tiles left out", f"{int(city.store.blank.sum()):,}")
    cells[2].metric("Dimensions", f"{shown.vectors.shape[1]}")
    cells[3].metric("Hold 90 % of the variance", f"{held}", help="Principal components; few means a narrow space")
    cells[4].metric("Mean cosine of two tiles", f"{spread:.2f}", help="Near 1, all tiles look alike to the network")
    cells[5].metric("Mean density", f"{shown.density.mean():.0%}")
    cells[6].metric(
        "Trustworthiness", f"{projection.trustworthiness:.3f}", help="1: neighbours in the picture are true neighbours"
    )
    if projection.explained is None:
        cells[7].metric("Computed in", f"{projection.seconds:.1f} s")
    else:
        cells[7].metric("Variance explained", f"{float(np.sum(projection.explained)):.0%}")
    layers, zones, density = st.columns(3, gap="large")
    with layers:
        show_counts("Dominant layer", [*LAYERS, "nothing drawn"], shown.dominant_layer)
    with zones:
        show_counts("Geographic zone", ZONES, shown.zone)
    with density:
        show_counts(
            "Content density", [f"{10 * d}–{10 * d + 10} %" for d in range(10)], np.minimum(shown.density * 10, 9)
        )


def show_counts(title: str, names: tuple | list, index: np.ndarray) -> None:
    """A table of how many tiles fall under each name, as bars; index -1 is the last name."""
    counts = np.bincount(index.astype(int) % len(names), minlength=len(names))
    rows = [{title: name, "tiles": int(count)} for name, count in zip(names, counts, strict=True) if count]
    bar = st.column_config.ProgressColumn("Tiles", format="localized", min_value=0, max_value=int(counts.max()))
    st.dataframe(rows, column_config={"tiles": bar}, hide_index=True, width="stretch")


@figures(max_entries=32)
def vector_figures(city: City) -> tuple[float, int]:
    """Mean cosine of random pairs of tiles, and how many principal components hold nine tenths of the variance."""
    vectors = city.embeddings.vectors
    pairs = np.random.default_rng(0).integers(len(vectors), size=(2, 20000))
    shares = principal_components(vectors, vectors.shape[1])[1]
    cosine = (vectors[pairs[0]] * vectors[pairs[1]]).sum(axis=1).mean()
    return float(cosine), int(np.searchsorted(np.cumsum(shares), 0.9)) + 1


# --- the page ----------------------------------------------------------------------------------------------


PAGES = {
    "Embedding projector": projector_page,
    "Similarity Search (Annoy)": search_page,
    "Compare checkpoints": compare_page,
}


def main() -> None:
    """Read the flags, let the sidebar choose what is open and how, show that page."""
    st.set_page_config("Loc2Vec explorer", page_icon=str(explorer.WEB / "icon.svg"), layout="wide")
    st.html(explorer.WEB / "live_app.css")
    try:
        flags = read_app_flags()
        st.sidebar.title("Loc2Vec")
        mode = st.sidebar.radio("Mode", list(PAGES), key="mode", bind=URL, label_visibility="collapsed")
        PAGES[mode](choose_source(flags))
    except (UserError, WorkError, OSError) as error:
        show_error(error)


if __name__ == "__main__":
    main()
