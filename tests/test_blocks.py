"""blocks.py: cut into blocks, an extract shows on every tile what the whole extract shows, and no more is kept."""

from pathlib import Path

import numpy as np
import pytest

import blocks
import osm_extract
import test_render_tiles
from cli import UserError
from files import file_digest
from layers import STYLE_PATH
from map_index import build_index, index_tiles, project
from map_style import load_style
from osm_extract import read_features, stream_features
from render_tiles import SAMPLE_EXTRACT, choose_area
from test_render_tiles import X0, Y0, ZOOM, MapFile
from tile_area import TileArea
from tile_painter import Painter


@pytest.fixture
def map_file(tmp_path: Path) -> MapFile:
    return MapFile(tmp_path / "made.osm.pbf")


def prepared(extract: Path, folder: Path, block_tiles: int, box=None) -> blocks.Plan:
    return blocks.prepare(extract, file_digest(extract), STYLE_PATH, box, ZOOM, block_tiles, folder)


def drawn(painter: Painter, tile: int, x: int, y: int) -> dict[int, bytes]:
    return {layer: plane.tobytes() for layer, plane in painter.layers(tile, x, y)}


def compare(extract: Path, plan: blocks.Plan, folder: Path, each: int = 1) -> int:
    """Draw the tiles of every block and of its margin, and compare them with those of the whole; count them."""
    features, style = read_features(extract, load_style()), load_style()
    area = TileArea(ZOOM, plan.x0, plan.y0, np.ones((plan.rows, plan.columns), dtype=bool))
    whole, count = Painter(build_index(features, style, area), 256), 0
    for block in plan.blocks:
        part = blocks.load_part(blocks.part_path(folder, plan, block), plan)
        window = plan.area(block, blocks.SEEN_TILES)
        painter = Painter(index_tiles(part, np.array(plan.classes), window), 256)
        edges = (window.columns_rows % (np.array(window.wanted.shape[::-1]) - 1) == 0).all(axis=1)  # the corners
        for tile in np.flatnonzero(edges | (np.arange(len(edges)) % each == 0)).tolist():
            x, y = window.unwrapped_xy[tile].tolist()
            own = int(area.number(np.array(x), np.array(y)))
            assert drawn(painter, tile, x, y) == drawn(whole, own, x, y), (block, x, y)
            count += 1
    return count


def ragged(centre: float, radius: float, count: int) -> list[tuple[float, float]]:
    turn = np.linspace(0, 2 * np.pi, count, endpoint=False)
    edge = radius * (1 + 0.1 * np.sin(40 * turn))
    return list(zip(centre + edge * np.cos(turn), centre + edge * np.sin(turn), strict=True))


@pytest.fixture
def archipelago(map_file) -> Path:
    """A lake 60 tiles wide with a ragged shore of 4,000 points, 400 islands, a stream around it, houses and roads."""
    rng = np.random.default_rng(0)
    members = [(map_file.ring(ragged(0, 30, 4000)), "outer")]
    for column in range(-10, 10):
        for row in range(-10, 10):
            corner = (column * 2 + rng.uniform(0, 1), row * 2 + rng.uniform(0, 1))
            x, y = corner
            members.append((map_file.ring([(x, y), (x + 0.4, y), (x + 0.4, y + 0.4), (x, y + 0.4)]), "inner"))
            map_file.ring([(x + 0.1, y + 0.1), (x + 0.2, y + 0.1), (x + 0.2, y + 0.2)], building="yes")
    map_file.relation(members, type="multipolygon", natural="water")
    shore = ragged(0, 31, 1500)
    map_file.way([*shore, shore[0]], waterway="river")
    map_file.way([(-33, -20), (33, 17)], highway="motorway")
    map_file.node(15.99, 16.01, amenity="restaurant")
    return map_file.write()


def test_pixels_do_not_depend_on_the_block(archipelago, tmp_path):
    for side in (16, 32):
        plan = prepared(archipelago, tmp_path / str(side), side)
        assert len(plan.blocks) >= 9 and plan.whole
        assert compare(archipelago, plan, tmp_path / str(side), each=97) > 150


def test_large_objects_are_cut_and_not_repeated_whole(archipelago, tmp_path):
    plan = prepared(archipelago, tmp_path / "parts", 16)
    whole = project(read_features(archipelago, load_style()), load_style(), ZOOM)
    parts = [blocks.load_part(blocks.part_path(tmp_path / "parts", plan, block), plan) for block in plan.blocks]
    largest = whole.point_counts().argmax()
    lake = whole.osm_key[largest]
    points = [int(part.point_counts()[part.osm_key == lake].sum()) for part in parts]
    assert whole.point_counts().max() > 4000 + 400 * 4 and sum(count > 0 for count in points) >= 9
    assert max(points) < whole.point_counts().max() / 2
    middle = parts[plan.blocks.index((X0 // 16, Y0 // 16))]
    assert middle.surface[middle.osm_key == lake] == whole.surface[largest], "the order of drawing needs the whole area"


def test_real_blocks_show_what_the_whole_city_shows(tmp_path):
    plan = prepared(SAMPLE_EXTRACT, tmp_path / "parts", 32)
    area, box = choose_area(read_features(SAMPLE_EXTRACT, load_style()), load_style(), None, ZOOM, SAMPLE_EXTRACT)
    assert (plan.box, plan.x0, plan.y0, (plan.rows, plan.columns)) == (box, area.x0, area.y0, area.wanted.shape)
    assert sum(len(plan.area(block).tile_xy) for block in plan.blocks) == len(area.tile_xy)
    assert compare(SAMPLE_EXTRACT, plan, tmp_path / "parts", each=151) > 250


def test_an_area_across_180_degrees(tmp_path, monkeypatch):
    """Blocks on both sides of it hold what reaches over from the other side."""
    real, shift = test_render_tiles.degrees, ((1 << ZOOM) - X0) * 360 / (1 << ZOOM)

    def degrees(x: float, y: float) -> tuple[float, float]:
        lon, lat = real(x, y)
        return (lon + shift + 180) % 360 - 180, lat

    monkeypatch.setattr(test_render_tiles, "degrees", degrees)
    made = MapFile(tmp_path / "made.osm.pbf")
    made.ring([(-20, -3), (20, -3), (20, 3), (-20, 3)], natural="water")
    made.way([(-25, -2), (25, 2)], highway="motorway")
    for x in range(-22, 22):
        made.ring([(x + 0.1, 0.1), (x + 0.3, 0.1), (x + 0.3, 0.3)], building="yes")
    extract = made.write()
    plan = prepared(extract, tmp_path / "parts", 16)
    assert plan.box[0] > plan.box[2] and {plan.name(block).split("_")[0] for block in plan.blocks} >= {"0", "8191"}
    assert compare(extract, plan, tmp_path / "parts", each=13) > 100


def test_batches_hold_what_one_reading_holds(tmp_path):
    style = load_style()
    whole, batches = read_features(SAMPLE_EXTRACT, style), []
    for batch in stream_features(SAMPLE_EXTRACT, style, None, tmp_path, points=50_000):
        assert len(batch.lonlat) < 150_000
        batches.append(batch)
    assert len(batches) > 3
    np.testing.assert_array_equal(np.concatenate([batch.lonlat for batch in batches]), whole.lonlat)
    np.testing.assert_array_equal(np.concatenate([batch.osm_key for batch in batches]), whole.osm_key)
    assert sum(len(batch.item_object) for batch in batches) == len(whole.item_object)
    assert batches[-1].broken == whole.broken and not list(tmp_path.iterdir())


def test_what_is_prepared_is_used_again_and_only_if_it_fits(archipelago, tmp_path, monkeypatch):
    folder = tmp_path / "parts"
    first = prepared(archipelago, folder, 32)
    with monkeypatch.context() as patch:
        patch.setattr(blocks, "stream_features", None)
        assert prepared(archipelago, folder, 32) == first
    assert prepared(archipelago, folder, 16) != first
    path = blocks.part_path(folder, first, first.blocks[0])
    second = prepared(archipelago, folder, 32)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match="missing or damaged"):
        blocks.load_part(path, second)


def test_a_box_keeps_only_its_blocks(tmp_path):
    box = (71.42, 51.12, 71.44, 51.13)
    plan = prepared(SAMPLE_EXTRACT, tmp_path / "parts", 16, box)
    assert plan.box == box and 1 <= len(plan.blocks) <= 4
    assert {path.stem for path in (tmp_path / "parts").glob("*.l2v")} == {plan.name(block) for block in plan.blocks}
    with pytest.raises(UserError, match="lies outside"):
        prepared(SAMPLE_EXTRACT, tmp_path / "other", 16, (0.0, 0.0, 1.0, 1.0))


def test_node_locations_lie_in_a_file(tmp_path, monkeypatch):
    seen = []
    real = osm_extract.read_objects
    monkeypatch.setattr(osm_extract, "read_objects", lambda *args: (seen.append(args[-1]), real(*args))[1])
    sizes = [seen[0].stat().st_size for _ in stream_features(SAMPLE_EXTRACT, load_style(), None, tmp_path)]
    assert min(sizes) > 16 * 50_000 and not seen[0].exists()
    (tmp_path / "a,b").mkdir()
    with pytest.raises(UserError, match="comma"):
        next(stream_features(SAMPLE_EXTRACT, load_style(), None, tmp_path / "a,b"))
