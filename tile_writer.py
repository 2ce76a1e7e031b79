"""Write PNG tiles that are whole or absent, blank ones as links to one file.

Not a command. The PNG encoder is our own because it is faster: on flat masks four times as fast as Pillow at its
fastest, and the files are smaller (`python bench.py render` measures it).
"""

import contextlib
import errno
import os
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from zlib_ng import zlib_ng

from layers import COORDINATE, LAYERS
from tile_area import TileArea
from tile_files import signed_inode

BLANK_NAME = "blank-{}.png"
LINK_TRIES = 8
PARTIAL = ".partial"  # folder for unfinished files; nothing in it is needed after a run


def encode_png(plane: np.ndarray) -> bytes:
    """Encode an 8-bit grey image without row filters, compressed by run lengths only."""
    height, width = plane.shape
    rows = np.zeros((height, width + 1), dtype=np.uint8)  # the first byte of a row is its filter: none
    rows[:, 1:] = plane
    deflate = zlib_ng.compressobj(1, zlib_ng.DEFLATED, 15, 9, zlib_ng.Z_RLE)
    data = deflate.compress(rows.data) + deflate.flush()
    header = struct.pack(">2I5B", width, height, 8, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", data), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib_ng.crc32(name + body))
        for name, body in chunks
    )


def single_brightness(plane: np.ndarray) -> int | None:
    """The brightness of all pixels, or None if they differ."""
    first = int(plane[0, 0])
    return first if plane[-1, -1] == first and bool((plane == first).all()) else None


class TileWriter:
    """Writes PNGs that are whole or absent.

    Where the file system allows, blank ones are hard links to one file, and planes of one brightness, which are the
    ones that recur, are links to the first one that this process wrote. Creating a file takes longer than drawing.
    """

    def __init__(self, root: Path, zoom: int, tile_px: int):
        self.folders = [str(root / layer / str(zoom)) for layer in LAYERS]
        self.blank = str(root / BLANK_NAME.format(tile_px))
        self.blank_png = encode_png(np.zeros((tile_px, tile_px), dtype=np.uint8))
        self.partial = str(root / PARTIAL / f"{os.getpid()}.png")
        self.solid: dict[int, tuple[bytes, str]] = {}  # by brightness: PNG, and the latest file that is not a link
        self.made: set[int] = set()  # columns whose folders exist
        self.links = True

    def make_folders(self, x: int) -> None:
        """Make the folders of a column of tiles."""
        if x not in self.made:
            for folder in self.folders:
                os.makedirs(f"{folder}/{x}", exist_ok=True)
            self.made.add(x)

    def write_plane(self, path: str, plane: np.ndarray) -> None:
        """Make `path` a tile that shows `plane`: a link to an earlier one of the same single brightness, or a file."""
        gray = single_brightness(plane)
        if gray is None:
            return self.write(path, encode_png(plane))
        data, first = self.solid.get(gray) or (encode_png(plane), "")
        if first and self.links:
            try:
                return self._link(first, path)
            except OSError as error:  # it has as many links as a file can have, or somebody removed it
                if error.errno in (errno.ENOSPC, errno.EDQUOT):
                    raise
        self.write(path, data)
        self.solid[gray] = data, path

    def write(self, path: str, data: bytes) -> None:
        """Give `data` the name `path` once all of it is in the file."""
        try:
            with open(self.partial, "wb", buffering=0) as file:
                if file.write(data) != len(data):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
            os.replace(self.partial, path)
        except OSError:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.partial)
            raise

    def write_blank(self, path: str) -> None:
        """Make `path` a blank tile."""
        for _ in range(LINK_TRIES if self.links else 0):
            try:
                return self._link(self.blank, path)
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.EDQUOT):
                    raise
                if error.errno not in (errno.EMLINK, errno.ENOENT):
                    self.links = False
                    break
            # There is no blank file yet, or it has as many links as a file can have. Another process may replace the
            # new one at once, so this may need several tries.
            self.write(self.blank, self.blank_png)
        self.write(path, self.blank_png)

    @staticmethod
    def _link(source: str, path: str) -> None:
        try:
            os.link(source, path)
        except FileExistsError:
            os.unlink(path)
            os.link(source, path)


# --- what is there already ---------------------------------------------------------------------------------


def missing_tiles(root: Path, area: TileArea, force: bool) -> np.ndarray:
    """Which PNGs are yet to be drawn: `(N, 12) bool`."""
    missing = np.ones((len(area.tile_xy), len(LAYERS)), dtype=bool)
    for layer, x, folder in _folders(root, area) if not force else ():
        missing[_listed(folder, x, area)[0], layer] = False
    return missing


def inked_tiles(root: Path, area: TileArea, tile_px: int) -> np.ndarray:
    """Which PNGs show something: `(N, 12) bool`; the links to a blank file are known by their inode."""
    inked = np.zeros((len(area.tile_xy), len(LAYERS)), dtype=bool)
    blank = encode_png(np.zeros((tile_px, tile_px), dtype=np.uint8))
    known: dict[tuple[int, int], bool] = {}  # by layer, as each may be on a disk of its own, and inode
    for layer, x, folder in _folders(root, area):
        for number, inode in zip(*(column.tolist() for column in _listed(folder, x, area)), strict=True):
            if (layer, inode) not in known:
                path = folder / f"{area.tile_xy[number, 1]}.png"
                status = path.stat()
                inked[number, layer] = status.st_size != len(blank) or path.read_bytes() != blank
                if inode and signed_inode(status.st_ino) == inode:  # some FUSE file systems list made-up ones
                    known[layer, inode] = bool(inked[number, layer])
            else:
                inked[number, layer] = known[layer, inode]
    return inked


def _folders(root: Path, area: TileArea) -> Iterator[tuple[int, int, Path]]:
    """Layer, column and folder of every `<layer>/<zoom>/<x>`."""
    columns = np.unique(area.tile_xy[:, 0]).tolist()
    for layer, name in enumerate(LAYERS):
        for x in columns:
            yield layer, x, root / name / str(area.zoom) / str(x)


def _listed(folder: Path, x: int, area: TileArea) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the tiles in a folder, and the inode of each; none if there is no such folder."""
    pngs: list[tuple[str, int]] = []
    with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:
        pngs = [(e.name[:-4], signed_inode(e.inode())) for e in entries if e.name.endswith(".png")]
    found = [(int(name), inode) for name, inode in pngs if COORDINATE.fullmatch(name)]
    y = np.array([row for row, _ in found], dtype=np.int64)
    inode = np.array([number for _, number in found], dtype=np.int64)
    number = area.number(area.unwrapped_x(np.full(len(y), x)), y)
    return number[number >= 0], inode[number >= 0]
