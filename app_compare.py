"""The page "Compare checkpoints" of the live app: two checkpoints side by side on the same tiles, or two cities.

Not a command. `streamlit run streamlit_app.py` shows it at work.
"""

import numpy as np
import streamlit as st

from app_address import RANDOM, URL, picked_row
from app_city import (
    Source,
    View,
    cached_object,
    cached_value,
    find_checkpoints,
    find_tiles,
    open_city,
    open_index,
    open_projection,
    show_heading,
)
from app_controls import choose_path, choose_view
from app_jobs import escape
from app_places import Place, any_place, choose_place, match_notes, nearest, show_place, tile_place
from app_view import Marks, load_plotly, show_gallery, show_linked_view
from comparison import common_tiles, shared_neighbours, told_apart
from embeddings import City
from explorer_data import NEIGHBOURS, city_title

AGREEMENT_SAMPLE = 500
CHECKPOINTS, CITIES = "Two checkpoints", "Two cities"
on_common_tiles = cached_object(max_entries=4)(common_tiles)
SLOTS = ("first", "second")  # of the picked tile of each city


def compare_page(source: Source) -> None:
    """Draw the page: what is compared is chosen in the sidebar."""
    with st.sidebar:
        kinds = [CHECKPOINTS, CITIES]
        kind = st.segmented_control("Compare", kinds, default=CHECKPOINTS, key="compare", bind=URL, required=True)
    if kind == CITIES:
        compare_cities(source)
    else:
        compare_checkpoints(source)


# --- two checkpoints ---------------------------------------------------------------------------------------


def compare_checkpoints(source: Source) -> None:
    """The place on the left, then each checkpoint's embedding and nearest tiles."""
    view = choose_view()
    with st.sidebar:
        own = str(source.model_path)
        others = [path for path in find_checkpoints(source.model_path) if path != own]
        other_path = choose_path("Compare with", "with", [*others, own])
    sources = [source, source.with_model(other_path)]
    cities = on_common_tiles((open_city(sources[0]), open_city(sources[1])))
    place = choose_place(cities[0], "query")
    left, *columns = st.columns([1, 2, 2], gap="medium")
    with left:
        show_place(place)
    near = []
    for side, one, city, column in zip(("left", "right"), sources, cities, columns, strict=True):
        with column:
            near.append(show_checkpoint(side, one, city, view, place))
    load_plotly(view)
    with left:
        shared, correlation = agreement(cities)
        st.metric("Neighbours shared: place", f"{len(np.intersect1d(near[0], near[1]))} of {NEIGHBOURS}")
        st.metric("Neighbours shared: city", f"{shared:.0%}", help=f"Mean over a sample of {AGREEMENT_SAMPLE} tiles")
        st.metric(
            "Similarities correlate",
            f"{correlation:.2f}",
            help="Correlation of the cosine similarities of random pairs",
        )


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
    notes = [f"distance {distance:.3f}" for distance in found]
    show_gallery(f"{side} similar", f"Most similar tiles by {source.model_path.name}", city, rows, notes, slot="query")
    return rows


@cached_value(max_entries=16, show_spinner="Comparing the checkpoints")
def agreement(cities: tuple[City, City]) -> tuple[float, float]:
    """Mean share of nearest neighbours in common, and the correlation of cosine similarities of random pairs."""
    first, second = (city.embeddings.vectors for city in cities)
    rng = np.random.default_rng(0)
    rows = rng.permutation(len(first))[:AGREEMENT_SAMPLE]
    others = rng.integers(len(first), size=len(rows))
    cosines = [(vectors[rows] * vectors[others]).sum(axis=1) for vectors in (first, second)]
    return float(shared_neighbours(first, second, NEIGHBOURS, rows).mean()), float(np.corrcoef(cosines)[0, 1])


# --- two cities --------------------------------------------------------------------------------------------


def compare_cities(source: Source) -> None:
    """A place of one city on the left, then both cities; the other one shows the places that are most like it."""
    view, own = choose_view(), source.tiles.tiles_root
    with st.sidebar:
        others = [path for path in find_tiles(own) if path != str(own)]
        other = choose_path("Other city", "with_tiles", [*others, str(own)])
    if other.resolve() == own.resolve():
        st.info("Choose the tiles folder of another city in the sidebar, or type its path and press Enter.")
        return
    sources = [source, source.with_tiles(other)]
    cities = [open_city(one) for one in sources]
    names = list(told_apart(own, other, (city_title(cities[0]), city_title(cities[1]))))
    asked = st.segmented_control("A place of", names, default=names[0], key="place_of", bind=URL, required=True)
    here = names.index(asked)
    there = 1 - here
    place = choose_place(cities[here], SLOTS[here])
    left, *columns = st.columns([1, 2, 2], gap="medium")
    with left:
        show_place(place)
    with columns[here]:
        st.markdown(f"##### {escape(names[here])}")
        show_city(sources[here], cities[here], view, SLOTS[here], Marks(), place.row_in(cities[here]))
    with columns[there]:
        st.markdown(f"##### This place in {escape(names[there])}")
        show_matches(sources[there], cities[there], view, place, SLOTS[there])
        row = picked_row(cities[there], SLOTS[there])
        if row >= 0:
            label = f"Find the picked tile in {names[here]}"
            st.button(label, icon=":material/arrow_back:", on_click=look_from, args=(names[there], SLOTS[there]))
    load_plotly(view)


def look_from(name: str, slot: str) -> None:
    """Ask for the picked tile of the other city from the next run on."""
    st.session_state["place_of"] = name
    st.session_state[f"{slot}_way"] = RANDOM  # the way to choose that keeps the picked tile


def show_city(source: Source, city: City, view: View, slot: str, marks: Marks, picked: int) -> None:
    """A city's embedding and map."""
    show_heading(source, city)
    projection = open_projection(source, city, view)
    show_linked_view(city, view, projection, source.tiles.cache_dir, key=slot, picked=picked, marks=marks)


def show_matches(source: Source, city: City, view: View, place: Place, slot: str) -> None:
    """The tiles of another city that are most like a place: on its map, and as pictures with distances and words."""
    rows, found = nearest(open_index(source, city), place, city, NEIGHBOURS)
    picked = picked_row(city, slot)
    show_city(source, city, view, slot, Marks(rows), picked)
    notes = match_notes(place, city, rows, found)
    show_gallery("matches", "Most similar tiles of this city", city, rows, notes, slot=slot, marked=picked, edge=92)
