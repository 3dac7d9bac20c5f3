"""DCN-v2 of FuxiCTR's layers, trained and measured by FuxiCTR, in the peers' environment.

    python ranker_witness_peer.py ROWS.npz --seed 1 --batch 4096 --rate 1e-3 --penalty 1e-5

ROWS has for train, validation and test: PART_ids [n, F] (0: unknown), PART_numbers [n, M] and PART_label [n]; ``sizes``
[F] of the ids.
"""

# mypy: disable-error-code="import-not-found, import-untyped, no-untyped-def, no-untyped-call, no-any-return, misc"

from __future__ import annotations

import argparse
import json
import tempfile
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fuxictr.features import FeatureMap
from fuxictr.pytorch.layers import CrossNetV2, FeatureEmbedding, MLP_Block
from fuxictr.pytorch.models import BaseModel
from fuxictr.pytorch.torch_utils import seed_everything


class DCNv2(BaseModel):
    """Cross layers in parallel with an MLP over the embeddings of all fields (Wang et al., WWW 2021, figure 1b)."""

    def __init__(self, feature_map: Any, folder: str, options: argparse.Namespace) -> None:
        super().__init__(
            feature_map,
            monitor="AUC",
            early_stop_patience=options.patience,
            eval_steps=options.steps,
            embedding_regularizer=options.penalty,
            verbose=0,
            model_root=folder,
            metrics=["AUC", "logloss"],
        )
        self.embedding_layer = FeatureEmbedding(feature_map, options.width)
        width = options.width * len(feature_map.features)
        self.cross = CrossNetV2(width, 2)
        self.mlp = MLP_Block(width, hidden_units=[64, 32], dropout_rates=options.dropout)
        self.output = torch.nn.Linear(width + 32, 1)
        self.compile("adam", "binary_crossentropy", options.rate)
        self.reset_parameters()
        self.model_to_device()

    def forward(self, inputs: Any) -> dict[str, torch.Tensor]:
        """Probabilities [B, 1] of a batch."""
        embedded = self.embedding_layer(self.get_inputs(inputs), flatten_emb=True)
        both = torch.cat([self.cross(embedded), self.mlp(embedded)], dim=1)
        return {"y_pred": self.output_activation(self.output(both))}


class Batches:
    """Batches of a part, in a new order each time where ``shuffled``."""

    def __init__(self, data: Any, part: str, size: int, shuffled: bool = False) -> None:
        self.columns = {f"id_{n}": torch.from_numpy(x).long() for n, x in enumerate(data[f"{part}_ids"].T)}
        self.columns |= {f"number_{n}": torch.from_numpy(x).float() for n, x in enumerate(data[f"{part}_numbers"].T)}
        self.columns["label"] = torch.from_numpy(data[f"{part}_label"]).float()
        self.size, self.shuffled = size, shuffled

    def __len__(self) -> int:
        return -(-len(self.columns["label"]) // self.size)

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        rows = len(self.columns["label"])
        order = torch.randperm(rows) if self.shuffled else torch.arange(rows)
        for at in order.split(self.size):
            yield {name: column[at] for name, column in self.columns.items()}


def feature_map_of(data: Any) -> Any:
    """FuxiCTR's description of the columns."""
    made = FeatureMap("witness", ".")
    made.labels = ["label"]
    ids = {
        f"id_{n}": {"source": "", "type": "categorical", "vocab_size": int(size), "padding_idx": 0}
        for n, size in enumerate(data["sizes"])
    }
    numbers = {
        f"number_{n}": {"source": "", "type": "numeric", "vocab_size": 1} for n in range(data["train_numbers"].shape[1])
    }
    made.features = OrderedDict(ids | numbers)
    made.num_fields = len(made.features)
    return made


def main() -> None:
    """Train and keep the best by AUC on validation; prints the metrics of validation and test as JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("rows")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--batch", type=int, default=4096)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--penalty", type=float, default=1e-5)
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--patience", type=int, default=5)
    parser.add_argument("--steps", type=int, default=None, help="batches between validations; an epoch where left out")
    options = parser.parse_args()
    torch.set_num_threads(1)
    seed_everything(options.seed)
    data = np.load(options.rows)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "witness").mkdir()  # FuxiCTR saves the best model there
        model = DCNv2(feature_map_of(data), folder, options)
        validation = Batches(data, "validation", 8192)
        model.fit(Batches(data, "train", options.batch, shuffled=True), options.epochs, validation)
        test = Batches(data, "test", 8192)
        figures = {"validation": model.evaluate(validation), "test": model.evaluate(test)}
        predicted = float(model.predict(test).sum())
    figures["test"]["predicted / observed"] = predicted / float(data["test_label"].sum())
    print(json.dumps({part: {name: round(float(x), 4) for name, x in one.items()} for part, one in figures.items()}))


if __name__ == "__main__":
    main()
