"""GPUs of a Spark cluster for the encoder's stage: the request to Spark, and a check that Spark grants it."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from learn_spark.core.causes import cause_of
from learn_spark.core.machine import available_cores
from learn_spark.encoder.identity import EncoderError

if TYPE_CHECKING:
    from pyspark import SparkConf, SparkContext
    from pyspark.resource import ResourceProfile
    from pyspark.sql import SparkSession

AMOUNT = "spark.executor.resource.gpu.amount"
SCRIPT = "spark.executor.resource.gpu.discoveryScript"
# learn-spark's own key; Spark accepts any that begins with spark.
WAIT = "spark.learnSpark.gpuWaitSeconds"
DEFAULT_WAIT = 300.0
_GROUP = "learn-spark: a GPU for the encoder"


def gpu_profile(spark: SparkSession, gpus: int) -> ResourceProfile:
    """The resource profile of the encoder's stage: ``gpus`` GPUs and one core per task.

    Without dynamic allocation, its tasks run on the application's executors, so these must have GPUs. With it,
    executors with GPUs are requested when the stage begins and released when they are idle; other stages then have
    executors without GPUs. (Spark, "Stage Level Scheduling Overview" of each cluster manager.)

    Raises EncoderError where no executor could ever run such a task.
    """
    from pyspark.resource import ExecutorResourceRequests, ResourceProfileBuilder, TaskResourceRequests

    context = spark.sparkContext
    conf = context.getConf()
    if (context.master or "").startswith("local"):
        raise EncoderError(
            "encoder.gpus requests GPUs from Spark, which a local master does not provide: set it to 0 (a local run "
            "uses the GPU that PyTorch finds), or run on a cluster (docs/cluster.md)"
        )
    per_executor, dynamic = _gpus_per_executor(conf), is_dynamic(conf)
    if per_executor < gpus and not (dynamic and per_executor == 0):
        raise EncoderError(
            f"encoder.gpus is {gpus} GPUs per task, but an executor has {per_executor} ({AMOUNT}), so that no "
            f"executor can run such a task. Submit with --conf {AMOUNT}={gpus} and a discovery script "
            "(docs/cluster.md), or set encoder.gpus to 0 to encode without GPUs"
        )
    builder = ResourceProfileBuilder().require(TaskResourceRequests().cpus(1).resource("gpu", gpus))
    if dynamic:
        # A resource profile inherits cores and memory from the configuration, but no custom resource.
        vendor = conf.get("spark.executor.resource.gpu.vendor", "") or ""
        request = ExecutorResourceRequests().resource("gpu", per_executor or gpus, conf.get(SCRIPT, "") or "", vendor)
        if cores := conf.get("spark.executor.cores"):
            request = request.cores(int(cores))
        builder = builder.require(request)
    return builder.build


def require_gpu(spark: SparkSession, profile: ResourceProfile | None) -> list[str]:
    """The GPU addresses that a small task receives under ``profile`` (None: the application's own).

    Spark waits for ever for executors that its cluster cannot provide; this function raises EncoderError after WAIT
    seconds instead. Call it before the first action of a stage whose executors have GPUs.
    """
    context = spark.sparkContext
    seconds = float(spark.conf.get(WAIT, str(DEFAULT_WAIT)) or DEFAULT_WAIT)
    timed_out = threading.Event()

    def cancel() -> None:
        timed_out.set()
        context.cancelJobGroup(_GROUP)

    timer = threading.Timer(seconds, cancel)
    timer.daemon = True
    rows = context.parallelize([0], 1)
    previous_group = context.getLocalProperty("spark.jobGroup.id")
    context.setJobGroup(_GROUP, _GROUP)
    timer.start()
    try:
        addresses: list[list[str]] = (rows.withResources(profile) if profile else rows).map(_addresses).collect()
    except Exception as error:
        if timed_out.is_set():
            raise EncoderError(_no_executor_message(context, seconds)) from None
        raise EncoderError(f"Spark could not give the encoder a GPU: {cause_of(error)}") from error
    finally:
        timer.cancel()
        # Later jobs must not belong to this group.
        context.setLocalProperty("spark.jobGroup.id", previous_group)  # type: ignore[arg-type]
    return addresses[0]


def gpu_tasks(spark: SparkSession, gpus: int) -> int | None:
    """Number of tasks of ``gpus`` GPUs that the executors run concurrently; None under dynamic allocation."""
    context = spark.sparkContext
    if is_dynamic(context.getConf()):
        return None
    # The driver is among the infos.
    executors = len(context._jsc.sc().statusTracker().getExecutorInfos()) - 1
    return max(1, executors * (_gpus_per_executor(context.getConf()) // gpus))


def threads_of_task(spark: SparkSession, tasks: int, gpus: int) -> int:
    """Threads of each of the tasks that share an executor, so that tasks x threads = cores.

    Locally, ``tasks`` run concurrently. On a cluster the executor's cores count, not the driver's (1 where
    spark.executor.cores is not set).
    """
    context = spark.sparkContext
    conf = context.getConf()
    if (context.master or "").startswith("local"):
        return max(1, len(available_cores()) // tasks)
    cores = int(conf.get("spark.executor.cores", "1") or 1)
    concurrent_tasks = (
        max(1, _gpus_per_executor(conf) // gpus)
        if gpus
        else max(1, cores // int(conf.get("spark.task.cpus", "1") or 1))
    )
    return max(1, cores // concurrent_tasks)


def is_dynamic(conf: SparkConf) -> bool:
    """Whether Spark requests executors as stages need them (dynamic allocation)."""
    return str(conf.get("spark.dynamicAllocation.enabled", "false")).lower() == "true"


def _gpus_per_executor(conf: SparkConf) -> int:
    return int(conf.get(AMOUNT, "0") or 0)


def _addresses(_: int) -> list[str]:
    from pyspark import TaskContext

    context = TaskContext.get()
    resource = context.resources().get("gpu") if context is not None else None
    return list(resource.addresses) if resource else []


def _no_executor_message(context: SparkContext, seconds: float) -> str:
    executors = len(context._jsc.sc().statusTracker().getExecutorInfos()) - 1
    return (
        f"the encoder got no executor with GPUs in {seconds:g} s ({executors} executors are registered; "
        f"{AMOUNT}={_gpus_per_executor(context.getConf())}). Either no machine of "
        f"{context.master} has so many (standalone: spark.worker.resource.gpu.*, docs/cluster.md) with the cores and "
        f"memory of an executor, or all are taken. To wait longer: --conf {WAIT}=SECONDS; "
        f"to encode without GPUs: --set encoder.gpus=0 without {AMOUNT}"
    )
