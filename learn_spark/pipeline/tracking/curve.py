"""The points of a training's log, while it is being written and afterwards."""

from __future__ import annotations

import json
from pathlib import Path

FILE = "steps.jsonl"
Point = tuple[int, dict[str, float]]


class Curve:
    """Reads ``folder``/steps.jsonl from where it was read before; a line that is not complete is read later.

    A file that no longer has the last line that was read at its place, because a training was resumed at its
    checkpoint, is read from its beginning.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE
        self._position, self._last = 0, b""

    def new_points(self) -> list[Point]:
        """(step, value by name) of the points since the last call; none where there is no file. Values that are not
        finite are left out."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._position - len(self._last))
                if file.read(len(self._last)) != self._last:
                    self._position, self._last = file.seek(0), b""
                content = file.read()
        except OSError:
            return []
        complete = content[: content.rfind(b"\n") + 1]
        self._position += len(complete)
        lines = complete.splitlines(keepends=True)
        if lines:
            self._last = lines[-1]
        return [_point(line) for line in lines]


def _point(line: bytes) -> Point:
    values = json.loads(line)
    return int(values.pop("step")), {name: float(value) for name, value in values.items() if value is not None}
