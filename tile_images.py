"""Pictures of tiles: colour composites, previews, sprite sheets, the city map made of the tiles, and palettes.

Not a command itself. `python render_tiles.py --preview` and `python visualize.py` show it at work.
"""

import base64
import dataclasses
import functools
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw

from layers import LAYERS
from vectors import principal_components

if TYPE_CHECKING:
    from tile_store import TileStore  # brings PyTorch, which drawing does without

# Chosen so that the least difference of two of them is as large as can be (CIELAB 26) in the eyes of people with any
# kind of colour blindness; a test measures it.
LAYER_COLOURS = {
    "natural-features": "#0e530d",
    "boundaries": "#850883",
    "landcover": "#c6d472",
    "buildings": "#5b3849",
    "amenities": "#de3547",
    "railways": "#080831",
    "aeroways": "#9db3f8",
    "leisure": "#20af7c",
    "places": "#f8bbd5",
    "water": "#4c61db",
    "roads": "#d2790a",
    "power": "#9c779f",
}
BLANK_COLOUR = "#d5d2cb"  # tiles on which nothing is drawn
GROUND = (246, 242, 234)  # where a tile shows nothing
MISSING = (190, 190, 190)  # a tile that could not be read

# Okabe and Ito's palette without its yellow, which is lost on white, and without black; the rest keep as far from it.
CATEGORY_COLOURS = (
    "#0072b2",
    "#e69f00",
    "#009e73",
    "#cc79a7",
    "#56b4e9",
    "#d55e00",
    "#c2c26f",
    "#760867",
    "#553808",
    "#51088c",
    "#8d703f",
    "#08e7ad",
)
CENTRE_COLOUR = "#262924"
# Viridis (Smith and van der Walt), every 17th of its 256 colours.
SEQUENTIAL_COLOURS = [
    "#440154",
    "#481a6c",
    "#472f7d",
    "#414487",
    "#39568c",
    "#31688e",
    "#2a788e",
    "#23888e",
    "#1f988b",
    "#22a884",
    "#35b779",
    "#54c568",
    "#7ad151",
    "#a5db36",
    "#d2e21b",
    "#fde725",
]

PRINCIPAL_RANGE = (56, 244)  # darkest and brightest red, green, blue of a principal component

SPRITE_LIMIT_PX = 8192  # the largest sheet that the TensorBoard Projector takes
REPRESENTATIVE = "representative"
_PIXELS_AT_ONCE = 1 << 24


# --- one tile in colour ------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Coat:
    """One layer of paint: colour and opacity by brightness of the mask, `stops` of (brightness, colour, opacity).

    The stops follow the classes of map_style.toml; between them, and for masks drawn by others, they blend.
    `grown` paints a pixel around the mask too: the casing that lifts roads off the ground.
    """

    layer: str
    stops: tuple[tuple[int, str, float], ...]
    grown: bool = False

    def tables(self) -> tuple[np.ndarray, np.ndarray]:
        """Colours `(256, 3)` and opacities `(256, 1)`, float32, by brightness."""
        at = [0, *(stop[0] for stop in self.stops)]
        colours = np.array([hex_to_rgb(stop[1]) for stop in (self.stops[0], *self.stops)])
        opacity = [0.0, *(stop[2] for stop in self.stops)]
        levels = np.arange(256)
        table = np.stack([np.interp(levels, at, channel) for channel in colours.T], axis=1)
        return table.astype(np.float32), np.interp(levels, at, opacity)[:, None].astype(np.float32)


_COATS = (
    _Coat(
        "landcover",
        (
            (20, "#e3ebcb", 0.6),
            (35, "#d5e6b9", 0.9),  # grass
            (55, "#bcd9a3", 0.9),  # forest
            (75, "#ece7c6", 0.9),  # farmland
            (95, "#d8dfb4", 0.9),  # allotments
            (115, "#dcd3bb", 0.9),  # construction
            (130, "#c3d3b4", 0.9),  # cemetery
            (150, "#f1ead0", 0.9),  # civic
            (165, "#dedad6", 0.9),  # garages, railway land
            (185, "#e9e3da", 0.9),  # residential
            (210, "#ddd5df", 0.9),  # industrial
            (235, "#efdad5", 0.9),  # commercial
            (255, "#f2d3c8", 0.9),  # retail
        ),
    ),
    _Coat(
        "natural-features",
        (
            (55, "#dfe9c3", 0.8),  # grassland
            (85, "#efe4bf", 0.8),  # beach
            (115, "#cfdcab", 0.85),  # scrub
            (145, "#c1dcc8", 0.85),  # wetland
            (170, "#a9cc90", 0.85),  # tree
            (210, "#acce97", 0.9),  # wood
            (235, "#b3a68c", 0.8),  # cliff
            (255, "#8f7a5f", 0.9),  # peak
        ),
    ),
    _Coat(
        "leisure",
        (
            (35, "#cfe6bf", 0.5),  # nature reserve
            (80, "#c3e3b1", 0.9),  # park
            (110, "#cbe8bb", 0.9),  # garden
            (165, "#a3d9dd", 0.9),  # swimming pool
            (190, "#a5d9b5", 0.9),  # pitch
            (220, "#96cfb8", 0.9),  # stadium
            (255, "#8cc9a8", 0.95),  # playground
        ),
    ),
    _Coat("water", ((60, "#a9d1e6", 0.9), (150, "#9ccbe4", 1.0), (220, "#8fc3e0", 1.0), (255, "#6fadd1", 1.0))),
    _Coat(
        "aeroways",
        ((50, "#e5e2ee", 0.7), (95, "#d6d1e3", 0.9), (165, "#bbb4cf", 1.0), (225, "#a79dc0", 1.0), (255, "#9a90b5", 1)),
    ),
    _Coat(
        "buildings",
        (
            (30, "#dcd1c5", 0.6),
            (55, "#d8cbbd", 1.0),  # garages, roofs
            (85, "#c9c1c4", 1.0),  # industrial
            (115, "#cbb6a2", 1.0),  # houses
            (155, "#b9a594", 1.0),
            (195, "#a68d7f", 1.0),  # apartments
            (225, "#a87f76", 1.0),  # commercial
            (255, "#8d6a6f", 1.0),  # civic
        ),
    ),
    _Coat("power", ((55, "#a89fb0", 0.35), (145, "#9388a0", 0.55), (215, "#b5a8bd", 0.6), (255, "#c7bccf", 0.6))),
    _Coat("boundaries", ((50, "#9a8f86", 0.2), (120, "#9a8f86", 0.4), (175, "#a97fb5", 0.45), (255, "#9560a8", 0.6))),
    _Coat("roads", ((60, "#b5a690", 0.0), (100, "#a89880", 0.45), (255, "#8a6f52", 0.6)), grown=True),
    _Coat(
        "roads",
        (
            (30, "#e6d9c4", 0.6),  # construction
            (60, "#d8c19c", 0.85),  # paths, tracks: must show on bare ground
            (92, "#ffffff", 0.9),  # service
            (140, "#ffffff", 1.0),  # residential
            (165, "#fff6cf", 1.0),  # tertiary
            (190, "#fde293", 1.0),  # secondary
            (215, "#fbc46d", 1.0),  # primary
            (235, "#f6a057", 1.0),  # trunk
            (255, "#ea7d5c", 1.0),  # motorway
        ),
    ),
    _Coat("railways", ((55, "#8f8f99", 0.4), (95, "#b3b0b8", 0.7), (135, "#6a6a76", 0.9), (255, "#43434f", 1.0))),
    _Coat("amenities", ((45, "#f0a58a", 0.08), (100, "#ea8568", 0.7), (180, "#dd5f57", 0.85), (255, "#c93c50", 0.9))),
    _Coat("places", ((30, "#d783a8", 0.0), (130, "#d783a8", 0.12), (255, "#c85a92", 0.22))),
)


@functools.cache
def _paints() -> list[tuple[int, bool, np.ndarray, np.ndarray]]:
    """Each coat's channel, whether it is grown, and its tables."""
    return [(LAYERS.index(coat.layer), coat.grown, *coat.tables()) for coat in _COATS]


def paint_recipe() -> dict:
    """What `composite` does, as plain JSON, for a page that paints by itself: the ground, the coats, their stops."""
    coats = [{"layer": coat.layer, "stops": coat.stops, "grown": coat.grown} for coat in _COATS]
    return {"ground": GROUND, "coats": coats}


def composite(planes: np.ndarray) -> np.ndarray:
    """Tiles `(..., 12, S, S) uint8` as map-like colour pictures `(..., S, S, 3) uint8`.

    Brightness chooses the shade within a layer: a motorway is orange, a side street white.
    """
    planes = np.asarray(planes, dtype=np.uint8)
    lead, size = planes.shape[:-3], planes.shape[-1]
    planes = planes.reshape(-1, len(LAYERS), size, size)
    pictures = np.empty((len(planes), size, size, 3), dtype=np.uint8)
    chunk = max(1, _PIXELS_AT_ONCE // (size * size))
    for first in range(0, len(planes), chunk):
        pictures[first : first + chunk] = _paint(planes[first : first + chunk])
    return pictures.reshape(*lead, size, size, 3)


def _paint(planes: np.ndarray) -> np.ndarray:
    """Lay the coats over the ground, touching only pixels on which something is drawn."""
    canvas = np.empty((planes.shape[0] * planes.shape[2] * planes.shape[3], 3), dtype=np.float32)
    canvas[:] = GROUND
    for channel, grown, colours, opacity in _paints():
        mask = planes[:, channel]
        drawn = mask.any(axis=(1, 2))
        if not drawn.any():
            continue
        mask = _grown(mask) if grown else np.ascontiguousarray(mask)
        pixels = np.flatnonzero(mask)
        level = mask.reshape(-1)[pixels]
        under = canvas[pixels]
        canvas[pixels] = under + (colours[level] - under) * opacity[level]
    return (canvas + 0.5).astype(np.uint8).reshape(len(planes), *planes.shape[2:], 3)


def _grown(mask: np.ndarray) -> np.ndarray:
    """The mask `(B, S, S)` with every pixel spread to its four neighbours."""
    grown = mask.copy()
    for axis in (1, 2):
        ahead = tuple(slice(1, None) if i == axis else slice(None) for i in range(3))
        behind = tuple(slice(None, -1) if i == axis else slice(None) for i in range(3))
        np.maximum(grown[ahead], mask[behind], out=grown[ahead])
        np.maximum(grown[behind], mask[ahead], out=grown[behind])
    return grown


def placeholder(size: int = 64) -> Image.Image:
    """The grey square with a diagonal that stands for a tile that could not be read."""
    image = Image.new("RGB", (size, size), MISSING)
    shade = tuple(part - 24 for part in MISSING)
    ImageDraw.Draw(image).line((0, size, size, 0), shade, max(1, size // 24))
    return image


def layer_image(plane: np.ndarray, layer: int | str | None = None) -> Image.Image:
    """One layer's mask `(S, S) uint8` as a picture: the layer's colour on the ground, or grey on black without one."""
    if layer is None:
        return Image.fromarray(np.asarray(plane))
    colour = np.array(hex_to_rgb(LAYER_COLOURS[_layer_name(layer)]), dtype=np.float32)
    strength = np.sqrt(np.asarray(plane, dtype=np.float32) / 255)[..., None]  # lifts faint objects
    ground = np.array(GROUND, dtype=np.float32)
    return Image.fromarray((ground + (colour - ground) * strength + 0.5).astype(np.uint8))


def _layer_name(layer: int | str) -> str:
    return layer if isinstance(layer, str) else LAYERS[layer]


def representative_layer(store: "TileStore", row: int) -> int:
    """Channel of the layer that sets tile `row` apart from the rest of the city, -1 for a blank tile."""
    from tile_facts import dominant_layers  # here, since drawing tiles needs no network

    return int(dominant_layers(store)[row])


def preview(store: "TileStore", row: int, size: int = 64, layer: int | str | None = None) -> Image.Image:
    """A picture of tile `row`, `size` pixels wide: the composite, or one `layer` (channel, name, "representative").

    A row of -1 and a tile whose pixels are not what was packed give the grey placeholder.
    """
    if row < 0 or not store.whole(np.array([row])).all():
        return placeholder(size)
    if layer == REPRESENTATIVE:
        layer = max(representative_layer(store, row), 0)
    if layer is None:
        image = Image.fromarray(composite(store.tiles(np.array([row])))[0])
    else:
        channel = LAYERS.index(layer) if isinstance(layer, str) else layer
        image = layer_image(store.planes[store.plane_of[row, channel]], channel)
    return _resized(image, size)


def _resized(image: Image.Image, size: int) -> Image.Image:
    if image.width == size:
        return image
    return image.resize((size, size), Image.Resampling.BOX if size < image.width else Image.Resampling.BICUBIC)


# --- many tiles --------------------------------------------------------------------------------------------


def pictures(store: "TileStore", rows: np.ndarray, size: int = 64) -> np.ndarray:
    """Composites of `rows (B,)` as `(B, size, size, 3) uint8`; -1 and damaged tiles give the grey placeholder.

    Larger tiles are shrunk before they are coloured, to twice the size asked for, and once more after: thin roads
    keep their colour, and thousands of tiles take seconds.
    """
    rows = np.asarray(rows)
    between = _shrinking_stop(store.tile_size, size)
    result = np.empty((len(rows), size, size, 3), dtype=np.uint8)
    result[:] = np.asarray(placeholder(size))
    chunk = max(1, _PIXELS_AT_ONCE // store.tile_size**2)
    for first in range(0, len(rows), chunk):
        part = np.arange(first, min(first + chunk, len(rows)))
        part = part[rows[part] >= 0]
        part = part[store.whole(rows[part])]
        planes, inverse = np.unique(store.plane_of[rows[part]], return_inverse=True)
        tiles = shrink_planes(store.planes[planes], between)[inverse].reshape(-1, len(LAYERS), between, between)
        result[part] = _resize_all(composite(tiles), size)
    return result


def _shrinking_stop(tile_size: int, size: int) -> int:
    """The smallest whole fraction of `tile_size` that is at least twice `size`."""
    factors = [f for f in range(1, tile_size + 1) if tile_size % f == 0 and tile_size // f >= min(2 * size, tile_size)]
    return tile_size // max(factors)


def shrink_planes(planes: np.ndarray, size: int) -> np.ndarray:
    """Planes `(P, S, S)` at `size`, a whole fraction of S: halfway between mean and maximum, so that lines stay."""
    factor = planes.shape[-1] // size
    if factor == 1:
        return planes
    cells = planes.reshape(len(planes), size, factor, size, factor)
    peak = cells.max(axis=2).max(axis=3).astype(np.uint16)
    mean = cells.sum(axis=2, dtype=np.uint16).sum(axis=3, dtype=np.uint32) // factor**2
    return ((peak + mean) // 2).astype(np.uint8)


def _resize_all(images: np.ndarray, size: int) -> np.ndarray:
    edge = images.shape[1]
    if edge == size:
        return images
    if edge == 2 * size:
        cells = images.reshape(len(images), size, 2, size, 2, 3)
        return ((cells.sum(axis=(2, 4), dtype=np.uint16) + 2) // 4).astype(np.uint8)
    return np.stack([np.asarray(_resized(Image.fromarray(image), size)) for image in images])


def sprite_layout(count: int, size: int = 64) -> tuple[int, int]:
    """Columns of a square sheet of `count` pictures, and the largest edge up to `size` that keeps it drawable."""
    columns = max(1, int(np.ceil(np.sqrt(count))))
    return columns, max(1, min(size, SPRITE_LIMIT_PX // columns))


def sprite_sheet(store: "TileStore", rows: np.ndarray, size: int = 64) -> Image.Image:
    """All pictures of `rows` in one square sheet, row-major, as the TensorBoard Projector wants them.

    Above 8192 pixels the pictures shrink: `sprite_layout` tells the columns and the edge.
    """
    columns, size = sprite_layout(len(rows), size)
    sheet = np.full((columns, columns, size, size, 3), GROUND, dtype=np.uint8)
    sheet.reshape(-1, size, size, 3)[: len(rows)] = pictures(store, rows, size)
    return Image.fromarray(_mosaic(sheet))


def _mosaic(cells: np.ndarray) -> np.ndarray:
    """Cells `(rows, columns, S, S, 3)` as one picture."""
    rows, columns, size = cells.shape[:3]
    return cells.transpose(0, 2, 1, 3, 4).reshape(rows * size, columns * size, 3)


def city_map(store: "TileStore", px_per_tile: int = 8) -> tuple[Image.Image, tuple[int, int]]:
    """The whole city drawn from its own tiles, and the (x, y) of the tile in the upper left corner.

    Tile (x, y) starts at pixel ((x - x0) * px_per_tile, (y - y0) * px_per_tile); cells without a tile are grey.
    """
    origin = store.tile_xy.min(axis=0)
    columns, rows = store.tile_xy.max(axis=0) - origin + 1
    cells = np.empty((rows, columns, px_per_tile, px_per_tile, 3), dtype=np.uint8)
    cells[:] = MISSING
    x, y = (store.tile_xy - origin).T
    cells[y, x] = pictures(store, np.arange(len(store)), px_per_tile)
    return Image.fromarray(_mosaic(cells)), (int(origin[0]), int(origin[1]))


def data_uri(image: Image.Image, format: str = "webp", quality: int = 80) -> str:
    """The picture as a `data:` address; `quality` 1 to 100 counts for webp and jpeg."""
    buffer = BytesIO()
    options = {"optimize": True} if format == "png" else {"quality": quality, "method": 6}
    image.save(buffer, format.upper(), **options)
    return f"data:image/{format};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


# --- palettes ----------------------------------------------------------------------------------------------


def hex_to_rgb(colour: str) -> tuple[int, int, int]:
    """`"#rrggbb"` as three numbers 0 to 255."""
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def category_palette(count: int) -> list[str]:
    """`count` colours for unordered categories such as clusters; past twelve they come again, lighter each time."""
    return [_lighter(CATEGORY_COLOURS[i % 12], i // 12) for i in range(count)]


def _lighter(colour: str, times: int) -> str:
    keep = 0.6**times
    return "#" + "".join(f"{round(255 - (255 - part) * keep):02x}" for part in hex_to_rgb(colour))


def zone_palette(count: int = 9) -> list[str]:
    """Colours of the geographic zones: a dark grey for the centre, then one for each compass sector."""
    return [CENTRE_COLOUR, *category_palette(count - 1)][:count]


def sequential_colours(values: np.ndarray) -> np.ndarray:
    """Values `(...)` from 0 to 1 as viridis colours `(..., 3) uint8`: dark is little, bright is much."""
    table = np.array([hex_to_rgb(colour) for colour in SEQUENTIAL_COLOURS], dtype=np.float64)
    at = np.clip(np.nan_to_num(np.asarray(values, dtype=np.float64)), 0, 1) * (len(table) - 1)
    channels = [np.interp(at, np.arange(len(table)), channel) for channel in table.T]
    return np.round(np.stack(channels, axis=-1)).astype(np.uint8)


def principal_colours(vectors: np.ndarray) -> np.ndarray:
    """The first three principal components of `vectors (N, D)` as red, green and blue, `(N, 3) uint8`.

    Each is stretched so that its middle 96 % fill the range; fewer components leave their colour in the middle.
    """
    parts, _ = principal_components(vectors, 3)
    low, high = np.percentile(parts, [2, 98], axis=0)
    spread = np.where(high - low > 1e-9, high - low, np.inf)  # a component that does not exist stays at its middle
    scaled = np.clip((parts - (low + high) / 2) / spread + 0.5, 0, 1)
    return np.round(PRINCIPAL_RANGE[0] + scaled * np.ptp(PRINCIPAL_RANGE)).astype(np.uint8)
