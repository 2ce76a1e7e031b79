"""Explore the embeddings: one HTML file to share, or the live app.

python run_interactive_viz.py html --max_tiles 500
python run_interactive_viz.py html --model_path checkpoints/best_model.pth --output_dir my_visualizations
python run_interactive_viz.py streamlit --model_path checkpoints/best_model.pth --tiles_root 12_layer_tiles/tiles
"""

import argparse
import dataclasses
import importlib.util
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

from cli import (
    DeviceFlags,
    ModelFlags,
    Parser,
    TilesFlags,
    UserError,
    VectorFlags,
    add_flags,
    as_arguments,
    flag,
    positive_int,
    read_flags,
    run_main,
)

APP = Path(__file__).resolve().parent / "streamlit_app.py"
FIRST_PORT, PORTS_TRIED = 8501, 100
# Starts Streamlit after the app's slow imports, so that the app answers as soon as Streamlit prints its address.
STREAMLIT = """
import runpy, sys
sys.path.append(sys.argv.pop(1))
import pandas, plotly.graph_objects, streamlit_app, user_tables
streamlit_app.prepare(sys.argv[sys.argv.index("--") + 1:])
runpy.run_module("streamlit", run_name="__main__", alter_sys=True)
"""
GRACE_S = 5  # until the app is killed, after a signal asked it to end


@dataclasses.dataclass(frozen=True)
class ServerFlags:
    """Server."""

    port: int | None = flag(
        None, f"port on this machine (default: {FIRST_PORT}, or the next free one)", type=positive_int
    )
    max_tiles: int | None = flag(None, "show at most this many tiles, spread evenly (default: all)", type=positive_int)


def main() -> int | None:
    """Read the mode and its flags, and start it."""
    parser = Parser(__doc__)
    modes = parser.add_subparsers(dest="mode", required=True, metavar="html|streamlit")
    if sys.argv[1:2] != ["streamlit"]:
        import interactive_visualizer  # takes seconds, which the app does not need to wait for

        doc = interactive_visualizer.__doc__
        page = modes.add_parser("html", doc=doc, help="write one HTML file that needs no server")
        page.set_defaults(run=interactive_visualizer.run)
        interactive_visualizer.add_page_flags(page)
    app = modes.add_parser("streamlit", doc="Start the live app on this machine.", help="start the live app")
    for config in (TilesFlags, ModelFlags, DeviceFlags, VectorFlags, ServerFlags):
        add_flags(app, config)
    app.set_defaults(run=serve)
    args = parser.parse_args()
    return args.run(args)


def serve(args: argparse.Namespace) -> int:
    """Run the app until it ends. SIGINT and SIGTERM are passed on to it."""
    if importlib.util.find_spec("streamlit") is None:
        raise UserError("Streamlit is not installed; `pip install -r requirements.txt` (or `make init`) installs it")
    port = choose_port(args.port)
    options = {
        "server.address": "localhost",
        "server.port": port,
        "server.fileWatcherType": "none",  # it would watch the tiles too, and overflow the system's queue of changes
        "browser.gatherUsageStats": "false",
    }
    command = [sys.executable, "-c", STREAMLIT, str(APP.parent), "run", str(APP)]
    command += [part for name, value in options.items() for part in (f"--{name}", str(value))]
    command.append("--")
    for config in (TilesFlags, ModelFlags, DeviceFlags, VectorFlags):
        command += as_arguments(read_flags(config, args))
    if args.max_tiles is not None:
        command += ["--max_tiles", str(args.max_tiles)]
    stopped: list[int] = []
    with subprocess.Popen(command) as app:

        def end(signum: int, _frame: object) -> None:
            stopped.append(signum)
            app.terminate()
            kill = threading.Timer(GRACE_S, app.kill)  # Streamlit waits for running work; cache files stay intact
            kill.daemon = True
            kill.start()

        for signum in (signal.SIGINT, signal.SIGTERM):
            signal.signal(signum, end)
        code = app.wait()
    if stopped:
        return 128 + stopped[0]
    return code if code >= 0 else 128 - code


def choose_port(wanted: int | None) -> int:
    """The port asked for, or the first free one. Prints a line if the usual port is taken."""
    first = wanted or FIRST_PORT
    if is_free(first):
        return first
    free = next((port for port in range(first + 1, min(first + PORTS_TRIED, 65536)) if is_free(port)), None)
    if free is None:
        raise UserError(f"port {first} is taken, and so are the ports after it; pass a free one with --port")
    if wanted:
        raise UserError(f"port {wanted} is taken; the next free one is {free}: pass --port {free}")
    print(f"port {first} is taken; the app opens at http://localhost:{free} (--port {free})")
    return free


def is_free(port: int) -> bool:
    """Whether a server can listen on `port` of this machine."""
    if port > 65535:
        raise UserError(f"--port {port} is not a port; expected 1 to 65535")
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


if __name__ == "__main__":
    run_main(main)
