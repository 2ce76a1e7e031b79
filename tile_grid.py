"""The grid of Web Mercator tiles: coordinates, distances, neighbours, blocks.

Not a command. It needs NumPy only, so that the renderer can use it without importing PyTorch.
"""

import math

import numpy as np

from cli import TilesFlags, UserError

DEFAULT_ZOOM = TilesFlags.zoom
MAX_LATITUDE = 85.05112878  # where Web Mercator ends
GRID_LIMIT = 1 << 26  # cells of a dense grid; a city of 100 x 100 km at zoom 17 has 2^17
EARTH_RADIUS_KM = 6371.0088
KM_PER_DEGREE = math.radians(EARTH_RADIUS_KM)  # of latitude
METATILE = 8  # edge in tiles of the squares that are drawn and embedded together
BLOCK = 12  # edge in tiles of the squares that go as a whole to training, validation or a fold

Box = tuple[float, float, float, float]  # west, south, east, north in degrees


# --- coordinates -------------------------------------------------------------------------------------------


def tile_of_latlon(lat: np.ndarray, lon: np.ndarray, zoom: int = DEFAULT_ZOOM) -> np.ndarray:
    """Fractional slippy-map coordinates `(..., 2) float64` (x, y) of points in degrees.

    x grows to the east, y to the south. Latitudes beyond Web Mercator are clipped to its edge.
    """
    lat, lon = np.asarray(lat, dtype=np.float64), np.asarray(lon, dtype=np.float64)
    sine = np.sin(np.radians(np.clip(lat, -MAX_LATITUDE, MAX_LATITUDE)))
    y = 0.5 - np.log((1 + sine) / (1 - sine)) / (4 * math.pi)
    return np.stack([(lon + 180.0) / 360.0, y], axis=-1) * float(1 << zoom)


def latlon_of_tile(tile_xy: np.ndarray, zoom: int = DEFAULT_ZOOM) -> np.ndarray:
    """Latitude and longitude `(..., 2) float64` in degrees of (fractional) slippy-map coordinates.

    Integers give the north-west corner of a tile; add 0.5 for its centre.
    """
    tile_xy = np.asarray(tile_xy, dtype=np.float64) / 2.0**zoom
    lat = np.degrees(np.arctan(np.sinh(np.pi * (1 - 2 * tile_xy[..., 1]))))
    return np.stack([lat, tile_xy[..., 0] * 360 - 180], axis=-1)


def great_circle_km(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Distance in kilometres between points `(..., 2)` of latitude and longitude in degrees (haversine formula)."""
    a, b = np.radians(np.asarray(a, dtype=np.float64)), np.radians(np.asarray(b, dtype=np.float64))
    half = np.sin((b - a) / 2) ** 2
    chord = half[..., 0] + np.cos(a[..., 0]) * np.cos(b[..., 0]) * half[..., 1]
    return 2 * EARTH_RADIUS_KM * np.arcsin(np.sqrt(np.clip(chord, 0, 1)))


def farther_than(tile_xy: np.ndarray, zoom: int, latlon: np.ndarray, km: float) -> np.ndarray:
    """`(N,) bool`: tiles whose centre is at least `km` kilometres away from the point `latlon`."""
    return great_circle_km(latlon_of_tile(np.asarray(tile_xy) + 0.5, zoom), latlon) >= km


def tile_codes(tile_xy: np.ndarray) -> np.ndarray:
    """One `int64` per tile of `tile_xy (..., 2)`: x * 2^32 + y. Sorts as (x, y) does."""
    return (tile_xy[..., 0].astype(np.int64) << 32) + tile_xy[..., 1]


def unwrapped(tile_xy: np.ndarray, zoom: int) -> np.ndarray:
    """`tile_xy (N, 2)` with x counted on beyond `2 ** zoom` where the tiles lie on both sides of 180 degrees.

    Then differences of x are distances on the ground. The numbers start after the widest gap between the occupied
    columns; tiles that do not cross 180 degrees keep theirs.
    """
    columns = np.unique(tile_xy[:, 0])
    gaps = np.diff(columns, append=columns[0] + (1 << zoom))
    widest = int(gaps.argmax())
    if gaps[widest] == gaps[-1]:
        return tile_xy
    x = np.where(tile_xy[:, 0] <= columns[widest], tile_xy[:, 0] + (1 << zoom), tile_xy[:, 0])
    return np.stack([x, tile_xy[:, 1]], axis=1).astype(tile_xy.dtype)


def area_bounds(tile_xy: np.ndarray, zoom: int) -> Box:
    """West, south, east and north of an area of tiles `(N, 2)` in degrees; west > east where it crosses 180 degrees."""
    tile_xy = unwrapped(tile_xy, zoom)
    corners = np.stack([tile_xy.min(axis=0), tile_xy.max(axis=0) + 1])
    (north, west), (south, east) = latlon_of_tile(corners, zoom).tolist()
    return west, south, east - 360 if east > 180 else east, north


def inside_box(lat: np.ndarray, lon: np.ndarray, box: Box) -> np.ndarray:
    """`(N,) bool`: which points lie in a box; one with west > east crosses 180 degrees."""
    west, south, east, north = box
    across = (lon >= west) & (lon <= east) if west <= east else (lon >= west) | (lon <= east)
    return across & (lat >= south) & (lat <= north)


def hilbert_order(tile_xy: np.ndarray) -> np.ndarray:
    """Position of each tile along a Hilbert curve over the area, `(N,) int64`."""
    x, y = (tile_xy - tile_xy.min(axis=0)).T.astype(np.int64)
    position = np.zeros(len(x), dtype=np.int64)
    side = 1 << int(max(x.max(), y.max(), 1)).bit_length()
    while side := side >> 1:
        right, below = (x & side) > 0, (y & side) > 0
        position += side * side * ((3 * right) ^ below)
        mirrored = right & ~below
        x, y = np.where(mirrored, side - 1 - (x & (side - 1)), x), np.where(mirrored, side - 1 - (y & (side - 1)), y)
        x, y = np.where(below, x, y), np.where(below, y, x)
    return position


# --- the grid ----------------------------------------------------------------------------------------------


class TileGrid:
    """A dense lookup table from tile coordinates to row numbers, -1 where there is no tile.

    Every lookup takes constant time and works on whole arrays. With `zoom`, columns are taken modulo `2 ** zoom`, so
    that tiles on both sides of 180 degrees are neighbours. Raises `UserError` when the tiles are spread over more than
    `GRID_LIMIT` cells.
    """

    def __init__(self, tile_xy: np.ndarray, zoom: int | None = None):
        self.columns_around = 0 if zoom is None else 1 << zoom  # columns around the Earth; 0 if unknown
        if zoom is not None:
            tile_xy = unwrapped(tile_xy, zoom)
        low, high = tile_xy.min(axis=0).astype(np.int64), tile_xy.max(axis=0).astype(np.int64)
        self.origin, self.shape = low, high - low + 1
        if self.shape.prod() > GRID_LIMIT:
            raise UserError(
                f"the tiles spread from (x, y) = {tuple(low.tolist())} to {tuple(high.tolist())}; expected one city. "
                "Move tiles of other places to a folder of their own"
            )
        self.table = np.full(tuple(self.shape), -1, dtype=np.int32)
        self.table[tuple((tile_xy - low).T)] = np.arange(len(tile_xy), dtype=np.int32)

    def rows(self, tile_xy: np.ndarray) -> np.ndarray:
        """Row of each coordinate of `tile_xy (..., 2)`, -1 where there is no tile."""
        offset = np.asarray(tile_xy, dtype=np.int64) - self.origin
        if self.columns_around:
            offset[..., 0] %= self.columns_around
        inside = ((offset >= 0) & (offset < self.shape)).all(axis=-1)
        offset = np.where(inside[..., None], offset, 0)
        return np.where(inside, self.table[offset[..., 0], offset[..., 1]], -1)


class TileIndex:
    """Row numbers of tiles `(N, 2)` by their coordinates, as `TileGrid`, for tiles spread over any area."""

    def __init__(self, tile_xy: np.ndarray):
        codes = tile_codes(tile_xy)
        self.order = np.argsort(codes)
        self.codes = codes[self.order]

    def rows(self, tile_xy: np.ndarray) -> np.ndarray:
        """Row of each coordinate of `tile_xy (..., 2)`, -1 where there is no tile."""
        wanted = tile_codes(np.asarray(tile_xy))
        at = np.minimum(np.searchsorted(self.codes, wanted), len(self.codes) - 1)
        return np.where(self.codes[at] == wanted, self.order[at], -1)


def near_any(tile_xy: np.ndarray, others: np.ndarray, radius: int) -> np.ndarray:
    """`(N,) bool`: tiles within `radius` tiles (Chebyshev distance) of any of `others`, which includes themselves."""
    if not len(others):
        return np.zeros(len(tile_xy), dtype=bool)
    step = np.arange(-radius, radius + 1)
    around = np.stack(np.meshgrid(step, step), axis=-1).reshape(-1, 2)
    grid = TileGrid(others)
    return np.any([grid.rows(tile_xy + offset) >= 0 for offset in around], axis=0)


# --- blocks ------------------------------------------------------------------------------------------------


def metatiles_of(tiles: np.ndarray, place: np.ndarray) -> list[np.ndarray]:
    """The numbers `tiles (n,)` in blocks of `METATILE` x `METATILE`; `place (N, 2)` are column and row of all tiles."""
    block = place[tiles] // METATILE
    tiles = tiles[np.lexsort((block[:, 1], block[:, 0]))]
    return [part for part in np.split(tiles, metatile_starts(place[tiles])) if len(part)]


def metatile_starts(place: np.ndarray) -> np.ndarray:
    """Where, along `place (n, 2)`, a tile lies in another metatile than the one before it."""
    return np.flatnonzero(np.any(np.diff(place // METATILE, axis=0) != 0, axis=1)) + 1


def blocks_of(tile_xy: np.ndarray, block: int = BLOCK) -> np.ndarray:
    """Number of the `block` x `block` square that each tile is in, `(N,) int64`, counted from the area's corner."""
    cell = (np.asarray(tile_xy) - np.min(tile_xy, axis=0)) // block
    return np.unique(cell, axis=0, return_inverse=True)[1].reshape(-1)


def spatial_split(
    tile_xy: np.ndarray, val_share: float = 0.1, block: int = BLOCK, seed: int = 0, buffer: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Split tiles into training and validation rows by whole blocks: `(train_rows, val_rows)`.

    Validation gets at least two blocks. Training tiles are more than `buffer` tiles away from them, so that no
    jittered training window shows a validation pixel. Areas that are too small for two blocks get smaller blocks.
    With a share of 0 there is no validation.
    """
    everything = np.arange(len(tile_xy))
    if val_share <= 0:
        return everything, everything[:0]
    side = int((tile_xy.max(axis=0) - tile_xy.min(axis=0)).min()) + 1
    labels = blocks_of(tile_xy, max(1, min(block, side // 4)))
    chosen: list[int] = []
    held = 0
    for label in np.random.default_rng([seed, 0x51]).permutation(labels.max() + 1):
        if len(chosen) >= 2 and held >= val_share * len(tile_xy):
            break
        chosen.append(label)
        held += int((labels == label).sum())
    val = np.isin(labels, chosen)
    near = near_any(tile_xy, tile_xy[val], buffer)
    return everything[~near], everything[val]
