"""What the live app draws with its own JavaScript: the linked view of embedding and map, and galleries of tiles.

Not a command. `streamlit run streamlit_app.py` shows it at work.

Large data crosses to the browser once: the explorer's code, the facts about the city's tiles, the base map, and Plotly
for 3-D. Sheets of tile pictures follow when the browser asks for them. A rerun sends only the small data of the view.
Vectors stay in Python.
"""

import dataclasses
import gzip
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import streamlit as st

import explorer_data as explorer
import front_end
import projections
from app_address import parse_tile, set_clicked, set_picked, tile_name
from app_city import Source, View, city_key, heading
from app_first_view import FirstView
from app_pictures import cached_base_map, open_base_map, picture_uri, sheet_frame, sheet_uri, view_order
from embeddings import City
from place_names import find_place_names
from projections import Projection

CLUSTERS = 10
PAYLOADS = 4  # cities of which the server keeps what it sent
COSINE_STEPS = np.iinfo(np.int16).max  # between 0 and 1


@st.cache_resource(show_spinner=False)
def components() -> dict[str, Callable]:
    """The components that run in the browser."""

    def web(name: str) -> str:
        return (front_end.WEB / name).read_text(encoding="utf-8")

    make = st.components.v2.component
    view_css = front_end.style_sheet() + web("live_view.css")
    view_js = front_end.bundle("live_view.js")
    return {
        "gallery": make("loc2vec_gallery", css=web("live_gallery.css"), js=web("live_gallery.js")),
        "explorer": make("loc2vec_explorer", isolate_styles=False, css=view_css, js=view_js),
        "view": make("loc2vec_view", isolate_styles=False, js=web("live_slot.js")),
        "city": make("loc2vec_city", js=web("live_city.js")),
        "pictures": make("loc2vec_pictures", js=web("live_pictures.js")),
        "plotly": make("loc2vec_plotly", js=front_end.plotly_script() + web("live_plotly.js")),
    }


def load_explorer() -> None:
    """Send the code that draws views, once for the page."""
    components()["explorer"](key="explorer")


def load_plotly(view: View) -> None:
    """Send Plotly's script for a 3-D view. Call it after the views: the browser needs a second to read it."""
    if view.dimensions == 3:
        with st.sidebar:
            components()["plotly"](key="plotly")


# --- galleries ---------------------------------------------------------------------------------------------


def show_gallery(
    key: str, label: str, city: City, rows: np.ndarray, notes: list[str], *, slot: str, marked: int = -1, edge: int = 84
) -> None:
    """Pictures of the tiles `rows (n,)` with a note under each; a click picks the tile under `slot`.

    `label` says to users of a screen reader what the tiles are.
    """
    items = []
    for row, note in zip(rows, notes, strict=True):
        x, y = map(int, city.embeddings.tile_xy[row])
        item = {"id": f"{x}/{y}", "title": tile_name((x, y)), "note": note, "marked": bool(row == marked)}
        items.append(item | {"picture": picture_uri(city, (x, y), 2 * edge)})

    def keep() -> None:
        if tile := parse_tile(st.session_state[key].get("pick")):
            set_picked(slot, tile)

    components()["gallery"](key=key, data={"items": items, "edge": edge, "label": label}, on_pick_change=keep)


# --- the linked view ---------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Marks:
    """Rows of the embeddings that the linked view rings, with labels (1, 2, … by default); `path` joins them."""

    rows: Iterable[int] = ()
    labels: tuple[str, ...] = ()
    path: bool = False
    pins: Sequence[dict[str, Any]] = ()  # of places that are no tiles, as `Pin` of web/types.d.ts


def show_linked_view(
    city: City,
    view: View,
    projection: Projection,
    cache_dir: Path,
    *,
    key: str = "projector",
    slot: str | None = None,
    picked: int = -1,
    marks: Marks,
    panes: str = "both",
) -> None:
    """The embedding and the map, linked, with `marks`. A click picks a tile under `slot` (by default `key`)."""
    tile_xy = city.embeddings.tile_xy
    ids = {row: explorer.tile_id(city.store.zoom, tile_xy[row]) for row in [picked, *marks.rows]}
    data = {
        "tile": ids[picked] if picked >= 0 else "",
        "marked": [ids[row] for row in marks.rows],
        "labels": marks.labels,
        "path": marks.path,
        "pins": list(marks.pins),
        "similarities": packed_similarities(city, picked) if picked >= 0 else None,
        "panes": panes,
    }
    send_view(city_key(city), packed_projection(city, projection), view, key, slot, data)
    components()["city"](key=f"city {key}", data=city_payload(city, str(cache_dir)))
    if panes == "both" and (image := open_base_map(city, cache_dir)):
        send_map(city_key(city), image, key)
    answer_picture_requests(city, key)


def show_first_view(first: FirstView, view: View, *, key: str = "projector") -> None:
    """The linked view of a city that is not open yet; `answer_picture_requests` has to follow once it is."""
    send_view(first.city, first.projection, view, key, None, {})
    components()["city"](key=f"city {key}", data=keep_payload(first.city, first.payload))
    send_map(first.city, first.image, key)


def first_view(source: Source, city: City, projection: Projection) -> FirstView | None:
    """What `show_first_view` needs the next time; None while the map is being drawn."""
    image = cached_base_map(city, source.tiles.cache_dir)
    if image is None:
        return None
    payload = city_payload(city, str(source.tiles.cache_dir))
    return FirstView(city_key(city), payload, packed_projection(city, projection), image, heading(source, city))


def send_view(
    city: str,
    projection: dict,
    view: View,
    key: str,
    slot: str | None,
    more: dict[str, Any],
    on_click: Callable[[dict | None, dict | None], None] | None = None,
    on_ground: Callable[[list[float] | None], None] | None = None,
) -> None:
    """Send the small data of a view, with what `more` says differently from a view without a picked tile.

    `on_click` gets the tile and the point of a click instead of `set_clicked`; `on_ground` gets what the map shows,
    left, top, right and bottom in tiles, or None for all of it.
    """
    name = f"view {key}"
    data = {
        "city": city,
        "projection": projection,
        "colour": view.colouring,
        "tile": "",
        "marked": [],
        "labels": [],
        "path": False,
        "pins": [],
        "similarities": None,
        "series": city,
        "follows": False,
        "panes": "both",
        "theme": st.context.theme.type or "system",
    }

    def keep() -> None:
        click = st.session_state[name].get("click") or {}
        if on_click:
            on_click(click.get("tile"), click.get("point"))
        else:
            set_clicked(slot or key, click.get("tile"), click.get("point"))

    def follow() -> None:
        if on_ground and (moved := st.session_state[name].get("ground")):
            on_ground(moved["tiles"])

    components()["view"](key=name, data=data | more, on_click_change=keep, on_ground_change=follow)


def send_map(city: str, image: str, key: str) -> None:
    """Send the map of a city, a `data:` address, to the view `key`."""
    components()["pictures"](key=f"map {key}", data={"city": city, "map": image})


def packed_similarities(city: City, row: int) -> dict[str, Any]:
    """Cosine similarity of every tile of the view to one of them, in whole steps of `scale`."""
    vectors = city.embeddings.vectors
    steps = np.round(np.clip(vectors @ vectors[row], -1, 1) * COSINE_STEPS).astype(np.int16)
    return explorer.packed(steps[view_order(city)]) | {"scale": 1 / COSINE_STEPS}


def packed_projection(city: City, projection: Projection) -> dict[str, Any]:
    """A projection as the explorer takes it; its name includes its settings."""
    settings = ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in projection.settings.items())
    title = projections.TITLES[projection.algorithm].replace("-", "\u2011")  # a hyphen would separate the dimensions
    ordered = dataclasses.replace(projection, points=projection.points[view_order(city)])
    return {
        "name": f"{title} ({settings})" if settings else title,
        "dimensions": projection.dimensions,
        "packed": explorer.packed_projection(ordered),
    }


@st.cache_resource(show_spinner=False)
def payloads() -> dict[str, bytes]:
    """The payloads of the cities that were shown last, by what names their content."""
    return {}


def keep_payload(city: str, payload: bytes) -> bytes:
    """Remember the payload of a city, and forget the oldest of many."""
    known = payloads()
    known[city] = payload
    for old in list(known)[:-PAYLOADS]:
        known.pop(old, None)
    return payload


def city_payload(city: City, cache_dir: str) -> bytes:
    """Facts about a city's tiles for the linked view: 32 letters that name the city, then JSON as gzip."""
    key = city_key(city)
    if (known := payloads().get(key)) is not None:
        return known
    shown = city.embeddings
    cluster = projections.clusters(shown.vectors, CLUSTERS, cache_dir=cache_dir, key=shown.key)
    return pack_payload(city, cluster, explorer.map_frame(city.store))


def pack_payload(city: City, cluster: np.ndarray, frame: dict[str, Any]) -> bytes:
    """The payload of a city with the `cluster (N,)` of each tile, on a map that lies in `frame`."""
    key, rows = city_key(city), view_order(city)
    data = explorer.explorer_facts(city, rows, cluster[rows])
    data |= {"sprites": sheet_frame(), "map": frame | {"image": ""}}
    if (named := find_place_names(city.store.tiles_root)) is not None:
        data["names"] = explorer.packed_names(city, named)
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return keep_payload(key, key.encode() + gzip.compress(text.encode(), compresslevel=1, mtime=0))


def answer_picture_requests(city: City, key: str = "projector") -> None:
    """Send the sheets of tile pictures that the browser of the view `key` asks for, now and later."""
    st.fragment(_answer_picture_requests)(f"sheets {key}", city)


def _answer_picture_requests(key: str, city: City) -> None:
    """Send the sheets of tile pictures that the browser asked for. A fragment: the rest of the page does not rerun."""
    asked = (st.session_state.get(key) or {}).get("wanted") or []
    sheets = {number: sheet_uri(city, number) for number in asked if _is_sheet(city, number)}
    data = {"city": city_key(city), "sheets": sheets}
    components()["pictures"](key=key, data=data, on_wanted_change=lambda: None)


def _is_sheet(city: City, number: Any) -> bool:
    return isinstance(number, int) and 0 <= number < -(-len(city.embeddings) // sheet_frame()["per_sheet"])
