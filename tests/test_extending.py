"""docs/extending.md is true: the whole chain runs with a new layer after a change to the one file that it names."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conftest import REPO, page_json, script_env

NEW_LAYER = """
[[layer]]
name = "footpaths"
{appearance}
    [[layer.class]]
    name = "path"
    tags = {{ highway = ["footway", "path", "steps"] }}
    gray = 200
    line = {{ width_m = 3, min_px = 6 }}
"""
COLOURS = 'colour = "#123456"\npaint_order = 200\npaint = [[100, "#fe00fe", 1], [255, "#fe00fe", 1]]\n'
BBOX = "71.415,51.120,71.440,51.136"  # a few tiles of the middle of Astana


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the scripts that a test may change."""
    root = tmp_path / "project"
    root.mkdir()
    for path in (*REPO.glob("*.py"), REPO / "map_style.toml"):
        shutil.copy(path, root)
    shutil.copytree(REPO / "web", root / "web", ignore=shutil.ignore_patterns("node_modules"))
    return root


def run(project: Path, script: str, *args: object, check: bool = True) -> subprocess.CompletedProcess:
    command = [sys.executable, script, *map(str, args)]
    result = subprocess.run(command, cwd=project, env=script_env(), capture_output=True, text=True, timeout=600)
    assert result.returncode == 0 or not check, f"{command}\n{result.stdout}\n{result.stderr}"
    return result


@pytest.mark.slow
@pytest.mark.parametrize("appearance", [COLOURS, ""], ids=["with colours", "without colours"])
def test_a_new_layer_needs_map_style_toml_only(project: Path, appearance: str) -> None:
    with open(project / "map_style.toml", "a", encoding="utf-8") as file:
        file.write(NEW_LAYER.format(appearance=appearance))

    run(project, "render_tiles.py", REPO / "sample_data" / "astana.osm.pbf", "--bbox", BBOX)
    pictures = sorted((project / "12_layer_tiles" / "tiles" / "footpaths").rglob("*.png"))
    assert len(pictures) >= 25 and any(np.asarray(Image.open(path)).max() == 200 for path in pictures)

    said = run(project, "data_loader.py", "--tile_size", 32, "--neg_radius", 3).stdout
    assert "layers found: 13 of 13" in said and "(16, 13, 32, 32)" in said

    small = ["--tile_size", 32, "--embedding_dim", 16, "--epochs", 1, "--max_samples", 64, "--neg_radius", 3]
    run(project, "train.py", *small, "--device", "cpu")
    code = (
        "import json; from checkpoint import load_checkpoint; from tile_images import composite; import numpy as np\n"
        "from layers import LAYERS, LAYER_COLOURS; tile = np.zeros((13, 4, 4), np.uint8); tile[12] = 200\n"
        "model = load_checkpoint('checkpoints/best_model.pth')\n"
        "print(json.dumps([LAYERS[-1], LAYER_COLOURS['footpaths'], composite(tile)[0, 0].tolist(),\n"
        "                  model.encoder_config['in_channels']]))"
    )
    name, colour, painted, channels = json.loads(run(project, "-c", code).stdout)
    assert (name, channels) == ("footpaths", 13)
    if appearance:
        assert colour == "#123456" and painted == [0xFE, 0, 0xFE]
    else:
        assert painted != [246, 242, 234]

    run(project, "precompute_embeddings.py", "--dr_algorithms", "PCA", "--annoy_metrics", "angular")
    run(project, "run_interactive_viz.py", "html", "--max_tiles", 30, "--output_dir", "page")
    page = page_json(next((project / "page").glob("*.html")))
    assert {"name": "footpaths", "colour": colour} in page["layers"]


NEW_PROJECTION = """
def fit_widest(vectors, dimensions, seed, settings, report):
    axes = np.argsort(-vectors.var(axis=0))[:dimensions]
    return settings["scale"] * vectors[:, axes], lambda more: settings["scale"] * more[:, axes], settings


ALGORITHMS = {
    "WIDEST": Algorithm("Widest axes", 1e-6, fit_widest, {"scale": Setting(2.0, 1.0, 5.0)}, {2: 50, 3: 50}),
"""


@pytest.mark.slow
def test_a_new_projection_needs_one_entry(project: Path, tiny_tiles: Path, tiny_checkpoint: Path) -> None:
    code = (project / "projections.py").read_text(encoding="utf-8")
    (project / "projections.py").write_text(code.replace("ALGORITHMS = {\n", NEW_PROJECTION, 1), encoding="utf-8")
    city = ["--tiles_root", tiny_tiles, "--model_path", tiny_checkpoint, "--dr_algorithms", "WIDEST"]
    said = run(project, "precompute_embeddings.py", *city, "--annoy_metrics", "angular").stdout
    assert re.search("WIDEST 3-D +computed", said)
    run(project, "run_interactive_viz.py", "html", *city, "--max_tiles", 0)
    page = page_json(next((project / "interactive_visualizations").glob("*.html")))
    assert page["algorithms"]["WIDEST"] == "Widest axes" and {"WIDEST-2", "WIDEST-3"} <= set(page["projections"])
    code = (
        "import numpy as np; from projections import project\n"
        "found = project(np.random.default_rng(0).random((200, 4)), 'WIDEST', settings={'scale': 3.0})\n"
        "print(found.fitted, len(found.points), found.settings)"
    )
    assert run(project, "-c", code).stdout == "50 200 {'scale': 3.0}\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[[layer]\n", "Expected ']]'"),
        ('[[layer]]\nname = "Foot paths"\n', "layer name is 'Foot paths'"),
        ('[[layer]]\nname = "roads"\n', "expected different names"),
        ('[[layer]]\nname = "paths"\ncolour = "red"\n', "layer paths: colour is 'red'; expected \"#rrggbb\""),
        ('[[layer]]\nname = "paths"\npaint = [[9, "#ffffff"]]\n', "layer paths: paint must be stops"),
        ('[[layer]]\nname = "paths"\ncasing = [[9, "#ffffff", 1], [3, "#ffffff", 1]]\n', "rising brightness"),
        ('[[layer]]\nname = "paths"\npaint_order = "top"\n', "paint_order is 'top'; expected a number"),
    ],
)
def test_a_mistake_in_the_table_is_named_without_a_traceback(project: Path, text: str, words: str) -> None:
    with open(project / "map_style.toml", "a", encoding="utf-8") as file:
        file.write("\n" + text)
    result = run(project, "data_loader.py", check=False)
    assert result.returncode == 2 and "Traceback" not in result.stderr and result.stderr.startswith("error: ")
    assert words in result.stderr and "map_style.toml" in result.stderr


def test_a_style_without_colours_goes_on_working(tmp_path: Path, run_script) -> None:
    """`--style FILE`, as it was before colours were part of the table."""
    text = (REPO / "map_style.toml").read_text(encoding="utf-8")
    text = re.sub(r"(?ms)^(colour|paint_order) = .*?$|^(paint|casing) = \[(\n.*?^\]|.*?$)", "", text)
    assert "paint" not in re.sub("#.*", "", text) and "colour" not in re.sub("#.*", "", text)
    (tmp_path / "plain.toml").write_text(text, encoding="utf-8")
    where = [REPO / "sample_data" / "astana.osm.pbf", "--bbox", "71.42,51.124,71.424,51.127", "--tiles_root", tmp_path]
    run_script("render_tiles.py", *where, "--style", tmp_path / "plain.toml")
    same = run_script("render_tiles.py", *where)  # colours do not make it another style
    assert "error" not in same.stderr
