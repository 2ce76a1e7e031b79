"""Measurements of training: a step against its bare network, and the choices that make it fast.

Not a command; `python bench.py train naive choices` runs them.
"""

import contextlib
import os
import shutil
from collections.abc import Callable, Generator, Iterator
from itertools import cycle, islice
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import FlopCounterMode

from bench_setup import Bench, Figure, seconds, wait
from data_loader import Batch, TripletSampler, prefetch
from distributed import ProcessGroup
from layers import LAYERS
from tile_store import TileStore
from train import Run, build_run, scale_dropout, train_step
from train_config import loader_threads, make_config, network_dtype

# By device, which training steps are measured: preset, tile size, samples per batch, steps per measurement.
TRAIN_WORK = {
    "cpu": (("spec", 64, 16, 2), ("recommended", 64, 32, 8), ("recommended", 256, 32, 4)),
    "cuda": (("spec", 256, 256, 20), ("recommended", 256, 256, 20)),
    "mps": (("spec", 128, 32, 5), ("recommended", 128, 32, 5)),
}
READY = {"cpu": 4, "cuda": 1, "mps": 1}  # batches that are loaded before; on a CPU they take different times
PRODUCT = {"cpu": 512, "cuda": 4096, "mps": 2048}  # rows and columns of the matrices that show how fast it multiplies

# --- train -------------------------------------------------------------------------------------------------


def bench_train(bench: Bench) -> Iterator[Figure]:
    """A training step against the same step on ready tensors, against the bare network, and against a product."""
    for preset, size, batch_size, steps in TRAIN_WORK[bench.device.type]:
        run = bench_run(bench, size, batch_size, preset)
        with contextlib.closing(run.recorder):
            yield from bench_step(bench, run, steps)


def bench_step(bench: Bench, run: Run, steps: int) -> Iterator[Figure]:
    """`steps` of a run with everything that its recipe does to a batch: loading, windows, flips, loss, optimiser."""
    size = run.config.packing.tile_size
    stream = prefetch(run.batches, num_threads=loader_threads(run.config, bench.device))
    loaded = list(islice(stream, READY[bench.device.type]))
    ready = cycle([(batch, run.batches.augmented(batch)) for batch in loaded])
    name = f"{run.config.fit.preset} step, batch {run.config.sample.batch_size}, {size} px"

    def real() -> None:
        for _ in range(steps):
            batch = next(stream)
            train_step(run, batch, run.batches.augmented(batch))
        wait(bench.device)

    def prepared() -> None:
        for _ in range(steps):
            train_step(run, *next(ready))
        wait(bench.device)

    def bare() -> None:
        for _ in range(steps):
            forward_backward(run, *next(ready))
        wait(bench.device)

    tiles = steps * len(loaded[0].inputs[0])
    with contextlib.closing(stream):
        figure = bench.compare(name, real, prepared, unit="s", tiles=tiles)
        note = f"{tiles / figure.value:,.0f} tiles/s; floor: the same steps on tensors that are on the device"
        yield figure.with_note(f"{note}; the goal is at most 1.05")
        figure = bench.compare(name, real, bare, unit="s", tiles=tiles)
        yield figure.with_note(f"{tiles / figure.floor:,.0f} tiles/s; floor: the network's forward and backward passes")
    yield multiply_rate(bench, run, name, prepared, tiles)


def forward_backward(run: Run, batch: Batch, inputs: tuple[torch.Tensor, ...]) -> None:
    """The network's passes alone, in the precision of the run: no loss, no statistics, no optimiser step."""
    run.optimizer.zero_grad(set_to_none=True)
    with run.autocast():
        if run.encoder.uses_surroundings:
            vectors = run.network(*inputs, keep=scale_dropout(run, batch))
        else:
            vectors = run.network(*inputs)
    vectors.float().sum().backward()


def multiply_rate(bench: Bench, run: Run, name: str, work: Callable[[], None], tiles: int) -> Figure:
    """A step's multiplications per second against those of one large matrix product in the same precision."""
    with FlopCounterMode(display=False) as counter:
        work()
    operations, edge = counter.get_total_flops(), PRODUCT[bench.device.type]
    a = torch.randn(edge, edge, device=bench.device, dtype=network_dtype(run.config, bench.device))
    products = max(1, round(operations / (2 * edge**3)))

    def product() -> None:
        for _ in range(products):
            a @ a
        wait(bench.device)

    figure = bench.compare(name, work, product, unit="s", tiles=tiles)
    reached, possible = operations / figure.value / 1e9, products * 2 * edge**3 / figure.floor / 1e9
    dtype = str(a.dtype).removeprefix("torch.")
    words = f"{reached:,.0f} of {possible:,.0f} GFLOP/s in {dtype} ({reached / possible:.0%}); floor: matrix products"
    return figure.with_note(f"{words} with as many operations")


# --- naive -------------------------------------------------------------------------------------------------


def bench_naive(bench: Bench, size: int = 256, batch_size: int = 4) -> Iterator[Figure]:
    """The way other implementations of loc2vec work: 36 PNGs decoded per triplet, float32, no `channels_last`."""
    run = bench_run(bench, size, batch_size)
    plain = bench_run(bench, size, batch_size, precision="fp32")
    plain.network.to(memory_format=torch.contiguous_format)
    naive = DataLoader(NaiveTriplets(bench.store(size), 64), batch_size, num_workers=os.cpu_count() or 1)
    steps = DataLoader(NaiveTriplets(bench.store(size), batch_size * (bench.flags.repeats + 1)), batch_size)
    naive_batches, first = iter(steps), next(prefetch(plain.batches))

    def load_naively() -> None:
        for tiles in naive:
            tiles.to(bench.device)
        wait(bench.device)

    def load() -> None:
        for batch in islice(prefetch(run.batches), 64 // batch_size):
            run.batches.augmented(batch)
        wait(bench.device)

    yield bench.compare(
        f"loading 64 triplets naively, {size} px", load_naively, load, unit="s", tiles=192, note="floor: ours"
    )

    def step_naively() -> None:
        tiles = next(naive_batches).flatten(0, 1)
        train_step(plain, first, (tiles.to(bench.device),))
        wait(bench.device)

    def step_ours() -> None:
        batch = next(prefetch(run.batches, first_step=1))
        train_step(run, batch, run.batches.augmented(batch))
        wait(bench.device)

    yield bench.compare(
        f"a whole naive step, {size} px", step_naively, step_ours, unit="s", tiles=3 * batch_size, note="floor: ours"
    )
    for each in (run, plain):
        each.recorder.close()


class NaiveTriplets(Dataset):
    """Triplets read the usual way: one PNG per layer and tile, decoded each time, as `(3, 12, S, S) float32`."""

    def __init__(self, store: TileStore, count: int):
        self.store, self.triplets = store, TripletSampler(store, 2, 10).epoch(0, count)

    def __len__(self) -> int:
        return len(self.triplets)

    def __getitem__(self, i: int) -> torch.Tensor:
        root, zoom = self.store.tiles_root, self.store.zoom
        tiles = [
            [np.asarray(Image.open(f"{root}/{layer}/{zoom}/{x}/{y}.png"), np.float32) / 255 for layer in LAYERS]
            for x, y in self.store.tile_xy[self.triplets[i]]
        ]
        return torch.from_numpy(np.array(tiles))


def bench_run(bench: Bench, size: int, batch_size: int, preset: str = "spec", **settings: object) -> Run:
    """A training run that writes into the scratch folder only."""
    folders = {"output_dir": bench.scratch / "checkpoints", "log_dir": bench.scratch / "runs"}
    places = {"tiles_root": bench.tiles_root, "cache_dir": bench.scratch / "cache"}
    config = make_config(
        preset,
        **(folders | places | settings),
        tile_size=size,
        batch_size=batch_size,
        max_samples=batch_size * 1000,
        val_samples=8,
        device=bench.device.type,
    )
    return build_run(config, ProcessGroup(bench.device))


# --- choices -----------------------------------------------------------------------------------------------

Setting = Callable[[], contextlib.AbstractContextManager]


def bench_choices(bench: Bench) -> Iterator[Figure]:
    """Each choice that should make a training step fast: steps with it against steps without it, all else equal.

    A ratio below 1 says that the choice pays.
    """
    for preset, size, batch_size, steps in TRAIN_WORK[bench.device.type][:2]:
        with contextlib.closing(choices_of(bench, preset, size, batch_size, steps)) as figures:
            yield from figures


def choices_of(bench: Bench, preset: str, size: int, batch_size: int, steps: int) -> Generator[Figure]:
    """The choices for one preset, each measured on `steps` training steps."""
    device, runs = bench.device, contextlib.ExitStack()

    def new_run(**settings: object) -> Run:
        run = bench_run(bench, size, batch_size, preset, compile=False, **settings)
        runs.callback(run.recorder.close)
        return run

    def compared(choice: str, with_it: Callable[[], None], without: Callable[[], None]) -> Figure:
        tiles = steps * len(usual.batches[0].inputs[0])
        name = f"{choice}, {preset} step, batch {batch_size}, {size} px"
        figure = bench.compare(name, with_it, without, unit="s", tiles=tiles)
        return figure.with_note(f"{tiles / figure.value:,.0f} tiles/s; floor: without it; below 1 it pays")

    with runs:
        usual = new_run()
        if preset == "spec":  # the multiscale network orders its pixels itself
            plain = new_run()
            plain.network.to(memory_format=torch.contiguous_format)
            yield compared(
                "channels_last", steps_of(bench, steps, usual), steps_of(bench, steps, plain, contiguous=True)
            )
        bf16, fp32 = new_run(precision="bf16"), new_run(precision="fp32")
        yield compared("bf16", steps_of(bench, steps, bf16), steps_of(bench, steps, fp32))
        plain = new_run()
        plain.optimizer = torch.optim.AdamW(plain.optimizer.param_groups[0]["params"])
        yield compared("fused AdamW", steps_of(bench, steps, usual), steps_of(bench, steps, plain))
        if device.type == "cuda":
            yield compared("TF32, float32", steps_of(bench, steps, fp32, tf32), steps_of(bench, steps, fp32))
            yield compared(
                "cudnn.benchmark", steps_of(bench, steps, usual), steps_of(bench, steps, usual, cudnn_default)
            )
        if can_compile(device):
            compiled = new_run()
            network: Any = torch.compile(compiled.network)
            compiled.network = network
            first = seconds(steps_of(bench, steps, compiled))
            figure = compared("torch.compile", steps_of(bench, steps, compiled), steps_of(bench, steps, usual))
            saved = (figure.floor - figure.value) / steps
            pays = f"pays after {first / saved:,.0f} steps" if saved > 0 else "does not pay"
            yield figure.with_note(f"{figure.note}; compiling takes {first:.0f} s, {pays}")


def steps_of(
    bench: Bench, steps: int, run: Run, setting: Setting = contextlib.nullcontext, contiguous: bool = False
) -> Callable[[], None]:
    """A function that takes `steps` training steps of `run`, under `setting`, on one batch that is already loaded."""
    batch = next(prefetch(run.batches))
    inputs = run.batches.augmented(batch)

    def work() -> None:
        with setting():
            for _ in range(steps):
                tiles = (inputs[0].float().div_(255),) if contiguous else inputs
                train_step(run, batch, tiles)
            wait(bench.device)

    return work


@contextlib.contextmanager
def tf32() -> Iterator[None]:
    """Context in which float32 products and convolutions on CUDA may round their inputs to TF32."""
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.allow_tf32 = True
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


@contextlib.contextmanager
def cudnn_default() -> Iterator[None]:
    """Context in which cuDNN chooses its algorithms by rules of its own, without timing them."""
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = True


def can_compile(device: torch.device) -> bool:
    """Whether `torch.compile` can work here: on CUDA, or on a CPU with a C++ compiler."""
    return device.type == "cuda" or (device.type == "cpu" and any(map(shutil.which, ("g++", "clang++"))))
