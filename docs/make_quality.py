"""Print reports of evaluate.py on the same tiles as the Markdown tables of docs/quality.md, one row per set of vectors.

python evaluate.py --model_path pretrained --labels labels.parquet --baselines --output_dir reports/bundled
python evaluate.py --model_path checkpoints/best_model.pth --labels labels.parquet --output_dir reports/own
python docs/make_quality.py "bundled encoder=reports/bundled" "my encoder=reports/own"
"""

import json
import sys
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPO))

from cli import Parser, UserError, run_main  # noqa: E402
from quality_report import GROUPS, MEAN  # noqa: E402

# Title, name of the figure, label, group of the label.
HIDDEN, DRAWN = GROUPS[False], GROUPS[True]
TABLES = {
    HIDDEN: (
        ("numbers", "size", "", ""),
        ("levels, ridge", "ridge R2", "levels", HIDDEN),
        ("levels, 10-nn", "cosine knn R2", "levels", HIDDEN),
        ("levels, far", "far agreement", "levels", HIDDEN),
        ("addresses, ridge", "ridge R2", "addresses", HIDDEN),
        ("addresses, 10-nn", "cosine knn R2", "addresses", HIDDEN),
        ("addresses, far", "far agreement", "addresses", HIDDEN),
    ),
    DRAWN: (
        ("places of interest, ridge", "ridge R2", MEAN, DRAWN),
        ("places of interest, 10-nn", "cosine knn R2", MEAN, DRAWN),
        ("land use, logistic", "logistic F1", "landuse", DRAWN),
        ("roads, logistic", "logistic F1", "highway", DRAWN),
        ("mean of all, far", "far agreement", MEAN, DRAWN),
    ),
    "the space": (("RankMe", "RankMe", "", ""), ("triplet accuracy", "triplet accuracy", "", "")),
}
MOST_MORE = 1.001  # tiles with content, in one report than in another
Scores = dict[tuple[str, str, str], float]  # by name of the figure, label and group


def main() -> None:
    """Read the reports, check that they are of the same tiles, print one table for each group of labels."""
    parser = Parser(__doc__)
    parser.add_argument("reports", nargs="+", metavar="NAME=FOLDER", help="a report, and what its vectors are called")
    args = parser.parse_args()
    rows: dict[str, Scores] = {}
    baselines: dict[str, Scores] = {}
    facts: dict[str, dict] = {}
    for text in args.reports:
        name, _, folder = text.partition("=")
        facts[name], (first, *others) = read_report(Path(folder))
        rows[name] = first[1]
        baselines |= dict(others)
    evaluated = sorted(fact["evaluated"] for fact in facts.values())
    same = len({(fact["tiles"], fact["seed"]) for fact in facts.values()}) == 1
    if not same or evaluated[-1] > evaluated[0] * MOST_MORE:  # a tile with a single thin line is blank at a small size
        raise UserError(f"the reports are of different tiles or seeds: {facts}; evaluate all on the same")
    print(" to ".join(f"{count:,}" for count in sorted({evaluated[0], evaluated[-1]})), "tiles")
    for title, columns in TABLES.items():
        print(f"\n{title}\n\n{table(rows | baselines, columns)}")


def read_report(folder: Path) -> tuple[dict, list[tuple[str, Scores]]]:
    """The facts of a report, and the scores of each set of vectors, the evaluated one first."""
    path = folder / "quality.json"
    if not path.is_file():
        raise UserError(f"no {path}; `python evaluate.py --output_dir {folder}` writes it; name it as NAME=FOLDER")
    report = json.loads(path.read_text(encoding="utf-8"))
    found: dict[str, Scores] = {}
    for figure in report["figures"]:
        if "than" not in figure and figure["split"] in ("", "blocked") and figure["value"] is not None:
            group = figure["group"] if figure["label"] else ""
            found.setdefault(figure["vectors"], {})[figure["name"], figure["label"], group] = figure["value"]
    return report["facts"], list(found.items())


def table(rows: dict[str, Scores], columns: tuple[tuple[str, str, str, str], ...]) -> str:
    """A Markdown table, a row for each set of vectors."""
    lines = ["| vectors | " + " | ".join(column[0] for column in columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for name, scores in rows.items():
        cells = [_cell(scores.get(column[1:]), column[0] == "numbers") for column in columns]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(value: float | None, whole: bool) -> str:
    return "–" if value is None else f"{value:.0f}" if whole else f"{round(value, 2) + 0.0:.2f}"


if __name__ == "__main__":
    run_main(main)
