"""The picked tiles, kept in the address of the live app's page, so that a link opens the same view.

Not a command. `streamlit run streamlit_app.py` shows it at work.

Each picked tile has a slot: "projector", "query", "result", "a", "b" or "c". The address names it as `<slot>_tile=x/y`.
"""

import re
from collections.abc import Iterable
from typing import Any, Literal, NoReturn

import numpy as np
import streamlit as st

from embeddings import City

URL: Literal["query-params"] = "query-params"  # `bind=URL` keeps a widget's value in the address
WAYS = RANDOM, BY_TILE, BY_LATLON, BROWSE = ("Random tile", "Coordinate input", "Latitude, longitude", "Browse gallery")


def tile_name(xy: Iterable[int]) -> str:
    """A tile as people write it: "x, y"."""
    return ", ".join(str(part) for part in xy)


def parse_tile(text: str | None) -> tuple[int, int] | None:
    """`"x/y"` as a tile; None for any other text."""
    found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text or "", re.ASCII)
    return (int(found[1]), int(found[2])) if found else None


def picked_row(city: City, slot: str) -> int:
    """Row of the tile picked under `slot`, -1 if it is none of this city's tiles."""
    xy = parse_tile(st.query_params.get(f"{slot}_tile"))
    return -1 if xy is None else int(city.embeddings.rows(np.array([xy]))[0])


def set_picked(slot: str, xy: Any) -> None:
    """Write the picked tile into the address."""
    st.query_params[f"{slot}_tile"] = f"{int(xy[0])}/{int(xy[1])}"
    remember_picks()


def clear_picked(slot: str) -> None:
    """Remove the picked tile from the address."""
    st.query_params.pop(f"{slot}_tile", None)
    remember_picks()


def remember_picks() -> None:
    """Keep the picked tiles for `rerun_page`."""
    st.session_state["picks"] = {name: value for name, value in st.query_params.items() if name.endswith("_tile")}


def rerun_page() -> NoReturn:
    """Run the whole page again, from a fragment, with the tiles that were picked last.

    A fragment that reruns by itself comes with the address that the browser had when it asked for that. A tile may have
    been picked meanwhile.
    """
    picks = st.session_state.get("picks", {})
    for name in [name for name in st.query_params if name.endswith("_tile") and name not in picks]:
        del st.query_params[name]
    for name, value in picks.items():
        if st.query_params.get(name) != value:
            st.query_params[name] = value
    st.rerun(scope="app")


def set_clicked(slot: str, tile: dict | None, point: dict | None) -> None:
    """Keep a click in a linked view: the tile under `slot`, and the exact point if it was on the map.

    A click beside all tiles takes the pick back, except where a page needs a tile.
    """
    if tile:
        set_picked(slot, (tile["x"], tile["y"]))
        if f"{slot}_way" in st.session_state:
            st.session_state[f"{slot}_way"] = RANDOM  # the way to choose that shows the picked tile
    elif not point and f"{slot}_way" not in st.session_state:
        clear_picked(slot)
    if point:
        st.session_state["place_lat"], st.session_state["place_lon"] = round(point["lat"], 5), round(point["lon"], 5)
