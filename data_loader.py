"""Twelve-layer map tiles: find them, pack them once, memory-map them, draw pairs and triplets.

python data_loader.py
python data_loader.py --tiles_root 12_layer_tiles/tiles --tile_size 128 --batch_size 16
"""

import dataclasses
import json
import os
import time
import zlib
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from cli import (
    DeviceFlags,
    Parser,
    TilesFlags,
    UserError,
    add_flags,
    count_float,
    count_int,
    flag,
    fraction,
    positive_int,
    progress,
    read_flags,
    run_main,
    warn,
)
from files import DamagedFile, digest, load_cache, locked, save_cache
from layers import COORDINATE, LAYERS, MANIFEST_NAME, MAX_TILE_PX

DEFAULT_ZOOM = TilesFlags.zoom
STORE_FORMAT = 1
SHRINKS = ("mean", "max")  # ways to shrink a PNG

UNREADABLE_LIMIT = 0.02  # share of tiles that may be unreadable before packing gives up
GRID_LIMIT = 1 << 26  # cells; a city of 100 x 100 km at zoom 17 has 2^17
_DECODE_CHUNK = 128
_ZEROING_PAYS = 128  # pixels; from here on a batch is quicker zeroed and filled plane by plane than taken in one go


@dataclasses.dataclass(frozen=True)
class StoreFlags:
    """Packing of tiles."""

    tile_size: int = flag(256, "edge of a tile as the network sees it, in pixels (a multiple of 32)", type=positive_int)
    shrink: str = flag("mean", "how larger PNGs are shrunk: mean keeps areas true, max keeps dots", choices=SHRINKS)
    num_workers: int = flag(min(8, os.cpu_count() or 1), "threads that load data", type=count_int)


# --- finding tiles -----------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class TileScan:
    """What lies under a tiles folder.

    `tile_xy (N, 2) int32` are the coordinates common to all layers, sorted by x, then y; `source_of (N, 12) int64`
    numbers the distinct files (hard links of one file are one source); `sources (U, 3) int64` are their inode, size
    in bytes and modification time in ns; `paths` is one path per source; `layer_counts` counts tiles per layer.
    """

    tile_xy: np.ndarray
    source_of: np.ndarray
    sources: np.ndarray
    paths: list[str]
    layer_counts: dict[str, int]


def scan_tiles(tiles_root: Path | str, zoom: int = DEFAULT_ZOOM) -> TileScan:
    """List the tiles of all 12 layers. Raises `UserError` when a layer is missing or no coordinate is common."""
    root = Path(tiles_root)
    _check_layout(root, zoom)
    found = [_scan_layer(root / layer / str(zoom)) for layer in LAYERS]
    common = found[0][0]
    for codes, _ in found[1:]:
        common = np.intersect1d(common, codes, assume_unique=True)
    counts = {layer: len(codes) for layer, (codes, _) in zip(LAYERS, found, strict=True)}
    if not len(common):
        listing = ", ".join(f"{layer} {count:,}" for layer, count in counts.items())
        raise UserError(
            f"no coordinates are common to all 12 layers under {root} (zoom {zoom}); tiles per layer: {listing}. "
            "Every (x, y) must have a PNG in every layer; `python render_tiles.py CITY.osm.pbf` draws them all"
        )
    tile_xy = np.stack([common >> 32, common & 0xFFFFFFFF], axis=1).astype(np.int32)
    inodes = np.stack([inode[np.searchsorted(codes, common)] for codes, inode in found], axis=1)
    _, first, source_of = np.unique(inodes, return_index=True, return_inverse=True)
    paths = [_tile_path(root, zoom, tile_xy[cell // len(LAYERS)], cell % len(LAYERS)) for cell in first]
    status = [os.stat(path) for path in paths]
    sources = np.array([(s.st_ino, s.st_size, s.st_mtime_ns) for s in status], dtype=np.int64).reshape(-1, 3)
    return TileScan(tile_xy, source_of.reshape(inodes.shape), sources, paths, counts)


def _check_layout(root: Path, zoom: int) -> None:
    remedy = "`python render_tiles.py CITY.osm.pbf` draws them, `python run_example.py` does it for the sample city"
    if not root.is_dir():
        what = "a file, not a folder" if root.exists() else "no folder"
        raise UserError(f"{what} at {root}; expected <layer>/{zoom}/<x>/<y>.png for 12 layers there. {remedy}")
    missing = [layer for layer in LAYERS if not (root / layer / str(zoom)).is_dir()]
    if not missing:
        return
    zooms = sorted({p.name for layer in LAYERS for p in (root / layer).glob("[0-9]*") if p.is_dir()} - {str(zoom)})
    hint = f"; zoom {', '.join(zooms)} is there: pass --zoom {zooms[-1]}" if zooms else ""
    raise UserError(
        f"{len(missing)} of 12 layers have no folder <layer>/{zoom} under {root}: {', '.join(missing)}{hint}. {remedy}"
    )


def _scan_layer(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Sorted tile codes (x * 2^32 + y) and the inode of each."""
    codes, inodes = [], []
    for column in os.scandir(folder):
        if not (COORDINATE.fullmatch(column.name) and column.is_dir()):
            continue
        x = int(column.name) << 32
        for entry in os.scandir(column.path):
            stem, _, suffix = entry.name.partition(".")
            if suffix == "png" and COORDINATE.fullmatch(stem):
                codes.append(x + int(stem))
                inodes.append(entry.inode())
    order = np.argsort(np.array(codes, dtype=np.int64))
    return np.array(codes, dtype=np.int64)[order], np.array(inodes, dtype=np.uint64)[order]


def _folder_times(root: Path, zoom: int) -> np.ndarray:
    """Modification times `(F,) int64` of the folders that hold tiles: a tile that comes or goes changes one."""
    folders = [root / layer / str(zoom) for layer in LAYERS]
    columns = [entry for folder in folders for entry in sorted(os.scandir(folder), key=lambda entry: entry.name)]
    return np.array([entry.stat().st_mtime_ns for entry in columns], dtype=np.int64)


def _tile_path(root: Path, zoom: int, tile_xy: np.ndarray, channel: int) -> str:
    x, y = map(int, tile_xy)
    return f"{root}/{LAYERS[channel]}/{zoom}/{x}/{y}.png"


# --- reading one PNG ---------------------------------------------------------------------------------------


def read_tile(path: Path | str, background: tuple[int, int, int] = (0, 0, 0)) -> np.ndarray:
    """Read one layer's PNG as `(H, W) uint8`, 0 = nothing there, larger = more important.

    Transparent pixels are nothing; opaque ones count by how far their colour lies from `background`. Raises
    `ValueError` with the reason for a file that is no square PNG of a sensible size, `OSError` for a damaged one.
    """
    data = Path(path).read_bytes()
    with Image.open(BytesIO(data), formats=["PNG"]) as image:
        if image.width != image.height or image.width > MAX_TILE_PX:
            raise ValueError(f"{image.width} x {image.height} pixels; expected a square of at most {MAX_TILE_PX}")
        _check_chunks(data)
        return _importance(image, background)


def _check_chunks(data: bytes) -> None:
    """Compare each chunk of a PNG with its checksum, to the last: Pillow takes wrong pixels for right ones."""
    start, kind = 8, b""
    while kind != b"IEND":
        length, kind = int.from_bytes(data[start : start + 4]), data[start + 4 : start + 8]
        end = start + 12 + length
        if end > len(data) or zlib.crc32(data[start + 4 : end - 4]) != int.from_bytes(data[end - 4 : end]):
            raise ValueError("damaged or cut short")
        start = end


def _importance(image: Image.Image, background: tuple[int, int, int]) -> np.ndarray:
    if "A" in image.mode or "transparency" in image.info:
        rgba = np.asarray(image.convert("RGBA"))
        alpha = rgba[..., 3]
        if alpha.min() < 255:
            return _transparent_importance(rgba[..., :3].max(axis=-1), alpha)
        pixels = rgba[..., :3]
    elif image.mode.startswith("I;16"):
        pixels = (np.asarray(image) >> 8).astype(np.uint8)
    else:
        pixels = np.asarray(image if image.mode == "L" else image.convert("L" if image.mode == "1" else "RGB"))
    if pixels.ndim == 2:
        pixels = pixels[..., None] if len(set(background)) == 1 else np.repeat(pixels[..., None], 3, axis=-1)
        background = background[: pixels.shape[-1]]
    if not any(background):
        return pixels.max(axis=-1)
    return np.abs(pixels.astype(np.int16) - np.array(background, dtype=np.int16)).max(axis=-1).astype(np.uint8)


def _transparent_importance(brightness: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Brightness seen through its alpha; black ink on nothing counts by its alpha alone."""
    if brightness[alpha > 0].max(initial=0) < 16:
        return alpha
    return ((brightness.astype(np.uint16) * alpha + 127) // 255).astype(np.uint8)


def _find_background(scan: TileScan, tiles_root: Path) -> tuple[int, int, int]:
    """The colour that means "nothing": black, unless a sample of the tiles shows another to be the ground."""
    if (tiles_root / MANIFEST_NAME).is_file():
        return (0, 0, 0)
    cells = np.linspace(0, scan.source_of.size - 1, 240).astype(int)
    colours: dict[tuple, int] = {}
    for source in scan.source_of.reshape(-1)[np.unique(cells)]:
        try:
            with Image.open(scan.paths[source], formats=["PNG"]) as image:
                pixels = image.convert("RGBA").resize((32, 32), Image.Resampling.NEAREST).getcolors(1024)
        except (OSError, ValueError, SyntaxError):
            continue
        for count, (*rgb, alpha) in pixels or ():
            colour = tuple(rgb) if alpha else (0, 0, 0)
            colours[colour] = colours.get(colour, 0) + count
    total, black = sum(colours.values()), colours.get((0, 0, 0), 0)
    colour, count = max(colours.items(), key=lambda item: item[1], default=((0, 0, 0), 0))
    return colour if count > max(black, total // 4) else (0, 0, 0)


def resize_tile(pixels: np.ndarray, size: int, shrink: str) -> np.ndarray:
    """Bring `(H, H) uint8` to `(size, size)`: `mean` by area, `max` by the largest pixel of each cell."""
    edge = len(pixels)
    if edge == size:
        return pixels
    if shrink == "mean" or edge < size:
        return np.asarray(Image.fromarray(pixels).resize((size, size), Image.Resampling.BOX))
    starts = np.arange(size) * edge // size
    return np.maximum.reduceat(np.maximum.reduceat(pixels, starts, axis=0), starts, axis=1)


def _read_planes(paths: list[str], size: int, shrink: str, background: tuple[int, int, int]) -> "_Planes":
    """Decode and shrink some files; `planes[i]` is None where `failures` gives a reason."""
    planes: list[np.ndarray | None] = []
    failures = []
    for path in paths:
        try:
            planes.append(resize_tile(read_tile(path, background), size, shrink))
        except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
            planes.append(None)
            empty = os.path.isfile(path) and not os.path.getsize(path)
            failures.append(f"{path}: {'empty file' if empty else error}")
    return _Planes(planes, [None if plane is None else _plane_digest(plane) for plane in planes], failures)


class _Planes(NamedTuple):
    planes: list[np.ndarray | None]
    digests: list[bytes | None]
    failures: list[str]


# --- the packed store --------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class TileStore:
    """All tiles of a city, each distinct plane kept once.

    `tile_xy (N, 2) int32`; `planes (P, S, S) uint8`, plane 0 blank, memory-mapped; `plane_of (N, 12) int32`;
    `plane_mass (P,) float32` mean brightness 0..1; `plane_digest (P, 16) uint8`. `content_key` names the content: it
    does not depend on where or when the tiles were written.
    """

    tiles_root: Path
    zoom: int
    tile_size: int
    shrink: str
    tile_xy: np.ndarray
    planes: np.ndarray
    plane_of: np.ndarray
    plane_mass: np.ndarray
    plane_digest: np.ndarray
    meta: dict

    def __len__(self) -> int:
        return len(self.tile_xy)

    @cached_property
    def content_key(self) -> str:
        """Digest of every pixel and coordinate, and of how they were shrunk."""
        settings = [self.zoom, self.tile_size, self.shrink, LAYERS]
        return digest(settings, self.tile_xy, self.plane_digest[self.plane_of])

    @cached_property
    def grid(self) -> "TileGrid":
        """Rows by coordinate."""
        return TileGrid(self.tile_xy)

    @cached_property
    def layer_mass(self) -> np.ndarray:
        """Mean brightness `(N, 12) float32`, 0..1, of each tile's layers."""
        return self.plane_mass[self.plane_of]

    @cached_property
    def blank(self) -> np.ndarray:
        """`(N,) bool`: tiles on which nothing is drawn."""
        return (self.plane_of == 0).all(axis=1)

    def tiles(self, rows: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """The tiles of `rows (B,)` as `(B, 12, S, S) uint8`; -1 gives a blank tile."""
        rows = np.asarray(rows)
        plane_of = np.where(rows[:, None] >= 0, self.plane_of[rows], 0).reshape(-1)
        if out is None:
            out = np.empty((len(rows), len(LAYERS), self.tile_size, self.tile_size), dtype=np.uint8)
        planes, flat = np.asarray(self.planes), out.reshape(-1, *out.shape[2:])
        if self.tile_size < _ZEROING_PAYS:
            np.take(planes, plane_of, axis=0, out=flat, mode="clip")
            return out
        flat.fill(0)
        for place in np.flatnonzero(plane_of).tolist():
            flat[place] = planes[plane_of[place]]
        return out

    def windows(self, origin_px: np.ndarray) -> np.ndarray:
        """Windows of one tile's size whose upper left pixel is `origin_px (B, 2)`, as `(B, 12, S, S) uint8`.

        Pixels count from the map's upper left corner (tile x * S + column, tile y * S + row). Ground without a tile
        is blank.
        """
        size = self.tile_size
        origin_px = np.asarray(origin_px, dtype=np.int64)
        tile, shift = np.divmod(origin_px, size)
        aligned = ~shift.any(axis=1)
        out = np.zeros((len(origin_px), len(LAYERS), size, size), dtype=np.uint8)
        if aligned.any():
            out[aligned] = self.tiles(self.grid.rows(tile[aligned]))
        corners = self.grid.rows(tile[:, None, :] + _CORNERS[None])  # (B, 4)
        for i in np.flatnonzero(~aligned):
            for (right, below), row in zip(_CORNERS, corners[i], strict=True):
                if row >= 0:
                    self._paste(out[i], row, shift[i], bool(right), bool(below))
        return out

    def _paste(self, out: np.ndarray, row: int, shift: np.ndarray, right: bool, below: bool) -> None:
        """Copy the part of tile `row` that a window shifted by `shift` sees into `out (12, S, S)`."""
        from_x, to_x = _overlap(int(shift[0]), self.tile_size, right)
        from_y, to_y = _overlap(int(shift[1]), self.tile_size, below)
        for channel, plane in enumerate(self.plane_of[row]):
            if plane:
                out[channel, to_y, to_x] = self.planes[plane, from_y, from_x]

    def whole(self, rows: np.ndarray) -> np.ndarray:
        """`(B,) bool`: whether the pixels of each of `rows (B,)` are still what was packed."""
        planes, inverse = np.unique(self.plane_of[rows], return_inverse=True)
        same = [_plane_digest(self.planes[i]) == bytes(self.plane_digest[i]) for i in planes]
        return np.array(same, dtype=bool)[inverse].reshape(-1, len(LAYERS)).all(axis=1)

    def damaged_planes(self) -> np.ndarray:
        """Indices of planes whose pixels are not what was packed: empty for a healthy store."""
        return np.array(
            [i for i, expected in enumerate(self.plane_digest) if _plane_digest(self.planes[i]) != bytes(expected)]
        )


_CORNERS = np.array([(0, 0), (1, 0), (0, 1), (1, 1)])


def _overlap(shift: int, size: int, second: bool) -> tuple[slice, slice]:
    """Along one axis: which pixels of the first or second tile a window takes, and where they go."""
    if second:
        return slice(0, shift), slice(size - shift, size)
    return slice(shift, size), slice(0, size - shift)


def _plane_digest(plane: np.ndarray) -> bytes:
    return bytes.fromhex(digest(plane.tobytes()))


def open_store(
    tiles_root: Path | str,
    tile_size: int = StoreFlags.tile_size,
    *,
    zoom: int = DEFAULT_ZOOM,
    shrink: str = StoreFlags.shrink,
    cache_dir: Path | str = TilesFlags.cache_dir,
    num_workers: int = StoreFlags.num_workers,
    verify: bool = False,
    quick: bool = False,
) -> TileStore:
    """Open the packed tiles of a folder; pack them first when there is no pack or the tiles changed since.

    Planes whose files did not change are taken from the old pack. `verify` compares every plane with its digest and
    packs again when one differs. `quick` looks at the folders only: it notices tiles that come, go or are replaced as
    render_tiles.py replaces them, but not a PNG overwritten in place. Raises `UserError` for a folder without usable
    tiles.
    """
    if tile_size > MAX_TILE_PX:
        raise UserError(f"--tile_size {tile_size} is too large for a tile; at most {MAX_TILE_PX} pixels can be read")
    pack = _Pack(Path(cache_dir), Path(tiles_root), zoom, tile_size, shrink)
    _check_layout(pack.root, zoom)
    times = _folder_times(pack.root, zoom)
    found = pack.load() if quick and not verify else None
    if found and np.array_equal(found[0].meta["folder_times"], times):
        return found[0]
    scan = scan_tiles(pack.root, zoom)
    found = pack.load(verify)
    if not (found and _same_sources(found[1], scan)):
        with locked(pack.folder.with_suffix(".lock")):
            found = pack.load(verify)  # another process may have packed meanwhile
            if not (found and _same_sources(found[1], scan)):
                _Packer(pack, scan).write(num_workers, times, found)
                found = pack.load()
    return found[0]


def open_configured(tiles: TilesFlags, packing: StoreFlags, *, verify: bool = False) -> TileStore:
    """The packed tiles that the shared flags name; see `open_store`."""
    return open_store(
        tiles.tiles_root,
        packing.tile_size,
        zoom=tiles.zoom,
        shrink=packing.shrink,
        cache_dir=tiles.cache_dir,
        num_workers=packing.num_workers,
        verify=verify,
    )


def _same_sources(old: TileScan, new: TileScan) -> bool:
    return (
        np.array_equal(old.tile_xy, new.tile_xy)
        and np.array_equal(old.source_of, new.source_of)
        and np.array_equal(old.sources, new.sources)
    )


@dataclasses.dataclass(frozen=True)
class _Pack:
    """Where the pack of a tiles folder lies, and how it is read."""

    cache_dir: Path
    root: Path
    zoom: int
    size: int
    shrink: str

    @cached_property
    def folder(self) -> Path:
        name = digest([str(self.root.resolve()), self.zoom, self.size, self.shrink])[:12]
        return self.cache_dir / f"tiles-{name}"

    def load(self, verify: bool = False) -> tuple[TileStore, TileScan] | None:
        """The store and the files it was packed from; None when there is none, or none to trust."""
        try:
            loaded = load_cache(self.folder / "index.l2v", f"store-{STORE_FORMAT}")
        except DamagedFile as error:
            warn(f"{error}; packing the tiles again")
            return None
        if loaded is None:
            return None
        arrays, meta = loaded
        path, shape = self.folder / meta["planes_file"], (meta["planes"], self.size, self.size)
        if not path.is_file() or path.stat().st_size != int(np.prod(shape)):
            warn(f"{path} is missing or cut short; packing the tiles again")
            return None
        store = self._store(arrays, meta, np.memmap(path, dtype=np.uint8, mode="r", shape=shape))
        if verify and len(store.damaged_planes()):
            warn(f"the packed tiles in {self.folder} are damaged; packing them again")
            return None
        return store, TileScan(arrays["tile_xy"], arrays["source_of"], arrays["sources"], [], meta["layer_counts"])

    def _store(self, arrays: dict[str, np.ndarray], meta: dict, planes: np.ndarray) -> TileStore:
        kept = arrays["kept"]
        return TileStore(
            tiles_root=self.root,
            zoom=self.zoom,
            tile_size=self.size,
            shrink=self.shrink,
            tile_xy=arrays["tile_xy"][kept],
            planes=planes,
            plane_of=arrays["plane_of"][kept],
            plane_mass=arrays["plane_mass"],
            plane_digest=arrays["plane_digest"],
            meta=meta,
        )


class _Packer:
    """Decodes every distinct file once, keeps every distinct plane once, writes both arrays whole."""

    def __init__(self, pack: _Pack, scan: TileScan):
        self.folder, self.size, self.shrink, self.scan = pack.folder, pack.size, pack.shrink, scan
        blank = np.zeros((pack.size, pack.size), dtype=np.uint8)
        self.plane_by_digest = {_plane_digest(blank): 0}
        self.mass = [0.0]
        self.plane_of_source = np.full(len(scan.paths), -1, dtype=np.int32)
        self.failures: list[str] = []
        self.blank = blank
        self.background = _find_background(scan, pack.root)

    def write(self, num_workers: int, folder_times: np.ndarray, old: tuple[TileStore, TileScan] | None) -> None:
        """Write the planes, then the index that names them; the index appears last and whole."""
        started = time.perf_counter()
        self.folder.mkdir(parents=True, exist_ok=True)
        for leftover in self.folder.glob("planes-*.bin"):
            if old is None or leftover.name != old[0].meta["planes_file"]:
                leftover.unlink(missing_ok=True)
        planes_file = f"planes-{digest(time.time_ns(), os.getpid())[:12]}.bin"
        try:
            with open(self.folder / planes_file, "wb") as file:
                file.write(self.blank)
                for source, plane, key in self._planes(num_workers, old):
                    self._keep(file, source, plane, key)
                file.flush()
                os.fsync(file.fileno())
            self._write_index(planes_file, folder_times, time.perf_counter() - started)
        except BaseException:
            (self.folder / planes_file).unlink(missing_ok=True)
            raise
        if old is not None:
            self._remove_old(self.folder / old[0].meta["planes_file"])

    @staticmethod
    def _remove_old(path: Path) -> None:
        try:
            path.unlink(missing_ok=True)
        except PermissionError:  # Windows keeps a mapped file; the next packing removes it
            warn(f"{path} is still open elsewhere and was left in place")

    def _planes(
        self, num_workers: int, old: tuple[TileStore, TileScan] | None
    ) -> Iterator[tuple[int, np.ndarray, bytes]]:
        """`(source, plane, digest)` of every readable source; unchanged ones come from the old pack."""
        reused = self._reusable(old)
        for source, plane in reused.items():
            yield source, old[0].planes[plane], bytes(old[0].plane_digest[plane])
        todo = [source for source in range(len(self.scan.paths)) if source not in reused]
        with progress(total=len(todo), desc="packing tiles", unit="png") as bar:
            for start, decoded in self._decode(todo, num_workers):
                self.failures += decoded.failures
                for source, plane, key in zip(todo[start:], decoded.planes, decoded.digests, strict=False):
                    if plane is not None:
                        yield source, plane, key
                bar.update(len(decoded.planes))

    def _decode(self, todo: list[int], num_workers: int) -> Iterator[tuple[int, _Planes]]:
        """Chunks of `todo` in order, decoded in threads (zlib, resizing and digests run side by side)."""
        waiting: deque = deque()
        with ThreadPoolExecutor(max(1, num_workers)) as pool:
            for start in range(0, len(todo), _DECODE_CHUNK):
                paths = [self.scan.paths[source] for source in todo[start : start + _DECODE_CHUNK]]
                job = pool.submit(_read_planes, paths, self.size, self.shrink, self.background)
                waiting.append((start, job))
                if len(waiting) > 2 * max(1, num_workers):
                    start, job = waiting.popleft()
                    yield start, job.result()
            for start, job in waiting:
                yield start, job.result()

    def _reusable(self, old: tuple[TileStore, TileScan] | None) -> dict[int, int]:
        """Plane in the old pack of each source that is the same file (inode, size, time) as then."""
        if old is None or old[0].meta["background"] != list(self.background):
            return {}
        store, scan = old
        plane_of_source = np.full(len(scan.sources), -1, dtype=np.int64)
        plane_of_source[scan.source_of[TileGrid(scan.tile_xy).rows(store.tile_xy)]] = store.plane_of
        known = {tuple(key): int(plane) for key, plane in zip(scan.sources.tolist(), plane_of_source, strict=True)}
        planes = [known.get(tuple(key), -1) for key in self.scan.sources.tolist()]
        return {source: plane for source, plane in enumerate(planes) if plane >= 0}

    def _keep(self, file: IO[bytes], source: int, plane: np.ndarray, key: bytes) -> None:
        if key not in self.plane_by_digest:
            self.plane_by_digest[key] = len(self.mass)
            self.mass.append(float(plane.mean()) / 255)
            file.write(np.ascontiguousarray(plane))
        self.plane_of_source[source] = self.plane_by_digest[key]

    def _write_index(self, planes_file: str, folder_times: np.ndarray, seconds: float) -> None:
        plane_of = self.plane_of_source[self.scan.source_of]
        kept = (plane_of >= 0).all(axis=1)
        self._check_share(kept)
        arrays = {
            "tile_xy": self.scan.tile_xy,
            "plane_of": plane_of.astype(np.int32),
            "kept": kept,
            "plane_mass": np.array(self.mass, dtype=np.float32),
            "plane_digest": np.frombuffer(b"".join(self.plane_by_digest), dtype=np.uint8).reshape(-1, 16),
            "source_of": self.scan.source_of,
            "sources": self.scan.sources,
        }
        meta = {
            "planes_file": planes_file,
            "folder_times": folder_times.tolist(),
            "planes": len(self.mass),
            "background": list(self.background),
            "layer_counts": self.scan.layer_counts,
            "unreadable": self.failures,
            "pack_seconds": round(seconds, 3),
        }
        save_cache(self.folder / "index.l2v", f"store-{STORE_FORMAT}", arrays, meta)

    def _check_share(self, kept: np.ndarray) -> None:
        lost = int((~kept).sum())
        if not lost:
            return
        listing = "\n  ".join(self.failures[:10])
        more = f"\n  and {len(self.failures) - 10:,} more" if len(self.failures) > 10 else ""
        text = f"{lost:,} of {len(kept):,} tiles have an unreadable layer:\n  {listing}{more}"
        if lost > UNREADABLE_LIMIT * len(kept):
            raise UserError(
                f"{text}\nThat is more than {UNREADABLE_LIMIT:.0%} of the tiles. Draw them again "
                "(`python render_tiles.py CITY.osm.pbf --force`) or remove the damaged files"
            )
        warn(f"{text}\nThese tiles are left out")


# --- where tiles lie ---------------------------------------------------------------------------------------


class TileGrid:
    """Rows by coordinate in a dense grid, -1 where there is no tile: every neighbour question is O(1)."""

    def __init__(self, tile_xy: np.ndarray):
        low, high = tile_xy.min(axis=0).astype(np.int64), tile_xy.max(axis=0).astype(np.int64)
        self.origin, self.shape = low, high - low + 1
        if self.shape.prod() > GRID_LIMIT:
            raise UserError(
                f"the tiles spread from (x, y) = {tuple(low.tolist())} to {tuple(high.tolist())}; expected one city. "
                "Move tiles of other places to a folder of their own"
            )
        self.table = np.full(tuple(self.shape), -1, dtype=np.int32)
        self.table[tuple((tile_xy - low).T)] = np.arange(len(tile_xy), dtype=np.int32)

    def rows(self, tile_xy: np.ndarray) -> np.ndarray:
        """Row of each coordinate of `tile_xy (..., 2)`, -1 where there is no tile."""
        offset = np.asarray(tile_xy, dtype=np.int64) - self.origin
        inside = ((offset >= 0) & (offset < self.shape)).all(axis=-1)
        offset = np.where(inside[..., None], offset, 0)
        return np.where(inside, self.table[offset[..., 0], offset[..., 1]], -1)


def tile_of_latlon(lat: np.ndarray, lon: np.ndarray, zoom: int = DEFAULT_ZOOM) -> np.ndarray:
    """Fractional slippy-map coordinates `(..., 2) float64` (x, y) of points in degrees (Web Mercator)."""
    lat, lon = np.asarray(lat, dtype=np.float64), np.asarray(lon, dtype=np.float64)
    scale = 2.0**zoom
    y = (1 - np.arcsinh(np.tan(np.radians(lat))) / np.pi) / 2 * scale
    return np.stack([(lon + 180) / 360 * scale, y], axis=-1)


def latlon_of_tile(tile_xy: np.ndarray, zoom: int = DEFAULT_ZOOM) -> np.ndarray:
    """Latitude and longitude `(..., 2) float64` in degrees of (fractional) slippy-map coordinates.

    Integers give a tile's north-west corner; add 0.5 for its centre.
    """
    tile_xy = np.asarray(tile_xy, dtype=np.float64) / 2.0**zoom
    lat = np.degrees(np.arctan(np.sinh(np.pi * (1 - 2 * tile_xy[..., 1]))))
    return np.stack([lat, tile_xy[..., 0] * 360 - 180], axis=-1)


def blocks_of(tile_xy: np.ndarray, block: int = 12) -> np.ndarray:
    """Number of the `block` x `block` square each tile lies in, `(N,) int64`, counted from the area's corner."""
    cell = (np.asarray(tile_xy) - np.min(tile_xy, axis=0)) // block
    return np.unique(cell, axis=0, return_inverse=True)[1].reshape(-1)


def spatial_split(
    tile_xy: np.ndarray, val_share: float = 0.1, block: int = 12, seed: int = 0, buffer: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Split tiles into training and validation rows by whole blocks: `(train_rows, val_rows)`.

    Validation gets at least two blocks; training keeps `buffer` tiles away from them, so that no jittered training
    window shows a validation pixel. Blocks shrink in areas too small to spare two. A share of 0 validates nothing.
    """
    everything = np.arange(len(tile_xy))
    if val_share <= 0:
        return everything, everything[:0]
    side = int((tile_xy.max(axis=0) - tile_xy.min(axis=0)).min()) + 1
    labels = blocks_of(tile_xy, max(1, min(block, side // 4)))
    chosen, held = [], 0
    for label in np.random.default_rng([seed, 0x51]).permutation(labels.max() + 1):
        if len(chosen) >= 2 and held >= val_share * len(tile_xy):
            break
        chosen.append(label)
        held += int((labels == label).sum())
    val = np.isin(labels, chosen)
    near = near_any(tile_xy, tile_xy[val], buffer)
    return everything[~near], everything[val]


def near_any(tile_xy: np.ndarray, others: np.ndarray, radius: int) -> np.ndarray:
    """`(N,) bool`: tiles within `radius` (Chebyshev, in tiles) of any of `others`, themselves included."""
    if not len(others):
        return np.zeros(len(tile_xy), dtype=bool)
    step = np.arange(-radius, radius + 1)
    around = np.stack(np.meshgrid(step, step), axis=-1).reshape(-1, 2)
    grid = TileGrid(others)
    return np.any([grid.rows(tile_xy + offset) >= 0 for offset in around], axis=0)


# --- pairs and triplets ------------------------------------------------------------------------------------


class TripletSampler:
    """Draws (anchor, positive, negative) rows, vectorised, O(1) per sample, the same for the same seed and epoch.

    `rows` limits every role to those tiles; wholly blank tiles and tiles without a neighbour never are anchors.
    Distances are Chebyshev, in tiles: positives lie within `pos_radius` and are never the anchor itself; negatives
    lie at least `neg_radius` away. Raises `UserError` when the area cannot give such triplets.
    """

    def __init__(
        self,
        store: TileStore,
        pos_radius: int,
        neg_radius: int,
        seed: int = 0,
        rows: np.ndarray | None = None,
    ):
        if neg_radius <= pos_radius:
            raise UserError(
                f"--neg_radius {neg_radius} must be larger than --pos_radius {pos_radius}: "
                "a tile cannot be near and far at once"
            )
        rows = np.arange(len(store)) if rows is None else np.asarray(rows)
        rows = rows[~store.blank[rows]]
        if not len(rows):
            raise UserError(f"every tile of {store.tiles_root} is blank; nothing to train on")
        self.xy, self.rows, self.seed = store.tile_xy.astype(np.int64), rows, seed
        self.pos_radius, self.neg_radius = pos_radius, neg_radius
        self.content = store.layer_mass.sum(axis=1)
        self.grid = TileGrid(store.tile_xy[rows])  # gives positions in `rows`
        step = np.arange(-pos_radius, pos_radius + 1)
        offsets = np.stack(np.meshgrid(step, step), axis=-1).reshape(-1, 2)
        self.offsets = offsets[offsets.any(axis=1)]
        near = self._any_near(rows)
        self.anchors = rows[near & self._any_far(rows)]
        if not len(self.anchors):
            what = f"lies {neg_radius} tiles from another" if near.any() else f"has a neighbour within {pos_radius}"
            mend = "a smaller --neg_radius" if near.any() else "a larger --pos_radius"
            raise UserError(f"no tile with content of {store.tiles_root} {what}; {mend} or a larger area is needed")

    def epoch(self, epoch: int, max_samples: int, anchors: np.ndarray | None = None) -> np.ndarray:
        """The triplets of one epoch as rows `(M, 3) int64`: every anchor equally often up to `max_samples`."""
        rng = np.random.default_rng([self.seed, epoch])
        anchors = self.anchors if anchors is None else anchors
        rounds = -(-max_samples // len(anchors))
        drawn = np.concatenate([rng.permutation(anchors) for _ in range(rounds)])[:max_samples]
        return np.stack([drawn, self.positives(drawn, rng), self.negatives(drawn, rng)], axis=1)

    def positives(self, anchors: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """One row within `pos_radius` of each anchor `(B,)`, uniformly among those that exist."""
        chunk = max(1, (1 << 22) // len(self.offsets))
        return np.concatenate([self._near(anchors[i : i + chunk], rng) for i in range(0, len(anchors), chunk)])

    def _near(self, anchors: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        found = self.grid.rows(self.xy[anchors][:, None] + self.offsets)  # (B, K)
        chosen = np.where(found >= 0, rng.random(found.shape, dtype=np.float32), -1).argmax(axis=1)
        return self.rows[found[np.arange(len(anchors)), chosen]]

    def negatives(self, anchors: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """One row at least `neg_radius` from each anchor `(B,)`, uniformly among all such."""
        drawn = self.rows[rng.integers(len(self.rows), size=len(anchors))]
        near = self._distance(anchors, drawn) < self.neg_radius
        for _ in range(64):
            if not near.any():
                return drawn
            drawn[near] = self.rows[rng.integers(len(self.rows), size=int(near.sum()))]
            near = self._distance(anchors, drawn) < self.neg_radius
        for i in np.flatnonzero(near):  # hardly any tile lies far enough: choose among those that do
            far = self.rows[self._distance(anchors[i], self.rows) >= self.neg_radius]
            drawn[i] = rng.choice(far)
        return drawn

    def thinned(self, epoch: int, thin: float) -> np.ndarray:
        """Anchors of an epoch when those with less than `thin` of drawn ground are kept in proportion to it.

        Drawn ground is the mean brightness of a tile summed over its layers; 0 thins nothing.
        """
        share = self.content[self.anchors] / max(thin, 1e-9)
        kept = self.anchors[np.random.default_rng([self.seed, epoch, 0x7]).random(len(share)) < share]
        return kept if len(kept) else self.anchors

    def windows(self, triplets: np.ndarray, jitter: float, tile_size: int, rng: np.random.Generator) -> np.ndarray:
        """Windows for triplets (or pairs) of rows `(B, K)`: their upper left pixels `(B, K, 2) int64`.

        Every window is shifted by up to half of `jitter` tiles (at most half a tile) from its tile; the positive is
        not the neighbouring tile but lies within `jitter` tiles of the anchor's window. None leaves the area.
        """
        reach = min(jitter, 1.0) / 2 * tile_size
        origin = self.xy[triplets] * tile_size + rng.uniform(-reach, reach, (*triplets.shape, 2))
        shift = rng.uniform(-jitter * tile_size, jitter * tile_size, (len(triplets), 2))
        origin[:, 1] = origin[:, 0] + shift
        low, high = self.xy[self.rows].min(axis=0) * tile_size, self.xy[self.rows].max(axis=0) * tile_size
        return np.clip(np.rint(origin), low, high).astype(np.int64)

    def _distance(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.abs(self.xy[a] - self.xy[b]).max(axis=-1)

    def _any_near(self, rows: np.ndarray) -> np.ndarray:
        found = np.zeros(len(rows), dtype=bool)
        for offset in self.offsets:
            found |= self.grid.rows(self.xy[rows] + offset) >= 0
        return found

    def _any_far(self, rows: np.ndarray) -> np.ndarray:
        """Some tile lies far away exactly when one of the area's outermost tiles does."""
        low, high = self.xy[self.rows].min(axis=0), self.xy[self.rows].max(axis=0)
        return np.maximum(self.xy[rows] - low, high - self.xy[rows]).max(axis=1) >= self.neg_radius


class TileDataset(Dataset):
    """Every tile once: item i is `(tile (12, S, S) float32 in 0..1, (x, y) int64)`, for `torch` DataLoaders."""

    def __init__(self, store: TileStore):
        self.store = store

    def __len__(self) -> int:
        return len(self.store)

    def __getitem__(self, row: int) -> tuple[torch.Tensor, torch.Tensor]:
        return to_float(torch.from_numpy(self.store.tiles(np.array([row]))))[0], torch.tensor(
            self.store.tile_xy[row]
        ).long()


class TripletDataset(Dataset):
    """One epoch of triplets: item i is (anchor, positive, negative), each `(12, S, S) float32` in 0..1."""

    def __init__(self, store: TileStore, sampler: TripletSampler, max_samples: int):
        self.store, self.sampler, self.max_samples = store, sampler, max_samples
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Draw the triplets of another epoch."""
        self.triplets = self.sampler.epoch(epoch, self.max_samples)

    def __len__(self) -> int:
        return len(self.triplets)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, ...]:
        return tuple(to_float(torch.from_numpy(self.store.tiles(self.triplets[i]))))


# --- on the device -----------------------------------------------------------------------------------------


def to_float(tiles: torch.Tensor) -> torch.Tensor:
    """`uint8` tiles as float32 in 0..1."""
    return tiles.float().div_(255)


class DeviceTiles:
    """The store as tensors where the network runs: kept on the device when it fits, else copied batch by batch.

    `tiles` and `windows` answer as `TileStore`'s do, with `(B, 12, S, S) uint8` tensors on `device`.
    """

    def __init__(self, store: TileStore, device: torch.device):
        self.store, self.device = store, device
        self.resident = device.type == "cuda" and store.planes.nbytes < 0.5 * torch.cuda.mem_get_info(device)[0]
        if self.resident:
            self.planes = torch.from_numpy(np.array(store.planes)).to(device)
            self.plane_of = (
                torch.from_numpy(np.concatenate([store.plane_of, np.zeros((1, 12), np.int32)])).to(device).long()
            )
            self.table = torch.from_numpy(store.grid.table.copy()).to(device).long()
            self.origin = torch.from_numpy(store.grid.origin).to(device)

    def tiles(self, rows: np.ndarray) -> torch.Tensor:
        """The tiles of `rows (B,)`; -1 gives a blank tile."""
        if not self.resident:
            return self._copy(self.store.tiles(rows))
        return self.planes[self.plane_of[torch.as_tensor(rows).to(self.device, non_blocking=True)]]

    def windows(self, origin_px: np.ndarray) -> torch.Tensor:
        """Windows whose upper left pixel is `origin_px (B, 2)`; see `TileStore.windows`."""
        if not self.resident:
            return self._copy(self.store.windows(origin_px))
        return window_gather(
            self.planes,
            self.plane_of,
            self.table,
            self.origin,
            torch.as_tensor(origin_px).to(self.device, non_blocking=True),
        )

    def _copy(self, tiles: np.ndarray) -> torch.Tensor:
        tensor = torch.from_numpy(tiles)
        if self.device.type == "cuda":
            tensor = tensor.pin_memory()
        return tensor.to(self.device, non_blocking=True)


def window_gather(
    planes: torch.Tensor,
    plane_of: torch.Tensor,
    table: torch.Tensor,
    origin: torch.Tensor,
    origin_px: torch.Tensor,
) -> torch.Tensor:
    """Cut windows on the device in one gather: `origin_px (B, 2)` to `(B, 12, S, S) uint8`.

    `planes (P, S, S)`, `plane_of (N + 1, 12)` whose last row is blank, `table` and `origin` of the `TileGrid`.
    """
    size = planes.shape[-1]
    pixel = origin_px[:, :, None] + torch.arange(size, device=planes.device)  # (B, 2, S)
    tile, local = pixel // size - origin[:, None], pixel % size
    limit = torch.tensor(table.shape, device=planes.device)[:, None]
    inside = (tile >= 0) & (tile < limit)
    tile = torch.where(inside, tile, 0)
    rows = table[tile[:, 0, None, :], tile[:, 1, :, None]]  # (B, S rows, S columns)
    rows = torch.where(inside[:, 0, None, :] & inside[:, 1, :, None], rows, -1)
    plane = plane_of[rows].permute(0, 3, 1, 2)  # (B, 12, S, S)
    flat = (plane * size + local[:, 1, None, :, None]) * size + local[:, 0, None, None, :]
    return planes.reshape(-1)[flat]


def augment(
    tiles: torch.Tensor,
    generator: torch.Generator,
    *,
    turn: bool = True,
    channel_dropout: float = 0.0,
    part: tuple[int, int] = (0, 1),
) -> torch.Tensor:
    """Turn and mirror each tile at random (the 8 symmetries of the square) and blank each layer by chance.

    `tiles (B, 12, S, S)` of any dtype, on any device; `generator` lives on the CPU, so that every device draws alike.
    `part` says that the tiles are this part of so many of a larger batch, for which chance is drawn as a whole.
    Blanking layers is Sentiance's cure for the trivial solution that only matches what two windows share.
    """
    part_index, parts = part
    own = slice(part_index * len(tiles), (part_index + 1) * len(tiles))
    if turn:
        symmetry = torch.randint(8, (parts * len(tiles),), generator=generator)[own]
        turned = torch.empty_like(tiles)
        for kind in range(8):
            index = (symmetry == kind).nonzero().flatten().to(tiles.device)
            image = tiles[index].rot90(kind % 4, dims=(2, 3))
            turned[index] = image.flip(3) if kind >= 4 else image
        tiles = turned
    if channel_dropout > 0:
        chance = torch.rand((parts * len(tiles), tiles.shape[1], 1, 1), generator=generator)[own]
        keep = chance >= channel_dropout
        tiles = tiles * keep.to(tiles.device, tiles.dtype, non_blocking=True)
    return tiles


# --- the command -------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class SampleFlags:
    """Sampling of triplets."""

    batch_size: int = flag(16, "triplets per batch", type=positive_int)
    pos_radius: int = flag(2, "positives lie within this many tiles of the anchor", type=positive_int)
    neg_radius: int = flag(10, "negatives lie at least this many tiles from the anchor", type=positive_int)
    max_samples: int = flag(10000, "triplets per epoch", type=positive_int)
    thin: float = flag(0.0, "draw anchors with less drawn ground than this (0.02, say) less often", type=count_float)


@dataclasses.dataclass(frozen=True)
class AugmentFlags:
    """Augmentation."""

    jitter: float = flag(
        0.0,
        "positives are windows within this many tiles of the anchor, at any pixel; 0: whole tiles",
        type=count_float,
    )
    turn: bool = flag(False, "turn and mirror each tile at random")
    channel_dropout: float = flag(0.0, "chance that a layer of a tile is blanked", type=fraction)


def main() -> None:
    """Print what the tiles folder holds and what a batch looks like."""
    parser = Parser(__doc__)
    for group in (TilesFlags, StoreFlags):
        add_flags(parser, group)
    add_flags(parser, SampleFlags, only=["batch_size", "pos_radius", "neg_radius"])
    add_flags(parser, DeviceFlags, only=["seed"])
    args = parser.parse_args()
    tiles, packing = read_flags(TilesFlags, args), read_flags(StoreFlags, args)
    started = time.perf_counter()
    store = open_configured(tiles, packing)
    print_store(store, time.perf_counter() - started)
    sampler = TripletSampler(store, args.pos_radius, args.neg_radius, args.seed)
    loader = DataLoader(TripletDataset(store, sampler, args.batch_size), batch_size=args.batch_size)
    for name, batch in zip(("anchor", "positive", "negative"), next(iter(loader)), strict=True):
        print(f"sample batch, {name}: {tuple(batch.shape)} {batch.dtype}, {batch.min():.2f} to {batch.max():.2f}")


def print_store(store: TileStore, seconds: float) -> None:
    """Print layers, tiles per layer, common coordinates, blank share and packing time."""
    counts, blank = store.meta["layer_counts"], (store.plane_of == 0).mean(axis=0)
    print(f"layers found: {len(counts)} of {len(LAYERS)}")
    for layer, share in zip(LAYERS, blank, strict=True):
        print(f"  {layer:<17} {counts[layer]:>8,} tiles, {share:6.1%} blank")
    low, high = store.tile_xy.min(axis=0), store.tile_xy.max(axis=0)
    print(f"common coordinates: {len(store):,} (x {low[0]}-{high[0]}, y {low[1]}-{high[1]}, zoom {store.zoom})")
    print(f"unreadable files: {len(store.meta['unreadable'])}")
    print(f"wholly blank tiles: {store.blank.mean():.1%}")
    size = store.planes.nbytes / 1e6
    print(
        f"packed: {len(store.planes):,} distinct planes of {store.tile_size} px, {size:,.0f} MB, in "
        f"{store.meta['pack_seconds']:.1f} s; opened in {seconds:.2f} s"
    )


def read_manifest(tiles_root: Path | str) -> dict:
    """What render_tiles.py wrote beside the tiles; empty for tiles drawn by others."""
    path = Path(tiles_root) / MANIFEST_NAME
    if not path.is_file():
        return {}
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        texts = [manifest.get(name, "") for name in ("extract", "attribution")]
    except (ValueError, AttributeError):
        texts = [None]
    if not all(isinstance(text, str) for text in texts):
        raise UserError(f"{path} is damaged; `python render_tiles.py CITY.osm.pbf --force` writes tiles and it anew")
    return manifest


if __name__ == "__main__":
    run_main(main)
