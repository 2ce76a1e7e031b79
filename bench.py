"""Print the performance figures of the README, each as a ratio to its floor in the same run.

python bench.py
python bench.py pack loader --json
python bench.py render --extract CITY.osm.pbf --mapnik
"""

import contextlib
import dataclasses
import json
import os
import platform
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import cached_property
from io import BytesIO
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from checkpoint import Checkpoint, encoder_state, save_checkpoint
from cli import DeviceFlags, Parser, StopSignal, UserError, add_flags, flag, positive_int, read_flags, run_main
from data_loader import TripletSampler, network_input
from devices import compute_dtype, pick_device
from distributed import World
from inference import Embedder, precision_name
from layers import LAYERS
from model import Encoder, EncoderConfig
from projections import ALGORITHMS, TITLES, project
from similarity import Search, measure, open_search, unit
from tile_files import read_tile, resize_tile, scan_tiles
from tile_store import TileStore, open_store
from tile_writer import PARTIAL, TileWriter, encode_png
from train import Trainer
from train_config import make_config

HERE = Path(__file__).resolve().parent


@dataclasses.dataclass(frozen=True)
class BenchFlags:
    """Measurement."""

    tiles_root: Path | None = flag(None, "tiles to measure on; left out: the sample city, rendered anew", type=Path)
    extract: Path = flag(HERE / "sample_data" / "astana.osm.pbf", "extract that `render` draws, whole")
    mapnik: bool = flag(False, "`render` also times Mapnik, which `uv pip install mapnik` brings")
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
        return self.flags.tiles_root or self._rendered("sample")

    @cached_property
    def whole_city(self) -> Path:
        """The tiles of the whole sample extract, for the viewers' thousands."""
        return self.flags.tiles_root or self._rendered("astana")

    def _rendered(self, city: str) -> Path:
        root = self.scratch / f"tiles-{city}"
        script("render_tiles.py", "--city", city, "--tiles_root", root)
        return root

    @cached_property
    def whole_store(self) -> TileStore:
        """The packed tiles of the whole city."""
        return open_store(self.whole_city, 64, cache_dir=self.scratch / "cache", quick=True)

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


# --- render ------------------------------------------------------------------------------------------------


def bench_render(bench: Bench) -> Iterator[Figure]:
    """Drawing a whole extract against only encoding and writing the same inked PNGs, and against Mapnik; all cores."""
    extract, root = bench.flags.extract, bench.scratch / "whole"
    peak = peak_memory("render_tiles.py", extract, "--tiles_root", root)
    store = open_store(root, 256, cache_dir=bench.scratch / "cache")
    planes = store.plane_of[np.nonzero(store.plane_of)]
    rivals = {
        "floor: the same PNGs encoded by our own encoder and written": lambda: floor_seconds(bench, store, encode_png),
        "floor: the same PNGs encoded by Pillow at its quickest and written": lambda: floor_seconds(
            bench, store, pillow_png
        ),
    }
    if bench.flags.mapnik:
        own, ours = (lambda own=own: mapnik_seconds(bench, own) for own in (True, False))
        rivals |= {"against Mapnik with its own PNGs": own, "against Mapnik with our PNG encoder": ours}
    rounds = [(draw_seconds(bench), [rival() for rival in rivals.values()]) for _ in range(bench.flags.repeats)]
    wall = statistics.median(taken for taken, _ in rounds)
    for number, note in enumerate(rivals):
        floor = statistics.median(taken[number] for _, taken in rounds)
        ratio = statistics.median(own / taken[number] for own, taken in rounds)
        note = f"{len(planes):,} inked PNGs, peak of all processes {peak:,.0f} MiB; {note}"
        yield Figure(f"render {extract.name}", wall, "s", floor, ratio, bench.hardware, len(store), note)


def draw_seconds(bench: Bench) -> float:
    """How long render_tiles.py takes for the whole extract, from the start of the process to its end."""
    with tempfile.TemporaryDirectory(dir=bench.scratch) as root:
        return seconds(lambda: script("render_tiles.py", bench.flags.extract, "--tiles_root", root))


def floor_seconds(bench: Bench, store: TileStore, encode: Callable) -> float:
    """How long encoding and writing every inked plane takes on all cores; starting the processes is not counted."""
    cores = os.cpu_count() or 1
    planes = store.plane_of[np.nonzero(store.plane_of)]
    shares = [(bench.scratch, store.planes.filename, store.planes.shape, planes[i::cores]) for i in range(cores)]
    with ProcessPoolExecutor(cores, get_context("spawn")) as pool:
        list(pool.map(time.sleep, [1.0] * cores))  # until every process is there
        return max(pool.map(write_share, shares, [encode.__name__] * cores))


def mapnik_seconds(bench: Bench, own_encoder: bool) -> float:
    """How long Mapnik takes; see tests/mapnik_timing.py for what is counted."""
    sys.path.insert(0, str(HERE / "tests"))
    from mapnik_timing import measure

    with tempfile.TemporaryDirectory(dir=bench.scratch) as folder:
        return measure(bench.flags.extract, Path(folder), os.cpu_count() or 1, own_encoder)[0]


def write_share(share: tuple[Path, str, tuple, np.ndarray], encoder: str) -> float:
    """Encode and write some planes of a store; the seconds it took."""
    folder, file, shape, wanted = share
    planes = np.memmap(file, dtype=np.uint8, mode="r", shape=shape)
    encode = {"encode_png": encode_png, "pillow_png": pillow_png}[encoder]
    with tempfile.TemporaryDirectory(dir=folder) as out:
        (Path(out) / PARTIAL).mkdir()
        writer = TileWriter(Path(out), 17, shape[1])
        return seconds(lambda: [writer.write(f"{out}/{i}.png", encode(planes[p])) for i, p in enumerate(wanted)])


def pillow_png(plane: np.ndarray) -> bytes:
    """A grey PNG as quickly as Pillow can."""
    buffer = BytesIO()
    Image.fromarray(plane).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


# --- memory ------------------------------------------------------------------------------------------------

BIG_BOX = (71.40, 51.13, 71.45, 51.16)  # some hundred tiles of the big city
ALLOWED_MIB = 4096


def bench_memory(bench: Bench) -> Iterator[Figure]:
    """Peak memory of drawing a made-up city of 33,000 tiles and more than 520,000 buildings; and of a part of it."""
    sys.path.insert(0, str(HERE / "tests"))
    from big_extract import write_big_extract

    extract = bench.scratch / "big.osm.pbf"
    write_big_extract(BenchFlags.extract, extract)
    for name, more in (("whole", ()), ("a small box", ("--bbox", ",".join(map(str, BIG_BOX))))):
        root = bench.scratch / "big"
        peak = peak_memory("render_tiles.py", extract, "--tiles_root", root, *more)
        manifest = json.loads((root / "manifest.json").read_text(encoding="utf-8"))
        note = f"{manifest['layers']['buildings']['objects']:,} buildings, all processes; floor: the most allowed"
        ratio, tiles = peak / ALLOWED_MIB, manifest["tiles"]
        yield Figure(f"memory, big city, {name}", peak, "MiB", ALLOWED_MIB, ratio, bench.hardware, tiles, note)
        shutil.rmtree(root)


def peak_memory(name: str, *arguments: object) -> float:
    """The most memory that a script and all its processes hold together, in MiB; shared pages count once (Linux)."""
    process = subprocess.Popen([sys.executable, str(HERE / name), *map(str, arguments)], stdout=subprocess.DEVNULL)
    peak = 0
    while process.poll() is None:
        peak = max(peak, sum(proportional_kib(pid) for pid in family(process.pid)))
        time.sleep(0.1)
    if process.returncode:
        raise UserError(f"{name} ended with exit code {process.returncode}")
    return peak / 1024


def family(pid: int) -> set[int]:
    """A process and all that descend from it."""
    parent = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parent[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
    found, children = {pid}, {pid}
    while children:
        children = {child for child, above in parent.items() if above in children} - found
        found |= children
    return found


def proportional_kib(pid: int) -> int:
    """Memory of a process in KiB; what it shares with others is divided among them."""
    with contextlib.suppress(OSError):
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        return next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)
    return 0


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


# --- train -------------------------------------------------------------------------------------------------

TRAIN_BATCHES = {"cpu": {64: 32, 128: 8}, "cuda": {256: 256}}  # samples a batch, by tile size
TRAIN_STEPS = {"cpu": 2, "cuda": 20}


def bench_train(bench: Bench) -> Iterator[Figure]:
    """A training step on real tiles against the same step on a tensor that is there; and against the naive way."""
    for size, batch_size in TRAIN_BATCHES[bench.device.type].items():
        yield from bench_step(bench, size, batch_size, TRAIN_STEPS[bench.device.type])
    yield from bench_naive(bench)


def bench_step(bench: Bench, size: int, batch_size: int, steps: int) -> Iterator[Figure]:
    """Steps with everything the recommended recipe does to a batch: windows at any pixel, turns, blanked layers."""
    trainer = bench_trainer(bench, size, batch_size)
    stream = trainer.batches.epoch(0, 0)
    step, batch = next(stream)
    tiles = trainer.batches.prepared(batch, 0, step)

    def real() -> None:
        for _ in range(steps):
            step, batch = next(stream)
            trainer.learn(trainer.batches.prepared(batch, 0, step), batch)
        wait(bench.device)

    def there() -> None:
        for _ in range(steps):
            trainer.learn(tiles, batch)
        wait(bench.device)

    yield bench.compare(
        f"{steps} training steps, batch {batch_size}, {size} px",
        real,
        there,
        unit="s",
        tiles=steps * len(tiles),
        note="floor: the same steps on a tensor already on the device; at most 1.05 is asked for",
    )
    stream.close()
    trainer.recorder.close()


def bench_naive(bench: Bench, size: int = 256, batch_size: int = 4) -> Iterator[Figure]:
    """The way every other loc2vec goes: 36 PNGs decoded per triplet, float32, no `channels_last`."""
    trainer = bench_trainer(bench, size, batch_size, preset="spec")
    plain = bench_trainer(bench, size, batch_size, preset="spec", precision="fp32")
    plain.network.to(memory_format=torch.contiguous_format)
    naive = DataLoader(NaiveTriplets(bench.store(size), 64), batch_size, num_workers=os.cpu_count() or 1)
    ours, theirs = trainer.batches.epoch(0, 0), iter(naive)
    batches = [next(ours) for _ in range(2)]

    def load_naively() -> None:
        for tiles in DataLoader(naive.dataset, batch_size, num_workers=os.cpu_count() or 1):
            tiles.to(bench.device)
        wait(bench.device)

    def load() -> None:
        rows = trainer.batches.sampler.epoch(0, 64).reshape(-1, batch_size, 3)
        for step, part in enumerate(rows):
            trainer.batches.prepared(trainer.batches.load(0, step, part), 0, step)
        wait(bench.device)

    yield bench.compare(
        f"loading 64 triplets naively, {size} px", load_naively, load, unit="s", tiles=192, note="floor: ours"
    )

    def step_naively() -> None:
        tiles = next(theirs).flatten(0, 1)
        plain.learn(tiles.to(bench.device), batches[0][1])
        wait(bench.device)

    def step_ours() -> None:
        step, batch = batches[1]
        batch = trainer.batches.load(0, step, batch.rows)
        trainer.learn(trainer.batches.prepared(batch, 0, step), batch)
        wait(bench.device)

    yield bench.compare(
        f"a whole naive step, {size} px", step_naively, step_ours, unit="s", tiles=3 * batch_size, note="floor: ours"
    )
    for each in (trainer, plain):
        each.recorder.close()


class NaiveTriplets(Dataset):
    """Triplets as everybody reads them: one PNG per layer and tile, decoded each time. `(3, 12, S, S) float32`."""

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


def bench_trainer(bench: Bench, size: int, batch_size: int, preset: str = "recommended", **settings: object) -> Trainer:
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
    with StopSignal() as stop:
        return Trainer(config, World(bench.device), stop)


def wait(device: torch.device) -> None:
    """Until the device has done all it was told to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


# --- embed -------------------------------------------------------------------------------------------------

EMBED_TILES = {64: 1024, 128: 256, 256: 64}  # on a CPU; a GPU takes every tile


def bench_embed(bench: Bench) -> Iterator[Figure]:
    """Embedding tiles against the bare forward passes; a `precompute` with nothing to do against its imports."""
    for size, count in EMBED_TILES.items():
        store = bench.store(size)
        encoder = untrained_encoder(size).to(bench.device, memory_format=torch.channels_last).eval()
        rows = np.flatnonzero(~store.blank)
        rows = rows if bench.device.type == "cuda" else rows[:count]
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
        rate = f"{len(rows) / figure.value:,.0f} tiles/s, {precision_name(bench.device)}; floor: bare forward passes"
        yield dataclasses.replace(figure, note=rate)
    yield second_precompute(bench)


def untrained_encoder(tile_size: int) -> Encoder:
    """An encoder with random weights: as quick as a trained one."""
    torch.manual_seed(0)
    return Encoder(EncoderConfig(tile_size=tile_size))


def untrained_checkpoint(bench: Bench, tile_size: int) -> Path:
    """A checkpoint of an untrained encoder in the scratch folder."""
    encoder, path = untrained_encoder(tile_size), bench.scratch / f"untrained-{tile_size}.pth"
    save_checkpoint(path, Checkpoint(dataclasses.asdict(encoder.config), encoder_state(encoder)))
    return path


def second_precompute(bench: Bench) -> Figure:
    """The second run of precompute_embeddings.py against importing what it imports."""
    flags = (
        "--tiles_root",
        bench.tiles_root,
        "--model_path",
        untrained_checkpoint(bench, 64),
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


# --- search ------------------------------------------------------------------------------------------------

SEARCH_SIZES = (22_000, 200_000)  # beside the sample city's
SEARCH_TREES = (50, 100, 200, 500)


def bench_search(bench: Bench) -> Iterator[Figure]:
    """The ten nearest of one vector: exact, and Annoy by trees with its recall, against exact search."""
    for count in (int((~bench.store(64).blank).sum()), *SEARCH_SIZES):
        vectors = made_up_vectors(count)
        exact = measure(Search(vectors, "angular"), sample=300)
        note = f"p99 {exact.p99_ms:.2f} ms, recall@10 {exact.recall:.3f}; floor: itself"
        name, cpu = f"search {count:,} x 128", f"{processor_name()}, {os.cpu_count()} cores"
        yield Figure(f"{name}, exact", exact.p50_ms, "ms", exact.p50_ms, 1.0, cpu, count, note)
        for trees in SEARCH_TREES:
            with tempfile.TemporaryDirectory(dir=bench.scratch) as folder:
                index = open_search(vectors, trees=trees, key=f"bench {count}", cache_dir=folder, exact=False)
                found = measure(index, sample=300)
            note = (
                f"p99 {found.p99_ms:.2f} ms, recall@10 {found.recall:.3f}, built in {index.seconds:.1f} s; floor: exact"
            )
            ratio = found.p50_ms / exact.p50_ms
            yield Figure(f"{name}, Annoy {trees} trees", found.p50_ms, "ms", exact.p50_ms, ratio, cpu, count, note)


def made_up_vectors(count: int, dimension: int = 128, inner: int = 16) -> np.ndarray:
    """Unit vectors as an encoder gives them: clouds round some hundred centres, along `inner` directions, and noise."""
    rng = np.random.default_rng(0)
    centres, axes = rng.normal(size=(300, inner)), rng.normal(size=(inner, dimension))
    clouds = centres[rng.integers(300, size=count)] + 0.5 * rng.normal(size=(count, inner))
    return unit(clouds @ axes + 0.1 * rng.normal(size=(count, dimension))).astype(np.float32)


# --- project -----------------------------------------------------------------------------------------------

PROJECT_COUNTS = (2_300, 22_000)


def bench_project(bench: Bench) -> Iterator[Figure]:
    """Each projection, its trustworthiness included, against PCA of the same vectors; once each, libraries warm."""
    for algorithm in ALGORITHMS:  # imports and compiles
        project(manifold_vectors(200), algorithm, progress=lambda _: None)
    for count in PROJECT_COUNTS:
        vectors = manifold_vectors(count)
        for dimensions in (2, 3):
            base = statistics.median(project(vectors, "PCA", dimensions).seconds for _ in range(bench.flags.repeats))
            for algorithm in ALGORITHMS:
                done = project(vectors, algorithm, dimensions)
                yield Figure(
                    f"{TITLES[algorithm]} {dimensions}-D of {count:,} vectors",
                    done.seconds,
                    "s",
                    base,
                    done.seconds / base,
                    processor_name(),
                    count,
                    f"trustworthiness {done.trustworthiness:.3f}, {done.fitted:,} fitted; floor: PCA",
                )


def manifold_vectors(count: int, dimension: int = 128) -> np.ndarray:
    """Made-up unit vectors `(count, dimension)` of 24 kinds that differ in eight ways, as an encoder's do."""
    rng = np.random.default_rng(0)
    hidden = rng.normal(size=(24, 8))[rng.integers(24, size=count)] + 0.5 * rng.normal(size=(count, 8))
    vectors = np.tanh(hidden @ rng.normal(size=(8, dimension))) + 0.05 * rng.normal(size=(count, dimension))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


# --- html ----------------------------------------------------------------------------------------------------

HTML_TILES = (500, 5_000, 0)  # 0: every tile with content


def bench_html(bench: Bench) -> Iterator[Figure]:
    """The HTML page: its size, first draw and hover in Chromium, against a page with only an empty Plotly plot."""
    sys.path.insert(0, str(HERE / "tests"))
    from plotly.offline import get_plotlyjs

    from page_timing import measure

    script_mb = len(get_plotlyjs().encode()) / 1e6
    for max_tiles in HTML_TILES:
        page = html_page(bench, max_tiles)
        tiles = max_tiles or int((~bench.whole_store.blank).sum())
        size, note = page.stat().st_size / 1e6, "floor: Plotly's script alone"
        yield Figure("page size", size, "MB", script_mb, size / script_mb, bench.hardware, tiles, note)
        note = "floor: a page with an empty Plotly plot"
        for name, (own, floor) in measure(page, bench.flags.repeats).items():
            yield Figure(name, own / 1e3, "s", floor / 1e3, own / floor, bench.hardware, tiles, note)


def html_page(bench: Bench, max_tiles: int) -> Path:
    """The page of so many tiles of the whole city."""
    folder = bench.scratch / f"page-{max_tiles}"
    place = ("--tiles_root", bench.whole_city, "--cache_dir", bench.scratch / "cache", "--output_dir", folder)
    what = ("--model_path", untrained_checkpoint(bench, 64), "--max_tiles", max_tiles, "--dr_algorithms", "PCA")
    script("run_interactive_viz.py", "html", *place, *what, "--device", bench.device.type)
    return folder / "index.html"


# --- app -----------------------------------------------------------------------------------------------------

APP_TILES = 5_000
APP_STARTS = 3  # fresh servers at most: each takes a while


def bench_app(bench: Bench) -> Iterator[Figure]:
    """The live app with warm caches: server start to first plot, and a query's time on the server."""
    model, cache = untrained_checkpoint(bench, 64), bench.scratch / "cache"
    flags = {"tiles_root": bench.whole_city, "model_path": model, "cache_dir": cache, "max_tiles": APP_TILES}
    arguments = [part for name, value in flags.items() for part in (f"--{name}", str(value))]
    script("precompute_embeddings.py", *arguments, "--dr_algorithms", "PCA", "--annoy_metrics", "angular")
    app = [HERE / "run_interactive_viz.py", "streamlit", *arguments, "--port"]
    with live_app(app) as (url, _):  # the first visit draws the tiles' pictures and keeps them
        first_plot(url, timeout=1_800)
    (bench.scratch / "nothing.py").write_text('import streamlit as st\nst.markdown("nothing")\n', encoding="utf-8")
    nothing = ["-m", "streamlit", "run", bench.scratch / "nothing.py", "--server.port"]
    rounds = []
    for _ in range(min(bench.flags.repeats, APP_STARTS)):
        with live_app(app) as (url, ready):
            plot, moves = first_plot(url)
        with live_app(nothing) as (url, empty_ready):
            (floor,) = browser_seconds(url, ".stMarkdown")
        rounds.append((plot, moves, ready + plot, floor, floor, empty_ready + floor))
    columns = [statistics.median(column) for column in zip(*rounds, strict=True)]
    note = "fresh server, caches warm; floor: a server with an empty script"
    names = ("first plot from opening the page", "plot ready from opening the page", "first plot from the command")
    for name, value, base in zip(names, columns[:3], columns[3:], strict=True):
        yield Figure(f"app {name}", value, "s", base, value / base, bench.hardware, APP_TILES, note)
    yield from bench_query(bench, arguments)


def bench_query(bench: Bench, arguments: list[str]) -> Iterator[Figure]:
    """Another random tile in the search mode: the search alone, as the app says it, and the whole run of its script."""
    from streamlit.testing.v1 import AppTest

    sys.argv = ["streamlit_app.py", *arguments]
    app = AppTest.from_file(str(HERE / "streamlit_app.py"), default_timeout=600)
    app.query_params["mode"] = "Similarity Search (Annoy)"
    app.run()
    nothing = AppTest.from_string("import streamlit as st\nst.button('again', key='again')").run()
    said = []

    def another() -> None:
        app.button(key="query random").click().run()
        said.extend(float(found[1]) / 1e3 for c in app.caption if (found := re.search(r" in ([\d.]+) ms ", c.value)))

    note = "results, their pictures and why they match; floor: a script with one button"
    floor = lambda: nothing.button(key="again").click().run()  # noqa: E731 - one of a pair
    page = bench.compare("app query, whole page", another, floor, unit="s", tiles=APP_TILES, note=note)
    vectors = made_up_vectors(APP_TILES)
    exact = Search(vectors, "angular")
    base = statistics.median(seconds(lambda: exact.query(vectors[:1], 12)) for _ in range(bench.flags.repeats))
    value = statistics.median(said)
    yield Figure("app query", value, "s", base, value / base, bench.hardware, APP_TILES, "floor: exact search")
    yield page


@contextlib.contextmanager
def live_app(script: list) -> Iterator[tuple[str, float]]:
    """A server on a free port, started by Python with `script` and the port as its arguments, ended afterwards.

    Yields its address and the seconds until it answered.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, *map(str, script), str(port)]
    quiet = {"STREAMLIT_SERVER_HEADLESS": "true", "STREAMLIT_SERVER_FILE_WATCHER_TYPE": "none"}
    started = time.perf_counter()
    process = subprocess.Popen(
        command, cwd=HERE, env=os.environ | quiet, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        while not answers(f"http://localhost:{port}/_stcore/health"):
            time.sleep(0.05)
        yield f"http://localhost:{port}", time.perf_counter() - started
    finally:
        process.terminate()
        process.wait()


def answers(url: str) -> bool:
    """Whether a server answers there."""
    try:
        with urllib.request.urlopen(url, timeout=1) as reply:
            return reply.status == 200
    except OSError:
        return False


def first_plot(url: str, timeout: int = 60) -> list[float]:
    """Seconds from opening the page until the linked view shows its dots, and until Plotly moves them."""
    return browser_seconds(url, ".live-root[data-drawn=true]", ".live-root[data-ready=true]", timeout=timeout)


def browser_seconds(url: str, *wanted: str, timeout: int = 60) -> list[float]:
    """Seconds until each of `wanted` is there, in a fresh headless Chromium; the first may take `timeout` seconds."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--enable-unsafe-swiftshader"])
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        page.set_default_timeout(timeout * 1e3)
        started = time.perf_counter()
        page.goto(url)
        taken = []
        for part in wanted:
            page.locator(part).first.wait_for(state="attached")
            taken.append(time.perf_counter() - started)
        browser.close()
    return taken


# --- the command -------------------------------------------------------------------------------------------

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
