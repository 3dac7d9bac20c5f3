"""A training by two processes of this machine, and by TorchDistributor: the same weights, bit for bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from deltalake import write_deltalake
from pyspark.sql import SparkSession

from learn_spark.core.console import Reporter
from learn_spark.core.errors import LearnSparkError
from learn_spark.core.settings import Settings, load_settings
from learn_spark.core.storage.path import storage_path
from learn_spark.core.tables.snapshot import Snapshot
from learn_spark.data.splits.training_view import TrainingView
from learn_spark.model.training.checkpoint import Checkpoints
from learn_spark.model.training.launch import backend_of, train_in_process, train_in_processes, train_on_spark
from learn_spark.model.training.process_group import ProcessGroup
from learn_spark.model.training.task import TrainingTask, build_tower, read_validation, validation
from tests.model.training.planted import ITEMS, planted_rows

OVERRIDES = (
    "tower={kind: sasrec, width: 8, layers: 1, heads: 2, ffn: 8, similarity: dot}",
    "objective={predicts: next_item, history: 6, negatives: in_batch, temperature: 1.0}",
    "feed={batch_size: 8, shuffle_rows: 32}",
    "training={epochs: 2, learning_rate: 0.01, seed: 3, threads: 1, device: cpu}",
    "evaluation={ks: [10]}",
)


@pytest.fixture
def histories(tmp_path: Path) -> Snapshot:
    """45 users: not a multiple of two ranks times a batch of eight."""
    rows, count = planted_rows(45, 8), 45
    numbers = {"chunk": 0, "length": 8, "validation_length": 7}
    for name, value in numbers.items():
        rows = rows.append_column(name, pa.array([value] * count, pa.int32()))
    rows = rows.append_column("user_id", pa.array([f"u{i:02}" for i in range(count)]))
    rows = rows.set_column(
        rows.schema.get_field_index("train_length"), "train_length", pa.array([6] * count, pa.int32())
    )
    path = tmp_path / "histories"
    for start in range(0, count, 10):
        write_deltalake(str(path), rows.slice(start, 10), mode="append")
    return Snapshot.open(str(path))


def task(histories: Snapshot, folder: Path, *overrides: str) -> TrainingTask:
    folder.mkdir()
    settings = load_settings("learn", (*OVERRIDES, *overrides))
    catalogue = folder / "catalogue.npy"
    np.save(catalogue, np.arange(1, ITEMS + 1))
    sample = TrainingView.open(histories.path, histories.version).validation_sample(settings.training.validation_users)
    pq.write_table(sample, folder / "validation.parquet")
    return TrainingTask(
        settings.model_dump(),
        histories.path,
        histories.version,
        ITEMS,
        None,
        None,
        str(catalogue),
        str(folder),
        validation=str(folder / "validation.parquet"),
    )


def weights(task: TrainingTask) -> dict[str, torch.Tensor]:
    best = Checkpoints(Path(task.folder) / "checkpoints").load_best()
    assert best is not None
    return best


def test_two_processes_here_and_on_spark(spark: SparkSession, histories: Snapshot, tmp_path: Path) -> None:
    here, there, in_process = (task(histories, tmp_path / name) for name in ("here", "there", "alone"))
    trained = train_in_processes(here, 2)
    # Every user once an epoch, whichever process has it; both take ceil(23 / 8) steps.
    assert [point["samples"] for point in trained.curve] == [45, 45]
    # Both processes ranked a part of the users: the best weights' metrics are those of one process over all users.
    tower = build_tower(here)
    tower.load_state_dict(weights(here))
    sample = read_validation(storage_path(here.validation))
    assert len(sample.targets) == 45
    alone = validation(Settings.model_validate(here.settings), sample, ProcessGroup())(tower.eval())
    best = trained.curve[trained.best_epoch - 1]
    assert {name: best[f"validation {name}"] for name in alone} == pytest.approx(alone, abs=1e-9)
    progress = Checkpoints(Path(here.folder) / "checkpoints").progress()
    assert progress is not None
    assert progress.step == 2 * 3
    assert trained.curve[1]["loss"] < trained.curve[0]["loss"]
    on_spark = train_on_spark(there, 2, lambda: spark)
    assert [point["loss"] for point in on_spark.curve] == [point["loss"] for point in trained.curve]
    ours, theirs = weights(here), weights(there)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    single = train_in_process(in_process, Reporter(quiet=True))
    assert [point["samples"] for point in single.curve] == [45, 45]


def test_two_processes_train_on_every_prefix_once(histories: Snapshot, tmp_path: Path) -> None:
    overrides = ("objective.prefixes=true", "objective.negatives=full", "feed.bucket_batches=4", "feed.batch_size=3")
    trained = train_in_processes(task(histories, tmp_path / "two", *overrides), 2)
    # 45 users of six training events; each of the 2 x 38 batches has samples.
    assert [point["samples"] for point in trained.curve] == [45 * 5, 45 * 5]
    progress = Checkpoints(tmp_path / "two" / "checkpoints").progress()
    assert progress is not None
    assert progress.step == 2 * 38
    alone = train_in_process(task(histories, tmp_path / "one", *overrides), Reporter(quiet=True))
    assert [point["samples"] for point in alone.curve] == [45 * 5, 45 * 5]
    assert trained.curve[1]["loss"] < trained.curve[0]["loss"]


def test_a_failed_process_is_an_error(histories: Snapshot, tmp_path: Path) -> None:
    broken = task(histories, tmp_path / "broken")
    with pytest.raises(LearnSparkError, match=r"one of 2 processes failed: .*there is no Delta table"):
        train_in_processes(TrainingTask(**{**broken.__dict__, "histories": str(tmp_path / "nothing")}), 2)


@pytest.mark.parametrize(("gpu", "backends"), [(True, ["gloo", "nccl", "nccl"]), (False, ["gloo", "gloo", "gloo"])])
def test_processes_on_the_cpu_talk_by_gloo_even_where_there_is_a_gpu(
    gpu: bool, backends: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    assert [backend_of(device) for device in ("cpu", "auto", "cuda")] == backends
