"""The packed tiles of a city: every distinct plane once, memory-mapped, with windows at any pixel.

Not a command. `python data_loader.py` shows what a store holds.
"""

import dataclasses
import os
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from itertools import batched
from pathlib import Path
from typing import IO

import numpy as np

from cache_files import load_intact, save_cache
from cli import TilesFlags, UserError, count_int, flag, positive_int
from files import digest, locked
from layers import LAYERS, MAX_TILE_PX
from progress_bars import progress, warn
from tile_files import (
    UNREADABLE_LIMIT,
    Planes,
    TileScan,
    find_background,
    folder_times,
    last_row,
    layer_folders,
    plane_digest,
    read_planes,
    scan_tiles,
    tile_path,
)
from tile_grid import DEFAULT_ZOOM, TileGrid, unwrapped
from tile_levels import LEVELS, SIZED_LAYERS, coarse_levels, piece_sizes

SHRINKS = ("mean", "max")  # ways to shrink a tile
_STORE_KEY = f"store-5 {' '.join(LAYERS)}"  # the file format, and what the channels mean
_DECODE_CHUNK = 128
_COPY_PLANES_FROM_PX = 128  # from this tile size on, copying plane by plane is faster than one np.take
_EDGE_PAIRS = 400  # pairs of neighbouring tiles that are compared to find out from where y counts


@dataclasses.dataclass(frozen=True)
class StoreFlags:
    """Packing of tiles."""

    tile_size: int = flag(256, "edge of a tile as the network sees it, in pixels (a multiple of 32)", type=positive_int)
    shrink: str = flag("mean", "how larger tiles are shrunk: mean keeps areas true, max keeps dots", choices=SHRINKS)
    num_workers: int = flag(
        min(8, os.cpu_count() or 1), "threads that decode tiles, and that load batches ahead on a GPU", type=count_int
    )


# --- the packed store --------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class TileStore:
    """All tiles of a city, each distinct plane kept once.

    With N tiles of L layers and S x S pixels: `tile_xy (N, 2) int32`; `planes (P, S, S) uint8`, memory-mapped, plane 0
    is blank; `plane_of (N, L) int32`; `plane_intensity (P,) float32`, mean intensity in 0..1; `plane_digest (P, 16)
    uint8`. `levels[px] (P, 3, px, px) uint8` are the planes at the resolutions of `LEVELS`; see `coarse_levels`.
    `sizes (Q, 4, 16, 16) uint8` are the sizes of pieces on the planes of `SIZED_LAYERS`, see `piece_sizes`; `size_row
    (P,) int32` says which of them belongs to a plane, and 0 is blank.
    `content_key` depends on the pixels and coordinates only, not on where or when the tiles were written.
    """

    tiles_root: Path
    zoom: int
    tile_size: int
    shrink: str
    tile_xy: np.ndarray
    planes: np.ndarray
    plane_of: np.ndarray
    plane_intensity: np.ndarray
    plane_digest: np.ndarray
    levels: dict[int, np.ndarray]
    sizes: np.ndarray
    size_row: np.ndarray
    meta: dict
    tms: bool = False

    def __len__(self) -> int:
        return len(self.tile_xy)

    @cached_property
    def content_key(self) -> str:
        """Digest of every pixel and coordinate, and of how the tiles were shrunk."""
        settings = [self.zoom, self.tile_size, self.shrink, LAYERS]
        return digest(settings, self.tile_xy, self.plane_digest[self.plane_of])

    @cached_property
    def grid(self) -> TileGrid:
        """Rows by coordinate."""
        return TileGrid(self.tile_xy, self.zoom)

    @cached_property
    def unwrapped_xy(self) -> np.ndarray:
        """`tile_xy`, except that x goes on counting where the tiles cross 180 degrees; see `tile_grid.unwrapped`."""
        return unwrapped(self.tile_xy, self.zoom)

    @cached_property
    def layer_intensity(self) -> np.ndarray:
        """Mean intensity `(N, L) float32`, 0..1, of each tile's layers."""
        return self.plane_intensity[self.plane_of]

    @cached_property
    def blank(self) -> np.ndarray:
        """`(N,) bool`: tiles on which nothing is drawn."""
        return (self.plane_of == 0).all(axis=1)

    def tiles(self, rows: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """The tiles of `rows (B,)` as `(B, L, S, S) uint8`; -1 gives a blank tile."""
        rows = np.asarray(rows)
        plane_of = np.where(rows[:, None] >= 0, self.plane_of[rows], 0).reshape(-1)
        if out is None:
            out = np.empty((len(rows), len(LAYERS), self.tile_size, self.tile_size), dtype=np.uint8)
        planes, flat = np.asarray(self.planes), out.reshape(-1, *out.shape[2:])
        if self.tile_size < _COPY_PLANES_FROM_PX:
            np.take(planes, plane_of, axis=0, out=flat, mode="clip")
            return out
        flat.fill(0)
        for place in np.flatnonzero(plane_of).tolist():
            flat[place] = planes[plane_of[place]]
        return out

    def windows(self, origin_px: np.ndarray) -> np.ndarray:
        """Windows of one tile's size whose upper left pixel is `origin_px (B, 2)`, as `(B, L, S, S) uint8`.

        Pixels count from the map's upper left corner (tile x * S + column, tile y * S + row). Where there is no tile
        the window is blank.
        """
        size = self.tile_size
        origin_px = np.asarray(origin_px, dtype=np.int64)
        tile, shift = np.divmod(origin_px, size)
        aligned = ~shift.any(axis=1)
        out = np.zeros((len(origin_px), len(LAYERS), size, size), dtype=np.uint8)
        if aligned.any():
            out[aligned] = self.tiles(self.grid.rows(tile[aligned]))
        corners = np.array([(0, 0), (1, 0), (0, 1), (1, 1)])
        rows = np.where(aligned[:, None], -1, self.grid.rows(tile[:, None, :] + corners))  # (B, 4)
        for row in np.unique(rows[rows >= 0]).tolist():
            layers = list(self.drawn_layers(row))
            for i, corner in np.argwhere(rows == row).tolist():
                right, below = corners[corner].tolist()
                from_x, to_x = _overlap(int(shift[i, 0]), size, right)
                from_y, to_y = _overlap(int(shift[i, 1]), size, below)
                for channel, plane in layers:
                    out[i, channel, to_y, to_x] = plane[from_y, from_x]
        return out

    def drawn_layers(self, row: int) -> Iterator[tuple[int, np.ndarray]]:
        """The layers of a tile that show something, and their planes `(S, S) uint8`."""
        for channel, plane in enumerate(self.plane_of[row].tolist()):
            if plane:
                yield channel, self.planes[plane]

    def verify(self, rows: np.ndarray) -> np.ndarray:
        """`(B,) bool`: whether the pixels of each of `rows (B,)` are still what was packed."""
        planes, inverse = np.unique(self.plane_of[rows], return_inverse=True)
        same = [plane_digest(self.planes[i]) == bytes(self.plane_digest[i]) for i in planes]
        return np.array(same, dtype=bool)[inverse].reshape(-1, len(LAYERS)).all(axis=1)

    def damaged_planes(self) -> np.ndarray:
        """Indices of planes whose pixels are not what was packed: empty for a healthy store."""
        expected = map(bytes, self.plane_digest)
        return np.array([i for i, key in enumerate(expected) if plane_digest(self.planes[i]) != key])

    @cached_property
    def _layer_folders(self) -> list[Path]:
        return layer_folders(self.tiles_root, self.zoom)

    def tile_path(self, row: int, channel: int) -> str:
        """The file from which one layer of tile `row` is read."""
        x, y = map(int, self.tile_xy[row])
        return tile_path(self._layer_folders[channel], x, last_row(self.zoom) - y if self.tms else y)


def _overlap(shift: int, size: int, second: bool) -> tuple[slice, slice]:
    """Along one axis: which pixels of the first or second tile a window takes, and where they go."""
    if second:
        return slice(0, shift), slice(size - shift, size)
    return slice(shift, size), slice(0, size - shift)


# --- opening -----------------------------------------------------------------------------------------------


def open_store(
    tiles_root: Path | str,
    tile_size: int = StoreFlags.tile_size,
    *,
    zoom: int = DEFAULT_ZOOM,
    shrink: str = StoreFlags.shrink,
    cache_dir: Path | str = TilesFlags.cache_dir,
    tms: bool = TilesFlags.tms,
    num_workers: int = StoreFlags.num_workers,
    verify: bool = False,
    quick: bool = False,
) -> TileStore:
    """Open the packed tiles of a folder; pack them first when there is no pack or the tiles changed since.

    Planes whose files did not change are taken from the old pack. With `tms`, y in the file names counts from the
    south. `verify` compares every plane with its digest and packs again when one differs. `quick` looks at the folders
    only: it notices tiles that come, go or are replaced as render_tiles.py replaces them, but not a file overwritten in
    place. Raises `UserError` for a folder without usable tiles.
    """
    if tile_size > MAX_TILE_PX:
        raise UserError(f"--tile_size {tile_size} is too large for a tile; at most {MAX_TILE_PX} pixels can be read")
    pack = _Pack(Path(cache_dir), Path(tiles_root), zoom, tile_size, shrink, tms)
    times = folder_times(layer_folders(pack.root, zoom))
    found = pack.load() if quick and not verify else None
    if found and np.array_equal(found[0].meta["folder_times"], times):
        return found[0]
    scan = scan_tiles(pack.root, zoom, tms)
    found = pack.load(verify)
    if not (found and _same_sources(found[1], scan)):
        with locked(pack.folder.with_suffix(".lock")):
            found = pack.load(verify)  # another process may have packed meanwhile
            if not (found and _same_sources(found[1], scan)):
                _Packer(pack, scan).write(num_workers, times, found)
                found = pack.load()
                assert found is not None
                _report_notes(found[0])
    return found[0]


def open_configured(tiles: TilesFlags, packing: StoreFlags, *, verify: bool = False) -> TileStore:
    """The packed tiles that the shared flags name; see `open_store`."""
    return open_store(
        tiles.tiles_root,
        packing.tile_size,
        zoom=tiles.zoom,
        shrink=packing.shrink,
        cache_dir=tiles.cache_dir,
        tms=tiles.tms,
        num_workers=packing.num_workers,
        verify=verify,
    )


def _same_sources(old: TileScan, new: TileScan) -> bool:
    return (
        np.array_equal(old.tile_xy, new.tile_xy)
        and np.array_equal(old.source_of, new.source_of)
        and np.array_equal(old.sources, new.sources)
    )


def _report_notes(store: TileStore) -> None:
    """Say what is unusual about tiles that were just packed."""
    for note in store.meta["notes"]:
        warn(f"{store.tiles_root}: {note}")
    if _rows_seem_reversed(store):
        cure = "leave --tms out" if store.tms else "pass --tms"
        warn(f"{store.tiles_root}: neighbouring tiles fit together only if y counts from the other end: {cure}")


def _rows_seem_reversed(store: TileStore) -> bool:
    """Whether the edges of neighbouring tiles match clearly better when north and south are swapped."""
    below = store.grid.rows(store.tile_xy + np.array([0, 1]))
    upper = np.flatnonzero((below >= 0) & ~store.blank & ~store.blank[below])
    upper = upper[np.linspace(0, len(upper) - 1, min(_EDGE_PAIRS, len(upper))).astype(int)]
    if len(upper) < 16:
        return False
    first, second = (store.plane_of[rows].reshape(-1) for rows in (upper, below[upper]))
    edges = [store.planes[planes, row].astype(np.int16) for planes in (first, second) for row in (0, -1)]
    as_named = np.abs(edges[1] - edges[2]).mean()  # lower edge of the northern tile, upper edge of the southern one
    swapped = np.abs(edges[0] - edges[3]).mean()
    return bool(as_named > 1.5 * swapped)


# --- packing -----------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Pack:
    """Where the pack of a tiles folder is, and how it is read."""

    cache_dir: Path
    root: Path
    zoom: int
    size: int
    shrink: str
    tms: bool

    @cached_property
    def folder(self) -> Path:
        settings = [str(self.root.resolve()), self.zoom, self.size, self.shrink, *(["tms"] if self.tms else [])]
        return self.cache_dir / f"tiles-{digest(settings)[:12]}"

    def load(self, verify: bool = False) -> tuple[TileStore, TileScan] | None:
        """The store and the files it was packed from; None when there is none, or it cannot be trusted."""
        loaded = load_intact(self.folder / "index.l2v", _STORE_KEY, "packing the tiles again")
        if loaded is None:
            return None
        arrays, meta = loaded
        path, shape = self.folder / meta["planes_file"], (meta["planes"], self.size, self.size)
        if not path.is_file() or path.stat().st_size != int(np.prod(shape)):
            warn(f"{path} is missing or cut short; packing the tiles again")
            return None
        kept = arrays["kept"]
        store = TileStore(
            tiles_root=self.root,
            zoom=self.zoom,
            tile_size=self.size,
            shrink=self.shrink,
            tile_xy=arrays["tile_xy"][kept],
            planes=np.memmap(path, dtype=np.uint8, mode="r", shape=shape),
            plane_of=arrays["plane_of"][kept],
            plane_intensity=arrays["plane_intensity"],
            plane_digest=arrays["plane_digest"],
            levels={px: arrays[f"level_{px}"] for px in LEVELS},
            sizes=arrays["sizes"],
            size_row=arrays["size_row"],
            meta=meta,
            tms=self.tms,
        )
        if verify and len(store.damaged_planes()):
            warn(f"the packed tiles in {self.folder} are damaged; packing them again")
            return None
        scan = TileScan(arrays["tile_xy"], arrays["source_of"], arrays["sources"], [], meta["layer_counts"], [])
        return store, scan


class _Packer:
    """Decodes every distinct file once, keeps every distinct plane once, writes both arrays whole."""

    def __init__(self, pack: _Pack, scan: TileScan):
        self.folder, self.size, self.shrink, self.scan = pack.folder, pack.size, pack.shrink, scan
        self.blank = np.zeros((pack.size, pack.size), dtype=np.uint8)
        self.plane_by_digest = {plane_digest(self.blank): 0}
        self.intensity = [0.0]
        self.levels = {px: [levels] for px, levels in coarse_levels([self.blank]).items()}
        self.plane_of_source = np.full(len(scan.paths), -1, dtype=np.int32)
        self.failures: list[str] = []
        self.background = find_background(scan, pack.root)

    def write(self, num_workers: int, times: np.ndarray, old: tuple[TileStore, TileScan] | None) -> None:
        """Write the planes, then the index that names them; the index appears last and whole."""
        started = time.perf_counter()
        self.folder.mkdir(parents=True, exist_ok=True)
        in_use = old[0].meta["planes_file"] if old else None
        for leftover in self.folder.glob("planes-*.bin"):
            if leftover.name != in_use:
                _remove(leftover)
        planes_file = f"planes-{digest(time.time_ns(), os.getpid())[:12]}.bin"
        try:
            with open(self.folder / planes_file, "wb") as file:
                file.write(self.blank)
                for sources, found in self._planes(num_workers, old):
                    self._keep(file, sources, found)
                file.flush()
                os.fsync(file.fileno())
            self._write_index(planes_file, times, time.perf_counter() - started)
        except BaseException:
            (self.folder / planes_file).unlink(missing_ok=True)
            raise
        if in_use:
            _remove(self.folder / in_use)

    def _planes(
        self, num_workers: int, old: tuple[TileStore, TileScan] | None
    ) -> Iterator[tuple[Sequence[int], Planes]]:
        """Chunks of the sources and their planes; those of unchanged sources come from the old pack."""
        reused = self._reusable(old)
        for sources in batched(reused, _DECODE_CHUNK):
            assert old is not None
            rows = [reused[source] for source in sources]
            yield sources, Planes(list(old[0].planes[rows]), [bytes(key) for key in old[0].plane_digest[rows]], [])
        todo = [source for source in range(len(self.scan.paths)) if source not in reused]
        with progress(total=len(todo), desc="packing tiles", unit="file") as bar:
            for start, decoded in self._decode(todo, num_workers):
                self.failures += decoded.failures
                yield todo[start : start + len(decoded.planes)], decoded
                bar.update(len(decoded.planes))

    def _decode(self, todo: list[int], num_workers: int) -> Iterator[tuple[int, Planes]]:
        """Chunks of `todo` in order, decoded in threads (zlib, resizing and digests release the GIL)."""
        waiting: deque[tuple[int, Future[Planes]]] = deque()
        with ThreadPoolExecutor(max(1, num_workers)) as pool:
            for start in range(0, len(todo), _DECODE_CHUNK):
                paths = [self.scan.paths[source] for source in todo[start : start + _DECODE_CHUNK]]
                job = pool.submit(read_planes, paths, self.size, self.shrink, self.background)
                waiting.append((start, job))
                if len(waiting) > 2 * max(1, num_workers):
                    start, job = waiting.popleft()
                    yield start, job.result()
            for start, job in waiting:
                yield start, job.result()

    def _reusable(self, old: tuple[TileStore, TileScan] | None) -> dict[int, int]:
        """Plane in the old pack of each source that is still the same file (inode, size, time)."""
        if old is None or old[0].meta["background"] != list(self.background):
            return {}
        store, scan = old
        plane_of_source = np.full(len(scan.sources), -1, dtype=np.int64)
        plane_of_source[scan.source_of[TileGrid(scan.tile_xy, store.zoom).rows(store.tile_xy)]] = store.plane_of
        known = {tuple(key): int(plane) for key, plane in zip(scan.sources.tolist(), plane_of_source, strict=True)}
        planes = [known.get(tuple(key), -1) for key in self.scan.sources.tolist()]
        return {source: plane for source, plane in enumerate(planes) if plane >= 0}

    def _keep(self, file: IO[bytes], sources: Sequence[int], found: Planes) -> None:
        new = []
        for source, plane, key in zip(sources, found.planes, found.digests, strict=True):
            if plane is None or key is None:
                continue
            if key not in self.plane_by_digest:
                self.plane_by_digest[key] = len(self.intensity)
                self.intensity.append(float(plane.mean()) / 255)
                file.write(np.ascontiguousarray(plane))
                new.append(plane)
            self.plane_of_source[source] = self.plane_by_digest[key]
        if new:
            for px, levels in coarse_levels(new).items():
                self.levels[px].append(levels)

    def _write_index(self, planes_file: str, times: np.ndarray, seconds: float) -> None:
        plane_of = self.plane_of_source[self.scan.source_of]
        kept = (plane_of >= 0).all(axis=1)
        self._check_share(kept)
        sized = np.union1d([0], plane_of[np.ix_(kept, SIZED_LAYERS)])
        size_row = np.zeros(len(self.intensity), dtype=np.int32)
        size_row[sized] = np.arange(len(sized))
        shape = (len(self.intensity), self.size, self.size)
        planes = np.memmap(self.folder / planes_file, dtype=np.uint8, mode="r", shape=shape)
        arrays = {
            "tile_xy": self.scan.tile_xy,
            "plane_of": plane_of.astype(np.int32),
            "kept": kept,
            "plane_intensity": np.array(self.intensity, dtype=np.float32),
            "plane_digest": np.frombuffer(b"".join(self.plane_by_digest), dtype=np.uint8).reshape(-1, 16),
            "source_of": self.scan.source_of,
            "sources": self.scan.sources,
            "sizes": np.concatenate([piece_sizes(planes[list(part)]) for part in batched(sized, _DECODE_CHUNK)]),
            "size_row": size_row,
        } | {f"level_{px}": np.concatenate(levels) for px, levels in self.levels.items()}
        meta = {
            "planes_file": planes_file,
            "folder_times": times.tolist(),
            "planes": len(self.intensity),
            "background": list(self.background),
            "layer_counts": self.scan.layer_counts,
            "notes": self.scan.notes,
            "unreadable": self.failures,
            "pack_seconds": round(seconds, 3),
        }
        save_cache(self.folder / "index.l2v", _STORE_KEY, arrays, meta)

    def _check_share(self, kept: np.ndarray) -> None:
        """Warn about tiles that are left out. Raises `UserError` when they are more than a small share."""
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


def _remove(planes: Path) -> None:
    """Remove planes that no index names any more."""
    try:
        planes.unlink(missing_ok=True)
    except PermissionError:  # Windows keeps a file that is mapped; the next packing removes it
        warn(f"{planes} is still open elsewhere and was left in place")
