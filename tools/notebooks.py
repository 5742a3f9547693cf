"""Make notebooks of two examples, and execute them on ``runs/digits``. ``make notebooks``."""

from __future__ import annotations

import sys
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[1]
NAMES = ("specialize_and_export", "study_of_two_methods")
MOST = 100_000
"""Bytes of all outputs of a notebook that is kept."""


def make(name: str) -> Path:
    """The notebook of an example, executed in the root of the checkout.

    Raises:
        SystemExit: its outputs are too large to be kept.
    """
    notebook = jupytext.read(ROOT / "examples" / f"{name}.py")
    notebook.metadata = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    NotebookClient(notebook, timeout=1800, resources={"metadata": {"path": str(ROOT)}}).execute()
    notebook.metadata.pop("language_info", None)  # of the Python that it happened to run on
    for i, cell in enumerate(notebook.cells):
        cell.id, cell.metadata = f"cell-{i}", {}
        if cell.cell_type == "code":  # what else is shown is of the machine that it ran on
            cell.outputs = [output for output in cell.outputs if output.get("name") == "stdout"]
    size = sum(len(str(cell.get("outputs", ""))) for cell in notebook.cells)
    if size > MOST:
        sys.exit(f"{name}: outputs of {size:,} bytes; at most {MOST:,} are kept")
    path = ROOT / "examples" / "notebooks" / f"{name}.ipynb"
    path.parent.mkdir(exist_ok=True)
    nbformat.write(notebook, path)
    return path


if __name__ == "__main__":
    for each in NAMES:
        print(make(each))
