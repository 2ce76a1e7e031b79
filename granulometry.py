"""Sizes and shapes on a plane of a tile: how much is left, in how many pieces, after erosions of growing radius.

Not a command. The multiscale encoder measures every layer of a tile with it. It is a granulometry (Matheron 1975) whose
openings are replaced by erosions; pieces are counted through the Euler number, which needs 2 x 2 pixels at a time.

64 pixels of a row are one integer, so that an operation handles 64 of them at a time. The integers are in a NumPy array
on a CPU, where small arrays cost least, and in a tensor on other devices; the operations are the same.
"""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

RADII = (0, 1, 2, 4, 8)  # of the erosions, in pixels; none is larger than three times the one before, plus one
WORD = 64  # pixels in an integer


def shape_counts(planes: Tensor) -> Tensor:
    """What is left of `planes (M, S, S) uint8` after each erosion, `(M, 5, 3) float32`: area, perimeter, Euler number.

    A pixel counts as drawn if it is not 0. The area is in pixels and the perimeter in edges of pixels. The Euler number
    is that of pieces that touch along edges: the number of pieces minus the number of holes. The square of an erosion
    of radius r has an edge of 2 r + 1 pixels; beyond the border of the plane, everything counts as drawn.
    """
    edge = planes.shape[-1]
    drawn = (planes != 0).view(torch.uint8)
    if edge % WORD:  # pixels that count as drawn fill up the last word of a row
        drawn = F.pad(drawn, (0, -edge % WORD), value=1)
    bits = _bits(drawn)  # (words, M, S)
    within = _bits((torch.arange(drawn.shape[-1], device=planes.device) < edge).view(torch.uint8)[None, None])
    counts = []
    for before, radius in zip((0, *RADII), RADII, strict=False):
        if radius:
            bits = _eroded(bits, radius - before)
        inside = bits & within
        across = inside & _moved(inside, 1, 0)  # pairs of neighbours in a row
        parts = (inside, across, inside[..., :-1] & inside[..., 1:], across[..., :-1] & across[..., 1:])
        counts.append(torch.stack([_count(part) for part in parts], dim=1))
    pixels, across, down, squares = torch.stack(counts, dim=1).float().unbind(dim=2)
    perimeter = 4 * pixels - 2 * across - 2 * down
    return torch.stack([pixels, perimeter, pixels - across - down + squares], dim=2)


def _bits(pixels: Tensor) -> Any:
    """Every 64 of `pixels (M, S, n) uint8`, each 0 or 1, as the bits of one integer: `(n / 64, M, S) int64`."""
    if pixels.device.type == "cpu" and not torch.compiler.is_compiling():
        words = np.packbits(pixels.numpy(), axis=2, bitorder="little").view("<i8")
        return np.ascontiguousarray(words.transpose(2, 0, 1), dtype=np.int64)
    eights = pixels.contiguous().view(torch.int64)
    for step, kept in ((7, 0x0003000300030003), (14, 0x0000000F0000000F), (28, 0xFF)):
        eights = (eights | eights >> step) & kept
    return eights.to(torch.uint8).view(torch.int64).permute(2, 0, 1).contiguous()


def _count(bits: Any) -> Tensor:
    """How many bits of `bits (words, M, rows) int64` are set in each plane, `(M,)`."""
    if isinstance(bits, np.ndarray):
        counts = np.bitwise_count(bits.view(np.uint64))  # of a negative number it would count those of the opposite
        return torch.from_numpy(counts.sum(axis=(0, 2), dtype=np.int64))
    pairs = bits - (bits >> 1 & 0x5555555555555555)
    fours = (pairs & 0x3333333333333333) + (pairs >> 2 & 0x3333333333333333)
    eights = (fours + (fours >> 4)) & 0x0F0F0F0F0F0F0F0F
    return eights.view(torch.uint8).sum(dim=(0, 2))


def _eroded(bits: Any, step: int) -> Any:
    """What an erosion of radius r leaves to what one of radius r + step leaves, where step <= 2 r + 1.

    Three squares of radius r, moved by `step`, then cover the whole edge of the larger one.
    """
    rows = bits & _moved(bits, step, 1) & _moved(bits, -step, 1)
    left = rows | 0  # a copy
    left[..., :-step] &= rows[..., step:]
    left[..., step:] &= rows[..., :-step]
    return left


def _moved(bits: Any, step: int, outside: int) -> Any:
    """Every pixel gets the value of the pixel `step` columns to its right; `outside` is 1 if those beyond are drawn."""
    near, far = abs(step), WORD - abs(step)
    if step > 0:
        moved = bits >> near & ~(-1 << far)
        moved[:-1] |= bits[1:] << far
        moved[-1] |= -outside << far
    else:
        moved = bits << near
        moved[1:] |= bits[:-1] >> far & ~(-1 << near)
        moved[0] |= outside * ~(-1 << near)
    return moved
