"""The page "Embedding projector" of the live app: the embedding beside the map, and what a picked tile leads to.

Not a command. `streamlit run streamlit_app.py` shows it at work.
"""

import dataclasses
from functools import partial
from typing import NamedTuple

import numpy as np
import streamlit as st
from streamlit.delta_generator import DeltaGenerator

import similarity
from app_address import URL, clear_picked, picked_row, set_picked, tile_name
from app_city import (
    Source,
    View,
    cached_value,
    exact_search,
    open_city,
    open_projection,
    show_heading,
    trustworthiness,
)
from app_controls import choose_view
from app_first_view import FirstView, has_first_view, keep_first_view, read_first_view
from app_jobs import show_error
from app_places import Place, any_place, choose_latlon, nearest, show_layers, show_place, tile_place
from app_points import choose_table, show_table, table_pins
from app_view import (
    Marks,
    answer_picture_requests,
    first_view,
    load_plotly,
    show_first_view,
    show_gallery,
    show_linked_view,
)
from cli import UserError
from colourings import NOTHING_DRAWN
from embeddings import City
from explorer_data import NEIGHBOURS
from layers import LAYERS
from projections import Projection
from similarity import Search
from tile_facts import ZONES
from vectors import principal_components

WALK_STEPS = 8  # tiles between the two ends
SLOTS = ("a", "b", "c")
TABS = PICKED, ANYWHERE, TABLE, SUM, WALK, STATISTICS = (
    "Picked tile",
    "Any place",
    "Your table",
    "A + B − C",
    "Walk",
    "Statistics",
)


class Frame(NamedTuple):
    """The upper part of the page, empty at first."""

    heading: DeltaGenerator
    view: DeltaGenerator


@dataclasses.dataclass(frozen=True)
class Answer:
    """The tiles that the open tab found: rows of the embeddings, most similar first, and a note for each."""

    rows: np.ndarray
    notes: list[str]


def show_known_city(source: Source, view: View, frame: Frame) -> FirstView | None:
    """Show a city that was open before, though not in this session, before it is opened; None if it is none."""
    first = read_first_view(source) if st.session_state.get("opened") != source.stamp() else None
    if first is not None:
        frame.heading.markdown(first.heading)
        with frame.view:
            show_first_view(first, view)
    return first


def projector_page(source: Source, frame: Frame, first: FirstView | None) -> None:
    """Draw the page. The open tab's search runs once; the linked view marks its answer and the tab lists it.

    `first` is what `show_known_city` has shown of the city.
    """
    view = choose_view()
    if first is None and is_plain(view):
        first = show_known_city(source, view, frame)
    with frame.heading:
        city = open_city(source)
        st.session_state["opened"] = source.stamp()
        if first is None:
            show_heading(source, city)
        projection = open_projection(source, city, view)
    index = exact_search(city)
    tabs = dict(zip(TABS, st.tabs(TABS, key="below", bind=URL), strict=True))
    tab = next((name for name, element in tabs.items() if element.open), PICKED)

    # search once
    row = picked_row(city, "projector")
    slots = [picked_row(city, slot) for slot in SLOTS]
    place = tile_place(city, row) if row >= 0 else None
    answer, marks = None, Marks()
    if tab == ANYWHERE:
        with tabs[tab]:
            place = choose_anywhere(city)
    table = None
    if tab == TABLE:
        with tabs[tab]:
            table = choose_table(source, city)
            place = show_table(table, city) if table is not None else None
    if tab == SUM and min(slots) >= 0:
        answer = find_sum(index, city, slots)
        numbers = map(str, range(1, len(answer.rows) + 1))
        marks = Marks([*answer.rows, *slots], (*numbers, *map(str.upper, SLOTS)))
    elif tab == WALK and min(slots[:2]) >= 0:
        answer = find_walk(index, *slots[:2])
        marks = Marks(answer.rows, tuple(answer.notes), path=True)
    elif place is not None:
        answer = find_similar(index, place, city)
        marks = Marks(answer.rows)
    if table is not None:
        marks = dataclasses.replace(marks, pins=table_pins(table, city, projection))

    # show it twice
    with frame.view:
        if first is None:
            show_linked_view(city, view, projection, source.tiles.cache_dir, picked=row, marks=marks)
        else:
            answer_picture_requests(city)
    load_plotly(view)
    with tabs[tab]:
        if tab in (PICKED, ANYWHERE) or (place is not None and tab == TABLE):
            show_similar(city, place, answer)
        elif tab == SUM:
            show_sum(city, slots, row, answer)
        elif tab == WALK:
            show_walk(city, slots[:2], row, answer)
        elif tab == STATISTICS:
            show_statistics(city, projection)
    if is_plain(view) and not has_first_view(source):
        kept = first_view(source, city, projection)
        if kept is not None:
            keep_first_view(source, kept)


def is_plain(view: View) -> bool:
    """Whether the view is the one of a visitor who has not chosen anything yet."""
    tab = st.session_state.get("below") or st.query_params.get("below") or PICKED
    picked = any(f"{slot}_tile" in st.query_params for slot in ("projector", *SLOTS))
    return view.algorithm == "PCA" and view.dimensions == 2 and tab == PICKED and not picked


# --- searching ---------------------------------------------------------------------------------------------


def find_similar(index: Search, place: Place, city: City) -> Answer:
    """The tiles most similar to a place."""
    rows, found = nearest(index, place, city, NEIGHBOURS)
    return Answer(rows, [f"distance {distance:.3f}" for distance in found])


def find_sum(index: Search, city: City, slots: list[int]) -> Answer:
    """The tiles most similar to A + B - C, without those three."""
    vector = similarity.arithmetic(*city.embeddings.vectors[slots])
    rows, found = index.query(vector[None], NEIGHBOURS + len(SLOTS))
    kept = np.flatnonzero((rows[0] >= 0) & ~np.isin(rows[0], slots))[:NEIGHBOURS]
    return Answer(rows[0][kept], [f"{rank}. distance {d:.3f}" for rank, d in enumerate(found[0][kept], start=1)])


def find_walk(index: Search, start: int, end: int) -> Answer:
    """The tiles on the way from A to B, both included, and their labels."""
    rows = similarity.walk(index, start, end, WALK_STEPS)
    steps = map(str, range(1, len(rows) - 1))
    return Answer(rows, ["A", *steps, "B"] if len(rows) > 1 else ["A"])


def choose_anywhere(city: City) -> Place | None:
    """The place at the typed coordinates, or at the last click on the map; None, with a message, outside the city."""
    with st.container(horizontal=True):
        latlon = choose_latlon(city, "place")
    try:
        return any_place(city, latlon)
    except UserError as error:
        show_error(error)
        return None


# --- tabs --------------------------------------------------------------------------------------------------


def show_similar(city: City, place: Place | None, answer: Answer | None) -> None:
    """A place, large, with its layers and the tiles most similar to it."""
    if place is None or answer is None:
        st.caption("Pick a tile in the embedding or on the map to see it here.")
        return
    left, right = st.columns([1, 3], gap="large")
    with left:
        show_place(place)
    with right:
        st.markdown("##### Most similar tiles")
        show_gallery("similar", "Most similar tiles", city, answer.rows, answer.notes, slot="projector")
        st.markdown("##### Layers")
        show_layers(place)


def show_sum(city: City, slots: list[int], picked: int, answer: Answer | None) -> None:
    """The tiles in A, B and C, and those most similar to A + B - C."""
    show_slots(city, slots, picked, ("", "+", "−"))
    if answer is None or min(slots) < 0:
        st.caption("Find tiles like A, plus what B has and C lacks. Pick tiles and put them into A, B and C.")
        return
    st.markdown("##### Most similar to A + B − C")
    show_gallery("sum", "Tiles most similar to A + B − C", city, answer.rows, answer.notes, slot="projector")


def show_walk(city: City, slots: list[int], picked: int, answer: Answer | None) -> None:
    """The tiles in A and B, and those on the way from one to the other."""
    show_slots(city, slots, picked, ("", "→"))
    if answer is None or min(slots) < 0:
        st.caption("Put two tiles into A and B to see the tiles between them in the embedding space.")
        return
    st.markdown("##### From A to B")
    show_gallery("walk", "Tiles from A to B", city, answer.rows, answer.notes, slot="projector")
    st.caption(
        "The way from the vector of A to that of B is divided into equal steps along the great circle. "
        "Each step shows the nearest tile that the walk has not visited yet."
    )


def show_slots(city: City, slots: list[int], picked: int, signs: tuple[str, ...]) -> None:
    """For each slot: its tile, a button that puts the picked tile there, and one that empties it."""
    with st.container(horizontal=True):
        for slot, row, sign in zip(SLOTS, slots, signs, strict=False):
            name, xy = slot.upper(), city.embeddings.tile_xy
            with st.container(width=170):
                where = "" if row < 0 else f" · {tile_name(xy[row])}"
                st.markdown(f"**{sign} {name}**{where}" if sign else f"**{name}**{where}")
                if row >= 0:
                    st.image(tile_place(city, row).picture(168), width=120)
                fill = partial(set_picked, slot, xy[picked])
                st.button(f"Put the picked tile into {name}", key=f"put {slot}", disabled=picked < 0, on_click=fill)
                if row >= 0:
                    clear = partial(clear_picked, slot)
                    st.button(f"Empty {name}", key=f"empty {slot}", type="tertiary", on_click=clear)


def show_statistics(city: City, projection: Projection) -> None:
    """Figures about the tiles, the vectors and the projection."""
    shown = city.embeddings
    cosine, components = vector_figures(city)
    cells = [*st.columns(4), *st.columns(4)]
    cells[0].metric("Tiles shown", f"{len(shown):,}")
    cells[1].metric("Blank tiles left out", f"{int(city.store.blank.sum()):,}")
    cells[2].metric("Dimensions", f"{shown.vectors.shape[1]}")
    cells[3].metric(
        "Components for 90 % of the variance",
        f"{components}",
        help="Number of principal components. A small number means that the vectors use few of their dimensions.",
    )
    cells[4].metric(
        "Mean cosine of two tiles", f"{cosine:.2f}", help="Near 1, the network sees little difference between tiles."
    )
    cells[5].metric("Mean density", f"{shown.density.mean():.0%}")
    cells[6].metric(
        "Trustworthiness",
        f"{trustworthiness(city, projection):.3f}",
        help="1 means that neighbours in the projection are also neighbours in the full space.",
    )
    if projection.explained is None:
        cells[7].metric("Computed in", f"{projection.seconds:.1f} s")
    else:
        cells[7].metric("Variance explained", f"{float(np.sum(projection.explained)):.0%}")
    layers, zones, density = st.columns(3, gap="large")
    with layers:
        show_counts("Dominant layer", [*LAYERS, NOTHING_DRAWN], shown.dominant_layer)
    with zones:
        show_counts("Geographic zone", ZONES, shown.zone)
    with density:
        tenths = [f"{10 * tenth}–{10 * tenth + 10} %" for tenth in range(10)]
        show_counts("Content density", tenths, np.minimum(shown.density * 10, 9))


def show_counts(title: str, names: tuple | list, index: np.ndarray) -> None:
    """A table of the number of tiles under each name, as bars; index -1 is the last name."""
    counts = np.bincount(index.astype(int) % len(names), minlength=len(names))
    rows = [{title: name, "tiles": int(count)} for name, count in zip(names, counts, strict=True) if count]
    bar = st.column_config.ProgressColumn("Tiles", format="localized", min_value=0, max_value=int(counts.max()))
    st.dataframe(rows, column_config={"tiles": bar}, hide_index=True, width="stretch")


@cached_value(max_entries=32)
def vector_figures(city: City) -> tuple[float, int]:
    """Mean cosine of random pairs of tiles, and the number of principal components for 90 % of the variance."""
    vectors = city.embeddings.vectors
    pairs = np.random.default_rng(0).integers(len(vectors), size=(2, 20000))
    shares = principal_components(vectors, vectors.shape[1])[1]
    cosine = (vectors[pairs[0]] * vectors[pairs[1]]).sum(axis=1).mean()
    return float(cosine), int(np.searchsorted(np.cumsum(shares), 0.9)) + 1
