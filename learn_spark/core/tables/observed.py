"""Metrics of a Spark Observation, without blocking forever if the optimizer removed the observed part."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyspark.sql import Observation, SparkSession

PATIENCE_MS = 120_000


def observed(observation: Observation, spark: SparkSession) -> dict[str, Any] | None:
    """The metrics of a finished action; None if the optimizer removed the observed part because it is empty.

    ``Observation.get`` would then block forever: the listener of the execution completes it only with metrics of the
    final plan.
    """
    bus = spark.sparkContext._jsc.sc().listenerBus()
    bus.waitUntilEmpty(PATIENCE_MS)
    if not observation._jo.future().isCompleted():  # type: ignore[union-attr]
        return None
    return observation.get
