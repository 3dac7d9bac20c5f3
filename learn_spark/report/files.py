"""Atomic writing of pages and the files that accompany them."""

from __future__ import annotations

import os
from pathlib import Path


def put(path: Path, text: str) -> Path:
    """Write ``text`` atomically: a reader of ``path`` gets the old content or all of the new. Returns ``path``."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
    return path
