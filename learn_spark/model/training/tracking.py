"""The log of a training as JSON lines and, if wanted, TensorBoard events, truncated to the checkpoint by a resume."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class Tracker:
    """Writes ``folder``/steps.jsonl and, with ``tensorboard``, TensorBoard events.

    ``step`` is the optimizer step after which a run resumes. Points beyond it come from a killed run and are dropped,
    because they will be written again.
    """

    def __init__(self, folder: Path, *, step: int = 0, tensorboard: bool = True) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / "steps.jsonl"
        kept = []
        if self._path.is_file():
            for line in self._path.read_text(encoding="utf-8").splitlines():
                try:
                    if json.loads(line)["step"] <= step:
                        kept.append(line + "\n")
                except (json.JSONDecodeError, KeyError, TypeError):
                    break  # a line truncated by a kill is the last one
        self._path.write_text("".join(kept), encoding="utf-8")
        self._lines = self._path.open("a", encoding="utf-8")
        self._board = None
        if tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """Write one point. Values that are not finite become null in the JSON lines and are not sent to TensorBoard."""
        numbers = {k: v if isinstance(v, int) or math.isfinite(v) else None for k, v in values.items()}
        self._lines.write(json.dumps({"step": step, **numbers}) + "\n")
        self._lines.flush()
        for name, value in numbers.items():
            if value is not None and self._board is not None:
                self._board.add_scalar(name.replace("@", "_at_"), value, step)

    def close(self) -> None:
        """Flush and close the files."""
        self._lines.close()
        if self._board is not None:
            self._board.close()
