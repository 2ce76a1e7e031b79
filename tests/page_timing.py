"""How fast the explorer page is in Chromium.

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
FIGURES = (
    "first draw",
    "hover embedding",
    "hover map",
    "frame while moving the embedding",
    "frame while moving the map",
)
HOVERS = 60
FRAMES = 240
# Sets window.paintedAt once an element `wanted` is on the screen.
PAINTED = """
wanted => new MutationObserver((_, observer) => {
  if (!document.querySelector(wanted)) return;
  observer.disconnect();
  requestAnimationFrame(() => setTimeout(() => { window.paintedAt = performance.now(); }));
}).observe(document, { subtree: true, childList: true, attributes: true })
"""
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
MOVE_SCRIPT = """
async ([selector, count]) => {
  const pane = document.querySelector(selector), box = pane.getBoundingClientRect(), times = [];
  const [x, y] = [box.left + box.width / 2, box.top + box.height / 2];
  const send = (type, dx, dy) => pane.dispatchEvent(new PointerEvent(type, {
    clientX: x + dx, clientY: y + dy, bubbles: true, composed: true, buttons: 1, pointerId: 1, isPrimary: true }));
  pane.setPointerCapture = () => {};
  send("pointerdown", 0, 0);
  let last = performance.now();
  for (let i = 0; i < count; i++) {
    send("pointermove", 300 * Math.sin(i / 40), 100 * Math.sin(i / 30));  // up to 480 pixels a second
    await new Promise(requestAnimationFrame);
    const now = performance.now();
    times.push(now - last);
    last = now;
  }
  send("pointerup", 0, 0);
  return times;
}
"""
SQUARE_SCRIPT = """
async (count) => {
  const square = document.body.appendChild(document.createElement("canvas")), times = [];
  square.style.cssText = "position: fixed; left: 0; top: 0; z-index: 99";
  let last = performance.now();
  for (let i = 0; i < count; i++) {
    square.getContext("2d").fillStyle = `rgb(${i}, 0, 0)`;
    square.getContext("2d").fillRect(0, 0, 10, 10);
    await new Promise(requestAnimationFrame);
    const now = performance.now();
    times.push(now - last);
    last = now;
  }
  square.remove();
  return times;
}
"""


def measure(page_path: Path, repeats: int = 3) -> dict[str, tuple[float, float]]:
    """Milliseconds of each of `FIGURES`, and what each is compared with. Medians over `repeats` visits.

    The first draw shows every dot, and the dots can be pointed at and moved. It is compared with the first draw of a
    page that holds nothing but an empty Plotly plot, and a hover, from the pointer's event to the frame that shows it,
    with a frame of that page. The mean frame while a view is dragged, and now and then drawn again, is compared with
    a frame of the same page in which nothing but a small square changes.
    """
    found: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in FIGURES}
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        empty = write_empty_page(Path(folder))
        browser = launch(playwright)
        for _ in range(repeats):
            for side, path in enumerate((page_path, empty)):
                page = browser.new_context(**DESKTOP, offline=True).new_page()
                page.goto(path.resolve().as_uri())
                page.wait_for_selector(READY, timeout=START_TIMEOUT_MS)
                for name, value in start_and_hover(page).items():
                    found[name][side].append(value)
                if side == 0:
                    still = statistics.fmean(page.evaluate(SQUARE_SCRIPT, FRAMES))
                    for name in ("embedding", "map"):
                        moving = page.evaluate(MOVE_SCRIPT, [f"[data-pane={name}]", FRAMES])
                        own, floor = found[f"frame while moving the {name}"]
                        own.append(statistics.fmean(moving))
                        floor.append(still)
                page.context.close()
        browser.close()
    return {name: (statistics.median(own), statistics.median(floor)) for name, (own, floor) in found.items()}


def start_and_hover(page: Page) -> dict[str, float]:
    """Milliseconds of the first draw and of a hover on each view."""
    found = {"first draw": page.evaluate("performance.getEntriesByName('loc2vec-first-draw')[0].startTime")}
    for name in ("embedding", "map"):
        times = page.evaluate(HOVER_SCRIPT, [f"[data-pane={name}]", HOVERS])
        found[f"hover {name}"] = statistics.median(times)
    return found


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
        print(f"{name}: {own:.1f} ms, compared with {floor:.1f} ms, ratio {own / floor:.2f}")


if __name__ == "__main__":
    run_main(main)
