"""Data Docs: one page per evaluated table version, rendered by Great Expectations, and an index of the pages."""

from __future__ import annotations

import html
import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from great_expectations.core.expectation_validation_result import ExpectationSuiteValidationResult
    from great_expectations.render.renderer.page_renderer import ValidationResultsPageRenderer
    from great_expectations.render.view import DefaultJinjaPageView

# Older pages of a gate are deleted; quality_results keeps all results.
PAGES_A_GATE = 20


def plain_name(text: str) -> str:
    """``text`` as a file name: other characters than word characters become "-"."""
    return re.sub(r"\W+", "-", text)


def page_path(folder: Path, gate: str, title: str) -> Path:
    """The path below ``folder`` of the page of the gate's validation ``title``."""
    return folder / plain_name(gate) / f"{plain_name(title)}.html"


def write_page(page: Path, validation: ExpectationSuiteValidationResult) -> None:
    """Write the page, delete all but the newest ``PAGES_A_GATE`` pages of the gate, and rewrite the index."""
    renderer, view = _renderers()
    text = view.render(renderer.render(validation), show_how_to_buttons=False)
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(text, encoding="utf-8")
    pages = sorted(page.parent.glob("*.html"), key=lambda one: one.stat().st_mtime_ns)
    for old in pages[:-PAGES_A_GATE]:
        old.unlink()
    _write_index(page.parent.parent)


@cache
def _renderers() -> tuple[ValidationResultsPageRenderer, DefaultJinjaPageView]:
    """Renderer and view, once per process, because the view caches its compiled templates."""
    from great_expectations.render.renderer.page_renderer import ValidationResultsPageRenderer
    from great_expectations.render.view import DefaultJinjaPageView

    return ValidationResultsPageRenderer(), DefaultJinjaPageView()


def _write_index(folder: Path) -> None:
    lines = ["<!DOCTYPE html>", '<html lang="en"><head><meta charset="utf-8"><title>Quality gates</title></head><body>']
    lines.append("<h1>Quality gates</h1>")
    for gate in sorted(one for one in folder.iterdir() if one.is_dir()):
        pages = sorted(gate.glob("*.html"), key=lambda one: -one.stat().st_mtime_ns)
        if pages:
            names = [(f"{gate.name}/{page.name}", html.escape(page.stem)) for page in pages]
            links = "".join(f'<li><a href="{link}">{name}</a></li>' for link, name in names)
            lines.append(f"<h2>{html.escape(gate.name)}</h2><ul>{links}</ul>")
    (folder / "index.html").write_text("\n".join([*lines, "</body></html>", ""]), encoding="utf-8")
