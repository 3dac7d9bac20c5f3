"""The library of the notebooks: its files, settings and release, made by the cells of the first notebook."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nbformat
import yaml

from tests.conftest import SMALL_SPARK

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "examples" / "notebooks").glob("*.ipynb"))
READERS = 60
SETTINGS, WORKSPACE = Path("var/library.yaml"), Path("var/library-workspace")


@contextmanager
def working_in(folder: Path) -> Iterator[None]:
    """Let relative paths begin in ``folder``."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def make_library(folder: Path, encoder: Path) -> None:
    """Execute the first notebook's cells in this process, with a tiny LLM and the tests' Spark."""
    notebook, names = nbformat.read(NOTEBOOKS[0], as_version=4), dict[str, Any](__name__="notebook")
    small = {
        "encoder": {"model": str(encoder), "max_tokens": 64},
        "spark": SMALL_SPARK.model_dump(),
        "training": {"epochs": 3, "threads": 1},
        "release": {"min_validation_ndcg10": 0.0},
    }
    with working_in(folder):
        for cell in notebook.cells:
            if cell.cell_type == "code":
                exec(compile(cell.source, f"{NOTEBOOKS[0].name}, cell {cell.id}", "exec"), names)
            if SETTINGS.exists() and "encoder:" not in (text := SETTINGS.read_text()):
                SETTINGS.write_text(text + yaml.safe_dump(small))
