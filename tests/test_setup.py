"""`make init` and the rest of the set-up: on machines that lack something, made up with a stand-in for uv.

Each test works in a copy of the set-up files with a PATH that holds the few tools they need and nothing else; apt-get
is a stand-in too, so that no test installs anything on the machine.
"""

import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest

from conftest import REPO

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the Makefile and setup.sh need a Unix shell")

SETUP_FILES = ("Makefile", "setup.sh", "pyproject.toml", "requirements.txt", "requirements-dev.txt")
TOOLS = "bash sh env make cat grep awk sed df id dirname rm mkdir mv cp tee cksum tail head chmod ln ls touch find"

FAKE_UV = """#!/usr/bin/env bash
echo "$@" >> "$UV_CALLS"
case "$*" in
    *--help*) echo "--torch-backend <BACKEND>" ;;
    venv*)
        mkdir -p .venv/bin
        cp "$VENV_PYTHON" .venv/bin/python ;;
    "pip install"*)
        if [ -e "$UV_SAYS" ]; then cat "$UV_SAYS" >&2; exit 1; fi
        echo "Installed 90 packages in 5ms" >&2 ;;
esac
"""

FAKE_PYTHON = """#!/usr/bin/env bash
if [ "$1 $2" = "-m venv" ]; then
    if [ -e "$NO_ENSUREPIP" ]; then
        echo "The virtual environment was not created successfully because ensurepip is not available."; exit 1
    fi
    mkdir -p .uv/bin
    printf '#!/bin/sh\\ncp "%s" .uv/bin/uv\\n' "$PRIVATE_UV" > .uv/bin/python
    chmod +x .uv/bin/python
    exit
fi
exec "$REAL_PYTHON" "$@"
"""

VENV_PYTHON = """#!/usr/bin/env bash
case "$*" in
    *"import skia"*) [ ! -e "$NO_SKIA" ]; exit ;;
esac
exec "$REAL_PYTHON" "$@"
"""

# Stands in for Debian's: what it installs is there afterwards.
FAKE_APT = """#!/usr/bin/env bash
echo "$@" >> "$APT_CALLS"
case "$*" in
    *libegl1*) rm "$NO_SKIA" ;;
    *g++*) rm "$UV_SAYS" ;;
    *chromium*) cp "$0" "${0%/*}/chromium" ;;
esac
"""

SHIM = "#!/usr/bin/env bash\necho 'pyenv: command not found' >&2\nexit 127\n"


class Machine:
    """A copy of the set-up files and a PATH of its own."""

    def __init__(self, folder: Path):
        self.repo, self.bin, self.folder = folder / "Loc2Vec – копія", folder / "bin", folder
        self.calls_file, self.says = folder / "calls.txt", folder / "uv_says.txt"
        self.repo.mkdir()
        self.bin.mkdir()
        for name in SETUP_FILES:
            shutil.copy(REPO / name, self.repo / name)
        for tool in TOOLS.split():
            (self.bin / tool).symlink_to(shutil.which(tool))
        for name, text in {"uv": FAKE_UV, "python3.12": FAKE_PYTHON, "apt-get": SHIM}.items():
            self.put(name, text)
        self.env = {
            "PATH": str(self.bin),
            "HOME": str(folder),
            "REAL_PYTHON": sys.executable,
            "UV_CALLS": str(self.calls_file),
            "UV_SAYS": str(self.says),
            "NO_ENSUREPIP": str(folder / "no_ensurepip"),
            "PRIVATE_UV": str(folder / "private_uv"),
            "VENV_PYTHON": str(self.put(str(folder / "venv_python"), VENV_PYTHON)),
            "NO_SKIA": str(folder / "no_skia"),
            "APT_CALLS": str(folder / "apt_calls.txt"),
        }

    def put(self, name: str, text: str) -> Path:
        """Put an executable on the PATH, or at an absolute path."""
        path = self.bin / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
        return path

    def make(self, *args: str, code: int = 0) -> subprocess.CompletedProcess:
        """`make ARGS` in the copy; its exit code must be `code`."""
        result = subprocess.run(
            ["make", *args], cwd=self.repo, env=self.env, capture_output=True, text=True, timeout=120
        )
        assert result.returncode == code, result.stdout + result.stderr
        return result

    def calls(self) -> list[str]:
        """What uv was asked for since the last time, questions for help aside."""
        lines = self.calls_file.read_text().splitlines() if self.calls_file.exists() else []
        self.calls_file.unlink(missing_ok=True)
        return [line for line in lines if "--help" not in line]

    def files(self) -> dict[str, int]:
        """Every file of the copy with its modification time."""
        return {str(path): path.lstat().st_mtime_ns for path in self.repo.rglob("*")}


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def one_sentence(result: subprocess.CompletedProcess) -> str:
    """The one error line of a failed set-up."""
    errors = [line for line in result.stderr.splitlines() if line.startswith("error:")]
    assert len(errors) == 1 and len(result.stderr.splitlines()) < 8, result.stderr
    return errors[0]


# --- make init ---------------------------------------------------------------------------------------------


def test_the_first_target_is_the_list_of_targets(machine):
    shown = machine.make().stdout
    targets = "help init example test test-floor check tiles train tensorboard streamlit bench clean"
    for target in targets.split():
        assert f"make {target} " in shown
    assert machine.calls() == []


def test_init_makes_the_environment_once(machine):
    first = machine.make("init")
    assert machine.calls() == [
        f"venv --python {machine.bin}/python3.12 {machine.repo}/.venv",
        f"pip install --python {machine.repo}/.venv/bin/python pip -r requirements.txt",
    ]
    assert "source .venv/bin/activate" in first.stderr
    before = machine.files()
    again = machine.make("init")
    assert machine.calls() == [] and machine.files() == before
    assert again.stdout == again.stderr == ""


def test_changed_requirements_are_installed(machine):
    machine.make("init")
    machine.calls()
    with open(machine.repo / "requirements.txt", "a") as file:
        file.write("# another day\n")
    machine.make("init")
    assert len(machine.calls()) == 1
    machine.make("init")
    assert machine.calls() == []


def test_torch_picks_the_build_and_is_remembered(machine):
    machine.make("init", "TORCH=cu126")
    install = machine.calls()[-1]
    assert "--torch-backend cu126 pip -r pyproject.toml --constraint" in install
    pinned = (machine.repo / ".venv/constraints.txt").read_text()
    assert not re.search(r"^(torch|torchvision|triton|nvidia|cuda)", pinned, re.MULTILINE)
    assert re.search(r"^numpy==", pinned, re.MULTILINE) and re.search(r"^streamlit==", pinned, re.MULTILINE)
    machine.make("init")
    assert machine.calls() == []
    (machine.repo / "requirements.txt").write_text((machine.repo / "requirements.txt").read_text() + "# new\n")
    machine.make("init")
    assert "--torch-backend cu126" in machine.calls()[-1]
    machine.make("init", "TORCH=cpu")
    assert "--torch-backend cpu" in machine.calls()[-1]


def test_an_environment_whose_python_is_gone_is_made_anew(machine):
    machine.make("init")
    (machine.repo / ".venv/bin/python").unlink()
    machine.calls()
    machine.make("init")
    assert [call.split()[0] for call in machine.calls()] == ["venv", "pip"]


def test_an_interrupted_installation_is_finished_next_time(machine):
    machine.says.write_text("Killed\n")
    machine.make("init", code=2)
    machine.says.unlink()
    machine.calls()
    machine.make("init")
    assert [call.split()[0] for call in machine.calls()] == ["pip"]


# --- finding Python and uv ---------------------------------------------------------------------------------


def test_a_python_that_does_not_run_is_not_one(machine):
    """Pyenv puts shims for every version it knows on the PATH; most of them only print an error."""
    for name in ("python3.13", "python3.12", "python3"):
        machine.put(name, SHIM)
    real = machine.put(str(machine.folder / ".pyenv/versions/3.12.9/bin/python3"), FAKE_PYTHON)
    machine.put(str(machine.folder / ".pyenv/versions/3.14.0/bin/python3"), SHIM)
    machine.make("init")
    assert machine.calls()[0].startswith(f"venv --python {real} ")


@pytest.mark.parametrize("version", ["(3, 11)", "(3, 99)"])
def test_a_python_without_wheels_is_passed_over_and_uv_brings_one(machine, version):
    old = (
        f"#!/usr/bin/env bash\nexec \"$REAL_PYTHON\" -c \"import sys; sys.version_info = {version}; exec('''$2''')\"\n"
    )
    machine.put("python3.12", SHIM)
    machine.put("python3", old)
    machine.make("init")
    assert machine.calls()[0].startswith("venv --python 3.12 ")


def test_no_python_and_no_network_is_one_sentence(machine):
    machine.put("python3.12", SHIM)
    failing = FAKE_UV.replace("venv*)", "venv*) echo 'error: Request failed: dns error' >&2; exit 2 ;;\n    never)")
    machine.put("uv", failing)
    assert "no Python 3.12" in one_sentence(machine.make("init", code=2))


@pytest.mark.parametrize("broken", [None, SHIM, "#!/usr/bin/env bash\necho uv 0.1.0\n"])
def test_uv_is_brought_when_missing_broken_or_too_old(machine, broken):
    (machine.bin / "uv").rename(machine.folder / "private_uv")
    if broken:
        machine.put("uv", broken)
    assert "installing it into .uv/" in machine.make("init").stderr
    assert (machine.repo / ".uv/bin/uv").exists() and len(machine.calls()) == 2
    machine.make("init")
    assert machine.calls() == []


def test_no_uv_and_no_ensurepip_names_the_package(machine):
    (machine.bin / "uv").unlink()
    (machine.folder / "no_ensurepip").touch()
    assert "apt-get install python3-venv" in one_sentence(machine.make("init", code=2))
    assert not (machine.repo / ".uv").exists()


# --- failing installations ---------------------------------------------------------------------------------

BUILD_LOG = "\n".join(f"         running step {i}" for i in range(80))


@pytest.mark.parametrize(
    ("says", "expected"),
    [
        (
            f"error: Failed to build `annoy==1.17.3`\n{BUILD_LOG}\n  [Errno 2] No such file: 'g++'",
            "apt-get install g++",
        ),
        (f"error: Failed to build `annoy`\n{BUILD_LOG}\n  fatal error: Python.h: No such file", "python3-dev"),
        ("error: Failed to fetch: `simple/torch/`\n  cause: dns error\n  cause: name resolution", "check the network"),
        ("error: Network connectivity is disabled, but needed", "check the network"),
        ("error: failed to write\n  cause: No space left on device (os error 28)", "no space left on the disk"),
        ("error: failed to open `.venv/x`\n  cause: Permission denied (os error 13)", "change their owner"),
        ("error: invalid value 'foo' for '--torch-backend <TORCH_BACKEND>'\n[possible values: …]", "TORCH="),
        ("error: something nobody has thought of", "the log says why"),
    ],
)
def test_a_failing_installation_is_one_sentence_and_a_log(machine, says, expected):
    machine.says.write_text(says)
    sentence = one_sentence(machine.make("init", code=2))
    log = machine.repo / ".venv/install.log"
    assert expected in sentence and str(log) in sentence
    assert log.read_text().strip() == says.strip()
    machine.says.unlink()
    machine.make("init")


# --- what only the system's packages bring -----------------------------------------------------------------


@pytest.fixture
def debian(machine: Machine) -> Machine:
    """The machine with root's rights and an apt-get that installs."""
    if not Path("/etc/debian_version").exists():
        pytest.skip("apt-get is used on Debian only")
    machine.put("id", "#!/usr/bin/env bash\necho 0\n")
    machine.put("apt-get", FAKE_APT)
    return machine


def apt_calls(machine: Machine) -> str:
    path = Path(machine.env["APT_CALLS"])
    return path.read_text() if path.exists() else ""


def test_libraries_for_drawing_that_are_missing_are_named(machine):
    (machine.folder / "no_skia").touch()
    said = machine.make("init").stderr
    assert "`apt-get install libegl1 libgl1`" in said and "everything else works" in said


def test_on_debian_root_gets_the_libraries_for_drawing(debian):
    (debian.folder / "no_skia").touch()
    said = debian.make("init").stderr
    assert "warning" not in said and "installing libegl1 libgl1" in said
    assert "install -y --no-install-recommends libegl1 libgl1" in apt_calls(debian)


def test_on_debian_root_gets_the_compiler_and_goes_on(debian):
    debian.says.write_text("error: Failed to build `annoy==1.17.3`")
    said = debian.make("init").stderr
    assert "error:" not in said and "ready:" in said
    assert "g++" in apt_calls(debian) and [call.split()[0] for call in debian.calls()] == ["venv", "pip", "pip"]


def test_the_tests_get_their_browser_once(debian):
    debian.make("init")
    for _ in range(2):
        debian.make("test", "PYTEST=echo pytest")
    assert apt_calls(debian).count("chromium") == 1


def test_without_a_browser_the_tests_run_and_say_so(machine):
    result = machine.make("test", "PYTEST=echo pytest")
    assert "apt-get install chromium" in result.stderr
    assert result.stdout.splitlines() == ["pytest -n auto --dist worksteal -m not slow and not gpu"]


# --- the other targets -------------------------------------------------------------------------------------


def test_the_development_tools_come_on_top_and_once(machine):
    machine.make("init")
    for path in (".venv/bin/ruff", ".venv/bin/mypy", "web/node_modules/.bin/tsc"):
        machine.put(str(machine.repo / path), f"#!/bin/sh\necho {Path(path).name} $@\n")
    machine.put(str(machine.repo / ".venv/bin/npm"), "#!/bin/sh\nexit 0\n")  # TypeScript is installed
    machine.calls()
    ran = ["ruff check .", "ruff format --check .", "mypy", "tsc -p web"]
    assert machine.make("check").stdout.splitlines() == ran
    assert machine.calls() == [f"pip install --python {machine.repo}/.venv/bin/python -r requirements-dev.txt"]
    machine.make("check")
    assert machine.calls() == []


def test_clean_keeps_what_took_long_to_make(machine):
    kept = (
        "12_layer_tiles/tiles/roads/17/1/2.png",
        "checkpoints/best_model.pth",
        "runs/1/events",
        ".venv/x/__pycache__/a",
    )
    gone = ("cache/a.l2v", "visualizations/a.png", "tests/__pycache__/a.pyc", ".pytest_cache/a")
    for name in kept + gone:
        (machine.repo / name).parent.mkdir(parents=True, exist_ok=True)
        (machine.repo / name).touch()
    machine.make("clean")
    assert [name for name in kept + gone if (machine.repo / name).exists()] == list(kept)


def test_ci_runs_what_the_readme_says_and_ends_with_pytest():
    lines = (REPO / ".ci/run").read_text().strip().splitlines()
    assert os.access(REPO / ".ci/run", os.X_OK)
    assert [line.split(" ARGS")[0] for line in lines if line.startswith("make ")] == [
        "make check",
        "make test-slow",
        "make test",
    ]
    assert lines[-1] == "make test"


# --- pins --------------------------------------------------------------------------------------------------


def pinned(name: str) -> dict[str, str]:
    """Package to version of a requirements file, in which every requirement must be pinned."""
    lines = [
        line for line in (REPO / name).read_text().splitlines() if line.strip() and not line.lstrip().startswith("#")
    ]
    pairs = [re.fullmatch(r"([a-z0-9.-]+)==([\w.+]+)( ; .*)?", line) for line in lines]
    assert all(pairs), [line for line, pair in zip(lines, pairs, strict=True) if not pair]
    return {pair[1]: pair[2] for pair in pairs}


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-dev.txt"])
def test_pins_name_no_address(name):
    assert not re.search(r"://|--(extra-)?index|--find-links", (REPO / name).read_text())


def test_every_wanted_package_is_pinned():
    project = tomllib.loads((REPO / "pyproject.toml").read_text())
    for wanted, name in (
        (project["project"]["dependencies"], "requirements.txt"),
        (project["dependency-groups"]["dev"], "requirements-dev.txt"),
    ):
        names = {re.match(r"[A-Za-z0-9.-]+", line)[0].lower() for line in wanted}
        assert names <= set(pinned(name)), names - set(pinned(name))


def test_the_two_files_agree_and_torch_is_above_its_floor():
    run, dev = pinned("requirements.txt"), pinned("requirements-dev.txt")
    assert {name: run[name] for name in run.keys() & dev.keys()} == {
        name: dev[name] for name in run.keys() & dev.keys()
    }
    assert tuple(map(int, run["torch"].split(".")[:2])) >= (2, 6)


@pytest.mark.slow
def test_a_fresh_clone_is_set_up_and_the_second_time_is_quick(tmp_path):
    """The real thing, with the real uv and the package index."""
    for name in SETUP_FILES:
        shutil.copy(REPO / name, tmp_path / name)
    env = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    subprocess.run(["make", "init"], cwd=tmp_path, env=env, check=True, timeout=900)
    imports = "import annoy, matplotlib, osmium, plotly, pyarrow, skia, sklearn, streamlit, torch, torchvision"
    subprocess.run([".venv/bin/python", "-c", imports], cwd=tmp_path, check=True, timeout=300)
    start = time.monotonic()
    subprocess.run(["make", "init"], cwd=tmp_path, env=env, check=True, timeout=60)
    assert time.monotonic() - start < 5  # the promise of the README, hundreds of times what it takes
