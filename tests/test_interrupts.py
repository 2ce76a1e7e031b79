"""SIGKILL at random moments of whatever writes: what is there is whole, and the rerun ends as if undisturbed."""

import dataclasses
import json
import random
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from cache_files import load_cache
from checkpoint import load_checkpoint
from conftest import make_tiles, save_untrained
from fork_host import Host, show
from osm_file import cut_extract
from render_tiles import SAMPLE_EXTRACT

pytestmark = pytest.mark.slow

BOX = "71.4280,51.1540,71.4380,51.1600"  # 4 x 4 tiles in the middle of the sample city
KILLED = -9
KILLS_IN_A_ROW = 3  # before a run is left to end
MOST_TRIES = 200
SPEEDS = ("tiles_per_second", "data_wait")  # what differs between two equal runs
SMALL = ("--tile_size", 32, "--neg_radius", 4, "--batch_size", 4, "--max_samples", 16, "--val_samples", 8)
SMALL += ("--embedding_dim", 8, "--epochs", 3, "--save_every", 1, "--num_workers", 1, "--figure_every", 2)
SMALL += ("--log_every", 1, "--run_name", "run", "--device", "cpu")
FILLED = ("--annoy_metrics", "angular", "euclidean", "--annoy_trees", 20, "--dr_algorithms", "PCA")


@dataclasses.dataclass(frozen=True)
class Ground:
    """What all runs read: an extract, tiles, a checkpoint, and a cache that holds their vectors."""

    extract: Path
    tiles: Path
    checkpoint: Path
    cache: Path

    @property
    def city(self) -> tuple:
        """Flags that name tiles and checkpoint."""
        return "--tiles_root", self.tiles, "--model_path", self.checkpoint, "--device", "cpu"


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    host = Host(tmp_path_factory.mktemp("host"))
    yield host
    host.close()


@pytest.fixture(scope="module")
def ground(host: Host, tmp_path_factory: pytest.TempPathFactory) -> Ground:
    folder = tmp_path_factory.mktemp("ground")
    found = Ground(folder / "piece.osm.pbf", folder / "tiles", folder / "model.pth", folder / "cache")
    cut_extract(SAMPLE_EXTRACT, tuple(map(float, BOX.split(","))), found.extract)
    make_tiles(found.tiles, nx=8, ny=8, px=64)
    save_untrained(found.checkpoint)
    host.run("precompute_embeddings.py", *found.city, *FILLED, cwd=folder)
    return found


@pytest.fixture(scope="module")
def tally(request) -> Iterator[Counter]:
    """Kills survived, by the work that was killed; printed when the module is done."""
    counts: Counter = Counter()
    yield counts
    listing = ", ".join(f"{name} {count}" for name, count in counts.items())
    show(request.config, f"kills survived: {counts.total()} ({listing})")


# --- what is whole -----------------------------------------------------------------------------------------


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder by its path, but hidden ones and locks: no reader opens these."""
    found = {path.relative_to(folder): path for path in sorted(folder.rglob("*")) if path.is_file()}
    seen = {name: path for name, path in found.items() if not any(part.startswith(".") for part in name.parts)}
    return {str(name): path.read_bytes() for name, path in seen.items() if path.suffix != ".lock"}


def same_files(folder: Path, calm: Path, done: bool) -> None:
    """Every file is byte for byte that of the undisturbed run; all of them are there when the run is `done`."""
    found, expected = contents(folder), contents(calm)
    assert found == expected if done else found.items() <= expected.items()


def same_tiles(folder: Path, calm: Path, done: bool) -> None:
    """Tiles, labels and previews are those of the undisturbed run; the manifest is whole at any time."""
    found, expected = contents(folder), contents(calm)
    manifest = "tiles/manifest.json"
    if not done and manifest in found:
        json.loads(found.pop(manifest))
    assert found == expected if done else found.items() <= expected.items()
    assert not done or not (folder / "tiles/.partial").exists()


def same_caches(folder: Path, calm: Path, done: bool) -> None:
    """Every cache file opens and holds what that of the undisturbed run holds; names are the same."""
    expected = {path.relative_to(calm): load_cache(path) for path in calm.rglob("*.l2v")}
    found = {path.relative_to(folder): load_cache(path) for path in folder.rglob("[!.]*.l2v")}
    assert found.keys() == expected.keys() if done else found.keys() <= expected.keys()
    for name, (arrays, meta) in found.items():
        other, other_meta = expected[name]
        assert arrays.keys() == other.keys() and meta.keys() == other_meta.keys()
        assert all(np.array_equal(array, other[part]) for part, array in arrays.items())
        if "planes_file" in meta:
            planes = [
                (root / name).parent / about["planes_file"] for root, about in ((folder, meta), (calm, other_meta))
            ]
            assert planes[0].read_bytes() == planes[1].read_bytes()
            assert not done or len(list(planes[0].parent.glob("planes-*.bin"))) == 1
    assert not done or len(list(folder.rglob("[!.]*.ann"))) == len(list(calm.rglob("*.ann")))


def same_run(folder: Path, calm: Path, done: bool) -> None:
    """Every checkpoint is that of the undisturbed run at its epoch; in the end all lines of the log are, too."""
    of_epoch = {epoch: calm / f"checkpoints/epoch_{epoch:03d}.pth" for epoch in (1, 2, 3)}
    for path in (folder / "checkpoints").glob("[!.]*.pth"):
        checkpoint = load_checkpoint(path)
        expected = load_checkpoint(of_epoch[checkpoint.epoch])
        assert same(checkpoint.encoder_state, expected.encoder_state)
        assert same(state_of(checkpoint), state_of(expected))
    if done:
        names = {path.name for path in (calm / "checkpoints").iterdir()}
        assert {path.name for path in (folder / "checkpoints").glob("[!.]*")} == names
        assert (
            load_checkpoint(folder / "checkpoints/best_model.pth").key()
            == load_checkpoint(calm / "checkpoints/best_model.pth").key()
        )
        assert logged(folder) == logged(calm)


def state_of(checkpoint: object) -> dict:
    return {name: value for name, value in checkpoint.train_state.items() if name != "run_name"}


def same(one: object, other: object) -> bool:
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(value, other[key]) for key, value in one.items())
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


def logged(folder: Path) -> list[dict]:
    lines = (folder / "runs/run/metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [{name: value for name, value in json.loads(line).items() if name not in SPEEDS} for line in lines]


# --- the works ---------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Work:
    """A run that is killed so many times, and what compares its folder with the undisturbed run's."""

    script: str
    args: Callable[[Ground], tuple]
    kills: int
    compare: Callable[[Path, Path, bool], None]
    needs_cache: bool = False

    def start(self, ground: Ground, folder: Path) -> Path:
        """A folder in which nothing was done yet."""
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        if self.needs_cache:
            shutil.copytree(ground.cache, folder / "cache")
        return folder

    def command(self, ground: Ground, folder: Path) -> tuple:
        """What a user types, the first time or after a kill: a training goes on from its last checkpoint."""
        if self.script == "train.py" and (folder / "checkpoints/last.pth").is_file():
            return self.script, "--resume", "checkpoints/last.pth"
        return self.script, *self.args(ground)


def export(name: str) -> Work:
    return Work(
        "precompute_embeddings.py", lambda ground: (*ground.city, "--export", name), 3, same_exports, needs_cache=True
    )


def same_exports(folder: Path, calm: Path, done: bool) -> None:
    """What was exported is that of the undisturbed run, or not there; TensorBoard's own empty file aside."""
    found, expected = (
        {
            name: data
            for name, data in contents(root).items()
            if not name.startswith("cache/") and "tfevents" not in name
        }
        for root in (folder, calm)
    )
    assert found == expected if done else found.items() <= expected.items()


def render_args(ground: Ground) -> tuple:
    flags = ("--bbox", BOX, "--tile_px", 64, "--tiles_root", "tiles", "--labels", "labels.parquet", "--preview")
    return ground.extract, *flags, "--jobs", 1


def page_args(ground: Ground) -> tuple:
    return *ground.city, "--dr_algorithms", "PCA", "--max_tiles", 40, "--output_dir", "page"


def same_page(folder: Path, calm: Path, done: bool) -> None:
    """The page is byte for byte that of the undisturbed run, or not there."""
    found, expected = folder / "page/index.html", calm / "page/index.html"
    assert done or not found.exists() or found.read_bytes() == expected.read_bytes()
    assert not done or found.read_bytes() == expected.read_bytes()
    same_caches(folder, calm, done)


def embed_args(*what: object) -> Callable[[Ground], tuple]:
    return lambda ground: (ground.extract, *what, "--jobs", 1, "--device", "cpu")


def same_vectors(folder: Path, calm: Path, done: bool) -> None:
    """The table is that of the undisturbed run, or not there; vectors may differ by what the order of sums makes."""
    expected = next(calm.glob("*.parquet"))
    found = folder / expected.name
    if done or found.exists():
        table, whole = (pq.read_table(path, page_checksum_verification=True) for path in (found, expected))
        vectors, others = (np.stack(each["embedding"].to_numpy()) for each in (table, whole))
        np.testing.assert_allclose(vectors, others, atol=1e-5)
        assert table.drop_columns(["embedding"]).equals(whole.drop_columns(["embedding"]))
    assert not done or not [path.name for path in folder.iterdir() if path.name.startswith(".")]


def same_dataset(folder: Path, calm: Path, done: bool) -> None:
    """Every part is byte for byte that of the undisturbed run; in the end manifest and summary are, too."""
    same_files(folder, calm, True) if done else None
    found, expected = (
        {path.relative_to(root): path.read_bytes() for path in root.glob("city/block=*/[!.]*")}
        for root in (folder, calm)
    )
    assert found.items() <= expected.items()
    assert not done or not list(folder.rglob(".*"))


WORKS = {
    "render": Work("render_tiles.py", render_args, 12, same_tiles),
    "pack": Work("data_loader.py", lambda ground: ("--tiles_root", ground.tiles, "--neg_radius", 4), 10, same_caches),
    "train": Work("train.py", lambda ground: ("--tiles_root", ground.tiles, *SMALL), 10, same_run),
    "train recommended": Work(
        "train.py", lambda ground: ("--preset", "recommended", "--tiles_root", ground.tiles, *SMALL), 6, same_run
    ),
    "embed": Work("embed.py", embed_args("-o", "city.parquet"), 20, same_vectors),
    "embed areas": Work("embed.py", embed_args("--h3", 9, "-o", "cells.parquet"), 6, same_vectors),
    "embed dataset": Work("embed.py", embed_args("--block_tiles", 2, "-o", "city/"), 12, same_dataset),
    "bundle": Work(
        "pretrained.py",
        lambda ground: ("--model_path", ground.checkpoint, "--output_dir", "bundle"),
        6,
        same_files,
    ),
    "precompute": Work("precompute_embeddings.py", lambda ground: (*ground.city, *FILLED), 10, same_caches),
    "export parquet": export("city.parquet"),
    "export geojson": export("city.geojson"),
    "export csv": export("city.csv"),
    "export projector": export("projector"),
    "page": Work("interactive_visualizer.py", page_args, 6, same_page, needs_cache=True),
}


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", WORKS)
def test_kills_at_random_moments(name, host, ground, tmp_path, tally):
    work, rng = WORKS[name], random.Random(name)
    calm = work.start(ground, tmp_path / "calm")
    seconds = host.run(*work.command(ground, calm), cwd=calm).seconds
    killed = 0
    for _ in range(MOST_TRIES):
        folder = work.start(ground, tmp_path / "killed")
        for _ in range(KILLS_IN_A_ROW):
            ended = host.run(
                *work.command(ground, folder), cwd=folder, kill_after=rng.uniform(0, seconds), code=(KILLED, 0, 2)
            )
            if ended.code != KILLED:
                break
            killed += 1
            work.compare(folder, calm, False)
        ended = host.run(*work.command(ground, folder), cwd=folder, code=(0, 2))
        assert ended.code == 0 or "has finished its 3 epochs" in ended.err
        work.compare(folder, calm, True)
        if killed >= work.kills:
            break
    assert killed >= work.kills
    tally[name.split()[0]] += killed
