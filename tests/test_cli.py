"""Flags, errors, progress and signals, as a person at the terminal meets them: through a script of its own."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import REPO, script_env

SCRIPT = '''\
"""Count the tiles of a city.

python count.py --max_tiles 3
"""

import dataclasses
import errno
import json
import sys
import time
from pathlib import Path

from cli import (
    DeviceFlags, Parser, StopSignal, TilesFlags, UserError, WorkError, add_flags, count_float, count_int, flag,
    fraction, positive_float, positive_int, read_flags, run_main,
)
from progress_bars import progress, warn


@dataclasses.dataclass(frozen=True)
class CountFlags:
    """Counting."""

    max_tiles: int = flag(10, "tiles to count, 100% of them at most", type=positive_int)
    workers: int = flag(0, "helpers", type=count_int)
    share: float = flag(0.5, "share", type=fraction)
    rate: float = flag(0.1, "rate", type=positive_float)
    weight: float = flag(0.0, "weight", type=count_float)
    near: int = flag(0, "a plain number with a default of nothing")
    metrics: list = flag(["angular", "dot"], "metrics", nargs="+", choices=["angular", "dot", "euclidean"])
    sizes: list = flag([1, 2], "sizes", nargs="+")
    bbox: str = flag(None, "west,south,east,north")
    keep_all: bool = flag(True, "keep them all", aliases=["former_keep"])
    box_px: int = flag(8, "edge of a box", type=positive_int, aliases=["former_box", "very_former_box"])
    kinds: list = flag(["a"], "kinds", nargs="+", aliases=["former_kinds"])
    dry: bool = flag(False, "do nothing")
    hidden: int = 7


def main():
    parser = Parser(__doc__)
    parser.add_argument("what", nargs="?", help="what to do")
    for config in (CountFlags, TilesFlags, DeviceFlags):
        add_flags(parser, config)
    args = parser.parse_args()
    WHAT.get(args.what, show)(args)


def show(args):
    for config in (CountFlags, TilesFlags, DeviceFlags):
        print(json.dumps(vars(read_flags(config, args)), default=str))


def fail(error):
    def run(args):
        raise error
    return run


def steps(args):
    with StopSignal() as stop:
        print("started", flush=True)
        for step in range(600):
            time.sleep(0.05)
            if stop.requested:
                print(f"saved after step {step}", flush=True)
                if args.dry:  # a save that takes too long for the one who waits
                    time.sleep(30)
                stop.raise_if_requested()


def stop_in_thread(args):
    import threading

    def work():
        with StopSignal() as stop:
            print("requested" if stop.requested else "quiet")

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


def bar(args):
    for _ in progress(range(args.max_tiles), desc="counting", unit="tile"):
        time.sleep(0.01)
    warn("one tile was odd")
    print("done")


def lines(args):
    for number in range(200_000):
        print(number)


WHAT = {
    "wrong": fail(UserError("no tiles in x; `python render_tiles.py` makes some")),
    "broken": fail(WorkError("loss is not finite")),
    "full": fail(OSError(errno.ENOSPC, "No space left on device", "out.bin")),
    "forbidden": fail(PermissionError(errno.EACCES, "Permission denied", "out.bin")),
    "missing": fail(FileNotFoundError(errno.ENOENT, "No such file or directory", "city.osm.pbf")),
    "memory": fail(MemoryError("Unable to allocate 80 GiB")),
    "bug": fail(ValueError("a defect of ours")),
    "interrupt": fail(KeyboardInterrupt()),
    "steps": steps,
    "thread": stop_in_thread,
    "bar": bar,
    "lines": lines,
}

if __name__ == "__main__":
    run_main(main)
'''

SUBCOMMANDS = '''\
"""Show the city."""

from cli import Parser, run_main


def main():
    parser = Parser(__doc__)
    modes = parser.add_subparsers(dest="mode", required=True)
    html = modes.add_parser("html", doc="One file.")
    html.add_argument("--max_tiles", type=int)
    modes.add_parser("streamlit", doc="The app.")
    print(parser.parse_args())


if __name__ == "__main__":
    run_main(main)
'''


@pytest.fixture
def count(tmp_path: Path):
    """`count("--max_tiles", 3)`: run the script above and return the completed process."""
    (tmp_path / "count.py").write_text(SCRIPT)

    def run(*args: object) -> subprocess.CompletedProcess:
        return subprocess.run(command(tmp_path, *args), env=environment(), capture_output=True, text=True, timeout=60)

    run.command = command(tmp_path)
    return run


def command(folder: Path, *args: object) -> list[str]:
    return [sys.executable, str(folder / "count.py"), *map(str, args)]


def environment() -> dict[str, str]:
    return script_env({"PYTHONPATH": str(REPO)})


def ended(result: subprocess.CompletedProcess, code: int, *words: str) -> None:
    """The script ended with `code` and said `words` on stderr, without a traceback."""
    assert result.returncode == code, result.stderr
    assert "Traceback" not in result.stderr
    for word in words:
        assert word in result.stderr


# --- flags -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spelling", ["--max_tiles", "--max-tiles"])
@pytest.mark.parametrize("tied", [True, False])
def test_both_spellings_work(count, spelling, tied):
    args = [f"{spelling}=3"] if tied else [spelling, "3"]
    assert '"max_tiles": 3' in count(*args).stdout


@pytest.mark.parametrize("spelling", ["--no_keep_all", "--no-keep-all", "--no-keep_all"])
def test_switches_turn_off_in_every_spelling(count, spelling):
    assert '"keep_all": true' in count().stdout
    assert '"keep_all": false' in count(spelling).stdout
    assert '"dry": true' in count("--dry").stdout


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["--former_box", 3], '"box_px": 3'),
        (["--former-box=3"], '"box_px": 3'),
        (["--very-former-box", 3], '"box_px": 3'),
        (["--former_box", 3, "--box_px", 4], '"box_px": 4'),
        (["--former_kinds", "b", "c"], '"kinds": ["b", "c"]'),
        (["--no_former_keep"], '"keep_all": false'),
        (["--no-former-keep"], '"keep_all": false'),
        (["--no_former_keep", "--former_keep"], '"keep_all": true'),
        ([], '"box_px": 8'),
    ],
)
def test_earlier_names_of_a_flag_keep_working(count, args, expected):
    result = count(*args)
    ended(result, 0)
    assert expected in result.stdout


def test_earlier_names_are_hidden_but_checked(count):
    assert "former" not in count("--help").stdout
    ended(count("--former_box", "0"), 2, "argument --former_box", "whole number of at least 1")
    assert "did you mean" not in count("--former_bx", "3").stderr


def test_defaults_and_fields_without_a_flag(count):
    shown = count().stdout
    assert '"metrics": ["angular", "dot"], "sizes": [1, 2], "bbox": null' in shown
    assert '"hidden": 7' in shown and '"zoom": 17' in shown and '"device": "auto"' in shown
    ended(count("--hidden", 3), 2, "unknown argument '--hidden'")


def test_parsed_flags_can_be_passed_on_as_a_command_line(count):
    """What run_example.py and run_interactive_viz.py do."""
    given = ["--sizes", 8, 9, "--no_keep_all", "--dry", "--tiles_root", "a 'b' %", "--tms", "--bbox=-1,2"]
    first = count(*given).stdout
    code = (
        "import sys, count; from cli import *; parser = Parser('x')\n"
        "groups = (count.CountFlags, TilesFlags, DeviceFlags)\n"
        "for group in groups: add_flags(parser, group)\n"
        "args = parser.parse_args()\n"
        "again = [word for group in groups for word in as_arguments(read_flags(group, args))]\n"
        "count.show(parser.parse_args(again))"
    )
    folder = next(Path(arg).parent for arg in count.command if arg.endswith("count.py"))
    again = subprocess.run(
        [sys.executable, "-c", code, *map(str, given)], cwd=folder, env=environment(), capture_output=True, text=True
    )
    assert again.stdout == first and '"bbox": "-1,2"' in first and "a 'b' %" in first


def test_lists_keep_the_type_of_their_elements(count):
    shown = count("--sizes", 8, 9, "--metrics", "euclidean", "--max-tiles", 4).stdout
    assert '"sizes": [8, 9]' in shown and '"metrics": ["euclidean"]' in shown and '"max_tiles": 4' in shown
    assert '"near": 5' in count("--near", 5).stdout
    ended(count("--near", "five"), 2, "--near")


@pytest.mark.parametrize("args", [["--bbox", "-123.3,49.2,-123,49.3"], ["--bbox=-123.3,49.2,-123,49.3"]])
def test_a_value_that_starts_with_a_minus_is_a_value(count, args):
    assert '"bbox": "-123.3,49.2,-123,49.3"' in count(*args).stdout


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["--max_tiles", "0"], "whole number of at least 1"),
        (["--max_tiles", "-5"], "whole number of at least 1"),
        (["--max_tiles", "1e3"], "whole number of at least 1"),
        (["--max_tiles", "9" * 400], "whole number of at least 1"),
        (["--max_tiles", "9" * 5000], "whole number of at least 1"),
        (["--max_tiles", ""], "whole number of at least 1"),
        (["--workers", "-1"], "whole number of at least 0"),
        (["--seed", str(2**32)], "whole number of at least 0"),
        (["--share", "1"], "from 0 to just under 1"),
        (["--share", "nan"], "from 0 to just under 1"),
        (["--share", "-.5"], "from 0 to just under 1"),
        (["--rate", "0"], "above 0"),
        (["--rate", "inf"], "above 0"),
        (["--weight", "-0.1"], "at least 0"),
        (["--max_tiles"], "expected one argument"),
    ],
)
def test_impossible_values_are_refused(count, args, expected):
    result = count(*args)
    ended(result, 2, f"argument {args[0]}", expected, "--help")
    assert len(result.stderr) < 300


@pytest.mark.parametrize(
    ("args", "suggestion"),
    [
        (["--max_tils", "3"], "--max_tiles"),
        (["--max-tils=3"], "--max_tiles"),
        (["--no-kep-all"], "--no_keep_all"),
        (["--device", "gpu0"], None),
        (["--device", "cud"], "cuda"),
        (["--metrics", "angluar"], "angular"),
        (["--max", "3"], None),  # no abbreviations: a script's meaning must not change with a new flag
    ],
)
def test_typos_get_the_right_word(count, args, suggestion):
    result = count(*args)
    ended(result, 2, args[0].split("=")[0].replace("--device", "device"))
    assert suggestion is None or f"did you mean '{suggestion}'?" in result.stderr


def test_help_shows_summary_examples_defaults(count):
    shown = count("--help")
    ended(shown, 0)
    for words in (
        "Count the tiles of a city.",
        "python count.py --max_tiles 3",
        "100% of them at most (default: 10)",
        "(default: angular dot)",
        "--keep_all, --no_keep_all",
        "Counting:",
    ):
        assert words in shown.stdout
    assert "default: None" not in shown.stdout and "['angular'" not in shown.stdout


def test_subcommands_speak_alike(tmp_path):
    (tmp_path / "count.py").write_text(SUBCOMMANDS)

    def run(*args):
        return subprocess.run(command(tmp_path, *args), env=environment(), capture_output=True, text=True, timeout=60)

    assert "max_tiles=5" in run("html", "--max-tiles", 5).stdout
    ended(run("htlm"), 2, "did you mean 'html'?")
    ended(run("html", "--max_tils", 5), 2, "did you mean '--max_tiles'?")
    ended(run(), 2, "mode")


# --- how a script ends -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("what", "code", "words"),
    [
        ("wrong", 2, "error: no tiles in x; `python render_tiles.py` makes some"),
        ("broken", 1, "error: loss is not finite"),
        ("full", 1, "error: no space left on the disk (out.bin)"),
        ("forbidden", 1, "error: Permission denied (out.bin)"),
        ("missing", 1, "error: No such file or directory (city.osm.pbf)"),
        ("memory", 1, "error: not enough memory: Unable to allocate 80 GiB"),
        ("interrupt", 130, ""),
    ],
)
def test_expected_failures_end_in_one_line(count, what, code, words):
    result = count(what)
    ended(result, code, words)
    assert result.stdout == "" and len(result.stderr.splitlines()) <= 1


def test_a_defect_keeps_its_traceback(count):
    result = count("bug")
    assert result.returncode == 1 and "ValueError: a defect of ours" in result.stderr


def test_a_reader_that_leaves_is_no_error(count, tmp_path):
    count()  # writes the script
    with subprocess.Popen(
        command(tmp_path, "lines"), env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "0\n"
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 1


def test_progress_is_on_stderr_and_only_for_slow_work(count):
    quick, slow = count("bar", "--max_tiles", 3), count("bar", "--max_tiles", 250)
    assert "counting" not in quick.stderr and "warning: one tile was odd" in quick.stderr
    assert "counting" in slow.stderr and "tile/s" in slow.stderr
    assert quick.stdout == slow.stdout == "done\n"


# --- signals -----------------------------------------------------------------------------------------------


def started(folder: Path, *args: str) -> subprocess.Popen:
    """The script, running its steps."""
    (folder / "count.py").write_text(SCRIPT)
    process = subprocess.Popen(
        command(folder, "steps", *args),
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "started\n"
    return process


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_first_signal_lets_the_script_save(tmp_path, signum, code):
    with started(tmp_path) as process:
        process.send_signal(signum)
        stdout, stderr = process.communicate(timeout=20)
    assert process.returncode == code
    assert "saved after step" in stdout
    assert "stopping after this step" in stderr and "Traceback" not in stderr


def test_a_second_signal_quits_at_once(tmp_path):
    with started(tmp_path, "--dry") as process:
        process.send_signal(signal.SIGINT)
        assert "saved" in process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)
    assert process.returncode == 143


def test_outside_the_main_thread_signals_are_left_alone(count):
    result = count("thread")
    ended(result, 0)
    assert result.stdout == "quiet\n"


def test_importing_does_nothing_visible():
    code = "import signal; before = signal.getsignal(2); import cli, files; assert signal.getsignal(2) is before"
    result = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, env=dict(os.environ))
    assert (result.returncode, result.stdout, result.stderr) == (0, b"", b"")
