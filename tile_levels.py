"""A tile's planes at coarser resolutions: what an encoder sees of the surroundings of a place.

Not a command. The packed tiles keep them, and `embed.py` makes them while it draws.
"""

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from layers import LAYERS
from tile_files import resize_tile

NEAR_TILES, FAR_TILES = 4, 16  # edges of the two windows of a place's surroundings, in tiles
SURROUND_PX = 64  # edge of both windows, in pixels
LEVELS = (SURROUND_PX // NEAR_TILES, SURROUND_PX // FAR_TILES)  # pixels per tile edge of the coarser levels for them
FINEST = max(LEVELS)
LEVEL_KINDS = 3  # numbers per cell of a coarser level: mean, maximum, outlines
SIZED_LAYERS = tuple(LAYERS.index(name) for name in ("buildings",) if name in LAYERS)  # whose pieces are told by size
PIECE_LIMITS = (100, 400, 1600)  # between the classes of size of pieces, in pixels of a 256 px tile
PIECE_CLASSES = len(PIECE_LIMITS) + 1
# The layer that each channel of a window of surroundings shows; one more channel says where there is data.
SURROUND_LAYERS = LEVEL_KINDS * tuple(range(len(LAYERS))) + PIECE_CLASSES * SIZED_LAYERS
SURROUND_CHANNELS = len(SURROUND_LAYERS) + 1
LEVELS_AT_ONCE = 1 << 18  # pixels; more of them would not stay in the cache


def coarse_levels(planes: Sequence[np.ndarray] | np.ndarray) -> dict[int, np.ndarray]:
    """Planes `(M, S, S) uint8` at every resolution of `LEVELS`, `(M, 3, px, px) uint8`.

    The three numbers of a cell are its mean, its maximum and its outlines. Outlines are the edges between drawn and
    blank pixels inside the tile; 255 stands for one or more per pixel. Beside the mean they tell many small objects
    from one large one.
    """
    levels = {px: np.empty((len(planes), LEVEL_KINDS, px, px), dtype=np.uint8) for px in LEVELS}
    count = max(1, LEVELS_AT_ONCE // planes[0].size) if len(planes) else 1
    for first in range(0, len(planes), count):
        part = slice(first, first + count)
        some = np.ascontiguousarray(planes[part])
        drawn = (some > 0).view(np.uint8)
        down, across = drawn[:, 1:] ^ drawn[:, :-1], drawn[:, :, 1:] ^ drawn[:, :, :-1]
        edges = np.zeros(some.shape, dtype=np.uint8)  # of each drawn pixel
        edges[:, 1:] = down
        edges[:, :-1] += down
        edges[:, :, 1:] += across
        edges[:, :, :-1] += across
        edges *= drawn
        outlines, largest = _cell_sums(edges), np.stack([resize_tile(plane, FINEST, "max") for plane in some])
        for px, mean in _cell_means(some).items():
            if px < FINEST:
                cells = (-1, px, FINEST // px, px, FINEST // px)
                outlines, largest = outlines.reshape(cells).sum(axis=(2, 4)), largest.reshape(cells).max(axis=(2, 4))
            share = outlines * (255 * px**2 / edges[0].size)
            levels[px][part, 0], levels[px][part, 1], levels[px][part, 2] = mean, largest, np.rint(share).clip(max=255)
    return levels


def piece_sizes(planes: Sequence[np.ndarray] | np.ndarray) -> np.ndarray:
    """How much of each cell of the finest level is covered by pieces of each class of size.

    For planes `(M, S, S) uint8`, `(M, 4, 16, 16) uint8`; 255 is all of the cell. A piece is what is drawn in one piece
    inside the tile, and `PIECE_LIMITS` are the limits of the classes. Neighbourhoods of houses, of blocks of flats and
    of halls differ in this where their brightness and density do not.
    """
    found = np.zeros((len(planes), PIECE_CLASSES, FINEST, FINEST), dtype=np.uint8)
    for shares, plane in zip(found, planes, strict=True):
        labels, count = ndimage.label(plane)
        if not count:
            continue
        area = np.bincount(labels.ravel()) * (256 / len(plane)) ** 2
        kind = np.searchsorted(PIECE_LIMITS, area, side="right").astype(np.uint8)
        kind[0] = PIECE_CLASSES  # the ground
        kinds = kind[labels]
        masks = np.stack([kinds == number for number in range(PIECE_CLASSES)]).view(np.uint8)
        shares[:] = np.rint(_cell_sums(masks) * (255 * FINEST**2 / plane.size))
    return found


def coarsened(sizes: np.ndarray, px: int) -> np.ndarray:
    """`sizes (Q, 4, 16, 16) uint8` of `piece_sizes` at `px` cells per edge, `(Q, 4, px, px) uint8`."""
    cells = sizes.reshape(*sizes.shape[:2], px, FINEST // px, px, FINEST // px)
    return np.rint(cells.mean(axis=(3, 5), dtype=np.float32)).astype(np.uint8)


def _cell_sums(values: np.ndarray) -> np.ndarray:
    """Sums `(M, F, F)` of `values (M, S, S) uint8`, each at most 4, over the cells of the finest level."""
    edge = values.shape[1]
    if edge % FINEST:
        starts = np.arange(FINEST) * edge // FINEST
        rows = np.add.reduceat(values, starts, axis=1, dtype=np.uint16)
        return np.add.reduceat(rows, starts, axis=2, dtype=np.int64)
    kind: type = np.uint8 if 4 * edge // FINEST < 256 else np.uint16  # adding up bytes as bytes is ten times faster
    rows = values.reshape(len(values), FINEST, -1, edge).sum(axis=2, dtype=kind)
    return rows.reshape(len(values), FINEST, FINEST, -1).sum(axis=3)


def _cell_means(planes: np.ndarray) -> dict[int, np.ndarray]:
    """Means of `planes (M, S, S)` over the cells of each of `LEVELS`, rounded as Pillow does: first rows, then columns.

    Where a cell is 8, 16, 32, ... pixels wide, eight pixels are added up at a time, in the bytes of one integer.
    """
    count, edge = planes.shape[:2]
    if edge % (8 * FINEST) or (edge // FINEST) & (edge // FINEST - 1):
        return {px: np.stack([resize_tile(plane, px, "mean") for plane in planes]) for px in LEVELS}
    words, every_second = planes.view("<u8"), np.uint64(0x00FF00FF00FF00FF)
    pairs = (words & every_second) + ((words >> np.uint64(8)) & every_second)
    sums = ((pairs * np.uint64(0x0001000100010001)) >> np.uint64(48)).astype(np.uint32)  # (M, S, S / 8)
    means = {}
    for px in LEVELS:
        while sums.shape[2] > px:
            sums = sums[..., ::2] + sums[..., 1::2]
        half, shift = edge // px // 2, (edge // px).bit_length() - 1
        rows = (sums + half) >> shift  # (M, S, px)
        means[px] = (rows.reshape(count, px, -1, px).sum(axis=2) + half) >> shift
    return means
