"""The live app in a real browser, with the network cut: point, pick, search, gallery, map, two visitors, a phone."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import embeddings
import tile_grid
from cli import TilesFlags
from conftest import REPO, make_tiles, save_untrained, script_env, write_vectors
from place_names import KINDS, NAMES_FILE, PlaceNames, save_place_names

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(900)]
DESKTOP, PHONE = {"width": 1440, "height": 900}, {"width": 390, "height": 844}
WAIT_MS = 180_000
SEARCH = "Similarity+Search+%28Annoy%29"
STREET = [name for name, _ in KINDS].index("street")
STREET_TILE = (76604, 44203)  # in the middle of the city, where something is drawn


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the live app, started as a user starts it, over a small city whose vectors are cached."""
    folder = tmp_path_factory.mktemp("live")
    make_tiles(folder / "tiles", nx=10, ny=10, px=32)
    at = tile_grid.latlon_of_tile(np.add(STREET_TILE, (0.25, 0.75)))
    street = PlaceNames([("Хрещатик",)], np.array([STREET], dtype=np.int8), np.array([at]))
    save_place_names(folder / "tiles" / NAMES_FILE, street)
    save_untrained(folder / "checkpoints" / "best_model.pth")
    flags = TilesFlags(tiles_root=folder / "tiles", cache_dir=folder / "cache")
    embeddings.load_city(flags, folder / "checkpoints" / "best_model.pth", device="cpu")
    yield from live_app(folder, "--tiles_root", "tiles", "--cache_dir", "cache", "--device", "cpu")


def live_app(folder: Path, *args: str) -> Iterator[str]:
    """Start the live app in a folder, give its address, and end it."""
    port = free_port()
    command = [sys.executable, str(REPO / "run_interactive_viz.py"), "streamlit", "--port", str(port), *args]
    headless = {"STREAMLIT_SERVER_HEADLESS": "true"}
    with open(folder / "log", "w") as log:
        process = subprocess.Popen(command, cwd=folder, env=script_env(headless), stdout=log, stderr=log)
    try:
        wait_until(lambda: is_healthy(port), folder / "log")
        yield f"http://localhost:{port}"
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) in (0, 128 + signal.SIGTERM)


def is_healthy(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://localhost:{port}/_stcore/health", timeout=1) as answer:
            return answer.status == 200
    except OSError:
        return False


def wait_until(ready: Callable[[], bool], log: Path, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.1)


@pytest.fixture(scope="module")
def browser(chromium):
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--enable-unsafe-swiftshader"]
        )
        yield browser
        browser.close()


@pytest.fixture
def visit(browser, server):
    """`visit(address, viewport)`: a page of a new visitor; leaving the machine or a console error fails the test."""
    contexts, wrong = [], []

    def open_page(address: str = "", viewport: dict = DESKTOP, script: str = ""):
        context = browser.new_context(viewport=viewport)
        contexts.append(context)
        context.route("**/*", lambda route: route.continue_() if local(route.request.url) else leave(route))
        page = context.new_page()
        page.set_default_timeout(WAIT_MS)
        page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.add_init_script(script)
        page.goto(f"{server}/{address}")
        return page

    def local(url: str) -> bool:
        return url.startswith((server, server.replace("http", "ws"), "data:", "blob:"))

    def leave(route) -> None:
        wrong.append(f"asked for {route.request.url}")
        route.abort()

    yield open_page
    for context in contexts:
        context.close()
    assert not wrong, wrong


def view_of(page):
    """The linked view, once it is drawn and nothing else will come and move it."""
    view = page.locator(".live-root[data-ready=true]")
    view.wait_for()
    page.locator(".stApp[data-test-script-state=notRunning]").wait_for()
    return view


def tile_under(page, pane: str, fraction: tuple[float, float]) -> tuple[float, float]:
    """A point of the pane that has a tile under it, searched around `fraction` of its size."""
    body = page.locator(f'.pane-body[data-pane="{pane}"]')
    body.scroll_into_view_if_needed()
    box = body.bounding_box()
    card = page.locator(".card-tip")
    for step in range(300):
        x = box["x"] + box["width"] * ((fraction[0] + 0.037 * step) % 1)
        y = box["y"] + box["height"] * ((fraction[1] + 0.0113 * step) % 1)
        page.mouse.move(x, y)
        page.wait_for_timeout(20)
        if card.is_visible():
            return x, y
    raise AssertionError(f"no tile under the pointer anywhere in the {pane}")


@pytest.mark.parametrize("dimensions", ["2-D", "3-D"])
def test_hover_shows_the_tile_and_a_pick_opens_it(visit, dimensions):
    page = visit(f"?dimensions={dimensions}")
    view_of(page)
    x, y = tile_under(page, "embedding", (0.4, 0.4))
    card = page.locator(".card-tip")
    hovered = card.get_attribute("data-tile")
    assert card.locator("canvas").is_visible()
    page.mouse.click(x, y)
    _, tile_x, tile_y = hovered.split("/")
    page.get_by_text(f"Tile {tile_x}, {tile_y}").first.wait_for()
    assert f"projector_tile={tile_x}%2F{tile_y}" in page.url or f"projector_tile={tile_x}/{tile_y}" in page.url
    page.reload()
    page.get_by_text(f"Tile {tile_x}, {tile_y}").first.wait_for()


HOLD_PLOTLY = """
let kept;
const hidden = { get: () => (window.letPlotlyCome ? kept : undefined), set: (value) => { kept = value; } };
Object.defineProperty(window, "Plotly", hidden);
"""


def test_a_tile_can_be_picked_before_plotly_has_come(visit):
    page = visit("?dimensions=3-D", script=HOLD_PLOTLY)
    page.locator(".live-root[data-drawn=true]").wait_for()
    x, y = tile_under(page, "embedding", (0.4, 0.4))
    _, tile_x, tile_y = page.locator(".card-tip").get_attribute("data-tile").split("/")
    page.mouse.click(x, y)
    page.get_by_text(f"Tile {tile_x}, {tile_y}").first.wait_for()
    assert not page.locator(".live-root[data-ready=true]").count()
    page.evaluate("window.letPlotlyCome = true; window.dispatchEvent(new Event('plotly'))")
    view_of(page)
    assert page.locator(".js-plotly-plot").count()


def test_a_click_on_the_map_picks_and_tells_the_very_point(visit):
    page = visit()
    view_of(page)
    x, y = tile_under(page, "map", (0.5, 0.45))
    page.mouse.click(x, y)
    page.get_by_text(re.compile(r"^Tile \d+, \d+$")).first.wait_for()
    page.get_by_role("tab", name="Any place").click()
    page.get_by_role("tabpanel", name="Any place").get_by_text("Most similar tiles").wait_for()
    latitude = float(page.get_by_label(re.compile("^Latitude")).input_value())
    north = float(re.search(r"to ([\d.-]+)\)", page.get_by_text(re.compile("^Latitude")).first.inner_text())[1])
    assert latitude <= north + 0.01


@pytest.mark.parametrize("viewport", [DESKTOP, PHONE])
def test_a_place_is_found_by_its_name(visit, viewport):
    from playwright.sync_api import expect

    page = visit(viewport=viewport)
    view_of(page)
    field = page.get_by_role("combobox", name="Find a place")
    field.fill("Khreschatik")
    page.get_by_role("option", name="Хрещатик street").wait_for()
    field.press("ArrowDown")
    field.press("Enter")
    page.get_by_text(f"Tile {STREET_TILE[0]}, {STREET_TILE[1]}").first.wait_for()
    page.get_by_role("tab", name="Any place").click()
    page.get_by_role("tabpanel", name="Any place").get_by_text("Most similar tiles").wait_for()
    latitude = tile_grid.latlon_of_tile(np.add(STREET_TILE, (0.25, 0.75)))[0]
    expect(page.get_by_label(re.compile("^Latitude"))).to_have_value(f"{latitude:.5f}")


def test_pictures_come_when_their_tiles_come_into_view(visit):
    address = "?mode=Compare+checkpoints&with=checkpoints/best_model.pth"
    page = visit(address)  # no map, which would show all tiles of this small city
    page.locator(".live-root[data-ready=true]").nth(1).wait_for()
    sheets = "Object.keys(Object.values(window.loc2vecPictures)[0].sheets ?? {}).length"
    page.wait_for_timeout(500)
    assert page.evaluate(sheets) == 0
    body = page.locator('.pane-body[data-pane="embedding"]').first.bounding_box()
    card = page.locator(".card-tip").first
    for step in range(300):
        share = (0.4 + 0.037 * step) % 1, (0.4 + 0.0113 * step) % 1
        page.mouse.move(body["x"] + body["width"] * share[0], body["y"] + body["height"] * share[1])
        if card.is_visible():
            break
    page.wait_for_function(f"{sheets} > 0")
    assert page.evaluate(sheets) < 4
    colours = """() => {
      const { width, height } = document.querySelector(".card-tip canvas");
      const pixels = document.querySelector(".card-tip canvas").getContext("2d").getImageData(0, 0, width, height).data;
      return new Set(new Uint32Array(pixels.buffer)).size > 8;
    }"""
    page.wait_for_function(colours)


def test_the_map_is_drawn_in_the_background(visit):
    page = visit()
    view_of(page)
    page.wait_for_function("Object.values(window.loc2vecPictures)[0].map")
    sheets = "Object.keys(Object.values(window.loc2vecPictures)[0].sheets ?? {}).length"
    count = "[...window.loc2vecCities.values()][0].count"
    page.wait_for_function(f"{sheets} === Math.ceil({count} / 16)")  # all tiles of this small city are in view


def test_no_folder_is_watched(visit, server):
    """Streamlit's watcher took the whole working directory, tiles included: its queue of changes overflowed."""
    view_of(visit())
    port = server.rsplit(":", 1)[1]
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if port.encode() in (process / "cmdline").read_bytes().split(b"\0"):
                watches = [line for info in (process / "fdinfo").iterdir() for line in info.read_text().splitlines()]
                assert not [line for line in watches if line.startswith("inotify")]


def test_switching_algorithm_dimensions_and_colour(visit):
    page = visit()
    view_of(page)
    caption = page.locator(".caption").first
    page.get_by_role("radio", name="t-SNE").click()
    page.wait_for_function("document.querySelector('.caption').textContent.includes('perplexity')", timeout=WAIT_MS)
    page.get_by_role("radio", name="3-D").click()
    page.wait_for_function("document.querySelector('.caption').textContent.includes('3-D')", timeout=WAIT_MS)
    assert re.search(r"trustworthiness [01]\.\d\d", caption.inner_text())
    page.get_by_role("combobox", name=re.compile("Colour by")).click()
    page.get_by_role("option", name="Content density").click()
    page.locator(".ramp-bins").wait_for()


def test_a_walk_is_drawn_on_the_map_and_its_tiles_can_be_picked(visit):
    drawn = []
    for ends in ("", "&a_tile=76605/44205&b_tile=76603/44206"):
        page = visit(f"?below=Walk{ends}")
        view_of(page)
        drawn.append(page.evaluate("document.querySelector('[data-pane=map] .overlay').toDataURL()"))
    assert drawn[0] != drawn[1]
    step = page.locator('[aria-label="Tiles from A to B"] .card').nth(2)
    x, y = step.get_attribute("data-id").split("/")
    step.click()
    page.wait_for_url(re.compile(f"projector_tile={x}(/|%2F){y}"))
    page.locator("button:enabled", has_text="Put the picked tile into A").wait_for()


FOCUSED = """() => {
  let node = document.activeElement;
  while (node.shadowRoot?.activeElement) node = node.shadowRoot.activeElement;
  return node.dataset.id ?? node.tagName;
}"""


def test_the_focus_stays_on_the_tile_that_was_picked_with_the_keyboard(visit):
    page = visit(f"?mode={SEARCH}&query_tile=76605/44205")
    cards = page.locator('[aria-label="Search results"] .card')
    tile = cards.nth(3).get_attribute("data-id")
    cards.nth(3).focus()
    page.keyboard.press("Enter")
    page.locator(f'.card[aria-current][data-id="{tile}"]').wait_for()
    assert page.evaluate(FOCUSED) == tile


def test_a_view_that_is_left_is_ended(visit):
    page = visit()
    view_of(page)
    page.evaluate("window.left = document.querySelector('.live-root').explorer")
    page.get_by_role("combobox", name=re.compile("Colour by")).click()
    page.get_by_role("option", name="Content density").click()
    page.locator(".ramp-bins").wait_for()
    assert not page.evaluate("window.left.stops.signal.aborted")  # a rerun is no end
    page.get_by_text("Compare checkpoints", exact=True).click()
    page.wait_for_function("window.left.stops.signal.aborted")
    page.get_by_text("Embedding projector", exact=True).click()
    view_of(page)
    tile_under(page, "map", (0.5, 0.45))


def test_search_from_the_gallery_to_side_by_side(visit):
    page = visit(f"?mode={SEARCH}&query_way=Browse+gallery")
    first = page.locator('[aria-label="Tiles to choose from"] .card').nth(2)
    first.click()
    x, y = first.get_attribute("data-id").split("/")
    page.get_by_text(f"Tile {x}, {y}").first.wait_for()
    result = page.locator('[aria-label="Search results"] .card').nth(3)
    result.click()
    chosen = result.get_attribute("data-id").replace("/", ", ")
    page.get_by_text(f"Tile {chosen}").first.wait_for()
    page.get_by_text("Why they match").wait_for()
    page.get_by_role("tab", name="In the embedding").click()
    view_of(page)
    page.get_by_role("tab", name="Index").click()
    page.get_by_text("Recall of the 10 nearest").wait_for()


def test_a_query_answers_quickly_and_sends_little(visit):
    page = visit(f"?mode={SEARCH}")
    page.locator('[aria-label="Search results"] .card').first.wait_for()
    received = []
    page.on("websocket", lambda socket: socket.on("framereceived", lambda frame: received.append(len(frame))))
    page.reload()
    page.locator('[aria-label="Search results"] .card').first.wait_for()
    page.wait_for_timeout(1500)
    received.clear()
    page.get_by_role("button", name="Another random tile").click()
    page.wait_for_timeout(3000)
    assert 0 < sum(received) < 1_000_000


def test_many_tiles_cross_the_wire_once(visit):
    page = visit()
    received = []
    page.on("websocket", lambda socket: socket.on("framereceived", lambda frame: received.append(len(frame))))
    page.reload()
    view_of(page)
    page.wait_for_timeout(1500)
    first = sum(received)
    received.clear()
    page.get_by_role("combobox", name=re.compile("Colour by")).click()
    page.get_by_role("option", name="Cluster").click()
    page.locator(".legend .chip", has_text="roads").first.wait_for(state="detached")  # clusters have names of their own
    page.locator(".legend .chip").first.wait_for()
    assert sum(received) < first / 20


def test_two_visitors_do_not_disturb_each_other(visit):
    first, second = visit(f"?mode={SEARCH}&query_tile=76605/44205"), visit(f"?mode={SEARCH}&query_tile=76603/44206")
    first.get_by_text("Tile 76605, 44205").first.wait_for()
    second.get_by_text("Tile 76603, 44206").first.wait_for()
    second.get_by_role("button", name="Another random tile").click()
    first.get_by_text("Euclidean").first.wait_for()
    first.get_by_role("tab", name="Index").click()
    first.get_by_text("Median query").wait_for()
    assert first.get_by_text("Tile 76605, 44205").first.is_visible()


def test_on_a_phone_nothing_is_wider_than_the_screen(visit):
    page = visit("?projector_tile=76605/44205", PHONE)
    view_of(page)
    page.get_by_text("Tile 76605, 44205").first.wait_for()
    overhang = page.evaluate("document.querySelector('.stMain').scrollWidth - innerWidth")
    assert overhang <= 0
    boxes = [page.locator(f'.pane-body[data-pane="{pane}"]').bounding_box() for pane in ("embedding", "map")]
    assert boxes[1]["y"] > boxes[0]["y"] + boxes[0]["height"] - 1 and boxes[0]["width"] > 300


@pytest.fixture(scope="module")
def country(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the live app over a dataset of 300,000 tiles."""
    folder = tmp_path_factory.mktemp("country")
    write_vectors(folder / "country", 560)
    yield from live_app(folder, "--vectors", "country", "--cache_dir", "cache")


def test_a_dataset_of_300_000_tiles_is_an_overview_that_fills_where_the_map_is_zoomed(browser, country):
    page = browser.new_page(viewport=DESKTOP)
    page.set_default_timeout(WAIT_MS)
    wrong, received = [], []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("websocket", lambda socket: socket.on("framereceived", lambda frame: received.append(len(frame))))
    page.goto(country)
    view_of(page)
    counts = "[...window.loc2vecCities.values()].map((city) => city.count)"
    overview = page.evaluate(counts)
    assert len(overview) == 1 and 20_000 < overview[0] < 30_000
    assert sum(received) < 20_000_000  # Plotly and Streamlit's fonts included
    body = page.locator('.pane-body[data-pane="map"]')
    box = body.bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.6, box["y"] + box["height"] * 0.5)
    for _ in range(6):
        page.mouse.wheel(0, -300)
        page.wait_for_timeout(100)
    page.wait_for_function(f"{counts}.length === 2")
    loaded = page.evaluate(counts)[1]
    assert overview[0] < loaded < overview[0] + 20_001
    view_of(page)
    page.mouse.click(box["x"] + box["width"] * 0.6, box["y"] + box["height"] * 0.5)
    page.get_by_text(re.compile(r"^Tile \d+, \d+$")).first.wait_for()
    page.locator('[aria-label="Most similar tiles"] .card').nth(2).wait_for()
    assert (
        page.get_by_role("link", name="Open on openstreetmap.org").get_attribute("href").startswith("https://www.open")
    )
    page.close()
    assert not wrong, wrong


def test_a_taken_port_is_said_in_one_line_with_the_next_free_one(server, run_script):
    port = server.rsplit(":", 1)[1]
    said = run_script("run_interactive_viz.py", "streamlit", "--port", port, check=2).stderr
    assert said.count("\n") == 1 and f"port {port} is taken" in said and re.search(r"--port \d+", said)


def test_the_server_listens_on_this_machine_only(server):
    port = int(server.rsplit(":", 1)[1])
    listening = Path("/proc/net/tcp").read_text() if os.path.exists("/proc/net/tcp") else pytest.skip("Linux only")
    addresses = [line.split()[1] for line in listening.splitlines()[1:] if line.split()[3] == "0A"]
    assert f"0100007F:{port:04X}" in addresses and f"00000000:{port:04X}" not in addresses
