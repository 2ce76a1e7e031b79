"""The quality report: tables, plots and JSON.

Not a command; `python evaluate.py` prints it.
"""

import dataclasses
import json
from pathlib import Path

import numpy as np

from files import atomic_path, atomic_write
from label_tables import Target
from probes import BLOCK, FOLDS

FAR_KM = 2.0


@dataclasses.dataclass(frozen=True)
class Figure:
    """One number of the report: `folds` holds its value on each fold (or once), `value` their mean."""

    name: str
    vectors: str
    folds: np.ndarray
    label: str = ""
    split: str = ""

    @property
    def value(self) -> float:
        """Mean over the folds that could be scored."""
        scored = self.folds[~np.isnan(self.folds)]
        return float(scored.mean()) if len(scored) else float("nan")

    @property
    def deviation(self) -> float:
        """Standard deviation over the folds."""
        scored = self.folds[~np.isnan(self.folds)]
        return float(scored.std(ddof=1)) if len(scored) > 1 else float("nan")


# --- differences -------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Difference:
    """`first` minus `second` on the same folds: of one label, or of the mean over labels (`label` empty)."""

    first: str
    second: str
    label: str
    folds: np.ndarray
    p: float

    @property
    def value(self) -> float:
        """Mean over the folds."""
        return float(np.nanmean(self.folds)) if not np.isnan(self.folds).all() else float("nan")


# --- the report --------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Report:
    """Everything that was measured, and on what."""

    candidates: list[str]
    targets: list[Target]
    figures: list[Figure]
    differences: list[Difference]
    facts: dict[str, float | str]

    def get(self, name: str, vectors: str, label: str = "", split: str = "blocked") -> Figure | None:
        """One figure, None where it was not measured."""
        wanted = (name, vectors, label, split)
        return next((f for f in self.figures if (f.name, f.vectors, f.label, f.split or split) == wanted), None)

    def mean(self, name: str, vectors: str, split: str = "blocked") -> Figure:
        """The mean over labels of a probe's scores, fold by fold."""
        folds = [f.folds for f in self.figures if (f.name, f.vectors, f.split or split) == (name, vectors, split)]
        return Figure(name, vectors, np.mean(folds, axis=0) if folds else np.array([np.nan]), "", split)

    def records(self) -> list[dict]:
        """One plain object per figure, as `--json` prints them."""
        common = {"tiles": self.facts["evaluated"]}
        rows = [
            {"name": f.name, "vectors": f.vectors, "label": f.label, "split": f.split, "value": _plain(f.value)}
            | {"deviation": _plain(f.deviation), "folds": [_plain(v) for v in f.folds], "unit": ""}
            for f in self.figures
        ]
        rows += [
            {"name": "difference of ridge R2", "vectors": d.first, "than": d.second, "label": d.label or "mean"}
            | {"split": "blocked", "value": _plain(d.value), "p": _plain(d.p), "folds": [_plain(v) for v in d.folds]}
            for d in self.differences
        ]
        return [row | common for row in rows]


def _plain(value: float) -> float | None:
    return None if np.isnan(value) else round(float(value), 5)


def _score(figure: Figure | None, deviation: bool = False) -> str:
    if figure is None or np.isnan(figure.value):
        return "-"
    return f"{figure.value:.2f}" + (f" ±{figure.deviation:.2f}" if deviation else "")


def print_report(report: Report) -> None:
    """Facts, then one table for each question."""
    facts = report.facts
    print(f"{facts['evaluated']:,} tiles with content of {facts['tiles']:,}; {FOLDS} folds of {BLOCK} x {BLOCK} blocks")
    print(f"labels: {', '.join(f'{t.name} ({t.known.sum():,} tiles)' for t in report.targets)}")
    numbers = [t.name for t in report.targets if not t.classes]
    classes = [t.name for t in report.targets if t.classes]
    if numbers:
        print_table("Ridge R2, blocked folds (counts as log(1 + n))", *_label_table(report, "ridge R2", numbers))
        print_table("Ten nearest neighbours R2, blocked folds", *_label_table(report, "knn R2", numbers))
        print_table("Ridge R2, random folds: what leaks", *_label_table(report, "ridge R2", numbers, "random"))
    if classes:
        print_table("Logistic macro F1, blocked folds", *_label_table(report, "logistic F1", classes))
    print_table("The space", *_space_table(report))
    if report.differences:
        print_table("Fold by fold: difference of ridge R2 (p, corrected paired t-test)", *_difference_table(report))


def print_table(title: str, header: list[str], rows: list[list[str]]) -> None:
    """A table in aligned columns, the first to the left."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    print(f"\n{title}")
    for row in [header, *rows]:
        first, rest = row[0].ljust(widths[0]), zip(row[1:], widths[1:], strict=True)
        print("  ".join([first, *(cell.rjust(width) for cell, width in rest)]).rstrip())


def _label_table(
    report: Report, probe: str, labels: list[str], split: str = "blocked"
) -> tuple[list[str], list[list[str]]]:
    rows = []
    for name in report.candidates:
        cells = [_score(report.get(probe, name, label, split), True) for label in labels]
        rows.append([name, _score(report.mean(probe, name, split), True), *cells])
    return ["vectors", "mean", *labels], rows


def _space_table(report: Report) -> tuple[list[str], list[list[str]]]:
    rows = []
    for name in report.candidates:
        size = report.get("size", name)
        single = [_score(report.get("RankMe", name)), _score(report.get("triplet accuracy", name), True)]
        unseen = _score(report.get("triplet accuracy", name, split="never trained on"))
        rows.append([name, f"{size.value:.0f}", *single, unseen, _score(report.mean("far agreement", name))])
    far = f"agreement of neighbours beyond {FAR_KM:g} km"
    return ["vectors", "size", "RankMe", "triplet accuracy", "never trained on", far], rows


def _difference_table(report: Report) -> tuple[list[str], list[list[str]]]:
    first = report.differences[0].first
    rows = []
    for other in dict.fromkeys(d.second for d in report.differences):
        own = [d for d in report.differences if d.second == other]
        won = sum(d.value > 0 for d in own if d.label)
        mean = next(d for d in own if not d.label)
        cells = [f"{mean.value:+.3f} ({mean.p:.3f})", f"{won} of {len(own) - 1}"]
        rows.append([f"{first} - {other}", *cells, *(f"{d.value:+.2f} ({d.p:.2f})" for d in own if d.label)])
    return ["difference", "mean (p)", "labels won", *(d.label for d in own if d.label)], rows


def plot_report(report: Report, path: Path) -> None:
    """One page of plots: scores by label, blocked against random folds, and the space."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    labels = [t.name for t in report.targets if not t.classes]
    with pyplot.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        figure, axes = pyplot.subplots(2, 2, figsize=(14, 10), layout="constrained", width_ratios=[2, 1])
        figure.suptitle(f"{report.candidates[0]} on {report.facts['evaluated']:,} tiles, blocked cross-validation")
        _plot_bars(axes[0, 0], report, "ridge R2", labels, "Ridge R2 by label, mean and deviation over 5 blocked folds")
        _plot_leak(axes[0, 1], report, labels)
        agreement_labels = [t.name for t in report.targets]
        _plot_bars(axes[1, 0], report, "far agreement", agreement_labels, f"Neighbours beyond {FAR_KM:g} km: agreement")
        _plot_space(axes[1, 1], report)
        with atomic_path(path) as temporary:
            figure.savefig(temporary, dpi=110)
        pyplot.close(figure)


def _plot_bars(axes: "matplotlib.axes.Axes", report: Report, name: str, labels: list[str], title: str) -> None:  # noqa: F821
    width = 0.85 / max(1, len(report.candidates))
    for i, vectors in enumerate(report.candidates):
        found = [report.get(name, vectors, label) for label in labels]
        height = [max(-0.2, f.value) if f else np.nan for f in found]
        error = [f.deviation if f and len(f.folds) > 1 else 0 for f in found]
        place = np.arange(len(labels)) + i * width
        axes.bar(place, height, width, yerr=error, label=vectors, color=_colour(i), error_kw={"lw": 0.6})
    axes.set_xticks(np.arange(len(labels)) + 0.4, labels, rotation=20, ha="right")
    axes.set_title(title, loc="left")
    axes.axhline(0, color="black", lw=0.6)
    if name == "ridge R2":
        axes.legend(fontsize=7, ncols=2, frameon=False)


def _plot_leak(axes: "matplotlib.axes.Axes", report: Report, labels: list[str]) -> None:  # noqa: F821
    for i, vectors in enumerate(report.candidates):
        pairs = [
            [report.get("ridge R2", vectors, label, split).value for label in labels] for split in ("blocked", "random")
        ]
        axes.scatter(*np.maximum(pairs, -0.2), s=18, color=_colour(i))
    axes.plot([-0.2, 1], [-0.2, 1], color="gray", lw=0.8)
    axes.set(xlabel="blocked folds", ylabel="random folds")
    axes.set_title("What a random split leaks: ridge R2 above the line", loc="left")


def _plot_space(axes: "matplotlib.axes.Axes", report: Report) -> None:  # noqa: F821
    for i, vectors in enumerate(report.candidates):
        accuracy, far = report.get("triplet accuracy", vectors), report.mean("far agreement", vectors)
        axes.scatter(accuracy.value, far.value, color=_colour(i), s=28)
        axes.annotate(vectors, (accuracy.value, far.value), fontsize=7, xytext=(4, 3), textcoords="offset points")
    axes.set(xlabel="triplet accuracy", ylabel=f"agreement beyond {FAR_KM:g} km")
    axes.set_title("Nearness on the ground against sense", loc="left")


def _colour(i: int) -> tuple[float, ...]:
    from matplotlib import colormaps

    return colormaps["tab20"](i % 20)


def write_report(report: Report, folder: Path) -> None:
    """Write quality.json and quality.png."""
    with atomic_write(folder / "quality.json", "w") as file:
        json.dump({"facts": report.facts, "figures": report.records()}, file, indent=1)
    plot_report(report, folder / "quality.png")
