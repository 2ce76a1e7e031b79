"""The HTML page as a file, the data in it, and the runner of both viewers."""

import base64
import gzip
import re
import socket
import sys
from pathlib import Path

import numpy as np
import pytest

import run_interactive_viz
from cli import TilesFlags, UserError
from conftest import REPO, make_tiles, page_json, save_untrained
from embeddings import City, load_city
from explorer_data import EXTRACT_SUFFIXES, Quantised, rounded
from interactive_visualizer import compressed_text, quantised_recall, reason_vectors
from reasons import layer_contributions, place_contributions

CITY_TILES, TILE_SIZE = 12, 32


@pytest.fixture(scope="module")
def places(tmp_path_factory, tiny_tiles, tiny_checkpoint) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("viewer")
    return {"tiles_root": tiny_tiles, "model_path": tiny_checkpoint, "cache_dir": folder / "cache"}


@pytest.fixture(scope="module")
def city(places) -> City:
    tiles = TilesFlags(tiles_root=places["tiles_root"], cache_dir=places["cache_dir"])
    return load_city(tiles, places["model_path"], device="cpu")


def flags(places: dict[str, Path], **more: object) -> list[object]:
    return [part for name, value in (places | more).items() for part in (f"--{name}", value)]


def page_of(run_script, places: dict[str, Path], folder: Path, count: int, reasons: str = "--no_reasons") -> None:
    """Build `folder/index.html` with PCA alone: the quickest page."""
    command = flags(places, max_tiles=count, output_dir=folder, dr_algorithms="PCA")
    run_script("interactive_visualizer.py", *command, reasons)


def array(entry: dict) -> np.ndarray:
    data = gzip.decompress(base64.b64decode(entry["gzip"])) if "gzip" in entry else base64.b64decode(entry["data"])
    return np.frombuffer(data, entry["dtype"]).reshape(entry["shape"])


# --- the file ------------------------------------------------------------------------------------------------


def test_one_file_that_needs_nothing_else(run_script, places, tmp_path):
    """Both spellings of a flag, progress on stderr, results on stdout; Plotly whole inside; nothing to be fetched."""
    command = flags(places, max_tiles=40, output_dir=tmp_path / "out", dr_algorithms="PCA", title="A & B <i>")
    result = run_script(
        "run_interactive_viz.py", "html", *[str(part).replace("max_tiles", "max-tiles") for part in command]
    )
    page = tmp_path / "out" / "index.html"
    assert [path.name for path in page.parent.iterdir()] == ["index.html"]
    assert str(page) in result.stdout and "40 tiles" in result.stdout
    assert re.search(r"\d+\.\d% of the exact ten nearest", result.stdout)
    text = page.read_text(encoding="utf-8")
    assert "<title>A &amp; B &lt;i&gt;</title>" in text
    assert not re.search(r"(?:src|href)\s*=\s*[\"']?(?:https?:)?//", text)
    assert "connect-src 'none'" in text
    packed = re.search(r'<script type="text/plain" id="plotly">(.*?)</script>', text, re.DOTALL)[1]
    assert b"plotly.js (gl3d" in gzip.decompress(base64.b64decode(packed))[:200]
    data = page_json(page)
    assert data["count"] == 40 and set(data["projections"]) == {"PCA-2", "PCA-3"}
    assert array(data["arrays"]["tile_xy"]).shape == (40, 2)


def test_the_sample_is_spread_over_the_city(run_script, tmp_path, places):
    """As many tiles from each quarter of a city as it has, not the first corner."""
    root = make_tiles(tmp_path / "tiles", nx=16, ny=16, px=TILE_SIZE)
    more = places | {"tiles_root": root, "cache_dir": tmp_path / "cache"}
    run_script(
        "interactive_visualizer.py",
        *flags(more, max_tiles=48, output_dir=tmp_path, dr_algorithms="PCA"),
        "--no_reasons",
    )
    everything = load_city(
        TilesFlags(tiles_root=root, cache_dir=tmp_path / "cache"), places["model_path"], device="cpu"
    )
    drawn = everything.embeddings.tile_xy[~everything.embeddings.blank]
    shown = array(page_json(tmp_path / "index.html")["arrays"]["tile_xy"])
    middle = drawn.min(axis=0) + 8
    share = len(shown) / len(drawn)
    for right in (False, True):
        for below in (False, True):
            had, has = (int(((some >= middle) == (right, below)).all(axis=1).sum()) for some in (drawn, shown))
            assert has == pytest.approx(had * share, abs=3)
    assert len({tuple(xy) for xy in shown.tolist()}) == 48


def test_data_cannot_end_its_script():
    name = "</script><!-- & \u2028 é"
    text = compressed_text(name)
    assert not set("<>&\u2028") & set(text) and gzip.decompress(base64.b64decode(text)).decode() == name


def test_the_title_keeps_points_in_the_name_of_an_extract():
    names = ("st.johns-latest.osm.pbf", "Kyiv.OSM.bz2", "10.5%.osm", "plain")
    assert [EXTRACT_SUFFIXES.sub("", name) for name in names] == ["st.johns-latest", "Kyiv", "10.5%", "plain"]


def test_a_page_of_a_damaged_tile_is_built_and_says_which(run_script, places, tmp_path):
    """A plane damaged in the pack after the vectors were made: its tiles get the grey square."""
    root = make_tiles(tmp_path / "tiles", nx=6, ny=6, px=TILE_SIZE)
    more = places | {"tiles_root": root, "cache_dir": tmp_path / "cache"}
    tiles = TilesFlags(tiles_root=root, cache_dir=tmp_path / "cache")
    city = load_city(tiles, places["model_path"], device="cpu", max_tiles=10_000)
    planes = next((tmp_path / "cache").glob("tiles-*/planes-*.bin"))
    content = bytearray(planes.read_bytes())
    content[TILE_SIZE**2 + 5] ^= 255  # plane 1: the first that is not blank
    planes.write_bytes(content)
    page_of(run_script, more, tmp_path, 0)
    hurt = city.store.tile_xy[(city.store.plane_of == 1).any(axis=1)]
    assert {tuple(map(int, name.split("/")[1:])) for name in page_json(tmp_path / "index.html")["damaged"]} <= {
        tuple(xy) for xy in hurt.tolist()
    }
    assert page_json(tmp_path / "index.html")["damaged"]


@pytest.mark.parametrize(
    ("flags_given", "said"),
    [
        (["--max_tiles", "-3"], "at least 0"),
        (["--max_tils", "5"], "did you mean '--max_tiles'?"),
        (["--model_path", "nowhere.pth"], "no checkpoint at nowhere.pth"),
        (["--dr_algorithms", "UMPA"], "did you mean 'UMAP'?"),
    ],
)
def test_wrong_use_is_one_message(run_script, flags_given, said):
    result = run_script("run_interactive_viz.py", "html", *flags_given, check=2)
    assert said in result.stderr and "Traceback" not in result.stderr


# --- what quantising costs -----------------------------------------------------------------------------------


def test_rounded_vectors_find_what_the_full_ones_find():
    """Also for vectors that are nearly all the same, as those of an untrained network are."""
    rng = np.random.default_rng(0)
    for spread in (1.0, 1e-3):
        vectors = np.ones(32) + spread * rng.normal(size=(500, 32))
        vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
        for dtype, least in ((np.int16, 0.97), (np.int8, 0.9)):
            found = Quantised.of(vectors, dtype)
            assert found.steps.dtype == dtype
            assert quantised_recall(vectors, found.vectors()) > least
        assert quantised_recall(vectors, rng.permutation(vectors)) < 0.2


def test_tiles_that_are_drawn_alike_stand_in_for_each_other():
    rng = np.random.default_rng(0)
    vectors = np.repeat(rng.normal(size=(20, 16)), 30, axis=0).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    assert quantised_recall(vectors, Quantised.of(vectors, np.int8).vectors()) == 1


@pytest.mark.parametrize("checkpoint", ["tiny_checkpoint", "multiscale_checkpoint"])
def test_reasons_are_the_networks(checkpoint, tiny_tiles, tmp_path, request):
    """The short vectors give every part's contribution as leaving it out of a tile does."""
    tiles = TilesFlags(tiles_root=tiny_tiles, cache_dir=tmp_path)
    city = load_city(tiles, request.getfixturevalue(checkpoint), device="cpu")
    places = city.embeddings.take(np.flatnonzero(~city.embeddings.blank)[:30])
    rows = city.store.grid.rows(places.tile_xy)
    reasons = reason_vectors(city, rows, places.vectors, places.key, tmp_path)
    again = reason_vectors(city, rows, places.vectors, places.key, tmp_path)
    assert again == reasons and len(list(tmp_path.glob("without-*.l2v"))) == 1
    assert reasons["error"] < 0.01
    steps, scale, mean = (array(reasons["lost"][name]) for name in ("steps", "scale", "mean"))
    assert steps.dtype == np.int8
    lost = (mean + scale * steps) @ array(reasons["axes"]).T
    pairs = np.argwhere(city.store.plane_of[rows] > 0)
    a, b = 3, 11
    exact = layer_contributions(city.embedder, int(rows[a]), int(rows[b]))
    whole = places.vectors
    for layer in range(12):
        ends = [_change(pairs, lost, row, layer) for row in (a, b)]
        assert (ends[0] @ whole[b] + ends[1] @ whole[a]) / 2 == pytest.approx(exact[layer], abs=0.01)
    assert len(lost) == len(pairs) + len(rows) * len(reasons["parts"])
    assert bool(reasons["parts"]) == city.checkpoint.uses_surroundings
    if reasons["parts"]:
        exact = place_contributions(city.embedder, int(rows[a]), int(rows[b]))
        for part in range(2):
            ends = [lost[len(pairs) + 2 * row + part] for row in (a, b)]
            assert (ends[0] @ whole[b] + ends[1] @ whole[a]) / 2 == pytest.approx(exact[part], abs=0.02)


def _change(pairs: np.ndarray, lost: np.ndarray, row: int, layer: int) -> np.ndarray:
    """What leaving out a layer changes in the vector of a tile, 0 where the tile lacks it."""
    part = np.flatnonzero((pairs == (row, layer)).all(axis=1))
    return lost[part[0]] if len(part) else np.zeros(lost.shape[1])


def test_brightness_is_rounded_and_what_is_drawn_stays_drawn():
    masks = np.arange(256, dtype=np.uint8).reshape(16, 16)
    some = rounded(masks, 16)
    assert some[0, 0] == 0 and (some.ravel()[1:] >= 16).all() and some.ravel()[255] == 255
    assert np.abs(some.astype(int) - masks).ravel()[16:].max() <= 8 and len(np.unique(some)) == 17
    assert (rounded(masks, 1) == masks).all()


def test_a_vector_without_a_blank_layer_is_the_vector(city):
    row = int(np.flatnonzero((city.store.plane_of[:, 6] == 0) & ~city.store.blank)[0])
    same = city.embedder.embed_without(np.array([[row, 6]]))[0]
    assert same == pytest.approx(city.embeddings.vectors[row], abs=1e-3)


# --- the runner ----------------------------------------------------------------------------------------------


def test_a_taken_port_is_said_with_the_next_free_one(capsys, monkeypatch):
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        taken = holder.getsockname()[1]
        with pytest.raises(UserError, match=rf"port {taken} is taken; the next free one is \d+: pass --port \d+"):
            run_interactive_viz.choose_port(taken)
        monkeypatch.setattr(run_interactive_viz, "FIRST_PORT", taken)
        port = run_interactive_viz.choose_port(None)
        assert port > taken
        assert capsys.readouterr().out.count("\n") == 1


def test_the_app_gets_the_flags(monkeypatch, tmp_path):
    """Bound to this machine, usage statistics off, and everything typed handed on after `--`."""
    typed = ["streamlit", "--tiles_root", str(tmp_path), "--model-path", "m.pth", "--port", "18599", "--max_tiles", "7"]
    monkeypatch.setattr(sys, "argv", ["run_interactive_viz.py", *typed])
    started = []

    class App:
        def __init__(self, command: list[str]):
            started.append(command)

        def __enter__(self):
            return self

        def __exit__(self, *_: object):
            return None

        def wait(self) -> int:
            return -15

    monkeypatch.setattr(run_interactive_viz.subprocess, "Popen", App)
    monkeypatch.setattr(run_interactive_viz.signal, "signal", lambda *_: None)
    assert run_interactive_viz.main() == 143
    command = started[0]
    options = command[: command.index("--")]
    assert options[-8:] == [
        "--server.address",
        "localhost",
        "--server.port",
        "18599",
        "--server.fileWatcherType",
        "none",
        "--browser.gatherUsageStats",
        "false",
    ]
    handed = command[command.index("--") + 1 :]
    for name, value in {"--tiles_root": str(tmp_path), "--model_path": "m.pth", "--max_tiles": "7"}.items():
        assert handed[handed.index(name) + 1] == value
    assert str(REPO / "streamlit_app.py") in command


# --- sizes, on a real city -----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_sizes_on_the_sample_city(run_script, tmp_path):
    """500 tiles under 8 MB, 5,000 under 20 MB, every tile with content under 32 MB: all parts in the page."""
    run_script("render_tiles.py", "--city", "astana", "--tiles_root", tmp_path / "tiles")
    save_untrained(tmp_path / "model.pth", 32, 128)
    place = {"tiles_root": tmp_path / "tiles", "model_path": tmp_path / "model.pth", "cache_dir": tmp_path / "cache"}
    for count, limit in ((500, 8e6), (5_000, 20e6), (0, 32e6)):
        page_of(run_script, place, tmp_path, count, "--reasons")
        assert (tmp_path / "index.html").stat().st_size < limit
    data = page_json(tmp_path / "index.html")
    assert data["count"] > 10_000 and data["reasons"] and data["measured"]["recall"] > 0.9
