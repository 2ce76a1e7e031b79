"""What the live app's pages are made of: tile pictures, places and how to choose one, the linked view."""

import dataclasses
import json
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import streamlit as st
from PIL import Image
from plotly.offline import get_plotlyjs

import explorer_data as explorer
import inference
import projections
import tile_grid
import tile_images
from app_state import NotReady, Source, View, city_key, figures, jobs, once, open_projection, run_job
from cache_files import DamagedFile, load_cache, save_cache
from cli import UserError
from embeddings import City
from files import digest
from layers import LAYERS
from progress_bars import warn
from projections import Projection
from similarity import Search
from tile_facts import ZONES
from tile_grid import tile_of_latlon

URL = "query-params"  # widgets bound to the address: a link opens the same view
GALLERY_PAGE = 24


# --- pictures ----------------------------------------------------------------------------------------------


def web(name: str) -> str:
    """A file of the front end."""
    return (explorer.WEB / name).read_text(encoding="utf-8")


@st.cache_resource(show_spinner=False)
def components() -> dict[str, Callable]:
    """What the browser runs: the gallery, the linked view, and what it needs once: Plotly and the city."""
    make = st.components.v2.component
    gallery_parts = {"css": web("live_gallery.css"), "js": web("live_gallery.js")}
    view_parts = {
        "css": explorer.front_end_css() + web("live_view.css"),
        "js": explorer.front_end_script() + web("live_view.js"),
    }
    return {
        "gallery": make("loc2vec_gallery", **gallery_parts),
        "view": make("loc2vec_view", isolate_styles=False, **view_parts),
        "city": make("loc2vec_city", js=web("live_city.js")),
        "plotly": make("loc2vec_plotly", js=get_plotlyjs() + web("live_plotly.js")),
    }


def load_plotly() -> None:
    """Send Plotly's script, which takes the browser a second to read: after the views, which show dots without it."""
    with st.sidebar:
        components()["plotly"](key="plotly")


def gallery(
    key: str,
    city: City,
    tile_xy: np.ndarray,
    notes: list[str],
    *,
    slot: str,
    marked: tuple[int, int] | None = None,
    edge: int = 112,
) -> None:
    """A grid of tile pictures `tile_xy (n, 2)` with a note under each; a click on one keeps it under `slot`."""
    items = [
        {
            "id": f"{xy[0]}/{xy[1]}",
            "picture": picture_uri(city, xy, 2 * edge),
            "title": tile_name(xy),
            "note": note,
            "marked": xy == marked,
        }
        for xy, note in zip([(int(x), int(y)) for x, y in tile_xy], notes, strict=True)
    ]
    keep = partial(keep_from_gallery, key, slot)
    components()["gallery"](key=key, data={"items": items, "edge": edge, "label": key}, on_pick_change=keep)


def keep_from_gallery(key: str, slot: str) -> None:
    """Keep the tile that was just clicked in the gallery `key`."""
    tile = parse_tile(st.session_state[key].get("pick"))
    if tile:
        keep_picked(slot, tile)


def tile_name(xy: Iterable[int]) -> str:
    """A tile as people write it."""
    return ", ".join(str(part) for part in xy)


def parse_tile(text: str | None) -> tuple[int, int] | None:
    """`"x/y"` as a tile; None when it is none."""
    parts = (text or "").split("/")
    return (int(parts[0]), int(parts[1])) if len(parts) == 2 and all(part.isdecimal() for part in parts) else None


@figures(max_entries=8192)
def picture_uri(city: City, xy: tuple[int, int], edge: int) -> str:
    """A tile's small picture, in the address itself."""
    row = city.store.grid.rows(np.array([xy]))
    return tile_images.data_uri(Image.fromarray(tile_images.pictures(city.pictures, row, edge)[0]), "jpeg", 85)


# --- places ------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Place:
    """A tile of a city, or a window of one tile's size anywhere in it, with its vector."""

    city: City
    latlon: tuple[float, float]
    xy: tuple[int, int] | None
    vector: np.ndarray

    @property
    def name(self) -> str:
        """The tile, or the coordinates of a place between tiles."""
        where = f"{self.latlon[0]:.5f}, {self.latlon[1]:.5f}"
        return where if self.xy is None else f"Tile {tile_name(self.xy)}"

    @property
    def row(self) -> int:
        """Row of the tile in the city's store, -1 for a place between tiles."""
        return -1 if self.xy is None else int(self.city.store.grid.rows(np.array([self.xy]))[0])

    def planes(self) -> np.ndarray:
        """The layers `(12, S, S) uint8`, to look at."""
        size, zoom = self.city.pictures.tile_size, self.city.store.zoom
        at = tile_of_latlon(*self.latlon, zoom) - 0.5 if self.xy is None else np.array(self.xy)
        return self.city.pictures.windows(np.round(at * size).astype(np.int64)[None])[0]

    def picture(self, edge: int = 320) -> str:
        """The place in colour, as an address that needs no server."""
        if self.xy is not None:
            return picture_uri(self.city, self.xy, edge)
        image = Image.fromarray(tile_images.composite(self.planes()))
        return tile_images.data_uri(image.resize((edge, edge)), "jpeg", 85)


def tile_place(city: City, row: int) -> Place:
    """The tile in row `row` of the city's embeddings."""
    shown = city.embeddings
    lat, lon = shown.latlon[row]
    x, y = shown.tile_xy[row]
    return Place(city, (float(lat), float(lon)), (int(x), int(y)), shown.vectors[row])


def any_place(city: City, latlon: tuple[float, float]) -> Place:
    """The window around any latitude and longitude; `UserError` where the city has no tiles."""
    return Place(city, latlon, None, place_vector(city, latlon))


@figures(max_entries=1024)
def place_vector(city: City, latlon: tuple[float, float]) -> np.ndarray:
    """The vector of the window around `latlon`, computed by the encoder."""
    return inference.embed_places(city.encoder, city.store, np.array([latlon]), city.device)[0]


def show_place(place: Place) -> None:
    """A place as a picture with what is known about it."""
    st.image(place.picture(), width="stretch")
    st.markdown(f"**{place.name}**")
    lines = [f"{place.latlon[0]:.5f}, {place.latlon[1]:.5f}"]
    if place.xy is not None:
        shown = place.city.embeddings
        row = int(shown.rows(np.array([place.xy]))[0])
        layer = LAYERS[shown.dominant_layer[row]] if shown.dominant_layer[row] >= 0 else "nothing drawn"
        lines.append(f"{layer} · {ZONES[shown.zone[row]]} · density {shown.density[row]:.0%}")
    st.caption("  \n".join(lines))


def show_layers(place: Place, edge: int = 84) -> None:
    """The layers on which something is drawn, one picture each."""
    planes = place.planes()
    drawn = [channel for channel in range(len(LAYERS)) if planes[channel].any()]
    if not drawn:
        st.caption("Nothing is drawn here.")
        return
    with st.container(horizontal=True):
        for channel in drawn:
            picture = tile_images.layer_image(planes[channel], LAYERS[channel])
            st.image(tile_images.data_uri(picture, "png"), caption=LAYERS[channel], width=edge)


def picked_place(city: City, key: str) -> Place | None:
    """The tile picked under `key`, if it is one of this city's."""
    row = picked_row(city, key)
    return None if row < 0 else tile_place(city, row)


def nearest(
    index: Search, place: Place, city: City, count: int, *, search_k: int = -1, min_km: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Rows and distances of the `count` tiles most like a place, without itself, at least `min_km` away."""
    shown = city.embeddings
    allowed = None
    if min_km > 0:
        allowed = tile_grid.farther_than(shown.tile_xy, shown.zoom, np.array(place.latlon), min_km)
    rows, found = index.query(place.vector, count + 1, search_k=search_k, allowed=allowed)
    same_city = place.city.store.content_key == city.store.content_key
    own = int(shown.rows(np.array([place.xy]))[0]) if place.xy and same_city else -1
    kept = np.flatnonzero((rows[0] >= 0) & (rows[0] != own))[:count]
    return rows[0][kept], found[0][kept]


# --- choosing a place --------------------------------------------------------------------------------------


def choose_place(city: City, key: str) -> Place:
    """A tile at random, by coordinates or from the gallery, or any latitude and longitude; stops until one is."""
    with st.container(horizontal=True, vertical_alignment="bottom"):
        way = st.segmented_control("Query", WAYS, default=WAYS[0], key=f"{key}_way", bind=URL, required=True)
        place = WAYS_TO_CHOOSE[way](city, key) if way != "Browse gallery" else None
    if way == "Browse gallery":
        place = choose_from_gallery(city, key)
    if place is None:
        st.stop()
    return place


def choose_at_random(city: City, key: str) -> Place:
    """Another tile with every press of the button; the address keeps which."""
    row = picked_row(city, key)
    if st.button("Another random tile", icon=":material/casino:", key=f"{key} random") or row < 0:
        row = int(np.random.default_rng().integers(len(city.embeddings)))
        keep_picked(key, city.embeddings.tile_xy[row])
    return tile_place(city, row)


def choose_by_tile(city: City, key: str) -> Place:
    """The tile at typed coordinates (x, y)."""
    shown = city.embeddings
    middle = shown.tile_xy[len(shown) // 2]
    low, high = shown.tile_xy.min(axis=0), shown.tile_xy.max(axis=0)
    xy = []
    for axis, name in enumerate("xy"):
        label = f"{name} ({low[axis]}–{high[axis]})"
        xy.append(st.number_input(label, value=int(middle[axis]), step=1, key=f"{key}_{name}", bind=URL, width=190))
    row = int(shown.rows(np.array([xy]))[0])
    if row < 0:
        raise UserError(
            f"no tile with content at x {xy[0]}, y {xy[1]}; "
            f"x runs from {low[0]} to {high[0]}, y from {low[1]} to {high[1]}"
        )
    return tile_place(city, row)


def choose_by_latlon(city: City, key: str) -> Place:
    """Any place at typed latitude and longitude, between tile centres too."""
    low, high = city.embeddings.latlon.min(axis=0), city.embeddings.latlon.max(axis=0)
    middle = city.embeddings.latlon[len(city.embeddings) // 2]
    latlon = []
    for axis, name in enumerate(("Latitude", "Longitude")):
        label, field = f"{name} ({low[axis]:.4f} to {high[axis]:.4f})", f"{key}_{name[:3].lower()}"
        value, options = round(float(middle[axis]), 5), {"step": 0.001, "format": "%.5f", "bind": URL, "width": 240}
        latlon.append(st.number_input(label, value=value, key=field, **options))
    return any_place(city, tuple(latlon))


def choose_any_place(city: City) -> Place:
    """The place typed in, or the point last clicked on the map."""
    with st.container(horizontal=True):
        return choose_by_latlon(city, "place")


def choose_from_gallery(city: City, key: str) -> Place | None:
    """A tile clicked in pages of pictures, most densely drawn first."""
    shown = city.embeddings
    order = np.argsort(-shown.density, kind="stable")
    page = st.pagination(-(-len(order) // GALLERY_PAGE), key=f"{key}_page", bind=URL)
    rows = order[(page - 1) * GALLERY_PAGE : page * GALLERY_PAGE]
    row = picked_row(city, key)
    notes = [LAYERS[shown.dominant_layer[r]] for r in rows]
    marked = None if row < 0 else tuple(map(int, shown.tile_xy[row]))
    gallery(f"{key} gallery", city, shown.tile_xy[rows], notes, slot=key, marked=marked, edge=92)
    return None if row < 0 else tile_place(city, row)


WAYS_TO_CHOOSE = {
    "Random tile": choose_at_random,
    "Coordinate input": choose_by_tile,
    "Latitude, longitude": choose_by_latlon,
    "Browse gallery": choose_from_gallery,
}


WAYS = tuple(WAYS_TO_CHOOSE)


def picked_row(city: City, key: str) -> int:
    """Row of the tile that the address names under `key`, -1 when it names none of this city's."""
    xy = parse_tile(st.query_params.get(f"{key}_tile"))
    return -1 if xy is None else int(city.embeddings.rows(np.array([xy]))[0])


def keep_picked(key: str, xy: Any) -> None:
    """Write the picked tile into the address."""
    st.query_params[f"{key}_tile"] = f"{int(xy[0])}/{int(xy[1])}"


def forget_picked(key: str) -> None:
    """Take the picked tile out of the address."""
    st.query_params.pop(f"{key}_tile", None)


# --- the linked view ---------------------------------------------------------------------------------------


CLUSTERS = 10


@dataclasses.dataclass(frozen=True)
class Rings:
    """Rows that the linked view rings, each with its label (1, 2, … by default), joined by a path or not."""

    rows: Iterable[int] = ()
    labels: tuple[str, ...] = ()
    path: bool = False


@once(max_entries=4)
def ready_payload(city: City, cache_dir: str) -> bytes:
    """What the linked view has to know of a city: 32 letters that name it, then JSON. `NotReady` if not cached."""
    key = city_key(city)
    try:
        cached = load_cache(payload_path(key, cache_dir), key)
    except DamagedFile as error:
        warn(f"{error}; picturing the tiles again")
        cached = None
    if cached is None:
        raise NotReady("picturing the tiles")
    return key.encode() + cached[0]["json"].tobytes()


def payload_path(key: str, cache_dir: str) -> Path:
    """Where `ready_payload` lies."""
    return Path(cache_dir) / f"live-{key[:16]}.l2v"


def write_payload(city: City, cache_dir: str) -> None:
    """Work out and cache what `ready_payload` reads; shows progress."""
    shown = city.embeddings
    cluster = projections.clusters(shown.vectors, CLUSTERS, cache_dir=cache_dir, key=shown.key)
    data = explorer.explorer_data(city, np.arange(len(shown)), cluster)
    text = json.dumps(data, separators=(",", ":"), allow_nan=False).encode()
    save_cache(payload_path(city_key(city), cache_dir), city_key(city), {"json": np.frombuffer(text, np.uint8)})


def open_payload(source: Source, city: City) -> bytes | None:
    """What the linked view has to know; None, with a progress bar, while its pictures are being drawn."""
    place = st.container()
    cache_dir = str(source.tiles.cache_dir)
    name = digest("payload", city_key(city))
    if not jobs().pending(name):
        try:
            return ready_payload(city, cache_dir)
        except NotReady:
            pass
    run_job(place, name, "Draw the tiles", lambda: write_payload(city, cache_dir))
    return None


def packed_projection(projection: Projection) -> dict[str, Any]:
    """A projection as the explorer takes it; its name tells its settings apart."""
    settings = ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in projection.settings.items())
    name = projections.TITLES[projection.algorithm].replace("-", "\u2011") + (f" ({settings})" if settings else "")
    return {"name": name, "dimensions": projection.dimensions, "packed": explorer.packed_projection(projection)}


def show_linked_view(
    source: Source,
    city: City,
    view: View,
    *,
    key: str = "projector",
    picked: int = -1,
    rings: Rings,
    panes: str = "both",
    slot: str | None = None,
) -> None:
    """The embedding and the map, linked, with `rings`. A click is kept under `slot`."""
    payload = open_payload(source, city)
    if payload is None:
        return
    tile_xy = city.embeddings.tile_xy
    ids = {row: explorer.tile_id(city.store.zoom, tile_xy[row]) for row in [picked, *rings.rows]}
    data = {
        "city": city_key(city),
        "projection": packed_projection(open_projection(source, city, view)),
        "colour": view.colouring,
        "tile": ids[picked] if picked >= 0 else "",
        "marked": [ids[row] for row in rings.rows],
        "labels": rings.labels,
        "path": rings.path,
        "panes": panes,
        "theme": st.context.theme.type or "system",
    }
    name = f"view {key}"
    components()["view"](key=name, data=data, on_click_change=partial(keep_click, name, slot or key))
    components()["city"](key=f"city {key}", data=payload)


def keep_click(key: str, slot: str) -> None:
    """Keep what was just clicked in the view `key`: the tile, and the very point on the map."""
    click = st.session_state[key].get("click") or {}
    tile, point = click.get("tile"), click.get("point")
    if tile:
        keep_picked(slot, (tile["x"], tile["y"]))
        if f"{slot}_way" in st.session_state:
            st.session_state[f"{slot}_way"] = WAYS[0]
    elif not point:
        forget_picked(slot)
    if point:
        st.session_state["place_lat"], st.session_state["place_lon"] = round(point["lat"], 5), round(point["lon"], 5)
