"""Plot the learning curves of several runs, and print the metrics of their last epoch as a Markdown table.

for loss in triplet softpn ntxent; do
    python train.py --tile_size 32 --epochs 3 --loss_type $loss --run_name $loss
done
python docs/make_curves.py runs/triplet runs/softpn runs/ntxent
"""

import json
import sys
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPO))

from matplotlib.figure import Figure  # noqa: E402

from cli import Parser, UserError, run_main  # noqa: E402
from files import atomic_path  # noqa: E402

PANELS = {
    "val_triplet_accuracy": "Triplet accuracy, held-out blocks",
    "val_rankme": "RankMe of the held-out vectors",
    "usage": "Triplets in use",
    "val_separation": "d(a, n) − d(a, p), held-out blocks",
}
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")


def main() -> None:
    """Read the metrics.jsonl of each run, write the picture, print the table."""
    parser = Parser(__doc__)
    parser.add_argument("runs", nargs="+", type=Path, help="folders of runs, as train.py writes them")
    parser.add_argument("--output", type=Path, default=REPO / "docs/pictures/curves.png", help="the picture to write")
    args = parser.parse_args()
    runs = {folder.name: epochs_of(folder) for folder in args.runs}
    with atomic_path(args.output) as temporary:
        plot(runs).savefig(temporary, dpi=110)
    print(table(runs))


def epochs_of(folder: Path) -> list[dict]:
    """The metrics of each epoch of a run."""
    path = folder / "metrics.jsonl"
    if not path.is_file():
        raise UserError(f"no {path}; `python train.py --run_name {folder.name}` writes one")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    epochs = [line for line in lines if line.get("kind") == "epoch"]
    if not epochs:
        raise UserError(f"{path} holds no complete epoch; train longer")
    return [line | {"val_separation": line["val_negative"] - line["val_positive"]} for line in epochs]


def plot(runs: dict[str, list[dict]]) -> Figure:
    """A figure with one panel for each metric and one line for each run."""
    figure = Figure(figsize=(11, 6.4), layout="constrained")
    for axes, (name, title) in zip(figure.subplots(2, 2).flat, PANELS.items(), strict=True):
        for (run, epochs), colour in zip(runs.items(), COLOURS, strict=False):
            steps, values = [line["step"] for line in epochs], [line[name] for line in epochs]
            axes.plot(steps, values, marker="o", markersize=3.5, color=colour, label=run)
        axes.set_title(title, loc="left", size=11)
        axes.set_xlabel("steps")
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].legend(frameon=False)
    return figure


def table(runs: dict[str, list[dict]]) -> str:
    """A Markdown table of the last epoch of each run."""
    rows = ["| run | steps | " + " | ".join(PANELS.values()) + " |", "|---" * (len(PANELS) + 2) + "|"]
    for run, epochs in runs.items():
        last = epochs[-1]
        rows.append(f"| {run} | {last['step']:,} | " + " | ".join(f"{last[name]:.2f}" for name in PANELS) + " |")
    return "\n".join(rows)


if __name__ == "__main__":
    run_main(main)
