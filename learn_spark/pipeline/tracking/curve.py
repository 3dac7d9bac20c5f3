"""The points of a training's log, while it is being written and afterwards."""

from __future__ import annotations

import json
from pathlib import Path

FILE = "steps.jsonl"
Point = tuple[int, dict[str, float]]


class Curve:
    """Reads ``folder``/steps.jsonl from where it was read before; a line that is not complete is read later.

    A file that became shorter, because a training was resumed at its checkpoint, is read from its beginning.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE
        self._position = 0

    def new_points(self) -> list[Point]:
        """(step, value by name) of the points since the last call; none where there is no file. Values that are not
        finite are left out."""
        try:
            with self._path.open("rb") as file:
                if file.seek(0, 2) < self._position:
                    self._position = 0
                file.seek(self._position)
                content = file.read()
        except OSError:
            return []
        complete = content[: content.rfind(b"\n") + 1]
        self._position += len(complete)
        return [_point(line) for line in complete.splitlines()]


def _point(line: bytes) -> Point:
    values = json.loads(line)
    return int(values.pop("step")), {name: float(value) for name, value in values.items() if value is not None}
