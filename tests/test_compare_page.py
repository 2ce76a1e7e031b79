"""The page of two cities, or of two encoders, side by side: in a real browser, and the command that builds it."""

import base64
import dataclasses
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from conftest import make_tiles, page_json, save_untrained

pytest.importorskip("playwright.sync_api")
from cli import TilesFlags
from comparison import closest, shared_neighbours
from embeddings import City, load_city
from exports import write_parquet, write_table
from layers import LAYERS
from test_page import (  # noqa: F401
    DESKTOP,
    HASH_SAVED_MS,
    PHONE,
    Visit,
    as_csv,
    axe,
    browser,
    build,
    drag,
    drop,
    parts_told,
    playwright,
    start_over,
)

pytestmark = [pytest.mark.browser, pytest.mark.slow]

ACROSS, TILE_SIZE, NUMBERS = 9, 32, 16
NAMES = ("North Bay", "South End")
DEVICES = pytest.mark.parametrize("device", [DESKTOP, PHONE], ids=["desktop", "phone"])
RULES = "['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice']"


# --- the ground: two cities, two encoders, a page of each pair ---------------------------------------------------


@pytest.fixture(scope="module")
def ground(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("compare")
    first = make_tiles(folder / "north_bay" / "tiles", ACROSS, ACROSS, TILE_SIZE)
    second = make_tiles(folder / "south-end" / "tiles", ACROSS, ACROSS, TILE_SIZE, x0=20000, y0=50000, seed=7)
    for number, name in enumerate(("one", "other")):
        save_untrained(folder / f"{name}.pth", TILE_SIZE, NUMBERS // (1 + number), seed=number)
    paths = {"tiles": first, "second": second, "model": folder / "one.pth", "other": folder / "other.pth"}
    paths |= {"cache": folder / "cache", "vectors": folder / "south_end.parquet"}
    write_parquet(load(paths, "second", "model"), paths["vectors"])
    for kind, compared in (("cities", second), ("encoders", paths["other"]), ("vectors_only", paths["vectors"])):
        paths[kind] = folder / kind / "index.html"
        flags = ("--dr_algorithms", "PCA", "--max_tiles", 0, "--clusters", 4)
        result = build(paths | {"out": folder / kind}, *flags, "--compare", compared)
        sides = "one and other" if kind == "encoders" else " and ".join(NAMES)
        assert f"side by side: {sides}" in result.stdout
    return paths


def load(paths: dict[str, Path], root: str, model: str) -> City:
    return load_city(TilesFlags(tiles_root=paths[root], cache_dir=paths["cache"]), paths[model], device="cpu")


@pytest.fixture(scope="module")
def cities(ground) -> list[City]:
    return [load(ground, root, "model") for root in ("tiles", "second")]


@pytest.fixture(scope="module")
def encoders(ground) -> list[City]:
    return [load(ground, "tiles", model) for model in ("model", "other")]


@pytest.fixture
def visit(browser, ground) -> Iterator:  # noqa: F811
    """`visit(kind, state, **device)`: the page of that pair; at the end it must have been quiet."""
    visits = []

    def open_page(kind: str, state: str = "", **device):
        visits.append(Visit(browser, ground[kind], state, **device))
        return visits[-1].page

    yield open_page
    for one in visits:
        one.leave()


def half(page, number: int):
    return page.locator(f"[data-half={('first', 'second')[number]}]")


def pane(page, number: int, name: str):
    return half(page, number).locator(f"[data-pane={name}]")


def tile_of(page, number: int) -> str:
    return pane(page, number, "map").get_attribute("data-tile")


def go_to(page, number: int) -> None:
    """Let the panel, and on a phone the views, show a side."""
    page.locator(".head").nth(number).click()


def pick(page, number: int, right: float = 0.5, down: float = 0.5) -> str:
    """Click on a map; the tile that is picked."""
    go_to(page, number)
    map_of_side = pane(page, number, "map")
    map_of_side.scroll_into_view_if_needed()
    box = map_of_side.bounding_box()
    page.mouse.click(box["x"] + right * box["width"], box["y"] + down * box["height"])
    page.wait_for_selector(".large-picture")
    return tile_of(page, number)


def row_of(city: City, tile: str) -> int:
    return int(city.embeddings.rows(np.array([int(part) for part in tile.split("/")[1:]])))


def listed(page) -> list[str]:
    return page.locator(".neighbours li").evaluate_all("items => items.map(item => item.dataset.tile)")


def drawn_over(page, number: int, name: str) -> str:
    return pane(page, number, name).locator(".overlay").evaluate("canvas => canvas.toDataURL()")


def ground_of(page, number: int) -> str:
    page.wait_for_timeout(150)  # the map draws with the next frame
    return drawn_over(page, number, "map")


def unpacked(data: dict[str, Any]) -> np.ndarray:
    return np.frombuffer(base64.b64decode(data["data"]), data["dtype"]).reshape(data["shape"])


# --- two cities ------------------------------------------------------------------------------------------------


@DEVICES
def test_a_place_is_found_in_the_other_city_and_back(visit, cities, device):
    page = visit("cities", **device)
    assert page.locator(".head strong").all_text_contents() == list(NAMES)
    assert page.locator("h1").text_content() == " and ".join(NAMES)
    before = drawn_over(page, 1, "map")
    tile = pick(page, 0, 0.45, 0.4)
    similarity = cities[1].embeddings.vectors @ cities[0].embeddings.vectors[row_of(cities[0], tile)]
    found = [row_of(cities[1], other) for other in listed(page)]
    assert len(found) == 12 and min(found) >= 0
    assert f"This place in {NAMES[1]}" in page.locator("[data-found]").text_content()
    shown = [float(text) for text in page.locator(".match-head strong").all_text_contents()]
    assert shown == pytest.approx(similarity[found], abs=2e-3) and shown == sorted(shown, reverse=True)
    assert shown == pytest.approx(np.sort(similarity[~cities[1].embeddings.blank])[::-1][:12], abs=4e-3)
    assert page.locator(".neighbours .reasons").count() >= 12
    distance = float(re.search(r"distance (\d\.\d+)", page.locator(".match-head").first.text_content())[1])
    assert distance == pytest.approx(np.sqrt(max(0, 2 - 2 * shown[0])), abs=1e-2)
    assert not tile_of(page, 1)  # found, not picked

    # there, and back
    match = listed(page)[0]
    page.locator(".neighbours .tile-button").first.click()
    assert tile_of(page, 1) == match and tile_of(page, 0) == tile
    assert drawn_over(page, 1, "map") != before
    assert page.locator(".came-from").get_attribute("data-from") == tile
    back = cities[0].embeddings.vectors @ cities[1].embeddings.vectors[row_of(cities[1], match)]
    assert similarity_told(page) == pytest.approx(back[row_of(cities[0], listed(page)[0])], abs=2e-3)
    ranked = [row_of(cities[0], other) for other in listed(page)]
    told = page.locator(".came-from").text_content()
    own = row_of(cities[0], tile)
    assert (f"no. {ranked.index(own) + 1} of" if own in ranked else "not among") in told
    page.get_by_role("button", name=f"Back to {NAMES[0]}").click()
    assert page.locator(".tile-panel").text_content().count(tile) and listed(page)[0] == match
    pick(page, 1)
    assert not tile_of(page, 0)  # a new question


def similarity_told(page) -> float:
    return float(page.locator(".neighbours .match-head strong").first.text_content())


def test_the_same_city_can_be_searched_too(visit, cities):
    page = visit("cities")
    tile = pick(page, 0)
    page.get_by_role("button", name=f"Look in {NAMES[0]}").click()
    similarity = cities[0].embeddings.vectors @ cities[0].embeddings.vectors[row_of(cities[0], tile)]
    found = [row_of(cities[0], other) for other in listed(page)]
    assert row_of(cities[0], tile) not in found and min(found) >= 0
    shown = [float(text) for text in page.locator(".match-head strong").all_text_contents()]
    assert shown == pytest.approx(similarity[found], abs=2e-3)


def test_reasons_across_cities_are_what_the_network_says(visit, cities):
    page = visit("cities")
    tile = pick(page, 0)
    own, other = row_of(cities[0], tile), row_of(cities[1], listed(page)[0])
    vectors = [city.embeddings.vectors[row] for city, row in zip(cities, (own, other), strict=True)]
    lost = np.zeros(len(LAYERS))
    for city, row, vector, across in zip(cities, (own, other), vectors, vectors[::-1], strict=True):
        store_row = city.rows[row]
        drawn = np.flatnonzero(city.store.plane_of[store_row])
        without = city.embedder.embed_without(np.column_stack([np.full(len(drawn), store_row), drawn]))
        lost[drawn] += (vector - without) @ across / 2
    told = parts_told(page.locator(".neighbours li").first.locator(".reasons").first)
    assert told
    for layer, change in told.items():
        assert change == pytest.approx(lost[LAYERS.index(layer)], abs=0.015)


@DEVICES
def test_a_selection_selects_what_is_most_like_it_in_the_other_city(visit, cities, device):
    page = visit("cities", "#colour=layer", **device)
    before = [ground_of(page, 0)]
    if device is DESKTOP:
        before.append(ground_of(page, 1))
    chip = half(page, 0).locator(".legend .chip").first
    layer = LAYERS.index(chip.get_attribute("data-category"))
    chip.click()
    places = [city.embeddings.with_content() for city in cities]
    chosen = places[0].dominant_layer == layer
    nearest, _ = closest(places[1].vectors, places[0].vectors)
    expected = int(chosen[nearest].sum())
    assert int(page.locator(".selection h3").first.text_content().split()[0]) == chosen.sum()
    told = int(page.locator("[data-linked]").get_attribute("data-linked"))
    assert 0 < told == pytest.approx(expected, abs=2)  # two tiles can be equally near
    assert ground_of(page, 0) != before[0]
    if device is DESKTOP:
        assert ground_of(page, 1) != before[1]
    go_to(page, 1)
    assert int(page.locator(".selection h3").first.text_content().split()[0]) == told
    page.keyboard.press("Escape")
    assert page.locator("[data-linked]").count() == 0 and not page.locator(".selection").count()


def test_a_lasso_among_the_dots_reaches_the_other_city(visit):
    page = visit("cities")
    page.get_by_role("toolbar", name=f"Embedding tools, {NAMES[1]}").get_by_role("button", name="Lasso").click()
    box = pane(page, 1, "embedding").bounding_box()
    corners = [(0.02, 0.16), (0.98, 0.16), (0.98, 0.6), (0.02, 0.6), (0.02, 0.16)]
    drag(page, [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in corners])
    assert page.locator(".head").nth(1).get_attribute("aria-pressed") == "true"
    assert int(page.locator(".selection h3").first.text_content().split()[0]) > 0
    assert int(page.locator("[data-linked]").get_attribute("data-linked")) > 0


def test_pointing_at_one_city_shows_the_nearest_tile_of_the_other(visit):
    page = visit("cities")
    before = [drawn_over(page, 1, name) for name in ("embedding", "map")]
    box = pane(page, 0, "map").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    assert [drawn_over(page, 1, name) for name in ("embedding", "map")] != before


def test_colours_mean_the_same_in_both_cities(ground, cities):
    data = page_json(ground["cities"])
    other = data["compare"]["other"]
    sides = [{one["key"]: one for one in side["colourings"]} for side in (data, other)]
    assert sides[0]["cluster"]["categories"] == sides[1]["cluster"]["categories"]
    assert len({one["name"] for one in sides[0]["cluster"]["categories"]}) == 4
    assert sides[0]["density"]["range"] == sides[1]["density"]["range"]
    places = [city.embeddings.with_content().vectors for city in cities]
    for number, side in enumerate(sides):
        values = unpacked(side["match"]["values"])
        best = (places[number] @ places[1 - number].T).max(axis=1)
        assert np.sort(values) == pytest.approx(np.sort(best), abs=1e-5)


def test_a_position_means_the_same_in_both_cities(ground, cities):
    """The page's points are those of one projection: distances of dots of different cities are kept."""
    data = page_json(ground["cities"])
    sides = [data, data["compare"]["other"]]
    points, vectors = [], []
    for side, city in zip(sides, cities, strict=True):
        projection = side["projections"]["PCA-2"]
        points.append(unpacked(projection["points"]) * projection["scale"])
        rows = city.embeddings.rows(unpacked(side["arrays"]["tile_xy"]))
        vectors.append(city.embeddings.vectors[rows])
    assert sides[0]["projections"]["PCA-2"]["extent"] == sides[1]["projections"]["PCA-2"]["extent"]
    every = np.concatenate(vectors) - np.concatenate(vectors).mean(axis=0)
    _, _, axes = np.linalg.svd(every, full_matrices=False)
    exact = every @ axes[:2].T
    shown = np.concatenate(points)
    a, b = np.arange(0, len(points[0]), 5), len(points[0]) + np.arange(0, len(points[1]), 5)
    wanted = np.linalg.norm(exact[a][:, None] - exact[b][None], axis=-1)
    told = np.linalg.norm(shown[a][:, None] - shown[b][None], axis=-1)
    assert np.corrcoef(wanted.ravel(), told.ravel())[0, 1] > 0.9999


def test_similarity_colours_both_cities_by_the_picked_tile(visit):
    page = visit("cities", "#colour=similarity")
    assert "Pick a tile" in half(page, 1).locator(".legend").text_content()
    pick(page, 0)
    for number in (0, 1):
        assert half(page, number).locator(".ramp-bin").count() > 5
    assert half(page, 1).locator(".legend").text_content() != half(page, 0).locator(".legend").text_content()


@DEVICES
def test_a_file_of_vectors_is_a_city_without_pictures(visit, ground, cities, device):
    page = visit("vectors_only", **device)
    assert "without pictures" in page.locator(".head").nth(1).text_content()
    tile = pick(page, 0)
    similarity = cities[1].embeddings.vectors @ cities[0].embeddings.vectors[row_of(cities[0], tile)]
    found = [row_of(cities[1], other) for other in listed(page)]
    shown = [float(text) for text in page.locator(".match-head strong").all_text_contents()]
    assert shown == pytest.approx(similarity[found], abs=2e-3)
    assert "both show" in page.locator(".neighbours li .reasons").first.text_content()  # measured for neither
    page.locator(".neighbours .tile-button").first.click()
    assert tile_of(page, 1) and not page.locator(".chip.layer").count()
    data = page_json(ground["vectors_only"])["compare"]["other"]
    assert data["words"] is None and data["planes"] is None and data["reasons"] is None
    places = cities[1].embeddings
    rows = places.rows(unpacked(data["arrays"]["tile_xy"]))
    assert (unpacked(data["arrays"]["dominant_layer"]) == places.dominant_layer[rows]).all()


# --- two encoders ----------------------------------------------------------------------------------------------


@DEVICES
def test_a_tile_is_picked_for_both_encoders_and_shared_neighbours_are_counted(visit, encoders, device):
    page = visit("encoders", **device)
    assert page.locator(".head strong").all_text_contents() == ["one", "other"]
    for number in (1, 0):
        tile = pick(page, number, 0.4 + 0.1 * number, 0.5)
        assert tile_of(page, 0) == tile_of(page, 1) == tile
    found = []
    for number, city in enumerate(encoders):
        tiles = page.locator(f"[data-by='{number}'] .tile-button").evaluate_all(
            "all => all.map(one => one.dataset.tile)"
        )
        rows = [row_of(city, other) for other in tiles]
        similarity = city.embeddings.vectors @ city.embeddings.vectors[row_of(city, tile)]
        similarity[[row_of(city, tile), *np.flatnonzero(city.embeddings.blank)]] = -1
        assert similarity[rows] == pytest.approx(np.sort(similarity)[::-1][:12], abs=4e-3)
        found.append(set(tiles))
    shared = int(page.locator("[data-shared]").get_attribute("data-shared"))
    assert shared == len(found[0] & found[1])
    for number in (0, 1):
        assert page.locator(f"[data-by='{number}'] .shared").count() == shared


def test_agreement_of_two_encoders(ground, encoders):
    data = page_json(ground["encoders"])
    places = [city.embeddings.with_content() for city in encoders]
    share = shared_neighbours(*(some.vectors for some in places), 12)
    assert data["compare"]["agreement"] == pytest.approx(share.mean(), abs=0.02)
    assert 0 < share.mean() < 1
    own = places[0].vectors
    assert shared_neighbours(own, own * 3, 12).tolist() == [1.0] * len(own)
    shown = next(one for one in data["colourings"] if one["key"] == "agreement")
    assert np.sort(unpacked(shown["values"])) == pytest.approx(np.sort(share), abs=0.2)
    assert not {"sprites", "planes", "map", "words", "arrays"} & set(data["compare"]["other"])  # no tile is there twice


def test_a_selection_is_the_same_for_both_encoders(visit):
    page = visit("encoders")
    before = [ground_of(page, number) for number in (0, 1)]
    page.get_by_role("toolbar", name="Map tools, other").get_by_role("button", name="Box").click()
    box = pane(page, 1, "map").bounding_box()
    middle = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    drag(page, [(middle[0] - 60, middle[1] - 60), (middle[0] + 60, middle[1] + 60)])
    count = page.locator(".selection h3").text_content()
    assert int(count.split()[0]) > 3
    assert all(ground_of(page, number) != before[number] for number in (0, 1))
    go_to(page, 0)
    assert page.locator(".selection h3").text_content() == count
    page.wait_for_timeout(HASH_SAVED_MS)
    assert "sel=" in page.evaluate("location.hash") and "second-sel" not in page.evaluate("location.hash")


def test_what_one_encoder_filters_out_is_grey_for_both(visit):
    page = visit("encoders")
    page.locator("[data-tab=filter]").click()
    before = ground_of(page, 1)
    page.locator(".check input").first.click()
    assert ground_of(page, 1) != before


# --- state, keys, accessibility --------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "where"), [("cities", NAMES[1]), ("encoders", "this page")])
def test_a_dropped_file_may_be_about_the_other_side(visit, cities, kind, where):
    page = visit(kind)
    shown = cities[kind == "cities"].embeddings.with_content()
    drop(page, "own.csv", as_csv([{"lat": lat, "lon": lon, "price": i} for i, (lat, lon) in enumerate(shown.latlon)]))
    count = len(shown)
    message = page.locator(".file-message")
    assert message.text_content() == f"own.csv: 1 columns, {count} of {count} rows lie on tiles of {where}."
    assert message.get_attribute("role") is None  # the page's status says it once
    go_to(page, 1)
    assert page.get_by_label("Colour by").input_value() == "price"
    assert (
        half(page, 1)
        .locator(".ramp-bin")
        .evaluate_all("bins => bins.reduce((sum, bin) => sum + +bin.dataset.count, 0)")
        == count
    )


@pytest.mark.parametrize("kind", ["cities", "encoders"])
def test_a_link_opens_the_same_comparison(visit, kind):
    page = visit(kind)
    pick(page, 0, 0.45, 0.5)
    page.locator(".neighbours .tile-button").nth(1).click()
    half(page, 0).locator(".legend .chip").first.click()
    go_to(page, 1)
    page.get_by_role("button", name="3-D", exact=True).click()
    page.wait_for_selector("[data-half=second] [data-shown=PCA-3]")
    page.get_by_label("Colour by").select_option("cluster")
    page.wait_for_timeout(HASH_SAVED_MS)
    link = page.evaluate("location.hash")
    assert ("second-tile" in link) == (kind == "cities") and "side=second" in link
    other = visit(kind, link)
    for number in (0, 1):
        assert tile_of(other, number) == tile_of(page, number)
        assert pane(other, number, "embedding").get_attribute("data-shown") == "PCA-3"
    assert other.locator(".head").nth(1).get_attribute("aria-pressed") == "true"
    assert other.locator(".tile-panel").text_content() == page.locator(".tile-panel").text_content()
    other.wait_for_timeout(HASH_SAVED_MS)
    assert other.evaluate("location.hash") == link


def test_back_forward_and_undo(visit):
    page = visit("cities", "#alg=PCA&dim=2&colour=layer")
    page.wait_for_timeout(HASH_SAVED_MS)
    tile = pick(page, 0)
    page.wait_for_timeout(HASH_SAVED_MS)
    match = listed(page)[0]
    page.locator(".neighbours .tile-button").first.click()
    page.wait_for_timeout(HASH_SAVED_MS)
    page.go_back()
    page.wait_for_function("!document.querySelector('[data-half=second] [data-pane=map]').dataset.tile")
    assert tile_of(page, 0) == tile and page.locator(".head").first.get_attribute("aria-pressed") == "true"
    page.go_forward()
    page.wait_for_selector(f"[data-half=second] [data-pane=map][data-tile='{match}']")
    assert page.locator(".came-from").get_attribute("data-from") == tile
    page.wait_for_timeout(HASH_SAVED_MS)
    page.locator(".neighbours .tile-button").nth(1).focus()
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.closest('.side') !== null")  # the panel keeps the focus
    page.wait_for_timeout(HASH_SAVED_MS)
    assert page.locator(".head").first.get_attribute("aria-pressed") == "true"
    page.keyboard.press("Control+z")
    page.wait_for_selector(f"[data-half=second] [data-pane=map][data-tile='{match}']")
    page.wait_for_function("document.querySelectorAll('.head')[1].getAttribute('aria-pressed') === 'true'")
    page.keyboard.press("Control+z")
    page.wait_for_function("!document.querySelector('[data-half=second] [data-pane=map]').dataset.tile")


def test_an_address_of_nonsense_does_no_harm(visit):
    page = visit("cities", "#side=x&where=y&second-tile=17/1/1&second-sel=1.2.3.%25&tile=9&alg=<b>")
    assert pick(page, 1)


@pytest.mark.parametrize("kind", ["cities", "encoders"])
def test_everything_can_be_done_with_keys(visit, kind):
    page = visit(kind)
    pane(page, 1, "map").focus()
    for key in ("ArrowRight", "ArrowDown", "Enter"):
        page.keyboard.press(key)
    tile = tile_of(page, 1)
    assert tile and page.locator(".head").nth(1).get_attribute("aria-pressed") == "true"
    reached = ""
    for _ in range(60):  # on to the first of the places that were found
        page.keyboard.press("Tab")
        reached = page.evaluate(
            "document.activeElement.closest('.results, .neighbours') && document.activeElement.dataset.tile"
        )
        if reached:
            break
    assert reached in listed(page) or kind == "encoders"
    page.keyboard.press("Enter")
    assert tile_of(page, 0) == reached
    assert tile_of(page, 1) == (tile if kind == "cities" else reached)
    page.locator(".head").nth(1).focus()
    page.keyboard.press("Enter")
    assert page.locator(".head").nth(1).get_attribute("aria-pressed") == "true"
    page.keyboard.press("Escape")
    assert not tile_of(page, 0) and not tile_of(page, 1)


@DEVICES
@pytest.mark.parametrize("kind", ["cities", "encoders"])
def test_axe_finds_nothing_to_improve(visit, axe, kind, device):  # noqa: F811
    page = visit(kind, "#colour=cluster&theme=dark" if kind == "cities" else "#colour=agreement", **device)
    page.evaluate(axe)
    found = {}

    def check(what: str) -> None:
        for one in page.evaluate(f"axe.run(document, {{runOnly: {RULES}}})")["violations"]:
            found[what, one["id"]] = [node["html"][:200] for node in one["nodes"]]

    check("welcome")
    pick(page, 0)
    check("found")
    page.locator(".neighbours .tile-button").first.click()
    check("followed")
    page.locator("[data-tab=filter]").click()
    page.locator(".check input").first.click()
    check("filtered")
    page.get_by_label("Colour by").select_option("layer")
    page.locator(".legend .chip:visible").first.click()
    page.wait_for_selector(".selection h3")
    check("selected")
    assert not found


def test_on_a_phone_one_side_is_shown_at_a_time(visit):
    page = visit("cities", **PHONE)
    for number in (0, 1, 0):
        go_to(page, number)
        assert half(page, number).is_visible() and half(page, 1 - number).is_hidden()
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
    go_to(page, 1)
    box = pane(page, 1, "map").bounding_box()
    assert box["width"] > 300 and pick(page, 1)  # it is drawn when it comes into sight


def test_on_a_desktop_both_sides_are_in_sight(visit):
    page = visit("cities", **DESKTOP)
    boxes = [pane(page, number, name).bounding_box() for number in (0, 1) for name in ("embedding", "map")]
    assert all(box["width"] > 400 and box["height"] > 250 for box in boxes)
    assert boxes[0]["y"] == boxes[2]["y"] and boxes[0]["width"] == pytest.approx(boxes[2]["width"], abs=1)
    assert page.evaluate("document.documentElement.scrollHeight <= innerHeight && scrollY === 0")


# --- the command -----------------------------------------------------------------------------------------------


def test_a_page_of_one_city_has_nothing_of_a_comparison(ground, tmp_path):
    build(ground | {"out": tmp_path}, "--dr_algorithms", "PCA", "--max_tiles", 30, "--no_reasons")
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "compare" not in page_json(tmp_path / "index.html")
    assert "class Comparison" not in page and ".loc2vec.compare" not in page
    both = ground["cities"].read_text(encoding="utf-8")
    assert "class Comparison" in both and ".loc2vec.compare" in both


def test_the_other_script_builds_the_same_page(ground, tmp_path, run_script):
    place = ["--tiles_root", ground["tiles"], "--model_path", ground["model"], "--cache_dir", ground["cache"]]
    few = ["--dr_algorithms", "PCA", "--max_tiles", 20, "--no_reasons", "--compare", ground["second"]]
    done = run_script("run_interactive_viz.py", "html", *place, *few, "--output_dir", tmp_path, "--title", "Both")
    assert f"side by side: {' and '.join(NAMES)}" in done.stdout
    data = page_json(tmp_path / "index.html")
    assert data["compare"]["title"] == "Both" and data["count"] == data["compare"]["other"].get("count", 20) == 20


def test_equal_names_are_told_apart(ground, tmp_path, run_script):
    for part in ("east", "west"):
        shutil.copytree(ground["tiles" if part == "east" else "second"], tmp_path / part / "city" / "tiles")
        (tmp_path / part / "city" / "tiles" / "manifest.json").write_text('{"extract": "city.osm.pbf"}')
    place = ["--model_path", ground["model"], "--tiles_root", tmp_path / "east" / "city" / "tiles"]
    few = ["--dr_algorithms", "PCA", "--max_tiles", 20, "--no_reasons", "--output_dir", tmp_path / "out"]
    done = run_script("interactive_visualizer.py", *place, *few, "--compare", tmp_path / "west" / "city" / "tiles")
    assert "side by side: City (east) and City (west)" in done.stdout


BAD = {
    "nothing there": ("missing", "nothing there; expected another city's folder of tiles"),
    "itself": ("tiles", "these are the tiles of --tiles_root"),
    "its own encoder": ("model", "this is the encoder of --model_path"),
    "tiles of another zoom": ("zoomed", "tiles of zoom 16"),
    "an encoder of another zoom": ("far.pth", "trained on tiles of zoom 15, the tiles have zoom 17"),
    "no tiles in the folder": ("empty", "12 of 12 layers have no folder"),
    "no encoder in the file": ("text.pth", "text.pth"),
    "a table": ("table.csv", "a .csv file is neither a folder of tiles nor an encoder"),
    "vectors of another encoder": ("encoder.parquet", "these vectors are of another encoder"),
    "vectors of another zoom": ("zoom.parquet", "zoom 16, the city's tiles have zoom 17"),
    "vectors of another dimension": ("dimension.parquet", "vectors of 8 numbers, those of the city have 16"),
    "a table that embed.py did not write": ("table.parquet", "has no column"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_compared_is_said(ground, cities, tmp_path, run_script, case):
    name, said = BAD[case]
    if name.endswith(".parquet"):
        places = cities[1].embeddings
        changed = {
            "encoder.parquet": {"model_key": "x"},
            "zoom.parquet": {"zoom": 16},
            "dimension.parquet": {"vectors": places.vectors[:, :8]},
        }
        if name == "table.parquet":
            pd.DataFrame({"x": [1], "y": [2]}).to_parquet(tmp_path / name)
        else:
            write_table(dataclasses.replace(places, **changed[name]), tmp_path / name)
    (tmp_path / "empty").mkdir()
    for file in ("text.pth", "table.csv"):
        (tmp_path / file).write_text("x,y\n1,2\n")
    for layer in LAYERS:
        (tmp_path / "zoomed" / layer / "16" / "3").mkdir(parents=True)
    if name == "far.pth":
        from checkpoint import load_checkpoint, save_checkpoint

        checkpoint = load_checkpoint(ground["other"])
        checkpoint.zoom = 15
        save_checkpoint(tmp_path / name, checkpoint)
    other = ground.get(name, tmp_path / name)
    place = ["--tiles_root", ground["tiles"], "--model_path", ground["model"], "--cache_dir", ground["cache"]]
    done = run_script(
        "interactive_visualizer.py", *place, "--output_dir", tmp_path / "out", "--compare", other, check=2
    )
    assert said in done.stderr and str(other) in done.stderr
    assert "Traceback" not in done.stderr and not (tmp_path / "out").exists()
