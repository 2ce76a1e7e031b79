"""The page "Similarity Search (Annoy)" of the live app: the tiles most similar to a place of this or another city.

Not a command. `streamlit run streamlit_app.py` shows it at work.
"""

import dataclasses
import time

import numpy as np
import plotly.graph_objects as go
import streamlit as st

import reasons
import similarity
import tile_grid
from app_address import URL, picked_row
from app_city import (
    Source,
    cached_value,
    find_tiles,
    open_city,
    open_index,
    open_projection,
    show_heading,
)
from app_controls import choose_path, choose_view
from app_places import Place, choose_place, match_notes, nearest, show_layers, show_place, tile_place
from app_view import Marks, load_plotly, show_gallery, show_linked_view
from embeddings import City
from explorer_data import NEIGHBOURS
from layers import LAYER_COLOURS, LAYERS
from similarity import METRICS, Search, SearchQuality


@dataclasses.dataclass(frozen=True)
class SearchSettings:
    """How to search."""

    metric: str
    trees: int
    quality: int
    results: int
    min_km: float

    def search_k(self) -> int:
        """Annoy's `search_k`: how many nodes a query inspects."""
        return self.quality * self.trees * self.results


def search_page(source: Source) -> None:
    """Draw the page: the query on the left, its results on the right, details of one result below."""
    settings = choose_search()
    city = open_city(source)
    with st.sidebar:
        query_root = choose_path("Query from", "from", find_tiles(source.tiles.tiles_root))
    query_city = city if query_root == source.tiles.tiles_root else open_city(source.with_tiles(query_root))
    show_heading(source, city)
    query = choose_place(query_city, "query" if query_city is city else "other")
    left, right = st.columns([1, 3], gap="large")
    with left:
        show_place(query)
    with right:
        index = open_index(source, city, settings.metric, settings.trees)
        rows, chosen = show_results(index, query, city, settings)
    if not len(rows):
        return
    side_by_side, embedding, figures = st.tabs(["Side by side", "In the embedding", "Index"], key="panel", bind=URL)
    if side_by_side.open:
        with side_by_side:
            show_side_by_side(query, tile_place(city, chosen), settings.metric)
    if embedding.open:
        with embedding:
            view = choose_view(st.container(horizontal=True))
            projection = open_projection(source, city, view)
            own, cache_dir = query.row_in(city), source.tiles.cache_dir
            show_linked_view(city, view, projection, cache_dir, key="query", picked=own, marks=Marks(rows))
            load_plotly(view)
    if figures.open:
        with figures:
            show_index(index, city, settings)


def choose_search() -> SearchSettings:
    """Metric, trees, quality, number of results and minimum distance, from the sidebar."""
    with st.sidebar:
        if not similarity.annoy_available():
            st.warning("Annoy is not installed, so every search is exact and slower. `pip install annoy` installs it.")
        metric = st.selectbox("Distance metric", METRICS, key="metric", bind=URL, format_func=str.capitalize)
        trees = st.slider("Number of trees", 10, 500, similarity.DEFAULT_TREES, 10, key="trees", bind=URL)
        quality = st.slider("Search quality", 1, 20, 1, key="quality", bind=URL, help="Higher is better and slower")
        results = st.slider("Number of results", 5, 50, NEIGHBOURS, key="results", bind=URL)
        min_km = st.number_input("At least this far away (km)", 0.0, 100.0, 0.0, 0.5, key="min_km", bind=URL)
    return SearchSettings(metric, trees, quality, results, min_km)


def show_results(index: Search, query: Place, city: City, settings: SearchSettings) -> tuple[np.ndarray, int]:
    """Search, and show the results as pictures with distances: their rows, and the row to look at in detail."""
    started = time.perf_counter()
    rows, found = nearest(index, query, city, settings.results, search_k=settings.search_k(), min_km=settings.min_km)
    milliseconds = (time.perf_counter() - started) * 1000
    kind = f"Annoy, {index.trees} trees" if index.kind == "annoy" else "exact search"
    st.caption(f"{len(rows)} of {len(city.embeddings):,} tiles in {milliseconds:.1f} ms ({kind}, {settings.metric})")
    if not len(rows):
        st.info(f"No tile is at least {settings.min_km:g} km away. Choose a smaller distance.")
        return rows, -1
    chosen = picked_row(city, "result")
    chosen = chosen if chosen in rows else int(rows[0])
    notes = match_notes(query, city, rows, found)
    show_gallery("search results", "Search results", city, rows, notes, slot="result", marked=chosen, edge=112)
    return rows, chosen


def show_side_by_side(query: Place, result: Place, metric: str) -> None:
    """Query and result beside each other, their distances, and which layers make them similar."""
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
    cells = [*st.columns(3), *st.columns(3)]
    for cell, name in zip(cells, METRICS, strict=False):
        distance = similarity.distances(query.vector, result.vector, name)
        cell.metric(name.capitalize() + (" ●" if name == metric else ""), f"{float(distance):.3f}")
    cells[4].metric("Cosine", f"{float(query.vector @ result.vector):.3f}")
    kilometres = tile_grid.great_circle_km(np.array(query.latlon), np.array(result.latlon))
    cells[5].metric("On the ground", f"{float(kilometres):,.1f} km")


def show_reasons(query: Place, result: Place) -> None:
    """How much each layer adds to the similarity of two tiles of one city."""
    if query.city is not result.city or query.store_row < 0:
        st.caption("The layers that make two places similar can be measured for two tiles of one city only.")
        return
    parts = contributions(query.city, query.store_row, result.store_row)
    order = [part for part in sorted(parts, key=parts.__getitem__) if abs(parts[part]) > 1e-4]
    figure = go.Figure(
        go.Bar(
            x=[parts[part] for part in order],
            y=order,
            orientation="h",
            marker_color=[LAYER_COLOURS.get(part, "#8c8c8c") for part in order],
            hovertemplate="%{y}: %{x:+.3f}<extra></extra>",
        )
    )
    figure.update_layout(height=60 + 24 * len(order), margin={"l": 0, "r": 0, "t": 0, "b": 0})
    st.markdown("##### Why they match")
    st.plotly_chart(figure, key="reasons", config={"displayModeBar": False})
    st.caption(
        "How much the cosine similarity drops when a layer, or another part, is removed from one of the tiles. "
        "A negative value means that it makes the tiles less similar."
    )


@cached_value(max_entries=2048, show_spinner="Comparing the layers")
def contributions(city: City, row_a: int, row_b: int) -> dict[str, float]:
    """How much each layer and each of `reasons.place_parts` adds to the similarity of two tiles; rows of the store."""
    found = dict(zip(LAYERS, reasons.layer_contributions(city.embedder, row_a, row_b).tolist(), strict=True))
    if names := reasons.place_parts(city.embedder):
        found |= dict(zip(names, reasons.place_contributions(city.embedder, row_a, row_b).tolist(), strict=True))
    return found


def show_index(index: Search, city: City, settings: SearchSettings) -> None:
    """Measured recall and latency of the index with the chosen parameters."""
    quality = index_quality(city, index, settings.search_k())
    cells = st.columns(4)
    cells[0].metric("Index", "Annoy" if index.kind == "annoy" else "Exact")
    cells[1].metric(f"Recall of the {quality.k} nearest", f"{quality.recall:.1%}")
    cells[2].metric("Median query", f"{quality.p50_ms:.2f} ms")
    cells[3].metric("99 % of queries under", f"{quality.p99_ms:.2f} ms")
    st.caption(
        f"Measured on tiles of this city: {index.metric} distance, {index.trees} trees, "
        f"{settings.search_k():,} nodes per query. More trees or a higher quality find more of the true neighbours."
    )


@cached_value(max_entries=64, show_spinner="Measuring the index")
def index_quality(city: City, index: Search, search_k: int) -> SearchQuality:  # noqa: ARG001 - part of the cache key
    """Recall and latency of the index with these parameters."""
    return similarity.measure(index, sample=200, k=10, search_k=search_k)
