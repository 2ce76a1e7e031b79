"""Run the notebooks and save their outputs in them, without the progress bars.

python docs/make_notebooks.py
python docs/make_notebooks.py notebooks/quickstart.ipynb
"""

import sys
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPO))

from cli import Parser, UserError, run_main  # noqa: E402
from files import atomic_write  # noqa: E402


def main() -> None:
    """Run each notebook in its own folder, in a fresh process; one that fails keeps its outputs."""
    parser = Parser(__doc__)
    parser.add_argument("notebooks", nargs="*", type=Path, help="the notebooks; default: all in notebooks/")
    args = parser.parse_args()
    import nbformat  # of requirements-dev.txt
    from nbclient import NotebookClient

    for path in args.notebooks or sorted((REPO / "notebooks").glob("*.ipynb")):
        if not path.is_file():
            raise UserError(f"no notebook at {path}; notebooks/ holds those of this project")
        notebook = nbformat.read(path, as_version=4)
        NotebookClient(notebook, timeout=1800, resources={"metadata": {"path": str(path.parent)}}).execute()
        for cell in notebook.cells:
            cell.metadata.pop("execution", None)  # times, which differ from run to run
            if cell.cell_type == "code":
                cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
        notebook.metadata.language_info = {"name": "python"}
        with atomic_write(path, "w") as file:
            nbformat.write(notebook, file)
        print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    run_main(main)
