"""Starting the processes of a training: one here, several on this machine, or Spark's executors (TorchDistributor)."""

from __future__ import annotations

import json
import os
import socket
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from learn_spark.core.console import Reporter
from learn_spark.core.errors import LearnSparkError
from learn_spark.model.training.checkpoint import Checkpoints
from learn_spark.model.training.loop import Trained, TrainingError
from learn_spark.model.training.process_group import ProcessGroup
from learn_spark.model.training.task import TrainingTask, train_rank

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyspark.sql import SparkSession

PATIENCE = timedelta(hours=2)  # the others wait while the first process validates


def train_alone(task: TrainingTask, console: Reporter) -> Trained:
    """Train in this process."""
    return train_rank(task, ProcessGroup(), console)[0]


def train_here(task: TrainingTask, processes: int) -> Trained:
    """Train in ``processes`` processes of this machine, each with its share of the cores or a GPU of its own."""
    import torch.multiprocessing as multiprocessing
    from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    try:
        multiprocessing.start_processes(
            _start, args=(json.dumps(asdict(task)), processes, port), nprocs=processes, start_method="spawn"
        )
    except (ProcessRaisedException, ProcessExitedException) as error:
        last = next((line for line in reversed(str(error).splitlines()) if line.strip()), str(error)).strip()
        kind = TrainingError if "TrainingError" in last else LearnSparkError
        raise kind(f"train: one of {processes} processes failed: {last}") from error
    return _result(task)


def train_on_spark(task: TrainingTask, processes: int, spark: Callable[[], SparkSession]) -> Trained:
    """Train in ``processes`` tasks of Spark's executors; the workspace must be a folder that all of them share."""
    from pyspark.ml.torch.distributor import TorchDistributor

    session = spark()
    local = (session.sparkContext.master or "").startswith("local")
    gpus = int(session.conf.get("spark.task.resource.gpu.amount", "0") or 0) > 0
    TorchDistributor(num_processes=processes, local_mode=local, use_gpu=gpus).run(
        train_as_told, json.dumps(asdict(task))
    )
    return _result(task)


def train_as_told(task: str) -> None:
    """What each process runs, its rank and the meeting place given by the environment (as torchrun gives them)."""
    import torch.distributed as dist

    backend = "nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, timeout=PATIENCE)
    try:
        ranks = ProcessGroup(dist.get_rank(), dist.get_world_size())
        train_rank(TrainingTask(**json.loads(task)), ranks, Reporter(quiet=not ranks.first))
        dist.barrier()
    finally:
        dist.destroy_process_group()


def _start(rank: int, task: str, size: int, port: int) -> None:
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    train_as_told(task)


def _result(task: TrainingTask) -> Trained:
    found = Checkpoints(Path(task.folder) / "checkpoints").progress()
    if found is None:
        raise LearnSparkError(f"train: the processes ended, but left no checkpoint in {task.folder}")
    return Trained(found.best_epoch, found.best_value, found.curve, 0)
