"""Tile folders and packs: files of any kind mean the same, each plane is packed once, changes are noticed."""

import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import tile_files
import tile_store
from cli import UserError
from conftest import REPO, draw_city, script_env
from layers import LAYERS
from tile_files import read_tile, resize_tile, scan_tiles
from tile_grid import TileGrid, latlon_of_tile, tile_of_latlon
from tile_levels import FINEST, LEVELS, PIECE_CLASSES, SIZED_LAYERS, coarse_levels, coarsened, piece_sizes
from tile_store import TileStore, open_store

SIZE = 32


@pytest.fixture(scope="module")
def store(tiny_tiles: Path, tmp_path_factory: pytest.TempPathFactory) -> TileStore:
    return open_store(tiny_tiles, SIZE, cache_dir=tmp_path_factory.mktemp("cache"))


@pytest.fixture
def tiles(tiny_tiles: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(tiny_tiles, tmp_path / "tiles"))


def pack(tiles: Path, **options) -> TileStore:
    return open_store(tiles, SIZE, cache_dir=tiles.parent / "cache", num_workers=0, **options)


def any_tile(tiles: Path, layer: str = "buildings", skip: int = 70) -> Path:
    return sorted((tiles / layer).rglob("*.png"))[skip]


# --- what a pixel means ------------------------------------------------------------------------------------


def repaint(tiles: Path, paint) -> None:
    for path in tiles.rglob("*.png"):
        grey = np.asarray(Image.open(path).convert("L"))
        paint(grey).save(path)


def rgba(rgb: np.ndarray, alpha: np.ndarray) -> Image.Image:
    return Image.fromarray(np.dstack([rgb, rgb, rgb, alpha]).astype(np.uint8))


def palette(grey: np.ndarray) -> Image.Image:
    """Indexes that are not the grey values themselves."""
    image = Image.fromarray(255 - grey, "L").convert("P")
    image.putpalette([255 - i for i in range(256) for _ in range(3)])
    image.putdata((255 - grey).reshape(-1).tolist())
    return image


FORMATS = {
    "palette": palette,
    "rgb": lambda grey: Image.fromarray(grey).convert("RGB"),
    "opaque rgba": lambda grey: rgba(grey, np.full_like(grey, 255)),
    "transparent where nothing": lambda grey: rgba(grey, np.where(grey, 255, 0)),
    "white ink": lambda grey: rgba(np.full_like(grey, 255), grey),
    "black ink": lambda grey: rgba(np.zeros_like(grey), grey),
    "white background": lambda grey: Image.fromarray(255 - grey),
    "white background, rgb": lambda grey: Image.fromarray(255 - grey).convert("RGB"),
    "16 bit": lambda grey: Image.fromarray(grey.astype(np.uint16) * 257),
}


@pytest.mark.parametrize("name", FORMATS)
def test_tiles_of_any_format_mean_the_same(name: str, tiles: Path, store: TileStore) -> None:
    repaint(tiles, FORMATS[name])
    packed = pack(tiles)
    rows = np.arange(len(store))
    assert np.abs(packed.tiles(rows).astype(int) - store.tiles(rows)).max() <= 1
    assert packed.tiles(rows).any()


def test_one_bit_and_gray_alpha(tmp_path: Path) -> None:
    grey = np.zeros((32, 32), np.uint8)
    grey[4:9, 4:9] = 255
    Image.fromarray(grey).convert("1").save(tmp_path / "bit.png")
    Image.merge("LA", [Image.fromarray(grey), Image.fromarray(grey // 255 * 100)]).save(tmp_path / "la.png")
    assert (read_tile(tmp_path / "bit.png") == grey).all()
    assert (read_tile(tmp_path / "la.png") == grey // 255 * 100).all()


def test_manifest_settles_the_background(tiles: Path) -> None:
    """Our own tiles are never taken for inverted ones, however much is drawn on them."""
    for path in tiles.rglob("*.png"):
        Image.fromarray(np.full((64, 64), 255, np.uint8)).save(path)
    (tiles / "manifest.json").write_text("{}")
    assert pack(tiles).layer_intensity.min() == 1


def test_max_keeps_dots_that_mean_erases() -> None:
    dot = np.zeros((256, 256), np.uint8)
    dot[100, 100] = 200
    assert resize_tile(dot, 64, "max").max() == 200
    assert resize_tile(dot, 64, "mean").max() < 20
    assert resize_tile(dot, 96, "max").sum() == 200  # not a divisor of 256: still every pixel once


# --- tiles of others ---------------------------------------------------------------------------------------


def check(run_script, tiles: Path, *args: object, code: int = 0) -> str:
    """What `python data_loader.py` says about a tiles folder."""
    where = ("--tiles_root", tiles, "--cache_dir", tiles.parent / "cache", "--tile_size", SIZE, "--neg_radius", 5)
    result = run_script("data_loader.py", *where, *args, check=code)
    assert "Traceback" not in result.stderr
    return result.stdout + result.stderr


def rename_tiles(tiles: Path, rename) -> None:
    for path in sorted(tiles.rglob("*.png")):
        path.rename(path.with_name(rename(path)))


def test_tiles_named_2x_are_read(tiles: Path, store: TileStore, run_script) -> None:
    rename_tiles(tiles, lambda path: f"{path.stem}@2x.png")
    said = check(run_script, tiles)
    assert "common coordinates: 144" in said and "note: files: 1,728 @2x.png" in said
    assert pack(tiles).content_key == store.content_key
    assert pack(tiles).tile_path(0, 3).endswith("@2x.png")


def test_of_a_tile_and_its_2x_the_plain_one_is_used(tiles: Path, store: TileStore, run_script) -> None:
    path = any_tile(tiles)
    Image.new("L", (128, 128), 7).save(path.with_name(f"{path.stem}@2x.png"))
    path.with_suffix(".jpg").write_bytes(b"never read")
    said = check(run_script, tiles)
    assert "2 files are not used" in said and "plain comes before @2x, then png, webp, jpg" in said
    assert pack(tiles).content_key == store.content_key
    path.unlink()
    assert str(path.with_suffix(".jpg")) in pack(tiles).meta["unreadable"][0]


def test_webp_tiles_are_read(tiles: Path, store: TileStore, run_script) -> None:
    for path in tiles.rglob("*.png"):
        Image.open(path).save(path.with_suffix(".webp"), lossless=True)
        path.unlink()
    assert "note: files: 1,728 .webp" in check(run_script, tiles)
    assert pack(tiles).content_key == store.content_key


def test_jpeg_tiles_are_read_nearly_as_they_were(tiles: Path, store: TileStore, run_script) -> None:
    for number, path in enumerate(sorted(tiles.rglob("*.png"))):
        Image.open(path).save(path.with_suffix(".JPG" if number % 2 else ".jpeg"), "JPEG", quality=95)
        path.unlink()
    said = check(run_script, tiles)
    assert "864 .JPG" in said and "864 .jpeg" in said
    packed = pack(tiles)
    rows = np.arange(len(store))
    assert np.abs(packed.tiles(rows).astype(int) - store.tiles(rows)).mean() < 1
    assert (packed.blank == store.blank).all()


@pytest.mark.parametrize("suffix", [".webp", ".jpg"])
def test_a_tile_cut_short_is_counted_in_every_format(suffix: str, tiles: Path) -> None:
    path = any_tile(tiles)
    Image.open(path).save(path.with_suffix(suffix))
    path.unlink()
    data = path.with_suffix(suffix).read_bytes()
    path.with_suffix(suffix).write_bytes(data[: len(data) // 2])
    store = pack(tiles)
    assert len(store) == 143 and str(path.with_suffix(suffix)) in store.meta["unreadable"][0]


@pytest.mark.parametrize("spelled", [{"natural-features": "natural_features", "roads": "Roads"},
                                     {"natural-features": "Natural Features", "power": "POWER"}])  # fmt: skip
def test_layer_folders_in_other_spellings_are_read(spelled: dict, tiles: Path, store: TileStore, run_script) -> None:
    for layer, name in spelled.items():
        (tiles / layer).rename(tiles / "renaming")
        (tiles / "renaming").rename(tiles / name)
    said = check(run_script, tiles)
    for layer, name in spelled.items():
        assert f"{layer} is read from {name!r}" in said
    for quick in (False, True):
        assert pack(tiles, quick=quick).content_key == store.content_key


def test_two_spellings_of_one_layer_are_refused(tiles: Path, run_script) -> None:
    (tiles / "roads").rename(tiles / "Roads")
    (tiles / "ROADS").mkdir(exist_ok=True)
    if len({path.name for path in tiles.iterdir()} & {"Roads", "ROADS"}) < 2:
        pytest.skip("the file system takes both names for one")
    assert "several folders of layer roads: ROADS, Roads" in check(run_script, tiles, code=2)


def test_rows_from_the_south_are_read_with_tms(tiles: Path, store: TileStore, run_script) -> None:
    """The pack of the same folder read without --tms is another one, and does not take its place."""
    rename_tiles(tiles, lambda path: f"{2**17 - 1 - int(path.stem)}.png")
    wrong = check(run_script, tiles)
    assert "fit together only if y counts from the other end: pass --tms" in wrong
    right = check(run_script, tiles, "--tms")
    assert "fit together" not in right and "y 44200-44211" in right
    assert pack(tiles, tms=True).content_key == store.content_key != pack(tiles).content_key
    row = int(store.grid.rows(np.array([76605, 44203])))
    path = pack(tiles, tms=True).tile_path(row, LAYERS.index("roads"))
    assert path == str(tiles / "roads/17/76605" / f"{2**17 - 1 - 44203}.png") and Path(path).is_file()


def test_tms_on_tiles_from_the_north_is_noticed(tiles: Path, run_script) -> None:
    assert "leave --tms out" in check(run_script, tiles, "--tms")


def test_a_row_that_tms_cannot_have_is_refused(tiles: Path, run_script) -> None:
    path = any_tile(tiles)
    path.rename(path.with_name("131072.png"))
    assert "with --tms y is at most 131071 at zoom 17" in check(run_script, tiles, "--tms", code=2)


def test_names_that_are_no_tiles_are_shown(tiles: Path, run_script) -> None:
    rename_tiles(tiles / "roads", lambda path: f"{path.parent.name}_{path.name}")
    said = check(run_script, tiles, code=2)
    assert "roads 0" in said and re.search(r"766\d\d_44\d\d\d\.png", said) and "expected <x>/<y>.png" in said


def test_folders_that_are_no_layers_are_shown(tiles: Path, run_script) -> None:
    (tiles / "roads").rename(tiles / "streets")
    assert "folders there that are no layer: streets" in check(run_script, tiles, code=2)
    assert f"pass --tiles_root {tiles}" in check(run_script, tiles.parent, code=2)


@pytest.mark.parametrize("name", ["with space", "Київ 'місто' \"x\"", "100% %20 #1?&", "-x", "a\nb"])
def test_any_name_of_a_folder_works(name: str, tiles: Path, run_script) -> None:
    if os.name == "nt":
        pytest.skip("Windows forbids most of these names")
    root = tiles.parent / name / "tiles"
    root.parent.mkdir()
    tiles.rename(root)
    check(run_script, root)
    assert list((root.parent / "cache").glob("tiles-*/index.l2v"))


@pytest.mark.slow
def test_any_name_of_a_folder_works_for_precompute(tiles: Path, tiny_checkpoint: Path, run_script) -> None:
    root = tiles.parent / "Київ 'місто' 100% #1" / "tiles"
    root.parent.mkdir()
    tiles.rename(root)
    model = root.parent / "my model.pth"
    shutil.copy(tiny_checkpoint, model)
    where = ["--tiles_root", root, "--cache_dir", root.parent / "cache %d", "--model_path", model]
    run_script("precompute_embeddings.py", *where, "--dr_algorithms", "PCA", "--annoy_metrics", "angular")
    names = [path.name for path in (root.parent / "cache %d").iterdir()]
    assert any(name.startswith("vectors-") for name in names) and any(name.endswith(".ann") for name in names)


# --- finding and packing -----------------------------------------------------------------------------------


def test_planes_are_kept_once_and_pixels_are_true(tiny_tiles: Path, tmp_path: Path) -> None:
    store = open_store(tiny_tiles, 64, cache_dir=tmp_path)
    city = draw_city(12 * 64, 12 * 64, 64, np.random.default_rng(0))
    for row in range(0, len(store), 7):
        x, y = (store.tile_xy[row] - (76600, 44200)) * 64
        for channel, layer in enumerate(LAYERS):
            assert (store.tiles([row])[0, channel] == city[layer][y : y + 64, x : x + 64]).all()
    planes = {bytes(plane.tobytes()) for plane in store.planes}
    assert len(planes) == len(store.planes) < store.plane_of.size / 2
    assert not store.planes[0].any()


def test_second_opening_packs_nothing(tiles: Path) -> None:
    first = pack(tiles)
    before = sorted((p.name, p.stat().st_mtime_ns) for p in (tiles.parent / "cache").rglob("*") if p.is_file())
    second = pack(tiles)
    after = sorted((p.name, p.stat().st_mtime_ns) for p in (tiles.parent / "cache").rglob("*") if p.is_file())
    assert before == after
    assert first.content_key == second.content_key


def test_a_changed_tile_is_noticed_even_when_written_in_place(tiles: Path) -> None:
    key = pack(tiles).content_key
    path = any_tile(tiles)
    pixels = np.asarray(Image.open(path)).copy()
    pixels[:8, :8] ^= 255
    Image.fromarray(pixels).save(path)
    changed = pack(tiles)
    assert changed.content_key != key
    row = int(changed.grid.rows(np.array([int(path.parent.name), int(path.stem)])))
    assert (changed.tiles([row])[0, LAYERS.index("buildings")] == resize_tile(pixels, SIZE, "mean")).all()


def test_touched_and_copied_tiles_have_the_same_content(tiles: Path) -> None:
    key = pack(tiles).content_key
    os.utime(any_tile(tiles))
    assert pack(tiles).content_key == key
    shutil.copytree(tiles, tiles.parent / "copy")
    assert open_store(tiles.parent / "copy", SIZE, cache_dir=tiles.parent / "cache2").content_key == key


@pytest.mark.parametrize("quick", [False, True])
def test_added_removed_and_replaced_tiles_are_noticed(quick: bool, tiles: Path) -> None:
    key = pack(tiles, quick=quick).content_key
    any_tile(tiles, "roads").replace(
        any_tile(tiles, "buildings")
    )  # as render_tiles.py replaces one; roads lack one now
    changed = pack(tiles, quick=quick)
    assert len(changed) == 143
    assert changed.content_key != key


def test_coarser_levels_are_means_maxima_and_outlines_of_cells(store: TileStore) -> None:
    planes = np.array(store.planes)
    assert set(store.levels) == set(LEVELS) == {16, 4}
    for px, level in store.levels.items():
        cells = planes.reshape(len(planes), px, SIZE // px, px, SIZE // px)
        assert level.shape == (len(planes), 3, px, px) and level.dtype == np.uint8
        assert np.abs(level[:, 0] - cells.mean(axis=(2, 4))).max() <= 1
        assert (level[:, 1] == cells.max(axis=(2, 4))).all()


def test_outlines_count_edges_between_drawn_and_blank_pixels() -> None:
    plane = np.zeros((64, 64), dtype=np.uint8)
    plane[1:3, 1:3] = 200  # a square of 2 x 2 pixels has 8 edges
    plane[4:8, 12:16] = 90  # 16 edges
    plane[60:, :4] = 30  # in the corner of the tile: only 8 of its edges are inside
    outlines = coarse_levels([plane])[16][0, 2]
    expected = np.zeros((16, 16))
    expected[0, 0], expected[1, 3], expected[15, 0] = 8 / 16, 16 / 16, 8 / 16
    np.testing.assert_allclose(outlines, np.rint(255 * expected), atol=1)
    assert (coarse_levels([plane[:, ::-1]])[16][0, 2, :, ::-1] == outlines).all()
    assert coarse_levels([plane])[4][0, 2, 0, 0] == round(255 * 24 / 256)


@pytest.mark.parametrize("size", [64, 256])
def test_pieces_are_told_by_their_size(size: int) -> None:
    """Limits are 100, 400 and 1600 pixels of a 256 px tile, whatever the size of the tile."""
    plane, unit = np.zeros((size, size), dtype=np.uint8), size // 64
    plane[: 2 * unit, : 2 * unit] = 200  # 8 x 8 pixels of a 256 px tile, a quarter of a cell
    plane[8 * unit : 12 * unit, 8 * unit : 12 * unit] = 90  # 16 x 16, one cell
    plane[16 * unit : 24 * unit, 16 * unit : 20 * unit] = 30  # 16 x 32, two cells
    plane[40 * unit :, 40 * unit :] = 255  # 96 x 96, 36 cells
    plane[40 * unit, 40 * unit] = 1  # brightness does not divide a piece
    (sizes,) = piece_sizes([plane])
    expected = np.zeros((4, 16, 16))
    expected[0, 0, 0], expected[1, 2, 2], expected[2, 4:6, 4], expected[3, 10:, 10:] = 64, 255, 255, 255
    np.testing.assert_array_equal(sizes, expected)
    assert not piece_sizes([np.zeros_like(plane)]).any()
    coarse = coarsened(sizes[None], 4)[0]
    assert coarse[0, 0, 0] == 4 and coarse[3, 3, 3] == 255 and coarse.sum(axis=0).max() == 255


def test_a_store_keeps_the_sizes_of_pieces_of_buildings(store: TileStore) -> None:
    (layer,) = SIZED_LAYERS
    assert LAYERS[layer] == "buildings"
    shown = store.plane_of[:, layer]
    np.testing.assert_array_equal(store.sizes[store.size_row[shown]], piece_sizes(store.planes[shown]))
    assert store.sizes.shape == (len(np.union1d(shown, [0])), PIECE_CLASSES, FINEST, FINEST) and store.sizes.any()
    assert not store.sizes[0].any() and not store.size_row[np.setdiff1d(store.plane_of, shown)].any()


@pytest.mark.parametrize("size", [32, 96, 100, 128, 256, 512])
def test_the_mean_of_a_level_is_what_pillow_says(size: int) -> None:
    rng = np.random.default_rng(size)
    plane = rng.integers(1, 256, (size, size), dtype=np.uint8) * (rng.random((size, size)) < 0.3).astype(np.uint8)
    planes = [plane, np.ascontiguousarray(plane[:, ::-1]), np.full_like(plane, 255), *[plane.T.copy()] * 20]
    for px, levels in coarse_levels(planes).items():
        assert levels.shape == (23, 3, px, px)
        for pixels, level in zip(planes, levels, strict=True):
            image = Image.fromarray(pixels).resize((px, px), Image.Resampling.BOX)
            assert (level[0] == np.asarray(image)).all()
            assert (level[1] == resize_tile(pixels, px, "max")).all()


def test_damaged_levels_are_noticed_and_made_again(tiles: Path, capsys: pytest.CaptureFixture) -> None:
    levels = {px: np.array(level) for px, level in pack(tiles).levels.items()}
    index = next((tiles.parent / "cache").glob("tiles-*/index.l2v"))
    data = bytearray(index.read_bytes())
    data[data.index(levels[16][1:].tobytes()) + 5] ^= 1  # plane 0 is blank
    index.write_bytes(data)
    again = pack(tiles)
    assert "packing the tiles again" in capsys.readouterr().err
    assert all((again.levels[px] == levels[px]).all() for px in LEVELS)


@pytest.mark.parametrize("region", ["index", "planes", "cut short"])
def test_a_damaged_pack_is_made_again(region: str, tiles: Path, recwarn: pytest.WarningsRecorder) -> None:
    key = pack(tiles).content_key
    folder = next((tiles.parent / "cache").glob("tiles-*/"))
    victim = folder / "index.l2v" if region == "index" else next(folder.glob("planes-*.bin"))
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 1
    victim.write_bytes(data[:-10] if region == "cut short" else data)
    again = pack(tiles, verify=True)
    assert again.content_key == key
    assert not len(again.damaged_planes())


def test_inode_numbers_of_64_bits_and_more_are_kept_apart(tiles: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some network file systems number files by hashes, Windows' ReFS with 128 bits."""
    key = pack(tiles).content_key
    true_stat, true_scandir = os.stat, os.scandir

    def large(inode: int) -> int:
        return inode + (1 << 63) + (1 << 100)

    class Entry:
        def __init__(self, entry: os.DirEntry):
            self.entry = entry

        def __getattr__(self, name: str):
            return getattr(self.entry, name)

        def inode(self) -> int:
            return large(self.entry.inode())

    def stat(path, *args, **options):
        found = true_stat(path, *args, **options)
        fields = list(found)
        fields[1] = large(found.st_ino)
        return os.stat_result(fields, {"st_mtime_ns": found.st_mtime_ns})

    monkeypatch.setattr(tile_files.os, "scandir", lambda path: ScanDir(map(Entry, true_scandir(path))))
    monkeypatch.setattr(tile_files.os, "stat", stat)
    scan = scan_tiles(tiles)
    assert len(np.unique(scan.sources[:, 0])) == len(scan.paths) > 100
    packed = pack(tiles)
    assert packed.content_key == key
    before = packed.meta["planes_file"]
    assert pack(tiles).meta["planes_file"] == before  # and the second opening packs nothing


@pytest.mark.parametrize("kind", ["one number", "no number", "two disks"])
def test_inode_numbers_that_mean_nothing_are_not_used(kind: str, tiles: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some FUSE file systems list the same number for every file, and two disks may number their files alike."""
    expected, scan_layer, true_stat = scan_tiles(tiles), tile_files._scan_layer, os.stat

    def scanned(*args):
        found = scan_layer(*args)
        number = {"one number": 0xFFFFFFFF, "no number": 0}.get(kind, true_stat(expected.paths[0]).st_ino)
        return found._replace(inodes=np.full_like(found.inodes, number))

    def stat(path, *args, **options):
        found = true_stat(path, *args, **options)
        fields = list(found)
        if kind == "two disks":
            fields[2] += "roads" in Path(path).parts
        if kind == "no number":
            fields[1] = 0
        return os.stat_result(fields, {"st_mtime_ns": found.st_mtime_ns})

    monkeypatch.setattr(tile_files, "_scan_layer", scanned)
    monkeypatch.setattr(tile_files.os, "stat", stat)
    scan = scan_tiles(tiles)
    same = expected.source_of.ravel()
    assert len(set(zip(same.tolist(), scan.source_of.ravel().tolist(), strict=True))) >= len(expected.paths)
    assert all(len(set(same[scan.source_of.ravel() == number])) == 1 for number in range(len(scan.paths)))


class ScanDir(list):
    """What `os.scandir` gives: entries, and a context."""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


def test_a_pack_of_another_format_is_replaced(tiles: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tile_store, "_STORE_KEY", "store-1")
    old = pack(tiles)
    monkeypatch.undo()
    new = pack(tiles)
    assert len(new.levels[16]) == len(new.planes)
    assert new.content_key == old.content_key
    assert [path.name for path in (tiles.parent / "cache").rglob("planes-*.bin")] == [new.meta["planes_file"]]


@pytest.mark.slow
def test_packing_killed_at_any_moment_leaves_nothing_to_trust(tiles: Path) -> None:
    script = (
        f"import tile_store; tile_store.open_store({str(tiles)!r}, {SIZE}, cache_dir={str(tiles.parent / 'cache')!r})"
    )
    for delay in (0.0, 0.05, 0.1, 0.2):
        process = subprocess.Popen(
            [sys.executable, "-c", script], cwd=REPO, env=script_env(), stderr=subprocess.DEVNULL
        )
        folder = tiles.parent / "cache"
        while process.poll() is None and not folder.exists():
            time.sleep(0.005)
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not len(pack(tiles, verify=True).damaged_planes())
        assert len(list(folder.rglob("planes-*.bin"))) == 1
        shutil.rmtree(folder)


# --- what people feed --------------------------------------------------------------------------------------


def damage_with(content: bytes):
    return lambda path: path.write_bytes(content)


def make_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def make_huge(path: Path) -> None:
    Image.new("L", (4000, 4000)).save(path)


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:60])


DAMAGE = {
    "empty": damage_with(b""),
    "html": damage_with(b"<html>not found</html>"),
    "cut short": cut_short,
    "huge": make_huge,
    "folder": make_folder,
    "not square": lambda path: Image.new("L", (64, 32)).save(path),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_one_unreadable_tile_is_counted_and_left_out(name: str, tiles: Path, capsys: pytest.CaptureFixture) -> None:
    path = any_tile(tiles)
    DAMAGE[name](path)
    store = pack(tiles)
    assert len(store) == 143
    assert [str(path) in reason for reason in store.meta["unreadable"]] == [True]
    assert str(path) in capsys.readouterr().err


def test_many_unreadable_tiles_are_fatal(tiles: Path, run_script) -> None:
    for path in sorted((tiles / "water").rglob("*.png"))[:10]:
        cut_short(path)
    result = run_script("data_loader.py", "--tiles_root", tiles, "--tile_size", SIZE, check=2)
    assert "10 of 144 tiles have an unreadable layer" in result.stderr
    assert "Traceback" not in result.stderr


def test_missing_layer_names_it(tiles: Path, run_script) -> None:
    shutil.rmtree(tiles / "power")
    result = run_script("data_loader.py", "--tiles_root", tiles, check=2)
    assert "power" in result.stderr
    assert "render_tiles.py" in result.stderr


def test_other_zoom_is_suggested(tiles: Path) -> None:
    with pytest.raises(UserError, match="--zoom 17"):
        scan_tiles(tiles, zoom=16)


def test_no_common_coordinates(tiles: Path) -> None:
    for column in (tiles / "roads" / "17").iterdir():
        column.rename(column.with_name(str(int(column.name) + 1000)))
    with pytest.raises(UserError, match="no coordinates are common"):
        scan_tiles(tiles)


@pytest.mark.parametrize("kind", ["absent", "file", "empty"])
def test_unusable_roots_say_what_to_do(kind: str, tmp_path: Path, run_script) -> None:
    root = tmp_path / "місто з пробілами"
    if kind == "file":
        root.write_text("x")
    if kind == "empty":
        root.mkdir()
    result = run_script("data_loader.py", "--tiles_root", root, check=2)
    assert str(root) in result.stderr
    assert "python render_tiles.py" in result.stderr
    assert "Traceback" not in result.stderr


def test_two_cities_in_one_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="expected one city"):
        TileGrid(np.array([[0, 0], [100_000, 100_000]]))


# --- lookup and coordinates ---------------------------------------------------------------------------------


def test_missing_rows_are_blank(store: TileStore) -> None:
    assert not store.tiles([-1]).any()


def test_coordinates_go_there_and_back() -> None:
    lat, lon = math.radians(50.4501), 30.5234  # Kyiv, Maidan Nezalezhnosti, by the other common form of the formula
    y = (1 - math.log(math.tan(lat) + 1 / math.cos(lat)) / math.pi) / 2 * 2**17
    assert np.allclose(tile_of_latlon(50.4501, lon), [(lon + 180) / 360 * 2**17, y])
    points = np.random.default_rng(0).uniform((-80, -179), (80, 179), size=(50, 2))
    assert np.allclose(latlon_of_tile(tile_of_latlon(*points.T)), points)
