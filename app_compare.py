"""The page "Compare checkpoints" of the live app: two checkpoints side by side on the same tiles.

Not a command. `streamlit run streamlit_app.py` shows it at work.
"""

import dataclasses

import numpy as np
import streamlit as st

import similarity
from app_city import (
    Source,
    View,
    cached_object,
    cached_value,
    find_checkpoints,
    open_city,
    open_index,
    open_projection,
    show_heading,
)
from app_controls import choose_path, choose_view
from app_places import NEIGHBOURS, Place, any_place, choose_place, nearest, show_place, tile_place
from app_view import Marks, load_plotly, show_gallery, show_linked_view
from cli import UserError
from embeddings import City

AGREEMENT_SAMPLE = 500


def compare_page(source: Source) -> None:
    """Draw the page: the place on the left, then each checkpoint's embedding and nearest tiles."""
    view = choose_view()
    with st.sidebar:
        own, *others, bundled = find_checkpoints(source.model_path)
        other_path = choose_path("Compare with", "with", [*others, own, bundled])
    sources = [source, source.with_model(other_path)]
    cities = on_common_tiles([open_city(one) for one in sources])
    place = choose_place(cities[0], "query")
    left, *columns = st.columns([1, 2, 2], gap="medium")
    with left:
        show_place(place)
    near = []
    for side, one, city, column in zip(("left", "right"), sources, cities, columns, strict=True):
        with column:
            near.append(show_checkpoint(side, one, city, view, place))
    load_plotly()
    with left:
        shared, correlation = agreement(cities)
        st.metric("Neighbours shared: place", f"{len(np.intersect1d(near[0], near[1]))} of {NEIGHBOURS}")
        st.metric("Neighbours shared: city", f"{shared:.0%}", help=f"Mean over a sample of {AGREEMENT_SAMPLE} tiles")
        st.metric(
            "Similarities correlate",
            f"{correlation:.2f}",
            help="Correlation of the cosine similarities of random pairs",
        )


@cached_object(max_entries=4)
def on_common_tiles(cities: list[City]) -> list[City]:
    """The cities reduced to the tiles that all of them have, in the same order."""
    common = cities[0].embeddings.tile_xy
    for city in cities[1:]:
        common = common[city.embeddings.rows(common) >= 0]
    if not len(common):
        raise UserError("the two checkpoints share no tile; choose one tiles folder and the same number of tiles")
    taken = [city.embeddings.take(city.embeddings.rows(common)) for city in cities]
    return [
        dataclasses.replace(city, embeddings=some, rows=city.store.grid.rows(some.tile_xy))
        for city, some in zip(cities, taken, strict=True)
    ]


def show_checkpoint(side: str, source: Source, city: City, view: View, place: Place) -> np.ndarray:
    """One checkpoint's embedding and the tiles most similar to the place; their rows."""
    show_heading(source, city)
    own = place.row_in(city)
    if place.city is not city:  # the same place, with this checkpoint's vector
        place = tile_place(city, own) if own >= 0 else any_place(city, place.latlon)
    rows, found = nearest(open_index(source, city), place, city, NEIGHBOURS)
    projection = open_projection(source, city, view)
    show_linked_view(
        city,
        view,
        projection,
        source.tiles.cache_dir,
        key=side,
        slot="query",
        picked=own,
        marks=Marks(rows),
        panes="embedding",
    )
    show_gallery(f"{side} similar", city, rows, [f"distance {distance:.3f}" for distance in found], slot="query")
    return rows


@cached_value(max_entries=16, show_spinner="Comparing the checkpoints")
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
