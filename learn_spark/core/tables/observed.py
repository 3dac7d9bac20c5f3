"""What an Observation saw, without waiting forever where Spark took the observed part out of the plan."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyspark.sql import Observation, SparkSession

PATIENCE_MS = 120_000


def observed(observation: Observation, spark: SparkSession) -> dict[str, Any] | None:
    """The metrics of a finished action; None where the optimizer found the observed part to be empty and dropped it.

    ``Observation.get`` blocks for good then: it is completed by the execution's listener, and only with metrics that
    the final plan still holds.
    """
    bus = spark.sparkContext._jsc.sc().listenerBus()
    bus.waitUntilEmpty(PATIENCE_MS)
    if not observation._jo.future().isCompleted():  # type: ignore[union-attr]
        return None
    return observation.get
