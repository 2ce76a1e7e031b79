"""Pictures of rendered tiles: the whole city, contact sheets of each layer, and an overview of all layers.

Not a command; `python render_tiles.py --preview` writes them.
"""

import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from files import atomic_path
from layers import LAYERS
from progress_bars import progress
from tile_area import TileArea
from tile_images import composite, layer_image
from tile_writer import inked_tiles

_CITY_PX = 2048  # the longer side of the picture of the city, at most
_MANY_TILES = 1 << 22  # a rectangle of more tiles is shown with fewer than 4 pixels per tile
_SHEET = (6, 4)  # tiles across and down a contact sheet
_SHEET_PX = 256
_SHEET_STEP = _SHEET_PX + 4, _SHEET_PX + 18  # from tile to tile: a gap, and a line of text below
_OVERVIEW = (2, 6)  # layers across and down the sheet that shows them all
_OVERVIEW_PX = 120
_OVERVIEW_TILES = 4  # of each layer


def write_previews(root: Path, area: TileArea, tile_px: int, jobs: int = 1) -> list[Path]:
    """Write `preview/city.png`, one contact sheet per layer and `layers.png`, a bit of each; return their paths."""
    folder = root / "preview"
    folder.mkdir(exist_ok=True)
    inked = inked_tiles(root, area, tile_px)
    least = 4 if area.wanted.size <= _MANY_TILES else 1
    edge = 1 << int(math.log2(max(least, min(128, _CITY_PX // max(area.wanted.shape)))))
    with ThreadPoolExecutor(jobs) as pool:
        city, intensity = _city(root, area, inked, edge, pool)
    sheets = [_contact_sheet(root, area, layer, intensity[:, layer]) for layer in range(len(LAYERS))]
    pictures = {"city": city, "layers": _overview(sheets)} | dict(zip(LAYERS, sheets, strict=True))
    for name, picture in pictures.items():
        with atomic_path(folder / f"{name}.png") as temporary:
            picture.save(temporary)
    return [folder / f"{name}.png" for name in pictures]


def _plane(root: Path, area: TileArea, tile: int, layer: int) -> Image.Image:
    x, y = area.tile_xy[tile].tolist()
    with Image.open(root / LAYERS[layer] / str(area.zoom) / str(x) / f"{y}.png") as image:
        image.load()
        return image


def _city(
    root: Path, area: TileArea, inked: np.ndarray, edge: int, pool: ThreadPoolExecutor
) -> tuple[Image.Image, np.ndarray]:
    """The composite of the whole city with `edge` pixels per tile, and the mean intensity `(N, 12)` of each tile."""
    intensity = np.zeros(inked.shape)
    rows, columns = area.wanted.shape
    picture = np.full((rows, edge, columns, edge, 3), 255, dtype=np.uint8)
    fine = 2 * edge  # composed at twice the size, so that thin things keep their colour

    def planes(tile: int) -> np.ndarray:
        result = np.zeros((len(LAYERS), fine, fine), dtype=np.uint8)
        for layer in np.flatnonzero(inked[tile]).tolist():
            result[layer] = np.asarray(_plane(root, area, tile, layer).resize((fine, fine), Image.Resampling.BOX))
        return result

    groups = np.split(np.arange(len(inked)), np.flatnonzero(np.diff(area.tile_xy[:, 0])) + 1)
    for group in progress(groups, desc="preview", unit=" columns"):
        stack = np.stack(list(pool.map(planes, group.tolist())))
        intensity[group] = stack.mean(axis=(2, 3))
        colours = composite(stack).reshape(len(group), edge, 2, edge, 2, 3).mean(axis=(2, 4))
        column, row = area.columns_rows[group].T
        picture[row, :, column] = colours.astype(np.uint8)
    return Image.fromarray(picture.reshape(rows * edge, columns * edge, 3)), intensity


def _contact_sheet(root: Path, area: TileArea, layer: int, intensity: np.ndarray) -> Image.Image:
    """Tiles of one layer from the fullest to the emptiest, in even steps of rank."""
    across, down = _SHEET
    order = np.argsort(-intensity, kind="stable")[: np.count_nonzero(intensity)]
    chosen = order[np.unique(np.linspace(0, len(order) - 1, across * down).astype(int))] if len(order) else order
    sheet = Image.new("RGB", (across * _SHEET_STEP[0] + 4, down * _SHEET_STEP[1] + 4), "white")
    draw = ImageDraw.Draw(sheet)
    for place, tile in enumerate(chosen.tolist()):
        left, top = _sheet_place(place)
        plane = _plane(root, area, tile, layer).resize((_SHEET_PX, _SHEET_PX))
        sheet.paste(layer_image(np.asarray(plane), LAYERS[layer]), (left, top))
        draw.text((left, top + _SHEET_PX + 1), "{} / {}".format(*area.tile_xy[tile]), fill="black")
    return sheet


def _sheet_place(place: int) -> tuple[int, int]:
    """Upper left pixel of a contact sheet's tile."""
    return 4 + place % _SHEET[0] * _SHEET_STEP[0], 4 + place // _SHEET[0] * _SHEET_STEP[1]


def _overview(sheets: list[Image.Image]) -> Image.Image:
    """The tiles with the most outlines on every layer's contact sheet."""
    across, down = _OVERVIEW
    step, wide, high = _OVERVIEW_PX + 4, _OVERVIEW_TILES * (_OVERVIEW_PX + 4) + 20, _OVERVIEW_PX + 24
    picture = Image.new("RGB", (across * wide - 16, down * high), "white")
    draw = ImageDraw.Draw(picture)
    for layer, sheet in enumerate(sheets):
        left, top = layer // down * wide + 2, layer % down * high + 2
        draw.text((left, top), LAYERS[layer], fill="black", font_size=13)
        places = [_sheet_place(place) for place in range(_SHEET[0] * _SHEET[1])]
        tiles = [sheet.crop((x, y, x + _SHEET_PX, y + _SHEET_PX)) for x, y in places]
        for number, tile in enumerate(sorted(tiles, key=_outlines, reverse=True)[:_OVERVIEW_TILES]):
            picture.paste(tile.resize((_OVERVIEW_PX, _OVERVIEW_PX)), (left + number * step, top + 18))
    return picture


def _outlines(tile: Image.Image) -> int:
    """In how many pixels a tile differs from the pixel to the left or above."""
    pixels = np.asarray(tile.convert("L"))
    return int(np.count_nonzero(np.diff(pixels)) + np.count_nonzero(np.diff(pixels, axis=0)))
