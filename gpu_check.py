"""Check this machine's GPU: the tests that need one, then speed, memory and quality, as one page; about 8 minutes.

python gpu_check.py
python gpu_check.py --output_dir build/gpu
python gpu_check.py --device cpu --output_dir build/gpu
"""

import contextlib
import dataclasses
import gc
import json
import math
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from bench_embedding import embed_figure
from bench_network import bench_run, bench_step, choices_of
from bench_setup import HERE, Bench, BenchFlags, Figure, script
from checkpoint import load_encoder
from cli import DeviceFlags, Parser, UserError, WorkError, add_flags, flag, positive_int, read_flags, run_main
from devices import pick_device
from distributed import ProcessGroup
from files import atomic_write
from memory import free_memory, is_out_of_memory, memory_need, peak_memory, reset_peak_memory
from train import train
from train_config import TrainConfig, make_config

PRESETS = ("spec", "recommended")
# By device: edge of a tile, training steps, largest batch, steps of one measurement, and how often it is repeated.
WORK = {"cuda": (256, 300, 256, 5, 3), "mps": (256, 200, 32, 2, 3), "cpu": (64, 20, 16, 1, 1)}
MEMORY_SHARE = 0.6  # of what is free, for a training step
TRAINING_S = 60  # on a slow device, a training run takes fewer steps, so as to end in about this time
FORWARD_SPEED = 3  # of a training step
EMBED_S = 20  # and the measurement of embedding takes fewer tiles
TESTS_S = 150  # the tests that need a GPU are ended after this time
CHOICES_UNTIL_S = 360  # when so much time is gone, no further choice is measured
STEP_GOAL, EMBED_GOAL = 0.95, 0.9  # parts of the speed of their floors


@dataclasses.dataclass(frozen=True)
class CheckFlags:
    """Check."""

    tiles_root: Path | None = flag(None, "tiles to use; left out: the sample city, rendered first", type=Path)
    labels: Path | None = flag(None, "labels of these tiles; left out: those of the sample city", type=Path)
    output_dir: Path = flag(HERE / "docs" / "gpu", "folder for the page, which is named for the chip")
    tile_size: int | None = flag(None, "edge of a tile in pixels; left out: 256, on a CPU 64", type=positive_int)
    batch_size: int | None = flag(None, "samples per batch; left out: what fits into memory", type=positive_int)
    steps: int | None = flag(None, "training steps per preset; left out: 300, MPS 200, CPU 20", type=positive_int)


@dataclasses.dataclass(frozen=True)
class Check:
    """What a run of this script works with."""

    bench: Bench
    labels: Path
    tile_size: int
    steps: int
    batch_size: int | None
    largest_batch: int
    steps_at_once: int


@dataclasses.dataclass(frozen=True)
class Measured:
    """What is measured of one preset."""

    preset: str
    batch_size: int
    steps: int
    resident: bool
    tiles_per_second: float
    data_wait: float
    peak_bytes: int
    figures: list[Figure]  # a step against a ready tensor, the bare passes and products; embedding against bare passes
    quality: dict[str, float]


def main() -> None:
    """Run the tests, measure both presets and the choices, print the page and write it."""
    parser = Parser(__doc__)
    add_flags(parser, CheckFlags)
    add_flags(parser, DeviceFlags, only=["device"])
    args = parser.parse_args()
    flags, device, started = read_flags(CheckFlags, args), pick_device(args.device), time.monotonic()
    if device.type == "cpu" and args.device != "cpu":
        raise UserError("found no CUDA and no MPS device; --device cpu tries this script out with smaller numbers")
    if (flags.tiles_root is None) != (flags.labels is None):
        raise UserError("--tiles_root and --labels belong together; give both or neither")
    flags.output_dir.mkdir(parents=True, exist_ok=True)  # a path that does not work fails before the work
    with tempfile.TemporaryDirectory(prefix="loc2vec-gpu-") as scratch:
        passed, tests = run_gpu_tests()
        print(f"tests that need a GPU: {tests}", flush=True)
        check = prepare(flags, device, Path(scratch))
        measured = [check_preset(check, preset) for preset in PRESETS]
        choices = list(check_choices(check, measured, until=started + CHOICES_UNTIL_S))
        lines = page(check, tests, measured, choices, time.monotonic() - started)
    name = re.sub(r"[^a-z0-9]+", "-", check.bench.hardware.lower()).strip("-")
    path = flags.output_dir / f"{name}.md"
    with atomic_write(path, "w") as file:
        file.write("\n".join(lines) + "\n")
    print("\n".join(lines) + f"\n\nwritten: {path}")
    if not passed:
        raise WorkError(f"tests that need a GPU: {tests}; `python -m pytest -m gpu` shows why")


def prepare(flags: CheckFlags, device: torch.device, scratch: Path) -> Check:
    """The tiles and labels to work on, drawn from the bundled extract unless given, and the numbers for the device."""
    size, steps, largest, at_once, repeats = WORK[device.type]
    root, labels = flags.tiles_root, flags.labels
    if root is None or labels is None:
        root, labels = scratch / "tiles", scratch / "labels.parquet"
        script("render_tiles.py", "--city", "sample", "--tiles_root", root, "--labels", labels)
    bench = Bench(BenchFlags(tiles_root=root, repeats=repeats), device, scratch)
    return Check(bench, labels, flags.tile_size or size, flags.steps or steps, flags.batch_size, largest, at_once)


def run_gpu_tests() -> tuple[bool, str]:
    """Whether the tests marked `gpu` passed, in a process of their own, and pytest's summary of them.

    On a machine without CUDA they are skipped.
    """
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "gpu", str(HERE / "tests")]
    try:
        result = subprocess.run(command, cwd=HERE, capture_output=True, text=True, timeout=TESTS_S, check=False)
    except subprocess.TimeoutExpired:
        return False, f"not finished after {TESTS_S} s"
    if "No module named pytest" in result.stderr:
        raise UserError("pytest is not installed; `make gpu-check` installs it")
    lines = (result.stdout or result.stderr).strip().splitlines()
    summary = re.sub(r"\x1b\[\d+m|=", "", lines[-1]).strip() if lines else "pytest said nothing"
    return result.returncode == 0, summary


# --- one preset --------------------------------------------------------------------------------------------


def check_preset(check: Check, preset: str) -> Measured:
    """Train for some hundred steps, embed the city, and measure the quality of the vectors."""
    bench, device = check.bench, check.bench.device
    batch = check.batch_size or fitting_batch(check, preset)
    try:
        # A step against the same step on a ready tensor and against the bare network.
        run = bench_run(bench, check.tile_size, batch, preset)
        with contextlib.closing(run.recorder):
            figures = list(bench_step(bench, run, check.steps_at_once))
        resident, step_s = run.batches.datasets[0].resident, figures[0].value / check.steps_at_once
        del run
        release(device)

        # Two epochs, of which the second is counted: by then everything is warm.
        steps = max(1, min(check.steps, int(TRAINING_S / step_s)) // 2)
        reset_peak_memory(device)
        outcome = train(training_config(check, preset, batch, max_samples=batch * steps, epochs=2))
        peak = peak_memory(device)
        release(device)

        # The city's vectors: how fast.
        rate = outcome.metrics["tiles_per_second"]
        count = int(EMBED_S * FORWARD_SPEED * rate / (2 * bench.flags.repeats + 2))
        encoder, _ = load_encoder(outcome.last, device)
        figures.append(embed_figure(bench, preset, encoder, bench.store(check.tile_size), max(64, count)))
        release(device)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise WorkError(f"out of memory with batches of {batch}; pass --batch_size {max(1, batch // 2)}") from error

    return Measured(
        preset=preset,
        batch_size=batch,
        steps=2 * steps,
        resident=resident,
        tiles_per_second=rate,
        data_wait=outcome.metrics["data_wait"],
        peak_bytes=peak,
        figures=figures,
        quality=quality(check, outcome.last),
    )


def training_config(check: Check, preset: str, batch: int, **settings: int) -> TrainConfig:
    """The settings of a preset's training run, which writes into the scratch folder only."""
    scratch = check.bench.scratch
    return make_config(
        preset,
        tiles_root=check.bench.tiles_root,
        cache_dir=scratch / "cache",
        output_dir=scratch / preset,
        log_dir=scratch / "runs",
        run_name=preset,
        tile_size=check.tile_size,
        batch_size=batch,
        device=check.bench.device.type,
        **settings,
    )


def fitting_batch(check: Check, preset: str) -> int:
    """The largest batch, halved from that of the device down to 8, that fits into the device's free memory."""
    device, size = check.bench.device, check.largest_batch
    group, free = ProcessGroup(device), MEMORY_SHARE * free_memory(device)
    while size > 8 and memory_need(training_config(check, preset, size), group) > free:
        size //= 2
    return size


def release(device: torch.device) -> None:
    """Give the device's unused memory back."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


def quality(check: Check, checkpoint: Path) -> dict[str, float]:
    """What `evaluate.py` finds: R2 of ridge probes on labels, blocked, and figures of the vector space."""
    flags = ["--model_path", checkpoint, "--tiles_root", check.bench.tiles_root, "--labels", check.labels, "--json"]
    flags += ["--cache_dir", check.bench.scratch / "cache", "--output_dir", check.bench.scratch / "reports"]
    lines = script("evaluate.py", *flags, "--device", check.bench.device.type).stdout.splitlines()
    found = [record for record in map(json.loads, lines) if record["split"] in ("", "blocked")]
    return {
        f"{record['name']} {record['label']} {record['group'] * (record['label'] == 'mean')}".strip(): record["value"]
        for record in found
        if record["name"] in ("RankMe", "triplet accuracy", "ridge R2") and record["value"] is not None
    }


# --- choices -----------------------------------------------------------------------------------------------


def check_choices(check: Check, measured: list[Measured], until: float) -> Iterator[Figure]:
    """The choices that should make a step fast, measured for both presets while there is time and memory."""
    for one in measured:
        figures = choices_of(check.bench, one.preset, check.tile_size, one.batch_size, check.steps_at_once)
        try:
            with contextlib.closing(figures):
                while time.monotonic() < until and (figure := next(figures, None)) is not None:
                    yield figure
        except (MemoryError, RuntimeError) as error:  # several networks are trained side by side
            if not is_out_of_memory(error):
                raise
        release(check.bench.device)


# --- the page ----------------------------------------------------------------------------------------------


def page(check: Check, tests: str, measured: list[Measured], choices: list[Figure], seconds: float) -> list[str]:
    """The lines of the page, in Markdown."""
    bench = check.bench
    software = f"PyTorch {torch.__version__}, Python {platform.python_version()}, {platform.system()}"
    if bench.device.type == "cuda":
        software += f", CUDA {torch.version.cuda}"
    lines = [f"# {bench.hardware}", ""]
    lines += [f"Written by `python gpu_check.py` in {seconds / 60:.1f} minutes with {software}.", ""]
    lines += [
        f"Tests that need a GPU: {tests}. Tiles: {len(bench.store(check.tile_size)):,}, {check.tile_size} px.",
        "",
    ]
    lines += [
        "A speed in parts of its floor is measured beside that floor, in turn. Vectors come from encoders that were"
    ]
    lines += ["trained for so few steps: their quality shows that training works, not how good it gets.", ""]
    lines += [row("", *[one.preset for one in measured]), row(*["---"] * (len(measured) + 1))]
    lines += [row(name, *[tell(one) for one in measured]) for name, tell in ROWS.items()]
    for name in dict.fromkeys(name for one in measured for name in one.quality):
        lines.append(row(name, *[f"{one.quality.get(name, math.nan):.3f}" for one in measured]))
    if not choices:
        return [
            *lines,
            "",
            "The choices that should make a training step fast were not measured: no time or memory was left.",
        ]
    lines += ["", "Choices that should make a training step fast. Below 1 they do.", ""]
    lines += [row("choice", "time, with it / without it", ""), row("---", "---", "---")]
    return lines + [row(figure.name, f"{figure.ratio:.2f}", figure.note) for figure in choices]


def row(*cells: str) -> str:
    """A row of a table in Markdown."""
    return f"| {' | '.join(cells)} |"


def speed(figure: Figure, goal: float | None = None) -> str:
    """Speed in parts of the floor's, and whether it reaches its goal."""
    share = 1 / figure.ratio
    if goal is None:
        return f"{share:.2f}"
    return f"{share:.2f} (goal {goal:g}: {'reached' if share >= goal else 'missed'})"


ROWS: dict[str, Callable[[Measured], str]] = {
    "training: steps, samples per batch": lambda one: f"{one.steps}, {one.batch_size}",
    "tiles are held by": lambda one: "the device" if one.resident else "the host",
    "training, tiles/s, data included": lambda one: f"{one.tiles_per_second:,.0f}",
    "of the same step on a tensor that is on the device": lambda one: speed(one.figures[0], STEP_GOAL),
    "of bare forward and backward passes": lambda one: speed(one.figures[1]),
    "multiplications": lambda one: one.figures[2].note.split(";")[0],
    "share of the time waiting for data": lambda one: f"{one.data_wait:.1%}",
    "peak memory of training": lambda one: f"{one.peak_bytes / 1e9:.2f} GB",
    "embedding": lambda one: one.figures[3].note.split(";")[0],
    "of bare forward passes": lambda one: speed(one.figures[3], EMBED_GOAL),
}


if __name__ == "__main__":
    run_main(main)
