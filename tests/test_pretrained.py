"""The bundled encoder: written from a checkpoint, checked when read, used where no checkpoint is given."""

import json

import numpy as np
import pytest
import torch

import pretrained
from checkpoint import build_encoder, load_checkpoint
from cli import ModelFlags, UserError
from conftest import REPO, save_untrained
from pretrained import CARD, CONFIG, WEIGHTS, load_model, load_pretrained, save_pretrained
from tile_levels import SURROUND_CHANNELS


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "model.pth"
    save_untrained(path, 64, 32, architecture="multiscale")
    return path


@pytest.fixture
def folder(tmp_path, checkpoint):
    save_pretrained(tmp_path / "bundle", load_checkpoint(checkpoint))
    return tmp_path / "bundle"


def test_the_bundle_gives_the_checkpoints_vectors(folder, checkpoint):
    original, bundled = load_checkpoint(checkpoint), load_pretrained(folder)
    rng = torch.Generator().manual_seed(0)
    tile = torch.randint(256, (16, 12, 64, 64), generator=rng, dtype=torch.uint8)
    around = [torch.randint(256, (16, SURROUND_CHANNELS, 64, 64), generator=rng, dtype=torch.uint8) for _ in range(2)]
    with torch.inference_mode():
        a, b = (build_encoder(model)(tile, *around) for model in (original, bundled))
    assert (a * b).sum(dim=1).min() > 0.9999
    assert bundled.tile_size == 64 and bundled.zoom == original.zoom and bundled.uses_surroundings
    size = (folder / WEIGHTS).stat().st_size
    weights = sum(t.numel() for t in original.encoder_state.values())
    assert size < 2.5 * weights, "matrices are stored in half precision"
    assert load_pretrained(folder).key() == bundled.key()


def test_the_card_has_what_hubs_read_and_is_kept(folder, checkpoint):
    card = (folder / CARD).read_text()
    assert card.startswith("---\nlicense:") and 'LocationEncoder.load("bundle").read(' in card
    (folder / CARD).write_text("my words")
    save_pretrained(folder, load_checkpoint(checkpoint))
    assert (folder / CARD).read_text() == "my words"


def test_config_names_no_path_of_the_machine_that_trained(folder):
    config = json.loads((folder / CONFIG).read_text())
    assert "tiles_root" not in config["training"] and "cache_dir" not in config["training"]


def flip(path, at):
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


DAMAGE = {
    "one bit of the weights": (lambda f: flip(f / WEIGHTS, -1000), "SHA-256"),
    "weights cut short": (lambda f: (f / WEIGHTS).write_bytes((f / WEIGHTS).read_bytes()[:-9]), "SHA-256"),
    "no weights": (lambda f: (f / WEIGHTS).unlink(), "holds no encoder.safetensors"),
    "no config": (lambda f: (f / CONFIG).unlink(), "holds no config.json"),
    "config cut short": (lambda f: (f / CONFIG).write_text((f / CONFIG).read_text()[:40]), "damaged"),
    "another zoom": (lambda f: change(f, zoom=16), "was changed"),
    "another shrink": (lambda f: change(f, shrink="max"), "was changed"),
    "a later format": (lambda f: change(f, format_version=99), "format 99"),
    "an entry lost": (lambda f: change(f, encoder=None), "was changed"),
}


def change(folder, **values):
    config = json.loads((folder / CONFIG).read_text()) | values
    (folder / CONFIG).write_text(json.dumps(config))


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_told(folder, kind):
    damage, message = DAMAGE[kind]
    damage(folder)
    with pytest.raises(UserError, match=message):
        load_pretrained(folder)


def test_a_large_encoder_is_not_bundled(tmp_path):
    save_untrained(tmp_path / "large.pth", 128, 128)
    with pytest.raises(UserError, match="more than 15 MB"):
        save_pretrained(tmp_path / "out", load_checkpoint(tmp_path / "large.pth"))
    assert not (tmp_path / "out").exists()


def test_it_is_used_where_no_checkpoint_is(folder, tmp_path, monkeypatch, capsys, checkpoint):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pretrained, "PRETRAINED", folder)
    assert load_model(ModelFlags.model_path).key() == load_pretrained(folder).key()
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "bundled encoder" in said
    with pytest.raises(UserError, match=r"no checkpoint at other\.pth"):
        load_model("other.pth")
    ModelFlags.model_path.parent.mkdir()
    ModelFlags.model_path.write_bytes(checkpoint.read_bytes())
    assert load_model(ModelFlags.model_path).key() == load_checkpoint(checkpoint).key()
    assert not capsys.readouterr().err
    assert load_model(folder).key() == load_pretrained(folder).key()


def test_the_command_converts_a_checkpoint(run_script, checkpoint, tmp_path):
    said = run_script("pretrained.py", "--model_path", checkpoint, "--output_dir", tmp_path / "out").stdout
    assert "MB of weights" in said
    assert load_pretrained(tmp_path / "out").encoder_config["embedding_dim"] == 32
    run_script("pretrained.py", "--model_path", "missing.pth", check=2)


@pytest.mark.skipif(not (REPO / "pretrained" / CONFIG).is_file(), reason="no bundled encoder in this checkout")
def test_the_bundled_encoder_is_whole():
    bundled = load_pretrained()
    assert bundled.uses_surroundings and (REPO / "pretrained" / WEIGHTS).stat().st_size <= 15_000_000
    assert np.isfinite(list(map(float, bundled.metrics.values()))).all()
