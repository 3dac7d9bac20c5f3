"""The fenced blocks of a page of docs/, in their order."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
_FENCE = re.compile(r"^```(?P<language>\w*)(?: title=\"(?P<title>[^\"]+)\")?\n(?P<text>.*?)^```$", re.M | re.S)


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its title ("" without one), its text, and its line in the page."""

    language: str
    title: str
    text: str
    line: int

    def commands(self) -> list[str]:
        """The logical lines of a shell block, without comments."""
        lines = self.text.replace("\\\n", " ").splitlines()
        return [line for line in lines if line.strip() and not line.startswith("#")]


def blocks(page: str) -> list[Block]:
    """All fenced blocks of docs/``page``."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    return [
        Block(m["language"], m["title"] or "", m["text"], text[: m.start()].count("\n") + 2)
        for m in _FENCE.finditer(text)
    ]
