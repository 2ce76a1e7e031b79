"""Print the performance figures of docs/speed.md as one table, each as a ratio to its floor in the same run.

python bench.py
python bench.py embed --repeats 1
python bench.py pack loader --json
python bench.py render --extract CITY.osm.pbf --mapnik
"""

import dataclasses
import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from bench_dataset import bench_dataset
from bench_embedding import bench_embed, bench_pipeline, bench_precompute
from bench_network import bench_choices, bench_naive, bench_train
from bench_setup import Bench, BenchFlags, Figure
from bench_tiles import bench_loader, bench_memory, bench_pack, bench_render
from bench_viewers import bench_app, bench_html, bench_project, bench_search
from cli import DeviceFlags, Parser, UserError, add_flags, read_flags, run_main
from devices import pick_device

BENCHES: dict[str, Callable[[Bench], Iterator[Figure]]] = {
    "render": bench_render,
    "memory": bench_memory,
    "pack": bench_pack,
    "loader": bench_loader,
    "train": bench_train,
    "naive": bench_naive,
    "choices": bench_choices,
    "embed": bench_embed,
    "pipeline": bench_pipeline,
    "precompute": bench_precompute,
    "dataset": bench_dataset,
    "search": bench_search,
    "project": bench_project,
    "html": bench_html,
    "app": bench_app,
}
WIDTH = 52  # of the longest name
HEADER = f"{'what':<{WIDTH}} {'value':>12} {'floor':>10} {'ratio':>8} {'tiles':>8}  note"


def main() -> None:
    """Measure what was asked for and print it."""
    parser = Parser(__doc__)
    parser.add_argument(
        "names", nargs="*", choices=[*BENCHES, []], metavar="NAME", help="what to measure; default: all"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object per figure")
    add_flags(parser, BenchFlags)
    add_flags(parser, DeviceFlags)
    args = parser.parse_args()
    device = pick_device(args.device)
    with tempfile.TemporaryDirectory(prefix="loc2vec-bench-") as scratch:
        bench = Bench(read_flags(BenchFlags, args), device, Path(scratch))
        if not args.json:
            print(f"{bench.hardware}\n{HEADER}", flush=True)
        failed = []
        for name in args.names or BENCHES:
            try:
                for figure in BENCHES[name](bench):
                    print(as_text(figure) if not args.json else json.dumps(dataclasses.asdict(figure)), flush=True)
            except UserError as error:  # the other figures are wanted all the same
                failed.append(f"{name}: {error}")
        if failed:
            raise UserError("not measured: " + "; ".join(failed))


def as_text(figure: Figure) -> str:
    """One row of the table."""
    number = f"{figure.value:.4g} {figure.unit}"
    numbers = f"{number:>12} {figure.floor:>10.4g} {figure.ratio:>8.3g} {figure.tiles:>8,}"
    return f"{figure.name:<{WIDTH}} {numbers}  {figure.note}"


if __name__ == "__main__":
    run_main(main)
