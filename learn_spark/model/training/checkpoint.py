"""Checkpoints: folders of safetensors and JSON with everything that a resume needs, written atomically."""

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

from learn_spark.core.storage.files import give_usual_mode
from learn_spark.core.storage.folders import download, upload
from learn_spark.core.storage.path import StoragePath
from learn_spark.model.manifest import Point

_NAME = re.compile(r"^(last|best)-\d{6}-\d{9}$")


@dataclass
class Progress:
    """The progress of a training: ``epoch`` finished epochs and ``batch`` finished batches of the next one.

    ``step`` counts optimizer steps. ``best_epoch`` and ``best_value`` are those by validation; ``curve`` has one point
    an epoch; ``running`` has the sums of the unfinished epoch.
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

    A checkpoint is written under a temporary name and renamed; the previous one is removed after that. ``copy`` (None:
    no copy) gets every checkpoint too, so that another machine can resume.
    """

    def __init__(self, folder: Path, copy: StoragePath | None = None) -> None:
        self.folder, self.copy = folder, copy

    def fetch(self) -> None:
        """Copy the checkpoints of ``copy`` to ``folder``, where ``folder`` has none."""
        if self.copy is None or self.folder.is_dir():
            return
        for entry in self.copy.files():
            download(entry.path, self.folder / entry.path[len(self.copy) + 1 :])

    def save_last(self, modules: torch.nn.Module, optimizer: torch.optim.Optimizer, progress: Progress) -> None:
        """Save the state from which training resumes."""
        tensors = {f"model/{name}": tensor for name, tensor in modules.state_dict().items()}
        for index, state in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer/{index}/{name}": torch.as_tensor(value) for name, value in state.items()}
        self._save("last", tensors, progress)

    def save_best(self, tower: torch.nn.Module, progress: Progress) -> None:
        """Save the weights of the best epoch so far."""
        self._save("best", dict(tower.state_dict()), progress)

    def load_last(self, modules: torch.nn.Module, optimizer: torch.optim.Optimizer) -> Progress | None:
        """Load the newest readable state into modules and optimizer. Returns its progress, None where there is no
        state.
        """
        for folder in self._folders("last"):
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
        """The progress of the newest state; None where there is none."""
        return next(filter(None, map(_progress, self._folders("last"))), None)

    def load_best(self) -> dict[str, torch.Tensor] | None:
        """The weights of the best epoch; None where there are none."""
        for folder in self._folders("best"):
            try:
                return load_file(folder / "state.safetensors")
            except (OSError, SafetensorError):
                continue
        return None

    def _folders(self, kind: str) -> list[Path]:
        """The folders of a kind, newest first."""
        if not self.folder.is_dir():
            return []
        return sorted(p for p in self.folder.iterdir() if p.name.startswith(f"{kind}-") and _NAME.match(p.name))[::-1]

    def _save(self, kind: str, tensors: dict[str, torch.Tensor], progress: Progress) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        target = self.folder / f"{kind}-{progress.epoch:06d}-{progress.batch:09d}"
        temporary = self.folder / f".{kind}.{os.getpid()}"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        # Cloned, because safetensors rejects tensors that share memory.
        save_file({n: t.detach().clone().contiguous() for n, t in tensors.items()}, temporary / "state.safetensors")
        give_usual_mode(temporary / "state.safetensors")
        (temporary / "progress.json").write_text(json.dumps(asdict(progress)), encoding="utf-8")
        for file in temporary.iterdir():
            with file.open("rb") as handle:
                os.fsync(handle.fileno())
        older = [folder for folder in self._folders(kind) if folder != target]
        shutil.rmtree(target, ignore_errors=True)
        temporary.rename(target)
        for folder in older:
            shutil.rmtree(folder, ignore_errors=True)
        if self.copy is not None:
            # The progress last: a checkpoint without it is not read.
            for name in ("state.safetensors", "progress.json"):
                upload(target / name, self.copy / target.name / name)
            for earlier in self.copy.children():
                if earlier.name.startswith(f"{kind}-") and earlier.name != target.name:
                    earlier.remove()


def _progress(folder: Path) -> Progress | None:
    try:
        return Progress(**json.loads((folder / "progress.json").read_text(encoding="utf-8")))
    except (OSError, TypeError, json.JSONDecodeError):
        return None
