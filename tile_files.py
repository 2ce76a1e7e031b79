"""Tile folders: find the PNG files of all layers and read one of them.

Not a command.
"""

import dataclasses
import json
import os
import zlib
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from cli import UserError
from files import digest
from layers import COORDINATE, LAYERS, MANIFEST_NAME, MAX_TILE_PX
from tile_grid import DEFAULT_ZOOM

UNREADABLE_LIMIT = 0.02  # share of tiles that may be unreadable before packing gives up


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
    check_layout(root, zoom)
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


def check_layout(root: Path, zoom: int) -> None:
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


def folder_times(root: Path, zoom: int) -> np.ndarray:
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


def find_background(scan: TileScan, tiles_root: Path) -> tuple[int, int, int]:
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


def read_planes(paths: list[str], size: int, shrink: str, background: tuple[int, int, int]) -> "Planes":
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
    return Planes(planes, [None if plane is None else plane_digest(plane) for plane in planes], failures)


class Planes(NamedTuple):
    planes: list[np.ndarray | None]
    digests: list[bytes | None]
    failures: list[str]


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


def plane_digest(plane: np.ndarray) -> bytes:
    return bytes.fromhex(digest(plane.tobytes()))
