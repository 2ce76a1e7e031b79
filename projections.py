"""PCA, t-SNE and UMAP of vectors in 2-D and 3-D, with progress, cached, each with how faithful it is; k-means clusters.

Not a command itself. `python precompute_embeddings.py` fills its cache, every viewer shows its points.
"""

import contextlib
import dataclasses
import difflib
import io
import re
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, override

import numpy as np
from tqdm import tqdm

from cache_files import DamagedFile, load_cache, save_cache
from cli import UserError
from files import digest
from progress_bars import progress as progress_bar
from progress_bars import warn
from vectors import distinct_rows, k_means, principal_components

ALGORITHMS = ("PCA", "TSNE", "UMAP")
TITLES = {"PCA": "PCA", "TSNE": "t-SNE", "UMAP": "UMAP"}
DEFAULT_SETTINGS: dict[str, dict[str, float]] = {
    "PCA": {},
    "TSNE": {"perplexity": 30.0, "iterations": 500},
    "UMAP": {"n_neighbors": 15, "min_dist": 0.1},
}
SETTING_RANGES = {
    "perplexity": (1.0, 500.0),
    "iterations": (50, 10_000),
    "n_neighbors": (2, 500),
    "min_dist": (0.0, 0.99),
}
# Above so many distinct vectors a sample of that size is fitted and the rest placed into the picture.
FIT_LIMIT = {"TSNE": {2: 12_000, 3: 6_000}, "UMAP": {2: 30_000, 3: 30_000}}
PROJECTION_FORMAT = 1

TRUST_NEIGHBOURS = 10
TRUST_SAMPLE = 1_000  # points judged against all others once there are more than TRUST_EXACT
TRUST_EXACT = 3_000
FEWEST_POINTS = 5  # with fewer distinct vectors t-SNE and UMAP have nothing to arrange: PCA stands in
_EXAGGERATED_ITERATIONS = 250
_PLACE_AT_ONCE = 4_000
_THREADS_FROM = 4_000  # below, t-SNE's threads wait for each other longer than they work

Progress = Callable[[float], None]


@dataclasses.dataclass(frozen=True)
class Projection:
    """Points of N vectors in the plane or in space.

    `points (N, d) float32`; equal vectors have equal points. `settings` are those that were used: a perplexity too
    large for so few points is lowered. `trustworthiness` (Venna and Kaski 2001; 1 is best, ten neighbours) tells how
    far neighbours in the picture are true neighbours. `explained (d,)` is each axis's share of the variance, PCA only.
    `fitted` counts the distinct vectors that shaped the picture; the rest were placed into it.
    """

    points: np.ndarray
    algorithm: str
    dimensions: int
    settings: dict[str, Any]
    trustworthiness: float
    seconds: float
    explained: np.ndarray | None = None
    fitted: int = 0


def project(
    vectors: np.ndarray,
    algorithm: str,
    dimensions: int = 2,
    *,
    seed: int = 42,
    settings: dict[str, Any] | None = None,
    cache_dir: Path | str | None = None,
    key: str | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> Projection:
    """Project `vectors (N, D)` with one of `ALGORITHMS`; equal for an equal seed.

    With `cache_dir` and `key` (the name of the vectors' content) the result is kept there and read back; `force`
    computes anew. `progress` gets shares from 0 to 1 while it runs and may raise to cancel; without it a bar on stderr
    shows them. Raises `UserError` for unknown algorithms, dimensions and settings and for vectors that are not numbers.
    """
    settings = checked_settings(algorithm, settings, dimensions)
    path, full_key = _cache_place(cache_dir, key, algorithm, dimensions, seed, settings)
    found = None if force or path is None else _read(path, full_key)
    if found is not None and len(found.points) == len(vectors):
        return found
    if progress is not None:
        projection = _compute(_checked_vectors(vectors), algorithm, dimensions, seed, settings, progress)
    else:
        with progress_bar(total=100, desc=f"{TITLES[algorithm]} {dimensions}-D", unit="%") as bar:
            report = _BarProgress(bar)
            projection = _compute(_checked_vectors(vectors), algorithm, dimensions, seed, settings, report)
    if path is not None:
        _write(path, full_key, projection)
    return projection


def is_cached(
    vectors: np.ndarray,
    algorithm: str,
    dimensions: int = 2,
    *,
    seed: int = 42,
    settings: dict[str, Any] | None = None,
    cache_dir: Path | str | None = None,
    key: str | None = None,
) -> bool:
    """Whether `project` with the same arguments only reads a file."""
    settings = checked_settings(algorithm, settings, dimensions)
    path, full_key = _cache_place(cache_dir, key, algorithm, dimensions, seed, settings)
    found = None if path is None else _read(path, full_key)
    return found is not None and len(found.points) == len(vectors)


def checked_settings(algorithm: str, settings: dict[str, Any] | None = None, dimensions: int = 2) -> dict[str, Any]:
    """The algorithm's settings with defaults filled in. Raises `UserError` for what it does not know."""
    if algorithm not in ALGORITHMS:
        close = difflib.get_close_matches(str(algorithm).upper().replace("-", ""), ALGORITHMS, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise UserError(f"unknown projection {algorithm!r}; expected one of {', '.join(ALGORITHMS)}{hint}")
    if dimensions not in (2, 3):
        raise UserError(f"a projection to {dimensions} dimensions was asked for; 2 or 3 can be shown")
    defaults = DEFAULT_SETTINGS[algorithm]
    for name, value in (settings or {}).items():
        _check_setting(algorithm, name, value)
    return {name: type(default)((settings or {}).get(name, default)) for name, default in defaults.items()}


def _check_setting(algorithm: str, name: str, value: Any) -> None:
    known = DEFAULT_SETTINGS[algorithm]
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise UserError(f"{TITLES[algorithm]} has no setting {name!r}; it has {', '.join(known) or 'none'}{hint}")
    low, high = SETTING_RANGES[name]
    number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    if not (number and low <= value <= high):
        raise UserError(f"{name} of {TITLES[algorithm]} is {value!r}; a number from {low} to {high} is expected")


def _checked_vectors(vectors: np.ndarray) -> np.ndarray:
    vectors = np.ascontiguousarray(vectors, dtype=np.float32)
    if vectors.ndim != 2 or not len(vectors):
        raise UserError(f"there are no vectors to project (shape {vectors.shape}); a tile with content is needed")
    if not np.isfinite(vectors).all():
        broken = int((~np.isfinite(vectors)).any(axis=1).sum())
        raise UserError(f"{broken:,} of {len(vectors):,} vectors are not finite numbers; train the encoder again")
    return vectors


class _BarProgress:
    """Shows shares from 0 to 1 on a bar of 100."""

    def __init__(self, bar: Any):
        self.bar = bar

    def __call__(self, share: float) -> None:
        self.bar.update(max(0, round(100 * share) - self.bar.n))


# --- computing ---------------------------------------------------------------------------------------------


def _compute(
    vectors: np.ndarray, algorithm: str, dimensions: int, seed: int, settings: dict[str, Any], report: Progress
) -> Projection:
    started = time.perf_counter()
    report(0.0)
    first, inverse = distinct_rows(vectors)
    distinct, fitted, explained = vectors[first], len(first), None
    if algorithm == "PCA":
        points, explained = principal_components(vectors, dimensions)
        points = points[first]
    elif len(distinct) < FEWEST_POINTS:
        points, _ = principal_components(distinct, dimensions)
    else:
        task = _Task(distinct, dimensions, seed, settings, report)
        points, settings = {"TSNE": _tsne, "UMAP": _umap}[algorithm](task)
        fitted = len(task.fitted)
    trust = trustworthiness(distinct, points, seed=seed)
    report(1.0)
    return Projection(
        points=np.ascontiguousarray(points[inverse], dtype=np.float32),
        algorithm=algorithm,
        dimensions=dimensions,
        settings=settings,
        trustworthiness=trust,
        seconds=time.perf_counter() - started,
        explained=explained,
        fitted=fitted,
    )


class _Task:
    """One picture to make: distinct `vectors`, those of them that are `fitted` and the `rest` that is placed."""

    def __init__(self, vectors: np.ndarray, dimensions: int, seed: int, settings: dict[str, Any], report: Progress):
        self.vectors, self.dimensions, self.seed = vectors, dimensions, seed
        self.settings, self.report = settings, report
        self.fitted = self.rest = np.arange(0)

    def split(self, limit: int) -> None:
        """Choose at most `limit` vectors to fit."""
        chosen = np.zeros(len(self.vectors), dtype=bool)
        count = min(limit, len(chosen))
        chosen[np.random.default_rng([self.seed, 1]).choice(len(chosen), count, replace=False)] = True
        self.fitted, self.rest = np.flatnonzero(chosen), np.flatnonzero(~chosen)

    def start(self, spread: float) -> np.ndarray:
        """Where the fitted points start: their PCA, its first axis `spread` wide, and a little noise against ties."""
        scores, _ = principal_components(self.vectors[self.fitted], self.dimensions)
        noise = np.random.default_rng([self.seed, 2]).normal(size=scores.shape)
        return (scores / max(scores[:, 0].std(), 1e-12) + 1e-3 * noise) * spread

    def join(self, fitted_points: np.ndarray, place: Callable[[np.ndarray], np.ndarray], after: float) -> np.ndarray:
        """All points: the fitted ones and, in chunks, the rest; progress goes on from `after`."""
        points = np.empty((len(self.vectors), self.dimensions))
        points[self.fitted] = fitted_points
        for first in range(0, len(self.rest), _PLACE_AT_ONCE):
            rows = self.rest[first : first + _PLACE_AT_ONCE]
            points[rows] = place(self.vectors[rows])
            self.report(after + (0.98 - after) * (first + len(rows)) / len(self.rest))
        return points


def _tsne(task: _Task) -> tuple[np.ndarray, dict[str, Any]]:
    """t-SNE (van der Maaten and Hinton 2008) by openTSNE, the one library that also reports, stops and places."""
    import openTSNE

    task.split(FIT_LIMIT["TSNE"][task.dimensions])
    fitted, iterations = task.vectors[task.fitted], task.settings["iterations"]
    perplexity = min(task.settings["perplexity"], (len(fitted) - 1) / 3)
    jobs = -1 if len(fitted) > _THREADS_FROM else 1  # the points are the same either way
    affinities = openTSNE.affinity.PerplexityBasedNN(
        fitted, perplexity=perplexity, method="exact", random_state=task.seed, n_jobs=jobs
    )
    after = 0.8 if len(task.rest) else 0.98
    layout = openTSNE.TSNE(
        task.dimensions,
        n_iter=iterations,
        early_exaggeration_iter=_EXAGGERATED_ITERATIONS,
        initialization=task.start(1e-4),
        negative_gradient_method="bh",
        random_state=task.seed,
        n_jobs=jobs,
        callbacks=_CountIterations(_EXAGGERATED_ITERATIONS + iterations, lambda share: task.report(share * after)),
        callbacks_every_iters=10,
    ).fit(affinities=affinities)
    points = task.join(np.asarray(layout), lambda vectors: _place_tsne(layout, vectors, perplexity), after)
    return points, task.settings | {"perplexity": perplexity}


def _place_tsne(layout: Any, vectors: np.ndarray, perplexity: float) -> np.ndarray:
    """Points of new vectors among those of a finished t-SNE."""
    placed = layout.prepare_partial(vectors, initialization="median", k=10, perplexity=min(5, perplexity))
    placed.callbacks = placed.gradient_descent_params["callbacks"] = None
    return np.asarray(placed.optimize(100, learning_rate=0.1, momentum=0.8))


class _CountIterations:
    """Turns openTSNE's calls, whose count starts again after the exaggerated phase, into one share."""

    def __init__(self, total: int, report: Progress):
        self.total, self.report, self.done = total, report, 0

    def __call__(self, *_: Any) -> None:
        self.done += 10
        self.report(min(1.0, self.done / self.total))


def _umap(task: _Task) -> tuple[np.ndarray, dict[str, Any]]:
    """UMAP (McInnes, Healy and Melville 2018), on one core: only so it is equal for an equal seed."""
    with warnings.catch_warnings():  # it announces on import that TensorFlow, which nothing here uses, is missing
        warnings.simplefilter("ignore", ImportWarning)
        import umap
    task.report(0.05)
    task.split(FIT_LIMIT["UMAP"][task.dimensions])
    fitted = task.vectors[task.fitted]
    neighbours = min(task.settings["n_neighbors"], len(fitted) - 1)
    after = 0.8 if len(task.rest) else 0.98
    sink = _UmapProgress(lambda share: task.report(0.1 + share * (after - 0.1)))
    model = umap.UMAP(
        n_components=task.dimensions,
        n_neighbors=neighbours,
        min_dist=task.settings["min_dist"],
        init=task.start(5.0).astype(np.float32),
        random_state=task.seed,
        transform_seed=task.seed,
        n_jobs=1,
        tqdm_kwds={"disable": False, "file": sink, "bar_format": "{n_fmt}/{total_fmt}\n", "mininterval": 0.2},
    )
    try:
        points = model.fit_transform(fitted)
    except BaseException:
        _free_bars()
        raise
    sink.report = None
    return task.join(points, model.transform, after), task.settings | {"n_neighbors": neighbours}


def _free_bars() -> None:
    """Give back tqdm's lock: its `refresh` keeps it when the file it writes to raises, and other bars would wait."""
    with contextlib.suppress(RuntimeError, AssertionError):  # what a lock says that this thread does not hold
        tqdm.get_lock().release()


class _UmapProgress(io.TextIOBase):
    """The "file" to which UMAP's own progress bar writes `epoch/epochs`: its only way to be heard and stopped."""

    def __init__(self, report: Progress):
        self.report: Progress | None = report

    @override
    def write(self, text: str) -> int:
        counted = re.search(r"(\d+)/(\d+)", text)
        if counted and self.report:
            self.report(int(counted[1]) / int(counted[2]))
        return len(text)


# --- how faithful ------------------------------------------------------------------------------------------


def trustworthiness(vectors: np.ndarray, points: np.ndarray, *, seed: int = 42) -> float:
    """Trustworthiness of `points (N, d)` as a picture of `vectors (N, D)`: 1 when no false neighbour appears.

    1 - 2 / (n k (2N - 3k - 1)) times the sum, over n points and the k neighbours of each in the picture, of how far
    beyond rank k that neighbour truly is. Up to 3,000 points all are judged and the figure is scikit-learn's; above,
    1,000 points drawn by `seed` are judged against all others. 1 by definition where fewer than 4 points leave no
    neighbour to be false.
    """
    count = len(vectors)
    k = min(TRUST_NEIGHBOURS, (count - 1) // 2)
    if k < 1 or count < 4:
        return 1.0
    judged = np.arange(count)
    if count > TRUST_EXACT:
        judged = np.sort(np.random.default_rng([seed, 3]).choice(count, TRUST_SAMPLE, replace=False))
    true, shown = _Distances(vectors), _Distances(points)
    beyond = sum(_ranks_beyond(true, shown, judged[i : i + 100], k) for i in range(0, len(judged), 100))
    return float(1 - 2 * beyond / (len(judged) * k * (2 * count - 3 * k - 1)))


def _ranks_beyond(true: "_Distances", shown: "_Distances", judged: np.ndarray, k: int) -> int:
    """Sum over `judged` points of how far beyond rank k their k neighbours in the picture truly are."""
    neighbours = np.argpartition(shown.of(judged), k - 1, axis=1)[:, :k]
    away = true.of(judged)
    reach = np.take_along_axis(away, neighbours, axis=1)  # (B, k)
    closer = np.stack([np.count_nonzero(away < reach[:, [i]], axis=1) for i in range(k)], axis=1)
    return int(np.maximum(closer + 1 - k, 0).sum())


class _Distances:
    """Squared distances between points."""

    def __init__(self, points: np.ndarray):
        self.points = np.asarray(points, dtype=np.float64)
        self.squared = (self.points**2).sum(axis=1)

    def of(self, rows: np.ndarray) -> np.ndarray:
        """From `rows (B,)` to all points, `(B, N)`; infinite to itself."""
        distances = self.points[rows] @ self.points.T
        distances *= -2
        distances += self.squared
        distances += self.squared[rows, None]
        distances[np.arange(len(rows)), rows] = np.inf
        return distances


# --- cache -------------------------------------------------------------------------------------------------


def _cache_place(
    cache_dir: Path | str | None, key: str | None, algorithm: str, dimensions: int, seed: int, settings: dict[str, Any]
) -> tuple[Path | None, str]:
    """The file of a projection, None when nothing is to be cached, and the key its content must have."""
    full_key = digest("projection", PROJECTION_FORMAT, key, algorithm, dimensions, seed, settings)
    if cache_dir is None or key is None:
        return None, full_key
    return Path(cache_dir) / f"projection-{algorithm.lower()}-{dimensions}d-{full_key[:16]}.l2v", full_key


def _write(path: Path, key: str, projection: Projection) -> None:
    meta = {field.name: getattr(projection, field.name) for field in dataclasses.fields(projection)}
    arrays = {"points": meta.pop("points")}
    if meta["explained"] is not None:
        arrays["explained"] = meta["explained"]
    del meta["explained"]
    save_cache(path, key, arrays, meta)


def _read(path: Path, key: str) -> Projection | None:
    loaded = _load(path, key)
    if loaded is None:
        return None
    arrays, meta = loaded
    return Projection(points=arrays["points"], explained=arrays.get("explained"), **meta)


def _load(path: Path, key: str) -> tuple[dict[str, np.ndarray], dict] | None:
    try:
        return load_cache(path, key)
    except DamagedFile as error:
        warn(f"{error}; computing it again")
        return None


# --- clusters ----------------------------------------------------------------------------------------------


def clusters(
    vectors: np.ndarray,
    count: int,
    *,
    seed: int = 42,
    cache_dir: Path | str | None = None,
    key: str | None = None,
    force: bool = False,
) -> np.ndarray:
    """k-means clusters of `vectors (N, D)` as labels `(N,) int32`: 0 is the largest; equal for an equal seed.

    There are at most as many clusters as distinct vectors. `cache_dir` and `key` work as in `project`.
    """
    if count < 1:
        raise UserError(f"{count} clusters were asked for; at least 1 is needed")
    full_key = digest("clusters", PROJECTION_FORMAT, key, count, seed)
    path = None if cache_dir is None or key is None else Path(cache_dir) / f"clusters-{count}-{full_key[:16]}.l2v"
    loaded = None if force or path is None else _load(path, full_key)
    if loaded is not None and len(loaded[0]["labels"]) == len(vectors):
        return loaded[0]["labels"]
    labels = k_means(_checked_vectors(vectors), count, seed)
    if path is not None:
        save_cache(path, full_key, {"labels": labels})
    return labels
