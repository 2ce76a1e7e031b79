"""The whole chain in one command: its steps, its flags, its end by a signal."""

import contextlib
import io
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import run_example
from conftest import REPO, make_tiles, script_env

FLAGS = ["--tiles_root", "tiles", "--epochs", "1", "--device", "cpu"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    make_tiles(folder / "tiles", nx=24, ny=24, px=32)
    return folder


def test_only_flags_exclude_each_other(run_script) -> None:
    assert "exclude each other" in run_script("run_example.py", "--test-only", "--train-only", check=2).stderr


def test_pictures_need_a_checkpoint(run_script, tmp_path: Path) -> None:
    result = run_script("run_example.py", "--visualize-only", "--model_path", "absent.pth", check=2)
    assert "no checkpoint at absent.pth" in result.stderr and "bundled encoder" in result.stderr
    assert not list(tmp_path.iterdir()), "nothing was rendered for a run that cannot end well"


def test_a_failing_step_ends_the_chain_with_its_code(run_script, tmp_path: Path) -> None:
    folder = tmp_path / "12_layer_tiles" / "tiles" / "roads" / "17" / "1"
    folder.mkdir(parents=True)
    (folder / "1.png").write_bytes(b"")
    result = run_script("run_example.py", "--test-only", check=2)
    assert "data_loader.py ended with exit code 2" in result.stderr
    assert "11 of 12 layers" in result.stderr
    assert "Traceback" not in result.stderr


def test_paths_with_any_letters(run_script, tmp_path: Path, monkeypatch) -> None:
    """Each step gets the paths unchanged, and the printed commands can be pasted into a shell."""
    home = tmp_path / 'Київ it\'s "50%25" $HOME `e` *'
    tiles = make_tiles(home / "tiles", nx=3, ny=3, px=32)
    flags = ["--tiles_root", tiles, "--model_path", home / "ck pt" / "m.pth", "--output_dir", home / "out put"]
    commands = []
    monkeypatch.setattr(run_example.subprocess, "Popen", lambda command: commands.append(command) or Finished())
    monkeypatch.setattr(sys, "argv", ["run_example.py", *map(str, flags)])
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        run_example.main()
    assert [Path(command[1]).name for command in commands] == [
        "data_loader.py",
        "train.py",
        "precompute_embeddings.py",
        "visualize.py",
        "run_interactive_viz.py",
    ]
    assert all(command[command.index("--tiles_root") + 1] == str(tiles) for command in commands)
    assert all(str(home / "ck pt" / "best_model.pth") in command for command in commands[2:])
    printed = [line.partition("$ python ")[2] for line in said.getvalue().splitlines() if line.startswith("$ python ")]
    assert [shlex.split(line)[1:] for line in printed] == [command[2:] for command in commands]
    (live,) = (line for line in said.getvalue().splitlines() if line.startswith("live app"))
    words = shlex.split(live)
    assert words[words.index("--model_path") + 1] == str(home / "ck pt" / "best_model.pth")
    assert words[words.index("--tiles_root") + 1] == str(tiles)


class Finished:
    """A process that ended well."""

    def wait(self) -> int:
        return 0


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_chain_makes_what_it_says(home: Path, run_script) -> None:
    result = run_script("run_example.py", *FLAGS, "--max-tiles", 200, cwd=home)
    assert "$ python train.py --preset recommended --epochs 1" in result.stdout
    listed = [
        line.split()[-1] for line in result.stdout.splitlines() if line.startswith(("checkpoint", "picture", "page"))
    ]
    assert {Path(path).suffix for path in listed} == {".pth", ".png", ".html"}
    assert all((home / path).is_file() for path in listed)
    assert list((home / "runs").rglob("events.out.tfevents*"))


@pytest.mark.slow
def test_sample_city_is_rendered_where_there_are_no_tiles(run_script, tmp_path: Path) -> None:
    result = run_script("run_example.py", "--test-only")
    assert "the sample city" in result.stdout
    assert "python render_tiles.py --city kyiv" in result.stdout
    assert "common coordinates: 2,304" in result.stdout


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_step_and_the_chain(signum: int, home: Path, tmp_path: Path) -> None:
    command = [
        sys.executable,
        str(REPO / "run_example.py"),
        *FLAGS,
        "--train-only",
        "--model_path",
        str(tmp_path / "m.pth"),
    ]
    with open(tmp_path / "log", "w+") as log:
        process = subprocess.Popen(command, cwd=home, env=script_env(), stdout=log, stderr=log, start_new_session=True)
        wait_for(lambda: "epoch 1/1" in (tmp_path / "log").read_text(), process)  # the training's own bar
        if signum == signal.SIGINT:  # as a terminal does: to the whole group
            os.killpg(process.pid, signum)
        else:
            process.send_signal(signum)
        try:
            assert process.wait(timeout=120) in (128 + signum, 0)
        finally:
            process.kill()
            process.wait()
    assert "Traceback" not in (tmp_path / "log").read_text()


def wait_for(condition, process: subprocess.Popen, limit_s: float = 240) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        assert process.poll() is None, "ended too early"
        assert time.monotonic() < deadline, "did not get there"
        time.sleep(0.2)
