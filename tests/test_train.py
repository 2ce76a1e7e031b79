"""Training as a user runs it: flags, files, resume to the bit, kills, full disks, several processes, plain words."""

import contextlib
import itertools
import json
import math
import os
import platform
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import compile_trial
import data_loader
import distributed
import memory
import train
import train_config
from checkpoint import load_checkpoint, load_encoder, save_checkpoint
from cli import StopRequested, StopSignal, UserError, WorkError
from compile_trial import CompileTrial
from conftest import REPO, make_tiles, script_env
from data_loader import TileDataset, TripletDataset, prefetch
from devices import pick_device
from distributed import ProcessGroup
from memory import memory_need
from model import tiles_apart
from run_log import SPRITE_PX
from tile_grid import near_any
from tile_statistics import city_targets
from tile_store import TileStore, open_store
from train import build_run, schedule_factor, train_step, unhealthy
from train_config import TrainConfig, make_config, parse_config, split_city

# A network that trains in a second: 6 steps of 4 triplets of 32 px an epoch.
SMALL = {
    "tile_size": 32, "embedding_dim": 16, "neg_radius": 5, "batch_size": 4, "max_samples": 24, "val_samples": 20,
    "epochs": 1, "num_workers": 1, "save_every": 0, "figure_every": 0, "device": "cpu",
}  # fmt: skip
TIMED = ("tiles_per_second", "data_wait")
CPU = ProcessGroup(torch.device("cpu"))


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def small(tiny_tiles, cache, tmp_path, monkeypatch):
    """`small(epochs=2, ...)`: the settings of a small run in the test's own folder."""
    monkeypatch.chdir(tmp_path)
    places = {"tiles_root": tiny_tiles, "cache_dir": cache, "run_name": "run"}
    return lambda **settings: make_config(**(SMALL | places | settings))


@pytest.fixture
def flags(tiny_tiles, cache):
    """The same settings as flags; `flags(epochs=2)`."""

    def spell(**settings):
        values = SMALL | {"tiles_root": tiny_tiles, "cache_dir": cache, "run_name": "run"} | settings
        return [str(part) for name, value in values.items() for part in _flag(name, value)]

    return spell


def _flag(name, value):
    if isinstance(value, bool):
        return [f"--{name}" if value else f"--no_{name}"]
    return [f"--{name}", value]


def lines(folder: Path | str = "runs/run", kind: str = "epoch") -> list[dict]:
    """Metrics of a run, without those that depend on the clock."""
    found = [json.loads(line) for line in (Path(folder) / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in TIMED} for line in found if line["kind"] == kind]


def same_state(a: Path | str, b: Path | str) -> bool:
    """Whether two checkpoints hold the same run, bit for bit."""
    a, b = load_checkpoint(a), load_checkpoint(b)
    return all(
        _equal(x, y)
        for x, y in [
            (a.encoder_state, b.encoder_state),
            ({**a.train_state, "run_name": ""}, {**b.train_state, "run_name": ""}),
            ((a.epoch, a.step), (b.epoch, b.step)),
        ]
    )


def _equal(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_equal(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(_equal, a, b))
    return a == b


# --- flags -------------------------------------------------------------------------------------------------


def test_defaults_are_those_of_the_specification():
    config = parse_config([])
    expected = {
        "epochs": 50, "batch_size": 16, "lr": 0.001, "embedding_dim": 128, "margin": 0.2, "dropout": 0.5,
        "pos_radius": 2, "neg_radius": 10, "max_samples": 10000, "loss_type": "softpn", "tile_size": 256,
        "preset": "spec",
    }  # fmt: skip
    assert {name: config.flat()[name] for name in expected} == expected


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc returns large blocks at once")
def test_freed_memory_is_used_again():
    """By default, the system gives every large block new memory, page by page."""
    code = """if True:
        import resource, torch, devices
        def faults():
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            for _ in range(20):
                torch.ones(16 << 20)
            return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
        plain = faults()
        devices.keep_freed_memory()
        faults()  # the first blocks are new
        print(plain, faults())
    """
    said = subprocess.run([sys.executable, "-c", code], cwd=REPO, env=script_env(), capture_output=True, text=True)
    plain, kept = map(int, said.stdout.split())
    assert kept < plain / 10, said.stderr


def test_a_given_flag_wins_over_the_preset_even_when_it_is_the_default():
    config = parse_config(["--preset", "recommended", "--batch-size", "16", "--dropout", "0.25"])
    assert (config.sample.batch_size, config.encoder.dropout) == (16, 0.25)
    assert config.loss.loss_type == train_config.PRESETS["recommended"]["loss_type"] == "reconstruction"
    assert config.encoder.architecture == "multiscale"
    assert parse_config(["--preset", "recommended", "--architecture", "loc2vec"]).encoder.architecture == "loc2vec"


def test_every_preset_names_real_settings():
    for name, values in train_config.PRESETS.items():
        flat = make_config(name).flat()
        assert {key: flat[key] for key in values} == values


def test_wrong_use_ends_in_one_sentence(run_script, tiny_tiles):
    said = run_script("train.py", "--loss_typ", "triplet", check=2).stderr
    assert "did you mean '--loss_type'" in said and "Traceback" not in said
    said = run_script("train.py", "--tiles_root", tiny_tiles, "--tile_size", 100, check=2).stderr
    assert "--tile_size 96" in said and "Traceback" not in said


def test_radii_that_contradict_each_other_are_refused(small):
    with pytest.raises(UserError, match="--neg_radius 2 must be larger than --pos_radius 2"):
        train.train(small(neg_radius=2))


# --- what a run computes and leaves ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tiny_tiles, cache, tmp_path_factory):
    """A folder with a finished run of two epochs; read it, never write to it."""
    folder = tmp_path_factory.mktemp("finished")
    before = Path.cwd()
    os.chdir(folder)
    try:
        settings = SMALL | {"epochs": 2, "save_every": 1, "figure_every": 1, "log_every": 2, "run_name": "run"}
        train.train(make_config(**settings, tiles_root=tiny_tiles, cache_dir=cache))
    finally:
        os.chdir(before)
    return folder


def test_a_run_leaves_checkpoints_and_figures(finished):
    names = {path.name for path in (finished / "checkpoints").iterdir()}
    assert names == {"best_model.pth", "last.pth", "epoch_001.pth", "epoch_002.pth"}
    epochs = lines(finished / "runs/run")
    best = min(range(2), key=lambda i: epochs[i]["val_loss"])
    assert load_checkpoint(finished / "checkpoints/best_model.pth").epoch == best + 1
    assert len(lines(finished / "runs/run", "step")) == 6
    config = json.loads((finished / "runs/run/config.json").read_text())
    assert config["seed"] == 42 and config["versions"]["torch"] == str(torch.__version__) and "git_revision" in config


def test_tensorboard_shows_what_the_specification_lists(finished):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(finished / "runs/run"), size_guidance={"images": 0})
    events.Reload()
    tags = events.Tags()
    expected = {
        "loss/train", "loss/val", "distance/positive_train", "distance/negative_train", "distance/positive_val",
        "triplet_usage/train", "learning_rate", "gradient_norm", "rankme", "triplet_accuracy",
        "speed/tiles_per_second", "speed/data_wait_share", "step/loss/step",
    }  # fmt: skip
    assert expected <= set(tags["scalars"])
    assert [e.step for e in events.Scalars("loss/val")] == [6, 12]
    assert events.Scalars("loss/val")[1].value == pytest.approx(lines(finished / "runs/run")[1]["val_loss"])
    assert "validation vectors" in tags["images"]


def test_the_projector_gets_vectors_names_and_pictures(finished):
    from PIL import Image

    folder = next((finished / "runs/run").glob("*/tiles"))
    vectors = np.loadtxt(folder / "tensors.tsv")
    names = (folder / "metadata.tsv").read_text().splitlines()
    edge = int(np.ceil(np.sqrt(len(vectors)))) * SPRITE_PX
    assert vectors.shape[1] == 16 and len(names) == len(vectors) + 1 and names[1].startswith("17/766")
    with Image.open(folder / "sprite.png") as sprite:
        assert sprite.size == (edge, edge)
    assert "sprite" in (finished / "runs/run/projector_config.pbtxt").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["spec", "recommended"])
def test_training_learns(small, preset):
    of_preset = {"spec": {"loss_type": "triplet", "lr": 3e-4}, "recommended": {"lr": 1e-3}}
    chosen = {"epochs": 4, "batch_size": 12, "max_samples": 120, "val_samples": 200, "dropout": 0.0}
    outcome = train.train(small(preset=preset, **chosen, **of_preset[preset]))
    assert outcome.best.is_file() and outcome.folder == Path("runs/run")
    first, *others = lines()
    assert others[-1]["loss"] < 0.8 * first["loss"] and others[-1]["lr"] < first["lr"]
    assert min(line["val_loss"] for line in others) < first["val_loss"]
    assert max(line["val_triplet_accuracy"] for line in lines()) > 0.6
    if preset == "recommended":  # the map that makes distances of vectors those of the statistics
        encoder, _ = load_encoder(outcome.last)
        assert encoder.offset.norm() > 1 and not torch.equal(encoder.map, torch.eye(16))


def test_the_reconstruction_term_is_learned_and_goes_on_after_a_stop(small):
    """Also beside a contrastive loss on the published network."""
    chosen = {"loss_type": "ntxent", "jitter": 1.0, "dropout": 0.0, "batch_size": 12, "max_samples": 120, "epochs": 2}
    train.train(small(**chosen, reconstruction_weight=10.0))
    first, last = lines()
    assert last["loss"] < first["loss"] - 0.5
    state = load_checkpoint("checkpoints/last.pth").train_state["decoder"]
    train.train(parse_config(["--resume", "checkpoints/last.pth", "--epochs", "1"]))
    further = load_checkpoint("checkpoints/last.pth").train_state["decoder"]
    assert not torch.equal(state["weight"], further["weight"])
    assert lines("runs/run-from-002")[-1]["loss"] < last["loss"] + 0.5


@pytest.mark.parametrize("architecture", ["loc2vec", "multiscale"])
@pytest.mark.parametrize("loss_type", ["triplet", "softpn", "ntxent", "reconstruction"])
def test_every_loss_trains_every_architecture(small, architecture, loss_type):
    chosen = {"architecture": architecture, "loss_type": loss_type, "mining": "hard", "lr": 0.00005, "dropout": 0.0}
    for weight in (1.0,) if loss_type == "reconstruction" else (0.0, 1.0):
        run = build_run(small(**chosen, reconstruction_weight=weight, max_samples=12), CPU)
        batch = run.batches[0]
        before = {name: weights.clone() for name, weights in run.encoder.named_parameters()}
        losses = [float(train_step(run, batch, batch.inputs)[0]) for _ in range(4)]
        val, _ = train.validate(run, StopSignal())
        run.recorder.close()
        assert np.isfinite(losses).all() and np.isfinite(val["loss"])
        assert min(losses[1:]) < losses[0]
        changed = [name for name, weights in run.encoder.named_parameters() if not torch.equal(weights, before[name])]
        assert len(changed) > 0.9 * len(before)


@pytest.mark.parametrize("preset", ["spec", "recommended"])
def test_a_run_starts_from_given_weights(small, preset):
    """With a decoder that was fitted to them; weights of another encoder are refused."""
    chosen = {"preset": preset, "batch_size": 12, "max_samples": 60, "epochs": 1, "dropout": 0.0, "output_dir": "made"}
    made = train.train(small(**chosen)).last
    again = {**chosen, "output_dir": "again", "init": str(made)}
    run = build_run(small(**again, reconstruction_weight=1.0), CPU)
    run.recorder.close()
    wanted = load_checkpoint(made).encoder_state
    assert all(torch.equal(weights, wanted[name]) for name, weights in run.encoder.state_dict().items())
    assert run.decoder.bias.abs().max() > 0  # of the regression
    with pytest.raises(UserError, match="embedding_dim 16 there, 8 here"):
        build_run(small(**again | {"embedding_dim": 8}), CPU)


def test_given_weights_bring_their_preset():
    assert parse_config(["--init", "pretrained"]).fit.preset == "recommended"
    assert parse_config(["--init", "pretrained"]).encoder.architecture == "multiscale"
    assert parse_config(["--init", "pretrained", "--preset", "spec"]).fit.preset == "spec"
    assert parse_config([]).fit.preset == "spec"


def test_reconstruction_alone_needs_a_weight():
    with pytest.raises(UserError, match="--loss_type reconstruction needs --reconstruction_weight 1"):
        parse_config(["--loss_type", "reconstruction"])


def test_a_batch_of_one_tile_trains(small):
    run = build_run(small(preset="recommended", batch_size=1), CPU)
    assert np.isfinite(float(train_step(run, run.batches[0], run.batches[0].inputs)[0]))
    run.recorder.close()


@pytest.mark.parametrize("jitter", [0.0, 0.4, 1.0, 2.0])
def test_training_never_sees_a_validation_pixel(small, jitter):
    config = small(jitter=jitter, loss_type="ntxent" if jitter else "softpn", neg_radius=6, batch_size=24)
    store = open_store(config.tiles.tiles_root[0], 32, cache_dir=config.tiles.cache_dir)
    train_rows, val_rows = split_city(store, config)
    held_out = store.tile_xy[val_rows] - store.grid.origin
    for batch in prefetch(batches_of(store, config, rows=[train_rows])):
        seen = batch.tile_xy.reshape(-1, 1, 2).double().numpy()  # a window covers [xy, xy + 1)
        assert np.abs(seen - held_out).max(axis=2).min() >= 1 - 1e-6
    assert not near_any(store.tile_xy[train_rows], store.tile_xy[val_rows], 1).any()


def test_batches_do_not_depend_on_threads_or_processes(small):
    config = small(jitter=1.0, flip_rotate=True, channel_dropout=0.3, batch_size=8)
    store = open_store(config.tiles.tiles_root[0], 32, cache_dir=config.tiles.cache_dir)

    def made(group: ProcessGroup, threads: int) -> list[tuple[torch.Tensor, ...]]:
        batches = batches_of(store, config, group=group, surroundings=True)
        batches.set_epoch(1)
        return [batches.augmented(batch) for batch in prefetch(batches, num_threads=threads)]

    alone = made(CPU, 0)
    halves = [made(ProcessGroup(torch.device("cpu"), rank, 2), 3) for rank in (0, 1)]
    assert len(alone) == 3
    for one, *two in zip(alone, *halves, strict=True):
        assert len(one) == 3 and all(
            torch.equal(tensor, torch.cat(parts)) for tensor, *parts in zip(one, *two, strict=True)
        )


def batches_of(store: TileStore, config: TrainConfig, **options) -> TripletDataset:
    """The training batches of a run on the CPU."""
    chosen = {"seed": config.device.seed, "views": config.loss.views} | options
    return TripletDataset([TileDataset(store)], config.sample, config.augment, **chosen)


def test_anchors_with_little_on_them_are_drawn_less_often(small):
    config = small(max_samples=4000, anchor_subsampling=0.3)
    store = open_store(config.tiles.tiles_root[0], 32, cache_dir=config.tiles.cache_dir)
    sampler = batches_of(store, config).samplers[0]
    kept, everything = sampler.subsampled_anchors(0, 0.3), sampler.anchors
    content = store.layer_intensity.sum(axis=1)
    assert set(everything[content[everything] >= 0.3]) <= set(kept)
    assert len(kept) < len(everything) and set(kept) <= set(everything)


def test_schedule_warms_up_and_comes_down():
    factors = [schedule_factor(step, 100, 0.1, "cosine") for step in range(100)]
    assert factors[0] == pytest.approx(0.1) and factors[9] == factors[10] == 1.0
    assert all(a >= b for a, b in pairwise(factors[10:])) and factors[-1] < 0.01
    assert {schedule_factor(step, 100, 0.1, "constant") for step in range(10, 100)} == {1.0}


def test_what_is_unhealthy_comes_with_its_remedy():
    spec, pairs = make_config(), make_config("recommended")
    assert "--mining semi-hard" in unhealthy({"usage": 0.1, "val_rankme": 40}, spec)["low usage"]
    assert "--margin" in unhealthy({"usage": 0.9, "val_rankme": 40}, spec)["high usage"]
    assert "--vicreg_weight" in unhealthy({"usage": 0.5, "val_rankme": 1.2}, spec)["collapse"]
    assert not unhealthy({"usage": 0.5, "val_rankme": 40}, spec) and not unhealthy({"usage": 0.01}, pairs)


def test_a_loss_that_is_no_number_stops_the_run_and_names_the_tiles(small):
    train.train(small())
    good = Path("checkpoints/last.pth").read_bytes()
    with pytest.raises(
        WorkError, match=r"no longer a finite number at step \d+; the last good checkpoint is .*last.pth"
    ) as said:
        train.train(small(lr=1e30, run_name="wild"))
    assert re.search(r"Tiles of the batch: 17/766\d\d/442\d\d", str(said.value))
    assert Path("checkpoints/last.pth").read_bytes() == good
    assert Path("runs/wild/nonfinite_batch.txt").read_text().startswith("17/766")


# --- going on ----------------------------------------------------------------------------------------------

WITNESS = {"epochs": 4, "flip_rotate": True, "channel_dropout": 0.2, "log_every": 1}  # dropout is 0.5


@pytest.fixture(scope="module", params=["spec", "recommended"])
def undisturbed(request, tiny_tiles, cache, tmp_path_factory):
    """A folder with the same run as the disturbed ones, made in one go by the script; named after its preset."""
    folder = tmp_path_factory.mktemp("undisturbed") / request.param
    folder.mkdir()
    values = (
        SMALL | WITNESS | {"tiles_root": tiny_tiles, "cache_dir": cache, "run_name": "run", "preset": request.param}
    )
    spelled = [str(part) for name, value in values.items() for part in _flag(name, value)]
    subprocess.run([sys.executable, REPO / "train.py", *spelled], cwd=folder, env=script_env(), check=True, timeout=300)
    return folder


def start(*args: str) -> subprocess.Popen:
    command = [sys.executable, str(REPO / "train.py"), *args]
    return subprocess.Popen(command, env=script_env({"PYTHONUNBUFFERED": "1"}), stdout=subprocess.PIPE, text=True)


def wait_for_step(step: int, timeout_s: float = 120) -> None:
    deadline = time.monotonic() + timeout_s
    path = Path("runs/run/metrics.jsonl")
    while time.monotonic() < deadline:
        if path.is_file() and f'"step": {step},' in path.read_text():
            return
        time.sleep(0.01)
    pytest.fail(f"no step {step} after {timeout_s} s")


@pytest.mark.slow
def test_sigkill_and_resume_equal_an_undisturbed_run_bit_for_bit(undisturbed, flags, run_script, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with start(*flags(**WITNESS, preset=undisturbed.name)) as run:
        wait_for_step(2 * 6 + 2)  # in the third epoch
        run.kill()
    assert load_checkpoint("checkpoints/last.pth").epoch == 2
    run_script("train.py", "--resume", "checkpoints/last.pth")
    for name in ("last", "best_model"):
        assert same_state(f"checkpoints/{name}.pth", undisturbed / f"checkpoints/{name}.pth")
    for kind in ("epoch", "step"):
        assert lines(kind=kind) == lines(undisturbed / "runs/run", kind)


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_within_an_epoch_is_saved_and_goes_on_at_that_step(
    undisturbed, flags, run_script, tmp_path, monkeypatch, signum
):
    monkeypatch.chdir(tmp_path)
    with start(*flags(**WITNESS, preset=undisturbed.name)) as run:
        wait_for_step(6 + 2)
        run.send_signal(signum)
        said = run.communicate(timeout=60)[0]
    assert run.returncode == 128 + signum and "train.py --resume checkpoints/last.pth" in said
    state = load_checkpoint("checkpoints/last.pth").train_state
    assert state["epoch"] in (1, 2) and state["step"] >= 8
    run_script("train.py", "--resume", "checkpoints/last.pth")
    assert same_state("checkpoints/last.pth", undisturbed / "checkpoints/last.pth")
    assert lines(kind="epoch") == lines(undisturbed / "runs/run", "epoch")


def test_killed_between_the_files_of_an_epoch_and_resumed_leaves_all_of_them(small, tmp_path, monkeypatch):
    """An epoch writes three files, each put in place at once; the run is killed after each of them in turn."""
    train.train(small(epochs=2, save_every=1, output_dir="calm"))
    names = {path.name for path in Path("calm").iterdir()}
    put_in_place = os.replace
    for kill_after in range(1, 7):
        written = itertools.count(1)

        def replace_then_die(source, target, folder=f"run-{kill_after}", written=written, kill_after=kill_after):
            put_in_place(source, target)
            if Path(target).parent == Path(folder) and next(written) == kill_after:
                raise Killed

        folder = Path(f"run-{kill_after}")
        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(os, "replace", replace_then_die)
            train.train(small(epochs=2, save_every=1, output_dir=folder))
        resumed = folder / "last.pth"
        if not resumed.exists():
            train.train(small(epochs=2, save_every=1, output_dir=folder))
        elif load_checkpoint(resumed).epoch < 2:
            train.train(parse_config(["--resume", str(resumed)]))
        assert {path.name for path in folder.iterdir()} == names
        for name in names:
            assert load_checkpoint(folder / name).key() == load_checkpoint(Path("calm") / name).key(), name


class Killed(BaseException):
    """Stands for SIGKILL: nothing catches it."""


def test_resume_with_epochs_trains_that_many_further(small, finished):
    best = finished / "checkpoints/last.pth"
    with pytest.raises(UserError, match="has finished its 2 epochs; `--epochs 25` trains for 25 further"):
        train.train(parse_config(["--resume", str(best)]))
    config = parse_config(["--resume", str(best), "--epochs", "1"])
    assert config.fit.epochs == 3 and config.run.run_name == "run-from-002"
    train.train(config)
    after = load_checkpoint("checkpoints/last.pth")
    assert after.epoch == 3 and after.step == 18
    assert len(lines("runs/run-from-002")) == 1 and lines("runs/run-from-002")[0]["epoch"] == 3
    assert not Path("runs/run").exists()


def test_a_resumed_run_in_a_new_folder_has_a_best_checkpoint(small):
    """Also when no later epoch is better, and when the best one so far is lost."""
    train.train(small())
    last = load_checkpoint("checkpoints/last.pth")
    last.train_state["best"] = -1.0  # nothing will be better
    save_checkpoint("checkpoints/last.pth", last)
    further = ["--resume", "checkpoints/last.pth", "--epochs", "1"]
    outcome = train.train(parse_config([*further, "--output_dir", "new"]))
    assert outcome.best == Path("new/best_model.pth")
    assert load_checkpoint(outcome.best).key() == load_checkpoint("checkpoints/best_model.pth").key()
    assert load_checkpoint(outcome.best).epoch == 1 and load_checkpoint(outcome.last).epoch == 2

    saved = load_checkpoint("new/best_model.pth")
    saved.epoch = 7  # of a later run in the same folder
    save_checkpoint("new/best_model.pth", saved)
    later = ["--resume", "new/last.pth", "--epochs", "1", "--output_dir", "fourth"]
    assert load_checkpoint(train.train(parse_config(later)).best).epoch == 3

    for folder, damage in (("third", lambda path: path.write_bytes(b"")), ("fifth", Path.unlink)):
        damage(Path("new/best_model.pth"))
        later = ["--resume", "new/last.pth", "--epochs", "1", "--output_dir", folder]
        assert load_checkpoint(train.train(parse_config(later)).best).epoch == 3


def test_a_second_run_of_the_same_name_starts_its_curves_anew(small):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train.train(small(epochs=2))
    time.sleep(1.1)  # TensorBoard orders event files by the second of their names
    train.train(small(epochs=1))
    curves = EventAccumulator("runs/run").Reload()
    assert [event.step for event in curves.Scalars("loss/train")] == [6]


@pytest.mark.parametrize("cities", [1, 2])
def test_a_stop_while_validating_saves_the_epoch_and_validates_it_again(small, second_city, monkeypatch, cities):
    """With two cities, the run is that of the recommended preset."""
    chosen = {"epochs": 2}
    if cities == 2:
        chosen |= {"preset": "recommended", "tiles_root": [*small().tiles.tiles_root, second_city]}
    train.train(small(**chosen, run_name="calm", output_dir="calm"))
    run, stop, validate = build_run(small(**chosen), CPU), StopSignal(), train.validate

    def interrupted(*args):
        stop.signum = signal.SIGTERM
        return validate(*args)

    monkeypatch.setattr(train, "validate", interrupted)
    with pytest.raises(StopRequested):
        train.fit(run, stop)
    run.recorder.close()
    state = load_checkpoint("checkpoints/last.pth").train_state
    assert (state["epoch"], state["step_in_epoch"], state["step"]) == (0, 6, 6)
    monkeypatch.setattr(train, "validate", validate)
    train.train(parse_config(["--resume", "checkpoints/last.pth"]))
    assert same_state("checkpoints/last.pth", "calm/last.pth") and lines() == lines("runs/calm")


def test_packing_and_closing_vectors_stop_at_a_signal(small, monkeypatch):
    monkeypatch.setattr(StopSignal, "__enter__", lambda self: setattr(self, "signum", signal.SIGTERM) or self)
    with pytest.raises(StopRequested):
        train.train(small(cache_dir=Path("packed_here")))
    assert not list(Path("packed_here").rglob("planes-*.bin"))
    run, stop = build_run(small(), CPU), StopSignal()
    stop.signum = signal.SIGTERM
    with pytest.raises(StopRequested):
        train.fill_projector(run, [torch.zeros(0, 16)], stop)
    run.recorder.close()


def test_a_run_says_how_long_it_takes_and_what_is_faster_on_a_cpu(small, monkeypatch, capsys):
    monkeypatch.setattr(train, "ESTIMATE_AFTER_STEPS", 2)
    monkeypatch.setattr(train, "LONG_RUN_S", 0)
    train.train(small(tile_size=96, max_samples=16))
    said = capsys.readouterr()
    assert re.search(r"about \d+ s to go: \d+ tiles/s on cpu", said.out)
    assert said.err.count("--preset recommended takes minutes; --tile_size 64 is also much faster") == 1
    assert [train.duration(s) for s in (45, 700, 9000, 400_000)] == ["45 s", "12 min", "2.5 h", "4.6 days"]


def test_the_estimate_leaves_out_the_first_steps_of_a_gpu(small, monkeypatch):
    """They compile and choose kernels."""
    monkeypatch.setattr(train.Run, "check_every", property(lambda _: 2))
    run, told = build_run(small(), CPU), []
    run.group = SimpleNamespace(**vars(run.group) | {"device": torch.device("cuda"), "is_main_process": False})
    monkeypatch.setattr(train, "train_step", lambda run, *_: torch.ones_like(run.state.sums))
    monkeypatch.setattr(train, "stop_if_requested", lambda *_: None)
    monkeypatch.setattr(train, "announce_duration", lambda _, steps, __: told.append(steps))
    run.group.barrier = lambda: None
    train.fit(run, StopSignal())
    run.recorder.close()
    assert told == [2, 4]


@pytest.fixture
def clock(monkeypatch):
    """The time that a trial sees; each plain step takes 1 s, compiled ones take `compiled`."""
    clock = SimpleNamespace(now=0.0, compiled=0.5)
    monkeypatch.setattr(compile_trial.time, "perf_counter", lambda: clock.now)
    monkeypatch.setattr(torch, "compile", lambda network: torch.nn.Sequential(network))
    return clock


def steps_on_trial(clock, trial, steps=12, total=2000, epoch_ends=()):
    """What a trial says when it measures after every step; the end of an epoch takes 1,000 s, compiling 60 s."""
    said, compiled = [], False
    for step in range(1, steps + 1):
        clock.now += 1.0 if trial.network is trial.plain else clock.compiled
        if trial.network is not trial.plain and not compiled:
            clock.now, compiled = clock.now + 60, True
        if said_now := trial.measure(step, total - step):
            said.append(said_now)
        if step in epoch_ends:
            clock.now += 1000
    return said


@pytest.mark.parametrize("epoch_ends", [(), (2, 7)])
@pytest.mark.parametrize(("compiled", "kept"), [(0.5, True), (1.5, False)])
def test_a_network_stays_compiled_if_that_is_faster(clock, compiled, kept, epoch_ends):
    clock.compiled, plain = compiled, torch.nn.Linear(2, 2)
    trial = CompileTrial(plain, CPU, enabled=True)
    said = steps_on_trial(clock, trial, epoch_ends=epoch_ends)
    assert (trial.network is not plain) == kept
    assert said == [
        "torch.compile is used: a step takes 0.50 of the time"
        if kept
        else "torch.compile is not used: a step would take 1.50 times as long"
    ]


@pytest.mark.parametrize(("enabled", "total"), [(True, 500), (False, 2000)])
def test_a_short_run_is_not_compiled(clock, monkeypatch, enabled, total):
    monkeypatch.setattr(torch, "compile", lambda _: pytest.fail("compiled"))
    trial = CompileTrial(torch.nn.Linear(2, 2), CPU, enabled)
    assert steps_on_trial(clock, trial, total=total) == [] and trial.network is trial.plain


def test_all_processes_compile_when_the_slowest_would(clock):
    """And they stop using it together, although here it is faster."""
    asked = []
    group = SimpleNamespace(all_reduce_max=lambda value: asked.append(value) or max(value, 1_200_000_000))
    trial = CompileTrial(torch.nn.Linear(2, 2), group, enabled=True)
    said = steps_on_trial(clock, trial, total=1600)
    assert asked == [1_000_000_000, 500_000_000]
    assert trial.network is trial.plain and said == ["torch.compile is not used: a step would take 1.00 times as long"]


def test_a_run_trains_with_the_network_that_the_trial_chose(small, monkeypatch, capsys):
    chosen = torch.nn.Sequential()

    class Trial(CompileTrial):
        def measure(self, step, steps_left):
            if step == 3:
                self.network = chosen
                return f"chosen with {steps_left} steps left"
            return None

    used = []

    def step(run, *_):
        used.append(run.network is chosen)
        return torch.ones_like(run.state.sums)

    monkeypatch.setattr(train, "CompileTrial", Trial)
    monkeypatch.setattr(train, "train_step", step)
    train.train(small())
    assert used == [False] * 3 + [True] * 3 and "chosen with 3 steps left" in capsys.readouterr().out


@pytest.mark.slow
def test_the_trial_compiles_a_real_network(small, monkeypatch):
    monkeypatch.setattr(compile_trial, "WORTH_S", 0)
    run = build_run(small(batch_size=2), CPU)
    batch = run.batches[0]
    trial = CompileTrial(run.network, CPU, enabled=True)
    torch._dynamo.utils.counters.clear()
    losses = []
    for step in range(1, 20):
        losses.append(train_step(run, batch, batch.inputs)[0].item())
        decision = trial.measure(step, 20 - step)
        run.network = trial.network
        if decision:
            break
    run.recorder.close()
    assert decision and re.search(r"torch.compile is (not )?used: a step .* \d+\.\d\d", decision)
    assert np.isfinite(losses).all() and losses[-1] < losses[0]
    assert torch._dynamo.utils.counters["frames"]["ok"] > 0  # something was compiled


def test_a_stop_is_noticed_in_every_step_where_losses_are_looked_at_rarely(small, monkeypatch):
    monkeypatch.setattr(train.Run, "check_every", property(lambda _: 16))
    run, stop, real = build_run(small(), CPU), StopSignal(), train.train_step

    def step(*args):
        stop.signum = signal.SIGTERM if run.state.step == 2 else None
        return real(*args)

    monkeypatch.setattr(train, "train_step", step)
    with pytest.raises(StopRequested):
        train.fit(run, stop)
    run.recorder.close()
    assert load_checkpoint("checkpoints/last.pth").train_state["step"] == 3 and not run.unchecked


@pytest.mark.parametrize("threads", [0, 2])
def test_every_batch_is_awaited_before_a_step_uses_it(small, monkeypatch, threads):
    run, awaited = build_run(small(), CPU), []
    monkeypatch.setattr(data_loader, "await_batch", lambda batch: awaited.append(batch.step))
    for batch in prefetch(run.batches, num_threads=threads):
        assert awaited[-1] == batch.step
    run.recorder.close()
    assert awaited == list(range(len(run.batches)))


def test_a_gpu_holds_the_tiles_of_all_cities_if_a_step_fits_beside_them(small, monkeypatch):
    config, group = small(), ProcessGroup(torch.device("cuda"))
    need = memory_need(config, group)
    monkeypatch.setattr(memory, "free_memory", lambda _: 3 * need)
    assert memory.tiles_fit(need, config, group) and not memory.tiles_fit(2 * need, config, group)
    monkeypatch.setattr(memory, "free_memory", lambda _: need + 100)
    assert not memory.tiles_fit(100, config, group) and memory.tiles_fit(99, config, group)
    assert not memory.tiles_fit(0, config, CPU)


def test_the_head_of_the_published_network_is_float32_in_mixed_precision(small):
    run, seen = build_run(small(precision="bf16"), CPU), []
    for module in run.encoder.modules():
        if isinstance(module, torch.nn.Linear | torch.nn.Conv2d):
            module.register_forward_hook(lambda module, _, out: seen.append((type(module).__name__, out.dtype)))
    batch = next(prefetch(run.batches))
    train_step(run, batch, run.batches.augmented(batch))
    run.recorder.close()
    assert {("Linear", torch.float32), ("Conv2d", torch.bfloat16)} == set(seen)


def test_short_epochs_validate_on_fewer_triplets(small):
    """Validation takes an eighth of an epoch; a triplet is up to three tiles, a forward pass a third of a step."""
    for max_samples, expected in ((24, 20), (400, 150), (40_000, 1000)):
        run = build_run(small(max_samples=max_samples, val_samples=1000), CPU)
        run.recorder.close()
        assert len(run.val_triplets[0]) == expected


def test_earlier_names_of_flags_and_settings_keep_working(small):
    config = parse_config(["--turn", "--thin", "0.1", "--profile-weight", "2"])
    assert config.augment.flip_rotate and config.sample.anchor_subsampling == 0.1
    assert config.loss.reconstruction_weight == 2
    assert not parse_config(["--preset", "recommended", "--no_turn"]).augment.flip_rotate

    train.train(small(flip_rotate=True, anchor_subsampling=0.01))
    checkpoint = load_checkpoint("checkpoints/last.pth")
    earlier = {"flip_rotate": "turn", "anchor_subsampling": "thin", "reconstruction_weight": "profile_weight"}
    checkpoint.train_config = {earlier.get(name, name): value for name, value in checkpoint.train_config.items()}
    del checkpoint.train_config["architecture"], checkpoint.encoder_config["architecture"]
    checkpoint.train_config["tiles_root"] = checkpoint.train_config["tiles_root"][0]
    checkpoint.train_config["profile_dims"] = checkpoint.encoder_config["profile_dims"] = 0
    save_checkpoint("earlier.pth", checkpoint)
    resumed = parse_config(["--resume", "earlier.pth", "--epochs", "1", "--turn"])
    assert resumed.augment.flip_rotate and resumed.sample.anchor_subsampling == 0.01
    train.train(resumed)


@pytest.mark.parametrize("setting", ["loss_type", "mining", "schedule", "precision", "shrink", "device"])
def test_an_unknown_choice_is_refused_wherever_it_comes_from(setting):
    with pytest.raises(UserError, match=f"--{setting} 'other' is unknown; choose from"):
        make_config(**{setting: "other"})


def test_every_loader_thread_loads():
    together = threading.Barrier(7, timeout=20)

    class Batches(list):
        def __getitem__(self, step):
            together.wait()
            return data_loader.Batch(0, step, (), torch.zeros(0), np.zeros(0), np.zeros(0), torch.zeros(0))

    assert [batch.step for batch in prefetch(Batches(range(14)), num_threads=7)] == list(range(14))


LOSS = """
def far_apart_loss(batch, config):
    anchor, positive, negative = batch.triplets
    near, far = F.pairwise_distance(anchor, positive), F.pairwise_distance(anchor, negative)
    return TripletTerms((near - far).exp(), near, far, near > far - config.margin)


"""


@pytest.mark.slow
def test_a_new_loss_needs_one_file(flags, tmp_path):
    """The one that docs/extending.md names: a function and an entry of `LOSSES` in model.py."""
    row = next(line for line in (REPO / "docs/extending.md").read_text().splitlines() if line.startswith("| a loss"))
    assert "model.py" in row and "train.py`" not in row.split("|")[2]
    for path in [*REPO.glob("*.py"), *REPO.glob("*.toml")]:
        shutil.copy(path, tmp_path)
    model = (tmp_path / "model.py").read_text()
    entry = "LOSSES: dict[str, Loss] = {\n"
    place = model.index("@dataclasses.dataclass(frozen=True)\nclass Loss:")
    model = model[:place] + LOSS.lstrip() + model[place:]
    (tmp_path / "model.py").write_text(model.replace(entry, entry + '    "far_apart": Loss(far_apart_loss),\n'))

    def run(script: str, *args: object) -> str:
        command = [sys.executable, str(tmp_path / script), *map(str, args)]
        result = subprocess.run(command, cwd=tmp_path, env=script_env(), capture_output=True, text=True, timeout=300)
        assert result.returncode == 0, result.stderr
        return result.stdout

    assert "far_apart" in run("train.py", "--help")
    run("train.py", *flags(loss_type="far_apart", mining="hard", epochs=2))
    assert len(lines(tmp_path / "runs/run")) == 2
    run("train.py", "--resume", "checkpoints/last.pth", "--epochs", 1)


def test_contradicting_flags_are_named(finished):
    path = str(finished / "checkpoints/last.pth")
    with pytest.raises(UserError) as said:
        parse_config(["--resume", path, "--lr", "0.1", "--embedding_dim", "64", "--batch_size", "4", "--epochs", "3"])
    text = str(said.value)
    assert "--lr 0.1 (the checkpoint has 0.001)" in text and "--embedding_dim 64 (the checkpoint has 16)" in text
    assert "batch_size" not in text and "epochs" not in text
    assert parse_config(["--resume", path, "--num_workers", "0", "--save-every", "3"]).run.save_every == 3


def test_settings_that_belong_together_may_be_given_one_by_one_with_resume(small):
    train.train(small(loss_type="reconstruction", reconstruction_weight=1.0, preset="recommended", epochs=1))
    config = parse_config(["--resume", "checkpoints/last.pth", "--epochs", "1", "--loss_type", "reconstruction"])
    assert config.loss.loss_type == "reconstruction" and config.fit.epochs == 2
    with pytest.raises(UserError, match=r"--loss_type ntxent .the checkpoint has reconstruction"):
        parse_config(["--resume", "checkpoints/last.pth", "--loss_type", "ntxent"])


def test_resume_refuses_other_tiles_damage_and_mere_encoders(small, finished, tiny_checkpoint, tmp_path):
    other = make_tiles(tmp_path / "other", px=32, seed=9)
    with pytest.raises(UserError, match="was trained on other tiles"):
        train.train(
            parse_config(
                ["--resume", str(finished / "checkpoints/last.pth"), "--epochs", "1", "--tiles_root", str(other)]
            )
        )
    with pytest.raises(UserError, match="no state of a training run"):
        parse_config(["--resume", str(tiny_checkpoint)])
    data = (finished / "checkpoints/last.pth").read_bytes()
    Path("last.pth").write_bytes(data[: len(data) // 2])
    Path("epoch_001.pth").write_bytes(data)
    with pytest.raises(UserError, match=r"last\.pth is damaged.*epoch_001\.pth"):
        parse_config(["--resume", "last.pth"])


def test_a_full_disk_leaves_the_last_good_checkpoint(small, run_script, flags):
    train.train(small())
    good = Path("checkpoints/last.pth").read_bytes()
    limit = 2_000_000  # no file may grow beyond this, as on a disk with that much room
    command = [sys.executable, str(REPO / "train.py"), "--resume", "checkpoints/last.pth", "--epochs", "1"]
    result = subprocess.run(
        command, env=script_env(), capture_output=True, text=True, timeout=300,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )  # fmt: skip
    assert result.returncode == 1 and "Traceback" not in result.stderr, result.stderr
    assert "could not be written: File too large; the last.pth written before is complete" in result.stderr
    assert Path("checkpoints/last.pth").read_bytes() == good
    assert sorted(path.name for path in Path("checkpoints").iterdir()) == ["best_model.pth", "last.pth"]


# --- several cities ----------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def second_city(tmp_path_factory):
    """Tiles of another, smaller city."""
    return make_tiles(tmp_path_factory.mktemp("second") / "tiles", nx=10, ny=10, px=32, x0=70000, y0=40000, seed=5)


@pytest.fixture
def two_cities(small, second_city):
    """`two_cities(loss_type="ntxent", ...)`: a run on two cities that took no step yet."""
    runs = []

    def build(**settings):
        runs.append(build_run(small(tiles_root=[*small().tiles.tiles_root, second_city], **settings), CPU))
        return runs[-1]

    yield build
    for run in runs:
        run.recorder.close()


def test_batches_hold_equally_many_samples_of_each_city(two_cities):
    run = two_cities(batch_size=5, max_samples=20)
    first, second = run.stores
    for batch in prefetch(run.batches):
        assert batch.city.tolist() == [0, 0, 0, 1, 1]
        of_each = [first.tiles(batch.rows[:3].reshape(-1)), second.tiles(batch.rows[3:].reshape(-1))]
        assert (batch.inputs[0].numpy() == np.concatenate(of_each)).all()
        assert batch.index.tolist() == [*batch.rows[:3].tolist(), *(batch.rows[3:] + len(first)).tolist()]
    assert len(np.unique(run.batches.triplets[:, 3:])) > 12


@pytest.mark.parametrize("jitter", [0.0, 1.0])
def test_tiles_of_different_cities_are_always_far_apart(two_cities, jitter):
    run = two_cities(batch_size=12, loss_type="ntxent", jitter=jitter)
    for batch in prefetch(run.batches):
        first, second = batch.tile_xy[:6].reshape(-1, 2), batch.tile_xy[6:].reshape(-1, 2)
        assert tiles_apart(first, second).min() >= run.config.sample.neg_radius


def test_each_city_has_validation_blocks_that_training_never_sees(two_cities):
    run = two_cities()
    for city, (store, triplets) in enumerate(zip(run.stores, run.val_triplets, strict=True)):
        train_rows, val_rows = split_city(store, run.config)
        assert len(triplets) and np.isin(triplets[:, 0], val_rows).all()
        assert np.isin(run.batches.triplets[:, run.batches.city == city], train_rows).all()
    val, vectors = train.validate(run, StopSignal())
    assert np.isfinite(val["loss"]) and len(vectors) == 2


def test_targets_are_those_of_the_tiles_of_each_city(two_cities):
    run = two_cities(preset="recommended")
    rows = [sampler.rows for sampler in run.batches.samplers]
    own = city_targets(run.stores, rows, run.config.tiles.cache_dir, 1)
    batch = run.batches[0]
    for city, tiles, index in zip(batch.city, batch.rows, batch.index, strict=True):
        np.testing.assert_array_equal(run.targets[index].numpy(), own[city][tiles])
    np.testing.assert_array_equal(run.targets[: len(run.stores[0])].numpy(), own[0])


def test_cities_that_do_not_go_together_are_refused(small, second_city, tmp_path):
    root = small().tiles.tiles_root[0]
    other_zoom = make_tiles(tmp_path / "zoom16", nx=6, ny=6, px=32, zoom=16)
    with pytest.raises(UserError, match="--zoom 16"):
        build_run(small(tiles_root=[root, other_zoom]), CPU)
    copy = shutil.copytree(root, tmp_path / "copy")
    with pytest.raises(UserError, match="hold the same tiles; name each city once"):
        build_run(small(tiles_root=[root, copy]), CPU)
    with pytest.raises(UserError, match="less than one sample for each of 2 cities"):
        build_run(small(tiles_root=[root, second_city], batch_size=1), CPU)


@pytest.mark.slow
def test_the_command_trains_on_several_cities(flags, second_city, tiny_tiles, run_script):
    given = flags(preset="recommended", epochs=2)
    given[given.index("--tiles_root") + 1 : given.index("--tiles_root") + 2] = [str(tiny_tiles), str(second_city)]
    where = run_script("train.py", *given).stdout
    assert "best checkpoint: checkpoints/best_model.pth" in where


# --- memory ------------------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform != "linux", reason="limits memory the Linux way")
def test_out_of_memory_names_what_would_fit_and_that_fits(flags):
    room = 6 << 30

    def run(batch_size: int) -> subprocess.CompletedProcess:
        command = [sys.executable, str(REPO / "train.py"), *flags(batch_size=batch_size, max_samples=batch_size)]
        return subprocess.run(
            command, env=script_env(), capture_output=True, text=True, timeout=300,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (room, room)),
        )  # fmt: skip

    refused = run(100_000)
    assert refused.returncode == 1 and "Traceback" not in refused.stderr
    fits = int(re.search(r"out of memory: .* --batch_size (\d+) would fit", refused.stderr)[1])
    assert 1 <= fits < 100_000


@pytest.mark.parametrize("architecture", ["loc2vec", "multiscale"])
def test_memory_need_grows_with_what_is_asked(small, architecture, monkeypatch):
    monkeypatch.setattr(memory, "START_BYTES", 0)
    monkeypatch.setattr(memory, "START_CITY_BYTES", 0)
    config = small(architecture=architecture)
    assert memory_need(config, CPU, batch_size=8) < memory_need(config, CPU, batch_size=16)
    assert memory_need(config, CPU, tile_size=32) < memory_need(config, CPU, tile_size=64)


def test_an_allocation_that_fails_in_the_loop_is_explained(small):
    config = small(batch_size=8)
    with pytest.raises(RuntimeError) as error:  # what torch says when the system gives no memory
        torch.empty(1 << 60, dtype=torch.uint8)
    assert memory.is_out_of_memory(error.value) and not memory.is_out_of_memory(RuntimeError("shape mismatch"))
    assert "--batch_size" in memory.memory_advice(config, CPU, memory_need(config, CPU) - 1)


def test_page_cache_that_the_system_would_drop_counts_as_free(monkeypatch, tmp_path):
    for name, text in {"max": "1000000", "current": "900000", "stat": "anon 300000\ninactive_file 600000\n"}.items():
        (tmp_path / f"memory.{name}").write_text(text)
    monkeypatch.setattr(memory, "CGROUP", tmp_path)
    assert memory.free_memory(torch.device("cpu")) == 700_000


def test_memory_need_counts_the_indices_of_windows_and_the_batches_loaded_ahead(small):
    gpu = ProcessGroup(torch.device("cuda"))
    chosen = {"precision": "fp32", "batch_size": 8, "num_workers": 3}
    whole, windows = (memory_need(small(**chosen, jitter=jitter), gpu) for jitter in (0.0, 1.0))
    batch_bytes = 8 * 3 * 12 * 32 * 32
    assert windows - whole >= 3 * 24 * batch_bytes
    assert whole - memory_need(small(**chosen | {"num_workers": 0}), gpu) == 3 * batch_bytes


def test_windows_are_cut_piece_by_piece_so_that_indices_stay_small(small, monkeypatch):
    config = small()
    store = open_store(config.tiles.tiles_root[0], 32, cache_dir=config.tiles.cache_dir)
    resident, sizes, gather = TileDataset(store, resident=True), [], data_loader.window_gather
    monkeypatch.setattr(data_loader, "WINDOW_GATHER_CHUNK", 5 * 12 * 32 * 32)
    monkeypatch.setattr(data_loader, "window_gather", lambda *args: sizes.append(len(args[4])) or gather(*args))
    origins = store.tile_xy[:23].astype(np.int64) * 32 + 7
    assert (resident.windows(origins).numpy() == store.windows(origins)).all() and max(sizes) == 5
    assert (resident.tiles(np.array([4, -1])).numpy() == store.tiles(np.array([4, -1]))).all()


# --- several processes -------------------------------------------------------------------------------------


def torchrun(processes: int, *args: str, script: Path = REPO / "train.py") -> subprocess.CompletedProcess:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    launch = ["-m", "torch.distributed.run", f"--nproc_per_node={processes}", f"--master_port={port}"]
    command = [sys.executable, *launch, str(script), *args]
    return subprocess.run(
        command, env=script_env({"OMP_NUM_THREADS": "1"}), capture_output=True, text=True, timeout=300
    )


GRADIENTS = """
import sys
sys.path.insert(0, sys.argv[1])
import torch
from model import Encoder, EncoderConfig, LossConfig, batch_loss
from distributed import distribute, init_distributed

def step(group):  # a function, so that the network is gone before the processes leave each other
    torch.manual_seed(0)
    encoder = Encoder(EncoderConfig(embedding_dim=16, tile_size=32)).double()
    network = distribute(encoder, group) if group.size > 1 else encoder
    config = LossConfig(loss_type=sys.argv[3], mining="hard", vicreg_weight=0.1)
    tiles = torch.rand(8 * config.views, 12, 32, 32, dtype=torch.float64)
    places = torch.rand(8, config.views, 2) * 60
    vectors = group.gather(network(tiles.chunk(group.size)[group.rank]))
    loss = batch_loss(config, vectors.view(8, config.views, -1), places, 2, 10).loss.mean()
    loss.backward()
    if group.is_main_process:
        found = {name: weights.grad for name, weights in encoder.named_parameters()} | dict(encoder.named_buffers())
        torch.save({**found, "loss": loss.detach()}, sys.argv[2])

with init_distributed("cpu") as group:
    step(group)
"""


@pytest.mark.slow
@pytest.mark.parametrize("loss_type", ["ntxent", "softpn", "triplet"])
def test_two_processes_compute_the_gradients_of_one(tmp_path, loss_type):
    """In float64, where rounding explains nothing: batch norm, dropout, gathered negatives and mining all agree."""
    script = tmp_path / "gradients.py"
    script.write_text(GRADIENTS)
    found = []
    for processes in (1, 2):
        path = tmp_path / f"{processes}.pt"
        result = torchrun(processes, str(REPO), str(path), loss_type, script=script)
        assert result.returncode == 0, result.stderr
        found.append(torch.load(path, weights_only=True))
    one, two = found
    assert one.keys() == two.keys() and one["head.1.0.weight"].abs().sum() > 0
    for name in one:
        assert torch.allclose(one[name].double(), two[name].double(), rtol=1e-8, atol=1e-11), name


@pytest.mark.slow
@pytest.mark.parametrize("loss", [
    {"loss_type": "ntxent", "jitter": 1.0, "reconstruction_weight": 1.0},
    {"loss_type": "softpn", "mining": "hard", "vicreg_weight": 0.1},
    {"preset": "recommended"},
], ids=["ntxent", "softpn", "recommended"])  # fmt: skip
def test_two_processes_reach_the_loss_curve_of_one(small, flags, loss):
    """Everything that could differ is on: batch norm, dropout, augmentation, mining, negatives of the whole batch."""
    chosen = {
        "precision": "fp32",
        "flip_rotate": True,
        "channel_dropout": 0.2,
        "epochs": 2,
        "batch_size": 8,
        "log_every": 1,
    }
    chosen |= loss | {"lr": 0.0001}  # Adam turns rounding into steps; the gradients themselves are tested above
    train.train(small(**chosen))
    result = torchrun(2, *flags(**chosen, run_name="two", output_dir="two"))
    assert result.returncode == 0, result.stderr
    for kind in ("step", "epoch"):
        one, two = lines("runs/run", kind), lines("runs/two", kind)
        for a, b in zip(one, two, strict=True):
            for name in {"loss", "positive", "negative", "val_loss"} & a.keys():
                assert b[name] == pytest.approx(a[name], rel=2e-2, abs=2e-3), (kind, name, a, b)
    alone, shared = load_checkpoint("checkpoints/last.pth"), load_checkpoint("two/last.pth")
    assert alone.encoder_state.keys() == shared.encoder_state.keys()
    if "preset" in loss:  # the map is that of the encoder and the decoder that were trained
        for name in ("mean", "map", "norms.1.mean"):
            torch.testing.assert_close(shared.encoder_state[name], alone.encoder_state[name], rtol=0.1, atol=0.02)
    train.train(parse_config(["--resume", "two/last.pth", "--epochs", "1"]))  # a run of two goes on alone


@pytest.mark.slow
def test_a_batch_that_does_not_divide_is_refused(flags, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = torchrun(2, *flags(batch_size=5))
    assert (
        result.returncode != 0
        and "--batch_size 5 does not divide among 2 processes; try --batch_size 4" in result.stderr
    )


# --- Apple silicon -----------------------------------------------------------------------------------------


class LikeMPS(TorchDispatchMode):
    """Lets tensors on the `meta` device stand for tensors on MPS, and raises for what MPS cannot do."""

    missing = ("linalg_eigh", "linalg_svd", "nonzero", "_cholesky")

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        tensors = [value for value in tree_leaves((args, kwargs)) if isinstance(value, torch.Tensor)]
        on_device = any(tensor.is_meta for tensor in tensors)
        if on_device and str((kwargs or {}).get("device")) == "cpu":  # a copy to the host
            return torch.ones(args[0].shape, dtype=(kwargs or {}).get("dtype") or args[0].dtype)
        if func is torch.ops.aten.copy_.default and args[1].is_meta and not args[0].is_meta:
            return args[0].fill_(1)
        if on_device and func is torch.ops.aten._local_scalar_dense.default:
            return 1.0
        if on_device and any(name in str(func) for name in self.missing):
            raise NotImplementedError(f"MPS has no {func}")
        result = func(*args, **(kwargs or {}))
        for value in tree_leaves(result):
            if isinstance(value, torch.Tensor) and value.is_meta and value.dtype == torch.float64:
                raise TypeError(f"MPS has no float64: {func}")
        return result


@pytest.mark.parametrize("recipe", ["ntxent", "softpn", "multiscale"])
def test_training_asks_nothing_of_mps_that_it_lacks(small, recipe, monkeypatch):
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())  # knows no meta device
    chosen = {
        "ntxent": {"loss_type": "ntxent", "reconstruction_weight": 1.0, "jitter": 1.0},
        "softpn": {"loss_type": "softpn", "mining": "hard"},
        "multiscale": {"preset": "recommended", "jitter": 0.3},
    }
    config = small(flip_rotate=True, channel_dropout=0.2, **chosen[recipe])
    with LikeMPS():
        run = build_run(config, ProcessGroup(torch.device("meta")))
        for batch in prefetch(run.batches, first_step=4):
            train_step(run, batch, run.batches.augmented(batch))
        train.check_losses(run)
        train.fit_map(run, StopSignal())
        rows = np.unique(run.val_triplets[0])
        assert train.final_vectors(run, train.embed_rows(run, 0, rows, StopSignal())).shape == (len(rows), 16)
    run.recorder.close()


def test_the_map_is_made_for_the_decoder_that_reads_best(small, monkeypatch):
    """A regression corrects the trained decoder, which lags behind; more tiles are used in the last epoch."""
    run = build_run(small(preset="recommended", epochs=2), ProcessGroup(torch.device("cpu")))
    for batch in prefetch(run.batches, first_step=0):
        train_step(run, batch, run.batches.augmented(batch))
    assert run.decoder and run.targets is not None
    given = []
    monkeypatch.setattr(run.encoder, "fit_map", lambda vectors, decoder: given.append((vectors, decoder)))
    monkeypatch.setattr(train, "MAP_SAMPLE", 40)
    for run.state.epoch in (0, 1):
        train.fit_map(run, StopSignal())
    run.recorder.close()
    assert [len(vectors) for vectors, _ in given] == [40, 80]
    vectors, decoder = given[1]
    rows = train.with_content(run.stores[0], run.batches.samplers[0].rows, 80)
    wanted = run.targets[torch.from_numpy(rows)].double()

    def missed(weight: torch.Tensor) -> float:
        error = wanted - vectors @ weight.T
        return float((error - error.mean(dim=0)).square().sum())

    assert missed(decoder) < 0.9 * missed(run.decoder.weight.detach().double())


@pytest.mark.parametrize("recipe", [{"jitter": 1.0, "loss_type": "ntxent"}, {"preset": "recommended", "jitter": 0.3}])
def test_tiles_that_the_device_holds_train_to_the_same_bits(small, monkeypatch, recipe):
    """As on a GPU into whose memory the store fits; the windows are then cut by one gather on the device."""
    train.train(small(output_dir="host", **recipe))
    real, gathered = data_loader.window_gather, []
    monkeypatch.setattr(train, "tiles_fit", lambda *_: True)
    monkeypatch.setattr(data_loader, "window_gather", lambda *args: gathered.append(1) or real(*args))
    train.train(small(output_dir="device", **recipe))
    assert gathered and same_state("host/last.pth", "device/last.pth")


@pytest.mark.parametrize(
    ("text", "is_memory"),
    [
        ("CUDA out of memory. Tried to allocate 2 GiB", True),
        ("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", True),
        ("mat1 and mat2 shapes cannot be multiplied", False),
    ],
)
def test_errors_that_mean_a_full_memory(text, is_memory):
    assert memory.is_out_of_memory(RuntimeError(text)) == is_memory


def test_several_processes_do_not_train_on_mps(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(distributed, "pick_device", lambda _: torch.device("mps"))
    joined = []
    monkeypatch.setattr(distributed.dist, "init_process_group", lambda backend, **_: joined.append(backend))
    monkeypatch.setattr(distributed.dist, "get_rank", lambda: 1)
    monkeypatch.setattr(distributed.dist, "destroy_process_group", lambda: None)
    with distributed.init_distributed("auto") as group:
        assert group.device.type == "cpu" and joined == ["gloo"]
    with pytest.raises(UserError, match="torchrun cannot train on MPS"), distributed.init_distributed("mps"):
        pass


def test_float32_is_not_rounded_to_tf32_on_cuda(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    torch.set_float32_matmul_precision("high")
    try:
        assert pick_device("auto").type == "cuda"
        assert not torch.backends.cudnn.allow_tf32 and torch.get_float32_matmul_precision() == "highest"
    finally:
        torch.set_float32_matmul_precision("highest")


# --- a GPU -------------------------------------------------------------------------------------------------

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("resident", [True, False])
@pytest.mark.parametrize("recipe", [{"jitter": 1.0, "loss_type": "ntxent"}, {"preset": "recommended"}])
def test_cuda_trains_and_its_checkpoint_goes_on_on_the_cpu(small, monkeypatch, resident, recipe):
    monkeypatch.setattr(compile_trial, "WORTH_S", math.inf if resident else 0)
    monkeypatch.setattr(train.Run, "check_every", property(lambda _: 1))
    if not resident:
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda *_: (0, 0))
    train.train(small(device="cuda", **recipe))
    train.train(parse_config(["--resume", "checkpoints/last.pth", "--epochs", "1", "--device", "cpu"]))
    assert load_checkpoint("checkpoints/last.pth").epoch == 2


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("preset", ["spec", "recommended"])
def test_batches_on_the_gpu_are_the_same_with_and_without_threads(small, preset):
    run = build_run(small(device="cuda", preset=preset, batch_size=8), ProcessGroup(torch.device("cuda")))
    for one, other in zip(prefetch(run.batches), prefetch(run.batches, num_threads=2), strict=True):
        for a, b in zip(one.inputs, other.inputs, strict=True):
            assert torch.equal(a, b)
    run.recorder.close()


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("preset", ["spec", "recommended"])
def test_the_hot_loop_never_waits_for_the_gpu(small, preset):
    chosen = {"device": "cuda", "preset": preset, "flip_rotate": True, "channel_dropout": 0.2}
    run = build_run(small(**chosen), ProcessGroup(torch.device("cuda")))
    batches = list(prefetch(run.batches, num_threads=1))
    train_step(run, batches[0], run.batches.augmented(batches[0]))
    torch.cuda.set_sync_debug_mode("error")
    try:
        for batch in batches[1:4]:
            train_step(run, batch, run.batches.augmented(batch))
    finally:
        torch.cuda.set_sync_debug_mode("default")
        run.recorder.close()
