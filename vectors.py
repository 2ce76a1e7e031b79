"""Operations on a set of vectors: principal components, k-means clusters, effective rank, triplet accuracy.

Not a command. It needs NumPy only; scikit-learn is loaded when clusters are computed.
"""

from collections.abc import Iterable

import numpy as np

MINIBATCH_FROM = 20_000  # vectors; from here on k-means runs on mini-batches


def distinct_rows(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the distinct vectors in order of first occurrence, and the index of each vector among them."""
    as_bytes = np.ascontiguousarray(vectors).view(np.dtype((np.void, vectors.shape[1] * vectors.itemsize))).reshape(-1)
    _, first, inverse = np.unique(as_bytes, return_index=True, return_inverse=True)
    order = np.argsort(first)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    return first[order], rank[inverse.reshape(-1)]


def principal_components(vectors: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The first `count` principal components of `vectors (N, D)`: scores `(N, count)`, shares of variance `(count,)`.

    Components that do not exist (fewer vectors or dimensions than `count`) are 0. The sign is chosen so that the
    largest entry of each axis is positive. The eigenvectors of the covariance matrix are computed in float64.
    """
    centred = np.asarray(vectors, dtype=np.float64)
    centred = centred - centred.mean(axis=0)
    variance, axes = np.linalg.eigh(centred.T @ centred)
    variance, axes = np.maximum(variance[::-1], 0), axes[:, ::-1][:, :count]
    axes = axes * np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])])
    scores, explained = np.zeros((len(centred), count)), np.zeros(count)
    exists = variance[:count] > max(variance[0] * 1e-12, 1e-12)
    scores[:, : len(exists)] = np.where(exists, centred @ axes, 0)
    explained[: len(exists)] = np.where(exists, variance[:count], 0) / max(variance.sum(), 1e-300)
    return scores, explained


def k_means(vectors: np.ndarray, count: int, seed: int) -> np.ndarray:
    """k-means clusters of `vectors (N, D)` as labels `(N,) int32`; 0 is the largest cluster.

    The same seed gives the same labels. There are at most as many clusters as distinct vectors.
    """
    from sklearn.cluster import KMeans, MiniBatchKMeans

    count = min(count, len(distinct_rows(vectors)[0]))
    if len(vectors) > MINIBATCH_FROM:
        model = MiniBatchKMeans(count, random_state=seed, n_init=3, batch_size=4096)
    else:
        model = KMeans(count, random_state=seed, n_init=3)
    labels = model.fit_predict(vectors)
    by_size = np.argsort(-np.bincount(labels, minlength=count), kind="stable")
    rank = np.empty(count, dtype=np.int32)
    rank[by_size] = np.arange(count, dtype=np.int32)
    return rank[labels]


def centres(vectors: np.ndarray, labels: Iterable[int]) -> np.ndarray:
    """Row of the vector nearest to the mean of each cluster, `(K,) int64`."""
    vectors, labels = np.asarray(vectors, dtype=np.float64), np.asarray(labels)
    rows = []
    for label in range(labels.max() + 1):
        members = np.flatnonzero(labels == label)
        away = ((vectors[members] - vectors[members].mean(axis=0)) ** 2).sum(axis=1)
        rows.append(members[away.argmin()])
    return np.array(rows, dtype=np.int64)


def rank_me(vectors: np.ndarray) -> float:
    """Effective rank of `vectors (N, D)`: exp of the entropy of the singular values (Garrido et al. 2023, RankMe)."""
    values = np.linalg.svd(np.asarray(vectors, dtype=np.float64), compute_uv=False)
    share = values / max(values.sum(), 1e-12) + 1e-12
    return float(np.exp(-(share * np.log(share)).sum()))


def triplet_accuracy(anchor: np.ndarray, positive: np.ndarray, negative: np.ndarray) -> float:
    """Share of triplets, each `(B, D)`, whose anchor is closer to the positive than to the negative; ties count half.

    NaN without triplets.
    """
    near, far = (np.square(anchor - other).sum(axis=1) for other in (positive, negative))
    return float(((near < far) + 0.5 * (near == far)).mean()) if len(near) else float("nan")


# --- vectors in fewer bytes --------------------------------------------------------------------------------

DTYPES = ("float32", "float16", "int8")


def packed_vectors(vectors: np.ndarray, dtype: str) -> np.ndarray:
    """Unit vectors `(N, D) float32` as another type.

    For int8 each vector is scaled so that its largest number is 127. The cosine of two vectors does not depend on their
    lengths, so the scale need not be kept.
    """
    if dtype == "int8":
        largest = np.abs(vectors).max(axis=1, keepdims=True)
        return np.rint(vectors / np.where(largest > 0, largest, 1) * 127).astype(np.int8)
    return vectors.astype(dtype)


def unpacked_vectors(vectors: np.ndarray) -> np.ndarray:
    """Unit vectors `(N, D) float32` of what `packed_vectors` gave; float32 is returned as it is."""
    if vectors.dtype == np.float32:
        return vectors
    vectors = vectors.astype(np.float32)
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(length > 0, length, 1)
