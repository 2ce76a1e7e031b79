"""Draw an OpenStreetMap extract as 12 grey masks per map tile, whole city, restartable.

python render_tiles.py sample_data/astana.osm.pbf
python render_tiles.py --city kyiv --preview --labels labels.parquet
python render_tiles.py CITY.osm.pbf --bbox 30.49,50.42,30.56,50.47 --tiles_root 12_layer_tiles/tiles
"""

import contextlib
import dataclasses
import functools
import json
import os
import secrets
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from multiprocessing import get_all_start_methods, get_context, parent_process, resource_tracker
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cli import (
    Parser,
    StopSignal,
    TilesFlags,
    UserError,
    WorkError,
    add_flags,
    flag,
    positive_int,
    read_flags,
    run_main,
)
from extract_download import fetch_extract
from files import atomic_path, atomic_write, digest, file_digest, locked
from layers import LAYERS, MANIFEST_NAME, MAX_TILE_PX
from map_index import STYLE_PX, DrawIndex, TileArea, build_index, clipped
from map_labels import labels_table
from map_style import STYLE_PATH, Style, load_style
from osm_extract import ATTRIBUTION, ExtractInfo, Features, extract_info, read_features
from progress_bars import progress
from tile_grid import Box
from tile_painter import Painter
from tile_previews import write_previews
from tile_writer import PARTIAL, TileWriter, encode_png, inked_tiles, missing_tiles

SAMPLE_EXTRACT = Path(__file__).with_name("sample_data") / "astana.osm.pbf"
# The 48 x 48 tiles of the sample on which the most buildings and roads are drawn (41,815 of 100,198 marks on tiles).
SAMPLE_BBOX: Box = (71.3644409, 51.1224889, 71.4962769, 51.2051626)

METATILE = 8  # tiles are drawn and handed to processes in blocks of 8 x 8


@dataclasses.dataclass(frozen=True)
class City:
    """A city known by name: its box, and where its extract comes from."""

    box: Box | None
    source: str


KNOWN_CITIES = {
    "kyiv": City((30.239, 50.213, 30.826, 50.591), "https://download.bbbike.org/osm/bbbike/Kiew/Kiew.osm.pbf"),
    "astana": City(None, str(SAMPLE_EXTRACT)),
    "sample": City(SAMPLE_BBOX, str(SAMPLE_EXTRACT)),
}


def box_of(text: str) -> Box:
    """Parse `W,S,E,N` in degrees."""
    try:
        west, south, east, north = (float(part) for part in text.split(","))
    except ValueError:
        raise UserError(
            f"--bbox is {text!r}; expected west,south,east,north in degrees, such as 30.24,50.21,30.83,50.59"
        ) from None
    if not (-180 <= west < east <= 180 and -85.05 <= south < north <= 85.05):
        raise UserError(
            f"--bbox {text}: expected west < east within 180 degrees and south < north within 85; the order is W,S,E,N"
        )
    return west, south, east, north


@dataclasses.dataclass(frozen=True)
class RenderConfig(TilesFlags):
    """Rendering."""

    extract: Path | None = None
    tms: bool = False  # no flag: tiles are always written with y from the north
    bbox: str | None = flag(None, "only this box: west,south,east,north in degrees", metavar="W,S,E,N")
    city: str | None = flag(None, f"a city known by name: {', '.join(KNOWN_CITIES)}", metavar="NAME")
    source: str | None = flag(None, "extract to use instead of the city's own: a URL or a file", metavar="URL|FILE")
    downloads: Path = flag(Path("downloads"), "folder for downloaded extracts")
    tile_px: int = flag(STYLE_PX, "edge of a PNG in pixels", type=positive_int)
    jobs: int = flag(os.cpu_count() or 1, "processes that draw", type=positive_int)
    style: Path = flag(STYLE_PATH, "style table: what each layer shows, how drawn, how bright")
    clip_boundary: bool = flag(False, "stay inside the city's administrative boundary where the extract holds it")
    force: bool = flag(False, "draw everything again, also over tiles of another extract or style")
    preview: bool = flag(False, "also write pictures of the whole city and of each layer to <tiles_root>/preview")
    labels: Path | None = flag(None, "also write what the masks do not show, per tile, to this Parquet file", type=Path)


@dataclasses.dataclass
class RenderReport:
    """What a run did: tiles in the area, tiles drawn now, broken geometries, objects and inked tiles by layer."""

    area: "TileArea"
    drawn: int
    box: Box
    broken: dict[str, int]
    layers: dict[str, dict[str, int]]
    outputs: list[Path] = dataclasses.field(default_factory=list)

    @property
    def tiles(self) -> int:
        """Tiles in the area."""
        return len(self.area.tile_xy)


@dataclasses.dataclass(frozen=True)
class _Job:
    """What every drawing process needs to know; the index lies in `folder`."""

    folder: Path
    root: Path
    zoom: int
    tile_px: int
    token: str = dataclasses.field(default_factory=lambda: secrets.token_hex(8))  # another run, another index


@functools.lru_cache(maxsize=1)
def _tools(job: _Job) -> tuple[Painter, TileWriter]:
    """The painter and the writer of this process."""
    return Painter(DrawIndex.load(job.folder), job.tile_px), TileWriter(job.root, job.zoom, job.tile_px)


def _draw(
    job: _Job, tiles: np.ndarray, tile_xy: np.ndarray, missing: np.ndarray
) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """Draw the layers of the metatile `tiles (N,)` that are `missing (N, 12)`.

    Returns `tiles` and the `(tile, layer)` that show something.
    """
    painter, writer = _tools(job)
    painter.paths.clear()
    inked = []
    for tile, (x, y), absent in zip(tiles.tolist(), tile_xy.tolist(), missing.tolist(), strict=True):
        for layer, plane in painter.layers(tile, x, y):
            if absent[layer]:
                writer.write(f"{writer.folders[layer]}/{x}/{y}.png", encode_png(plane))
                absent[layer] = False
                inked.append((tile, layer))
        for layer in (layer for layer, left in enumerate(absent) if left):
            writer.write_blank(f"{writer.folders[layer]}/{x}/{y}.png")
    return tiles, inked


# --- a run -------------------------------------------------------------------------------------------------


def render(config: RenderConfig) -> RenderReport:
    """Render what `config` asks for and return what was done; finished tiles are left alone."""
    if config.tile_px > MAX_TILE_PX:
        raise UserError(f"--tile_px {config.tile_px} is too large for a tile; at most {MAX_TILE_PX} can be read")
    path, box = locate(config)
    style, info = load_style(config.style), extract_info(path)
    _check_overlap(path, info, box)
    root = config.tiles_root
    root.mkdir(parents=True, exist_ok=True)
    with locked(root / ".render.lock", wait_s=1):
        manifest = _manifest(config, path, style, info)
        former = _claim(root, manifest, config.force)
        box = box or info.box or former.get("bbox")
        report = _finished(config, former, box) or _render(config, path, style, box, manifest)
        if config.preview:
            report.outputs += write_previews(root, report.area, config.tile_px, config.jobs)
    return report


def _render(config: RenderConfig, path: Path, style: Style, box: Box | None, manifest: dict[str, Any]) -> RenderReport:
    root = config.tiles_root
    with _scratch(root) as scratch, _pool(config.jobs) as pool:
        features = read_features(path, style, box, scratch)
        box = box or _data_box(features, path)
        area = TileArea.of_box(box, config.zoom)
        area = clipped(area, features, path) if config.clip_boundary else area
        index = build_index(features, style, area)
        missing = missing_tiles(root, area, config.force)
        manifest |= {"bbox": box, "tiles": len(area.tile_xy), "clip_boundary": config.clip_boundary}
        _write_manifest(root, manifest | {"complete": False})
        inked = _draw_all(config, area, index, missing, pool)
    if not missing.all():  # what was there before this run
        inked |= inked_tiles(root, area, config.tile_px)
    layers = _layer_counts(inked, style, index)
    report = RenderReport(area, int(missing.any(axis=1).sum()), box, features.broken, layers)
    if config.labels:
        write_labels(config.labels, labels_table(features, style, area, index), _labels_key(manifest))
        report.outputs.append(config.labels)
    _write_manifest(root, manifest | {"complete": True, "layers": layers, "broken_geometries": features.broken})
    return report


@contextlib.contextmanager
def _scratch(root: Path) -> Iterator[Path]:
    """A folder for files on their way; it goes whatever happens, so that a full disk is no fuller than it must be."""
    scratch = root / PARTIAL
    shutil.rmtree(scratch, ignore_errors=True)  # what a killed run left
    scratch.mkdir()
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def locate(config: RenderConfig) -> tuple[Path, Box | None]:
    """The extract to read, downloaded where it must be, and the box asked for."""
    box = box_of(config.bbox) if config.bbox else None
    source = config.source
    if config.city is not None:
        city = KNOWN_CITIES.get(config.city.lower())
        if city is None:
            raise UserError(
                f"--city {config.city} is not known; known are {', '.join(KNOWN_CITIES)}. For any other place "
                "name an extract: `python render_tiles.py CITY.osm.pbf [--bbox W,S,E,N]`"
            )
        box, source = box or city.box, source or city.source
    if config.extract is not None:
        if config.source is not None:
            raise UserError(f"both {config.extract} and --source {config.source} are given; name one extract")
        return Path(config.extract), box
    if source is None:
        raise UserError("no extract given; name one (`python render_tiles.py CITY.osm.pbf`) or a city (`--city kyiv`)")
    if "://" in source:
        return fetch_extract(source, config.downloads), box
    return Path(source), box


def _check_overlap(path: Path, info: ExtractInfo, box: Box | None) -> None:
    if box is None or info.box is None:
        return
    if box[0] >= info.box[2] or box[2] <= info.box[0] or box[1] >= info.box[3] or box[3] <= info.box[1]:
        raise UserError(f"--bbox {_box_text(box)} lies outside of {path}, which covers {_box_text(info.box)} (W,S,E,N)")


def _box_text(box: Box) -> str:
    return ",".join(f"{value:.7g}" for value in box)


def _data_box(features: Features, path: Path) -> Box:
    if not len(features.lonlat):
        raise UserError(f"{path} holds nothing that the style table draws")
    return (*features.lonlat.min(axis=0).tolist(), *features.lonlat.max(axis=0).tolist())


# --- manifest ----------------------------------------------------------------------------------------------

_IDENTITY = ("extract_digest", "zoom", "tile_px", "style_digest")  # tiles that differ in these do not mix


def _manifest(config: RenderConfig, path: Path, style: Style, info: ExtractInfo) -> dict[str, Any]:
    return {
        "extract": path.name,
        "extract_digest": file_digest(path),
        "date": info.date,
        "zoom": config.zoom,
        "tile_px": config.tile_px,
        "style_version": style.version,
        "style_digest": style.digest,
        "attribution": ATTRIBUTION,
    }


def _write_manifest(root: Path, manifest: dict[str, Any]) -> None:
    with atomic_write(root / MANIFEST_NAME, "w") as file:
        json.dump(manifest, file, indent=2, ensure_ascii=False)
        file.write("\n")


def _claim(root: Path, manifest: dict[str, Any], force: bool) -> dict[str, Any]:
    """Return the manifest of the tiles that are there, {} if there are none. Refuses to mix with other tiles."""
    path = root / MANIFEST_NAME
    try:
        former = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        foreign = [name for name in LAYERS if any((root / name).glob("*/*/*.png"))]
        if foreign:
            raise UserError(
                f"{root} holds tiles of {foreign[0]} that were drawn by something else (no {MANIFEST_NAME}); "
                "name another --tiles_root"
            ) from None
        return {}
    except (json.JSONDecodeError, UnicodeDecodeError):
        former = {}
    former = former if isinstance(former, dict) else {}
    differing = [key for key in _IDENTITY if former.get(key) != manifest[key]]
    if not differing:
        return former
    if not force:
        what = ", ".join(f"{key} {former.get(key)} there, {manifest[key]} now" for key in differing if former.get(key))
        raise UserError(
            f"{root} holds tiles drawn otherwise ({what}); name another --tiles_root, or --force redraws them"
        )
    for layer in LAYERS:
        shutil.rmtree(root / layer, ignore_errors=True)
    return {}


def _finished(config: RenderConfig, former: dict[str, Any], box: Box | None) -> RenderReport | None:
    """The report of the run before, when there is nothing left to do."""
    if config.force or not former.get("complete") or box is None or list(box) != list(former["bbox"]):
        return None
    if config.clip_boundary or former.get("clip_boundary"):
        return None
    if config.labels and not _labels_are_there(config.labels, _labels_key(former)):
        return None
    area = TileArea.of_box(box, config.zoom)
    if missing_tiles(config.tiles_root, area, False).any():
        return None
    return RenderReport(area, 0, tuple(box), former["broken_geometries"], former["layers"])


def _layer_counts(inked: np.ndarray, style: Style, index: DrawIndex) -> dict[str, dict[str, int]]:
    """By layer: objects drawn, and tiles that show something, which `inked (N, 12) bool` tells."""
    drawn = np.unique(index.pair_item)
    layer = np.array([row.layer for row in style.classes])[index.item_class[drawn]]
    one_each = np.unique(np.stack([layer, index.osm_key[index.item_object[drawn]]], axis=1), axis=0)[:, 0]
    objects = np.bincount(one_each, minlength=len(LAYERS)).tolist()
    tiles = inked.sum(axis=0).tolist()
    return {name: {"objects": objects[i], "tiles": tiles[i]} for i, name in enumerate(LAYERS)}


def _labels_key(manifest: dict[str, Any]) -> str:
    return digest(*(manifest[key] for key in (*_IDENTITY, "bbox", "clip_boundary")))


def write_labels(path: Path, table: pa.Table, key: str) -> None:
    """Write the table as Parquet; `key` says of what it was made."""
    table = table.replace_schema_metadata({"loc2vec": key, "attribution": ATTRIBUTION})
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def _labels_are_there(path: Path, key: str) -> bool:
    try:
        return (pq.read_schema(path).metadata or {}).get(b"loc2vec") == key.encode()
    except (OSError, pa.ArrowInvalid):
        return False


# --- processes ---------------------------------------------------------------------------------------------


def _draw_all(
    config: RenderConfig, area: TileArea, index: DrawIndex, missing: np.ndarray, pool: Executor
) -> np.ndarray:
    """Draw what is missing; which of it shows something: `(N, 12) bool`."""
    inked = np.zeros_like(missing)
    folder = config.tiles_root / PARTIAL
    index.save(folder)
    job = _Job(folder, config.tiles_root, config.zoom, config.tile_px)
    tasks = ((job, block, area.tile_xy[block], missing[block]) for block in _metatiles(area, missing))
    with progress(total=int(missing.any(axis=1).sum()), desc="drawing", unit=" tiles") as bar, StopSignal() as stop:
        for tiles, shown in _in_order_of_completion(pool, tasks, 2 * config.jobs, stop):
            inked[tuple(np.array(shown, dtype=np.int64).reshape(-1, 2).T)] = True
            bar.update(len(tiles))
        stop.raise_if_requested()
    return inked


def _metatiles(area: TileArea, missing: np.ndarray) -> list[np.ndarray]:
    """Group the tiles that miss something into metatiles."""
    tiles = np.flatnonzero(missing.any(axis=1))
    block = area.tile_xy[tiles] // METATILE
    order = np.lexsort((block[:, 1], block[:, 0]))
    edges = np.flatnonzero(np.any(np.diff(block[order], axis=0) != 0, axis=1)) + 1
    return [part for part in np.split(tiles[order], edges) if len(part)]


class _HereAndNow(Executor):
    """An executor that draws in this process."""

    def submit(self, fn: Callable, /, *args: Any, **kwargs: Any) -> Future:
        future: Future = Future()
        future.set_result(fn(*args, **kwargs))
        return future


def _pool(jobs: int) -> Executor:
    """Processes that draw; they get ready while the extract is read."""
    if jobs == 1:
        return _HereAndNow()
    method = "forkserver" if "forkserver" in get_all_start_methods() else "spawn"
    most = 61 if os.name == "nt" else 1 << 10  # Windows can wait for no more
    pool = ProcessPoolExecutor(min(jobs, most), get_context(method), _start_worker)
    with _deaf_children():
        pool.submit(int)  # starts them all
    return pool


@contextlib.contextmanager
def _deaf_children() -> Iterator[None]:
    """Processes started here never hear the signals that a terminal sends to all: the parent decides when to stop."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # it would lift the block
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_worker() -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent_process().join()
    os._exit(1)


def _in_order_of_completion(pool: Executor, tasks: Iterator[tuple], ahead: int, stop: StopSignal) -> Iterator[tuple]:
    """Draw metatiles; only `ahead` of them are on their way at a time, so that memory is bounded and a stop prompt."""
    running: set[Future] = {pool.submit(_draw, *task) for task in islice(tasks, ahead)}
    try:
        while running:
            done, running = wait(running, timeout=0.5, return_when=FIRST_COMPLETED)
            for future in done:
                yield future.result()
                running |= {pool.submit(_draw, *task) for task in islice(tasks, 0 if stop.requested else 1)}
    except BrokenProcessPool:
        raise WorkError(
            "a drawing process was ended from outside (out of memory?); the same command goes on where it stopped, "
            "--jobs 1 needs least memory"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


# --- command line ------------------------------------------------------------------------------------------


def print_report(config: RenderConfig, report: RenderReport) -> None:
    """Say on stdout what was done."""
    print(f"{report.tiles:,} tiles in {config.tiles_root}, {report.drawn:,} drawn now; box {_box_text(report.box)}")
    for name, counts in report.layers.items():
        print(f"  {name:17} {counts['objects']:>9,} objects on {counts['tiles']:>7,} tiles")
    broken = "; ".join(f"{count:,} {what}" for what, count in report.broken.items())
    print(f"broken geometries: {broken or 'none'}")
    for path in report.outputs:
        print(f"wrote {path}")
    print(ATTRIBUTION)


def main() -> None:
    """Command line."""
    parser = Parser(__doc__)
    parser.add_argument("extract", nargs="?", type=Path, help="OpenStreetMap extract, such as CITY.osm.pbf")
    add_flags(parser, RenderConfig, only=[f.name for f in dataclasses.fields(RenderConfig) if f.name != "cache_dir"])
    config = read_flags(RenderConfig, parser.parse_args())
    print_report(config, render(config))


if __name__ == "__main__":
    run_main(main)
