"""Measurements of embedding: tiles from a store, a whole extract, and caches that are full.

Not a command; `python bench.py embed pipeline precompute` runs them.
"""

import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Executor
from functools import partial
from itertools import cycle, islice
from pathlib import Path

import numpy as np
import torch

from bench_setup import HERE, Bench, Figure, script, seconds, untrained_encoder, wait
from checkpoint import build_encoder
from cli import TilesFlags
from inference import Embedder, precision_name
from map_index import STYLE_PX, DrawIndex
from model import AnyEncoder
from pretrained import load_pretrained
from streaming import PRELOAD, open_drawing
from tile_grid import metatiles_of
from tile_painter import Painter
from tile_store import TileStore, open_store
from tile_workers import completed, start_workers

# Architecture, tile size, and tiles per measurement on a CPU; a GPU embeds every tile.
EMBED_WORK = (("loc2vec", 64, 192), ("loc2vec", 128, 48), ("loc2vec", 256, 12), ("multiscale", 256, 256))
SAMPLE_BATCHES = 4  # different batches that stand for all of them in the bare forward passes
PIPELINE_TILES = 512  # tiles that stand for a whole extract in them


# --- embed -------------------------------------------------------------------------------------------------


def bench_embed(bench: Bench) -> Iterator[Figure]:
    """Embedding tiles against the bare forward passes."""
    for architecture, size, count in EMBED_WORK:
        encoder = untrained_encoder(size, architecture)
        most = count if bench.device.type == "cpu" else None
        yield embed_figure(bench, architecture, encoder, bench.store(size), most)


def embed_figure(bench: Bench, name: str, encoder: AnyEncoder, store: TileStore, most: int | None) -> Figure:
    """Embedding the tiles of a store that show something, or `most` of them, against the bare forward passes."""
    encoder = encoder.to(bench.device).to(memory_format=torch.channels_last).eval()
    rows = np.flatnonzero(~store.blank)
    embedder = Embedder(encoder, store)
    if most is not None:  # neighbours, as in a whole city
        rows = rows[embedder.fast_order(rows)][max(0, len(rows) - most) // 2 :][:most]
    batches = forward_batches(embedder, rows)

    def bare() -> None:
        for batch in islice(cycle(batches), -(-len(rows) // embedder.batch_size)):
            embedder.network(*batch)
        wait(bench.device)

    figure = bench.compare(
        f"embed {name}, {len(rows):,} tiles, {store.tile_size} px",
        lambda: Embedder(encoder, store).embed_tiles(rows),
        bare,
        unit="s",
        tiles=len(rows),
    )
    rate = len(rows) / figure.value
    return figure.with_note(f"{rate:,.0f} tiles/s, {precision_name(encoder)}; floor: bare forward passes")


def forward_batches(embedder: Embedder, rows: np.ndarray, most: int = SAMPLE_BATCHES) -> list[tuple[torch.Tensor, ...]]:
    """The network's inputs for at most so many batches of `rows`, spread evenly, on the device."""
    size, surroundings = embedder.batch_size, bool(embedder.encoder.uses_surroundings)
    parts = [rows[first : first + size] for first in range(0, len(rows), size)]
    chosen = np.unique(np.linspace(0, len(parts) - 1, min(most, len(parts))).astype(int))
    return [embedder.tiles.inputs(embedder.store.tile_xy[parts[i]] + 0.5, surroundings) for i in chosen]


# --- pipeline ----------------------------------------------------------------------------------------------


def bench_pipeline(bench: Bench) -> Iterator[Figure]:
    """`embed.py` on a whole extract against reading and drawing it alone plus the bare forward passes; all cores."""
    extract, jobs, checkpoint = bench.flags.extract, os.cpu_count() or 1, load_pretrained()
    root, folder = bench.scratch / "pipeline", bench.scratch / "drawing"
    script("render_tiles.py", extract, "--tiles_root", root)
    store = open_store(root, checkpoint.tile_size, cache_dir=bench.scratch / "cache", quick=True)
    encoder = build_encoder(checkpoint, bench.device)
    embedder = Embedder(encoder, store)
    size = min(PIPELINE_TILES, len(store)) // embedder.batch_size * embedder.batch_size or len(store)
    rows = np.random.default_rng(0).choice(len(store), size, replace=False)
    batches = forward_batches(embedder, rows, len(rows))
    output = bench.scratch / "city.parquet"

    def forward() -> None:
        for batch in batches:
            embedder.network(*batch)
        wait(bench.device)

    with start_workers(jobs, PRELOAD) as pool:
        draw_alone(extract, folder, pool, jobs)  # until every process has started
        rounds = []
        for _ in range(bench.flags.repeats):
            whole = seconds(partial(script, "embed.py", extract, "-o", output, "--device", bench.device.type))
            drawing = seconds(partial(draw_alone, extract, folder, pool, jobs))
            rounds.append((whole, drawing, seconds(forward) * len(store) / len(rows)))
    whole, drawing, passes = (statistics.median(taken) for taken in zip(*rounds, strict=True))
    ratio = statistics.median(taken / (draw + network) for taken, draw, network in rounds)
    start = seconds(partial(subprocess.run, [sys.executable, "-c", "import embed, torch"], cwd=HERE, check=True))
    note = f"{len(store) / whole:,.0f} tiles/s, imports {start:.1f} s of it; floor: reading and drawing {drawing:.1f} s"
    note += f" and the forward passes {passes:.1f} s; the goal is at most 1.3"
    yield Figure(f"embed.py {extract.name}", whole, "s", drawing + passes, ratio, bench.hardware, len(store), note)


def draw_alone(extract: Path, folder: Path, pool: Executor, jobs: int) -> None:
    """Read an extract and draw every plane at full resolution, keeping none; `folder` holds the index meanwhile."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    drawing = open_drawing(extract, None, TilesFlags.zoom, folder)
    place = drawing.area.unwrapped_xy
    blocks = metatiles_of(np.arange(len(place)), place)
    for _ in completed(pool, draw_block, ((folder, block, place[block]) for block in blocks), 2 * jobs):
        pass


def draw_block(folder: Path, tiles: np.ndarray, place: np.ndarray) -> int:
    """Draw `tiles (n,)` at `place (n, 2)` in a worker process; the number of planes that show something."""
    painter = Painter(DrawIndex.load(folder), STYLE_PX)
    return sum(
        1 for tile, (x, y) in zip(tiles.tolist(), place.tolist(), strict=True) for _ in painter.layers(tile, x, y)
    )


# --- precompute --------------------------------------------------------------------------------------------


def bench_precompute(bench: Bench) -> Iterator[Figure]:
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
    yield figure.with_note(own)
