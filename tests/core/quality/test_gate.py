"""Gates: Great Expectations judges the profile; what is broken is named with observed and expected."""

from __future__ import annotations

from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from learn_spark.core.errors import GateError
from learn_spark.core.quality.gate import Rule, docs_page, run_gate
from learn_spark.core.quality.quarantine import quarantine
from learn_spark.core.quality.rows import judge
from learn_spark.core.tables.contracts import RowRule
from learn_spark.core.tables.snapshot import current_version

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
    page = report.docs.read_text(encoding="utf-8")
    assert "<html" in page.lower()
    assert "repeated" in page


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
    with pytest.raises(GateError) as error:
        report.require()
    assert expected in str(error.value)
    assert error.value.exit_code == 3


def test_a_gate_run_again_judges_anew(tmp_path: Path) -> None:
    good, bad = {"rows": 10, "repeated": 0, "norm": 1.0}, {"rows": 2, "repeated": 0, "norm": 1.0}
    verdicts = [run_gate("demo", profile, RULES, tmp_path).passed for profile in (good, bad, good)]
    assert verdicts == [True, False, True]
    pages = [run_gate("demo", good, RULES, tmp_path, title=f"demo @ {n}").docs for n in (1, 2)]
    assert pages == [docs_page(tmp_path, "demo", f"demo @ {n}") for n in (1, 2)]
    assert pages[0] != pages[1]
    assert docs_page(tmp_path, "demo", "demo @ 3").name == "index.html"
    assert run_gate("other", {"rows": 1}, [Rule("rows", 0, 1, "another suite")], tmp_path).passed
    with pytest.raises(ValueError, match="no norm"):
        run_gate("demo", {"rows": 1, "repeated": 0}, RULES, tmp_path)


def test_a_warning_does_not_break_a_gate_and_a_measure_without_bounds_is_only_reported(tmp_path: Path) -> None:
    rules = [Rule("rows", 10, None, "at least ten", "warn"), Rule("age", None, None, "days"), Rule("norm", 0, 1, "n")]
    report = run_gate("demo", {"rows": 1, "age": None, "norm": 1.0}, rules, tmp_path)
    report.require()
    assert [(r.measure, r.observed, r.passed) for r in report.results] == [
        ("rows", 1.0, False),
        ("age", None, True),
        ("norm", 1.0, True),
    ]
    assert [r.measure for r in report.broken("warn")] == ["rows"]
    assert report.broken("fail") == []
    worse = run_gate("demo", {"rows": 1, "age": None, "norm": 2.0}, rules, tmp_path)
    with pytest.raises(GateError, match="norm is 2") as error:
        worse.require()
    assert "rows" not in str(error.value)


def test_a_row_keeps_every_reason_sorted_and_null_breaks_nothing(spark: SparkSession) -> None:
    frame = spark.createDataFrame([(1, "a"), (-1, None), (None, "b")], "n int, s string")
    rules = [
        RowRule(reason="the user's s is not \\ there", broken="s is null"),
        RowRule(reason="negative", broken="n < 0"),
    ]
    found = [row.reasons for row in judge(frame, rules).orderBy("s").collect()]
    assert found == [["negative", "the user's s is not \\ there"], [], []]


REFUSED = "raw string, reasons array<string>, source_file string, parsed string"
FIRST = [
    ("{1}", ["a", "b"], "b.csv", None),
    ("{1}", ["a", "b"], "b.csv", None),
    ("{1}", ["a", "b"], "c.csv", None),
    ("{2}", ["a"], "b.csv", '{"id": 2}'),
]
SECOND = [
    ("{1}", ["a", "b"], "a.csv", None),
    ("{2}", ["a"], "c.csv", '{"id": 2}'),
    ("{2}", ["a"], "c.csv", '{"id": 2}'),
    ("{2}", ["a"], "c.csv", '{"id": 2}'),
    ("{2}", ["b"], None, None),
]
HELD = {
    ("items", "{1}", ("a", "b"), 2, "a.csv", None),
    ("items", "{2}", ("a",), 3, "b.csv", '{"id": 2}'),
    ("items", "{2}", ("b",), 1, None, None),
}


def held(spark: SparkSession, path: str) -> list[tuple[object, ...]]:
    rows = spark.read.format("delta").load(path).orderBy("row_id").collect()
    return [(r.source_table, r.raw, tuple(r.reasons), r.occurrences, r.source_file, r.parsed) for r in rows]


@pytest.mark.parametrize("deliveries", [[FIRST, SECOND], [SECOND, FIRST], [FIRST + SECOND]])
def test_quarantine_is_the_same_however_the_rows_are_delivered(
    spark: SparkSession, tmp_path: Path, deliveries: list[list[tuple[object, ...]]]
) -> None:
    path = str(tmp_path / "quarantine")
    new = [
        quarantine(spark.createDataFrame(rows, REFUSED), path, source_table="items", run_id=f"r{number}")
        for number, rows in enumerate(deliveries)
    ]
    assert sum(new) == 3
    assert new[0] == len({(row[0], *row[1]) for row in deliveries[0]})
    found = held(spark, path)
    assert set(found) == HELD
    assert len(found) == 3


def test_quarantine_keeps_a_row_once_and_the_run_that_refused_it_first(spark: SparkSession, tmp_path: Path) -> None:
    path = str(tmp_path / "quarantine")
    refused = spark.createDataFrame(FIRST, REFUSED)
    assert quarantine(refused, path, source_table="items", run_id="r1") == 2
    version = current_version(path)
    assert quarantine(refused, path, source_table="items", run_id="r2") == 0
    assert current_version(path) == version
    assert quarantine(refused, path, source_table="interactions", run_id="r3") == 2
    more = [("{2}", ["a"], "a.csv", '{"id": 2}')]
    assert quarantine(spark.createDataFrame(more, REFUSED), path, source_table="items", run_id="r4") == 0
    rows = spark.read.format("delta").load(path).collect()
    assert {(r.source_table, r.raw, r.occurrences, r.source_file, r.run_id) for r in rows} == {
        ("items", "{1}", 2, "b.csv", "r1"),
        ("items", "{2}", 1, "a.csv", "r1"),
        ("interactions", "{1}", 2, "b.csv", "r3"),
        ("interactions", "{2}", 1, "b.csv", "r3"),
    }
