"""The embedding stage: equal texts once, only what is missing, the model once a worker, bad vectors never written."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyspark.sql import SparkSession

from learn_spark.encoder.engine import TextEncoder
from learn_spark.settings import Settings
from learn_spark.tables.snapshot import current_version
from learn_spark.tables.workspace import Workspace
from tests.world import ITEMS, item_lines, write_raw


def embeddings(spark: SparkSession, settings: Settings) -> list[Any]:
    return spark.read.format("delta").load(Workspace.open(settings.workspace).table("text_embeddings")).collect()


def test_the_stage_encodes_each_text_once_and_later_only_what_is_new(
    spark: SparkSession,
    small_settings: Callable[..., Settings],
    run: Callable[..., Any],
    tmp_path: Path,
    llm_folder: Path,
) -> None:
    settings = small_settings()
    outcome = run(settings, "ingest", "item_text", "embed_items")[-1]
    counts = outcome.run.counts
    # Films 1 and 9 have one text.
    assert (counts["rows_in"], counts["encoded"], counts["refused"]) == (ITEMS - 1, ITEMS - 1, 0)
    # Two chunks of two tasks each: four tasks, but no more models than worker processes.
    assert 1 <= counts["model_loads"] <= 2
    rows = {row.text_key: row for row in embeddings(spark, settings)}
    assert len(rows) == ITEMS - 1
    texts = spark.read.format("delta").load(f"{settings.workspace}/tables/item_text").collect()
    expected = TextEncoder(llm_folder, max_tokens=64, normalise=True, token_budget=512).encode([t.text for t in texts])
    for text, vector, tokens in zip(texts, expected.vectors, expected.n_tokens, strict=True):
        assert float(np.dot(rows[text.text_key].embedding, vector)) >= 0.9999
        assert rows[text.text_key].n_tokens == tokens
    assert counts["tokens"] == sum(row.n_tokens for row in rows.values())

    lines = item_lines()
    write_raw(
        tmp_path / "raw",
        items=[*lines[:3], lines[3].replace("story", "tale"), *lines[4:], f"50\t{lines[5].split(chr(9), 1)[1]}"],
    )
    again = run(settings, "ingest", "item_text", "embed_items")[-1]
    assert again.run.counts["encoded"] == 1
    version = current_version(Workspace.open(settings.workspace).table("text_embeddings"))
    forced = run(settings, "embed_items", force=True)[-1]
    assert (forced.run.counts["encoded"], forced.run.counts["model_loads"]) == (0, 0)
    assert current_version(Workspace.open(settings.workspace).table("text_embeddings")) == version

    beside = run(small_settings("encoder.max_tokens=4"), "embed_items")[-1]
    assert beside.run.counts["encoded"] == ITEMS - 1
    assert len({row.encoder_key for row in embeddings(spark, settings)}) == 2


def test_a_vector_that_is_not_finite_goes_to_quarantine(
    spark: SparkSession,
    small_settings: Callable[..., Settings],
    run: Callable[..., Any],
    tmp_path: Path,
    llm_folder: Path,
) -> None:
    # A model whose embedding of one token is NaN: every text with that token fails, the others do not.
    from safetensors.torch import load_file, save_file
    from transformers import AutoTokenizer

    broken = tmp_path / "broken"
    shutil.copytree(llm_folder, broken)
    tensors = load_file(broken / "model.safetensors")
    (token,) = AutoTokenizer.from_pretrained(llm_folder)(" Western")["input_ids"]
    tensors["embed_tokens.weight"][token] = float("nan")
    save_file(tensors, broken / "model.safetensors")
    settings = small_settings(f"encoder.model={broken}")
    outcome = run(settings, "ingest", "item_text", "embed_items")[-1]
    bad = [line for line in item_lines() if "Western" in line.split("\t")[3]]
    assert outcome.run.counts["refused"] == len(bad)
    assert outcome.run.counts["rows_out"] == ITEMS - 1 - len(bad)
    assert np.isfinite([row.embedding for row in embeddings(spark, settings)]).all()
    refused = spark.read.format("delta").load(f"{settings.workspace}/tables/quarantine").collect()
    assert {r.source_table for r in refused} == {"text_embeddings"}
    assert all("Western" in json.loads(r.raw)["text"] and r.reasons == ["the vector is not finite"] for r in refused)
    with pytest.raises(Exception, match=f"{len(bad)} of {ITEMS} items have no embedding"):
        run(settings, "histories", "train")
