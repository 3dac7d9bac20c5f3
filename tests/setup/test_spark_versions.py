"""All stages but training on Spark 4.1, in an environment with the newest packages, beside the Spark of the lock."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyspark.sql import SparkSession

from learn_spark.core.console import Reporter
from learn_spark.core.quality.results import stored_results
from learn_spark.core.tables.contracts import contract
from learn_spark.core.tables.log import read_rows
from learn_spark.core.tables.snapshot import Snapshot
from learn_spark.core.tables.workspace import Workspace
from learn_spark.features.read import read_release
from learn_spark.pipeline.runner import run_stages
from tests.ads.rankers.ads_world import AdsWorld, at, tastes
from tests.servers import ROOT
from tests.world import write_config, write_raw

PYTHON = ROOT / ".venv-spark41" / "bin" / "python"
DATA = ("ingest", "item_text", "embed_items", "histories")
TABLES = ("items", "item_index", "interactions", "item_text", "user_histories")
TRAINED = (*DATA, "train")
AFTER = ("evaluate", "publish", "export_index")
ADS = (
    "ranking.variants=[base, learn, gbdt-learn]",
    "ranking.seeds=[1]",
    "ranking.hidden=[8]",
    "ranking.id_dim=4",
    "ranking.epochs=3",
    "ranking.threads=1",
    "ranking.trees={leaves: 7, rounds: 20, min_leaf: 10}",
    "exposures={from: interactions, since: '2024-01-05', candidates: 3, similar: 0.5, pool: 200}",
    "quality.rules={exposures.no_revenue: {most: null}, interactions.refused_share: {most: null}}",
)
USERS, ITEMS = 20, 30


def _on_spark_41(settings: Path, stages: Sequence[str], overrides: Sequence[str] = ()) -> None:
    """Run stages on Spark 4.1 with numpy 2 and the newest Arrow."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "SPARK"))}
    command = [str(PYTHON), "-m", "tests.spark_road", str(settings), *stages]
    command += [part for override in overrides for part in ("--set", override)]
    done = subprocess.run(
        command, cwd=ROOT, env=environment | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=3600
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stdout + done.stderr  # such as of a page of Data Docs, which fails no run
    versions = json.loads(done.stdout.splitlines()[-1])
    assert versions["pyspark"].startswith("4.1."), versions
    assert (int(versions["numpy"].split(".")[0]) >= 2, int(versions["pyarrow"].split(".")[0]) > 20) == (True, True)


def _rows(workspace: Workspace, table: str) -> list[dict[str, Any]]:
    order = [(name, "ascending") for name in contract(table).key]
    return Snapshot.open(workspace.table(table)).to_arrow().sort_by(order).to_pylist()


def test_the_data_stages_write_the_same_rows_on_spark_4_1(
    small_world: Callable[..., Path], tiny_llm: Path, tmp_path: Path
) -> None:
    raw = write_raw(tmp_path / "raw")
    _on_spark_41(write_config(tmp_path / "c.yaml", raw=raw, workspace=tmp_path / "workspace", model=tiny_llm), DATA)
    here, there = (Workspace.open(str(folder / "workspace")) for folder in (small_world(*DATA), tmp_path))
    for table in TABLES:
        rows = [_rows(one, table) for one in (here, there)]
        assert rows[0] == rows[1], table
        assert len(rows[0]) > 0
    vectors = [[row["embedding"] for row in _rows(one, "text_embeddings")] for one in (here, there)]
    assert np.allclose(vectors[0], vectors[1], atol=1e-5)
    verdicts = [
        sorted((row.judged_table, row.rule, row.passed) for row in stored_results(one) if row.judged_table in TABLES)
        for one in (here, there)
    ]
    assert verdicts[0] == verdicts[1]


def test_a_model_of_spark_4_0_is_evaluated_published_and_indexed_on_spark_4_1(
    small_world: Callable[..., Path], tiny_llm: Path, tmp_path: Path
) -> None:
    shutil.copytree(small_world(*TRAINED, *AFTER), tmp_path / "here")
    there_folder = shutil.copytree(small_world(*TRAINED), tmp_path / "there")
    workspace = there_folder / "workspace"
    _on_spark_41(
        write_config(there_folder / "c.yaml", raw=there_folder / "raw", workspace=workspace, model=tiny_llm), AFTER
    )
    here, there = (Workspace.open(str(tmp_path / name / "workspace")) for name in ("here", "there"))
    figures = [
        {(row["method"], row["split"], row["metric"]): row["value"] for row in read_rows(one.table("evaluations"))}
        for one in (here, there)
    ]
    assert figures[1] == pytest.approx(figures[0], abs=1e-6)
    for table in ("user_features", "item_features"):
        ours, theirs = (_rows(one, table) for one in (here, there))
        key = contract(table).key[0]
        assert [row[key] for row in ours] == [row[key] for row in theirs]
        assert np.allclose([row["embedding"] for row in ours], [row["embedding"] for row in theirs], atol=1e-6)
    released = [read_release(one) for one in (here, there)]
    assert released[0].model_id == released[1].model_id
    verdicts = [[(one["measure"], one["passed"]) for one in json.loads(row.gate_results)] for row in released]
    assert verdicts[0] == verdicts[1]


def test_exposures_and_ads_rankers_are_the_same_on_spark_4_1(spark: SparkSession, tmp_path: Path) -> None:
    world = AdsWorld(tmp_path / "here", spark)
    chance = np.random.default_rng(0)
    # An event every half an hour: a release after four days, and as many days of exposures.
    world.events(
        [(f"u{chance.integers(USERS)}", f"i{int(ITEMS * chance.random() ** 2)}", 1800.0 * n) for n in range(400)]
    )
    vectors = [
        {f"{kind}{n}": vector for n, vector in enumerate(tastes(count, 3, seed).tolist())}
        for kind, count, seed in (("u", USERS, 1), ("i", ITEMS, 2))
    ]
    world.release("r1", 4 * 86_400, *vectors)
    elsewhere = shutil.copytree(world.folder, tmp_path / "there")
    settings = world.settings(*ADS)
    run_stages(["exposures", "rank_ads"], settings, console=Reporter(quiet=True))
    small = ("ranking.clock=as_of", "ranking.bootstrap_samples=20", "ranking.batch_size=128")
    _on_spark_41(
        elsewhere / "c.yaml", ["exposures", "rank_ads"], [*small, *ADS, f"workspace={elsewhere / 'workspace'}"]
    )
    there = Workspace.open(str(elsewhere / "workspace"))
    exposures = [_rows(one, "exposures") for one in (world.workspace, there)]
    assert len(exposures[0]) > 400
    assert min(row["event_time"] for row in exposures[0]) >= at(4 * 86_400)
    assert exposures[0] == exposures[1]
    scores = [
        {(row["variant"], row["event_id"]): row["score"] for row in read_rows(one.table("ad_scores"))}
        for one in (world.workspace, there)
    ]
    assert {variant for variant, _ in scores[0]} == {"base", "learn", "gbdt-learn"}
    assert scores[1] == pytest.approx(scores[0], abs=1e-4)
