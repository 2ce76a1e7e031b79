"""Search in a dataset of millions of made-up vectors: building the index, memory, recall and time of a query.

python tests/large_dataset.py ASTANA.parquet ROTTERDAM.parquet --count 10000000 --folder build/large
"""

import json
import multiprocessing
import resource
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from cli import Parser, positive_int, run_main
from dataset_search import open_dataset
from embeddings import Embeddings
from exports import read_export
from index_timing import QUERIES, K, exact, made_up
from layers import LAYERS
from tile_grid import latlon_of_tile
from vector_dataset import FORMAT, DatasetFolder, part_bytes, part_name

SIDE = 256  # tiles of a part along its edges
CORNER = np.array([60000, 30000])  # the first tile, at zoom 17


def main() -> None:
    """Write the dataset if it is not there, then open it and search in it."""
    parser = Parser(__doc__)
    parser.add_argument("files", nargs="+", type=Path, help="what embed.py wrote")
    parser.add_argument("--count", type=positive_int, default=1_000_000, help="vectors, in whole parts of 65,536")
    parser.add_argument("--folder", type=Path, default=Path("build/large"), help="where to write the dataset")
    args = parser.parse_args()
    if not (args.folder / "_manifest.json").is_file():
        writer = multiprocessing.get_context("spawn").Process(target=write, args=(args.files, args.count, args.folder))
        writer.start()  # in a process of its own, so that its memory is not counted
        writer.join()
        if writer.exitcode:
            sys.exit(writer.exitcode)
    queries, truth = (np.load(args.folder.parent / f"{name}.npy") for name in ("queries", "truth"))

    search = open_dataset(args.folder)
    size = sum(path.stat().st_size for path in (args.folder / "_index").iterdir())
    print(f"{len(search):,} vectors, {search.index.nlist:,} lists, {search.added:,} added in {search.seconds:.0f} s")
    print(f"index {size / 1e6:,.0f} MB; most memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.1f} GB")
    for probes in (8, 16, 32, 64):
        search.query(queries[:1], K, probes=probes)
        times, hits = [], 0
        for query, wanted in zip(queries, truth, strict=True):
            started = time.perf_counter()
            rows = search.query(query, K, probes=probes)[0][0]
            times.append(time.perf_counter() - started)
            hits += len(np.intersect1d(tile_numbers(search.tile_xy[rows]), wanted))
        print(f"{probes} lists: recall@{K} {hits / truth.size:.3f}, {np.median(times) * 1e3:.2f} ms a query")
    place = tuple(search.latlon(np.array([len(search) // 2]))[0])
    box = (place[1] - 0.1, place[0] - 0.1, place[1] + 0.1, place[0] + 0.1)
    for name, options in (("--min_km 2", {"min_km": 2.0}), ("a box of 0.2 degrees", {"box": box})):
        started = time.perf_counter()
        search.similar(queries[0], K, place, **options)
        print(f"{name}: {(time.perf_counter() - started) * 1e3:.0f} ms")


def write(files: list[Path], count: int, folder: Path) -> None:
    """Write the dataset part by part, and beside it the queries and the tiles that are truly nearest to each."""
    exports = [read_export(path) for path in files]
    real = np.concatenate([export.vectors[~export.blank] for export in exports])
    near = exact(real, real, 9)
    queries, parts = made_up(real, near, QUERIES, seed=1), {}
    best, likeness = np.zeros((QUERIES, 0), np.int64), np.zeros((QUERIES, 0), np.float32)
    columns = int(np.ceil(np.sqrt(count / SIDE**2)))
    for number in range(-(-count // SIDE**2)):
        vectors = made_up(real, near, SIDE**2, seed=number + 2)
        row, column = divmod(number, columns)
        y, x = np.divmod(np.arange(SIDE**2), SIDE)
        tile_xy = (np.column_stack([x + column * SIDE, y + row * SIDE]) + CORNER).astype(np.int32)
        zeros = np.zeros(len(vectors), np.int8)
        intensity = np.zeros((len(vectors), len(LAYERS)), np.float32)
        facts = (zeros, zeros, zeros.astype(np.float32), zeros.astype(bool), intensity, zeros)
        tiles = Embeddings(tile_xy, vectors, 17, "", *facts, model_key="made up")
        DatasetFolder(folder).write(part_name(f"{column}_{row}"), part_bytes(tiles, "float16", {"dataset": "made up"}))
        parts[f"{column}_{row}"] = len(vectors)
        best = np.concatenate([best, np.broadcast_to(tile_numbers(tile_xy), (QUERIES, len(tile_xy)))], axis=1)
        likeness = np.concatenate([likeness, queries @ vectors.T], axis=1)
        top = np.argpartition(-likeness, K, axis=1)[:, :K]
        best, likeness = (np.take_along_axis(values, top, axis=1) for values in (best, likeness))
    np.save(folder.parent / "queries.npy", queries)
    np.save(folder.parent / "truth.npy", best)
    (north, west), (south, east) = latlon_of_tile(np.array([CORNER, CORNER + columns * SIDE]), 17).tolist()
    manifest = {"format": FORMAT, "key": json.dumps([count, len(real)]), "complete": True, "zoom": 17, "parts": parts}
    manifest |= {"dtype": "float16", "encoder": {"digest": "made up", "dimensions": real.shape[1]}}
    manifest |= {"extract": {"name": "made up"}, "box": [west, south, east, north]}
    DatasetFolder(folder).write_manifest(manifest)


def tile_numbers(tile_xy: np.ndarray) -> np.ndarray:
    """One number for each tile `(N, 2)`."""
    return tile_xy[:, 0].astype(np.int64) << 32 | tile_xy[:, 1]


if __name__ == "__main__":
    run_main(main)
