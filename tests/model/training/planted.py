"""Users with events of even or of odd items only, as a real Delta table, and a small loop over it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from deltalake import write_deltalake

from learn_spark.core.console import Reporter
from learn_spark.core.settings.histories import FeedSettings
from learn_spark.core.settings.training import ObjectiveSettings, TrainingSettings
from learn_spark.core.storage.path import StoragePath
from learn_spark.core.tables.snapshot import Snapshot
from learn_spark.model.feed.stream import HistoryStream
from learn_spark.model.towers.content import ContentTower
from learn_spark.model.towers.hstu import HSTU
from learn_spark.model.towers.sasrec import SASRec
from learn_spark.model.towers.tower import Tower
from learn_spark.model.training.batches import BatchMaker
from learn_spark.model.training.loop import TrainingLoop
from learn_spark.model.training.objective import ObjectiveLoss
from learn_spark.model.training.process_group import ProcessGroup

ITEMS, WIDTH = 40, 10


def content() -> np.ndarray:
    matrix = np.random.default_rng(0).normal(size=(ITEMS + 1, 8)).astype(np.float32)
    matrix[:, 0] += np.where(np.arange(ITEMS + 1) % 2, 1.5, -1.5)
    matrix[0] = 0
    return matrix


def planted_rows(users: int, length: int) -> pa.Table:
    generator = np.random.default_rng(9)
    parity = generator.integers(0, 2, users)
    items = 2 * generator.integers(1, ITEMS // 2, (users, WIDTH)) + parity[:, None]
    items[:, length:] = 0
    times = np.cumsum(generator.integers(1, 10**11, (users, WIDTH)), axis=1)
    times[:, length:] = 0
    return pa.table(
        {
            "item_index": pa.array(items.tolist(), pa.list_(pa.int32())),
            "event_time": pa.array(times.tolist(), pa.list_(pa.int64())),
            "train_end": pa.array(np.zeros(users), pa.int32()),
            "train_length": pa.array(np.full(users, length), pa.int32()),
        }
    )


def planted_snapshot(folder: Path, *, users: int = 64, length: int = 8) -> Snapshot:
    path = folder / "histories"
    if not path.exists():
        rows = planted_rows(users, length)
        for start in range(0, users, 16):
            write_deltalake(str(path), rows.slice(start, 16), mode="append")
    return Snapshot.open(str(path))


def make_tower(kind: str) -> Tower:
    torch.manual_seed(5)
    if kind == "sasrec":
        return SASRec(n_items=ITEMS, max_length=6, width=8, layers=1, heads=2, ffn=16, dropout=0.1)
    if kind == "hstu":
        return HSTU(n_items=ITEMS, max_length=6, width=8, layers=1, heads=2, dqk=4, dv=4, dropout=0.1)
    tower = ContentTower(
        n_items=ITEMS, content_dim=8, width=16, layers=1, heads=2, ffn=32, output_dim=8, dropout=0.1, item_tower="a"
    )
    tower.bind(content())
    return tower


def parity_apart(tower: Tower) -> dict[str, float]:
    """1 - cosine of the mean even and the mean odd item, in place of NDCG@10."""
    with torch.inference_mode():
        items = tower.items(torch.arange(2, ITEMS + 1)).numpy()
    even, odd = items[0::2].mean(0), items[1::2].mean(0)
    return {"NDCG@10": float(1 - even @ odd / np.linalg.norm(even) / np.linalg.norm(odd))}


class Interrupted(HistoryStream):
    """A stream that raises after a given number of batches, like a killed process."""

    after: int | None = None

    def epoch(self, epoch: int, batch_size: int, *, start: int = 0) -> Iterator[Any]:
        for rows in super().epoch(epoch, batch_size, start=start):
            if self.after is not None:
                if self.after == 0:
                    raise KeyboardInterrupt
                self.after -= 1
            yield rows


def make_loop(
    folder: Path,
    *,
    kind: str = "learn",
    epochs: int = 6,
    patience: int = 6,
    scores: list[float] | None = None,
    length: int = 8,
    break_after: int | None = None,
    objective: dict[str, Any] | None = None,
    group: ProcessGroup | None = None,
    console: Reporter | None = None,
    copy: StoragePath | None = None,
    **training: Any,
) -> TrainingLoop:
    folder.mkdir(exist_ok=True)
    given = iter(scores or [])
    validate: Callable[[Tower], dict[str, float]] = (lambda _: {"NDCG@10": next(given)}) if scores else parity_apart
    chosen = {"history": 6, "targets": 3, "history_positions": 2, "target_positions": 2, "temperature": 0.2}
    settings = ObjectiveSettings(**{**chosen, **(objective or {})})
    tower, group = make_tower(kind), group or ProcessGroup()
    maker = BatchMaker(settings, n_items=ITEMS, seed=3, rank=group.rank, times=tower.needs_times)
    stream = Interrupted(
        planted_snapshot(folder.parent / f"length-{length}", length=length),
        maker.columns,
        shuffle_rows=48,
        seed=3,
        rank=group.rank,
        world=group.size,
    )
    stream.after = break_after
    return TrainingLoop(
        tower=tower,
        loss=ObjectiveLoss(settings, log_q=None, group=group),
        stream=stream,
        maker=maker,
        feed=FeedSettings(batch_size=16 // group.size),
        training=TrainingSettings(
            seed=3,
            epochs=epochs,
            patience=patience,
            **{"passes_per_epoch": 2, "learning_rate": 3e-3, "checkpoint_minutes": 0.0, **training},
        ),
        validate=validate,
        folder=folder,
        copy=copy,
        console=console or Reporter(quiet=True),
    )
