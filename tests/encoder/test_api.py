"""The encoder without the stage: a list without Spark and a column of a DataFrame give the same vectors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from learn_spark.core.settings.encoder import EncoderSettings
from learn_spark.encoder.api import embed_text, encode
from learn_spark.encoder.identity import EncoderError
from tests.encoder.tiny import tiny_model

TEXTS = ["a film", "another, longer film about nothing", " ", "ספר", "a film"]


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory, llm_folder: Path) -> EncoderSettings:
    return EncoderSettings(model=str(tiny_model("qwen3", tmp_path_factory.mktemp("tiny"), llm_folder)), max_tokens=64)


def test_a_list_and_a_column_give_the_same(spark: SparkSession, settings: EncoderSettings) -> None:
    vectors = encode(TEXTS, settings)
    assert vectors.shape == (5, 32)
    assert np.isnan(vectors[2]).all()
    assert np.allclose(np.linalg.norm(vectors[[0, 1, 3, 4]], axis=1), 1, atol=1e-5)
    assert np.allclose(vectors[0], vectors[4], atol=1e-5)
    rows = [(number, text) for number, text in enumerate([*TEXTS, None])] * 20
    frame = spark.createDataFrame(rows, "number int, text string").repartition(3)
    spark.conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", "7")
    try:
        collected = frame.withColumn("vector", embed_text(settings)(F.col("text"))).collect()
    finally:
        spark.conf.unset("spark.sql.execution.arrow.maxRecordsPerBatch")
    assert len(collected) == len(rows)
    for row in collected:
        if row.number in (2, 5):
            assert row.vector is None
        else:
            assert float(np.dot(row.vector, vectors[row.number])) >= 0.9999


def test_a_gpu_that_is_not_there_is_named(settings: EncoderSettings) -> None:
    import torch

    if torch.cuda.is_available():
        assert encode(["x"], settings.model_copy(update={"device": "cuda"})).shape == (1, 32)
        return
    with pytest.raises(EncoderError, match=r"encoder\.device is cuda, but PyTorch finds no GPU"):
        encode(["x"], settings.model_copy(update={"device": "cuda"}))
