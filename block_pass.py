"""Embed one block of tiles: from its objects to its part of the dataset, in any process on any machine.

Not a command. `block_engine.py` runs it.
"""

import dataclasses
import functools
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from blocks import MARGIN_TILES, SEEN_TILES, Plan, load_part
from checkpoint import Checkpoint, load_checkpoint
from layers import LAYERS
from map_index import DrawIndex, index_tiles
from progress_bars import no_progress
from streaming import Drawing, DrawnPlanes, embed_city
from tile_area import TileArea
from tile_facts import LayerScale
from tile_grid import near_any
from tile_workers import SerialExecutor
from vector_dataset import part_bytes

SURVEY_BLOCKS, SURVEY_TILES = 32, 512  # blocks and tiles that are drawn to learn what is usual in the whole area


@dataclasses.dataclass(frozen=True)
class BlockJob:
    """What all blocks have in common. `scale` is what is usual for each layer, `about` goes into every part."""

    plan: Plan
    dtype: str
    device: str
    about: dict[str, Any]
    scale: LayerScale | None = None


@dataclasses.dataclass(frozen=True)
class BlockDone:
    """A part of the dataset, and what there is to know about it; `seconds` is how long it took."""

    data: bytes
    tiles: int
    blank: int
    seconds: float


def embed_block(job: BlockJob, weights: bytes, block: tuple[int, int], part: Path | bytes) -> BlockDone:
    """Draw and embed the tiles of a block.

    `weights` is a checkpoint as `save_checkpoint` writes it, `part` what `blocks.prepare` wrote for the block: a file,
    or its content. The numbers depend on the tiles alone, not on the block, the process or the order.
    """
    started, checkpoint, plan = time.perf_counter(), _load_weights(weights), job.plan
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # there are as many processes as cores; sums depend on the number of threads
    try:
        with tempfile.TemporaryDirectory() as name, no_progress():
            folder = Path(name)
            area, index, own = draw_area(plan, block, part, folder)
            if not len(own):
                return BlockDone(b"", 0, 0, time.perf_counter() - started)
            index.save(folder)
            drawing = Drawing(Path(plan.extract), folder, f"{plan.key} {block}", area, index, plan.box)
            corners = np.array([(plan.x0, plan.y0), (plan.x0 + plan.columns - 1, plan.y0 + plan.rows - 1)])
            city = embed_city(
                drawing,
                checkpoint,
                SerialExecutor(),
                1,
                device=job.device,
                rows=own,
                scale=job.scale,
                corners=corners,
            )
            embeddings = city.embeddings
            data = part_bytes(embeddings, job.dtype, job.about)
    finally:
        torch.set_num_threads(threads)
    return BlockDone(data, len(own), int(embeddings.blank.sum()), time.perf_counter() - started)


def survey_block(job: BlockJob, weights: bytes, block: tuple[int, int], part: Path | bytes, count: int) -> np.ndarray:
    """The mean intensity of each layer, `(n, L)`, of at most `count` tiles of a block that show something."""
    checkpoint = _load_weights(weights)
    with tempfile.TemporaryDirectory() as name, no_progress():
        area, index, own = draw_area(job.plan, block, part, Path(name))
        own = own[np.diff(index.tile_start)[own] > 0]
        chosen = own[np.unique(np.linspace(0, len(own) - 1, min(count, len(own))).astype(np.int64))]
        intensity = np.zeros((len(chosen), len(LAYERS)), dtype=np.float32)
        drawn = DrawnPlanes(area, index, np.zeros((0, len(LAYERS)), np.int32), checkpoint.tile_size, checkpoint.shrink)
        for i, tile in enumerate(chosen.tolist()):
            for layer, plane in drawn.of_tile(tile):
                intensity[i, layer] = plane.mean() / 255
    return intensity


def draw_area(
    plan: Plan, block: tuple[int, int], part: Path | bytes, scratch: Path
) -> tuple[TileArea, DrawIndex, np.ndarray]:
    """The tiles of a block and of its surroundings, what lies on them, and the numbers of those of the block."""
    if isinstance(part, bytes):
        path = scratch / "part.l2v"
        path.write_bytes(part)
    else:
        path = part
    objects, classes = load_part(path, plan), np.array(plan.classes)
    area = plan.area(block, SEEN_TILES)
    if not plan.whole:  # only what holds something, and what is beside it
        wide = plan.area(block, MARGIN_TILES)
        shown = np.diff(index_tiles(objects, classes, wide).tile_start) > 0
        near = near_any(area.unwrapped_xy, wide.unwrapped_xy[shown], 1)
        wanted = np.zeros_like(area.wanted)
        wanted[tuple(area.columns_rows[near].T[::-1])] = True
        area = dataclasses.replace(area, wanted=wanted)
    inner = plan.area(block).unwrapped_xy
    own = area.number(*inner.T)
    return area, index_tiles(objects, classes, area), np.sort(own[own >= 0])


@functools.lru_cache(maxsize=1)
def _load_weights(weights: bytes) -> Checkpoint:
    with tempfile.TemporaryDirectory() as name:
        path = Path(name, "encoder.pth")
        path.write_bytes(weights)
        return load_checkpoint(path)
