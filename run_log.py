"""What a training run writes about itself: TensorBoard events, metrics.jsonl, config.json."""

import contextlib
import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from checkpoint import library_versions
from data_loader import to_float
from distributed import World
from files import atomic_write
from layers import LAYERS
from tile_images import pictures
from tile_store import TileStore

SPRITE_PX = 32


class Recorder:
    """A run's folder: TensorBoard events, metrics.jsonl, config.json. Does nothing on processes that do not lead.

    `settings` are the run's, by flag name; a run that goes on has taken `step` steps before.
    """

    TAGS = {  # noqa: RUF012
        "loss": "loss/{part}",
        "positive": "distance/positive_{part}",
        "negative": "distance/negative_{part}",
        "usage": "triplet_usage/{part}",
        "lr": "learning_rate",
        "grad_norm": "gradient_norm",
        "rankme": "rankme",
        "triplet_accuracy": "triplet_accuracy",
        "tiles_per_second": "speed/tiles_per_second",
        "data_wait": "speed/data_wait_share",
    }

    def __init__(self, folder: Path, settings: dict[str, Any], world: World, step: int = 0):
        self.folder = folder
        self.writer, self.lines = None, self.folder / "metrics.jsonl"
        if not world.is_main_process:
            return
        from torch.utils.tensorboard import SummaryWriter  # not above: slow to import, and viewers never need it

        self.folder.mkdir(parents=True, exist_ok=True)
        self._forget_after(step)
        about = settings | {
            "versions": library_versions(),
            "git_revision": git_revision(),
            "started_at_step": step,
        }
        with atomic_write(self.folder / "config.json", "w") as file:
            json.dump(about | {"processes": world.size, "on": str(world.device)}, file, indent=1)
        self.writer = SummaryWriter(str(self.folder), purge_step=step + 1 if step else None)
        self._hparams(settings)

    def _forget_after(self, step: int) -> None:
        """Drop lines of steps that a resumed run takes again."""
        if not self.lines.is_file():
            return
        kept = []
        for line in self.lines.read_text(encoding="utf-8", errors="replace").splitlines():
            with contextlib.suppress(ValueError, TypeError, KeyError):  # a line cut short by a kill
                if json.loads(line)["step"] <= step:
                    kept.append(line + "\n")
        with atomic_write(self.lines, "w") as file:
            file.writelines(kept)

    def _hparams(self, settings: dict[str, Any]) -> None:
        from torch.utils.tensorboard.summary import hparams

        plain = {name: value for name, value in settings.items() if isinstance(value, bool | int | float | str)}
        for summary in hparams(plain, {"loss/val": 0, "triplet_accuracy": 0, "rankme": 0}):
            self.writer.file_writer.add_summary(summary)

    def log(
        self, kind: str, step: int, train: dict[str, float], val: dict[str, float] | None = None, **more: Any
    ) -> None:
        """Write one line of metrics and the same numbers as TensorBoard scalars."""
        if self.writer is None:
            return
        line = {"kind": kind, "step": step, **more, **train} | {f"val_{name}": x for name, x in (val or {}).items()}
        with open(self.lines, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        for part, values in ((kind if kind == "step" else "train", train), ("val", val or {})):
            for name, value in values.items():
                tag = self.TAGS[name].format(part=part)
                self.writer.add_scalar(f"{kind}/{tag}" if kind == "step" else tag, value, step)

    def draw(self, store: TileStore, rows: np.ndarray, vectors: Tensor, step: int) -> None:
        """The vectors on their two main axes, as a figure, coloured by how much is drawn."""
        self.writer.add_figure("validation vectors", projection_figure(store, rows, vectors), step)

    def project(self, store: TileStore, rows: np.ndarray, vectors: Tensor, step: int) -> None:
        """Vectors, what they are of, and a picture of each, for TensorBoard's Projector."""
        if self.writer is None:
            return
        places = [f"{store.zoom}/{x}/{y}" for x, y in store.tile_xy[rows]]
        shares = [[f"{share:.4f}" for share in mass] for mass in store.layer_intensity[rows]]
        facts = [[place, *mass] for place, mass in zip(places, shares, strict=True)]
        header = ["tile", *LAYERS]
        images = sprites(store, rows)
        self.writer.add_embedding(vectors, facts, images, global_step=step, tag="tiles", metadata_header=header)

    def close(self) -> None:
        """Finish the files."""
        if self.writer is not None:
            self.writer.close()


def sprites(store: TileStore, rows: np.ndarray) -> Tensor:
    """Composites of the tiles, `(n, 3, s, s)` in 0..1."""
    return to_float(torch.from_numpy(pictures(store, rows, SPRITE_PX)).permute(0, 3, 1, 2))


def projection_figure(store: TileStore, rows: np.ndarray, vectors: Tensor) -> Any:
    """A matplotlib figure of the vectors on their two main axes."""
    from matplotlib.figure import Figure  # not above: slow to import

    centred = vectors - vectors.mean(dim=0)
    _, values, axes = torch.linalg.svd(centred, full_matrices=False)
    points, share = (centred @ axes[:2].T).numpy(), (values[:2].square() / values.square().sum()).tolist()
    content = store.layer_intensity[rows].sum(axis=1)
    figure = Figure(figsize=(7, 6), dpi=100, layout="constrained")
    panel = figure.add_subplot()
    dots = panel.scatter(*points.T, s=8, c=content, cmap="viridis", linewidths=0)
    figure.colorbar(dots, label="drawn ground, summed over the layers")
    panel.set_title("Held-out tiles on the two main axes of their vectors")
    panel.set_xlabel(f"first axis, {share[0]:.0%} of the variance")
    panel.set_ylabel(f"second axis, {share[1]:.0%}")
    panel.set_aspect("equal", "datalim")
    return figure


def git_revision() -> str | None:
    """Revision of the code that runs, when it lies in a git repository."""
    command = ["git", "-C", str(Path(__file__).resolve().parent), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
