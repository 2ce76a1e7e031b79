"""The explorer page in a real browser, with the network blocked and every error in its console a failure."""

import base64
import csv
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely.affinity
import shapely.geometry
from PIL import Image

from conftest import REPO, make_tiles, page_json, save_untrained, script_env

playwright_api = pytest.importorskip("playwright.sync_api")
import colourings  # noqa: E402
import explorer_data  # noqa: E402
import interactive_visualizer  # noqa: E402
import place_words  # noqa: E402
from cli import DeviceFlags, TilesFlags  # noqa: E402
from embeddings import City, load_city  # noqa: E402
from layers import LAYERS  # noqa: E402
from make_screenshots import BROWSER_FLAGS, DESKTOP, PHONE, READY, START_TIMEOUT_MS, launch  # noqa: E402
from own_columns import column_colourings  # noqa: E402
from place_names import KINDS, NAMES_FILE, PlaceNames, save_place_names  # noqa: E402
from reasons import PLACE_PARTS, layer_contributions, place_contributions  # noqa: E402
from similarity import Search, walk  # noqa: E402
from tile_grid import great_circle_km  # noqa: E402
from tile_images import composite  # noqa: E402

pytestmark = [pytest.mark.browser, pytest.mark.slow]

TILES_ACROSS, SHOWN, TILE_SIZE, DIMENSIONS = 18, 250, 32, 16
NO_WEBGL = ["--no-sandbox", "--disable-background-networking", "--disable-gpu", "--disable-3d-apis"]
SLOW_MACHINE_MS = 30_000
HASH_SAVED_MS = 500  # the page writes its address a moment after the last change
FRESH = "alg=PCA&dim=2&colour=layer&tab=alike&theme=light&dots=dots&preview=composite&map=coloured&layers=fff"


# --- the ground: one page, one browser -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def ground(tmp_path_factory) -> dict[str, Path]:
    """A city of 18 x 18 tiles whose name is an attack, a checkpoint, and the page made of both."""
    folder = tmp_path_factory.mktemp("page")
    root = make_tiles(folder / "tiles", nx=TILES_ACROSS, ny=TILES_ACROSS, px=TILE_SIZE)
    evil = "</script><script>window.attacked=1</script><img src=x onerror=window.attacked=1>"
    manifest = {"extract": "Ünïted <i>City.osm.pbf", "attribution": f"© OpenStreetMap {evil}, more"}
    (root / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    save_place_names(root / NAMES_FILE, named_places())
    model = folder / "model.pth"
    save_untrained(model, TILE_SIZE, DIMENSIONS)
    paths = {"tiles": root, "model": model, "cache": folder / "cache", "out": folder / "out"}
    build(paths, "--dr_algorithms", "PCA", "TSNE", "--max_tiles", SHOWN)
    return paths | {"page": folder / "out" / "index.html"}


EVIL_NAME = "Platz <img src=x onerror=window.attacked=1>"
MIDDLE = (50.4278, 30.4129)  # of the city of 18 x 18 tiles
PLACES = [
    (("вулиця Зелена", "Green Street"), "street", (MIDDLE[0] + 0.003, MIDDLE[1] + 0.004)),
    (("Khreshchatyk",), "street", (MIDDLE[0] - 0.004, MIDDLE[1] + 0.002)),
    (("Münchener Platz",), "square", (MIDDLE[0] + 0.001, MIDDLE[1] - 0.006)),
    ((EVIL_NAME,), "shop", (MIDDLE[0] - 0.002, MIDDLE[1] - 0.003)),
    (("Beyond the map",), "park", (10.0, 10.0)),
]


def named_places() -> PlaceNames:
    kinds = [name for name, _ in KINDS]
    return PlaceNames(
        [names for names, _, _ in PLACES],
        np.array([kinds.index(kind) for _, kind, _ in PLACES], np.int8),
        np.array([latlon for _, _, latlon in PLACES]),
    )


def build(paths: dict[str, Path], *flags: object) -> subprocess.CompletedProcess:
    """Run the script as a user would."""
    command = [sys.executable, REPO / "interactive_visualizer.py", "--tiles_root", paths["tiles"]]
    command += ["--model_path", paths["model"], "--cache_dir", paths["cache"], "--output_dir", paths["out"], *flags]
    result = subprocess.run(list(map(str, command)), env=script_env(), capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stderr
    return result


@pytest.fixture(scope="module")
def city(ground) -> City:
    tiles = TilesFlags(tiles_root=ground["tiles"], cache_dir=ground["cache"])
    return load_city(tiles, ground["model"], device="cpu", max_tiles=SHOWN)


@pytest.fixture(scope="module")
def playwright() -> Iterator:
    with playwright_api.sync_playwright() as playwright:
        yield playwright


@pytest.fixture(scope="module")
def browser(playwright, chromium) -> Iterator:
    browser = launch(playwright, *BROWSER_FLAGS)
    yield browser
    browser.close()


class Visit:
    """A page that is watched: whatever it asks the network for and whatever goes wrong in it is kept."""

    def __init__(self, browser, path: Path, state: str = "", *, script: str = "", ready: str = READY, **device):
        self.context = browser.new_context(**(device or DESKTOP), accept_downloads=True)
        self.context.route(re.compile(r"^(?!file:|data:|blob:)"), lambda route: route.abort())
        self.page = self.context.new_page()
        self.page.set_default_timeout(SLOW_MACHINE_MS)
        self.asked, self.wrong = [], []
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("console", lambda message: self.wrong.append(message.text) if message.type == "error" else None)
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.add_init_script(script)
        self.page.goto(path.as_uri() + state)
        self.page.wait_for_selector(ready, timeout=START_TIMEOUT_MS)

    def leave(self) -> None:
        self.context.close()
        assert not self.wrong
        assert not [url for url in self.asked if not url.startswith(("file:", "data:", "blob:"))]


@pytest.fixture(scope="module")
def desk(browser, ground) -> Iterator:
    """The page on a desktop, opened once: starting Plotly costs more than most tests."""
    visit = Visit(browser, ground["page"])
    yield visit
    visit.leave()


@pytest.fixture
def visit(browser, ground, desk) -> Iterator:
    """`visit()`: the page on a desktop as it starts; `visit(state, **device)`: opened anew with that.

    At the end it must have been quiet.
    """
    visits = []

    def open_page(state: str = "", **device):
        if not state and not device:
            return start_over(desk.page)
        visits.append(Visit(browser, ground["page"], state, **device))
        return visits[-1].page

    yield open_page
    assert not desk.wrong
    for one in visits:
        one.leave()


def start_over(page):
    """Bring a used page back to how it opens."""
    page.wait_for_timeout(HASH_SAVED_MS)
    page.evaluate(f"location.hash = {json.dumps(FRESH)}")
    page.wait_for_function("!document.querySelector('.selection')")
    page.wait_for_selector("[data-shown=PCA-2]")
    for tools in ("Embedding tools", "Map tools"):
        page.get_by_role("toolbar", name=tools).get_by_role("button", name="Show everything").click()
    page.get_by_role("toolbar", name="Map tools").get_by_role("button", name="Move").click()
    page.mouse.move(5, 5)
    page.wait_for_function("!document.querySelector('.moving')")
    return page


def pane(page, name: str):
    return page.locator(f"[data-pane={name}]")


def show(page, algorithm: str, dimensions: int) -> None:
    """Switch as a person does and wait until the dots have arrived."""
    page.get_by_role("button", name={"TSNE": "t-SNE"}.get(algorithm, algorithm), exact=True).click()
    page.get_by_role("button", name=f"{dimensions}-D", exact=True).click()
    page.wait_for_selector(f"[data-shown={algorithm}-{dimensions}]")
    page.wait_for_function("!document.querySelector('.moving')")


def point_at_a_dot(page, where=None) -> tuple[str, float, float]:
    """Move the pointer over the embedding until a preview shows: its tile and the place."""
    box = pane(page, "embedding").bounding_box()
    for down in np.linspace(0.3, 0.9, 13):
        for right in np.linspace(0.1, 0.9, 17):
            x, y = box["x"] + right * box["width"], box["y"] + down * box["height"]
            page.mouse.move(x, y)
            if card(page).is_visible():
                return card(page).get_attribute("data-tile"), x, y
    pytest.fail("no dot under the pointer anywhere")


def card(page):
    return page.locator(".card-tip")


def middle_of(page, name: str) -> tuple[float, float]:
    box = pane(page, name).bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def marks(page, name: str) -> bytes:
    """What is drawn over a pane: rings, paths, outlines."""
    return page.evaluate(f"document.querySelector('[data-pane={name}] .overlay').toDataURL()")


def pick_on_map(page, right: float = 0.5, down: float = 0.5) -> str:
    box = pane(page, "map").bounding_box()
    page.mouse.click(box["x"] + right * box["width"], box["y"] + down * box["height"])
    page.wait_for_selector(".large-picture")
    return pane(page, "map").get_attribute("data-tile")


def row_of(city: City, tile_id: str) -> int:
    return int(city.embeddings.rows(np.array([int(part) for part in tile_id.split("/")[1:]])))


def neighbours(page) -> list[str]:
    return page.locator(".neighbours li").evaluate_all("items => items.map(item => item.dataset.tile)")


def drag(page, points: list[tuple[float, float]], shift: bool = False) -> None:
    if shift:
        page.keyboard.down("Shift")
    page.mouse.move(*points[0])
    page.mouse.down()
    for point in points[1:]:
        page.mouse.move(*point, steps=4)
    page.mouse.up()
    if shift:
        page.keyboard.up("Shift")


def share_of(page, name: str, *corners: tuple[float, float]) -> list[tuple[float, float]]:
    box = pane(page, name).bounding_box()
    return [(box["x"] + right * box["width"], box["y"] + down * box["height"]) for right, down in corners]


def selected(page) -> int:
    text = page.locator(".selection h3").text_content()
    return int(text.split()[0].replace(",", ""))


# --- linked views --------------------------------------------------------------------------------------------


def test_pointing_at_one_view_lights_up_the_other(visit):
    page = visit()
    before = marks(page, "embedding")
    page.mouse.move(*middle_of(page, "map"))
    assert card(page).is_visible()
    assert re.fullmatch(r"17/\d+/\d+", card(page).get_attribute("data-tile"))
    assert marks(page, "embedding") != before
    before = marks(page, "map")
    point_at_a_dot(page)
    assert marks(page, "map") != before
    page.mouse.move(5, 5)
    assert card(page).is_hidden()


HOLD_PLOTLY = """
const held = new Promise((resolve) => { window.letPlotlyCome = resolve; }), text = Response.prototype.text;
let unpacked = 0;  // the data of the page comes first
Response.prototype.text = async function () { if (unpacked++) await held; return text.call(this); };
"""


def test_a_solid_view_answers_before_plotly_has_come_and_dots_stay_where_they_are(browser, ground):
    address = f"#{FRESH}".replace("dim=2", "dim=3")
    visit = Visit(browser, ground["page"], address, script=HOLD_PLOTLY, ready="#explorer[data-drawn]")
    page = visit.page
    assert page.evaluate("typeof Plotly") == "undefined"
    tile, x, y = point_at_a_dot(page)
    page.mouse.click(x, y)
    page.wait_for_selector(".large-picture")
    before = marks(page, "embedding")
    page.get_by_label("Colour by").select_option("zone")
    assert marks(page, "embedding") != before  # the dots have other colours
    page.mouse.move(5, 5)
    first = coloured_share(page)
    page.evaluate("letPlotlyCome()")
    page.wait_for_selector(READY)
    page.wait_for_timeout(500)
    assert 0.6 < coloured_share(page) / first < 1.6  # and the same size
    page.mouse.move(x, y)
    assert card(page).get_attribute("data-tile") == tile
    visit.leave()


def coloured_share(page) -> float:
    """The share of the embedding's pixels that are not grey."""
    pixels = np.asarray(Image.open(io.BytesIO(pane(page, "embedding").screenshot())).convert("RGB")).astype(int)
    return float((np.ptp(pixels, axis=-1) > 40).mean())


def test_a_projection_chosen_before_plotly_has_come_is_the_one_it_shows(browser, ground):
    visit = Visit(browser, ground["page"], f"#{FRESH}", script=HOLD_PLOTLY)
    assert visit.page.evaluate("typeof Plotly") == "undefined"  # it is loaded when a 3-D view is opened
    for dimensions in ("3-D", "2-D", "3-D"):
        visit.page.get_by_role("button", name=dimensions, exact=True).click()
    visit.page.evaluate("letPlotlyCome()")
    visit.page.wait_for_selector("[data-shown=PCA-3].by-plotly")
    point_at_a_dot(visit.page)
    visit.leave()


def test_the_embedding_can_be_dragged_zoomed_and_reset(visit):
    page = visit(f"#{FRESH}")
    tile, x, y = point_at_a_dot(page)
    drag(page, [(x, y), (x + 60, y + 40)])
    page.mouse.move(x + 60, y + 40)
    assert card(page).get_attribute("data-tile") == tile
    page.mouse.wheel(0, -300)
    page.wait_for_timeout(200)
    page.mouse.move(x + 61, y + 40)
    assert card(page).get_attribute("data-tile") == tile  # what is under the pointer stays there
    page.get_by_role("toolbar", name="Embedding tools").get_by_role("button", name="Show everything").click()
    page.wait_for_timeout(200)
    page.mouse.move(x, y)
    assert card(page).get_attribute("data-tile") == tile


@pytest.mark.parametrize("name", ["embedding", "map"])
def test_a_view_follows_the_pointer_and_is_drawn_again_when_it_rests_or_its_edge_comes(visit, name):
    page = visit(f"#{FRESH}")
    x, y = middle_of(page, name)
    moved = """(host, [clientX, clientY]) => {
      const canvas = host.querySelector(".overlay"), home = canvas.getBoundingClientRect();
      const at = { clientX, clientY, buttons: 1, pointerId: 1, bubbles: true };
      host.dispatchEvent(new PointerEvent("pointermove", at));
      const now = canvas.getBoundingClientRect();
      return [now.x - home.x, now.y - home.y, canvas.toDataURL()];
    }"""
    rests = f"!document.querySelector('[data-pane={name}]').style.getPropertyValue('--slid')"
    page.mouse.move(x, y)
    page.mouse.down()
    page.wait_for_timeout(100)
    before = marks(page, name)
    assert pane(page, name).evaluate(moved, [x + 30, y - 20]) == [30, -20, before]  # the same picture, elsewhere
    page.wait_for_function(rests)
    page.wait_for_timeout(100)
    rested = marks(page, name)
    assert rested != before
    assert pane(page, name).evaluate(moved, [x + 60, y - 20]) == [30, 0, rested]
    pane(page, name).evaluate(moved, [x + 160, y - 20])
    page.evaluate("() => new Promise(requestAnimationFrame)")
    assert page.evaluate(rests) and marks(page, name) != rested  # at once, as its edge had come into sight
    page.mouse.up()
    page.mouse.move(5, 5)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_a_picked_tile_shows_its_facts_and_opens_nothing_by_itself(visit, city):
    page = visit()
    tile = pick_on_map(page)
    row = row_of(city, tile)
    lat, lon = city.embeddings.latlon[row]
    text = page.locator(".tile-panel").text_content()
    assert tile in text and f"{lat:.5f}, {lon:.5f}" in text
    link = page.get_by_role("link", name="Open in OpenStreetMap")
    assert link.get_attribute("href").startswith(f"https://www.openstreetmap.org/?mlat={lat:.5f}&mlon={lon:.5f}")
    assert link.get_attribute("target") == "_blank"


def test_a_dot_can_be_picked_and_named_in_both_views(visit):
    page = visit()
    tile, x, y = point_at_a_dot(page)
    page.mouse.click(x, y)
    assert pane(page, "map").get_attribute("data-tile") == tile
    assert pane(page, "embedding").get_attribute("data-tile") == tile


def test_projections_and_dimensions_switch_and_stay_linked(visit):
    page = visit()
    for algorithm, dimensions in (("TSNE", 2), ("TSNE", 3), ("PCA", 3), ("PCA", 2)):
        show(page, algorithm, dimensions)
        assert f"{dimensions}-D" in page.locator(".caption").first.text_content()
        tile, x, y = point_at_a_dot(page)
        page.mouse.click(x, y)
        assert pane(page, "map").get_attribute("data-tile") == tile
        page.keyboard.press("Escape")


def test_the_caption_says_how_trustworthy_the_projection_is(visit, ground):
    page = visit()
    value = page_json(ground["page"])["projections"]["PCA-2"]["trustworthiness"]
    caption = page.locator(".caption", has_text=f"PCA, 2-D · trustworthiness {value:.2f}")
    assert "1: no false neighbours" in caption.get_attribute("title")
    caption.hover()  # so that the browser shows the title


def test_a_dot_in_3d_is_where_plotly_draws_it(visit):
    """The place that pointing uses is worked out from the camera: Plotly's dot, in its colour, must be there.

    A nearer dot may hide it, so not every tile shows.
    """
    page = visit("#alg=PCA&dim=3&colour=similarity&tab=selection")
    x, y = middle_of(page, "embedding")
    drag(page, [(x, y), (x + 90, y + 30)])
    yellow = np.array([253, 231, 37])  # the picked tile is wholly like itself
    seen = 0
    for _ in range(6):
        page.get_by_role("button", name="Random").click()
        page.mouse.move(5, 5)
        page.wait_for_timeout(1000)
        pixels = np.asarray(Image.open(io.BytesIO(pane(page, "embedding").screenshot())).convert("RGB")).astype(int)
        right, down = ring_centre(page)
        around = pixels[down - 5 : down + 6, right - 5 : right + 6].reshape(-1, 3)
        seen += bool((np.abs(around - yellow).sum(axis=1) < 90).any())
    assert seen >= 3


def ring_centre(page) -> tuple[int, int]:
    """Middle of the dark ring round the picked tile: where it was drawn last, by its colour."""
    script = "overlay => [overlay.toDataURL(), overlay.offsetLeft, overlay.offsetTop]"
    data, left, top = pane(page, "embedding").locator(".overlay").evaluate(script)
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(data.split(",")[1]))))
    dark = (pixels[..., :3] < 60).all(axis=-1) & (pixels[..., 3] > 200)
    rows, columns = np.nonzero(dark)
    return int((columns.min() + columns.max()) / 2) + left, int((rows.min() + rows.max()) / 2) + top


# --- colour --------------------------------------------------------------------------------------------------


def test_every_colouring_has_a_legend_with_counts(visit, city):
    page = visit()
    pick_on_map(page)
    chooser = page.get_by_label("Colour by")
    for kind in ("layer", "zone", "cluster"):
        chooser.select_option(kind)
        counts = page.locator(".legend .count").all_text_contents()
        assert sum(int(count.replace(",", "")) for count in counts) == len(city.embeddings)
    for kind in ("density", "similarity"):
        chooser.select_option(kind)
        bins = page.locator(".ramp-bin").evaluate_all("bins => bins.map(bin => Number(bin.dataset.count))")
        assert sum(bins) == len(city.embeddings)
    chooser.select_option("principal")
    assert "component 1 is red" in page.locator(".legend").text_content()
    dominant = np.bincount(city.embeddings.dominant_layer, minlength=len(LAYERS))
    chooser.select_option("layer")
    chip = page.locator(f".legend [data-category={LAYERS[dominant.argmax()]}] .count")
    assert int(chip.text_content()) == dominant.max()


def labels(page, name: str) -> list[str]:
    """The names that stand on a view."""
    text = pane(page, name).get_attribute("data-labels")
    return text.split("; ") if text else []


@pytest.mark.parametrize("device", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_clusters_have_names_on_both_views_in_the_legend_and_in_exports(visit, tmp_path, device):
    page = visit("#alg=PCA&dim=2&colour=cluster", **device)
    legend = page.locator(".legend [data-category]").evaluate_all("chips => chips.map(chip => chip.dataset.category)")
    assert len(set(legend)) == len(legend) == 10 and not any(re.match(r"\d", name) for name in legend)
    for name in ("embedding", "map"):
        assert labels(page, name) and set(labels(page, name)) <= set(legend)
    assert len(labels(page, "embedding")) == len(set(labels(page, "embedding"))) >= 3
    before = marks(page, "map")
    page.get_by_role("button", name="Names", exact=True).first.click()
    assert labels(page, "map") == [] and marks(page, "map") != before
    page.locator(".legend .chip").first.click()
    table = csv.DictReader(io.StringIO(saved(page, "Save the selection as CSV", tmp_path).read_text()))
    assert {line["cluster"] for line in table} == {legend[0]}


def test_the_reader_can_rename_a_cluster(visit, tmp_path):
    page = visit("#alg=PCA&dim=2&colour=cluster")
    first = page.locator(".legend [data-category]").first.get_attribute("data-category")
    evil = "Old <b>town</b>: =1+1"
    page.get_by_role("button", name=f"Rename {first}").click()
    page.keyboard.type(evil)
    page.keyboard.press("Enter")
    assert page.locator(".legend [data-category]").first.get_attribute("data-category") == evil
    assert evil in labels(page, "map") and first not in labels(page, "map")
    page.locator(".legend .chip").first.click()
    table = csv.DictReader(io.StringIO(saved(page, "Save the selection as CSV", tmp_path).read_text()))
    assert {line["cluster"] for line in table} == {evil}
    page.wait_for_timeout(HASH_SAVED_MS)
    other = visit(page.evaluate("location.hash"))
    assert other.locator(".legend [data-category]").first.get_attribute("data-category") == evil
    other.get_by_role("button", name=f"Rename {evil}").click()
    other.keyboard.press("Backspace")
    other.keyboard.press("Enter")
    assert other.locator(".legend [data-category]").first.get_attribute("data-category") == first


def test_similarity_colours_the_city_by_the_picked_tile(visit):
    page = visit("#alg=PCA&dim=2&colour=similarity")
    assert "Pick a tile" in page.locator(".legend").text_content()
    pick_on_map(page)
    colours = pixels_of(page, "embedding").reshape(-1, 3)
    assert len(np.unique(colours[np.ptp(colours, axis=1) > 60], axis=0)) > 20


# --- selection -----------------------------------------------------------------------------------------------


def coloured(page) -> int:
    """Pixels of the embedding that are not grey."""
    return int((np.ptp(pixels_of(page, "embedding"), axis=2) > 60).sum())


@pytest.mark.parametrize("name", ["embedding", "map"])
@pytest.mark.parametrize("tool", ["Box", "Lasso"])
def test_box_and_lasso_select_and_the_rest_turns_grey(visit, city, name, tool):
    page, everything = visit(), len(city.embeddings)
    tools = page.get_by_role("toolbar", name="Embedding tools" if name == "embedding" else "Map tools")
    tools.get_by_role("button", name=tool).click()
    corners = [(0.2, 0.3), (0.75, 0.3), (0.75, 0.75), (0.2, 0.75)]
    points = share_of(page, name, *(corners if tool == "Lasso" else corners[::2]))
    before = coloured(page)
    drag(page, points)
    first = selected(page)
    assert 0 < first < everything
    assert pane(page, "embedding").get_attribute("data-grey") == str(everything - first)
    assert coloured(page) < before * (first + everything) / (2 * everything)  # and they are drawn in grey
    drag(page, share_of(page, name, (0.1, 0.2), (0.95, 0.9)), shift=True)
    if tool == "Box":
        assert selected(page) > first
    page.keyboard.press("Escape")
    assert page.locator(".selection").count() == 0


def test_a_legend_entry_selects_its_tiles_and_they_can_be_taken_along(visit, tmp_path):
    page = visit()
    entry = page.locator(".legend .chip").first
    count = int(entry.locator(".count").text_content())
    name = entry.get_attribute("data-category")
    entry.click()
    assert selected(page) == count
    table = list(csv.DictReader(io.StringIO(saved(page, "Save the selection as CSV", tmp_path).read_text())))
    assert len(table) == count and {line["dominant_layer"] for line in table} == {name}
    collection = json.loads(saved(page, "Save the selection as GeoJSON", tmp_path).read_text())
    assert len(collection["features"]) == count
    ring = collection["features"][0]["geometry"]["coordinates"][0]
    x, y = int(table[0]["x"]), int(table[0]["y"])
    assert collection["features"][0]["id"] == f"17/{x}/{y}"
    assert min(lon for lon, _ in ring) == pytest.approx(x / 2**17 * 360 - 180, abs=1e-6)
    assert ring[0] == ring[-1] and len(ring) == 5
    frame = geopandas.read_parquet(saved(page, "Save the selection as Parquet", tmp_path))
    assert frame.crs == "OGC:CRS84" and frame["dominant_layer"].unique().tolist() == [name]
    assert frame["x"].tolist() == [int(line["x"]) for line in table] and frame["x"].dtype == "int32"
    assert frame["density"].tolist() == pytest.approx([float(line["density"]) for line in table])
    assert frame.geometry.iloc[0].equals(shapely.geometry.shape(collection["features"][0]["geometry"]))


@pytest.mark.parametrize("device", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_a_selection_is_compared_inverted_reduced_and_kept(visit, ground, city, device):
    page = visit(f"#{FRESH}", **device)
    chips = page.locator(".legend .chip")
    counts = [int(text) for text in page.locator(".legend .count").all_text_contents()]
    chips.first.click()
    assert selected(page) == counts[0]
    data = page_json(ground["page"])["words"]
    ids = np.frombuffer(base64.b64decode(data["of_tile"]["data"]), np.uint8).reshape(data["of_tile"]["shape"])
    rows = explorer_data.sheet_order(city)
    layer = LAYERS.index(chips.first.get_attribute("data-category"))
    inside = city.embeddings.dominant_layer[rows] == layer
    first = page.locator(".bar-row").first
    word = data["texts"].index(first.get_attribute("data-word"))
    has = (ids == word).any(axis=1)
    assert float(first.get_attribute("data-here")) == pytest.approx(has[inside].mean(), abs=1e-3)
    assert float(first.get_attribute("data-page")) == pytest.approx(has.mean(), abs=1e-3)
    assert has[inside].mean() > has.mean()
    density = city.embeddings.density[rows]
    said = re.findall(r"(\d+) %", page.locator("[data-mean=density]").text_content())
    assert [int(text) for text in said] == pytest.approx([100 * density[inside].mean(), 100 * density.mean()], abs=0.51)
    page.get_by_role("button", name="Add", exact=True).click()
    chips.nth(1).click()
    assert selected(page) == counts[0] + counts[1]
    page.get_by_role("textbox", name="Name of this selection").fill("Both <b>kinds</b>")
    page.get_by_role("button", name="Keep", exact=True).click()
    page.get_by_role("button", name="Remove", exact=True).click()
    chips.first.click()
    assert selected(page) == counts[1]
    page.get_by_role("button", name="Invert the selection").click()
    assert selected(page) == len(city.embeddings) - counts[1]
    page.wait_for_timeout(HASH_SAVED_MS)
    other = visit(page.evaluate("location.hash"), **device)
    other.get_by_role("button", name="Select Both <b>kinds</b> again").click()
    assert selected(other) == counts[0] + counts[1]
    other.get_by_role("button", name="Forget Both <b>kinds</b>").click()
    assert other.locator("[data-saved]").count() == 0


def saved(page, button: str, folder: Path) -> Path:
    with page.expect_download() as download:
        page.get_by_role("button", name=button).click()
    path = folder / download.value.suggested_filename
    download.value.save_as(path)
    return path


def test_the_view_can_be_saved_as_a_picture(visit, tmp_path):
    page = visit()
    pick_on_map(page)
    image = Image.open(saved(page, "Save PNG of the view", tmp_path)).convert("RGB")
    assert image.width > 900 and image.height > 500
    left, right = (np.asarray(image.crop(half)) for half in halves(image))
    for half in (left, right):
        assert len(np.unique(half.reshape(-1, 3), axis=0)) > 50


@pytest.mark.parametrize("colour", ["principal", "street"])
def test_the_saved_picture_has_the_whole_legend(visit, city, tmp_path, colour):
    page = visit(f"#{FRESH}", **DESKTOP)
    names = [f"A street with a long name, number {number}" for number in range(30)]
    rows = [row | {"street": names[i % 30]} for i, row in enumerate(own_table(city))]
    drop(page, "own.csv", as_csv(rows))
    page.get_by_label("Colour by").select_option(colour)
    swatches = page.locator(".legend .swatch").evaluate_all(
        "all => all.map(one => getComputedStyle(one).backgroundColor)"
    )
    wanted = {tuple(map(int, re.findall(r"\d+", swatch))) for swatch in swatches}
    assert len(wanted) >= 3
    views = max(pane(page, name).bounding_box()["height"] for name in ("embedding", "map"))
    image = Image.open(saved(page, "Save PNG of the view", tmp_path)).convert("RGB")
    below = image.crop((0, round(image.width / page.evaluate(PICTURE_WIDTH) * (64 + views)), image.width, image.height))
    assert wanted <= {pixel for _, pixel in below.getcolors(below.width * below.height)}


PICTURE_WIDTH = "[...document.querySelectorAll('.pane-body')].reduce((sum, view) => sum + view.clientWidth, 48)"


def halves(image: Image.Image) -> list[tuple[int, int, int, int]]:
    middle = image.width // 2
    return [(0, 80, middle, image.height), (middle, 80, image.width, image.height)]


# --- the tile ------------------------------------------------------------------------------------------------


def large_picture(page, layers: str) -> np.ndarray:
    page.wait_for_selector(f".large-picture[data-layers='{layers}']")
    data = page.evaluate("document.querySelector('.large-picture').toDataURL()")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data.split(",")[1]))).convert("RGB")).astype(int)


def test_the_large_picture_is_what_python_paints_and_layers_switch_off(visit, city):
    page = visit()
    row = row_of(city, pick_on_map(page))
    planes = city.pictures.tiles(city.rows[[row]])[0]
    everything = (1 << len(LAYERS)) - 1
    assert np.abs(large_picture(page, str(everything)) - composite(planes)).max() <= 2
    drawn = int(np.flatnonzero(planes.any(axis=(1, 2)))[-1])
    page.locator(f"[data-layer={LAYERS[drawn]}]").click()
    planes[drawn] = 0
    assert np.abs(large_picture(page, str(everything ^ (1 << drawn))) - composite(planes)).max() <= 2
    assert page.locator(f"[data-layer={LAYERS[drawn]}]").get_attribute("aria-pressed") == "false"
    assert page.locator(".chip.layer").count() == len(LAYERS)
    page.get_by_role("button", name="All of the layers").click()
    assert page.locator(".chip.layer[aria-pressed=true]").count() == len(LAYERS)


def test_previews_can_show_the_main_layer(visit):
    page = visit()
    page.mouse.move(*middle_of(page, "map"))
    colourful = page.evaluate("document.querySelector('.card-tip canvas').toDataURL()")
    page.mouse.move(5, 5)
    page.get_by_role("button", name="Main layer").click()
    page.mouse.move(*middle_of(page, "map"))
    page.mouse.move(middle_of(page, "map")[0] + 40, middle_of(page, "map")[1])
    page.mouse.move(*middle_of(page, "map"))
    page.wait_for_function("before => document.querySelector('.card-tip canvas').toDataURL() != before", arg=colourful)


def test_main_layers_are_not_painted_again_when_the_pointer_moves(visit):
    page = visit(f"#{FRESH}", **DESKTOP)
    page.get_by_role("button", name="Main layer").click()
    page.get_by_role("button", name="Pictures").click()
    page.evaluate("""() => {
      const { prototype } = CanvasRenderingContext2D;
      const put = prototype.putImageData;
      window.painted = 0;
      prototype.putImageData = function (...image) { window.painted++; put.apply(this, image); };
    }""")
    painted = []
    for _ in range(2):
        page.mouse.move(5, 5)
        page.evaluate("window.painted = 0")
        _, x, y = point_at_a_dot(page)
        page.mouse.move(x + 60, y + 30, steps=5)
        page.mouse.move(x, y, steps=5)
        painted.append(page.evaluate("window.painted"))
    assert painted[1] == 0


# --- neighbours ----------------------------------------------------------------------------------------------


def test_neighbours_are_those_of_the_full_vectors(visit, city):
    page = visit()
    row = row_of(city, pick_on_map(page))
    found = [row_of(city, tile) for tile in neighbours(page)]
    similarity = city.embeddings.vectors @ city.embeddings.vectors[row]
    similarity[row] = -1
    exact = np.argsort(-similarity)[: len(found)]
    assert len(set(found) & set(exact.tolist())) >= len(found) - 2
    shown = [float(text) for text in page.locator(".match-head strong").all_text_contents()]
    assert shown == pytest.approx(similarity[found], abs=2e-3)
    assert shown == sorted(shown, reverse=True)
    assert page.locator(".neighbours canvas").count() == len(found)
    assert "of the ten nearest" in page.locator(".note").text_content()


def test_why_two_tiles_match_is_what_the_network_says(visit, city):
    page = visit()
    row = row_of(city, pick_on_map(page))
    other = row_of(city, neighbours(page)[0])
    exact = layer_contributions(city.embedder, city.rows[row], city.rows[other])
    told = parts_told(page.locator(".neighbours li").first.locator(".reasons").first)
    assert told or np.abs(exact).max() < 0.012
    for layer, change in told.items():
        assert change == pytest.approx(exact[LAYERS.index(layer)], abs=0.012)
    assert [*told.values()] == sorted(told.values(), reverse=True)  # what matches comes first


def parts_told(reasons) -> dict[str, float]:
    """The segments of a bar of reasons: how much similarity is lost without each part."""
    return dict(
        reasons.locator(".segment").evaluate_all(
            "parts => parts.map(part => [part.dataset.part, Number(part.dataset.change)])"
        )
    )


def test_words_say_what_two_tiles_share_and_what_only_one_has(visit, ground, city):
    page = visit()
    data = page_json(ground["page"])["words"]
    ids = np.frombuffer(base64.b64decode(data["of_tile"]["data"]), np.uint8).reshape(data["of_tile"]["shape"])
    rows = explorer_data.sheet_order(city).tolist()

    def words(tile: str) -> list[str]:
        return [data["texts"][word] for word in ids[rows.index(row_of(city, tile))] if word != place_words.NO_WORD]

    own = words(pick_on_map(page, 0.45, 0.45))
    assert own and page.locator(".tile-panel h2").text_content() == ", ".join(own[:2])
    for item, tile in zip(page.locator(".neighbours li").all(), neighbours(page), strict=True):
        same = [word for word in own if word in words(tile)]
        text = item.locator(".same").text_content() if same else ""
        assert text == ("both " + ", ".join(same[:2]) if same else "")
        differs = [word for word in words(tile) if word not in own]
        assert not differs or f"only there {differs[0]}" in item.locator(".reason-words").text_content()


def test_how_much_is_the_place_itself_and_how_much_its_surroundings(browser, ground, tmp_path):
    paths = ground | {"model": tmp_path / "model.pth", "out": tmp_path / "out"}
    save_untrained(paths["model"], TILE_SIZE, DIMENSIONS, architecture="multiscale")
    build(paths, "--dr_algorithms", "PCA", "--max_tiles", 60)
    tiles = TilesFlags(tiles_root=paths["tiles"], cache_dir=paths["cache"])
    city = load_city(tiles, paths["model"], device="cpu", max_tiles=60)
    visit = Visit(browser, paths["out"] / "index.html")
    row = row_of(city, pick_on_map(visit.page))
    bars = visit.page.locator(".neighbours .reasons.place").all()
    others = [row_of(city, tile) for tile in neighbours(visit.page)]
    assert len(bars) == len(others) > 3
    exact = place_contributions(city.embedder, np.full(len(others), city.rows[row]), city.rows[others])
    for bar, values in zip(bars, exact, strict=True):
        told = parts_told(bar)
        assert list(told) == list(PLACE_PARTS)
        assert list(told.values()) == pytest.approx(values, abs=0.012)
        place, around = (max(0.0, value) for value in told.values())
        if place + around > 0.05:
            share = int(re.search(r"(\d+) % place", bar.text_content())[1])
            assert share == pytest.approx(100 * place / (place + around), abs=1.5)
    assert "16 × 16 tiles around" in str(page_json(paths["out"] / "index.html"))
    visit.leave()


def test_neighbours_can_be_kept_away(visit, city):
    page = visit()
    row = row_of(city, pick_on_map(page))
    slider = page.get_by_role("slider", name="At least")
    slider.focus()
    slider.press("ArrowRight")
    slider.press("ArrowRight")
    page.wait_for_function("location.hash.includes('km=1')")
    found = [row_of(city, tile) for tile in neighbours(page)]
    away = great_circle_km(city.embeddings.latlon[found], city.embeddings.latlon[row])
    assert len(found) and away.min() >= 0.99


def test_arithmetic_and_walk(visit, city):
    page = visit()
    tiles = {}
    for slot, (right, down) in zip("ABC", [(0.3, 0.5), (0.6, 0.45), (0.5, 0.62)], strict=True):
        tiles[slot] = pick_on_map(page, right, down)
        page.get_by_role("button", name=f"Put into {slot}").click()
    rows = [row_of(city, tiles[slot]) for slot in "ABC"]
    vectors = city.embeddings.vectors
    similarity = vectors @ (vectors[rows[0]] + vectors[rows[1]] - vectors[rows[2]])
    similarity[rows] = -np.inf
    shown = page.locator("[data-results=arithmetic] [data-tile]")
    found = [row_of(city, tile) for tile in shown.evaluate_all("items => items.map(item => item.dataset.tile)")]
    assert len(set(found[:6]) & set(np.argsort(-similarity)[:8].tolist())) >= 5
    page.get_by_role("tab", name="Walk").click()
    steps = page.locator("[data-results=walk] [data-tile]")
    path = [row_of(city, tile) for tile in steps.evaluate_all("items => items.map(item => item.dataset.tile)")]
    expected = walk(Search(vectors, "angular"), rows[0], rows[1], 6)
    assert path[0] == rows[0] and path[-1] == rows[1] and len(set(path)) == len(path)
    assert len(set(path) & set(expected.tolist())) >= len(expected) - 2


# --- finding, keys, address ----------------------------------------------------------------------------------


def test_find_by_id_by_place_and_at_random(visit, city):
    page = visit()
    box = page.get_by_role("combobox", name="Find a place")
    x, y = city.embeddings.tile_xy[7]
    box.fill(f"17/{x}/{y}")
    box.press("Enter")
    assert pane(page, "map").get_attribute("data-tile") == f"17/{x}/{y}"
    lat, lon = city.embeddings.latlon[11]
    box.fill(f"{lat:.6f}, {lon:.6f}")
    page.get_by_role("button", name="Find").click()
    x, y = city.embeddings.tile_xy[11]
    assert pane(page, "map").get_attribute("data-tile") == f"17/{x}/{y}"
    alert = page.locator(".find-message")
    for text, answer in (("qqqqq", "Type a tile"), ("1.5, 2.5", "far outside"), (f"12/{x}/{y}", "zoom 17, not 12")):
        box.fill(text)
        box.press("Enter")
        assert answer in alert.text_content()
    seen = set()
    for _ in range(3):
        page.get_by_role("button", name="Random").click()
        seen.add(pane(page, "map").get_attribute("data-tile"))
    assert len(seen) > 1 and not alert.text_content()


def test_a_place_that_is_found_again_comes_back_into_sight(visit, city):
    page = visit(f"#{FRESH}", **DESKTOP)
    box, (x, y) = page.get_by_role("combobox", name="Find a place"), city.embeddings.tile_xy[7]
    box.fill(f"17/{x}/{y}")
    box.press("Enter")
    pane(page, "map").focus()
    for _ in range(6):
        page.keyboard.press("+")
    for _ in range(3):
        drag(page, share_of(page, "map", (0.2, 0.2), (0.8, 0.8)))
    box.press("Enter")
    page.wait_for_timeout(200)
    page.mouse.move(*middle_of(page, "map"))
    assert card(page).get_attribute("data-tile") == f"17/{x}/{y}"


@pytest.mark.parametrize("device", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_find_a_place_by_name_in_any_script(visit, city, device):
    """By the beginning of a word, another alphabet, another spelling, another language, and with a letter wrong."""
    page = visit(f"#{FRESH}", **device)
    box = page.get_by_role("combobox", name="Find a place")
    for typed, name in (
        ("green", PLACES[0][0][0]), ("zelena", PLACES[0][0][0]), ("ЗЕЛЕН", PLACES[0][0][0]), ("Zlena", PLACES[0][0][0]),
        ("хрещатик", PLACES[1][0][0]), ("khreshatik", PLACES[1][0][0]), ("munchen pl", PLACES[2][0][0]),
    ):  # fmt: skip
        box.fill(typed)
        options = page.locator(".found-place[role=option]")
        assert options.first.locator(".found-name").text_content().startswith(name), typed
        box.press("ArrowDown")
        assert options.first.get_attribute("aria-selected") == "true"
        assert box.get_attribute("aria-activedescendant") == options.first.get_attribute("id")
        box.press("Enter")
        _, _, (lat, lon) = next(place for place in PLACES if place[0][0] == name)
        nearest = great_circle_km(city.embeddings.latlon, np.array([lat, lon])).argmin()
        x, y = city.embeddings.tile_xy[nearest]
        assert pane(page, "map").get_attribute("data-tile") == f"17/{x}/{y}"
        assert page.get_by_role("listbox").is_hidden()
    box.fill("platz")
    box.press("ArrowUp")
    assert page.locator(".found-place").last.get_attribute("aria-selected") == "true"
    box.press("Escape")
    assert page.get_by_role("listbox").is_hidden() and box.input_value() == "platz"
    box.fill("platz")
    last = page.locator(".found-place .found-name").last.text_content()
    box.press("ArrowUp")
    box.press("Enter")
    assert box.input_value() == last != EVIL_NAME, "what the arrow keys chose, not the first"
    box.fill("platz")
    page.locator(".found-place").first.click()
    assert box.input_value() == EVIL_NAME and page.evaluate("window.attacked") is None
    assert page.locator("#explorer img").count() == 0


@pytest.mark.parametrize("name", ["embedding", "map"])
def test_everything_can_be_reached_by_keys(visit, name):
    page = visit()
    pane(page, name).focus()
    page.keyboard.press("ArrowRight")
    first = page.locator(".sr-only[role=status]").text_content()
    assert "tile 17/" in first
    page.keyboard.press("ArrowRight")
    assert page.locator(".sr-only[role=status]").text_content() != first
    page.keyboard.press("Enter")
    assert pane(page, name).get_attribute("data-tile") in page.locator(".sr-only[role=status]").text_content()
    page.keyboard.press("+")
    page.keyboard.press("Escape")
    assert not pane(page, name).get_attribute("data-tile")


@pytest.mark.parametrize(("name", "dimensions"), [("embedding", 2), ("embedding", 3), ("map", 2)])
def test_the_highlighted_tile_stays_in_sight_and_its_card_can_be_closed(visit, name, dimensions):
    page = visit(f"#{FRESH}".replace("dim=2", f"dim={dimensions}"), **DESKTOP)
    pane(page, name).focus()
    for _ in range(6):
        page.keyboard.press("+")
    box = pane(page, name).bounding_box()
    for _ in range(8):
        page.keyboard.press("ArrowRight")
        page.wait_for_timeout(50)
        shown = card(page).bounding_box()  # beside the tile
        assert box["x"] <= shown["x"] <= box["x"] + box["width"] and box["y"] <= shown["y"] + shown["height"]
    page.keyboard.press("Escape")
    assert not card(page).is_visible()
    page.keyboard.press("ArrowRight")
    assert card(page).is_visible()
    page.keyboard.press("Tab")
    assert not card(page).is_visible()


def test_the_focus_stays_in_the_panel_when_its_control_is_gone(visit):
    page = visit(f"#{FRESH}", **DESKTOP)
    first = pick_on_map(page)
    page.wait_for_timeout(HASH_SAVED_MS)
    page.locator(".neighbours li button").first.focus()
    page.keyboard.press("Enter")
    page.wait_for_function("id => document.querySelector('[data-pane=map]').dataset.tile !== id", arg=first)
    assert page.evaluate("document.querySelector('.side').contains(document.activeElement)")
    page.wait_for_timeout(HASH_SAVED_MS)
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("Control+z")  # wherever the focus is
    page.wait_for_function("id => document.querySelector('[data-pane=map]').dataset.tile === id", arg=first)


@pytest.fixture(scope="module")
def axe() -> str:
    """The script of axe-core, from web/node_modules or a folder of NODE_PATH."""
    folders = [
        REPO / "web" / "node_modules",
        *map(Path, filter(None, os.environ.get("NODE_PATH", "").split(os.pathsep))),
    ]
    found = next((path for folder in folders if (path := folder / "axe-core" / "axe.min.js").is_file()), None)
    if not found:
        pytest.skip("no axe-core in web/node_modules: `./setup.sh types` installs it")
    return found.read_text(encoding="utf-8")


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("device", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_axe_finds_nothing_to_improve(visit, axe, device, theme):
    """WCAG 2.2 AA and axe's best practices, with every panel open once."""
    page = visit(f"#alg=PCA&dim=2&colour=cluster&theme={theme}", **device)
    page.evaluate(axe)
    found = {}
    page.get_by_role("button", name="Random").click()
    for panel in ("alike", "sum", "walk", "filter", "selection"):
        page.locator(f"[data-tab={panel}]").click()
        if panel == "selection":
            page.locator(".legend .chip").first.click()
            page.get_by_role("combobox", name="Find a place").fill("platz")
        rules = "['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice']"
        for one in page.evaluate(f"axe.run(document, {{runOnly: {rules}}})")["violations"]:
            found[panel, one["id"]] = [node["html"][:200] for node in one["nodes"]]
    assert not found


def test_every_control_has_a_name_and_can_be_tabbed_to(visit):
    page = visit()
    pick_on_map(page)
    nameless = page.evaluate(
        """() => [...document.querySelectorAll('button, input, select, [role=application]')].filter(node =>
          !(node.getAttribute('aria-label') || node.textContent.trim() || node.labels?.length)).length"""
    )
    assert nameless == 0
    reached = set()
    for _ in range(80):
        page.keyboard.press("Tab")
        reached.add(
            page.evaluate("document.activeElement.getAttribute('aria-label') || document.activeElement.textContent")
        )
    assert {"Find a place", "Find", "t-SNE", "Colour by", "Move", "Box", "Lasso"} <= reached
    for start in ("City map", "Embedding:"):
        assert any(text.startswith(start) for text in reached)


def test_a_link_opens_the_same_view(visit):
    page = visit()
    tile = pick_on_map(page, 0.4, 0.5)
    page.get_by_role("button", name="Put into A").click()
    show(page, "TSNE", 3)
    page.get_by_label("Colour by").select_option("zone")
    page.locator(".legend .chip").first.click()
    count = selected(page)
    page.wait_for_timeout(HASH_SAVED_MS)
    other = visit(page.evaluate("location.hash"))
    assert pane(other, "map").get_attribute("data-tile") == tile
    assert other.get_by_label("Colour by").input_value() == "zone"
    assert pane(other, "embedding").get_attribute("data-shown") == "TSNE-3"
    assert selected(other) == count
    assert other.evaluate("location.hash") == page.evaluate("location.hash")


def test_escape_in_a_text_field_keeps_the_selection(visit):
    page = visit()
    page.locator(".legend .chip").first.click()
    count = selected(page)
    field = page.get_by_label("Find a place")
    field.fill("Green")
    for _ in range(2):  # the list of places closes first
        field.press("Escape")
    assert selected(page) == count
    pane(page, "map").press("Escape")
    page.wait_for_function("!document.querySelector('.selection')")


def test_back_forward_and_undo(visit):
    page = visit(f"#{FRESH}")
    first = pick_on_map(page, 0.4, 0.5)
    page.wait_for_timeout(HASH_SAVED_MS)
    page.get_by_label("Colour by").select_option("zone")
    page.wait_for_timeout(HASH_SAVED_MS)
    page.locator(".legend .chip").first.click()
    page.wait_for_timeout(HASH_SAVED_MS)
    page.go_back()
    page.wait_for_function("!document.querySelector('.selection')")
    assert page.get_by_label("Colour by").input_value() == "zone"
    page.go_forward()
    assert selected(page) > 0
    for _ in range(2):
        page.get_by_role("button", name="Undo").click()
        page.wait_for_timeout(HASH_SAVED_MS)
    assert page.get_by_label("Colour by").input_value() == "layer"
    assert pane(page, "map").get_attribute("data-tile") == first
    page.keyboard.press("Control+z")
    page.wait_for_function("!document.querySelector('[data-pane=map]').dataset.tile")
    assert page.get_by_role("button", name="Undo").is_disabled()


def test_undo_keeps_what_drawing_does(visit):
    page = visit(f"#{FRESH}", **DESKTOP)
    chips = page.locator(".legend .chip")
    counts = [int(text) for text in page.locator(".legend .count").all_text_contents()]
    chips.first.click()
    page.get_by_role("button", name="Add", exact=True).click()
    page.wait_for_timeout(HASH_SAVED_MS)
    chips.nth(1).click()
    page.wait_for_timeout(HASH_SAVED_MS)
    page.get_by_role("button", name="Undo").click()
    page.wait_for_function(
        "n => document.querySelector('.selection h3').textContent.startsWith(n)", arg=f"{counts[0]} "
    )
    chips.nth(2).click()
    assert selected(page) == counts[0] + counts[2]


def test_undo_keeps_the_colours_and_filters_of_a_dropped_file(visit, city):
    page = visit(f"#{FRESH}", **DESKTOP)
    drop(page, "own.csv", as_csv(own_table(city)))
    page.wait_for_timeout(HASH_SAVED_MS)
    page.get_by_role("checkbox", name="Keep no value").uncheck()
    page.wait_for_timeout(HASH_SAVED_MS)
    passing = page.locator(".filter-sum").text_content()
    pick_on_map(page)
    page.wait_for_timeout(HASH_SAVED_MS)
    page.get_by_role("button", name="Undo").click()
    page.wait_for_function("!document.querySelector('[data-pane=map]').dataset.tile")
    assert page.get_by_label("Colour by").input_value() == "price"
    assert page.locator(".filter-sum").text_content() == passing


def test_an_address_of_nonsense_does_no_harm(visit):
    page = visit("#alg=<script>&dim=9&tile=17/1/1&a=x&colour=__proto__&sel=1.2.3.%25%25&km=-4&layers=zz&tab=evil")
    pick_on_map(page)
    assert pane(page, "embedding").get_attribute("data-shown") == "PCA-2"


# --- own columns and filters -----------------------------------------------------------------------------------

EVIL_CELL = "<img src=x onerror=window.attacked=1>"


def own_table(city: City) -> list[dict[str, object]]:
    """A row in each of 60 tiles, at its centre: a price, a kind, a note, a name that is an attack and a formula."""
    rows = []
    for row in range(0, 240, 4):
        lat, lon = city.embeddings.latlon[row]
        kind = EVIL_CELL if row % 3 else "=1+2"
        rows.append({"lat": lat, "lon": lon, "price": row / 10, "kind": kind, "note": f'note {row} Größe, "{row}"'})
    return rows


def as_csv(rows: list[dict[str, object]]) -> str:
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()


def as_geojson(rows: list[dict[str, object]]) -> str:
    features = [
        {
            "type": "Feature",
            "geometry": {"type": "Point", "coordinates": [row["lon"], row["lat"]]},
            "properties": {name: row[name] for name in ("price", "kind", "note")},
        }
        for row in rows
    ]
    return json.dumps({"type": "FeatureCollection", "features": features})


def as_parquet(rows: list[dict]) -> bytes:
    """The table with vectors, which are no columns, in compressed pages."""
    table = pa.Table.from_pylist([row | {"vector": [0.5, 1.5]} for row in rows])
    return parquet_bytes(table, compression="zstd")


def as_geoparquet(rows: list[dict]) -> bytes:
    columns = {name: [row[name] for row in rows] for name in ("price", "kind", "note")}
    points = geopandas.points_from_xy([row["lon"] for row in rows], [row["lat"] for row in rows], crs="EPSG:4326")
    file = io.BytesIO()
    geopandas.GeoDataFrame(columns, geometry=points).to_parquet(file, compression="gzip")
    return file.getvalue()


def parquet_bytes(table: pa.Table, **options: Any) -> bytes:
    file = io.BytesIO()
    pq.write_table(table, file, **options)
    return file.getvalue()


def projected() -> bytes:
    file = io.BytesIO()
    place = geopandas.points_from_xy([500_000], [5_600_000], crs="EPSG:32636")
    geopandas.GeoDataFrame({"price": [1.5]}, geometry=place).to_parquet(file)
    return file.getvalue()


def drop(page, name: str, content: str | bytes) -> None:
    """Let a file fall on the page."""
    content = content.encode() if isinstance(content, str) else content
    transfer = page.evaluate_handle(
        """([name, content]) => {
          const transfer = new DataTransfer();
          transfer.items.add(new File([Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0))], name));
          return transfer;
        }""",
        [name, base64.b64encode(content).decode()],
    )
    page.locator("#explorer").dispatch_event("drop", {"dataTransfer": transfer})
    page.wait_for_selector(".file-message")


def check_own_columns(page, city: City, folder: Path) -> None:
    """Colours, facts, filters and exports of the table, wherever it came from."""
    table = own_table(city)
    page.get_by_label("Colour by").select_option("price")
    bins = page.locator(".ramp-bin").evaluate_all("bins => bins.map(bin => Number(bin.dataset.count))")
    assert sum(bins) == len(table)
    page.get_by_label("Colour by").select_option("kind")
    names = page.locator(".legend [data-category]").evaluate_all("chips => chips.map(chip => chip.dataset.category)")
    assert set(names) == {EVIL_CELL, "=1+2", "no value"}
    page.get_by_role("tab", name="Filter").click()
    bars = page.locator("[data-filter=price] .bin")
    before = bars.evaluate_all("bars => bars.map(bar => [Number(bar.dataset.all), Number(bar.dataset.kept)])")
    assert sum(count for count, _ in before) == len(table) and all(count == kept for count, kept in before)
    page.get_by_role("checkbox", name=f"Keep {EVIL_CELL}").uncheck()
    page.get_by_role("checkbox", name="Keep no value").uncheck()
    expected = [row for row in table if row["kind"] == "=1+2"]
    assert f"{len(expected)} of {len(city.embeddings)} tiles pass" in page.locator(".filter-sum").text_content()
    after = bars.evaluate_all("bars => bars.map(bar => Number(bar.dataset.kept))")
    assert sum(after) == len(expected)  # the histogram of another column follows
    own = page.locator("[data-filter=kind] [data-kept]").evaluate_all(
        "bars => bars.map(bar => Number(bar.dataset.kept))"
    )
    assert sorted(own) == sorted([len(expected), len(table) - len(expected), len(city.embeddings) - len(table)])
    page.get_by_role("textbox", name="note contains").fill("grosse".replace("ss", "ß"))
    page.get_by_role("textbox", name="note contains").press("Enter")
    page.get_by_role("slider", name="From price").focus()
    page.keyboard.press("End")
    page.wait_for_function("document.querySelector('.filter-sum').textContent.startsWith('0 of')")
    page.get_by_role("slider", name="From price").focus()
    page.keyboard.press("Home")
    page.wait_for_function("!document.querySelector('.filter-sum').textContent.startsWith('0 of')")
    page.get_by_role("button", name="Select them").click()
    assert selected(page) == len(expected)
    saved_rows = saved_table(page, folder)
    assert {row["kind"] for row in saved_rows} == {"'=1+2"}
    prices = sorted(float(row["price"]) for row in saved_rows)
    assert prices == pytest.approx(sorted(float(row["price"]) for row in expected), abs=1e-3)
    assert page.evaluate("window.attacked") is None and page.locator("#explorer img").count() == 0


@pytest.mark.parametrize("device", [DESKTOP, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("own.csv", as_csv),
        ("own.geojson", as_geojson),
        ("own.parquet", as_parquet),
        ("own.geoparquet", as_geoparquet),
    ],
)
def test_a_dropped_file_colours_filters_and_is_exported(visit, city, tmp_path, name, text, device):
    page = visit(f"#{FRESH}", **device)
    drop(page, name, text(own_table(city)))
    message = page.locator(".file-message").text_content()
    assert message == f"{name}: 3 columns, 60 of 60 rows lie on tiles of this page."
    check_own_columns(page, city, tmp_path)


def test_columns_given_when_building_are_the_same(browser, ground, city, tmp_path):
    (tmp_path / "own.csv").write_text(as_csv(own_table(city)), encoding="utf-8")
    paths = ground | {"out": tmp_path / "out"}
    build(paths, "--dr_algorithms", "PCA", "--max_tiles", SHOWN, "--columns", tmp_path / "own.csv", "--no_reasons")
    one = Visit(browser, paths["out"] / "index.html", f"#{FRESH}")
    check_own_columns(one.page, city, tmp_path)
    one.page.wait_for_timeout(HASH_SAVED_MS)
    other = Visit(browser, paths["out"] / "index.html", one.page.evaluate("location.hash"))
    other.page.get_by_role("tab", name="Filter").click()
    same = one.page.get_by_role("tab", name="Filter")
    same.click()
    assert other.page.locator(".filter-sum").text_content() == one.page.locator(".filter-sum").text_content()
    one.leave()
    other.leave()


def test_codes_are_text_and_small_numbers_keep_their_figures(visit, city, tmp_path):
    page = visit(f"#{FRESH}", **DESKTOP)
    rows = [
        row
        | {"road": f"E{10 * (i % 3)}", "rate": 0.00042 if i % 2 else 0.00018, "zone": "a", "geometry": "POINT (1 2)"}
        for i, row in enumerate(own_table(city))
    ]
    drop(page, "own.csv", as_csv(rows))
    assert page.locator(".file-message").text_content().startswith("own.csv: 7 columns, 60 of 60 rows")
    page.get_by_label("Colour by").select_option("road")
    names = page.locator(".legend [data-category]").evaluate_all("chips => chips.map(chip => chip.dataset.category)")
    assert set(names) == {"E0", "E10", "E20", "no value"}
    page.get_by_label("Colour by").select_option("rate")
    assert "0.00042" in page.locator(".legend").text_content()
    page.get_by_label("Colour by").select_option("road")
    page.locator("[data-category=E10]").click()
    with open(saved(page, "Save the selection as CSV", tmp_path), newline="", encoding="utf-8") as file:
        written = list(csv.DictReader(file))
    assert len(written) == 20 and {row["rate"] for row in written} == {"0.00042", "0.00018"}
    assert {row["zone (own)"] for row in written} == {"a"} and not {row["zone"] for row in written} & {"", "a"}
    frame = geopandas.read_parquet(saved(page, "Save the selection as Parquet", tmp_path))
    assert len(frame) == 20 and set(frame["geometry (own)"]) == {"POINT (1 2)"} and set(frame.geom_type) == {"Polygon"}


def test_polygons_with_holes_colour_the_tiles_that_python_finds(visit, city, tmp_path):
    page = visit(f"#{FRESH}", **DESKTOP)
    lat, lon = city.embeddings.latlon.mean(axis=0)
    rng = np.random.default_rng(0)
    shapes = []
    for _ in range(30):
        at = shapely.Point(lon + rng.normal(0, 0.004), lat + rng.normal(0, 0.003))
        ring = at.buffer(rng.uniform(0.001, 0.006)).difference(at.buffer(0.0008))
        shapes.append(ring.union(shapely.affinity.translate(ring, 0.009)))
    frame = geopandas.GeoDataFrame({"share": rng.uniform(0, 9, 30)}, geometry=shapes, crs="EPSG:4326")
    frame.to_file(tmp_path / "own.geojson")
    drop(page, "own.geojson", (tmp_path / "own.geojson").read_text(encoding="utf-8"))
    (expected,) = column_colourings([tmp_path / "own.geojson"], city.embeddings.tile_xy, city.embeddings.zoom)
    values = expected.values(None).values
    assert 20 < np.isfinite(values).sum() < len(values)
    page.get_by_role("tab", name="Filter").click()
    bars = page.locator("[data-filter=share] .bin").evaluate_all("bars => bars.map(bar => Number(bar.dataset.all))")
    assert sum(bars) == np.isfinite(values).sum()


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.csv", "lat,lon,price\n1.5,2.5,3\n", "none of 1 rows lies on a tile"),
        ("b.csv", "street,price\nA,3\n", "found the columns street, price; expected lat and lon"),
        ("c.csv", "lat,lon\n", "has no rows"),
        ("d.geojson", '{"type": "FeatureCollection", "features"', "not complete GeoJSON"),
        ("e.csv", "\0\1\2", "not a text file"),
        ("f.parquet", as_parquet([{"lat": 1.5}])[:-9], "Parquet file cannot be read"),
        ("g.parquet", parquet_bytes(pa.table({"price": [1.5]})), "found the columns price; expected lat and lon"),
        ("h.parquet", projected(), "its places are in EPSG:32636; expected longitude and latitude"),
        ("i.parquet", parquet_bytes(pa.table({"lat": [1.5]}), compression="brotli"), "BROTLI"),
    ],
)
def test_a_file_that_cannot_be_used_says_why(visit, name, text, said):
    page = visit()
    drop(page, name, text)
    page.wait_for_function("name => document.querySelector('.file-message')?.textContent.startsWith(name)", arg=name)
    assert said in page.locator(".file-message").text_content()
    assert page.locator(".legend .chip").count() > 1


def test_rows_are_placed_by_the_first_position_that_lies_on_the_page(visit, city):
    page = visit(f"#{FRESH}", **DESKTOP)
    projected = {"x": 321_000.5, "y": 5_590_000.5, "buildings_with_levels": 3}
    drop(page, "own.csv", as_csv([row | projected for row in own_table(city)]))
    assert page.locator(".file-message").text_content().startswith("own.csv: 3 columns, 60 of 60 rows")


def test_what_python_calls_no_column_is_none_beside_shapes_either(visit, city):
    page = visit(f"#{FRESH}", **DESKTOP)
    features = json.loads(as_geojson(own_table(city)))
    for feature in features["features"]:
        feature["properties"] |= {"id": 7, "buildings_with_levels": 3}
    drop(page, "shapes.geojson", json.dumps(features))
    assert page.locator(".file-message").text_content().startswith("shapes.geojson: 3 columns, 60 of 60 rows")


def test_a_hundred_damaged_parquet_files_are_one_message_each(visit, city):
    page, whole = visit(), as_parquet(own_table(city))
    rng = np.random.default_rng(0)
    for number in range(100):
        damaged = bytearray(whole[: rng.integers(len(whole))] if number % 4 == 0 else whole)
        for at in rng.integers(4, max(5, len(damaged)), size=rng.integers(1, 9)):
            damaged[min(at, len(damaged) - 1)] = rng.integers(256)
        name = f"{number}.parquet"
        drop(page, name, bytes(damaged))
        page.wait_for_function("name => document.querySelector('.file-message').textContent.startsWith(name)", arg=name)
    pick_on_map(page)
    assert page.evaluate("window.attacked") is None and page.locator("#explorer img").count() == 0


# --- looks, phones, poorer browsers ----------------------------------------------------------------------------


def test_light_and_dark(visit):
    page = visit(color_scheme="dark", **DESKTOP)
    root = page.locator("#explorer")
    assert root.get_attribute("data-theme") == "dark"
    dark = page.evaluate("getComputedStyle(document.querySelector('#explorer')).backgroundColor")
    page.get_by_role("button", name="Switch between light and dark").click()
    assert root.get_attribute("data-theme") == "light"
    assert page.evaluate("getComputedStyle(document.querySelector('#explorer')).backgroundColor") != dark


def test_on_a_phone_the_views_are_stacked_and_nothing_sticks_out(visit):
    page = visit(**PHONE)
    embedding, city_map = (pane(page, name).bounding_box() for name in ("embedding", "map"))
    assert city_map["y"] >= embedding["y"] + embedding["height"]
    assert embedding["width"] > 340
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    pane(page, "map").scroll_into_view_if_needed()
    pane(page, "map").tap()
    assert pane(page, "map").get_attribute("data-tile")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_on_the_narrowest_phone_nothing_sticks_out(visit):
    page = visit(viewport={"width": 320, "height": 568}, device_scale_factor=2, is_mobile=True, has_touch=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= 320
    for name in ("Embedding tools", "Map tools"):
        for tool in page.get_by_role("toolbar", name=name).get_by_role("button").all():
            box = tool.bounding_box()
            assert box["x"] >= 0 and box["x"] + box["width"] <= 320, tool.text_content()


def test_on_a_desktop_the_views_are_side_by_side_and_the_page_does_not_scroll(visit):
    page = visit()
    embedding, city_map = (pane(page, name).bounding_box() for name in ("embedding", "map"))
    assert embedding["y"] == city_map["y"] and city_map["x"] > embedding["x"] + embedding["width"]
    assert page.evaluate("document.documentElement.scrollHeight") <= 900


def test_without_webgl_it_says_so_and_works(playwright, chromium, ground, city):
    browser = launch(playwright, *NO_WEBGL)
    visit = Visit(browser, ground["page"])
    page = visit.page
    assert "WebGL is not available" in page.get_by_role("note").text_content()
    for dimensions in (3, 2):
        show(page, "TSNE", dimensions)
        tile, x, y = point_at_a_dot(page)
        page.mouse.click(x, y)
        assert pane(page, "map").get_attribute("data-tile") == tile
        page.keyboard.press("Escape")
    visit.leave()
    browser.close()


def test_with_webgl_it_does_not(visit):
    page = visit()
    assert page.get_by_role("note").is_hidden()
    show(page, "PCA", 3)
    assert page.evaluate("document.querySelector('.plot').data[0].type") == "scatter3d"
    assert page.locator(".modebar-btn").count() == 0 and page.locator("text=plotly").count() == 0


WITH_CARD = """
const original = WebGL2RenderingContext.prototype.getParameter;
WebGL2RenderingContext.prototype.getParameter = function (name) {
  const value = original.call(this, name);
  return /swiftshader/i.test(value) ? "A graphics card" : value;
};
"""


def pixels_of(page, name: str) -> np.ndarray:
    """The pixels of a view (height, width, 3)."""
    page.mouse.move(5, 5)
    page.wait_for_timeout(500)
    return np.asarray(Image.open(io.BytesIO(pane(page, name).screenshot())).convert("RGB")).astype(int)


def test_webgl_draws_what_the_processor_draws(browser, ground, visit, tmp_path):
    without, visitor = visit(f"#{FRESH}"), Visit(browser, ground["page"], f"#{FRESH}", script=WITH_CARD)
    page = visitor.page
    assert without.locator("canvas.dots").count() == 0 and page.locator("canvas.dots").count() == 2
    for name in ("embedding", "map"):
        for _ in range(2):
            ours, theirs = pixels_of(without, name), pixels_of(page, name)
            assert (np.abs(ours - theirs).max(axis=2) > 60).mean() < 0.02
            assert (np.abs(ours - ours[3, 300]).max(axis=2) > 60).mean() > 0.02  # something is drawn
            for one in (without, page):
                toolbar = one.get_by_role("toolbar", name=f"{name.capitalize()} tools")
                toolbar.get_by_role("button", name="Zoom in").click()
    before = pixels_of(page, "embedding")
    page.evaluate("""async () => {
      const lose = document.querySelector("canvas.dots").getContext("webgl2").getExtension("WEBGL_lose_context");
      lose.loseContext();
      await new Promise((resolve) => setTimeout(resolve, 300));
      lose.restoreContext();
    }""")
    assert (np.abs(pixels_of(page, "embedding") - before).max(axis=2) > 60).mean() < 0.001
    picture = Image.open(saved(page, "Save PNG of the view", tmp_path)).convert("RGB")
    assert len(np.unique(np.asarray(picture).reshape(-1, 3), axis=0)) > 50
    visitor.leave()


def test_nothing_from_the_data_becomes_markup(visit):
    page = visit()
    assert page.evaluate("window.attacked") is None
    assert page.get_by_role("heading", level=1).text_content() == "Ünïted <I>City"
    assert "<script>window.attacked" in page.locator(".caption.right").text_content()
    assert page.locator("#explorer img").count() == 0


def test_a_damaged_sheet_shows_grey_and_breaks_nothing(browser, ground, tmp_path):
    """A picture that cannot be read is a grey square, in the page as in Python."""
    data = page_json(ground["page"])
    data["sprites"]["sheets"] = [sheet[:40] + "AAAA" * 40 + sheet[200:] for sheet in data["sprites"]["sheets"]]
    broken = tmp_path / "broken.html"
    interactive_visualizer.write_page(broken, data)
    visit = Visit(browser, broken)
    seen = set()
    for right in np.linspace(0.1, 0.9, 9):
        visit.page.mouse.move(*share_of(visit.page, "map", (right, 0.3))[0])
        if card(visit.page).is_visible():
            visit.page.wait_for_timeout(100)
            pixels = "document.querySelector('.card-tip canvas').getContext('2d').getImageData(3, 3, 1, 1).data"
            seen.add(tuple(visit.page.evaluate(f"[...{pixels}]")))
    assert (190, 190, 190, 255) in seen
    visit.leave()


# --- a city on both sides of 180 degrees, with odd names and a colouring of its own -----------------------------

COLUMNS = 2**17  # of tiles around the Earth
TITLE = 'It\'s 100% "Ünï" </title><b>'


def layer_count(tiles: colourings.ShownTiles) -> colourings.Numbers:
    drawn = tiles.city.store.plane_of[tiles.store_rows] > 0
    return colourings.Numbers(drawn.sum(axis=1), "layers on which something is drawn", digits=0)


@pytest.fixture(scope="module")
def far_ground(tmp_path_factory) -> dict[str, Path]:
    """8 columns of tiles west of 180 degrees and 8 east of it, in folders with names that need quoting."""
    folder = tmp_path_factory.mktemp("far") / '100% "Ünï" <b>\'s #1'
    root = make_tiles(folder / "tiles", nx=16, ny=12, px=TILE_SIZE, x0=COLUMNS - 8)
    for column in list(root.glob("*/17/*")):
        if int(column.name) >= COLUMNS:
            column.rename(column.with_name(str(int(column.name) - COLUMNS)))
    save_untrained(folder / "model.pth", TILE_SIZE, DIMENSIONS)
    paths = {"tiles": root, "model": folder / "model.pth", "cache": folder / "cache"}
    page = interactive_visualizer.PageFlags(
        output_dir=folder / "out", dr_algorithms=["PCA"], reasons=False, max_tiles=0, title=TITLE
    )
    added = colourings.Colouring("count", "Number of layers", layer_count, column="layer_count")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(colourings, "COLOURINGS", (*colourings.COLOURINGS, added))
        flags = TilesFlags(tiles_root=root, cache_dir=paths["cache"])
        built = interactive_visualizer.build_page(flags, paths["model"], DeviceFlags(device="cpu"), page)
    return paths | {"page": built.path}


@pytest.fixture(scope="module")
def far_city(far_ground) -> City:
    tiles = TilesFlags(tiles_root=far_ground["tiles"], cache_dir=far_ground["cache"])
    return load_city(tiles, far_ground["model"], device="cpu")


@pytest.fixture
def far(browser, far_ground) -> Iterator:
    visit = Visit(browser, far_ground["page"])
    yield visit.page
    visit.leave()


def saved_table(page, folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(saved(page, "Save the selection as CSV", folder).read_text())))


def test_both_sides_of_180_degrees_are_shown_side_by_side(far, far_city, browser, far_ground, tmp_path):
    tools = far.get_by_role("toolbar", name="Map tools")
    west, east = (int(pick_on_map(far, right).split("/")[1]) for right in (0.4, 0.6))
    assert COLUMNS - 8 <= west < COLUMNS and 0 <= east < 8
    row = row_of(far_city, pane(far, "map").get_attribute("data-tile"))
    rows = [row_of(far_city, tile) for tile in neighbours(far)]
    away = great_circle_km(far_city.embeddings.latlon[rows], far_city.embeddings.latlon[row])
    shown = [float(km) * (1 if unit == "km" else 1e-3) for km, unit in distances_in(far)]
    assert shown == pytest.approx(away, abs=0.06) and max(shown) < 6
    assert float(far.get_by_role("slider", name="At least").get_attribute("max")) < 8
    tools.get_by_role("button", name="Box").click()
    drag(far, share_of(far, "map", (0.25, 0.3), (0.75, 0.7)))
    sides = {int(line["x"]) < 8 for line in saved_table(far, tmp_path)}
    assert sides == {True, False}
    count = selected(far)
    far.wait_for_timeout(HASH_SAVED_MS)
    other = Visit(browser, far_ground["page"], far.evaluate("location.hash"))
    assert selected(other.page) == count
    other.leave()


def distances_in(page) -> list[tuple[str, str]]:
    texts = page.locator(".match-head span:last-child").all_text_contents()
    return [re.fullmatch(r"([\d.]+) (m|km) away", text).groups() for text in texts]


def test_odd_names_reach_the_page_and_exports_have_plain_ones(far, tmp_path):
    assert far.get_by_role("heading", level=1).text_content() == TITLE
    assert far.title() == TITLE
    far.locator(".legend .chip").first.click()
    assert saved(far, "Save the selection as CSV", tmp_path).name == "tiles.csv"
    assert saved(far, "Save the selection as GeoJSON", tmp_path).name == "tiles.geojson"
    assert saved(far, "Save PNG of the view", tmp_path).name == "loc2vec.png"


def test_a_new_colouring_is_one_function(far, far_city, tmp_path):
    """Python alone was changed; the page lists it, draws its legend, and tells and exports its values."""
    far.get_by_label("Colour by").select_option(label="Number of layers")
    assert "layers on which something is drawn" in far.locator(".legend").text_content()
    bins = far.locator(".ramp-bin").evaluate_all("bins => bins.map(bin => Number(bin.dataset.count))")
    assert sum(bins) == (~far_city.embeddings.blank).sum()
    drawn = (far_city.store.plane_of[far_city.rows] > 0).sum(axis=1)
    row = row_of(far_city, pick_on_map(far))
    assert f"count{drawn[row]}" in far.locator(".tile-panel dl").text_content()
    far.get_by_label("Colour by").select_option("zone")
    far.locator(".legend .chip").first.click()
    for line in saved_table(far, tmp_path):
        assert int(line["layer_count"]) == drawn[row_of(far_city, f"17/{line['x']}/{line['y']}")]
