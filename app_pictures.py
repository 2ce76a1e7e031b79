"""Tile pictures of the live app, made from the PNG files of the few tiles that are on the screen.

Not a command. `streamlit run streamlit_app.py` shows it at work.

The city's own store holds the tiles as the network sees them, often 32 pixels wide. Packing a whole city a second time
at picture size would take minutes, so the app decodes the PNGs of a tile when the tile comes into view. The map of the
whole city is drawn from the store's coarser levels.
"""

import dataclasses
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import streamlit as st
from PIL import Image

import explorer_data as explorer
import tile_images
from app_city import cached_object, cached_value
from app_jobs import NotReady, jobs, run_job
from cache_files import load_intact, save_cache
from embeddings import City
from files import digest
from layers import LAYERS
from tile_files import plane_digest, read_planes
from tile_store import TileStore
from vector_city import VectorCity

PICTURE_PX = 128  # edge at which tiles are read for pictures, unless the network sees larger ones
SHEET_COLUMNS = 4  # sheets of 4 x 4 tiles: small, because each is drawn while someone waits for it
SHEET_TILE_PX = 64
MAP_FORMAT = 2


# --- pixels ------------------------------------------------------------------------------------------------


def read_sharp_tiles(city: City, rows: np.ndarray) -> TileStore:
    """A store of only the tiles `rows (n,)` of the city's store, in that order, at least `PICTURE_PX` wide.

    A PNG that cannot be read counts as damaged, so that `tile_images.pictures` draws the grey placeholder.
    """
    store = city.store
    if store.tile_size >= PICTURE_PX:
        return dataclasses.replace(store, tile_xy=store.tile_xy[rows], plane_of=store.plane_of[rows])
    drawn = np.argwhere(store.plane_of[rows] > 0)  # (tile, layer) pairs
    paths = [store.tile_path(int(row), int(layer)) for row, layer in zip(rows[drawn[:, 0]], drawn[:, 1], strict=True)]
    found = read_planes(paths, PICTURE_PX, "mean", tuple(store.meta["background"]))
    blank = np.zeros((PICTURE_PX, PICTURE_PX), np.uint8)
    planes = np.stack([blank, *(blank if plane is None else plane for plane in found.planes)])
    digests = [plane_digest(blank), *(bytes(16) if known is None else known for known in found.digests)]
    plane_of = np.zeros((len(rows), len(LAYERS)), np.int32)
    plane_of[tuple(drawn.T)] = np.arange(1, len(planes))
    return dataclasses.replace(
        store,
        tile_size=PICTURE_PX,
        tile_xy=store.tile_xy[rows],
        planes=planes,
        plane_of=plane_of,
        plane_intensity=planes.mean(axis=(1, 2), dtype=np.float32) / 255,
        plane_digest=np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 16),
    )


def read_sharp_window(city: City, origin: np.ndarray) -> np.ndarray:
    """The layers `(12, S, S) uint8` of a window of one tile's size; `origin (2,)` is its corner in tile coordinates."""
    corners = np.unique([np.floor(origin), np.ceil(origin)], axis=0).astype(np.int64)
    rows = city.store.grid.rows(np.stack(np.meshgrid(*corners.T), axis=-1).reshape(-1, 2))
    sharp = read_sharp_tiles(city, np.unique(rows[rows >= 0]))
    return sharp.windows(np.round(origin * sharp.tile_size).astype(np.int64)[None])[0]


def tile_pictures(city: City, rows: np.ndarray, size: int) -> np.ndarray:
    """Pictures `(n, size, size, 3) uint8` of the store's `rows (n,)`."""
    if isinstance(city, VectorCity):
        return tile_images.layer_bars(city.store.layer_intensity[rows], size)
    return tile_images.pictures(read_sharp_tiles(city, rows), np.arange(len(rows)), size)


@cached_value(max_entries=8192)
def picture_uri(city: City, xy: tuple[int, int], edge: int) -> str:
    """A tile's picture as a `data:` address, `edge` pixels wide."""
    picture = tile_pictures(city, city.store.grid.rows(np.array([xy])), edge)[0]
    return tile_images.data_uri(Image.fromarray(picture), "png" if isinstance(city, VectorCity) else "jpeg", 85)


# --- sheets of small pictures, for the linked view ---------------------------------------------------------


def sheet_frame() -> dict[str, Any]:
    """The layout of the sheets. The browser asks for a sheet when one of its tiles comes into view."""
    return {"size": SHEET_TILE_PX, "columns": SHEET_COLUMNS, "per_sheet": SHEET_COLUMNS**2, "sheets": []}


@cached_object(max_entries=4)
def view_order(city: City) -> np.ndarray:
    """Rows of the embeddings in the order of the linked view: a sheet holds neighbouring tiles."""
    return explorer.sheet_order(city, SHEET_COLUMNS)


@cached_value(max_entries=8192)
def sheet_uri(city: City, number: int) -> str:
    """Sheet `number` of the linked view as a `data:` address."""
    rows = city.rows[view_order(city)[number * SHEET_COLUMNS**2 : (number + 1) * SHEET_COLUMNS**2]]
    quality = None if isinstance(city, VectorCity) else 75  # bars of even colours are small without loss
    return explorer.sheet_uri(tile_pictures(city, rows, SHEET_TILE_PX), quality, SHEET_COLUMNS)


# --- the base map ------------------------------------------------------------------------------------------


def open_base_map(city: City, cache_dir: Path) -> str | None:
    """The city map as a `data:` address; None, with a progress bar, while it is being drawn."""
    place = st.container()
    image = cached_base_map(city, cache_dir)
    if image is None:
        key, path = _map_place(city, cache_dir)
        run_job(place, key, "Draw the map", partial(_draw_map, city.store, key, path))
    return image


def cached_base_map(city: City, cache_dir: Path) -> str | None:
    """The city map, if it is drawn already."""
    key, path = _map_place(city, cache_dir)
    if jobs().pending(key):
        return None
    try:
        return _cached_map(key, path)
    except NotReady:
        return None


def _map_place(city: City, cache_dir: Path) -> tuple[str, Path]:
    key = digest("map", MAP_FORMAT, city.store.content_key)
    return key, cache_dir / f"map-{key[:16]}.l2v"


@st.cache_resource(max_entries=4, show_spinner=False)
def _cached_map(key: str, path: Path) -> str:
    cached = load_intact(path, key, "drawing the map again")
    if cached is None:
        raise NotReady("drawing the map")
    return cached[1]["image"]


def _draw_map(store: TileStore, key: str, path: Path) -> None:
    save_cache(path, key, {}, {"image": explorer.base_map(store, coarse=True)["image"]})
