"""Names of groups of tiles: what is more common in a group than elsewhere, short, distinct, equal in every run."""

from pathlib import Path

import numpy as np
import pytest

import place_words
from conftest import make_tiles
from layers import LAYERS
from map_style import load_style
from place_words import (
    FEATURES,
    LONGEST,
    MIXED,
    Vocabulary,
    feature_amounts,
    joint_group_names,
    shared_words,
    shows_classes,
    style_features,
)
from tile_store import TileStore, open_store

PX = 64
STYLE_GRAYS = {f"{LAYERS[row.layer]}:{row.name}": (row.layer, row.gray) for row in load_style().classes}


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> TileStore:
    """A city in the brightness of the style: west forest, middle apartments on streets, east water with a park."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("named")
    root = make_tiles(folder / "tiles", nx=12, ny=4, px=PX)
    blank = np.zeros((PX, PX), np.uint8)
    for layer in LAYERS:
        for path in (root / layer).glob("17/*/*.png"):
            Image.fromarray(blank).save(path)
    for column in range(12):
        for path in (root / "landcover" / "17" / str(76600 + column)).glob("*.png"):
            name = path.relative_to(root / "landcover")
            if column < 4:
                paint(root, "landcover:forest", name, slice(None))
            elif column < 8:
                paint(root, "buildings:apartments", name, slice(8, 24))
                paint(root, "roads:residential", name, slice(30, 36))
            else:
                paint(root, "water:water", name, slice(0, 40) if column < 11 else slice(0, 6))
                paint(root, "leisure:park", name, slice(40, None))
    return open_store(root, PX, cache_dir=folder / "cache")


def paint(root: Path, name: str, tile: Path, rows: slice) -> None:
    from PIL import Image

    layer, gray = STYLE_GRAYS[name]
    plane = np.zeros((PX, PX), np.uint8)
    plane[rows] = gray
    Image.fromarray(plane).save(root / LAYERS[layer] / tile)


def columns(store: TileStore) -> np.ndarray:
    return store.tile_xy[:, 0] - store.tile_xy[:, 0].min()


def group_names(store: TileStore, rows: np.ndarray, group: np.ndarray) -> list[str]:
    return joint_group_names([(store, rows, group)])


def test_a_group_is_named_after_what_it_has_more_of(store):
    names = group_names(store, np.arange(len(store)), columns(store) // 4)
    assert names[0] == "forest"
    assert "apartment blocks" in names[1] and "forest" not in names[1]
    assert "water" in names[2] or "park" in names[2]


def test_an_area_that_fills_a_part_of_its_tiles_is_an_edge(store):
    rows = np.flatnonzero((columns(store) < 4) | (columns(store) == 11))
    names = group_names(store, rows, (columns(store)[rows] == 11).astype(int))
    assert "waterside" in names[1]


def test_groups_with_the_same_tiles_get_different_names(store):
    rows = np.flatnonzero(columns(store) < 8)
    group = np.where(columns(store)[rows] < 4, 0, 1 + store.tile_xy[rows, 1] % 2)
    names = group_names(store, rows, group)
    assert len(set(names)) == 3 and all(0 < len(name) <= LONGEST for name in names)
    assert not any(name[0].isdigit() for name in names)


def test_names_do_not_depend_on_the_order_of_the_tiles(store):
    rows, group = np.arange(len(store)), columns(store) // 4
    order = np.random.default_rng(0).permutation(len(rows))
    assert group_names(store, rows[order], group[order]) == group_names(store, rows, group)


def test_tiles_in_another_brightness_are_named_by_layer(tiny_tiles, tmp_path):
    store = open_store(tiny_tiles, PX, cache_dir=tmp_path)
    assert not shows_classes(store, np.arange(len(store)))
    features, amount = feature_amounts(store, np.arange(len(store)), by_class=False)
    assert [feature.classes for feature in features] == [(name,) for name in LAYERS]
    assert amount == pytest.approx(store.layer_intensity)
    assert len(set(group_names(store, np.arange(len(store)), columns(store) // 4))) == 3


def test_groups_of_which_nothing_is_over_represented_still_have_names(store):
    rows = np.flatnonzero(columns(store) < 4)
    names = group_names(store, rows, np.arange(len(rows)) % 3)
    assert names == [f"{MIXED} {number}" for number in (1, 2, 3)]


def test_a_tile_is_described_by_what_fills_it_and_is_rare(store):
    vocabulary = Vocabulary.of(store)
    assert vocabulary.by_class
    said = vocabulary.describe(store, np.arange(len(store)))
    for words, column in zip(said, columns(store), strict=True):
        assert words[0] == ("forest" if column < 4 else "apartment blocks" if column < 8 else words[0])
        assert column < 8 or set(words) <= {"water", "park"}
    some = np.array([3, 1])
    assert vocabulary.describe(store, some) == [said[3], said[1]]  # whatever else is asked for


def test_two_tiles_share_words_and_differ_in_others():
    assert shared_words(["forest", "tracks"], ["park", "forest"]) == "both forest; only there park"
    assert shared_words(["forest"], ["forest"]) == "both forest" and shared_words([], []) == ""


def test_every_class_of_the_style_belongs_to_one_feature():
    names = [name for feature in FEATURES for name in feature.classes]
    assert len(names) == len(set(names)) and set(names) <= set(STYLE_GRAYS)
    _, owned = style_features()
    assert sorted(number for some in owned for number in some) == list(range(len(load_style().classes)))


def test_a_class_that_is_hardly_there_is_a_smooth_edge_and_does_not_count(store, monkeypatch):
    rows = np.flatnonzero(columns(store) == 11)[:1]
    assert place_words.class_shares(store, rows)[0].sum() > 0
    monkeypatch.setattr(place_words, "MIN_CLASS_SHARE", 0.99)
    assert place_words.class_shares(store, rows)[0].sum() == 0
