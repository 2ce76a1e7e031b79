"""Words for places: what a tile shows, and names for groups of tiles, such as "detached houses" or "park edge".

Not a command; page and app name clusters and tiles with it. Every class of `map_style.toml` has its own brightness,
so the pixels of a tile say which classes it shows and how much of each. Tiles of other styles are named by layer.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import combinations

import numpy as np

from layers import LAYERS
from map_style import load_style
from tile_files import read_manifest
from tile_grid import hilbert_order
from tile_store import TileStore

SAMPLE = 96  # tiles of each group that are looked at
GRAY_TOLERANCE = 2  # smooth edges and shrinking change the brightness of a few pixels
EDGE_LEVELS = 16  # on either side of a class's brightness show how much of it is smooth edges
MIN_RECOGNISED = 0.4  # of the drawn pixels must have the brightness of a class
SMOOTHING = 0.03  # added to both shares of a ratio, so that what is rare everywhere names nothing
SECOND_SHARE = 0.45  # of the first feature's score makes a second one worth a mention
MIN_SCORE = 0.02  # below this nothing is over-represented
FULL_PERCENTILE = 90  # of the tiles that show a feature at all; such a tile counts as full of it
INSIDE_SHARE = 0.3  # of a tile's surface: from here on it lies inside an area, below at its edge
LONGEST = 34  # letters
VOCABULARY_SAMPLE = 500  # tiles of a city tell what is usual in it
TILE_WORDS = 5  # of one tile at most
MIN_FULLNESS = 0.12  # a tile with less of a feature is not described by it
NO_WORD = 255
SAME_SHOWN = 2  # words that two tiles share
MIXED = "mixed area"  # nothing is over-represented
MIN_CLASS_SHARE = 1e-3  # of a tile's pixels; fewer may be the smooth edges of something brighter
EMPTY_SHARE = 0.93  # of a tile's surface without anything drawn on it makes it open ground


@dataclasses.dataclass(frozen=True)
class Feature:
    """Something that a group can be named after: its `text`, the `classes` ("layer:class") that show it.

    `weight` says how well it describes a place: shops do, fences do not. An area has another text where a tile shows
    a part of it only: `edge`.
    """

    text: str
    classes: tuple[str, ...]
    weight: float = 1.0
    edge: str = ""


def _feature(text: str, *classes: str, weight: float = 1.0, edge: str = "") -> Feature:
    return Feature(text, classes, weight, edge)


FEATURES = (
    # where people live and work
    _feature("detached houses", "buildings:house", weight=1.3),
    _feature("apartment blocks", "buildings:apartments", weight=1.3),
    _feature("buildings", "buildings:building", weight=0.4),
    _feature("sheds and garages", "buildings:minor", "landcover:garages", weight=0.5),
    _feature("residential area", "landcover:residential", weight=0.6),
    _feature("shops and cafés", "landcover:retail", "amenities:shop", "amenities:food", "amenities:finance"),
    _feature("offices", "landcover:commercial", "buildings:commercial"),
    _feature("industry", "landcover:industrial", "buildings:industrial", weight=1.2),
    _feature("public buildings", "landcover:civic", "buildings:civic", weight=0.9),
    _feature("building sites", "landcover:construction", "roads:construction", weight=0.6),
    _feature("allotments", "landcover:allotments"),
    _feature("cemetery", "landcover:cemetery"),
    # what they go to
    _feature("schools", "amenities:education", weight=0.9),
    _feature("clinics", "amenities:health", weight=0.8),
    _feature("culture", "amenities:culture", weight=0.8),
    _feature("hotels", "amenities:lodging", weight=0.8),
    _feature("services", "amenities:service", weight=0.4),
    _feature("bus stops", "amenities:transport", weight=0.5),
    _feature("car parks", "amenities:parking", weight=0.8),
    _feature("street furniture", "amenities:street", weight=0.2),
    _feature("playgrounds", "leisure:playground", weight=0.7),
    _feature("sports grounds", "leisure:pitch", "leisure:stadium", weight=0.8),
    _feature("pools", "leisure:swimming_pool", weight=0.6),
    _feature("gardens", "leisure:garden", weight=0.6),
    _feature("golf course", "leisure:golf_course"),
    _feature("marina", "leisure:marina"),
    # green and water
    _feature("park", "leisure:park", edge="park edge"),
    _feature("nature reserve", "leisure:nature_reserve", "boundaries:protected", weight=0.6),
    _feature("fields", "landcover:farmland", edge="edge of fields"),
    _feature("forest", "landcover:forest", "natural-features:wood", edge="forest edge"),
    _feature("grassland", "landcover:grass", "natural-features:grassland", weight=0.7, edge="patches of grass"),
    _feature("scrub", "natural-features:scrub", weight=0.8),
    _feature("wetland", "natural-features:wetland", edge="wetland edge"),
    _feature("beach", "natural-features:beach"),
    _feature("cliffs", "natural-features:cliff", weight=0.7),
    _feature("trees", "natural-features:tree", "natural-features:tree_row", weight=0.7),
    _feature("water", "water:water", "water:coastline", edge="waterside"),
    _feature("river", "water:river", edge="riverside"),
    _feature("streams", "water:stream", weight=0.8),
    _feature("ditches", "water:ditch", weight=0.7),
    _feature("dams and piers", "water:structure", weight=0.6),
    # how they move
    _feature("motorway", "roads:motorway", "roads:trunk", weight=1.1),
    _feature("main roads", "roads:primary", "roads:secondary", weight=0.7),
    _feature("through streets", "roads:tertiary", weight=0.5),
    _feature("residential streets", "roads:residential", "roads:street", weight=0.5),
    _feature("service roads", "roads:service", weight=0.35),
    _feature("squares", "places:square", weight=0.6),
    _feature("footpaths", "roads:pedestrian", "roads:cycleway", "roads:path", weight=0.5),
    _feature("tracks", "roads:track", weight=0.7),
    _feature("railway", "railways:rail", "railways:platform", "railways:equipment", weight=1.1),
    _feature("old railway", "railways:disused", weight=0.7),
    _feature("stations", "railways:station", "railways:stop", weight=0.8),
    _feature("metro", "railways:subway", weight=0.7),
    _feature("tram", "railways:tram", weight=0.9),
    _feature("airfield", *(f"aeroways:{name}" for name in (
        "runway", "terminal", "taxiway", "hangar", "gate", "apron", "aerodrome")), weight=1.2),
    # the rest
    _feature("power plant", "power:plant", "power:generator", weight=0.8),
    _feature("power lines", "power:line", "power:tower", "power:minor_line", "power:pole", weight=0.7),
    _feature("substations", "power:substation", weight=0.6),
    _feature("village", "places:village", "places:locality", weight=0.5),
    _feature("district border", "boundaries:district", "boundaries:city", "boundaries:state", weight=0.3),
    _feature("fences and walls", "boundaries:wall", "boundaries:fence", "boundaries:gate", weight=0.25),
    _feature("hedges", "boundaries:hedge", weight=0.4),
)  # fmt: skip
OPEN_GROUND = _feature("open ground", weight=0.8)  # almost nothing is drawn
UNNAMED = 0.3  # weight of a class that no feature lists: it gives its own name


# --- names -------------------------------------------------------------------------------------------------


def joint_group_names(parts: Sequence[tuple[TileStore, np.ndarray, np.ndarray]]) -> list[str]:
    """A short, distinct name for each group of tiles; groups may go across cities.

    Each part is a store, its rows `(n,)` and the group of each, `(n,)`, numbered from 0. A name says one or two
    features that are more common in the group than in all groups together. Equal tiles and groups give equal names. At
    most `SAMPLE` tiles of each group are looked at, evenly spread over the map.
    """
    group = np.concatenate([numbers for _, _, numbers in parts])
    count = int(group.max(initial=-1)) + 1
    if not count:
        return []
    samples = [
        [_spread(store, rows[numbers == number], SAMPLE) for number in range(count)] for store, rows, numbers in parts
    ]
    looked_at = [(store, np.concatenate(some)) for (store, _, _), some in zip(parts, samples, strict=True)]
    by_class = all(shows_classes(store, rows) for store, rows in looked_at)
    found = [feature_amounts(store, rows, by_class) for store, rows in looked_at]
    features, amount = found[0][0], np.concatenate([amounts for _, amounts in found])
    owner = np.concatenate([np.repeat(np.arange(count), [len(rows) for rows in some]) for some in samples])
    fullness = np.minimum(amount / _full(amount), 1)
    here = np.stack([fullness[owner == number].mean(axis=0) for number in range(count)])  # (groups, features)
    share = np.stack([amount[owner == number].mean(axis=0) for number in range(count)])
    size = np.bincount(group, minlength=count)
    usual = size @ here / size.sum()
    weight = np.array([feature.weight for feature in features])
    score = weight * here * np.log((here + SMOOTHING) / (usual + SMOOTHING))
    return _distinct([_candidates(features, score[number], share[number]) for number in range(count)])


def _spread(store: TileStore, rows: np.ndarray, count: int) -> np.ndarray:
    """At most `count` of the rows, at even steps of a curve over the map."""
    if not len(rows):
        return rows
    along = rows[np.argsort(hilbert_order(store.unwrapped_xy[rows]), kind="stable")]
    return along[np.unique(np.linspace(0, len(along) - 1, min(count, len(along))).astype(np.int64))]


def _full(amount: np.ndarray) -> np.ndarray:
    """The amount of each feature from which on a tile counts as full of it, `(F,)`."""
    full = [np.percentile(some[some > 0], FULL_PERCENTILE) if some.any() else 1.0 for some in amount.T]
    return np.maximum(full, 1e-9)


def _candidates(features: Sequence[Feature], score: np.ndarray, share: np.ndarray) -> Iterator[str]:
    """Names of a group, the best first, by the `score (F,)` of each feature and its mean `share (F,)` of a tile."""
    best = [i for i in np.argsort(-score, kind="stable").tolist() if score[i] >= MIN_SCORE]
    texts = [features[i].edge if features[i].edge and share[i] < INSIDE_SHARE else features[i].text for i in best]
    if not best:
        return
    if len(best) == 1 or score[best[1]] < SECOND_SHARE * score[best[0]]:
        yield texts[0]
    for first, second in combinations(range(min(len(best), 6)), 2):
        pair = (texts[first], texts[second])
        if len(name := (", " if any(" and " in text for text in pair) else " and ").join(pair)) <= LONGEST:
            yield name
    yield texts[0]
    for three in combinations(texts[:6], 3):
        yield ", ".join(three)


def _distinct(candidates: list[Iterator[str]]) -> list[str]:
    """The first name of each group that none before it has."""
    names: list[str] = []
    for options in candidates:
        name = next((option for option in options if option not in names), "")
        if not name:
            name = f"{MIXED} {sum(known.startswith(MIXED) for known in names) + 1}"
        names.append(name)
    return names


# --- words for single tiles ----------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """What the tiles of a city can be described by: F features, and how much of each is usual in that city.

    `by_class` says that the pixels have the brightness of the style's classes. From an amount of `full (F,)` on, a tile
    counts as full of a feature; `usual (F,)` is the mean fullness, 0 to 1, over the city's tiles with content.
    """

    features: tuple[Feature, ...]
    by_class: bool
    full: np.ndarray
    usual: np.ndarray

    @classmethod
    def of(cls, store: TileStore) -> "Vocabulary":
        """The vocabulary of a city, from `VOCABULARY_SAMPLE` of its tiles at most."""
        rows = _spread(store, np.flatnonzero(~store.blank), VOCABULARY_SAMPLE)
        by_class = shows_classes(store, rows)
        features, amount = feature_amounts(store, rows, by_class)
        full = _full(amount)
        return cls(features, by_class, full, np.minimum(amount / full, 1).mean(axis=0) if len(rows) else full)

    @property
    def texts(self) -> list[str]:
        """The text of each feature."""
        return [feature.text for feature in self.features]

    def words(self, store: TileStore, rows: np.ndarray) -> np.ndarray:
        """What stands out on each of the store's `rows (n,)`, the most telling first: what fills it and is rare.

        `(n, TILE_WORDS) uint8`, indices into `texts`; `NO_WORD` fills the rows of tiles with fewer.
        """
        fullness = np.minimum(feature_amounts(store, rows, self.by_class)[1] / self.full, 1)
        telling = np.array([feature.weight for feature in self.features]) * -np.log(self.usual + SMOOTHING)
        score = np.where(fullness >= MIN_FULLNESS, fullness * np.maximum(telling, 0.01), 0)
        best = np.argsort(-score, axis=1, kind="stable")[:, :TILE_WORDS]
        return np.where(np.take_along_axis(score, best, axis=1) > 0, best, NO_WORD).astype(np.uint8)

    def describe(self, store: TileStore, rows: np.ndarray) -> list[list[str]]:
        """The words of each of the store's `rows (n,)` as text."""
        found = self.words(store, rows).tolist()
        return [[self.texts[word] for word in words if word != NO_WORD] for words in found]


def shared_words(own: list[str], other: list[str]) -> str:
    """What two tiles have in common, and what only the other one has, by the words of each."""
    same = [word for word in own if word in other][:SAME_SHOWN]
    added = [word for word in other if word not in own][:1]
    parts = [f"both {', '.join(same)}" if same else "", f"only there {added[0]}" if added else ""]
    return "; ".join(filter(None, parts))


# --- what the pixels show ----------------------------------------------------------------------------------


def shows_classes(store: TileStore, rows: np.ndarray) -> bool:
    """Whether the pixels of the store's `rows` have the brightness of the classes of the style."""
    if store.tile_size == 1:  # one mean brightness for each layer of a tile
        return False
    digest = load_style().digest
    same_style = read_manifest(store.tiles_root).get("style_digest", digest) == digest
    return same_style and class_shares(store, rows)[2] >= MIN_RECOGNISED


def feature_amounts(store: TileStore, rows: np.ndarray, by_class: bool) -> tuple[tuple[Feature, ...], np.ndarray]:
    """The features that the store's `rows (n,)` can show, and the share of each tile's surface that shows each.

    The shares are `(n, F) float64`. They come from the classes of the style, or else from the mean brightness of the
    layers.
    """
    if not by_class:
        layers = tuple(Feature(name.replace("-", " "), (name,)) for name in LAYERS)
        return layers, store.layer_intensity[rows].astype(np.float64)
    features, columns = style_features()
    shares, empty, _ = class_shares(store, rows)
    shown = [shares[:, list(some)].sum(axis=1) for some in columns]
    return (*features, OPEN_GROUND), np.stack([*shown, empty >= EMPTY_SHARE], axis=1)


@cache
def style_features() -> tuple[tuple[Feature, ...], tuple[tuple[int, ...], ...]]:
    """Every feature of the style table, and the classes of each as indices into `Style.classes`.

    A class that no entry of `FEATURES` lists is a feature of its own, so a new class of a style needs no change here.
    """
    names = [f"{LAYERS[row.layer]}:{row.name}" for row in load_style().classes]
    listed = {name for feature in FEATURES for name in feature.classes}
    others = [
        _feature(name.split(":")[1].replace("_", " "), name, weight=UNNAMED) for name in names if name not in listed
    ]
    features = tuple(feature for feature in (*FEATURES, *others) if set(feature.classes) & set(names))
    return features, tuple(tuple(names.index(name) for name in one.classes if name in names) for one in features)


def class_shares(store: TileStore, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Share of each tile's pixels that have the brightness of each class of the style, `(n, C)`.

    Smooth edges have every brightness up to that of what they surround: what is found around a class's own brightness
    is subtracted. The other values are the share of each tile on which nothing is drawn, `(n,)`, and the share of all
    drawn pixels that have the brightness of some class.
    """
    classes = load_style().classes
    counts = np.zeros((len(rows), len(LAYERS), 256), dtype=np.int64)
    empty = np.ones(len(rows))
    for i, row in enumerate(rows.tolist()):
        drawn = np.zeros((store.tile_size, store.tile_size), dtype=bool)
        for layer, plane in store.drawn_layers(row):
            counts[i, layer] = np.bincount(np.asarray(plane).ravel(), minlength=256)
            drawn |= plane > 0
        empty[i] = 1 - drawn.mean()
    owner = _class_of_brightness()
    shares = np.zeros((len(rows), len(classes)))
    for number, row in enumerate(classes):
        own = owner[row.layer] == number
        shares[:, number] = counts[:, row.layer, own].sum(axis=1)
        shares[:, number] -= own.sum() * counts[:, row.layer, _levels_around(owner[row.layer], own)].mean(axis=1)
    shares = np.maximum(shares, 0) / store.tile_size**2
    recognised = float(shares.sum()) * store.tile_size**2 / max(1, int(counts[:, :, 1:].sum()))
    return np.where(shares >= MIN_CLASS_SHARE, shares, 0), empty, recognised


def _levels_around(owner: np.ndarray, own: np.ndarray) -> np.ndarray:
    """The levels of brightness near those of a class, `own (256,)`, that belong to no class."""
    level = np.arange(256)
    middle = level[own].mean() if own.any() else 0
    return level[(owner < 0) & (level > 0) & (np.abs(level - middle) <= EDGE_LEVELS)]


@cache
def _class_of_brightness() -> np.ndarray:
    """The class that each layer draws in each brightness, `(L, 256) int64`, -1 for none; the nearest of two."""
    found = np.full((len(LAYERS), 256), -1)
    distance = np.full((len(LAYERS), 256), GRAY_TOLERANCE + 1)
    for number, row in enumerate(load_style().classes):
        for gray in {row.gray, row.fill_gray if row.fill else row.gray}:
            away = np.abs(np.arange(256) - gray)
            nearer = (away < distance[row.layer]) & (np.arange(256) > 0)
            found[row.layer, nearer], distance[row.layer, nearer] = number, away[nearer]
    return found
