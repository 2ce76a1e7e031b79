"""Print the performance figures of the README, each as a ratio to its floor in the same run.

python bench.py
python bench.py pack loader --json
python bench.py render --extract CITY.osm.pbf --mapnik
"""

import dataclasses
import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from bench_network import bench_embed, bench_train
from bench_setup import Bench, BenchFlags, Figure
from bench_tiles import bench_loader, bench_memory, bench_pack, bench_render
from bench_viewers import bench_app, bench_html, bench_project, bench_search
from cli import DeviceFlags, Parser, add_flags, read_flags, run_main
from devices import pick_device

BENCHES: dict[str, Callable[[Bench], Iterator[Figure]]] = {
    "render": bench_render,
    "memory": bench_memory,
    "pack": bench_pack,
    "loader": bench_loader,
    "train": bench_train,
    "embed": bench_embed,
    "search": bench_search,
    "project": bench_project,
    "html": bench_html,
    "app": bench_app,
}


def main() -> None:
    """Measure what was asked for and print it."""
    parser = Parser(__doc__)
    parser.add_argument("names", nargs="*", choices=[*BENCHES, []], metavar="NAME", help=f"of {' '.join(BENCHES)}")
    parser.add_argument("--json", action="store_true", help="print one JSON object per figure")
    add_flags(parser, BenchFlags)
    add_flags(parser, DeviceFlags)
    args = parser.parse_args()
    device = pick_device(args.device)
    with tempfile.TemporaryDirectory(prefix="loc2vec-bench-") as scratch:
        bench = Bench(read_flags(BenchFlags, args), device, Path(scratch))
        for name in args.names or BENCHES:
            for figure in BENCHES[name](bench):
                print(as_text(figure) if not args.json else json.dumps(dataclasses.asdict(figure)), flush=True)


def as_text(figure: Figure) -> str:
    """One line for a person."""
    note = f"  ({figure.note})" if figure.note else ""
    return (
        f"{figure.name:<44} {figure.value:>10.4g} {figure.unit:<8} floor {figure.floor:>10.4g}  "
        f"ratio {figure.ratio:>8.3g}  {figure.tiles:,} tiles, {figure.device}{note}"
    )


if __name__ == "__main__":
    run_main(main)
