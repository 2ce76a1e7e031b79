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


class Painter:
    """Draws the 12 planes of one tile after the other with Skia on the CPU.

    Every tile is drawn on its own canvas, and every path has the coordinates of its object's own origin tile: the two
    differ by whole pixels only. So a pixel depends on the tile and the objects on it alone, not on the metatile, the
    box or the number of processes.
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
        self.symbols: dict[int, tuple[int, int, int, Any]] = {}  # of items that look the same on every tile

    def layers(self, tile: int, x: int, y: int) -> Iterator[tuple[int, np.ndarray]]:
        """Yield `(layer, plane)` for the layers of a tile that show something; the plane is reused.

        `x` and `y` are its column and row; columns go on beyond 180 degrees, as in `TileArea.number`.
        """
        items = self.index.pair_item[self.index.tile_start[tile] : self.index.tile_start[tile + 1]]
        layer_of = self.index.class_style[self.index.item_class[items], 0]
        for layer in dict.fromkeys(layer_of.tolist()):
            self.plane.fill(0)
            for item in items[layer_of == layer].tolist():
                gray, origin_x, origin_y, path = self.symbols.get(item) or self._symbol(item, x, y)
                self.paint.setAlpha(gray)
                self.canvas.save()
                self.canvas.translate((origin_x - x) * self.px, (origin_y - y) * self.px)
                self.canvas.drawPath(path, self.paint)
                self.canvas.restore()
            if self.plane.any():
                yield layer, self.plane

    def _symbol(self, item: int, x: int, y: int) -> tuple[int, int, int, Any]:
        """Brightness, origin tile, and the outline in pixels from there; kept if it serves other tiles too."""
        index = self.index
        owner, kind = index.item_object[item], int(index.item_kind[item])
        gray = int(index.class_style[index.item_class[item], 1 + kind])
        origin_x, origin_y = index.origin[owner].tolist()
        scale, size = self.px / UNIT, float(index.item_size[item])
        path, serves_all = skia.Path(), True
        if kind == POINT:
            px, py = (index.points[index.point_start[index.ring_start[owner]]] * scale).tolist()
            path.addCircle(px, py, size * self.px)
        else:
            path.setFillType(skia.PathFillType.kEvenOdd)
            margin = 1 + math.ceil(size)
            window = np.array(
                [x - origin_x - margin, y - origin_y - margin, x - origin_x + margin, y - origin_y + margin]
            )
            rings = np.arange(index.ring_start[owner], index.ring_start[owner + 1])
            if index.large[owner]:
                serves_all = False
                rings = rings[_in_sight(index, rings, window)]
            for ring in rings.tolist():
                points = index.points[index.point_start[ring] : index.point_start[ring + 1]]
                for run in _thinned(points, window, kind) if index.long_ring[ring] else [points]:
                    first, *others = (run * scale).tolist()
                    path.moveTo(*first)
                    for place in others:
                        path.lineTo(*place)
                    if kind == FILL:
                        path.close()
        if kind == LINE:
            self.stroke.setStrokeWidth(size * self.px)
            outline = skia.Path()
            self.stroke.getFillPath(path, outline)
            path = outline
        if serves_all:
            self.symbols[item] = gray, origin_x, origin_y, path
        return gray, origin_x, origin_y, path


def _in_sight(index: DrawIndex, rings: np.ndarray, window: np.ndarray) -> np.ndarray:
    """Which rings do not lie beyond one edge of `window`: the tiles `(first x, first y, last x, last y)`."""
    first, end = index.point_start[rings[0]], index.point_start[rings[-1] + 1]
    points, starts = index.points[first:end], index.point_start[rings] - first
    low, high = window[:2] * UNIT, (window[2:] + 1) * UNIT
    return ((np.maximum.reduceat(points, starts) >= low) & (np.minimum.reduceat(points, starts) < high)).all(axis=1)


def _thinned(points: np.ndarray, window: np.ndarray, kind: int) -> list[np.ndarray]:
    """Leave out points that the tiles of `window` (first x, first y, last x, last y) cannot see.

    Points beyond the same edge mark nothing inside: a ring keeps the ends of such a run, a line is cut there. The
    window belongs to the tile that is drawn, not to the metatile: Skia's coverage depends a little on the edges that
    lie outside, and a pixel must depend on its tile alone.
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
