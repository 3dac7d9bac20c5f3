"""Texts that kill their worker are set aside, the others are encoded; memory that runs out for real."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from learn_spark.core.settings import Settings
from learn_spark.core.tables.snapshot import Snapshot
from learn_spark.core.tables.workspace import Workspace
from learn_spark.encoder.chunks import KILLS
from tests.encoder.tiny import tiny_model
from tests.stored import stored_rows
from tests.world import write_raw

Make = Callable[..., Settings]
UP_TO_TEXTS = ("ingest", "item_text", "embed_items")
FILMS = 100

# What the kernel does to a process that takes too much memory, for texts with a marker: no Python error, just the end.
# Python runs a sitecustomize of its path in every process; workers of Spark get this one.
SITECUSTOMIZE = """
import importlib.abc, importlib.util, os, signal, sys

class Watch(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name != "learn_spark.encoder.engine":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        load = spec.loader.exec_module

        def exec_module(module):
            load(module)
            tokenise = module.TextEncoder.tokenise

            def watched(encoder, texts):
                greedy = encoder.token_budget > 256 and any("Greedy" in text for text in texts)
                if greedy or any("Killer" in text for text in texts):
                    os.kill(os.getpid(), signal.SIGKILL)
                return tokenise(encoder, texts)

            module.TextEncoder.tokenise = watched

        spec.loader.exec_module = exec_module
        return spec

sys.meta_path.insert(0, Watch())
"""


@pytest.fixture
def deadly(spark: SparkSession, tmp_path: Path) -> Iterator[None]:
    """New Python workers of the session die of texts with a marker."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(SITECUSTOMIZE)
    environment = spark.sparkContext.environment
    environment["PYTHONPATH"] = str(tmp_path / "site")
    yield
    del environment["PYTHONPATH"]


def films(*changed: tuple[int, str]) -> list[str]:
    names = {number: f"Film of number {number}" for number in range(1, FILMS + 1)} | dict(changed)
    return [f"{number}\t{name}\t19{number % 90 + 10}\tWestern" for number, name in names.items()]


def test_one_percent_changed_is_one_percent_encoded_and_killers_are_set_aside(
    small_settings: Make,
    run: Callable[..., Any],
    tmp_path: Path,
    llm_folder: Path,
    request: pytest.FixtureRequest,
) -> None:
    tiny = tiny_model("baichuan-like", tmp_path / "tiny", llm_folder)
    one_task_of_one_chunk = ("encoder.chunk_rows=200", "encoder.tasks=1", "encoder.token_budget=1024")
    settings = small_settings(f"encoder.model={tiny}", *one_task_of_one_chunk)
    event = ["1\t1\t5\t880000000"]
    write_raw(tmp_path / "raw", items=films(), events=event)
    assert run(settings, *UP_TO_TEXTS)[-1].run.counts["encoded"] == FILMS

    write_raw(tmp_path / "raw", items=films((7, "Another film")), events=event)
    counts = run(settings, *UP_TO_TEXTS)[-1].run.counts
    assert (counts["rows_in"], counts["rows_out"], counts["encoded"]) == (FILMS, FILMS, 1)

    request.getfixturevalue("deadly")
    changed = ((7, "Another film"), (11, "Killer film"), (12, "Greedy film"), (20, "New film"))
    write_raw(tmp_path / "raw", items=films(*changed), events=event)
    counts = run(settings, *UP_TO_TEXTS)[-1].run.counts
    # The greedy one goes in with a quarter of the token budget; the killer is found by halving.
    assert (counts["encoded"], counts["refused"], counts["rows_out"]) == (2, 1, FILMS - 1)
    assert counts["chunk_retries"] >= 2
    (row,) = stored_rows(settings.workspace, "quarantine")
    assert (row.source_table, row.reasons) == ("text_embeddings", [KILLS])
    assert "Killer film" in json.loads(row.raw)["text"]

    workspace = Workspace.open(settings.workspace)
    texts = {r["text_key"]: r["text"] for r in Snapshot.open(workspace.table("item_text")).to_arrow().to_pylist()}
    keys = Snapshot.open(workspace.table("text_embeddings")).to_arrow()["text_key"].to_pylist()
    assert len(keys) == len(set(keys))
    assert [text for key, text in texts.items() if key not in keys] == [json.loads(row.raw)["text"]]


# More tokens at once than the process has room for: torch's own error, from a real limit of the address space. With one
# thread, one arena and freed blocks given back, what the process has room for does not depend on the run.
ONE_ARENA = {"OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "65536"}
TIGHT = """
import json, resource, sys
import numpy as np
from pathlib import Path
from learn_spark.encoder.engine import TextEncoder
texts = [f"film {i} " * 40 for i in range(400)]
calm = TextEncoder(Path(sys.argv[1]), max_tokens=200, token_budget=2000).encode(texts)
encoder = TextEncoder(Path(sys.argv[1]), max_tokens=200, token_budget=1_000_000)
encoder.encode(texts[:4])
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (96 << 20), used + (96 << 20)))
encoded = encoder.encode(texts)
cosines = (encoded.vectors * calm.vectors).sum(1)
print(json.dumps([encoder.token_budget, len(encoded.errors), float(cosines.min()), int(encoded.n_tokens.sum())]))
"""


def test_memory_that_runs_out_halves_the_batch(tmp_path: Path, llm_folder: Path) -> None:
    tiny = tiny_model("baichuan-like", tmp_path / "tiny", llm_folder)
    command = [sys.executable, "-c", TIGHT, str(tiny)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | ONE_ARENA)
    assert done.returncode == 0, done.stderr[-2000:]
    budget, errors, cosine, tokens = json.loads(done.stdout.splitlines()[-1])
    assert errors == 0
    assert cosine >= 0.9999
    assert budget <= tokens / 2
    assert "out of memory in a batch of" in done.stderr
