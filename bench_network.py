"""Measurements of the network: training and embedding.

Not a command; `python bench.py train embed` runs them.
"""

import dataclasses
import os
import subprocess
import sys
from collections.abc import Callable, Iterator

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from bench_setup import HERE, Bench, Figure, script, untrained_encoder
from data_loader import TripletSampler, network_input, prefetch
from devices import compute_dtype
from distributed import ProcessGroup
from inference import Embedder, precision_name
from layers import LAYERS
from tile_store import TileStore
from train import Run, build_run, train_step
from train_config import make_config

# By device: training steps per measurement, and samples per batch by tile size.
TRAIN_WORK = {"cpu": (2, {64: 32, 128: 8}), "cuda": (20, {256: 256}), "mps": (5, {128: 32})}
EMBED_TILES = {64: 1024, 128: 256, 256: 64}  # by tile size, on a CPU; a GPU embeds every tile

# --- train -------------------------------------------------------------------------------------------------


def bench_train(bench: Bench) -> Iterator[Figure]:
    """A training step on real tiles against the same step on a ready tensor, and against the naive way."""
    steps, batches = TRAIN_WORK[bench.device.type]
    for size, batch_size in batches.items():
        yield from bench_step(bench, size, batch_size, steps)
    yield from bench_naive(bench)


def bench_step(bench: Bench, size: int, batch_size: int, steps: int) -> Iterator[Figure]:
    """Steps with everything the recommended recipe does to a batch: windows at any pixel, flips, blanked layers."""
    run = bench_run(bench, size, batch_size)
    stream = prefetch(run.batches, num_threads=run.config.packing.num_workers)
    batch = next(stream)
    tiles = run.batches.augmented(batch)

    def real() -> None:
        for _ in range(steps):
            batch = next(stream)
            train_step(run, batch, run.batches.augmented(batch))
        wait(bench.device)

    def ready() -> None:
        for _ in range(steps):
            train_step(run, batch, tiles)
        wait(bench.device)

    yield bench.compare(
        f"{steps} training steps, batch {batch_size}, {size} px",
        real,
        ready,
        unit="s",
        tiles=steps * len(tiles),
        note="floor: the same steps on a tensor that is already on the device; the goal is at most 1.05",
    )
    run.recorder.close()


def bench_naive(bench: Bench, size: int = 256, batch_size: int = 4) -> Iterator[Figure]:
    """The way other implementations of loc2vec work: 36 PNGs decoded per triplet, float32, no `channels_last`."""
    run = bench_run(bench, size, batch_size, preset="spec")
    plain = bench_run(bench, size, batch_size, preset="spec", precision="fp32")
    plain.network.to(memory_format=torch.contiguous_format)
    naive = DataLoader(NaiveTriplets(bench.store(size), 64), batch_size, num_workers=os.cpu_count() or 1)
    naive_batches, first = iter(naive), plain.batches[0]

    def load_naively() -> None:
        for tiles in naive:
            tiles.to(bench.device)
        wait(bench.device)

    def load() -> None:
        for step in range(64 // batch_size):
            run.batches.augmented(run.batches[step])
        wait(bench.device)

    yield bench.compare(
        f"loading 64 triplets naively, {size} px", load_naively, load, unit="s", tiles=192, note="floor: ours"
    )

    def step_naively() -> None:
        tiles = next(naive_batches).flatten(0, 1)
        train_step(plain, first, tiles.to(bench.device))
        wait(bench.device)

    def step_ours() -> None:
        batch = run.batches[1]
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


def bench_run(bench: Bench, size: int, batch_size: int, preset: str = "recommended", **settings: object) -> Run:
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


def wait(device: torch.device) -> None:
    """Wait until the device has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


# --- embed -------------------------------------------------------------------------------------------------


def bench_embed(bench: Bench) -> Iterator[Figure]:
    """Embedding tiles against the bare forward passes; a second `precompute_embeddings.py` against its imports."""
    for size, count in EMBED_TILES.items():
        store = bench.store(size)
        encoder = untrained_encoder(size).to(bench.device).to(memory_format=torch.channels_last).eval()
        rows = np.flatnonzero(~store.blank)
        rows = rows[:count] if bench.device.type == "cpu" else rows
        embedder = Embedder(encoder, store)
        tiles = embedder.tiles.tiles(rows[: embedder.batch_size])
        batch = network_input(tiles, compute_dtype(bench.device))
        forward, batches = embedder.network, -(-len(rows) // len(batch))

        def bare(forward: Callable = forward, batch: torch.Tensor = batch, batches: int = batches) -> None:
            for _ in range(batches):
                vectors = forward(batch)
            vectors.cpu()

        figure = bench.compare(
            f"embed {len(rows):,} tiles, {size} px",
            lambda encoder=encoder, store=store, rows=rows: Embedder(encoder, store).embed_tiles(rows),
            bare,
            unit="s",
            tiles=len(rows),
        )
        rate = f"{len(rows) / figure.value:,.0f} tiles/s, {precision_name(encoder)}; floor: bare forward passes"
        yield dataclasses.replace(figure, note=rate)
    yield second_precompute(bench)


def second_precompute(bench: Bench) -> Figure:
    """The second run of precompute_embeddings.py against importing what it imports."""
    flags = (
        "--tiles_root",
        bench.tiles_root,
        "--model_path",
        bench.untrained_checkpoint(64),
        "--cache_dir",
        bench.scratch / "cache",
    )

    def run() -> None:
        script("precompute_embeddings.py", *flags, "--device", bench.device.type)

    def imports() -> None:
        subprocess.run([sys.executable, "-c", "import precompute_embeddings, annoy"], cwd=HERE, check=True)

    run()
    figure = bench.compare("second precompute run", run, imports, unit="s", tiles=len(bench.store(64)))
    own = f"{figure.value - figure.floor:.2f} s beside the imports; floor: the imports"
    return dataclasses.replace(figure, note=own)
