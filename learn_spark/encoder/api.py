"""The encoder by itself: a list of strings without Spark, or a column of any DataFrame."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from learn_spark.settings.schema import Encoder

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from learn_spark.encoder.engine import TextEncoder


def text_encoder(settings: Encoder, *, cache: Path | None = None, device: str | None = None) -> TextEncoder:
    """A loaded engine. ``cache`` (default ~/.cache/learn-spark/models) takes what is converted from GGUF files.

    Raises EncoderError where the model is not there or cannot be loaded.
    """
    import torch

    from learn_spark.encoder.engine import TextEncoder
    from learn_spark.encoder.identity import EncoderError, identify
    from learn_spark.encoder.loading import prepare

    if device is None:
        available = torch.cuda.is_available()
        if settings.device == "cuda" and not available:
            raise EncoderError("encoder.device is cuda, but PyTorch sees no GPU")
        device = "cuda" if available and settings.device != "cpu" else "cpu"
    return TextEncoder(
        prepare(identify(settings), cache or Path.home() / ".cache" / "learn-spark" / "models"),
        max_tokens=settings.max_tokens,
        normalise=settings.normalise,
        token_budget=settings.token_budget,
        pooling=settings.pooling,
        prefix=settings.prefix,
        precision=settings.precision,
        device=device,
    )


def encode(texts: Sequence[str], settings: Encoder, *, cache: Path | None = None) -> np.ndarray:
    """Vectors [n, hidden] float32 of some texts, in their order; a row of NaN where a text has no usable vector."""
    import numpy as np

    encoded = text_encoder(settings, cache=cache).encode(texts)
    encoded.vectors[list(encoded.errors)] = np.nan
    return encoded.vectors


# Survives between the tasks of one worker process, so the model is loaded once in it.
_engines: dict[str, TextEncoder] = {}


def embed_text(settings: Encoder, *, cache: Path | None = None, threads: int | None = None) -> Callable[..., Any]:
    """A pandas UDF: a column of strings into one of array<float>, null where a text is null or has no usable vector.

    ``threads`` of each worker (default: cores / tasks that run at once). The same engine as the embed_items stage, but
    nothing is stored: every evaluation encodes again.
    """
    import pandas as pd
    from pyspark.sql import SparkSession
    from pyspark.sql import functions as F

    from learn_spark.encoder.identity import identify
    from learn_spark.encoder.loading import prepare

    # Converted here, once, and not by every worker.
    identity = identify(settings)
    folder = prepare(identity, cache or Path.home() / ".cache" / "learn-spark" / "models")
    local = settings.model_copy(update={"model": str(folder), "revision": None})
    session = SparkSession.getActiveSession()
    at_once = session.sparkContext.defaultParallelism if session else 1
    workers = max(1, (os.cpu_count() or 1) // at_once)

    def engine() -> TextEncoder:
        if identity.key not in _engines:
            import torch

            torch.set_num_threads(threads or workers)
            _engines.clear()
            _engines[identity.key] = text_encoder(local)
        return _engines[identity.key]

    def embed(batches: Iterator[pd.Series]) -> Iterator[pd.Series]:
        from learn_spark.encoder.engine import encode_windows

        sizes: list[pd.Series] = []

        def texts() -> Iterator[list[str]]:
            for batch in batches:
                sizes.append(batch)
                yield batch.fillna("").tolist()

        for encoded in encode_windows(engine(), texts()):
            batch = sizes.pop(0)
            rows = list(encoded.vectors)
            for bad in encoded.errors:
                rows[bad] = None
            yield pd.Series(rows, index=batch.index)

    # Postponed annotations name what only type checkers import.
    embed.__annotations__ = {"batches": Iterator[pd.Series], "return": Iterator[pd.Series]}
    return F.pandas_udf(embed, "array<float>")  # type: ignore[call-overload]
