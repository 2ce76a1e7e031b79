"""The quality report: its figures, as tables, plots and JSON.

Not a command; `python evaluate.py` prints it.

Labels come in two groups, those that the tiles do not show and those that they do. No mean is taken over both: the
first says what the vectors know, the second only that nothing was lost.
"""

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from files import atomic_path, atomic_write
from label_tables import Target
from probes import FOLDS, corrected_error, corrected_p
from tile_grid import BLOCK
from vector_space import FAR_KM

if TYPE_CHECKING:
    from matplotlib.axes import Axes

GROUPS = {False: "not drawn on the tiles", True: "drawn on the tiles"}  # by `Target.drawn`
UNSEEN = "never trained on as a tile"  # a split: training showed no pixel of these tiles but in surroundings
MEAN = "mean"  # stands for the label of a mean over one group
PAIRED_PROBES = ("ridge R2", "cosine knn R2")  # compared fold by fold


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


@dataclasses.dataclass(frozen=True)
class Difference:
    """A probe's score of `first` minus that of `second` on the same folds: of one label, or the mean of a group."""

    probe: str
    first: str
    second: str
    label: str
    group: str
    folds: np.ndarray

    @property
    def value(self) -> float:
        """Mean over the folds."""
        return float(np.nanmean(self.folds)) if not np.isnan(self.folds).all() else float("nan")

    @property
    def error(self) -> float:
        """Standard error of the mean, corrected for the training tiles that folds share."""
        return corrected_error(self.folds)

    @property
    def p(self) -> float:
        """Two-sided p value of the paired t-test with that error."""
        return corrected_p(self.folds)


@dataclasses.dataclass(frozen=True)
class Report:
    """Everything that was measured, and on what. The first candidate is compared with those named in `against`."""

    candidates: list[str]
    targets: list[Target]
    figures: list[Figure]
    facts: dict[str, float | str]
    against: list[str] = dataclasses.field(default_factory=list)

    def get(self, name: str, vectors: str, label: str = "", split: str = "blocked") -> Figure | None:
        """One figure, None if it was not measured."""
        wanted = (name, vectors, label, split)
        return next((f for f in self.figures if (f.name, f.vectors, f.label, f.split or split) == wanted), None)

    def mean(self, name: str, vectors: str, drawn: bool, split: str = "blocked") -> Figure:
        """The mean of a probe's scores over the labels of one group, fold by fold; NaN if it has none."""
        found = [self.get(name, vectors, target.name, split) for target in self.targets if target.drawn == drawn]
        folds = [figure.folds for figure in found if figure is not None]
        return Figure(name, vectors, np.mean(folds, axis=0) if folds else np.array([np.nan]), MEAN, split)

    def differences(self, probe: str, drawn: bool) -> list[Difference]:
        """Fold by fold: the first candidate against each of `against`, by label and in the mean of a group."""
        first, group = self.candidates[0], GROUPS[drawn]
        found = []
        for other in self.against:
            folds = {}
            for target in self.targets:
                pair = [self.get(probe, vectors, target.name) for vectors in (first, other)]
                if target.drawn == drawn and pair[0] is not None and pair[1] is not None:
                    folds[target.name] = pair[0].folds - pair[1].folds
            if folds:
                folds[MEAN] = np.mean(list(folds.values()), axis=0)
            found += [Difference(probe, first, other, label, group, values) for label, values in folds.items()]
        return found

    def records(self) -> list[dict[str, Any]]:
        """One plain object per figure, as `--json` prints them."""
        group_of = {target.name: GROUPS[target.drawn] for target in self.targets}
        figures = [(figure, group_of.get(figure.label, "")) for figure in self.figures]
        probes = dict.fromkeys((f.name, f.split) for f in self.figures if f.label)
        for drawn, group in GROUPS.items():
            means = [self.mean(name, v, drawn, split) for name, split in probes for v in self.candidates]
            figures += [(mean, group) for mean in means if not np.isnan(mean.value)]
        rows: list[dict[str, Any]] = [
            {"name": f.name, "vectors": f.vectors, "label": f.label, "group": group, "split": f.split}
            | {"value": _plain(f.value), "deviation": _plain(f.deviation), "folds": [_plain(v) for v in f.folds]}
            | {"unit": ""}
            for f, group in figures
        ]
        rows += [
            {"name": f"difference of {d.probe}", "vectors": d.first, "than": d.second, "label": d.label}
            | {"group": d.group, "split": "blocked", "value": _plain(d.value), "error": _plain(d.error)}
            | {"p": _plain(d.p), "folds": [_plain(v) for v in d.folds]}
            for probe in PAIRED_PROBES
            for drawn in GROUPS
            for d in self.differences(probe, drawn)
        ]
        return [row | {"tiles": self.facts["evaluated"]} for row in rows]


def _plain(value: float) -> float | None:
    return None if np.isnan(value) else round(float(value), 5)


# --- tables ------------------------------------------------------------------------------------------------


def print_report(report: Report) -> None:
    """Print facts, the tables of each group of labels, the space, and the paired differences."""
    facts = report.facts
    print(f"{facts['evaluated']:,} tiles with content of {facts['tiles']:,}; {FOLDS} folds of {BLOCK} x {BLOCK} blocks")
    for drawn, group in GROUPS.items():
        own = [target for target in report.targets if target.drawn == drawn]
        if not own:
            continue
        print(f"\n=== Labels {group}: {', '.join(f'{t.name} ({t.known.sum():,} tiles)' for t in own)}")
        numbers, classes = [t for t in own if not t.classes], [t for t in own if t.classes]
        if numbers:
            _print_scores(report, "Ridge R2, blocked folds (counts as log(1 + n))", "ridge R2", numbers)
            _print_scores(report, "10 nearest neighbours by cosine R2, blocked folds", "cosine knn R2", numbers)
        if classes:
            _print_scores(report, "Logistic macro F1, blocked folds", "logistic F1", classes)
            _print_scores(report, "10 nearest neighbours by cosine macro F1, blocked folds", "cosine knn F1", classes)
        _print_scores(report, f"Agreement of the 10 nearest neighbours beyond {FAR_KM:g} km", "far agreement", own)
        if numbers:
            _print_scores(report, "10 nearest neighbours, standardised, R2, blocked folds", "knn R2", numbers)
            _print_scores(report, "Ridge R2, random folds: what leaks", "ridge R2", numbers, "random")
    print("\n=== The space")
    print_table("Size, rank and nearness", *_space_table(report))
    for probe in PAIRED_PROBES:
        for drawn, group in GROUPS.items():
            if found := report.differences(probe, drawn):
                title = f"Difference of {probe} ± corrected standard error (p), fold by fold: labels {group}"
                print_table(title, *_difference_table(found))


def print_table(title: str, header: list[str], rows: list[list[str]]) -> None:
    """Print a table in aligned columns, the first to the left."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    print(f"\n{title}")
    for row in [header, *rows]:
        first, rest = row[0].ljust(widths[0]), zip(row[1:], widths[1:], strict=True)
        print("  ".join([first, *(cell.rjust(width) for cell, width in rest)]).rstrip())


def _score(figure: Figure | None) -> str:
    if figure is None or np.isnan(figure.value):
        return "-"
    return f"{figure.value:.2f}" + (f" ±{figure.deviation:.2f}" if len(figure.folds) > 1 else "")


def _print_scores(report: Report, title: str, probe: str, targets: list[Target], split: str = "blocked") -> None:
    """Print one row per candidate: its mean over the group, and its score on each label."""
    rows = []
    for name in report.candidates:
        cells = [_score(report.get(probe, name, target.name, split)) for target in targets]
        rows.append([name, _score(report.mean(probe, name, targets[0].drawn, split)), *cells])
    print_table(title, ["vectors", MEAN, *(target.name for target in targets)], rows)


def _space_table(report: Report) -> tuple[list[str], list[list[str]]]:
    rows = []
    for name in report.candidates:
        size = report.get("size", name)
        near = [report.get("triplet accuracy", name, split=split) for split in ("blocked", UNSEEN)]
        cells = [f"{size.value:.0f}" if size else "-", _score(report.get("RankMe", name)), *map(_score, near)]
        rows.append([name, *cells])
    return ["vectors", "size", "RankMe", "triplet accuracy", UNSEEN], rows


def _difference_table(found: list[Difference]) -> tuple[list[str], list[list[str]]]:
    rows = []
    for other in dict.fromkeys(d.second for d in found):
        own = {d.label: d for d in found if d.second == other}
        mean = own.pop(MEAN)
        won = sum(d.value > 0 for d in own.values())
        cells = [f"{d.value:+.3f} ±{d.error:.3f} ({d.p:.2f})" for d in (mean, *own.values())]
        rows.append([f"{mean.first} - {other}", cells[0], f"{won} of {len(own)}", *cells[1:]])
    return ["difference", MEAN, "labels won", *own], rows


# --- plots -------------------------------------------------------------------------------------------------


def plot_report(report: Report, path: Path) -> None:
    """Draw one page of plots: scores by label, blocked against random folds, and the space."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    targets = sorted(report.targets, key=lambda target: target.drawn)  # what is not drawn comes first
    numbers = [target for target in targets if not target.classes]
    with pyplot.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        figure, axes = pyplot.subplots(2, 2, figsize=(14, 10), layout="constrained", width_ratios=[2, 1])
        figure.suptitle(f"{report.candidates[0]} on {report.facts['evaluated']:,} tiles, blocked cross-validation")
        _plot_bars(axes[0, 0], report, "ridge R2", numbers, "Ridge R2 by label, mean and deviation over folds")
        axes[0, 0].legend(fontsize=7, ncols=2, frameon=False)
        _plot_leak(axes[0, 1], report, numbers)
        _plot_bars(axes[1, 0], report, "far agreement", targets, f"Neighbours beyond {FAR_KM:g} km: agreement by label")
        _plot_space(axes[1, 1], report)
        with atomic_path(path) as temporary:
            figure.savefig(temporary, dpi=110)
        pyplot.close(figure)


def _plot_bars(axes: "Axes", report: Report, name: str, targets: list[Target], title: str) -> None:
    width = 0.85 / max(1, len(report.candidates))
    for i, vectors in enumerate(report.candidates):
        found = [report.get(name, vectors, target.name) for target in targets]
        height = [max(-0.2, f.value) if f else np.nan for f in found]
        error = [f.deviation if f and len(f.folds) > 1 else 0 for f in found]
        place = np.arange(len(targets)) + i * width
        axes.bar(place, height, width, yerr=error, label=vectors, color=_colour(i), error_kw={"lw": 0.6})
    names = [f"{target.name}\n({'drawn' if target.drawn else 'not drawn'})" for target in targets]
    axes.set_xticks(np.arange(len(targets)) + 0.4, names, rotation=20, ha="right")
    axes.set_title(title, loc="left")
    axes.axhline(0, color="black", lw=0.6)


def _plot_leak(axes: "Axes", report: Report, targets: list[Target]) -> None:
    for i, vectors in enumerate(report.candidates):
        found = [[report.get("ridge R2", vectors, t.name, split) for t in targets] for split in ("blocked", "random")]
        blocked, random = [[max(-0.2, figure.value) if figure else np.nan for figure in row] for row in found]
        axes.scatter(blocked, random, s=18, color=_colour(i))
    axes.plot([-0.2, 1], [-0.2, 1], color="gray", lw=0.8)
    axes.set(xlabel="blocked folds", ylabel="random folds")
    axes.set_title("What a random split leaks: ridge R2 above the line", loc="left")


def _plot_space(axes: "Axes", report: Report) -> None:
    drawn = all(target.drawn for target in report.targets)
    for i, vectors in enumerate(report.candidates):
        accuracy, far = report.get("triplet accuracy", vectors), report.mean("far agreement", vectors, drawn)
        if accuracy is not None:
            axes.scatter(accuracy.value, far.value, color=_colour(i), s=28)
            axes.annotate(vectors, (accuracy.value, far.value), fontsize=7, xytext=(4, 3), textcoords="offset points")
    axes.set(xlabel="triplet accuracy", ylabel=f"agreement beyond {FAR_KM:g} km, labels {GROUPS[drawn]}")
    axes.set_title("Nearness on the ground against meaning", loc="left")


def _colour(i: int) -> tuple[float, ...]:
    from matplotlib import colormaps

    return colormaps["tab20"](i % 20)


def write_report(report: Report, folder: Path) -> None:
    """Write quality.json and quality.png."""
    with atomic_write(folder / "quality.json", "w") as file:
        json.dump({"facts": report.facts, "figures": report.records()}, file, indent=1)
    plot_report(report, folder / "quality.png")
