"""Map files as people have them: across 180 degrees, unsorted, without nodes, broken, of another kind, oddly named."""

import json
import shutil
from itertools import chain
from pathlib import Path

import numpy as np
import osmium
import pyarrow.parquet as pq
import pytest
from osmium.osm import mutable
from PIL import Image

import osm_extract
import osm_file
import render_tiles
import tile_area
from cli import UserError
from layers import LAYERS
from map_style import load_style
from osm_extract import read_features
from osm_file import check_whole, cut_extract
from render_tiles import RenderConfig, render
from tile_grid import Box

ZOOM = 17
AROUND = 1 << ZOOM
LON, LAT = 71.43, 51.16
INCOMPLETE = "relations that are incomplete or do not close"


def node(number: int, lon: float, lat: float, **tags: str) -> mutable.Node:
    return mutable.Node(id=number, location=(lon, lat), tags=tags, version=1)


def way(number: int, refs: list[int], **tags: str) -> mutable.Way:
    return mutable.Way(id=number, nodes=refs, tags=tags, version=1)


def relation(number: int, members: list[tuple[int, str]], **tags: str) -> mutable.Relation:
    found = [("w", member, role) for member, role in members]
    return mutable.Relation(id=number, members=found, tags={"type": "multipolygon"} | tags, version=1)


def write(path: Path, objects: list, options: str = "", box: Box | None = None) -> Path:
    header = osmium.io.Header()
    if box is not None:
        header.add_box(osmium.osm.Box(*box))
    file = osmium.io.File(str(path), options) if options else str(path)
    with osmium.SimpleWriter(file, header=header, overwrite=True) as writer:
        for thing in objects:
            kind = type(thing).__name__.lower()
            getattr(writer, f"add_{kind}")(thing)
    return path


def house(first: int, lon: float, lat: float, size: float = 0.002, **tags: str) -> list:
    """Four nodes and a closed way, numbered from `first`."""
    places = [(lon, lat), (lon + size, lat), (lon + size, lat + size), (lon, lat + size)]
    nodes = [node(first + i, *place) for i, place in enumerate(places)]
    return [*nodes, way(first, [*range(first, first + 4), first], **(tags or {"building": "yes"}))]


def in_order(objects: list) -> list:
    kinds = [mutable.Node, mutable.Way, mutable.Relation]
    return sorted(objects, key=lambda thing: (kinds.index(type(thing)), thing.id))


def draw(extract: Path, root: Path, bbox: str | None = None, **settings) -> render_tiles.RenderReport:
    return render(RenderConfig(extract=extract, tiles_root=root, bbox=bbox, **({"jobs": 1} | settings)))


def planes(root: Path, turn: int = 0) -> dict[tuple[str, int, int], bytes]:
    """The pixels of every tile that shows something, by layer, column and row; columns moved `turn` to the east."""
    found = {}
    for path in root.glob("*/17/*/*.png"):
        with Image.open(path) as image:
            pixels = np.asarray(image)
        if pixels.any():
            found[path.parts[-4], (int(path.parts[-2]) + turn) % AROUND, int(path.stem)] = pixels.tobytes()
    return found


def town(middle: float) -> list:
    """Objects of every kind around a meridian; at 180 degrees, most of them cross it."""

    def at(number: int, east: float, north: float, **tags: str) -> mutable.Node:
        lon = middle + east
        return node(number, lon - 360 if lon > 180 else lon, 10 + north, **tags)

    lake = [(-0.001, 0), (0.001, 0.001), (0.005, 0.002), (0.001, 0.003), (-0.001, 0.0035), (-0.005, 0.002)]
    wood = [(-0.004, 0.004), (0.004, 0.004), (0.004, 0.008), (-0.004, 0.008)]
    glade = [(-0.002, 0.005), (0.002, 0.005), (0.002, 0.007), (-0.002, 0.007)]
    nodes = [at(1 + i, *place) for i, place in enumerate(lake)]
    nodes += [at(11 + i, *place) for i, place in enumerate(wood)]
    nodes += [at(21 + i, *place) for i, place in enumerate(glade)]
    nodes += [at(31, -0.006, 0), at(32, 0.006, 0.009), at(41, 0.00001, 0.001, amenity="cafe"), at(42, 0.006, 0.006)]
    nodes += [at(43, -0.00001, 0.009, shop="books"), at(44, -0.003, 0.0085, **{"addr:housenumber": "1"})]
    return [
        *nodes,
        way(1, [1, 2, 3, 4, 5, 6, 1], natural="water"),
        way(2, [11, 12, 13]),
        way(3, [13, 14, 11]),
        way(4, [21, 22, 23, 24, 21]),
        way(5, [31, 32], highway="primary"),
        way(6, [1, 2, 4, 1], building="yes", **{"building:levels": "5"}),
        way(7, [11, 12, 13, 14, 11], landuse="residential"),
        relation(1, [(2, "outer"), (3, "outer"), (4, "inner")], natural="wood"),
    ]


# --- 180 degrees -------------------------------------------------------------------------------------------


def test_a_town_across_180_degrees_looks_like_the_same_town_elsewhere(tmp_path):
    for name, middle in (("far", 180.0), ("near", 0.0)):
        extract = write(tmp_path / f"{name}.osm.pbf", town(middle))
        report = draw(extract, tmp_path / name, labels=tmp_path / f"{name}.parquet")
        assert not report.broken
    far, near = planes(tmp_path / "far"), planes(tmp_path / "near", AROUND // 2)
    assert far == near and len(far) > 40
    assert {x for _, x, _ in far} >= {0, 1, AROUND - 1, AROUND - 2}
    west, south, east, north = json.loads((tmp_path / "far" / "manifest.json").read_text())["bbox"]
    assert west == pytest.approx(179.994) and east == pytest.approx(-179.994) and south < north
    tables = [pq.read_table(tmp_path / f"{name}.parquet").to_pandas() for name in ("far", "near")]
    tables[1]["x"] = (tables[1]["x"] + AROUND // 2) % AROUND
    assert tables[0].equals(tables[1]) and tables[0]["addresses"].sum() == 1
    again = draw(tmp_path / "far.osm.pbf", tmp_path / "far", preview=True)
    assert again.drawn == 0 and len(again.outputs) == 14


@pytest.mark.parametrize(
    "bbox", ["179.997,10.001,-179.996,10.006", "179.9961,10.0,179.9999,10.005", "-179.99,10,-179.95,10.02"]
)
def test_a_box_at_180_degrees_shows_the_same_pixels(bbox, tmp_path):
    extract = write(tmp_path / "far.osm.pbf", town(180.0))
    draw(extract, tmp_path / "whole")
    report = draw(extract, tmp_path / "part", bbox)
    whole = planes(tmp_path / "whole")
    inside = {tuple(place) for place in report.area.tile_xy.tolist()}
    assert planes(tmp_path / "part") == {key: pixels for key, pixels in whole.items() if key[1:] in inside}
    assert 0 < len(inside) < 400


def test_the_sea_goes_on_across_180_degrees(tmp_path):
    for name, middle, east in (("far", 180.0, -179.99), ("near", 0.0, 0.01)):
        shore = [node(1, middle - 0.01, 10.004), node(2, east, 10.006)]  # water lies south of it
        extract = write(tmp_path / f"{name}.osm.pbf", [*shore, way(1, [1, 2], natural="coastline")])
        draw(extract, tmp_path / name, f"{middle - 0.01},10,{east},10.01")
    far = planes(tmp_path / "far")
    assert far == planes(tmp_path / "near", AROUND // 2) and len(far) > 10


@pytest.mark.parametrize("header", [None, (-180.0, -22.0, 180.0, 12.0), (179.0, 9.0, -179.0, 11.0)])
def test_places_on_both_sides_of_180_degrees_are_one_area(header, tmp_path, capsys):
    objects = in_order(house(1, 179.98, 10) + house(11, -179.99, 10.01))
    extract = write(tmp_path / "both.osm.pbf", objects, box=header)
    report = draw(extract, tmp_path / "tiles")
    assert report.tiles < 200 and report.layers["buildings"]["objects"] == 2
    boxed = draw(extract, tmp_path / "boxed", "179.97,9.99,-179.98,10.02")
    assert boxed.layers == report.layers and not capsys.readouterr().err
    band = draw(extract, tmp_path / "band", "-180,-22,180,12")
    assert band.layers == report.layers and band.tiles == report.tiles
    assert "where the objects are" in capsys.readouterr().err


@pytest.mark.parametrize("bbox", ["179.995,-85.0,-179.995,-84.9995", "179.995,85.0495,-179.995,85.0511"])
def test_a_box_across_180_degrees_near_a_pole(bbox, tmp_path):
    extract = write(tmp_path / "far.osm.pbf", [*town(180.0)[:6], way(1, [1, 2, 3, 1], natural="water")])
    report = draw(extract, tmp_path / "tiles", bbox)
    columns = set(report.area.tile_xy[:, 0].tolist())
    assert columns == {AROUND - 2, AROUND - 1, 0, 1} and not planes(tmp_path / "tiles")


# --- boxes that hold little --------------------------------------------------------------------------------


@pytest.mark.parametrize("box", [None, (0.0, 0.0, LON + 0.01, LAT + 0.01)], ids=["no header", "header"])
def test_a_stray_node_is_named_and_does_not_stretch_the_box(box, tmp_path, capsys):
    objects = [node(50, 0, 0, amenity="cafe"), *house(1, LON, LAT)]
    report = draw(write(tmp_path / "stray.osm.pbf", in_order(objects), box=box), tmp_path / "tiles")
    assert report.tiles <= 9 and report.layers["buildings"]["objects"] == 1
    said = capsys.readouterr().err
    assert "node 50 at 0.00000, 0.00000" in said and "--bbox" in said


def test_a_way_with_one_node_far_away_is_named_and_drawn_where_the_rest_is(tmp_path, capsys):
    objects = [*house(1, LON, LAT), node(50, 0, 0), way(60, [1, 50], highway="primary")]
    report = draw(write(tmp_path / "stray.osm.pbf", in_order(objects)), tmp_path / "tiles")
    assert report.tiles <= 9 and report.layers["roads"] == {"objects": 1, "tiles": 1}
    assert "way 60 at 0.00000, 0.00000" in capsys.readouterr().err


def test_islands_belong_to_the_area(tmp_path):
    """Two groups of many objects: neither is a mistake, however far apart they are."""
    objects = [thing for i in range(8) for thing in house(1 + 10 * i, LON + 0.3 * (i % 2) + 0.003 * i, LAT)]
    report = draw(write(tmp_path / "islands.osm.pbf", in_order(objects)), tmp_path / "tiles")
    assert report.layers["buildings"]["objects"] == 8


def test_of_a_box_with_too_many_tiles_those_near_something_are_drawn(tmp_path, monkeypatch, capsys):
    objects = [thing for i in range(8) for thing in house(1 + 10 * i, LON + 0.1 * i, LAT + 0.1 * i)]
    extract = write(tmp_path / "line.osm.pbf", in_order(objects))
    whole = draw(extract, tmp_path / "whole", zoom=15, labels=tmp_path / "whole.parquet")
    for module in (tile_area, render_tiles):
        monkeypatch.setattr(module, "MAX_TILES", 200)
    report = draw(extract, tmp_path / "near", zoom=15, labels=tmp_path / "near.parquet", preview=True)
    assert whole.tiles > 4000 and 8 * 6 <= report.tiles <= 200
    assert report.layers == whole.layers
    assert "lie next to one that does" in capsys.readouterr().err
    rows = pq.read_table(tmp_path / "whole.parquet").to_pandas().set_index(["x", "y"])
    near = pq.read_table(tmp_path / "near.parquet").to_pandas().set_index(["x", "y"])
    assert rows.loc[near.index].equals(near)
    monkeypatch.setattr(tile_area, "MAX_TILES", 20)
    with pytest.raises(UserError, match="tiles at zoom 15 hold something"):
        draw(extract, tmp_path / "none", zoom=15)


# --- locations on ways -------------------------------------------------------------------------------------


def city() -> list:
    objects = [
        *house(1, LON, LAT, natural="wood"),
        *house(11, LON + 0.0005, LAT + 0.0005, 0.001),
        node(50, LON, LAT, amenity="cafe"),
    ]
    objects += [way(60, [1, 13], highway="primary"), relation(1, [(1, "outer"), (11, "inner")], leisure="park")]
    return in_order(objects)


def locations_on_ways(source: Path, out: Path) -> Path:
    """What `osmium add-locations-to-ways` writes: untagged nodes go, ways bring their locations."""
    kind = "pbf" if out.suffix == ".pbf" else out.suffix[1:]
    with osmium.SimpleWriter(osmium.io.File(str(out), f"{kind},locations_on_ways=true")) as writer:
        for found in osmium.FileProcessor(str(source)).with_locations():
            if not found.is_node() or len(found.tags):
                writer.add(found)
    return out


@pytest.mark.parametrize("suffix", ["osm.pbf", "opl"])
@pytest.mark.parametrize("large", [False, True], ids=["read", "cut"])
def test_files_with_locations_on_ways_are_read_as_they_are(suffix, large, tmp_path, monkeypatch):
    usual = write(tmp_path / "usual.osm.pbf", city())
    draw(usual, tmp_path / "usual")
    bare = locations_on_ways(usual, tmp_path / f"bare.{suffix}")
    bbox = None
    if large:
        monkeypatch.setattr(osm_extract, "CUT_ABOVE_BYTES", 0)
        bbox = f"{LON},{LAT},{LON + 0.002},{LAT + 0.002}"
    report = draw(bare, tmp_path / "bare", bbox)
    found = planes(tmp_path / "bare")
    assert found == planes(tmp_path / "usual") and found and not report.broken


# --- order -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "order",
    [
        lambda thing: {"Way": 0, "Node": 1, "Relation": 2}[type(thing).__name__],
        lambda thing: {"Relation": 0, "Way": 1, "Node": 2}[type(thing).__name__],
        lambda thing: ({"Node": 0, "Way": 1, "Relation": 2}[type(thing).__name__], -thing.id),
    ],
    ids=["ways first", "relations first", "falling ids"],
)
@pytest.mark.parametrize("suffix", ["osm", "osm.pbf", "osm.gz"])
def test_unsorted_files_are_sorted(order, suffix, tmp_path, capsys):
    draw(write(tmp_path / "usual.osm.pbf", city()), tmp_path / "usual")
    mixed = write(tmp_path / f"mixed.{suffix}", sorted(city(), key=order))
    draw(mixed, tmp_path / "mixed")
    assert planes(tmp_path / "mixed") == planes(tmp_path / "usual")
    assert "is not sorted" in capsys.readouterr().err


def test_of_an_object_that_occurs_twice_the_newer_version_counts(tmp_path):
    """Overpass and merged extracts repeat objects."""
    path = write(tmp_path / "twice.osm.pbf", [*city(), *city()])
    report = draw(path, tmp_path / "tiles")
    assert report.layers["buildings"]["objects"] == 1 and report.layers["amenities"]["objects"] == 1


def test_a_large_unsorted_file_gets_the_command_that_sorts(tmp_path, monkeypatch):
    path = write(tmp_path / "Київ map.osm.pbf", list(reversed(city())))
    monkeypatch.setattr(osm_file, "SORT_BELOW_BYTES", 0)
    with pytest.raises(UserError, match=r"osmium sort '.*Київ map.osm.pbf' -o"):
        read_features(path, load_style())
    with pytest.raises(UserError, match=r"not sorted: .* comes after a way or relation.*osmium sort"):
        cut_extract(path, (LON, LAT, LON + 1, LAT + 1), tmp_path / "cut.osm.pbf")


# --- broken geometry ---------------------------------------------------------------------------------------


def test_a_file_of_broken_geometry_alone_is_repaired_or_named(tmp_path):
    bow = [*house(1, LON, LAT)[:4], way(1, [1, 3, 2, 4, 1], natural="wood")]
    report = draw(write(tmp_path / "bow.osm.pbf", bow), tmp_path / "bow")
    assert report.repaired and report.layers["natural-features"]["objects"] == 1
    for refs, name in (([1, 2, 1, 2, 1], "way 7"), ([1, 2, 3], "way 7"), ([91, 92, 93, 91], "way 7")):
        path = write(tmp_path / "nothing.osm.pbf", [*bow[:4], way(7, refs, natural="wood")])
        with pytest.raises(UserError, match=f"holds nothing that can be drawn: 1 .*{name}"):
            draw(path, tmp_path / "nothing")


def test_ways_with_missing_nodes_are_drawn_in_part_or_named(tmp_path):
    objects = [*house(1, LON, LAT), way(61, [1, 999], highway="primary"), way(62, [998, 1, 3, 999], highway="primary")]
    objects += [way(63, [1, 2, 999, 4, 1], natural="wood"), relation(1, [(1, "outer"), (99, "outer")], natural="wood")]
    report = draw(write(tmp_path / "gaps.osm.pbf", in_order(objects)), tmp_path / "tiles")
    assert report.named == {
        "ways with missing nodes, drawn in part": ["way 61", "way 62"],
        "closed ways with missing nodes, left out": ["way 63"],
        INCOMPLETE: ["relation 1"],
    }
    assert report.layers["roads"]["objects"] == 1


# --- beyond Web Mercator -----------------------------------------------------------------------------------


@pytest.mark.parametrize("lat", [85.2, -89.0])
def test_objects_beyond_web_mercator_are_counted_and_left_out(lat, tmp_path):
    beyond = [*house(11, LON, lat)[:4], way(17, [11, 12, 13, 11], building="yes"), node(50, LON, lat, amenity="cafe")]
    with pytest.raises(UserError, match=r"2 objects beyond Web Mercator.*way 17"):
        draw(write(tmp_path / "pole.osm.pbf", in_order(beyond)), tmp_path / "none")
    report = draw(write(tmp_path / "both.osm.pbf", in_order(beyond + house(1, LON, LAT))), tmp_path / "tiles")
    assert report.tiles <= 9 and sorted(chain(*report.named.values())) == ["node 50", "way 17"]


def test_what_reaches_over_the_edge_of_web_mercator_is_drawn_up_to_it(tmp_path):
    objects = [
        node(1, 30, 85.05),
        node(2, 30.01, 85.05),
        node(3, 30.01, 86),
        node(4, 30, 86),
        way(1, [1, 2, 3, 4, 1], natural="water"),
    ]
    report = draw(write(tmp_path / "edge.osm.pbf", objects), tmp_path / "tiles")
    assert report.area.tile_xy[:, 1].min() == 0 and planes(tmp_path / "tiles")


# --- other kinds of files ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["city.osh.pbf", "named.osm.pbf", "city.osm", "city.osm.bz2"])
def test_a_history_file_is_said_to_be_one(name, tmp_path):
    first, second, *others = house(1, LON, LAT)
    moved = mutable.Node(id=1, location=(LON + 0.001, LAT), version=2)
    path = write(
        tmp_path / "written.osh.pbf" if name == "named.osm.pbf" else tmp_path / name, [first, moved, second, *others]
    )
    if name == "named.osm.pbf":
        path = path.rename(tmp_path / name)
    with pytest.raises(UserError, match=r"is a history file.*osmium time-filter .* -o CITY.osm.pbf"):
        draw(path, tmp_path / "tiles")


def test_change_files_and_objects_that_were_never_uploaded_are_named(tmp_path):
    with pytest.raises(UserError, match=r"change file.*osmium apply-changes"):
        draw(write(tmp_path / "hour.osc", house(1, LON, LAT)), tmp_path / "tiles")
    new = [node(-1, LON, LAT), node(-2, LON + 0.001, LAT), way(-1, [-1, -2], highway="primary")]
    with pytest.raises(UserError, match=r"negative ids.*node -1.*osmium renumber"):
        draw(write(tmp_path / "new.osm", new), tmp_path / "tiles")


def test_a_file_that_ends_early_is_said_to_be_cut_short(tmp_path):
    """At every byte, but for the ends of blocks and the three bytes after them: from there a file can go on or end."""
    whole = write(tmp_path / "whole.osm.pbf", city()).read_bytes()
    path, silent = tmp_path / "part.osm.pbf", []
    check_whole(write(tmp_path / "whole.osm.pbf", city()))
    for size in range(0, len(whole), 1):
        path.write_bytes(whole[:size])
        try:
            check_whole(path)
            silent.append(size)
        except UserError as error:
            assert any(words in str(error) for words in ("cut short", "no map data", "not a readable"))
    assert len(silent) <= 8
    path.write_bytes(whole[: len(whole) - 9])
    with pytest.raises(UserError, match="cut short"):
        read_features(path, load_style())


@pytest.mark.parametrize("suffix", ["osm", "osm.gz", "osm.bz2", "opl"])
def test_other_formats_are_whole_or_not_too(suffix, tmp_path):
    path = write(tmp_path / f"city.{suffix}", city())
    partial = path.with_name("download.part")
    shutil.copy(path, partial)
    check_whole(partial, path.name)
    if suffix != "opl":  # lines of text: a shorter file is a whole one
        partial.write_bytes(path.read_bytes()[:-20])
        with pytest.raises(UserError):
            check_whole(partial, path.name)


def test_every_path_may_hold_blanks_quotes_percent_signs_and_any_letters(tmp_path, run_script):
    folder = tmp_path / '100% "Київ" it\'s  here'
    folder.mkdir()
    extract = write(folder / "місто 50%.osm.pbf", list(reversed(city())))
    args = ("--tiles_root", folder / "tiles ü", "--labels", folder / "label's %20.parquet", "--preview", "--jobs", 2)
    result = run_script("render_tiles.py", extract, *args)
    assert "місто 50%.osm.pbf is not sorted" in result.stderr
    assert pq.read_table(folder / "label's %20.parquet").num_rows > 0
    assert (folder / "tiles ü" / "preview" / "city.png").exists()
    assert len(planes(folder / "tiles ü")) > 10 and {key[0] for key in planes(folder / "tiles ü")} <= set(LAYERS)
