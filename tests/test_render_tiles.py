"""The renderer: what it draws, what it survives, what it refuses."""

import dataclasses
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from unittest import mock

import numpy as np
import osmium
import pyarrow.parquet as pq
import pytest
import shapely
from osmium.osm import mutable
from PIL import Image

import extract_download
import map_index
import osm_extract
import render_tiles
import tile_grid
from cli import UserError, WorkError, run_main
from conftest import REPO, script_env
from extract_download import fetch_extract
from layers import LAYERS
from map_index import build_index
from map_style import FILL, STYLE_PATH, load_style
from osm_extract import read_features
from osm_file import cut_extract
from place_names import find_place_names
from render_tiles import SAMPLE_BBOX, SAMPLE_EXTRACT, RenderConfig, render
from tile_area import TileArea
from tile_grid import tile_of_latlon
from tile_workers import completed, start_workers
from tile_writer import TileWriter, encode_png

ZOOM = 17
X0, Y0 = 91552, 43776  # the corner of a metatile
SMALL_BOX = "71.4280,51.1540,71.4440,51.1640"  # 6 x 6 tiles in the middle of the sample city


def degrees(x: float, y: float) -> tuple[float, float]:
    """Longitude and latitude of a place given in tiles from the corner (X0, Y0)."""
    n = 2**ZOOM
    return (X0 + x) / n * 360 - 180, math.degrees(math.atan(math.sinh(math.pi * (1 - 2 * (Y0 + y) / n))))


def box_text(x0: float, y0: float, x1: float, y1: float) -> str:
    (west, north), (east, south) = degrees(x0 + 0.01, y0 + 0.01), degrees(x1 - 0.01, y1 - 0.01)
    return f"{west:.7f},{south:.7f},{east:.7f},{north:.7f}"


class MapFile:
    """Writes a small extract; places are in tiles from the corner (X0, Y0)."""

    def __init__(self, path: Path):
        self.path = path
        self.nodes, self.ways, self.relations = [], [], []

    def node(self, x: float, y: float, **tags: str) -> int:
        self.nodes.append(mutable.Node(id=len(self.nodes) + 1, location=degrees(x, y), tags=tags))
        return len(self.nodes)

    def way(self, places: list, refs: list | None = None, **tags: str) -> int:
        refs = refs or [self.node(*place) for place in places]
        self.ways.append(mutable.Way(id=len(self.ways) + 1, nodes=refs, tags=tags))
        return len(self.ways)

    def ring(self, places: list, **tags: str) -> int:
        refs = [self.node(*place) for place in places]
        return self.way([], refs=[*refs, refs[0]], **tags)

    def relation(self, members: list, **tags: str) -> None:
        members = [("w", way, role) for way, role in members]
        self.relations.append(mutable.Relation(id=len(self.relations) + 1, members=members, tags=tags))

    def write(self) -> Path:
        with osmium.SimpleWriter(str(self.path), overwrite=True) as writer:
            for thing in self.nodes:
                writer.add_node(thing)
            for thing in self.ways:
                writer.add_way(thing)
            for thing in self.relations:
                writer.add_relation(thing)
        return self.path


@pytest.fixture
def map_file(tmp_path: Path) -> MapFile:
    return MapFile(tmp_path / "made.osm.pbf")


def square(x: float, y: float, size: float) -> list:
    return [(x, y), (x + size, y), (x + size, y + size), (x, y + size)]


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """`command(*args)` runs the script's command line in this process: `(exit code, stderr)`."""

    def run(*args: object) -> tuple[int, str]:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["render_tiles.py", *map(str, args)])
        with pytest.raises(SystemExit) as ended:
            run_main(render_tiles.main)
        return ended.value.code, capsys.readouterr().err

    return run


@pytest.fixture(scope="session")
def quarter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A piece of the sample city that is quick to read; it holds all that touches SMALL_BOX."""
    path = tmp_path_factory.mktemp("quarter") / "quarter.osm.pbf"
    cut_extract(SAMPLE_EXTRACT, tuple(map(float, SMALL_BOX.split(","))), path)
    return path


def draw(extract: Path, root: Path, bbox: str | None = None, **settings) -> render_tiles.RenderReport:
    return render(RenderConfig(extract=extract, tiles_root=root, bbox=bbox, **({"jobs": 1} | settings)))


def plane(root: Path, layer: str, x: int, y: int) -> np.ndarray:
    with Image.open(root / layer / str(ZOOM) / str(X0 + x) / f"{Y0 + y}.png") as image:
        assert image.mode == "L"
        return np.asarray(image)


def content(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*.png"))}


# --- what is drawn -----------------------------------------------------------------------------------------


def test_every_tile_of_the_area_is_there_in_all_layers_as_8_bit_grey(map_file, tmp_path):
    map_file.ring(square(0.25, 0.25, 0.5), building="yes")
    root = tmp_path / "tiles"
    draw(map_file.write(), root, box_text(0, 0, 3, 2))
    assert len(content(root)) == 6 * 12 + 1  # and the blank one that the others are links to
    for layer in LAYERS:
        for x in range(3):
            for y in range(2):
                assert plane(root, layer, x, y).shape == (256, 256)
    building = plane(root, "buildings", 0, 0)
    assert building[128, 128] == next(c.gray for c in load_style().classes if c.name == "building")
    assert building[10, 10] == 0
    assert not plane(root, "water", 0, 0).any()
    blank = root / "water" / "17" / str(X0) / f"{Y0}.png"
    assert os.stat(blank).st_nlink == 6 * 12  # one file for all


def test_a_hole_stays_a_hole_and_an_island_in_it_is_drawn(map_file, tmp_path):
    outer = map_file.ring(square(0.1, 0.1, 0.8))
    inner = map_file.ring(square(0.3, 0.3, 0.4))
    island = map_file.ring(square(0.45, 0.45, 0.1))
    map_file.relation(
        [(outer, "outer"), (inner, "inner"), (island, "outer")], type="multipolygon", natural="water", name="Moat"
    )
    draw(map_file.write(), tmp_path / "tiles", box_text(0, 0, 1, 1))
    water = plane(tmp_path / "tiles", "water", 0, 0)
    assert water[50, 50] > 0 and water[90, 90] == 0 and water[128, 128] > 0


def test_a_wide_line_and_a_disc_reach_over_the_edge_of_tile_metatile_and_box(map_file, tmp_path):
    map_file.way([(0.995, -2), (0.995, 4)], highway="motorway")  # its nodes lie in the column left of the tile
    map_file.node(7.99, 0.5, amenity="restaurant")  # metatiles are 8 x 8
    extract = map_file.write()
    draw(extract, tmp_path / "all", box_text(0, 0, 10, 1))
    draw(extract, tmp_path / "beyond", box_text(1, 0, 2, 1))
    road = plane(tmp_path / "all", "roads", 1, 0)
    assert (road[:, :5] == 255).all()  # 16 m are 21 pixels here
    assert (plane(tmp_path / "beyond", "roads", 1, 0) == road).all()
    left, right = (plane(tmp_path / "all", "amenities", x, 0) for x in (7, 8))
    gray = int(right[128, 0])
    assert gray == left.max() > 0
    disc = (left.sum() + right.sum()) / gray
    assert disc == pytest.approx(math.pi * 12**2, rel=0.01)


def test_pixels_do_not_depend_on_box_jobs_or_metatile(quarter, tmp_path, monkeypatch):
    whole, part, single = tmp_path / "whole", tmp_path / "part", tmp_path / "single"
    draw(quarter, whole, SMALL_BOX, jobs=2)
    report = draw(quarter, part, "71.4310,51.1560,71.4400,51.1600")
    monkeypatch.setattr(tile_grid, "METATILE", 1)
    draw(quarter, single, SMALL_BOX)
    drawn = content(whole)
    assert content(single) == drawn
    assert 4 <= report.tiles < len(drawn) / 12
    assert content(part).items() <= drawn.items()


@pytest.fixture
def lake(map_file) -> Path:
    """A lake of 28 tiles with a ragged shore of 3,000 points, and a stream around it."""
    turn = np.linspace(0, 2 * np.pi, 3000, endpoint=False)
    radius = 14 + 2 * np.sin(40 * turn)
    shore = list(zip(4 + radius * np.cos(turn), 4 + radius * np.sin(turn), strict=True))
    map_file.ring(shore, natural="water")
    map_file.way([*shore, shore[0]], waterway="stream")
    return map_file.write()


def test_long_paths_do_not_depend_on_the_metatile_either(lake, tmp_path, monkeypatch):
    draw(lake, tmp_path / "eight", box_text(-12, -1, 6, 2))
    monkeypatch.setattr(tile_grid, "METATILE", 3)
    draw(lake, tmp_path / "three", box_text(-12, -1, 6, 2))
    assert content(tmp_path / "eight") == content(tmp_path / "three")


def test_thinning_a_long_path_leaves_the_picture_alone(lake, tmp_path, monkeypatch):
    for name, limit in (("thinned", 256), ("whole", 10**9)):
        monkeypatch.setattr(map_index, "LONG_PATH", limit)
        draw(lake, tmp_path / name, box_text(-13, -1, 6, 2))
    far = [
        np.abs(plane(tmp_path / "thinned", "water", x, y).astype(int) - plane(tmp_path / "whole", "water", x, y)) > 8
        for x in range(-13, 6)
        for y in range(-1, 2)
    ]
    assert np.mean(far) < 1e-4
    assert plane(tmp_path / "thinned", "water", 0, 0).all()


def test_areas_are_true(tmp_path):
    """The grey mass of the buildings, all drawn alike, against the area of their union on more than 100 tiles."""
    style = tmp_path / "plain.toml"
    style.write_text(plain_style("buildings", 'tags = { building = ["*"] }', gray=255))
    west, south, east, north = 71.4180, 51.1480, 71.4460, 51.1660
    report = draw(SAMPLE_EXTRACT, tmp_path / "tiles", f"{west},{south},{east},{north}", style=style)
    assert report.tiles >= 100
    xy = report.area.tile_xy
    mass = sum(
        np.asarray(Image.open(tmp_path / "tiles" / "buildings" / "17" / str(x) / f"{y}.png"), dtype=np.int64).sum()
        for x, y in xy
    )
    features = read_features(SAMPLE_EXTRACT, load_style(style))
    shapes = []
    for owner in features.item_object[features.item_kind == FILL]:
        rings = range(features.ring_start[owner], features.ring_start[owner + 1])
        points = [features.lonlat[features.point_start[r] : features.point_start[r + 1]] for r in rings]
        shapes.append(
            shapely.Polygon(
                tile_of_latlon(*points[0].T[::-1], 17), [tile_of_latlon(*p.T[::-1], 17) for p in points[1:]]
            )
        )
    window = shapely.box(*xy.min(axis=0), *(xy.max(axis=0) + 1))
    area = shapely.union_all(shapely.intersection(shapely.make_valid(np.array(shapes)), window)).area
    assert mass / 255 / 256**2 == pytest.approx(area, rel=0.01)


def plain_style(layer: str, membership: str, gray: int, drawn: str = "fill = true") -> str:
    """A style table in which one layer has one class and the others none."""
    text = "version = 1\n"
    for name in LAYERS:
        text += f'[[layer]]\nname = "{name}"\n'
        if name == layer:
            text += f'[[layer.class]]\nname = "it"\n{membership}\ngray = {gray}\n{drawn}\n'
    return text


def test_what_is_on_top_hides_what_lies_below_even_where_it_is_darker(map_file, tmp_path):
    map_file.ring(square(0.1, 0.1, 0.8), landuse="industrial")
    map_file.ring(square(0.4, 0.4, 0.2), landuse="grass")
    draw(map_file.write(), tmp_path / "tiles", box_text(0, 0, 1, 1))
    gray = {c.name: c.gray for c in load_style().classes if LAYERS[c.layer] == "landcover"}
    cover = plane(tmp_path / "tiles", "landcover", 0, 0)
    assert cover[50, 50] == gray["industrial"] and cover[128, 128] == gray["grass"]


def test_boundaries_come_from_relations_whose_ways_have_no_tags(map_file, tmp_path):
    half = [(0.2, 0.2), (0.8, 0.2), (0.8, 0.8)]
    first = map_file.way(half)
    map_file.relation([(first, "outer"), (999, "outer")], type="boundary", boundary="administrative", admin_level="8")
    report = draw(map_file.write(), tmp_path / "tiles", box_text(0, 0, 1, 1))
    assert plane(tmp_path / "tiles", "boundaries", 0, 0)[51, 128] > 0
    assert report.layers["boundaries"] == {"objects": 1, "tiles": 1}


def test_levels_and_addresses_leave_no_mark(map_file, tmp_path):
    map_file.ring(square(0.2, 0.2, 0.2), building="yes")
    plain = map_file.write()
    draw(plain, tmp_path / "plain", box_text(0, 0, 1, 1))
    tagged = MapFile(tmp_path / "tagged.osm.pbf")
    tagged.ring(square(0.2, 0.2, 0.2), building="yes", **{"building:levels": "9", "addr:housenumber": "1"})
    tagged.node(0.7, 0.7, **{"addr:housenumber": "3"})
    draw(tagged.write(), tmp_path / "tagged", box_text(0, 0, 1, 1), labels=tmp_path / "labels.parquet")
    assert content(tmp_path / "plain") == content(tmp_path / "tagged")
    row = pq.read_table(tmp_path / "labels.parquet").to_pylist()[0]
    assert (row["levels"], row["buildings_with_levels"], row["addresses"]) == (9, 1, 2)


def test_other_tile_sizes_show_the_same_map(map_file, tmp_path):
    map_file.ring(square(0.25, 0.25, 0.5), building="yes")
    map_file.way([(0, 0.1), (1, 0.1)], highway="footway")
    extract = map_file.write()
    for px in (128, 256):
        draw(extract, tmp_path / str(px), box_text(0, 0, 1, 1), tile_px=px)
    for layer in ("buildings", "roads"):
        large, small = (plane(tmp_path / str(px), layer, 0, 0).astype(int) for px in (256, 128))
        assert small.shape == (128, 128)
        shrunk = large.reshape(128, 2, 128, 2).mean(axis=(1, 3))
        assert np.abs(shrunk - small).max() <= 2


def test_drawing_needs_no_pytorch():
    code = "import sys, render_tiles; print('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False", "importing PyTorch takes longer than drawing a district"


def test_the_png_encoder_is_exact():
    image = np.random.default_rng(0).integers(0, 256, (96, 160), dtype=np.uint8)
    path = Path("x.png")
    from io import BytesIO

    with Image.open(BytesIO(encode_png(image))) as decoded:
        assert decoded.mode == "L" and (np.asarray(decoded) == image).all(), path


def test_box_of_the_sample_is_48_by_48_and_edges_belong_to_one_tile():
    assert TileArea.of_box(SAMPLE_BBOX, 17).wanted.shape == (48, 48)
    exact = TileArea.of_box((71.2792969, 51.0690167, 71.6308594, 51.2894059), 17)
    assert exact.wanted.shape == (128, 128) and (exact.x0, exact.y0) == (91488, 43712)


# --- labels ------------------------------------------------------------------------------------------------


def test_labels_count_what_the_masks_do_not_show(map_file, tmp_path):
    for x in (0.1, 0.5):
        map_file.ring(square(x, 0.1, 0.1), building="yes", **{"building:levels": str(round(x * 20))})
    map_file.ring(square(0.7, 0.1, 0.1), building="yes", **{"building:levels": "many"})
    map_file.node(0.5, 0.5, amenity="cafe")
    map_file.node(0.6, 0.5, shop="books")
    map_file.ring(square(0.1, 0.6, 0.1), amenity="school")
    map_file.ring(square(0.05, 0.05, 0.7), landuse="residential")
    map_file.ring(square(1.1, 0.1, 0.5), landuse="grass")
    map_file.way([(0, 0.95), (1.4, 0.95)], highway="residential")
    map_file.way([(0.2, 0), (0.2, 0.5)], highway="primary")
    draw(map_file.write(), tmp_path / "tiles", box_text(0, 0, 3, 1), labels=tmp_path / "labels.parquet")
    rows = pq.read_table(tmp_path / "labels.parquet").to_pylist()
    assert [(row["z"], row["x"] - X0, row["y"] - Y0) for row in rows] == [(17, 0, 0), (17, 1, 0), (17, 2, 0)]
    first, second, third = rows
    assert first["levels"] == pytest.approx(6) and first["buildings_with_levels"] == 2
    assert (first["poi_food"], first["poi_shop"], first["poi_education"], first["poi_health"]) == (1, 1, 1, 0)
    assert (first["landuse"], second["landuse"], third["landuse"]) == ("residential", "grass", None)
    assert (first["highway"], second["highway"], third["highway"]) == ("residential", "residential", None)
    assert second["levels"] is None
    assert (first["drawn:buildings"], first["drawn:amenities"], first["drawn:roads"]) == (3, 3, 2)
    assert first["drawn:roads:primary"] == 1 and third["drawn:roads"] == 0


# --- broken geometries -------------------------------------------------------------------------------------


def test_broken_geometries_are_counted_and_the_rest_is_drawn(map_file, tmp_path):
    map_file.ring(square(0.1, 0.1, 0.2), building="yes")
    bow = [(0.5, 0.5), (0.8, 0.8), (0.8, 0.5), (0.5, 0.8)]
    map_file.ring(bow, building="yes")  # crosses itself
    map_file.way([(0.1, 0.8), (0.2, 0.8), (0.2, 0.9)], building="yes")  # does not close
    nodes = [map_file.node(0.1, 0.6), 9999, map_file.node(0.3, 0.6), map_file.node(0.4, 0.6)]
    map_file.way([], refs=nodes, highway="residential")  # a node is missing
    part = map_file.way([(0.5, 0.1), (0.6, 0.1), (0.6, 0.2)])
    map_file.relation([(part, "outer")], type="multipolygon", building="yes")  # does not close either
    report = draw(map_file.write(), tmp_path / "tiles", box_text(0, 0, 1, 1))
    assert report.broken == {
        "ways that should close and do not": 1,
        "ways with missing nodes, drawn in part": 1,
        "relations that are incomplete or do not close": 1,
    }
    assert report.repaired == {"surfaces whose rings cross, overlap or repeat": 1}
    buildings = plane(tmp_path / "tiles", "buildings", 0, 0)
    assert buildings[50, 50] > 0
    assert buildings[140, 166] == 0 < buildings[166, 140] and buildings[166, 195] > 0  # the two halves of the bow
    road = plane(tmp_path / "tiles", "roads", 0, 0)
    assert road[154, 90] > 0 and road[154, 50] == 0
    manifest = json.loads((tmp_path / "tiles" / "manifest.json").read_text())
    assert manifest["broken_geometries"] == report.broken
    assert manifest["named_objects"]["ways that should close and do not"] == ["way 3"]


@pytest.mark.parametrize(
    ("bytes_of", "says"),
    [
        (lambda _: b"", "whole PBF|no map data"),
        (lambda data: data[: len(data) // 2], "cut short"),
        (lambda _: b"<!DOCTYPE html><html><body>503</body></html>", "HTML"),
        (lambda _: b"\x00\x00\x00\x0e" + bytes(5000), "not a"),
        (lambda data: data[:200] + bytes(len(data) - 200), "no block|cut short|readable"),
    ],
    ids=["empty", "truncated", "html", "zeros", "damaged"],
)
def test_an_unusable_extract_ends_in_a_sentence(bytes_of, says, tmp_path, command):
    path = tmp_path / "bad.osm.pbf"
    path.write_bytes(bytes_of(SAMPLE_EXTRACT.read_bytes()))
    code, said = command(path)
    assert code == 2 and "Traceback" not in said and str(path) in said
    assert any(word in said for word in says.split("|")), said


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["nowhere.osm.pbf"], "does not exist"),
        ([SAMPLE_EXTRACT, "--bbox", "30.2,50.2,30.8,50.6"], "outside"),
        ([SAMPLE_EXTRACT, "--bbox", "71.5,51.1,71.4,51.2"], "west"),
        ([SAMPLE_EXTRACT, "--bbox", "71.4,51.1,71.4,51.2"], "expected west < east"),
        ([SAMPLE_EXTRACT, "--bbox", "here"], "west,south,east,north"),
        (["--city", "atlantis"], "kyiv"),
        ([], "--city kyiv"),
    ],
)
def test_wrong_use_ends_in_a_sentence(args, says, command):
    code, said = command(*args)
    assert code == 2 and says in said and "Traceback" not in said


# --- the style table ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("gray = 255", "gray = 0", "from 1 to 255"),
        ("gray = 255", "grey = 255", "unknown field grey"),
        ('name = "water"', 'name = "wet"', "expected, in this order"),
        ("width_m = 16, min_px = 12", "width_m = -1, min_px = 12", "class motorway: line must look like"),
        ("fill = true", 'fill = "maybe"', "fill must be"),
        ("version = ", "version = [", "TOML"),
        ("[[layer.class]]", "[layer.class]", "TOML"),
    ],
)
def test_a_mistake_in_the_style_table_is_named(old, new, says, tmp_path):
    path = tmp_path / "style.toml"
    path.write_text(STYLE_PATH.read_text(encoding="utf-8").replace(old, new, 1), encoding="utf-8")
    with pytest.raises(UserError, match=says):
        load_style(path)


@pytest.mark.parametrize("table", ["[layer]", "[[layer]]\n[layer.class]"])
def test_single_brackets_in_the_style_table_are_named(table, tmp_path):
    path = tmp_path / "style.toml"
    path.write_text(f'version = 1\n{table}\nname = "roads"\n', encoding="utf-8")
    with pytest.raises(UserError, match=re.escape("write [[layer]] and [[layer.class]]")):
        load_style(path)


def test_the_first_class_that_matches_wins_and_an_object_may_be_in_several_layers():
    style = load_style()
    named = {(LAYERS[style.classes[i].layer], style.classes[i].name) for i in style.classes_of({"landuse": "forest"})}
    assert named == {("natural-features", "wood"), ("landcover", "forest")}
    both = {"boundary": "administrative", "admin_level": "4"}
    assert [style.classes[i].name for i in style.classes_of(both)] == ["state"]
    assert style.classes_of({"building": "no"}) == ()
    assert [style.classes[i].name for i in style.classes_of({"amenity": "cafe;bank"})] == ["food"]


# --- restart, refusal, signals -----------------------------------------------------------------------------


def test_a_box_counts_for_its_own_run_only(map_file, tmp_path):
    """Without one, everything is drawn, also where the extract does not say which area it covers."""
    for place in (0.2, 4.2):
        map_file.ring(square(place, place, 0.5), building="yes")
    extract, root = map_file.write(), tmp_path / "tiles"
    assert len(draw(extract, root, box_text(0.1, 0.1, 0.9, 0.9)).area.tile_xy) == 1
    assert len(draw(extract, root).area.tile_xy) == len(draw(extract, tmp_path / "other").area.tile_xy) > 1
    assert draw(extract, root).drawn == 0


def test_a_damaged_manifest_is_said(map_file, tmp_path):
    map_file.ring(square(0.2, 0.2, 0.5), building="yes")
    extract, root = map_file.write(), tmp_path / "tiles"
    draw(extract, root)
    (root / render_tiles.MANIFEST_NAME).write_text("{", encoding="utf-8")
    with pytest.raises(UserError, match=r"is damaged; --force draws"):
        draw(extract, root)
    draw(extract, root, force=True)


def test_a_second_run_does_what_is_missing_and_no_more(quarter, tmp_path):
    root = tmp_path / "tiles"
    draw(quarter, root, SMALL_BOX)
    before = content(root)
    stamps = {path: path.stat().st_mtime_ns for path in root.rglob("*.png")}
    assert draw(quarter, root, SMALL_BOX).drawn == 0
    gone = [path for path in sorted(root.glob("*/17/*/*.png"))][::97]
    for path in gone:
        path.unlink()
    report = draw(quarter, root, SMALL_BOX)
    assert 0 < report.drawn <= len(gone)
    assert content(root) == before
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items() if path not in gone)


def test_force_draws_again_over_damage(quarter, tmp_path):
    root = tmp_path / "tiles"
    draw(quarter, root, SMALL_BOX)
    before = content(root)
    victim = next(path for path in sorted(root.glob("buildings/17/*/*.png")) if path.stat().st_nlink == 1)
    victim.write_bytes(b"")
    assert draw(quarter, root, SMALL_BOX).drawn == 0  # it is there; that is all a restart looks at
    draw(quarter, root, SMALL_BOX, force=True)
    assert content(root) == before


def test_tiles_of_another_extract_style_or_size_are_not_mixed_in(map_file, tmp_path):
    map_file.ring(square(0.25, 0.25, 0.5), building="yes")
    root, box = tmp_path / "tiles", box_text(0, 0, 1, 1)
    draw(map_file.write(), root, box)
    with pytest.raises(UserError, match="tile_px"):
        draw(map_file.path, root, box, tile_px=128)
    map_file.node(0.5, 0.5, amenity="cafe")
    with pytest.raises(UserError, match="extract_digest"):
        draw(map_file.write(), root, box)
    draw(map_file.path, root, box, force=True)
    assert plane(root, "amenities", 0, 0).any()


def test_tiles_drawn_by_something_else_are_left_alone(map_file, tiny_tiles, tmp_path):
    map_file.ring(square(0.25, 0.25, 0.5), building="yes")
    root = tmp_path / "tiles"
    shutil.copytree(tiny_tiles, root)
    with pytest.raises(UserError, match="drawn by something else"):
        draw(map_file.write(), root, box_text(0, 0, 1, 1), force=True)


def start(*args: object, **options) -> subprocess.Popen:
    command = [sys.executable, str(REPO / "render_tiles.py"), *map(str, args)]
    return subprocess.Popen(command, env=script_env(), stderr=subprocess.PIPE, stdout=subprocess.PIPE, **options)


def wait_for_tiles(root: Path, process: subprocess.Popen, count: int) -> None:
    """Wait until a good number of PNGs is there, or the process has ended."""
    while process.poll() is None and sum(1 for _ in root.glob("*/17/*/*.png")) < count:
        time.sleep(0.01)


@pytest.mark.timeout(60)
def test_a_lost_process_ends_the_run_with_a_message():
    """The others are ended too, though they block the signal with which a pool does that."""
    with start_workers(2) as pool, pytest.raises(WorkError, match="a drawing process was ended from outside"):
        list(completed(pool, os._exit, [(1,)], 2))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_at_any_moment_only_whole_pngs_are_there_and_the_next_run_completes_them(quarter, tmp_path):
    draw(quarter, tmp_path / "calm", SMALL_BOX)
    calm = content(tmp_path / "calm")
    root = tmp_path / "killed"
    for share in (0.02, 0.4):
        process = start(quarter, "--bbox", SMALL_BOX, "--tiles_root", root, "--jobs", 2)
        wait_for_tiles(root, process, int(share * len(calm)))
        process.kill()
        process.communicate()
        time.sleep(0.5)  # its drawing processes see the end of their parent
        there = {name: data for name, data in content(root).items() if not name.startswith(".partial")}
        assert there.items() <= calm.items()
    assert not json.loads((root / "manifest.json").read_text())["complete"]
    report = draw(quarter, root, SMALL_BOX)
    assert 0 < report.drawn < report.tiles
    assert content(root) == calm
    assert not (root / ".partial").exists()


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_run_cleanly(signum, code, tmp_path):
    root = tmp_path / "tiles"
    process = start(SAMPLE_EXTRACT, "--tiles_root", root, "--jobs", 2, start_new_session=True)
    wait_for_tiles(root, process, 500)
    os.killpg(process.pid, signum)
    try:
        _, stderr = process.communicate(timeout=240)
    finally:
        process.kill()
    assert process.returncode == code, stderr.decode()
    assert b"Traceback" not in stderr
    assert not json.loads((root / "manifest.json").read_text())["complete"]


def test_a_full_disk_is_said_and_leaves_nothing_half_written(quarter, tmp_path):
    root = tmp_path / "tiles"
    limit = tmp_path / "full.py"
    limit.write_text(  # a write that fails half way, as on a full disk
        "import errno, io, os, sys, builtins\n"
        f"sys.path.insert(0, {str(REPO)!r})\n"
        "import render_tiles\n"
        "from cli import run_main\n"
        "real, count = os.replace, [0]\n"
        "def replace(a, b):\n"
        "    count[0] += str(b).endswith('.png')\n"
        "    if count[0] > 40:\n"
        "        raise OSError(errno.ENOSPC, 'No space left on device', str(b))\n"
        "    return real(a, b)\n"
        "os.replace = replace\n"
        "run_main(render_tiles.main)\n"
    )
    command = [sys.executable, str(limit), str(quarter), "--bbox", SMALL_BOX, "--jobs", "1"]
    result = subprocess.run([*command, "--tiles_root", root], capture_output=True, text=True, env=script_env())
    assert result.returncode == 1 and "no space left" in result.stderr and "Traceback" not in result.stderr
    for path in root.rglob("*.png"):
        with Image.open(path) as image:
            image.load()
    draw(quarter, root, SMALL_BOX)
    draw(quarter, tmp_path / "calm", SMALL_BOX)
    assert content(root) == content(tmp_path / "calm")


@pytest.fixture
def small_disk(tmp_path):
    """A function that makes a folder a disk of so many bytes, or gives the same disk another size."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def sized(size: int) -> Path:
        how = "remount," if folder.is_mount() else ""
        command = ["mount", "-t", "tmpfs", "-o", f"{how}size={size}", "tmpfs", str(folder)]
        if subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("needs the right to mount")
        return folder

    yield sized
    if folder.is_mount():
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.skipif(shutil.which("mount") is None, reason="needs mount")
@pytest.mark.parametrize("share", [0.02, 0.5, 0.9])
def test_a_disk_that_is_really_full_is_said_and_more_room_finishes_the_run(share, quarter, small_disk, tmp_path):
    draw(quarter, tmp_path / "calm", SMALL_BOX)
    files = {path.stat().st_ino: path.stat().st_size for path in (tmp_path / "calm").rglob("*.png")}
    disk = small_disk(int(share * sum(-(-size // 4096) * 4096 for size in files.values())))
    command = [sys.executable, str(REPO / "render_tiles.py"), str(quarter), "--bbox", SMALL_BOX, "--jobs", "2"]
    command += ["--tiles_root", str(disk / "tiles")]
    result = subprocess.run(command, capture_output=True, text=True, env=script_env())
    assert result.returncode == 1 and "no space left" in result.stderr and "Traceback" not in result.stderr
    for path in disk.rglob("*.png"):
        with Image.open(path) as image:
            image.load()
    assert not (disk / "tiles" / ".partial").exists()
    small_disk(1 << 28)
    assert subprocess.run(command, capture_output=True, env=script_env()).returncode == 0
    assert content(disk / "tiles") == content(tmp_path / "calm")


def test_blank_tiles_survive_the_limit_of_links_and_file_systems_without_links(map_file, tmp_path, monkeypatch):
    map_file.ring(square(0.25, 0.25, 0.5), building="yes")
    extract, box = map_file.write(), box_text(0, 0, 3, 3)
    draw(extract, tmp_path / "linked", box)
    real, made = os.link, [0]

    def limited(source, target):
        if os.stat(source).st_nlink > 10:
            raise OSError(31, "Too many links", source)  # EMLINK
        made[0] += 1
        real(source, target)

    def refused(source, target):
        raise OSError(95, "Operation not supported", source)

    monkeypatch.setattr(os, "link", limited)
    draw(extract, tmp_path / "limited", box)
    assert made[0] > 90
    monkeypatch.setattr(os, "link", refused)
    draw(extract, tmp_path / "copied", box)
    reference = content(tmp_path / "linked")
    assert content(tmp_path / "limited") == reference
    copied = content(tmp_path / "copied")
    copied.setdefault("blank-256.png", reference["blank-256.png"])
    assert copied == reference


def test_two_processes_may_start_the_blank_tile_at_the_same_moment(tmp_path, monkeypatch):
    """The other's blank tile replaces ours while we link to it: the kernel says that there is none."""
    (tmp_path / ".partial").mkdir()
    ours, other = TileWriter(tmp_path, 17, 256), TileWriter(tmp_path, 17, 256)
    real, calls = os.link, []

    def overtaken(source, target):
        calls.append(target)
        if len(calls) == 2:
            other.write(other.blank, other.blank_png)
            raise FileNotFoundError(2, "No such file or directory", source)
        real(source, target)

    monkeypatch.setattr(os, "link", overtaken)
    ours.write_blank(str(tmp_path / "1.png"))
    assert len(calls) == 3 and (tmp_path / "1.png").read_bytes() == ours.blank_png
    assert os.path.samefile(tmp_path / "1.png", ours.blank)
    with pytest.raises(FileNotFoundError):
        ours.write_blank(str(tmp_path / "no folder" / "1.png"))


def test_planes_of_one_brightness_are_links_to_the_first(tmp_path, monkeypatch):
    (tmp_path / ".partial").mkdir()
    writer, (full, other, drawn) = (
        TileWriter(tmp_path, 17, 64),
        (np.full((64, 64), gray, np.uint8) for gray in (9, 7, 9)),
    )
    drawn[5, 5] = 3
    planes = [full, other, full, drawn, full, drawn, other]
    paths = [tmp_path / f"{i}.png" for i in range(len(planes))]

    def write() -> list[int]:
        for path, plane in zip(paths, planes, strict=True):
            writer.write_plane(str(path), plane)
            assert path.read_bytes() == encode_png(plane)
        return [path.stat().st_ino for path in paths]

    first, second, third, fourth, fifth, sixth, seventh = write()
    assert first == third == fifth and second == seventh and len({first, second, fourth, sixth}) == 4
    paths[0].unlink()  # by somebody else: what is linked to it is written again
    assert len(set(write())) == 4
    refused = OSError(31, "Too many links")
    monkeypatch.setattr(os, "link", mock.Mock(side_effect=refused))
    assert len(set(write())) == len(planes)
    monkeypatch.setattr(os, "link", mock.Mock(side_effect=OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space"):
        write()


def test_the_manifest_says_what_the_tiles_are(map_file, tmp_path):
    map_file.ring(square(0.25, 0.25, 0.5), building="yes")
    draw(map_file.write(), tmp_path / "tiles", box_text(0, 0, 2, 1))
    manifest = json.loads((tmp_path / "tiles" / "manifest.json").read_text())
    assert manifest["extract"] == "made.osm.pbf" and manifest["zoom"] == 17 and manifest["tile_px"] == 256
    assert manifest["complete"] and manifest["tiles"] == 2 and len(manifest["bbox"]) == 4
    assert manifest["layers"]["buildings"] == {"objects": 1, "tiles": 1}
    assert manifest["layers"]["water"] == {"objects": 0, "tiles": 0}
    assert "OpenStreetMap contributors" in manifest["attribution"] and manifest["style_version"] == 2


def test_previews_show_the_city_and_each_layer(quarter, tmp_path):
    report = draw(quarter, tmp_path / "tiles", SMALL_BOX, preview=True)
    assert {path.name for path in report.outputs} == {"city.png", "layers.png", *(f"{layer}.png" for layer in LAYERS)}
    with Image.open(tmp_path / "tiles" / "preview" / "city.png") as city:
        rows, columns = report.area.wanted.shape
        assert city.width * rows == city.height * columns
        assert len(np.unique(np.asarray(city.convert("RGB")).reshape(-1, 3), axis=0)) > 50
    again = draw(quarter, tmp_path / "tiles", SMALL_BOX, preview=True)
    assert again.drawn == 0 and again.outputs == report.outputs


# --- boundary ----------------------------------------------------------------------------------------------


def test_clip_boundary_stays_inside_the_city_or_says_that_there_is_none(map_file, tmp_path, capsys):
    corner = [map_file.node(*place) for place in [(0.1, 0.1), (3.8, 0.1), (0.1, 3.8)]]
    ways = [map_file.way([], refs=[corner[i], corner[(i + 1) % 3]]) for i in range(3)]
    map_file.relation(
        [(way, "outer") for way in ways], type="boundary", boundary="administrative", admin_level="4", name="Delta"
    )
    report = draw(map_file.write(), tmp_path / "tiles", box_text(0, 0, 4, 4), clip_boundary=True)
    inside = {(x - X0, y - Y0) for x, y in report.area.tile_xy.tolist()}
    assert (0, 0) in inside and (3, 0) in inside and (3, 3) not in inside and len(inside) == 10
    assert "Delta" in capsys.readouterr().err
    bare = MapFile(tmp_path / "bare.osm.pbf")
    bare.ring(square(0.25, 0.25, 0.5), building="yes")
    report = draw(bare.write(), tmp_path / "box", box_text(0, 0, 2, 2), clip_boundary=True)
    assert report.tiles == 4 and "no administrative boundary" in capsys.readouterr().err


# --- download ----------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Server:
    """A local HTTP server with faults on order."""

    data: bytes
    faults: list
    requests: list = dataclasses.field(default_factory=list)
    url: str = ""


@pytest.fixture
def server():
    state = Server(SAMPLE_EXTRACT.read_bytes(), [])

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args):
            pass

        def do_GET(self):
            state.requests.append(self.headers.get("Range"))
            fault = state.faults.pop(0) if state.faults else ""
            start = int((self.headers.get("Range") or "bytes=0-")[6:].split("-")[0])
            if fault == "no ranges" or self.headers.get("If-Range", '"v1"') != '"v1"':
                start = 0
            if fault == "error":
                self.send_error(503)
                return
            if fault == "gone":
                self.send_error(404)
                return
            if fault == "html":
                self.answer(200, b"<html>busy</html>", "text/html")
                return
            if start >= len(state.data):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(state.data)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_data(fault, start)

        def send_data(self, fault, start):
            body = state.data[start:]
            length = len(body) + (1000 if fault == "promises more" else 0)
            if fault == "promises less":
                length = len(body) // 2
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(state.data) - 1}/{len(state.data)}")
            self.send_header("Content-Length", str(length))
            self.send_header("ETag", '"v1"')
            self.end_headers()
            if fault == "breaks off":
                body = body[: len(body) // 3]
            self.wfile.write(body[:length])
            self.wfile.flush()
            self.close_connection = True

        def answer(self, code, body, kind):
            self.send_response(code)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=httpd.serve_forever, daemon=True)
    thread.start()
    state.url = f"http://127.0.0.1:{httpd.server_port}/cities/Kiew.osm.pbf"
    yield state
    httpd.shutdown()
    httpd.server_close()
    thread.join()


@pytest.mark.parametrize(
    "faults",
    [
        [],
        ["breaks off"],
        ["breaks off", "error", "breaks off", "breaks off"],
        ["breaks off", "no ranges"],
        ["promises more"],
        ["error", "error"],
    ],
    ids=lambda faults: ", ".join(faults) or "well behaved",
)
def test_a_download_arrives_whole_whatever_the_server_does(server, tmp_path, faults):
    server.faults = list(faults)
    path = fetch_extract(server.url, tmp_path, pause_s=0)
    assert path.read_bytes() == server.data
    assert [entry.name for entry in path.parent.iterdir()] == ["Kiew.osm.pbf"]
    asked = len(server.requests)
    assert fetch_extract(server.url, tmp_path, pause_s=0) == path
    assert len(server.requests) == asked  # never twice


def test_a_broken_download_goes_on_where_it_stopped_also_in_the_next_run(server, tmp_path, monkeypatch):
    monkeypatch.setattr(extract_download, "TRIES", 1)
    server.faults = ["breaks off", "error"]
    with pytest.raises(WorkError, match="503"):
        fetch_extract(server.url, tmp_path, pause_s=0)
    third = len(server.data) // 3
    assert fetch_extract(server.url, tmp_path, pause_s=0).read_bytes() == server.data
    assert server.requests == [None, f"bytes={third}-", f"bytes={third}-"]


def test_another_question_to_a_server_is_another_file(server, tmp_path):
    first, second = (fetch_extract(f"{server.url}?bbox={box}", tmp_path, pause_s=0) for box in ("1,2,3,4", "5,6,7,8"))
    assert first != second and first.name == second.name == "Kiew.osm.pbf" and len(server.requests) == 2
    signed = [fetch_extract(f"{server.url}?bbox=1,2,3,4&X-Amz-Date={day}&sig={day}", tmp_path) for day in (1, 2)]
    assert signed == [first, first] and len(server.requests) == 2, "a signature names no other file"


def test_another_file_on_the_server_is_not_glued_to_the_first_half(server, tmp_path):
    folder = tmp_path / server.url.split("/")[2].replace(":", "_") / "cities"
    folder.mkdir(parents=True)
    (folder / "Kiew.osm.pbf.part").write_bytes(b"older " * 1000)
    (folder / "Kiew.osm.pbf.json").write_text('"\\"v0\\""')
    assert fetch_extract(server.url, tmp_path, pause_s=0).read_bytes() == server.data


@pytest.mark.parametrize(
    ("faults", "says"),
    [
        (["html"], "web page"),
        (["gone"], "404"),
        (["promises less"], "whole extract"),
        (["error"] * 9, "503"),
    ],
)
def test_what_is_no_extract_never_gets_the_name_of_one(server, tmp_path, faults, says):
    server.faults = list(faults)
    with pytest.raises(WorkError, match=says):
        fetch_extract(server.url, tmp_path, pause_s=0)
    assert not list(tmp_path.rglob("*.pbf"))


def test_a_city_from_a_server_with_one_command(server, tmp_path, run_script):
    args = ("--city", "kyiv", "--source", server.url, "--bbox", SMALL_BOX, "--tiles_root", "tiles", "--jobs", 1)
    result = run_script("render_tiles.py", *args)
    assert "tiles in tiles" in result.stdout and "OpenStreetMap" in result.stdout
    again = run_script("render_tiles.py", *args)
    assert " 0 drawn now" in again.stdout and len(server.requests) == 1


def test_nobody_there_is_a_sentence(tmp_path):
    with pytest.raises(WorkError, match="cannot download"):
        fetch_extract("http://127.0.0.1:9/x.osm.pbf", tmp_path, pause_s=0)


# --- a country's file --------------------------------------------------------------------------------------


def test_a_large_extract_is_cut_to_the_box_without_changing_a_pixel(tmp_path, monkeypatch):
    draw(SAMPLE_EXTRACT, tmp_path / "whole", SMALL_BOX)
    monkeypatch.setattr(osm_extract, "CUT_ABOVE_BYTES", 0)
    read = []
    real = osm_extract.cut_extract
    monkeypatch.setattr(osm_extract, "cut_extract", lambda *args: (read.append(args[2]), real(*args)))
    draw(SAMPLE_EXTRACT, tmp_path / "cut", SMALL_BOX)
    assert len(read) == 2 and not any(path.exists() for path in read)  # for what is drawn, and for the names
    assert content(tmp_path / "cut") == content(tmp_path / "whole")


def test_names_of_a_large_extract_follow_the_boxes_that_are_drawn(tmp_path, monkeypatch):
    monkeypatch.setattr(osm_extract, "CUT_ABOVE_BYTES", 0)
    monkeypatch.setattr(osm_extract, "CUT_MARGIN", 0.0)
    root, (west, east) = tmp_path / "tiles", ("71.40,51.12,71.41,51.13", "71.46,51.12,71.47,51.13")

    def span() -> tuple[float, float]:
        lon = find_place_names(root).latlon[:, 1]
        return float(np.quantile(lon, 0.05)), float(np.quantile(lon, 0.95))

    draw(SAMPLE_EXTRACT, root, west)
    assert span()[1] < 71.44
    read = []
    real = render_tiles.read_place_names
    monkeypatch.setattr(render_tiles, "read_place_names", lambda *args: read.append(args) or real(*args))
    draw(SAMPLE_EXTRACT, root, west)
    assert not read
    draw(SAMPLE_EXTRACT, root, east)
    assert read and span()[0] < 71.42 and span()[1] > 71.45
    draw(SAMPLE_EXTRACT, root, east, force=True)
    assert span()[0] > 71.44


def test_the_index_finds_every_tile_that_a_polygon_covers(map_file):
    """A ring of 20 tiles: tiles on its edge and inside are drawn, tiles in its hole and around it are not listed."""
    outer, inner = map_file.ring(square(1.5, 1.5, 20)), map_file.ring(square(5.5, 5.5, 10))
    map_file.relation([(outer, "outer"), (inner, "inner")], type="multipolygon", natural="water")
    features, style = read_features(map_file.write(), load_style()), load_style()
    area = TileArea(ZOOM, X0, Y0, np.ones((24, 24), dtype=bool))
    index = build_index(features, style, area)
    drawn = np.diff(index.tile_start).reshape(24, 24).T  # by x, then y
    assert drawn[1:22, 1:22].sum() == 21 * 21 - 9 * 9 and drawn.sum() == drawn[1:22, 1:22].sum()
    assert map_index.UNIT % 256 == 0
