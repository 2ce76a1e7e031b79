"""What people feed the scripts: typos, wrong folders, full disks, damage; it ends in a sentence and breaks nothing."""

import argparse
import dataclasses
import io
import json
import os
import pickle
import random
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import cli
import model
import tile_files
from cache_files import DamagedFile, load_cache
from checkpoint import load_checkpoint, save_checkpoint
from cli import TilesFlags, UserError, local_path
from conftest import make_tiles, png_bytes, save_untrained, script_env
from embeddings import load_city
from flag_tables import SCRIPTS, parser_of
from fork_host import REPO, Host
from layers import LAYERS
from osm_file import cut_extract
from render_tiles import SAMPLE_EXTRACT
from tile_files import read_tile
from tile_store import open_store

BOX = "71.4280,51.1540,71.4330,51.1570"  # 2 x 2 tiles in the middle of the sample city
SMALL = ("--tile_size", 32, "--neg_radius", 4, "--batch_size", 4, "--max_samples", 8, "--val_samples", 8)
SMALL += ("--embedding_dim", 8, "--epochs", 1, "--num_workers", 1, "--figure_every", 0, "--run_name", "run")


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    host = Host(tmp_path_factory.mktemp("host"))
    yield host
    host.close()


@pytest.fixture(scope="module")
def warm(host: Host, tiny_tiles: Path, tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose cache/ holds the tiny city's pack, vectors, index and projections: copy it, never write to it."""
    folder = tmp_path_factory.mktemp("warm")
    host.run("precompute_embeddings.py", *city(tiny_tiles, tiny_checkpoint), *QUICK, cwd=folder)
    return folder


QUICK = ("--annoy_metrics", "angular", "--dr_algorithms", "PCA", "--annoy_trees", 5)


def city(tiles: Path, checkpoint: Path) -> tuple:
    return "--tiles_root", tiles, "--model_path", checkpoint, "--device", "cpu"


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder but locks."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.suffix != ".lock")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def damage(data: bytes, rng: random.Random) -> bytes:
    """The bytes with something wrong: a flipped bit, a few bytes overwritten, a piece cut out, or the end gone."""
    kind, at = rng.randrange(4), rng.randrange(len(data))
    if kind == 0:
        return data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]
    if kind == 1:
        return data[:at] + rng.randbytes(rng.randint(1, 16)) + data[at + 16 :]
    if kind == 2:
        return data[:at] + data[at + rng.randint(1, 512) :]
    return data[:at]


# --- flags -------------------------------------------------------------------------------------------------


def flags_of(script: str) -> list[argparse.Action]:
    parser = parser_of(script)
    commands = [action.choices for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    parsers = [parser, *(each for choices in commands for each in choices.values())]
    actions = {
        action.option_strings[0]: action for each in parsers for action in each._actions if action.option_strings
    }
    shown = {name: action for name, action in actions.items() if action.help != argparse.SUPPRESS}
    return [action for name, action in shown.items() if len(name) > 4 and name != "--help"]


def misspelt(word: str, rng: random.Random) -> str:
    """A slip of the fingers: two letters swapped, one left out, one doubled."""
    at = rng.randrange(1, len(word) - 1)
    slips = (word[: at - 1] + word[at] + word[at - 1] + word[at + 1 :], word[:at] + word[at + 1 :])
    return rng.choice([*slips, word[:at] + word[at] + word[at:]])


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_slip_in_any_flag_gets_the_right_word(script, capsys, tally):
    rng, parser, flags = random.Random(script), parser_of(script), flags_of(script)
    names = {name for action in flags for name in action.option_strings}
    command = ["html"] if script == "run_interactive_viz.py" else []
    for action in flags:
        name = action.option_strings[0]
        typo = "--" + misspelt(name[2:], rng)
        if typo in names:
            continue
        ended = refused(parser, [*command, typo], capsys)
        assert f"did you mean '{name}'" in ended, f"{typo}: {ended}"
        tally["typos in flags", "got the right word and exit code 2"] += 1


@pytest.mark.parametrize("script", [name for name in SCRIPTS if name != "run_interactive_viz.py"])
def test_a_value_of_the_wrong_kind_is_refused(script, capsys, tally):
    parser = parser_of(script)
    for action in flags_of(script):
        if action.nargs == 0 or (issubclass(as_type(action), str | os.PathLike) and not action.choices):
            continue
        for value in ("abc", "", "nan", "-inf", "1e400", "-1", "٣x", "0x10"):
            said = refused(parser, [f"{action.option_strings[0]}={value}"], capsys)
            assert action.option_strings[0] in said and "Traceback" not in said
            tally["flag values of the wrong kind", "refused in a sentence, exit code 2"] += 1


def as_type(action: argparse.Action) -> type:
    """The type of a flag's values; of those that a function parses, nothing in particular."""
    kind = Path if action.type is local_path else action.type or str
    return kind if isinstance(kind, type) else object


def refused(parser: argparse.ArgumentParser, args: list[str], capsys) -> str:
    with pytest.raises((SystemExit, UserError)) as ended:  # the app shows the latter on its page
        parser.parse_args(args)
        pytest.fail(f"{args} were taken")
    if isinstance(ended.value, UserError):
        return str(ended.value)
    assert ended.value.code == 2, args
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("script", "args"),
    [
        ("render_tiles.py", [SAMPLE_EXTRACT, "--zoom", 4294967295]),
        ("render_tiles.py", [SAMPLE_EXTRACT, "--zoom", 40]),
        ("render_tiles.py", [SAMPLE_EXTRACT, "--bbox", BOX, "--tile_px", 4294967295, "--jobs", 1]),
        ("render_tiles.py", [SAMPLE_EXTRACT, "--bbox", "1e300,nan,2,3"]),
        ("data_loader.py", ["--zoom", 4294967295]),
        ("data_loader.py", ["--tile_size", 4294967264]),
        ("data_loader.py", ["--pos_radius", 4294967295]),
        ("train.py", ["--tile_size", 4294967264]),
        ("train.py", ["--embedding_dim", 4294967295]),
        ("train.py", ["--batch_size", 4294967295]),
        ("train.py", ["--neg_radius", 4294967295]),
        ("train.py", ["--tile_size", 33]),
        ("run_interactive_viz.py", ["streamlit", "--port", 4294967295]),
    ],
    ids=lambda value: " ".join(map(str, value[-2:])) if isinstance(value, list) else value,
)
def test_numbers_beyond_all_measure_are_refused(script, args, host, tiny_tiles, tmp_path, tally):
    place = () if script in ("render_tiles.py", "run_interactive_viz.py") else ("--tiles_root", tiny_tiles)
    host.run(script, *args, *place, cwd=tmp_path, code=(1, 2))
    tally["numbers beyond all measure", "refused in a sentence"] += 1


# --- folders and files that are not what they should be ----------------------------------------------------

MODEL_SCRIPTS = ("precompute_embeddings.py", "visualize.py", "interactive_visualizer.py", "evaluate.py")
OUTPUTS = [
    ("data_loader.py", "--cache_dir"),
    ("train.py", "--output_dir"),
    ("train.py", "--log_dir"),
    ("precompute_embeddings.py", "--cache_dir"),
    ("precompute_embeddings.py", "--export"),
    ("interactive_visualizer.py", "--output_dir"),
]


def labels(folder: Path) -> tuple:
    """A flag that evaluate.py cannot do without."""
    path = folder / "labels.csv"
    path.write_text("x,y,price\n76600,44200,1\n", encoding="utf-8")
    return "--labels", path


@pytest.mark.parametrize("script", ["data_loader.py", "train.py", *MODEL_SCRIPTS])
def test_a_tiles_folder_that_is_none(script, host, tiny_checkpoint, tmp_path, tally):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("x")
    half = make_tiles(tmp_path / "half", nx=3, ny=3, px=32)
    for layer in LAYERS[6:]:
        shutil.rmtree(half / layer)
    apart = make_tiles(tmp_path / "apart", nx=3, ny=3, px=32)
    shutil.move(apart / "roads/17/76600", apart / "roads/17/99999")
    shutil.rmtree(apart / "roads/17/76601")
    shutil.rmtree(apart / "roads/17/76602")
    model = ("--model_path", tiny_checkpoint, "--device", "cpu") if script in MODEL_SCRIPTS else ()
    more = labels(tmp_path) if script == "evaluate.py" else ()
    for name, words in (
        ("missing", "no folder at"),
        ("empty", "12 of 12 layers"),
        ("file", "a file, not a folder"),
        ("half", "6 of 12 layers"),
        ("apart", "no coordinates are common"),
    ):
        ended = host.run(script, "--tiles_root", tmp_path / name, *model, *more, cwd=tmp_path, code=2)
        assert words in ended.err
        tally["tiles folders missing, empty or half there", "refused in a sentence, exit code 2"] += 1


@pytest.mark.parametrize("script", MODEL_SCRIPTS)
def test_a_checkpoint_that_is_none(script, host, tiny_tiles, tmp_path, tally):
    (tmp_path / "folder.pth").mkdir()
    (tmp_path / "empty.pth").touch()
    Image.new("L", (8, 8)).save(tmp_path / "picture.pth", "PNG")
    more = labels(tmp_path) if script == "evaluate.py" else ()
    for name in ("missing.pth", "folder.pth", "empty.pth", "picture.pth", "a" * 300):
        ended = host.run(script, *city(tiny_tiles, tmp_path / name), *more, cwd=tmp_path, code=(1, 2))
        assert name in ended.err
        tally["checkpoints missing or of another kind", "refused in a sentence"] += 1


@pytest.mark.parametrize(("script", "flag"), OUTPUTS)
def test_a_file_where_a_folder_should_be(script, flag, host, tiny_tiles, tiny_checkpoint, warm, tmp_path, tally):
    (tmp_path / "file").write_text("mine")
    args = (*ready(script, tiny_tiles, tiny_checkpoint, warm, tmp_path), flag, target(tmp_path / "file", flag))
    ended = host.run(script, *args, cwd=tmp_path, code=(1, 2))
    assert "file" in ended.err and (tmp_path / "file").read_text() == "mine"
    tally["a file where a folder should be", "refused in a sentence, the file as it was"] += 1


@pytest.mark.parametrize(("script", "flag"), OUTPUTS)
def test_a_folder_nobody_may_write_to(script, flag, host, tiny_tiles, tiny_checkpoint, warm, tmp_path, tally):
    closed = tmp_path / "closed"
    closed.mkdir()
    (closed / "kept").write_text("mine")
    closed.chmod(0o500)
    args = (*ready(script, tiny_tiles, tiny_checkpoint, warm, tmp_path), flag, target(closed, flag))
    ended = host.run(script, *args, cwd=tmp_path, code=(1, 2))
    assert "ermission" in ended.err and str(closed) in ended.err
    assert [path.name for path in closed.iterdir()] == ["kept"]
    tally["read-only folders", "refused in a sentence, nothing changed"] += 1


def ready(script: str, tiles: Path, checkpoint: Path, warm: Path, folder: Path) -> tuple:
    """Arguments with which a script has little left to do but to write."""
    shutil.copytree(warm / "cache", folder / "cache")
    if script == "train.py":
        return ("--tiles_root", tiles, *SMALL)
    if script == "data_loader.py":
        return ("--tiles_root", tiles)
    if script == "interactive_visualizer.py":
        return (*city(tiles, checkpoint), "--dr_algorithms", "PCA", "--no_reasons", "--max_tiles", 20)
    return (*city(tiles, checkpoint), *QUICK)


def target(path: Path, flag: str) -> Path:
    return path / "city.parquet" if flag == "--export" else path


def test_unreadable_files_are_named(host, tiny_checkpoint, tmp_path, tally):
    tiles = make_tiles(tmp_path / "tiles", nx=3, ny=3, px=32)
    model = shutil.copy(tiny_checkpoint, tmp_path / "model.pth")
    extract = shutil.copy(SAMPLE_EXTRACT, tmp_path / "city.osm.pbf")
    for path in (model, extract, tiles / "roads/17/76600"):
        Path(path).chmod(0)
    for script, args in (
        ("render_tiles.py", (extract, "--tiles_root", tmp_path / "new")),
        ("data_loader.py", ("--tiles_root", tiles)),
        ("precompute_embeddings.py", city(tiles, model)),
    ):
        ended = host.run(script, *args, cwd=tmp_path, code=(1, 2))
        assert "ermission" in ended.err or "damaged" in ended.err
        tally["files that may not be read", "refused in a sentence"] += 1
    (tiles / "roads/17/76600").chmod(0o700)


def test_a_read_only_cache_that_holds_everything_is_enough(host, tiny_tiles, tiny_checkpoint, warm, tmp_path):
    cache = shutil.copytree(warm / "cache", tmp_path / "cache")
    for path in [*cache.rglob("*"), cache]:
        path.chmod(0o500 if path.is_dir() else 0o400)
    ended = host.run("precompute_embeddings.py", *city(tiny_tiles, tiny_checkpoint), *QUICK, cwd=tmp_path)
    assert "everything was cached" in ended.out
    for path in [cache, *(path for path in cache.rglob("*") if path.is_dir())]:
        path.chmod(0o700)


# --- a disk that is full -----------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """`small_disk(kilobytes)`: a disk of its own; skips the test where none can be mounted."""
    place = tmp_path / "disk"

    def mount(kilobytes: int) -> Path:
        place.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(place)]
        if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
            pytest.skip("a small disk can only be mounted by root")
        return place

    yield mount
    if place.is_mount():
        subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.slow
@pytest.mark.parametrize("kilobytes", [64, 700, 2000])
def test_a_full_disk_is_said_and_what_was_there_stays(
    kilobytes, host, tiny_tiles, tiny_checkpoint, warm, small_disk, tmp_path, tally
):
    disk = small_disk(kilobytes)
    (disk / "kept").write_text("mine")
    annoy = ("--annoy_metrics", "angular", "--annoy_trees", 300, "--dr_algorithms", "PCA")
    known = (*city(tiny_tiles, tiny_checkpoint), "--cache_dir", shutil.copytree(warm / "cache", tmp_path / "cache"))
    for script, args in (
        ("data_loader.py", ("--tiles_root", tiny_tiles, "--tile_size", 64, "--cache_dir", disk / "cache")),
        ("render_tiles.py", (SAMPLE_EXTRACT, "--bbox", BOX, "--tiles_root", disk / "tiles", "--jobs", 1)),
        ("train.py", ("--tiles_root", tiny_tiles, *SMALL, "--output_dir", disk / "a", "--log_dir", disk / "b")),
        ("precompute_embeddings.py", (*city(tiny_tiles, tiny_checkpoint), *annoy, "--cache_dir", disk / "cache")),
        ("precompute_embeddings.py", (*known, "--export", disk / "a.csv")),
        ("interactive_visualizer.py", (*known, "--dr_algorithms", "PCA", "--output_dir", disk)),
    ):
        ended = host.run(script, *args, cwd=tmp_path, code=(0, 1))
        if ended.code:
            assert "space" in ended.err, ended.err
        tally[
            "a full disk", "said in a sentence, exit code 1" if ended.code else "nothing: what was written fitted"
        ] += 1
        assert (disk / "kept").read_text() == "mine"
        assert not list(disk.rglob(".*.tmp*")), "half a file was left"
        for path in [path for path in disk.iterdir() if path.name != "kept"]:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


@pytest.mark.slow
def test_an_index_that_does_not_fit_on_the_disk(host, tiny_tiles, tiny_checkpoint, warm, small_disk, tmp_path, tally):
    """Annoy writes through memory: where the disk is full the system would end the process without a word."""
    kept = sum(path.stat().st_blocks * 512 for path in (warm / "cache").rglob("*") if path.suffix != ".ann")
    cache = shutil.copytree(warm / "cache", small_disk(kept // 1024 + 200) / "cache", dirs_exist_ok=True)
    before = contents(cache)
    flags = ("--annoy_metrics", "euclidean", "--annoy_trees", 2000, "--skip_projections", "--cache_dir", cache)
    ended = host.run("precompute_embeddings.py", *city(tiny_tiles, tiny_checkpoint), *flags, cwd=tmp_path, code=1)
    assert "space" in ended.err and contents(cache) == before
    tally["a full disk", "said in a sentence, exit code 1"] += 1


@pytest.mark.parametrize("script", ["data_loader.py", "train.py", "precompute_embeddings.py"])
def test_a_disk_that_takes_no_large_files(script, host, tiny_tiles, tiny_checkpoint, tmp_path, tally):
    """As on a USB stick, where no file can be larger than 4 GB."""
    args = (*city(tiny_tiles, tiny_checkpoint), *QUICK) if script.startswith("pre") else ("--tiles_root", tiny_tiles)
    args += SMALL if script == "train.py" else ()
    ended = host.run(script, *args, cwd=tmp_path, code=1, largest_file=40_000)
    assert "too large" in ended.err
    assert not list(tmp_path.rglob(".*.tmp*"))
    tally["a disk without room for large files", "said in a sentence, exit code 1"] += 1


# --- damaged tiles -----------------------------------------------------------------------------------------


def drawings() -> list[bytes]:
    """PNGs as people have them: grey, colours, a palette, transparent, 16 bits, one bit, with text inside."""
    rng = np.random.default_rng(5)
    image = Image.fromarray(np.kron(rng.integers(0, 256, (8, 8), dtype=np.uint8), np.ones((8, 8), np.uint8)))
    noise = Image.fromarray(rng.integers(0, 256, (64, 64), dtype=np.uint8))
    sixteen = Image.fromarray(rng.integers(0, 65536, (64, 64), dtype=np.uint16))
    forms = [image, noise, image.convert("RGB"), image.convert("P"), image.convert("1"), sixteen, image.convert("RGBA")]
    forms[-1].putalpha(noise)
    files = []
    for form in forms:
        buffer = io.BytesIO()
        form.save(buffer, "PNG")
        files.append(buffer.getvalue())
    return [*files, png_bytes(np.zeros((64, 64), np.uint8))]


def test_a_thousand_damaged_pngs_are_refused_or_read_right(tmp_path, tally):
    rng, path = random.Random(1), tmp_path / "tile.png"
    files = drawings()
    for _ in range(1000):
        data = rng.choice(files)
        path.write_bytes(data)
        whole = read_tile(path)
        path.write_bytes(damage(data, rng))
        read = tile_files.read_planes([str(path)], 64, "mean", (0, 0, 0))
        if read.failures:
            tally["damaged PNGs", "refused with the path and a reason"] += 1
            assert str(path) in read.failures[0]
        else:
            assert np.array_equal(read.planes[0], whole)
            tally["damaged PNGs", "read right all the same"] += 1


def test_damaged_tiles_of_a_city_are_counted_and_left_out_or_fatal(host, tmp_path, tally):
    rng = random.Random(2)
    tiles = make_tiles(tmp_path / "tiles", nx=12, ny=12, px=32)
    calm = open_store(tiles, 32, cache_dir=tmp_path / "calm")
    chosen = [tiles / f"roads/17/{76604 + i}/44204.png" for i in range(2)]
    for path in chosen:
        path.write_bytes(path.read_bytes()[:-20])
    ended = host.run("data_loader.py", "--tiles_root", tiles, "--tile_size", 32, cwd=tmp_path)
    assert "2 of 144 tiles have an unreadable layer" in ended.err and all(str(path) in ended.err for path in chosen)
    left = open_store(tiles, 32, cache_dir=tmp_path / "cache")
    rows = calm.grid.rows(left.tile_xy)
    assert len(left) == 142 and np.array_equal(left.tiles(np.arange(142)), calm.tiles(rows))
    tally["damaged tiles of a city, few", "listed and left out, the rest as it was"] += 2
    before = contents(tmp_path / "cache")
    for path in rng.sample(sorted(tiles.rglob("*.png")), 200):
        path.write_bytes(path.read_bytes()[: rng.randrange(60)])
    ended = host.run("data_loader.py", "--tiles_root", tiles, "--tile_size", 32, cwd=tmp_path, code=2)
    assert "more than 2%" in ended.err and len(ended.err) < 3000
    assert contents(tmp_path / "cache") == before
    tally["damaged tiles of a city, many", "refused in a sentence, the pack before as it was"] += 200


def test_strange_names_among_the_tiles_are_no_tiles(host, tmp_path, tally):
    tiles = make_tiles(tmp_path / "tiles", nx=6, ny=6, px=32)
    calm = open_store(tiles, 32, cache_dir=tmp_path / "calm").content_key
    strange = (
        "notes.txt",
        "44200.png.part",
        "007.png",
        "44200 (copy).png",
        "²³.png",
        "４４.png",
        "9" * 30 + ".png",
        "-1.png",
    )
    column = tiles / "roads/17/76601"
    for name in strange:
        (column / name).write_bytes(b"x")
    for name in ("99999999999", "２", "thumbs", "0x10"):
        (tiles / "roads/17" / name).mkdir()
        (tiles / "roads/17" / name / "44200.png").write_bytes(b"x")
    (tiles / "Thumbs.db").write_bytes(b"x")
    (tiles / "roads/17/.DS_Store").write_bytes(b"x")
    host.run("data_loader.py", "--tiles_root", tiles, "--tile_size", 32, "--neg_radius", 4, cwd=tmp_path)
    assert open_store(tiles, 32, cache_dir=tmp_path / "again").content_key == calm
    tally["stray names among the tiles", "not taken for tiles"] += len(strange) + 6


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'"x"', b"\xff\xfe", b'{"extract": 7}', b'{"extract": null}'])
def test_a_damaged_manifest(content, host, tiny_checkpoint, tmp_path, tally):
    tiles = make_tiles(tmp_path / "tiles", nx=4, ny=4, px=32)
    (tiles / "manifest.json").write_bytes(content)
    page = ("--dr_algorithms", "PCA", "--no_reasons")
    host.run("interactive_visualizer.py", *city(tiles, tiny_checkpoint), *page, cwd=tmp_path, code=(0, 2))
    render = (SAMPLE_EXTRACT, "--bbox", BOX, "--tiles_root", tiles, "--jobs", 1)
    before = contents(tiles)
    host.run("render_tiles.py", *render, cwd=tmp_path, code=2)
    assert {name: data for name, data in contents(tiles).items() if name != ".render.lock"} == before
    tally["damaged manifests", "the page is built or says so; the renderer leaves the tiles alone"] += 1


# --- damaged checkpoints -----------------------------------------------------------------------------------


@pytest.fixture
def small_encoder(monkeypatch) -> None:
    """Encoders of a few thousand weights: what surrounds the weights in a file is hit as often as they are."""
    monkeypatch.setattr(model, "BLOCK_CHANNELS", (4, 4, 4, 4, 8))
    monkeypatch.setattr(model, "FC_SIZES", (16, 8))


def same(one: object, other: object) -> bool:
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(value, other[key]) for key, value in one.items())
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


def test_a_thousand_damaged_checkpoints_are_refused_or_whole(small_encoder, tmp_path, tally):
    rng, path, good = random.Random(3), tmp_path / "best_model.pth", tmp_path / "last.pth"
    save_untrained(path)
    checkpoint = load_checkpoint(path)
    checkpoint.train_state, checkpoint.train_config = {"rng": torch.arange(9), "best": 0.5}, {"lr": 0.1}
    save_checkpoint(path, checkpoint)
    data, whole = path.read_bytes(), dataclasses.asdict(checkpoint)
    for i in range(1000):
        path.write_bytes(damage(data, rng))
        good.write_bytes(data if i % 2 else damage(data, rng))
        try:
            assert same(dataclasses.asdict(load_checkpoint(path)), whole)
            tally["damaged checkpoints", "read whole: the damage lay where nothing is kept"] += 1
        except UserError as error:
            assert str(path) in str(error) and (i % 2 == 0 or str(good) in str(error))
            tally["damaged checkpoints", "refused, naming the newest whole one beside it"] += 1


ALTERED = {
    "an old format version": {"format_version": 0},
    "a future format version": {"format_version": 99},
    "a version that is no number": {"format_version": "1.0"},
    "another layer order": {"layers": [*LAYERS[1:], LAYERS[0]]},
    "eleven layers": {"layers": list(LAYERS[1:])},
    "layers that are no list": {"layers": 5},
    "another embedding size than its weights": {"encoder_config": {"embedding_dim": 64}},
    "another tile size than its weights": {"encoder_config": {"tile_size": 64}},
    "a tile size that does not fit": {"encoder_config": {"tile_size": 33}},
    "a tile size that is text": {"encoder_config": {"tile_size": "32"}},
    "a tile size of nothing": {"encoder_config": {"tile_size": 0}},
    "other channels": {"encoder_config": {"in_channels": 3}},
    "a setting nobody knows": {"encoder_config": {"attention": True}},
    "no settings": {"encoder_config": None},
    "no weights": {"encoder_state": {}},
    "weights that are no tensors": {"encoder_state": {"head.1.0.weight": 1}},
    "weights that are no numbers": {"encoder_state": {"head.3.bias": torch.full((16,), torch.nan)}},
    "another zoom": {"zoom": 12},
    "a zoom that is text": {"zoom": "17"},
    "a way of shrinking nobody knows": {"shrink": "median"},
}


@pytest.mark.parametrize("what", ALTERED)
def test_a_checkpoint_of_another_kind_is_refused(what, host, tiny_tiles, tiny_checkpoint, tmp_path, tally):
    content = torch.load(tiny_checkpoint, weights_only=True)
    for name, value in ALTERED[what].items():
        merged = isinstance(value, dict) and value and isinstance(content[name], dict)
        content[name] = content[name] | value if merged else value
    torch.save(content, tmp_path / "other.pth")
    ended = host.run(
        "precompute_embeddings.py", *city(tiny_tiles, tmp_path / "other.pth"), *QUICK, cwd=tmp_path, code=2
    )
    assert "other.pth" in ended.err
    tally["checkpoints of another layer order, size or version", "refused in a sentence, exit code 2"] += 1


@pytest.mark.parametrize("missing", ["layers", "zoom", "shrink", "train_config", "epoch"])
def test_a_checkpoint_that_lacks_something(missing, host, tiny_tiles, tiny_checkpoint, tmp_path, tally):
    content = torch.load(tiny_checkpoint, weights_only=True)
    del content[missing]
    torch.save(content, tmp_path / "other.pth")
    ended = host.run(
        "precompute_embeddings.py", *city(tiny_tiles, tmp_path / "other.pth"), *QUICK, cwd=tmp_path, code=2
    )
    assert missing in ended.err
    tally["checkpoints of another layer order, size or version", "refused in a sentence, exit code 2"] += 1


@pytest.mark.slow
def test_resuming_from_a_state_that_is_not_whole(host, tiny_tiles, tmp_path, tally):
    host.run("train.py", "--tiles_root", tiny_tiles, *SMALL, cwd=tmp_path)
    path = tmp_path / "checkpoints/last.pth"
    before = contents(tmp_path / "checkpoints")
    content = torch.load(path, weights_only=True)
    for part, name in [("train_state", name) for name in content["train_state"]] + [("train_config", "lr")]:
        other = content | {part: {key: value for key, value in content[part].items() if key != name}}
        torch.save(other, tmp_path / "other.pth")
        code = 0 if part == "train_config" else 2
        host.run("train.py", "--resume", tmp_path / "other.pth", "--epochs", 1, "--output_dir", "out", cwd=tmp_path,
            code=code)  # fmt: skip
        tally["training states that lack something", "refused in a sentence" if code else "the default stood in"] += 1
    torch.save(content | {"train_config": content["train_config"] | {"warp": 9}}, tmp_path / "other.pth")
    ended = host.run("train.py", "--resume", tmp_path / "other.pth", cwd=tmp_path, code=2)
    assert "warp" in ended.err and contents(tmp_path / "checkpoints") == before


def test_a_damaged_log_does_not_stop_a_resumed_run(host, tiny_tiles, tmp_path, tally):
    host.run("train.py", "--tiles_root", tiny_tiles, *SMALL, cwd=tmp_path)
    log = tmp_path / "runs/run/metrics.jsonl"
    whole = log.read_text(encoding="utf-8")
    log.write_bytes(b'[]\n"x"\n{"kind": 1}\n\xff\xfe{\n' + whole.encode() + b'{"kind": "step", "st')
    further = ("--resume", "checkpoints/last.pth", "--epochs", 1, "--run_name", "run")
    host.run("train.py", *further, cwd=tmp_path)
    assert log.read_text(encoding="utf-8").startswith(whole)
    tally["damaged logs", "whole lines kept, the run went on"] += 1


# --- damaged caches ----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_damaged_caches_are_never_trusted(host, tiny_tiles, tiny_checkpoint, warm, tmp_path, tally):
    rng, cache = random.Random(4), tmp_path / "cache"
    export = ("--export", "city.csv")
    shutil.copytree(warm / "cache", cache)
    host.run("precompute_embeddings.py", *city(tiny_tiles, tiny_checkpoint), *export, cwd=tmp_path)
    right = (tmp_path / "city.csv").read_bytes()
    names = sorted(name for name in contents(cache))
    assert {name.split("-")[0] for name in names} == {"annoy", "projection", "tiles", "vectors"}
    for name in names * 4:
        shutil.rmtree(cache)
        shutil.copytree(warm / "cache", cache)
        whole = (cache / name).read_bytes()
        (cache / name).write_bytes(rng.choice([damage(whole, rng), b"", rng.randbytes(5000)]))
        ended = host.run("precompute_embeddings.py", *city(tiny_tiles, tiny_checkpoint), *QUICK, cwd=tmp_path)
        mended = "computed" in ended.out or "again" in ended.err or (cache / name).read_bytes() == whole
        assert mended or name.endswith(".bin"), f"{name}: {ended.out}{ended.err}"
        host.run("precompute_embeddings.py", *city(tiny_tiles, tiny_checkpoint), *export, cwd=tmp_path)
        assert (tmp_path / "city.csv").read_bytes() == right
        tally["damaged caches", "made again or unharmed; the same vectors came out"] += 1


def test_training_never_sees_damaged_pixels(host, tiny_tiles, tmp_path, tally):
    host.run("train.py", "--tiles_root", tiny_tiles, *SMALL, cwd=tmp_path)
    calm = load_checkpoint(tmp_path / "checkpoints/last.pth").key()
    (planes,) = (tmp_path / "cache").rglob("planes-*.bin")
    data = np.fromfile(planes, dtype=np.uint8)
    np.random.default_rng(0).shuffle(data)
    data.tofile(planes)
    ended = host.run("train.py", "--tiles_root", tiny_tiles, *SMALL, cwd=tmp_path)
    assert "packing them again" in ended.err
    assert load_checkpoint(tmp_path / "checkpoints/last.pth").key() == calm
    tally["damaged caches", "made again or unharmed; the same vectors came out"] += 1


# --- damaged extracts --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def piece(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small piece of the sample city."""
    path = tmp_path_factory.mktemp("piece") / "piece.osm.pbf"
    cut_extract(SAMPLE_EXTRACT, tuple(map(float, BOX.split(","))), path)
    return path


@pytest.mark.slow
def test_damaged_extracts_are_refused_or_drawn_right(host, piece, tmp_path, tally):
    rng, data = random.Random(6), piece.read_bytes()
    flags = ("--bbox", BOX, "--jobs", 1, "--tile_px", 64)
    host.run("render_tiles.py", piece, *flags, "--tiles_root", "calm", cwd=tmp_path)
    calm = {name: png for name, png in contents(tmp_path / "calm").items() if name.endswith(".png")}
    other, root = tmp_path / "damaged.osm.pbf", tmp_path / "tiles"
    for _ in range(100):
        other.write_bytes(damage(data, rng))
        ended = host.run("render_tiles.py", other, *flags, "--tiles_root", root, cwd=tmp_path, code=(0, 2))
        drawn = {name: png for name, png in contents(root).items() if name.endswith(".png")} if root.exists() else {}
        if ended.code:
            assert str(other) in ended.err and not drawn
            tally["damaged extracts", "refused in a sentence, no tile drawn"] += 1
        else:
            assert drawn == calm
            tally["damaged extracts", "drawn right all the same"] += 1
        shutil.rmtree(root, ignore_errors=True)


# --- code in files that should hold data -------------------------------------------------------------------


class Payload:
    """What runs a command when it is unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.path),)


@pytest.mark.slow
def test_code_in_a_file_is_never_run(host, tiny_tiles, tiny_checkpoint, warm, tmp_path, tally):
    trap, model_path, cache = tmp_path / "it ran", tmp_path / "trap.pth", tmp_path / "cache"
    shutil.copytree(warm / "cache", cache)
    payload = pickle.dumps(Payload(trap))
    content = torch.load(tiny_checkpoint, weights_only=True)
    torch.save(content | {"metrics": Payload(trap)}, model_path)
    (tmp_path / "raw.pth").write_bytes(payload)
    with zipfile.ZipFile(tmp_path / "zip.pth", "w") as archive:
        archive.writestr("archive/data.pkl", payload)
    for name in ("trap.pth", "raw.pth", "zip.pth"):
        for script in MODEL_SCRIPTS:
            more = labels(tmp_path) if script == "evaluate.py" else ()
            host.run(script, *city(tiny_tiles, tmp_path / name), *more, cwd=tmp_path, code=2)
            tally["checkpoints, caches and tables with code in them", "nothing ran"] += 1
        host.run("train.py", "--resume", tmp_path / name, cwd=tmp_path, code=2)
    for path in sorted(path for path in cache.rglob("*") if path.is_file() and path.suffix != ".lock"):
        path.write_bytes(payload)
        host.run("precompute_embeddings.py", *city(tiny_tiles, tiny_checkpoint), *QUICK, cwd=tmp_path)
        tally["checkpoints, caches and tables with code in them", "nothing ran"] += 1
    for name in ("table.npy", "table.pkl", "table.parquet", "table.csv"):
        (tmp_path / name).write_bytes(payload)
        host.run("evaluate.py", "--vectors", tmp_path / name, *labels(tmp_path), cwd=tmp_path, code=2)
        tally["checkpoints, caches and tables with code in them", "nothing ran"] += 1
    assert not trap.exists()
    pickle.loads(payload)
    assert trap.exists(), "the payload would have run"


# --- tables ------------------------------------------------------------------------------------------------

TABLES = {
    "empty.csv": b"",
    "header.csv": b"x,y,price\n",
    "ragged.csv": b"x,y,price\n1,2\n3,4,5,6\n",
    "words.csv": b"x,y,price\nhere,there,1\n",
    "blank.csv": b"x,y,price\n,,1\n76600,44200,2\n",
    "far.csv": b"x,y,price\n1e30,-1e30,1\n",
    "poles.csv": b"lat,lon,price\n90,0,1\n-90,0,1\n95,400,2\nnan,inf,3\n",
    "twice.csv": b"x,x,y,price\n1,2,3,4\n",
    "binary.csv": bytes(range(256)),
    "nulls.csv": b"x,y,price\n\x00,\x00,\x00\n",
    "quote.csv": b'x,y,price\n"1,2,3\n',
    "none.parquet": b"",
    "half.parquet": b"PAR1" + bytes(100) + b"PAR1",
    "map.osm.pbf": b"no map",
    "words.txt": b"just words",
}


@pytest.mark.parametrize("name", TABLES)
def test_a_table_that_makes_no_sense(name, host, tiny_tiles, tiny_checkpoint, warm, tmp_path, tally):
    shutil.copytree(warm / "cache", tmp_path / "cache")
    (tmp_path / name).write_bytes(TABLES[name])
    host.run("evaluate.py", *city(tiny_tiles, tiny_checkpoint), "--labels", name, cwd=tmp_path, code=2)
    host.run("evaluate.py", "--vectors", name, *labels(tmp_path), cwd=tmp_path, code=2)
    tally["tables that make no sense", "refused in a sentence, exit code 2"] += 2


# --- names -------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_names_with_spaces_and_letters_of_all_scripts(host, piece, tmp_path, tally):
    home = tmp_path / "Моє місто – 東京 'é' & <b>50% {x} #1"
    home.mkdir()
    shutil.copy(piece, home / "Київ <i>.osm.pbf")
    tiles, model_path = home / "плитки 12", home / "мо дель/best_model.pth"
    here = {"cwd": home}
    host.run("render_tiles.py", "Київ <i>.osm.pbf", "--tiles_root", tiles, "--jobs", 1, "--tile_px", 64, **here)
    small = ("--neg_radius", 2, "--pos_radius", 1, "--val_share", 0)
    host.run("train.py", "--tiles_root", tiles, *SMALL, *small, "--output_dir", model_path.parent, **here)
    place = (*city(tiles, model_path), "--cache_dir", "ка ш")
    host.run("precompute_embeddings.py", *place, *QUICK, **here)
    host.run("precompute_embeddings.py", *place, "--export", "вектори \N{SNOWMAN}.parquet", **here)
    host.run("interactive_visualizer.py", *place, "--dr_algorithms", "PCA", "--output_dir", "сторінка", **here)
    page = (home / "сторінка/index.html").read_text(encoding="utf-8")
    assert "<i>" not in page.split("<script", 1)[0]
    made = {str(path.relative_to(home)) for path in home.rglob("*")}
    assert {"мо дель/best_model.pth", "вектори ☃.parquet", "сторінка/index.html"} <= made
    tally["names with spaces and letters of other scripts", "worked"] += 5


@pytest.mark.slow
def test_a_terminal_without_these_letters_and_names_that_are_no_text(tiny_tiles, tmp_path, tally):
    tiles = os.fsencode(tmp_path) + b"/\xff\xd0\x9a tiles"
    shutil.copytree(os.fsencode(tiny_tiles), tiles)
    ended = subprocess.run(
        [sys.executable, REPO / "data_loader.py", "--tiles_root", tiles, "--tile_size", "32"],
        cwd=tmp_path, env=script_env({"PYTHONIOENCODING": "ascii", "LC_ALL": "C"}), capture_output=True, timeout=120,
    )  # fmt: skip
    assert ended.returncode == 0 and b"Traceback" not in ended.stderr, ended.stderr
    ended = subprocess.run(
        [sys.executable, REPO / "render_tiles.py", SAMPLE_EXTRACT, "--bbox", BOX, "--jobs", "1", "--tiles_root", "new"],
        cwd=tmp_path, env=script_env({"PYTHONIOENCODING": "ascii"}), capture_output=True, timeout=120,
    )  # fmt: skip
    assert ended.returncode == 0 and b"OpenStreetMap contributors" in ended.stdout, ended.stderr
    tally["a terminal without the letters of a name", "worked, the letters written as codes"] += 2


# --- several cities and models -----------------------------------------------------------------------------


def test_models_of_other_sizes_keep_apart(tiny_tiles, tmp_path, tally):
    tiles = TilesFlags(tiles_root=tiny_tiles, cache_dir=tmp_path / "cache")
    seen = []
    for tile_size, dimension in ((32, 16), (32, 8), (64, 16)):
        path = tmp_path / f"{tile_size}-{dimension}.pth"
        save_untrained(path, tile_size, dimension)
        seen.append((path, load_city(tiles, path, max_tiles=20).embeddings))
    assert [found.vectors.shape[1] for _, found in seen] == [16, 8, 16]
    for path, found in seen:
        again = load_city(tiles, path, max_tiles=20)
        assert again.computed == 0 and np.array_equal(again.embeddings.vectors, found.vectors)
        tally["models of other sizes on one cache", "each kept its own vectors"] += 1


def test_cache_files_of_another_format_are_made_again(warm, tmp_path, tally):
    for path in sorted((warm / "cache").rglob("*.l2v")):
        assert load_cache(path, "store-0") is None
        tally["caches of another format", "not taken"] += 1
    with pytest.raises(DamagedFile):
        (tmp_path / "x.l2v").write_bytes(b"LOC2VEC0" + bytes(100))
        load_cache(tmp_path / "x.l2v")
    assert json.dumps(cli.TilesFlags.zoom) == "17"
