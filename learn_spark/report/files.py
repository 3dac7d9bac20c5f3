"""Pages and what lies beside them, put in place whole."""

from __future__ import annotations

import os
from pathlib import Path


def put(path: Path, text: str) -> Path:
    """Write ``text`` so that whoever opens ``path`` finds what was there or all of this; the path."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
    return path
