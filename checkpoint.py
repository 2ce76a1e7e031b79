"""Checkpoints: one file that rebuilds an encoder and continues its training.

Not a command. `python train.py` writes checkpoints; every other script reads them.
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
from files import atomic_write, digest
from layers import LAYERS
from model import AnyEncoder, EncoderConfig, build_network
from tile_grid import DEFAULT_ZOOM
from tile_store import SHRINKS
from version import VERSION

CHECKPOINT_FORMAT = 3


@dataclasses.dataclass
class Checkpoint:
    """Everything that rebuilds the encoder and continues training, as plain tensors and plain types."""

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

    @property
    def uses_surroundings(self) -> bool:
        """Whether the encoder also sees what is around a tile."""
        return EncoderConfig(**self.encoder_config).uses_surroundings

    def key(self) -> str:
        """Digest of the encoder's weights and settings: equal for equal vectors, whatever else was saved."""
        weights = [part for name, tensor in self.encoder_state.items() for part in (name, tensor.cpu().numpy())]
        return digest(self.encoder_config, self.layers, self.zoom, self.shrink, *weights)

    def without_training(self) -> "Checkpoint":
        """The same encoder, without what only a resumed training needs."""
        return dataclasses.replace(self, train_state={}, train_config={})


def library_versions() -> dict[str, str]:
    """Versions of this project and of the libraries that can change a result."""
    libraries = {"python": platform.python_version(), "torch": str(torch.__version__), "numpy": np.__version__}
    return {"loc2vec": VERSION} | libraries


def encoder_state(encoder: nn.Module) -> dict[str, Tensor]:
    """The encoder's weights on the CPU, under plain names: without those of wrappers (compiled, DDP)."""
    wrappers = {"_orig_mod", "module"}
    return {
        ".".join(part for part in name.split(".") if part not in wrappers): weights.detach().cpu().contiguous()
        for name, weights in encoder.state_dict().items()
    }


def save_checkpoint(path: Path | str, checkpoint: Checkpoint) -> None:
    """Write a checkpoint. At every moment `path` holds either the old one or the new one, complete."""
    content = checkpoint_bytes(checkpoint)
    with atomic_write(path) as file:
        file.write(content)


def checkpoint_bytes(checkpoint: Checkpoint) -> bytes:
    """The content of the file that `save_checkpoint` writes."""
    buffer = io.BytesIO()
    torch.save({field.name: getattr(checkpoint, field.name) for field in dataclasses.fields(checkpoint)}, buffer)
    return buffer.getvalue()


def load_checkpoint(path: Path | str) -> Checkpoint:
    """Read a checkpoint onto the CPU without running any code in it.

    Raises `UserError` for a file that is missing, damaged, of another format or not a checkpoint, and for a checkpoint
    that was trained on other layers.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"no checkpoint at {path}; `python train.py` writes one, or name another with --model_path")
    try:
        verify_zip(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (PermissionError, MemoryError):
        raise
    except Exception as error:
        good = newest_good_checkpoint(path.parent, skip=path)
        instead = (
            f"the newest complete one beside it is {good}" if good else "no complete one is beside it; train again"
        )
        raise UserError(f"{path} is damaged or cut short and was not loaded; {instead}") from error
    if not isinstance(content, dict) or not {"format_version", "encoder_config", "encoder_state"} <= set(content):
        raise UserError(f"{path} is not a checkpoint of this project; `python train.py` writes one")
    if content["format_version"] != CHECKPOINT_FORMAT:
        raise UserError(
            f"{path} has checkpoint format {content['format_version']}, this version reads format {CHECKPOINT_FORMAT}; "
            "train again or use the version that wrote it"
        )
    names = {field.name for field in dataclasses.fields(Checkpoint)}
    if missing := names - set(content):
        raise UserError(f"{path} lacks {', '.join(sorted(missing))}; `python train.py` writes a complete checkpoint")
    checkpoint = Checkpoint(**{name: content[name] for name in names})
    check_content(path, checkpoint)
    return checkpoint


def check_content(path: Path, checkpoint: Checkpoint) -> None:
    """Layers, tiles and weights must be those of an encoder that this version can rebuild."""
    if checkpoint.layers != list(LAYERS):
        names = ", ".join(checkpoint.layers) if isinstance(checkpoint.layers, list) else repr(checkpoint.layers)
        raise UserError(
            f"{path} was trained on the layers {names}; expected {', '.join(LAYERS)}. "
            "Its vectors would mean something else; train again with `python train.py`"
        )
    if checkpoint.shrink not in SHRINKS or not isinstance(checkpoint.zoom, int):
        raise UserError(
            f"{path} was trained on tiles of zoom {checkpoint.zoom!r} shrunk by {checkpoint.shrink!r}, which this "
            "version does not know; train again with `python train.py`"
        )
    if isinstance(checkpoint.encoder_config, dict) and checkpoint.encoder_config.pop("profile_dims", 0):
        raise UserError(
            f"{path} was trained with --profile_dims, which this version no longer has; "
            "train again with `python train.py --preset recommended`"
        )
    try:
        with torch.device("meta"):
            expected = build_network(EncoderConfig(**checkpoint.encoder_config)).state_dict()
        found = checkpoint.encoder_state
        fits = {name: weights.shape for name, weights in found.items()} == {
            name: weights.shape for name, weights in expected.items()
        }
    except (AttributeError, RuntimeError, TypeError, ValueError, UserError):
        fits = False
    if not fits:
        config = checkpoint.encoder_config
        recommended = isinstance(config, dict) and config.get("architecture") == "multiscale"
        command = "python train.py --preset recommended" if recommended else "python train.py"
        raise UserError(
            f"the weights in {path} are not those of the encoder that its settings describe; it was not written by "
            f"this version: train again with `{command}`"
        )
    if not all(weights.isfinite().all() for weights in found.values()):
        raise UserError(f"{path} holds non-finite weights; train again with a smaller --lr")


def verify_zip(path: Path) -> None:
    """Compare every checksum in the zip file that a checkpoint is; raises one of `ZIP_ERRORS` if one differs."""
    with zipfile.ZipFile(path) as archive:
        if damaged := archive.testzip():
            raise zipfile.BadZipFile(f"{damaged} is not as it was written")


# What Python's zipfile raises for one wrong byte or another.
ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, RuntimeError, ValueError, LookupError)


def newest_good_checkpoint(folder: Path, skip: Path | None = None) -> Path | None:
    """The most recently written checkpoint of a folder that is complete."""
    candidates = [path for path in folder.glob("[!.]*.pth") if path != skip and path.is_file()]
    for path in sorted(candidates, key=os.path.getmtime, reverse=True):
        try:
            verify_zip(path)
        except ZIP_ERRORS:
            continue
        return path
    return None


def build_encoder(checkpoint: Checkpoint, device: torch.device | str = "cpu") -> AnyEncoder:
    """The checkpoint's encoder, ready to embed: weights loaded, evaluation mode, `channels_last`."""
    encoder = build_network(EncoderConfig(**checkpoint.encoder_config))
    encoder.load_state_dict(checkpoint.encoder_state)
    return encoder.to(device).to(memory_format=torch.channels_last).eval()


def load_encoder(path: Path | str, device: torch.device | str = "cpu") -> tuple[AnyEncoder, Checkpoint]:
    """Read a checkpoint and rebuild its encoder on `device`: `(encoder, checkpoint)`."""
    checkpoint = load_checkpoint(path)
    return build_encoder(checkpoint, device), checkpoint
