"""Sea surfaces from coastlines.

Not a command.
"""

import numpy as np
import shapely

from tile_grid import Box

COAST_SNAP = 0.02  # degrees; coastlines that an extract cuts off this near to its edge are led on to the edge


def sea_surfaces(lines: list[shapely.LineString], frame: Box) -> tuple[list[shapely.MultiPolygon], int]:
    """The sea inside `frame`, from coastlines (water lies to their right), and the number of doubtful parts left out.

    A part is doubtful when it lies to the left of more than a twentieth of the coast that it lies to the right of.
    """
    window = shapely.box(*frame)
    coast = shapely.line_merge(shapely.MultiLineString(lines), directed=True)
    ends = [shapely.Point(line.coords[i]) for line in shapely.get_parts(coast) if not line.is_closed for i in (0, -1)]
    cut_off = [end for end in ends if window.contains(end) and end.distance(window.exterior) < COAST_SNAP]
    bridges = [shapely.shortest_line(end, window.exterior) for end in cut_off]
    net = shapely.union_all([coast, window.exterior, *bridges])
    parts = shapely.get_parts(shapely.polygonize(shapely.get_parts(net)))
    parts = parts[shapely.contains(window, shapely.point_on_surface(parts))]
    right, left = _shores(lines, parts)
    wet = right > 0
    sure = wet & (left <= right / 20)
    order = sorted(np.flatnonzero(sure), key=lambda i: parts[i].bounds)
    return [shapely.MultiPolygon([parts[i]]) for i in order], int((wet & ~sure & (right >= left)).sum())


def _shores(lines: list[shapely.LineString], parts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How much coast has each part on its right and on its left: lengths, told by points beside the segments."""
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
