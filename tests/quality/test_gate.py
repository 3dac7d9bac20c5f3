"""Gates: Great Expectations judges the profile; what is broken is named with observed and expected."""

from __future__ import annotations

from pathlib import Path

import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from learn_spark.errors import GateFailed
from learn_spark.quality.gate import Rule, run_gate
from learn_spark.quality.quarantine import quarantine
from learn_spark.quality.rows import RowRule, judge
from learn_spark.tables.snapshot import current_version

RULES = [
    Rule("rows", 10, None, "at least ten rows"),
    Rule("repeated", 0, 0, "no row twice"),
    Rule("norm", 0.9, 1.1, "norms near one"),
]


def test_a_good_profile_passes_and_leaves_data_docs(tmp_path: Path) -> None:
    report = run_gate("demo", {"rows": 10, "repeated": 0, "norm": 1.0, "unused": 5}, RULES, tmp_path)
    assert report.passed
    report.require()
    assert [r.measure for r in report.results] == ["rows", "repeated", "norm"]
    assert "<html" in report.docs.read_text().lower()
    pages = [p.read_text() for p in report.docs.parent.rglob("*.html")]
    assert any("repeated" in page for page in pages)


@pytest.mark.parametrize(
    ("profile", "expected"),
    [
        ({"rows": 9, "repeated": 0, "norm": 1.0}, "rows is 9, expected at least 10 (at least ten rows)"),
        ({"rows": 10, "repeated": 1, "norm": 1.0}, "repeated is 1, expected at least 0 and at most 0"),
        ({"rows": 10, "repeated": 0, "norm": None}, "norm is nothing"),
        ({"rows": 10, "repeated": 0, "norm": float("nan")}, "norm is nan"),
        ({"rows": 1, "repeated": 5, "norm": 2.0}, "norm is 2"),
    ],
)
def test_a_bad_profile_is_refused_by_name(tmp_path: Path, profile: dict[str, float | None], expected: str) -> None:
    report = run_gate("demo", profile, RULES, tmp_path)
    assert not report.passed
    with pytest.raises(GateFailed) as error:
        report.require()
    assert expected in str(error.value)
    assert error.value.exit_code == 3


def test_a_gate_run_again_judges_anew(tmp_path: Path) -> None:
    good, bad = {"rows": 10, "repeated": 0, "norm": 1.0}, {"rows": 2, "repeated": 0, "norm": 1.0}
    verdicts = [run_gate("demo", profile, RULES, tmp_path).passed for profile in (good, bad, good)]
    assert verdicts == [True, False, True]
    assert run_gate("other", {"rows": 1}, [Rule("rows", 0, 1, "another suite")], tmp_path).passed
    with pytest.raises(ValueError, match="no norm"):
        run_gate("demo", {"rows": 1, "repeated": 0}, RULES, tmp_path)


def test_a_row_keeps_every_reason_and_null_breaks_nothing(spark: SparkSession) -> None:
    frame = spark.createDataFrame([(1, "a"), (-1, None), (None, "b")], "n int, s string")
    rules = [RowRule("negative", F.col("n") < 0), RowRule("no s", F.col("s").isNull())]
    assert [row.reasons for row in judge(frame, rules).collect()] == [[], ["negative", "no s"], []]


def test_quarantine_keeps_a_row_once(spark: SparkSession, tmp_path: Path) -> None:
    path = str(tmp_path / "quarantine")
    rows = [("{1}", ["b", "a"]), ("{1}", ["a", "b"]), ("{2}", ["a"])]
    refused = spark.createDataFrame(rows, "raw string, reasons array<string>")
    quarantine(refused, path, source_table="items", run_id="r1")
    version = current_version(path)
    quarantine(refused, path, source_table="items", run_id="r2")
    assert current_version(path) == version
    quarantine(refused, path, source_table="interactions", run_id="r3")
    held = spark.read.format("delta").load(path).collect()
    found = {(r.source_table, r.raw, tuple(r.reasons), r.occurrences, r.run_id) for r in held}
    assert found == {
        (table, raw, reasons, count, run)
        for table, run in (("items", "r1"), ("interactions", "r3"))
        for raw, reasons, count in (("{1}", ("a", "b"), 2), ("{2}", ("a",), 1))
    }
