"""The live app without a browser: every mode, every failure, what is kept and what is never computed twice."""

import base64
import gzip
import json
import os
import re
import shutil
import sys
import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import streamlit as st
from PIL import Image
from streamlit.testing.v1 import AppTest

import app_city
import app_jobs
import app_pictures
import cli
import embeddings
import inference
import progress_bars
import projections
import similarity
import tile_images
from conftest import REPO, make_tiles, save_untrained
from front_end import WEB
from pretrained import PRETRAINED
from reasons import PLACE_PARTS
from test_front_end import run_node
from tile_grid import latlon_of_tile

PROJECTOR, SEARCH, COMPARE = "Embedding projector", "Similarity Search (Annoy)", "Compare checkpoints"
TIMEOUT_S = 120


@pytest.fixture(scope="session")
def warm_cache(tiny_tiles: Path, tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder that already holds the tiny city's vectors: copy it, never write to it."""
    cache = tmp_path_factory.mktemp("warm") / "cache"
    embeddings.load_city(cli.TilesFlags(tiles_root=tiny_tiles, cache_dir=cache), tiny_checkpoint, device="cpu")
    return cache


@pytest.fixture
def cache(warm_cache: Path, tmp_path: Path) -> Path:
    return shutil.copytree(warm_cache, tmp_path / "cache")


@pytest.fixture
def open_app(
    tiny_tiles: Path, tiny_checkpoint: Path, cache: Path, tmp_path: Path, monkeypatch
) -> Callable[..., AppTest]:
    """`open_app(mode, flag=value, address={...})`: the app as a visitor meets it, run until nothing is pending."""
    st.cache_data.clear()
    st.cache_resource.clear()
    monkeypatch.chdir(tmp_path)

    def run(mode: str = PROJECTOR, *, address: dict | None = None, **flags: object) -> AppTest:
        flags = {"model_path": tiny_checkpoint, "tiles_root": tiny_tiles, "cache_dir": cache, "device": "cpu"} | flags
        argv = [part for name, value in flags.items() for part in (f"--{name}", str(value))]
        monkeypatch.setattr(sys, "argv", ["streamlit_app.py", *argv])
        app = AppTest.from_file(str(REPO / "streamlit_app.py"), default_timeout=TIMEOUT_S)
        for name, value in {"mode": mode, **(address or {})}.items():
            app.query_params[name] = str(value)
        return settle(app.run())

    return run


def settle(app: AppTest) -> AppTest:
    """Run the app as its own timer would until no work is shown any more."""
    deadline = time.monotonic() + TIMEOUT_S
    while app.get("progress") and time.monotonic() < deadline:
        time.sleep(0.1)
        app.run()
    assert not app.exception, app.exception
    return app


def said(app: AppTest) -> str:
    """Everything the page says in words, as Markdown shows it."""
    elements = [*app.markdown, *app.caption, *app.info, *app.warning, *app.error]
    return shown("\n".join(str(element.value) for element in elements))


def shown(markdown: str) -> str:
    return re.sub(r"\\(.)", r"\1", markdown)


def error(app: AppTest) -> str:
    """The error that the page shows."""
    assert len(app.error) == 1, app.error
    return shown(app.error[0].value)


def components(app: AppTest, name: str) -> list:
    """All components `name` on the page."""
    return [element.proto for element in app.get("bidi_component") if element.proto.component_name == name]


def component(app: AppTest, name: str) -> dict:
    """What Python handed to the component `name`, as the browser gets it."""
    found = components(app, name)
    assert found, f"no {name} on the page"
    return json.loads(found[0].json or found[0].mixed.json)


def city_data(city: Any) -> dict:
    """What the component "loc2vec_city" tells the browser about the tiles."""
    return json.loads(gzip.decompress(city.bytes[32:]))


def results(app: AppTest) -> list[tuple[int, int]]:
    """The tiles of the last gallery, in order."""
    return [tuple(map(int, item["id"].split("/"))) for item in component(app, "loc2vec_gallery")["items"]]


# --- projector ---------------------------------------------------------------------------------------------


def test_the_projector_shows_every_tile_with_content(open_app):
    app = open_app()
    view = component(app, "loc2vec_view")
    assert view["projection"]["name"] == "PCA" and view["projection"]["dimensions"] == 2
    shown = view["projection"]["packed"]["points"]["shape"][0]
    assert f"{shown:,} tiles of 32 px" in said(app)
    assert 100 < shown <= 144


def test_colouring_reaches_the_view(open_app):
    app = open_app(address={"colour": "Geographic zone"})
    assert component(app, "loc2vec_view")["colour"] == "zone"
    for colour in ("layer", "density", "cluster", "similarity", "principal"):
        app.selectbox(key="colour").set_value(colour).run()
        assert component(app, "loc2vec_view")["colour"] == colour


def test_app_and_page_colour_alike(open_app):
    app = open_app()
    in_page = city_data(components(app, "loc2vec_city")[0])["colourings"]
    assert len(in_page) == 6 and app.selectbox(key="colour").options == [entry["label"] for entry in in_page]


def test_switching_algorithm_and_dimensions_computes_with_progress_and_keeps_it(open_app, cache):
    app = open_app()
    app.segmented_control(key="algorithm").set_value("TSNE").run()
    settle(app)
    view = component(app, "loc2vec_view")
    assert view["projection"]["name"].startswith("t\u2011SNE (perplexity")
    assert list(cache.glob("projection-tsne-2d-*"))
    app.segmented_control(key="algorithm").set_value("PCA")
    app.segmented_control(key="dimensions").set_value(3).run()
    view = component(app, "loc2vec_view")
    assert view["projection"]["packed"]["points"]["shape"][1] == 3


def test_the_main_parameters_change_the_picture(open_app):
    app = open_app(address={"algorithm": "t-SNE"})
    before = component(app, "loc2vec_view")["projection"]
    app.slider(key="perplexity").set_value(10.0).run()
    after = component(settle(app), "loc2vec_view")["projection"]
    assert before["packed"]["points"]["data"] != after["packed"]["points"]["data"]
    assert "perplexity 10" in after["name"]


@pytest.mark.slow
def test_umap_with_its_parameters(open_app):
    app = open_app(address={"algorithm": "UMAP", "n_neighbors": 5, "min_dist": 0.5})
    assert component(app, "loc2vec_view")["projection"]["name"] == "UMAP (n neighbors 5, min dist 0.5)"


def test_what_is_computed_is_never_computed_again(open_app, monkeypatch):
    app = open_app(address={"algorithm": "t-SNE"})
    app.segmented_control(key="algorithm").set_value("PCA").run()

    def refuse(*_, **__):
        raise AssertionError("computed again")

    monkeypatch.setattr(projections, "_compute", refuse)
    monkeypatch.setattr(inference.Embedder, "embed_batches", refuse)
    app.selectbox(key="colour").set_value("zone").run()
    app.segmented_control(key="algorithm").set_value("TSNE").run()
    assert component(settle(app), "loc2vec_view")["projection"]["name"].startswith("t")


def test_a_picked_tile_is_shown_with_the_tiles_most_like_it(open_app, tiny_tiles):
    app = open_app(address={"projector_tile": "76606/44206"})
    assert "Tile 76606, 44206" in said(app)
    near = results(app)
    assert len(near) == 12 and (76606, 44206) not in near
    assert component(app, "loc2vec_view")["tile"] == "17/76606/44206"


@pytest.mark.parametrize(
    ("tab", "searches", "walks"),
    [("Picked tile", 1, 0), ("Any place", 1, 0), ("A + B − C", 1, 0), ("Statistics", 1, 0), ("Walk", 1, 1)],
)
def test_a_click_searches_once(open_app, monkeypatch, tab, searches, walks):
    slots = {"a_tile": "76606/44206", "b_tile": "76603/44206", "c_tile": "76608/44203"}
    app = open_app(address={**slots, "below": tab, "projector_tile": "76606/44206"})
    asked, walked = [], []
    query, walk = similarity.Search.query, similarity.walk
    monkeypatch.setattr(similarity.Search, "query", lambda *a, **k: asked.append(a) or query(*a, **k))
    monkeypatch.setattr(similarity, "walk", lambda *a, **k: walked.append(a) or walk(*a, **k))
    app.query_params["projector_tile"] = "76603/44203"
    app.run()
    assert component(app, "loc2vec_view")["tile"] == "17/76603/44203"
    assert (len(asked), len(walked)) == (searches, walks)


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_query_and_a_comparison_search_once_a_city(open_app, monkeypatch, tiny_checkpoint, side):
    mode, address = (SEARCH, {"panel": "In the embedding"}) if side == "left" else (COMPARE, {"with": tiny_checkpoint})
    app = open_app(mode, address={"query_tile": "76606/44206", **address})
    asked, query = [], similarity.Search.query
    monkeypatch.setattr(similarity.Search, "query", lambda *a, **k: asked.append(a) or query(*a, **k))
    app.query_params["query_tile"] = "76603/44203"
    app.run()
    assert len(asked) == (1 if mode == SEARCH else 2)


def test_a_click_beside_all_tiles_keeps_a_tile_that_the_page_needs():
    def page() -> None:
        import streamlit as st

        import app_address

        st.session_state["query_way"] = app_address.RANDOM
        for slot in ("query", "projector"):
            app_address.set_picked(slot, (1, 2))
            app_address.set_clicked(slot, None, None)

    address = AppTest.from_function(page).run().query_params
    assert "query_tile" in address and "projector_tile" not in address


def test_arithmetic_of_picked_tiles(open_app):
    app = open_app(address={"below": "A + B − C", "projector_tile": "76606/44206"})
    assert "put them into A, B and C" in said(app)
    for slot, tile in (("a", "76606/44206"), ("b", "76603/44206"), ("c", "76608/44203")):
        app.query_params["projector_tile"] = tile
        app.run()
        app.button(key=f"put {slot}").click().run()
    found, view = results(app), component(app, "loc2vec_view")
    slots = ["17/76606/44206", "17/76603/44206", "17/76608/44203"]
    assert len(found) == 12 and not {f"17/{x}/{y}" for x, y in found} & set(slots)
    assert view["marked"] == [*(f"17/{x}/{y}" for x, y in found), *slots]
    assert view["labels"][-4:] == ["12", "A", "B", "C"] and not view["path"]
    app.button(key="empty b").click().run()
    assert "put them into A, B and C" in said(app) and "b_tile" not in app.query_params


def test_arithmetic_finds_what_the_vectors_say(open_app, tiny_tiles, tiny_checkpoint, cache):
    tiles = [(76606, 44206), (76603, 44206), (76608, 44203)]
    address = {f"{slot}_tile": f"{x}/{y}" for slot, (x, y) in zip("abc", tiles, strict=True)}
    app = open_app(address={"below": "A + B − C", **address})
    flags = cli.TilesFlags(tiles_root=tiny_tiles, cache_dir=cache)
    city = embeddings.load_city(flags, tiny_checkpoint, device="cpu").embeddings.with_content()
    a, b, c = city.vectors[city.rows(np.array(tiles))]
    order = np.argsort(-(city.vectors @ (a + b - c)))
    expected = [xy for xy in map(tuple, city.tile_xy[order].tolist()) if xy not in tiles]
    assert results(app) == expected[:12]


def test_a_walk_between_two_tiles(open_app):
    ends = {"a_tile": "76606/44206", "b_tile": "76603/44203"}
    app = open_app(address={"below": "Walk", **ends})
    way, view = results(app), component(app, "loc2vec_view")
    assert way[0] == (76606, 44206) and way[-1] == (76603, 44203) and len(set(way)) == len(way) == 10
    assert view["path"] and view["marked"] == [f"17/{x}/{y}" for x, y in way]
    assert view["labels"] == ["A", *"12345678", "B"]
    app = open_app(address={"below": "Walk", **ends, "b_tile": ends["a_tile"]})
    assert results(app) == [(76606, 44206)]


def test_statistics(open_app):
    app = open_app(address={"below": "Statistics"})
    figures = {metric.label: metric.value for metric in app.metric}
    assert figures["Dimensions"] == "16"
    assert 0.5 < float(figures["Trustworthiness"]) <= 1
    assert sum(app.dataframe[0].value["tiles"]) == int(figures["Tiles shown"].replace(",", ""))


@pytest.mark.parametrize("way", ["Any place", "Latitude, longitude"])
def test_any_place_between_tile_centres(open_app, way):
    lat, lon = latlon_of_tile(np.array([76606.9, 44206.1]))
    key = "place" if way == "Any place" else "query"
    address = {"below": way} if key == "place" else {"query_way": way}
    mode = PROJECTOR if key == "place" else SEARCH
    app = open_app(mode, address={**address, f"{key}_lat": round(lat, 5), f"{key}_lon": round(lon, 5)})
    assert f"{lat:.5f}, {lon:.5f}" in said(app)
    assert (76606, 44206) in results(app) or (76607, 44206) in results(app) or (76607, 44205) in results(app)


# --- similarity search -------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", similarity.METRICS)
def test_search_finds_what_exact_search_finds(open_app, metric, tiny_tiles, tiny_checkpoint, cache):
    app = open_app(SEARCH, address={"metric": metric.capitalize(), "query_tile": "76606/44206", "results": 7})
    flags = cli.TilesFlags(tiles_root=tiny_tiles, cache_dir=cache)
    city = embeddings.load_city(flags, tiny_checkpoint, device="cpu").embeddings.with_content()
    row = int(city.rows(np.array([[76606, 44206]]))[0])
    exact = similarity.Search(city.vectors, metric).query(city.vectors[row], 8)[0][0]
    expected = [tuple(map(int, city.tile_xy[other])) for other in exact if other != row]
    assert results(app) == expected[:7]
    notes = [item["note"] for item in component(app, "loc2vec_gallery")["items"]]
    assert notes[0].startswith("1. distance 0.") and re.search(r"\n(both|only there) [a-z]", notes[0])


def test_search_by_coordinates_and_with_a_distance_on_the_ground(open_app):
    address = {"query_way": "Coordinate input", "query_x": 76605, "query_y": 44205, "min_km": 1.0}
    app = open_app(SEARCH, address=address)
    assert "Tile 76605, 44205" in said(app)
    from_here = np.array(results(app)) - [76605, 44205]
    assert np.hypot(*from_here.T).min() > 4  # a tile is about 0.19 km wide here


def test_another_random_tile_is_another_tile(open_app):
    app = open_app(SEARCH)
    seen = set()
    for _ in range(5):
        app.button(key="query random").click().run()
        seen.add(str(app.query_params["query_tile"]))
    assert len(seen) > 2


def test_the_gallery_has_pages(open_app):
    first = open_app(SEARCH, address={"query_way": "Browse gallery"})
    second = open_app(SEARCH, address={"query_way": "Browse gallery", "query_page": 2})
    pages = [component(app, "loc2vec_gallery")["items"] for app in (first, second)]
    assert len(pages[0]) == 24 and {item["id"] for item in pages[0]}.isdisjoint(item["id"] for item in pages[1])
    assert pages[0][0]["picture"].startswith("data:image/")


def test_side_by_side_shows_every_distance_and_what_matches(open_app):
    app = open_app(SEARCH, address={"query_tile": "76606/44206"})
    figures = {metric.label: metric.value for metric in app.metric}
    assert {"Angular ●", "Euclidean", "Manhattan", "Dot", "Cosine", "On the ground"} <= set(figures)
    cosine, angular = float(figures["Cosine"]), float(figures["Angular ●"])
    assert angular == pytest.approx(np.sqrt(2 - 2 * cosine), abs=0.05)
    assert "Why they match" in said(app)


def test_reasons_say_how_much_is_the_place_itself_and_how_much_its_surroundings(open_app, multiscale_checkpoint):
    app = open_app(SEARCH, model_path=multiscale_checkpoint, address={"query_tile": "76606/44206"})
    if app.button:  # no vectors are cached for this checkpoint
        app = settle(app.button[0].click().run())
    (chart,) = [json.loads(element.proto.spec) for element in app.get("plotly_chart") if element.proto.id]
    assert set(PLACE_PARTS) < set(chart["data"][0]["y"])


def test_results_are_ringed_in_the_embedding(open_app):
    app = open_app(SEARCH, address={"query_tile": "76606/44206", "panel": "In the embedding", "results": 5})
    view = component(app, "loc2vec_view")
    assert view["tile"] == "17/76606/44206"
    assert view["marked"] == [f"17/{x}/{y}" for x, y in results(app)]


def test_recall_and_latency_are_measured_beside_the_parameters(open_app):
    app = open_app(SEARCH, address={"panel": "Index"})
    figures = {metric.label: metric.value for metric in app.metric}
    assert figures["Recall of the 10 nearest"] == "100.0%"
    assert float(figures["Median query"].removesuffix(" ms")) > 0


def test_search_with_a_place_of_another_city(open_app, tmp_path):
    other = make_tiles(tmp_path / "elsewhere" / "tiles", nx=5, ny=5, px=32, x0=1000, y0=2000, seed=5)
    app = open_app(SEARCH, address={"from": str(other)})
    app.button(key=next(b.key for b in app.button if "start" in (b.key or ""))).click().run()
    settle(app)
    assert any(f"Tile {x}, " in said(app) for x in range(1000, 1005))
    assert all(x > 70000 for x, _ in results(app))


# --- two checkpoints ---------------------------------------------------------------------------------------


def test_two_checkpoints_on_the_same_tiles(open_app, tmp_path, tiny_checkpoint, tiny_tiles, cache):
    other = tmp_path / "checkpoints" / "other.pth"
    save_untrained(other, embedding_dim=8, seed=7)
    embeddings.load_city(cli.TilesFlags(tiles_root=tiny_tiles, cache_dir=cache), other, device="cpu")
    app = open_app(COMPARE, address={"with": str(other), "query_tile": "76606/44206"})
    figures = {metric.label: metric.value for metric in app.metric}
    assert 0 < int(figures["Neighbours shared: city"].rstrip("%")) < 100
    assert (
        "checkpoints/other.pth" in app.selectbox(key="with").options or str(other) in app.selectbox(key="with").options
    )
    app = open_app(COMPARE, address={"with": str(tiny_checkpoint)})
    assert {metric.label: metric.value for metric in app.metric}["Neighbours shared: city"] == "100%"


def test_a_checkpoint_is_compared_with_another_one_if_there_is_one(open_app):
    bundled = os.path.relpath(PRETRAINED)
    assert open_app(COMPARE).selectbox(key="with").value == bundled
    assert open_app(COMPARE, model_path=bundled).selectbox(key="with").options == [bundled]


# --- two cities --------------------------------------------------------------------------------------------


def test_a_place_is_found_in_another_city_and_back(open_app, tmp_path, tiny_checkpoint, tiny_tiles, cache):
    other = make_tiles(tmp_path / "coast" / "tiles", 8, 8, 64, x0=1000, y0=900, seed=3)
    places = [
        embeddings.load_city(
            cli.TilesFlags(tiles_root=root, cache_dir=cache), tiny_checkpoint, device="cpu"
        ).embeddings.with_content()
        for root in (tiny_tiles, other)
    ]
    address = {"compare": "Two cities", "with_tiles": str(other), "first_tile": "76606/44206"}
    app = open_app(COMPARE, address=address)
    assert "This place in Coast" in said(app)
    row = int(places[0].rows(np.array([76606, 44206])))
    best = places[1].vectors @ places[0].vectors[row]
    found = results(app)
    rows = places[1].rows(np.array(found))
    assert best[rows] == pytest.approx(np.sort(best)[::-1][: len(found)], abs=1e-5) and len(found) == 12
    here, there = [json.loads(view.json or view.mixed.json) for view in components(app, "loc2vec_view")]
    assert here["tile"] == "17/76606/44206" and here["marked"] == []
    assert there["marked"] == [f"17/{x}/{y}" for x, y in found]

    # the first one is picked there, and looked for here
    app.query_params["second_tile"] = "/".join(map(str, found[0]))
    app.run()
    next(button for button in app.button if "Find the picked tile" in button.label).click().run()
    back = places[0].vectors @ places[1].vectors[rows[0]]
    found = results(app)
    assert back[places[0].rows(np.array(found))] == pytest.approx(np.sort(back)[::-1][:12], abs=1e-5)
    views = [json.loads(view.json or view.mixed.json) for view in components(app, "loc2vec_view")]
    assert [f"17/{x}/{y}" for x, y in found] in [view["marked"] for view in views]


def test_a_city_is_not_compared_with_itself(open_app):
    app = open_app(COMPARE, address={"compare": "Two cities"})
    assert "Choose the tiles folder of another city" in said(app)


# --- large cities, odd names ---------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [PROJECTOR, SEARCH, COMPARE])
def test_opening_a_city_reads_only_the_tiles_on_the_screen(open_app, monkeypatch, tiny_checkpoint, mode):
    """No second pack at picture size, no picture of a tile that nobody sees: a province has 372,502 tiles."""
    read, read_planes = [], app_pictures.read_planes
    monkeypatch.setattr(app_pictures, "read_planes", lambda paths, *a: read.extend(paths) or read_planes(paths, *a))
    monkeypatch.setattr(embeddings.City, "pictures", property(lambda _: pytest.fail("packed at picture size")))
    app = open_app(mode, address={"query_tile": "76606/44206", "with": tiny_checkpoint})
    assert component(app, "loc2vec_gallery" if mode != PROJECTOR else "loc2vec_view")
    tiles = {tuple(path.rsplit("/", 2)[1:]) for path in read}
    assert len(tiles) <= (0 if mode == PROJECTOR else 25)


def test_a_sheet_of_pictures_comes_when_it_is_asked_for(open_app, tiny_tiles, tiny_checkpoint, cache):
    app = open_app()
    view, city = component(app, "loc2vec_view"), components(app, "loc2vec_city")[0]
    data = city_data(city)
    assert data["sprites"]["sheets"] == [] and not data["map"]["image"]
    maps = [json.loads(found.json or found.mixed.json) for found in components(app, "loc2vec_pictures")]
    assert any(found.get("map", "").startswith("data:image/webp") for found in maps)
    source = app_city.Source(cli.TilesFlags(tiny_tiles, cache_dir=cache), tiny_checkpoint, None, cli.DeviceFlags("cpu"))
    opened = app_city.compute_city(source)
    count, order = len(opened.embeddings), app_pictures.view_order(opened)
    assert sorted(order) == list(range(count)) and data["count"] == count
    sheet = Image.open(BytesIO(base64.b64decode(app_pictures.sheet_uri(opened, 1).split(",")[1])))
    assert sheet.size == (256, 256)
    expected = tile_images.pictures(opened.pictures, opened.rows[order[16:17]], 64)[0].astype(int)
    assert np.abs(np.asarray(sheet)[:64, :64] - expected).mean() < 4  # WebP loses a little
    assert view["city"].encode() == city.bytes[:32]


def test_a_tile_that_cannot_be_read_is_grey_and_the_others_are_shown(open_app, tmp_path, tiny_checkpoint, cache):
    tiles = make_tiles(tmp_path / "tiles", nx=5, ny=5, px=32)
    source = app_city.Source(cli.TilesFlags(tiles, cache_dir=cache), tiny_checkpoint, None, cli.DeviceFlags("cpu"))
    city = app_city.compute_city(source)
    row = city.rows[0]
    for layer in np.flatnonzero(city.store.plane_of[row]):
        Path(city.store.tile_path(int(row), int(layer))).write_bytes(b"damaged")
    sharp = app_pictures.read_sharp_tiles(city, city.rows[:2])
    first, second = tile_images.pictures(sharp, np.arange(2), 64)
    assert np.array_equal(first, np.asarray(tile_images.placeholder(64))) and not np.array_equal(first, second)


ODD = 'Київ it\'s "50%25" *a* _b_ $c$ [d] `e` :red'


def test_paths_with_any_letters(open_app, tmp_path, tiny_checkpoint):
    home = tmp_path / ODD
    tiles = make_tiles(home / "tiles", nx=5, ny=5, px=32)
    model = Path(shutil.copy(tiny_checkpoint, home / f"{ODD}.pth"))
    app = open_app(tiles_root=tiles, model_path=model, cache_dir=home / "cache")
    assert str(tiles) in said(app) and str(model) in said(app)
    next(button for button in app.button if button.label == "Compute the vectors").click().run()
    heading = settle(app).markdown[0].value
    assert shown(heading).startswith(f"**{tiles}** · ") and f"**{ODD}.pth**" in shown(heading)
    assert len(re.findall(r"(?<!\\)[*]", heading)) == 8 and not re.search(r"(?<!\\)[_$[`~]", heading)
    app = open_app(tiles_root=home / "none", cache_dir=home / "cache")
    assert f"no folder at {home / 'none'}" in error(app)


def test_the_browser_forgets_the_pictures_of_cities_that_it_forgets(tmp_path):
    cities = [f"{number:032}".encode() + gzip.compress(b"{}") for number in range(6)]
    script = f"""
    globalThis.window = {{ loc2vecPictures: {{}} }};
    const {{ default: receive }} = await import({json.dumps((WEB / "live_city.js").as_uri())});
    for (const text of {json.dumps([base64.b64encode(city).decode() for city in cities])}) {{
      const data = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
      window.loc2vecPictures[new TextDecoder().decode(data.subarray(0, 32))] = new EventTarget();
      await receive({{ data }});
    }}
    console.log(JSON.stringify([[...window.loc2vecCities.keys()], Object.keys(window.loc2vecPictures)]));
    """
    known, pictured = json.loads(run_node(tmp_path, script))
    assert known == pictured and 0 < len(known) < len(cities)


# --- first visit, and what can go wrong --------------------------------------------------------------------


def test_first_visit_says_what_is_missing_and_computes_it_on_a_button(open_app, tmp_path):
    app = open_app(cache_dir=tmp_path / "empty")
    assert "are not computed yet" in said(app) and "precompute_embeddings.py" in said(app)
    assert not components(app, "loc2vec_view")
    next(button for button in app.button if button.label == "Compute the vectors").click().run()
    assert component(settle(app), "loc2vec_view")["projection"]["name"] == "PCA"
    assert list((tmp_path / "empty").glob("vectors-*"))


def test_the_work_can_be_cancelled_and_started_again(open_app, tmp_path, monkeypatch):
    embed, held = inference.Embedder.embed_batches, []

    def slowly(*arguments):
        with progress_bars.progress(total=10_000, desc="embedding tiles") as bar:
            while not held:
                time.sleep(0.01)
                bar.update()
        yield from embed(*arguments)

    app = open_app(cache_dir=tmp_path / "empty")
    monkeypatch.setattr(inference.Embedder, "embed_batches", slowly)
    start = next(button for button in app.button if button.label == "Compute the vectors")
    start.click().run()
    next(button for button in app.button if button.label == "Cancel").click().run()
    assert not app.get("progress") and not app.exception
    held.append("go on")
    next(button for button in app.button if button.label == "Compute the vectors").click().run()
    component(settle(app), "loc2vec_view")


def test_after_a_reload_the_work_can_be_cancelled_and_ends_once_the_first_visit_is_forgotten(
    open_app, tmp_path, monkeypatch
):
    embed, steps = inference.Embedder.embed_batches, list[str]()

    def for_ever(*_arguments):
        try:
            with progress_bars.progress(desc="embedding tiles") as bar:
                while "stop" not in steps:
                    steps.append("one more")
                    time.sleep(0.01)
                    bar.update()
        finally:
            steps.append("ended")
        yield

    def wait_for(step: str) -> None:
        deadline = time.monotonic() + TIMEOUT_S
        while step not in steps:
            assert time.monotonic() < deadline
            time.sleep(0.1)

    monkeypatch.setattr(inference.Embedder, "embed_batches", for_ever)
    app = open_app(cache_dir=tmp_path / "empty")
    next(button for button in app.button if button.label == "Compute the vectors").click().run()
    wait_for("one more")
    try:
        reloaded = AppTest.from_file(str(REPO / "streamlit_app.py"), default_timeout=TIMEOUT_S).run()
        next(button for button in reloaded.button if button.label == "Cancel").click().run()
        assert not reloaded.get("progress") and "are not computed yet" in said(reloaded)
        assert app.run().get("progress") and not reloaded.run().get("progress")  # the first visit still waits
        assert "ended" not in steps
        monkeypatch.setattr(app_jobs, "GONE_S", 0.5)
        wait_for("ended")
    finally:
        steps.append("stop")
    monkeypatch.setattr(inference.Embedder, "embed_batches", embed)
    reloaded.run()
    next(button for button in reloaded.button if button.label == "Compute the vectors").click().run()
    component(settle(reloaded), "loc2vec_view")


def test_no_checkpoint(open_app, tmp_path):
    app = open_app(model_path=tmp_path / "none.pth")
    assert f"no checkpoint at {tmp_path / 'none.pth'}" in error(app) and "train.py" in error(app)


def test_a_checkpoint_that_is_none(open_app, tmp_path):
    (tmp_path / "bad.pth").write_bytes(b"not a checkpoint")
    assert "damaged" in error(open_app(model_path=tmp_path / "bad.pth"))


def test_no_tiles(open_app, tmp_path):
    app = open_app(tiles_root=tmp_path / "nowhere")
    assert "no folder at" in error(app) and "render_tiles.py" in error(app)


def test_wrong_flag(open_app):
    app = open_app(modle_path="x")
    assert "did you mean '--model_path'" in error(app)


def test_wrong_zoom_is_one_sentence(open_app):
    assert "--zoom" in error(open_app(zoom=16))


def test_a_checkpoint_of_another_tile_size_packs_the_tiles_at_that_size(open_app, tmp_path):
    save_untrained(tmp_path / "larger.pth", tile_size=64)
    app = open_app(model_path=tmp_path / "larger.pth")
    next(button for button in app.button if button.label == "Compute the vectors").click().run()
    assert "tiles of 64 px" in said(settle(app))


@pytest.mark.parametrize("pattern", ["vectors-*.l2v", "tiles-*/index.l2v"])
def test_a_damaged_cache_is_rebuilt_never_trusted(open_app, cache, pattern):
    path = next(cache.glob(pattern))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)
    app = open_app()
    if not components(app, "loc2vec_view"):
        next(button for button in app.button if button.label == "Compute the vectors").click().run()
    component(settle(app), "loc2vec_view")


def test_annoy_not_installed(open_app, monkeypatch):
    monkeypatch.setattr(similarity, "annoy_available", lambda: False)
    app = open_app(SEARCH)
    assert "pip install annoy" in said(app)
    assert len(results(app)) == 12


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ({"query_way": "Coordinate input", "query_x": 5, "query_y": 5}, "no tile with content at x 5, y 5"),
        ({"query_way": "Latitude, longitude", "query_lat": 10, "query_lon": 10}, "no tile lies at latitude 10"),
    ],
)
def test_places_outside_the_city(open_app, address, words):
    assert words in error(open_app(SEARCH, address=address))


@pytest.mark.parametrize(
    "address",
    [
        {"query_tile": "x/y"},
        {"query_tile": "1/2"},
        {"metric": "hamming", "trees": "many", "results": -3},
        {"panel": "None", "query_page": 10**9, "query_way": "Browse gallery"},
        {"query_x": "99999999999999999999999"},
        {"query_tile": "9999999999999999999999999/5"},
    ],
)
def test_an_address_of_nonsense_opens_the_app(open_app, address):
    app = open_app(SEARCH, address=address)
    assert component(app, "loc2vec_gallery")["items"]


def test_two_sessions_do_not_disturb_each_other(open_app):
    first = open_app(SEARCH, address={"query_tile": "76606/44206"})
    second = open_app(SEARCH, address={"query_tile": "76603/44203", "metric": "Dot"})
    second.button(key="query random").click().run()
    first.run()
    assert "Tile 76606, 44206" in said(first)
    assert first.selectbox(key="metric").value == "angular" and second.selectbox(key="metric").value == "dot"


def test_checkpoints_under_checkpoints_and_runs_can_be_chosen(open_app, tmp_path):
    for name in ("checkpoints/a.pth", "runs/second/b.pth"):
        save_untrained(tmp_path / name)
    options = open_app().selectbox(key="model").options
    assert {"checkpoints/a.pth", "runs/second/b.pth"} <= set(options)


def test_a_page_that_reruns_by_itself_keeps_the_tile_picked_meanwhile():
    def page() -> None:
        import streamlit as st

        import app_address

        if "again" not in st.session_state:
            st.session_state["again"] = True
            app_address.set_picked("projector", (1, 2))
            st.query_params.from_dict({"algorithm": "TSNE", "a_tile": "3/4"})  # the address of an earlier moment
            app_address.rerun_page()

    address = AppTest.from_function(page).run().query_params
    assert "a_tile" not in address and set(address) == {"algorithm", "projector_tile"}
    assert address["projector_tile"] in ("1/2", ["1/2"])
