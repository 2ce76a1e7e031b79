"""What the explorer of `web/` is given: a city's tiles, vectors and pictures as JSON, for the page and for the app.

Not a command. `python interactive_visualizer.py` writes it into one HTML file, and `streamlit run streamlit_app.py`
sends it to the browser. `web/types.d.ts` describes it for the JavaScript that reads it.
"""

import base64
import dataclasses
import gzip
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

import colourings
import tile_images
from colourings import ShownTiles
from embeddings import City
from layers import LAYER_COLOURS, LAYERS
from place_names import KINDS, PlaceNames
from place_words import SAME_SHOWN, Vocabulary
from progress_bars import progress
from projections import TITLES, Projection
from tile_grid import EARTH_RADIUS_KM, tile_of_latlon
from tile_store import TileStore

PAGE_FORMAT = 2
NEIGHBOURS = 12  # most similar tiles that are listed
WALK_STEPS = 6  # tiles between the two ends of a walk

# A page of more tiles has smaller pictures and rounds more, so that it stays small enough to send.
FEW_TILES, MANY_TILES = 1_000, 5_000
SPRITE_PX = {"few": 64, "some": 64, "many": 48}  # pictures of tiles
SPRITE_QUALITY = {"few": 75, "some": 75, "many": 60}
PLANE_PX = {"few": 128, "some": 64, "many": 64}  # pictures of layers, whole fractions of 256
PLANE_STEP = {"few": 1, "some": 16, "many": 24}  # brightness of these pictures is rounded to multiples
VECTOR_TYPE: dict[str, type[np.signedinteger]] = {"few": np.int16, "some": np.int16, "many": np.int8}
SHEET_COLUMNS = 16
POINT_STEPS = np.iinfo(np.uint16).max  # points of projections are rounded to this many steps
MOST_NAMES = 30_000  # that can be searched; the most important kinds come first
MAP_PX = 2048  # approximate size of the longer edge of the city map
EXTRACT_SUFFIXES = re.compile(r"(\.(osm|osh|pbf|xml|o5m|opl|gz|bz2|lz4|zst))+$", re.IGNORECASE)


# --- the data ----------------------------------------------------------------------------------------------


def explorer_data(
    city: City,
    rows: np.ndarray,
    cluster: np.ndarray,
    title: str | None = None,
    more: Sequence[colourings.Colouring] = (),
    beside: ShownTiles | None = None,
) -> dict[str, Any]:
    """What the explorer needs except projections: facts, vectors and pictures of `rows (n,)` of the embeddings, which
    are the page's rows from here on; `cluster (n,)` numbers their clusters; `more` colourings follow the usual ones.
    With tiles of another city `beside` them, colours mean the same in both.
    """
    store, store_rows = city.store, city.rows[rows]
    rounded = Quantised.of(city.embeddings.vectors[rows], VECTOR_TYPE[crowd(len(rows))])
    return explorer_facts(city, rows, cluster, title, more, beside) | {
        "vectors": rounded.packed(),
        "sprites": sprites(city, store_rows),
        "words": words(city, store_rows),
        "damaged": [tile_id(store.zoom, xy) for xy in store.tile_xy[store_rows[~store.verify(store_rows)]]],
        "map": base_map(city.pictures),
    }


def explorer_facts(
    city: City,
    rows: np.ndarray,
    cluster: np.ndarray,
    title: str | None = None,
    more: Sequence[colourings.Colouring] = (),
    beside: ShownTiles | None = None,
) -> dict[str, Any]:
    """The part of `explorer_data` that reads no pixels, without the vectors: it takes a second for 100,000 tiles."""
    store, shown = city.store, ShownTiles(city, rows, cluster, beside)
    dimensions = city.embeddings.vectors.shape[1]
    content = int((~store.blank).sum())
    drawn = store.plane_of[shown.store_rows] > 0
    intensity = store.layer_intensity[shown.store_rows]
    arrays = {
        "tile_xy": city.embeddings.tile_xy[rows],
        "dominant_layer": city.embeddings.dominant_layer[rows],
        "layer_bits": (drawn @ (1 << np.arange(len(LAYERS)))).astype(np.uint32),
        "layer_mass": np.round(np.sqrt(intensity) * 255).astype(np.uint8),
    }
    return {
        "title": title or city_title(city),
        "subtitle": f"{len(rows):,} of {content:,} map tiles, each a vector of {dimensions} numbers",
        "attribution": city.manifest.get("attribution", "").split(",")[0],
        "zoom": store.zoom,
        "earth_radius_km": EARTH_RADIUS_KM,
        "count": len(rows),
        "dimensions": dimensions,
        "limits": {"neighbours": NEIGHBOURS, "walk_steps": WALK_STEPS},
        "algorithms": TITLES,
        "layers": [{"name": name, "colour": LAYER_COLOURS[name]} for name in LAYERS],
        "nothing_drawn": colourings.NOTHING_DRAWN,
        "blank_colour": tile_images.BLANK_COLOUR,
        "missing_colour": tile_images.rgb_to_hex(tile_images.MISSING),
        "missing_line_colour": tile_images.rgb_to_hex(tile_images.MISSING_LINE),
        "ramp": tile_images.SEQUENTIAL_COLOURS,
        "paint": paint(),
        "colourings": [packed_colouring(colouring, shown) for colouring in (*colourings.COLOURINGS, *more)],
        "arrays": {name: packed(array) for name, array in arrays.items()},
    }


def city_title(city: City) -> str:
    """The name of the extract that the tiles were drawn from, or of their folder."""
    name = EXTRACT_SUFFIXES.sub("", city.manifest.get("extract", city.store.tiles_root.resolve().parent.name))
    return name.replace("_", " ").replace("-", " ").title() or "City"


def crowd(count: int) -> str:
    """How many tiles a page shows, as `PLANE_PX` and its like are sorted."""
    return "few" if count <= FEW_TILES else "some" if count <= MANY_TILES else "many"


def sheet_order(city: City, columns: int = SHEET_COLUMNS) -> np.ndarray:
    """Rows of the embeddings with content, by squares of the map: tiles that are seen together share a sheet."""
    rows = np.flatnonzero(~city.embeddings.blank)
    tile_xy = city.store.unwrapped_xy[city.rows]
    x, y = (tile_xy[rows] - tile_xy.min(axis=0)).T
    return rows[np.lexsort((x, y, x // columns, y // columns))]


def words(city: City, store_rows: np.ndarray) -> dict[str, Any]:
    """What stands out on each tile, in words."""
    vocabulary = Vocabulary.of(city.store)
    of_tile = packed(vocabulary.words(city.store, store_rows))
    return {"texts": vocabulary.texts, "of_tile": of_tile, "same_shown": SAME_SHOWN}


def packed_names(city: City, places: PlaceNames) -> dict[str, Any]:
    """The named places on the city's tiles: `texts` with a line for each name, `kind` into `kinds`, `latlon (n, 2)`."""
    tile = np.floor(tile_of_latlon(places.latlon[:, 0], places.latlon[:, 1], city.store.zoom)).astype(np.int64)
    here = places.take(np.flatnonzero(city.store.grid.rows(tile) >= 0)[:MOST_NAMES])
    return {
        "texts": ["\n".join(names) for names in here.names],
        "kinds": [name for name, _ in KINDS],
        "kind": packed(here.kind.astype(np.uint8)),
        "latlon": packed(here.latlon.astype(np.float32)),
    }


def tile_id(zoom: int, tile_xy: np.ndarray) -> str:
    """A tile's name in the page, in its address and in exports."""
    return f"{zoom}/{tile_xy[0]}/{tile_xy[1]}"


def packed_colouring(colouring: colourings.Colouring, shown: ShownTiles) -> dict[str, Any]:
    """A colouring with the values of the shown tiles."""
    found = colouring.values(shown)
    data = {"key": colouring.key, "label": colouring.label, "column": colouring.column or colouring.key}
    data |= {"kind": found.kind} | found.data()
    if found.values is None or isinstance(found, colourings.Texts):
        return data
    dtype = {"category": np.int16, "number": np.float32, "rgb": np.uint8}[found.kind]
    return data | {"values": packed(np.asarray(found.values).astype(dtype))}


def packed(array: np.ndarray, compressed: bool = False) -> dict[str, Any]:
    """An array as JSON: its type, its shape and its little-endian bytes in base64, as gzip if `compressed`."""
    array = np.ascontiguousarray(array)
    data = array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
    about = {"dtype": array.dtype.name, "shape": list(array.shape)}
    if compressed:
        return about | {"gzip": base64.b64encode(gzip.compress(data, mtime=0)).decode("ascii")}
    return about | {"data": base64.b64encode(data).decode("ascii")}


@dataclasses.dataclass(frozen=True)
class Quantised:
    """Vectors in 8 or 16 bits a number: `mean (D,)` + `scale (N, 1)` * `steps (N, D)`; `scale` may be `(1, 1)`."""

    steps: np.ndarray
    scale: np.ndarray
    mean: np.ndarray

    @classmethod
    def of(cls, vectors: np.ndarray, dtype: type[np.signedinteger], *, one_scale: bool = False) -> "Quantised":
        """Round the difference of each vector from the mean, so that vectors that differ little still differ.

        With `one_scale`, small vectors have small steps, which `packed` compresses well.
        """
        mean = vectors.mean(axis=0)
        largest = np.abs(vectors - mean).max(axis=None if one_scale else 1, keepdims=True, initial=1e-12)
        scale = largest / np.iinfo(dtype).max
        steps = np.round((vectors - mean) / scale).astype(dtype)
        return cls(steps, scale.astype(np.float32), mean.astype(np.float32))

    def vectors(self) -> np.ndarray:
        """The vectors `(N, D) float32` that the page works with."""
        return self.mean + self.scale * self.steps

    def packed(self) -> dict[str, Any]:
        """As JSON; steps of one scale are compressed."""
        steps = packed(self.steps, compressed=len(self.scale) == 1)
        return {"steps": steps, "scale": packed(self.scale), "mean": packed(self.mean)}


def packed_projection(projection: Projection, rows: slice | np.ndarray = slice(None)) -> dict[str, Any]:
    """A projection as the explorer takes it: whole numbers, and the `scale` that makes coordinates of them.

    Flat coordinates keep their proportions and the longer side is 1; in space each axis runs from 0 to 1. `rows` picks
    some of the points, with the coordinates that they have among all; `extent` is how far all of them reach.
    """
    points = np.asarray(projection.points, dtype=np.float64)
    size = np.maximum(np.ptp(points, axis=0), 1e-12)
    steps = np.round((points - points.min(axis=0)) / size * POINT_STEPS).astype(np.uint16)
    side = size / size.max() if projection.dimensions == 2 else np.ones(3)
    explained = projection.explained
    return {
        "points": packed(steps[rows]),
        "scale": (side / POINT_STEPS).tolist(),
        "extent": np.where(np.ptp(points, axis=0) > 0, side, 0).tolist(),
        "trustworthiness": float(projection.trustworthiness) if np.isfinite(projection.trustworthiness) else None,
        "explained": None if explained is None else np.asarray(explained, dtype=float).tolist(),
    }


def flat_position(projection: Projection, points: np.ndarray) -> list[list[float] | None]:
    """Where other `points (n, d)` of a projection lie among those of `packed_projection`; None if it is not flat."""
    if projection.dimensions != 2:
        return [None] * len(points)
    known = np.asarray(projection.points)
    return ((points - known.min(axis=0)) / max(float(np.ptp(known, axis=0).max()), 1e-12)).tolist()


# --- pictures ----------------------------------------------------------------------------------------------


def paint() -> dict[str, Any]:
    """The colours with which `tile_images` paints tiles, by brightness 0 to 255, so that the page paints the same."""
    coats = [
        {"layer": channel, "grown": grown, "colours": packed(colours), "opacity": packed(opacity[:, 0])}
        for channel, grown, colours, opacity in tile_images.paint_tables()
    ]
    levels = np.arange(256, dtype=np.uint8)[None]
    layers = np.concatenate([np.asarray(tile_images.layer_image(levels, name)) for name in LAYERS])
    return {"ground": tile_images.GROUND, "coats": coats, "layers": packed(layers)}


def sprites(city: City, store_rows: np.ndarray) -> dict[str, Any]:
    """Composites of the tiles, in sheets of 16 × 16."""
    size = min(SPRITE_PX[crowd(len(store_rows))], city.pictures.tile_size)
    chunks = _chunks(store_rows)
    cells = (tile_images.pictures(city.pictures, chunk, size) for chunk in chunks)
    quality = SPRITE_QUALITY[crowd(len(store_rows))]
    sheets = [sheet_uri(part, quality) for part in progress(cells, total=len(chunks), desc="pictures of tiles")]
    return {"size": size, "columns": SHEET_COLUMNS, "per_sheet": SHEET_COLUMNS**2, "sheets": sheets}


def bar_sprites(city: City, store_rows: np.ndarray) -> dict[str, Any]:
    """Pictures of `tile_images.layer_bars` instead of composites, for tiles without pixels."""
    size = SPRITE_PX[crowd(len(store_rows))]
    cells = (tile_images.layer_bars(city.store.layer_intensity[chunk], size) for chunk in _chunks(store_rows))
    sheets = [sheet_uri(part) for part in cells]  # lossless: even colours are small, and edges stay sharp
    return {"size": size, "columns": SHEET_COLUMNS, "per_sheet": SHEET_COLUMNS**2, "sheets": sheets}


def planes(city: City, store_rows: np.ndarray) -> dict[str, Any]:
    """The drawn layers of the tiles, each distinct one once, as grey masks in sheets of 16 × 16."""
    drawn = city.pictures.plane_of[store_rows]
    drawn = drawn[
        city.store.plane_of[store_rows] > 0
    ]  # by tile, then by layer: the order of Tiles.part in web/tiles.js
    distinct, first, cell = np.unique(drawn, return_index=True, return_inverse=True)
    order = np.argsort(first)  # layers of one tile stay together
    size, step = min(PLANE_PX[crowd(len(store_rows))], city.pictures.tile_size), PLANE_STEP[crowd(len(store_rows))]
    chunks = _chunks(distinct[order])
    masks = (rounded(tile_images.shrink_planes(city.pictures.planes[chunk], size), step) for chunk in chunks)
    sheets = [sheet_uri(part) for part in progress(masks, total=len(chunks), desc="pictures of layers")]
    return {
        "size": size,
        "columns": SHEET_COLUMNS,
        "per_sheet": SHEET_COLUMNS**2,
        "cell_of_part": packed(np.argsort(order)[cell].astype(np.uint32)),
        "sheets": sheets,
    }


def rounded(masks: np.ndarray, step: int) -> np.ndarray:
    """Brightness rounded to multiples of `step`; what is drawn stays above 0."""
    steps = np.round(masks / step) * step
    return np.where(masks > 0, np.clip(steps, step, 255), 0).astype(np.uint8)


def _chunks(rows: np.ndarray) -> list[np.ndarray]:
    return [rows[start : start + SHEET_COLUMNS**2] for start in range(0, len(rows), SHEET_COLUMNS**2)]


def sheet_uri(cells: np.ndarray, quality: int | None = None, columns: int = SHEET_COLUMNS) -> str:
    """Cells `(n, S, S)` or `(n, S, S, 3)` side by side as WebP; lossless without a quality."""
    rows, size = -(-len(cells) // columns), cells.shape[1]
    sheet = np.zeros((rows * columns, *cells.shape[1:]), dtype=np.uint8)
    sheet[: len(cells)] = cells
    sheet = sheet.reshape(rows, columns, size, size, -1).transpose(0, 2, 1, 3, 4)
    shape = (rows * size, columns * size, *cells.shape[3:])
    return tile_images.data_uri(Image.fromarray(sheet.reshape(shape)), "webp", quality)


def map_frame(store: TileStore) -> dict[str, Any]:
    """Where the city map lies: size in pixels, pixels per tile, and the tile in its upper left corner.

    Tiles on both sides of 180 degrees lie side by side: x goes on counting beyond the last column of the world.
    """
    origin = store.unwrapped_xy.min(axis=0)
    extent = store.unwrapped_xy.max(axis=0) - origin + 1
    px = int(np.clip(MAP_PX // extent.max(), 4, min(64, store.tile_size)))
    width, height = (extent * px).tolist()
    return {"origin": origin.tolist(), "width": width, "height": height, "px_per_tile": px, "tiles": len(store)}


def base_map(store: TileStore, *, coarse: bool = False) -> dict[str, Any]:
    """The city drawn from all of its tiles, sampled or not; `coarse` as in `tile_images.city_map`."""
    frame = map_frame(store)
    image, _ = tile_images.city_map(store, frame["px_per_tile"], coarse=coarse)
    return frame | {"image": tile_images.data_uri(image, "webp", 70)}
