"""What messages quote of raw files: short, and with every control character escaped."""

from __future__ import annotations

import re
from collections.abc import Iterable

_NAMES, _LENGTH, _TOGETHER = 30, 60, 400


def shown(text: object, limit: int = 200) -> str:
    """The text on one line of at most ``limit`` characters; what a terminal cannot print is escaped."""
    line = re.sub(r"\s*[\r\n]\s*", " ", str(text))
    line = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line[: limit + 1])
    return line if len(line) <= limit else line[: limit - 1] + "…"


def shown_names(names: Iterable[str]) -> str:
    """Names of columns, separated by commas: the first 30 of them, or fewer if they are long."""
    every = list(names)
    more = f" and {len(every) - _NAMES:,} more" if len(every) > _NAMES else ""
    return shown(", ".join(shown(name, _LENGTH) or "''" for name in every[:_NAMES]), _TOGETHER) + more
