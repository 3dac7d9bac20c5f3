"""The Jinja environment of the report's pages: everything escaped, nothing undefined passed over."""

from __future__ import annotations

from pathlib import Path

import jinja2

from learn_spark.report.svg import KINDS, mark, number


def environment() -> jinja2.Environment:
    """Templates of this folder, with the marks of plots and the filters ``number`` and ``when``."""
    found = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.globals |= {"mark": mark, "kinds": KINDS}
    found.filters |= {"number": number, "when": lambda moment: f"{moment:%Y-%m-%d %H:%M:%S}"}
    return found
