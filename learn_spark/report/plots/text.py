"""Number formats of tables and of chart axes."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass


def number(value: float) -> str:
    """``value`` to four significant digits."""
    return f"{value:.4g}"


def percent(value: float) -> str:
    """A share as a percentage; small shares have one decimal place."""
    return f"{100 * value:.0f} %" if value == 0 or value >= 0.0995 else f"{100 * value:.1f} %"


def slug(name: str) -> str:
    """``name`` as part of an HTML id."""
    return re.sub(r"\W+", "-", name).lower()


@dataclass(frozen=True)
class Form:
    """A number format: a Python function, and a Vega expression for the label of a tick (``datum.value``)."""

    write: Callable[[float], str]
    label: str


NUMBER = Form(number, "format(datum.value, '.4~g')")
PERCENT = Form(percent, "format(100 * datum.value, '.3~g') + ' %'")
SIGNED_PERCENT = Form(lambda value: f"{100 * value:+.3g} %", "format(100 * datum.value, '+.3~g') + ' %'")
PERCENT_TENTHS = Form(lambda value: f"{100 * value:.1f} %", "format(100 * datum.value, '.3~g') + ' %'")
