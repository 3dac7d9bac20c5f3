"""What a run printed, kept as JSON lines in the workspace's logs: for whoever looks at it while it works."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from learn_spark.core.visible import visible

CONSOLE_LOG = "console.jsonl"
LARGEST = 1 << 20  # bytes; a larger file begins anew with the next run
LONGEST = 2_000  # characters of a line


@dataclass(frozen=True)
class LogLine:
    """A printed line. ``done`` of ``total`` where it counts progress, else None."""

    time: str
    process: int
    text: str
    done: int | None = None
    total: int | None = None


class ConsoleLog:
    """Appends lines to ``path``. A disk that is full, or a folder that may not be written, stops no run."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with suppress(OSError):
            if path.is_file() and path.stat().st_size > LARGEST:
                path.unlink()

    def write(self, text: str, done: int | None = None, total: int | None = None) -> None:
        """Append one line; a long one is cut."""
        line: dict[str, Any] = {"time": datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S"), "process": os.getpid()}
        line["text"] = visible(text)[:LONGEST]
        if done is not None:
            line |= {"done": done, "total": total}
        with suppress(OSError), self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def newest_lines(path: Path, count: int) -> list[LogLine]:
    """The last ``count`` lines of a console log, oldest first; lines that cannot be read are left out."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - (LONGEST + 200) * count))
            lines = file.read().splitlines()
    except OSError:
        return []
    found = []
    for line in lines[-count:]:
        try:
            found.append(LogLine(**json.loads(line)))
        except (ValueError, TypeError):
            continue
    return found
