"""Tables by name: registered in a Hive metastore (Derby), with comments; read by name as by path."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from learn_spark.core.storage.path import StoragePath, storage_path
from learn_spark.core.tables.contracts import contract
from tests.features.published import Published
from tests.places import copy_place
from tests.servers import ROOT

TABLES = ["item_features", "releases", "user_features"]


@pytest.fixture(scope="module")
def seen(
    published_copy: Callable[[Path], Published], tmp_path_factory: pytest.TempPathFactory, bucket: StoragePath
) -> dict[str, Any]:
    """What a process with a metastore saw; all in one JVM."""
    folder = tmp_path_factory.mktemp("by_name")
    published_copy(folder)
    (folder / "here").mkdir()
    there = bucket / "by_name"
    copy_place(storage_path(folder / "workspace"), there)
    command = [sys.executable, "-m", "tests.features.by_name", str(folder), str(bucket.s3.server), str(there)]
    # The process leaves ROOT, and the Python workers of its JVM import tests.warm_daemon.
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, Any] = json.loads((folder / "seen.json").read_text(encoding="utf-8"))
    found["folder"] = str(folder)
    found["left behind"] = sorted(path.name for path in (folder / "here").iterdir())
    return found


def test_registering_makes_names_once_and_no_commit(seen: dict[str, Any]) -> None:
    code, printed = seen["first"]
    line = printed.strip().splitlines()[-1]  # before it, a slow machine prints signs of life
    assert (code, line) == (0, f"spark_catalog.learn: 3 tables registered: {', '.join(TABLES)}")
    code, printed = seen["second"]
    assert code == 0
    assert "nothing to register" in printed
    assert "all 3 tables" in printed
    assert seen["commits"] == []
    assert seen["s3"][0] == 0
    assert "3 tables registered" in seen["s3"][1]
    # Derby would leave its log and its default database in the working folder.
    assert seen["left behind"] == []


def test_a_name_that_is_taken_is_refused_and_nothing_is_made(seen: dict[str, Any]) -> None:
    code, printed = seen["moved"]
    assert code == 1
    assert "error: spark_catalog.learn.item_features is " in printed
    for place in ("workspace", "moved"):
        assert f"{seen['folder']}/{place}/tables/item_features" in printed
    assert printed.count("spark_catalog.learn.item_features is ") == 1
    assert "Traceback" not in printed
    assert seen["moved, another schema"][0] == 0
    code, printed = seen["view"]
    assert code == 1
    assert "spark_catalog.learn.ad_scores is a view" in printed
    code, printed = seen["without a metastore"]
    assert code == 1
    assert "no metastore is configured" in printed
    assert "catalog.metastore" in printed
    code, printed = seen["metastore away"]
    assert code == 1
    assert printed.strip().splitlines()[-1].startswith("error: the metastore of spark_catalog.learn does not answer")
    assert "Exception" not in printed
    code, printed = seen["unknown catalog"]
    assert code == 1
    assert "spark.sql.catalog.main" in printed


def test_comments_are_the_contracts(seen: dict[str, Any]) -> None:
    users = contract("user_features")
    assert seen["comments"] == {column.name: column.comment for column in users.columns}
    assert users.columns[3].comment.endswith("(UTC)")
    assert seen["comment"] == users.meaning


def test_by_name_a_reader_gets_the_rows_of_the_path(seen: dict[str, Any]) -> None:
    compared = {
        way: rows for way, rows in seen.items() if way.startswith(("read ", "as of ", "changes ", "features_at "))
    }
    assert len(compared) == 3 * 2 * 3 + 2
    for way, (by_name, by_path) in compared.items():
        assert by_name == by_path, way
        assert by_name, way
    assert seen["sql"] == ["a", "b", "d"]
    assert seen["open by name"] == [f"{seen['folder']}/new", "daily"]


def test_what_a_catalog_does_not_have_is_one_sentence(seen: dict[str, Any]) -> None:
    refused = seen["refused"]
    assert "CatalogError: this Spark session knows no table learn.nothing" in refused["no table"]
    assert refused["no schema"].startswith("CatalogError: there is no schema nowhere")
    assert "'releases' is not a feature table" in refused["no feature table"]
    assert refused["both"].startswith("SettingsError: learn.user_features is a name in a catalog")
    assert "spark_catalog.default.runs" in refused["no workspace"]


def test_a_run_registers_at_its_end_and_is_complete_where_it_cannot(seen: dict[str, Any]) -> None:
    code, printed = seen["run, metastore away"]
    assert code == 0
    assert "warning: the run is complete, but its tables were not registered in spark_catalog.daily" in printed
    assert "run learn-spark register" in printed
    assert "Traceback" not in printed
    code, printed = seen["run"]
    assert code == 0
    assert "spark_catalog.daily: " in printed
    assert "tables registered: " in printed
    assert "item_text" in printed
    code, printed = seen["run again"]
    assert code == 0
    assert "spark_catalog.daily" not in printed
