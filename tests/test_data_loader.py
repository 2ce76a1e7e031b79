"""Windows, triplets, datasets and augmentation: what training reads from a packed city."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

import data_loader
from cli import UserError
from data_loader import AugmentFlags, SampleFlags, TileDataset, TripletDataset, TripletSampler, augment, window_gather
from layers import LAYERS
from tile_files import resize_tile
from tile_grid import spatial_split
from tile_levels import FAR_TILES, NEAR_TILES, SURROUND_CHANNELS, SURROUND_PX, coarse_levels, coarsened, piece_sizes
from tile_store import TileStore, open_store

SIZE = 32


@pytest.fixture(scope="module")
def store(tiny_tiles: Path, tmp_path_factory: pytest.TempPathFactory) -> TileStore:
    return open_store(tiny_tiles, SIZE, cache_dir=tmp_path_factory.mktemp("cache"))


# --- windows -----------------------------------------------------------------------------------------------


def test_windows_show_what_a_mosaic_shows(store: TileStore) -> None:
    rng = np.random.default_rng(0)
    low, high = store.tile_xy.min(axis=0) * SIZE, (store.tile_xy.max(axis=0) + 1) * SIZE
    origins = rng.integers(low - SIZE - 3, high + 3, size=(200, 2))
    origins[:10] = store.tile_xy[:10] * SIZE
    mosaic = np.zeros((12, *(high - low + 4 * SIZE)[::-1]), np.uint8)
    for tile, (x, y) in zip(store.tiles(np.arange(len(store))), store.tile_xy * SIZE - low + 2 * SIZE, strict=True):
        mosaic[:, y : y + SIZE, x : x + SIZE] = tile
    windows = store.windows(origins)
    for window, (x, y) in zip(windows, origins - low + 2 * SIZE, strict=True):
        assert (window == mosaic[:, y : y + SIZE, x : x + SIZE]).all()
    assert (gathered(store, origins) == windows).all()
    assert (TileDataset(store).windows(origins).numpy() == windows).all()


def gathered(store: TileStore, origins: np.ndarray) -> np.ndarray:
    """The same windows by the gather that runs on a GPU."""
    plane_of = torch.from_numpy(np.concatenate([store.plane_of, np.zeros((1, 12), np.int32)])).long()
    planes, table = torch.from_numpy(np.array(store.planes)), torch.from_numpy(store.grid.table.copy()).long()
    return window_gather(
        planes, plane_of, table, torch.from_numpy(store.grid.origin), torch.from_numpy(origins)
    ).numpy()


# --- surroundings ------------------------------------------------------------------------------------------


def with_holes(store: TileStore) -> TileStore:
    """The same city without a third of its tiles."""
    kept = np.random.default_rng(3).random(len(store)) > 0.3
    return dataclasses.replace(store, tile_xy=store.tile_xy[kept], plane_of=store.plane_of[kept])


def across_180_degrees(store: TileStore) -> TileStore:
    """The same city, moved so that the line lies in its middle."""
    x = (store.tile_xy[:, 0] - 76606) % 2**17
    return dataclasses.replace(store, tile_xy=np.column_stack([x, store.tile_xy[:, 1]]).astype(np.int32))


def naive_surroundings(store: TileStore, centre: np.ndarray, tiles: int) -> np.ndarray:
    """Crops of one picture of the whole city with its mask, for `centre (2,)` in the numbers of `unwrapped_xy`."""
    px, border = SURROUND_PX // tiles, 2 * SURROUND_PX
    low = store.unwrapped_xy.min(axis=0)
    width, height = (store.unwrapped_xy.max(axis=0) + 1 - low) * px + 2 * border
    city = np.zeros((SURROUND_CHANNELS, height, width), np.uint8)
    for (x, y), tile in zip((store.unwrapped_xy - low) * px + border, store.tiles(np.arange(len(store))), strict=True):
        cell = city[:, y : y + px, x : x + px]
        cell[:12] = [resize_tile(plane, px, "mean") for plane in tile]
        cell[12:24] = [resize_tile(plane, px, "max") for plane in tile]
        cell[24:36] = coarse_levels(tile)[px][:, 2]
        cell[36:40] = coarsened(piece_sizes(tile[[LAYERS.index("buildings")]]), px)[0]
        cell[40] = 255
    left, top = np.rint((centre - low) * px).astype(int) + border - SURROUND_PX // 2
    return city[:, top : top + SURROUND_PX, left : left + SURROUND_PX]


@pytest.mark.parametrize("change", [lambda store: store, with_holes, across_180_degrees],
                         ids=["whole", "holes", "180 degrees"])  # fmt: skip
def test_surroundings_show_what_a_picture_of_the_whole_city_shows(store: TileStore, change) -> None:
    """At any place, also at the edge of the data; the window of 16 x 16 tiles is larger than the city."""
    city, rng = change(store), np.random.default_rng(0)
    tiles, dataset = city.unwrapped_xy.astype(np.float64), TileDataset(city)
    corner = [tiles.min(axis=0), tiles.max(axis=0) + 1]
    centres = np.concatenate([tiles[:4] + 0.5, tiles[-2:] + 0.5, corner, rng.uniform(*corner, (8, 2))])
    for edge in (NEAR_TILES, FAR_TILES):
        windows = dataset.surroundings(centres, edge)
        assert (
            windows.shape == (len(centres), SURROUND_CHANNELS, SURROUND_PX, SURROUND_PX)
            and windows.dtype == torch.uint8
        )
        for window, centre in zip(windows.numpy(), centres, strict=True):
            np.testing.assert_array_equal(window, naive_surroundings(city, centre, edge))
    assert 0 < (windows[:, -1] == 0).float().mean() < 1  # in a small city, part of every far window is missing


def test_tiles_reach_the_device_in_parts(store: TileStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_loader, "PLANES_COPIED", 7)
    assert len(store.planes) > 14
    np.testing.assert_array_equal(TileDataset(store, resident=True).planes.numpy(), store.planes)


@pytest.mark.parametrize("resident", [False, True])
def test_planes_that_show_something_are_given_once(store: TileStore, resident: bool) -> None:
    rows = np.concatenate([np.flatnonzero(~store.blank)[:12], np.flatnonzero(store.blank)[:1]])
    rows = np.concatenate([rows, rows[:3]])
    planes, layer, number = TileDataset(store, resident=resident).planes_of(rows)
    assert (
        len(planes)
        == len(layer)
        == len({(int(kind), bytes(plane.numpy())) for kind, plane in zip(layer, planes, strict=True)})
    )
    assert planes.amax(dim=(1, 2)).min() > 0
    whole = torch.cat([planes, torch.zeros_like(planes[:1])])[number]
    assert torch.equal(whole, torch.from_numpy(store.tiles(rows)))
    assert all(int(layer[i]) == at for each in number.tolist() for at, i in enumerate(each) if i < len(planes))


def test_the_windows_of_neighbouring_tiles_are_cut_as_one(store: TileStore) -> None:
    """At the corner of the data too."""
    dataset, first = TileDataset(with_holes(store)), store.tile_xy.min(axis=0) - 1
    across, down = np.meshgrid(np.arange(3), np.arange(3))
    each = first + np.column_stack([across.ravel(), down.ravel()]) + 0.5
    for tiles in (NEAR_TILES, FAR_TILES):
        step = SURROUND_PX // tiles
        (whole,) = dataset.surroundings(first[None] + 1.5, tiles, places=3)
        assert whole.shape == (SURROUND_CHANNELS, SURROUND_PX + 2 * step, SURROUND_PX + 2 * step)
        for (x, y), window in zip(
            (each - first - 0.5).astype(int) * step, dataset.surroundings(each, tiles), strict=True
        ):
            assert torch.equal(whole[:, y : y + SURROUND_PX, x : x + SURROUND_PX], window)


def test_the_middle_of_the_surroundings_is_the_tile(store: TileStore) -> None:
    rows = np.flatnonzero(~store.blank)[:9]
    tile, near, far = TileDataset(store).inputs(store.tile_xy[rows] + 0.5, surroundings=True)
    assert torch.equal(tile, torch.from_numpy(store.tiles(rows)))
    for window, px in ((near, 16), (far, 4)):
        middle = slice(SURROUND_PX // 2 - px // 2, SURROUND_PX // 2 + px // 2)
        np.testing.assert_array_equal(window[:, :12, middle, middle], store.levels[px][store.plane_of[rows]][:, :, 0])
    assert len(TileDataset(store).inputs(store.tile_xy[rows] + 0.5, surroundings=False)) == 1


# --- sampling ----------------------------------------------------------------------------------------------


def chebyshev(store: TileStore, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.abs(store.tile_xy[a].astype(int) - store.tile_xy[b]).max(axis=1)


def test_triplets_keep_their_distances(store: TileStore) -> None:
    sampler = TripletSampler(store, pos_radius=2, neg_radius=5, seed=1)
    anchors, positives, negatives = sampler.epoch(0, 5000).T
    assert set(chebyshev(store, anchors, positives)) == {1, 2}
    assert chebyshev(store, anchors, negatives).min() == 5
    assert not store.blank[np.concatenate([anchors, positives, negatives])].any()


def test_every_anchor_equally_often_and_the_same_for_a_seed(store: TileStore) -> None:
    sampler = TripletSampler(store, 2, 5, seed=1)
    drawn = sampler.epoch(3, 2 * len(sampler.anchors))
    assert set(np.bincount(drawn[:, 0])[sampler.anchors]) == {2}
    assert (TripletSampler(store, 2, 5, seed=1).epoch(3, 2 * len(sampler.anchors)) == drawn).all()
    assert (sampler.epoch(4, len(drawn)) != drawn).any()
    assert len(sampler.epoch(0, 10)) == 10


def test_positives_and_negatives_are_uniform(store: TileStore) -> None:
    sampler = TripletSampler(store, 1, 4, seed=0)
    middle = store.grid.rows(np.array([76606, 44206]))
    anchors, rng = np.full(8000, middle), np.random.default_rng(0)
    counts = np.bincount(sampler.positives(anchors, rng))
    counts = counts[counts > 0]
    assert len(counts) == 8
    assert counts.min() > 850
    far = np.bincount(sampler.negatives(anchors, rng))
    expected = (chebyshev(store, np.full(len(store), middle), np.arange(len(store))) >= 4) & ~store.blank
    assert (np.flatnonzero(far) == np.flatnonzero(expected)).all()


def test_rows_limit_every_role(store: TileStore) -> None:
    rows = np.flatnonzero(store.tile_xy[:, 0] < 76606)
    assert np.isin(TripletSampler(store, 2, 5, rows=rows).epoch(0, 1000), rows).all()


@pytest.mark.parametrize(("radii", "words"), [((5, 5), "larger than --pos_radius"), ((2, 50), "smaller --neg_radius")])
def test_impossible_radii_say_so(radii: tuple, words: str, store: TileStore) -> None:
    with pytest.raises(UserError, match=words):
        TripletSampler(store, *radii)


def test_a_window_is_not_near_and_far_at_once(store: TileStore) -> None:
    with pytest.raises(UserError, match="--jitter 5 must be smaller than --neg_radius 5"):
        TripletDataset([TileDataset(store)], SampleFlags(neg_radius=5), AugmentFlags(jitter=5))


def test_no_training_tile_is_another_fault_than_blank_tiles(store: TileStore) -> None:
    with pytest.raises(UserError, match="beside the validation blocks"):
        TripletSampler(store, 2, 5, rows=np.zeros(0, dtype=np.int64))
    with pytest.raises(UserError, match="is blank"):
        TripletSampler(store, 2, 5, rows=np.flatnonzero(store.blank)[:3])


def test_validation_blocks_are_whole_and_apart(store: TileStore) -> None:
    train, val = spatial_split(store.tile_xy, 0.1, seed=3)
    assert len(val) >= 0.1 * len(store)
    gaps = np.abs(store.tile_xy[train][:, None].astype(int) - store.tile_xy[val][None]).max(axis=2)
    assert gaps.min() == 2  # one tile lies between: no window of a training tile reaches a validation tile
    assert len(spatial_split(store.tile_xy, 0.0)[1]) == 0


def test_datasets_give_what_the_network_takes(store: TileStore) -> None:
    tile, xy = TileDataset(store)[5]
    assert tile.shape == (12, SIZE, SIZE)
    assert tile.dtype == torch.float32
    assert xy.tolist() == store.tile_xy[5].tolist()
    batches = TripletDataset([TileDataset(store)], SampleFlags(batch_size=6, neg_radius=5, max_samples=30))
    first = batches[0]
    assert len(batches) == 5 and first.rows.shape == (6, 3) and first.tile_xy.shape == (6, 3, 2)
    assert len(first.inputs) == 1
    assert torch.equal(first.inputs[0], torch.from_numpy(store.tiles(first.rows.reshape(-1))))
    assert batches.augmented(first) is first.inputs and first.inputs[0].dtype == torch.uint8
    batches.set_epoch(1)
    assert (first.rows != batches[0].rows).any()
    with pytest.raises(IndexError):
        batches[5]


def test_augmentation_keeps_pixels_and_blanks_layers() -> None:
    tiles = torch.arange(16 * 12 * 64).reshape(16, 12, 8, 8)
    (turned,) = augment((tiles.clone(),), torch.Generator().manual_seed(0))
    assert (turned.flatten(2).sort().values == tiles.flatten(2)).all()
    (many,) = augment((tiles[:1].repeat(400, 1, 1, 1),), torch.Generator())
    assert len({tuple(view.flatten().tolist()) for view in many[:, 0]}) == 8
    (dropped,) = augment((tiles + 1,), torch.Generator(), flip_rotate=False, channel_dropout=0.5)
    blank = (dropped == 0).flatten(2).all(dim=2)
    assert 0.3 < blank.float().mean() < 0.7
    assert (dropped[~blank] == (tiles + 1)[~blank]).all()


def test_a_tile_and_its_surroundings_are_augmented_alike() -> None:
    generator = torch.Generator().manual_seed(0)
    near = torch.randint(1, 256, (24, SURROUND_CHANNELS, 8, 8), generator=generator)
    tile = near[:, :12, 2:6, 2:6]
    turned, around = augment((tile, near), generator, channel_dropout=0.3)
    assert torch.equal(turned, around[:, :12, 2:6, 2:6])
    blank = (around == 0).flatten(2).all(dim=2)
    assert torch.equal(blank[:, :12], blank[:, 12:24]) and blank[:, :12].any() and not blank[:, -1].any()
    assert torch.equal(blank[:, 36:40], blank[:, [LAYERS.index("buildings")] * 4])


# --- the command -------------------------------------------------------------------------------------------


def test_the_command_prints_what_the_readme_promises(tiny_tiles: Path, run_script) -> None:
    result = run_script(
        "data_loader.py", "--tiles-root", tiny_tiles, "--tile_size", SIZE, "--batch_size", 4, "--neg_radius", 5
    )
    for words in (
        "layers found: 12 of 12",
        "144 tiles",
        "common coordinates: 144",
        "(4, 12, 32, 32)",
        "% blank",
        "packed:",
    ):
        assert words in result.stdout
