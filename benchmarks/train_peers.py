"""The peers of benchmarks/train.py: RecTools and RecBole, in an environment of their own, and LEARN's released loop."""

# mypy: disable-error-code="import-not-found, import-untyped"

from __future__ import annotations

import contextlib
import os
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

PEERS = ("rectools[torch]==0.19.0", "colorlog==4.7.2", "colorama==0.4.4", "scikit-learn", "tensorboard", "thop")
PEERS_MORE = ("tabulate", "texttable", "psutil", "pyyaml", "tqdm")
WITHOUT_DEPENDENCIES = ("recbole==1.2.1",)  # it asks for a ray that Python 3.11 cannot have; training needs none
WINDOW, WIDTH, DROPOUT, NEGATIVES, BATCH, RATE = 50, 64, 0.2, 256, 256, 1e-3
LEARN_SHAPE = {"content_dim": 256, "width": 256, "layers": 2, "heads": 4, "ffn": 512, "output_dim": 128}
FIRST_STEPS = 3


class Enough(Exception):
    """The time is up."""


class Stopwatch:
    """Counts steps, sequences and targets from the fourth step on, and raises Enough once ``seconds`` are over."""

    def __init__(self, seconds: float) -> None:
        self.limit, self.steps, self.sequences, self.targets = seconds, 0, 0, 0
        self.started, self.seconds, self.cpu_started, self.cpu_seconds = 0.0, 0.0, 0.0, 0.0

    def step(self, sequences: int, targets: int) -> None:
        """One step is done."""
        self.steps += 1
        if self.steps <= FIRST_STEPS:
            self.started, self.cpu_started = time.perf_counter(), time.process_time()
            return
        self.sequences += sequences
        self.targets += targets
        self.seconds = time.perf_counter() - self.started
        self.cpu_seconds = time.process_time() - self.cpu_started
        if self.seconds > self.limit and self.steps >= 2 * FIRST_STEPS:
            raise Enough

    def figures(self, parameters: int) -> dict[str, float]:
        """Rates over the counted steps."""
        return {
            "sequences_per_s": self.sequences / self.seconds,
            "targets_per_s": self.targets / self.seconds,
            "targets_per_cpu_s": self.targets / self.cpu_seconds,
            "ms_per_step": 1000 * self.seconds / (self.steps - FIRST_STEPS),
            "parameters": parameters,
        }


def rectools(histories: list[np.ndarray], seconds: float, loss: str) -> dict[str, float]:
    """RecTools' SASRec by its own data loader and Lightning trainer."""
    import pandas as pd
    from pytorch_lightning import Callback, Trainer
    from rectools.dataset import Dataset
    from rectools.models import SASRecModel
    from rectools.models.nn.item_net import IdEmbeddingsItemNet

    training = [history[:-2] for history in histories]
    lengths = [len(history) for history in training]
    frame = pd.DataFrame(
        {
            "user_id": np.repeat(np.arange(len(training)), lengths),
            "item_id": np.concatenate(training),
            "weight": 1.0,
            "datetime": pd.Timestamp("2014-01-01") + pd.to_timedelta(np.concatenate([*map(np.arange, lengths)]), "D"),
        }
    )
    watch = Stopwatch(seconds)

    class Watch(Callback):
        def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, number: int) -> None:
            watch.step(len(batch["x"]), int((batch["y"] != 0).sum()))

    model = SASRecModel(
        n_blocks=1,
        n_heads=1,
        n_factors=WIDTH,
        dropout_rate=DROPOUT,
        session_max_len=WINDOW,
        lr=RATE,
        batch_size=BATCH,
        loss=loss,
        n_negatives=NEGATIVES,
        item_net_block_types=(IdEmbeddingsItemNet,),
    )
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    model._trainer = Trainer(
        max_epochs=10_000, accelerator="cpu", enable_model_summary=False, callbacks=[Watch()], **quiet
    )
    with contextlib.suppress(Enough):
        model.fit(Dataset.construct(frame))
    return watch.figures(sum(p.numel() for p in model.lightning_model.torch_model.parameters()))


def recbole(histories: list[np.ndarray], seconds: float, batch: int) -> dict[str, float]:
    """RecBole's SASRec by its own data loader and trainer: every prefix a sample, softmax over all items."""
    from recbole.config import Config
    from recbole.data import create_dataset, data_preparation
    from recbole.model.sequential_recommender.sasrec import SASRec
    from recbole.trainer import Trainer

    folder = Path("beauty")
    folder.mkdir(exist_ok=True)
    with (folder / "beauty.inter").open("w") as file:
        file.write("user_id:token\titem_id:token\ttimestamp:float\n")
        for user, history in enumerate(histories):
            file.writelines(f"{user}\t{item}\t{at}\n" for at, item in enumerate(history))
    config = Config(
        model="SASRec",
        dataset="beauty",
        config_dict={
            "data_path": os.getcwd(),
            "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
            "eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "mode": "full"},
            "MAX_ITEM_LIST_LENGTH": WINDOW,
            "train_neg_sample_args": None,
            "train_batch_size": batch,
            "learning_rate": RATE,
            "n_layers": 1,
            "n_heads": 1,
            "hidden_size": WIDTH,
            "inner_size": WIDTH,
            "hidden_dropout_prob": DROPOUT,
            "attn_dropout_prob": DROPOUT,
            "hidden_act": "relu",
            "use_gpu": False,
            "show_progress": False,
            "state": "ERROR",
        },
    )
    train, _, _ = data_preparation(config, create_dataset(config))
    model = SASRec(config, train.dataset)
    trainer = Trainer(config, model)
    watch = Stopwatch(seconds)

    class Watched:
        """The loader, counted."""

        sampler, shuffle = train.sampler, train.shuffle

        def __iter__(self) -> Iterator[Any]:
            for samples in train:
                yield samples
                watch.step(0, len(samples))

    with contextlib.suppress(Enough):
        while True:
            trainer._train_epoch(Watched(), 0)
    return watch.figures(sum(p.numel() for p in model.parameters()))


def official_learn(histories: list[np.ndarray], content: np.ndarray, seconds: float) -> dict[str, float]:
    """LEARN's loop as in the released code: a BertEncoder on histories padded to the window under key times causal
    mask, the same on one target item each, the softmax over the batch's targets at temperature 0.05, AdamW.
    """
    from transformers import BertConfig
    from transformers.models.bert.modeling_bert import BertEncoder

    config = BertConfig(
        hidden_size=LEARN_SHAPE["width"],
        num_hidden_layers=LEARN_SHAPE["layers"],
        num_attention_heads=LEARN_SHAPE["heads"],
        intermediate_size=LEARN_SHAPE["ffn"],
        hidden_dropout_prob=DROPOUT,
        attention_probs_dropout_prob=DROPOUT,
    )
    config._attn_implementation = "sdpa"
    model = torch.nn.ModuleDict(
        {
            "adaptor": torch.nn.Linear(LEARN_SHAPE["content_dim"], LEARN_SHAPE["width"]),
            "encoder": BertEncoder(config),
            "projection": torch.nn.Linear(LEARN_SHAPE["width"], LEARN_SHAPE["output_dim"]),
        }
    ).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=6e-5, betas=(0.9, 0.98), eps=1e-6, weight_decay=0.0)

    def encode(vectors: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
        length = vectors.shape[1]
        allowed = real.unsqueeze(1) & torch.ones(length, length, dtype=torch.bool).tril()
        mask = torch.zeros(allowed.shape).masked_fill(~allowed, torch.finfo(torch.float32).min).unsqueeze(1)
        hidden = model["encoder"](model["adaptor"](vectors), attention_mask=mask).last_hidden_state
        return F.normalize(model["projection"](hidden), dim=-1)

    rng, watch = np.random.default_rng(0), Stopwatch(seconds)
    training = [history[:-2] for history in histories]
    with contextlib.suppress(Enough):
        while True:
            order = rng.permutation(len(training))
            for start in range(0, len(order), BATCH):
                chosen = [training[i] for i in order[start : start + BATCH]]
                at = [int(rng.integers(max(1, len(row) // 2), len(row))) for row in chosen]
                items = np.zeros((len(chosen), WINDOW), dtype=np.int64)
                for row, (history, cut) in enumerate(zip(chosen, at, strict=True)):
                    past = history[max(0, cut - WINDOW) : cut]
                    items[row, : len(past)] = past
                targets = np.array([history[cut] for history, cut in zip(chosen, at, strict=True)])
                real = torch.from_numpy(items != 0)
                users = encode(torch.from_numpy(content[items]), real)
                users = users[torch.arange(len(users)), real.sum(dim=1) - 1]
                vectors = encode(torch.from_numpy(content[targets]).unsqueeze(1), torch.ones(len(users), 1).bool())
                scores = users @ vectors[:, 0].T * 20
                same = torch.from_numpy(targets[:, None] == targets) & ~torch.eye(len(users), dtype=torch.bool)
                loss = F.cross_entropy(scores.masked_fill(same, -1e4), torch.arange(len(users)))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                watch.step(len(users), len(users))
    return watch.figures(sum(p.numel() for p in model.parameters()))


def run(name: str, histories: list[np.ndarray], content: np.ndarray, seconds: float) -> dict[str, float]:
    """The figures of one contender, in this process."""
    warnings.simplefilter("ignore")
    kind, _, variant = name.partition(", ")
    with tempfile.TemporaryDirectory(prefix="bench-train-") as folder:
        os.chdir(folder)
        if kind == "RecTools":
            return rectools(histories, seconds, "softmax" if variant == "full softmax" else "sampled_softmax")
        if kind == "RecBole":
            return recbole(histories, seconds, int(variant.rpartition(" ")[2]))
        return official_learn(histories, content, seconds)
