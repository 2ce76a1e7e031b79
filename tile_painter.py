"""Draw the planes of one tile with Skia.

Not a command.
"""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from map_index import UNIT, DrawIndex
from map_style import FILL, LINE, POINT

try:
    import skia
except ImportError as error:  # the wheel is there, a system library is not
    raise SystemExit(
        f"error: the drawing library does not load ({error}).\n"
        "  On Debian and Ubuntu: apt-get install libegl1 libgl1; elsewhere: `make init` installs skia-python"
    ) from None
LONG_PATH = 256  # points; longer ones are thinned to what a tile can see


# --- drawing -----------------------------------------------------------------------------------------------


class Painter:
    """Draws the 12 planes of one tile after the other with Skia on the CPU.

    Every tile is drawn on its own canvas, and every path lives in the coordinates of its object's own origin tile:
    a translation by whole pixels is all that lies between, so a pixel is a function of the tile and the objects on
    it, whatever the metatile, the box or the number of processes.
    """

    def __init__(self, index: DrawIndex, tile_px: int):
        self.index, self.px = index, tile_px
        self.plane = np.zeros((tile_px, tile_px), dtype=np.uint8)
        surface = skia.Surface.MakeRasterDirect(skia.ImageInfo.MakeA8(tile_px, tile_px), self.plane, tile_px)
        self._surface, self.canvas = surface, surface.getCanvas()
        self.paint = skia.Paint(AntiAlias=True)
        self.paint.setBlendMode(skia.BlendMode.kSrc)  # what lies on top hides what lies below, also where it is darker
        self.stroke = skia.Paint(
            Style=skia.Paint.kStroke_Style, StrokeCap=skia.Paint.kRound_Cap, StrokeJoin=skia.Paint.kRound_Join
        )
        self.paths: dict[int, Any] = {}

    def layers(self, tile: int, x: int, y: int) -> Iterator[tuple[int, np.ndarray]]:
        """Yield `(layer, plane)` for the layers that show something; the plane is reused."""
        items = self.index.pair_item[self.index.tile_start[tile] : self.index.tile_start[tile + 1]]
        layer_of = self.index.class_look[self.index.item_class[items], 0]
        for layer in dict.fromkeys(layer_of.tolist()):
            self.plane.fill(0)
            for item in items[layer_of == layer].tolist():
                self._draw(item, x, y)
            if self.plane.any():
                yield layer, self.plane

    def _draw(self, item: int, x: int, y: int) -> None:
        look = self.paths.get(item)
        if look is None:
            look, lasting = self._look(item, x, y)
            if lasting:
                self.paths[item] = look
        gray, origin_x, origin_y, path = look
        canvas = self.canvas
        self.paint.setAlpha(gray)
        canvas.save()
        canvas.translate((origin_x - x) * self.px, (origin_y - y) * self.px)
        canvas.drawPath(path, self.paint)
        canvas.restore()

    def _look(self, item: int, x: int, y: int) -> tuple[tuple[int, int, int, Any], bool]:
        """Brightness, origin tile, and the outline in pixels from there; and whether they serve other tiles too."""
        index = self.index
        owner, kind = index.item_object[item], int(index.item_kind[item])
        gray = int(index.class_look[index.item_class[item], 1 + kind])
        origin_x, origin_y = index.origin[owner].tolist()
        scale, size = self.px / UNIT, float(index.item_size[item])
        path = skia.Path()
        if kind == POINT:
            px, py = (index.points[index.point_start[index.ring_start[owner]]] * scale).tolist()
            path.addCircle(px, py, size * self.px)
            return (gray, origin_x, origin_y, path), True
        path.setFillType(skia.PathFillType.kEvenOdd)
        lasting, margin = True, 1 + math.ceil(size)
        window = np.array([x - origin_x - margin, y - origin_y - margin, x - origin_x + margin, y - origin_y + margin])
        for ring in range(index.ring_start[owner], index.ring_start[owner + 1]):
            points = index.points[index.point_start[ring] : index.point_start[ring + 1]]
            short = len(points) <= LONG_PATH
            lasting &= short
            for run in [points] if short else _thinned(points, window, kind):
                _append(path, (run * scale).tolist(), close=kind == FILL)
        if kind == LINE:
            self.stroke.setStrokeWidth(size * self.px)
            outline = skia.Path()
            self.stroke.getFillPath(path, outline)
            path = outline
        return (gray, origin_x, origin_y, path), lasting


def _append(path: Any, points: list[list[float]], close: bool) -> None:
    path.moveTo(*points[0])
    for x, y in points[1:]:
        path.lineTo(x, y)
    if close:
        path.close()


def _thinned(points: np.ndarray, window: np.ndarray, kind: int) -> list[np.ndarray]:
    """Leave out points that the tiles of `window` (first x, first y, last x, last y) cannot see.

    What wanders beyond the same edge marks nothing inside: a ring keeps the ends of such a run, a line is cut there.
    The window belongs to the tile that is drawn, never to the metatile: Skia's coverage depends a little on the
    edges that lie outside, and a pixel shall depend on its tile alone.
    """
    low, high = window[:2] * UNIT, (window[2:] + 1) * UNIT
    code = (points < low) @ np.array([1, 2]) + (points >= high) @ np.array([4, 8])
    unseen = (code[1:] & code[:-1]) != 0  # segments beyond one edge
    if kind == LINE:
        changes = np.flatnonzero(np.diff(np.concatenate([[True], unseen, [True]]).astype(np.int8)))
        return [points[start : end + 1] for start, end in changes.reshape(-1, 2)]
    keep = np.ones(len(points), dtype=bool)
    keep[1:-1] = (code[1:-1] == 0) | (code[1:-1] != code[:-2]) | (code[1:-1] != code[2:])
    return [points[keep]]
