"""Pictures of tiles: colour composites, sprite sheets, the map of the whole city, and colour palettes.

Not a command. `python render_tiles.py --preview` and `python visualize.py` use it.
"""

import base64
import functools
from collections.abc import Iterable
from io import BytesIO
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from layers import LAYER_COLOURS, LAYER_STYLES, LAYERS, Stop
from progress_bars import progress
from tile_store import TileStore
from vectors import principal_components

BLANK_COLOUR = "#d5d2cb"  # tiles on which nothing is drawn
GROUND = (246, 242, 234)  # where a tile shows nothing
MISSING, MISSING_LINE = (190, 190, 190), (166, 166, 166)  # a tile that could not be read

# Okabe and Ito's palette without yellow, which is hard to see on white, and without black; the others were chosen to
# differ from these as much as possible.
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

COARSE_PIXELS = 1 << 23  # of a whole city, that are painted for a map in a few seconds
FULL_BAR = 2.0  # sum of the roots of the layers' brightness that fills a picture of `layer_bars`
SPRITE_LIMIT_PX = 8192  # the largest sheet that the TensorBoard Projector takes
_PIXELS_AT_ONCE = 1 << 24


# --- one tile in colour ------------------------------------------------------------------------------------


class _Paint(NamedTuple):
    """One pass of painting: a layer's mask in the colours of its stops."""

    channel: int
    stops: tuple[Stop, ...]
    grown: bool  # whether pixels next to the mask are painted too: the casing that lifts roads off the background


def _paints() -> list[_Paint]:
    """All passes in order, from the bottom to the top."""
    order = sorted(range(len(LAYERS)), key=lambda channel: LAYER_STYLES[channel].paint_order)
    passes = []
    for channel in order:
        style = LAYER_STYLES[channel]
        if style.casing:
            passes.append(_Paint(channel, style.casing, grown=True))
        passes.append(_Paint(channel, style.paint, grown=False))
    return passes


@functools.cache
def paint_tables() -> list[tuple[int, bool, np.ndarray, np.ndarray]]:
    """For each pass: channel, grown, colours `(256, 3)` and opacities `(256, 1)` float32 by brightness of the mask.

    Between the stops colours and opacities are interpolated, which also suits masks that were drawn by others.
    """
    levels, tables = np.arange(256), []
    for channel, stops, grown in _paints():
        at = [0, *(level for level, _, _ in stops)]
        colours = np.array([hex_to_rgb(colour) for _, colour, _ in (stops[0], *stops)])
        opacities = np.interp(levels, at, [0.0, *(opacity for _, _, opacity in stops)])
        by_level = np.stack([np.interp(levels, at, part) for part in colours.T], axis=1)
        tables.append((channel, grown, by_level.astype(np.float32), opacities[:, None].astype(np.float32)))
    return tables


def composite(planes: np.ndarray) -> np.ndarray:
    """Tiles `(..., L, S, S) uint8` as map-like colour pictures `(..., S, S, 3) uint8`.

    Brightness selects the shade within a layer: a motorway is orange, a side street white.
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
    """Paint the passes over the background; touches only the pixels on which something is drawn."""
    canvas = np.empty((planes.shape[0] * planes.shape[2] * planes.shape[3], 3), dtype=np.float32)
    canvas[:] = GROUND
    for channel, grown, colours, opacity in paint_tables():
        mask = planes[:, channel]
        if not mask.any():
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
    np.maximum(grown[:, 1:], mask[:, :-1], out=grown[:, 1:])
    np.maximum(grown[:, :-1], mask[:, 1:], out=grown[:, :-1])
    np.maximum(grown[:, :, 1:], mask[:, :, :-1], out=grown[:, :, 1:])
    np.maximum(grown[:, :, :-1], mask[:, :, 1:], out=grown[:, :, :-1])
    return grown


def placeholder(size: int = 64) -> Image.Image:
    """A grey square with a diagonal: it stands for a tile that could not be read."""
    image = Image.new("RGB", (size, size), MISSING)
    ImageDraw.Draw(image).line((0, size, size, 0), MISSING_LINE, max(1, size // 24))
    return image


def layer_image(plane: np.ndarray, layer: str) -> Image.Image:
    """One layer's mask `(S, S) uint8` as a picture in the layer's colour."""
    colour = np.array(hex_to_rgb(LAYER_COLOURS[layer]), dtype=np.float32)
    strength = np.sqrt(np.asarray(plane, dtype=np.float32) / 255)[..., None]  # makes faint objects visible
    ground = np.array(GROUND, dtype=np.float32)
    return Image.fromarray((ground + (colour - ground) * strength + 0.5).astype(np.uint8))


# --- many tiles --------------------------------------------------------------------------------------------


def pictures(store: TileStore, rows: np.ndarray, size: int = 64) -> np.ndarray:
    """Composites of `rows (B,)` as `(B, size, size, 3) uint8`; -1 and damaged tiles give the grey placeholder.

    Tiles are first shrunk to the smallest whole fraction of their size that is at least twice `size`, then coloured,
    then shrunk to `size`. So thin roads keep their colour, and thousands of tiles take seconds.
    """
    rows, full = np.asarray(rows), store.tile_size
    factors = [f for f in range(1, full + 1) if full % f == 0 and full // f >= min(2 * size, full)]
    between = full // max(factors)
    result = np.empty((len(rows), size, size, 3), dtype=np.uint8)
    result[:] = np.asarray(placeholder(size))
    chunk = max(1, _PIXELS_AT_ONCE // full**2)
    for first in range(0, len(rows), chunk):
        part = np.arange(first, min(first + chunk, len(rows)))
        part = part[rows[part] >= 0]
        part = part[store.verify(rows[part])]
        if not len(part):
            continue
        planes, inverse = np.unique(store.plane_of[rows[part]], return_inverse=True)
        tiles = shrink_planes(store.planes[planes], between)[inverse].reshape(-1, len(LAYERS), between, between)
        result[part] = _resize_all(composite(tiles), size)
    return result


def layer_bars(intensity: np.ndarray, size: int = 64) -> np.ndarray:
    """Pictures `(n, size, size, 3) uint8` of tiles of which only the mean brightness `(n, L)` of each layer is known.

    The colours of the layers stand side by side, as wide as each one's share and as high as the tile is full.
    """
    share = np.sqrt(np.asarray(intensity, dtype=np.float32))
    total = share.sum(axis=1, keepdims=True)
    edge = np.cumsum(share / np.maximum(total, 1e-9), axis=1)  # (n, L)
    at = (np.arange(size) + 0.5) / size
    layer = np.minimum((edge[:, None] < at[None, :, None]).sum(axis=2), len(LAYERS) - 1)  # (n, size)
    palette = np.array([hex_to_rgb(LAYER_COLOURS[name]) for name in LAYERS], np.uint8)
    high = np.clip(total / FULL_BAR, 0.12, 1) * (total > 0)
    drawn = at[None, :] > 1 - high  # (n, size), from the top
    ground = np.array(GROUND, np.uint8)
    return np.where(drawn[:, :, None, None], palette[layer][:, None], ground)


def shrink_planes(planes: np.ndarray, size: int) -> np.ndarray:
    """Planes `(P, S, S)` at `size`, a whole fraction of S. Takes the average of mean and maximum, which keeps lines."""
    factor = planes.shape[-1] // size
    if factor == 1:
        return planes
    # Strided slices, one after the other: up to ten times faster than reducing over an axis of a few numbers.
    rows = [planes[:, i::factor] for i in range(factor)]
    peak, total = functools.reduce(np.maximum, rows), sum(rows, start=np.zeros((), np.uint16))
    peak = functools.reduce(np.maximum, [peak[..., i::factor] for i in range(factor)])
    total = sum([total[..., i::factor] for i in range(factor)], start=np.zeros((), np.uint32))
    return ((peak + total // factor**2) // 2).astype(np.uint8)


def _resize_all(images: np.ndarray, size: int) -> np.ndarray:
    """Pictures `(B, S, S, 3)` at `size`."""
    edge = images.shape[1]
    if edge == size:
        return images
    if edge == 2 * size:
        rows = images[:, ::2].astype(np.uint16) + images[:, 1::2]
        return ((rows[:, :, ::2] + rows[:, :, 1::2] + np.uint16(2)) // 4).astype(np.uint8)
    method = Image.Resampling.BOX if size < edge else Image.Resampling.BICUBIC
    return np.stack([np.asarray(Image.fromarray(image).resize((size, size), method)) for image in images])


def sprite_layout(count: int, size: int = 64) -> tuple[int, int]:
    """Columns of a square sheet of `count` pictures, and their edge: `size`, or less to limit the sheet's size."""
    columns = max(1, int(np.ceil(np.sqrt(count))))
    return columns, max(1, min(size, SPRITE_LIMIT_PX // columns))


def sprite_sheet(store: TileStore, rows: np.ndarray, size: int = 64) -> Image.Image:
    """All pictures of `rows` in one square sheet, row by row, as the TensorBoard Projector expects them.

    `sprite_layout` gives the columns and the edge of a picture.
    """
    columns, size = sprite_layout(len(rows), size)
    sheet = np.full((columns, columns, size, size, 3), GROUND, dtype=np.uint8)
    sheet.reshape(-1, size, size, 3)[: len(rows)] = pictures(store, rows, size)
    return Image.fromarray(_mosaic(sheet))


def _mosaic(cells: np.ndarray) -> np.ndarray:
    """Cells `(rows, columns, S, S, 3)` as one picture."""
    rows, columns, size = cells.shape[:3]
    return cells.transpose(0, 2, 1, 3, 4).reshape(rows * size, columns * size, 3)


def coarse_px(store: TileStore) -> int:
    """How wide tiles may be on a map that is drawn from a store's coarser levels in a few seconds."""
    finest = max(store.levels)
    return finest // 2 if finest**2 * len(store) <= COARSE_PIXELS else finest // 4


def coarse_pictures(store: TileStore, size: int) -> np.ndarray:
    """As `pictures`, of all tiles of a store, at most `coarse_px` wide, from the coarser levels: no plane is read."""
    finest, between = max(store.levels), 2 * coarse_px(store)
    cells = store.levels[finest][:, :2].reshape(-1, 2, between, finest // between, between, finest // between)
    mean = cells[:, 0].mean(axis=(2, 4), dtype=np.float32).astype(np.uint16)
    planes = ((mean + cells[:, 1].max(axis=(2, 4))) // 2).astype(np.uint8)
    result = np.empty((len(store), size, size, 3), dtype=np.uint8)
    chunk = _PIXELS_AT_ONCE // (8 * between**2)
    with progress(total=len(store), desc="drawing the map", unit="tile") as bar:
        for first in range(0, len(store), chunk):
            part = slice(first, first + chunk)
            result[part] = _resize_all(composite(planes[store.plane_of[part]]), size)
            bar.update(len(result[part]))
    return result


def city_map(store: TileStore, px_per_tile: int = 8, *, coarse: bool = False) -> tuple[Image.Image, tuple[int, int]]:
    """The whole city made of its tiles, and the (x, y) of the tile in the upper left corner.

    Tile (x, y) starts at pixel ((x - x0) * px_per_tile, (y - y0) * px_per_tile); cells without a tile are grey.
    `coarse` draws it in seconds, with at most `coarse_px` per tile.
    """
    if coarse:
        px_per_tile = min(px_per_tile, coarse_px(store))
    tile_xy = store.unwrapped_xy
    origin = tile_xy.min(axis=0)
    width, height = tile_xy.max(axis=0) - origin + 1
    cells = np.empty((height, width, px_per_tile, px_per_tile, 3), dtype=np.uint8)
    cells[:] = MISSING
    x, y = (tile_xy - origin).T
    everything = np.arange(len(store))
    cells[y, x] = coarse_pictures(store, px_per_tile) if coarse else pictures(store, everything, px_per_tile)
    return Image.fromarray(_mosaic(cells)), (int(origin[0]), int(origin[1]))


def data_uri(image: Image.Image, format: str = "webp", quality: int | None = 80) -> str:
    """The picture as a `data:` URL; `quality` from 1 to 100 applies to webp and jpeg. WebP is lossless without it."""
    buffer = BytesIO()
    options: dict[str, Any] = {"optimize": True} if format == "png" else {"quality": quality, "method": 6}
    if quality is None:
        options = {"lossless": True, "quality": 60, "method": 6}
    image.save(buffer, format.upper(), **options)
    return f"data:image/{format};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


# --- palettes ----------------------------------------------------------------------------------------------


def hex_to_rgb(colour: str) -> tuple[int, int, int]:
    """`"#rrggbb"` as three numbers 0 to 255."""
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def rgb_to_hex(rgb: Iterable[float]) -> str:
    """Three numbers 0 to 255 as `"#rrggbb"`."""
    return "#" + "".join(f"{round(part):02x}" for part in rgb)


def category_palette(count: int) -> list[str]:
    """`count` colours for unordered categories such as clusters; the palette repeats, lighter each time."""
    colours = []
    for number in range(count):
        repeats, index = divmod(number, len(CATEGORY_COLOURS))
        parts = (255 - (255 - part) * 0.6**repeats for part in hex_to_rgb(CATEGORY_COLOURS[index]))
        colours.append(rgb_to_hex(parts))
    return colours


def zone_palette(count: int = 9) -> list[str]:
    """Colours of the geographic zones: dark grey for the centre, then one for each compass sector."""
    return [CENTRE_COLOUR, *category_palette(count - 1)][:count]


def sequential_colours(values: np.ndarray) -> np.ndarray:
    """Values `(...)` from 0 to 1 as viridis colours `(..., 3) uint8`: dark is little, bright is much."""
    table = np.array([hex_to_rgb(colour) for colour in SEQUENTIAL_COLOURS], dtype=np.float64)
    at = np.clip(np.nan_to_num(np.asarray(values, dtype=np.float64)), 0, 1) * (len(table) - 1)
    channels = [np.interp(at, np.arange(len(table)), channel) for channel in table.T]
    return np.round(np.stack(channels, axis=-1)).astype(np.uint8)


def principal_colours(vectors: np.ndarray) -> np.ndarray:
    """The first three principal components of `vectors (N, D)` as red, green and blue, `(N, 3) uint8`.

    The middle 96 % of each component fill its range of colour. A component that does not exist stays in the middle.
    """
    parts, _ = principal_components(vectors, 3)
    low, high = np.percentile(parts, [2, 98], axis=0)
    spread = np.where(high - low > 1e-9, high - low, np.inf)
    scaled = np.clip((parts - (low + high) / 2) / spread + 0.5, 0, 1)
    return np.round(PRINCIPAL_RANGE[0] + scaled * np.ptp(PRINCIPAL_RANGE)).astype(np.uint8)
