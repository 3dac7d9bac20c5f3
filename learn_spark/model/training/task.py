"""One training as plain values, from which every process, here or in Spark's executors, builds the same objects."""

from __future__ import annotations

import io
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch

from learn_spark.core.console import Reporter
from learn_spark.core.errors import LearnSparkError
from learn_spark.core.machine import available_cores
from learn_spark.core.ragged import take_rows
from learn_spark.core.settings.schema import Settings
from learn_spark.core.settings.training import TrainingSettings
from learn_spark.core.storage.path import StoragePath, storage_path
from learn_spark.core.storage.worker_files import fetch_for_worker
from learn_spark.data.splits.selection import selection_of
from learn_spark.data.splits.split import Split, split_histories
from learn_spark.data.splits.training_view import TrainingView, Until
from learn_spark.model.feed.item_matrix import FILE, item_matrix
from learn_spark.model.feed.stream import HistoryStream
from learn_spark.model.scoring.metrics import ndcg, summarise
from learn_spark.model.scoring.ranks import ranks_from_vectors
from learn_spark.model.towers.bound import BoundTower
from learn_spark.model.towers.registry import tower_of_settings
from learn_spark.model.towers.tower import Tower
from learn_spark.model.towers.vectors import item_vectors, user_vectors
from learn_spark.model.training.batches import BatchMaker
from learn_spark.model.training.loop import Trained, TrainingLoop, Validate
from learn_spark.model.training.objective import ObjectiveLoss
from learn_spark.model.training.process_group import ProcessGroup

MARGIN = "NDCG@10 margin"


@dataclass(frozen=True)
class TrainingTask:
    """Plain values that describe one training.

    ``settings``: the dumped settings. ``histories`` and ``version``: the Delta table and its version. ``matrix``: the
    folder of the item matrix [n_items + 1, C], None for a tower without content. ``log_q``: the file of log shares
    [n_items + 1], or None. ``catalogue``: the file of the item_index of every item with a training event. ``folder``:
    checkpoints and logs on this machine; None: a temporary folder. ``refit``: number of epochs to train on training
    events and selection targets (the validation events, or under rule strict the last training events) together,
    without validation; 0 means that validation chooses the epoch. ``copy``: the address that gets every checkpoint too;
    None: ``folder`` is the only place. ``validation``: the Parquet file with the rows
    of the users that validation ranks (TrainingView.validation_sample); None in a refit. All paths may be addresses
    except ``folder``.
    """

    settings: dict[str, Any]
    histories: str
    version: int
    n_items: int
    matrix: str | None
    log_q: str | None
    catalogue: str
    folder: str | None
    refit: int = 0
    copy: str | None = None
    validation: str | None = None


def build_tower(task: TrainingTask) -> Tower:
    """The tower, initialised by the seed, with its content bound."""
    settings = Settings.model_validate(task.settings)
    matrix = storage_path(task.matrix, settings.storage.s3()) if task.matrix else None
    content = None if matrix is None else item_matrix(fetch_for_worker(matrix) / FILE)
    torch.manual_seed(settings.training.seed)
    tower = tower_of_settings(
        settings.tower,
        settings.objective,
        n_items=task.n_items,
        content_dim=1 if content is None else content.shape[1],
    )
    if isinstance(tower, BoundTower):
        assert content is not None
        tower.bind(content)
    return tower


def validation(settings: Settings, split: Split, group: ProcessGroup) -> Validate:
    """A function that ranks the whole catalogue for ``split`` by a tower and returns metrics, as ``evaluation`` sets
    them, and ``MARGIN``, the margin of error of NDCG@10 (half of its 95% interval).

    Each process of ``group`` ranks a part of the users, and all return the metrics of all users.
    """
    offsets = split.every_target.offsets
    parts = [np.arange(rank, len(split.targets), group.size) for rank in range(group.size)]
    order = np.argsort(np.concatenate([take_rows(offsets, part)[0] for part in parts]), kind="stable")
    split = split.take(parts[group.rank])
    hidden, targets = split.hidden(settings.evaluation.mask_history), split.every_target

    def validate(tower: Tower) -> dict[str, float]:
        window = settings.objective.history
        users = user_vectors(tower, split.items, split.lengths, window, times=split.times)
        ks = sorted({10, *settings.evaluation.ks})
        ranks = ranks_from_vectors(users, item_vectors(tower), targets.positions, hidden, offsets=targets.offsets)
        device = next(tower.parameters()).device
        every_rank = group.gather(torch.from_numpy(ranks).to(device)).cpu().numpy()[order]
        values = ndcg(every_rank, 10, offsets)
        margin = 1.96 * float(values.std()) / math.sqrt(len(values))
        return {**summarise(every_rank, ks, offsets), MARGIN: margin}

    return validate


def use_threads(training: TrainingSettings, processes: int = 1) -> None:
    """Let torch use ``training.threads`` threads, or its share of the cores beside other ``processes``."""
    torch.set_num_threads(training.threads or max(1, len(available_cores()) // processes))


def train_task(task: TrainingTask, group: ProcessGroup, console: Reporter) -> tuple[Trained, Tower]:
    """Train as one process of ``group``; returns the result and the tower with the best epoch's weights, on the CPU."""
    settings = Settings.model_validate(task.settings)
    training = settings.training
    device = training_device(training.device, group)
    if device.type == "cuda":
        # Collectives of objects (ProcessGroup.broadcast) use the current device.
        torch.cuda.set_device(device)
    use_threads(training, group.size)
    # As text, which a task is between processes, a path has no server.
    s3 = settings.storage.s3()
    histories = TrainingView.open(storage_path(task.histories, s3), task.version, selection_of(settings))
    tower = build_tower(task)
    catalogue = _array(storage_path(task.catalogue, s3))
    until: Until = "validation_length" if task.refit else "train_length"
    maker = BatchMaker(
        settings.objective,
        n_items=task.n_items,
        catalogue=catalogue,
        seed=training.seed,
        rank=group.rank,
        times=tower.needs_times,
        weights=bool(settings.histories.weights),
        until=until,
    )
    validate: Validate | None = None
    if not task.refit:
        assert task.validation is not None, "only a refit has no validation"
        validate = validation(settings, read_validation(storage_path(task.validation, s3)), group)
    log_q = torch.from_numpy(_array(storage_path(task.log_q, s3))) if task.log_q else None
    assert task.folder is not None, "a process gives a task its folder"
    copy = None if task.copy is None else storage_path(task.copy, s3) / "checkpoints"
    loop = TrainingLoop(
        tower=tower,
        loss=ObjectiveLoss(settings.objective, log_q=log_q, group=group, catalogue=torch.from_numpy(catalogue)),
        stream=histories.stream(
            HistoryStream,
            maker.columns,
            until=until,
            shuffle_rows=settings.feed.shuffle_rows,
            seed=training.seed,
            rank=group.rank,
            world=group.size,
            bucket_batches=settings.feed.bucket_batches,
            prefixes=maker.prefixes,
        ),
        maker=maker,
        feed=settings.feed,
        training=training,
        validate=validate,
        folder=Path(task.folder),
        copy=copy,
        console=console,
        device=device,
    )
    trained = loop.fit(epochs=task.refit or None)
    return trained, tower.cpu().eval()


def read_validation(file: StoragePath) -> Split:
    """The validation split of the sampled users' histories in ``file``."""
    return split_histories(pq.read_table(io.BytesIO(file.read_bytes())), "validation")


def _array(file: StoragePath) -> np.ndarray:
    array: np.ndarray = np.load(io.BytesIO(file.read_bytes()), allow_pickle=False)
    return array


def training_device(device: str, group: ProcessGroup) -> torch.device:
    """The device of a process, its own GPU where there are any. Raises LearnSparkError for ``cuda`` without a GPU."""
    available = torch.cuda.is_available()
    if device == "cuda" and not available:
        raise LearnSparkError("training.device is cuda, but PyTorch finds no GPU; set training.device: auto or cpu")
    if device == "cpu" or not available:
        return torch.device("cpu")
    local = int(os.environ.get("LOCAL_RANK", group.rank))
    return torch.device("cuda", local % torch.cuda.device_count())
