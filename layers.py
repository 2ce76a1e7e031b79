"""The layers of a tile: their names, order and colours, as `map_style.toml` lists them.

Not a command. Separate so that the renderer can use it without PyTorch. The style table is read once, at import, so
that a new layer needs no change in Python.
"""

import colorsys
import re
import sys
import tomllib
import zlib
from pathlib import Path
from typing import Any, NamedTuple

STYLE_PATH = Path(__file__).with_name("map_style.toml")
MANIFEST_NAME = "manifest.json"  # render_tiles.py writes it; its tiles are known to have a black background
MAX_TILE_PX = 2048  # a larger image is not a tile
DRAWN_PREFIX = "drawn:"  # columns of the labels file that count drawn objects: baselines, never targets
COORDINATE = re.compile("0|[1-9][0-9]{0,8}")  # x or y as written in a path: no leading zeros, ASCII digits only

Stop = tuple[int, str, float]  # brightness of the mask 1..255, colour "#rrggbb", opacity 0..1


class LayerStyle(NamedTuple):
    """How a layer looks to people; what it contains is in `map_style.py`."""

    name: str
    colour: str  # "#rrggbb", in legends and in pictures of this layer alone
    paint: tuple[Stop, ...]  # in map pictures, by rising brightness
    casing: tuple[Stop, ...]  # the same for the mask grown by one pixel, painted below `paint`; empty for none
    paint_order: float  # larger is painted later, on top


APPEARANCE_FIELDS = set(LayerStyle._fields) - {"name"}  # of a [[layer]] table; they do not change any tile


def read_layer_styles(path: Path) -> tuple[LayerStyle, ...]:
    """Read the layers of a style table, in its order. Raises `ValueError` that names the layer and field at fault."""
    tables = tomllib.loads(path.read_text(encoding="utf-8")).get("layer")
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise ValueError("there are no [[layer]] tables")
    styles = tuple(_layer_style(table) for table in tables)
    names = [style.name for style in styles]
    if len(set(names)) < len(names):
        raise ValueError(f"the layers are {', '.join(names)}; expected different names")
    return styles


def _layer_style(table: dict[str, Any]) -> LayerStyle:
    name = table.get("name")
    if not (isinstance(name, str) and re.fullmatch("[a-z0-9]+(-[a-z0-9]+)*", name)):
        raise ValueError(f"layer name is {name!r}; expected lower-case letters and digits, words joined by '-'")
    colour = table.get("colour", _generated_colour(name))
    if not _is_colour(colour):
        raise ValueError(f'layer {name}: colour is {colour!r}; expected "#rrggbb"')
    order = table.get("paint_order", float("inf"))
    if type(order) not in (int, float):
        raise ValueError(f"layer {name}: paint_order is {order!r}; expected a number")
    paint = _stops(name, "paint", table.get("paint", [[30, colour, 0.7], [255, colour, 0.95]]))
    return LayerStyle(name, colour, paint, _stops(name, "casing", table.get("casing", [])), order)


def _stops(layer: str, field: str, stops: Any) -> tuple[Stop, ...]:
    try:
        found = tuple((level, colour, float(opacity)) for level, colour, opacity in stops)
        levels = [level for level, _, _ in found]
        good = all(type(level) is int and 0 < level < 256 for level in levels) and levels == sorted(set(levels))
        good &= all(_is_colour(colour) and 0 <= opacity <= 1 for _, colour, opacity in found)
    except (TypeError, ValueError):
        good = False
    if not good or (field == "paint" and not found):
        raise ValueError(
            f'layer {layer}: {field} must be stops such as [[60, "#d8c19c", 0.8], [255, "#ea7d5c", 1]]: rising '
            "brightness from 1 to 255, colour, opacity from 0 to 1"
        )
    return found


def _is_colour(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch("#[0-9a-f]{6}", value) is not None


def _generated_colour(name: str) -> str:
    """A colour of medium brightness whose hue depends on the name only."""
    rgb = colorsys.hls_to_rgb(zlib.crc32(name.encode()) / 2**32, 0.45, 0.6)
    return "#" + "".join(f"{round(255 * part):02x}" for part in rgb)


try:
    LAYER_STYLES = read_layer_styles(STYLE_PATH)
except (OSError, ValueError) as error:  # this is before any script's `run_main`, which would show a traceback
    print(
        f"error: {STYLE_PATH} cannot be read: {error}; `git checkout map_style.toml` restores the original",
        file=sys.stderr,
    )
    raise SystemExit(2) from None

LAYERS = tuple(style.name for style in LAYER_STYLES)
LAYER_COLOURS = {style.name: style.colour for style in LAYER_STYLES}
