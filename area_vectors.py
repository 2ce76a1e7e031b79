"""Vectors of areas: means of tile vectors over polygons and H3 cells, weighted by area.

Not a command. `python embed.py CITY.osm.pbf --areas districts.geojson` uses it.
"""

import dataclasses
from itertools import pairwise

import geopandas
import h3
import numpy as np
import shapely

from cli import UserError
from embeddings import Embeddings
from tile_grid import EARTH_RADIUS_KM, area_bounds, latlon_of_tile, tile_of_latlon, unwrapped

MOST_CELLS = 2_000_000


@dataclasses.dataclass(frozen=True)
class AreaVectors:
    """The mean vector of each of M areas, and how far the tiles cover it.

    `vectors (M, D) float32` are weighted means of unit vectors, not scaled to unit length again: a short one belongs to
    a mixed area. They are NaN where no tile lies. `tiles (M,)` counts the tiles, `covered (M,)` is the share of the
    area that they cover, 0 to 1.
    """

    vectors: np.ndarray
    tiles: np.ndarray
    covered: np.ndarray

    @property
    def facts(self) -> dict[str, np.ndarray]:
        """The columns that stand beside the vectors in a table."""
        return {"tiles": self.tiles, "share_covered": self.covered}


def area_means(polygons: np.ndarray, embeddings: Embeddings) -> AreaVectors:
    """Area-weighted means over `polygons (M,)`, shapely geometries in degrees; see `AreaVectors`."""
    from scipy.sparse import coo_matrix  # slow to import

    tile_xy, zoom = unwrapped(embeddings.tile_xy, embeddings.zoom), embeddings.zoom
    flat, boxes = _flattened(polygons, tile_xy, zoom), _flat_tiles(tile_xy, zoom)
    area, tile = shapely.STRtree(boxes).query(flat, predicate="intersects")
    weight = shapely.area(shapely.intersection(flat[area], boxes[tile]))
    area, tile, weight = area[weight > 0], tile[weight > 0], weight[weight > 0]
    total = np.bincount(area, weight, minlength=len(flat))
    shares = coo_matrix((weight / total[area], (area, tile)), shape=(len(flat), len(tile_xy))).tocsr()
    vectors = (shares @ embeddings.vectors).astype(np.float32)
    vectors[total == 0] = np.nan
    whole = shapely.area(flat)
    covered = np.minimum(total / np.where(whole > 0, whole, 1), 1)
    return AreaVectors(vectors, np.bincount(area, minlength=len(flat)), covered)


def tiles_within(polygons: np.ndarray, tile_xy: np.ndarray, zoom: int) -> np.ndarray:
    """Rows of the tiles `(N, 2)` that touch any of `polygons (M,)`."""
    tile_xy = unwrapped(tile_xy, zoom)
    tree = shapely.STRtree(_flat_tiles(tile_xy, zoom))
    return np.unique(tree.query(_flattened(polygons, tile_xy, zoom), predicate="intersects")[1])


def _flat_tiles(tile_xy: np.ndarray, zoom: int) -> np.ndarray:
    """Tiles as rectangles in the projection of `_flattened`."""
    north, south = (
        np.sin(np.radians(latlon_of_tile(np.stack([np.zeros(len(row)), row], axis=1), zoom)[:, 0]))
        for row in (tile_xy[:, 1], tile_xy[:, 1] + 1)
    )
    return shapely.box(tile_xy[:, 0], south, tile_xy[:, 0] + 1, north)


def _flattened(polygons: np.ndarray, tile_xy: np.ndarray, zoom: int) -> np.ndarray:
    """Polygons in Lambert's equal-area projection, where tiles are rectangles: column, and sine of the latitude.

    Columns are counted on beyond 180 degrees as in `tile_xy`. What is no polygon becomes None. An edge that is longer
    than half of the Earth crosses 180 degrees the short way.
    """
    around, middle = 1 << zoom, (tile_xy[:, 0].min() + tile_xy[:, 0].max() + 1) / 2
    flat = np.full(len(polygons), None, dtype=object)
    parts, owner = shapely.get_parts(np.asarray(polygons, dtype=object), return_index=True)
    parts, inner = shapely.get_parts(parts, return_index=True)  # a collection may hold collections
    owner = owner[inner]
    is_polygon = (shapely.get_type_id(parts) == shapely.GeometryType.POLYGON) & ~shapely.is_empty(parts)
    parts, owner = parts[is_polygon], owner[is_polygon]
    if not len(parts):
        return flat

    # Columns of every ring, without jumps where it crosses 180 degrees.
    rings, part = shapely.get_rings(parts, return_index=True)
    lonlat, ring = shapely.get_coordinates(rings, return_index=True)
    column = tile_of_latlon(lonlat[:, 1], lonlat[:, 0], zoom)[:, 0]
    first = np.flatnonzero(np.diff(ring, prepend=-1))
    step = np.diff(column, prepend=column[0])
    step[first] = 0
    turn = np.cumsum(np.where(np.abs(step) < around, -np.round(step / around), 0))
    column += around * (turn - turn[first][ring])

    # Each polygon goes where the tiles are, and its holes with it.
    centre = (np.minimum.reduceat(column, first) + np.maximum.reduceat(column, first)) / 2
    outer = centre[np.flatnonzero(np.diff(part, prepend=-1))][part]
    outer += around * np.round((middle - outer) / around)
    column += around * np.round((outer - centre) / around)[ring]
    points = np.stack([column, np.sin(np.radians(lonlat[:, 1]))], axis=1)
    moved = shapely.polygons(shapely.linearrings(points, indices=ring), indices=part)
    return shapely.multipolygons(moved, indices=owner, out=flat)


def h3_cells(tile_xy: np.ndarray, zoom: int, resolution: int) -> geopandas.GeoDataFrame:
    """The H3 cells that may share ground with the tiles, with their outlines in degrees: `h3`, `geometry`.

    Raises `UserError` for a resolution that would give more than `MOST_CELLS`.
    """
    west, south, east, north = area_bounds(tile_xy, zoom)
    width = (east - west) % 360 or 360.0
    ground_km2 = EARTH_RADIUS_KM**2 * np.radians(width) * float(np.diff(np.sin(np.radians([south, north])))[0])
    count = ground_km2 / h3.average_hexagon_area(resolution, unit="km^2")
    if count > MOST_CELLS:
        raise UserError(
            f"--h3 {resolution} divides this area into about {count:,.0f} cells, more than {MOST_CELLS:,}; "
            "choose a smaller number, or a smaller --bbox"
        )
    # Cells whose centre is in the box, made wider by two edges of a cell.
    margin = np.degrees(2 * h3.average_hexagon_edge_length(resolution, unit="km") / EARTH_RADIUS_KM)
    margin_x = margin / np.cos(np.radians(min(max(abs(south), abs(north)) + margin, 85)))
    south, north = max(south - margin, -90), min(north + margin, 90)
    cells: set[str] = set()
    meridians = np.linspace(west - margin_x, west + width + margin_x, 1 + max(1, round((width + 2 * margin_x) / 60)))
    for first, last in pairwise(meridians.tolist()):  # H3 takes a wide polygon for its complement
        corners = [(south, first), (south, last), (north, last), (north, first)]
        ring = [(lat, (lon + 180) % 360 - 180) for lat, lon in corners]
        cells.update(h3.polygon_to_cells(h3.LatLngPoly(ring), resolution))
    names = sorted(cells)
    outlines = [_unbroken(np.array(h3.cell_to_boundary(cell))[:, ::-1]) for cell in names]
    return geopandas.GeoDataFrame({"h3": names}, geometry=[shapely.Polygon(ring) for ring in outlines], crs="EPSG:4326")


def _unbroken(lonlat: np.ndarray) -> np.ndarray:
    """A ring with longitudes beyond 180 degrees where it crosses them."""
    if np.ptp(lonlat[:, 0]) > 180:
        lonlat[:, 0] += 360 * (lonlat[:, 0] < 0)
    return lonlat
