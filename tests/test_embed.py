"""embed.py: from an extract to vectors in one pass, for tiles, points, areas and cells; search in what it wrote."""

import dataclasses
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import geopandas
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import shapely
import torch

import embed
import inference
import streaming
import tile_images
from area_vectors import area_means, tiles_within
from checkpoint import load_checkpoint
from cli import StopRequested, TilesFlags, UserError
from conftest import REPO, made_up_embeddings, page_json, save_untrained, script_env
from embeddings import Embeddings, load_city
from exports import read_export, write_table
from files import locked
from layers import LAYERS
from osm_file import cut_extract
from render_tiles import SAMPLE_EXTRACT, RenderConfig, parse_box, render
from similarity import shared_layers
from tile_area import TileArea
from tile_facts import ZONES, compass_zones
from tile_grid import area_bounds, latlon_of_tile, tile_of_latlon
from tile_workers import start_workers

BOX = "71.420,51.124,71.440,51.134"  # 8 x 7 tiles in the middle of the sample city
TABLE = "назва;широта;довгота\nКава;51,128;71,43\nb;51,1251;71,4213\nc;;\nd;10;10\ne;95;20\n"


@pytest.fixture(scope="module")
def ground(tmp_path_factory):
    """A piece of the sample city as an extract and as PNG tiles, and two untrained encoders."""
    folder = tmp_path_factory.mktemp("ground")
    cut_extract(SAMPLE_EXTRACT, (71.40, 51.11, 71.46, 51.145), folder / "city.osm.pbf")
    save_untrained(folder / "multiscale.pth", 256, 16, architecture="multiscale")
    save_untrained(folder / "loc2vec.pth", 64, 16)
    render(RenderConfig(extract=folder / "city.osm.pbf", bbox=BOX, tiles_root=folder / "tiles", jobs=1))
    return folder


@pytest.fixture(scope="module")
def from_pngs(ground):
    """The city by the way of PNG files, for each encoder."""
    tiles = TilesFlags(tiles_root=ground / "tiles", cache_dir=ground / "cache")
    return {name: load_city(tiles, ground / f"{name}.pth", device="cpu") for name in ("multiscale", "loc2vec")}


@pytest.fixture
def run(ground, tmp_path, monkeypatch, capsys):
    """`run("--h3", 9)`: the command in this process, in a folder of its own; returns what it printed."""
    monkeypatch.chdir(tmp_path)

    def call(*args, model="multiscale", box=BOX):
        command = ["embed.py", ground / "city.osm.pbf", "--bbox", box, "--jobs", 1, "--device", "cpu"]
        command += ["--model_path", ground / f"{model}.pth", *args]
        monkeypatch.setattr(sys, "argv", list(map(str, command)))
        embed.main()
        return capsys.readouterr().out

    return call


def streamed(ground, name, folder, jobs=1, **options):
    with start_workers(jobs, streaming.PRELOAD) as pool:
        drawing = streaming.open_drawing(ground / "city.osm.pbf", parse_box(BOX), 17, folder)
        checkpoint = load_checkpoint(ground / f"{name}.pth")
        return streaming.embed_city(drawing, checkpoint, pool, jobs, device="cpu", **options)


# --- tiles -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["multiscale", "loc2vec"])
@pytest.mark.parametrize("jobs", [1, 2])
def test_vectors_and_facts_are_those_of_the_png_route(ground, from_pngs, tmp_path, name, jobs):
    expected, found = from_pngs[name].embeddings, streamed(ground, name, tmp_path, jobs).embeddings
    np.testing.assert_allclose(found.vectors, expected.vectors, atol=2e-6)
    assert found.key == expected.key and len(found) == 56 and found.vectors.std(axis=0).min() > 1e-4
    for fact in ("tile_xy", "dominant_layer", "zone", "density", "blank", "layer_intensity", "content"):
        np.testing.assert_array_equal(getattr(found, fact), getattr(expected, fact), err_msg=fact)


@pytest.mark.parametrize("name", ["multiscale", "loc2vec"])
def test_no_device_is_to_hold_tiles_that_are_drawn_when_they_are_asked_for(ground, tmp_path, monkeypatch, name):
    """They count as 0 bytes, which fit into any GPU."""
    real, asked = inference.TileDataset, []

    def dataset(store, device, resident=None):
        asked.append(resident)
        return real(store, device, resident)

    monkeypatch.setattr(inference, "TileDataset", dataset)
    streamed(ground, name, tmp_path)
    assert asked and not any(resident is not False for resident in asked)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", ["multiscale", "loc2vec"])
def test_a_gpu_embeds_what_is_drawn(ground, tmp_path, name):
    with start_workers(1, streaming.PRELOAD) as pool:
        drawing = streaming.open_drawing(ground / "city.osm.pbf", parse_box(BOX), 17, tmp_path)
        city = streaming.embed_city(drawing, load_checkpoint(ground / f"{name}.pth"), pool, 1, device="cuda")
    (tmp_path / "cpu").mkdir()
    expected = streamed(ground, name, tmp_path / "cpu").embeddings.vectors
    assert (city.embeddings.vectors * expected).sum(axis=1).min() > 0.999


def test_a_block_beyond_180_degrees_knows_where_it_is_in_the_whole_area(tmp_path):
    around = 1 << 17
    block = TileArea(17, around + 2, 40_000, np.ones((4, 4), dtype=bool))
    like = SimpleNamespace(tile_size=64, shrink="mean")
    plane_of, none = np.zeros((16, len(LAYERS)), np.int32), np.zeros(0)
    tiles = streaming.DrawnTiles.of(tmp_path, block, None, like, plane_of, {}, none, none)
    assert tiles.tile_xy[:, 0].max() == 5 and tiles.unwrapped_xy[:, 0].min() == around + 2
    corners = np.array([(around - 8, 39_998), (around + 7, 40_005)])  # of an area whose east is this block
    assert all("east" in ZONES[zone].lower() for zone in compass_zones(tiles.unwrapped_xy, corners))


def test_some_tiles_have_the_vectors_that_they_have_among_all(ground, from_pngs, tmp_path):
    rows = np.array([3, 30, 31])
    found = streamed(ground, "multiscale", tmp_path, rows=rows).embeddings
    np.testing.assert_allclose(found.vectors, from_pngs["multiscale"].embeddings.vectors[rows], atol=2e-6)


def test_parquet_of_all_tiles_opens_everywhere(run, from_pngs, tmp_path):
    said = run()
    assert re.search(r"wrote 56 tiles .* 16 numbers each, to city\.parquet", said) and "OpenStreetMap" in said
    frame = geopandas.read_parquet("city.parquet")
    assert {"zoom", "x", "y", "latitude", "longitude", "content_density", "embedding"} <= set(frame.columns)
    np.testing.assert_allclose(np.stack(frame["embedding"]), from_pngs["multiscale"].embeddings.vectors, atol=2e-6)
    assert frame.crs.is_geographic and frame.geometry.is_valid.all()
    about = json.loads(pq.read_schema("city.parquet").metadata[b"loc2vec"])
    assert about["checkpoint"] == from_pngs["multiscale"].embeddings.model_key
    assert [path.name for path in tmp_path.iterdir()] == ["city.parquet"], "nothing unfinished is left"


@pytest.mark.parametrize("suffix", [".csv", ".geojson", ".gpkg", ".npy"])
def test_tiles_in_every_format(run, from_pngs, suffix):
    run("-o", f"out{suffix}")
    expected = from_pngs["multiscale"].embeddings.vectors
    if suffix == ".npy":
        found = np.load("out.npy")
    elif suffix == ".geojson":
        found = np.stack(
            geopandas.read_file("out.geojson")["embedding"].map(lambda v: json.loads(v) if isinstance(v, str) else v)
        )
    else:
        frame = pd.read_csv("out.csv") if suffix == ".csv" else geopandas.read_file("out.gpkg")
        found = frame[[f"e{i}" for i in range(16)]].to_numpy()
    np.testing.assert_allclose(found, expected, atol=2e-6)


@pytest.mark.slow
def test_the_explorer_of_an_embedded_city(run):
    said = run("--map")
    assert "city_map.html" in said
    data = page_json(Path("city_map.html"))
    assert data["count"] == 56 - read_export(Path("city.parquet")).blank.sum() and data["title"] == "City"
    assert data["attribution"] == "© OpenStreetMap contributors"
    with pytest.raises(UserError, match="shows the tiles"):
        run("--map", "--h3", 9)


def test_pictures_of_drawn_tiles_are_those_of_the_pngs(ground, from_pngs, tmp_path):
    """The explorer's pictures come from planes that are drawn again."""
    for name in ("multiscale", "loc2vec"):
        folder = tmp_path / name
        folder.mkdir()
        drawn, expected = streamed(ground, name, folder).pictures, from_pngs["multiscale"].store
        np.testing.assert_array_equal(
            tile_images.pictures(drawn, np.arange(56)), tile_images.pictures(expected, np.arange(56))
        )


# --- stopping and going on ---------------------------------------------------------------------------------


def run_stopped(run, monkeypatch, count, **options):
    """Begin `out.parquet`; a signal stops the pass after some blocks of tiles."""
    whole = streaming.completed

    def stopped(*args):
        for number, done in enumerate(whole(*args)):
            if number == count:
                raise StopRequested(signal.SIGTERM)
            yield done

    with monkeypatch.context() as patch:
        patch.setattr(streaming, "completed", stopped)
        with pytest.raises(StopRequested):
            run("-o", "out.parquet", **options)


def same_tables(one: Path, other: Path) -> None:
    a, b = read_export(one), read_export(other)
    np.testing.assert_array_equal(a.tile_xy, b.tile_xy)
    np.testing.assert_array_equal(a.vectors, b.vectors)


def test_a_stopped_pass_goes_on_where_it_was(run, tmp_path, monkeypatch):
    run("-o", "calm.parquet")
    run_stopped(run, monkeypatch, 2)
    scratch = tmp_path / ".out.parquet.partial"
    assert not (tmp_path / "out.parquet").exists() and list(scratch.glob("part-*.l2v"))
    drawn, whole = [], streaming._embed_metatile

    def counted(job, tiles, *rest):
        drawn.append(len(tiles))
        return whole(job, tiles, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(streaming, "_embed_metatile", counted)
        patch.setattr(streaming, "read_features", None)  # what was read is not read again
        run("-o", "out.parquet")
    assert 0 < sum(drawn) < 56
    same_tables(tmp_path / "calm.parquet", tmp_path / "out.parquet")
    assert not scratch.exists()


def test_unfinished_work_that_is_damaged_or_of_another_command_is_not_used(run, tmp_path, monkeypatch):
    run("-o", "calm.parquet")
    for damage in ("part", "area", "box"):
        run_stopped(run, monkeypatch, 1, box="71.40,51.12,71.42,51.13" if damage == "box" else BOX)
        for path in (tmp_path / ".out.parquet.partial").glob(f"{damage}*.l2v"):
            data = bytearray(path.read_bytes())
            data[len(data) // 2] ^= 1
            path.write_bytes(data)
        run("-o", "out.parquet")
        same_tables(tmp_path / "calm.parquet", tmp_path / "out.parquet")


def test_a_kill_while_unfinished_work_is_removed(run, tmp_path, monkeypatch):
    """At several steps of the removal; the next run starts again instead of trusting what is left."""
    run("-o", "calm.parquet")
    unlink, scratch = os.unlink, tmp_path / ".out.parquet.partial"
    for step in itertools.count(step=5):
        left = [step]

        def killed(path, *, dir_fd=None, left=left):
            if dir_fd is not None or scratch in Path(path).parents:
                if not left[0]:
                    raise KeyboardInterrupt
                left[0] -= 1
            unlink(path, dir_fd=dir_fd)

        with monkeypatch.context() as patch:
            patch.setattr(os, "unlink", killed)
            try:
                run("-o", "out.parquet")
            except KeyboardInterrupt:
                assert scratch.exists()
            else:
                break
        run("-o", "out.parquet")
        assert not scratch.exists()
        same_tables(tmp_path / "calm.parquet", tmp_path / "out.parquet")
    assert step > 5


def test_a_kill_while_the_index_of_another_box_is_written(run, tmp_path, monkeypatch):
    run("-o", "calm.parquet")
    run_stopped(run, monkeypatch, 2)
    with monkeypatch.context() as patch:
        patch.setattr(streaming, "save_cache", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run("-o", "out.parquet", box="71.40,51.12,71.42,51.13")
    run("-o", "out.parquet")
    same_tables(tmp_path / "calm.parquet", tmp_path / "out.parquet")


def test_two_processes_do_not_write_one_output(run, tmp_path):
    (tmp_path / ".out.parquet.partial").mkdir()
    with locked(tmp_path / ".out.parquet.partial" / "work.lock"), pytest.raises(UserError, match="another process"):
        run("-o", "out.parquet")


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_and_the_same_command_goes_on(ground, tmp_path, signum):
    command = [
        sys.executable,
        str(REPO / "embed.py"),
        str(SAMPLE_EXTRACT),
        "--model_path",
        str(ground / "multiscale.pth"),
    ]
    command += ["--bbox", "71.40,51.11,71.46,51.145", "--jobs", "2", "--device", "cpu"]
    process = subprocess.Popen(command, cwd=tmp_path, env=script_env(), stderr=subprocess.PIPE, text=True)
    while not list(tmp_path.glob(".astana.parquet.partial/area.l2v")):
        time.sleep(0.05)
    process.send_signal(signum)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 128 + signum and "Traceback" not in said
    subprocess.run(command, cwd=tmp_path, env=script_env(), check=True, capture_output=True)
    assert [path.name for path in tmp_path.iterdir()] == ["astana.parquet"]


# --- points ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["multiscale", "loc2vec"])
def test_points_keep_their_rows_and_columns(run, from_pngs, tmp_path, name):
    (tmp_path / "shops.csv").write_bytes(TABLE.encode("cp1251"))
    said = run("--points", "shops.csv", model=name)
    assert "5 rows (3 have no vector: 1 without coordinates, 1 with impossible coordinates, 1 outside the map)" in said
    frame = pd.read_parquet("shops_vectors.parquet")
    assert frame["назва"].tolist() == ["Кава", "b", "c", "d", "e"]
    assert frame["embedding"].isna().tolist() == [False, False, True, True, True]
    expected = from_pngs[name].embedder.embed_places(np.array([(51.128, 71.43), (51.1251, 71.4213)]))
    np.testing.assert_allclose(np.stack(frame["embedding"][:2]), expected, atol=2e-6)


@pytest.mark.parametrize("name", ["multiscale", "loc2vec"])
def test_many_points_are_shared_among_processes(ground, from_pngs, tmp_path, monkeypatch, name):
    rng = np.random.default_rng(0)
    west, south, east, north = area_bounds(from_pngs[name].store.tile_xy, 17)
    places = np.column_stack([rng.uniform(south, north, 40), rng.uniform(west, east, 40)])
    monkeypatch.setattr(streaming, "FEW_PLACES", 5)
    monkeypatch.setattr(streaming, "PLACES_AT_ONCE", 16)
    city = streamed(ground, name, tmp_path)
    with start_workers(2, streaming.PRELOAD) as pool:
        found = streaming.embed_places(city, places, pool, 2)
    np.testing.assert_allclose(found, from_pngs[name].embedder.embed_places(places), atol=2e-6)


POINTS = {
    "absent.csv": (None, "no file at"),
    "empty.csv": ("", "no rows|not a regular"),
    "header.csv": ("lat,lon\n", "no rows"),
    "names.csv": ("a,b\n1,2\n", "--lat COLUMN"),
    "words.csv": ("lat,lon\nhere,there\n", "expected numbers"),
    "swapped.csv": ("lat,lon\n71.43,51.128\n", "swapped"),
    "metres.csv": ("lat,lon\n5665000,310000\n", "not degrees.*--crs"),
    "elsewhere.csv": ("lat,lon\n50.45,30.52\n", "not one of 1 rows"),
    "nothing.csv": ("lat,lon,a\n,,x\n", "expected numbers|no row"),
    "ragged.csv": ("lat,lon\n1,2\n1,2,3,4\n", "not a regular CSV"),
    "page.geojson": ("<html>404</html>", "cannot be read"),
    "half.parquet": ("PAR1", "cannot be read"),
    "table.xlsx": ("PK", "expected .csv"),
}


@pytest.mark.parametrize("name", POINTS)
def test_a_table_that_cannot_be_used_gets_a_sentence(run, tmp_path, name):
    text, message = POINTS[name]
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=message):
        run("--points", name)
    assert not list(tmp_path.glob("*.parquet.partial")) and not list(tmp_path.glob(".*partial"))


ABSENT = "cuda" if torch.backends.mps.is_available() else "mps"  # no machine has both
WRONG_USE = {
    "no extract": ([], "no extract given"),
    "absent extract": (["absent.osm.pbf"], "no extract at absent.osm.pbf"),
    "not an extract": (["text.osm.pbf"], "text.osm.pbf"),
    "box elsewhere": (["CITY", "--bbox", "10,10,11,11"], "holds nothing of"),
    "box in another order": (["CITY", "--bbox", "51,71,52,72,1"], "west,south,east,north"),
    "two commands": (["CITY", "--points", "a.csv", "--h3", "9"], "give one of them"),
    "unknown output": (["CITY", "-o", "out.xlsx"], "expected one of"),
    "unknown city": (["--city", "atlantis"], "atlantis is not known"),
    "numbers of a dataset": (["CITY", "--dtype", "int8"], "--dtype can only be given for a dataset"),
    "blocks of a dataset": (["CITY", "--points", "a.csv", "--block_tiles", "64"], "name a folder/ with -o"),
    "uneven blocks": (["CITY", "-o", "city/", "--block_tiles", "100"], "100 given, a power of two such as 64 or 128"),
    "no cluster": (["CITY", "-o", "city/", "--address", "auto"], "--address can only be given for --engine ray"),
    "columns of no table": (["CITY", "--lat", "a", "--lon", "b"], "--lat and --lon can only be given for the table"),
    "system of no file": (["CITY", "--h3", "9", "--crs", "EPSG:3857"], "--crs can only be given for the file"),
    "a search for nothing": (["CITY", "--min_km", "2"], "name a place with --query"),
    "no such resolution": (["CITY", "--h3", "16"], "expected 0 to 15"),
    "too many cells": (["CITY", "--bbox", BOX, "--h3", "15"], "choose a smaller number"),
    "a device that is not there": (["CITY", "--device", ABSENT], f"--device {ABSENT} is not available"),
    "and for a dataset": (["CITY", "-o", "city/", "--device", ABSENT], f"--device {ABSENT} is not available"),
    "its own input": (["CITY", "--points", "own.csv", "-o", "own.csv"], "is the file that is read"),
    "no checkpoint": (["CITY", "--model_path", "absent.pth"], "no checkpoint at absent.pth"),
    "a query and a table": (
        ["--query", "1,2", "--from", "a.parquet", "--points", "b.csv"],
        "--points can only be given for",
    ),
    "a query and a city": (["--query", "1,2", "--from", "a.parquet", "--city", "kyiv"], "--city can only be given for"),
    "a query and an output": (["--query", "1,2", "--from", "a.parquet", "-o", "b.csv"], "-o and --engine can only be"),
    "an address and a source": (["https://a/b.osm.pbf", "--source", "c.osm.pbf"], "name one extract"),
    "a query without a file": (["--query", "1,2"], "--from"),
    "a query in nothing": (["--query", "1,2", "--from", "absent.parquet"], "nothing at absent.parquet"),
    "a query in another file": (["--query", "1,2", "--from", "other.parquet"], "has no column"),
    "a query in a damaged file": (["--query", "1,2", "--from", "text.osm.pbf"], "cannot be read as Parquet"),
}


@pytest.mark.parametrize("kind", WRONG_USE)
def test_wrong_use_gets_a_sentence(ground, tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.osm.pbf").write_text("no map at all")
    (tmp_path / "own.csv").write_text("lat,lon\n51.128,71.43\n")
    pd.DataFrame({"a": [1]}).to_parquet(tmp_path / "other.parquet")
    args, message = WRONG_USE[kind]
    given = [str(ground / "city.osm.pbf") if arg == "CITY" else arg for arg in args]
    model = [] if "--model_path" in args else ["--model_path", str(ground / "loc2vec.pth")]
    monkeypatch.setattr(sys, "argv", ["embed.py", *given, *model, "--jobs", "1"])
    with pytest.raises(UserError, match=re.escape(message)):
        embed.main()
    assert not list(tmp_path.glob(".*.partial"))


def test_a_search_on_another_machine_is_refused(run_script):
    said = run_script("embed.py", "--query", "51.1,71.4", "--from", "s3://bucket/country/", check=2).stderr
    assert "s3://bucket/country/ is read from this machine only" in said


@pytest.mark.slow
def test_the_script_ends_with_code_2_and_no_traceback(run_script, ground, tmp_path):
    (tmp_path / "swapped.csv").write_text("lat,lon\n71.43,51.128\n")
    said = run_script(
        "embed.py", ground / "city.osm.pbf", "--model_path", ground / "loc2vec.pth", "--points", "swapped.csv", check=2
    )
    assert "swapped" in said.stderr and "Traceback" not in said.stderr


# --- areas and cells ---------------------------------------------------------------------------------------


def outline(tile_xy, width=1.0):
    (north, west), (south, east) = latlon_of_tile(np.array([tile_xy, np.add(tile_xy, (width, 1))]), 17).tolist()
    return shapely.box(west, south, east, north)


def test_the_vector_of_an_area_is_the_mean_of_its_tiles(run, from_pngs, tmp_path):
    city = from_pngs["multiscale"].embeddings
    first = city.tile_xy[20]
    row, below = city.rows(first), city.rows(first + np.array([1, 0]))
    shapes = [outline(first), outline(first + np.array([0.5, 0])), shapely.box(0, 0, 1, 1)]
    frame = geopandas.GeoDataFrame(
        {"district": ["a", "b", "far"], "tiles": [7, 8, 9]}, geometry=shapes, crs="EPSG:4326"
    )
    frame.to_crs("EPSG:3857").to_file(tmp_path / "districts.gpkg")
    said = run("--areas", "districts.gpkg", "-o", "out.parquet")
    assert "3 areas (1 have no vector: outside the map)" in said
    found = geopandas.read_parquet("out.parquet")
    assert found["district"].tolist() == ["a", "b", "far"] and found["tiles"].tolist() == [7, 8, 9]
    np.testing.assert_allclose(found["embedding"][0], city.vectors[row], atol=1e-4)
    np.testing.assert_allclose(found["embedding"][1], (city.vectors[row] + city.vectors[below]) / 2, atol=1e-4)
    assert found["embedding"][2] is None and found["tiles_"][2] == 0
    np.testing.assert_allclose(found["share_covered"], [1, 1, 0], atol=1e-6)


def test_areas_across_180_degrees():
    tile_xy = np.array([[131071, 70000], [0, 70000]], dtype=np.int32)
    embeddings = Embeddings(tile_xy, np.eye(2, dtype=np.float32), 17, "", *[np.zeros(2)] * 6, model_key="")
    (north, west), (south, east) = latlon_of_tile(np.array([[131071, 70000], [131073, 70001]]), 17).tolist()
    parts = [shapely.box(west, south, 180, north), shapely.box(-180, south, east - 360, north)]
    found = area_means(np.array([shapely.MultiPolygon(parts), shapely.box(west, south, east, north)]), embeddings)
    np.testing.assert_allclose(found.vectors, 0.5, atol=1e-6)
    np.testing.assert_allclose(found.covered, 1, atol=1e-6)


CANADA = shapely.Polygon([(-141, 60), (-95, 49), (-52, 47), (-62, 82), (-141, 70)])
WORLD = shapely.box(-180, -85, 180, 85)
RING = shapely.box(60, 40, 80, 60).difference(shapely.box(71, 51, 72, 52))  # the city is in its hole
RUSSIA = shapely.Polygon([(30, 45), (170, 50), (-170, 65), (60, 80)])  # across 180 degrees in one ring


@pytest.mark.parametrize(
    ("shape", "inside"),
    [(CANADA, 0), (WORLD, 1), (RING, 0), (RUSSIA, 1), (shapely.GeometryCollection([WORLD, shapely.Point(0, 0)]), 1)],
    ids=["other side", "world", "hole", "across", "collection"],
)
def test_wide_areas_keep_their_shape(shape, inside):
    tile_xy = np.array([[91552 + i, 43776 + j] for i in range(4) for j in range(4)], dtype=np.int32)
    vectors = np.tile(np.eye(4, dtype=np.float32), (4, 1))
    embeddings = Embeddings(tile_xy, vectors, 17, "", *[np.zeros(16)] * 6, model_key="")
    shapes = np.array([shape, None, shapely.Point(71.4, 51.1)], dtype=object)
    found = area_means(shapes, embeddings)
    assert found.tiles.tolist() == [16 * inside, 0, 0] and len(tiles_within(shapes, tile_xy, 17)) == 16 * inside
    assert np.isfinite(found.vectors[0]).all() == bool(inside)


def test_h3_cells_cover_the_city(run, from_pngs):
    import h3

    run("--h3", 9)
    found = geopandas.read_parquet("city_h3_9.parquet")
    assert (
        found["h3"].is_unique and found["h3"].map(h3.is_valid_cell).all() and found["share_covered"].between(0, 1).all()
    )
    lat, lon = from_pngs["multiscale"].embeddings.latlon.mean(axis=0)
    middle = found.set_index("h3").loc[h3.latlng_to_cell(lat, lon, 9)]
    assert middle["share_covered"] == pytest.approx(1) and middle["tiles"] > 1
    tiles = geopandas.GeoSeries(shapely.box(*area_bounds(from_pngs["multiscale"].store.tile_xy, 17)), crs="EPSG:4326")
    assert found.union_all().buffer(1e-9).contains(tiles.union_all())


def test_areas_that_cannot_be_used_get_a_sentence(run, tmp_path):
    (tmp_path / "points.geojson").write_text(shapely.to_geojson(shapely.Point(71, 51)))
    (tmp_path / "far.geojson").write_text(shapely.to_geojson(shapely.box(0, 0, 1, 1)))
    for name, message in (("points", "expected polygons"), ("far", "not one of 1 areas"), ("absent", "no file")):
        with pytest.raises(UserError, match=message):
            run("--areas", f"{name}.geojson")


# --- search ------------------------------------------------------------------------------------------------


def test_blank_tiles_say_nothing_of_what_is_usual(tmp_path, monkeypatch, capsys):
    tile_xy = np.stack(np.meshgrid(np.arange(91540, 91560), np.arange(43770, 43790)), axis=-1).reshape(-1, 2)
    city = made_up_embeddings(tile_xy.astype(np.int32))
    blank = city.blank | (np.arange(len(city)) % 4 > 0)
    blank[0] = False
    city = dataclasses.replace(city, blank=blank, layer_intensity=np.where(blank[:, None], 0, city.layer_intensity))
    write_table(city, tmp_path / "city.parquet")
    place = ",".join(map(str, city.latlon[0]))
    monkeypatch.setattr(
        sys, "argv", ["embed.py", "--query", place, "--from", str(tmp_path / "city.parquet"), "--k", "9"]
    )
    embed.main()
    said = [line.split("  ")[-1] for line in capsys.readouterr().out.splitlines()[2:]]
    content = np.flatnonzero(~blank)
    likeness = city.vectors[content] @ city.vectors[0]
    nearest = content[np.argsort(-likeness)[1:10]]
    expected = [
        [
            ", ".join(names) or "-"
            for names in shared_layers(city.layer_intensity[0], city.layer_intensity[nearest], some)
        ]
        for some in (city.layer_intensity[content], city.layer_intensity)
    ]
    assert said == expected[0] != expected[1]


def test_search_in_written_files(run, from_pngs, tmp_path, monkeypatch, capsys):
    run()
    run("-o", "other.parquet", model="loc2vec")

    def ask(*args):
        monkeypatch.setattr(sys, "argv", ["embed.py", "--query", "51.128,71.43", *args])
        embed.main()
        return capsys.readouterr().out

    said = ask("--from", "city.parquet", "--k", "3")
    city = from_pngs["multiscale"].embeddings
    own = int(city.rows(np.floor(tile_of_latlon(np.array(51.128), np.array(71.43), 17)).astype(int)))
    nearest = np.argsort(-(city.vectors @ city.vectors[own]) + 9 * (np.arange(len(city)) == own) + 9 * city.blank)[:3]
    links = re.findall(r"openstreetmap\.org/\?mlat=([\d.]+)&mlon=([\d.]+)", said)
    np.testing.assert_allclose(np.array(links, dtype=float), city.latlon[nearest], atol=1e-5)
    far = ask("--from", "city.parquet", "--in", "city.parquet", "--min_km", "0.9", "--k", "60")
    away = [float(line.split()[4]) for line in far.splitlines()[2:] if "openstreetmap" in line]
    assert away and min(away) >= 0.9 and "only" in far
    table, layers = pq.read_table("city.parquet").to_pandas(), said.splitlines()
    intensity = np.sqrt(np.stack(table["layer_intensity"]))
    excess = (intensity - intensity.mean(axis=0)) / (intensity.std(axis=0) + 1e-9)
    for line, row in zip(layers[2:], nearest, strict=True):
        both = np.minimum(excess[own], excess[row])
        assert line.split("  ")[-1] == (
            ", ".join(np.array(LAYERS)[np.argsort(-both)[: min(3, (both > 0).sum())]]) or "-"
        )
    for wrong, message in (
        (["--from", "city.parquet"], "--from can only be given for a search"),
        (["city.osm.pbf", "--query", "51,71", "--from", "city.parquet"], "no extract"),
        (["--query", "51,71"], "needs --from"),
    ):
        monkeypatch.setattr(sys, "argv", ["embed.py", *wrong])
        with pytest.raises(UserError, match=message):
            embed.main()
    with pytest.raises(UserError, match="different encoders"):
        ask("--from", "city.parquet", "--in", "other.parquet")
    monkeypatch.setattr(sys, "argv", ["embed.py", "--query", "0,0", "--from", "city.parquet"])
    with pytest.raises(UserError, match=r"no tile of city\.parquet"):
        embed.main()
