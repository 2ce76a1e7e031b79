"""Vectors: the same whatever the batch, the cache or the process; facts about tiles that a person would agree with."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import inference
import tile_grid
from cli import TilesFlags, UserError
from conftest import make_tiles, png_bytes, save_untrained
from data_loader import TileDataset, window_gather
from embeddings import City, load_city, pick_rows, tile_contents
from exports import write_parquet
from inference import Embedder
from layers import LAYERS
from model import ENCODERS, EncoderConfig, build_network
from progress_bars import progress_listener
from reasons import PLACE_PARTS, layer_contributions, place_contributions
from tile_facts import ZONES, compass_zones, content_density, dominant_layers
from tile_grid import latlon_of_tile
from tile_levels import FAR_TILES, NEAR_TILES
from tile_store import TileStore

LAST_COLUMN = 2**17 - 1  # of the tiles around the Earth


@pytest.fixture
def flags(tiny_tiles: Path, tmp_path: Path) -> TilesFlags:
    return TilesFlags(tiny_tiles, 17, tmp_path / "cache")


@pytest.fixture
def own_flags(tiny_tiles: Path, tmp_path: Path) -> TilesFlags:
    """Tiles that the test may change."""
    shutil.copytree(tiny_tiles, tmp_path / "tiles")
    return TilesFlags(tmp_path / "tiles", 17, tmp_path / "cache")


@pytest.fixture(scope="module")
def city(tiny_tiles: Path, tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> City:
    return load_city(TilesFlags(tiny_tiles, 17, tmp_path_factory.mktemp("cache")), tiny_checkpoint, device="cpu")


@pytest.fixture(scope="module", params=["tiny_checkpoint", "multiscale_checkpoint"])
def checkpoint(request: pytest.FixtureRequest) -> Path:
    """The published encoder, and the one that sees the surroundings."""
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def either_city(tiny_tiles: Path, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> City:
    """`city` as one encoder sees it, and as the other does."""
    return load_city(TilesFlags(tiny_tiles, 17, tmp_path_factory.mktemp("cache")), checkpoint, device="cpu")


@pytest.fixture(scope="module")
def seeing_city(tiny_tiles: Path, multiscale_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> City:
    """`city` as the encoder that sees the surroundings does."""
    return load_city(TilesFlags(tiny_tiles, 17, tmp_path_factory.mktemp("cache")), multiscale_checkpoint, device="cpu")


def vector_file(flags: TilesFlags) -> Path:
    (path,) = flags.cache_dir.glob("vectors-*.l2v")
    return path


def drawn_tile(city: City) -> tuple[int, int]:
    """Coordinates of a tile with content that no other tile looks like."""
    alone = np.isin(city.embeddings.content, np.unique(city.embeddings.content, return_counts=True)[0])
    x, y = city.embeddings.tile_xy[np.flatnonzero(alone & ~city.embeddings.blank)[0]]
    return int(x), int(y)


def reference(city: City, tiles: np.ndarray) -> np.ndarray:
    """What the plain encoder says in float32."""
    with torch.inference_mode():
        return city.encoder(torch.from_numpy(tiles)).numpy()


def seen_at(city: City, centre: np.ndarray) -> tuple[torch.Tensor, ...]:
    """What the city's encoder sees around `centre (B, 2)`, in tiles."""
    return TileDataset(city.store).inputs(centre, city.encoder.uses_surroundings)


def reference_at(city: City, centre: np.ndarray) -> np.ndarray:
    """What the plain encoder says in float32 about the places around `centre (B, 2)`, one at a time."""
    with torch.inference_mode():
        return np.concatenate([city.encoder(*seen_at(city, one[None])).numpy() for one in np.asarray(centre)])


# --- vectors -----------------------------------------------------------------------------------------------


def test_vectors_are_those_of_the_plain_encoder_whatever_the_batch(either_city: City) -> None:
    city, rows = either_city, np.flatnonzero(~either_city.store.blank)[:40]
    plain = reference_at(city, city.store.tile_xy[rows] + 0.5)
    for batch_size in (1, 7, 64):
        vectors = Embedder(city.encoder, city.store, batch_size=batch_size).embed_tiles(rows)
        assert vectors.dtype == np.float32 and vectors.shape == (40, 16)
        assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
        assert (vectors * plain).sum(axis=1).min() > 0.9999
    again = Embedder(city.encoder, city.store, batch_size=64).embed_tiles(rows)
    assert np.array_equal(again, vectors)


def test_a_vector_depends_on_the_place_alone(
    tiny_tiles: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not on batch, order or choice of tiles; places at the centres of tiles have the tiles' vectors."""
    monkeypatch.setattr(inference, "compute_dtype", lambda _: torch.float32)
    vectors: dict[tuple[int, int], np.ndarray] = {}
    for i, (batch_size, max_tiles) in enumerate([(64, None), (1, 20), (7, 50), (None, None)]):
        flags = TilesFlags(tiny_tiles, 17, tmp_path / str(i))
        city = load_city(flags, checkpoint, device="cpu", batch_size=batch_size, max_tiles=max_tiles)
        for place, vector in zip(map(tuple, city.embeddings.tile_xy.tolist()), city.embeddings.vectors, strict=True):
            assert np.abs(vectors.setdefault(place, vector) - vector).max() < 1e-6
    order = np.random.default_rng(0).permutation(len(city.store))
    for found in (
        city.embedder.embed_tiles(order),
        city.embedder.embed_places(city.embeddings.latlon[order]),
        Embedder(city.encoder, city.store, batch_size=5).embed_places(city.embeddings.latlon[order]),
    ):
        assert np.abs(found - city.embeddings.vectors[order]).max() < 1e-6


def test_memory_is_bounded_by_the_batch(either_city: City, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[int] = []
    name = "planes_of" if either_city.encoder.uses_surroundings else "tiles"
    load = getattr(inference.TileDataset, name)
    monkeypatch.setattr(inference.TileDataset, name, lambda self, rows: loaded.append(len(rows)) or load(self, rows))
    embedder = Embedder(either_city.encoder, either_city.store, batch_size=10)
    for finished, _ in enumerate(embedder.embed_batches(np.arange(60))):
        assert len(loaded) <= finished + 3  # the one in work, the one just finished, the one prefetched
    assert max(loaded) <= 10 and sum(loaded) == 60


@pytest.mark.parametrize("surroundings", [False, True])
def test_an_encoder_of_another_architecture_embeds_too(
    city: City, monkeypatch: pytest.MonkeyPatch, surroundings: bool
) -> None:
    class Means(torch.nn.Module):
        """The mean intensity of each layer, of the tile or of its surroundings."""

        uses_surroundings = surroundings

        def __init__(self, config: EncoderConfig):
            super().__init__()
            self.config = config
            self.scale = torch.nn.Parameter(torch.ones(1))

        def forward(self, tiles: torch.Tensor, *windows: torch.Tensor) -> torch.Tensor:
            seen = windows[0][:, :12] if windows else tiles
            return torch.nn.functional.normalize(self.scale * (1 + seen.float().mean(dim=(2, 3)) / 255), dim=1)

    monkeypatch.setitem(ENCODERS, "means", Means)
    encoder = build_network(EncoderConfig(embedding_dim=12, tile_size=32, architecture="means")).eval()
    rows = np.flatnonzero(~city.store.blank)[:5]
    vectors = Embedder(encoder, city.store).embed_tiles(rows)
    means = 1 + city.store.layer_intensity[rows]
    if surroundings:
        near = TileDataset(city.store).surroundings(city.store.tile_xy[rows] + 0.5, NEAR_TILES)[:, :12]
        means = 1 + near.float().mean(dim=(2, 3)).numpy() / 255
    assert np.allclose(vectors, means / np.linalg.norm(means, axis=1, keepdims=True), atol=5e-3)


def test_a_place_between_tiles_sees_all_four(city: City) -> None:
    x, y = city.store.tile_xy[len(city.store) // 2] + 1
    rows = city.store.grid.rows(np.array([(x - 1, y - 1), (x, y - 1), (x - 1, y), (x, y)]))
    upper_left, upper_right, lower_left, lower_right = city.store.tiles(rows)
    both = np.concatenate(
        [np.concatenate([upper_left, upper_right], 2), np.concatenate([lower_left, lower_right], 2)], 1
    )
    window = both[:, 16:48, 16:48]
    assert window.any()
    vector = city.embedder.embed_places(latlon_of_tile(np.array([x, y])))
    assert (vector * reference(city, window[None])).sum() > 0.9999


def test_a_place_outside_the_tiles_is_an_error_that_says_what_is_covered(city: City) -> None:
    with pytest.raises(UserError, match=r"no tile lies at latitude 48\.8, longitude 2\.3.*cover latitude 50\."):
        city.embedder.embed_places(np.array([[48.8, 2.3]]))
    with pytest.raises(UserError, match="latitude first"):
        city.embedder.embed_places(np.array([[130.5, 50.4]]))


def test_places_between_tiles_at_edges_and_over_holes(tmp_path: Path, multiscale_checkpoint: Path) -> None:
    root = make_tiles(tmp_path / "tiles", nx=20, ny=20, px=32)
    for path in root.glob("*/17/76609/4420[5-8].png"):
        path.unlink()
    city = load_city(TilesFlags(root, 17, tmp_path / "cache"), multiscale_checkpoint, device="cpu")
    low = city.store.tile_xy.min(axis=0)
    shares = [(0.01, 0.01), (19.99, 19.99), (0.5, 19.2), (10.02, 6.4), (8.98, 6.7), (9.4, 4.9), (7.3, 12.8)]
    centre = low + np.array(shares)
    found = city.embedder.embed_places(latlon_of_tile(centre))
    assert np.abs(found - reference_at(city, centre)).max() < 1e-5
    assert np.isfinite(found).all() and len(np.unique(found.round(4), axis=0)) == len(found)
    with pytest.raises(UserError, match="no tile lies at"):
        city.embedder.embed_places(latlon_of_tile(low + np.array([9.5, 6.5])))


def test_a_city_smaller_than_its_surroundings(tmp_path: Path, multiscale_checkpoint: Path) -> None:
    root = make_tiles(tmp_path / "tiles", nx=2, ny=1, px=32)
    city = load_city(TilesFlags(root, 17, tmp_path / "cache"), multiscale_checkpoint, device="cpu")
    _, near, far = seen_at(city, city.store.tile_xy + 0.5)
    assert [int((window[0, -1] > 0).sum()) for window in (near, far)] == [2 * 16**2, 2 * 4**2]
    assert np.allclose(np.linalg.norm(city.embeddings.vectors, axis=1), 1, atol=1e-5)
    assert np.abs(city.embeddings.vectors[0] - city.embeddings.vectors[1]).max() > 1e-3


def test_layer_contributions_are_what_blanking_the_layer_changes(either_city: City) -> None:
    city, busy = either_city, np.argsort((either_city.store.plane_of > 0).sum(axis=1))[-2:]
    inputs = seen_at(city, city.store.tile_xy[busy] + 0.5)
    expected = np.zeros(len(LAYERS))
    with torch.inference_mode():
        whole = city.encoder(*inputs)
        for layer in range(len(LAYERS)):
            without = []
            for i in range(2):
                blanked = [tensor[i : i + 1].clone() for tensor in inputs]
                if city.store.plane_of[busy[i], layer]:
                    for tensor in blanked:
                        tensor[:, layer : 36 : len(LAYERS)] = 0
                        if LAYERS[layer] == "buildings":
                            tensor[:, 36:40] = 0
                without.append(city.encoder(*blanked)[0])
            expected[layer] = whole[0] @ whole[1] - (without[0] @ whole[1] + whole[0] @ without[1]) / 2
    found = layer_contributions(city.embedder, *busy)
    assert found.shape == (12,)
    assert np.abs(found - expected).max() < 3e-3
    lacking = (city.store.plane_of[busy] == 0).all(axis=0)
    assert lacking.any() and (found[lacking] == 0).all()
    pairs = layer_contributions(city.embedder, busy, busy[::-1])
    assert pairs.shape == (2, 12) and np.abs(pairs - found).max() < 1e-4


def test_all_that_a_tile_shows_makes_it_like_itself(either_city: City) -> None:
    row = int(np.argmax((either_city.store.plane_of > 0).sum(axis=1)))
    found, drawn = layer_contributions(either_city.embedder, row, row), either_city.store.plane_of[row] > 0
    assert (found[drawn] > 1e-6).all() and (found[~drawn] == 0).all()
    if either_city.encoder.uses_surroundings:
        assert (place_contributions(either_city.embedder, row, row) > 1e-6).all()


def test_how_much_of_a_match_is_the_place_itself_and_how_much_its_surroundings(seeing_city: City) -> None:
    city, pair = seeing_city, np.flatnonzero(~seeing_city.store.blank)[[3, 40]]
    inputs, encoder = seen_at(city, city.store.tile_xy[pair] + 0.5), city.encoder
    keep = torch.tensor([[True, True, True], [False, True, True], [True, False, False]])[:, None].expand(3, 2, 3)
    with torch.inference_mode():
        whole, *without = (encoder.final(vectors) for vectors in encoder(*inputs, keep=keep).unbind(1))
    expected = [float(whole[0] @ whole[1] - (less[0] @ whole[1] + whole[0] @ less[1]) / 2) for less in without]
    found = place_contributions(city.embedder, *pair)
    assert len(PLACE_PARTS) == 2 and found == pytest.approx(expected, abs=1e-5)
    assert np.abs(found).min() > 1e-4
    several = place_contributions(city.embedder, np.array([pair[0], pair[0]]), pair)
    assert several.shape == (2, 2) and several[1] == pytest.approx(found, abs=1e-6)


# --- facts -------------------------------------------------------------------------------------------------


def store_of_masses(masses: list[list[float]]) -> TileStore:
    """A store of tiles in a row whose layers have these masses; only the facts can be asked of it."""
    mass = np.array(masses, dtype=np.float32)
    plane_intensity, plane_of = np.unique(np.append(mass.ravel(), np.float32(0)), return_inverse=True)
    tile_xy = np.stack([np.arange(len(mass)), np.zeros(len(mass))], axis=1).astype(np.int32)
    none = np.empty(0, dtype=np.uint8)
    planes = plane_of[:-1].reshape(mass.shape).astype(np.int32)
    return TileStore(
        Path(),
        17,
        32,
        "mean",
        tile_xy,
        none,
        planes,
        plane_intensity,
        none,
        levels={},
        sizes=none,
        size_row=none,
        meta={},
    )


def masses(**layers: float) -> list[float]:
    return [layers.get(layer.replace("-", "_"), 0.0) for layer in LAYERS]


def test_the_dominant_layer_is_what_a_person_would_name() -> None:
    field = masses(landcover=0.35)
    quarter = masses(landcover=0.3, buildings=0.09, roads=0.04, power=0.001)
    pylons = masses(landcover=0.4, power=0.003)
    lake = masses(water=0.6, landcover=0.1)
    yard = masses(railways=0.12, landcover=0.3, buildings=0.02)
    lone_line = masses(power=0.002)
    usual = [masses(landcover=0.3, buildings=0.04, roads=0.04, railways=0.02)] * 6
    store = store_of_masses([field, quarter, pylons, lake, yard, lone_line, masses(), *usual])
    found = dominant_layers(store)
    names = ["landcover", "buildings", "landcover", "water", "railways", "power"]
    assert [LAYERS[i] for i in found[:6]] == names
    assert found[6] == -1


def test_density_counts_layers_not_fill() -> None:
    forest = masses(landcover=0.9)
    crossing = masses(landcover=0.3, buildings=0.08, roads=0.08, amenities=0.02, railways=0.03)
    density = content_density(store_of_masses([masses(), forest, crossing, *[masses(landcover=0.4)] * 5]))
    assert density[0] == 0
    assert 0 < density[1] < density[2] <= 1


def test_zones_are_true_compass_directions_and_the_centre_a_ninth() -> None:
    xy = np.stack(np.meshgrid(np.arange(60), np.arange(90)), axis=-1).reshape(-1, 2) + 76600
    zone = compass_zones(xy)
    names = {tuple(p): ZONES[z] for p, z in zip(xy - 76600, zone, strict=True)}
    assert names[30, 45] == "Centre"
    assert (names[30, 0], names[30, 89], names[0, 45], names[59, 45]) == ("North", "South", "West", "East")
    assert (names[59, 10], names[0, 10], names[0, 80], names[59, 80]) == (
        "Northeast",
        "Northwest",
        "Southwest",
        "Southeast",
    )
    assert abs((zone == 0).mean() - 1 / 9) < 0.01


def test_blank_tiles_are_embedded_but_not_searched(city: City) -> None:
    places = city.embeddings.with_content()
    assert city.embeddings.blank.any() and not places.blank.any()
    assert (city.embeddings.dominant_layer[city.embeddings.blank] == -1).all()
    assert (city.embeddings.density[city.embeddings.blank] == 0).all()
    assert (places.dominant_layer >= 0).all() and (places.density > 0).all()
    assert places.with_content() is places


def test_rows_and_take_go_by_coordinates(city: City) -> None:
    taken = city.embeddings.take(np.array([7, 3]))
    assert np.array_equal(taken.tile_xy, city.embeddings.tile_xy[[7, 3]])
    assert taken.rows(taken.tile_xy).tolist() == [0, 1]
    assert taken.rows(np.array([[0, 0]])).tolist() == [-1]
    assert taken.key != city.embeddings.key
    assert np.abs(taken.latlon - city.embeddings.latlon[[7, 3]]).max() == 0


# --- sampling ----------------------------------------------------------------------------------------------


def test_a_sample_is_spread_evenly_over_what_is_drawn(city: City) -> None:
    drawn = np.flatnonzero(~city.store.blank)
    rows = pick_rows(city.store, 24)
    assert len(rows) == 24 == len(np.unique(rows))
    assert not city.store.blank[rows].any()
    assert np.array_equal(rows, pick_rows(city.store, 24))
    assert not np.array_equal(rows, pick_rows(city.store, 24, seed=1))
    middle = np.median(city.store.tile_xy[drawn], axis=0)
    for quarter in range(4):
        inside = [(city.store.tile_xy[r] >= middle) @ [1, 2] == quarter for r in (drawn, rows)]
        assert abs(inside[0].mean() - inside[1].mean()) < 0.1
    assert np.array_equal(pick_rows(city.store, 10**6), drawn)
    for count in range(1, len(drawn) + 1):
        assert len(set(pick_rows(city.store, count))) == count, "a tile is shown once"


def test_neighbours_on_the_curve_are_neighbours_on_the_ground() -> None:
    xy = np.stack(np.meshgrid(np.arange(16), np.arange(16)), axis=-1).reshape(-1, 2)
    order = np.argsort(tile_grid.hilbert_order(xy))
    assert (np.abs(np.diff(xy[order], axis=0)).sum(axis=1) == 1).all()


# --- the cache ---------------------------------------------------------------------------------------------


def test_a_second_load_computes_nothing(flags: TilesFlags, tiny_checkpoint: Path) -> None:
    first = load_city(flags, tiny_checkpoint, device="cpu")
    second = load_city(flags, tiny_checkpoint, device="cpu")
    assert (first.computed, first.reused) == (144, 0)
    assert (second.computed, second.reused) == (0, 144)
    assert np.array_equal(first.embeddings.vectors, second.embeddings.vectors)
    assert first.embeddings.key == second.embeddings.key


def test_a_sample_and_the_whole_city_share_their_vectors(flags: TilesFlags, tiny_checkpoint: Path) -> None:
    sample = load_city(flags, tiny_checkpoint, device="cpu", max_tiles=20)
    assert (sample.computed, len(sample.embeddings)) == (20, 20)
    whole = load_city(flags, tiny_checkpoint, device="cpu")
    assert whole.reused >= 20
    drawn = load_city(flags, tiny_checkpoint, device="cpu", max_tiles=1000)
    assert drawn.computed == 0
    assert drawn.embeddings.key == whole.embeddings.with_content().key


def test_one_changed_tile_is_one_tile_embedded(own_flags: TilesFlags, tiny_checkpoint: Path) -> None:
    before = load_city(own_flags, tiny_checkpoint, device="cpu")
    x, y = drawn_tile(before)
    path = own_flags.tiles_root / f"water/17/{x}/{y}.png"
    path.write_bytes(png_bytes(np.random.default_rng(5).integers(0, 255, (64, 64), dtype=np.uint8)))
    after = load_city(own_flags, tiny_checkpoint, device="cpu")
    assert (after.computed, after.reused) == (1, 143)
    assert after.embeddings.key != before.embeddings.key
    changed = (after.embeddings.vectors != before.embeddings.vectors).any(axis=1)
    assert after.embeddings.tile_xy[changed].tolist() == [[x, y]]


def test_a_changed_tile_is_embedded_again_with_all_tiles_that_see_it(
    tmp_path: Path, multiscale_checkpoint: Path
) -> None:
    flags = TilesFlags(make_tiles(tmp_path / "tiles", nx=22, ny=20, px=32), 17, tmp_path / "cache")
    before = load_city(flags, multiscale_checkpoint, device="cpu").embeddings
    x, y = before.tile_xy.min(axis=0) + np.array([11, 9])
    path = flags.tiles_root / f"water/17/{x}/{y}.png"
    path.write_bytes(png_bytes(np.random.default_rng(5).integers(0, 255, (32, 32), dtype=np.uint8)))
    after = load_city(flags, multiscale_checkpoint, device="cpu")
    sees_it = np.abs(before.tile_xy - (x, y)).max(axis=1) <= FAR_TILES // 2
    assert (after.computed, after.reused) == (17**2, 22 * 20 - 17**2)
    assert np.array_equal(after.embeddings.content != before.content, sees_it)
    same = (after.embeddings.vectors == before.vectors).all(axis=1)
    assert same[~sees_it].all() and not same[sees_it].all() and not same[before.rows(np.array([x, y]))]


def test_tiles_that_look_alike_in_different_surroundings_differ(seeing_city: City) -> None:
    blank = np.flatnonzero(seeing_city.embeddings.blank)
    content, vectors = seeing_city.embeddings.content[blank], seeing_city.embeddings.vectors[blank]
    assert len(blank) > 3 and len(np.unique(content)) == len(blank) == len(np.unique(vectors, axis=0))


def test_what_a_tile_sees_does_not_depend_on_the_order_of_asking(seeing_city: City) -> None:
    order = np.random.default_rng(0).permutation(len(seeing_city.store))[:50]
    everything = tile_contents(seeing_city.store, np.arange(len(seeing_city.store)), surroundings=True)
    assert np.array_equal(tile_contents(seeing_city.store, order, surroundings=True), everything[order])


def test_another_checkpoint_is_another_cache(flags: TilesFlags, tiny_checkpoint: Path, tmp_path: Path) -> None:
    first = load_city(flags, tiny_checkpoint, device="cpu")
    save_untrained(tmp_path / "other.pth", seed=1)
    other = load_city(flags, tmp_path / "other.pth", device="cpu")
    assert other.computed == 144
    assert other.embeddings.key != first.embeddings.key
    assert load_city(flags, tiny_checkpoint, device="cpu").computed == 0


def test_the_key_does_not_depend_on_where_the_tiles_lie(
    city: City, own_flags: TilesFlags, tiny_checkpoint: Path
) -> None:
    moved = load_city(own_flags, tiny_checkpoint, device="cpu")
    assert moved.embeddings.key == city.embeddings.key


def test_force_embeds_all_again(flags: TilesFlags, tiny_checkpoint: Path) -> None:
    load_city(flags, tiny_checkpoint, device="cpu")
    assert load_city(flags, tiny_checkpoint, device="cpu", force=True).computed == 144


def test_cached_only_takes_what_is_cached_and_says_how_many_that_is(
    flags: TilesFlags, tiny_checkpoint: Path, capsys: pytest.CaptureFixture
) -> None:
    with pytest.raises(UserError, match=r"none of the 144 tiles has a cached vector.*without --skip_embeddings"):
        load_city(flags, tiny_checkpoint, device="cpu", cached_only=True)
    sample = load_city(flags, tiny_checkpoint, device="cpu", max_tiles=20)
    capsys.readouterr()
    found = load_city(flags, tiny_checkpoint, device="cpu", cached_only=True)
    assert (found.computed, found.reused, found.missing) == (0, len(found.rows), 144 - len(found.rows))
    assert set(map(tuple, sample.embeddings.tile_xy.tolist())) <= set(map(tuple, found.embeddings.tile_xy.tolist()))
    assert np.array_equal(found.store.tile_xy[found.rows], found.embeddings.tile_xy)
    said = capsys.readouterr().err
    assert f"{found.reused} of 144 tiles have a cached vector; {found.missing} are left out" in said
    load_city(flags, tiny_checkpoint, device="cpu")
    capsys.readouterr()
    assert load_city(flags, tiny_checkpoint, device="cpu", cached_only=True).missing == 0
    assert not capsys.readouterr().err


def test_the_tiles_go_to_the_device_once(city: City, monkeypatch: pytest.MonkeyPatch) -> None:
    uploads: list[object] = []
    upload = inference.TileDataset.__init__
    monkeypatch.setattr(inference.TileDataset, "__init__", lambda *args: uploads.append(args) or upload(*args))
    fresh = dataclasses.replace(city)
    for place in fresh.embeddings.latlon[60:63]:
        fresh.embedder.embed_places(place)
        layer_contributions(fresh.embedder, 60, 61)
    assert len(uploads) == 1


@pytest.mark.parametrize("where", [0, 9, 60, 200, 0.5, 0.999])
def test_any_damage_is_noticed_and_fixed(
    flags: TilesFlags, tiny_checkpoint: Path, where: float, capsys: pytest.CaptureFixture
) -> None:
    good = load_city(flags, tiny_checkpoint, device="cpu").embeddings.vectors.copy()
    path = vector_file(flags)
    content = bytearray(path.read_bytes())
    content[int(where * len(content)) if 0 < where < 1 else int(where)] ^= 0x40
    path.write_bytes(content)
    again = load_city(flags, tiny_checkpoint, device="cpu")
    assert again.computed == 144
    assert np.array_equal(again.embeddings.vectors, good)
    assert capsys.readouterr().err.count("embedded again") == 1
    assert load_city(flags, tiny_checkpoint, device="cpu").computed == 0


@pytest.mark.parametrize("left", [0, 30, 3000])
def test_a_cut_cache_is_fixed(flags: TilesFlags, tiny_checkpoint: Path, left: int) -> None:
    load_city(flags, tiny_checkpoint, device="cpu")
    path = vector_file(flags)
    path.write_bytes(path.read_bytes()[:left])
    assert load_city(flags, tiny_checkpoint, device="cpu").computed == 144


def test_damaged_pixels_in_the_pack_never_become_vectors(
    flags: TilesFlags, tiny_checkpoint: Path, capsys: pytest.CaptureFixture
) -> None:
    city = load_city(flags, tiny_checkpoint, device="cpu")
    good = city.embeddings.vectors.copy()
    (planes,) = flags.cache_dir.glob("tiles-*/planes-*.bin")
    content = bytearray(planes.read_bytes())
    content[32 * 32 : 5 * 32 * 32] = b"\x7f" * (4 * 32 * 32)
    planes.write_bytes(content)
    vector_file(flags).unlink()
    again = load_city(flags, tiny_checkpoint, device="cpu")
    assert "packing them again" in capsys.readouterr().err
    assert np.array_equal(again.embeddings.vectors, good)


def test_what_was_embedded_before_a_stop_is_kept(flags: TilesFlags, tiny_checkpoint: Path) -> None:
    class StoppedError(Exception):
        pass

    def stop(desc: str, done: int, _total: int | None) -> None:
        if desc.startswith("embedding") and done >= 30:
            raise StoppedError

    with pytest.raises(StoppedError), progress_listener(stop):
        load_city(flags, tiny_checkpoint, device="cpu", batch_size=10)
    rest = load_city(flags, tiny_checkpoint, device="cpu")
    assert rest.reused >= 30 and rest.computed + rest.reused == 144
    (flags.cache_dir / "x").mkdir()
    fresh = load_city(dataclasses.replace(flags, cache_dir=flags.cache_dir / "x"), tiny_checkpoint, device="cpu")
    assert np.linalg.norm(fresh.embeddings.vectors - rest.embeddings.vectors, axis=1).max() < 0.005


def test_tiles_of_another_zoom_are_refused(tmp_path: Path, tiny_checkpoint: Path) -> None:
    make_tiles(tmp_path / "tiles", nx=2, ny=2, zoom=16)
    with pytest.raises(UserError, match="trained on tiles of zoom 17, these have zoom 16"):
        load_city(TilesFlags(tmp_path / "tiles", 16, tmp_path / "cache"), tiny_checkpoint)


# --- tiles on both sides of 180 degrees --------------------------------------------------------------------


@pytest.fixture(scope="module")
def seam(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[City, City]:
    """The same drawing as a city across 180 degrees and as one that does not reach it; 12 x 12 tiles each."""
    cities = []
    for x0 in (LAST_COLUMN - 5, 76600):  # columns -6 to 5 around 180 degrees
        folder = tmp_path_factory.mktemp("seam")
        make_tiles(folder / "drawn", x0=x0)
        for layer in LAYERS:
            for column in (folder / "drawn" / layer / "17").iterdir():
                wrapped = folder / "tiles" / layer / "17" / str(int(column.name) % (LAST_COLUMN + 1))
                wrapped.parent.mkdir(parents=True, exist_ok=True)
                column.rename(wrapped)
        cities.append(load_city(TilesFlags(folder / "tiles", 17, folder / "cache"), checkpoint, device="cpu"))
    return cities[0], cities[1]


def order_on_the_ground(city: City) -> np.ndarray:
    return np.lexsort(city.store.unwrapped_xy.T[::-1])


def test_across_180_degrees_vectors_facts_and_samples_are_those_of_any_city(seam: tuple[City, City]) -> None:
    across, plain = seam
    a, b = order_on_the_ground(across), order_on_the_ground(plain)
    assert across.store.tile_xy[:, 0].min() == 0 and across.store.tile_xy[:, 0].max() == LAST_COLUMN
    assert np.abs(across.embeddings.vectors[a] - plain.embeddings.vectors[b]).max() < 1e-6
    for name in ("dominant_layer", "zone", "density", "blank"):
        assert np.array_equal(getattr(across.embeddings, name)[a], getattr(plain.embeddings, name)[b]), name
    position = [np.argsort(order) for order in (a, b)]
    picked = [sorted(position[i][pick_rows(city.store, 30)].tolist()) for i, city in enumerate(seam)]
    assert picked[0] == picked[1]


def test_across_180_degrees_neighbours_and_windows_join(seam: tuple[City, City]) -> None:
    across, plain = seam
    y = int(plain.store.tile_xy[:, 1].min()) + 5
    rows = across.store.grid.rows(np.array([(LAST_COLUMN, y), (LAST_COLUMN + 1, y), (0, y), (-1, y), (6, y)]))
    assert rows[0] == rows[3] >= 0 and rows[1] == rows[2] >= 0 and rows[4] == -1
    size, shift = across.store.tile_size, np.array([11, 7])
    around = np.array([(LAST_COLUMN, y), (-1, y)]) * size + shift  # a window across 180 degrees, named from both sides
    expected = plain.store.windows(np.array([[76605, y]]) * size + shift)
    for tiles in (across.store.windows(around), across.embedder.tiles.windows(around).numpy()):
        assert expected.any() and (tiles == expected).all()
    grid, planes = across.store.grid, torch.from_numpy(np.array(across.store.planes))
    plane_of = torch.from_numpy(np.concatenate([across.store.plane_of, np.zeros((1, len(LAYERS)), np.int32)])).long()
    table = torch.from_numpy(grid.table.copy()).long()
    gathered = window_gather(
        planes, plane_of, table, torch.from_numpy(grid.origin), torch.from_numpy(around), grid.columns_around
    )
    assert (gathered.numpy() == expected).all()


def test_across_180_degrees_places_distances_and_the_area_are_right(seam: tuple[City, City]) -> None:
    across, plain = seam
    lat = float(across.embeddings.latlon[0, 0])
    vectors = across.embedder.embed_places(np.array([(lat, 180.0), (lat, -180.0)]))
    y = tile_grid.tile_of_latlon(lat, 0.0)[1]
    expected = plain.embedder.embed_places(latlon_of_tile(np.array([[76606, y]])))
    assert np.abs(vectors - expected).max() < 1e-6
    with pytest.raises(UserError, match=r"longitude 179\.98.* to -179\.98"):
        across.embedder.embed_places(np.array([(lat, 170.0)]))
    xy, centre = across.embeddings.tile_xy, np.array([lat, 180.0])
    km = tile_grid.great_circle_km(across.embeddings.latlon, centre)
    assert km.max() < 4 and tile_grid.farther_than(xy, 17, centre, 0.8).sum() == (km >= 0.8).sum()
    west, south, east, north = tile_grid.area_bounds(xy, 17)
    assert 179.9 < west < 180 and -180 < east < -179.9 and south < lat < north


def test_the_export_of_an_area_across_180_degrees(seam: tuple[City, City], tmp_path: Path) -> None:
    parquet, shapely = pytest.importorskip("pyarrow.parquet"), pytest.importorskip("shapely")
    across, _ = seam
    write_parquet(across, tmp_path / "seam.parquet")
    table = parquet.read_table(tmp_path / "seam.parquet")
    west, _, east, _ = json.loads(table.schema.metadata[b"geo"])["columns"]["geometry"]["bbox"]
    assert west > 179.9 and east < -179.9, "GeoParquet: west is larger than east across 180 degrees"
    bounds = shapely.bounds(shapely.from_wkb(table["geometry"].to_pylist()))
    assert ((bounds[:, 2] - bounds[:, 0]) < 0.003).all(), "each outline stays on its side"
    assert (bounds[:, 0] < bounds[:, 2]).all() and set(np.sign(bounds[:, 0])) == {-1, 1}
