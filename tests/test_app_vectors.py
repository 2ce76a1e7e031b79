"""The live app on what has no tiles: a dataset, a file of vectors, and a table of a visitor's own."""

import io
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

import app_controls
import app_first_view
import app_vectors
import exports
import similarity
import vector_city
import vector_dataset
from conftest import REPO, made_up_embeddings, page_json, write_vectors
from explorer_data import SPRITE_QUALITY
from test_streamlit_app import (  # noqa: F401 - fixtures
    cache,
    city_data,
    component,
    components,
    error,
    open_app,
    results,
    said,
    settle,
    warm_cache,
)
from tile_grid import latlon_of_tile

SIDE = 40
PICKED = "91530/43790"  # not blank


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of 40 x 40 made-up tiles in four parts."""
    return write_vectors(tmp_path_factory.mktemp("country") / "country", SIDE, block=20, dtype="float32")


@pytest.fixture(scope="module")
def whole(dataset: Path):
    """All its tiles that show something, in the order of `VectorTiles`."""
    tiles = vector_city.open_vectors(dataset, dataset.parent / "cache")
    return tiles, tiles.read(np.arange(len(tiles)))


def view_count(app: AppTest) -> int:
    """How many tiles the view got."""
    return city_data(components(app, "loc2vec_city")[0])["count"]


# --- reading -----------------------------------------------------------------------------------------------


def test_tiles_are_read_as_they_were_written(whole):
    tiles, embeddings = whole
    x, y = np.meshgrid(np.arange(SIDE) + 91520, np.arange(SIDE) + 43776)
    by_part = [
        made_up_embeddings(np.stack([x[rows, cols].ravel(), y[rows, cols].ravel()], axis=1).astype(np.int32))
        for rows in (slice(0, 20), slice(20, 40))
        for cols in (slice(0, 20), slice(20, 40))
    ]
    written = {
        tuple(xy): (vector, layer)
        for part in by_part
        for xy, vector, layer, blank in zip(
            part.tile_xy.tolist(), part.vectors, part.dominant_layer, part.blank, strict=True
        )
        if not blank
    }
    assert len(tiles) == len(written) < SIDE**2
    for xy, vector, layer in zip(
        embeddings.tile_xy.tolist(), embeddings.vectors, embeddings.dominant_layer, strict=True
    ):
        assert np.array_equal(written[tuple(xy)][0], vector) and written[tuple(xy)][1] == layer
    some = np.array([700, 3, 1200, 3])
    assert np.array_equal(tiles.read(some).vectors, embeddings.vectors[some])


def test_a_file_is_read_like_a_dataset(whole, tmp_path):
    tiles, embeddings = whole
    exports.write_table(embeddings, tmp_path / "city.parquet")
    file = vector_city.open_vectors(tmp_path / "city.parquet", tmp_path)
    rows = file.rows(tiles.tile_xy)
    assert len(file) == len(tiles) and np.array_equal(file.read(rows).vectors, embeddings.vectors)
    vector, where = embeddings.vectors[5], vector_city.place_of(tiles, 5)
    both = [
        [tuple(one.tile_xy[row]) for row in one.search().query(vector, 8, latlon=where, min_km=1.0)[0]]
        for one in (tiles, file)
    ]
    assert both[0] == both[1] and len(both[0]) == 8


def test_only_the_row_groups_that_are_needed_are_read(whole, monkeypatch):
    import pyarrow.parquet as pq

    tiles, _ = whole
    opened, read = [], pq.ParquetFile.read_row_groups
    monkeypatch.setattr(pq.ParquetFile, "read_row_groups", lambda *a, **k: opened.append(a[1]) or read(*a, **k))
    tiles.read(np.flatnonzero(tiles.part == 2)[[0, 5]])
    assert opened == [[0]]


def test_the_overview_covers_the_area_evenly(tmp_path):
    tiles = vector_city.open_vectors(write_vectors(tmp_path / "country", 64, block=32), tmp_path)
    rows = tiles.overview_rows(500)
    cell = (tiles.tile_xy[rows] - tiles.tile_xy.min(axis=0)) // 16
    counts = np.bincount(cell[:, 1] * 4 + cell[:, 0], minlength=16)
    assert len(np.unique(rows)) == 500 and counts.min() > 20 and counts.max() < 45


def test_the_overview_of_millions_reads_some_row_groups_only(whole, monkeypatch):
    tiles, _ = whole
    monkeypatch.setattr(vector_city, "ROW_GROUP", 16)
    monkeypatch.setattr(vector_city, "OVERVIEW_GROUPS", 10)
    rows = tiles.overview_rows(100)
    assert len(np.unique(rows)) == 100 and rows.max() < len(tiles)
    assert len(np.unique(rows // 16)) <= 20
    assert len(tiles.overview_rows(7)) == 7 and len(tiles.overview_rows(105)) == 105


def test_tiles_of_a_rectangle(whole):
    tiles, _ = whole
    rows = tiles.rows_within(91525.5, 43780.2, 91528.1, 43781.9)
    assert set(map(tuple, tiles.tile_xy[rows].tolist())) <= {
        (x, y) for x in range(91525, 91529) for y in (43780, 43781)
    }
    assert len(rows) > 4


# --- the page ----------------------------------------------------------------------------------------------


@pytest.fixture
def open_vectors_app(open_app, dataset, tmp_path) -> Callable[..., AppTest]:  # noqa: F811
    """The app on the dataset, as a visitor meets it."""

    def run(*, address: dict | None = None, vectors: Path = dataset, **flags: object) -> AppTest:
        return open_app(vectors=vectors, cache_dir=tmp_path / "vectors-cache", address=address, **flags)

    return run


def test_the_app_shows_an_overview_of_a_dataset(open_vectors_app, dataset, whole):
    app = open_vectors_app()
    tiles, _ = whole
    assert f"{len(tiles):,} tiles with content" in said(app) and str(dataset) in said(app)
    view = component(app, "loc2vec_view")
    assert view_count(app) == view["projection"]["packed"]["points"]["shape"][0] == len(tiles)
    assert not view["follows"]  # all of it is shown
    assert not app.radio  # there is one page for vectors


def test_max_tiles_limits_the_overview(open_vectors_app):
    app = open_vectors_app(max_tiles=300)
    assert view_count(app) == 300


def test_the_search_finds_what_exact_search_finds_in_all_tiles(open_vectors_app, whole):
    tiles, embeddings = whole
    row = int(tiles.rows(np.array([91530, 43790])))
    exact = similarity.Search(embeddings.vectors, "dot").query(embeddings.vectors[row], 13)[0][0]
    expected = [tuple(embeddings.tile_xy[one].tolist()) for one in exact if one != row]
    app = open_vectors_app(address={"vectors_tile": PICKED})
    assert "Tile 91530, 43790" in said(app)
    found = results(app)
    assert len(set(found) & set(expected[:12])) >= 11  # the index is approximate
    link = app.get("link_button")[0].proto.url
    assert link.startswith("https://www.openstreetmap.org/?mlat=")
    far = results(open_vectors_app(address={"vectors_tile": PICKED, "vectors_min_km": 3.0}))
    assert np.hypot(*(np.array(far) - [91530, 43790]).T).min() > 12


def test_tiles_in_view_are_loaded_and_keep_their_places(open_vectors_app, monkeypatch, whole):
    tiles, _ = whole
    monkeypatch.setattr("app_controls.OVERVIEW", 1000)
    monkeypatch.setattr(app_vectors, "IN_VIEW", 300)
    app = open_vectors_app()
    assert view_count(app) == 1000 and component(app, "loc2vec_view")["follows"]
    assert "1,000 of them in the overview" in said(app)
    app.session_state["vectors ground"] = [91525.0, 43780.0, 91533.0, 43788.0]
    app.run()
    here = tiles.rows_within(91523, 43778, 91535, 43790)
    data = city_data(components(app, "loc2vec_city")[0])
    assert 1000 < data["count"] < 1000 + len(here)
    before = components(app, "loc2vec_city")[0].bytes
    app.session_state["vectors ground"] = [91526.0, 43781.0, 91532.0, 43787.0]  # inside what is loaded
    app.run()
    assert components(app, "loc2vec_city")[0].bytes == before
    app.session_state["vectors ground"] = [91520.0, 43776.0, 91560.0, 43816.0]  # too many tiles
    app.run()
    assert view_count(app) == 1000


def test_the_projection_of_the_overview_is_that_of_loaded_tiles_too(whole):
    tiles, embeddings = whole
    from app_city import place_among, placing
    from projections import project

    first = vector_city.vector_city(tiles, embeddings.take(np.arange(0, len(tiles), 2)))
    projection = project(first.embeddings.vectors, "PCA", 2)
    others = embeddings.vectors[1::2]
    placed = place_among(placing.__wrapped__(first, projection), others)
    mean = first.embeddings.vectors.mean(axis=0)
    axes = np.linalg.svd(first.embeddings.vectors - mean, full_matrices=False)[2][:2]
    expected = (others - mean) @ axes.T
    assert np.abs(np.abs(placed) - np.abs(expected)).max() < 1e-3


def test_a_result_that_is_not_loaded_is_a_pin(open_vectors_app, monkeypatch):
    monkeypatch.setattr("app_controls.OVERVIEW", 1000)
    app = open_vectors_app(address={"vectors_tile": PICKED})
    view = component(app, "loc2vec_view")
    data = city_data(components(app, "loc2vec_city")[0])
    import base64

    shown = np.frombuffer(base64.b64decode(data["arrays"]["tile_xy"]["data"]), np.int32).reshape(-1, 2)
    known = {f"17/{x}/{y}" for x, y in shown.tolist()}
    missing = [one for one in [view["tile"], *view["marked"]] if one not in known]
    assert len(view["pins"]) == len(missing) > 0
    assert all(0 <= pin["point"][0] <= 1.2 for pin in view["pins"])


def test_any_place_and_statistics(open_vectors_app):
    lat, lon = latlon_of_tile(np.array([91530.4, 43790.7]))
    place = {"vectors_lat": round(float(lat), 5), "vectors_lon": round(float(lon), 5)}
    app = open_vectors_app(address={"vectors_below": "Any place", **place})
    assert "Tile 91530, 43790" in said(app) and len(results(app)) == 12
    app = open_vectors_app(address={"vectors_below": "Any place", "vectors_lat": 10, "vectors_lon": 10})
    assert "lies at latitude 10" in error(app)
    app = open_vectors_app(address={"vectors_below": "Statistics"})
    figures = {metric.label: metric.value for metric in app.metric}
    assert figures["Tiles with content"] == f"{sum(app.dataframe[0].value['tiles']):,}"


def test_a_file_of_vectors_opens_too(open_vectors_app, whole, tmp_path):
    exports.write_table(whole[1], tmp_path / "city.parquet")
    app = open_vectors_app(vectors=tmp_path / "city.parquet", address={"vectors_tile": PICKED})
    assert view_count(app) == len(whole[0]) and len(results(app)) == 12


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda _: None, "nothing at"),
        (lambda path: path.mkdir(), "without a dataset"),
        (lambda path: path.write_bytes(b"no parquet"), "cannot be read as Parquet"),
    ],
)
def test_what_is_no_dataset_is_said(open_vectors_app, tmp_path, make, words):
    make(tmp_path / "wrong")
    assert words in error(open_vectors_app(vectors=tmp_path / "wrong"))


def test_a_dataset_with_a_missing_part_is_said(open_vectors_app, dataset, tmp_path):
    copy = shutil.copytree(dataset, tmp_path / "copy", ignore=shutil.ignore_patterns("_index"))
    first = sorted(vector_dataset.DatasetFolder(copy).manifest()["parts"])[0]
    (copy / vector_dataset.part_name(first)).unlink()
    assert "1 of 4 parts" in error(open_vectors_app(vectors=copy))


def test_a_dataset_of_300_000_tiles_stays_small_on_the_wire(open_vectors_app, tmp_path):
    large = write_vectors(tmp_path / "large", 580)
    app = open_vectors_app(vectors=large)
    assert "319,580 tiles" in said(app)
    assert len(components(app, "loc2vec_city")[0].bytes) < 3_000_000
    pictures = [len(found.json or found.mixed.json) for found in components(app, "loc2vec_pictures")]
    assert max(pictures) < 2_000_000


# --- the page of a dataset ---------------------------------------------------------------------------------


def test_a_page_of_a_box_of_a_dataset(run_script, dataset, whole, tmp_path):
    tiles, _ = whole
    south, west = latlon_of_tile(np.array([91525.0, 43795.0]))
    north, east = latlon_of_tile(np.array([91535.0, 43785.0]))
    box = f"{west:.5f},{south:.5f},{east:.5f},{north:.5f}"
    flags = ("--vectors", dataset, "--bbox", box, "--dr_algorithms", "PCA", "--output_dir", tmp_path / "page")
    said_there = run_script("run_interactive_viz.py", "html", *flags).stdout
    expected = tiles.rows_within(91525.6, 43785.6, 91534.4, 43794.4)
    data = page_json(tmp_path / "page" / "index.html")
    assert data["count"] == len(expected) and f"{len(expected)} tiles" in said_there
    assert data["map"]["image"].startswith("data:image/png") and data["map"]["width"] == 10
    assert data["sprites"]["sheets"] and "planes" not in data and data["reasons"] is None
    run_script("run_interactive_viz.py", "html", *flags, "--max_tiles", 20)
    assert page_json(tmp_path / "page" / "index.html")["count"] == 20


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--bbox", "1,2,3,4"), "name a dataset or file with --vectors"),
        (("--vectors", "none"), "nothing at none"),
    ],
)
def test_wrong_use_of_vectors_is_one_message(run_script, flags, words):
    answer = run_script("run_interactive_viz.py", "html", *flags, check=2)
    assert words in answer.stderr and "Traceback" not in answer.stderr


def test_a_box_without_tiles_says_what_the_dataset_covers(run_script, dataset):
    answer = run_script("run_interactive_viz.py", "html", "--vectors", dataset, "--bbox", "1,2,3,4", check=2)
    assert "it covers" in answer.stderr and "(W,S,E,N)" in answer.stderr


def test_a_large_page_is_announced_with_size_and_time(tiny_tiles, tiny_checkpoint, cache, monkeypatch):  # noqa: F811
    import cli
    import interactive_visualizer

    city = interactive_visualizer.load_city(cli.TilesFlags(tiny_tiles, cache_dir=cache), tiny_checkpoint, device="cpu")
    page = interactive_visualizer.PageFlags()
    text = interactive_visualizer.estimate(city, page)
    assert re.search(r"a page of 1\d\d tiles: about \d+ MB, and about .* on this machine", text) and "reasons" in text
    encode, qualities = interactive_visualizer.sheet_uri, []
    monkeypatch.setattr(
        interactive_visualizer,
        "sheet_uri",
        lambda cells, *quality: qualities.append(quality) or encode(cells, *quality),
    )
    assert "reasons" not in interactive_visualizer.estimate(city, interactive_visualizer.PageFlags(reasons=False))
    assert qualities == [(), (SPRITE_QUALITY["many"],)]  # as such a page has them: masks without loss, then pictures
    told = []
    monkeypatch.setattr(interactive_visualizer, "MANY_TILES", 100)
    monkeypatch.setattr(interactive_visualizer, "note", told.append)
    monkeypatch.setattr(interactive_visualizer, "page_data", lambda *_: pytest.fail("stop here"))
    with pytest.raises(pytest.fail.Exception):
        interactive_visualizer.build_page(
            cli.TilesFlags(tiny_tiles, cache_dir=cache), tiny_checkpoint, cli.DeviceFlags("cpu"),
            interactive_visualizer.PageFlags(max_tiles=0),
        )  # fmt: skip
    assert len(told) == 1 and "MB" in told[0]


# --- a visitor's own table ---------------------------------------------------------------------------------


class Upload(io.BytesIO):
    """What `st.file_uploader` gives."""

    def __init__(self, name: str, data: bytes):
        super().__init__(data)
        self.name = name


@pytest.fixture
def upload(open_app, monkeypatch) -> Callable[..., AppTest]:  # noqa: F811
    """The app with a table that somebody uploaded."""

    def run(name: str, data: bytes, **address: object) -> AppTest:
        monkeypatch.setattr(st, "file_uploader", lambda *_, **__: Upload(name, data))
        return open_app(address={"below": "Your table", **address})

    return run


def table_of(count: int = 5) -> pd.DataFrame:
    """Places on the tiny city, and one far away."""
    lat, lon = latlon_of_tile(np.array([[76603.3 + i, 44203.6 + i] for i in range(count)])).T
    return pd.DataFrame({"shop": [*"abcdefgh"[:count], "far"], "lat": [*lat, 10.0], "lon": [*lon, 10.0]})


def test_a_table_gets_vectors_and_pins(upload, tiny_tiles, tiny_checkpoint, cache, tmp_path):  # noqa: F811
    app = upload("shops.csv", table_of().to_csv(index=False).encode())
    assert "5 of 6 rows have a vector" in said(app) and "1 not on a tile of this city" in said(app)
    pins = component(app, "loc2vec_view")["pins"]
    assert np.allclose([pin["tile"] for pin in pins], [[76603.3 + i, 44203.6 + i] for i in range(5)], atol=1e-3)
    assert all(len(pin["point"]) == 2 for pin in pins)
    assert list(app.dataframe[0].value["shop"]) == [*"abcde", "far"]
    assert list(cache.glob("points-*.l2v"))


def test_its_export_is_that_of_embed_py(upload, tiny_tiles, tiny_checkpoint, cache, tmp_path):  # noqa: F811
    import app_points
    import cli
    import embeddings
    from user_tables import read_places

    frame = table_of()
    frame.to_csv(tmp_path / "shops.csv", index=False)
    upload("shops.csv", (tmp_path / "shops.csv").read_bytes())
    city = embeddings.load_city(cli.TilesFlags(tiles_root=tiny_tiles, cache_dir=cache), tiny_checkpoint, device="cpu")
    expected = city.embedder.embed_places(frame[["lat", "lon"]].to_numpy()[:5])
    from cache_files import load_cache

    kept = load_cache(next(cache.glob("points-*.l2v")))
    assert kept is not None
    vectors = kept[0]["vectors"]
    assert np.allclose(vectors[:5], expected, atol=1e-6) and np.isnan(vectors[5]).all()
    table = app_points.EmbeddedTable("shops.csv", read_places(tmp_path / "shops.csv"), vectors, "key")
    for suffix in app_points.FORMATS:
        path = tmp_path / f"back{suffix}"
        path.write_bytes(app_points._exported(table, suffix))
        from user_tables import read_frame

        back = read_frame(path)
        assert list(back["shop"]) == list(frame["shop"]) and len(back) == 6


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("bad.csv", b"a,b\n1,2\n", "expected coordinates in columns such as lat and lon"),
        ("empty.csv", b"lat,lon\n", "has no rows"),
        ("away.csv", b"lat,lon\n10,10\n", "not one of 1 rows is on the map"),
        ("metres.csv", b"lat,lon\n5670000,300000\n", "are not degrees"),
        ("broken.parquet", b"nothing", "cannot be read"),
        ("broken.gpkg", b"nothing", "cannot be read"),
    ],
)
def test_bad_tables_are_said_as_embed_py_says_them(upload, name, data, words):
    app = upload(name, data)
    assert words in error(app) and name in error(app) and "loc2vec-" not in error(app)
    assert component(app, "loc2vec_view")  # the city is there all the same


# --- the first view ----------------------------------------------------------------------------------------


def test_the_second_start_shows_dots_and_map_before_the_sidebar_and_the_city(open_app, monkeypatch, cache):  # noqa: F811
    first = open_app()
    first.run()  # the map is drawn by now
    assert list(cache.glob("first-view-*.l2v"))
    sent = components(first, "loc2vec_city")[0].bytes
    order = []
    open_city = app_vectors_module("open_city")
    monkeypatch.setattr("app_projector.open_city", lambda source: order.append("city") or open_city(source))
    find = app_controls.find_vectors
    monkeypatch.setattr(app_controls, "find_vectors", lambda: order.append("sidebar") or find())
    show = app_vectors_module("show_first_view")
    monkeypatch.setattr("app_projector.show_first_view", lambda *a: order.append("view") or show(*a))
    again = open_app()
    assert order[:3] == ["view", "sidebar", "city"]
    assert components(again, "loc2vec_city")[0].bytes == sent
    view = component(again, "loc2vec_view")
    again.run()
    assert component(again, "loc2vec_view") == view


def app_vectors_module(name: str):
    import app_projector

    return getattr(app_projector, name)


@pytest.mark.parametrize("changed", ["explorer_data.py", "web/live_view.js", "web/live_city.js"])
def test_a_first_view_of_other_code_is_not_shown(open_app, cache, tmp_path, changed):  # noqa: F811
    """What the browser's code expects and what was kept must fit, also after an update of this project."""
    app = open_app()
    app.run()
    (kept,) = cache.glob("first-view-*.l2v")
    code = shutil.copytree(
        REPO,
        tmp_path / "code",
        ignore=lambda _, names: [
            n for n in names if n.startswith((".", "node_modules")) or n in ("tests", "docs", "notebooks")
        ],
    )
    (code / changed).write_text(
        (code / changed).read_text() + ("\n# changed\n" if changed.endswith("py") else "\n// changed\n")
    )
    ask = "import app_first_view; print(app_first_view.code_digest())"
    digests = [
        subprocess.run([sys.executable, "-c", ask], cwd=where, capture_output=True, text=True, check=True).stdout
        for where in (REPO, code)
    ]
    assert kept.exists() and digests[0] != digests[1]


def test_a_changed_tile_makes_a_new_first_view(open_app, tiny_tiles, tmp_path, cache):  # noqa: F811
    tiles = shutil.copytree(tiny_tiles, tmp_path / "tiles")
    app = open_app(tiles_root=tiles)
    if app.button and app.button[0].label == "Compute the vectors":
        app = settle(app.button[0].click().run())
    app.run()
    assert len(list(cache.glob("first-view-*.l2v"))) == 1
    column = next(path for path in (tiles / "roads" / "17").iterdir())
    (column / "1.png").write_bytes(next(column.glob("*.png")).read_bytes())
    import cli
    from app_city import Source

    source = Source(cli.TilesFlags(tiles, cache_dir=cache), Path("none"), None, cli.DeviceFlags("cpu"))
    assert app_first_view.read_first_view(source) is None
