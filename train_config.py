"""The settings of a training run: flags, presets, what a resumed run may change, and which tiles it trains on.

Not a command; `python train.py --help` lists the flags.
"""

import argparse
import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from checkpoint import Checkpoint, load_checkpoint
from cli import (
    DeviceFlags,
    Parser,
    TilesFlags,
    UserError,
    add_flags,
    count_float,
    count_int,
    flag,
    fraction,
    positive_float,
    positive_int,
    zoom_level,
)
from data_loader import AugmentFlags, SampleFlags
from devices import compute_dtype
from model import EncoderConfig, LossConfig
from pretrained import load_model, load_pretrained
from tile_grid import near_any, spatial_split
from tile_store import StoreFlags, TileStore

# Flags that are given override a preset. `recommended` was found by measuring (docs/recipe.md).
PRESETS: dict[str, dict[str, Any]] = {
    "spec": {},
    "recommended": {
        "architecture": "multiscale",
        "loss_type": "reconstruction",
        "reconstruction_weight": 1.0,
        "batch_size": 64,
        "lr": 0.0005,
        "max_grad_norm": 5.0,
        "flip_rotate": True,
        "epochs": 4,
        "max_samples": 6400,
    },
}


# --- settings ----------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class CitiesFlags:
    """Tiles."""

    tiles_root: list[Path] = flag(
        [TilesFlags.tiles_root],
        "folder that holds <layer>/<zoom>/<x>/<y>.png; several folders train one encoder on all of them",
        type=Path,
        nargs="+",
    )
    zoom: int = flag(TilesFlags.zoom, "slippy-map zoom level of the tiles", type=zoom_level)
    cache_dir: Path = flag(TilesFlags.cache_dir, "folder for packed tiles, vectors, projections and indices")
    tms: bool = flag(TilesFlags.tms, "y in the file names counts from the south, as in TMS")

    def one(self, tiles_root: Path) -> TilesFlags:
        """The flags of one folder."""
        return TilesFlags(tiles_root, self.zoom, self.cache_dir, self.tms)


@dataclasses.dataclass(frozen=True)
class FitFlags:
    """Training."""

    preset: str = flag("spec", "settings that the other flags start from", choices=list(PRESETS))
    init: str = flag(
        "",
        "start from these weights, with their preset: pretrained (the bundled encoder) or a checkpoint",
    )
    epochs: int = flag(50, "training epochs; with --resume: further epochs", type=positive_int)
    lr: float = flag(0.001, "highest learning rate of AdamW", type=positive_float)
    weight_decay: float = flag(0.01, "weight decay of AdamW", type=count_float)
    schedule: str = flag("cosine", "learning rate after the warm-up", choices=["cosine", "constant"])
    max_grad_norm: float = flag(0.0, "scale gradients down to this norm at most; 0: never", type=count_float)
    warmup: float = flag(0.05, "share of all steps over which the learning rate rises", type=fraction)
    val_share: float = flag(0.1, "share of the city held out in whole blocks for validation", type=fraction)
    val_samples: int = flag(1000, "validation triplets; fewer if an epoch is short", type=positive_int)


@dataclasses.dataclass(frozen=True)
class RunFlags:
    """Run."""

    output_dir: Path = flag(Path("checkpoints"), "folder for best_model.pth, last.pth and epoch_*.pth")
    log_dir: Path = flag(Path("runs"), "folder for TensorBoard, metrics.jsonl and config.json")
    run_name: str = flag("", "folder of this run in --log_dir; default: date, time and loss")
    save_every: int = flag(10, "keep epoch_*.pth every so many epochs; 0: never", type=count_int)
    log_every: int = flag(50, "log a training step every so many steps", type=positive_int)
    figure_every: int = flag(5, "draw the validation vectors every so many epochs; 0: never", type=count_int)
    resume: str = flag("", "checkpoint to continue from, exactly where it stopped")


@dataclasses.dataclass(frozen=True)
class SpeedFlags:
    """Speed."""

    precision: str = flag("auto", "auto: bf16 if the device is faster with it", choices=["auto", "fp32", "bf16"])
    compile: bool = flag(
        True, "on CUDA, try torch.compile in a run of more than half an hour, and keep it if it is faster"
    )


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """Everything a run depends on, by concern."""

    tiles: CitiesFlags = CitiesFlags()
    packing: StoreFlags = StoreFlags()
    sample: SampleFlags = SampleFlags()
    augment: AugmentFlags = AugmentFlags()
    encoder: EncoderConfig = EncoderConfig()
    loss: LossConfig = LossConfig()
    fit: FitFlags = FitFlags()
    run: RunFlags = RunFlags()
    speed: SpeedFlags = SpeedFlags()
    device: DeviceFlags = DeviceFlags()

    def flat(self) -> dict[str, Any]:
        """All settings by flag name, as plain types."""
        groups = [dataclasses.asdict(getattr(self, group.name)) for group in dataclasses.fields(self)]
        values = {name: value for group in groups for name, value in group.items()}
        plain: dict[str, Any] = {}
        for name, value in values.items():
            plain[name] = [str(path) for path in value] if isinstance(value, list) else value
            plain[name] = str(value) if isinstance(value, Path) else plain[name]
        return plain


GROUPS: dict[str, Any] = {field.name: field.type for field in dataclasses.fields(TrainConfig)}  # dataclasses of flags

# Flags that may differ from the checkpoint's when a run is resumed; all others decide what the run computes.
FREE_ON_RESUME = {"preset", "init", "epochs", "resume", "num_workers", "device", "compile", "tiles_root", "cache_dir"}
FREE_ON_RESUME |= {"output_dir", "log_dir", "run_name", "save_every", "log_every", "figure_every"}


def make_config(preset: str = FitFlags.preset, **settings: Any) -> TrainConfig:
    """Settings by flag name, on top of a preset, on top of the defaults.

    Raises `TypeError` for an unknown setting and `UserError` for a value that is not among a flag's choices.
    """
    values = PRESETS[preset] | settings | {"preset": preset}
    groups: dict[str, Any] = {}
    known: set[str] = set()
    for group_name, group in GROUPS.items():
        fields = {field.name: field for field in dataclasses.fields(group)}
        kinds: dict[str, Any] = {
            name: _paths if field.default is dataclasses.MISSING else type(field.default)
            for name, field in fields.items()
        }
        given = {name: kinds[name](values[name]) for name in fields if name in values}
        for name, value in given.items():
            choices = fields[name].metadata.get("options", {}).get("choices")
            if choices and value not in choices:
                raise UserError(f"--{name} {value!r} is unknown; choose from {', '.join(choices)}")
        groups[group_name] = group(**given)
        known |= set(fields)
    if unknown := set(values) - known:
        raise TypeError(f"no such training settings: {', '.join(sorted(unknown))}")
    return TrainConfig(**groups)


def _paths(value: str | Path | list) -> list[Path]:
    return [Path(path) for path in ([value] if isinstance(value, str | Path) else value)]


def loader_threads(config: TrainConfig, device: torch.device) -> int:
    """Threads that load batches ahead of the steps.

    On a CPU there are none, as they would take cores from the steps; on MPS there are none, as it crashes when several
    threads use it (https://github.com/pytorch/pytorch/issues/197805).
    """
    return config.packing.num_workers if device.type == "cuda" else 0


def network_dtype(config: TrainConfig, device: torch.device) -> torch.dtype:
    """The precision of the network's forward pass; weights, statistics and the loss stay float32."""
    chosen = {"fp32": torch.float32, "bf16": torch.bfloat16}
    return chosen.get(config.speed.precision) or compute_dtype(device)


def parse_config(argv: list[str] | None = None) -> TrainConfig:
    """The settings of a command line; with --resume, those of the checkpoint's run."""
    parser = Parser(__doc__)
    for group in GROUPS.values():
        add_flags(parser, group)
    unset = argparse.Namespace(**{name: None for name in TrainConfig().flat()})  # argparse keeps what is there
    given = {name: value for name, value in vars(parser.parse_args(argv, unset)).items() if value is not None}
    if given.get("resume"):
        return resumed_config(**given)
    if given.get("init"):
        trained_with = load_initial(given["init"]).train_config.get("preset")
        if trained_with in PRESETS:
            given.setdefault("preset", trained_with)
    return make_config(**given)


def load_initial(init: str) -> Checkpoint:
    """The encoder that `--init` names."""
    return load_pretrained() if init == "pretrained" else load_model(init)


def saved_settings(checkpoint: Checkpoint) -> dict[str, Any]:
    """The settings of the checkpoint's run by today's flag names; older checkpoints have earlier names."""
    fields = [field for group in GROUPS.values() for field in dataclasses.fields(group)]
    today = {alias: field.name for field in fields for alias in field.metadata.get("aliases", ())}
    gone = {"profile_dims"}  # 0 here: `load_checkpoint` refuses any other
    return {today.get(name, name): value for name, value in checkpoint.train_config.items() if name not in gone}


def resumed_config(resume: str, **given: Any) -> TrainConfig:
    """The settings of the checkpoint's run, with the flags that may differ as given.

    Raises `UserError` naming every given flag that contradicts the checkpoint.
    """
    checkpoint = load_checkpoint(resume)
    if not checkpoint.train_state:
        raise UserError(f"{resume} holds an encoder but no state of a training run; `python train.py` starts a new one")
    saved = TrainConfig().flat() | saved_settings(checkpoint)
    if unknown := set(saved) - set(TrainConfig().flat()):
        raise UserError(
            f"{resume} has settings that this version does not know: {', '.join(sorted(unknown))}; use a later version"
        )
    asked = make_config(**(saved | PRESETS[given.get("preset", FitFlags.preset)] | given)).flat()
    fixed = (set(given) | set(PRESETS[given.get("preset", "spec")])) - FREE_ON_RESUME
    wrong = [
        f"--{name} {asked[name]} (the checkpoint has {saved[name]})" for name in fixed if asked[name] != saved[name]
    ]
    if wrong:
        raise UserError(
            f"{resume} was trained with other settings: {', '.join(sorted(wrong))}; leave these flags out to continue "
            "its run, or leave --resume out to start a new one"
        )
    free = {name: value for name, value in given.items() if name in FREE_ON_RESUME}
    kept = {name: value for name, value in saved.items() if name not in ("device", "compile")}
    further = free.pop("epochs", 0)
    if further:
        free |= {"epochs": checkpoint.epoch + further}
        free.setdefault("run_name", f"{saved['run_name']}-from-{checkpoint.epoch:03d}")
    return make_config(**(kept | free | {"resume": str(resume)}))


# --- which tiles a run trains on ---------------------------------------------------------------------------


def tiles_key(stores: Sequence[TileStore]) -> str:
    """Names the tiles of a run, in its checkpoints: the content of each city."""
    return "+".join(store.content_key for store in stores)


def split_city(store: TileStore, config: TrainConfig) -> tuple[np.ndarray, np.ndarray]:
    """Training and validation rows of a run. No training window of a tile, however jittered, shows a validation tile.

    The surroundings that the multiscale encoder sees, and the rings whose statistics it learns, reach further.
    """
    buffer = max(1, window_reach(config.augment.jitter))
    return spatial_split(store.unwrapped_xy, config.fit.val_share, seed=config.device.seed, buffer=buffer)


def window_reach(jitter: float) -> int:
    """How many tiles beyond its anchor tile a training window can reach into; see `TripletSampler.windows`."""
    return math.ceil(jitter + min(jitter, 1) / 2)


def unseen_tiles(store: TileStore, checkpoint: Checkpoint) -> np.ndarray:
    """`(N,) bool`: tiles of the store that no training window of a tile shows. In another city, all of them.

    The tiles around the validation blocks are no training tiles, but jittered training windows reach into them.
    The multiscale encoder has seen them among the surroundings of training tiles.
    """
    if store.content_key not in checkpoint.train_state.get("tiles", "").split("+"):
        return np.ones(len(store), dtype=bool)
    known = TrainConfig().flat()
    config = make_config(**{name: value for name, value in saved_settings(checkpoint).items() if name in known})
    trained, _ = split_city(store, config)
    xy = store.unwrapped_xy
    return ~near_any(xy, xy[trained], window_reach(config.augment.jitter))
