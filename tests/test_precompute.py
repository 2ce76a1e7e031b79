"""precompute_embeddings.py as people run it: what is cached stays cached, what changed is rebuilt, and nothing else."""

import contextlib
import csv
import errno
import io
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

import exports
import precompute_embeddings
from checkpoint import load_checkpoint
from cli import TilesFlags, UserError
from conftest import REPO, make_tiles, png_bytes, save_untrained, script_env
from embeddings import Embeddings, load_city
from layers import LAYERS
from similarity import open_search
from tile_facts import ZONES
from tile_grid import latlon_of_tile

SCRIPT = "precompute_embeddings.py"
FAST = ("--dr_algorithms", "PCA", "--annoy_metrics", "angular", "dot", "--annoy_trees", 10)


@pytest.fixture(scope="module")
def filled(tiny_tiles: Path, tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with everything that one run computes: tiles/, model.pth, cache/; `log` is what it printed."""
    folder = tmp_path_factory.mktemp("filled")
    shutil.copytree(tiny_tiles, folder / "tiles")
    shutil.copy(tiny_checkpoint, folder / "model.pth")
    (folder / "log").write_text(precompute(folder, *FAST).stdout)
    return folder


@pytest.fixture
def copied(filled: Path) -> Iterator[Path]:
    """The same, for a test that changes it: a copy takes its place, because the caches know the tiles by their path."""
    aside = filled.with_name(filled.name + "-aside")
    filled.rename(aside)
    shutil.copytree(aside, filled)
    yield filled
    shutil.rmtree(filled)
    aside.rename(filled)


def command(folder: Path, *flags: object) -> list[str]:
    paths = ("--tiles_root", folder / "tiles", "--model_path", folder / "model.pth", "--cache_dir", folder / "cache")
    return [sys.executable, str(REPO / SCRIPT), *map(str, (*paths, "--device", "cpu", *flags))]


def precompute(folder: Path, *flags: object, check: int = 0, env: dict | None = None) -> subprocess.CompletedProcess:
    result = subprocess.run(command(folder, *flags), capture_output=True, text=True, env=script_env(env), cwd=folder)
    assert result.returncode == check, f"{result.stdout}\n{result.stderr}"
    return result


def here(folder: Path, *flags: object) -> str:
    """What the script prints, run in this process: quicker where a process of its own proves nothing."""
    said = io.StringIO()
    with mock.patch.object(sys, "argv", command(folder, *flags)[1:]), contextlib.redirect_stdout(said):
        precompute_embeddings.main()
    return said.getvalue()


def table(text: str) -> dict[str, str]:
    """What the closing table says of each stage: computed, reused, skipped."""
    lines = [re.split(r"\s{2,}", line) for line in text.splitlines()]
    return {cells[0]: cells[1] for cells in lines if len(cells) == 4}


# --- filling -----------------------------------------------------------------------------------------------


def test_the_first_run_computes_everything_and_says_so(filled: Path) -> None:
    log = (filled / "log").read_text()
    stages = ["vectors", "index angular", "index dot", "PCA 2-D", "PCA 3-D"]
    assert table(log) == dict.fromkeys(stages, "computed")
    assert re.search(r"144 tiles, \d+ of them blank; 16 numbers each; cpu, \w+", log)
    assert re.search(r"10 trees; recall@10 [01]\.\d{3}, \d+\.\d\d ms", log)
    assert re.search(r"trustworthiness [01]\.\d{3}", log)


def test_the_second_run_computes_nothing_and_loads_nothing_heavy(filled: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (filled / "cache").rglob("*") if path.suffix != ".lock"}
    result = precompute(filled, *FAST, env={"PYTHONPROFILEIMPORTTIME": "1"})
    assert set(table(result.stdout).values()) == {"reused"}
    assert "nothing was computed" in result.stdout
    imported = {line.rsplit("|")[-1].strip() for line in result.stderr.splitlines() if line.startswith("import time")}
    assert "torch" in imported
    assert not imported & {"umap", "numba", "openTSNE", "sklearn", "pyarrow", "matplotlib", "pandas"}
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_only_what_hangs_on_a_changed_tile_is_rebuilt(copied: Path) -> None:
    (x, y) = (76605, 44206)
    plane = np.random.default_rng(1).integers(0, 255, (64, 64), dtype=np.uint8)
    (copied / f"tiles/buildings/17/{x}/{y}.png").write_bytes(png_bytes(plane))
    stages = table(here(copied, *FAST))
    assert stages.pop("vectors") == "computed 1, reused 143"
    assert set(stages.values()) == {"computed"}


def test_the_whole_chain_with_an_encoder_that_sees_the_surroundings(
    tiny_tiles: Path, multiscale_checkpoint: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny_tiles, tmp_path / "tiles")
    shutil.copy(multiscale_checkpoint, tmp_path / "model.pth")
    first = here(tmp_path, *FAST)
    assert set(table(first).values()) == {"computed"} and "16 numbers each; cpu, float32" in first
    assert set(table(here(tmp_path, *FAST)).values()) == {"reused"}
    lat, lon = latlon_of_tile(np.array([76606.5, 44206.5]))
    found = answers(here(tmp_path, "--query", f"{lat},{lon}", "--k", 3))
    assert abs(float(found[0][1]) - lat) < 1e-4 and float(found[0][3]) < 1e-3 < float(found[1][3])
    here(tmp_path, "--export", tmp_path / "city.csv")
    with open(tmp_path / "city.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    vectors = np.array([[float(line[name]) for name in line if re.fullmatch(r"e\d+", name)] for line in lines])
    assert vectors.shape == (144, 16) and np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-4)
    plane = np.random.default_rng(1).integers(0, 255, (64, 64), dtype=np.uint8)
    (tmp_path / "tiles/buildings/17/76600/44200.png").write_bytes(png_bytes(plane))
    assert table(here(tmp_path, *FAST))["vectors"] == "computed 81, reused 63"  # the tiles within 8 of that corner


def test_only_what_hangs_on_a_changed_setting_is_rebuilt(copied: Path) -> None:
    stages = table(here(copied, "--dr_algorithms", "PCA", "--annoy_metrics", "angular", "--annoy-trees", 12))
    assert stages == {"vectors": "reused", "index angular": "computed", "PCA 2-D": "reused", "PCA 3-D": "reused"}


def test_more_trees_alone_as_the_card_has_it(copied: Path) -> None:
    flags = ("--skip_embeddings", "--skip_projections", "--annoy_trees", 500, "--force_recompute")
    stages = table(here(copied, *flags))
    metrics = ("angular", "euclidean", "manhattan", "dot")
    assert stages == {"vectors": "reused", "projections": "skipped"} | {f"index {m}": "computed" for m in metrics}
    again = table(here(copied, *flags))
    assert again["index angular"] == "computed" and again["vectors"] == "reused"


def test_more_trees_after_a_command_that_embedded_some_of_the_tiles(copied: Path) -> None:
    """`make example` embeds no blank tiles; the index of the tiles with content is the one that its page uses."""
    shutil.rmtree(copied / "cache")
    tiles = TilesFlags(copied / "tiles", 17, copied / "cache")
    shown = load_city(tiles, copied / "model.pth", device="cpu", max_tiles=10_000)
    flags = ("--skip_embeddings", "--skip_projections", "--annoy_trees", 20, "--force_recompute")
    result = precompute(copied, *flags, "--annoy_metrics", "angular")
    assert table(result.stdout)["vectors"] == "reused" and table(result.stdout)["index angular"] == "computed"
    drawn, blank = len(shown.rows), int(shown.store.blank.sum())
    assert blank and f"{drawn} of 144 tiles have a cached vector; {blank} are left out" in result.stderr
    assert re.search(rf"{drawn} tiles, 0 of them blank; .*; {blank} further tiles have no cached vector", result.stdout)
    opened = open_search(
        shown.embeddings.vectors, trees=20, key=shown.embeddings.key, cache_dir=tiles.cache_dir, exact=False
    )
    assert not opened.built


@pytest.mark.slow
@pytest.mark.parametrize(
    "before",
    [
        ("run_interactive_viz.py", "html", "--max_tiles", 50, "--dr_algorithms", "PCA", "--output_dir", "page"),
        ("visualize.py", "--max_tiles", 30, "--output_dir", "pictures"),
        ("precompute_embeddings.py", "--max_tiles", 40, "--dr_algorithms", "PCA"),
    ],
    ids=["html", "visualize", "precompute"],
)
def test_more_trees_after_any_command_that_fills_the_cache(copied: Path, before: tuple) -> None:
    shutil.rmtree(copied / "cache")
    paths = command(copied)[2:]
    run = [sys.executable, str(REPO / before[0]), *map(str, before[1:]), *paths]
    first = subprocess.run(run, capture_output=True, text=True, env=script_env(), cwd=copied)
    assert first.returncode == 0, first.stderr
    flags = ("--skip_embeddings", "--skip_projections", "--annoy_trees", 500, "--force_recompute")
    result = precompute(copied, *flags)
    assert table(result.stdout)["index angular"] == "computed"
    assert re.search(r"\d+ of 144 tiles have a cached vector; \d+ are left out", result.stderr)


def test_without_cached_vectors_there_is_nothing_to_skip(copied: Path) -> None:
    shutil.rmtree(copied / "cache")
    result = precompute(copied, "--skip_embeddings", "--skip_projections", check=2)
    assert "none of the 144 tiles has a cached vector" in result.stderr
    assert "without --skip_embeddings" in result.stderr


def test_another_checkpoint_rebuilds_all_and_training_on_rebuilds_nothing(copied: Path) -> None:
    save_untrained(copied / "model.pth", seed=3)
    assert set(table(here(copied, *FAST)).values()) == {"computed"}
    checkpoint = load_checkpoint(copied / "model.pth")  # the same weights, saved again with other records
    checkpoint.epoch, checkpoint.metrics = 7, {"loss": 0.5}
    from checkpoint import save_checkpoint

    save_checkpoint(copied / "model.pth", checkpoint)
    assert set(table(here(copied, *FAST)).values()) == {"reused"}


def test_a_place_without_tiles_is_one_sentence(filled: Path) -> None:
    error = precompute(filled, "--query", "-33.87,151.2", check=2).stderr
    assert "no tile lies at latitude -33.87, longitude 151.2" in error and "Traceback" not in error


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--export", "city.shp"), "expected .parquet, .geojson, .csv, projector"),
        (("--query", "kyiv"), "LAT,LON in degrees expected"),
        (("--dr_algorithms", "MDS"), "one of PCA, TSNE, UMAP expected"),
        (("--annoy_metrics", "cosine"), "invalid choice"),
        (("--max_tiles", "0"), "at least 1"),
        (("--max-tile", "5"), "did you mean '--max_tiles'"),
    ],
)
def test_wrong_use_says_what_is_expected(filled: Path, flags: tuple, said: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises((SystemExit, UserError)) as stopped:
        here(filled, *flags)
    assert getattr(stopped.value, "code", 2) == 2
    assert said in f"{stopped.value} {capsys.readouterr().err}"


# --- search ------------------------------------------------------------------------------------------------


def answers(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines() if re.match(r"\s+\d+ ", line)]


def test_a_query_finds_its_own_tile_first(filled: Path) -> None:
    lat, lon = latlon_of_tile(np.array([76606.5, 44206.5]))
    said = here(filled, "--query", f"{lat},{lon}", "--k", 5)
    found = answers(said)
    assert len(found) == 5
    assert abs(float(found[0][1]) - lat) < 1e-4 and abs(float(found[0][2]) - lon) < 1e-4
    assert float(found[0][3]) < 0.01
    assert [float(row[3]) for row in found] == sorted(float(row[3]) for row in found)
    assert found[0][5] in LAYERS
    assert found[0][6] == f"https://www.openstreetmap.org/?mlat={lat:.5f}&mlon={lon:.5f}#map=17/{lat:.5f}/{lon:.5f}"
    assert re.search(r"angular distance; exact search; recall@10 1\.000, \d+\.\d\d ms", said)


def test_the_neighbourhood_is_left_out(filled: Path) -> None:
    lat, lon = latlon_of_tile(np.array([76606.3, 44206.6]))
    found = answers(here(filled, "--query", f"{lat},{lon}", "--k", 8, "--exclude_km", 0.7))
    assert len(found) == 8 and all(float(row[4]) >= 0.7 for row in found)
    few = here(filled, "--query", f"{lat},{lon}", "--k", 8, "--exclude_km", 50)
    assert "only 0 places lie at least 50 km away" in few


# --- export ------------------------------------------------------------------------------------------------


def test_parquet_is_read_back_by_geopandas_and_duckdb(filled: Path, tmp_path: Path) -> None:
    geopandas, duckdb = pytest.importorskip("geopandas"), pytest.importorskip("duckdb")
    path = tmp_path / "city.parquet"
    assert f"wrote 144 tiles to {path}" in here(filled, "--export", path)
    frame = geopandas.read_parquet(path)
    assert len(frame) == 144 and frame.crs.to_string() == "OGC:CRS84"
    assert frame.geometry.is_valid.all() and (frame.geometry.geom_type == "Polygon").all()
    (north, west), (south, east) = latlon_of_tile(
        np.array([(frame.x[0], frame.y[0]), (frame.x[0] + 1, frame.y[0] + 1)])
    )
    assert np.allclose(frame.geometry[0].bounds, [west, south, east, north])
    centre = frame.geometry[5].centroid
    assert abs(centre.x - frame.longitude[5]) < 1e-5 and abs(centre.y - frame.latitude[5]) < 1e-5
    assert np.allclose(np.linalg.norm(np.stack(frame.embedding[~frame.blank]), axis=1), 1, atol=1e-5)
    assert set(frame.dominant_layer) <= {*LAYERS, "blank"} and set(frame.zone) <= set(ZONES)
    assert frame.geometry.exterior[0].is_ccw
    rows = duckdb.sql(f"select count(*), count(distinct (x, y)), max(len(embedding)) from '{path}'").fetchall()
    assert rows == [(144, 144, 16)]
    densest = duckdb.sql(f"select x, y from '{path}' order by content_density desc limit 1").fetchall()[0]
    assert densest == tuple(frame.sort_values("content_density").iloc[-1][["x", "y"]])


def test_parts_are_whole_or_absent(filled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written, real = [], exports.write_table

    def full(embeddings: Embeddings, path: Path) -> None:
        written.append(path)
        if len(written) == 2:
            raise OSError(errno.ENOSPC, "no space", str(path))
        real(embeddings, path)

    city = load_city(TilesFlags(tiles_root=filled / "tiles", cache_dir=filled / "cache"), filled / "model.pth")
    with monkeypatch.context() as patch, pytest.raises(OSError, match="no space"):
        patch.setattr(exports, "write_table", full)
        exports.write_parts(city, tmp_path / "parts")
    assert written and not list(tmp_path.iterdir())
    (tmp_path / "parts").mkdir()
    exports.write_parts(city, tmp_path / "parts")
    assert [path.name for path in tmp_path.iterdir()] == ["parts"] and len(list((tmp_path / "parts").iterdir())) == 2


def test_parquet_in_parts_is_read_as_one(filled: Path, tmp_path: Path) -> None:
    geopandas, duckdb = pytest.importorskip("geopandas"), pytest.importorskip("duckdb")
    here(filled, "--export", tmp_path / "parts")
    assert len(list((tmp_path / "parts").glob("block=*_*/tiles.parquet"))) == 2  # x crosses a multiple of 64
    assert len(geopandas.read_parquet(tmp_path / "parts")) == 144
    rows = duckdb.sql(f"select count(distinct (x, y)), count(distinct block) from '{tmp_path}/parts/*/*.parquet'")
    assert rows.fetchall() == [(144, 2)]
    with pytest.raises(UserError, match="not an empty folder"):
        here(filled, "--export", tmp_path / "parts")


def test_geojson_and_csv_hold_the_same(filled: Path, tmp_path: Path) -> None:
    here(filled, "--export", tmp_path / "city.geojson", "--max_tiles", 20)
    here(filled, "--export", tmp_path / "city.csv", "--max_tiles", 20)
    features = json.loads((tmp_path / "city.geojson").read_text())["features"]
    lines = list(csv.DictReader((tmp_path / "city.csv").read_text(encoding="utf-8").splitlines()))
    assert len(features) == len(lines) == 20
    for feature, line in zip(features, lines, strict=True):
        facts, ring = feature["properties"], feature["geometry"]["coordinates"][0]
        assert (str(facts["x"]), str(facts["y"]), facts["zone"]) == (line["x"], line["y"], line["zone"])
        assert ring[0] == ring[-1] and len(ring) == 5
        assert min(x for x, _ in ring) < facts["longitude"] < max(x for x, _ in ring)
        assert facts["embedding"] == [float(line[f"e{i}"]) for i in range(16)]
        assert abs(sum(number**2 for number in facts["embedding"]) - 1) < 1e-5


@pytest.mark.parametrize("name", ['50 % of it\'s "Київ"', "a:b ? #1 & ü", "%d%s%20"])
@pytest.mark.skipif(sys.platform == "win32", reason="not a file name on Windows")
def test_names_with_any_letters(filled: Path, tmp_path: Path, name: str) -> None:
    """Spaces, quotes, percent signs and letters of any script, in files, folders and checkpoints."""
    geopandas, duckdb = pytest.importorskip("geopandas"), pytest.importorskip("duckdb")
    folder = tmp_path / name
    shutil.copytree(filled / "tiles", folder / "tiles")
    shutil.copy(filled / "model.pth", folder / f"{name}.pth")
    own = ("--tiles_root", folder / "tiles", "--model_path", folder / f"{name}.pth", "--cache_dir", folder / name)
    assert set(table(here(folder, *own, *FAST)).values()) == {"computed"}
    assert set(table(here(folder, *own, *FAST)).values()) == {"reused"}
    for kind in ("parquet", "geojson", "csv"):
        assert f"wrote 144 tiles to {folder / name}.{kind}" in here(folder, *own, "--export", f"{folder / name}.{kind}")
    here(folder, *own, "--export", folder / f"parts {name}")
    assert len(geopandas.read_parquet(folder / f"{name}.parquet")) == 144
    with open(folder / f"{name}.parquet", "rb"):
        count = duckdb.execute("select count(*) from read_parquet(?)", [str(folder / f"{name}.parquet")]).fetchall()
    assert count == [(144,)]
    assert len(json.loads((folder / f"{name}.geojson").read_text(encoding="utf-8"))["features"]) == 144
    assert len(list((folder / f"parts {name}").glob("block=*_*/tiles.parquet"))) == 2


@pytest.mark.slow
def test_tensorboard_opens_the_projector_folder(filled: Path, tmp_path: Path) -> None:
    from PIL import Image

    precompute(filled, "--export", tmp_path / "runs/projector")
    with tensorboard(tmp_path / "runs") as ask:
        assert json.loads(ask("runs")) == ["projector"]
        (about,) = json.loads(ask("info?run=projector"))["embeddings"]
        count, dimension = about["tensorShape"]
        assert dimension == 16 and 0 < count < 144
        vectors = np.frombuffer(ask(f"tensor?run=projector&name=loc2vec&num_rows={count}"), dtype=np.float32)
        assert np.allclose(np.linalg.norm(vectors.reshape(count, 16), axis=1), 1, atol=1e-4)
        facts = ask("metadata?run=projector&name=loc2vec").decode().splitlines()
        assert len(facts) == count + 1 and facts[0].split("\t")[0] == "tile"
        sprite = Image.open(io.BytesIO(ask("sprite_image?run=projector&name=loc2vec")))
    edge = about["sprite"]["singleImageDim"][0]
    assert sprite.width == sprite.height == edge * int(np.ceil(np.sqrt(count)))


class tensorboard:
    def __init__(self, logdir: Path):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        flags = ["--logdir", str(logdir), "--port", str(self.port), "--load_fast", "false"]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tensorboard.main", *flags], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def __enter__(self) -> Callable[[str], bytes]:
        deadline = time.monotonic() + 120
        while True:
            try:
                if json.loads(self.ask("runs")):
                    return self.ask
            except OSError:
                pass
            assert time.monotonic() < deadline, "TensorBoard does not answer"
            time.sleep(0.5)

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait()

    def ask(self, what: str) -> bytes:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/data/plugin/projector/{what}", timeout=20) as answer:
            return answer.read()


# --- several processes, and stops --------------------------------------------------------------------------


@pytest.mark.slow
def test_torchrun_shares_the_tiles_out(filled: Path) -> None:
    flags = command(filled, "--cache_dir", filled / "shared", "--skip_projections", "--annoy_metrics", "angular")[1:]
    run = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "3", *flags]
    result = subprocess.run(run, capture_output=True, text=True, env=script_env({"OMP_NUM_THREADS": "1"}), cwd=filled)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("index angular") == 1
    assert table(result.stdout)["vectors"] == "computed"
    precompute(filled, "--export", filled / "alone.csv")
    precompute(filled, "--export", filled / "shared.csv", "--cache_dir", filled / "shared", "--skip_embeddings")
    files = [filled / name for name in ("alone.csv", "shared.csv")]
    alone, shared = (np.loadtxt(file, delimiter=",", skiprows=1, usecols=range(9, 25)) for file in files)
    assert alone.any(axis=1).sum() > 100 and np.linalg.norm(alone - shared, axis=1).max() < 0.005


@pytest.mark.slow
def test_two_processes_fill_one_cache_at_once(filled: Path) -> None:
    flags = ("--cache_dir", filled / "both", *FAST)
    runs = [
        subprocess.Popen(command(filled, *flags), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    outputs = [run.communicate() for run in runs]
    assert [run.returncode for run in runs] == [0, 0, 0], outputs
    assert sum(table(out)["vectors"] == "computed" for out, _ in outputs) == 1
    assert set(table(precompute(filled, *flags).stdout).values()) == {"reused"}


@pytest.mark.slow
def test_a_stop_keeps_what_was_embedded_and_says_143(tmp_path: Path, tiny_checkpoint: Path) -> None:
    make_tiles(tmp_path / "tiles", nx=20, ny=20, px=32)
    shutil.copy(tiny_checkpoint, tmp_path / "model.pth")
    run = subprocess.Popen(
        [sys.executable, "-c", _SLOWED, *command(tmp_path, "--batch_size", "4", "--dr_algorithms", "PCA")[1:]],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=script_env({"PYTHONPATH": str(REPO)}),
    )
    assert run.stdout.readline() == "half way\n"
    run.send_signal(signal.SIGTERM)
    _, error = run.communicate(timeout=120)
    assert run.returncode == 143, error
    assert "Traceback" not in error
    stages = table(precompute(tmp_path, *FAST).stdout)
    computed, reused = map(int, re.findall(r"\d+", stages["vectors"]))
    assert computed > 0 and reused > 40


# the script itself, with batches slow enough to be stopped between them
_SLOWED = """
import runpy, sys, time
import inference
plain = inference.Embedder.forward
def slow(*args):
    for i, vectors in enumerate(plain(*args)):
        if i == 12:
            print("half way", flush=True)
        time.sleep(0.02 if i < 12 else 0.5)
        yield vectors
inference.Embedder.forward = slow
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def projection_files(folder: Path) -> set[str]:
    return {path.name for path in (folder / "cache").glob("projection-*.l2v")}


def view(folder: Path, script: str, *flags: object) -> None:
    paths = ("--tiles_root", "tiles", "--model_path", "model.pth", "--cache_dir", "cache", "--device", "cpu")
    words = [sys.executable, str(REPO / script), *map(str, (*paths, *flags))]
    subprocess.run(words, cwd=folder, env=script_env(), check=True)


def test_the_page_shows_the_projections_that_were_computed(copied: Path) -> None:
    known = projection_files(copied)
    view(copied, "interactive_visualizer.py", "--dr_algorithms", "PCA", "--max_tiles", 0)
    assert len(known) == 2 and projection_files(copied) == known


@pytest.mark.slow
def test_every_projection_is_cached(filled: Path) -> None:
    flags = ("--annoy_metrics", "angular", "--annoy_trees", 10)
    stages = table(precompute(filled, *flags).stdout)
    assert {name for name in stages if name.endswith("-D")} == {
        f"{name} {d}-D" for name in ("PCA", "TSNE", "UMAP") for d in (2, 3)
    }
    again = precompute(filled, *flags, env={"PYTHONPROFILEIMPORTTIME": "1"})
    assert set(table(again.stdout).values()) == {"reused"}
    assert "| umap" not in again.stderr and "| sklearn" not in again.stderr
    known = projection_files(filled)
    view(filled, "visualize.py", "--max_tiles", 5000)
    view(filled, "interactive_visualizer.py", "--max_tiles", 0)
    assert projection_files(filled) == known
