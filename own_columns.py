"""Columns of a user's table, joined with the tiles by position: numbers, categories and texts to colour and filter by.

Not a command; `python interactive_visualizer.py --columns FILE` uses it. The page joins a dropped file the same way.
"""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import tile_images
from cli import UserError
from colourings import COLOURINGS, Categories, Colouring, Numbers, ShownTiles, Texts
from label_tables import KEYS, NO_TARGETS, load_columns, mean_by_tile

MOST_CATEGORIES = 40  # a text column with more different values is text to search in, not categories
MOST_TEXTS = 3  # of one tile that are kept
LONGEST_TEXT = 200  # letters
NONE = "no value"
PLACE_COLUMNS = ("zoom", "x", "y", "lat", "lon", "geometry")  # of what the page exports


def column_colourings(paths: Sequence[Path], tile_xy: np.ndarray, zoom: int) -> list[Colouring]:
    """One colouring for each usable column of some tables or vector files, aligned with the tiles `tile_xy (N, 2)`.

    Rows are joined by `x, y` of a tile, by `lat, lon`, or by their geometry. Several rows on one tile: numbers are
    averaged, the most frequent category counts, texts are listed. A column whose name is taken gets the name of its
    file, too. Raises `UserError` for a file of which nothing lies on the tiles, or that has no usable column.
    """
    found: dict[str, Colouring] = {}
    taken = {name for colouring in COLOURINGS for name in (colouring.key, colouring.column)} | {*PLACE_COLUMNS}
    for path in paths:
        columns, rows = load_columns(path, tile_xy, zoom)
        usable = {name: _values(column, rows, len(tile_xy)) for name, column in columns.items()}
        for name, values in usable.items():
            if values is not None:
                key = f"{name} ({path.stem})" if name in taken or name in found else name
                found[key] = Colouring(key, key, _always(values), column=key)
        if not any(usable.values()):
            raise UserError(f"{path} has no column of numbers or text besides the position")
    return list(found.values())


def _always(values: Categories | Numbers | Texts) -> Callable[[ShownTiles], Categories | Numbers | Texts]:
    return lambda _: values


def _values(column: np.ndarray, rows: np.ndarray, count: int) -> Categories | Numbers | Texts | None:
    """What one column says of each of `count` tiles; None for a column of lists or without a value."""
    if column.ndim != 1:
        return None
    if column.dtype != object:
        values = mean_by_tile(column, rows, count)
        if np.isnan(values).all():
            return None
        several = np.bincount(rows[np.isfinite(column)]).max() > 1
        caption = "mean of the rows on a tile" if several else ""
        if np.issubdtype(column.dtype, np.integer):
            return Numbers(values, caption, digits=0)
        largest = np.abs(np.nanpercentile(values, Numbers.PERCENTILES)).max()
        return Numbers(values, caption, digits=_digits(float(largest)))
    by_tile: list[Counter[str]] = [Counter() for _ in range(count)]
    total: Counter[str] = Counter()
    for row, cell in zip(rows.tolist(), column, strict=True):
        if cell is not None and (text := str(cell).strip()[:LONGEST_TEXT]):
            by_tile[row][text] += 1
            total[text] += 1
    if not total:
        return None
    if len(total) > MOST_CATEGORIES:
        return Texts(["; ".join(text for text, _ in _by_frequency(own)[:MOST_TEXTS]) for own in by_tile])
    names = [name for name, _ in _by_frequency(total)]
    number = {name: i for i, name in enumerate(names)}
    values = np.array([number[_by_frequency(own)[0][0]] if own else -1 for own in by_tile])
    return Categories(values, names, tile_images.category_palette(len(names)), none=NONE)


def _digits(largest: float) -> int:
    """Digits after the point that show three figures of `largest`; at least two."""
    return min(12, max(2, 2 - math.floor(math.log10(largest)))) if largest > 0 else 2


def _by_frequency(counts: Counter[str]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))


def rules() -> dict[str, Any]:
    """What the page needs to join a dropped file in the same way."""
    return {
        "keys": KEYS,
        "not_columns": NO_TARGETS,
        "place_columns": PLACE_COLUMNS,
        "most_categories": MOST_CATEGORIES,
        "most_texts": MOST_TEXTS,
        "longest_text": LONGEST_TEXT,
        "percentiles": Numbers.PERCENTILES,
        "palette": tile_images.category_palette(MOST_CATEGORIES),
        "none": {"name": NONE, "colour": tile_images.BLANK_COLOUR},
    }
