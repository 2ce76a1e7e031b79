"""The log of a training run: TensorBoard events, metrics.jsonl and config.json.

Not a command. `train.py` writes the log; `tensorboard --logdir runs` shows it.
"""

import contextlib
import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from checkpoint import library_versions
from distributed import ProcessGroup
from files import atomic_write
from layers import LAYERS
from tile_images import pictures
from tile_store import TileStore
from vectors import principal_components

SPRITE_PX = 32


class Recorder:
    """Writes the log of a run into a folder; on other processes than the main one it writes nothing.

    `settings` are those of the run, by flag name. A resumed run has taken `step` steps before; what the log says about
    later steps is removed.
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

    def __init__(self, folder: Path, settings: dict[str, Any], group: ProcessGroup, step: int = 0):
        self.folder, self.lines = folder, folder / "metrics.jsonl"
        self.writer: Any = None
        if not group.is_main_process:
            return
        from torch.utils.tensorboard import SummaryWriter  # not above: slow to import
        from torch.utils.tensorboard.summary import hparams

        folder.mkdir(parents=True, exist_ok=True)
        if self.lines.is_file():
            kept = []
            for line in self.lines.read_text(encoding="utf-8", errors="replace").splitlines():
                with contextlib.suppress(ValueError, TypeError, KeyError):  # a line cut short by a kill
                    if json.loads(line)["step"] <= step:
                        kept.append(line + "\n")
            with atomic_write(self.lines, "w") as file:
                file.writelines(kept)
        about = {
            "versions": library_versions(),
            "git_revision": git_revision(),
            "started_at_step": step,
            "processes": group.size,
            "on": str(group.device),
        }
        with atomic_write(folder / "config.json", "w") as file:
            json.dump(settings | about, file, indent=1)
        self.writer = SummaryWriter(str(folder), purge_step=step + 1)
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
        """Add a figure of the vectors of the store's `rows` on their first two principal components."""
        if self.writer is not None:
            self.writer.add_figure("validation vectors", projection_figure(store, rows, vectors.numpy()), step)

    def project(self, store: TileStore, rows: np.ndarray, vectors: Tensor, step: int) -> None:
        """Write vectors, facts and a picture of each tile for TensorBoard's Projector.

        `add_embedding` arranges the sprite sheet itself, so torchvision's make_grid has no use here.
        """
        if self.writer is None:
            return
        places = [f"{store.zoom}/{x}/{y}" for x, y in store.tile_xy[rows]]
        shares = [[f"{share:.4f}" for share in intensity] for intensity in store.layer_intensity[rows]]
        facts = [[place, *row] for place, row in zip(places, shares, strict=True)]
        sprites = torch.from_numpy(pictures(store, rows, SPRITE_PX)).permute(0, 3, 1, 2).float() / 255  # (n, 3, s, s)
        self.writer.add_embedding(
            vectors, facts, sprites, global_step=step, tag="tiles", metadata_header=["tile", *LAYERS]
        )

    def close(self) -> None:
        """Finish the files."""
        if self.writer is not None:
            self.writer.close()


def projection_figure(store: TileStore, rows: np.ndarray, vectors: np.ndarray) -> Any:
    """A matplotlib figure of the vectors on their first two principal components."""
    from matplotlib.figure import Figure  # not above: slow to import

    points, share = principal_components(vectors, 2)
    figure = Figure(figsize=(7, 6), dpi=100, layout="constrained")
    panel = figure.add_subplot()
    drawn_ground = store.layer_intensity[rows].sum(axis=1)
    dots = panel.scatter(points[:, 0], points[:, 1], s=8, c=drawn_ground, cmap="viridis", linewidths=0)
    figure.colorbar(dots, label="mean intensity, summed over the layers")
    panel.set_title("Held-out tiles on the first two principal components of their vectors")
    panel.set_xlabel(f"first component, {share[0]:.0%} of the variance")
    panel.set_ylabel(f"second component, {share[1]:.0%}")
    panel.set_aspect("equal", "datalim")
    return figure


def git_revision() -> str | None:
    """Revision of the running code, if it is in a git repository."""
    command = ["git", "-C", str(Path(__file__).resolve().parent), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
