"""Take the README's pictures of the explorer page: desktop and phone, light and dark.

python tests/make_screenshots.py interactive_visualizations/index.html docs/pictures
python tests/make_screenshots.py PAGE FOLDER --state "alg=UMAP&dim=3&colour=zone"
"""

import shutil
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from playwright.sync_api import Browser, Playwright, sync_playwright

from cli import Parser, UserError, run_main

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
BROWSER_FLAGS = [
    "--no-sandbox",  # Chromium refuses to run as root without it
    "--disable-background-networking",
    "--enable-unsafe-swiftshader",  # WebGL without a GPU
    "--use-angle=swiftshader",
]
DESKTOP: dict[str, Any] = {"viewport": {"width": 1440, "height": 900}}
PHONE: dict[str, Any] = {
    "viewport": {"width": 390, "height": 844}, "device_scale_factor": 2, "is_mobile": True, "has_touch": True,
}  # fmt: skip
VIEWS: dict[str, tuple[dict[str, Any], str]] = {
    "explorer-desktop": (DESKTOP, "light"),
    "explorer-desktop-dark": (DESKTOP, "dark"),
    "explorer-phone": (PHONE, "light"),
}
READY = "#explorer[data-ready=true]"
START_TIMEOUT_MS = 120_000
SETTLE_MS = 1_200


def launch(playwright: Playwright, *flags: str) -> Browser:
    """Start the Chromium that is installed, without a network of its own."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        raise UserError("no Chromium found; `apt-get install chromium` (Debian) installs one")
    return playwright.chromium.launch(executable_path=found, args=[*(flags or BROWSER_FLAGS)])


def take(page_path: Path, folder: Path, state: str, names: Iterable[str] = tuple(VIEWS)) -> list[Path]:
    """Write one PNG for each of `names` of `VIEWS` and return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    with sync_playwright() as playwright:
        browser = launch(playwright)
        for name in names:
            device, scheme = VIEWS[name]
            page = browser.new_context(**device, color_scheme=scheme, offline=True).new_page()
            page.goto(f"{page_path.resolve().as_uri()}#{state}")
            page.wait_for_selector(READY, timeout=START_TIMEOUT_MS)
            page.wait_for_timeout(SETTLE_MS)
            paths.append(folder / f"{name}.png")
            page.screenshot(path=paths[-1])
            page.context.close()
        browser.close()
    return paths


def main() -> None:
    """Read the flags and take the pictures."""
    parser = Parser(__doc__)
    parser.add_argument("page", type=Path, help="HTML file written by interactive_visualizer.py")
    parser.add_argument("folder", type=Path, help="folder for the PNG files")
    parser.add_argument("--state", default="alg=UMAP&dim=2&colour=layer", help="the part of the page's address after #")
    args = parser.parse_args()
    if not args.page.is_file():
        raise UserError(f"no page at {args.page}; `python interactive_visualizer.py` writes one")
    for path in take(args.page, args.folder, args.state):
        print(path)


if __name__ == "__main__":
    run_main(main)
