"""Data Docs: one page per evaluated table version, rendered by Great Expectations, and an index of the pages."""

from __future__ import annotations

import html
import re
from functools import cache
from typing import TYPE_CHECKING

from learn_spark.core.storage.path import StoragePath

if TYPE_CHECKING:
    from great_expectations.core.expectation_validation_result import ExpectationSuiteValidationResult
    from great_expectations.render.renderer.page_renderer import ValidationResultsPageRenderer
    from great_expectations.render.view import DefaultJinjaPageView

# Older pages of a gate are deleted; quality_results keeps all results.
PAGES_A_GATE = 20


def plain_name(text: str) -> str:
    """``text`` as a file name: other characters than word characters become "-"."""
    return re.sub(r"\W+", "-", text)


def page_path(folder: StoragePath, gate: str, title: str) -> StoragePath:
    """The path below ``folder`` of the page of the gate's validation ``title``."""
    return folder / plain_name(gate) / f"{plain_name(title)}.html"


def write_page(page: StoragePath, validation: ExpectationSuiteValidationResult) -> None:
    """Write the page, delete all but the newest ``PAGES_A_GATE`` pages of the gate, and rewrite the index."""
    renderer, view = _renderers()
    text = view.render(renderer.render(validation), show_how_to_buttons=False)
    page.write_text(text)
    for old in _pages(page.parent)[PAGES_A_GATE:]:
        old.remove()
    _write_index(page.parent.parent)


@cache
def _renderers() -> tuple[ValidationResultsPageRenderer, DefaultJinjaPageView]:
    """Renderer and view, once per process, because the view caches its compiled templates."""
    from great_expectations.render.renderer.page_renderer import ValidationResultsPageRenderer
    from great_expectations.render.view import DefaultJinjaPageView

    return ValidationResultsPageRenderer(), DefaultJinjaPageView()


def _pages(folder: StoragePath) -> list[StoragePath]:
    """The pages in a gate's folder, newest first."""
    files = [file for file in folder.files() if file.path.name.endswith(".html")]
    return [file.path for file in sorted(files, key=lambda file: (-file.changed, file.path))]


def _write_index(folder: StoragePath) -> None:
    lines = ["<!DOCTYPE html>", '<html lang="en"><head><meta charset="utf-8"><title>Quality gates</title></head><body>']
    lines.append("<h1>Quality gates</h1>")
    for gate in folder.children():
        if pages := _pages(gate):
            names = [(f"{gate.name}/{page.name}", html.escape(page.name.removesuffix(".html"))) for page in pages]
            links = "".join(f'<li><a href="{link}">{name}</a></li>' for link, name in names)
            lines.append(f"<h2>{html.escape(gate.name)}</h2><ul>{links}</ul>")
    (folder / "index.html").write_text("\n".join([*lines, "</body></html>", ""]))
