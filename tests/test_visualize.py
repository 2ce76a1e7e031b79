"""Static pictures: the script as a user runs it, and what the pictures say."""

from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

import projections
import visualize
from cli import TilesFlags
from colourings import dominant_layer
from conftest import make_tiles
from embeddings import load_city
from layers import LAYER_COLOURS, LAYERS
from tile_facts import ZONES
from tile_images import hex_to_rgb, principal_colours
from visualize import ALGORITHMS, Scene, all_pictures, save, tile_colours

NAMES = ["city", "clusters", "neighbours", "arithmetic", "walks", "atlas", "pca", "tsne", "umap"]


def make_scene(tiles: Path, checkpoint: Path, cache: Path, max_tiles: int, clusters: int = 4) -> Scene:
    """A scene whose t-SNE and UMAP are stood in for by PCA: what draws them does not care."""
    city = load_city(TilesFlags(tiles_root=tiles, cache_dir=cache), checkpoint, device="cpu", max_tiles=max_tiles)
    view = projections.project(city.embeddings.vectors, "PCA")
    labels = projections.clusters(city.embeddings.vectors, clusters)
    return Scene(city, dict.fromkeys(ALGORITHMS, view), labels, "© somebody")


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def scene(tiny_tiles, tiny_checkpoint, cache) -> Scene:
    return make_scene(tiny_tiles, tiny_checkpoint, cache, 1000)


def test_a_city_across_180_degrees_is_drawn_in_one_piece(tiny_checkpoint, cache, tmp_path):
    maps = []
    for name, x0 in (("near", 60_000), ("far", (1 << 17) - 6)):
        tiles = make_tiles(tmp_path / name, x0=x0, px=32)
        for column in [path for path in tiles.glob("*/17/*") if int(path.name) >= 1 << 17]:
            column.rename(column.with_name(str(int(column.name) - (1 << 17))))
        scene = make_scene(tiles, tiny_checkpoint, cache, 40)
        maps.append((scene.base, np.where(scene.nearest >= 0, 1, 0), scene.km_per_tile))
    assert all(np.array_equal(one, other) for one, other in zip(*[part[:2] for part in maps], strict=True))
    assert maps[0][2] == pytest.approx(maps[1][2])


def texts(figure: Figure) -> str:
    return "\n".join(text.get_text() for text in figure.findobj(Text))


# --- the script --------------------------------------------------------------------------------------------


@pytest.mark.slow  # UMAP compiles itself for half a minute
def test_script_draws_every_picture_and_prints_its_path(run_script, tiny_tiles, tiny_checkpoint, tmp_path):
    """With the flags of the specification, in the hyphenated spelling too; twice, the second time from the cache."""
    flags = ("--model_path", tiny_checkpoint, "--tiles_root", tiny_tiles, "--max-tiles", 60, "--device", "cpu")
    result = run_script("visualize.py", *flags, "--output_dir", "my_visualizations", "--save_embeddings")
    paths = [Path("my_visualizations") / f"{name}.png" for name in NAMES]
    assert result.stdout.splitlines() == [*map(str, paths), "my_visualizations/embeddings.npz"]
    for path in paths:
        with Image.open(tmp_path / path) as image:
            assert image.width > 1000 and len(image.convert("RGB").resize((200, 200)).getcolors(40_000)) > 20
    with np.load(tmp_path / "my_visualizations" / "embeddings.npz", allow_pickle=False) as saved:
        assert saved["vectors"].shape == (60, 16) and saved["tile_xy"].shape == (60, 2)
        assert np.allclose(np.linalg.norm(saved["vectors"], axis=1), 1, atol=1e-5)
        assert saved["umap_2d"].shape == (60, 2) and list(saved["layers"]) == list(LAYERS)
        assert set(saved["cluster"]) == set(range(8)) and (saved["density"] > 0).all()
    before = {path: (tmp_path / path).read_bytes() for path in paths}
    again = run_script("visualize.py", *flags, "--output_dir", "my_visualizations")
    assert "t-SNE" not in again.stderr
    assert {path: (tmp_path / path).read_bytes() for path in paths} == before


def test_mistakes_end_in_one_sentence(run_script, tiny_tiles):
    said = run_script("visualize.py", "--model_path", "nothing.pth", "--tiles_root", tiny_tiles, check=2).stderr
    assert "no checkpoint at nothing.pth" in said and "Traceback" not in said


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--max_tile", "3"], "did you mean '--max_tiles'"),
        (["--format", "gif"], "invalid choice: 'gif'"),
        (["--max_tiles", "0"], "at least 1"),
    ],
)
def test_wrong_flags_are_named(flags, said, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["visualize.py", *flags])
    with pytest.raises(SystemExit) as stopped:
        visualize.main()
    assert stopped.value.code == 2
    assert said in capsys.readouterr().err


# --- the pictures ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["png", "svg"])
def test_pictures_are_whole_files_of_the_format(scene, tmp_path, format):
    path = save(visualize.projection_picture(scene, "PCA"), tmp_path / "new" / f"pca.{format}")
    if format == "svg":
        assert ElementTree.parse(path).getroot().tag.endswith("svg")
    else:
        Image.open(path).verify()
    assert [p.name for p in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("max_tiles", [1, 2, 5])
def test_hardly_any_tiles_can_be_drawn(tiny_tiles, tiny_checkpoint, cache, tmp_path, max_tiles):
    few = make_scene(tiny_tiles, tiny_checkpoint, cache, max_tiles)
    drawn = [save(draw(few), tmp_path / f"{name}.png") for name, draw in all_pictures(few).items()]
    sheets = () if max_tiles > 2 else ("arithmetic", "walks")  # they need three kinds of places
    assert [path.stem for path in drawn] == [name for name in NAMES if name not in sheets]


def test_sums_and_walks_are_those_of_the_search(scene, monkeypatch):
    """Every strip begins with its rule's tiles, and what follows is what `similarity` finds."""
    drawn: dict[str, list] = {}
    monkeypatch.setattr(
        visualize, "sheet", lambda _scene, title, _note, _columns, strips: drawn.update({title: strips})
    )
    visualize.arithmetic_picture(scene)
    visualize.walk_picture(scene)
    vectors, centres = scene.places.vectors, scene.centres
    for i, strip in enumerate(drawn["A + B − C"]):
        a, b, c, found = strip.groups
        assert (a, c) == (centres[i + 1], centres[0]) and b in centres and b not in (a, c)
        wanted = vectors[a] + vectors[b] - vectors[c]
        likeness = vectors @ wanted[0] / np.linalg.norm(wanted)
        likeness[np.concatenate([a, b, c])] = -1
        assert set(found) == set(np.argsort(-likeness)[: len(found)])
    for start, strip in zip(centres, drawn["Walks through the space"], strict=True):
        (way,) = strip.groups
        assert way[0] == start and len(set(way)) == len(way) == visualize.WALK_TILES
        assert way[-1] == centres[(vectors[centres] @ vectors[start]).argmin()]


def test_legends_count_every_tile(scene):
    shown = texts(visualize.projection_picture(scene, "PCA"))
    for category, names in ((scene.places.dominant_layer, LAYERS), (scene.places.zone, ZONES)):
        for i, name in enumerate(names):
            count = int((category == i).sum())
            assert (f"{name}  {count:,}" in shown) == (count > 0)
    density = np.percentile(scene.places.density, 99)
    assert f"{density:.0%} and more".replace("%", " %") in shown
    assert f"{scene.views['PCA'].trustworthiness:.3f}" in shown and "© somebody" in shown
    row = 3
    expected = hex_to_rgb(LAYER_COLOURS[LAYERS[scene.places.dominant_layer[row]]])
    assert np.allclose(tile_colours(dominant_layer(scene.shown))[row] * 255, expected)


def test_map_wears_the_colour_of_each_tile(scene):
    colours = principal_colours(scene.places.vectors)
    picture, px = scene.painted(colours), scene.px_per_tile
    origin = scene.city.store.tile_xy.min(axis=0)
    assert picture.shape == scene.base.shape
    red, blue = [], []
    for row, (x, y) in enumerate(scene.places.tile_xy - origin):
        cell = picture[y * px : (y + 1) * px, x * px : (x + 1) * px].reshape(-1, 3).astype(float)
        red.append((np.median(cell[:, 0]), colours[row, 0]))
        blue.append((np.median(cell[:, 2]), colours[row, 2]))
    for channel in (red, blue):
        assert np.corrcoef(np.array(channel).T)[0, 1] > 0.8


def test_tiles_between_a_sample_take_the_colour_of_the_nearest(tiny_tiles, tiny_checkpoint, cache):
    sample = make_scene(tiny_tiles, tiny_checkpoint, cache, 10)
    store = sample.city.store
    assert set(np.unique(sample.nearest)) == {-1, *range(10)}
    assert (sample.nearest == -1).sum() == store.blank.sum()
    x, y = (sample.places.tile_xy - store.tile_xy.min(axis=0)).T
    assert list(sample.nearest[y, x]) == list(range(10))


def test_far_neighbours_are_far(scene):
    """The tiny city is about 2.5 km wide: the sheet names distances, and those on the right are at least 2 km."""
    figure = visualize.neighbour_picture(scene)
    middle = figure.get_size_inches()[0] * 0.55
    far = [
        float(text.get_text().split("·")[1].removesuffix(" km"))
        for text in figure.texts
        if "·" in text.get_text() and text.get_position()[0] * figure.get_size_inches()[0] > middle
    ]
    assert all(km >= 2.0 for km in far)
    assert far or "no tile lies that far away" in texts(figure)


def test_atlas_puts_neighbours_side_by_side(scene, monkeypatch):
    seen = []

    def tiles(_self: Scene, rows: np.ndarray, size: int) -> np.ndarray:
        seen.append(rows)
        return np.zeros((len(rows), size, size, 3), np.uint8)

    monkeypatch.setattr(Scene, "tiles", tiles)
    visualize.atlas_picture(scene)
    (rows,) = seen
    points = scene.views["TSNE"].points[rows]
    assert len(set(rows.tolist())) == len(rows)
    beside = np.linalg.norm(np.diff(points, axis=0), axis=1).mean()
    shuffled = np.linalg.norm(np.diff(np.random.default_rng(0).permutation(points), axis=0), axis=1).mean()
    assert beside < 0.7 * shuffled
