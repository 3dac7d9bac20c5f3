"""RecTools' SASRec and HSTU on given histories, in the peers' environment: scores of all items for all users."""

# mypy: disable-error-code="import-not-found, import-untyped"

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

CHUNK = 256  # users whose whole rankings are held at once


def main() -> None:
    """Read histories.npz (items, times, offsets, n_items) and fit. After each of --epochs: write scores.npy
    [B, n_items], print a line of JSON (epochs, seconds of training, parameters), and wait for a line on stdin.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", choices=["sasrec", "hstu"], required=True)
    parser.add_argument("--epochs", type=int, nargs="+", required=True)
    parser.add_argument("--settings", type=json.loads, default={}, help="RecTools' arguments beside these.")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    data = np.load(arguments.folder / "histories.npz", allow_pickle=False)
    users, n_items = len(data["offsets"]) - 1, int(data["n_items"])
    told = 0

    def tell(model: Any, dataset: Any, frame: Any, epoch: int, seconds: float) -> None:
        nonlocal told
        _score(model, dataset, frame, users, n_items, arguments.folder / "scores.npy")
        parameters = sum(p.numel() for p in model.lightning_model.torch_model.parameters())
        print(json.dumps({"epochs": epoch, "seconds": seconds, "parameters": parameters}), flush=True)
        if not sys.stdin.readline():
            raise SystemExit("nobody reads the scores any more")
        told += 1

    _fit(data, arguments.model, arguments.epochs, arguments.settings, tell)
    if told != len(set(arguments.epochs)):
        raise SystemExit(f"scored after {told} of the epochs {arguments.epochs}")


def _fit(data: Any, name: str, epochs: Sequence[int], settings: dict[str, Any], tell: Callable[..., None]) -> None:
    import pandas as pd
    import torch
    from pytorch_lightning import Callback, Trainer, seed_everything
    from rectools.dataset import Dataset
    from rectools.models import HSTUModel, SASRecModel
    from rectools.models.nn.item_net import IdEmbeddingsItemNet

    seed_everything(settings.pop("seed", 2024), workers=True)
    lengths = np.diff(data["offsets"])
    # The place in the history as microseconds: RecTools orders by time alone, and many events have the same.
    place = np.arange(len(data["items"])) - np.repeat(data["offsets"][:-1], lengths)
    frame = pd.DataFrame(
        {
            "user_id": np.repeat(np.arange(len(lengths)), lengths),
            "item_id": data["items"],
            "weight": 1.0,
            "datetime": pd.to_datetime(data["times"] + place, unit="us"),
        }
    )
    dataset = Dataset.construct(frame)
    clock, spent = time.monotonic(), 0.0

    class Scoring(Callback):
        """Scores between two epochs, so that training goes on as if nothing had been asked."""

        def __deepcopy__(self, _: Any) -> Scoring:
            return self  # RecTools copies its trainer, and this would take the model along

        def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
            nonlocal spent
            if (epoch := trainer.current_epoch + 1) not in epochs:
                return
            began = time.monotonic()
            # A DataLoader draws a seed; a model asked for scores turns to eval.
            with torch.random.fork_rng(devices=[]):
                model.is_fitted = True
                tell(model, dataset, frame, epoch, began - clock - spent)
                model.is_fitted = False
            module.train()
            spent += time.monotonic() - began

    trainer = Trainer(
        max_epochs=max(epochs),
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        deterministic=True,
        callbacks=[Scoring()],
    )
    kind = SASRecModel if name == "sasrec" else HSTUModel
    model = kind(item_net_block_types=(IdEmbeddingsItemNet,), **settings)
    model._trainer = trainer
    model.fit(dataset)


def _score(model: Any, dataset: Any, frame: Any, users: int, n_items: int, path: Path) -> None:
    """What RecTools does not rank (items that nobody had in training) has -inf."""
    scores = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(users, n_items))
    # A query's time, where the model wants one, is that of the user's last event: what a server knows.
    last = frame.groupby("user_id", as_index=False)["datetime"].max()
    for start in range(0, users, CHUNK):
        some = np.arange(start, min(start + CHUNK, users))
        asked = {"context": last[last["user_id"].isin(some)]} if model.require_recommend_context else {}
        found = model.recommend(some, dataset, k=n_items, filter_viewed=False, **asked)
        block = np.full((len(some), n_items), -np.inf, dtype=np.float32)
        block[found["user_id"].to_numpy() - start, found["item_id"].to_numpy()] = found["score"].to_numpy()
        scores[some] = block
    scores.flush()


if __name__ == "__main__":
    main()
