"""embed.py FOLDER/: a dataset of parts that many tools read, the same in blocks of any size, after any kill."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import duckdb
import geopandas
import numpy as np
import pandas as pd
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

import block_engine
import embed
import embed_dataset
import vector_dataset
from block_engine import LocalEngine, Task
from cli import UserError
from conftest import REPO, save_untrained, script_env
from engine_pieces import broken_piece
from exports import read_export
from files import locked
from osm_file import cut_extract
from render_tiles import SAMPLE_EXTRACT
from vector_dataset import DatasetFolder, read_tiles
from vectors import DTYPES, packed_vectors, unpacked_vectors

BOX = "71.420,51.124,71.4345,51.1325"  # 6 x 6 tiles in the middle of the sample city
KILLS = 20
INSIDE = (71.4269, 51.1247, 71.4285, 51.1257)  # on at most four of them


@pytest.fixture(scope="module")
def ground(tmp_path_factory) -> Path:
    """A piece of the sample city, and two untrained encoders."""
    folder = tmp_path_factory.mktemp("ground")
    cut_extract(SAMPLE_EXTRACT, (71.40, 51.10, 71.46, 51.15), folder / "city.osm.pbf")
    save_untrained(folder / "multiscale.pth", 256, 16, architecture="multiscale")
    save_untrained(folder / "loc2vec.pth", 64, 16)
    return folder


def arguments(ground: Path, output: object, *more: object, model: str = "multiscale") -> list[str]:
    command = [ground / "city.osm.pbf", "--bbox", BOX, "--device", "cpu", "--model_path", ground / f"{model}.pth"]
    return list(map(str, [*command, "-o", output, *more]))


@pytest.fixture
def run(ground, monkeypatch, capsys):
    """`run("folder/", "--block_tiles", 4)`: the command in this process; returns its exit code and what it printed."""

    def call(output: object, *more: object, model: str = "multiscale") -> tuple[int, str]:
        if "--jobs" not in more:
            more = (*more, "--jobs", 1)
        monkeypatch.setattr(sys, "argv", ["embed.py", *arguments(ground, output, *more, model=model)])
        code = embed.main() or 0
        return code, capsys.readouterr().out

    return call


@pytest.fixture(scope="module")
def dataset(ground, tmp_path_factory) -> Path:
    """A dataset in blocks of 4 x 4 tiles: read it, never write to it."""
    folder = tmp_path_factory.mktemp("dataset") / "city"
    command = [
        sys.executable,
        str(REPO / "embed.py"),
        *arguments(ground, f"{folder}/", "--block_tiles", 4, "--jobs", 2),
    ]
    subprocess.run(command, check=True, capture_output=True, env=script_env(), cwd=folder.parent)
    return folder


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def rows(folder: Path) -> pd.DataFrame:
    frame = read_tiles(folder).to_pandas().sort_values(["x", "y"], ignore_index=True)
    return frame.assign(embedding=frame["embedding"].map(lambda vector: np.asarray(vector).tobytes()))


# --- what is in it -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["multiscale", "loc2vec"])
def test_a_tile_does_not_depend_on_its_block(run, tmp_path, model):
    """Bit for bit, for vectors and facts, in blocks of three sizes."""
    for side in (4, 8, 64):
        assert run(f"{tmp_path}/{side}/", "--block_tiles", side, model=model)[0] == 0
    four, eight, one = (rows(tmp_path / str(side)) for side in (4, 8, 64))
    assert len(one) == 36 and len(list((tmp_path / "4").glob("block=*"))) == 9
    facts = [name for name in one.columns if name not in ("dominant_layer", "content_density")]
    pd.testing.assert_frame_equal(eight[facts], one[facts])
    pd.testing.assert_frame_equal(four[facts], one[facts])


def test_the_vectors_are_those_of_a_single_file(run, dataset, tmp_path):
    run(tmp_path / "city.parquet")
    single, parts = read_export(tmp_path / "city.parquet"), rows(dataset)
    order = np.lexsort((single.tile_xy[:, 1], single.tile_xy[:, 0]))
    np.testing.assert_array_equal(parts[["x", "y"]], single.tile_xy[order])
    vectors = np.stack([np.frombuffer(vector, np.float32) for vector in parts["embedding"]])
    np.testing.assert_array_equal(vectors, single.vectors[order])
    frame = pd.read_parquet(tmp_path / "city.parquet").sort_values(["x", "y"], ignore_index=True)
    assert (parts["zone"] == frame["zone"]).all() and (parts["blank"] == frame["blank"]).all()


def test_the_manifest_names_what_it_was_made_from(dataset, ground):
    manifest = json.loads((dataset / "_manifest.json").read_text())
    assert manifest["complete"] and manifest["failed"] == [] and manifest["extract"]["name"] == "city.osm.pbf"
    assert len({manifest["key"], manifest["style"], manifest["extract"]["digest"], manifest["encoder"]["digest"]}) == 4
    assert sum(manifest["parts"].values()) == 36 and manifest["encoder"]["dimensions"] == 16
    assert {path.parent.name for path in dataset.glob("*/tiles.parquet")} == {f"block={n}" for n in manifest["parts"]}
    assert [path.name for path in dataset.parent.iterdir()] == ["city"], "nothing unfinished is left"


def test_blank_blocks_and_blocks_that_hold_nothing(run, tmp_path, monkeypatch):
    """Of a very large area only the tiles near something count; their vectors are the same."""
    run(f"{tmp_path}/whole/", "--block_tiles", 4)
    monkeypatch.setattr("blocks.MAX_TILES", 10)
    run(f"{tmp_path}/near/", "--block_tiles", 4)
    whole, near = rows(tmp_path / "whole"), rows(tmp_path / "near")
    both = whole.merge(near, on=["x", "y"], suffixes=("", "_near"))
    assert (
        len(both) == len(near) <= len(whole)
        and not whole.loc[~whole["blank"]]
        .merge(near, on=["x", "y"], how="left", suffixes=("", "_near"))["zoom_near"]
        .isna()
        .any()
    )
    if len(near) == len(whole):
        assert (both["embedding"] == both["embedding_near"]).all()


# --- fewer bytes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "least"), [("float32", 1.0), ("float16", 0.999999), ("int8", 0.9999)])
def test_smaller_vectors_keep_their_direction(run, tmp_path, dataset, dtype, least):
    run(f"{tmp_path}/small/", "--block_tiles", 4, "--dtype", dtype)
    exact, small = (
        read_tiles(folder).sort_by([("x", "ascending"), ("y", "ascending")]) for folder in (dataset, tmp_path / "small")
    )
    before, after = (np.stack(table["embedding"].to_numpy()) for table in (exact, small))
    assert after.dtype == dtype and (before * unpacked_vectors(after)).sum(axis=1).min() >= least - 1e-6
    assert read_export(tmp_path / "small").vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(read_export(tmp_path / "small").vectors, axis=1), 1, atol=1e-5)


def test_packing_survives_zero_vectors():
    vectors = np.array([[0, 0, 0], [0.6, 0, -0.8]], dtype=np.float32)
    for dtype in DTYPES:
        np.testing.assert_allclose(unpacked_vectors(packed_vectors(vectors, dtype)), vectors, atol=0.005)


# --- readers -----------------------------------------------------------------------------------------------


def test_geopandas_reads_it_whole_and_by_box(dataset):
    whole = geopandas.read_parquet(dataset)
    assert len(whole) == 36 and whole.crs.is_geographic and whole.geometry.is_valid.all()
    some = geopandas.read_parquet(dataset, bbox=INSIDE)
    expected = whole.cx[INSIDE[0] : INSIDE[2], INSIDE[1] : INSIDE[3]]
    assert 1 <= len(some) == len(expected) <= 4


def test_duckdb_reads_it_without_extensions(dataset):
    connection = duckdb.connect(config={"autoinstall_known_extensions": False, "autoload_known_extensions": False})
    west, south, east, north = INSIDE
    found = connection.sql(
        f"SELECT x, y, embedding FROM read_parquet('{dataset}/*/tiles.parquet') WHERE bbox.xmax > {west} "
        f"AND bbox.xmin < {east} AND bbox.ymax > {south} AND bbox.ymin < {north}"
    ).fetchall()
    assert 1 <= len(found) <= 4 and len(found[0][2]) == 16
    assert connection.sql(f"SELECT count(*) FROM read_parquet('{dataset}/*/tiles.parquet')").fetchall() == [(36,)]


def test_a_box_skips_parts(dataset):
    """The summary file alone tells a reader which parts it needs."""
    summary = ds.parquet_dataset(dataset / "_metadata")
    condition = vector_dataset.box_filter(INSIDE)
    left = [len(part.subset(condition).row_groups) for part in summary.get_fragments()]
    assert len(left) == len(list(dataset.glob("block=*"))) and 1 <= sum(left) <= 4 < left.count(0)
    found = summary.to_table(filter=condition)
    assert found.num_rows == read_tiles(dataset, INSIDE).num_rows == len(geopandas.read_parquet(dataset, bbox=INSIDE))


def test_reading_a_box_opens_only_its_parts(dataset, monkeypatch):
    counts = [
        fragment.count_rows(filter=vector_dataset.box_filter(INSIDE))
        for fragment in ds.dataset(dataset, partitioning="hive").get_fragments()
    ]
    assert sum(counts) <= 4 and counts.count(0) > len(counts) / 2


def test_rows_follow_a_curve_and_carry_statistics(dataset):
    path = max(dataset.glob("*/tiles.parquet"), key=lambda path: path.stat().st_size)
    table, group = pq.read_table(path), pq.read_metadata(path).row_group(0)
    steps = np.abs(np.diff(np.column_stack([table["x"], table["y"]]).astype(int), axis=0)).sum(axis=1)
    assert (steps == 1).all(), "each tile is a neighbour of the one before"
    columns = {group.column(i).path_in_schema: group.column(i) for i in range(group.num_columns)}
    assert columns["bbox.xmin"].statistics.max == max(row["xmin"] for row in table["bbox"].to_pylist())


# --- going on, and faults ----------------------------------------------------------------------------------


def start(ground: Path, output: Path, *more: object) -> subprocess.Popen:
    command = [sys.executable, str(REPO / "embed.py"), *arguments(ground, f"{output}/", "--block_tiles", 4, *more)]
    return subprocess.Popen(
        command, cwd=output.parent, env=script_env(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def children(pid: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            if int(stat.read_text().rsplit(")", 1)[1].split()[1]) == pid:
                found.append(int(stat.parent.name))
        except (OSError, ValueError):
            continue
    return found + [below for child in found for below in children(child)]


def test_what_is_finished_is_kept(run, dataset, tmp_path, monkeypatch):
    done = []
    real = block_engine.LocalEngine.run

    def stopped(self, function, shared, tasks):
        for outcome in real(self, function, shared, tasks):
            yield outcome
            done.append(outcome.name)
            if function is embed_dataset.embed_block and len(done) > 12:
                raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(block_engine.LocalEngine, "run", stopped)
        with pytest.raises(KeyboardInterrupt):
            run(f"{tmp_path}/city/", "--block_tiles", 4)
    assert not json.loads((tmp_path / "city" / "_manifest.json").read_text())["complete"]
    kept = len(list((tmp_path / "city").glob("block=*")))
    with monkeypatch.context() as patch:
        patch.setattr("blocks.stream_features", None)  # what was read is not read again
        said = run(f"{tmp_path}/city/", "--block_tiles", 4)[1]
    assert 0 < kept < 9 and f"{len(list(dataset.glob('block=*'))) - kept} of them embedded now" in said
    assert content(tmp_path / "city") == content(dataset)
    with monkeypatch.context() as patch:
        patch.setattr("blocks.stream_features", None)
        assert "0 of them embedded now" in run(f"{tmp_path}/city/", "--block_tiles", 4)[1]


def test_a_kill_while_prepared_blocks_are_removed(run, dataset, tmp_path, monkeypatch):
    """The dataset is complete; the next run removes what is left, and believes none of it if it has to work."""
    unlink, left = os.unlink, [3]

    def killed(path, *, dir_fd=None):
        if dir_fd is not None and str(path).endswith(".l2v"):
            left[0] -= 1
            if not left[0]:
                raise KeyboardInterrupt
        unlink(path, dir_fd=dir_fd)

    work = tmp_path / ".city.partial"
    for damaged in (False, True):
        shutil.rmtree(tmp_path / "city", ignore_errors=True)
        left[0] = 3
        with monkeypatch.context() as patch:
            patch.setattr(os, "unlink", killed)
            with pytest.raises(KeyboardInterrupt):
                run(f"{tmp_path}/city/", "--block_tiles", 4)
        assert list(work.rglob("*.l2v"))
        if damaged:
            for path in (tmp_path / "city").glob("block=*/tiles.parquet"):
                path.write_bytes(path.read_bytes()[:-100])
        run(f"{tmp_path}/city/", "--block_tiles", 4)
        assert content(tmp_path / "city") == content(dataset) and not work.exists()


def test_a_damaged_part_is_computed_again(run, dataset, tmp_path):
    run(f"{tmp_path}/city/", "--block_tiles", 4)
    path = next((tmp_path / "city").glob("block=*/tiles.parquet"))
    path.write_bytes(path.read_bytes()[:-100])
    (path.parent / ".tiles.1-00000000.tmp.parquet").write_bytes(b"of a process that was killed")
    assert " 1 of them embedded now" in run(f"{tmp_path}/city/", "--block_tiles", 4)[1]
    assert content(tmp_path / "city") == content(dataset) and not list((tmp_path / "city").rglob(".*"))


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_killed_at_any_moment_it_goes_on(ground, dataset, tmp_path):
    """20 kills, of the command and of its processes in turn: nothing is lost, nothing doubled."""
    output, kills, began = tmp_path / "city", 0, time.monotonic()
    start(ground, tmp_path / "calm", "--jobs", 2).communicate()
    usual, rng = time.monotonic() - began, np.random.default_rng(0)
    while kills < KILLS:
        process = start(ground, output, "--jobs", 2)
        deadline = time.monotonic() + usual * rng.uniform(0.1, 1)
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.1)
        if process.poll() is not None:  # finished: begin again with some parts gone
            assert process.returncode == 0, process.communicate()[1]
            for path in list(output.glob("block=*"))[::2]:
                (path / "tiles.parquet").unlink()
        elif kills % 2 and (below := children(process.pid)):
            os.kill(below[-1], signal.SIGKILL)
            kills += 1
            time.sleep(1)
        process.kill()
        process.communicate()
        kills += 1
    said = start(ground, output, "--jobs", 2).communicate()
    assert content(output) == content(dataset), said


@pytest.mark.slow
def test_a_full_disk_loses_nothing(ground, dataset, tmp_path):
    """On a file system that is too small from the start, and on one that something else fills after the first part."""
    unshare = shutil.which("unshare")
    if not unshare or subprocess.run([unshare, "-rm", "mount", "-t", "tmpfs", "none", tmp_path]).returncode:
        pytest.skip("no file systems of one's own: `unshare -rm` is not allowed")
    (tmp_path / "small").mkdir()
    fill = (
        "while ! ls small/city/block=*/tiles.parquet; do sleep 0.02; done >/dev/null 2>&1; cat /dev/zero > small/fill"
    )
    for size, beside in (("500k", "true"), ("40m", fill)):
        script = f'mount -t tmpfs -o size={size} none small; ({beside}) 2>/dev/null & "$@"; code=$?; '
        script += "kill $!; cp -r small/city kept; exit $code"
        command = [sys.executable, str(REPO / "embed.py"), *arguments(ground, "small/city/", "--block_tiles", 4)]
        run = [unshare, "-rm", "sh", "-c", script, "sh", *command]
        full = subprocess.run(run, cwd=tmp_path, env=script_env(), capture_output=True, text=True)
        assert full.returncode == 1 and "no space left on" in full.stderr.lower(), full.stderr
        assert "Traceback" not in full.stderr
    kept = len(list((tmp_path / "kept").glob("block=*/tiles.parquet")))
    assert 0 < kept < 9
    said = start(ground, tmp_path / "kept", "--jobs", 2).communicate()
    assert content(tmp_path / "kept") == content(dataset), said


@pytest.mark.slow
def test_a_lost_process_is_replaced(ground, dataset, tmp_path):
    process, killed = start(ground, tmp_path / "city", "--jobs", 2), 0
    while process.poll() is None:
        time.sleep(0.5)
        below = children(process.pid)
        if killed < 2 and list((tmp_path / "city").glob("block=*")) and len(below) >= 3:
            os.kill(max(below), signal.SIGKILL)
            killed += 1
            time.sleep(3)
    said = process.communicate()[1]
    assert process.returncode == 0 and killed >= 1 and "ended from outside" in said, said
    assert content(tmp_path / "city") == content(dataset)


def test_a_block_that_fails_is_named_and_the_rest_is_written(run, dataset, tmp_path, monkeypatch):
    real = embed_dataset.embed_block
    bad = sorted(path.name.removeprefix("block=") for path in dataset.glob("block=*"))[3]
    tried = []

    def failing(job, weights, block, part):
        if job.plan.name(block) == bad:
            tried.append(block)
            raise MemoryError("no memory for this block")
        return real(job, weights, block, part)

    with monkeypatch.context() as patch:
        patch.setattr(embed_dataset, "embed_block", failing)
        code, said = run(f"{tmp_path}/city/", "--block_tiles", 4)
    assert code == 1 and f"1 blocks failed: {bad}" in said and len(tried) == block_engine.ATTEMPTS
    manifest = json.loads((tmp_path / "city" / "_manifest.json").read_text())
    assert manifest["failed"] == [bad] and not manifest["complete"]
    assert len(list((tmp_path / "city").glob("block=*"))) == len(list(dataset.glob("block=*"))) - 1
    assert run(f"{tmp_path}/city/", "--block_tiles", 4)[0] == 0
    assert content(tmp_path / "city") == content(dataset)


def test_the_engine_tells_apart_what_ends_its_processes(tmp_path):
    names = ["a", "kills", "b", "once", "c", "raises", "d"]
    tasks = [Task(name, lambda _, name=name: (name, str(tmp_path))) for name in names]
    done = {outcome.name: outcome for outcome in LocalEngine(2).run(broken_piece, (), tasks)}
    assert set(done) == set(names)
    assert {name: outcome.value for name, outcome in done.items() if outcome.error is None} == {
        name: name.upper() for name in ("a", "b", "c", "d", "once")
    }
    assert done["kills"].error == "its process was ended" and done["raises"].error == "ValueError: every time"
    assert (tmp_path / "raises").stat().st_size == block_engine.ATTEMPTS


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.slow
def test_a_signal_ends_it_and_the_same_command_goes_on(ground, dataset, tmp_path):
    process = start(ground, tmp_path / "city", "--jobs", 2)
    while not list((tmp_path / "city").glob("block=*")):
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=120)[1]
    assert process.returncode == 128 + signal.SIGTERM and "Traceback" not in said
    process = start(ground, tmp_path / "city", "--jobs", 2)
    process.communicate()
    assert process.returncode == 0 and content(tmp_path / "city") == content(dataset)


# --- other file systems ------------------------------------------------------------------------------------


@pytest.fixture
def bucket(monkeypatch):
    """An S3 server in this process; skips the test where moto or s3fs is not installed."""
    server_of = pytest.importorskip("moto.server", reason="needs `pip install moto[server] s3fs`")
    s3fs = pytest.importorskip("s3fs")
    server = server_of.ThreadedMotoServer(port=0)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    system = s3fs.S3FileSystem()
    system.mkdir("bucket")
    yield system
    s3fs.S3FileSystem.clear_instance_cache()
    server.stop()


@pytest.mark.filterwarnings("default")
def test_input_and_output_on_s3(run, ground, dataset, bucket, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    bucket.put_file(str(ground / "city.osm.pbf"), "bucket/maps/city.osm.pbf")
    code, _ = run("s3://bucket/city/", "--block_tiles", 4)
    assert code == 0
    there = {name.removeprefix("bucket/city/"): bucket.cat_file(name) for name in bucket.find("bucket/city")}
    assert there == content(dataset)
    assert read_tiles("s3://bucket/city", INSIDE).num_rows == read_tiles(dataset, INSIDE).num_rows
    assert "0 of them embedded now" in run("s3://bucket/city/", "--block_tiles", 4)[1]
    command = ["embed.py", "s3://bucket/maps/city.osm.pbf", "-o", "s3://bucket/city/", "--block_tiles", "4"]
    command += ["--bbox", BOX, "--device", "cpu", "--model_path", str(ground / "multiscale.pth"), "--jobs", "1"]
    monkeypatch.setattr(sys, "argv", command)
    assert embed.main() == 0, "the same extract, read from the bucket"
    assert (tmp_path / "downloads" / "bucket" / "maps" / "city.osm.pbf").is_file()
    monkeypatch.setattr(sys, "argv", ["embed.py", "s3://bucket/absent.osm.pbf", *command[2:]])
    with pytest.raises(UserError, match="cannot be read"):
        embed.main()


# --- wrong use ---------------------------------------------------------------------------------------------


def test_two_commands_do_not_write_one_dataset(run, tmp_path):
    (tmp_path / ".city.partial").mkdir()
    with locked(tmp_path / ".city.partial" / "work.lock"), pytest.raises(UserError, match="another process"):
        run(f"{tmp_path}/city/")


def test_a_folder_that_holds_something_else_is_left_alone(run, dataset, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("hello")
    with pytest.raises(UserError, match="holds no dataset"):
        run(f"{tmp_path}/mine/")
    with pytest.raises(UserError, match="another extract, box, style, encoder"):
        run(f"{dataset}/", "--dtype", "int8", "--block_tiles", 4)
    with pytest.raises(UserError, match="every tile"):
        run(f"{tmp_path}/new/", "--h3", 9)
    with pytest.raises(UserError, match=r"nowhere://.*cannot be used"):
        run("nowhere://bucket/x")
    with pytest.raises(UserError, match="no dataset at"):
        read_tiles(tmp_path / "absent")


def test_without_ray_the_message_says_how_to_install_it(run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"pip install -r requirements-ray\.txt"):
        run(f"{tmp_path}/city/", "--engine", "ray")


def test_searching_in_a_dataset(dataset, monkeypatch, capsys):
    ask = ["embed.py", "--query", "51.128,71.43", "--from", str(dataset), "--k", "3"]
    monkeypatch.setattr(sys, "argv", ask)
    embed.main()
    assert capsys.readouterr().out.count("openstreetmap.org") == 3


def test_names_with_dots_do_not_belong_to_a_dataset(dataset, tmp_path):
    names = DatasetFolder(dataset).names()
    assert "_manifest.json" in names and all(not name.startswith(".") for name in names)
