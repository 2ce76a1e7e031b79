"""Compare search indices on real vectors and on made-up ones like them: recall, time per query, build time, memory.

python tests/index_timing.py ASTANA.parquet ROTTERDAM.parquet --count 1000000
"""

import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from cli import Parser, positive_int, run_main
from exports import read_export

K = 10
QUERIES = 300


def main() -> None:
    """Print one line for each index and setting."""
    parser = Parser(__doc__)
    parser.add_argument("files", nargs="+", type=Path, help="what embed.py wrote")
    parser.add_argument("--count", type=positive_int, default=100_000, help="vectors to search among")
    parser.add_argument("--only", nargs="*", default=list(INDICES), help=f"of {' '.join(INDICES)}")
    args = parser.parse_args()
    exports = [read_export(path) for path in args.files]
    real = np.concatenate([export.vectors[~export.blank] for export in exports])
    near = exact(real, real, 9)
    vectors, queries = made_up(real, near, args.count), made_up(real, near, QUERIES, seed=1)
    truth = exact(vectors, queries)
    print(f"{len(real):,} real vectors, {len(vectors):,} searched, {vectors.shape[1]} numbers each; processor time")
    for name in args.only:
        for line in INDICES[name](vectors, queries, truth):
            print(line, flush=True)


def made_up(real: np.ndarray, near: np.ndarray, count: int, seed: int = 0) -> np.ndarray:
    """Vectors among real ones, `(count, D)` of unit length: a random mean of one and its eight nearest, and noise.

    `near (N, 9)` are the nearest of each of `real (N, D)`, itself included.
    The noise is a third as long as the distance to these, so that made-up vectors do not lie on a few lines.
    """
    rng, parts = np.random.default_rng(seed), []
    for first in range(0, count, 1 << 16):
        chosen = near[rng.integers(len(real), size=min(1 << 16, count - first))]
        around = real[chosen]  # (n, 9, D)
        found = np.einsum("nk,nkd->nd", rng.dirichlet(np.ones(9), len(chosen)).astype(np.float32), around)
        reach = np.linalg.norm(around[:, 1:] - around[:, :1], axis=2).mean(axis=1, keepdims=True) / 3
        found += reach * rng.standard_normal(found.shape, dtype=np.float32) / np.sqrt(found.shape[1])
        parts.append(found / np.linalg.norm(found, axis=1, keepdims=True))
    return np.concatenate(parts)


def exact(vectors: np.ndarray, queries: np.ndarray, k: int = K) -> np.ndarray:
    """The `k` nearest of each query by cosine, `(Q, k)`."""
    parts = []
    for first in range(0, len(queries), 100):
        likeness = queries[first : first + 100] @ vectors.T
        top = np.argpartition(-likeness, k, axis=1)[:, :k]
        order = np.argsort(-np.take_along_axis(likeness, top, axis=1), axis=1)
        parts.append(np.take_along_axis(top, order, axis=1))
    return np.concatenate(parts)


def report(
    name: str, build: float, size: int, search: Callable[[np.ndarray], Any], queries: np.ndarray, truth: np.ndarray
) -> str:
    """One line: what it is, and what it does."""
    search(queries[0])
    started = time.process_time()
    found = [np.asarray(search(query)).reshape(-1)[:K] for query in queries]
    spent = (time.process_time() - started) / len(queries)
    hits = [len(np.intersect1d(a, b)) for a, b in zip(found, truth, strict=True)]
    recall = sum(hits) / truth.size
    return f"{name:<40} recall@10 {recall:.3f}  {spent * 1e3:7.2f} ms  build {build:7.1f} s  {size / 1e6:8.1f} MB"


def saved_size(save: Callable[[str], Any]) -> int:
    """The size of the file that an index is saved to."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name, "index")
        save(str(path))
        return path.stat().st_size


def annoy(vectors: np.ndarray, queries: np.ndarray, truth: np.ndarray) -> Iterator[str]:
    """Annoy with 100 trees, as the project builds it."""
    from annoy import AnnoyIndex

    started, index = time.process_time(), AnnoyIndex(vectors.shape[1], "angular")
    for row, vector in enumerate(vectors):
        index.add_item(row, vector.tolist())
    index.build(100, n_jobs=1)
    build, size = time.process_time() - started, saved_size(index.save)
    for effort in (-1, 20_000):
        ask = lambda query, effort=effort: index.get_nns_by_vector(query.tolist(), K, effort)  # noqa: E731
        yield report(f"annoy, 100 trees, search_k {effort}", build, size, ask, queries, truth)


def usearch(vectors: np.ndarray, queries: np.ndarray, truth: np.ndarray) -> Iterator[str]:
    """USearch, half precision and int8."""
    from usearch.index import Index

    for dtype in ("f16", "i8"):
        started = time.process_time()
        index = Index(ndim=vectors.shape[1], metric="cos", dtype=dtype, connectivity=16, expansion_add=128)
        index.add(np.arange(len(vectors)), vectors, threads=1)
        build, size = time.process_time() - started, saved_size(index.save)
        for effort in (64, 128, 256):
            index.expansion_search = effort
            ask = lambda query, index=index: index.search(query, K, threads=1).keys  # noqa: E731
            yield report(f"usearch, {dtype}, expansion {effort}", build, size, ask, queries, truth)


def hnswlib(vectors: np.ndarray, queries: np.ndarray, truth: np.ndarray) -> Iterator[str]:
    """hnswlib, which knows float32 only."""
    import hnswlib as library

    started, index = time.process_time(), library.Index("ip", vectors.shape[1])
    index.init_index(len(vectors), M=16, ef_construction=128)
    index.add_items(vectors, num_threads=1)
    build, size = time.process_time() - started, saved_size(index.save_index)
    for effort in (64, 128, 256):
        index.set_ef(effort)
        ask = lambda query: index.knn_query(query, K, num_threads=1)[0]  # noqa: E731
        yield report(f"hnswlib, ef {effort}", build, size, ask, queries, truth)


def voyager(vectors: np.ndarray, queries: np.ndarray, truth: np.ndarray) -> Iterator[str]:
    """Voyager, 8-bit floating point."""
    from voyager import Index, Space, StorageDataType

    for kind in (StorageDataType.Float32, StorageDataType.E4M3):
        started = time.process_time()
        index = Index(Space.Cosine, vectors.shape[1], M=16, ef_construction=128, storage_data_type=kind)
        index.add_items(vectors, num_threads=1)
        build, size = time.process_time() - started, saved_size(index.save)
        for effort in (64, 256):
            ask = lambda query, index=index, effort=effort: index.query(query, K, query_ef=effort)[0]  # noqa: E731
            yield report(f"voyager, {kind.name}, ef {effort}", build, size, ask, queries, truth)


def faiss(vectors: np.ndarray, queries: np.ndarray, truth: np.ndarray) -> Iterator[str]:
    """faiss: graphs, and inverted lists of quantised vectors."""
    import faiss as library

    library.omp_set_num_threads(1)
    lists = 2 ** int(np.log2(4 * len(vectors) ** 0.5))
    for name in ("HNSW16,SQ8", f"IVF{lists},SQ8", f"IVF{lists},SQfp16"):
        started = time.process_time()
        index = library.index_factory(vectors.shape[1], name, library.METRIC_INNER_PRODUCT)
        index.train(vectors[:: max(1, len(vectors) // (lists * 40))])
        index.add(vectors)
        build, size = time.process_time() - started, saved_size(lambda path, i=index: library.write_index(i, path))
        setting = "efSearch" if name.startswith("HNSW") else "nprobe"
        for effort in (64, 128, 256) if name.startswith("HNSW") else (8, 16, 32, 64):
            library.ParameterSpace().set_index_parameter(index, setting, effort)
            ask = lambda query, index=index: index.search(query[None], K)[1]  # noqa: E731
            yield report(f"faiss {name}, {setting} {effort}", build, size, ask, queries, truth)


INDICES: dict[str, Callable[[np.ndarray, np.ndarray, np.ndarray], Iterator[str]]] = {
    "annoy": annoy,
    "usearch": usearch,
    "hnswlib": hnswlib,
    "voyager": voyager,
    "faiss": faiss,
}

if __name__ == "__main__":
    run_main(main)
