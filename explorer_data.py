"""What the explorer of web/ is given: a city's tiles, vectors and pictures as JSON, for both of its viewers.

Not a command itself. `python interactive_visualizer.py` writes it into one HTML file, `streamlit run streamlit_app.py`
shows it live.
"""

import base64
import dataclasses
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import tile_images
from embeddings import City
from layers import LAYERS
from progress_bars import progress
from projections import Projection
from tile_facts import ZONES
from tile_files import read_manifest
from tile_store import TileStore

WEB = Path(__file__).parent / "web"
SCRIPTS = ("tiles", "search", "pictures", "colours", "pane", "map", "embedding", "panels", "explorer", "layout")
PAGE_FORMAT = 1

SPRITE_PX, FEW_PLANE_PX, PLANE_PX = 64, 128, 64  # pictures of tiles; layers in a page of few tiles, and of many
FEW_TILES = 1_000  # up to here: large layers
SHEET_COLUMNS = 16
STEPS = np.iinfo(np.int16).max  # to which numbers are rounded on either side of the mean
MAP_PX = 2048  # the longer edge of the city map, about


# --- the front end ------------------------------------------------------------------------------------------


def front_end_script() -> str:
    """The explorer's JavaScript: plain declarations, of which `mount(root, data, options)` is the way in."""
    return "".join((WEB / f"{name}.js").read_text(encoding="utf-8") for name in SCRIPTS)


def front_end_css() -> str:
    """The explorer's styles, all of them inside `.loc2vec`."""
    return (WEB / "explorer.css").read_text(encoding="utf-8")


# --- the data -----------------------------------------------------------------------------------------------


def explorer_data(city: City, rows: np.ndarray, cluster: np.ndarray, title: str | None = None) -> dict[str, Any]:
    """What the explorer needs except projections: facts, vectors and pictures of `rows (n,)` of the embeddings, which
    are the page's rows from here on; `cluster (n,)` numbers their clusters.
    """
    store, store_rows = city.store, city.rows[rows]
    return explorer_facts(city, rows, cluster, title) | {
        "sprites": sprites(city, store_rows),
        "damaged": [tile_id(store.zoom, xy) for xy in store.tile_xy[store_rows[~store.verify(store_rows)]]],
        "map": base_map(city.pictures),
    }


def explorer_facts(city: City, rows: np.ndarray, cluster: np.ndarray, title: str | None = None) -> dict[str, Any]:
    """The part of `explorer_data` that reads no pixels: it takes seconds for 100,000 tiles."""
    store, store_rows = city.store, city.rows[rows]
    vectors = city.embeddings.vectors[rows]
    arrays = tile_facts(city, rows, store_rows) | {
        "cluster": cluster.astype(np.int8),
        "principal_colours": tile_images.principal_colours(vectors),
    }
    return frame(city, len(rows), title) | {
        "dimensions": vectors.shape[1],
        "vectors": Quantised.of(vectors).packed(),
        "arrays": {name: packed(array) for name, array in arrays.items()},
        "clusters": named_clusters(cluster, store.layer_intensity[store_rows]),
    }


def frame(city: City, count: int, title: str | None = None) -> dict[str, Any]:
    """Titles, palettes and the recipe of the pictures."""
    manifest = read_manifest(city.store.tiles_root)
    name = manifest.get("extract", city.store.tiles_root.resolve().parent.name).split(".")[0]
    content = int((~city.store.blank).sum())
    return {
        "format": PAGE_FORMAT,
        "title": title or name.replace("_", " ").replace("-", " ").title(),
        "subtitle": f"{count:,} of {content:,} map tiles, each a vector of {city.embeddings.vectors.shape[1]} numbers",
        "attribution": manifest.get("attribution", "").split(",")[0],
        "zoom": city.store.zoom,
        "count": count,
        "layers": [{"name": name, "colour": tile_images.LAYER_COLOURS[name]} for name in LAYERS],
        "zones": [
            {"name": name, "colour": colour}
            for name, colour in zip(ZONES, tile_images.zone_palette(len(ZONES)), strict=True)
        ],
        "blank_colour": tile_images.BLANK_COLOUR,
        "ramp": tile_images.SEQUENTIAL_COLOURS,
        "paint": tile_images.paint_recipe(),
    }


def sheet_order(city: City, columns: int = SHEET_COLUMNS) -> np.ndarray:
    """Rows of the embeddings with content, by squares of the map: what is seen together is decoded together."""
    rows = np.flatnonzero(~city.embeddings.blank)
    x, y = (city.embeddings.tile_xy[rows] - city.embeddings.tile_xy.min(axis=0)).T
    return rows[np.lexsort((x, y, x // columns, y // columns))]


def tile_facts(city: City, rows: np.ndarray, store_rows: np.ndarray) -> dict[str, np.ndarray]:
    """Small arrays, one entry a tile."""
    places, store = city.embeddings, city.store
    bits = (store.plane_of[store_rows] > 0) @ (1 << np.arange(len(LAYERS)))
    return {
        "tile_xy": places.tile_xy[rows],
        "dominant_layer": places.dominant_layer[rows],
        "zone": places.zone[rows],
        "density": np.round(places.density[rows] * 255).astype(np.uint8),
        "layer_bits": bits.astype(np.uint16),
        "layer_mass": np.round(np.sqrt(store.layer_intensity[store_rows]) * 255).astype(np.uint8),
    }


def tile_id(zoom: int, tile_xy: np.ndarray) -> str:
    """A tile's name in the page and in its address."""
    return f"{zoom}/{tile_xy[0]}/{tile_xy[1]}"


def packed(array: np.ndarray) -> dict[str, Any]:
    """An array as JSON: its type, its shape and its little-endian bytes in base64."""
    array = np.ascontiguousarray(array)
    data = base64.b64encode(array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes())
    return {"dtype": array.dtype.name, "shape": list(array.shape), "data": data.decode("ascii")}


@dataclasses.dataclass(frozen=True)
class Quantised:
    """Vectors in 16 bits a number: `mean (D,)` + `scale (N, 1)` * `steps (N, D) int16`."""

    steps: np.ndarray
    scale: np.ndarray
    mean: np.ndarray

    @classmethod
    def of(cls, vectors: np.ndarray) -> "Quantised":
        """Round what each vector has beyond the mean of all, so that vectors that differ little still differ."""
        mean = vectors.mean(axis=0)
        scale = np.maximum(np.abs(vectors - mean).max(axis=1, keepdims=True), 1e-12) / STEPS
        steps = np.round((vectors - mean) / scale).astype(np.int16)
        return cls(steps, scale.astype(np.float32), mean.astype(np.float32))

    def vectors(self) -> np.ndarray:
        """The vectors `(N, D) float32` that the page works with."""
        return self.mean + self.scale * self.steps

    def packed(self) -> dict[str, Any]:
        """As JSON."""
        return {name: packed(getattr(self, name)) for name in ("steps", "scale", "mean")}


def named_clusters(cluster: np.ndarray, layer_mass: np.ndarray) -> list[dict[str, str]]:
    """A name for each cluster by the two layers it has most of, compared with all tiles; and its colour."""
    usual = layer_mass.mean(axis=0)
    names = []
    for number in range(cluster.max() + 1):
        lift = layer_mass[cluster == number].mean(axis=0) / np.maximum(usual, 1e-9) * np.sqrt(usual)
        names.append(f"{number + 1} · {' + '.join(LAYERS[layer] for layer in np.argsort(-lift)[:2])}")
    colours = tile_images.category_palette(len(names))
    return [{"name": name, "colour": colour} for name, colour in zip(names, colours, strict=True)]


def packed_projection(projection: Projection) -> dict[str, Any]:
    """A projection as the explorer takes it."""
    points = np.asarray(projection.points, dtype=np.float64)
    low, high = points.min(axis=0), points.max(axis=0)
    steps = np.round((points - low) / np.maximum(high - low, 1e-12) * 65535).astype(np.uint16)
    explained = projection.explained
    return {
        "points": packed(steps),
        "range": np.stack([low, high], axis=1).tolist(),
        "trustworthiness": float(projection.trustworthiness),
        "explained": None if explained is None else np.asarray(explained, dtype=float).tolist(),
    }


# --- pictures -----------------------------------------------------------------------------------------------


def sprites(city: City, store_rows: np.ndarray) -> dict[str, Any]:
    """Composites of the tiles, in sheets of 16 × 16."""
    size = min(SPRITE_PX, city.pictures.tile_size)
    chunks = _chunks(store_rows)
    cells = (tile_images.pictures(city.pictures, chunk, size) for chunk in chunks)
    sheets = [sheet_uri(part, quality=75) for part in progress(cells, total=len(chunks), desc="picturing tiles")]
    return {"size": size, "columns": SHEET_COLUMNS, "per_sheet": SHEET_COLUMNS**2, "sheets": sheets}


def planes(city: City, store_rows: np.ndarray) -> dict[str, Any]:
    """The drawn layers of the tiles, each distinct one once, as grey masks in sheets of 16 × 16."""
    drawn = city.pictures.plane_of[store_rows]
    drawn = drawn[city.store.plane_of[store_rows] > 0]  # by tile, then by layer: the order of "parts" in web/tiles.js
    distinct, first, cell = np.unique(drawn, return_index=True, return_inverse=True)
    order = np.argsort(first)  # layers of one tile stay together
    size = min(FEW_PLANE_PX if len(store_rows) <= FEW_TILES else PLANE_PX, city.pictures.tile_size)
    chunks = _chunks(distinct[order])
    masks = (tile_images.shrink_planes(city.pictures.planes[chunk], size) for chunk in chunks)
    return {
        "size": size,
        "columns": SHEET_COLUMNS,
        "per_sheet": SHEET_COLUMNS**2,
        "cell_of_part": packed(np.argsort(order)[cell].astype(np.uint32)),
        "sheets": [sheet_uri(part) for part in progress(masks, total=len(chunks), desc="picturing layers")],
    }


def _chunks(rows: np.ndarray) -> list[np.ndarray]:
    return [rows[start : start + SHEET_COLUMNS**2] for start in range(0, len(rows), SHEET_COLUMNS**2)]


def sheet_uri(cells: np.ndarray, quality: int | None = None, columns: int = SHEET_COLUMNS) -> str:
    """Cells `(n, S, S)` or `(n, S, S, 3)` side by side as WebP; lossless without a quality."""
    rows, size = -(-len(cells) // columns), cells.shape[1]
    sheet = np.zeros((rows * columns, *cells.shape[1:]), dtype=np.uint8)
    sheet[: len(cells)] = cells
    sheet = sheet.reshape(rows, columns, size, size, -1).transpose(0, 2, 1, 3, 4)
    shape = (rows * size, columns * size, *cells.shape[3:])
    image = Image.fromarray(sheet.reshape(shape))
    if quality:
        return tile_images.data_uri(image, "webp", quality)
    buffer = BytesIO()
    image.save(buffer, "WEBP", lossless=True, method=6, quality=60)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def map_frame(store: TileStore) -> dict[str, Any]:
    """Where the city map lies: size in pixels, pixels per tile, and the tile in its upper left corner."""
    origin = store.tile_xy.min(axis=0)
    extent = store.tile_xy.max(axis=0) - origin + 1
    px = int(np.clip(MAP_PX // extent.max(), 4, min(64, store.tile_size)))
    width, height = (extent * px).tolist()
    return {"origin": origin.tolist(), "width": width, "height": height, "px_per_tile": px, "tiles": len(store)}


def base_map(store: TileStore) -> dict[str, Any]:
    """The city drawn from all of its tiles, sampled or not."""
    frame = map_frame(store)
    image, _ = tile_images.city_map(store, frame["px_per_tile"])
    return frame | {"image": tile_images.data_uri(image, "webp", 70)}
