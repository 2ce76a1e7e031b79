"""Sea surfaces from coastlines.

Not a command; `osm_extract.py` adds the surfaces to what it reads.
"""

import numpy as np
import shapely

from osm_repair import unwrapped_line
from tile_grid import Box

COAST_SNAP = 0.02  # degrees; a coastline that ends this near to the edge of the extract was cut off there


def sea_surfaces(
    lines: list[shapely.LineString], frame: Box | None = None
) -> tuple[list[shapely.MultiPolygon], list[shapely.Point]]:
    """The sea inside `frame` (None: the bounds of the lines), from coastlines that have water to their right.

    Also returns a point in each doubtful part. A part is doubtful if most of its coast says that it is sea, but more
    than a twentieth as much says that it is land. Such parts are left out. If west > east, `frame` crosses 180 degrees.
    """
    lines = [shapely.LineString(unwrapped_line(shapely.get_coordinates(line))) for line in lines]
    west, south, east, north = frame or shapely.total_bounds(lines).tolist()
    east += 360 * (west > east)
    middle = (west + east) / 2
    shifts = [360 * np.round((middle - (line.bounds[0] + line.bounds[2]) / 2) / 360) for line in lines]
    if any(shifts):
        lines = [
            shapely.transform(line, lambda c, s=s: c + np.array([s, 0])) for line, s in zip(lines, shifts, strict=True)
        ]
    window = shapely.box(west, south, east, north)
    coast = shapely.line_merge(shapely.MultiLineString(lines), directed=True)
    # Lead coastlines that the extract cuts off just inside its edge on to the edge.
    ends = [shapely.Point(line.coords[i]) for line in shapely.get_parts(coast) if not line.is_closed for i in (0, -1)]
    cut_off = [end for end in ends if window.contains(end) and end.distance(window.exterior) < COAST_SNAP]
    bridges = [shapely.shortest_line(end, window.exterior) for end in cut_off]
    # Every face of this net is either sea or land.
    net = shapely.union_all([coast, window.exterior, *bridges])
    parts = shapely.get_parts(shapely.polygonize(shapely.get_parts(net)))
    parts = parts[shapely.contains(window, shapely.point_on_surface(parts))]
    right, left = _shores(lines, parts)
    wet = right > 0
    sure = wet & (left <= right / 20)
    order = sorted(np.flatnonzero(sure), key=lambda i: parts[i].bounds)
    doubtful = parts[wet & ~sure & (right >= left)]
    return [shapely.MultiPolygon([parts[i]]) for i in order], list(shapely.point_on_surface(doubtful))


def _shores(lines: list[shapely.LineString], parts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Length of coast that has each part on its right and on its left, told by points beside the segments."""
    points = [shapely.get_coordinates(line) for line in lines]
    start, end = np.concatenate([p[:-1] for p in points]), np.concatenate([p[1:] for p in points])
    along = end - start
    length = np.linalg.norm(along, axis=1)
    aside = np.stack([along[:, 1], -along[:, 0]], axis=1) / np.maximum(length, 1e-12)[:, None] * 1e-6
    tree = shapely.STRtree(parts)
    sums = []
    for side in (aside, -aside):
        which, part = tree.query(shapely.points((start + end) / 2 + side), predicate="within")
        sums.append(np.bincount(part, length[which], minlength=len(parts)))
    return sums[0], sums[1]
