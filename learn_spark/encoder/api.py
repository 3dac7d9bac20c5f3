"""The encoder without the stage: vectors of a list of strings without Spark, or of a column of any DataFrame."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from learn_spark.core.machine import available_cores
from learn_spark.core.settings.encoder import EncoderSettings
from learn_spark.core.storage.path import storage_path
from learn_spark.encoder.gpus import threads_of_task

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from learn_spark.encoder.engine import TextEncoder


def text_encoder(settings: EncoderSettings, *, cache: Path | None = None) -> TextEncoder:
    """A loaded engine. ``cache`` (default ~/.cache/learn-spark/models) stores models converted from GGUF files.

    Raises EncoderError where the model or the GPU is missing, or the model cannot be loaded.
    """
    from learn_spark.encoder.engine import open_encoder

    return open_encoder(prepared(settings, cache), settings, _device(settings))


def encode(texts: Sequence[str], settings: EncoderSettings, *, cache: Path | None = None) -> np.ndarray:
    """Vectors [n, hidden] float32 of ``texts`` in their order; a row of NaN where a text has no usable vector."""
    import numpy as np

    encoded = text_encoder(settings, cache=cache).encode(texts)
    encoded.vectors[list(encoded.errors)] = np.nan
    return encoded.vectors


def embed_text(
    settings: EncoderSettings, *, cache: Path | None = None, threads: int | None = None
) -> Callable[..., Any]:
    """A pandas UDF from a column of strings to array<float>, null where a text is null or has no usable vector.

    ``threads`` are those of each worker (default: the cores of its task). The engine is that of the embed_items
    stage, but nothing is stored: every evaluation encodes again.
    """
    import pandas as pd
    from pyspark.sql import SparkSession
    from pyspark.sql import functions as F

    from learn_spark.encoder.worker import WorkerSpec

    session = SparkSession.getActiveSession()
    if threads is None:
        tasks = session.sparkContext.defaultParallelism if session else 1
        threads = threads_of_task(session, tasks, 0) if session else len(available_cores())
    # Converted here once, not in every worker.
    folder = storage_path(prepared(settings, cache))
    spec = WorkerSpec(folder, settings, threads)

    def embed(batches: Iterator[pd.Series]) -> Iterator[pd.Series]:
        from learn_spark.encoder.engine import encode_windows
        from learn_spark.encoder.worker import engine_of

        engine, _ = engine_of(spec, _device(settings))
        sizes: list[pd.Series] = []

        def texts() -> Iterator[list[str]]:
            for batch in batches:
                sizes.append(batch)
                yield batch.fillna("").tolist()

        for encoded in encode_windows(engine, texts()):
            batch = sizes.pop(0)
            rows = list(encoded.vectors)
            for position in encoded.errors:
                rows[position] = None
            yield pd.Series(rows, index=batch.index)

    # Postponed annotations refer to names that only type checkers import.
    embed.__annotations__ = {"batches": Iterator[pd.Series], "return": Iterator[pd.Series]}
    return F.pandas_udf(embed, "array<float>")  # type: ignore[call-overload]


def prepared(settings: EncoderSettings, cache: Path | None = None) -> Path:
    """The model's folder, converted from GGUF if needed. Raises EncoderError where the model is missing."""
    from learn_spark.encoder.identity import identify
    from learn_spark.encoder.loading import prepare

    return prepare(identify(settings), cache or Path.home() / ".cache" / "learn-spark" / "models")


def _device(settings: EncoderSettings) -> str:
    import torch

    from learn_spark.encoder.identity import EncoderError

    available = torch.cuda.is_available()
    if settings.device == "cuda" and not available:
        raise EncoderError("encoder.device is cuda, but PyTorch finds no GPU; set encoder.device: auto or cpu")
    return "cuda" if available and settings.device != "cpu" else "cpu"
