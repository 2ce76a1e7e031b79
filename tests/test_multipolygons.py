"""Surfaces from closed ways and multipolygon relations: rings of every shape, broken ones, roles and tags.

The cases follow the groups of the multipolygon grid of osm-testdata (7xx geometry, 9xx roles and tags); the
coordinates are our own. Places are written as `x,y` on a grid of a thousandth of a degree; `x,yb` is another node at
the same place.
"""

import functools
from pathlib import Path

import osmium
import pytest
import shapely
from osmium.osm import mutable

from layers import LAYERS
from map_style import FILL, load_style
from osm_extract import Features, read_features

LON, LAT, STEP = 71.0, 51.0, 1e-3
SQUARE = "0,0 8,0 8,8 0,8 0,0"
BACK = "0,0 0,8 8,8 8,0 0,0"
HOLE = "2,2 4,2 4,6 2,6 2,2"
HOLE_BACK = "2,2 2,6 4,6 4,2 2,2"
WOOD = {"natural": "wood"}


def place(word: str) -> tuple[float, float]:
    x, y = word.rstrip("b").split(",")
    return float(x), float(y)


def write(path: Path, ways: list[tuple[str, dict]], members: list[tuple[int, str]], tags: dict | None) -> Path:
    """Ways, numbered from 1, and a relation of some of them, if it has tags."""
    numbers: dict[str, int] = {}
    for text, _ in ways:
        for word in text.split():
            numbers.setdefault(word, len(numbers) + 1)
    with osmium.SimpleWriter(str(path), overwrite=True) as writer:
        for word, number in numbers.items():
            x, y = place(word)
            writer.add_node(mutable.Node(id=number, location=(LON + x * STEP, LAT + y * STEP)))
        for number, (text, way_tags) in enumerate(ways, 1):
            writer.add_way(mutable.Way(id=number, nodes=[numbers[word] for word in text.split()], tags=way_tags))
        if tags is not None:
            found = [("w", way, role) for way, role in members]
            found.append(("n", 1, ""))  # a node is no part of the surface
            writer.add_relation(mutable.Relation(id=1, members=found, tags={"type": "multipolygon"} | tags))
    return path


def surfaces(features: Features, layer: str) -> dict[str, shapely.Geometry]:
    """The surfaces of a layer by the name of their object, in steps of the grid."""
    style, found = load_style(), {}
    for owner, number, kind in zip(features.item_object, features.item_class, features.item_kind, strict=True):
        if kind != FILL or LAYERS[style.classes[number].layer] != layer:
            continue
        rings = range(features.ring_start[owner], features.ring_start[owner + 1])
        points = [features.lonlat[features.point_start[r] : features.point_start[r + 1]] for r in rings]
        shapes = [shapely.make_valid(shapely.Polygon((ring - [LON, LAT]) / STEP)) for ring in points]
        found[features.names([owner])[0]] = functools.reduce(shapely.symmetric_difference, shapes)
    return found


def expected(text: str) -> shapely.Geometry:
    """Polygons separated by `;`, their rings separated by `/`, as the union that they cover."""
    polygons = []
    for polygon in text.split(";"):
        outer, *holes = [shapely.Polygon([place(word) for word in ring.split()]) for ring in polygon.split("/")]
        polygons.append(outer.difference(shapely.union_all(holes)))
    return shapely.union_all(polygons)


def same(found: shapely.Geometry | None, text: str) -> bool:
    return found is not None and shapely.symmetric_difference(found, expected(text)).area < 1e-3


# name: ways with their roles (o, i, or - for none), and the surface; None where nothing can be drawn
GEOMETRY = {
    # 70x: outer rings of one or more ways
    "one closed way": ("o 0,0 4,0 4,4 0,4 0,0", "0,0 4,0 4,4 0,4"),
    "two ways": ("o 0,0 4,0 4,4 | o 4,4 0,4 0,0", "0,0 4,0 4,4 0,4"),
    "two ways of one direction": ("o 0,0 4,0 4,4 | o 0,0 0,4 4,4", "0,0 4,0 4,4 0,4"),
    "a notch": ("o 0,0 4,0 4,4 0,4 | o 0,0 0,1 2,2 0,4", "0,0 4,0 4,4 0,4 2,2 0,1"),
    "a cross of three ways": (
        "o 0,2 2,2 2,0 4,0 | o 4,0 4,2 6,2 6,4 4,4 4,6 | o 4,6 2,6 2,4 0,4 0,2",
        "0,2 2,2 2,0 4,0 4,2 6,2 6,4 4,4 4,6 2,6 2,4 0,4",
    ),
    "convex and concave parts": (
        "o 0,0 3,1 6,0 | o 5,3 6,0 | o 5,3 6,6 3,4 0,6 1,3 0,0",
        "0,0 3,1 6,0 5,3 6,6 3,4 0,6 1,3",
    ),
    "two outer rings that touch in a node": (
        "o 0,0 3,0 3,3 0,3 0,0 | o 3,3 6,3 6,6 | o 6,6 3,6 3,3",
        "0,0 3,0 3,3 0,3; 3,3 6,3 6,6 3,6",
    ),
    "two outer rings apart": (
        "o 0,0 2,0 2,2 0,2 0,0 | o 4,0 6,0 6,2 | o 6,2 4,2 4,0",
        "0,0 2,0 2,2 0,2; 4,0 6,0 6,2 4,2",
    ),
    "two outer rings that clasp each other": (
        "o 0,0 1,0 1,4 5,4 5,5 0,5 0,0 | o 2,0 6,0 6,5.5 5.5,5.5 5.5,1 3,1 | o 3,1 3,3 2,3 2,0",
        "0,0 1,0 1,4 5,4 5,5 0,5; 2,0 6,0 6,5.5 5.5,5.5 5.5,1 3,1 3,3 2,3",
    ),
    "three outer rings that touch in three nodes": (
        "o 0,0 2,0 1,2 0,0 | o 2,0 4,0 3,2 2,0 | o 1,2 3,2 2,4 1,2",
        "0,0 2,0 1,2; 2,0 4,0 3,2; 1,2 3,2 2,4",
    ),
    # 71x: overlaps and gaps
    "two outer rings that overlap": (
        "o 0,0 4,0 4,4 0,4 0,0 | o 2,2 6,2 6,6 2,6 2,2",
        "0,0 4,0 4,2 6,2 6,6 2,6 2,4 0,4",
    ),
    "a segment in both ways": ("o 0,0 4,0 4,4 0,4 | o 4,4 0,4 0,0", "0,0 4,0 4,4 0,4"),
    "an open ring": ("o 0,0 4,0 4,4 | o 4,4b 0,4", None),
    "two open rings": ("o 0,0 4,0 4,4 | o 6,6 8,6 8,8", None),
    # 72x, 73x: inner rings
    "both rings clockwise": (f"o {BACK} | i {HOLE_BACK}", f"{SQUARE} / {HOLE}"),
    "both rings anticlockwise": (f"o {SQUARE} | i {HOLE}", f"{SQUARE} / {HOLE}"),
    "outer clockwise, inner anticlockwise": (f"o {BACK} | i {HOLE}", f"{SQUARE} / {HOLE}"),
    "outer anticlockwise, inner clockwise": (f"o {SQUARE} | i {HOLE_BACK}", f"{SQUARE} / {HOLE}"),
    "inner ring first": (f"i {HOLE} | o {SQUARE}", f"{SQUARE} / {HOLE}"),
    "concave, no inner ring": ("o 0,3 3,0 4,0 1,3 4,6 3,6 | o 3,6 0,3", "0,3 3,0 4,0 1,3 4,6 3,6"),
    "concave with an inner ring": (
        "o 0,0 5,3 8,0 8,8 0,8 0,0 | i 2,4 4,4 4,6 2,6 2,4",
        "0,0 5,3 8,0 8,8 0,8 / 2,4 4,4 4,6 2,6",
    ),
    "an island in the hole": (
        f"o {SQUARE} | i 1,1 7,1 7,7 1,7 1,1 | o 3,3 5,3 5,5 3,5 3,3",
        f"{SQUARE} / 1,1 7,1 7,7 1,7; 3,3 5,3 5,5 3,5",
    ),
    "three inner rings": (
        f"o {SQUARE} | i 1,1 2,1 2,2 1,2 1,1 | i 4,1 5,1 5,2 4,2 4,1 | i 1,4 2,4 2,5 1,5 1,4",
        f"{SQUARE} / 1,1 2,1 2,2 1,2 / 4,1 5,1 5,2 4,2 / 1,4 2,4 2,5 1,5",
    ),
    "inner rings of several ways": (
        "o 0,0 8,0 8,8 | o 0,0 0,8 8,8 | i 1,1 3,1 3,3 | i 3,3 1,3 1,1 | i 5,5 7,5 | i 7,5 7,7 5,7 5,5",
        f"{SQUARE} / 1,1 3,1 3,3 1,3 / 5,5 7,5 7,7 5,7",
    ),
    "a node twice in a row": (
        f"o 0,0 8,0 8,0 8,8 0,8 0,0 | i {HOLE} | o 9,0 10,0 10,1 9,0",
        f"{SQUARE} / {HOLE}; 9,0 10,0 10,1",
    ),
    "a chain of three outer rings": (
        "o 0,0 2,0 2,2 0,0 | o 2,2 4,2 4,4 2,2 | o 4,4 6,4 6,6 4,4",
        "0,0 2,0 2,2; 2,2 4,2 4,4; 4,4 6,4 6,6",
    ),
    # 74x: rings that are none
    "a bow tie": ("o 0,0 4,4 4,0 0,4 0,0", "0,0 2,2 0,4; 4,4 2,2 4,0"),
    "a line there and back": ("o 0,0 4,0 0,0", None),
    "a spike": ("o 0,0 4,0 4,4 6,6 4,4 0,4 0,0", "0,0 4,0 4,4 0,4"),
    "a spike of nodes at the same place": ("o 0,0 4,0 4,4 6,6 4,4b 0,4 0,0", "0,0 4,0 4,4 0,4"),
    "one way that does not close": ("o 0,0 4,0 4,4 0,4", None),
    "an eight with a tail": ("o 0,0 4,0 4,4 6,6", None),
    "a ring and a way from it": ("o 0,0 4,0 4,4 0,4 0,0 | o 4,4 6,6", "0,0 4,0 4,4 0,4"),
    "two nodes at one place": ("o 0,0 4,0 4,4 4,4b 0,4 0,0", "0,0 4,0 4,4 0,4"),
    # 75x: rings that touch
    "inner rings that share an edge": (
        f"o {SQUARE} | i 2,2 4,2 4,6 2,6 2,2 | i 4,2 6,2 6,6 4,6 4,2",
        f"{SQUARE} / 2,2 6,2 6,6 2,6",
    ),
    "inner rings that overlap": (
        f"o {SQUARE} | i 1,1 4,1 4,4 1,4 1,1 | i 3,3 6,3 6,6 3,6 3,3",
        f"{SQUARE} / 1,1 4,1 4,3 6,3 6,6 3,6 3,4 1,4",
    ),
    "inner rings that share an edge but no node": (
        f"o {SQUARE} | i 1,1 4,1 4,6 1,6 1,1 | i 4,2 6,2 6,5 4,5 4,2",
        f"{SQUARE} / 1,1 4,1 4,2 6,2 6,5 4,5 4,6 1,6",
    ),
    "an inner ring touches the outer one, no node there": (
        f"o {SQUARE} | i 4,2 8,4 4,6 4,2",
        f"{SQUARE} / 4,2 8,4 4,6",
    ),
    "an inner ring touches the outer one in a node": (
        "o 0,0 8,0 8,4 8,8 0,8 0,0 | i 4,2 8,4 4,6 4,2",
        f"{SQUARE} / 4,2 8,4 4,6",
    ),
    "an inner ring touches the outer one in a line, no nodes there": (
        f"o {SQUARE} | i 4,2 8,2 8,6 4,6 4,2",
        "0,0 8,0 8,2 4,2 4,6 8,6 8,8 0,8",
    ),
    "an inner ring touches the outer one in a line": (
        "o 0,0 8,0 8,2 8,6 8,8 0,8 0,0 | i 4,2 8,2 8,6 4,6 4,2",
        "0,0 8,0 8,2 4,2 4,6 8,6 8,8 0,8",
    ),
    "the outer ring comes back to one node": (
        "o 8,4 8,8 0,8 0,0 8,0 8,4 4,2 2,4 4,6 8,4",
        f"{SQUARE} / 8,4 4,2 2,4 4,6",
    ),
    # 76x: rings that go back on themselves
    "a hole by going there and back": ("o 0,0 8,0 8,8 0,8 0,0 2,2 2,6 6,6 6,2 2,2 0,0", f"{SQUARE} / 2,2 6,2 6,6 2,6"),
    "two outer rings that leave a hole": (
        "o 0,0 8,0 8,8 4,6 2,2 0,0 | o 0,0 2,2 4,6 8,8 0,8 0,0",
        "0,0 8,0 8,8 4,6 2,2; 0,0 2,2 4,6 8,8 0,8",
    ),
    "four outer rings around one node": (
        "o 4,4 3,1 5,1 4,4 | o 4,4 7,3 7,5 4,4 | o 4,4 5,7 3,7 4,4 | o 4,4 1,5 1,3 4,4",
        "4,4 3,1 5,1; 4,4 7,3 7,5; 4,4 5,7 3,7; 4,4 1,5 1,3",
    ),
    "four inner rings around one node": (
        f"o {SQUARE} | i 4,4 3,1 5,1 4,4 | i 4,4 7,3 7,5 4,4 | i 4,4 5,7 3,7 4,4 | i 4,4 1,5 1,3 4,4",
        f"{SQUARE} / 4,4 3,1 5,1 / 4,4 7,3 7,5 / 4,4 5,7 3,7 / 4,4 1,5 1,3",
    ),
    "one outer ring in two parts that share a line": (
        "o 0,4 2,2 4,4 2,6 0,4 | o 2,2 2,1 4,1 4,0 0,0 0,1 2,1 2,2",
        "0,4 2,2 4,4 2,6; 4,1 4,0 0,0 0,1",
    ),
    "two ways that overlap": ("o 0,0 4,0 4,4 0,4 0,0 | o 4,0 8,0 8,4 4,4 4,2 4,0", "0,0 8,0 8,4 0,4"),
    # 77x: outer and inner rings that touch in nodes
    "two outer rings touch in a node": (
        "o 0,0 4,0 4,2 2,2 0,2 0,0 | o 2,2 4,4 2,6 0,4 2,2",
        "0,0 4,0 4,2 0,2; 2,2 4,4 2,6 0,4",
    ),
    "two outer rings touch, no node there": (
        "o 0,0 4,0 4,2 0,2 0,0 | o 2,2 4,4 2,6 0,4 2,2",
        "0,0 4,0 4,2 0,2; 2,2 4,4 2,6 0,4",
    ),
    "two inner rings touch in a node": (
        f"o {SQUARE} | i 2,1 6,1 6,3 4,3 2,3 2,1 | i 4,3 6,5 4,7 2,5 4,3",
        f"{SQUARE} / 2,1 6,1 6,3 2,3 / 4,3 6,5 4,7 2,5",
    ),
    "two inner rings touch, no node there": (
        f"o {SQUARE} | i 2,1 6,1 6,3 2,3 2,1 | i 4,3 6,5 4,7 2,5 4,3",
        f"{SQUARE} / 2,1 6,1 6,3 2,3 / 4,3 6,5 4,7 2,5",
    ),
    "two outer rings touch in two nodes": (
        "o 0,2 2,2 2,4 0,4 0,2 | o 2,4 2,6 6,6 6,0 2,0 2,2 4,2 4,4 2,4",
        "0,2 2,2 2,4 0,4; 2,4 2,6 6,6 6,0 2,0 2,2 4,2 4,4",
    ),
    "two inner rings touch in two nodes and leave an island": (
        f"o {SQUARE} | i 1,3 3,3 3,5 1,5 1,3 | i 3,5 3,6 7,6 7,2 3,2 3,3 5,3 5,5 3,5",
        f"{SQUARE} / 1,3 3,3 3,2 7,2 7,6 3,6 3,5 1,5; 3,3 5,3 5,5 3,5",
    ),
    # 78x: nodes at the same place
    "a way that closes by place, not by node": ("o 0,0 4,0 4,4 0,4 0,0b", "0,0 4,0 4,4 0,4"),
    "an inner ring that closes by place": (f"o {SQUARE} | i 2,2 4,2 4,6 | i 4,6b 2,6 2,2b", f"{SQUARE} / {HOLE}"),
    "several inner rings that share edges": (
        f"o {SQUARE} | i 2,2 4,2 4,4 2,4 2,2 | i 4,2 6,2 6,4 4,4 4,2 | i 2,4 4,4 6,4 6,6 2,6 2,4",
        f"{SQUARE} / 2,2 6,2 6,6 2,6",
    ),
    "two inner rings around an island": (
        f"o {SQUARE} | i 2,2 4,2 4,3 3,3 3,5 4,5 4,6 2,6 2,2 | i 4,2 6,2 6,6 4,6 4,5 5,5 5,3 4,3 4,2",
        f"{SQUARE} / 2,2 6,2 6,6 2,6; 3,3 5,3 5,5 3,5",
    ),
    # 79x: the same again
    "two ways on the same nodes": ("o 0,0 4,0 4,4 0,4 0,0 | o 0,0 4,0 4,4 0,4 0,0", "0,0 4,0 4,4 0,4"),
    "two ways on the same nodes, another start": ("o 0,0 4,0 4,4 0,4 0,0 | o 4,4 4,0 0,0 0,4 4,4", "0,0 4,0 4,4 0,4"),
    "two ways on nearly the same nodes": ("o 0,0 4,0 4,4 0,4 0,0 | o 0,0b 4,0 4,4 0,4 0,0b", "0,0 4,0 4,4 0,4"),
    "three ways on the same nodes": (
        "o 0,0 4,0 4,4 0,4 0,0 | o 0,0 4,0 4,4 0,4 0,0 | o 0,0 4,0 4,4 0,4 0,0",
        "0,0 4,0 4,4 0,4",
    ),
    # 90x: wrong roles
    "outer ring with role inner": (f"i {SQUARE}", SQUARE),
    "outer ring of ways with different roles": ("o 0,0 4,0 4,4 | i 4,4 0,4 0,0", "0,0 4,0 4,4 0,4"),
    "no role": (f"- {SQUARE}", SQUARE),
    "inner ring with role outer": (f"o {SQUARE} | o {HOLE}", f"{SQUARE} / {HOLE}"),
    "inner rings without role": (
        f"o {SQUARE} | - 2,2 4,2 4,6 2,6 2,2 | o 4,2 6,2 6,6 4,6 4,2",
        f"{SQUARE} / 2,2 6,2 6,6 2,6",
    ),
}


@pytest.mark.parametrize("name", GEOMETRY)
def test_a_multipolygon_covers_what_its_rings_enclose(name, tmp_path):
    text, surface = GEOMETRY[name]
    roles = {"o": "outer", "i": "inner", "-": ""}
    ways, members = [], []
    for part in text.split("|"):
        role, _, places = part.strip().partition(" ")
        ways.append((places, {}))
        members.append((len(ways), roles[role]))
    features = read_features(write(tmp_path / "made.osm.pbf", ways, members, WOOD), load_style())
    found = surfaces(features, "natural-features")
    if surface is None:
        assert not found and features.broken == {"relations that are incomplete or do not close": ["relation 1"]}
    else:
        assert list(found) == ["relation 1"] and same(found["relation 1"], surface), found
        assert not features.broken


@pytest.mark.parametrize(("members", "surface"), [((1, 1), SQUARE), ((1, 2, 2), f"{SQUARE} / {HOLE}")])
def test_the_same_way_as_member_twice(members, surface, tmp_path):
    roles = [(number, ("outer", "inner")[number - 1]) for number in members]
    path = write(tmp_path / "made.osm.pbf", [(SQUARE, {}), (HOLE, {})], roles, WOOD)
    assert same(surfaces(read_features(path, load_style()), "natural-features")["relation 1"], surface)


@pytest.mark.parametrize("text", [SQUARE, "0,0 8,0 8,8 0,8 0,0 2,2 2,6 6,6 6,2 2,2 0,0", "0,0 4,4 4,0 0,4 0,0"])
def test_a_closed_way_covers_what_the_same_ring_in_a_relation_does(text, tmp_path):
    alone = read_features(write(tmp_path / "way.osm.pbf", [(text, WOOD)], [], None), load_style())
    member = read_features(write(tmp_path / "relation.osm.pbf", [(text, {})], [(1, "outer")], WOOD), load_style())
    way, relation = surfaces(alone, "natural-features")["way 1"], surfaces(member, "natural-features")["relation 1"]
    assert shapely.symmetric_difference(way, relation).area < 1e-3 and way.area > 1


# 91x to 95x: where the tags are. name: tags of outer way, inner way and relation, then what is drawn in which layer
WATER, HOUSE = {"natural": "water"}, {"building": "yes"}
RING, DISC, ISLAND = f"{SQUARE} / {HOLE}", SQUARE, HOLE
TAGS = {
    "tags on the relation": ({}, {}, HOUSE, {"buildings": {"relation 1": RING}}),
    "the inner ring is something else": (
        {},
        WATER,
        WOOD,
        {"natural-features": {"relation 1": RING}, "water": {"way 2": ISLAND}},
    ),
    "the inner ring is the same again": ({}, WOOD, WOOD, {"natural-features": {"relation 1": RING, "way 2": ISLAND}}),
    "a boundary that is also a park": (
        {},
        {},
        {"type": "boundary", "leisure": "nature_reserve"},
        {"leisure": {"relation 1": RING}},
    ),
    # Old-style multipolygons, with the tags on the outer way, have been extinct in OSM since 2017. Like osm2pgsql and
    # libosmium, the reader draws the outer way as a surface of its own.
    "tags on the outer way": (HOUSE, {}, {}, {"buildings": {"way 1": DISC}}),
    "no tags": ({}, {}, {}, {}),
}


@pytest.mark.parametrize("name", TAGS)
def test_what_is_drawn_depends_on_where_the_tags_are(name, tmp_path):
    outer, inner, relation, drawn = TAGS[name]
    ways = [(SQUARE, outer), (HOLE, inner)]
    features = read_features(
        write(tmp_path / "made.osm.pbf", ways, [(1, "outer"), (2, "inner")], relation), load_style()
    )
    for layer in ("buildings", "natural-features", "water", "leisure"):
        found = surfaces(features, layer)
        assert set(found) == set(drawn.get(layer, {}))
        assert all(same(found[key], text) for key, text in drawn.get(layer, {}).items())
