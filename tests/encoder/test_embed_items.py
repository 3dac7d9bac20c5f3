"""The embedding stage: equal texts once, only what is missing, the model once a worker, bad vectors never written."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from learn_spark.core.settings import Settings
from learn_spark.core.tables.log import read_rows
from learn_spark.core.tables.snapshot import Snapshot, current_version
from learn_spark.core.tables.workspace import Workspace
from learn_spark.encoder.chunks import number_of_chunks
from learn_spark.encoder.engine import TextEncoder
from learn_spark.encoder.retention import forget, keys_in_use
from tests.encoder.standalone import descendants
from tests.encoder.tiny import tiny_model
from tests.stored import stored_rows
from tests.world import ITEMS, item_lines, write_raw

Make = Callable[..., Settings]
UP_TO_TEXTS = ("ingest", "item_text", "embed_items")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory, llm_folder: Path) -> Path:
    return tiny_model("baichuan-like", tmp_path_factory.mktemp("tiny"), llm_folder)


def embeddings(settings: Settings) -> list[dict[str, Any]]:
    path = Workspace.open(settings.workspace).table("text_embeddings")
    rows: list[dict[str, Any]] = Snapshot.open(path).to_arrow().to_pylist()
    return rows


def texts_of(settings: Settings) -> dict[str, str]:
    rows = Snapshot.open(Workspace.open(settings.workspace).table("item_text")).to_arrow().to_pylist()
    return {row["text_key"]: row["text"] for row in rows}


def test_each_text_once_and_later_only_what_is_new(
    small_settings: Make, run: Callable[..., Any], prepared: Callable[..., None], tmp_path: Path, llm_folder: Path
) -> None:
    settings = small_settings(f"encoder.model={llm_folder}")
    prepared("ingest", "item_text")
    counts = run(settings, "embed_items")[-1].run.counts
    # Films 1 and 9 have one text.
    assert (counts["rows_in"], counts["encoded"], counts["refused"]) == (ITEMS - 1, ITEMS - 1, 0)
    # Two chunks of two tasks each: four tasks, but no more models than worker processes.
    assert 1 <= counts["model_loads"] <= 2
    rows, texts = {row["text_key"]: row for row in embeddings(settings)}, texts_of(settings)
    assert len(rows) == ITEMS - 1
    expected = TextEncoder(llm_folder, max_tokens=64, token_budget=512).encode(list(texts.values()))
    for key, vector, tokens in zip(texts, expected.vectors, expected.n_tokens, strict=True):
        assert float(np.dot(rows[key]["embedding"], vector)) >= 0.9999
        assert rows[key]["n_tokens"] == tokens
    assert counts["tokens"] == sum(row["n_tokens"] for row in rows.values())
    (encoder,) = read_rows(Workspace.open(settings.workspace).table("encoders"))
    assert {row["encoder_key"] for row in rows.values()} == {encoder["encoder_key"]}
    assert (encoder["model"], encoder["pooling"], encoder["max_tokens"]) == (str(llm_folder), "mean", 64)
    assert len(encoder["revision"]) == 64

    lines = item_lines()
    write_raw(
        tmp_path / "raw",
        items=[*lines[:3], lines[3].replace("story", "tale"), *lines[4:], f"50\t{lines[5].split(chr(9), 1)[1]}"],
    )
    again = run(settings, *UP_TO_TEXTS)[-1]
    assert again.run.counts["encoded"] == 1
    version = current_version(Workspace.open(settings.workspace).table("text_embeddings"))
    forced = run(settings, "embed_items", force=True)[-1]
    assert (forced.run.counts["encoded"], forced.run.counts["model_loads"]) == (0, 0)
    assert current_version(Workspace.open(settings.workspace).table("text_embeddings")) == version


def test_versions_live_side_by_side_and_truncation_is_counted(
    small_settings: Make, run: Callable[..., Any], prepared: Callable[..., None], tiny: Path
) -> None:
    model = f"encoder.model={tiny}"
    prepared("ingest", "item_text")
    run(small_settings(model), "embed_items")
    cut = run(small_settings(model, "encoder.max_tokens=4"), "embed_items")[-1]
    assert (cut.run.counts["encoded"], cut.run.counts["truncated"]) == (ITEMS - 1, ITEMS - 1)
    last = run(small_settings(model, "encoder.pooling=last"), "embed_items")[-1]
    assert (last.run.counts["encoded"], last.run.counts["truncated"]) == (ITEMS - 1, 0)
    settings = small_settings(model)
    rows = embeddings(settings)
    by_key: dict[str, int] = {}
    for row in rows:
        by_key[row["encoder_key"]] = by_key.get(row["encoder_key"], 0) + 1
    assert sorted(by_key.values()) == [ITEMS - 1] * 3
    encoders = read_rows(Workspace.open(settings.workspace).table("encoders"))
    assert {row["encoder_key"] for row in encoders} == set(by_key)
    assert {(row["pooling"], row["max_tokens"]) for row in encoders} == {("mean", 64), ("mean", 4), ("last", 64)}

    # What no settings, model or release names is shown, and deleted only when asked to.
    workspace = Workspace.open(settings.workspace)
    of = {(row["pooling"], row["max_tokens"]): row["encoder_key"] for row in encoders}
    manifest = workspace.folder("models", "some") / "manifest.json"
    manifest.write_text(json.dumps({"encoder_key": of["last", 64]}))
    used = {kept.encoder_key: kept.used_by for kept in keys_in_use(workspace, settings)}
    assert used == {of["mean", 64]: ("these settings",), of["last", 64]: ("model some",), of["mean", 4]: ()}
    assert len(embeddings(settings)) == 3 * (ITEMS - 1)
    assert forget(workspace, [of["mean", 4]]) == ITEMS - 1
    assert {row["encoder_key"] for row in embeddings(settings)} == {of["mean", 64], of["last", 64]}
    (again,) = run(settings, "embed_items")
    assert again.run.counts["encoded"] == 0


def test_a_vector_that_is_not_finite_goes_to_quarantine(
    small_settings: Make, run: Callable[..., Any], prepared: Callable[..., None], tmp_path: Path, tiny: Path
) -> None:
    # A model whose embedding of one token is NaN: every text with that token fails, the others do not.
    from safetensors.torch import load_file, save_file
    from transformers import AutoTokenizer

    broken = tmp_path / "broken"
    shutil.copytree(tiny, broken)
    tensors = load_file(broken / "model.safetensors")
    (token,) = AutoTokenizer.from_pretrained(tiny)(" Western")["input_ids"]
    tensors["embed_tokens.weight"][token] = float("nan")
    save_file(tensors, broken / "model.safetensors", metadata={"format": "pt"})
    settings = small_settings(f"encoder.model={broken}")
    prepared("ingest", "item_text")
    outcome = run(settings, "embed_items")[-1]
    bad = [line for line in item_lines() if "Western" in line.split("\t")[3]]
    assert outcome.run.counts["refused"] == len(bad)
    assert outcome.run.counts["rows_out"] == ITEMS - 1 - len(bad)
    assert np.isfinite([row["embedding"] for row in embeddings(settings)]).all()
    refused = stored_rows(settings.workspace, "quarantine")
    assert {r.source_table for r in refused} == {"text_embeddings"}
    assert all("Western" in json.loads(r.raw)["text"] and r.reasons == ["the vector is not finite"] for r in refused)
    with pytest.raises(Exception, match=f"{len(bad)} of {ITEMS} items have no embedding"):
        run(settings, "histories", "train")


def encoding_workers() -> list[int]:
    """Python workers of Spark below this process that have a model in memory: not those of tests that run beside it."""
    pids = []
    for pid in descendants(os.getpid()):
        entry = Path("/proc") / str(pid)
        try:
            command = (entry / "cmdline").read_bytes()
            # The daemon itself has torch in memory, tokenizers only a worker with a model.
            if b"warm_daemon" in command and "/tokenizers/" in (entry / "maps").read_text():
                pids.append(pid)
        except (OSError, UnicodeDecodeError):
            continue
    return pids


def test_a_worker_that_is_killed_is_survived(
    small_settings: Make, run: Callable[..., Any], prepared: Callable[..., None], tiny: Path
) -> None:
    settings = small_settings(f"encoder.model={tiny}")
    prepared("ingest", "item_text")
    before, killed = set(encoding_workers()), threading.Event()

    def kill_one() -> None:
        deadline = time.monotonic() + 60
        while not killed.is_set() and time.monotonic() < deadline:
            # Workers of earlier tests may have been taken over; any with a model will do.
            for pid in encoding_workers():
                if pid not in before or time.monotonic() > deadline - 55:
                    os.kill(pid, signal.SIGKILL)
                    killed.set()
                    break
            time.sleep(0.01)

    killer = threading.Thread(target=kill_one, daemon=True)
    killer.start()
    (outcome,) = run(settings, "embed_items")
    killer.join()
    assert killed.is_set()
    assert outcome.run.counts["encoded"] == ITEMS - 1
    assert outcome.run.counts["refused"] == 0
    assert sorted(row["text_key"] for row in embeddings(settings)) == sorted(texts_of(settings))


def test_a_driver_that_is_killed_loses_no_commit(
    small_settings: Make, run: Callable[..., Any], tmp_path: Path, tiny: Path
) -> None:
    lines = [f"{i}\tFilm of number {i}\t19{i % 90 + 10}\tWestern" for i in range(1, 25)]
    write_raw(tmp_path / "raw", items=lines, events=["1\t1\t5\t880000000"])
    settings = small_settings(f"encoder.model={tiny}", "encoder.chunk_rows=4")
    run(settings, "ingest", "item_text")
    config = tmp_path / "small.yaml"
    command = [str(Path(sys.executable).parent / "learn-spark"), "embed_items", "--config", str(config)]
    command += ["--set", f"encoder.model={tiny}", "--set", "encoder.chunk_rows=4"]
    table = Workspace.open(settings.workspace).table("text_embeddings")
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    while process.poll() is None and (current_version(table) or 0) < 2:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    committed = {row["text_key"]: row["embedding"] for row in embeddings(settings)}
    assert 0 < len(committed) < len(lines)
    plans = Path(settings.workspace) / "staging" / "to_encode"
    assert len(list(plans.iterdir())) == 1
    (outcome,) = run(settings, "embed_items")
    assert outcome.run.counts["encoded"] == len(lines) - len(committed)
    rows = embeddings(settings)
    assert len(rows) == len({row["text_key"] for row in rows}) == len(lines)
    assert all(row["embedding"] == committed.get(row["text_key"], row["embedding"]) for row in rows)
    assert list(plans.iterdir()) == []
    # Under other keys everything is encoded again: by auto in one commit, by chunks of 4 in several.
    versions = [current_version(table) or 0]
    for change in ("encoder.chunk_rows=auto", "encoder.chunk_rows=4"):
        other = small_settings(f"encoder.model={tiny}", f"encoder.max_tokens={20 + len(versions)}", change)
        assert run(other, "embed_items")[0].run.counts["encoded"] == len(lines)
        versions.append(current_version(table) or 0)
    assert versions[1] - versions[0] == 1
    assert 3 < versions[2] - versions[1] <= 6


def test_chunks_grow_with_the_work() -> None:
    """Without a number about 200 commits at most, and a kill loses at most 512 texts or a two-hundredth of them."""
    for total in (1, 512, 513, 20_000, 102_401, 10_000_000, 1_000_000_000):
        chunks = number_of_chunks(total, None)
        assert chunks <= 200
        assert math.ceil(total / chunks) <= max(512, math.ceil(total / 200))
    assert [number_of_chunks(total, None) for total in (512, 513, 10_000_000)] == [1, 2, 200]
    assert number_of_chunks(10_000_000, 512) == 19_532
