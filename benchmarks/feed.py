"""How fast are training rows fed, and does the trainer wait for them?

    make bench-feed                                  1 M histories of 64 items
    make bench-feed ARGS="--rows 2e5 --repeats 1"    a quick look
    make bench-feed ARGS="--address s3://bucket/feed --endpoint http://127.0.0.1:9302"    the same from S3, too

A generated Delta table of padded histories is read in batches of 256 torch tensors: by ours (shuffled, shuffled and
bucketed by length, and with the thread that works ahead), by petastorm's BatchedDataLoader and DataLoader with their
shuffling on, by petastorm's reader alone and by a bare pyarrow dataset loop, which shuffle nothing. They take turns in
one process, medians are told. Then LEARN and SASRec train an epoch, and say which share of the time they waited.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import statistics
import sys
import tempfile
import time
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import torch
from deltalake import write_deltalake

from learn_spark.core.console import Reporter
from learn_spark.core.settings.histories import FeedSettings
from learn_spark.core.settings.training import ObjectiveSettings, TrainingSettings
from learn_spark.core.storage.path import S3Access, StoragePath, storage_path
from learn_spark.core.tables.snapshot import Snapshot
from learn_spark.model.feed.prefetch import prefetch
from learn_spark.model.feed.stream import HistoryStream
from learn_spark.model.towers.content import ContentTower
from learn_spark.model.towers.sasrec import SASRec
from learn_spark.model.towers.tower import Tower
from learn_spark.model.training.batches import BatchMaker
from learn_spark.model.training.loop import TrainingLoop
from learn_spark.model.training.objective import ObjectiveLoss
from learn_spark.model.training.process_group import ProcessGroup

LENGTH, ITEMS, BATCH, SHUFFLE_ROWS, FILE_ROWS = 64, 20_000, 256, 65_536, 65_536
COLUMNS = ["item_index", "train_end", "train_length"]
Batches = Iterator[Mapping[str, torch.Tensor]]


def generate(path: StoragePath, rows: int) -> Snapshot:
    """Histories of 3 to 64 items, 19 in the mean, in files of 65,536 rows."""
    generator = np.random.default_rng(0)
    for start in range(0, rows, FILE_ROWS):
        n = min(FILE_ROWS, rows - start)
        lengths = np.minimum(3 + generator.geometric(1 / 17, n), LENGTH).astype(np.int32)
        items = np.minimum(generator.zipf(1.2, (n, LENGTH)), ITEMS).astype(np.int32)
        items[np.arange(LENGTH) >= lengths[:, None]] = 0
        table = pa.table(
            {
                "user_id": [f"user{start + i}" for i in range(n)],
                "item_index": pa.FixedSizeListArray.from_arrays(items.ravel(), LENGTH).cast(pa.list_(pa.int32())),
                "train_end": np.zeros(n, np.int32),
                "train_length": lengths,
            }
        )
        write_deltalake(str(path), table, mode="append", storage_options=path.delta_options)
    return Snapshot.open(path)


def ours(snapshot: Snapshot, *, bucket_batches: int = 1, ahead: int = 0) -> Batches:
    """Our feed."""
    stream = HistoryStream(
        snapshot,
        COLUMNS,
        shuffle_rows=SHUFFLE_ROWS,
        seed=0,
        bucket_batches=bucket_batches,
        length_column="train_length",
    )
    batches = stream.epoch(0, BATCH)
    for rows in prefetch(batches, ahead) if ahead else batches:
        yield {name: torch.from_numpy(values) for name, values in rows.items()}


def petastorm_reader(snapshot: Snapshot) -> Any:
    """make_batch_reader with its defaults, but a thread a core."""
    from petastorm import make_batch_reader

    logging.getLogger("petastorm").setLevel(logging.ERROR)
    return make_batch_reader(
        [Path(file).as_uri() for file in snapshot.files],
        schema_fields=[f"^{name}$" for name in COLUMNS],
        reader_pool_type="thread",
        workers_count=os.cpu_count(),
        seed=0,
        num_epochs=1,
    )


def reader_alone(snapshot: Snapshot) -> Batches:
    """What petastorm's reader gives, cut into batches."""
    with petastorm_reader(snapshot) as reader:
        for group in reader:
            columns = {name: torch.as_tensor(getattr(group, name)) for name in COLUMNS}
            yield from _cut(columns)


def batched_data_loader(snapshot: Snapshot) -> Batches:
    """petastorm.pytorch.BatchedDataLoader, shuffling."""
    from petastorm.pytorch import BatchedDataLoader

    with BatchedDataLoader(petastorm_reader(snapshot), BATCH, shuffling_queue_capacity=SHUFFLE_ROWS) as loader:
        yield from loader


def data_loader(snapshot: Snapshot) -> Batches:
    """petastorm.pytorch.DataLoader, shuffling."""
    from petastorm.pytorch import DataLoader

    with DataLoader(petastorm_reader(snapshot), BATCH, shuffling_queue_capacity=SHUFFLE_ROWS) as loader:
        yield from loader


def pyarrow_loop(snapshot: Snapshot) -> Batches:
    """A pyarrow dataset in the order of its files, list columns taken as they lie in memory."""
    files = ds.dataset(list(snapshot.files), format="parquet", filesystem=snapshot.file_system)
    for batch in files.to_batches(columns=COLUMNS):
        if batch.num_rows:
            items = batch["item_index"].flatten().to_numpy().reshape(-1, LENGTH)
            columns = {"item_index": items, **{name: batch[name].to_numpy() for name in COLUMNS[1:]}}
            yield from _cut({name: torch.as_tensor(values) for name, values in columns.items()})


def _cut(columns: Mapping[str, torch.Tensor]) -> Batches:
    for at in range(0, len(columns["train_length"]), BATCH):
        yield {name: values[at : at + BATCH] for name, values in columns.items()}


def rate(batches: Batches) -> tuple[int, float]:
    """(rows, rows a second), everything from opening to the last batch included."""
    started = time.perf_counter()
    rows = 0
    for batch in batches:
        rows += len(batch["train_length"])
        assert batch["item_index"].shape[1] == LENGTH
    return rows, rows / (time.perf_counter() - started)


def waiting(snapshot: Snapshot, tower: Tower, objective: ObjectiveSettings, folder: Path) -> dict[str, float]:
    """One epoch of the training loop: the share of its time that it waited for batches, and its speed."""
    maker = BatchMaker(objective, n_items=ITEMS, seed=0, times=tower.needs_times)
    loop = TrainingLoop(
        tower=tower,
        loss=ObjectiveLoss(objective, log_q=None, group=ProcessGroup()),
        stream=HistoryStream(
            snapshot,
            maker.columns,
            shuffle_rows=SHUFFLE_ROWS,
            seed=0,
            bucket_batches=8,
            length_column="train_length",
        ),
        maker=maker,
        feed=FeedSettings(batch_size=BATCH),
        training=TrainingSettings(epochs=1, passes_per_epoch=1),
        validate=lambda _: {"NDCG@10": 0.0},
        folder=folder,
        console=Reporter(quiet=True),
    )
    (point,) = loop.fit().curve
    return {
        "waiting_share": round(point["waiting_share"], 4),
        "samples_per_s": round(point["samples_per_second"]),
    }


def towers() -> Iterator[tuple[str, Tower, ObjectiveSettings]]:
    """LEARN as the settings have it by default, and SASRec as it is published for Beauty (64-d, one block)."""
    torch.manual_seed(0)
    learn = ContentTower(
        n_items=ITEMS,
        content_dim=256,
        width=128,
        layers=2,
        heads=4,
        ffn=512,
        output_dim=64,
        dropout=0.1,
        item_tower="a",
    )
    learn.bind(np.random.default_rng(0).standard_normal((ITEMS + 1, 256), dtype=np.float32))
    yield "learn", learn, ObjectiveSettings(history=40, targets=20)
    sasrec = SASRec(n_items=ITEMS, max_length=50, width=64, layers=1, heads=1, ffn=64, dropout=0.2)
    yield "sasrec", sasrec, ObjectiveSettings(predicts="next_item", negatives="uniform", history=50)


def main(arguments: list[str]) -> int:
    """Run all, print one line of JSON."""
    parser = argparse.ArgumentParser(prog="make bench-feed", description=__doc__)
    parser.add_argument("--rows", type=float, default=1e6)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--training-rows", type=float, default=16_384)
    parser.add_argument("--address", help="a folder in S3 or HDFS for a second copy of the table")
    parser.add_argument("--endpoint", help="URL of the S3 server; left out: AWS_ENDPOINT_URL, else AWS")
    options = parser.parse_args(arguments)
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory(prefix="bench-feed-") as root:
        snapshot = generate(storage_path(root) / "histories", int(options.rows))
        few = replace(snapshot, files=snapshot.files[:2], file_rows=snapshot.file_rows[:2])
        contestants: dict[str, tuple[Callable[[], Batches], int]] = {
            "ours": (lambda: ours(snapshot), snapshot.rows),
            "ours, bucketed": (lambda: ours(snapshot, bucket_batches=8), snapshot.rows),
            "ours, working ahead": (lambda: ours(snapshot, ahead=4), snapshot.rows),
            "petastorm reader, unshuffled": (lambda: reader_alone(snapshot), snapshot.rows),
            "petastorm BatchedDataLoader": (lambda: batched_data_loader(snapshot), snapshot.rows),
            # Row by row, too slow for all files.
            "petastorm DataLoader": (lambda: data_loader(few), few.rows),
            "pyarrow, unshuffled": (lambda: pyarrow_loop(snapshot), snapshot.rows),
        }
        if options.address:
            place = storage_path(options.address, S3Access(endpoint=options.endpoint))
            there = generate(place / uuid.uuid4().hex, int(options.rows))
            contestants |= {
                "ours, at the address": (lambda: ours(there), there.rows),
                "ours, working ahead, at the address": (lambda: ours(there, ahead=4), there.rows),
                "pyarrow, unshuffled, at the address": (lambda: pyarrow_loop(there), there.rows),
            }
        rates: dict[str, list[float]] = {name: [] for name in contestants}
        for _ in range(options.repeats):
            for name, (start, rows) in contestants.items():
                seen, per_second = rate(start())
                assert seen == rows, f"{name} gave {seen:,} of {rows:,} rows"
                rates[name].append(per_second)
                print(f"{name}: {per_second:,.0f} rows/s", file=sys.stderr, flush=True)
        medians = {name: round(statistics.median(values)) for name, values in rates.items()}
        trained = generate(storage_path(root) / "training", int(options.training_rows))
        waits = {name: waiting(trained, tower, what, Path(root) / name) for name, tower, what in towers()}
    figures = {
        "benchmark": "feed",
        "rows": int(options.rows),
        "items_a_row": LENGTH,
        "batch_size": BATCH,
        "shuffle_rows": SHUFFLE_ROWS,
        "cores": os.cpu_count(),
        "rows_per_s": medians,
        "ours_to_batched_data_loader": round(medians["ours"] / medians["petastorm BatchedDataLoader"], 2),
        "ours_to_data_loader": round(medians["ours"] / medians["petastorm DataLoader"], 1),
        "training": waits,
    }
    print(json.dumps(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
