"""The address of the explorer page: what it says is what is shown, and it stays short."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from explorer_data import packed
from front_end import WEB
from test_front_end import run_node

# Write a state into an address and read it again.
ROUND_TRIP = """
import { hashOf, withHash } from "./web/address.js";
import { firstState } from "./web/state.js";
import { Tiles } from "./web/tiles.js";
const data = %(data)s;
const tiles = new Tiles(data);
const state = { ...firstState(data), ...%(change)s };
const text = hashOf(state, tiles);
const found = withHash(%(address)s ?? text, firstState(data), data, tiles);
console.log(JSON.stringify({
  text, km: found.km, selection: [...found.selection].sort((a, b) => a - b), filters: [...found.filters],
}));
"""


def round_trip(folder: Path, tile_xy: list[tuple[int, int]], change: str, address: str | None = None) -> dict[str, Any]:
    """What is left of a state, in JavaScript, after it was in an address; `address` is read instead if given."""
    count, xy = len(tile_xy), np.array(tile_xy, np.int32)
    arrays = {"tile_xy": xy, "dominant_layer": xy[:, 0] * 0, "layer_bits": xy[:, 0] * 0, "layer_mass": xy[:, 0] * 0}
    data = {
        "zoom": 17, "count": count, "layers": [], "earth_radius_km": 6371, "map": {"origin": xy.min(axis=0).tolist()},
        "projections": {"PCA-2": {}}, "colourings": [{"key": "price", "kind": "number"}],
        "arrays": {name: packed(array) for name, array in arrays.items()},
    }  # fmt: skip
    shutil.copytree(WEB, folder / "web", ignore=shutil.ignore_patterns("node_modules"), dirs_exist_ok=True)
    parts = {"data": json.dumps(data), "change": change, "address": json.dumps(address)}
    return json.loads(run_node(folder, ROUND_TRIP % parts))


def test_a_filter_keeps_its_ends_exactly(tmp_path):
    for low, high in np.random.default_rng(0).random((5, 2), np.float32).astype(float).tolist():
        change = f'{{ filters: new Map([["price", {{ kind: "range", low: {low!r}, high: {high!r} }}]]) }}'
        found = round_trip(tmp_path, [(7, 7)], change)
        assert found["filters"] == [["price", {"kind": "range", "low": low, "high": high}]]


def test_a_distance_may_be_half_way_around_the_earth(tmp_path):
    assert round_trip(tmp_path, [(7, 7)], "{ km: 15000 }")["km"] == 15000


def test_tiles_far_apart_make_a_short_address(tmp_path):
    far = [(100, 200), (101, 200), (90_000, 60_000), (131_071, 3)]
    found = round_trip(tmp_path, far, "{ selection: new Set([3, 0, 2]) }")
    assert found["selection"] == [0, 2, 3] and len(found["text"]) < 120


def test_tiles_close_together_are_bits_as_before(tmp_path):
    near = [(x, y) for x in range(100, 104) for y in range(200, 204)]
    found = round_trip(tmp_path, near, "{ selection: new Set([0, 5, 6, 15]) }")
    assert found["selection"] == [0, 5, 6, 15] and "sel=100.200.4." in found["text"]
    assert round_trip(tmp_path, near, "{}", "sel=100.200.4.AQ")["selection"] == [0]


def test_an_address_of_nonsense_selects_nothing(tmp_path):
    for text in ("*", "*zz.zz", "*-1.!", "*" + "z" * 400, "1.2.3", "1.2.0.AQ"):
        assert round_trip(tmp_path, [(7, 7)], "{}", f"sel={text}")["selection"] == []
