"""RecTools' SASRec and HSTU on given histories, in the peers' environment: scores of all items for all users."""

# mypy: disable-error-code="import-not-found, import-untyped"

from __future__ import annotations

import argparse
import json
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np

CHUNK = 256  # users whose whole rankings are held at once


def main() -> None:
    """Read histories.npz (items, times, offsets, n_items), fit, write scores.npy [B, n_items] and told.json."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", choices=["sasrec", "hstu"], required=True)
    parser.add_argument("--epochs", type=int, required=True)
    parser.add_argument("--settings", type=json.loads, default={}, help="RecTools' arguments beside these.")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    data = np.load(arguments.folder / "histories.npz", allow_pickle=False)
    clock = time.monotonic()
    model, dataset, frame = _fit(data, arguments.model, arguments.epochs, arguments.settings)
    seconds = time.monotonic() - clock
    _score(model, dataset, frame, len(data["offsets"]) - 1, int(data["n_items"]), arguments.folder / "scores.npy")
    parameters = sum(p.numel() for p in model.lightning_model.torch_model.parameters())
    (arguments.folder / "told.json").write_text(json.dumps({"seconds": seconds, "parameters": parameters}))


def _fit(data: Any, name: str, epochs: int, settings: dict[str, Any]) -> tuple[Any, Any, Any]:
    import pandas as pd
    from pytorch_lightning import Trainer, seed_everything
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
    trainer = Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        deterministic=True,
    )
    kind = SASRecModel if name == "sasrec" else HSTUModel
    model = kind(item_net_block_types=(IdEmbeddingsItemNet,), **settings)
    model._trainer = trainer
    model.fit(dataset)
    return model, dataset, frame


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
