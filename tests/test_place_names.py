"""Names of places: read from an extract, one of each, kept beside the tiles."""

import numpy as np
import osmium
import pytest

from cli import UserError
from conftest import REPO
from place_names import (
    KINDS,
    NAMES_FILE,
    PlaceNames,
    find_place_names,
    kind_of,
    load_place_names,
    read_place_names,
    save_place_names,
)
from tile_grid import great_circle_km

SAMPLE = REPO / "sample_data" / "astana.osm.pbf"


def kind_name(places: PlaceNames, row: int) -> str:
    return KINDS[places.kind[row]][0]


@pytest.fixture(scope="module")
def sample() -> PlaceNames:
    return read_place_names(SAMPLE)


def test_names_of_the_sample_city(sample):
    assert len(sample) > 2_000 and (np.diff(sample.kind) >= 0).all()
    city = sample.names[0]
    assert kind_name(sample, 0) == "city" and "Астана" in city and "Astana" in city
    kinds = {kind_name(sample, row) for row in range(len(sample))}
    assert {"street", "district", "station", "park", "shop", "building"} <= kinds
    assert np.abs(sample.latlon - (51.13, 71.43)).max() < 0.6


def test_the_parts_of_a_street_are_one_place_on_it(tmp_path):
    """Five ways of one street in a row, and one of the same name ten kilometres away."""
    path, ids = tmp_path / "streets.osm.pbf", iter(range(1, 100))
    with osmium.SimpleWriter(str(path)) as writer:
        ways = []
        for start in (*np.arange(5) * 0.004, 0.2):
            ends = []
            for step in (0, 0.002, 0.004):
                node = next(ids)
                writer.add_node(osmium.osm.mutable.Node(id=node, version=1, location=(30.5 + start + step, 50.4)))
                ends.append(node)
            ways.append(ends)
        tags = {"highway": "residential", "name": "вулиця Зелена", "name:en": "Green Street", "alt_name": "Z; Y"}
        for number, ends in enumerate(ways, 1):
            writer.add_way(osmium.osm.mutable.Way(id=number, version=1, nodes=ends, tags=tags))
    places = read_place_names(path)
    assert [kind_name(places, row) for row in range(len(places))] == ["street", "street"]
    assert places.names[0] == ("вулиця Зелена", "Green Street", "Z", "Y")
    along = np.sort(places.latlon[:, 1])
    assert along[0] == pytest.approx(30.51, abs=0.003) and along[1] == pytest.approx(30.702, abs=0.001)
    assert great_circle_km(places.latlon[0], np.array([50.4, places.latlon[0, 1]])) < 0.001


@pytest.mark.parametrize(
    ("tags", "kind"),
    [
        ({"place": "suburb", "boundary": "administrative"}, "district"),
        ({"railway": "station", "building": "yes"}, "station"),
        ({"building": "no", "shop": "bakery"}, "shop"),
        ({"leisure": "park", "landuse": "grass"}, "park"),
        ({"name": "Bob"}, None),
    ],
)
def test_the_most_important_kind_counts(tags, kind):
    number = kind_of(tags)
    assert (KINDS[number][0] if number >= 0 else None) == kind


def test_rendering_keeps_the_names_beside_the_tiles(run_script, tmp_path, sample):
    root = tmp_path / "tiles"
    command = ["render_tiles.py", SAMPLE, "--bbox", "71.42,51.12,71.44,51.13", "--tiles_root", root, "--jobs", 1]
    run_script(*command)
    places = find_place_names(root)
    assert places.names == sample.names and places.latlon == pytest.approx(sample.latlon)
    (root / NAMES_FILE).unlink()
    run_script(*command)  # nothing is drawn, and the names are there again
    assert find_place_names(root).names == sample.names
    assert find_place_names(tmp_path) is None and len(find_place_names(tmp_path, SAMPLE)) == len(sample)


def test_damaged_names_are_one_message_or_intact(tmp_path, sample):
    save_place_names(tmp_path / NAMES_FILE, sample)
    good, rng, refused = (tmp_path / NAMES_FILE).read_bytes(), np.random.default_rng(0), 0
    for at in rng.integers(len(good), size=60).tolist():
        (tmp_path / NAMES_FILE).write_bytes(good[:at] + rng.bytes(3) + good[at + 3 :])
        try:
            places = load_place_names(tmp_path / NAMES_FILE)
        except UserError:
            refused += 1
        else:
            assert places.names == sample.names and (places.latlon == sample.latlon).all()
    assert refused > 50
    with pytest.raises(FileNotFoundError):
        load_place_names(tmp_path / "absent.parquet")


def test_a_file_of_something_else_is_one_message(tmp_path):
    path = tmp_path / NAMES_FILE
    path.write_bytes(b"not parquet")
    with pytest.raises(UserError, match=r"holds no place names .*render_tiles.py"):
        load_place_names(path)
    with pytest.raises(UserError, match="does not exist"):
        read_place_names(tmp_path / "nowhere.osm.pbf")
    (tmp_path / "cut.osm.pbf").write_bytes(SAMPLE.read_bytes()[:20_000])
    with pytest.raises(UserError, match=r"cut\.osm\.pbf"):
        read_place_names(tmp_path / "cut.osm.pbf")
