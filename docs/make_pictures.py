"""Make the README's pictures from tiles and a checkpoint: `make example`, then `make pictures`.

python docs/make_pictures.py
python docs/make_pictures.py --tiles_root 12_layer_tiles/tiles --model_path checkpoints/best_model.pth
python docs/make_pictures.py --tiles_root ASTANA/tiles --compare VANCOUVER/tiles
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

REPO = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(REPO), str(REPO / "tests")]

from PIL import Image  # noqa: E402
from playwright.sync_api import Page, sync_playwright  # noqa: E402

from cli import ModelFlags, Parser, TilesFlags, UserError, add_flags, read_flags, run_main  # noqa: E402
from make_screenshots import DESKTOP, READY, START_TIMEOUT_MS, launch, take  # noqa: E402

FOLDER = REPO / "docs" / "pictures"
STATIC = ("city", "neighbours", "arithmetic", "walks")  # of what visualize.py draws
LAYERS_SHOWN = ("roads", "buildings")
PAGE_VIEWS = ("explorer-desktop", "explorer-phone")
PAGE_STATE = "alg=UMAP&dim=2&colour=layer"
COMPARE_STATE = "alg=PCA&dim=2&colour=cluster"
VIEW = ".live-root[data-ready=true]"
APP_TILES = 4_000  # enough to see the city, and computed in a minute or two
SEARCH = "Similarity Search (Annoy)"
WAIT_MS = 900_000  # a projection of a whole city on a slow machine
SETTLE_MS = 3_000  # pictures that fade in


def main() -> None:
    """Draw all pictures into docs/pictures again."""
    parser = Parser(__doc__)
    add_flags(parser, TilesFlags)
    add_flags(parser, ModelFlags)
    parser.add_argument("--compare", type=Path, help="draw only the picture of two cities, with these tiles of another")
    args = parser.parse_args()
    tiles, model = read_flags(TilesFlags, args), read_flags(ModelFlags, args)
    place = ["--tiles_root", tiles.tiles_root, "--zoom", tiles.zoom, "--cache_dir", tiles.cache_dir]
    place += ["--model_path", model.model_path]
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        if args.compare is not None:
            compare_picture(Path(scratch), place, args.compare)
            return
        static_pictures(Path(scratch), place)
        previews(tiles.tiles_root / "preview")
        page_pictures(Path(scratch), place)
    app_pictures(place)
    for path in sorted(FOLDER.iterdir()):
        print(path.relative_to(REPO))


def run(script: str, *arguments: object) -> None:
    """Run a script of this project to its end."""
    subprocess.run([sys.executable, str(REPO / script), *map(str, arguments)], check=True)


def static_pictures(scratch: Path, place: list) -> None:
    """The pictures of visualize.py, reduced to 256 colours so that the files stay small."""
    run("visualize.py", *place, "--output_dir", scratch)
    for name in STATIC:
        with Image.open(scratch / f"{name}.png") as image:
            image.thumbnail((1800, 1800))
            image.convert("RGB").quantize(256).save(FOLDER / f"{name}.png", optimize=True)


def previews(folder: Path) -> None:
    """The whole city as `render_tiles.py --preview` shows it: in colour, as single layers, and a crop of all layers."""
    if not folder.is_dir():
        raise UserError(f"no previews in {folder}; `python render_tiles.py CITY.osm.pbf --preview` draws them")
    for name in ("city", *LAYERS_SHOWN):
        with Image.open(folder / f"{name}.png") as image:
            image = image.convert("RGB")
            image.thumbnail((1000, 1000))
            image.save(FOLDER / f"tiles_{name}.jpg", quality=80, optimize=True)
    with Image.open(folder / "layers.png") as image:
        image.quantize(64).save(FOLDER / "tiles_layers.png", optimize=True)


def page_pictures(scratch: Path, place: list) -> None:
    """The one-file page at desktop and phone width."""
    run("interactive_visualizer.py", *place, "--max_tiles", 0, "--output_dir", scratch / "page", "--title", "Astana")
    page = next((scratch / "page").glob("*.html"))
    take(page, FOLDER, PAGE_STATE, PAGE_VIEWS)


def compare_picture(scratch: Path, place: list, other: Path) -> None:
    """The page of two cities, with the place in the middle of the first one found in the second."""
    run("interactive_visualizer.py", *place, "--max_tiles", 0, "--output_dir", scratch, "--compare", other)
    with sync_playwright() as playwright:
        browser = launch(playwright)
        page = browser.new_context(**DESKTOP, color_scheme="light", offline=True).new_page()
        page.goto(f"{next(scratch.glob('*.html')).resolve().as_uri()}#{COMPARE_STATE}")
        page.wait_for_selector(READY, timeout=START_TIMEOUT_MS)
        page.locator("[data-half=first] [data-pane=map]").click()
        page.mouse.move(5, 5)
        page.wait_for_timeout(SETTLE_MS)
        page.screenshot(path=FOLDER / "compare.png")
        browser.close()
    print((FOLDER / "compare.png").relative_to(REPO))


def app_pictures(place: list) -> None:
    """The live app: its projector, and its similarity search for the most densely drawn tile."""
    with served([*place, "--max_tiles", APP_TILES]) as address, sync_playwright() as playwright:
        browser = launch(playwright)
        page = browser.new_context(**DESKTOP).new_page()
        page.set_default_timeout(WAIT_MS)
        page.goto(f"{address}/?{urlencode({'algorithm': 'UMAP'})}")
        compute(page)
        page.locator(VIEW, has_text="UMAP (").wait_for()  # PCA is shown until it is computed
        keep(page, "app.png")
        page.goto(f"{address}/?{urlencode({'mode': SEARCH, 'query_way': 'Browse gallery'})}")
        densest = page.locator('[aria-label="Tiles to choose from"] .card').first.get_attribute("data-id")
        page.goto(f"{address}/?{urlencode({'mode': SEARCH, 'query_tile': densest})}")
        page.get_by_text("Why they match").wait_for()
        keep(page, "app-search.png")
        browser.close()


def compute(page: Page) -> None:
    """Let the app compute its vectors if none are cached."""
    button = page.get_by_role("button", name="Compute the vectors")
    button.or_(page.locator(VIEW)).first.wait_for()
    if button.is_visible():
        button.click()


def keep(page: Page, name: str) -> None:
    """Wait until the app has nothing left to compute, and save a screenshot."""
    page.wait_for_timeout(SETTLE_MS)  # background work has begun
    page.get_by_role("progressbar").wait_for(state="hidden")
    page.wait_for_function("!document.querySelector('[data-testid=stStatusWidget]')")
    page.wait_for_timeout(SETTLE_MS)
    page.screenshot(path=FOLDER / name)


@contextlib.contextmanager
def served(place: list) -> Iterator[str]:
    """The live app on a free port; its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, str(REPO / "run_interactive_viz.py"), "streamlit", "--port", str(port)]
    quiet = os.environ | {"STREAMLIT_SERVER_HEADLESS": "true"}
    app = subprocess.Popen([*command, *map(str, place)], env=quiet, stdout=subprocess.DEVNULL)
    try:
        while not healthy(port):
            if app.poll() is not None:
                raise UserError("the app did not start; `python run_interactive_viz.py streamlit` says why")
            time.sleep(0.5)
        yield f"http://localhost:{port}"
    finally:
        app.send_signal(signal.SIGTERM)
        app.wait()


def healthy(port: int) -> bool:
    """Whether the app answers a health check."""
    try:
        with urllib.request.urlopen(f"http://localhost:{port}/_stcore/health", timeout=1) as answer:
            return answer.status == 200
    except OSError:
        return False


if __name__ == "__main__":
    run_main(main)
