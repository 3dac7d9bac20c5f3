"""Checkpoints: folders of safetensors and JSON with everything that a resume needs, whole or not there."""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from learn_spark.model.manifest import Point

_NAME = re.compile(r"^(last|best)-\d{6}-\d{9}$")


@dataclass
class Progress:
    """How far a training has come: ``epoch`` epochs are done and ``batch`` batches of the next one; ``step`` counts
    optimizer steps. ``running`` holds the sums of the unfinished epoch.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    best_epoch: int = 0
    best_value: float = -1.0
    curve: list[Point] = field(default_factory=list)
    running: dict[str, float] = field(default_factory=dict)


class Checkpoints:
    """The newest and the best state of one training, in ``folder``.

    A checkpoint is written under another name and renamed; only then is the one before removed.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save_last(self, modules: torch.nn.Module, optimizer: torch.optim.Optimizer, progress: Progress) -> None:
        """Keep the state to go on from."""
        tensors = {f"model/{name}": tensor for name, tensor in modules.state_dict().items()}
        for index, state in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer/{index}/{name}": torch.as_tensor(value) for name, value in state.items()}
        self._save("last", tensors, progress)

    def save_best(self, tower: torch.nn.Module, progress: Progress) -> None:
        """Keep the weights of the best epoch so far."""
        self._save("best", dict(tower.state_dict()), progress)

    def load_last(self, modules: torch.nn.Module, optimizer: torch.optim.Optimizer) -> Progress | None:
        """Put the newest readable state into modules and optimizer; None where there is none."""
        for folder in self._found("last"):
            progress = _progress(folder)
            try:
                tensors = load_file(folder / "state.safetensors")
            except (OSError, SafetensorError):
                continue
            if progress is None:
                continue
            modules.load_state_dict({n.removeprefix("model/"): t for n, t in tensors.items() if n[:6] == "model/"})
            state: dict[int, dict[str, torch.Tensor]] = {}
            for name, tensor in tensors.items():
                part, _, rest = name.partition("/")
                if part == "optimizer":
                    index, _, key = rest.partition("/")
                    state.setdefault(int(index), {})[key] = tensor
            optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
            return progress
        return None

    def progress(self) -> Progress | None:
        """How far the newest state has come; None where there is none."""
        return next(filter(None, map(_progress, self._found("last"))), None)

    def load_best(self) -> dict[str, torch.Tensor] | None:
        """The weights of the best epoch; None where there are none."""
        for folder in self._found("best"):
            try:
                return load_file(folder / "state.safetensors")
            except (OSError, SafetensorError):
                continue
        return None

    def _found(self, kind: str) -> list[Path]:
        """Newest first."""
        if not self.folder.is_dir():
            return []
        return sorted(p for p in self.folder.iterdir() if p.name.startswith(f"{kind}-") and _NAME.match(p.name))[::-1]

    def _save(self, kind: str, tensors: dict[str, torch.Tensor], progress: Progress) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        target = self.folder / f"{kind}-{progress.epoch:06d}-{progress.batch:09d}"
        temporary = self.folder / f".{kind}.{os.getpid()}"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        # Cloned, for safetensors refuses tensors that share memory.
        save_file({n: t.detach().clone().contiguous() for n, t in tensors.items()}, temporary / "state.safetensors")
        (temporary / "progress.json").write_text(json.dumps(asdict(progress)), encoding="utf-8")
        for file in temporary.iterdir():
            with file.open("rb") as opened:
                os.fsync(opened.fileno())
        older = [folder for folder in self._found(kind) if folder != target]
        shutil.rmtree(target, ignore_errors=True)
        temporary.rename(target)
        for folder in older:
            shutil.rmtree(folder, ignore_errors=True)


def _progress(folder: Path) -> Progress | None:
    try:
        return Progress(**json.loads((folder / "progress.json").read_text(encoding="utf-8")))
    except (OSError, TypeError, json.JSONDecodeError):
        return None
