"""Embed a large extract block by block into a dataset: plan, survey, blocks, manifest; what is finished is kept.

Not a command. `python embed.py COUNTRY.osm.pbf -o FOLDER/` uses it.
"""

import contextlib
import dataclasses
import json
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from block_engine import Engine, Task, check_ray, open_engine
from block_pass import SURVEY_BLOCKS, SURVEY_TILES, BlockJob, embed_block, survey_block
from blocks import BLOCK_TILES, PLAN, Plan, part_path, prepare
from checkpoint import Checkpoint, checkpoint_bytes
from cli import UserError, WorkError, flag, positive_int
from files import digest, file_digest, locked, remove_work
from map_style import load_style
from osm_extract import ATTRIBUTION
from progress_bars import progress, warn
from tile_facts import LayerScale, layer_scale
from tile_grid import Box
from vector_dataset import FORMAT, DatasetFolder, part_name
from vectors import DTYPES

PREPARED = "blocks"  # folder of the prepared blocks, in the work folder


@dataclasses.dataclass(frozen=True)
class DatasetFlags:
    """Output as a dataset, for large areas."""

    engine: str | None = flag(
        None, "write a folder, block by block, with processes of this machine or on Ray", choices=["local", "ray"]
    )
    address: str | None = flag(None, "the Ray cluster: auto or HOST:PORT; default: start Ray here", metavar="ADDRESS")
    dtype: str = flag("float32", "numbers of the vectors in a dataset", choices=list(DTYPES))
    block_tiles: int = flag(BLOCK_TILES, "edge of a block in tiles, a power of two", type=positive_int)

    def __post_init__(self) -> None:
        if self.block_tiles & (self.block_tiles - 1):
            raise UserError(f"--block_tiles {self.block_tiles} given, a power of two such as 64 or 128 expected")


@dataclasses.dataclass(frozen=True)
class DatasetReport:
    """What a run did: tiles in the dataset, its blocks, those embedded now, and those given up and why."""

    tiles: int
    blocks: int
    computed: int
    failed: dict[str, str]


def embed_dataset(
    extract: Path,
    box: Box | None,
    checkpoint: Checkpoint,
    output: Path | str,
    flags: DatasetFlags,
    *,
    style: Path,
    jobs: int,
    device: str = "auto",
) -> DatasetReport:
    """Write the vectors of all tiles of an extract to a folder; parts that an earlier run finished are kept.

    A block that fails several times is left out and named in the report. Raises `UserError` for a folder that holds
    something else, and while another process works on it.
    """
    if flags.engine == "ray":
        check_ray(flags.address)  # before the extract is prepared
    folder = DatasetFolder(output)
    with work_folder(folder) as work:
        source = file_digest(extract)
        key = digest(FORMAT, source, box, load_style(style).digest, checkpoint.key(), flags.dtype, flags.block_tiles)
        former = former_manifest(folder, key)
        folder.remove_unfinished()
        if former is not None and former["complete"]:
            parts = former["parts"]
            if intact_parts(folder, key, list(parts)).keys() == parts.keys():
                remove_work(work / PREPARED, PLAN)  # what a kill at the end may have left
                return DatasetReport(sum(parts.values()), len(parts), 0, {})
        plan = prepare(extract, source, style, box, checkpoint.zoom, flags.block_tiles, work / PREPARED)
        weights = checkpoint_bytes(checkpoint.without_training())
        job = BlockJob(plan, flags.dtype, device, {"dataset": key, "extract": plan.extract, "dtype": flags.dtype})
        with open_engine(flags.engine or "local", jobs, flags.address) as engine:
            scale = survey(engine, job, weights, work) if former is None else former["scale"]
            job = dataclasses.replace(job, scale=LayerScale(*map(np.array, scale)))
            manifest = describe(job, key, checkpoint) | {"scale": scale}
            folder.write_manifest(manifest)
            parts, computed, failed = embed_blocks(engine, folder, job, weights, work)
        folder.write_summary([part_name(name) for name in sorted(parts)])
        folder.write_manifest(manifest | {"complete": not failed, "failed": sorted(failed), "parts": parts})
        if not failed:
            remove_work(work / PREPARED, PLAN)
    return DatasetReport(sum(parts.values()), len(plan.blocks), computed, failed)


@contextlib.contextmanager
def work_folder(folder: DatasetFolder) -> Iterator[Path]:
    """A folder for prepared blocks: beside the dataset, or in the working folder if the dataset is on another machine.

    It is removed when nothing in it is needed any longer. Raises `UserError` while another process works on the
    dataset from this machine.
    """
    place = folder.local.absolute() if folder.local is not None else Path(folder.root.rstrip("/")).absolute()
    where = place.parent if folder.local is not None else Path.cwd()
    work = where / f".{place.name}.partial"
    work.mkdir(parents=True, exist_ok=True)
    with locked(work / "work.lock", wait_s=1):
        yield work
        if not (work / PREPARED).exists():
            shutil.rmtree(work, ignore_errors=True)


def former_manifest(folder: DatasetFolder, key: str) -> dict[str, Any] | None:
    """What an earlier run of the same command wrote. Raises `UserError` if the folder holds something else."""
    former = folder.manifest()
    if former is None and folder.names():
        raise UserError(f"{folder.url} is not empty and holds no dataset; remove it or name another folder")
    if former is not None and former["key"] != key:
        raise UserError(
            f"{folder.url} holds a dataset of another extract, box, style, encoder, --dtype or --block_tiles "
            f"({former['extract']['name']}, {former['dtype']}); remove it or name another folder"
        )
    return former


def intact_parts(folder: DatasetFolder, key: str, blocks: list[str]) -> dict[str, int]:
    """Those of the blocks whose part is there and whole, with their number of tiles."""
    there = set(folder.names())
    names = {part_name(block): block for block in blocks}
    intact = {}
    for name, footer in folder.footers(sorted(there & set(names))):
        if footer is not None and json.loads(footer.metadata[b"loc2vec"])["dataset"] == key:
            intact[names[name]] = footer.num_rows
        else:
            warn(f"{folder.url}/{name} is damaged; it is computed again")
    return intact


def survey(engine: Engine, job: BlockJob, weights: bytes, work: Path) -> list[list[float]]:
    """Draw some tiles all over the area to learn what intensity is usual for each layer.

    Dominant layer and content density of a tile are relative to it; they must not depend on the tile's block.
    """
    blocks = job.plan.blocks
    chosen = [blocks[i] for i in np.unique(np.linspace(0, len(blocks) - 1, SURVEY_BLOCKS).astype(np.int64))]
    count = -(-SURVEY_TILES // len(chosen))
    tasks = block_tasks(job.plan, chosen, work, count)
    found, done = {}, engine.run(survey_block, (job, weights), tasks)
    for outcome in progress(done, total=len(chosen), desc="looking at the map", unit=" blocks"):
        if outcome.error is not None:
            warn(f"block {outcome.name} was not surveyed: {outcome.error}")
        else:
            found[outcome.name] = outcome.value
    if not found:
        raise WorkError("not one of the blocks can be drawn; the warnings above say why")
    scale = layer_scale(np.concatenate([found[name] for name in sorted(found)]))
    return [scale.usual.tolist(), scale.full.tolist()]  # the same numbers in every run: JSON holds them


def embed_blocks(
    engine: Engine, folder: DatasetFolder, job: BlockJob, weights: bytes, work: Path
) -> tuple[dict[str, int], int, dict[str, str]]:
    """Embed the blocks whose part is not there, and write each part when it comes.

    Returns the number of tiles of each part, how many were embedded now, and which blocks were given up and why.
    """
    plan = job.plan
    parts = intact_parts(folder, job.about["dataset"], [plan.name(block) for block in plan.blocks])
    left = [block for block in plan.blocks if plan.name(block) not in parts]
    sizes = {block: part_path(work / PREPARED, plan, block).stat().st_size for block in left}
    left.sort(key=lambda block: -sizes[block])  # the longest first, so that no process works alone at the end
    failed: dict[str, str] = {}
    with progress(total=len(plan.blocks), desc="embedding", unit=" blocks") as bar:
        bar.update(len(parts))
        for done in engine.run(embed_block, (job, weights), block_tasks(plan, left, work)):
            if done.error is not None:
                failed[done.name] = done.error
                warn(f"block {done.name} is left out after several attempts: {done.error}")
            elif done.value.tiles:
                folder.write(part_name(done.name), done.value.data)
                parts[done.name] = done.value.tiles
            bar.set_postfix_str(f"{sum(parts.values()):,} tiles", refresh=False)
            bar.update()
    return dict(sorted(parts.items())), len(left) - len(failed), failed


def block_tasks(plan: Plan, blocks: Iterable[tuple[int, int]], work: Path, *args: Any) -> Iterator[Task]:
    """A task for each block; its objects are read when it is handed out, if the worker cannot read them itself."""

    def task(block: tuple[int, int]) -> Task:
        path = part_path(work / PREPARED, plan, block)
        return Task(plan.name(block), lambda content: (block, path.read_bytes() if content else path, *args))

    return map(task, blocks)


def describe(job: BlockJob, key: str, checkpoint: Checkpoint) -> dict[str, Any]:
    """What the manifest says about a dataset that is not complete yet."""
    plan = job.plan
    return {
        "format": FORMAT,
        "key": key,
        "complete": False,
        "extract": {"name": plan.extract, "digest": plan.extract_digest},
        "style": plan.style_digest,
        "encoder": {"digest": checkpoint.key(), "dimensions": checkpoint.encoder_config["embedding_dim"]},
        "dtype": job.dtype,
        "zoom": plan.zoom,
        "box": plan.box,
        "block_tiles": plan.block_tiles,
        "not_drawn": plan.broken,
        "attribution": ATTRIBUTION,
    }
