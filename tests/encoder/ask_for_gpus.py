"""A program for spark-submit: asks a cluster for GPUs as the encoder's stage does, and prints what came as JSON.

spark-submit ask_for_gpus.py GPUS...      GPUs a task to ask for, one after the other
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator

import pyarrow as pa
from pyspark.sql import SparkSession

from learn_spark.core.settings.encoder import EncoderSettings
from learn_spark.encoder.gpus import WAIT, gpu_profile, require_gpu
from learn_spark.encoder.identity import EncoderError


def places(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """What the encoder would run on in this task."""
    from learn_spark.encoder.worker import device_of_task

    rows = sum(batch.num_rows for batch in batches)
    device, description = device_of_task(EncoderSettings(model="none", device="cpu"))
    yield pa.RecordBatch.from_pylist([{"rows": rows, "device": device, "description": description}])


def main(asked: list[str]) -> None:
    """Print one JSON line."""
    session = SparkSession.builder.getOrCreate()
    results: dict[str, object] = {}
    for one in asked:
        if one == "plain":
            rows = session.range(2).repartition(2).mapInArrow(places, "rows long, device string, description string")
            results[one] = sorted(row.description for row in rows.collect())
            continue
        gpus, _, seconds = one.partition("@")
        if seconds:
            session.conf.set(WAIT, seconds)
        try:
            results[gpus] = require_gpu(session, gpu_profile(session, int(gpus)) if int(gpus) else None)
        except EncoderError as error:
            results[gpus] = str(error)
    sys.stdout.write(json.dumps(results) + "\n")
    session.stop()


if __name__ == "__main__":
    main(sys.argv[1:])
