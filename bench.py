"""Print the performance figures of the README, each as a ratio to its floor in the same run.

python bench.py
python bench.py pack loader --json
python bench.py render --extract CITY.osm.pbf
"""

import dataclasses
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from cli import DeviceFlags, Parser, UserError, add_flags, flag, positive_int, read_flags, run_main
from data_loader import LAYERS, TileStore, TripletSampler, open_store, read_tile, resize_tile, scan_tiles
from model import pick_device

HERE = Path(__file__).resolve().parent


@dataclasses.dataclass(frozen=True)
class BenchFlags:
    """Measurement."""

    tiles_root: Path | None = flag(None, "tiles to measure on; left out: the sample city, rendered anew", type=Path)
    extract: Path = flag(HERE / "sample_data" / "astana.osm.pbf", "extract that `render` draws, whole")
    repeats: int = flag(
        5, "times each figure and its floor are measured, in turn; the median is printed", type=positive_int
    )


@dataclasses.dataclass(frozen=True)
class Figure:
    """One measured figure; `ratio` is value / floor, and `unit` says whether more or less is better."""

    name: str
    value: float
    unit: str
    floor: float
    ratio: float
    device: str
    tiles: int
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Bench:
    """What the measurements share: flags, a scratch folder, the tiles."""

    flags: BenchFlags
    device: torch.device
    scratch: Path

    @cached_property
    def hardware(self) -> str:
        """The device in words."""
        if self.device.type == "cuda":
            return torch.cuda.get_device_name(self.device)
        return f"{processor_name()}, {os.cpu_count()} cores"

    @cached_property
    def tiles_root(self) -> Path:
        """The tiles to measure on."""
        if self.flags.tiles_root:
            return self.flags.tiles_root
        root = self.scratch / "tiles"
        script("render_tiles.py", "--city", "sample", "--tiles_root", root)
        return root

    def store(self, tile_size: int) -> TileStore:
        """The packed tiles at some size."""
        return open_store(self.tiles_root, tile_size, cache_dir=self.scratch / "cache")

    def compare(self, name: str, work: Callable, floor: Callable, *, unit: str, tiles: int, note: str = "") -> Figure:
        """Time `work` and `floor` in turn; the figure is in seconds, the ratio the median of the pairs' ratios."""
        work(), floor()
        pairs = [(seconds(work), seconds(floor)) for _ in range(self.flags.repeats)]
        value, base = (statistics.median(times) for times in zip(*pairs, strict=True))
        ratio = statistics.median(a / b for a, b in pairs)
        return Figure(name, value, unit, base, ratio, self.hardware, tiles, note)


def processor_name() -> str:
    """The processor's name as the system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def seconds(work: Callable) -> float:
    """How long a call takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def script(name: str, *arguments: object) -> subprocess.CompletedProcess:
    """Run a script of this project to its end; its failure ends the measurement."""
    command = [sys.executable, str(HERE / name), *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise UserError(f"{name} ended with exit code {result.returncode}: {result.stderr.strip()}")
    return result


# --- pack --------------------------------------------------------------------------------------------------


def bench_pack(bench: Bench) -> Iterator[Figure]:
    """Packing a city against only decoding and shrinking the same distinct PNGs; opening a pack again."""
    scan = scan_tiles(bench.tiles_root)

    def pack() -> None:
        with tempfile.TemporaryDirectory(dir=bench.scratch) as folder:
            open_store(bench.tiles_root, 128, cache_dir=folder)

    def decode() -> None:
        for path in scan.paths:
            resize_tile(read_tile(path), 128, "mean")

    tiles = len(scan.tile_xy)
    yield bench.compare("pack 128 px", pack, decode, unit="s", tiles=tiles, note="floor: decoding on one core")
    store = bench.store(128)
    for quick, note in ((True, "looks at the folders"), (False, "compares every tile")):
        yield bench.compare(
            "open a pack again",
            lambda quick=quick: open_store(bench.tiles_root, 128, cache_dir=bench.scratch / "cache", quick=quick),
            lambda: scan_tiles(bench.tiles_root),
            unit="s",
            tiles=len(store),
            note=f"{note}; floor: listing the tiles",
        )


# --- loader ------------------------------------------------------------------------------------------------


def bench_loader(bench: Bench) -> Iterator[Figure]:
    """Random batches from a warm store against a plain copy of the same bytes, and against decoding PNGs."""
    store = bench.store(256)
    rng = np.random.default_rng(0)
    batches = [rng.integers(len(store), size=64) for _ in range(20)]
    out = np.empty((64, len(LAYERS), 256, 256), dtype=np.uint8)
    ready = [store.tiles(rows) for rows in batches]
    yield bench.compare(
        "20 batches of 64 tiles, 256 px",
        lambda: [store.tiles(rows, out=out) for rows in batches],
        lambda: [np.copyto(out, batch) for batch in ready],
        unit="s",
        tiles=64 * 20,
        note="floor: a plain copy of the same bytes",
    )
    triplets = TripletSampler(store, 2, 10).epoch(0, 64)
    root = bench.tiles_root
    paths = [
        [f"{root}/{layer}/{store.zoom}/{x}/{y}.png" for x, y in store.tile_xy[rows] for layer in LAYERS]
        for rows in triplets
    ]
    yield bench.compare(
        "64 triplets from 36 PNGs each, 256 px",
        lambda: [np.stack([np.asarray(Image.open(path)) for path in three]) for three in paths],
        lambda: [store.tiles(rows, out=out[:3]) for rows in triplets],
        unit="s",
        tiles=3 * 64,
        note="the naive way; floor: the store",
    )


# --- the command -------------------------------------------------------------------------------------------

BENCHES: dict[str, Callable[[Bench], Iterator[Figure]]] = {
    "pack": bench_pack,
    "loader": bench_loader,
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
