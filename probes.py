"""Probes of vectors under spatially blocked cross-validation: ridge, nearest neighbours, logistic regression.

Not a command; `python evaluate.py` runs them.
"""

import dataclasses
import warnings
from collections.abc import Iterator

import numpy as np
import torch
from scipy import stats

from cli import UserError
from label_tables import Target
from similarity import unit
from tile_grid import BLOCK, blocks_of, near_any

BUFFER = 2  # tiles around test blocks that no probe is trained on
FOLDS = 5
NEIGHBOURS = 10
ALPHAS = np.logspace(-4, 3, 15)  # ridge penalty per training tile
LOGISTIC_C = 0.1
MIN_TEST = 10  # tiles; a fold with fewer is not scored


@dataclasses.dataclass(frozen=True)
class Candidate:
    """Vectors to evaluate: `vectors (N, D)` under a name.

    `metric` says how they are compared: "cosine" as they are, "standardised" for plain features, which are
    standardised first.
    """

    name: str
    vectors: np.ndarray
    metric: str = "standardised"


# --- folds -------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Folds:
    """`fold (N,)` of each tile, and for each fold which tiles a probe may be trained on, `train (F, N) bool`."""

    fold: np.ndarray
    train: np.ndarray

    def parts(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """`(train, test)` masks of each fold."""
        for i, train in enumerate(self.train):
            yield train, self.fold == i

    def of(self, known: np.ndarray) -> "Folds":
        """The same folds of some of the tiles."""
        return Folds(self.fold[known], self.train[:, known])


def blocked_folds(tile_xy: np.ndarray, seed: int, richness: np.ndarray | None = None) -> Folds:
    """Five folds of whole 12 x 12 blocks, with a two-tile buffer.

    Blocks are sorted by `richness (N,)`, the number of labels known on a tile, and each five in a row go to five
    different folds, so that no fold is left without labels. Raises `UserError` for an area of fewer than five blocks.
    """
    labels = blocks_of(tile_xy, BLOCK)
    weight = np.bincount(labels, np.ones(len(labels)) if richness is None else richness)
    blocks = np.unique(labels)
    if len(blocks) < FOLDS:
        raise UserError(
            f"{len(tile_xy):,} tiles with content in {len(blocks)} blocks of {BLOCK} x {BLOCK}; {FOLDS} are needed"
            " for blocked cross-validation; render a larger area (`python render_tiles.py CITY.osm.pbf --bbox ...`)"
        )
    rng = np.random.default_rng([seed, 0xB1])
    order = blocks[np.argsort(-weight[blocks], kind="stable")]
    fold_of_block = np.zeros(labels.max() + 1, dtype=np.int64)
    for first in range(0, len(order), FOLDS):
        few = order[first : first + FOLDS]
        fold_of_block[few] = rng.permutation(FOLDS)[: len(few)]
    fold = fold_of_block[labels]
    train = np.stack([~near_any(tile_xy, tile_xy[fold == i], BUFFER) for i in range(FOLDS)])
    return Folds(fold, train)


def richness(targets: list[Target]) -> np.ndarray:
    """How many labels say something about each tile, `(N,)`: known ones, and counts above zero."""
    return np.sum([target.known & (target.values != 0) for target in targets], axis=0).astype(np.float64)


def random_folds(count: int, seed: int) -> Folds:
    """Five random folds without a buffer. They show what leaks when neighbours are on both sides."""
    fold = np.random.default_rng([seed, 0xB2]).permutation(count) % FOLDS
    return Folds(fold, np.stack([fold != i for i in range(FOLDS)]))


# --- probes ------------------------------------------------------------------------------------------------


def standardise(vectors: np.ndarray, train: np.ndarray) -> np.ndarray:
    """All vectors, centred and scaled by mean and deviation of the training part alone."""
    part = vectors[train]
    scale = part.std(axis=0)
    return (vectors - part.mean(axis=0)) / np.where(scale > 1e-8, scale, 1)


def r2(truth: np.ndarray, predicted: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """Share of each column's variance that is explained; `truth (m, T)`, `predicted (..., m, T)`.

    The error is divided by the variance `(T,)` over all evaluated tiles, not over one fold: a quarter in which a label
    hardly varies would otherwise outweigh all others. The mean over folds is the R2 of all held-out predictions
    together.
    """
    error = ((truth - predicted) ** 2).mean(axis=-2)
    return 1 - error / np.where(variance > 0, variance, np.nan)


def ridge_all(x: np.ndarray, y: np.ndarray, x_test: np.ndarray) -> np.ndarray:
    """Ridge predictions for every penalty: `x (n, D)`, `y (n, T)`, `x_test (m, D)` to `(A, m, T)`.

    One eigendecomposition serves all penalties and labels, which is many times faster than scikit-learn's solver.
    """
    center = y.mean(axis=0)
    values, basis = np.linalg.eigh(x.T @ x)
    weights, test = basis.T @ (x.T @ (y - center)), x_test @ basis
    shrunk = 1 / (np.maximum(values, 0)[None] + ALPHAS[:, None] * len(x))  # (A, D)
    return np.stack([test @ (s[:, None] * weights) for s in shrunk]) + center


def ridge_scores(vectors: np.ndarray, values: np.ndarray, folds: Folds) -> np.ndarray:
    """R2 of ridge regression on each fold, `(F, T)`: the penalty is chosen on the other folds for each label."""
    scores, variance = np.full((FOLDS, values.shape[1]), np.nan), values.var(axis=0)
    for i, (train, test) in enumerate(folds.parts()):
        if test.sum() < MIN_TEST or train.sum() < 2 * FOLDS:
            continue
        x = standardise(vectors, train)
        inner = []
        for j, (inner_train, inner_test) in enumerate(folds.parts()):
            fit, check = train & inner_train, train & inner_test
            if j != i and check.sum() >= MIN_TEST and fit.sum() >= MIN_TEST:
                inner.append(r2(values[check], ridge_all(x[fit], values[fit], x[check]), variance))
        if inner:
            best = np.nan_to_num(np.mean(inner, axis=0)).argmax(axis=0)
        else:
            best = np.full(values.shape[1], len(ALPHAS) // 2)
        outer = r2(values[test], ridge_all(x[train], values[train], x[test]), variance)
        scores[i] = outer[best, np.arange(len(best))]
    return scores


def nearest(queries: np.ndarray, others: np.ndarray, k: int) -> np.ndarray:
    """Positions of the `k` nearest `others (M, D)` to each of `queries (Q, D)`, Euclidean: `(Q, k)`."""
    points = torch.from_numpy(np.ascontiguousarray(others, dtype=np.float32))
    half = points.square().sum(1) / 2
    chunks = torch.from_numpy(np.ascontiguousarray(queries, dtype=np.float32)).split(1024)
    return torch.cat([(q @ points.T - half).topk(min(k, len(points)), dim=1).indices for q in chunks]).numpy()


def neighbour_means(
    vectors: np.ndarray, values: np.ndarray, folds: Folds, metric: str
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Fold number, its test tiles and the means `(m, T)` of `values` over their ten nearest training tiles.

    `metric`: "cosine" compares the vectors as they are, "standardised" standardises them on the training part first
    and then takes Euclidean distances, "standardised cosine" the angle between them.
    """
    for i, (train, test) in enumerate(folds.parts()):
        if test.sum() >= MIN_TEST and train.sum() >= NEIGHBOURS:
            x = standardise(vectors, train) if metric.startswith("standardised") else vectors
            x = unit(x) if metric.endswith("cosine") else x  # of unit vectors, nearest means smallest angle
            yield i, test, values[train][nearest(x[test], x[train], NEIGHBOURS)].mean(axis=1)


def knn_scores(vectors: np.ndarray, values: np.ndarray, folds: Folds, metric: str = "standardised") -> np.ndarray:
    """R2 of the mean of the ten nearest training tiles, on each fold, `(F, T)`; see `neighbour_means` for `metric`."""
    scores = np.full((FOLDS, values.shape[1]), np.nan)
    for i, test, predicted in neighbour_means(vectors, values, folds, metric):
        scores[i] = r2(values[test], predicted, values.var(axis=0))
    return scores


def knn_class_scores(vectors: np.ndarray, codes: np.ndarray, folds: Folds, metric: str) -> np.ndarray:
    """Macro F1 of the most frequent class among the ten nearest training tiles, on each fold, `(F,)`."""
    from sklearn.metrics import f1_score

    scores = np.full(FOLDS, np.nan)
    for i, test, votes in neighbour_means(vectors, np.eye(codes.max() + 1)[codes], folds, metric):
        scores[i] = f1_score(codes[test], votes.argmax(axis=1), average="macro", zero_division=0)
    return scores


def logistic_scores(vectors: np.ndarray, codes: np.ndarray, folds: Folds) -> np.ndarray:
    """Macro F1 of multinomial logistic regression on each fold, `(F,)`."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import f1_score

    scores = np.full(FOLDS, np.nan)
    for i, (train, test) in enumerate(folds.parts()):
        if test.sum() >= MIN_TEST and len(np.unique(codes[train])) > 1:
            x = standardise(vectors, train).astype(np.float32)
            probe = LogisticRegression(C=LOGISTIC_C, tol=1e-3, max_iter=200)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                probe.fit(x[train], codes[train])
            scores[i] = f1_score(codes[test], probe.predict(x[test]), average="macro", zero_division=0)
    return scores


# --- differences -------------------------------------------------------------------------------------------


def corrected_error(differences: np.ndarray) -> float:
    """Standard error of the mean of paired differences over folds, NaN if there are fewer than two.

    It is larger than the plain one, because the folds share training tiles (Nadeau and Bengio 2003).
    """
    known = differences[~np.isnan(differences)]
    if len(known) < 2:
        return float("nan")
    return float(np.sqrt((1 / len(known) + 1 / (FOLDS - 1)) * known.var(ddof=1)))


def corrected_p(differences: np.ndarray) -> float:
    """Two-sided p value of a paired t-test over folds with the corrected error (Nadeau and Bengio 2003)."""
    known, error = differences[~np.isnan(differences)], corrected_error(differences)
    if not error > 0:
        return float("nan")
    return float(2 * stats.t.sf(abs(known.mean()) / error, df=len(known) - 1))
