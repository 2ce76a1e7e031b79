"""The ways to colour the tiles of a city, listed by the page and by the app.

Not a command. To add one, write a function here that takes the `ShownTiles` and returns `Categories`, `Numbers` or
`Colours`, and list it in `COLOURINGS`. Legend, facts about a tile and exports follow.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np

import tile_images
from embeddings import City
from layers import LAYER_COLOURS, LAYERS
from place_words import joint_group_names
from tile_facts import ZONES

NOTHING_DRAWN = "nothing drawn"
CHANNEL_COLOURS = {"red": "#d64545", "green": "#2f9e58", "blue": "#3b6fd4"}  # of the legend of `Colours`


@dataclasses.dataclass(frozen=True)
class ShownTiles:
    """The N tiles that page or app show: their `rows (N,)` of the city's embeddings, and their `cluster (N,)`.

    Tiles of another city may be shown `beside` them: then a colour means the same in both cities.
    """

    city: City
    rows: np.ndarray
    cluster: np.ndarray
    beside: "ShownTiles | None" = None

    @property
    def store_rows(self) -> np.ndarray:
        """Rows of the city's store `(N,)`."""
        return self.city.rows[self.rows]

    @property
    def together(self) -> list["ShownTiles"]:
        """These tiles and those beside them, in the same order for both."""
        return sorted([self, self.beside] if self.beside else [self], key=lambda tiles: tiles.city.embeddings.key)


# --- what a colouring returns ------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Categories:
    """One category for each tile: `values (N,)` index `names`; -1 is none, called `none`."""

    kind: ClassVar = "category"
    values: np.ndarray
    names: Sequence[str]
    colours: Sequence[str]
    none: str = NOTHING_DRAWN
    ordered: bool = False  # whether the legend keeps the order; otherwise the most frequent category is first
    editable: bool = False  # whether the reader may give the categories other names

    def data(self) -> dict[str, Any]:
        """The legend as JSON."""
        categories = [{"name": name, "colour": colour} for name, colour in zip(self.names, self.colours, strict=True)]
        none = {"name": self.none, "colour": tile_images.BLANK_COLOUR}
        return {"categories": categories, "none": none, "ordered": self.ordered, "editable": self.editable}


@dataclasses.dataclass(frozen=True)
class Numbers:
    """One number for each tile: `values (N,)`, NaN where it is not known.

    The colours span `low` to `high` (by default the 1st to the 99th percentile). A number is shown multiplied by
    `scale`, with `digits` after the point and `unit` behind it.
    """

    kind: ClassVar = "number"
    PERCENTILES: ClassVar = (1, 99)  # which the colours span unless `low` and `high` say something else
    values: np.ndarray
    caption: str
    low: float | None = None
    high: float | None = None
    scale: float = 1.0
    digits: int = 2
    unit: str = ""

    def data(self) -> dict[str, Any]:
        """The legend as JSON."""
        known = self.values[np.isfinite(self.values)]
        low, high = np.percentile(known, self.PERCENTILES) if len(known) else (0.0, 1.0)
        limits = [float(found if given is None else given) for given, found in ((self.low, low), (self.high, high))]
        shown = {name: getattr(self, name) for name in ("caption", "scale", "digits", "unit")}
        return {"range": limits, **shown}


@dataclasses.dataclass(frozen=True)
class Colours:
    """A colour for each tile: `values (N, 3) uint8`; `channels` say what red, green and blue mean."""

    kind: ClassVar = "rgb"
    values: np.ndarray
    channels: tuple[str, str, str]

    def data(self) -> dict[str, Any]:
        """The legend as JSON."""
        colours = CHANNEL_COLOURS.values()
        return {"channels": [{"name": n, "colour": c} for n, c in zip(self.channels, colours, strict=True)]}


@dataclasses.dataclass(frozen=True)
class Texts:
    """A text for each tile, "" for none: it is shown, searched and exported, and colours nothing."""

    kind: ClassVar = "text"
    values: Sequence[str]

    def data(self) -> dict[str, Any]:
        """The texts as JSON."""
        return {"values": list(self.values)}


@dataclasses.dataclass(frozen=True)
class Similarity:
    """The cosine similarity to the picked tile, which the browser computes."""

    kind: ClassVar = "similarity"
    values: ClassVar = None

    def data(self) -> dict[str, Any]:
        """The legend as JSON."""
        hint = "Pick a tile to see how similar every other tile is."
        return {"caption": "cosine similarity to the picked tile", "hint": hint}


# --- the colourings ----------------------------------------------------------------------------------------


def dominant_layer(tiles: ShownTiles) -> Categories:
    """The layer that stands out most on each tile."""
    return Categories(tiles.city.embeddings.dominant_layer[tiles.rows], LAYERS, list(LAYER_COLOURS.values()))


def geographic_zone(tiles: ShownTiles) -> Categories:
    """The centre, or one of eight directions from it."""
    values = tiles.city.embeddings.zone[tiles.rows]
    return Categories(values, ZONES, tile_images.zone_palette(len(ZONES)), none="no zone", ordered=True)


def content_density(tiles: ShownTiles) -> Numbers:
    """How much is drawn on each tile."""
    values = tiles.city.embeddings.density[tiles.rows]
    every = np.concatenate([some.city.embeddings.density[some.rows] for some in tiles.together])
    high = max(0.01, float(np.percentile(every, 99)))
    return Numbers(values, "how full the layers are, on average", 0, high, scale=100, digits=0, unit=" %")


def cluster(tiles: ShownTiles) -> Categories:
    """Groups of tiles with similar vectors, named after what is over-represented in them."""
    names = joint_group_names([(some.city.store, some.store_rows, some.cluster) for some in tiles.together])
    return Categories(tiles.cluster, names, tile_images.category_palette(len(names)), editable=True)


def similarity(_: ShownTiles) -> Similarity:
    """How similar each tile is to the picked one."""
    return Similarity()


def principal_components(tiles: ShownTiles) -> Colours:
    """The first three principal components of the vectors as red, green and blue."""
    together = tiles.together
    every = tile_images.principal_colours(
        np.concatenate([some.city.embeddings.vectors[some.rows] for some in together])
    )
    ends = np.cumsum([len(some.rows) for some in together])[:-1]
    values = np.split(every, ends)[[some is tiles for some in together].index(True)]
    red, green, blue = (f"component {i} is {colour}" for i, colour in enumerate(CHANNEL_COLOURS, 1))
    return Colours(values, (red, green, blue))


@dataclasses.dataclass(frozen=True)
class Colouring:
    """An entry of the list "Colour by".

    `key` names it in addresses and facts, `label` in the list, `column` in exports (default: the key).
    """

    key: str
    label: str
    values: Callable[[ShownTiles], Categories | Numbers | Colours | Texts | Similarity]
    column: str = ""


COLOURINGS = (
    Colouring("layer", "Dominant layer", dominant_layer, column="dominant_layer"),
    Colouring("zone", "Geographic zone", geographic_zone),
    Colouring("density", "Content density", content_density),
    Colouring("cluster", "Cluster", cluster),
    Colouring("similarity", "Similarity to the picked tile", similarity),
    Colouring("principal", "First three components (RGB)", principal_components),
)


def labels() -> dict[str, str]:
    """The label of each colouring by its key."""
    return {colouring.key: colouring.label for colouring in COLOURINGS}
