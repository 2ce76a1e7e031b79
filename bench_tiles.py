"""Measurements of tiles: rendering, its memory, packing, and loading batches.

Not a command; `python bench.py render memory pack loader` runs them.
"""

import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from io import BytesIO
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from PIL import Image

from bench_setup import HERE, Bench, BenchFlags, Figure, script, seconds
from cli import UserError
from data_loader import TripletSampler
from layers import LAYERS
from tile_files import read_tile, resize_tile, scan_tiles
from tile_store import TileStore, open_store
from tile_writer import PARTIAL, TileWriter, encode_png, single_brightness

BIG_BOX = (71.40, 51.13, 71.45, 51.16)  # some hundred tiles of the big city
ALLOWED_MIB = 4096  # of memory, for drawing the big city

# --- render ------------------------------------------------------------------------------------------------


def bench_render(bench: Bench) -> Iterator[Figure]:
    """Drawing a whole extract against encoding and writing the same non-blank PNGs, and against Mapnik; all cores."""
    extract, root = bench.flags.extract, bench.scratch / "whole"
    peak = peak_memory("render_tiles.py", extract, "--tiles_root", root)
    store = open_store(root, 256, cache_dir=bench.scratch / "cache")
    rivals: dict[str, Callable[[], float]] = {
        "floor: the same PNGs encoded by our own encoder and written": partial(write_seconds, bench, store, encode_png),
        "floor: the same PNGs encoded by Pillow at its fastest and written": partial(
            write_seconds, bench, store, pillow_png
        ),
        "floor: the same folders, PNGs and links, encoded by our own encoder": partial(
            tree_seconds, bench, store, True
        ),
        "floor: creating the same folders, files and links, encoded before": partial(tree_seconds, bench, store, False),
    }
    if bench.flags.mapnik:
        rivals["against Mapnik with its own PNGs"] = partial(mapnik_seconds, bench, own_encoder=True)
        rivals["against Mapnik with our PNG encoder"] = partial(mapnik_seconds, bench, own_encoder=False)
    rounds = [(draw_seconds(bench), [rival() for rival in rivals.values()]) for _ in range(bench.flags.repeats)]
    wall = statistics.median(taken for taken, _ in rounds)
    for number, name in enumerate(rivals):
        floor = statistics.median(taken[number] for _, taken in rounds)
        ratio = statistics.median(own / taken[number] for own, taken in rounds)
        pngs = np.count_nonzero(store.plane_of)
        note = f"{pngs:,} PNGs that show something, peak of all processes {peak:,.0f} MiB; {name}"
        yield Figure(f"render {extract.name}", wall, "s", floor, ratio, bench.hardware, len(store), note)


def draw_seconds(bench: Bench) -> float:
    """How long render_tiles.py takes for the whole extract, from the start of the process to its end."""
    with tempfile.TemporaryDirectory(dir=bench.scratch) as root:
        return seconds(lambda: script("render_tiles.py", bench.flags.extract, "--tiles_root", root))


def write_seconds(bench: Bench, store: TileStore, encode: Callable[[np.ndarray], bytes]) -> float:
    """How long encoding and writing every non-blank plane takes on all cores, without the start of the processes."""
    cores = os.cpu_count() or 1
    planes = store.plane_of[np.nonzero(store.plane_of)]
    assert isinstance(store.planes, np.memmap) and store.planes.filename is not None
    with ProcessPoolExecutor(cores, get_context("spawn")) as pool:
        list(pool.map(time.sleep, [1.0] * cores))  # until every process has started
        share = partial(write_share, bench.scratch, store.planes.filename, store.planes.shape, encode)
        return max(pool.map(share, [planes[i::cores] for i in range(cores)]))


def write_share(folder: Path, file: str, shape: tuple[int, ...], encode: Callable, rows: np.ndarray) -> float:
    """Encode and write some planes of a store; the seconds it took."""
    planes = np.memmap(file, dtype=np.uint8, mode="r", shape=shape)
    with tempfile.TemporaryDirectory(dir=folder) as out:
        (Path(out) / PARTIAL).mkdir()
        writer = TileWriter(Path(out), 17, shape[1])

        def write() -> None:
            for i, plane in enumerate(rows):
                writer.write(f"{out}/{i}.png", encode(planes[plane]))

        return seconds(write)


def tree_seconds(bench: Bench, store: TileStore, encode: bool) -> float:
    """How long making the whole folder of tiles takes on all cores, links to the blank tile included.

    Without `encode` the PNGs are there already: this is what creating files takes.
    """
    cores, rows = os.cpu_count() or 1, np.arange(len(store))
    assert isinstance(store.planes, np.memmap) and store.planes.filename is not None
    with (
        ProcessPoolExecutor(cores, get_context("spawn")) as pool,
        tempfile.TemporaryDirectory(dir=bench.scratch) as root,
    ):
        (Path(root) / PARTIAL).mkdir()
        list(pool.map(time.sleep, [1.0] * cores))  # until every process has started
        share = partial(tree_share, Path(root), store.planes.filename, store.planes.shape, encode)
        shares = [(store.tile_xy[part], store.plane_of[part]) for part in np.array_split(rows, cores)]
        return max(pool.map(share, *zip(*shares, strict=True)))


def tree_share(
    root: Path, file: str, shape: tuple[int, ...], encode: bool, tile_xy: np.ndarray, plane_of: np.ndarray
) -> float:
    """Write some tiles as the renderer does; the seconds it took."""
    planes = np.memmap(file, dtype=np.uint8, mode="r", shape=shape)
    writer = TileWriter(root, 17, shape[1])
    drawn = () if encode else np.unique(plane_of).tolist()
    ready = {plane: encode_png(planes[plane]) for plane in drawn if single_brightness(planes[plane]) is None}

    def write() -> None:
        for (x, y), layers in zip(tile_xy.tolist(), plane_of.tolist(), strict=True):
            writer.make_folders(x)
            for folder, plane in zip(writer.folders, layers, strict=True):
                path = f"{folder}/{x}/{y}.png"
                if not plane:
                    writer.write_blank(path)
                elif plane in ready:
                    writer.write(path, ready[plane])
                else:
                    writer.write_plane(path, planes[plane])

    return seconds(write)


def pillow_png(plane: np.ndarray) -> bytes:
    """A grey PNG from Pillow at its fastest setting."""
    buffer = BytesIO()
    Image.fromarray(plane).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def mapnik_seconds(bench: Bench, own_encoder: bool) -> float:
    """How long Mapnik takes; see tests/mapnik_timing.py for what is counted."""
    sys.path.insert(0, str(HERE / "tests"))
    from mapnik_timing import measure

    with tempfile.TemporaryDirectory(dir=bench.scratch) as folder:
        return measure(bench.flags.extract, Path(folder), os.cpu_count() or 1, own_encoder)[0]


# --- memory ------------------------------------------------------------------------------------------------


def bench_memory(bench: Bench) -> Iterator[Figure]:
    """Peak memory of drawing a synthetic city of 33,000 tiles and over 520,000 buildings, and of a part of it."""
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
        peak = max(peak, sum(proportional_kib(pid) for pid in process_family(process.pid)))
        time.sleep(0.1)
    if process.returncode:
        raise UserError(f"{name} ended with exit code {process.returncode}")
    return peak / 1024


def process_family(pid: int) -> set[int]:
    """A process and all its descendants."""
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
            partial(open_store, bench.tiles_root, 128, cache_dir=bench.scratch / "cache", quick=quick),
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

    def copy() -> None:
        for batch in ready:
            np.copyto(out, batch)

    yield bench.compare(
        "20 batches of 64 tiles, 256 px",
        lambda: [store.tiles(rows, out=out) for rows in batches],
        copy,
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
