"""The README and the pages it links: flags, defaults and links are true."""

import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import shapely

from checkpoint import library_versions
from conftest import REPO, save_untrained, script_env
from flag_tables import PAGE, SCRIPTS, flag_rows, page, parser_of
from osm_file import cut_extract
from version import VERSION

PAGES = [REPO / "README.md", REPO / "CONTRIBUTING.md", *sorted((REPO / "docs").glob("*.md"))]


def commands(text: str) -> Iterator[list[str]]:
    """The words of every shell command in the text's bash blocks."""
    for block in re.findall(r"```bash\n(.*?)```", text, flags=re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            if words := shlex.split(line, comments=True):
                yield words


def script_commands() -> dict[str, list[str]]:
    """Every command of the pages that runs a script of this project, by its text; `NAME` stands for one's own word."""
    found = {}
    for path in PAGES:
        text = path.read_text(encoding="utf-8")
        inline = "".join(f"```bash\n{code}\n```\n" for code in re.findall(r"`((?:python|streamlit) [^`\n]*)`", text))
        for words in commands(text + "\n" + inline):
            if set(words) & set(SCRIPTS) and "NAME" not in words:
                found[shlex.join(words)] = words
    return found


def script_and_arguments(words: list[str]) -> tuple[str, list[str]]:
    at = next(i for i, word in enumerate(words) if word in SCRIPTS)
    return words[at], [word for word in words[at + 1 :] if word != "--"]


def test_the_page_of_all_flags_is_what_the_parsers_say() -> None:
    assert page() == PAGE.read_text(encoding="utf-8"), "run `python tests/flag_tables.py`"


def test_the_readme_table_of_training_parameters_is_what_the_parser_says() -> None:
    text = (REPO / "README.md").read_text(encoding="utf-8")
    table = dict(re.findall(r"^\| `(--\w+)` \| (\S+) \|", text, flags=re.MULTILINE))
    defaults = {name: default for name, default, _ in flag_rows(parser_of("train.py"))}
    assert len(table) == 10
    assert table == {name: defaults[name] for name in table}


def test_the_version_is_the_same_everywhere(run_script) -> None:
    version = tomllib.loads((REPO / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert version == VERSION
    assert run_script("embed.py", "--version").stdout == f"Loc2Vec {version}\n"
    assert f"\nversion: {version}\n" in (REPO / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\n## {version}\n" in (REPO / "CHANGELOG.md").read_text(encoding="utf-8")
    assert library_versions()["loc2vec"] == version


@pytest.mark.parametrize("command", script_commands())
def test_every_command_is_understood_by_its_script(command: str) -> None:
    script, arguments = script_and_arguments(shlex.split(command))
    parser_of(script).parse_args(arguments)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_links_and_pictures_are_there(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#\s]+)", text):
        if "://" not in target:
            assert (path.parent / target).exists(), f"{path.name} links {target}"


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_no_gap_is_left(path: Path) -> None:
    assert not re.search(r"<!--|TODO|FIXME|XXX", path.read_text(encoding="utf-8"))


def test_the_architecture_page_lists_every_module_once() -> None:
    text = (REPO / "docs" / "architecture.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| `(\w+\.py)` \|", text, flags=re.MULTILINE)
    assert sorted(listed) == sorted(path.name for path in REPO.glob("*.py"))


def test_the_readme_is_short() -> None:
    assert len((REPO / "README.md").read_text(encoding="utf-8").splitlines()) <= 220


# --- every command, run as written -------------------------------------------------------------------------

ENDLESS = ("train.py", "streamlit", "run_example.py")  # ended by a signal once they are at work
ELSEWHERE = (
    "--city kyiv",
    "bench.py",
    "gpu_check.py",
    "torchrun",
    "tiles_of_b",
    "my_tiles",
    "--batch_size 256",
    "30.49,50.42",
    "sample_data/",
    "reports/",
    "--engine ray",
)  # a download, figures, folders of one's own, a GPU, a box of Kyiv, a cluster, minutes of work on the sample city


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as the README's reader has it after training: an extract, its tiles and labels, a checkpoint."""
    folder = tmp_path_factory.mktemp("home")
    shutil.copy(REPO / "sample_data" / "astana.osm.pbf", folder / "CITY.osm.pbf")
    box = "71.38,51.11,71.485,51.155"  # wide enough for five blocks of 12 x 12 tiles
    run(folder, "render_tiles.py", "CITY.osm.pbf", "--bbox", box, "--labels", "labels.parquet")
    small = ["--tile_size", 32, "--epochs", 1, "--max_samples", 64, "--embedding_dim", 16]
    run(folder, "train.py", *small)
    shutil.copy(folder / "checkpoints" / "best_model.pth", folder / "kept.pth")
    quick = ["--dr_algorithms", "PCA", "--annoy_metrics", "angular", "--export", "vectors.parquet"]
    run(folder, "precompute_embeddings.py", *quick)
    tiles = [path.parts[-2:] for path in (folder / "12_layer_tiles/tiles/roads").glob("*/*/*.png")]
    prices = "".join(f"{x},{name[:-4]},{(int(x) + int(name[:-4])) / 7}\n" for x, name in tiles)
    (folder / "prices.csv").write_text("x,y,price\n" + prices)
    (folder / "shops.csv").write_text("name,lat,lon\nshop,51.128,71.430\n")
    rents = {(71.38, 71.42): 3.5, (71.42, 71.45): 5.0, (71.45, 71.485): 4.2}
    shapes = {sides: shapely.box(sides[0], 51.11, sides[1], 51.155) for sides in rents}
    districts = [
        {"type": "Feature", "properties": {"rent": rent}, "geometry": shapely.geometry.mapping(shapes[sides])}
        for sides, rent in rents.items()
    ]
    (folder / "districts.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": districts}))
    run(folder, "embed.py", "CITY.osm.pbf", "--bbox", "71.42,51.12,71.44,51.14")
    run(folder, "render_tiles.py", "CITY.osm.pbf", "--bbox", "71.42,51.12,71.44,51.14", "--tiles_root", "OTHER/tiles")
    shutil.copy(folder / "CITY.osm.pbf", folder / "OTHER.osm.pbf")
    shutil.copy(folder / "CITY.parquet", folder / "other.parquet")
    save_untrained(folder / "checkpoints" / "other.pth", embedding_dim=8)
    cut_extract(folder / "CITY.osm.pbf", (71.41, 51.12, 71.45, 51.14), folder / "COUNTRY.osm.pbf")
    run(folder, "embed.py", "COUNTRY.osm.pbf", "-o", "COUNTRY/")
    return folder


def run(folder: Path, script: str, *arguments: object) -> str:
    command = [sys.executable, str(REPO / script), *map(str, arguments)]
    result = subprocess.run(command, cwd=folder, env=script_env(), capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


def runnable() -> list[str]:
    return [command for command in script_commands() if not any(words in command for words in ELSEWHERE)]


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("command", runnable())
def test_every_command_runs_as_written(command: str, home: Path) -> None:
    shutil.copy(home / "kept.pth", home / "checkpoints" / "best_model.pth")
    for name in ("A.pth", "B.pth"):
        shutil.copy(home / "kept.pth", home / "checkpoints" / name)
    words = shlex.split(command)
    at = next(i for i, word in enumerate(words) if word in SCRIPTS)
    words[at] = str(REPO / words[at])
    words[0] = sys.executable if words[0] == "python" else str(Path(sys.executable).with_name(words[0]))
    process = subprocess.Popen(
        words, cwd=home, env=script_env(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        said, _ = process.communicate(timeout=25 if any(word in command for word in ENDLESS) else 1000)
        ended = (0,)
    except subprocess.TimeoutExpired:
        assert any(word in command for word in ENDLESS), f"{command} did not end"
        process.terminate()
        said, _ = process.communicate(timeout=120)
        ended = (0, 143, -15)
    assert process.returncode in ended, said
    assert "Traceback" not in said
