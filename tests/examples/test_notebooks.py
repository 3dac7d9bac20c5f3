"""The notebooks, executed in kernels of their own over one library, whose road ran once in the tests' Spark."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.examples.library import NOTEBOOKS, ROOT


def printed(notebook: nbformat.NotebookNode) -> str:
    """What the cells of an executed notebook printed."""
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert {output.output_type for output in outputs} <= {"stream"}, "every output is text, and no error"
    return "".join(output.text for output in outputs if output.name == "stdout")


def test_the_notebooks_run_one_after_the_other(library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(library, tmp_path, dirs_exist_ok=True)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    said = []
    for path in NOTEBOOKS:
        notebook = nbformat.read(path, as_version=4)
        NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
        said.append(printed(notebook))
    road, reading, comparing = said
    assert road.count("up to date") == 9, "what ran in this process does not run again"
    assert road.count(" near ") == 5
    assert re.search(r"^[1-9]\d\d of 900 rows have vectors", reading, re.M)
    assert "AUC: score 0." in reading
    assert re.search(r"^learn-plus .* released", comparing, re.M)
    assert re.search(r"^sasrec +validation 0\.\d+ +test 0\.\d+ *$", comparing, re.M)


def test_git_has_no_outputs_and_the_public_interface_alone() -> None:
    assert len(NOTEBOOKS) == 3
    for path in NOTEBOOKS:
        notebook = nbformat.read(path, as_version=4)
        code = [cell for cell in notebook.cells if cell.cell_type == "code"]
        assert all(cell.outputs == [] and cell.execution_count is None for cell in code), path.name
        imports = [line for cell in code for line in cell.source.splitlines() if "learn_spark" in line]
        assert imports == ["import learn_spark as ls"], path.name
