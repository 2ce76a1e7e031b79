"""Checkpoints: the one pair of functions that writes and reads them.

Not a command. `python train.py` writes checkpoints, every viewer reads them.
"""

import dataclasses
import io
import os
import platform
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cli import UserError
from files import atomic_write, digest, remove_leftovers
from layers import LAYERS
from model import Encoder, EncoderConfig
from tile_grid import DEFAULT_ZOOM
from tile_store import SHRINKS

CHECKPOINT_FORMAT = 3  # 3: the trained part beside a summary is centred


# --- checkpoints -------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Checkpoint:
    """Everything that rebuilds the encoder and goes on training: plain tensors and plain types only."""

    encoder_config: dict[str, Any]
    encoder_state: dict[str, Tensor]
    train_config: dict[str, Any] = dataclasses.field(default_factory=dict)
    train_state: dict[str, Any] = dataclasses.field(default_factory=dict)
    metrics: dict[str, Any] = dataclasses.field(default_factory=dict)
    epoch: int = 0
    step: int = 0
    layers: list[str] = dataclasses.field(default_factory=lambda: list(LAYERS))
    zoom: int = DEFAULT_ZOOM
    shrink: str = "mean"
    versions: dict[str, str] = dataclasses.field(default_factory=lambda: library_versions())
    format_version: int = CHECKPOINT_FORMAT

    @property
    def tile_size(self) -> int:
        """Edge of the tiles the encoder takes, in pixels."""
        return self.encoder_config["tile_size"]

    def key(self) -> str:
        """Digest of the encoder's weights and settings: equal for equal vectors, whatever else was saved."""
        weights = [part for name, tensor in self.encoder_state.items() for part in (name, tensor.cpu().numpy())]
        return digest(self.encoder_config, self.layers, self.zoom, self.shrink, *weights)


def library_versions() -> dict[str, str]:
    """Versions of what shapes a result."""
    return {"python": platform.python_version(), "torch": str(torch.__version__), "numpy": np.__version__}


def encoder_state(encoder: nn.Module) -> dict[str, Tensor]:
    """The encoder's weights on the CPU under plain names, whether it was compiled, wrapped for DDP, or not."""
    while True:
        inner = getattr(encoder, "_orig_mod", None) or (encoder.module if hasattr(encoder, "module") else None)
        if inner is None:
            break
        encoder = inner
    return {name: tensor.detach().cpu().contiguous() for name, tensor in encoder.state_dict().items()}


def save_checkpoint(path: Path | str, checkpoint: Checkpoint) -> None:
    """Write a checkpoint so that `path` holds either the old or the new one, whole, whatever happens meanwhile."""
    buffer = io.BytesIO()
    torch.save({field.name: getattr(checkpoint, field.name) for field in dataclasses.fields(checkpoint)}, buffer)
    remove_leftovers(Path(path).parent)
    with atomic_write(path) as file:
        file.write(buffer.getbuffer())


def load_checkpoint(path: Path | str) -> Checkpoint:
    """Read a checkpoint onto the CPU without running any code in it.

    Raises `UserError` for a missing, damaged, foreign or newer file, and for one trained on other layers.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"no checkpoint at {path}; `python train.py` writes one, or name another with --model_path")
    try:
        _check_whole(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise UserError(_damaged(path)) from error
    if not isinstance(content, dict) or not {"format_version", "encoder_config", "encoder_state"} <= set(content):
        raise UserError(f"{path} is not a checkpoint of this project; `python train.py` writes one")
    if content["format_version"] != CHECKPOINT_FORMAT:
        raise UserError(
            f"{path} has checkpoint format {content['format_version']}, this version reads format {CHECKPOINT_FORMAT}; "
            "train again or use the version that wrote it"
        )
    names = {field.name for field in dataclasses.fields(Checkpoint)}
    if missing := names - set(content):
        raise UserError(f"{path} lacks {', '.join(sorted(missing))}; `python train.py` writes a whole checkpoint")
    checkpoint = Checkpoint(**{name: content[name] for name in names})
    _check_layers(path, checkpoint)
    _check_weights(path, checkpoint)
    return checkpoint


def _check_layers(path: Path, checkpoint: Checkpoint) -> None:
    if checkpoint.layers != list(LAYERS):
        names = ", ".join(checkpoint.layers) if isinstance(checkpoint.layers, list) else repr(checkpoint.layers)
        raise UserError(
            f"{path} was trained on the layers {names}; expected {', '.join(LAYERS)}. "
            "Its vectors would mean something else; train again with `python train.py`"
        )
    if checkpoint.shrink not in SHRINKS or not isinstance(checkpoint.zoom, int):
        raise UserError(
            f"{path} was trained on tiles of zoom {checkpoint.zoom!r} shrunk by {checkpoint.shrink!r}; "
            "this version knows no such thing: train again with `python train.py`"
        )


def _check_weights(path: Path, checkpoint: Checkpoint) -> None:
    """Weights must be those of the encoder that the settings describe, and numbers."""
    try:
        with torch.device("meta"):
            expected = Encoder(EncoderConfig(**checkpoint.encoder_config)).state_dict()
        found = checkpoint.encoder_state
        fits = expected.keys() == found.keys() and all(found[name].shape == expected[name].shape for name in expected)
    except (AttributeError, RuntimeError, TypeError, ValueError, UserError):
        fits = False
    if not fits:
        raise UserError(
            f"the weights in {path} are not those of the encoder that its settings describe; it was not written by "
            "this version: train again with `python train.py`"
        )
    if not all(weights.isfinite().all() for weights in found.values()):
        raise UserError(f"{path} holds weights that are no finite numbers; train again with a smaller --lr")


def _check_whole(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        if damaged := archive.testzip():
            raise zipfile.BadZipFile(f"{damaged} is not as it was written")


def _damaged(path: Path) -> str:
    good = newest_good_checkpoint(path.parent, skip=path)
    instead = f"the newest whole one beside it is {good}" if good else "no whole one lies beside it; train again"
    return f"{path} is damaged or cut short and was not loaded; {instead}"


# What Python's zipfile raises for one wrong byte or another.
_ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, RuntimeError, ValueError, LookupError)


def newest_good_checkpoint(folder: Path, skip: Path | None = None) -> Path | None:
    """The latest written checkpoint of a folder whose content is whole."""
    candidates = [path for path in folder.glob("[!.]*.pth") if path != skip and path.is_file()]
    for path in sorted(candidates, key=os.path.getmtime, reverse=True):
        try:
            _check_whole(path)
        except _ZIP_ERRORS:
            continue
        return path
    return None


def build_encoder(checkpoint: Checkpoint, device: torch.device | str = "cpu") -> Encoder:
    """The checkpoint's encoder, ready to embed: weights loaded, evaluation mode, `channels_last`."""
    encoder = Encoder(EncoderConfig(**checkpoint.encoder_config))
    encoder.load_state_dict(checkpoint.encoder_state)
    return encoder.to(device, memory_format=torch.channels_last).eval()


def load_encoder(path: Path | str, device: torch.device | str = "cpu") -> tuple[Encoder, Checkpoint]:
    """Read a checkpoint and rebuild its encoder on `device`: `(encoder, checkpoint)`."""
    checkpoint = load_checkpoint(path)
    return build_encoder(checkpoint, device), checkpoint
