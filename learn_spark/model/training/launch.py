"""Starting the processes of a training: this one, several on this machine, or Spark's executors (TorchDistributor)."""

from __future__ import annotations

import atexit
import json
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from learn_spark.core.console import Reporter
from learn_spark.core.errors import LearnSparkError
from learn_spark.core.settings import Settings
from learn_spark.core.storage.folders import download, upload
from learn_spark.core.storage.locks import helped_by
from learn_spark.core.storage.path import storage_path
from learn_spark.model.training.checkpoint import Checkpoints
from learn_spark.model.training.loop import Trained, TrainingError
from learn_spark.model.training.process_group import ProcessGroup
from learn_spark.model.training.task import TrainingTask, train_task

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyspark.sql import SparkSession

VALIDATION_TIMEOUT = timedelta(hours=2)  # a process waits for the slowest one to rank its part
SECONDS_TO_STOP = 3.0


def train_in_process(task: TrainingTask, console: Reporter) -> Trained:
    """Train in this process."""
    return train_task(task, ProcessGroup(), console)[0]


def train_in_processes(task: TrainingTask, processes: int) -> Trained:
    """Train in ``processes`` processes of this machine, each with its share of the cores or its own GPU.

    Raises TrainingError, or LearnSparkError for other faults, with the last line of the failed process's error.
    """
    from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    try:
        run_in_processes(_run_spawned, (json.dumps(asdict(task)), processes, port), processes)
    except (ProcessRaisedException, ProcessExitedException) as error:
        last_line = next((line for line in reversed(str(error).splitlines()) if line.strip()), str(error)).strip()
        error_type = TrainingError if "TrainingError" in last_line else LearnSparkError
        raise error_type(f"train: one of {processes} processes failed: {last_line}") from error
    return _trained_from_checkpoint(task)


def run_in_processes(function: Callable[..., None], arguments: tuple[object, ...], count: int) -> None:
    """Run ``function(rank, *arguments)`` in ``count`` new processes of this machine, until all have ended.

    Where this process is stopped meanwhile, so are they: Python would wait for them at its exit, while others take the
    locks. Where it is killed, nobody gets its locks before they have ended. Raises ProcessRaisedException or
    ProcessExitedException of torch.multiprocessing.
    """
    import torch.multiprocessing as multiprocessing

    context = multiprocessing.start_processes(function, args=arguments, nprocs=count, join=False, start_method="spawn")
    for process in context.processes:
        helped_by(process.pid)
    try:
        while not context.join():
            pass
    except BaseException:
        for process in context.processes:
            process.terminate()
        for process in context.processes:
            process.join(SECONDS_TO_STOP)
            process.kill()
        raise


def train_on_spark(
    task: TrainingTask, processes: int, spark: Callable[[], SparkSession], elsewhere: TrainingTask | None = None
) -> Trained:
    """Train in ``processes`` tasks of Spark's executors.

    ``elsewhere``: the task as executors on other machines read it; None: as this machine does. Where the settings give
    no number of threads, a process on a cluster has those of its Spark task's cores. Raises LearnSparkError where no
    checkpoint was written.
    """
    from pyspark.ml.torch.distributor import TorchDistributor

    session = spark()
    local = (session.sparkContext.master or "").startswith("local")
    gpus = int(session.conf.get("spark.task.resource.gpu.amount", "0") or 0) > 0
    distributor = TorchDistributor(num_processes=processes, local_mode=local, use_gpu=gpus)
    files = [] if local else [Path(file).name for file in session.sparkContext._python_includes or ()]
    sent = elsewhere or task
    if not local and sent.settings["training"]["threads"] is None:
        cores = int(session.sparkContext.getConf().get("spark.task.cpus", "1") or 1)
        sent = replace(sent, settings={**sent.settings, "training": {**sent.settings["training"], "threads": cores}})
    distributor.run(_with_py_files(files), json.dumps(asdict(sent)))
    if elsewhere is not None and elsewhere.folder is None:
        _fetch_results(task)
    return _trained_from_checkpoint(task)


def _with_py_files(names: list[str]) -> Callable[[str], None]:
    """``run_process`` for a process that torchrun starts in an executor's folder: Spark's --py-files, which lie there,
    are not on its path.

    Spark sends a function of a function by value, so that it needs no import of this package.
    """

    def run(task: str) -> None:
        import os
        import sys

        sys.path[:0] = [os.path.join(os.getcwd(), name) for name in names]
        from learn_spark.model.training.launch import run_process

        run_process(task)

    return run


def _fetch_results(task: TrainingTask) -> None:
    """Copy the checkpoints and logs of a training on other machines to the task's folder."""
    assert task.folder is not None
    assert task.copy is not None
    copy = storage_path(task.copy, Settings.model_validate(task.settings).storage.s3())
    for name in ("checkpoints", "logs"):
        shutil.rmtree(Path(task.folder) / name, ignore_errors=True)
        for entry in (copy / name).files():
            download(entry.path, Path(task.folder) / entry.path[len(copy) + 1 :])


def run_process(task: str) -> None:
    """Train as one process; rank and rendezvous come from the environment, as torchrun sets them."""
    import torch.distributed as dist

    parsed = TrainingTask(**json.loads(task))
    dist.init_process_group(backend_of(parsed.settings["training"]["device"]), timeout=VALIDATION_TIMEOUT)
    try:
        group = ProcessGroup(dist.get_rank(), dist.get_world_size())
        with _with_folder(parsed, group) as here:
            train_task(here, group, Reporter(quiet=not group.first))
        dist.barrier()
    finally:
        dist.destroy_process_group()


@contextmanager
def _with_folder(task: TrainingTask, group: ProcessGroup) -> Iterator[TrainingTask]:
    """``task`` with a folder: where it has none, a temporary one with the checkpoints of its copy."""
    if task.folder is not None:
        yield task
        return
    assert task.copy is not None
    settings = Settings.model_validate(task.settings)
    copy = storage_path(task.copy, settings.storage.s3())
    with tempfile.TemporaryDirectory(prefix="learn-spark-training-") as name:
        folder = Path(name)
        if settings.training.resume == "auto":
            Checkpoints(folder / "checkpoints", copy / "checkpoints").fetch()
        yield replace(task, folder=name)
        if group.first:
            for file in sorted(path for path in (folder / "logs").rglob("*") if path.is_file()):
                upload(file, copy / file.relative_to(folder).as_posix())


def backend_of(device: str) -> str:
    """The backend of torch.distributed for ``training.device``: nccl for processes on GPUs, else gloo."""
    return "nccl" if device != "cpu" and torch.cuda.is_available() else "gloo"


def _run_spawned(rank: int, task: str, size: int, port: int) -> None:
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    run_process(task)
    # All results are in files by now. The interpreter's own end may stop a thread inside C++, which aborts the process
    # ("terminate called without an active exception").
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _trained_from_checkpoint(task: TrainingTask) -> Trained:
    assert task.folder is not None
    progress = Checkpoints(Path(task.folder) / "checkpoints").progress()
    if progress is None:
        raise LearnSparkError(f"train: the processes ended without a checkpoint in {task.folder}; see their logs")
    return Trained(progress.best_epoch, progress.best_value, progress.curve, 0)
