"""Write the bundled encoder from a checkpoint; every script uses it if there is no checkpoint.

python pretrained.py --model_path checkpoints/best_model.pth
"""

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from checkpoint import Checkpoint, check_content, load_checkpoint
from cli import ModelFlags, Parser, UserError, add_flags, flag, read_flags, run_main
from files import atomic_write
from model import EncoderConfig
from progress_bars import note

PRETRAINED = Path(__file__).resolve().with_name("pretrained")
WEIGHTS, CONFIG, CARD = "encoder.safetensors", "config.json", "README.md"
FORMAT = 1
LARGEST_BYTES = 15_000_000  # what a repository can carry without Git LFS
# Settings of a training run that say where files lie and how fast it ran, not what it computed.
PLACES = {"tiles_root", "cache_dir", "output_dir", "log_dir", "run_name", "resume", "init", "device", "num_workers"}


@dataclasses.dataclass(frozen=True)
class BundleFlags:
    """Conversion."""

    model_path: Path = flag(ModelFlags.model_path, "checkpoint written by train.py")
    output_dir: Path = flag(PRETRAINED, f"folder for {WEIGHTS}, {CONFIG} and {CARD}")


def main() -> None:
    """Convert a checkpoint."""
    parser = Parser(__doc__)
    add_flags(parser, BundleFlags)
    flags = read_flags(BundleFlags, parser.parse_args())
    size = save_pretrained(flags.output_dir, load_checkpoint(flags.model_path))
    print(f"wrote {flags.output_dir}: {size / 1e6:.1f} MB of weights")


# --- writing -----------------------------------------------------------------------------------------------


def save_pretrained(folder: Path | str, checkpoint: Checkpoint) -> int:
    """Write the encoder of a checkpoint as a folder that model hubs take; returns the size of the weights in bytes.

    Matrices and kernels are stored in half precision, everything else in full. A model card that is already there is
    kept. Raises `UserError` for an encoder that is too large to be bundled.
    """
    folder = Path(folder)
    state = {name: _stored(name, tensor) for name, tensor in sorted(checkpoint.encoder_state.items())}
    data = save_tensors(state, metadata={"format": "pt"})
    if len(data) > LARGEST_BYTES:
        raise UserError(
            f"the encoder takes {len(data) / 1e6:.0f} MB in half precision, more than {LARGEST_BYTES / 1e6:.0f} MB; "
            "train a smaller one, for example with --preset recommended"
        )
    rounded = dataclasses.replace(checkpoint, encoder_state={name: _loaded(t) for name, t in state.items()})
    config = {
        "format_version": FORMAT,
        "architecture": checkpoint.encoder_config.get("architecture", "loc2vec"),
        "embedding_dim": checkpoint.encoder_config["embedding_dim"],
        "tile_size": checkpoint.tile_size,
        "zoom": checkpoint.zoom,
        "shrink": checkpoint.shrink,
        "layers": checkpoint.layers,
        "encoder": checkpoint.encoder_config,
        "training": {name: value for name, value in checkpoint.train_config.items() if name not in PLACES},
        "trained_tiles": checkpoint.train_state.get("tiles", ""),
        "epoch": checkpoint.epoch,
        "step": checkpoint.step,
        "metrics": checkpoint.metrics,
        "versions": checkpoint.versions,
        "weights": {"file": WEIGHTS, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()},
        "key": rounded.key(),
    }
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_write(folder / WEIGHTS) as file:
        file.write(data)
    with atomic_write(folder / CONFIG, "w") as file:
        json.dump(config, file, indent=2, ensure_ascii=False)
        file.write("\n")
    if not (folder / CARD).exists():
        with atomic_write(folder / CARD, "w") as file:
            file.write(_card(config, folder))
    return len(data)


def _stored(name: str, tensor: Tensor) -> Tensor:
    """Half precision for matrices and kernels; statistics and the fixed map are small and stay exact."""
    halved = name.endswith("weight") and tensor.dim() >= 2 and bool(tensor.half().isfinite().all())
    return (tensor.half() if halved else tensor).contiguous()


def _loaded(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype == torch.float16 else tensor


def _card(config: dict[str, Any], folder: Path) -> str:
    """A model card with what is known of any encoder."""
    opened = "pretrained()" if folder.resolve() == PRETRAINED else f'load("{folder.resolve().name}")'
    seen = "the tile and its surroundings" if EncoderConfig(**config["encoder"]).uses_surroundings else "the tile"
    return (
        "---\nlicense: mit\nlibrary_name: loc2vec\ntags:\n- openstreetmap\n- geospatial\n- location-embedding\n"
        "pipeline_tag: feature-extraction\n---\n\n# A location encoder\n\n"
        f"One vector of {config['embedding_dim']} numbers for every place on a map: {seen}, drawn from OpenStreetMap "
        f"in {len(config['layers'])} layers of {config['tile_size']} x {config['tile_size']} pixels at zoom "
        f"{config['zoom']}.\n\n## Use\n\n```python\nfrom embeddings import LocationEncoder\n\n"
        f'city = LocationEncoder.{opened}.read("CITY.osm.pbf")\nvectors = city.embed(lat, lon)\n```\n\n'
        f"## Training\n\n{config['epoch']} epochs, {config['step']:,} steps. `config.json` holds the settings.\n\n"
        "## Map data\n\n© OpenStreetMap contributors, Open Database License (ODbL) 1.0, "
        "https://www.openstreetmap.org/copyright\n"
    )


# --- reading -----------------------------------------------------------------------------------------------


def load_model(path: Path | str) -> Checkpoint:
    """The encoder that `--model_path` names: a checkpoint, or a folder that `save_pretrained` wrote.

    If there is no file at the default path, it is the bundled encoder; a line on stderr says so. Raises `UserError`
    for a file that is missing or cannot be used.
    """
    path = Path(path)
    if path.is_dir():
        return load_pretrained(path)
    if path == ModelFlags.model_path and not path.exists() and (PRETRAINED / CONFIG).is_file():
        note(f"no checkpoint at {path}: using the bundled encoder in {PRETRAINED.name}/")
        return load_pretrained(PRETRAINED)
    return load_checkpoint(path)


def load_pretrained(folder: Path | str = PRETRAINED) -> Checkpoint:
    """The encoder in a folder that `save_pretrained` wrote, with weights in float32.

    Raises `UserError` for a folder that is incomplete, damaged or of another version.
    """
    folder = Path(folder)
    again = (
        "`git checkout pretrained` brings the original back"
        if folder == PRETRAINED
        else "`python pretrained.py --model_path CHECKPOINT` writes it again"
    )
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise UserError(f"{folder} holds no {name}, so it is not a bundled encoder; {again}")
    data = (folder / WEIGHTS).read_bytes()
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        version, expected = config["format_version"], config["weights"]["sha256"]
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{folder / CONFIG} is damaged; {again}") from None
    if version != FORMAT:
        raise UserError(f"{folder} has format {version}, this version reads format {FORMAT}; use the version it is of")
    if hashlib.sha256(data).hexdigest() != expected:
        raise UserError(f"{folder / WEIGHTS} is damaged: its SHA-256 is not the one in {CONFIG}; {again}")
    try:
        checkpoint = Checkpoint(
            encoder_config=config["encoder"],
            encoder_state={name: _loaded(tensor) for name, tensor in sorted(load_tensors(data).items())},
            train_config=config["training"],
            train_state={"tiles": config["trained_tiles"]},
            metrics=config["metrics"],
            epoch=config["epoch"],
            step=config["step"],
            layers=config["layers"],
            zoom=config["zoom"],
            shrink=config["shrink"],
            versions=config["versions"],
        )
        unchanged = checkpoint.key() == config["key"]
    except (SafetensorError, KeyError, TypeError, AttributeError):
        unchanged = False
    if not unchanged:
        raise UserError(f"{folder / CONFIG} was changed: it no longer describes {WEIGHTS}; {again}")
    check_content(folder, checkpoint)
    return checkpoint


if __name__ == "__main__":
    run_main(main)
