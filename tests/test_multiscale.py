"""The encoder that sees a tile and its surroundings, and the statistics that it learns to tell."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import ndimage

import tile_statistics
from checkpoint import Checkpoint, encoder_state, load_encoder, save_checkpoint
from conftest import REPO
from data_loader import TileDataset
from granulometry import RADII, shape_counts
from model import EncoderConfig, build_network
from multiscale import MultiscaleEncoder, PatchConv, SoftHistogram, _pixel_means, histograms, scattered_histograms
from test_data_loader import with_holes
from tile_levels import SURROUND_CHANNELS
from tile_statistics import FIELDS, RINGS, city_targets, composition, plane_statistics, ring_means, store_statistics
from tile_store import TileStore, open_store

SIZE = 64
DIM = 24


@pytest.fixture(scope="module")
def store(tiny_tiles: Path, tmp_path_factory: pytest.TempPathFactory) -> TileStore:
    return open_store(tiny_tiles, SIZE, cache_dir=tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def inputs(store: TileStore) -> tuple[torch.Tensor, ...]:
    """A tile in the corner of the city, a blank one, and others."""
    rows = np.concatenate([[0], np.flatnonzero(store.blank)[:1], np.flatnonzero(~store.blank)[::12]])
    return TileDataset(store).inputs(store.tile_xy[rows] + 0.5, surroundings=True)


@pytest.fixture
def encoder(inputs: tuple[torch.Tensor, ...]) -> MultiscaleEncoder:
    """An untrained encoder that standardises what it measures of the inputs."""
    torch.manual_seed(0)
    network = build_network(EncoderConfig(embedding_dim=DIM, tile_size=SIZE, architecture="multiscale"))
    assert isinstance(network, MultiscaleEncoder)
    with torch.no_grad():
        network.start(network.features(*inputs))
    return network.eval()


# --- the encoder -------------------------------------------------------------------------------------------


def test_surroundings_of_neighbours_are_measured_together(store: TileStore, encoder: MultiscaleEncoder) -> None:
    dataset, corner = TileDataset(with_holes(store)), store.tile_xy.min(axis=0)
    across, down = np.meshgrid(np.arange(8), np.arange(8))
    each = corner + np.column_stack([across.ravel(), down.ravel()]) + 0.5
    with torch.inference_mode():
        one_by_one = encoder.surround_features(*(dataset.surroundings(each, tiles) for tiles in (4, 16)))
        middle = np.stack([corner, corner + 1]) + 4.0  # two blocks that overlap
        together = encoder.surround_features(*(dataset.surroundings(middle, tiles, 8) for tiles in (4, 16)), 8)
    for alone, shared in zip(one_by_one, together, strict=True):
        assert shared.shape == (128, alone.shape[1]) and alone.std(dim=0).max() > 0.01
        torch.testing.assert_close(shared[:64], alone, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(shared[64], alone[9], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("dim", "size"), [(128, 256), (24, 32)])
def test_vectors_have_unit_length_at_any_tile_size(dim: int, size: int) -> None:
    network = build_network(EncoderConfig(embedding_dim=dim, tile_size=size, architecture="multiscale")).eval()
    around = torch.randint(256, (2, 3, SURROUND_CHANNELS, 64, 64), dtype=torch.uint8)
    vectors = network(torch.randint(256, (3, 12, size, size), dtype=torch.uint8), *around)
    assert vectors.shape == (3, dim) and vectors.dtype == torch.float32
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(3))


@torch.no_grad()
def test_a_vector_does_not_depend_on_its_batch(encoder: MultiscaleEncoder, inputs: tuple[torch.Tensor, ...]) -> None:
    together = encoder(*inputs)
    alone = torch.cat([encoder(*[tensor[i : i + 1] for tensor in inputs]) for i in range(len(together))])
    torch.testing.assert_close(alone, together, rtol=0, atol=1e-6)


@torch.no_grad()
def test_blank_places_have_vectors_too(encoder: MultiscaleEncoder, inputs: tuple[torch.Tensor, ...]) -> None:
    assert not inputs[0][1].any() and inputs[1][1].any()
    nothing = [torch.zeros_like(tensor[:2]) for tensor in inputs]
    vectors = encoder(*nothing)
    assert vectors.isfinite().all()
    torch.testing.assert_close(vectors[0], vectors[1])
    assert encoder(*inputs)[1].isfinite().all()


def test_selecting_the_planes_that_are_drawn_changes_nothing(
    encoder: MultiscaleEncoder, inputs: tuple[torch.Tensor, ...]
) -> None:
    """On a GPU all planes are computed, and blank ones are set to zero."""
    tile = inputs[0]
    planes, layer = tile.flatten(0, 1), torch.arange(12).repeat(len(tile))
    drawn = planes.flatten(1).any(dim=1)
    everything = (encoder.plane_features(planes, layer) * drawn[:, None]).view(len(tile), -1)
    torch.testing.assert_close(encoder.tile_features(tile), everything)


def image_of(patches: torch.Tensor) -> torch.Tensor:
    """The square image `(1, C, S, S)` that consists of `patches (N, C, s, s)`."""
    cells = round(len(patches) ** 0.5)
    rows = patches.unflatten(0, (cells, cells)).permute(2, 0, 3, 1, 4)
    return rows.flatten(3, 4).flatten(1, 2)[None]


@pytest.mark.parametrize("size", [64, 68, 256])
def test_histograms_count_every_pixel(size: int) -> None:
    planes = torch.randint(0, 256, (7, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    planes[0] = 0
    planes[1:4, : size // 2] = 0
    planes[4] = 255
    expected = torch.stack([torch.bincount(plane.flatten(), minlength=256) for plane in planes]).float()
    torch.testing.assert_close(histograms(planes), expected, rtol=0, atol=0)
    torch.testing.assert_close(scattered_histograms(planes.flatten(1)), expected, rtol=0, atol=0)
    torch.testing.assert_close(histograms(planes.to("meta")), expected.to("meta"))


@pytest.mark.parametrize(("channels", "size", "occupied"), [(1, 4, True), (5, 2, False)])
@pytest.mark.parametrize("drawn", [0, 1, 37, 256])
def test_a_patch_convolution_is_a_strided_convolution(channels: int, size: int, occupied: bool, drawn: int) -> None:
    """In value and gradient, however many patches are blank."""
    torch.manual_seed(0)
    conv, cells = PatchConv(channels, 6, size, occupied), 16
    patches = torch.randint(1, 256, (cells**2, channels, size, size), dtype=torch.uint8)
    patches[torch.randperm(cells**2)[drawn:]] = 0
    pixels = image_of(patches)
    kernel = conv.brightness.weight.view(6, channels, size, size)
    expected = F.conv2d(pixels / 255, kernel, conv.brightness.bias, stride=size)
    if conv.occupied is not None:
        expected = expected + F.conv2d((pixels > 0).float(), conv.occupied.weight.view_as(kernel), stride=size)
    found = conv(pixels)
    torch.testing.assert_close(found, expected)
    direction = torch.randn_like(found)
    gradients = [torch.autograd.grad((out * direction).sum(), list(conv.parameters())) for out in (found, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-4)


def test_few_numbers_of_patches_are_multiplied(monkeypatch) -> None:
    """A bfloat16 product is compiled for each number of rows, which takes longer than the product itself."""
    conv, rows = PatchConv(1, 6, 4, occupied=True), []
    monkeypatch.setattr(conv, "multiplied", lambda some: rows.append(len(some)) or torch.zeros(len(some), 6))
    numbers = range(1, 4097, 5)
    for drawn in numbers:
        patches = torch.zeros(4096, 1, 4, 4, dtype=torch.uint8)
        patches[:drawn, 0, 1, 2] = 1
        conv(image_of(patches))
    assert all(drawn <= count <= 1.15 * drawn + 1 for drawn, count in zip(numbers, rows, strict=True))
    assert len(set(rows)) < 90


@pytest.mark.parametrize("edge", [8, 64])
def test_means_of_pixels_and_their_gradients(edge: int) -> None:
    torch.manual_seed(0)
    x = torch.randn(3, 5, edge, edge).to(memory_format=torch.channels_last).requires_grad_()
    direction = torch.randn(3, 5)
    torch.testing.assert_close(_pixel_means(x), x.mean(dim=(2, 3)))
    found, expected = (torch.autograd.grad((m * direction).sum(), x) for m in (_pixel_means(x), x.mean(dim=(2, 3))))
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("threads", [2, 4])
def test_gradients_are_the_same_each_time_with_several_threads(
    encoder: MultiscaleEncoder, inputs: tuple[torch.Tensor, ...], threads: int
) -> None:
    def gradients() -> list[torch.Tensor]:
        torch.manual_seed(0)
        direction = torch.randn(len(inputs[0]) * 8, DIM)
        found = torch.autograd.grad((encoder(*many) * direction).sum(), list(encoder.parameters()), allow_unused=True)
        return [gradient for gradient in found if gradient is not None]

    many, before = [tensor.repeat_interleave(8, dim=0) for tensor in inputs], torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        first = gradients()
        for _ in range(5):
            for again, gradient in zip(gradients(), first, strict=True):
                torch.testing.assert_close(again, gradient, rtol=0, atol=0)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("on_cpu", [True, False])
@pytest.mark.parametrize("size", [256, 64, 96, 32, 100])
def test_sizes_and_shapes_are_those_that_scipy_finds(size: int, on_cpu: bool, monkeypatch) -> None:
    """In NumPy on a CPU, and in tensors, as on other devices and when it is compiled; in whole words and others."""
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: not on_cpu)
    noise = np.random.default_rng(size).standard_normal((4, size, size))
    planes = (ndimage.gaussian_filter(noise, (0, 3, 3)) > np.array([0.0, 0.05, 0.1, 9.0])[:, None, None]) * np.uint8(70)
    found = shape_counts(torch.from_numpy(planes)).numpy()
    for plane, of_radius in zip(planes, found, strict=True):
        for radius, (area, perimeter, euler) in zip(RADII, of_radius.tolist(), strict=True):
            left = ndimage.minimum_filter(plane > 0, 2 * radius + 1, mode="constant", cval=1)
            framed = np.pad(left, 1)
            edges = np.count_nonzero(framed[1:] ^ framed[:-1]) + np.count_nonzero(framed[:, 1:] ^ framed[:, :-1])
            holes = ndimage.label(~framed, np.ones((3, 3)))[1] - 1
            assert (area, perimeter, euler) == (left.sum(), edges, ndimage.label(left)[1] - holes)


def test_gradients_reach_every_parameter(encoder: MultiscaleEncoder, inputs: tuple[torch.Tensor, ...]) -> None:
    count = len(inputs[0])
    keep = torch.stack([torch.ones(count, 3, dtype=torch.bool), torch.arange(3) == torch.arange(count)[:, None] % 3])
    vectors = encoder.train()(*inputs, keep=keep)
    assert vectors.shape == (count, 2, DIM)
    (vectors * torch.randn_like(vectors)).sum().backward()
    for name, weights in encoder.named_parameters():
        assert weights.grad is not None and weights.grad.abs().sum() > 0, name


@torch.no_grad()
def test_keep_says_which_scales_are_seen(encoder: MultiscaleEncoder, inputs: tuple[torch.Tensor, ...]) -> None:
    count = len(inputs[0])
    for scale in range(3):
        keep = torch.arange(3).expand(1, count, 3) == scale
        vectors = encoder(*inputs, keep=keep)[:, 0]
        others = [tensor if i == scale else tensor.flip(0) for i, tensor in enumerate(inputs)]
        torch.testing.assert_close(encoder(*others, keep=keep)[:, 0], vectors)
        assert not torch.allclose(vectors, vectors.flip(0), atol=1e-3)
    everything = encoder(*inputs, keep=torch.ones(1, count, 3, dtype=torch.bool))[:, 0]
    torch.testing.assert_close(encoder.final(everything), encoder(*inputs))


@torch.no_grad()
def test_missing_surroundings_do_not_count(encoder: MultiscaleEncoder) -> None:
    """Means are taken where there is data; how much that is, is an input of its own."""
    trunk, window = encoder.surround_trunks[0], torch.zeros(3, SURROUND_CHANNELS, 64, 64, dtype=torch.uint8)
    window[:, :12], window[:, -1] = 90, 255
    window[1, :, :, 48:] = 0  # the east is missing
    window[2, :-1, :, 48:] = 0  # the east is empty
    whole, cut, empty = trunk(window)
    means = len(whole) - 3
    assert (cut - whole)[:means].abs().max() < (empty - whole)[:means].abs().max()
    assert whole[-3:].tolist() == [1, 1, 1] and cut[-3:].tolist() == pytest.approx([1, 1, 2 / 3])


@torch.no_grad()
def test_it_starts_from_what_a_linear_regression_reads(
    encoder: MultiscaleEncoder, inputs: tuple[torch.Tensor, ...]
) -> None:
    features = encoder.features(*inputs)
    wanted = features[0][:, :5] - features[1][:, 7:12]
    torch.manual_seed(1)
    encoder.start(features, torch.cat([wanted, torch.zeros(len(wanted), DIM - 5)], dim=1))
    summaries = encoder.summaries(features)
    told = encoder.skip(torch.cat(summaries, dim=1))[:, :5]
    missed = (told - told.mean(dim=0) - (wanted - wanted.mean(dim=0))).square().sum(dim=0)
    varying = wanted.var(dim=0) > 1e-3
    assert varying.any() and (missed < 0.5 * (wanted - wanted.mean(dim=0)).square().sum(dim=0))[varying].all()


@pytest.mark.parametrize("dim", [16, 24])
def test_distances_after_the_map_are_those_of_what_the_decoder_reads(dim: int) -> None:
    """For a power of two and for another size."""
    generator = torch.Generator().manual_seed(0)
    network = MultiscaleEncoder(EncoderConfig(embedding_dim=dim, tile_size=32, architecture="multiscale"))
    vectors = torch.randn(500, dim, generator=generator) * torch.rand(dim, generator=generator) + 3
    decoder = torch.randn(dim - 1, dim, generator=generator)  # reads dim - 1 numbers: nothing is left out
    network.fit_map(vectors, decoder)
    mapped = (vectors - network.mean) @ network.map
    distances, expected = torch.pdist(mapped), torch.pdist(vectors @ decoder.T)
    torch.testing.assert_close(distances / distances.mean(), expected / expected.mean(), rtol=1e-3, atol=1e-4)
    assert mapped.square().sum(dim=1).mean().item() == pytest.approx(1, abs=1e-3)
    assert (mapped @ network.offset).abs().max() < 1e-4 and network.offset.norm().item() == pytest.approx(1.2)
    torch.testing.assert_close(network.final(vectors), F.normalize(mapped + network.offset, dim=1))
    spread = mapped.std(dim=0)  # evenly over all numbers
    assert spread.max() < 3 * spread.min()


def test_a_checkpoint_alone_rebuilds_it(
    encoder: MultiscaleEncoder, inputs: tuple[torch.Tensor, ...], tmp_path: Path
) -> None:
    encoder.fit_map(torch.randn(100, DIM), torch.randn(40, DIM))
    save_checkpoint(tmp_path / "a.pth", Checkpoint(vars(encoder.config), encoder_state(encoder)))
    rebuilt, checkpoint = load_encoder(tmp_path / "a.pth")
    assert checkpoint.uses_surroundings and rebuilt.uses_surroundings
    with torch.no_grad():
        assert torch.equal(rebuilt(*inputs), encoder(*inputs))


def test_it_is_built_without_memory_or_compiler() -> None:
    """As `load_checkpoint` does to compare shapes."""
    script = (
        "import sys, torch\nfrom model import EncoderConfig, build_network\n"
        "with torch.device('meta'):\n    network = build_network(EncoderConfig(architecture='multiscale'))\n"
        "assert sum(p.numel() for p in network.parameters() if not p.is_meta) < 1000\n"
        "assert 'torch._dynamo' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], cwd=REPO, check=True, timeout=300)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_torch_compile_gives_the_same_vectors(encoder: MultiscaleEncoder, inputs: tuple[torch.Tensor, ...]) -> None:
    if not shutil.which("g++"):
        pytest.skip("torch.compile needs a C++ compiler")
    with torch.no_grad():
        torch.testing.assert_close(torch.compile(encoder)(*inputs), encoder(*inputs), atol=1e-4, rtol=1e-4)


# --- statistics --------------------------------------------------------------------------------------------


def named(statistics: np.ndarray) -> dict[str, list[float]]:
    parts = np.split(statistics, np.cumsum(list(FIELDS.values()))[:-1])
    return {name: part.tolist() for name, part in zip(FIELDS, parts, strict=True)}


def drawn_by_hand(size: int = 256) -> np.ndarray:
    """A bright rectangle of 20 x 10 pixels, a dark square of 4 x 4, and one of 12 x 12 around nothing."""
    plane = np.zeros((256, 256), np.uint8)
    plane[40:50, 100:120] = 200
    plane[200:204, 60:64] = 40
    plane[100:112, 200:212] = 40
    plane[104:108, 204:208] = 0
    scale = size // 256
    return plane.repeat(scale, axis=0).repeat(scale, axis=1)


@pytest.mark.parametrize("size", [256, 512])
def test_the_statistics_of_a_plane_by_hand(size: int) -> None:
    """At twice the resolution, lengths and areas are the same."""
    found = named(plane_statistics(drawn_by_hand(size)))
    around = 2 * (20 + 10) + 4 * 4 + 4 * 12 + 4 * 4
    assert found["edges"] == found["outlines"] == [pytest.approx(around / 64)]
    dark, bright = 16 + 144 - 16, 200
    expected = np.zeros(16)
    expected[[2, 12]] = dark / 1024, bright / 1024
    assert found["shares"] == pytest.approx(expected)
    assert found["pieces"] == [3]
    assert found["sizes"] == [1, 0, 1, 1, 0, 0, 0, 0, 0]  # 16, 128 and 200 pixels
    assert [found["class_pieces"][i] for i in (2, 12)] == [2, 1] and sum(found["class_pieces"]) == 3
    if size == 256:
        assert found["eroded"] == [pytest.approx(x / 64) for x in (18 * 8 + 2 * 2 + 10 * 10 - 6 * 6, 12 * 2, 0)]


def test_two_brightnesses_that_touch_are_one_piece_and_one_outline() -> None:
    plane = np.zeros((256, 256), np.uint8)
    plane[10:20, 10:30], plane[10:20, 30:50] = 100, 220
    found = named(plane_statistics(plane))
    assert found["pieces"] == [1] and found["outlines"] == [pytest.approx(100 / 64)]
    assert found["edges"] == [pytest.approx(110 / 64)]
    assert found["class_pieces"][6] == found["class_pieces"][13] == 1
    assert named(plane_statistics(np.zeros((256, 256), np.uint8)))["pieces"] == [0]


def test_rings_are_means_over_the_tiles_that_exist(store: TileStore) -> None:
    city = with_holes(store)
    values = np.random.default_rng(0).random((len(city), 40)).astype(np.float32)
    means = ring_means(city, values)
    away = np.abs(city.tile_xy[:, None].astype(int) - city.tile_xy[None]).max(axis=2)
    for i, mean in enumerate(means):
        member = (away <= RINGS[i]) & (away > (RINGS[i - 1] if i else -1))
        expected = member @ values / np.maximum(member.sum(axis=1, keepdims=True), 1)
        np.testing.assert_allclose(mean, expected, rtol=1e-4, atol=1e-5)


def test_statistics_are_those_of_the_planes_and_are_kept(store: TileStore, tmp_path: Path, monkeypatch) -> None:
    found = store_statistics(store, tmp_path, 2).reshape(len(store), 12, -1)
    for row, layer in [(0, 0), (70, 3), (75, 11)]:
        np.testing.assert_array_equal(found[row, layer], plane_statistics(store.tiles([row])[0, layer]))
    path = next(tmp_path.glob("statistics-*.l2v"))
    monkeypatch.setattr("tile_statistics.plane_statistics", lambda _: pytest.fail("they are on the disk"))
    np.testing.assert_array_equal(store_statistics(store, tmp_path, 1).reshape(found.shape), found)
    monkeypatch.undo()
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    np.testing.assert_array_equal(store_statistics(store, tmp_path, 1).reshape(found.shape), found)


def test_statistics_stay_float32_in_mixed_precision() -> None:
    torch.manual_seed(0)
    histogram, layer = SoftHistogram(12), torch.arange(24) % 12
    planes = torch.randint(0, 256, (24, 64, 64), dtype=torch.uint8)
    expected = histogram(planes, layer)
    with torch.autocast("cpu", torch.bfloat16):
        found = histogram(planes, layer)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_means_of_the_surroundings_stay_float32_in_mixed_precision(
    encoder: MultiscaleEncoder, inputs: tuple[torch.Tensor, ...]
) -> None:
    trunk, near = encoder.surround_trunks[0], inputs[1]
    amounts, parts = trunk.channel_means(near, 1)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(trunk.channel_means(near, 1), [amounts, parts], rtol=0, atol=0)
    middle, valid = near[:, :-1, 24:40, 24:40].double() / 255, near[:, -1, 24:40, 24:40].double() / 255
    expected = 64 * middle.sum(dim=(2, 3)) / valid.sum(dim=(1, 2))[:, None].clamp(min=1e-3)
    torch.testing.assert_close(amounts[:, : near.shape[1] - 1], expected.log1p().float())
    sizes = expected[:, 36:]
    torch.testing.assert_close(parts[:, :4], (sizes / (sizes.sum(dim=1, keepdim=True) + 0.5)).float())


def test_what_a_layer_consists_of_does_not_tell_the_city(store: TileStore, tmp_path: Path) -> None:
    """Of a tile with an empty layer, its city would otherwise be known by the city's mean."""
    statistics = store_statistics(store, tmp_path, 1)
    total = statistics.sum(axis=0)
    whole, half = composition(statistics, total), composition(statistics[::2], total)
    np.testing.assert_array_equal(half, whole[::2])
    assert (np.ptp(composition(np.zeros_like(statistics[:9]), total), axis=0) == 0).all()


def test_targets_are_equal_for_equal_tiles_and_know_only_the_training_tiles(store: TileStore, tmp_path: Path) -> None:
    rows = np.flatnonzero(store.tile_xy[:, 0] < store.tile_xy[:, 0].max() - 3)
    first, again = (city_targets([store], [rows], tmp_path, 1)[0] for _ in range(2))
    assert first.shape == (len(store), 256) and first.dtype == np.float32 and np.isfinite(first).all()
    np.testing.assert_array_equal(first, again)
    trained = rows[~store.blank[rows]]
    assert np.abs(first[trained].mean(axis=0)).max() < 1e-3
    variances = first[trained].var(axis=0)
    assert (variances[:-1] >= variances[1:] - 1e-4).all()
    assert np.abs(city_targets([store], [np.arange(len(store))], tmp_path, 1)[0] - first).max() > 0.01


def test_targets_do_not_depend_on_how_many_tiles_are_handled_at_once(
    store: TileStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = np.flatnonzero(~store.blank)  # there are fewer than components: what other tiles have in the last is noise
    whole = city_targets([store], [rows], tmp_path, 1)[0][rows]
    monkeypatch.setattr(tile_statistics, "TILES_AT_ONCE", 7)
    parts = city_targets([store], [rows], tmp_path, 1)[0][rows]
    distances, expected = parts @ parts.T, whole @ whole.T  # the sign of a component has no meaning
    assert np.abs(distances - expected).max() < 1e-4 * np.abs(expected).max()
