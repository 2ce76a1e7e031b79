"""Repair geometries that OpenStreetMap files hold and that cannot be drawn as they are.

Not a command. Rings that cross themselves become the surfaces that they enclose, and longitudes go on beyond 180
degrees instead of jumping to -180.
"""

from collections.abc import Sequence

import numpy as np
import shapely


def repaired_surface(outer: Sequence[np.ndarray], inner: Sequence[np.ndarray] = ()) -> shapely.MultiPolygon | None:
    """What lies inside the rings that the lines `outer` form and outside those of `inner`; None if that is nothing.

    Each line is `(N, 2) float64`, longitude and latitude. What does not close is left out. Rings that cross themselves
    are split there, as `osm2pgsql` and PostGIS do (GEOS `make_valid`).
    """
    lines = [unwrapped_line(line) for line in (*outer, *inner)]
    lines = [line + np.array([360 * np.round((lines[0][0, 0] - line[0, 0]) / 360), 0]) for line in lines]
    surface = shapely.difference(_enclosed(lines[: len(outer)]), _enclosed(lines[len(outer) :]))
    polygons = [part for part in shapely.get_parts(surface) if isinstance(part, shapely.Polygon) and part.area > 0]
    return shapely.MultiPolygon(polygons) if polygons else None


def _enclosed(lines: list[np.ndarray]) -> shapely.Geometry:
    """What `lines` enclose: the union of the rings that they form when they are joined at their ends."""
    distinct = {shapely.normalize(line).wkb: line for line in map(shapely.LineString, lines)}  # a way may come twice
    joined = shapely.get_parts(shapely.line_merge(shapely.MultiLineString(list(distinct.values()))))
    rings = [line for line in joined if line.is_closed and shapely.get_num_coordinates(line) >= 4]
    if not rings:  # the lines overlap, or form a ring with something attached to it
        return shapely.union_all(shapely.get_parts(shapely.polygonize([shapely.union_all(joined)])))
    return shapely.union_all([shapely.make_valid(shapely.Polygon(ring)) for ring in rings])


def unwrapped_line(line: np.ndarray) -> np.ndarray:
    """A line `(N, 2)` whose longitudes go on beyond 180 degrees where two neighbours lie on different sides of it."""
    turns = np.cumsum(_turns(line[:, 0]))
    return line + np.stack([360.0 * turns, np.zeros(len(line))], axis=1) if turns.any() else line


def _turns(longitude: np.ndarray) -> np.ndarray:
    """+1 where a step crosses 180 degrees to the east, -1 to the west, else 0."""
    step = np.diff(longitude, prepend=longitude[:1])
    return (step < -180).astype(np.int64) - (step > 180)


def unwrap_objects(lonlat: np.ndarray, point_start: np.ndarray, ring_start: np.ndarray) -> np.ndarray:
    """Coordinates `(P, 2)` in which every object is in one piece, also those that cross 180 degrees.

    Ring r has the points `point_start[r]:point_start[r + 1]`, object i the rings `ring_start[i]:ring_start[i + 1]`.
    The result starts in -180 to 180 degrees for each object and goes on to the east. Objects that do not cross 180
    degrees keep their numbers, bit for bit.
    """
    if not len(lonlat):
        return lonlat
    longitude = lonlat[:, 0]
    turns = _turns(longitude)
    turns[point_start[:-1]] = 0  # from one ring to the next
    turns = np.cumsum(turns)
    turns -= np.repeat(turns[point_start[:-1]], np.diff(point_start))
    first = point_start[ring_start[:-1]]
    longitude = longitude + 360.0 * turns
    # Rings that lie on the other side of 180 degrees than the first ring of their object.
    owner_first = np.repeat(longitude[first], np.diff(ring_start))
    apart = np.round((owner_first - longitude[point_start[:-1]]) / 360)
    longitude += 360.0 * np.repeat(apart, np.diff(point_start))
    low = np.floor((np.minimum.reduceat(longitude, first) + 180) / 360)
    longitude -= 360.0 * np.repeat(low, np.diff(np.append(first, len(longitude))))
    return np.stack([longitude, lonlat[:, 1]], axis=1)
