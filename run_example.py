"""The whole chain on one city: tiles, data check, training, pictures, and where to find them.

python run_example.py
python run_example.py --epochs 20
python run_example.py --visualize-only --max-tiles 3000
"""

import argparse
import dataclasses
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

from cli import (
    DeviceFlags,
    Parser,
    StopRequested,
    TilesFlags,
    UserError,
    WorkError,
    add_flags,
    as_arguments,
    flag,
    positive_int,
    read_flags,
    run_main,
)

HERE = Path(__file__).resolve().parent


@dataclasses.dataclass(frozen=True)
class ExampleFlags:
    """Example."""

    test_only: bool = flag(False, "only check the tiles and load a batch of them")
    train_only: bool = flag(False, "only train; draw no pictures")
    visualize_only: bool = flag(False, "only draw pictures, from --model_path")
    epochs: int = flag(
        2, "training epochs: enough to see the city on a laptop; more make better vectors", type=positive_int
    )
    max_tiles: int = flag(3000, "tiles in the pictures and on the page, spread evenly", type=positive_int)
    preset: str = flag("recommended", "settings of train.py: recommended, or spec for the published ones")
    model_path: Path = flag(Path("checkpoints/best_model.pth"), "checkpoint that the pictures show")
    output_dir: Path = flag(Path("visualizations"), "folder for the pictures and the page")


def main() -> None:
    """Run the steps that the flags leave in, each as the command a user would type."""
    args = parse_args()
    tiles, example = read_flags(TilesFlags, args), read_flags(ExampleFlags, args)
    device = read_flags(DeviceFlags, args)
    started = time.monotonic()
    place = as_arguments(tiles)
    machine = ["--device", device.device, "--seed", device.seed]
    provide_tiles(tiles)
    if not example.visualize_only:
        step("Load a batch of tiles", "data_loader.py", *place, "--tile_size", 64, "--seed", device.seed)
    if not (example.visualize_only or example.test_only):
        train(example, place, machine)
    if not (example.train_only or example.test_only):
        draw(example, place, machine)
    report(example, time.monotonic() - started)


def parse_args() -> argparse.Namespace:
    """Read the flags; at most one of the three --…_only flags may be given."""
    parser = Parser(__doc__)
    add_flags(parser, ExampleFlags)
    add_flags(parser, TilesFlags)
    add_flags(parser, DeviceFlags)
    args = parser.parse_args()
    if args.test_only + args.train_only + args.visualize_only > 1:
        parser.error("--test_only, --train_only and --visualize_only exclude each other; give one of them")
    if args.visualize_only and not args.model_path.is_file():
        raise UserError(
            f"no checkpoint at {args.model_path}; `python run_example.py --train-only` writes one, "
            "or name another with --model_path"
        )
    return args


def provide_tiles(tiles: TilesFlags) -> None:
    """Render the sample city where no tiles are yet; tiles that are there are used as they are."""
    if next(tiles.tiles_root.glob("*/[0-9]*/[0-9]*/[0-9]*.*"), None):
        print(f"Tiles: those in {tiles.tiles_root}")
        return
    print(f"No tiles in {tiles.tiles_root}: this run takes the sample city, the middle of Astana.")
    print("For Kyiv: python render_tiles.py --city kyiv (a download of about 100 MB), then this command again.")
    where = ["--tiles_root", tiles.tiles_root, "--zoom", tiles.zoom]
    step("Render the sample city", "render_tiles.py", "--city", "sample", *where, "--preview")


def train(example: ExampleFlags, place: list, machine: list) -> None:
    """Train with the preset; the best checkpoint lands at --model_path's folder."""
    epochs = ["--epochs", example.epochs]
    folder = ["--output_dir", example.model_path.parent]
    step("Train the encoder", "train.py", "--preset", example.preset, *epochs, *folder, *place, *machine)


def draw(example: ExampleFlags, place: list, machine: list) -> None:
    """Static pictures and the one-file page, both from the checkpoint."""
    shared = ["--model_path", example.model_path, "--max_tiles", example.max_tiles, "--output_dir", example.output_dir]
    step("Draw the pictures", "visualize.py", *shared, *place, *machine)
    step("Build the page", "run_interactive_viz.py", "html", *shared, *place, *machine)


def step(title: str, script: str, *arguments: object) -> None:
    """Run one script of this project and show its command; its failure ends the example with its exit code."""
    words = [str(word) for word in arguments]
    print(f"\n== {title}\n$ python {shlex.join([script, *words])}", flush=True)
    process = subprocess.Popen([sys.executable, str(HERE / script), *words])
    code = wait(process)
    if code in (128 + signal.SIGINT, 128 + signal.SIGTERM):
        raise StopRequested(code - 128)
    if code:
        error = UserError if code == UserError.exit_code else WorkError
        raise error(f"{script} ended with exit code {code}; what it said stands above")


def wait(process: subprocess.Popen) -> int:
    """Wait for a step; SIGTERM and Ctrl-C reach it too, and it decides when its work is saved."""

    def forward(signum: int, _frame: object) -> None:
        if signum == signal.SIGTERM:  # the terminal sends Ctrl-C to the step itself
            process.terminate()

    previous = {signum: signal.signal(signum, forward) for signum in (signal.SIGINT, signal.SIGTERM)}
    try:
        code = process.wait()
    finally:
        for signum, handler in previous.items():
            signal.signal(signum, handler)
    return code if code >= 0 else 128 - code


def report(example: ExampleFlags, seconds: float) -> None:
    """Say what was made and how to look at it."""
    print(f"\n== Done in {seconds / 60:.1f} minutes")
    if example.test_only:
        return
    if not example.visualize_only:
        print(f"checkpoint   {example.model_path}")
        print("curves       tensorboard --logdir runs")
    if not example.train_only:
        for path in sorted(example.output_dir.glob("*.html")) + sorted(example.output_dir.glob("*.png")):
            print(f"{'page' if path.suffix == '.html' else 'picture':<12} {path}")
    print(f"live app     streamlit run streamlit_app.py -- --model_path {example.model_path}")


if __name__ == "__main__":
    run_main(main)
