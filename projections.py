"""PCA, t-SNE and UMAP of vectors in 2-D and 3-D, cached, with progress and a measure of how faithful each is.

Not a command. `python precompute_embeddings.py` fills the cache, and every viewer shows the points.
"""

import contextlib
import dataclasses
import difflib
import io
import itertools
import re
import sys
import time
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple, override

import numpy as np
from tqdm import tqdm

from cache_files import load_intact, save_cache
from cli import UserError
from files import digest
from progress_bars import progress as progress_bar
from vectors import distinct_rows, k_means, principal_components

PROJECTION_FORMAT = 1

TRUST_NEIGHBOURS = 10
TRUST_EXACT = 3_000  # up to this many points, all are judged
TRUST_SAMPLE = 1_000  # with more, this many are judged against all others
FEWEST_POINTS = 5  # with fewer distinct vectors PCA replaces t-SNE and UMAP, which have nothing to arrange
_EXAGGERATED_ITERATIONS = 250  # of t-SNE, before those that the user sets
_PLACE_AT_ONCE = 4_000  # vectors
_THREADS_FROM = 4_000  # with fewer vectors, t-SNE's threads wait for each other longer than they work

Progress = Callable[[float], None]  # gets shares from 0 to 1
Fit = tuple[np.ndarray, Callable[[np.ndarray], np.ndarray], dict[str, Any]]  # points, placing more, settings used
FitFunction = Callable[[np.ndarray, int, int, dict[str, Any], Progress], Fit]


class Setting(NamedTuple):
    """The default of a setting and the least and largest value that it may have; its type is that of the default."""

    default: float
    low: float
    high: float


@dataclasses.dataclass(frozen=True)
class Algorithm:
    """A way to project vectors; an entry of `ALGORITHMS` is all that a new one needs.

    `fit` gets distinct vectors `(N, D)`, the dimensions d (2 or 3), a seed, settings, and a function that it tells its
    progress. It returns points `(N, d)`, a function that places further vectors among them, and the settings that it
    used. None means principal components, which need no fit. With more than `most[d]` distinct vectors, a sample of
    this size is fitted and the rest is placed among it. `seconds` for each fitted vector serve to estimate times
    (docs/speed.md).
    """

    title: str
    seconds: float
    fit: FitFunction | None = None
    settings: dict[str, Setting] = dataclasses.field(default_factory=dict)
    most: dict[int, int] = dataclasses.field(default_factory=lambda: {2: sys.maxsize, 3: sys.maxsize})


@dataclasses.dataclass(frozen=True)
class Projection:
    """Points of N vectors in the plane or in space.

    `points (N, d) float32`; equal vectors have equal points. `settings` are those that were used: a perplexity that is
    too large for the number of points is lowered. `trustworthiness` (Venna and Kaski 2001; 1 is best, ten neighbours)
    says how far neighbours in the picture are true neighbours. `explained (d,)` is each axis's share of the variance,
    for PCA only. `fitted` counts the distinct vectors that were fitted; the rest were placed among them.
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
    """Project `vectors (N, D)` with one of `ALGORITHMS`; the points are equal for an equal seed.

    With `cache_dir` and `key` (the name of the vectors' content) the result is kept there and read back; `force`
    computes it again. `progress` gets shares from 0 to 1 and may raise to cancel; without it a bar on stderr shows
    them. Raises `UserError` for unknown algorithms, dimensions and settings, and for vectors that are not finite.
    """
    settings = checked_settings(algorithm, settings, dimensions)
    path, full_key = _cache_place(cache_dir, key, algorithm, dimensions, seed, settings)
    found = None if force else _read(path, full_key, len(vectors))
    if found is not None:
        return found
    vectors = _checked_vectors(vectors)
    if progress is not None:
        projection = _compute(vectors, algorithm, dimensions, seed, settings, progress)
    else:
        with progress_bar(total=100, desc=f"{TITLES[algorithm]} {dimensions}-D", unit="%") as bar:

            def show(share: float) -> None:
                bar.update(max(0, round(100 * share) - bar.n))

            projection = _compute(vectors, algorithm, dimensions, seed, settings, show)
    if path is not None:
        fields = {field.name: getattr(projection, field.name) for field in dataclasses.fields(projection)}
        arrays = {name: fields.pop(name) for name in ("points", "explained")}
        save_cache(path, full_key, {name: array for name, array in arrays.items() if array is not None}, fields)
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
    """Whether `project` with the same arguments would only read a file."""
    settings = checked_settings(algorithm, settings, dimensions)
    path, full_key = _cache_place(cache_dir, key, algorithm, dimensions, seed, settings)
    return _read(path, full_key, len(vectors)) is not None


def checked_settings(algorithm: str, settings: dict[str, Any] | None = None, dimensions: int = 2) -> dict[str, Any]:
    """The algorithm's settings with defaults filled in. Raises `UserError` for unknown names and values."""
    if algorithm not in ALGORITHMS:
        hint = _did_you_mean(str(algorithm).upper().replace("-", ""), ALGORITHMS)
        raise UserError(f"unknown projection {algorithm!r}; expected one of {', '.join(ALGORITHMS)}{hint}")
    if dimensions not in (2, 3):
        raise UserError(f"a projection to {dimensions} dimensions was requested; expected 2 or 3")
    defaults, settings = DEFAULT_SETTINGS[algorithm], settings or {}
    for name, value in settings.items():
        if name not in defaults:
            known, hint = ", ".join(defaults) or "none", _did_you_mean(name, defaults)
            raise UserError(f"{TITLES[algorithm]} has no setting {name!r}; it has {known}{hint}")
        _, low, high = ALGORITHMS[algorithm].settings[name]
        number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
        if not (number and low <= value <= high):
            raise UserError(f"{name} of {TITLES[algorithm]} is {value!r}; expected a number from {low} to {high}")
    return {name: type(default)(settings.get(name, default)) for name, default in defaults.items()}


def _did_you_mean(word: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _checked_vectors(vectors: np.ndarray) -> np.ndarray:
    vectors = np.ascontiguousarray(vectors, dtype=np.float32)
    if vectors.ndim != 2 or not len(vectors):
        raise UserError(f"there are no vectors to project (shape {vectors.shape}); at least one tile needs content")
    if not np.isfinite(vectors).all():
        broken = int((~np.isfinite(vectors)).any(axis=1).sum())
        raise UserError(f"{broken:,} of {len(vectors):,} vectors are not finite; train the encoder again")
    return vectors


# --- computing ---------------------------------------------------------------------------------------------


def _compute(
    vectors: np.ndarray, algorithm: str, dimensions: int, seed: int, settings: dict[str, Any], report: Progress
) -> Projection:
    started = time.perf_counter()
    report(0.0)
    first, inverse = distinct_rows(vectors)
    distinct, fitted, explained = vectors[first], len(first), None
    fit, most = ALGORITHMS[algorithm].fit, ALGORITHMS[algorithm].most[dimensions]
    if fit is None:
        points, explained = principal_components(vectors, dimensions)
        points = points[first]
    elif len(distinct) < FEWEST_POINTS:
        points, _ = principal_components(distinct, dimensions)
    else:
        points, settings, fitted = _fit_and_place(distinct, fit, most, dimensions, seed, settings, report)
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


def _fit_and_place(
    vectors: np.ndarray,
    fit: FitFunction,
    most: int,
    dimensions: int,
    seed: int,
    settings: dict[str, Any],
    report: Progress,
) -> tuple[np.ndarray, dict[str, Any], int]:
    """Fit at most `most` of the distinct `vectors`, and place the rest among these.

    Returns all points, the settings that were used, and how many vectors were fitted.
    """
    chosen = np.zeros(len(vectors), dtype=bool)
    count = min(most, len(vectors))
    chosen[np.random.default_rng([seed, 1]).choice(len(vectors), count, replace=False)] = True
    fitted, rest = np.flatnonzero(chosen), np.flatnonzero(~chosen)
    after = 0.8 if len(rest) else 0.98  # progress when the fit is done

    def report_fit(share: float) -> None:
        report(share * after)

    points = np.empty((len(vectors), dimensions))
    points[fitted], place, settings = fit(vectors[fitted], dimensions, seed, settings, report_fit)
    for start in range(0, len(rest), _PLACE_AT_ONCE):
        rows = rest[start : start + _PLACE_AT_ONCE]
        points[rows] = place(vectors[rows])
        report(after + (0.98 - after) * (start + len(rows)) / len(rest))
    return points, settings, count


def _start_points(vectors: np.ndarray, dimensions: int, seed: int, spread: float) -> np.ndarray:
    """Where a fit starts: the vectors' PCA, its first axis `spread` wide, and a little noise against ties."""
    scores, _ = principal_components(vectors, dimensions)
    noise = np.random.default_rng([seed, 2]).normal(size=scores.shape)
    return (scores / max(scores[:, 0].std(), 1e-12) + 1e-3 * noise) * spread


def _fit_tsne(vectors: np.ndarray, dimensions: int, seed: int, settings: dict[str, Any], report: Progress) -> Fit:
    """t-SNE (van der Maaten and Hinton 2008) by openTSNE, which reports, can be stopped, and places further points."""
    import openTSNE

    iterations = settings["iterations"]
    perplexity = min(settings["perplexity"], (len(vectors) - 1) / 3)
    jobs = -1 if len(vectors) > _THREADS_FROM else 1  # the points are the same either way
    # Named, the exact search does not import the approximate one, which compiles itself when it is first used.
    nearest = openTSNE.nearest_neighbors.Sklearn(
        vectors, min(len(vectors) - 1, int(3 * perplexity)), metric="euclidean", n_jobs=jobs
    )
    affinities = openTSNE.affinity.PerplexityBasedNN(perplexity=perplexity, knn_index=nearest, n_jobs=jobs)
    calls = itertools.count(1)  # openTSNE's own count starts again after the exaggerated phase

    def report_iterations(*_: Any) -> None:
        report(min(1.0, 10 * next(calls) / (_EXAGGERATED_ITERATIONS + iterations)))

    layout = openTSNE.TSNE(
        dimensions,
        n_iter=iterations,
        early_exaggeration_iter=_EXAGGERATED_ITERATIONS,
        initialization=_start_points(vectors, dimensions, seed, 1e-4),
        negative_gradient_method="bh",
        random_state=seed,
        n_jobs=jobs,
        callbacks=report_iterations,
        callbacks_every_iters=10,
    ).fit(affinities=affinities)

    def place(vectors: np.ndarray) -> np.ndarray:
        placed = layout.prepare_partial(vectors, initialization="median", k=10, perplexity=min(5, perplexity))
        placed.callbacks = placed.gradient_descent_params["callbacks"] = None
        return np.asarray(placed.optimize(100, learning_rate=0.1, momentum=0.8))

    return np.asarray(layout), place, settings | {"perplexity": perplexity}


def _fit_umap(vectors: np.ndarray, dimensions: int, seed: int, settings: dict[str, Any], report: Progress) -> Fit:
    """UMAP (McInnes, Healy and Melville 2018), on one core: otherwise it is not equal for an equal seed."""
    report(0.05)
    with warnings.catch_warnings():  # on import it warns that TensorFlow is missing, which nothing here uses
        warnings.simplefilter("ignore", ImportWarning)
        import umap
    neighbours = min(settings["n_neighbors"], len(vectors) - 1)
    progress_file = _UmapProgress(lambda share: report(0.1 + 0.9 * share))
    model = umap.UMAP(
        n_components=dimensions,
        n_neighbors=neighbours,
        min_dist=settings["min_dist"],
        init=_start_points(vectors, dimensions, seed, 5.0).astype(np.float32),
        random_state=seed,
        transform_seed=seed,
        n_jobs=1,
        tqdm_kwds={"disable": False, "file": progress_file, "bar_format": "{n_fmt}/{total_fmt}\n", "mininterval": 0.2},
    )
    try:
        points = model.fit_transform(vectors)
    except BaseException:
        # tqdm keeps its lock when the file that it writes to raises; without this, all other bars would wait for ever
        with contextlib.suppress(RuntimeError, AssertionError):  # raised if this thread does not hold the lock
            tqdm.get_lock().release()
        raise
    progress_file.report = None
    return points, model.transform, settings | {"n_neighbors": neighbours}


class _UmapProgress(io.TextIOBase):
    """The "file" to which UMAP's progress bar writes `epoch/epochs`: the only way to follow and to stop UMAP."""

    def __init__(self, report: Progress):
        self.report: Progress | None = report

    @override
    def write(self, text: str) -> int:
        counted = re.search(r"(\d+)/(\d+)", text)
        if counted and self.report:
            self.report(int(counted[1]) / int(counted[2]))
        return len(text)


ALGORITHMS = {
    "PCA": Algorithm("PCA", 4e-5),
    "TSNE": Algorithm(
        "t-SNE",
        2.4e-3,
        _fit_tsne,
        {"perplexity": Setting(30.0, 1.0, 500.0), "iterations": Setting(500, 50, 10_000)},
        {2: 12_000, 3: 6_000},
    ),
    "UMAP": Algorithm(
        "UMAP",
        2.1e-3,
        _fit_umap,
        {"n_neighbors": Setting(15, 2, 500), "min_dist": Setting(0.1, 0.0, 0.99)},
        {2: 30_000, 3: 30_000},
    ),
}
TITLES = {name: algorithm.title for name, algorithm in ALGORITHMS.items()}
DEFAULT_SETTINGS = {
    name: {key: setting.default for key, setting in algorithm.settings.items()}
    for name, algorithm in ALGORITHMS.items()
}


# --- how faithful ------------------------------------------------------------------------------------------


def trustworthiness(vectors: np.ndarray, points: np.ndarray, *, seed: int = 42) -> float:
    """Trustworthiness of `points (N, d)` as a picture of `vectors (N, D)`: 1 if it shows no false neighbours.

    1 - 2 / (n k (2N - 3k - 1)) times the sum, over n points and the k neighbours of each in the picture, of how far
    beyond rank k that neighbour truly is. Up to 3,000 points all are judged, and the figure equals scikit-learn's.
    With more, 1,000 points drawn by `seed` are judged against all others, in less memory. With fewer than 4 points
    there are no false neighbours, and it is 1.
    """
    count = len(vectors)
    k = min(TRUST_NEIGHBOURS, (count - 1) // 2)
    if k < 1 or count < 4:
        return 1.0
    judged = np.arange(count)
    if count > TRUST_EXACT:
        judged = np.sort(np.random.default_rng([seed, 3]).choice(count, TRUST_SAMPLE, replace=False))
    vectors, points = np.asarray(vectors, dtype=np.float64), np.asarray(points, dtype=np.float64)
    beyond = 0
    for start in range(0, len(judged), 100):
        rows = judged[start : start + 100]
        shown = np.argpartition(_squared_distances(points, rows), k - 1, axis=1)[:, :k]  # (B, k) neighbours
        true = _squared_distances(vectors, rows)  # (B, N)
        reach = np.take_along_axis(true, shown, axis=1)
        closer = np.stack([np.count_nonzero(true < reach[:, [i]], axis=1) for i in range(k)], axis=1)
        beyond += int(np.maximum(closer + 1 - k, 0).sum())
    return float(1 - 2 * beyond / (len(judged) * k * (2 * count - 3 * k - 1)))


def _squared_distances(points: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """From `rows (B,)` to all points, `(B, N)`; infinite from a point to itself."""
    squared = (points**2).sum(axis=1)
    distances = points[rows] @ points.T
    distances *= -2
    distances += squared
    distances += squared[rows, None]
    distances[np.arange(len(rows)), rows] = np.inf
    return distances


# --- cache -------------------------------------------------------------------------------------------------


def _cache_place(
    cache_dir: Path | str | None, key: str | None, algorithm: str, dimensions: int, seed: int, settings: dict[str, Any]
) -> tuple[Path | None, str]:
    """The file of a projection, None if nothing is to be cached, and the key that its content must have."""
    full_key = digest("projection", PROJECTION_FORMAT, key, algorithm, dimensions, seed, settings)
    if cache_dir is None or key is None:
        return None, full_key
    return Path(cache_dir) / f"projection-{algorithm.lower()}-{dimensions}d-{full_key[:16]}.l2v", full_key


def _read(path: Path | None, key: str, count: int) -> Projection | None:
    """The projection of `count` vectors in the file `path`; None if there is no such projection."""
    loaded = load_intact(path, key, "computing it again") if path is not None else None
    if loaded is None or len(loaded[0]["points"]) != count:
        return None
    arrays, meta = loaded
    return Projection(points=arrays["points"], explained=arrays.get("explained"), **meta)


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

    There are at most as many clusters as distinct vectors. `cache_dir`, `key` and `force` work as in `project`.
    """
    if count < 1:
        raise UserError(f"{count} clusters were requested; expected at least 1")
    full_key = digest("clusters", PROJECTION_FORMAT, key, count, seed)
    path = None if cache_dir is None or key is None else Path(cache_dir) / f"clusters-{count}-{full_key[:16]}.l2v"
    loaded = None if force or path is None else load_intact(path, full_key, "computing it again")
    if loaded is not None and len(loaded[0]["labels"]) == len(vectors):
        return loaded[0]["labels"]
    labels = k_means(_checked_vectors(vectors), count, seed)
    if path is not None:
        save_cache(path, full_key, {"labels": labels})
    return labels
