"""Sizes and shapes on a plane of a tile: how much is left, in how many pieces, after erosions of growing radius.

Not a command. The multiscale encoder measures every layer of a tile with it. It is a granulometry (Matheron 1975) whose
openings are replaced by erosions; pieces are counted through the Euler number, which needs 2 x 2 pixels at a time.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

RADII = (0, 1, 2, 4, 8)  # of the erosions, in pixels; none is larger than three times the one before, plus one
WORD = 64  # pixels in a machine word


def shape_counts(planes: Tensor) -> Tensor:
    """What is left of `planes (M, S, S) uint8` after each erosion, `(M, 5, 3) float32`: area, perimeter, Euler number.

    A pixel counts as drawn if it is not 0. The area is in pixels and the perimeter in edges of pixels. The Euler number
    is that of pieces that touch along edges: the number of pieces minus the number of holes. The square of an erosion
    of radius r has an edge of 2 r + 1 pixels; beyond the border of the plane, everything counts as drawn.
    """
    if planes.device.type == "cpu" and planes.shape[-1] % WORD == 0 and not torch.compiler.is_compiling():
        counts = torch.from_numpy(_packed_counts(planes.numpy()))
    else:
        counts = _pixel_counts(planes)
    pixels, across, down, squares = counts.unbind(dim=2)
    perimeter = 4 * pixels - 2 * across - 2 * down
    return torch.stack([pixels, perimeter, pixels - across - down + squares], dim=2)


def _packed_counts(planes: np.ndarray) -> np.ndarray:
    """Pixels, pairs of neighbours in a row and in a column, and squares of four, `(M, 5, 4) float32`.

    64 pixels of a row are one word, so that an erosion handles 64 of them at a time. It is about ten times faster than
    minimum filters on the pixels.
    """
    bits = np.packbits(planes != 0, axis=2, bitorder="little").view("<u8").astype(np.uint64, copy=False)
    counts = np.empty((len(planes), len(RADII), 4), dtype=np.float32)
    for i, (before, radius) in enumerate(zip((0, *RADII), RADII, strict=False)):
        if radius:
            bits = _eroded(bits, radius - before)
        across = bits & _moved(bits, 1, 0)
        parts = (bits, across, bits[:, :-1] & bits[:, 1:], across[:, :-1] & across[:, 1:])
        counts[:, i] = np.stack([np.bitwise_count(part).sum(axis=(1, 2), dtype=np.int64) for part in parts], axis=1)
    return counts


def _eroded(bits: np.ndarray, step: int) -> np.ndarray:
    """What an erosion of radius r leaves to what one of radius r + step leaves, where step <= 2 r + 1.

    Three squares of radius r, moved by `step`, then cover the whole edge of the larger one.
    """
    rows = bits & _moved(bits, step, 1) & _moved(bits, -step, 1)
    left = rows.copy()
    left[:, :-step] &= rows[:, step:]
    left[:, step:] &= rows[:, :-step]
    return left


def _moved(bits: np.ndarray, step: int, outside: int) -> np.ndarray:
    """Every pixel gets the value of the pixel `step` columns to its right; `outside` is 1 if those beyond are drawn."""
    fill, near, far = np.uint64(outside * (2**WORD - 1)), np.uint64(abs(step)), np.uint64(WORD - abs(step))
    if step > 0:
        moved = bits >> near
        moved[..., :-1] |= bits[..., 1:] << far
        moved[..., -1] |= fill << far
    else:
        moved = bits << near
        moved[..., 1:] |= bits[..., :-1] >> far
        moved[..., 0] |= fill >> far
    return moved


def _pixel_counts(planes: Tensor) -> Tensor:
    """The same as `_packed_counts`, on any device and for planes of any size."""
    drawn = (planes != 0).float()[:, None]
    counts = []
    for before, radius in zip((0, *RADII), RADII, strict=False):
        if radius:
            step = radius - before
            drawn = 1 - F.max_pool2d(1 - drawn, 2 * step + 1, stride=1, padding=step)
        across = drawn[..., 1:] * drawn[..., :-1]
        parts = (drawn, across, drawn[..., 1:, :] * drawn[..., :-1, :], across[..., 1:, :] * across[..., :-1, :])
        counts.append(torch.stack([part.sum(dim=(1, 2, 3)) for part in parts], dim=1))
    return torch.stack(counts, dim=1)
