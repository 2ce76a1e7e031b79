"""Search for the most similar tiles: Annoy indices and exact search behind one interface, with measured recall.

Not a command. `python precompute_embeddings.py --query 50.4501,30.5234 --k 10` searches.
"""

import dataclasses
import errno
import importlib.util
import os
import shutil
import time
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from cache_files import DamagedFile, load_cache, load_intact, save_cache
from cli import UserError, WorkError
from files import atomic_path, digest, file_digest, locked
from layers import LAYERS
from progress_bars import warn
from tile_grid import great_circle_km

METRICS = ("angular", "euclidean", "manhattan", "dot")
DEFAULT_TREES = 100
INDEX_FORMAT = 1
EXACT_BELOW = 1000  # with fewer vectors exact search is as fast as any index
SHARED_LAYERS = 3  # named at most, where two places are alike
_BLOCK = 1 << 24  # numbers that an exact search holds in memory at once


# --- exact search ------------------------------------------------------------------------------------------


def distances(queries: np.ndarray, vectors: np.ndarray, metric: str) -> np.ndarray:
    """Distance between each of `queries (..., D)` and `vectors (..., D)`, float32, broadcast; smaller is nearer.

    angular: the chord between the two directions, sqrt(2 - 2 cos), as Annoy has it. euclidean and manhattan: as usual.
    dot: 1 minus the inner product (for unit vectors the cosine distance; Annoy itself returns the inner product).
    """
    if metric == "dot":
        return 1 - np.einsum("...d,...d->...", queries, vectors)
    if metric == "angular":
        queries, vectors = unit(queries), unit(vectors)
    difference = queries - vectors
    if metric == "manhattan":
        return np.abs(difference).sum(axis=-1)
    return np.sqrt(np.square(difference).sum(axis=-1))


def unit(vectors: np.ndarray) -> np.ndarray:
    """`vectors (..., D)` scaled to length 1; a zero vector stays zero."""
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.where(length > 0, length, 1)


class Search:
    """Nearest neighbours among `vectors (N, D)`: through an Annoy index if one is given, otherwise exactly.

    `kind` is "annoy" or "exact"; `quality` is what `measure` found when the index was built, if it was measured;
    `built` says whether opening built the index, and `seconds` how long opening took.
    """

    def __init__(self, vectors: np.ndarray, metric: str, index: Any = None, trees: int = 0):
        self.vectors = np.asarray(vectors, dtype=np.float32)
        self.metric, self.index, self.trees = metric, index, trees
        self.kind = "exact" if index is None else "annoy"
        self.quality: SearchQuality | None = None
        self.built, self.seconds = False, 0.0

    def __len__(self) -> int:
        return len(self.vectors)

    def query(
        self, vectors: np.ndarray, k: int = 10, *, search_k: int = -1, allowed: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """The `k` nearest of each query `(Q, D)`: rows `(Q, k) int64` and distances `(Q, k) float32`, nearest first.

        Only rows where `allowed (N,) bool` is true are found; if fewer than `k` are left, row -1 at distance infinity
        fills up. `search_k` is Annoy's effort, -1 for trees * k. See `distances` for what the distances mean. Raises
        `UserError` for queries of another dimension or with non-finite numbers.
        """
        queries = np.atleast_2d(np.asarray(vectors, dtype=np.float32))
        if queries.shape[1] != self.vectors.shape[1]:
            raise UserError(
                f"the query has {queries.shape[1]} dimensions, the searched vectors have {self.vectors.shape[1]}; "
                "both must come from one checkpoint"
            )
        if not np.isfinite(queries).all():
            raise UserError("the query vector holds non-finite numbers; train or choose another checkpoint")
        if allowed is not None and allowed.shape != (len(self.vectors),):
            raise ValueError(f"allowed has shape {allowed.shape}, expected ({len(self.vectors)},)")
        if self.index is None:
            rows = self._exact_rows(queries, k, allowed)
        else:
            rows = self._annoy_rows(queries, k, search_k, allowed)
        # nearest first, ties by row number, -1 last
        found = distances(queries[:, None], self.vectors[rows], self.metric)
        found = np.where(rows >= 0, found, np.inf).astype(np.float32)
        order = np.lexsort((rows, found), axis=1)
        return np.take_along_axis(rows, order, axis=1), np.take_along_axis(found, order, axis=1)

    def _exact_rows(self, queries: np.ndarray, k: int, allowed: np.ndarray | None) -> np.ndarray:
        """The `k` nearest rows of each query in any order, `(Q, k)`."""
        rows = np.full((len(queries), k), -1, dtype=np.int64)
        kept = min(k, len(self))
        step = max(1, _BLOCK // max(1, self.vectors.size if self.metric == "manhattan" else len(self)))
        for start in range(0, len(queries) if kept else 0, step):
            block = slice(start, start + step)
            keys = self._ranking_keys(queries[block])
            if allowed is not None:
                keys[:, ~allowed] = np.inf
            found = np.argpartition(keys, kept - 1, axis=1)[:, :kept]
            rows[block, :kept] = np.where(np.isfinite(np.take_along_axis(keys, found, axis=1)), found, -1)
        return rows

    def _ranking_keys(self, queries: np.ndarray) -> np.ndarray:
        """Numbers `(Q, N)` that order the vectors as their distances from each query do; smaller is nearer.

        They cost one matrix product (except for manhattan). For unit vectors and euclidean distance, |v - q|^2 / 2
        orders as |v|^2 / 2 - q v does.
        """
        mean, centred, half_square = self._centred
        if self.metric == "dot":
            return -(queries @ centred.T)
        queries = (unit(queries) if self.metric == "angular" else queries) - mean
        if self.metric == "manhattan":
            return np.abs(queries[:, None] - centred[None]).sum(axis=-1)
        return half_square - queries @ centred.T

    @cached_property
    def _centred(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The mean of the vectors, the vectors minus it, and half their squared lengths.

        The vectors of a city may all point in nearly the same direction; float32 could not tell their inner products
        apart. Subtracting the mean does not change their order.
        """
        vectors = unit(self.vectors) if self.metric == "angular" else self.vectors
        mean = vectors.mean(axis=0)
        return mean, vectors - mean, np.square(vectors - mean).sum(axis=1) / 2

    def _annoy_rows(self, queries: np.ndarray, k: int, search_k: int, allowed: np.ndarray | None) -> np.ndarray:
        """About the `k` nearest rows of each query, `(Q, k)`.

        Annoy has no filter: it is asked for more rows, and those that are not allowed are dropped. Queries for which
        too few are left, and all queries if few rows are allowed, are searched exactly.
        """
        asked = k
        if allowed is not None:
            asked = int(1.5 * k / max(allowed.mean(), 1e-9)) + 10
            if asked > max(10 * k, len(self.vectors) // 20):
                return self._exact_rows(queries, k, allowed)
        rows = np.full((len(queries), k), -1, dtype=np.int64)
        for i, query in enumerate(queries):
            effort = search_k if search_k > 0 else -1
            found = np.array(self.index.get_nns_by_vector(query.tolist(), asked, effort), dtype=np.int64)
            found = found if allowed is None else found[allowed[found]]
            if len(found) < min(k, len(self.vectors)):
                rows[i] = self._exact_rows(queries[i : i + 1], k, allowed)[0]
            else:
                rows[i, : min(k, len(found))] = found[:k]
        return rows


# --- similar places ----------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Answer:
    """The searched places most like a query, nearest first: `rows`, `distances` and `km` away from it, each `(n,)`."""

    rows: np.ndarray
    distances: np.ndarray
    km: np.ndarray


def similar_places(
    search: Search,
    vector: np.ndarray,
    k: int,
    latlon: np.ndarray,
    place: np.ndarray,
    *,
    min_km: float = 0.0,
    allowed: np.ndarray | None = None,
) -> Answer:
    """Up to `k` of the searched places that are most like `vector (D,)`, the vector of `place`.

    `latlon (N, 2)` are the searched places and `place (2,)` is where the query is, in degrees. Those closer to it than
    `min_km` are left out, and those where `allowed (N,) bool` is false.
    """
    km = great_circle_km(latlon, place)
    if min_km:
        far = km >= min_km
        allowed = far if allowed is None else allowed & far
    rows, distances = search.query(vector, min(k, len(search)), allowed=allowed)
    kept = rows[0] >= 0
    return Answer(rows[0][kept], distances[0][kept], km[rows[0][kept]])


def shared_layers(own: np.ndarray, others: np.ndarray, city: np.ndarray) -> list[list[str]]:
    """Layers of which a place and each of M others both show more than is usual in the city, at most `SHARED_LAYERS`.

    `own (L,)` and `others (M, L)` are mean intensities of their layers, `city (N, L)` those of all tiles with content.
    An intensity counts as its square root, in deviations from the city's mean. The layer that both places exceed most
    comes first.
    """
    usual, deviation = np.sqrt(city).mean(axis=0), np.sqrt(city).std(axis=0) + 1e-9
    excess = np.minimum((np.sqrt(own) - usual) / deviation, (np.sqrt(others) - usual) / deviation)
    return [[LAYERS[i] for i in np.argsort(-row, kind="stable")[:SHARED_LAYERS] if row[i] > 0] for row in excess]


def print_answer(
    answer: Answer,
    k: int,
    min_km: float,
    *,
    latlon: np.ndarray,
    layer: np.ndarray,
    zoom: int,
    shared: list[list[str]] | None = None,
) -> None:
    """Print a table of the places that were found, with coordinates, distances and a link to the map.

    `latlon (n, 2)` and the names `layer (n,)` are those of the found places, as is `shared` of `shared_layers`.
    """
    links = [map_link(lat, lon, zoom) for lat, lon in latlon]
    width = max(map(len, links), default=0)
    both = ["more than usual in both", *[", ".join(names) or "-" for names in shared]] if shared is not None else []
    ends = [f"  {text}" for text in both] or [""] * (len(links) + 1)
    head = f"{'':>4} {'latitude':>10} {'longitude':>11} {'distance':>9} {'km away':>8}  {'layer':<17} {'map':<{width}}"
    print((head + ends[0]).rstrip())
    found = zip(latlon, answer.distances, answer.km, layer, links, ends[1:], strict=True)
    for rank, ((lat, lon), distance, away, name, link, end) in enumerate(found, start=1):
        numbers = f"{rank:>4} {lat:>10.5f} {lon:>11.5f} {distance:>9.4f} {away:>8.2f}"
        print(f"{numbers}  {name:<17} {link:<{width}}{end}".rstrip())
    if len(links) < k:
        print(
            f"only {len(links)} places lie at least {min_km:g} km away" if min_km else f"only {len(links)} places fit"
        )


def map_link(lat: float, lon: float, zoom: int) -> str:
    """The address of a place on openstreetmap.org."""
    return f"https://www.openstreetmap.org/?mlat={lat:.5f}&mlon={lon:.5f}#map={zoom}/{lat:.5f}/{lon:.5f}"


# --- Annoy -------------------------------------------------------------------------------------------------


def annoy_available() -> bool:
    """Whether the Annoy library is installed."""
    return importlib.util.find_spec("annoy") is not None


def open_search(
    vectors: np.ndarray,
    *,
    metric: str = "angular",
    trees: int = DEFAULT_TREES,
    key: str | None = None,
    cache_dir: Path | str | None = None,
    seed: int = 42,
    exact: bool | None = None,
    force: bool = False,
) -> Search:
    """Search among `vectors (N, D)`: exact, or through an Annoy index that is built once and memory-mapped.

    `exact=None` searches exactly if there are fewer than `EXACT_BELOW` vectors or Annoy is not installed. The index
    is kept in `cache_dir` under `key` (the vectors' content), metric and trees; without these two it stays in memory.
    `force` builds it again.
    """
    started = time.perf_counter()
    if metric not in METRICS:
        raise UserError(f"metric {metric!r} is unknown; choose from {', '.join(METRICS)}")
    if exact is None:
        exact = len(vectors) < EXACT_BELOW or not annoy_available()
    if exact:
        search = Search(vectors, metric)
    elif key is None or cache_dir is None:
        search = Search(vectors, metric, _build_index(vectors, metric, trees, seed), trees)
        search.built = True
    else:
        search = _IndexFile(vectors, metric, trees, seed, key, Path(cache_dir)).open(force)
    search.seconds = time.perf_counter() - started
    return search


def is_index_cached(
    vectors: np.ndarray, *, metric: str, trees: int, key: str, cache_dir: Path | str, seed: int = 42
) -> bool:
    """Whether `open_search` with the same arguments would only read files."""
    if len(vectors) < EXACT_BELOW or not annoy_available():
        return True
    index = _IndexFile(vectors, metric, trees, seed, key, Path(cache_dir))
    return index.path.is_file() and load_intact(index.path.with_suffix(".l2v"), index.key) is not None


def _new_index(dimension: int, metric: Any) -> Any:
    try:
        from annoy import AnnoyIndex
    except ImportError as error:
        raise UserError("Annoy is not installed; run `pip install annoy`, or search exactly") from error
    return AnnoyIndex(dimension, metric)


def _build_index(vectors: np.ndarray, metric: str, trees: int, seed: int, path: Path | None = None) -> Any:
    """An Annoy index of the vectors, built in the file `path` or in memory."""
    index = _new_index(vectors.shape[1], metric)
    index.set_seed(seed)
    if path is not None:
        index.on_disk_build(str(path))
    for row, vector in enumerate(vectors):
        index.add_item(row, vector.tolist())
    index.build(trees, n_jobs=-1)
    return index


@dataclasses.dataclass(frozen=True)
class _IndexFile:
    """An Annoy index on disk, and a sidecar file with its settings, digest and quality.

    Annoy itself checks nothing: it would crash on a damaged file. `content` is the key of the vectors.
    """

    vectors: np.ndarray
    metric: str
    trees: int
    seed: int
    content: str
    cache_dir: Path

    @cached_property
    def settings(self) -> dict[str, Any]:
        """What the index is built from."""
        count, dimension = self.vectors.shape
        own = {"metric": self.metric, "trees": self.trees, "seed": self.seed, "content": self.content}
        return {"format": INDEX_FORMAT, "dimension": dimension, "count": count} | own

    @cached_property
    def key(self) -> str:
        return digest(self.settings)

    @cached_property
    def path(self) -> Path:
        return self.cache_dir / f"annoy-{self.metric}-{self.trees}-{self.key[:12]}.ann"

    def open(self, force: bool) -> Search:
        """Load the index; build it if it is not there or is damaged, or with `force`."""
        if not force and (search := self.load()) is not None:
            return search
        with locked(self.path.with_suffix(".lock")):
            if not force and (search := self.load()) is not None:  # another process built it meanwhile
                return search
            self.build()
            search = self.load()
            if search is None:
                raise WorkError(f"{self.path} could not be read after it was written; check the disk and run again")
            search.built = True
            return search

    def load(self) -> Search | None:
        """The index, memory-mapped; None if it is not there, or if any byte is not as written."""
        try:
            loaded = load_cache(self.path.with_suffix(".l2v"), self.key)
            if loaded is None or not self.path.is_file():
                return None
            if loaded[1]["digest"] != file_digest(self.path):
                raise DamagedFile(f"{self.path} does not hold what was written to it")
        except DamagedFile as error:
            warn(f"{error}; building the index again")
            return None
        index = _new_index(self.vectors.shape[1], self.metric)
        index.load(str(self.path))
        search = Search(self.vectors, self.metric, index, self.trees)
        search.quality = SearchQuality(**loaded[1]["quality"])
        return search

    def build(self) -> None:
        """Build and measure the index, and write it with its sidecar."""
        with atomic_path(self.path) as temporary:
            # Annoy writes through a memory map: on a full disk the system would end the process without a message.
            count, dimension = self.vectors.shape
            nodes = count + self.trees * (4 * count // (dimension + 2) + 2)  # at most; a leaf holds about D rows
            size = 1.4 * nodes * (4 * dimension + 24)  # Annoy grows its file in steps
            if shutil.disk_usage(self.path.parent).free < size:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
            index = _build_index(self.vectors, self.metric, self.trees, self.seed, temporary)
            quality = measure(Search(self.vectors, self.metric, index, self.trees), sample=200)
            index.unload()
            content = file_digest(temporary)
        meta = self.settings | {"digest": content, "quality": dataclasses.asdict(quality)}
        save_cache(self.path.with_suffix(".l2v"), self.key, {}, meta)


# --- quality -----------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class SearchQuality:
    """Share of true neighbours that a search finds, and the time of one query in milliseconds."""

    recall: float
    p50_ms: float
    p99_ms: float
    k: int = 10

    def __str__(self) -> str:
        return f"recall@{self.k} {self.recall:.3f}, {self.p50_ms:.2f} ms"


def measure(search: Search, sample: int = 500, k: int = 10, search_k: int = -1) -> SearchQuality:
    """Ask for the neighbours of `sample` vectors one by one, and compare with exact search.

    A vector is not its own neighbour here. Any vector as near as the true k-th neighbour counts as found, because the
    choice among equal tiles is arbitrary.
    """
    k = min(k, len(search) - 1)
    if k < 1:
        return SearchQuality(1.0, 0.0, 0.0, max(k, 0))
    rows = np.unique(np.linspace(0, len(search) - 1, min(sample, len(search))).astype(np.int64))
    truth, true_distances = Search(search.vectors, search.metric).query(search.vectors[rows], k + 1)
    farthest = _without(truth, true_distances, rows).max(axis=1)
    found, times = [], []
    for row in rows:
        started = time.perf_counter()
        answer = search.query(search.vectors[row], k + 1, search_k=search_k)
        times.append((time.perf_counter() - started) * 1000)
        found.append(_without(*answer, np.array([row]))[0])
    recall = float((np.array(found) <= farthest[:, None] + 1e-5).mean())
    return SearchQuality(recall, float(np.percentile(times, 50)), float(np.percentile(times, 99)), k)


def _without(rows: np.ndarray, found: np.ndarray, own: np.ndarray) -> np.ndarray:
    """Distances `(Q, k)` of `k + 1` neighbours without the query's `own` row; without the farthest if it is absent."""
    drop = np.where((rows == own[:, None]).any(axis=1), (rows == own[:, None]).argmax(axis=1), rows.shape[1] - 1)
    keep = np.arange(rows.shape[1]) != drop[:, None]
    return found[keep].reshape(len(rows), -1)


def arithmetic(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """The direction `a + b - c (D,)`, of unit length: like a, plus the difference between b and c.

    Raises `UserError` if the three cancel out.
    """
    result = np.asarray(a, dtype=np.float64) + b - c
    length = np.linalg.norm(result)
    if length < 1e-6:
        raise UserError("A + B - C leaves nothing: the three cancel out; choose other places")
    return (result / length).astype(np.float32)


def walk(search: Search, row_a: int, row_b: int, steps: int = 8) -> np.ndarray:
    """Rows on the way from one tile to another in vector space, both ends included: at most `steps + 2`, no repeats.

    Each step is the nearest unvisited tile to a point on the great circle between the two vectors.
    """
    a, b = unit(search.vectors[row_a]), unit(search.vectors[row_b])
    points = _slerp(a, b, np.arange(1, steps + 1) / (steps + 1))
    visited = [int(row_a), int(row_b)]
    for row_candidates in search.query(points, min(steps + 2, len(search)))[0]:
        fresh = row_candidates[(row_candidates >= 0) & ~np.isin(row_candidates, visited)]
        visited += fresh[:1].tolist()
    if row_a == row_b:
        return np.array([row_a], dtype=np.int64)
    return np.array([visited[0], *visited[2:], visited[1]], dtype=np.int64)


def _slerp(a: np.ndarray, b: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Points `(n, D)` at `shares (n,)` of the way along the great circle from `a` to `b`, both of unit length."""
    angle = np.arccos(np.clip(a @ b, -1, 1))
    if np.sin(angle) < 1e-6:  # equal or opposite directions: no single great circle is shortest
        return unit(np.outer(1 - shares, a) + np.outer(shares, b))
    return (np.outer(np.sin((1 - shares) * angle), a) + np.outer(np.sin(shares * angle), b)) / np.sin(angle)
