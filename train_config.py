"""The settings of a training run: flags, presets, and what a resumed run may change.

Not a command; `python train.py --help` lists the flags.
"""

import argparse
import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np

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
)
from data_loader import AugmentFlags, SampleFlags
from model import EncoderConfig, LossConfig
from tile_grid import near_any, spatial_split
from tile_store import StoreFlags, TileStore

# The better recipe, found by measuring (docs/recipe.md). Flags that are given win over a preset.
PRESETS: dict[str, dict[str, Any]] = {
    "spec": {},
    "recommended": {
        "loss_type": "ntxent",
        "temperature": 0.1,
        "profile_dims": 88,
        "profile_weight": 20.0,
        "batch_size": 64,
        "tile_size": 32,
        "shrink": "max",
        "lr": 0.002,
        "dropout": 0.0,
        "jitter": 1.0,
        "turn": True,
        "channel_dropout": 0.2,
        "thin": 0.15,
        "epochs": 10,
        "max_samples": 12800,
    },
}


# --- settings ----------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class FitFlags:
    """Training."""

    preset: str = flag("spec", "settings that the other flags start from", choices=list(PRESETS))
    epochs: int = flag(50, "training epochs; with --resume: further epochs", type=positive_int)
    lr: float = flag(0.001, "learning rate of AdamW at its highest", type=positive_float)
    weight_decay: float = flag(0.01, "weight decay of AdamW", type=count_float)
    schedule: str = flag("cosine", "how the learning rate goes on after the warm-up", choices=["cosine", "constant"])
    warmup: float = flag(0.05, "share of all steps over which the learning rate rises", type=fraction)
    val_share: float = flag(0.1, "share of the city held out in whole blocks for validation", type=fraction)
    val_samples: int = flag(1000, "triplets of the validation", type=positive_int)


@dataclasses.dataclass(frozen=True)
class RunFlags:
    """Run."""

    output_dir: Path = flag(Path("checkpoints"), "folder for best_model.pth, last.pth and epoch_*.pth")
    log_dir: Path = flag(Path("runs"), "folder for TensorBoard; metrics.jsonl and config.json lie there too")
    run_name: str = flag("", "folder of this run in --log_dir; left out: date, time and loss")
    save_every: int = flag(10, "keep epoch_*.pth every so many epochs; 0: never", type=count_int)
    log_every: int = flag(50, "log a training step every so many steps", type=positive_int)
    figure_every: int = flag(5, "draw the validation vectors every so many epochs; 0: never", type=count_int)
    resume: str = flag("", "checkpoint to go on from, exactly where it stopped")


@dataclasses.dataclass(frozen=True)
class SpeedFlags:
    """Speed."""

    precision: str = flag(
        "auto", "bf16 where the device is faster with it, or as said", choices=["auto", "fp32", "bf16"]
    )
    compile: bool = flag(True, "torch.compile where it pays (CUDA, long runs)")


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """Everything a run depends on, by concern."""

    tiles: TilesFlags = TilesFlags()
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
        return {name: str(value) if isinstance(value, Path) else value for name, value in values.items()}


# Flags that may differ from a checkpoint's when its run goes on; all others decide what the run computes.
FREE_ON_RESUME = {"preset", "epochs", "resume", "num_workers", "device", "compile", "tiles_root", "cache_dir"}
FREE_ON_RESUME |= {"output_dir", "log_dir", "run_name", "save_every", "log_every", "figure_every"}


def make_config(preset: str = FitFlags.preset, **settings: Any) -> TrainConfig:
    """Settings by flag name, on top of a preset, on top of the defaults."""
    values = PRESETS[preset] | settings | {"preset": preset}
    groups, known = {}, set()
    for field in dataclasses.fields(TrainConfig):
        kinds = {inner.name: type(inner.default) for inner in dataclasses.fields(field.type)}
        groups[field.name] = field.type(**{name: kinds[name](values[name]) for name in kinds if name in values})
        known |= set(kinds)
    if unknown := set(values) - known:
        raise TypeError(f"no such training settings: {', '.join(sorted(unknown))}")
    return TrainConfig(**groups)


def parse_config(argv: list[str] | None = None) -> TrainConfig:
    """The settings of a command line; with --resume, those of the checkpoint's run."""
    parser = Parser(__doc__)
    for field in dataclasses.fields(TrainConfig):
        add_flags(parser, field.type)
    unset = argparse.Namespace(**{name: None for name in TrainConfig().flat()})  # argparse keeps what is there
    given = {name: value for name, value in vars(parser.parse_args(argv, unset)).items() if value is not None}
    return resumed_config(**given) if given.get("resume") else make_config(**given)


def resumed_config(resume: str, **given: Any) -> TrainConfig:
    """The settings of the checkpoint's run, with the flags that may differ as given.

    Raises `UserError` naming every given flag that contradicts the checkpoint.
    """
    checkpoint = load_checkpoint(resume)
    if not checkpoint.train_state:
        raise UserError(f"{resume} holds an encoder but no state of a training run; `python train.py` starts a new one")
    saved = TrainConfig().flat() | checkpoint.train_config
    if unknown := set(saved) - set(TrainConfig().flat()):
        raise UserError(f"{resume} has settings that this version lacks: {', '.join(sorted(unknown))}; use a later one")
    asked = make_config(**given).flat()
    fixed = (set(given) | set(PRESETS[given.get("preset", "spec")])) - FREE_ON_RESUME
    wrong = [
        f"--{name} {asked[name]} (the checkpoint has {saved[name]})" for name in fixed if asked[name] != saved[name]
    ]
    if wrong:
        raise UserError(
            f"{resume} was trained with other settings: {', '.join(sorted(wrong))}; leave these flags out to go on "
            "with its run, or leave --resume out to start a new one"
        )
    free = {name: value for name, value in given.items() if name in FREE_ON_RESUME}
    kept = {name: value for name, value in saved.items() if name not in ("device", "compile")}
    further = free.pop("epochs", 0)
    if further:
        free |= {"epochs": checkpoint.epoch + further}
        free.setdefault("run_name", f"{saved['run_name']}-from-{checkpoint.epoch:03d}")
    return make_config(**(kept | free | {"resume": str(resume)}))


# --- which tiles a run trains on ---------------------------------------------------------------------------


def split_city(store: TileStore, config: TrainConfig) -> tuple[np.ndarray, np.ndarray]:
    """Training and validation rows of a run. No training window, however jittered, shows any validation pixel."""
    buffer = max(1, window_reach(config.augment.jitter))
    return spatial_split(store.unwrapped_xy, config.fit.val_share, seed=config.device.seed, buffer=buffer)


def window_reach(jitter: float) -> int:
    """How many tiles beyond its anchor tile a training window can reach into; see `TripletSampler.windows`."""
    return math.ceil(jitter + min(jitter, 1) / 2)


def unseen_tiles(store: TileStore, checkpoint: Checkpoint) -> np.ndarray:
    """`(N,) bool`: tiles of the store of which the checkpoint's training showed no pixel. In another city, all of them.

    The tiles around the validation blocks are no training tiles, but jittered training windows reach into them.
    """
    if checkpoint.train_state.get("tiles") != store.content_key:
        return np.ones(len(store), dtype=bool)
    known = TrainConfig().flat()
    config = make_config(**{name: value for name, value in checkpoint.train_config.items() if name in known})
    trained, _ = split_city(store, config)
    xy = store.unwrapped_xy
    return ~near_any(xy, xy[trained], window_reach(config.augment.jitter))
