"""Measurements of what users look at: search, projections, the HTML page, the live app.

Not a command; `python bench.py search project html app` runs them.
"""

import contextlib
import importlib.util
import json
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from bench_setup import HERE, Bench, Figure, processor_name, script, seconds
from cli import UserError
from layers import LAYERS
from projections import ALGORITHMS, TITLES, project
from similarity import Search, measure, open_search, unit

SEARCH_SIZES = (22_000, 200_000)  # vectors; measured beside as many as the sample city has
SEARCH_TREES = (50, 100, 200, 500)
PROJECT_COUNTS = (2_300, 22_000)
HTML_TILES = (500, 5_000, 0)  # 0: every tile with content
APP_TILES = (5_000, 100_000)  # of the second number, copies of the city stand side by side
APP_STARTS = 3  # servers started at most, because each takes a while

# --- search ------------------------------------------------------------------------------------------------


def bench_search(bench: Bench) -> Iterator[Figure]:
    """The ten nearest of one vector: exact, and Annoy by trees with its recall, against exact search."""
    for count in (int((~bench.store(64).blank).sum()), *SEARCH_SIZES):
        vectors = made_up_vectors(count)
        exact = measure(Search(vectors, "angular"), sample=300)
        note = f"p99 {exact.p99_ms:.2f} ms, recall@10 {exact.recall:.3f}; floor: itself"
        name, cpu = f"search {count:,} x 128", f"{processor_name()}, {os.cpu_count()} cores"
        yield Figure(f"{name}, exact", exact.p50_ms, "ms", exact.p50_ms, 1.0, cpu, count, note)
        for trees in SEARCH_TREES:
            with tempfile.TemporaryDirectory(dir=bench.scratch) as folder:
                index = open_search(vectors, trees=trees, key=f"bench {count}", cache_dir=folder, exact=False)
                found = measure(index, sample=300)
            note = (
                f"p99 {found.p99_ms:.2f} ms, recall@10 {found.recall:.3f}, built in {index.seconds:.1f} s; floor: exact"
            )
            ratio = found.p50_ms / exact.p50_ms
            yield Figure(f"{name}, Annoy {trees} trees", found.p50_ms, "ms", exact.p50_ms, ratio, cpu, count, note)


def made_up_vectors(count: int, dimension: int = 128, inner: int = 16) -> np.ndarray:
    """Synthetic unit vectors, similar to an encoder's: clusters around 300 centres in `inner` dimensions, and noise."""
    rng = np.random.default_rng(0)
    centres, axes = rng.normal(size=(300, inner)), rng.normal(size=(inner, dimension))
    clusters = centres[rng.integers(300, size=count)] + 0.5 * rng.normal(size=(count, inner))
    return unit(clusters @ axes + 0.1 * rng.normal(size=(count, dimension))).astype(np.float32)


# --- project -----------------------------------------------------------------------------------------------


def bench_project(bench: Bench) -> Iterator[Figure]:
    """Each projection, its trustworthiness included, against PCA of the same vectors; once each, libraries warm."""
    for algorithm in ALGORITHMS:  # imports and compiles
        project(manifold_vectors(200), algorithm, progress=lambda _: None)
    for count in PROJECT_COUNTS:
        vectors = manifold_vectors(count)
        for dimensions in (2, 3):
            base = statistics.median(project(vectors, "PCA", dimensions).seconds for _ in range(bench.flags.repeats))
            for algorithm in ALGORITHMS:
                done = project(vectors, algorithm, dimensions)
                yield Figure(
                    f"{TITLES[algorithm]} {dimensions}-D of {count:,} vectors",
                    done.seconds,
                    "s",
                    base,
                    done.seconds / base,
                    processor_name(),
                    count,
                    f"trustworthiness {done.trustworthiness:.3f}, {done.fitted:,} fitted; floor: PCA",
                )


def manifold_vectors(count: int, dimension: int = 128) -> np.ndarray:
    """Made-up unit vectors `(count, dimension)` of 24 kinds that differ in eight ways, as an encoder's do."""
    rng = np.random.default_rng(0)
    hidden = rng.normal(size=(24, 8))[rng.integers(24, size=count)] + 0.5 * rng.normal(size=(count, 8))
    vectors = np.tanh(hidden @ rng.normal(size=(8, dimension))) + 0.05 * rng.normal(size=(count, dimension))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


# --- html ----------------------------------------------------------------------------------------------------


def bench_html(bench: Bench) -> Iterator[Figure]:
    """The HTML page: its size, first draw and hover in Chromium, against a page with only an empty Plotly plot."""
    find_browser_tools()
    from plotly.offline import get_plotlyjs

    from page_timing import measure

    script_mb = len(get_plotlyjs().encode()) / 1e6
    for max_tiles in HTML_TILES:
        page = html_page(bench, max_tiles)
        tiles = max_tiles or int((~bench.whole_store.blank).sum())
        size, note = page.stat().st_size / 1e6, "floor: Plotly's script alone"
        yield Figure("page size", size, "MB", script_mb, size / script_mb, bench.hardware, tiles, note)
        note = "floor: a page with an empty Plotly plot; of a frame, one in which only a small square changes"
        for name, (own, floor) in measure(page, bench.flags.repeats).items():
            yield Figure(name, own / 1e3, "s", floor / 1e3, own / floor, bench.hardware, tiles, note)


def html_page(bench: Bench, max_tiles: int) -> Path:
    """The page of so many tiles of the whole city."""
    folder = bench.scratch / f"page-{max_tiles}"
    place = ("--tiles_root", bench.whole_city, "--cache_dir", bench.scratch / "cache", "--output_dir", folder)
    what = ("--model_path", bench.untrained_checkpoint(64), "--max_tiles", max_tiles, "--dr_algorithms", "PCA")
    script("run_interactive_viz.py", "html", *place, *what, "--device", bench.device.type)
    return folder / "index.html"


# --- app -----------------------------------------------------------------------------------------------------


def bench_app(bench: Bench) -> Iterator[Figure]:
    """The live app with warm caches: server start to first plot, and a query's time on the server."""
    find_browser_tools()
    for tiles in APP_TILES:
        root = bench.whole_city if tiles == APP_TILES[0] else repeated_city(bench, tiles)
        flags = {"tiles_root": root, "model_path": bench.untrained_checkpoint(64), "cache_dir": bench.scratch / "cache"}
        arguments = [part for name, value in flags.items() for part in (f"--{name}", str(value))]
        arguments += ["--max_tiles", str(tiles)]
        script("precompute_embeddings.py", *arguments, "--skip_projections", "--annoy_metrics", "angular")
        yield from bench_first_plot(bench, arguments, tiles)
        if tiles == APP_TILES[0]:
            yield from bench_query(bench, arguments)


def bench_first_plot(bench: Bench, arguments: list[str], tiles: int) -> Iterator[Figure]:
    """From opening the app's page, and from starting its server, to the first plot."""
    app = [HERE / "run_interactive_viz.py", "streamlit", *arguments, "--port"]
    with live_app(app) as (url, _):  # the first visit draws the base map and keeps it
        first_plot(url, timeout=1_800)
    (bench.scratch / "nothing.py").write_text('import streamlit as st\nst.markdown("nothing")\n', encoding="utf-8")
    nothing = ["-m", "streamlit", "run", bench.scratch / "nothing.py", "--server.port"]
    rounds = []
    for _ in range(min(bench.flags.repeats, APP_STARTS)):
        with live_app(app) as (url, ready):
            plot = first_plot(url)
        with live_app(nothing) as (url, empty_ready):
            floor = browser_seconds(url, ".stMarkdown")
        rounds.append((plot, ready + plot, floor, empty_ready + floor))
    columns = [statistics.median(column) for column in zip(*rounds, strict=True)]
    note = "fresh server, caches warm; floor: a server with an empty script"
    names = ("first plot from opening the page", "first plot from the command")
    for name, value, base in zip(names, columns[:2], columns[2:], strict=True):
        yield Figure(f"app {name}", value, "s", base, value / base, bench.hardware, tiles, note)


def repeated_city(bench: Bench, tiles: int) -> Path:
    """A tiles folder with at least so many tiles with content: links to the whole city's, side by side."""
    store, root = bench.whole_store, bench.scratch / f"tiles-{tiles}"
    copies = -(-tiles // int((~store.blank).sum()))
    low, high = store.tile_xy.min(axis=0), store.tile_xy.max(axis=0)
    width, height = (high - low + 1).tolist()
    down = max(1, round((copies * width / height) ** 0.5))
    for layer in LAYERS:
        for x in range(low[0], high[0] + 1):
            column = root / layer / str(store.zoom) / str(x)
            column.mkdir(parents=True)
            for tile in (bench.whole_city / layer / str(store.zoom) / str(x)).iterdir():
                for copy in range(down):
                    link_file(tile.resolve(), column / f"{int(tile.stem) + copy * height}.png")
            for copy in range(1, -(-copies // down)):
                os.symlink(str(x), column.parent / str(x + copy * width))
    return root


def link_file(path: Path, link: Path) -> None:
    """Another name for a file; a symbolic link where there can be no hard one."""
    try:
        os.link(path, link)
    except OSError:
        os.symlink(path, link)


def bench_query(bench: Bench, arguments: list[str]) -> Iterator[Figure]:
    """Another random tile in the search mode: the search alone, as the app says it, and the whole run of its script."""
    from streamlit.testing.v1 import AppTest

    sys.argv = ["streamlit_app.py", *arguments]
    app = AppTest.from_file(str(HERE / "streamlit_app.py"), default_timeout=600)
    app.query_params["mode"] = "Similarity Search (Annoy)"
    app.run()
    nothing = AppTest.from_string("import streamlit as st\nst.button('again', key='again')").run()
    said: list[float] = []

    def another() -> None:
        app.button(key="query random").click().run()
        said.extend(float(found[1]) / 1e3 for c in app.caption if (found := re.search(r" in ([\d.]+) ms ", c.value)))

    note = "results, their pictures and why they match; floor: a script with one button"
    floor = lambda: nothing.button(key="again").click().run()  # noqa: E731 - one of a pair
    page = bench.compare("app query, whole page", another, floor, unit="s", tiles=APP_TILES[0], note=note)
    vectors = made_up_vectors(APP_TILES[0])
    exact = Search(vectors, "angular")
    base = statistics.median(seconds(lambda: exact.query(vectors[:1], 12)) for _ in range(bench.flags.repeats))
    value = statistics.median(said)
    yield Figure("app query", value, "s", base, value / base, bench.hardware, APP_TILES[0], "floor: exact search")
    yield page


@contextlib.contextmanager
def live_app(script: list) -> Iterator[tuple[str, float]]:
    """A server on a free port, started by Python with `script` and the port as its arguments, ended afterwards.

    Yields its address and the seconds until it answered.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, *map(str, script), str(port)]
    quiet = {"STREAMLIT_SERVER_HEADLESS": "true", "STREAMLIT_SERVER_FILE_WATCHER_TYPE": "none"}
    started = time.perf_counter()
    process = subprocess.Popen(
        command, cwd=HERE, env=os.environ | quiet, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        while not answers(f"http://localhost:{port}/_stcore/health"):
            if process.poll() is not None:
                raise UserError(f"`{' '.join(command)}` ended with exit code {process.returncode}")
            time.sleep(0.05)
        yield f"http://localhost:{port}", time.perf_counter() - started
    finally:
        process.terminate()
        process.wait()


def answers(url: str) -> bool:
    """Whether a server answers there."""
    try:
        with urllib.request.urlopen(url, timeout=1) as reply:
            return reply.status == 200
    except OSError:
        return False


def find_browser_tools() -> None:
    """Let this process import what the browser tests use. Raises `UserError` where Playwright is not installed."""
    if importlib.util.find_spec("playwright") is None:
        raise UserError("measuring a page needs Playwright and Chromium; `./setup.sh browser` installs them")
    sys.path.insert(0, str(HERE / "tests"))


def first_plot(url: str, timeout: int = 60) -> float:
    """Seconds from opening the page until the linked view shows its dots."""
    return browser_seconds(url, ".live-root[data-drawn=true]", timeout=timeout)


def browser_seconds(url: str, wanted: str, timeout: int = 60) -> float:
    """Seconds from opening a page until `wanted` is on the screen, in a fresh headless Chromium."""
    from playwright.sync_api import sync_playwright

    from make_screenshots import DESKTOP, launch
    from page_timing import PAINTED

    with sync_playwright() as playwright:
        browser = launch(playwright, "--no-sandbox", "--enable-unsafe-swiftshader")
        page = browser.new_page(**DESKTOP)
        page.set_default_timeout(timeout * 1e3)
        page.add_init_script(f"({PAINTED})({json.dumps(wanted)})")
        page.goto(url)
        page.wait_for_function("window.paintedAt")
        taken = page.evaluate("window.paintedAt")
        browser.close()
    return taken / 1e3
