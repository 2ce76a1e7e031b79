"""Places of the live app: a tile or any coordinate with its vector, how to choose one, how to show one.

Not a command. `streamlit run streamlit_app.py` shows it at work.
"""

import dataclasses

import numpy as np
import streamlit as st
from PIL import Image

import tile_grid
import tile_images
from app_address import BY_LATLON, BY_TILE, RANDOM, URL, WAYS, picked_row, set_picked, tile_name
from app_city import cached_object, cached_value
from app_pictures import picture_uri, read_sharp_window
from app_view import show_gallery
from cli import UserError
from colourings import NOTHING_DRAWN
from embeddings import City
from layers import LAYERS
from place_words import Vocabulary, shared_words
from similarity import Search
from tile_facts import ZONES
from tile_grid import tile_of_latlon

GALLERY_PAGE = 24


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
    def store_row(self) -> int:
        """Row of the tile in the city's store, -1 for a place between tiles."""
        return -1 if self.xy is None else int(self.city.store.grid.rows(np.array([self.xy]))[0])

    def row_in(self, city: City) -> int:
        """Row of the tile in the embeddings of `city`, -1 if it has no such tile."""
        return -1 if self.xy is None else int(city.embeddings.rows(np.array([self.xy]))[0])

    def planes(self) -> np.ndarray:
        """The layers `(12, S, S) uint8` at picture size."""
        if self.xy is not None:
            return read_sharp_window(self.city, np.array(self.xy, dtype=float))
        lat, lon = np.array(self.latlon)
        return read_sharp_window(self.city, tile_of_latlon(lat, lon, self.city.store.zoom) - 0.5)

    def picture(self, edge: int = 320) -> str:
        """The place in colour, as a `data:` address."""
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
    """The window around any latitude and longitude. Raises `UserError` where the city has no tiles."""
    return Place(city, latlon, None, _place_vector(city, latlon))


@cached_value(max_entries=1024)
def _place_vector(city: City, latlon: tuple[float, float]) -> np.ndarray:
    return city.embedder.embed_places(np.array([latlon]))[0]


def nearest(
    index: Search, place: Place, city: City, count: int, *, search_k: int = -1, min_km: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Rows and distances of the `count` tiles of `city` most similar to a place, at least `min_km` away.

    The place itself is left out.
    """
    shown = city.embeddings
    allowed = None
    if min_km > 0:
        allowed = tile_grid.farther_than(shown.tile_xy, shown.zoom, np.array(place.latlon), min_km)
    rows, found = index.query(place.vector, count + 1, search_k=search_k, allowed=allowed)
    own = place.row_in(city) if place.city.store.content_key == city.store.content_key else -1
    kept = np.flatnonzero((rows[0] >= 0) & (rows[0] != own))[:count]
    return rows[0][kept], found[0][kept]


def match_notes(place: Place, city: City, rows: np.ndarray, found: np.ndarray) -> list[str]:
    """A note for each of the `rows` of `city` that were `found`, at these distances, for a place: what both show."""
    said = vocabulary(city).describe(city.store, city.rows[rows])
    own = []
    if place.store_row >= 0:
        own = vocabulary(place.city).describe(place.city.store, np.array([place.store_row]))[0]
    return [
        f"{rank}. distance {distance:.3f}\n{shared_words(own, words) if own else ', '.join(words[:2])}"
        for rank, (distance, words) in enumerate(zip(found, said, strict=True), start=1)
    ]


@cached_object(max_entries=6)
def vocabulary(city: City) -> Vocabulary:
    """What the tiles of a city can be described by."""
    return Vocabulary.of(city.store)


# --- choosing a place --------------------------------------------------------------------------------------


def choose_place(city: City, slot: str) -> Place:
    """A tile at random, by coordinates or from the gallery, or any coordinate. Stops the page until one is chosen."""
    with st.container(horizontal=True, vertical_alignment="bottom"):
        way = st.segmented_control("Query", WAYS, default=RANDOM, key=f"{slot}_way", bind=URL, required=True)
        if way == RANDOM:
            return choose_random_tile(city, slot)
        if way == BY_TILE:
            return choose_tile(city, slot)
        if way == BY_LATLON:
            return any_place(city, choose_latlon(city, slot))
    place = choose_from_gallery(city, slot)
    if place is None:
        st.stop()
    return place


def choose_random_tile(city: City, slot: str) -> Place:
    """The picked tile, and a button that picks another at random."""
    row = picked_row(city, slot)
    if st.button("Another random tile", icon=":material/casino:", key=f"{slot} random") or row < 0:
        row = int(np.random.default_rng().integers(len(city.embeddings)))
        set_picked(slot, city.embeddings.tile_xy[row])
    return tile_place(city, row)


def choose_tile(city: City, slot: str) -> Place:
    """The tile at typed coordinates (x, y)."""
    shown = city.embeddings
    middle = shown.tile_xy[len(shown) // 2]
    low, high = shown.tile_xy.min(axis=0), shown.tile_xy.max(axis=0)
    xy = []
    for axis, name in enumerate("xy"):
        label = f"{name} ({low[axis]}–{high[axis]})"
        xy.append(st.number_input(label, value=int(middle[axis]), step=1, key=f"{slot}_{name}", bind=URL, width=190))
    row = int(shown.rows(np.array([xy]))[0])
    if row < 0:
        raise UserError(
            f"no tile with content at x {xy[0]}, y {xy[1]}; "
            f"x runs from {low[0]} to {high[0]}, y from {low[1]} to {high[1]}"
        )
    return tile_place(city, row)


def choose_latlon(city: City, slot: str) -> tuple[float, float]:
    """A typed latitude and longitude."""
    low, high = city.embeddings.latlon.min(axis=0), city.embeddings.latlon.max(axis=0)
    middle = city.embeddings.latlon[len(city.embeddings) // 2]
    latlon = []
    for axis, name in enumerate(("Latitude", "Longitude")):
        label, key = f"{name} ({low[axis]:.4f} to {high[axis]:.4f})", f"{slot}_{name[:3].lower()}"
        value = round(float(middle[axis]), 5)
        latlon.append(
            st.number_input(label, value=value, step=0.001, format="%.5f", key=key, bind=URL, width=240),
        )
    return latlon[0], latlon[1]


def choose_from_gallery(city: City, slot: str) -> Place | None:
    """A tile clicked in pages of pictures, densest first."""
    shown = city.embeddings
    order = np.argsort(-shown.density, kind="stable")
    page = st.pagination(-(-len(order) // GALLERY_PAGE), key=f"{slot}_page", bind=URL)
    rows = order[(page - 1) * GALLERY_PAGE : page * GALLERY_PAGE]
    row = picked_row(city, slot)
    notes = [LAYERS[shown.dominant_layer[r]] for r in rows]
    show_gallery(f"{slot} gallery", "Tiles to choose from", city, rows, notes, slot=slot, marked=row, edge=92)
    return None if row < 0 else tile_place(city, row)


# --- showing a place ---------------------------------------------------------------------------------------


def show_place(place: Place) -> None:
    """A place as a picture, with facts about it."""
    st.image(place.picture(), width="stretch")
    st.markdown(f"**{place.name}**")
    lines = [f"{place.latlon[0]:.5f}, {place.latlon[1]:.5f}"]
    if (row := place.row_in(place.city)) >= 0:
        shown = place.city.embeddings
        layer = LAYERS[shown.dominant_layer[row]] if shown.dominant_layer[row] >= 0 else NOTHING_DRAWN
        lines.append(f"{layer} · {ZONES[shown.zone[row]]} · density {shown.density[row]:.0%}")
    st.caption("  \n".join(lines))


def show_layers(place: Place, edge: int = 84) -> None:
    """The layers that are not blank, one picture each."""
    planes = place.planes()
    drawn = [channel for channel in range(len(LAYERS)) if planes[channel].any()]
    if not drawn:
        st.caption("Nothing is drawn here.")
        return
    with st.container(horizontal=True):
        for channel in drawn:
            picture = tile_images.layer_image(planes[channel], LAYERS[channel])
            st.image(tile_images.data_uri(picture, "png"), caption=LAYERS[channel], width=edge)
