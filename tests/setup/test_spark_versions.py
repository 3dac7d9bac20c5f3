"""The data stages on Spark 4.1, in an environment of its own with the newest packages, beside the Spark of the lock."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from learn_spark.core.quality.results import stored_results
from learn_spark.core.tables.contracts import contract
from learn_spark.core.tables.snapshot import Snapshot
from learn_spark.core.tables.workspace import Workspace
from tests.servers import ROOT

PYTHON = ROOT / ".venv-spark41" / "bin" / "python"
STAGES = ("ingest", "item_text", "histories")
TABLES = ("items", "item_index", "interactions", "item_text", "user_histories")


@pytest.mark.skipif(not PYTHON.is_file(), reason="make spark-versions makes .venv-spark41 and runs this")
def test_the_data_stages_write_the_same_rows_on_spark_4_1(small_world: Callable[..., Path], tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "SPARK"))}
    command = [str(PYTHON), "-m", "tests.spark_road", str(tmp_path), *STAGES]
    done = subprocess.run(
        command, cwd=ROOT, env=environment | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=3600
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stdout + done.stderr  # such as of a page of Data Docs, which fails no run
    versions = json.loads(done.stdout.splitlines()[-1])
    assert versions["pyspark"].startswith("4.1."), versions
    assert (int(versions["numpy"].split(".")[0]) >= 2, int(versions["pyarrow"].split(".")[0]) > 20) == (True, True)
    here, there = (Workspace.open(str(folder / "workspace")) for folder in (small_world(*STAGES), tmp_path))
    for table in TABLES:
        order = [(name, "ascending") for name in contract(table).key]
        rows = [Snapshot.open(one.table(table)).to_arrow().sort_by(order).to_pylist() for one in (here, there)]
        assert rows[0] == rows[1], table
        assert len(rows[0]) > 0
    verdicts = [
        sorted((row.judged_table, row.rule, row.passed) for row in stored_results(one) if row.judged_table in TABLES)
        for one in (here, there)
    ]
    assert verdicts[0] == verdicts[1]
