"""Statistics of tiles and of the rings around them: what the multiscale encoder learns to tell from its vectors.

Not a command. `python train.py --preset recommended` uses it.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from scipy import linalg, ndimage

from cache_files import load_intact, save_cache
from files import digest
from layers import LAYERS
from progress_bars import progress
from tile_store import TileStore

CLASSES = 16  # of brightness
SIZE_LIMITS = (0, 40, 100, 200, 400, 800, 1600, 3200, 6400, 1e9)  # of connected pieces, in pixels of a 256 px tile
EROSIONS = (1, 3, 5)  # radius of each further erosion, in pixels
RINGS = (0, 1, 3, 7)  # reach in tiles: the tile itself, then 3 x 3, 7 x 7 and 15 x 15 tiles without what is inside
# Statistics of a plane, and how many numbers each has. All of them add up over tiles.
FIELDS = {"shares": CLASSES, "edges": 1, "outlines": 1, "pieces": 1, "sizes": 9, "eroded": 3, "class_pieces": CLASSES}
STATISTICS_FORMAT = 1
COMPONENTS = 256  # principal components of the targets that a vector must tell
TILES_AT_ONCE = 2048  # whose targets are in memory, about 16 KB each


@dataclasses.dataclass(frozen=True)
class TargetWeights:
    """How much each group of targets counts. Every group is first scaled to a total variance of one."""

    amounts: tuple[float, ...] = (1.0, 0.9, 0.9, 0.6)  # of the tile and of each ring
    composition: tuple[float, ...] = (0.9, 0.6, 0.6, 0.3)
    buildings: tuple[float, ...] = (1.4, 0.6, 0.6, 0.0)  # amounts of the buildings layer, once more
    brightness: float = 1.0  # the tile's shares of brightness, once more
    amenities: float = 1.0  # those of the amenities layer, once more
    pieces: float = 0.4  # the tile's number of pieces per layer, once more


def plane_statistics(plane: np.ndarray) -> np.ndarray:
    """The 47 statistics of one layer of a tile, `plane (S, S) uint8`, in the order of `FIELDS`.

    Lengths and areas are those of a tile of 256 px, whatever the plane's size.
    """
    scale = 256 / len(plane)
    drawn = plane > 0
    counts = np.bincount(plane.ravel(), minlength=256)
    counts[0] = 0
    shares = counts.reshape(CLASSES, -1).sum(axis=1) * scale**2
    edges = ((plane[:, 1:] != plane[:, :-1]).sum() + (plane[1:] != plane[:-1]).sum()) * scale
    outlines = ((drawn[:, 1:] != drawn[:, :-1]).sum() + (drawn[1:] != drawn[:-1]).sum()) * scale
    labels, pieces = ndimage.label(drawn)
    sizes = np.histogram(np.bincount(labels.ravel())[1:] * scale**2, bins=SIZE_LIMITS)[0]
    eroded, left = [], drawn
    for radius in EROSIONS:
        left = ndimage.minimum_filter(left, size=2 * max(1, round(radius / scale)) + 1)
        eroded.append(left.sum() * scale**2 / 64)
    class_pieces = np.where(shares >= 100, pieces, 0)
    if (shares > 0).sum() > 1:  # otherwise the pieces of the only class are all pieces
        class_of = np.where(drawn, plane >> 4, CLASSES)
        for c in np.flatnonzero(class_pieces):
            class_pieces[c] = ndimage.label(class_of == c)[1]
    parts = [shares / 1024, [edges / 64, outlines / 64, pieces], sizes, eroded, class_pieces]
    return np.concatenate(parts).astype(np.float32)


def ring_means(store: TileStore, statistics: np.ndarray) -> list[np.ndarray]:
    """Means of `statistics (N, F)` over each tile and over each ring around it, over the tiles that exist.

    Sums over squares of tiles are differences of cumulative sums over the grid. A few columns are summed at a time.
    """
    edge = RINGS[-1] + 1
    width, height = store.grid.shape + 2 * edge
    column, row = (store.unwrapped_xy - store.unwrapped_xy.min(axis=0) + edge).T

    def squares(values: np.ndarray) -> list[np.ndarray]:
        table = np.zeros((height, width, values.shape[1]))
        table[row, column] = values
        total = np.pad(table.cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0), (0, 0)))
        found = []
        for reach in RINGS:
            top, left, below, right = row - reach, column - reach, row + reach + 1, column + reach + 1
            found.append(total[below, right] - total[top, right] - total[below, left] + total[top, left])
        return found

    counts = squares(np.ones((len(statistics), 1)))
    means = [np.empty_like(statistics) for _ in RINGS]
    for first in range(0, statistics.shape[1], 32):
        part = slice(first, first + 32)
        sums = squares(statistics[:, part])
        for i in range(len(RINGS)):
            ring, count = (sums[i] - sums[i - 1], counts[i] - counts[i - 1]) if i else (sums[0], counts[0])
            means[i][:, part] = (ring / np.maximum(count, 1)).clip(0)
    return means


@dataclasses.dataclass(frozen=True)
class TargetGroup:
    """Some targets `values (N, n)` of a city's tiles: their weight, and how they are standardised.

    No value counts for more than `limit` deviations. `floor` is added to the deviation, so that what hardly ever occurs
    does not outweigh everything else.
    """

    values: np.ndarray
    weight: float
    limit: float
    floor: float


def composition(mean: np.ndarray, total: np.ndarray) -> np.ndarray:
    """What each layer consists of, whatever its amount: shares of brightness, of sizes of pieces, of compact areas.

    For statistics `mean (N, L * 47)`. Where little is drawn, the values shrink to those of `total (L * 47)`, the sum
    over all cities. If they shrank to the mean of their own city, an empty layer would tell which city it is in.
    """
    fields = _fields(np.concatenate([mean, total[None]]))
    area = fields["shares"].sum(axis=2)

    def per(part: np.ndarray, whole: np.ndarray, prior: float) -> np.ndarray:
        usual = part[-1] / np.maximum(whole[-1], 1e-6)[:, None]
        return ((part[:-1] + prior * usual) / (whole[:-1] + prior)[..., None]).reshape(len(mean), -1)

    shape = np.concatenate([fields["outlines"], fields["pieces"]], axis=2)
    parts = [
        per(fields["shares"], area, 2.0),
        per(fields["sizes"], fields["pieces"][..., 0], 1.0),
        per(fields["eroded"] / 16, area, 2.0),
        np.log1p(per(shape, area, 2.0)),
    ]
    return np.concatenate(parts, axis=1)


def target_groups(
    means: Sequence[np.ndarray], totals: Sequence[np.ndarray], weights: TargetWeights
) -> list[TargetGroup]:
    """All groups of targets of some tiles of a city, from their `ring_means`, each `(N, L * 47)`.

    `totals` are the sums of the same statistics over all cities, each `(L * 47)`.
    """
    groups = []
    for i, (mean, total) in enumerate(zip(means, totals, strict=True)):
        groups.append(TargetGroup(np.log1p(mean), weights.amounts[i], limit=6.0, floor=0.1))
        groups.append(TargetGroup(composition(mean, total), weights.composition[i], limit=3.0, floor=0.05))
        if "buildings" in LAYERS:
            layer, fields = LAYERS.index("buildings"), _fields(mean)
            parts = [fields[name][:, layer] for name in ("shares", "edges", "pieces", "sizes", "eroded")]
            amounts = np.log1p(np.concatenate(parts, axis=1))
            groups.append(TargetGroup(amounts, weights.buildings[i], limit=3.0, floor=0.1))
    own = _fields(means[0])
    shares = np.log1p(own["shares"])
    groups.append(TargetGroup(shares.reshape(len(shares), -1), weights.brightness, limit=3.0, floor=0.1))
    if "amenities" in LAYERS:
        amenities = shares[:, LAYERS.index("amenities")]
        groups.append(TargetGroup(amenities, weights.amenities, limit=6.0, floor=0.1))
    groups.append(TargetGroup(np.log1p(own["pieces"][..., 0]), weights.pieces, limit=3.0, floor=0.1))
    return [group for group in groups if group.weight]


def _fields(statistics: np.ndarray) -> dict[str, np.ndarray]:
    """`statistics (N, L * 47)` by name, each `(N, L, n)`."""
    cuts = np.cumsum(list(FIELDS.values()))[:-1]
    parts = np.split(statistics.reshape(len(statistics), len(LAYERS), -1), cuts, axis=2)
    return dict(zip(FIELDS, parts, strict=True))


class Targets:
    """The principal components of all targets, standardised and weighted over the tiles of one or several cities.

    A tile has some four thousand targets, so they are computed for `TILES_AT_ONCE` tiles at a time. Memory grows with
    the `ring_means` only, about 10 KB per tile.
    """

    def __init__(self, cities: Sequence[list[np.ndarray]], rows: Sequence[np.ndarray]):
        """Fit on `rows` of each city, whose `ring_means` are `cities`."""
        rings = zip(*cities, strict=True)
        self.totals = [
            np.sum([mean[own].sum(axis=0) for mean, own in zip(ring, rows, strict=True)], axis=0) for ring in rings
        ]

        # Standardise: mean and deviation of every target.
        count, mean, squares = sum(map(len, rows)), np.zeros(()), np.zeros(())
        for groups in self._groups(cities, rows):
            values = np.concatenate([group.values for group in groups], axis=1, dtype=np.float64)
            mean, squares = mean + values.sum(axis=0) / count, squares + (values**2).sum(axis=0) / count
        variance = np.maximum(squares - np.square(mean), 0)
        sizes = [group.values.shape[1] for group in groups]
        floor, limit = (np.repeat([getattr(group, name) for group in groups], sizes) for name in ("floor", "limit"))
        self.mean, self.used = mean.astype(np.float32), variance > 1e-8
        self.scale, self.limit = np.sqrt(variance + floor**2).astype(np.float32), limit.astype(np.float32)

        # Weigh the groups, then take the principal components.
        center, products = np.zeros(()), np.zeros(())
        for groups in self._groups(cities, rows):
            values = self._standardised(groups)
            center, products = center + values.sum(axis=0, dtype=np.float64) / count, products + values.T @ values
        covariance = products / count - np.outer(center, center)
        group_of = np.repeat(np.arange(len(groups)), sizes)[self.used]
        spread = np.bincount(group_of, covariance.diagonal(), minlength=len(groups))
        factor = (np.array([group.weight for group in groups]) / np.sqrt(np.maximum(spread, 1e-9)))[group_of]
        last = len(factor) - 1
        _, axes = linalg.eigh(
            covariance * np.outer(factor, factor), subset_by_index=(max(0, last + 1 - COMPONENTS), last)
        )
        self.axes = (factor[:, None] * axes[:, ::-1]).astype(np.float32)  # of the targets before they are weighted
        self.center = (center @ self.axes).astype(np.float32)

    def _groups(self, cities: Sequence[list[np.ndarray]], rows: Sequence[np.ndarray]) -> Iterator[list[TargetGroup]]:
        """The groups of targets of `rows` of each city, some tiles at a time."""
        for city, own in zip(cities, rows, strict=True):
            for first in range(0, len(own), TILES_AT_ONCE):
                part = own[first : first + TILES_AT_ONCE]
                yield target_groups([mean[part] for mean in city], self.totals, TargetWeights())

    def _standardised(self, groups: list[TargetGroup]) -> np.ndarray:
        """The targets `(N, n) float32` that vary, before they are weighted."""
        values = np.concatenate([group.values for group in groups], axis=1, dtype=np.float32)
        return np.clip((values - self.mean) / self.scale, -self.limit, self.limit)[:, self.used]

    def of(self, city: list[np.ndarray]) -> np.ndarray:
        """The targets `(N, components) float32` of the tiles of a city with the `ring_means` `city`."""
        parts = self._groups([city], [np.arange(len(city[0]))])
        return np.concatenate([self._standardised(groups) @ self.axes - self.center for groups in parts])


# --- the statistics of whole cities ------------------------------------------------------------------------


def store_statistics(store: TileStore, cache_dir: Path, num_workers: int) -> np.ndarray:
    """The statistics `(N, L * 47)` of a city's tiles. Those of its distinct planes are cached. Shows progress."""
    key = digest("statistics", STATISTICS_FORMAT, store.plane_digest)
    path = Path(cache_dir) / f"statistics-{key[:16]}.l2v"
    cached = load_intact(path, key, "computing it again")
    if cached is not None:
        by_plane = cached[0]["by_plane"]
    else:
        by_plane = np.empty((len(store.planes), sum(FIELDS.values())), dtype=np.float32)
        pool = ThreadPoolExecutor(max(1, num_workers))  # most of the work is done without the GIL
        try:
            with progress(total=len(by_plane), desc="measuring tiles", unit="plane") as bar:
                for i, found in enumerate(pool.map(plane_statistics, store.planes)):
                    by_plane[i] = found
                    bar.update()
        finally:
            pool.shutdown(cancel_futures=True)  # a stop does not wait for the other planes
        save_cache(path, key, {"by_plane": by_plane})
    return by_plane[store.plane_of].reshape(len(store), -1)


def city_targets(
    stores: Sequence[TileStore], rows: Sequence[np.ndarray], cache_dir: Path, num_workers: int
) -> list[np.ndarray]:
    """The targets `(N, components) float32` of every tile of each city, fitted on `rows` of each."""
    means = [ring_means(store, store_statistics(store, cache_dir, num_workers)) for store in stores]
    targets = Targets(means, [own[~store.blank[own]] for store, own in zip(stores, rows, strict=True)])
    return [targets.of(city) for city in means]
