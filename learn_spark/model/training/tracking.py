"""What a training tells while it goes: JSON lines and TensorBoard, both cut back to the checkpoint by a resume."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class Tracker:
    """Writes ``folder``/steps.jsonl and TensorBoard's events. ``step`` is the optimizer step that a run resumes after;
    what an earlier, killed run wrote beyond it is dropped, for it will be written again.
    """

    def __init__(self, folder: Path, *, step: int = 0) -> None:
        from torch.utils.tensorboard import SummaryWriter

        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / "steps.jsonl"
        kept = []
        if self._path.is_file():
            for line in self._path.read_text(encoding="utf-8").splitlines():
                try:
                    if json.loads(line)["step"] <= step:
                        kept.append(line + "\n")
                except (json.JSONDecodeError, KeyError, TypeError):
                    break  # the line that a kill cut in two is the last
        self._path.write_text("".join(kept), encoding="utf-8")
        self._lines = self._path.open("a", encoding="utf-8")
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """One point; values that are not finite numbers go into the JSON lines as null, and not to TensorBoard."""
        numbers = {k: v if isinstance(v, int) or math.isfinite(v) else None for k, v in values.items()}
        self._lines.write(json.dumps({"step": step, **numbers}) + "\n")
        self._lines.flush()
        for name, value in numbers.items():
            if value is not None:
                self._board.add_scalar(name.replace("@", "_at_"), value, step)

    def close(self) -> None:
        """Flush both."""
        self._lines.close()
        self._board.close()
