"""The encoder, the losses against their definitions, mining, and checkpoints that survive whatever happens."""

import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from checkpoint import (
    CHECKPOINT_FORMAT,
    Checkpoint,
    build_encoder,
    encoder_state,
    load_checkpoint,
    load_encoder,
    save_checkpoint,
)
from cli import UserError
from conftest import REPO, save_untrained
from devices import pick_device
from model import (
    Encoder,
    EncoderConfig,
    LossConfig,
    batch_loss,
    build_network,
    mined_negatives,
    ntxent_loss,
    softpn_loss,
    triplet_loss,
    vicreg_penalty,
)
from vectors import rank_me, triplet_accuracy


def unit(*rows: tuple[float, ...]) -> torch.Tensor:
    return F.normalize(torch.tensor(rows, dtype=torch.float32), dim=1)


@pytest.fixture
def vectors() -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return F.normalize(torch.randn(24, 3, 16, generator=generator), dim=2)


@pytest.fixture
def far_places() -> torch.Tensor:
    """Every sample 100 tiles from the next; its positive 1 tile, its negative 50 tiles away."""
    anchors = torch.arange(24)[:, None, None] * torch.tensor([100.0, 0.0])
    return anchors + torch.tensor([[0.0, 0.0], [1.0, 0.0], [50.0, 0.0]])


# --- encoder -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "inputs"), [(32, 512), (96, 4608)])
def test_encoder_takes_any_multiple_of_32(size, inputs):
    encoder = Encoder(EncoderConfig(embedding_dim=24, tile_size=size)).eval()
    vectors = encoder(torch.rand(3, 12, size, size))
    assert vectors.shape == (3, 24) and vectors.dtype == torch.float32
    assert torch.allclose(vectors.norm(dim=1), torch.ones(3))
    assert encoder.head[1][0].in_features == inputs


def test_encoder_is_the_published_one_at_256_px():
    with torch.device("meta"):
        encoder = Encoder(EncoderConfig())
    convolutions = [m for m in encoder.modules() if isinstance(m, torch.nn.Conv2d)]
    linear = [(m.in_features, m.out_features) for m in encoder.modules() if isinstance(m, torch.nn.Linear)]
    assert [(m.in_channels, m.out_channels) for m in convolutions] == [
        (12, 64), (64, 128), (128, 256), (256, 512), (512, 512),
    ]  # fmt: skip
    assert linear == [(32768, 1024), (1024, 512), (512, 128)]


def test_an_untrained_encoder_tells_tiles_apart():
    torch.manual_seed(0)
    vectors = Encoder(EncoderConfig(embedding_dim=32, tile_size=32, dropout=0.0))(torch.rand(64, 12, 32, 32))
    assert rank_me(vectors.detach()) > 8


def test_a_tile_size_that_does_not_fit_is_refused_with_one_that_does():
    with pytest.raises(UserError, match="multiple of 32; try --tile_size 96"):
        EncoderConfig(tile_size=100)


def test_a_device_that_is_not_there_is_refused():
    missing = "mps" if not torch.backends.mps.is_available() else "cuda"
    with pytest.raises(UserError, match="--device cpu"):
        pick_device(missing)


# --- losses ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("margin", [0.05, 0.2, 1.0])
def test_triplet_loss_equals_torch(vectors, margin):
    ours = triplet_loss(*vectors.unbind(1), margin).loss.mean()
    assert torch.allclose(ours, torch.nn.TripletMarginLoss(margin)(*vectors.unbind(1)))


def test_softpn_by_hand():
    anchor, positive, negative = unit((1, 0)), unit((0, 1)), unit((-1, 0))
    terms = softpn_loss(anchor, positive, negative, margin=0.2)
    # d(a, p) = sqrt 2; d(a, n) = 2; d(p, n) = sqrt 2, the smaller: sigmoid(0)^2
    assert torch.allclose(terms.loss, torch.tensor([0.25]), atol=1e-5)
    terms = softpn_loss(anchor, anchor, negative, margin=0.2)  # sigmoid(0 - 2)^2
    assert torch.allclose(terms.loss, torch.tensor([0.01420]), atol=1e-4) and not terms.active
    steep = softpn_loss(anchor, anchor, negative, margin=0.2, scale=4.0)  # sigmoid(-8)^2
    assert steep.loss < 1e-6


def test_usage_counts_triplets(vectors):
    terms = triplet_loss(*vectors.unbind(1), margin=0.2)
    gradients = []
    for anchor, positive, negative in vectors:
        anchor = anchor.clone().requires_grad_()
        F.triplet_margin_loss(anchor[None], positive[None], negative[None], margin=0.2).backward()
        gradients.append(bool(anchor.grad.any()))
    assert terms.active.tolist() == gradients and 0 < sum(gradients) < len(gradients)


@pytest.mark.parametrize("loss_type", ["triplet", "softpn", "ntxent"])
@pytest.mark.parametrize("mining", ["random", "semi-hard", "hard"])
def test_identical_tiles_give_finite_gradients(loss_type, mining):
    same = unit((1, 2, 3)).expand(4, 3, 3).clone().requires_grad_()
    config = LossConfig(loss_type=loss_type, mining=mining, vicreg_weight=1.0)
    batch_loss(config, same, torch.zeros(4, 3, 2), 2, 10).loss.mean().backward()
    assert torch.isfinite(same.grad).all()


def test_ntxent_is_cross_entropy_when_all_others_are_negatives(vectors, far_places):
    pairs, places = vectors[:, :2], far_places[:, :2]
    z = pairs.flatten(0, 1)
    logits = (z @ z.T / 0.1).fill_diagonal_(-torch.inf)
    expected = F.cross_entropy(logits, torch.arange(len(z)) ^ 1)
    ours = ntxent_loss(pairs, places, near=2, far=10, temperature=0.1, margin=0.2)
    assert torch.allclose(ours.loss.mean(), expected, atol=1e-5)


def test_ntxent_leaves_out_what_is_neither_near_nor_far(vectors, far_places):
    pairs, places = vectors[:2, :2].clone(), far_places[:2, :2].clone()
    places[1] = places[0] + torch.tensor([5.0, 0.0])  # between near and far: no negatives at all
    assert ntxent_loss(pairs, places, 2, 10, 0.1, 0.2).loss.max() == 0
    places[1] = places[0] + torch.tensor([1.0, 0.0])  # near: two more positives, still no negative
    assert ntxent_loss(pairs, places, 2, 10, 0.1, 0.2).loss.max() == 0
    places[1] = places[0] + torch.tensor([30.0, 0.0])
    assert ntxent_loss(pairs, places, 2, 10, 0.1, 0.2).loss.min() > 0


@pytest.mark.parametrize("loss_type", ["triplet", "softpn"])
def test_mining_takes_the_nearest_that_lies_far_enough(vectors, far_places, loss_type):
    places = far_places.clone()
    places[5:9] = places[0]  # these samples are neighbours of the first one
    for mining in ("hard", "semi-hard"):
        config = LossConfig(loss_type=loss_type, mining=mining)
        chosen = mined_negatives(config, vectors, places, far=10)
        for i in range(len(vectors)):
            assert torch.equal(chosen[i], _mined_by_loop(config, vectors, places, i))


def _mined_by_loop(config: LossConfig, vectors: torch.Tensor, places: torch.Tensor, i: int) -> torch.Tensor:
    anchor, positive, drawn = vectors[i]
    best, best_distance = drawn, torch.inf
    for j, k in np.ndindex(*vectors.shape[:2]):
        own = (j, k) == (i, 2)
        if not own and (places[i, 0] - places[j, k]).abs().max() < 10:
            continue
        distance = (anchor - vectors[j, k]).norm()
        if config.loss_type == "softpn":
            distance = min(distance, (positive - vectors[j, k]).norm())
        if config.mining == "semi-hard" and distance <= (anchor - positive).norm():
            continue
        if distance < best_distance:
            best, best_distance = vectors[j, k], distance
    return best


def test_hard_mining_never_lowers_the_loss(vectors, far_places):
    drawn, mined = (
        batch_loss(LossConfig(loss_type="triplet", mining=mining), vectors, far_places, 2, 10).loss
        for mining in ("random", "hard")
    )
    assert (mined >= drawn - 1e-5).all() and mined.mean() > drawn.mean()


def test_vicreg_tells_spread_from_collapse():
    generator = torch.Generator().manual_seed(0)
    spread = F.normalize(torch.randn(4000, 8, generator=generator), dim=1)
    line = F.normalize(torch.randn(4000, 1, generator=generator) * torch.ones(8) + 0.01 * spread, dim=1)
    assert vicreg_penalty(spread) < 0.02 < 0.2 < vicreg_penalty(line)
    assert vicreg_penalty(spread[:1].expand(50, 8)) > 0.9


def test_rank_me_counts_directions():
    assert rank_me(torch.eye(16)) == pytest.approx(16, abs=1e-3)
    assert rank_me(torch.ones(50, 16)) == pytest.approx(1, abs=1e-3)


def test_triplet_accuracy_by_hand():
    anchor, near, far = unit((1, 0), (1, 0)), unit((1, 0.1), (0, 1)), unit((0, 1), (1, 0.1))
    assert triplet_accuracy(anchor.numpy(), near.numpy(), far.numpy()) == 0.5


# --- checkpoints -------------------------------------------------------------------------------------------


def test_a_checkpoint_alone_rebuilds_the_encoder(tmp_path):
    encoder = build_network(EncoderConfig(embedding_dim=8, tile_size=32, dropout=0.3))
    encoder(torch.rand(8, 12, 32, 32))  # moves the running statistics
    path = tmp_path / "a.pth"
    save_checkpoint(path, Checkpoint(dataclasses.asdict(encoder.config), encoder_state(encoder), epoch=3))
    rebuilt, checkpoint = load_encoder(path)
    tiles = torch.rand(4, 12, 32, 32)
    assert torch.allclose(rebuilt(tiles), encoder.eval()(tiles), atol=1e-5)
    assert checkpoint.epoch == 3 and checkpoint.tile_size == 32
    assert list(torch.load(path, weights_only=True)["layers"])[:2] == ["natural-features", "boundaries"]


def test_the_key_names_the_weights_and_nothing_else(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        save_untrained(tmp_path / f"{name}.pth", seed=seed)
    a, b, c = (load_checkpoint(tmp_path / f"{name}.pth") for name in "abc")
    assert a.key() == dataclasses.replace(b, epoch=7, metrics={"loss": 1.0}).key() != c.key()
    assert a.key() != dataclasses.replace(a, shrink="max").key()


def test_a_checkpoint_of_the_earlier_published_encoder_loads(tmp_path):
    """Its settings name no architecture, and a profile of 0 numbers."""
    encoder = build_network(EncoderConfig(embedding_dim=8, tile_size=32)).eval()
    settings = {name: value for name, value in vars(encoder.config).items() if name != "architecture"}
    save_checkpoint(tmp_path / "a.pth", Checkpoint(settings | {"profile_dims": 0}, encoder_state(encoder)))
    tiles = torch.rand(3, 12, 32, 32)
    rebuilt, checkpoint = load_encoder(tmp_path / "a.pth")
    torch.testing.assert_close(rebuilt(tiles), encoder(tiles))
    assert not checkpoint.uses_surroundings


def test_a_checkpoint_with_a_profile_names_the_command_that_trains_again(tmp_path):
    encoder = build_network(EncoderConfig(embedding_dim=8, tile_size=32))
    settings = vars(encoder.config) | {"embedding_dim": 13, "profile_dims": 5}
    save_checkpoint(tmp_path / "a.pth", Checkpoint(settings, encoder_state(encoder)))
    with pytest.raises(UserError, match=r"a\.pth was trained with --profile_dims.*train.py --preset recommended"):
        load_checkpoint(tmp_path / "a.pth")


def test_a_recommended_checkpoint_of_an_earlier_form_names_the_command_that_trains_again(tmp_path):
    """It saw fewer channels of the surroundings."""
    encoder = build_network(EncoderConfig(embedding_dim=8, tile_size=32, architecture="multiscale"))
    name, state = "surround_trunks.0.levels.0.brightness.weight", encoder_state(encoder)
    state[name] = state[name][:, : 37 * 4].clone()
    save_checkpoint(tmp_path / "a.pth", Checkpoint(vars(encoder.config), state))
    with pytest.raises(UserError, match=r"a\.pth.*not written by this version.*train.py --preset recommended"):
        load_checkpoint(tmp_path / "a.pth")


@pytest.mark.slow
def test_wrapped_encoders_are_saved_under_plain_names():
    encoder = build_network(EncoderConfig(embedding_dim=8, tile_size=32))
    wrapped = torch.nn.DataParallel(torch.compile(encoder))
    state = encoder_state(wrapped)
    assert list(state) == list(encoder.state_dict())
    assert {name.split(".")[0] for name in state} == {"blocks", "head"}
    build_encoder(Checkpoint(dataclasses.asdict(encoder.config), state))


@pytest.mark.parametrize("where", [0, 0.3, 0.6, 0.97, "cut", "empty"])
def test_a_damaged_checkpoint_is_refused_naming_the_newest_whole_one(tmp_path, where):
    for age, name in ((30, "old"), (20, "good"), (10, "last")):
        save_untrained(tmp_path / f"{name}.pth")
        os.utime(tmp_path / f"{name}.pth", (time.time() - age,) * 2)
    path = tmp_path / "last.pth"
    data = bytearray(path.read_bytes())
    if where == "cut":
        del data[len(data) // 2 :]
    elif where == "empty":
        data.clear()
    else:
        for i in range(int(where * len(data)), int(where * len(data)) + 64):
            data[i] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"last.pth is damaged.*good\.pth"):
        load_checkpoint(path)


def test_what_is_no_checkpoint_is_refused(tmp_path):
    torch.save({"model": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(UserError, match="not a checkpoint of this project"):
        load_checkpoint(tmp_path / "other.pth")
    with pytest.raises(UserError, match="no checkpoint at"):
        load_checkpoint(tmp_path / "missing.pth")
    save_untrained(tmp_path / "a.pth")
    checkpoint = load_checkpoint(tmp_path / "a.pth")
    save_checkpoint(tmp_path / "new.pth", dataclasses.replace(checkpoint, format_version=99))
    with pytest.raises(UserError, match="format 99"):
        load_checkpoint(tmp_path / "new.pth")
    save_checkpoint(tmp_path / "layers.pth", dataclasses.replace(checkpoint, layers=checkpoint.layers[::-1]))
    with pytest.raises(UserError, match="was trained on the layers power, roads"):
        load_checkpoint(tmp_path / "layers.pth")


class Payload:
    def __reduce__(self):
        return os.mkdir, ("owned",)


def test_code_in_a_checkpoint_never_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"format_version": CHECKPOINT_FORMAT, "encoder_config": {}, "encoder_state": Payload()}, "evil.pth")
    with pytest.raises(UserError):
        load_checkpoint("evil.pth")
    assert not Path("owned").exists()


SAVE_FOREVER = """
import sys
sys.path.insert(0, sys.argv[1])
from checkpoint import load_checkpoint, save_checkpoint
checkpoint = load_checkpoint(sys.argv[2])
print("ready", flush=True)
while True:
    checkpoint.epoch += 1
    save_checkpoint(sys.argv[2], checkpoint)
"""


@pytest.mark.slow
def test_a_kill_at_any_moment_leaves_a_whole_checkpoint(tmp_path):
    path = tmp_path / "last.pth"
    save_untrained(path)
    epoch = 0
    for i in range(6):
        command = [sys.executable, "-c", SAVE_FOREVER, str(REPO), str(path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
            writer.stdout.readline()
            time.sleep(0.3 + 0.037 * i)
            writer.send_signal(signal.SIGKILL)
        assert load_checkpoint(path).epoch >= epoch
        epoch = load_checkpoint(path).epoch
    assert epoch > 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_checkpoints_travel_between_cuda_and_cpu(tmp_path):
    encoder = build_network(EncoderConfig(embedding_dim=8, tile_size=32)).cuda()
    save_checkpoint(tmp_path / "a.pth", Checkpoint(dataclasses.asdict(encoder.config), encoder_state(encoder)))
    tiles = torch.rand(4, 12, 32, 32)
    on_cpu, _ = load_encoder(tmp_path / "a.pth", "cpu")
    on_gpu, _ = load_encoder(tmp_path / "a.pth", "cuda")
    assert torch.allclose(on_cpu(tiles), on_gpu(tiles.cuda()).cpu(), atol=1e-3)
