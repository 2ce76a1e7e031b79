"""Runs the project's scripts hundreds of times as real processes: one process imports them, then forks for each run.

python tests/fork_host.py
"""

import atexit
import ctypes
import dataclasses
import gc
import importlib
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import NoReturn

import pytest

REPO = Path(__file__).resolve().parent.parent
SCRIPTS = (
    "bench",
    "data_loader",
    "embed",
    "evaluate",
    "interactive_visualizer",
    "precompute_embeddings",
    "pretrained",
    "render_tiles",
    "run_example",
    "run_interactive_viz",
    "train",
    "visualize",
)
ALSO = ("torch.utils.tensorboard", "matplotlib.figure", "sklearn.cluster", "annoy")
TIMEOUT_S = 120


@dataclasses.dataclass(frozen=True)
class Ended:
    """How a run ended: `code` as a shell sees it (negative: the signal), what it said, and how long it took."""

    code: int
    seconds: float
    out: str
    err: str


class Host:
    """The process that forks; a run that takes longer than `TIMEOUT_S` fails the test."""

    def __init__(self, scratch: Path):
        self.said = scratch / "said"
        self.said.mkdir()
        quiet = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "COLUMNS": "200"}
        quiet["ARROW_DEFAULT_MEMORY_POOL"] = "system"  # the others keep a thread, which a fork would lose
        self.process = subprocess.Popen(
            [sys.executable, "-W", "ignore:This process:DeprecationWarning", __file__],
            env=os.environ | quiet,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout.readline() == "ready\n"

    def run(
        self,
        script: str,
        *args: object,
        cwd: Path,
        code: int | tuple[int, ...] | None = 0,
        kill_after: float | None = None,
        largest_file: int | None = None,
    ) -> Ended:
        """Run a script in `cwd`; fails unless it ends with (one of) `code`, and where it shows a traceback.

        `kill_after` sends SIGKILL after so many seconds; `largest_file` is the size in bytes no file may exceed.
        """
        request = {"script": script.removesuffix(".py"), "args": list(map(str, args)), "cwd": str(cwd)}
        request |= {"said": str(self.said), "kill_after": kill_after, "largest_file": largest_file}
        print(json.dumps(request), file=self.process.stdin, flush=True)
        answer = json.loads(self.process.stdout.readline())
        out, err = ((self.said / name).read_text(encoding="utf-8", errors="replace") for name in ("out", "err"))
        ended = Ended(answer["code"], answer["seconds"], out, err)
        shown = (
            f"{script} {' '.join(map(str, args))}\nended with {ended.code} after {ended.seconds:.1f} s\n{out}\n{err}"
        )
        wanted = (code,) if isinstance(code, int) else code
        faults = {
            f"still running after {TIMEOUT_S} s": answer["late"],
            f"did not end with {wanted}": wanted is not None and ended.code not in wanted,
            "showed a traceback": "Traceback" in err,
            "said no sentence": ended.code in (1, 2) and "error: " not in err,
        }
        if found := [fault for fault, there in faults.items() if there]:
            pytest.fail(f"{', '.join(found)}: {shown}", pytrace=False)
        return ended

    def close(self) -> None:
        """End the process."""
        self.process.stdin.close()
        self.process.wait(10)
        self.process.stdout.close()


def show(config: pytest.Config, line: str) -> None:
    """Write a line into the test run's own report, if there is one in this process."""
    terminal, capture = map(config.pluginmanager.get_plugin, ("terminalreporter", "capturemanager"))
    if terminal and capture:
        with capture.global_and_fixture_disabled():
            terminal.write_line(f"\n  {line}", bold=True)


# --- in the process that forks -----------------------------------------------------------------------------


def serve() -> None:
    """Answer requests until stdin ends."""
    sys.path.insert(0, str(REPO))
    for name in (*SCRIPTS, *ALSO):
        importlib.import_module(name)
    assert threading.active_count() == 1, "a thread would not survive the fork"
    gc.freeze()  # what no collection touches, no child has to copy
    print("ready", flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        child = os.fork()
        if child == 0:
            become(request)
            run(request["script"])
        print(json.dumps(watch(child, request["kill_after"])), flush=True)


def run(script: str) -> NoReturn:
    """Run a script as its last line does, and end as Python does but for taking all modules apart: that takes long."""
    code = 1
    try:
        sys.modules["cli"].run_main(sys.modules[script].main)
    except SystemExit as ended:
        code = ended.code
    except BaseException:  # noqa: BLE001 - shown as Python shows it
        traceback.print_exc()
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def become(request: dict) -> None:
    """Make this child what a shell would have started: its own streams, folder, arguments and rights."""
    os.setsid()
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    for stream, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(f"{request['said']}/{name}", os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o644), stream)
    os.chdir(request["cwd"])
    sys.argv = [f"{request['script']}.py", *request["args"]]
    obey_permissions()
    if request["largest_file"] is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (request["largest_file"], request["largest_file"]))


def obey_permissions() -> None:
    """Let root obey permissions as its users do: it keeps its files and loses all its capabilities."""
    if hasattr(os, "geteuid") and os.geteuid() == 0 and sys.platform == "linux":
        header, none = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
        assert ctypes.CDLL(None, use_errno=True).capset(header, none) == 0


def watch(child: int, kill_after: float | None) -> dict:
    """Wait for a child, killing it when its time has come."""
    started, late = time.monotonic(), False
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        seconds = time.monotonic() - started
        if ended:
            return {"code": os.waitstatus_to_exitcode(status), "seconds": seconds, "late": late}
        if kill_after is not None and seconds >= kill_after:
            os.kill(child, signal.SIGKILL)
        elif seconds > TIMEOUT_S:
            late = True
            os.killpg(child, signal.SIGKILL)
        time.sleep(0.002)


if __name__ == "__main__":
    serve()
