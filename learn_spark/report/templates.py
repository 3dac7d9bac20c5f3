"""What all pages share: the Jinja environment, and the figures at a page's head."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import jinja2

from learn_spark.report.plots.style import DARK, KINDS, LIGHT, SHAPES
from learn_spark.report.plots.text import number


@dataclass(frozen=True)
class Fact:
    """One of the figures at the head of a page."""

    name: str
    value: str
    note: str


def environment() -> jinja2.Environment:
    """Templates of this folder: everything is escaped, nothing undefined passed over. They have the shapes and
    colours of plots and the filters ``number`` and ``when``.
    """
    found = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.globals |= {"shapes": SHAPES, "kinds": KINDS, "light": LIGHT, "dark": DARK}
    found.filters |= {"number": number, "when": lambda moment: f"{moment:%Y-%m-%d %H:%M:%S}"}
    return found
