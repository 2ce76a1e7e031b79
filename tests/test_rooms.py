"""The house rules that a test can hold: who imports whom, what importing does, how long functions are."""

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from statistics import median, quantiles

import pytest

from conftest import REPO

# Imports point downwards: a module may import those of the lines above its own, never of its own line.
ROOMS = (
    ("progress_bars", "vectors", "layers", "front_end", "granulometry", "version"),
    ("cli",),
    ("files", "tile_grid"),
    ("cache_files", "devices", "map_style", "osm_file", "osm_repair", "tile_area"),
    ("tile_files", "coastlines", "distributed"),
    ("tile_levels", "osm_extract", "compile_trial"),
    ("tile_store",),
    (
        "data_loader",
        "multiscale",
        "place_names",
        "map_index",
        "tile_facts",
        "place_words",
        "tile_statistics",
        "extract_download",
    ),
    ("model", "map_labels", "blocks", "tile_painter", "tile_writer", "tile_images"),
    ("checkpoint", "tile_previews", "tile_workers"),
    ("pretrained",),
    ("inference", "render_tiles"),
    ("run_log", "train_config", "embeddings", "reasons"),
    ("memory", "projections", "similarity", "colourings", "streaming", "area_vectors"),
    ("exports", "explorer_data", "user_tables"),
    ("label_tables", "location_encoder", "vector_dataset", "block_engine"),
    ("block_pass", "dataset_search"),
    ("embed_dataset", "vector_city"),
    ("probes", "own_columns", "comparison"),
    ("vector_space", "app_address"),
    ("baselines", "quality_report", "app_jobs"),
    ("app_city",),
    ("app_pictures", "app_controls", "app_first_view"),
    ("app_view",),
    ("app_places",),
    ("app_points",),
    ("app_projector", "app_search", "app_compare"),
    ("app_vectors",),
    ("train", "evaluate", "precompute_embeddings", "visualize", "interactive_visualizer", "streamlit_app"),
    ("run_interactive_viz", "run_example", "embed", "bench_setup"),
    ("bench_tiles", "bench_network", "bench_embedding", "bench_dataset", "bench_viewers"),
    ("bench", "gpu_check"),
)
LEVEL = {name: level for level, names in enumerate(ROOMS) for name in names}
VIEWERS = {"visualize", "interactive_visualizer", "streamlit_app"}
RUNNERS = {"run_interactive_viz", "run_example", "embed", "bench"}

# Slow to import: only the functions that use them may load them, or the one module that is built on them.
HEAVY = {"umap", "numba", "openTSNE", "sklearn", "matplotlib", "streamlit", "plotly", "pandas", "annoy", "tensorboard"}
BUILT_ON = {
    "streamlit_app": {"streamlit", "pandas", "plotly"},
    **{name: {"streamlit", "pandas", "plotly"} for name in LEVEL if name.startswith("app_")},
    "visualize": {"matplotlib"},
    "user_tables": {"pandas"},
    "area_vectors": {"pandas"},
    "location_encoder": {"pandas", "sklearn"},
}

MARKUP = re.compile(
    r"</?(?:html|head|body|div|span|p|a|img|script|style|table|t[rdh]|ul|li|button|svg|canvas|h\d)\b[^>]*>"
)
CODE = re.compile(
    r"addEventListener|document\.(?:get|query|create)|function\s*\(|=>\s*\{|\b(?:color|margin|display):[^;]+;"
)

FILES = sorted(REPO.glob("*.py"))
MODULES = [path.stem for path in FILES]


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def functions(path: Path) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    return [node for node in ast.walk(tree(path)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def imported(path: Path) -> set[str]:
    """The project's modules that a file imports anywhere, inside functions too, except for annotations alone."""
    module = tree(path)
    for node in [node for node in ast.walk(module) if isinstance(node, ast.If)]:
        if ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    names = set()
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module)
    return names & set(MODULES)


# --- who imports whom --------------------------------------------------------------------------------------


def test_every_module_has_its_room():
    assert set(MODULES) <= set(LEVEL), "add the new module to ROOMS and to docs/architecture.md"


@pytest.mark.parametrize("path", FILES, ids=MODULES)
def test_imports_point_one_way(path):
    wrong = {name for name in imported(path) if LEVEL[name] >= LEVEL[path.stem]}
    assert not wrong, f"{path.name} may not import {wrong}"


@pytest.mark.parametrize("path", FILES, ids=MODULES)
def test_viewers_are_imported_by_runners_only_and_never_train(path):
    if path.stem not in RUNNERS:
        assert not imported(path) & VIEWERS
    if path.stem in VIEWERS:
        assert "train" not in imported(path)
    if not path.stem.startswith(("app_", "streamlit_app")):
        assert not any(name.startswith("app_") for name in imported(path))


def test_tests_are_no_part_of_the_product():
    for path in [path for path in FILES if path.name != "gpu_check.py"]:  # its business is to run those of a GPU
        text = path.read_text(encoding="utf-8")
        assert "conftest" not in text and "pytest" not in text, path.name


# --- what importing does -----------------------------------------------------------------------------------

# One process pays for torch and numpy, then forks for each module; the child reports what importing it did.
IMPORT_EACH = """
import json, os, signal, sys, threading, traceback
import numpy, torch, torch.utils.data, PIL.Image, tqdm
sys.path.insert(0, sys.argv[1])
for name in sys.argv[2:]:
    if os.fork() == 0:
        said = os.open(f"{name}.said", os.O_CREAT | os.O_RDWR)
        os.dup2(said, 1), os.dup2(said, 2)
        handler = signal.getsignal(signal.SIGINT)
        try:
            __import__(name)
        except BaseException:
            traceback.print_exc()
        sys.stdout.flush(), sys.stderr.flush()
        state = {
            "modules": sorted({module.split(".")[0] for module in sys.modules}),
            "threads": threading.active_count(),
            "signals": signal.getsignal(signal.SIGINT) is not handler,
            "cuda": torch.cuda.is_initialized(),
        }
        with open(f"{name}.json", "w") as file:
            json.dump(state, file)
        os._exit(0)
    os.wait()
"""


@pytest.fixture(scope="module")
def after_import(tmp_path_factory) -> Path:
    """A folder with `<module>.json` and `<module>.said`: what importing each module did and said."""
    if not hasattr(os, "fork"):
        pytest.skip("needs fork")
    folder = tmp_path_factory.mktemp("imports")
    command = [sys.executable, "-W", "ignore", "-c", IMPORT_EACH, str(REPO), *MODULES]
    subprocess.run(command, cwd=folder, check=True, timeout=280)
    return folder


@pytest.mark.parametrize("name", MODULES)
def test_importing_does_nothing_visible_and_is_quick(after_import, name):
    state = json.loads((after_import / f"{name}.json").read_text())
    said = (after_import / f"{name}.said").read_text().splitlines()
    assert [line for line in said if "No runtime found" not in line] == []  # streamlit's word, outside its server
    assert state["threads"] == 1 and not state["signals"] and not state["cuda"]
    heavy = set(state["modules"]) & HEAVY - BUILT_ON.get(name, set())
    assert not heavy, f"importing {name} loads {heavy}: import them in the function that needs them"


def test_importing_writes_no_file(after_import):
    made = {path.name for path in after_import.iterdir()}
    assert made == {f"{name}.{kind}" for name in MODULES for kind in ("json", "said")}


# --- how it reads ------------------------------------------------------------------------------------------


def test_functions_are_short():
    """STYLE: median under 15 lines, nine in ten up to 40, none over 80."""
    lengths = {
        f"{path.name}:{node.lineno} {node.name}": node.end_lineno - node.lineno + 1
        for path in FILES
        for node in functions(path)
    }
    too_long = {name: length for name, length in lengths.items() if length > 80}
    assert not too_long
    assert median(lengths.values()) < 15
    assert quantiles(lengths.values(), n=10)[-1] <= 40


@pytest.mark.parametrize("path", FILES, ids=MODULES)
def test_scripts_start_with_what_they_do_and_end_in_run_main(path):
    docstring = ast.get_docstring(tree(path))
    assert docstring and docstring.splitlines()[0].endswith((".", ":")), path.name
    text = path.read_text(encoding="utf-8")
    if 'if __name__ == "__main__":' in text:
        commands = [line for line in docstring.splitlines() if re.match(r"\s*(python|streamlit run|torchrun) ", line)]
        assert any(path.name in line for line in commands), f"{path.name} shows no command that runs it"
        assert text.rstrip().endswith(("run_main(main)", "main()")), path.name


@pytest.mark.parametrize("path", FILES, ids=MODULES)
def test_pages_live_under_web(path):
    """No HTML, CSS or JavaScript inside Python strings."""
    nodes = list(ast.walk(tree(path)))
    remarks = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}  # docstrings may name a tag
    texts = [node.value for node in nodes if isinstance(node, ast.Constant) and id(node) not in remarks]
    found = [text for text in texts if isinstance(text, str) and (MARKUP.search(text) or CODE.search(text))]
    assert not found


@pytest.mark.parametrize("path", FILES, ids=MODULES)
def test_nothing_unpickles(path):
    text = path.read_text(encoding="utf-8")
    assert not re.search(
        r"allow_pickle=True|weights_only=False|^\s*(import|from) (pickle|dill|joblib)\b", text, re.MULTILINE
    )


BAD = '''"""A module with every defect that `make check` must find."""
import pickle


def load(path):
    try:
        return pickle.load(path)
    except:
        pass


def Load(path: str) -> None:
    """Fine."""
    for key in []:
        try:
            print(key)
        except Exception:
            pass
'''


def test_make_check_finds_what_the_style_forbids(tmp_path):
    """Docstrings and type hints on public functions, no blind except, no pickle: ruff's settings hold these."""
    (tmp_path / "bad.py").write_text(BAD)
    command = ["ruff", "check", "--no-cache", "--output-format=json", "--config", str(REPO / "pyproject.toml")]
    result = subprocess.run(
        [sys.executable, "-m", *command, str(tmp_path / "bad.py")], capture_output=True, text=True, timeout=60
    )
    codes = {finding["code"] for finding in json.loads(result.stdout)}
    assert {"D103", "ANN001", "ANN201", "E722", "BLE001", "S110", "S301"} <= codes
