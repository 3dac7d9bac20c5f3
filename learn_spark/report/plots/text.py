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


def in_seconds(value: float) -> str:
    """A duration: 4.1 s, 58 s, 3 min 36 s, 1 h 5 min."""
    if value < 59.5:
        return f"{value:.1f} s" if value < 9.95 else f"{value:.0f} s"
    minutes, seconds = divmod(round(value), 60)
    if minutes < 60:
        return f"{minutes} min {seconds} s" if seconds else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,} h {minutes} min" if minutes else f"{hours:,} h"


def in_bytes(value: int) -> str:
    """A size in its largest decimal unit: 512 B, 4.1 kB, 33 MB."""
    size, unit = float(value), "B"
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if size < 999.5 or unit == "TB":
            break
        size /= 1000
    return f"{size:.1f} {unit}" if unit != "B" and size < 9.95 else f"{size:,.0f} {unit}"


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
