"""The whole chain on one city: tiles, data check, training, vectors, pictures, and where to find them.

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
    ModelFlags,
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
    max_tiles: int = flag(1500, "tiles in the pictures and on the page, spread evenly", type=positive_int)
    preset: str = flag("recommended", "settings of train.py: recommended, or spec for the published ones")
    model_path: Path = flag(
        ModelFlags.model_path, "checkpoint that the pictures show; training writes best_model.pth beside it"
    )
    output_dir: Path = flag(Path("visualizations"), "folder for the pictures and the page")


def main() -> None:
    """Run the steps that the flags select, each as the command that a user would type."""
    args = parse_args()
    tiles, example = read_flags(TilesFlags, args), read_flags(ExampleFlags, args)
    place, machine = as_arguments(tiles), as_arguments(read_flags(DeviceFlags, args))
    makes_model = not (example.visualize_only or example.test_only)
    makes_pictures = not (example.train_only or example.test_only)
    checkpoint = (
        example.model_path.with_name("best_model.pth") if makes_model else example.model_path
    )  # train.py's name
    started = time.monotonic()

    # the tiles: the user's own, or the sample city
    if next(tiles.tiles_root.glob("*/[0-9]*/[0-9]*/[0-9]*.*"), None):
        print(f"Using the tiles in {tiles.tiles_root}.")
    else:
        print(f"There are no tiles in {tiles.tiles_root}. This run uses the sample city, the centre of Astana.")
        print("For Kyiv: python render_tiles.py --city kyiv (a download of about 100 MB), then this command again.")
        where = ["--tiles_root", tiles.tiles_root, "--zoom", tiles.zoom]
        step("Render the sample city", "render_tiles.py", "--city", "sample", *where, "--preview")

    if not example.visualize_only:
        step("Load a batch of tiles", "data_loader.py", *place, "--tile_size", 64, "--seed", args.seed)

    if makes_model:
        training = ["--preset", example.preset, "--epochs", example.epochs, "--output_dir", checkpoint.parent]
        if example.preset == "recommended":  # the preset of the bundled encoder
            training += ["--init", "pretrained"]
        step("Train the encoder", "train.py", *training, *place, *machine)

    if makes_pictures:
        shown = ["--model_path", checkpoint, "--max_tiles", example.max_tiles]
        step("Compute vectors and projections", "precompute_embeddings.py", *shown, *place, *machine)
        shown += ["--output_dir", example.output_dir]
        step("Draw the pictures", "visualize.py", *shown, *place, *machine)
        step("Build the page", "run_interactive_viz.py", "html", *shown, *place, *machine)

    # what was made, and the command that shows it live
    print(f"\n== Done in {(time.monotonic() - started) / 60:.1f} minutes")
    if makes_model:
        print(f"checkpoint   {checkpoint}")
        print("curves       tensorboard --logdir runs")
    if makes_pictures:
        for path in sorted(example.output_dir.glob("*.html")) + sorted(example.output_dir.glob("*.png")):
            print(f"{'page' if path.suffix == '.html' else 'picture':<12} {path}")
    if not example.test_only:
        app = ["streamlit", "run", "streamlit_app.py", "--", "--model_path", str(checkpoint), *place]
        print(f"live app     {shlex.join(app)}")


def parse_args() -> argparse.Namespace:
    """Read the flags. At most one of the three --…_only flags may be given."""
    parser = Parser(__doc__)
    add_flags(parser, ExampleFlags)
    add_flags(parser, TilesFlags)
    add_flags(parser, DeviceFlags)
    args = parser.parse_args()
    if args.test_only + args.train_only + args.visualize_only > 1:
        parser.error("--test_only, --train_only and --visualize_only exclude each other; pass one of them")
    if args.visualize_only and not (args.model_path.exists() or args.model_path == ModelFlags.model_path):
        raise UserError(
            f"no checkpoint at {args.model_path}; pass the path of one with --model_path, or leave it out to use the "
            "bundled encoder"
        )
    return args


def step(title: str, script: str, *arguments: object) -> None:
    """Print and run one script of this project. If it fails, the example ends with the same exit code.

    SIGTERM is passed on to the script, which decides when its work is saved. The terminal itself sends Ctrl-C to it.
    """
    words = [str(word) for word in arguments]
    print(f"\n== {title}\n$ python {shlex.join([script, *words])}", flush=True)
    process = subprocess.Popen([sys.executable, str(HERE / script), *words])

    def forward(signum: int, _frame: object) -> None:
        if signum == signal.SIGTERM:
            process.terminate()

    previous = {signum: signal.signal(signum, forward) for signum in (signal.SIGINT, signal.SIGTERM)}
    try:
        code = process.wait()
    finally:
        for signum, handler in previous.items():
            signal.signal(signum, handler)
    code = code if code >= 0 else 128 - code
    if code in (128 + signal.SIGINT, 128 + signal.SIGTERM):
        raise StopRequested(code - 128)
    if code:
        error = UserError if code == UserError.exit_code else WorkError
        raise error(f"{script} ended with exit code {code}; its message is above")


if __name__ == "__main__":
    run_main(main)
