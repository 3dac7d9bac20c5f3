"""The Jinja environment of all pages, and the key figures at the head of a page."""

from __future__ import annotations

from dataclasses import dataclass

import jinja2
from markupsafe import Markup

from learn_spark.core.resources import package_folder
from learn_spark.core.visible import visible
from learn_spark.report.plots.style import DARK, KINDS, LIGHT, SHAPES
from learn_spark.report.plots.text import in_bytes, in_seconds, number

# A page runs no script and asks for nothing.
POLICY = Markup(
    "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
)


@dataclass(frozen=True)
class Fact:
    """A key figure at the head of a page."""

    name: str
    value: str
    note: str


def environment() -> jinja2.Environment:
    """The templates of this folder. Values are escaped and ``visible``, and an undefined name is an error.

    Globals: shapes and colours of charts. Filters: ``number``, ``when``, ``seconds``, ``bytes`` and ``fact``.
    """
    templates = jinja2.Environment(
        loader=jinja2.FileSystemLoader(package_folder() / "report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.globals |= {"shapes": SHAPES, "kinds": KINDS, "light": LIGHT, "dark": DARK, "policy": POLICY}
    templates.filters |= {"number": number, "when": lambda moment: f"{moment:%Y-%m-%d %H:%M:%S}"}
    templates.filters |= {"seconds": in_seconds, "bytes": in_bytes, "fact": _fact}
    return templates


def _fact(value: object) -> str:
    """A value of a manifest in words of a reader: yes or no, and separators of thousands."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _shown(value: object) -> object:
    if isinstance(value, Markup):
        return Markup(visible(value))
    return visible(value) if isinstance(value, str) else value
