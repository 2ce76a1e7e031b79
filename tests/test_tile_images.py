"""Pictures of tiles: colours by importance, placeholders, sheets, the city map, palettes."""

import base64
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

import tile_images
from conftest import make_tiles
from layers import LAYERS
from tile_images import (
    GROUND,
    LAYER_COLOURS,
    MISSING,
    category_palette,
    city_map,
    composite,
    data_uri,
    hex_to_rgb,
    layer_image,
    pictures,
    placeholder,
    principal_colours,
    sequential_colours,
    sprite_layout,
    sprite_sheet,
    zone_palette,
)
from tile_store import TileStore, open_store


@pytest.fixture(scope="module")
def store(tiny_tiles, tmp_path_factory) -> TileStore:
    return open_store(tiny_tiles, 64, cache_dir=tmp_path_factory.mktemp("cache"), num_workers=0)


def one(layer: str, value: int, size: int = 8) -> np.ndarray:
    """A tile `(L, S, S)` whose middle shows `value` in one layer."""
    tile = np.zeros((len(LAYERS), size, size), np.uint8)
    tile[LAYERS.index(layer), 2:-2, 2:-2] = value
    return tile


def middle(layer: str, value: int) -> np.ndarray:
    return composite(one(layer, value))[4, 4].astype(int)


# --- composites --------------------------------------------------------------------------------------------


def test_blank_tile_is_the_ground():
    assert (composite(np.zeros((len(LAYERS), 8, 8), np.uint8)) == GROUND).all()


def test_colours_are_those_of_a_map():
    red, green, blue = middle("water", 220)
    assert blue > green > red
    for vegetation in ("landcover", "leisure"):
        red, green, blue = middle(vegetation, 80 if vegetation == "leisure" else 55)
        assert green > red and green > blue
    red, _, blue = middle("roads", 235)
    assert red > 230 and red - blue > 100  # a trunk road is orange
    assert (middle("roads", 140) > 245).all()  # a side street is white
    assert middle("railways", 195).max() < 110
    assert middle("buildings", 155).mean() < np.mean(GROUND) - 50


@pytest.mark.parametrize("layer", LAYERS)
def test_every_layer_shows_and_only_where_it_is(layer):
    picture = composite(one(layer, 255)).astype(int)
    assert np.abs(picture[4, 4] - GROUND).max() > 10
    assert (picture[0, 0] == GROUND).all()


def test_brighter_buildings_are_darker_on_the_map():
    shades = [middle("buildings", value).sum() for value in (55, 115, 155, 195, 255)]
    assert shades == sorted(shades, reverse=True)


def test_roads_lie_over_buildings_and_have_a_casing():
    tile = one("roads", 255) + one("buildings", 155)
    assert (composite(tile)[4, 4] == middle("roads", 255)).all()
    casing = composite(one("roads", 255))[1, 4].astype(int)
    assert casing.sum() < np.sum(GROUND) - 30


def test_many_tiles_at_once_are_the_same_as_one_by_one(store, monkeypatch):
    rows = np.arange(0, len(store), 7)
    tiles = store.tiles(rows)
    together = composite(tiles)
    assert together.shape == (len(rows), 64, 64, 3)
    monkeypatch.setattr(tile_images, "_PIXELS_AT_ONCE", 3 * 64 * 64)
    assert np.array_equal(composite(tiles.reshape(1, *tiles.shape))[0], together)
    assert np.array_equal(np.stack([composite(tile) for tile in tiles]), together)


# --- single tiles ------------------------------------------------------------------------------------------


def picture(store: TileStore, row: int, size: int = 64) -> Image.Image:
    return Image.fromarray(pictures(store, np.array([row]), size)[0])


def fullest(store: TileStore) -> int:
    return int(store.layer_intensity.sum(axis=1).argmax())


def test_pictures_have_the_size_asked_for(store):
    row = fullest(store)
    for size in (16, 50, 64, 150):
        assert picture(store, row, size).size == (size, size)
    assert np.array_equal(picture(store, row), composite(store.tiles([row]))[0])


def test_layer_image_has_the_layers_colour():
    picture = np.asarray(layer_image(np.array([[0, 255]], np.uint8), "water"))
    assert tuple(picture[0, 0]) == GROUND
    assert tuple(picture[0, 1]) == hex_to_rgb(LAYER_COLOURS["water"])


def test_a_tile_that_is_not_there_or_damaged_is_a_grey_square(tmp_path):
    store = open_store(make_tiles(tmp_path / "tiles", 4, 4, 32), 32, cache_dir=tmp_path / "cache", num_workers=0)
    row = int(np.flatnonzero(~store.blank)[0])
    healthy = picture(store, row)
    assert picture(store, -1).tobytes() == placeholder(64).tobytes() != healthy.tobytes()
    planes = next((tmp_path / "cache").glob("tiles-*/planes-*.bin"))
    data = bytearray(planes.read_bytes())
    plane = store.plane_of[row].max()
    data[plane * 32 * 32 + 5] ^= 0xFF
    planes.write_bytes(data)
    store = open_store(tmp_path / "tiles", 32, cache_dir=tmp_path / "cache", num_workers=0)
    assert picture(store, row).tobytes() == placeholder(64).tobytes()
    sheet = pictures(store, np.array([row, -1]), 32)
    assert (sheet == np.asarray(placeholder(32))).all()
    intact = np.flatnonzero(store.verify(np.arange(len(store))))
    assert len(intact) and picture(store, int(intact[0])).tobytes() != placeholder(64).tobytes()


def test_data_uri_holds_the_picture(store):
    image = picture(store, fullest(store))
    for format in ("png", "webp", "jpeg"):
        head, _, text = data_uri(image, format, 90).partition(",")
        assert head == f"data:image/{format};base64"
        decoded = Image.open(BytesIO(base64.b64decode(text)))
        assert decoded.size == (64, 64)
        if format == "png":
            assert decoded.convert("RGB").tobytes() == image.tobytes()
    assert len(data_uri(image, "webp", 20)) < len(data_uri(image, "webp", 95))


# --- many tiles --------------------------------------------------------------------------------------------


def test_shrunk_pictures_keep_thin_roads(tmp_path):
    """A hairline of one pixel in 256 is still to be seen at 16 pixels a tile."""
    root = make_tiles(tmp_path / "tiles", 1, 1, 256)
    for layer in LAYERS:
        plane = np.zeros((256, 256), np.uint8)
        plane[:, 126:130] = 255 if layer == "roads" else 0
        Image.fromarray(plane).save(next((root / layer).rglob("*.png")))
    store = open_store(root, 256, cache_dir=tmp_path / "cache", num_workers=0)
    small = pictures(store, np.array([0]), 16)[0].astype(int)
    assert np.abs(small - GROUND).sum(axis=-1).max() > 60
    assert (small[:, 0] == GROUND).all()


def test_sprite_sheet_is_a_square_row_by_row(store):
    rows = np.arange(10)[::-1]
    sheet = np.asarray(sprite_sheet(store, rows, 16))
    assert sprite_layout(10, 16) == (4, 16)
    assert sheet.shape == (64, 64, 3)
    expected = pictures(store, rows, 16)
    for i in range(10):
        top, left = i // 4 * 16, i % 4 * 16
        assert np.array_equal(sheet[top : top + 16, left : left + 16], expected[i])
    assert (sheet[48:, :] == GROUND).all()


def test_sprite_sheet_never_outgrows_the_projector():
    for count in (1, 5_000, 22_000, 1_000_000):
        columns, edge = sprite_layout(count, 64)
        assert columns**2 >= count and columns * edge <= 8192 and edge >= 1
    assert sprite_layout(1, 64) == (1, 64)


def test_city_map_puts_every_tile_in_its_place(tmp_path):
    root = make_tiles(tmp_path / "tiles", 5, 4, 32, x0=100, y0=200)
    for layer in LAYERS:
        (root / layer / "17" / "102" / "201.png").unlink()
    store = open_store(root, 32, cache_dir=tmp_path / "cache", num_workers=0)
    image, origin = city_map(store, 8)
    assert origin == (100, 200) and image.size == (40, 32)
    cells = np.asarray(image)
    for row, (x, y) in enumerate(store.tile_xy):
        top, left = (y - 200) * 8, (x - 100) * 8
        assert np.array_equal(cells[top : top + 8, left : left + 8], pictures(store, np.array([row]), 8)[0])
    assert (cells[8:16, 16:24] == MISSING).all()


# --- palettes ----------------------------------------------------------------------------------------------

# Machado, Oliveira and Fernandes 2009: what an eye without one kind of cone sees, on linear red, green and blue.
DEFICIENCIES = {
    "none": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def least_difference(colours: list[str], deficiency: str) -> float:
    """The smallest CIELAB distance between two of the colours as such an eye sees them."""
    rgb = np.array([hex_to_rgb(colour) for colour in colours]) / 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ np.array(DEFICIENCIES[deficiency]).T, 0, 1)
    xyz = seen @ np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]).T
    f = xyz / [0.9505, 1, 1.089]
    f = np.where(f > 0.008856, np.cbrt(f), 7.787 * f + 16 / 116)
    lab = np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], axis=1)
    distance = np.linalg.norm(lab[:, None] - lab[None], axis=-1)
    return float(distance[~np.eye(len(lab), dtype=bool)].min())


@pytest.mark.parametrize("deficiency", DEFICIENCIES)
def test_palettes_can_be_told_apart_by_colour_blind_eyes(deficiency):
    assert tuple(LAYER_COLOURS) == LAYERS
    assert least_difference(list(LAYER_COLOURS.values()), deficiency) > 15
    assert least_difference(zone_palette(9), deficiency) > 13
    assert least_difference(category_palette(8), deficiency) > 13


def test_any_number_of_categories_gets_colours_of_its_own():
    assert len(set(category_palette(40))) == 40
    assert len(set(zone_palette(9))) == 9


def test_sequential_colours_get_brighter():
    colours = sequential_colours(np.array([-1, 0, 0.25, 0.5, 0.75, 1, 2, np.nan]))
    brightness = colours.astype(float) @ [0.299, 0.587, 0.114]
    assert (np.diff(brightness[1:6]) > 0).all()
    assert (colours[0] == colours[1]).all() and (colours[5] == colours[6]).all() and (colours[7] == colours[1]).all()


def test_principal_colours_follow_the_components():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(500, 6)) * [9, 4, 2, 0.1, 0.1, 0.1]
    colours = principal_colours(vectors).astype(float)
    for channel in range(3):
        assert abs(np.corrcoef(colours[:, channel], vectors[:, channel])[0, 1]) > 0.9
    assert np.array_equal(principal_colours(vectors), principal_colours(vectors.astype(np.float32).copy()))


def test_principal_colours_of_too_little_are_grey():
    assert len(set(map(tuple, principal_colours(np.ones((5, 4)))))) == 1
    assert principal_colours(np.random.default_rng(0).normal(size=(4, 2))).shape == (4, 3)
