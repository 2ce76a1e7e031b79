"""Search for the tiles most alike: Annoy indices and exact search behind one interface, with measured recall.

Not a command itself. `python precompute_embeddings.py --query 50.4501,30.5234 --k 10` searches.
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

from cache_files import DamagedFile, load_cache, save_cache
from cli import UserError
from files import atomic_path, digest, file_digest, locked
from progress_bars import warn

METRICS = ("angular", "euclidean", "manhattan", "dot")
DEFAULT_TREES = 100
INDEX_FORMAT = 1
EXACT_BELOW = 1000  # up to here comparing with every tile is as quick as any index
_BLOCK = 1 << 24  # numbers that an exact search holds at once


# --- exact search ------------------------------------------------------------------------------------------


def distances(queries: np.ndarray, vectors: np.ndarray, metric: str) -> np.ndarray:
    """Distance between each of `queries (..., D)` and `vectors (..., D)`, float32, broadcast; smaller is nearer.

    angular: the chord between the two directions, sqrt(2 - 2 cos), as Annoy has it. euclidean and manhattan: as ever.
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
    """Nearest neighbours among `vectors (N, D)`: through an Annoy index when one is given, else exactly.

    `kind` is "annoy" or "exact"; `quality` is what `measure` found when the index was built, if it was measured;
    `built` tells whether opening it built the index, `seconds` how long opening took.
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

        Only rows that `allowed (N,) bool` permits count; where fewer than `k` are left, row -1 at distance infinity
        fills up. `search_k` is Annoy's effort, -1 for trees * k. See `distances` for what they mean.
        """
        queries = np.atleast_2d(np.asarray(vectors, dtype=np.float32))
        self._check(queries, allowed)
        if self.index is None:
            return self._exact(queries, k, allowed)
        return self._approximate(queries, k, search_k, allowed)

    def _check(self, queries: np.ndarray, allowed: np.ndarray | None) -> None:
        if queries.shape[1] != self.vectors.shape[1]:
            raise UserError(
                f"the query has {queries.shape[1]} dimensions, the searched vectors have {self.vectors.shape[1]}; "
                "both must come from one checkpoint"
            )
        if not np.isfinite(queries).all():
            raise UserError("the query vector holds numbers that are not finite; train or choose another checkpoint")
        if allowed is not None and allowed.shape != (len(self.vectors),):
            raise ValueError(f"allowed has shape {allowed.shape}, expected ({len(self.vectors)},)")

    def _exact(self, queries: np.ndarray, k: int, allowed: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        rows = np.full((len(queries), k), -1, dtype=np.int64)
        kept = min(k, len(self))
        step = max(1, _BLOCK // max(1, self.vectors.size if self.metric == "manhattan" else len(self)))
        for start in range(0, len(queries) if kept else 0, step):
            block = slice(start, start + step)
            far = self._ranking.farness(queries[block])
            if allowed is not None:
                far[:, ~allowed] = np.inf
            found = np.argpartition(far, kept - 1, axis=1)[:, :kept]
            rows[block, :kept] = np.where(np.isfinite(np.take_along_axis(far, found, axis=1)), found, -1)
        return self._sorted(queries, rows)

    @cached_property
    def _ranking(self) -> "_Ranking":
        return _Ranking(self.vectors, self.metric)

    def _approximate(
        self, queries: np.ndarray, k: int, search_k: int, allowed: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Annoy knows no filter: ask it for more and drop what is not allowed; search exactly if too few are left."""
        share = 1.0 if allowed is None else allowed.mean()
        asked = k if allowed is None else int(1.5 * k / max(share, 1e-9)) + 10
        if allowed is not None and asked > max(10 * k, len(self.vectors) // 20):
            return self._exact(queries, k, allowed)
        rows = np.full((len(queries), k), -1, dtype=np.int64)
        short = []
        for i, query in enumerate(queries):
            effort = search_k if search_k > 0 else -1
            found = np.array(self.index.get_nns_by_vector(query.tolist(), asked, effort), dtype=np.int64)
            found = found if allowed is None else found[allowed[found]]
            rows[i, : min(k, len(found))] = found[:k]
            if len(found) < min(k, len(self.vectors)):
                short.append(i)
        if short:
            rows[short] = self._exact(queries[short], k, allowed)[0]
        return self._sorted(queries, rows)

    def _sorted(self, queries: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rows by true distance, ties by row number, -1 last."""
        found = distances(queries[:, None], self.vectors[rows], self.metric)
        found = np.where(rows >= 0, found, np.inf).astype(np.float32)
        order = np.lexsort((rows, found), axis=1)
        return np.take_along_axis(rows, order, axis=1), np.take_along_axis(found, order, axis=1)


class _Ranking:
    """Orders all vectors by their distance from a query, with one matrix product (but for manhattan).

    Vectors are taken from their mean: those of one city may all point much the same way, and float32 would not tell
    their inner products apart. The order stays what it was.
    """

    def __init__(self, vectors: np.ndarray, metric: str):
        self.metric = metric
        vectors = unit(vectors) if metric == "angular" else vectors
        self.mean = vectors.mean(axis=0)
        self.vectors = vectors - self.mean
        self.offset = np.square(self.vectors).sum(axis=1) / 2 if metric in ("angular", "euclidean") else 0

    def farness(self, queries: np.ndarray) -> np.ndarray:
        """A number `(Q, N)` that is larger for vectors farther from the query."""
        if self.metric == "dot":
            return -(queries @ self.vectors.T)
        queries = (unit(queries) if self.metric == "angular" else queries) - self.mean
        if self.metric == "manhattan":
            return np.abs(queries[:, None] - self.vectors[None]).sum(axis=-1)
        return self.offset - queries @ self.vectors.T


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

    `exact=None` searches exactly when there are fewer than `EXACT_BELOW` vectors or Annoy is not installed. The index
    lies in `cache_dir` under `key` (the vectors' content), metric and trees; without the two it stays in memory.
    """
    started = time.perf_counter()
    if metric not in METRICS:
        raise UserError(f"metric {metric!r} is unknown; choose from {', '.join(METRICS)}")
    if exact is None:
        exact = len(vectors) < EXACT_BELOW or not annoy_available()
    if exact:
        search = Search(vectors, metric)
    elif key is None or cache_dir is None:
        search = Search(vectors, metric, _build(vectors, metric, trees, seed), trees)
        search.built = True
    else:
        search = _IndexFile(vectors, metric, trees, key, Path(cache_dir), seed).open(force)
    search.seconds = time.perf_counter() - started
    return search


def _annoy(dimension: int, metric: str) -> Any:
    try:
        from annoy import AnnoyIndex
    except ImportError as error:
        raise UserError("Annoy is not installed; `pip install annoy`, or search exactly") from error
    return AnnoyIndex(dimension, metric)


def _build(vectors: np.ndarray, metric: str, trees: int, seed: int, path: Path | None = None) -> Any:
    """An Annoy index of the vectors, built in the file `path` or in memory."""
    index = _annoy(vectors.shape[1], metric)
    index.set_seed(seed)
    if path is not None:
        index.on_disk_build(str(path))
    for row, vector in enumerate(vectors):
        index.add_item(row, vector.tolist())
    index.build(trees, n_jobs=-1)
    return index


class _IndexFile:
    """An Annoy index on disk and the sidecar that says what it is: Annoy itself checks nothing and crashes."""

    def __init__(self, vectors: np.ndarray, metric: str, trees: int, key: str, cache_dir: Path, seed: int):
        self.vectors, self.metric, self.trees, self.seed = vectors, metric, trees, seed
        self.settings = {
            "format": INDEX_FORMAT,
            "metric": metric,
            "dimension": vectors.shape[1],
            "count": len(vectors),
            "trees": trees,
            "seed": seed,
            "content": key,
        }
        self.key = digest(self.settings)
        self.path = cache_dir / f"annoy-{metric}-{trees}-{self.key[:12]}.ann"
        self.sidecar = self.path.with_suffix(".l2v")

    def open(self, force: bool) -> Search:
        """Load the index, or build it when it is not there, not whole, or `force` asks for it."""
        search = None if force else self._load()
        if search is None:
            with locked(self.path.with_suffix(".lock")):
                search = None if force else self._load()
                if search is None:
                    self._write()
                    search = self._load()
                    search.built = True
        return search

    def _load(self) -> Search | None:
        """The index, memory-mapped, once the sidecar vouches for every byte of it."""
        try:
            loaded = load_cache(self.sidecar, self.key)
            if loaded is None or not self.path.is_file():
                return None
            if loaded[1]["digest"] != file_digest(self.path):
                raise DamagedFile(f"{self.path} does not hold what was written to it")
        except DamagedFile as error:
            warn(f"{error}; building the index again")
            return None
        index = _annoy(self.vectors.shape[1], self.metric)
        index.load(str(self.path))
        search = Search(self.vectors, self.metric, index, self.trees)
        search.quality = SearchQuality(**loaded[1]["quality"])
        return search

    def _check_room(self) -> None:
        """Annoy writes through memory: on a full disk the system would end the process without a word."""
        count, dimension = self.vectors.shape
        nodes = count + self.trees * (4 * count // (dimension + 2) + 2)  # at most; a leaf holds about `dimension` rows
        free = shutil.disk_usage(self.path.parent).free
        if free < 1.4 * nodes * (4 * dimension + 24):  # Annoy grows its file in steps
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))

    def _write(self) -> None:
        with atomic_path(self.path) as temporary:
            self._check_room()
            index = _build(self.vectors, self.metric, self.trees, self.seed, temporary)
            quality = measure(Search(self.vectors, self.metric, index, self.trees), sample=200)
            index.unload()
            content = file_digest(temporary)
        meta = self.settings | {"digest": content, "quality": dataclasses.asdict(quality)}
        save_cache(self.sidecar, self.key, {}, meta)


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

    A vector is not its own neighbour here, and one as near as the true k-th counts as found, whichever it is: among
    equal tiles the choice is arbitrary.
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
    """Distances `(Q, k)` of `k + 1` neighbours less the query's own row, or less the farthest if that is not there."""
    drop = np.where((rows == own[:, None]).any(axis=1), (rows == own[:, None]).argmax(axis=1), rows.shape[1] - 1)
    keep = np.arange(rows.shape[1]) != drop[:, None]
    return found[keep].reshape(len(rows), -1)


def arithmetic(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """The direction `a + b - c (D,)`, of unit length: like a, with what b has over c. Raises `UserError` if none is."""
    result = np.asarray(a, dtype=np.float64) + b - c
    length = np.linalg.norm(result)
    if length < 1e-6:
        raise UserError("A + B - C leaves nothing: the three cancel out; choose other places")
    return (result / length).astype(np.float32)


def walk(search: Search | np.ndarray, row_a: int, row_b: int, steps: int = 8) -> np.ndarray:
    """Rows on the way from one tile to another in vector space, both ends included: at most `steps + 2`, no repeats.

    Each step is the nearest tile not yet visited to a point of the great circle between the two vectors.
    """
    if not isinstance(search, Search):
        search = Search(search, "angular")
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
    if np.sin(angle) < 1e-6:  # the same direction, or opposite ones, between which no great circle is shortest
        return unit(np.outer(1 - shares, a) + np.outer(shares, b))
    return (np.outer(np.sin((1 - shares) * angle), a) + np.outer(np.sin(shares * angle), b)) / np.sin(angle)
