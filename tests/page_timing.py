"""How fast the explorer page is in Chromium, beside a page that holds nothing but an empty Plotly plot.

python tests/page_timing.py interactive_visualizations/index.html
"""

import statistics
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from playwright.sync_api import Page, sync_playwright

from cli import Parser, count_int, run_main
from make_screenshots import DESKTOP, READY, START_TIMEOUT_MS, launch

EMPTY = Path(__file__).parent / "empty_plotly.html"
FIGURES = ("first draw", "ready", "hover embedding", "hover map")
MARKS = ("first-draw", "ready")
HOVERS = 60
HOVER_SCRIPT = """
async ([selector, count]) => {
  const pane = document.querySelector(selector), box = pane.getBoundingClientRect(), times = [];
  const frame = () => new Promise((resolve) => requestAnimationFrame(() => setTimeout(resolve, 0)));
  for (let i = 0; i < count; i++) {
    const x = box.left + box.width * (0.2 + (0.6 * i) / count);
    const y = box.top + box.height * (0.3 + (0.4 * ((i * 7) % count)) / count);
    await frame();
    const started = performance.now();
    const target = document.elementFromPoint(x, y);
    target.dispatchEvent(new PointerEvent("pointermove", { clientX: x, clientY: y, bubbles: true, composed: true }));
    target.dispatchEvent(new MouseEvent("mousemove", { clientX: x, clientY: y, bubbles: true, composed: true }));
    await frame();
    times.push(performance.now() - started);
  }
  return times;
}
"""


def measure(page_path: Path, repeats: int = 3) -> dict[str, tuple[float, float]]:
    """Milliseconds of each of `FIGURES`: the page's and an empty Plotly page's.

    The first draw shows every dot, which answers to the pointer; `ready` is when Plotly moves and zooms them. Medians
    over `repeats` visits of each in turn; a hover runs from the pointer's event to the frame that shows it.
    """
    found: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in FIGURES}
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        empty = write_empty_page(Path(folder))
        browser = launch(playwright)
        for _ in range(repeats):
            for side, path in enumerate((page_path, empty)):
                page = browser.new_context(**DESKTOP, offline=True).new_page()
                page.goto(path.resolve().as_uri())
                for name, value in visit(page).items():
                    found[name][side].append(value)
                page.context.close()
        browser.close()
    return {name: (statistics.median(own), statistics.median(floor)) for name, (own, floor) in found.items()}


def visit(page: Page) -> dict[str, float]:
    """One visit's figures in milliseconds."""
    page.wait_for_selector(READY, timeout=START_TIMEOUT_MS)
    marks = [page.evaluate(f"performance.getEntriesByName('loc2vec-{name}')[0].startTime") for name in MARKS]
    hovers = [
        statistics.median(page.evaluate(HOVER_SCRIPT, [f"[data-pane={name}]", HOVERS])) for name in ("embedding", "map")
    ]
    return dict(zip(FIGURES, marks + hovers, strict=True))


def write_empty_page(folder: Path) -> Path:
    """A page with Plotly's script as it is and a plot of no points, which says when it is drawn."""
    from plotly.offline import get_plotlyjs

    path = folder / "empty.html"
    template = EMPTY.read_text(encoding="utf-8")
    path.write_text(template.replace("{{plotly}}", get_plotlyjs()), encoding="utf-8")
    return path


def main() -> None:
    """Read the flags, measure, print."""
    parser = Parser(__doc__)
    parser.add_argument("page", type=Path, help="HTML file written by interactive_visualizer.py")
    parser.add_argument("--repeats", type=count_int, default=3, help="visits of each page")
    args = parser.parse_args()
    for name, (own, floor) in measure(args.page, args.repeats).items():
        print(f"{name}: {own:.1f} ms, an empty Plotly page {floor:.1f} ms, ratio {own / floor:.2f}")


if __name__ == "__main__":
    run_main(main)
