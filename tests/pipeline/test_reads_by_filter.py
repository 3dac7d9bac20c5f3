"""Tables that grow with runs, evaluations or refused rows are read by filter or in batches: counts of rows."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pytest

from learn_spark.ads.rankers.metrics import ad_metric_rows
from learn_spark.core.quality import refused
from learn_spark.core.quality.refused import refused_rows
from learn_spark.core.tables import log
from learn_spark.core.tables.snapshot import Snapshot
from learn_spark.core.tables.workspace import Workspace
from learn_spark.evaluation.results import ResultKey, metric_rows, slice_rows, written_by
from learn_spark.pipeline.provenance import Provenance
from learn_spark.studies.figures import Evaluations
from tests.report.planted import plant

RUNS, ROWS = 12, 50  # a commit and file a run
AT = datetime(2024, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    workspace = Workspace.open(str(tmp_path_factory.mktemp("reads") / "workspace"))
    for run in range(RUNS):
        shared = {"run_id": f"run{run:02}", "model_id": f"model{run:02}", "method": "learn", "split": "test"}
        numbers = {"value": 0.5, "low": 0.4, "high": 0.6, "users": 9, "items": 5, "catalogue": 5}
        size = {"exposures": 9, "weight": 9.0, "conversions": 1.0}
        plant(
            workspace,
            "evaluations",
            [
                shared
                | numbers
                | {"metric": f"HR@{n + 1}", "tables": {"t": "1"}, "protocol": "p", "settings_hash": "s"}
                for n in range(ROWS)
            ],
        )
        plant(
            workspace,
            "evaluation_slices",
            [shared | numbers | {"metric": "NDCG@10", "dimension": "all", "slice": f"s{n}"} for n in range(ROWS)],
        )
        plant(
            workspace,
            "evaluation_users",
            [
                shared
                | {"user_id": f"u{n}", "item_id": "i", "rank": 1.0, "popularity": "head", "same_day": "no"}
                | dict.fromkeys(("mass", "cold", "history", "recency", "time"), "x")
                for n in range(ROWS)
            ],
        )
        plant(
            workspace,
            "ad_metrics",
            [
                shared
                | numbers
                | size
                | {"variant": "base", "model": "mlp", "dimension": "all", "cohort": "all", "metric": f"m{n}"}
                for n in range(ROWS)
            ],
        )
        plant(
            workspace,
            "raw_files",
            [
                {"file": f"{run}-{n}", "state": "s", "reader": "r", "rows": 3, "refused": 0, "run_id": f"run{run:02}"}
                | {"read_at": AT}
                for n in range(ROWS)
            ],
        )
        plant(
            workspace,
            "quarantine",
            [
                {"source_table": "items", "reasons": [f"reason {n % 5}"], "raw": "{}", "occurrences": 1}
                | {"source_file": f"f{run}", "run_id": f"run{run:02}", "row_id": f"{run}-{n}"}
                for n in range(ROWS)
            ],
        )
    return workspace


@pytest.fixture
def converted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of rows of each table that became Python's rows."""
    counts: list[int] = []
    before = log.as_dicts

    def as_dicts(table: pa.Table) -> list[dict[str, Any]]:
        counts.append(table.num_rows)
        return before(table)

    monkeypatch.setattr(log, "as_dicts", as_dicts)
    return counts


def test_a_result_reads_its_own_rows_alone(workspace: Workspace, converted: list[int]) -> None:
    of_run = ds.field("run_id") == "run07"
    assert {row.run_id for row in metric_rows(workspace, of_run)} == {"run07"}
    assert {row.run_id for row in slice_rows(workspace, of_run)} == {"run07"}
    assert {row.run_id for row in ad_metric_rows(workspace, "run07")} == {"run07"}
    assert written_by(workspace, ResultKey("model07", {"t": "1"}, "s")) == "run07"
    assert converted == [ROWS] * 4
    assert len(metric_rows(workspace)) == RUNS * ROWS


def test_provenance_reads_the_files_of_the_runs_it_is_asked_for(workspace: Workspace, converted: list[int]) -> None:
    provenance = Provenance(workspace)
    converted.clear()
    rows = provenance._raw_files(["run03"])
    assert ([row["file"] for row in rows], converted) == ([f"3-{n}" for n in range(ROWS)], [ROWS])
    # Known by now, and in the order of the runs.
    rows = provenance._raw_files(["run05", "run03", "none"])
    assert [row["run_id"] for row in rows] == ["run05"] * ROWS + ["run03"] * ROWS
    assert converted == [ROWS, ROWS]


def test_a_study_reads_the_users_of_its_runs(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    from learn_spark.studies import figures

    counts: list[int] = []
    before = figures.scan

    def scan(*arguments: Any, **more: Any) -> pa.Table:
        rows = before(*arguments, **more)
        counts.append(rows.num_rows)
        return rows

    monkeypatch.setattr(figures, "scan", scan)
    evaluations = Evaluations(workspace, {"run01", "run02"})
    assert evaluations.has("run01", "learn")
    assert not evaluations.has("run03", "learn")
    assert counts == [ROWS, ROWS]


def test_quarantine_is_read_a_batch_at_a_time(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refused, "BATCH_ROWS", 20)
    counts: list[int] = []
    before = Snapshot.batches

    def batches(self: Snapshot, columns: list[str], rows: int) -> Iterator[pa.RecordBatch]:
        for batch in before(self, columns, rows):
            counts.append(batch.num_rows)
            yield batch

    monkeypatch.setattr(Snapshot, "batches", batches)
    kept = refused_rows(workspace, reason="reason 3", file="f1*")
    assert len(kept) == 3 * ROWS // 5
    assert {row.file for row in kept} == {"f1", "f10", "f11"}
    assert (max(counts), sum(counts)) == (20, RUNS * ROWS)
