"""The notebooks: they run as they are, and the outputs that are saved with them are those that they give."""

import base64
import io
import re
from pathlib import Path

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient
from nbformat import NotebookNode
from PIL import Image

from conftest import REPO

FOLDER = REPO / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
MOST_BYTES = 600_000
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Jupyter's own packages


def read(path: Path) -> NotebookNode:
    return nbformat.read(path, as_version=4)


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def outputs(notebook: NotebookNode) -> list[NotebookNode]:
    """The outputs of all cells, without progress bars."""
    found = [output for cell in code_cells(notebook) for output in cell.outputs]
    return [output for output in found if output.get("name") != "stderr"]


def texts(notebook: NotebookNode) -> list[str]:
    """What is printed and shown as text or as a table."""
    found = []
    for output in outputs(notebook):
        data = output.get("data", {})
        found.append(output.get("text") or data.get("text/html") or data.get("text/plain", ""))
    return found


def pictures(notebook: NotebookNode) -> list[Image.Image]:
    images = [data for o in outputs(notebook) for kind, data in o.get("data", {}).items() if kind.startswith("image/")]
    return [Image.open(io.BytesIO(base64.b64decode(data))).convert("L") for data in images]


def numbers(text: str) -> list[float]:
    shown = re.sub(r"<style.*?</style>|<[^>]*>", " ", text, flags=re.DOTALL)
    return [float(number) for number in re.findall(r"(?<![\w#])-?\d+(?:\.\d+)?", shown)]


def table_rows(text: str) -> list[list[str]]:
    """The cells of an HTML table."""
    cells = [
        re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL) for row in re.findall(r"<tr.*?</tr>", text, re.DOTALL)
    ]
    return [[cell.strip() for cell in row] for row in cells]


def test_there_are_two() -> None:
    assert [path.name for path in NOTEBOOKS] == ["quickstart.ipynb", "worked_example.ipynb"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_what_is_saved_is_whole_and_small(path: Path) -> None:
    assert path.stat().st_size <= MOST_BYTES
    notebook = read(path)
    nbformat.validate(notebook)
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert not [output for output in outputs(notebook) if output.output_type == "error"]
    assert pictures(notebook) and all(np.asarray(picture).std() > 10 for picture in pictures(notebook))
    assert "OpenStreetMap contributors" in path.read_text(encoding="utf-8")  # what the licence of the map asks for
    prose = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    for target in re.findall(r"\]\(([^)#\s]+)\)", prose):
        assert (FOLDER / target).exists(), target


@pytest.mark.slow
@pytest.mark.timeout(1200)  # minutes, where several share the processor
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs_and_gives_what_is_saved(path: Path, monkeypatch) -> None:
    monkeypatch.delenv("MPLBACKEND", raising=False)  # Streamlit sets it in tests before this one; figures go missing
    saved, fresh = read(path), read(path)
    for cell in code_cells(fresh):
        cell.outputs, cell.execution_count = [], None
    NotebookClient(fresh, timeout=900, resources={"metadata": {"path": str(FOLDER)}}).execute()
    for old, new in zip(texts(saved), texts(fresh), strict=True):
        if "folds won" in old:  # of two equally good models the last bit decides how many folds each wins
            close = np.isclose(numbers(new), numbers(old), rtol=0.02, atol=0.06)
            assert (~close).sum() <= 2, f"{old}\n{new}"  # these folds, and the p value
        else:
            np.testing.assert_allclose(numbers(new), numbers(old), rtol=0.02, atol=0.06, err_msg=f"{old}\n{new}")
    for old, new in zip(pictures(saved), pictures(fresh), strict=True):
        old_px, new_px = (np.asarray(picture.resize((96, 96)), dtype=float) for picture in (old, new))
        assert np.abs(old_px - new_px).mean() < 8


def test_the_worked_example_says_what_its_table_shows() -> None:
    """Ridge regression and trees do best with the vectors, trees by little; counts beside the vectors do not help."""
    shown = next(text for text in texts(read(FOLDER / "worked_example.ipynb")) if "R², ridge" in text)
    header, rows = table_rows(shown)[0][1:], {row[0]: row[1:] for row in table_rows(shown)[2:]}
    ridge, trees = (
        {name: float(row[header.index(f"R², {model}")].split()[0]) for name, row in rows.items()}
        for model in ("ridge", "boosted trees")
    )
    wide, both = "counts per class + neighbours", "vectors and counts per class + neighbours"
    baselines = [name for name in rows if "vectors" not in name]
    assert len(baselines) == 5 and rows["vectors"][0] == "128" and rows[wide][0] == "318"
    assert all(ridge["vectors"] > ridge[name] + 0.05 for name in baselines)
    assert all(trees["vectors"] > trees[name] for name in baselines) and trees["vectors"] < trees[wide] + 0.1
    assert ridge[both] < ridge["vectors"] + 0.01 and trees[both] < trees["vectors"] + 0.01
