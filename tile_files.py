"""Tile folders: find the tiles of all layers and read one of them.

Not a command. PNGs are decoded with Pillow. torchvision.io.decode_png takes 0.9 of the time (600 tiles of 256 px,
checksums included in both), but with it everything that reads tiles would import PyTorch.
"""

import contextlib
import dataclasses
import json
import os
import re
import zlib
from collections import Counter
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from cli import UserError
from files import digest
from layers import COORDINATE, LAYERS, MANIFEST_NAME, MAX_TILE_PX
from tile_grid import DEFAULT_ZOOM

EXTENSIONS = ("png", "webp", "jpg", "jpeg")  # best first: of a tile with several files, the first is used
UNREADABLE_LIMIT = 0.02  # share of tiles that may be unreadable before packing gives up
_TILE_NAME = re.compile(rf"({COORDINATE.pattern})((?:@2x)?\.(?:{'|'.join(EXTENSIONS)}))", re.IGNORECASE)
_FORMATS = ("PNG", "WEBP", "JPEG")  # Pillow's names; the content of a file decides, not its name
_DRAW = "`python render_tiles.py CITY.osm.pbf` draws them"


# --- finding tiles -----------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class TileScan:
    """What lies under a tiles folder.

    `tile_xy (N, 2) int32` are the coordinates that all layers have, sorted by x, then y. Hard links of one file are one
    source: `source_of (N, L) int64` numbers the sources, `sources (U, 3) int64` holds their inode (or `_file_number`),
    size in bytes and modification time in ns, and `paths` one path for each. `layer_counts` counts tiles per layer;
    `notes` say what is unusual about the folder.
    """

    tile_xy: np.ndarray
    source_of: np.ndarray
    sources: np.ndarray
    paths: list[str]
    layer_counts: dict[str, int]
    notes: list[str]


class _Found(NamedTuple):
    """The tiles of one layer: codes (x * 2^32 + y from the north), inodes, and which suffix each file has."""

    codes: np.ndarray
    inodes: np.ndarray
    suffix_of: np.ndarray
    suffixes: list[str]
    hidden: int  # files that are not used because a better one of the same tile is there


def scan_tiles(tiles_root: Path | str, zoom: int = DEFAULT_ZOOM, tms: bool = False) -> TileScan:
    """List the tiles of all layers. With `tms`, y in the file names counts from the south.

    Raises `UserError` when a layer is missing or no coordinate is common to all of them.
    """
    root = Path(tiles_root)
    folders = layer_folders(root, zoom)
    found = [_scan_layer(folder, zoom, tms) for folder in folders]
    common = found[0].codes
    for layer in found[1:]:
        common = np.intersect1d(common, layer.codes, assume_unique=True)
    counts = {name: len(layer.codes) for name, layer in zip(LAYERS, found, strict=True)}
    if not len(common):
        raise UserError(_nothing_common(root, zoom, folders, counts))
    tile_xy = np.stack([common >> 32, common & 0xFFFFFFFF], axis=1).astype(np.int32)
    place = [np.searchsorted(layer.codes, common) for layer in found]
    number = np.stack([layer.inodes[at] for layer, at in zip(found, place, strict=True)], axis=1).reshape(-1)

    def path_of(cell: int) -> str:
        row, channel = divmod(cell, len(LAYERS))
        x, y = map(int, tile_xy[row])
        suffix = found[channel].suffixes[found[channel].suffix_of[place[channel][row]]]
        return f"{folders[channel]}/{x}/{last_row(zoom) - y if tms else y}{suffix}"

    _, first, source_of = np.unique(number, return_index=True, return_inverse=True)
    paths = [path_of(cell) for cell in first.tolist()]
    status = [os.stat(path) for path in paths]
    disks = {os.stat(folder).st_dev for folder in folders}
    if len(disks) > 1 or not number.all() or [signed_inode(s.st_ino) for s in status] != number[first].tolist():
        # Some FUSE file systems list made-up inodes, and two disks may use the same ones: look at every file.
        number = np.array([_file_number(path_of(cell)) for cell in range(len(number))])
        _, first, source_of = np.unique(number, return_index=True, return_inverse=True)
        paths = [path_of(cell) for cell in first.tolist()]
        status = [os.stat(path) for path in paths]
    sources = np.array([number[first], [s.st_size for s in status], [s.st_mtime_ns for s in status]]).T
    notes = _notes(folders, found)
    return TileScan(tile_xy, source_of.reshape(len(tile_xy), len(LAYERS)), sources, paths, counts, notes)


def layer_folders(root: Path, zoom: int) -> list[Path]:
    """The folder `<root>/<layer>/<zoom>` of each layer, in the order of `LAYERS`.

    A layer's folder may be spelled with other case, with spaces or with underscores. Raises `UserError` when one is
    missing or two folders are spellings of one layer.
    """
    if not root.is_dir():
        what = "a file, not a folder" if root.exists() else "no folder"
        raise UserError(
            f"{what} at {root}; expected <layer>/{zoom}/<x>/<y>.png for {len(LAYERS)} layers there. {_DRAW}, "
            "`python run_example.py` does it for the sample city"
        )
    names = _folder_names(root)
    spelled: dict[str, list[str]] = {layer: [] for layer in LAYERS}
    for name in names:
        if (layer := re.sub("[ _-]+", "-", name.casefold())) in spelled:
            spelled[layer].append(name)
    for layer, found in spelled.items():
        if len(found) > 1 and layer not in found:
            raise UserError(f"{root} has several folders of layer {layer}: {', '.join(found)}; keep one of them")
    chosen = {layer: layer if layer in found else found[0] for layer, found in spelled.items() if found}
    folders = {layer: root / name / str(zoom) for layer, name in chosen.items()}
    missing = [layer for layer in LAYERS if layer not in folders or not folders[layer].is_dir()]
    if not missing:
        return [folders[layer] for layer in LAYERS]
    zooms = sorted({p.name for name in chosen.values() for p in (root / name).glob("[0-9]*") if p.is_dir()})
    zooms = [found for found in zooms if found != str(zoom)]
    hint = f"; zoom {', '.join(zooms)} is there: pass --zoom {zooms[-1]}" if zooms else ""
    if unknown := [name for name in names if name not in chosen.values()]:
        hint += f"; folders there that are no layer: {', '.join(unknown[:8])}{', …' if len(unknown) > 8 else ''}"
    if inner := next((name for name in unknown if len(set(LAYERS) & set(_folder_names(root / name))) > 1), None):
        hint += f"; the layers seem to be in {root / inner}: pass --tiles_root {root / inner}"
    what = f"{len(missing)} of {len(LAYERS)} layers have no folder <layer>/{zoom} under {root}"
    raise UserError(f"{what}: {', '.join(missing)}{hint}. {_DRAW}, `python run_example.py` does it for the sample city")


def _folder_names(root: Path) -> list[str]:
    with os.scandir(root) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir())


def _scan_layer(folder: Path, zoom: int, tms: bool) -> _Found:
    """The tiles of one layer, one file for each, sorted by code."""
    codes, inodes, suffix_of = [], [], []
    numbers: dict[str, int] = {}
    for column in os.scandir(folder):
        if not (COORDINATE.fullmatch(column.name) and column.is_dir()):
            continue
        x = int(column.name) << 32
        for entry in os.scandir(column.path):
            if name := _TILE_NAME.fullmatch(entry.name):
                y = int(name[1])
                if tms:
                    y = last_row(zoom) - y
                    if y < 0:
                        raise UserError(f"{entry.path}: with --tms y is at most {last_row(zoom)} at zoom {zoom}")
                codes.append(x + y)
                inodes.append(signed_inode(entry.inode()))
                suffix_of.append(numbers.setdefault(name[2], len(numbers)))
    suffixes = list(numbers)
    best_first = sorted(suffixes, key=lambda suffix: (*_rank(suffix), suffix))
    rank = np.array([best_first.index(suffix) for suffix in suffixes], dtype=np.int64)
    code, inode, kind = np.array(codes, np.int64), np.array(inodes, np.int64), np.array(suffix_of, np.int64)
    order = np.lexsort((rank[kind], code))
    kept = order[np.diff(code[order], prepend=-1) > 0]
    return _Found(code[kept], inode[kept], kind[kept], suffixes, len(order) - len(kept))


def _rank(suffix: str) -> tuple[bool, int]:
    """Sorts the suffixes of one tile: y.png comes before y@2x.png, and PNG before what may be lossy."""
    twice, _, extension = suffix.lower().rpartition(".")
    return twice != "", EXTENSIONS.index(extension)


def tile_path(folder: Path, x: int, y: int) -> str:
    """The file of one tile in a layer's folder, the one that `scan_tiles` uses; `y` as in the file names."""
    plain = f"{folder}/{x}/{y}.png"
    if os.path.isfile(plain):
        return plain
    with contextlib.suppress(OSError), os.scandir(folder / str(x)) as entries:
        names = [name for entry in entries if (name := _TILE_NAME.fullmatch(entry.name)) and int(name[1]) == y]
        if names:
            return f"{folder}/{x}/{min((*_rank(name[2]), name[0]) for name in names)[2]}"
    return plain


def last_row(zoom: int) -> int:
    """The largest y at a zoom level."""
    return (1 << zoom) - 1


def signed_inode(inode: int) -> int:
    """An inode number as it fits into `int64`: some file systems use the upper half of 64 bits, some even more."""
    inode &= (1 << 64) - 1
    return inode - (1 << 64) if inode >> 63 else inode


def _file_number(path: str) -> int:
    """A number that only the hard links of one file share, on all disks; without inodes, that of the path."""
    status = os.stat(path)
    return signed_inode(int(digest([status.st_dev, status.st_ino] if status.st_ino else path), 16))


def _notes(folders: list[Path], found: list[_Found]) -> list[str]:
    """What is unusual about the names of folders and files."""
    notes = []
    others = {layer: folder.parent.name for layer, folder in zip(LAYERS, folders, strict=True)}
    if renamed := [f"{layer} is read from {name!r}" for layer, name in others.items() if name != layer]:
        notes.append(f"layer folders spelled differently: {', '.join(renamed)}")
    kinds: Counter[str] = Counter()
    for layer in found:
        counts = np.bincount(layer.suffix_of, minlength=len(layer.suffixes)).tolist()
        kinds.update(dict(zip(layer.suffixes, counts, strict=True)))
    if set(kinds) != {".png"}:
        notes.append("files: " + ", ".join(f"{count:,} {suffix}" for suffix, count in sorted(kinds.items()) if count))
    if hidden := sum(layer.hidden for layer in found):
        notes.append(
            f"{hidden:,} files are not used, since their tile has a better one: plain comes before @2x, then "
            f"{', '.join(EXTENSIONS[:3])}"
        )
    return notes


def _nothing_common(root: Path, zoom: int, folders: list[Path], counts: dict[str, int]) -> str:
    """The message for folders that have no coordinates in common: what is there, what was expected."""
    listing = ", ".join(f"{layer} {count:,}" for layer, count in counts.items())
    text = (
        f"no coordinates are common to all {len(LAYERS)} layers under {root} (zoom {zoom}); tiles per layer: {listing}."
    )
    for folder, count in zip(folders, counts.values(), strict=True):
        files = (path for path in folder.rglob("*") if path.is_file())
        if not count and (examples := [str(path.relative_to(folder)) for path in islice(files, 3)]):
            text += f" {folder} holds {', '.join(examples)}; expected <x>/<y>.png (or @2x.png, .webp, .jpg)."
            break
    return f"{text} Every (x, y) needs a tile in every layer; {_DRAW}"


def folder_times(folders: list[Path]) -> np.ndarray:
    """Modification times `(F,) int64` of the folders that hold tiles: a tile that comes or goes changes one."""
    columns = [entry for folder in folders for entry in sorted(os.scandir(folder), key=lambda entry: entry.name)]
    return np.array([entry.stat().st_mtime_ns for entry in columns], dtype=np.int64)


# --- reading one tile --------------------------------------------------------------------------------------


def read_tile(path: Path | str, background: tuple[int, int, int] = (0, 0, 0)) -> np.ndarray:
    """Read one layer of a tile as `(H, W) uint8`: 0 = nothing there, larger = more important.

    Transparent pixels are 0; in opaque images the value is how far the colour is from `background`. Raises
    `ValueError` with the reason for a file that is not a square image of at most `MAX_TILE_PX`, `OSError` for a damaged
    one. Every byte of a PNG is compared with its checksums; JPEG and WebP have none.
    """
    data = Path(path).read_bytes()
    with Image.open(BytesIO(data), formats=_FORMATS) as image:
        if image.width != image.height or image.width > MAX_TILE_PX:
            raise ValueError(f"{image.width} x {image.height} pixels; expected a square of at most {MAX_TILE_PX}")
        if image.format == "PNG":
            _check_chunks(data)
        return _importance(image, background)


def _check_chunks(data: bytes) -> None:
    """Compare each chunk of a PNG with its checksum, to the end: Pillow does not notice all wrong pixels."""
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
            brightness = rgba[..., :3].max(axis=-1)
            if brightness[alpha > 0].max(initial=0) < 16:  # black ink on a transparent ground
                return alpha
            return ((brightness.astype(np.uint16) * alpha + 127) // 255).astype(np.uint8)
        pixels = rgba[..., :3]
    elif image.mode.startswith("I;16"):
        pixels = (np.asarray(image) >> 8).astype(np.uint8)
    else:
        pixels = np.asarray(image if image.mode == "L" else image.convert("L" if image.mode == "1" else "RGB"))
    if pixels.ndim == 2:
        pixels = pixels[..., None] if len(set(background)) == 1 else np.repeat(pixels[..., None], 3, axis=-1)
        background = background[: pixels.shape[-1]]  # type: ignore[assignment]
    if not any(background):
        return pixels.max(axis=-1)
    return np.abs(pixels.astype(np.int16) - np.array(background, dtype=np.int16)).max(axis=-1).astype(np.uint8)


def find_background(scan: TileScan, tiles_root: Path) -> tuple[int, int, int]:
    """The colour that means "nothing": black, unless another colour covers most of a sample of the tiles."""
    if (tiles_root / MANIFEST_NAME).is_file():
        return (0, 0, 0)
    cells = np.linspace(0, scan.source_of.size - 1, 240).astype(int)
    colours: dict[tuple, int] = {}
    for source in scan.source_of.reshape(-1)[np.unique(cells)]:
        try:
            with Image.open(scan.paths[source], formats=_FORMATS) as image:
                pixels = image.convert("RGBA").resize((32, 32), Image.Resampling.NEAREST).getcolors(1024)
        except (OSError, ValueError, SyntaxError):
            continue
        for count, (*rgb, alpha) in pixels or ():  # type: ignore[misc]
            colour = tuple(rgb) if alpha else (0, 0, 0)
            colours[colour] = colours.get(colour, 0) + count
    total, black = sum(colours.values()), colours.get((0, 0, 0), 0)
    colour, count = max(colours.items(), key=lambda item: item[1], default=((0, 0, 0), 0))
    return colour if count > max(black, total // 4) else (0, 0, 0)


def resize_tile(pixels: np.ndarray, size: int, shrink: str) -> np.ndarray:
    """Resize `(H, H) uint8` to `(size, size)`: `mean` averages by area, `max` takes the largest pixel of each cell."""
    edge = len(pixels)
    if edge == size:
        return pixels
    if shrink == "mean" or edge < size:
        return np.asarray(Image.fromarray(pixels).resize((size, size), Image.Resampling.BOX))
    if edge % size == 0:  # five times faster
        return pixels.reshape(size, -1, edge).max(axis=1).reshape(size, size, -1).max(axis=2)
    starts = np.arange(size) * edge // size
    return np.maximum.reduceat(np.maximum.reduceat(pixels, starts, axis=0), starts, axis=1)


class Planes(NamedTuple):
    """Decoded files: `planes[i]` and `digests[i]` are None where `failures` gives a reason."""

    planes: list[np.ndarray | None]
    digests: list[bytes | None]
    failures: list[str]


def read_planes(paths: list[str], size: int, shrink: str, background: tuple[int, int, int]) -> Planes:
    """Decode some files and resize them to `size`."""
    planes: list[np.ndarray | None] = []
    failures = []
    for path in paths:
        try:
            planes.append(resize_tile(read_tile(path, background), size, shrink))
        except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
            planes.append(None)
            empty = os.path.isfile(path) and not os.path.getsize(path)
            failures.append(f"{path}: {'empty file' if empty else error}")
    return Planes(planes, [None if plane is None else plane_digest(plane) for plane in planes], failures)


def plane_digest(plane: np.ndarray) -> bytes:
    """Digest of one plane's pixels, 16 bytes."""
    return bytes.fromhex(digest(plane.tobytes()))


# --- the manifest ------------------------------------------------------------------------------------------


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
        raise UserError(f"{path} is damaged; `python render_tiles.py CITY.osm.pbf --force` writes it again")
    return manifest
