"""Gates: Great Expectations evaluates the profile; broken rules are named with observed and expected values."""

from __future__ import annotations

import os
import pickle
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyspark.sql import SparkSession

from learn_spark.core.errors import BrokenRule, GateError
from learn_spark.core.quality.data_docs import PAGES_A_GATE
from learn_spark.core.quality.gate import GateReport, Rule, RuleResult, evaluate_rules
from learn_spark.core.quality.quarantine import quarantine
from learn_spark.core.quality.rows import check_rows
from learn_spark.core.tables.contracts import RowRule
from learn_spark.core.tables.snapshot import current_version

RULES = [
    Rule("rows", 10, None, "at least ten rows"),
    Rule("repeated", 0, 0, "no row twice"),
    Rule("norm", 0.9, 1.1, "norms near one"),
]


def test_a_good_profile_passes_and_writes_its_page_when_asked_to(tmp_path: Path) -> None:
    report = evaluate_rules("demo", {"rows": 10, "repeated": 0, "norm": 1.0, "unused": 5}, RULES, tmp_path)
    assert report.passed
    report.require()
    assert [r.measure for r in report.results] == ["rows", "repeated", "norm"]
    assert not any(tmp_path.iterdir())
    # Not numpy's floats, whose repr in numpy 2 the page's renderer cannot read.
    assert report.validation is not None
    assert [type(one.result["observed_value"]) for one in report.validation.results] == [float] * 3
    assert report.write_docs() == report.docs
    page = report.docs.read_text()
    assert "<html" in page.lower()
    assert "repeated" in page


@pytest.mark.parametrize(
    ("profile", "broken", "sentence"),
    [
        ({"rows": 9, "repeated": 0, "norm": 1.0}, {"rows": 9}, "rows = 9, expected >= 10 (at least ten rows)"),
        ({"rows": 10, "repeated": 1, "norm": 1.0}, {"repeated": 1}, "repeated = 1, expected = 0 (no row twice)"),
        ({"rows": 10, "repeated": 0, "norm": None}, {"norm": None}, "norm = null, expected >= 0.9 and <= 1.1"),
        ({"rows": 10, "repeated": 0, "norm": float("nan")}, {"norm": float("nan")}, "norm = nan"),
        ({"rows": 1, "repeated": 5, "norm": 2.0}, {"rows": 1, "repeated": 5, "norm": 2}, "; norm = 2, expected"),
    ],
)
def test_a_bad_profile_is_refused_by_name(
    tmp_path: Path, profile: dict[str, float | None], broken: dict[str, float | None], sentence: str
) -> None:
    report = evaluate_rules("demo", profile, RULES, tmp_path)
    assert not report.passed
    with pytest.raises(GateError) as error:
        report.require()
    assert error.value.exit_code == 3
    assert error.value.gate == "demo"
    rules = {rule.measure: rule for rule in RULES}
    assert [rule.rule for rule in error.value.broken] == list(broken)
    for rule in error.value.broken:
        own = rules[rule.rule]
        assert (rule.least, rule.most, rule.meaning) == (own.least, own.most, own.meaning)
        assert rule.observed == pytest.approx(broken[rule.rule], nan_ok=True)
    assert str(error.value).startswith("Quality gate 'demo' failed: ")
    assert sentence in str(error.value)
    # The page that the error names is there.
    assert str(error.value).endswith(f"Data Docs: {report.docs}")
    assert "norm" in report.docs.read_text()


def test_an_error_survives_the_way_between_processes() -> None:
    error = GateError("no", "demo", [BrokenRule("rows", 0.0, 1.0, None, "some rows")])
    back = pickle.loads(pickle.dumps(error))
    assert (str(back), back.gate, back.broken) == ("no", "demo", error.broken)


def test_a_gate_run_again_evaluates_anew(tmp_path: Path) -> None:
    good, bad = {"rows": 10, "repeated": 0, "norm": 1.0}, {"rows": 2, "repeated": 0, "norm": 1.0}
    verdicts = [evaluate_rules("demo", profile, RULES, tmp_path).passed for profile in (good, bad, good)]
    assert verdicts == [True, False, True]
    reports = [evaluate_rules("demo", good, RULES, tmp_path, title=f"demo @ {n}") for n in (1, 2)]
    pages = [report.write_docs() for report in reports]
    assert [page.is_file() for page in pages] == [True, True]
    assert pages[0] != pages[1]
    # Other bounds under the same name are another suite.
    strict = [Rule("rows", 11, None, "at least eleven rows")]
    assert not evaluate_rules("demo", good, strict, tmp_path).passed
    assert evaluate_rules("other", {"rows": 1}, [Rule("rows", 0, 1, "another suite")], tmp_path).passed
    with pytest.raises(ValueError, match="no norm"):
        evaluate_rules("demo", {"rows": 1, "repeated": 0}, RULES, tmp_path)


def test_data_docs_keep_the_newest_pages_of_every_gate_and_list_them(tmp_path: Path) -> None:
    profile: dict[str, float | None] = {"rows": 10, "repeated": 0, "norm": 1.0}
    other = evaluate_rules("other", profile, RULES, tmp_path).write_docs()
    pages = []
    for n in range(PAGES_A_GATE + 3):
        pages.append(evaluate_rules("demo", profile, RULES, tmp_path, title=f"demo @ {n}").write_docs())
        os.utime(pages[-1], (n, n))
    evaluate_rules("demo", profile, RULES, tmp_path, title="demo @ 1").write_docs()
    left = {str(page) for page in tmp_path.rglob("*.html") if page.parent != tmp_path}
    assert left == {other, pages[1], *pages[-PAGES_A_GATE + 1 :]}
    index = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert {str(tmp_path / link) for link in re.findall(r'href="([^"]+)"', index)} == left


def test_a_page_is_written_anew_from_stored_results(tmp_path: Path) -> None:
    rules = [*RULES, Rule("age", None, None, "days")]
    report = evaluate_rules("demo", {"rows": 9, "repeated": 0, "norm": None, "age": 3}, rules, tmp_path)
    skipped = RuleResult("drift", 0.9, None, "change", None, True)
    stored = GateReport(report.gate, report.title, (*report.results, skipped), report.docs)
    with pytest.raises(GateError) as error:
        stored.require()
    assert [rule.rule for rule in error.value.broken] == ["rows", "norm"]
    assert "greater than or equal to" in report.docs.read_text()


BOUND = st.none() | st.floats(-1e9, 1e9)
VALUE = st.none() | st.floats(-1e9, 1e9) | st.sampled_from([float("nan"), float("inf"), float("-inf"), 0.0, 1.0])


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_great_expectations_agrees_with_plain_comparisons(data: st.DataObject) -> None:
    rules, profile, passes = [], {}, {}
    for n in range(data.draw(st.integers(1, 5))):
        least, most = data.draw(BOUND), data.draw(BOUND)
        if least is not None and most is not None and least > most:
            least, most = most, least
        # Values on a bound are the ones that a wrong comparison gets wrong.
        value = data.draw(VALUE | st.sampled_from([least, most]))
        severity = data.draw(st.sampled_from(["fail", "warn"]))
        rules.append(Rule(f"measure_{n}", least, most, "any", severity))
        profile[f"measure_{n}"] = value
        bounds = [value is not None and value >= least] if least is not None else []
        bounds += [value is not None and value <= most] if most is not None else []
        passes[f"measure_{n}"] = all(bounds)
    report = evaluate_rules("property", profile, rules, Path("unused"))
    assert {result.measure: result.passed for result in report.results} == passes
    assert report.passed == all(passes[rule.measure] for rule in rules if rule.severity == "fail")
    assert [result.observed for result in report.results] == pytest.approx(list(profile.values()), nan_ok=True)


def test_a_warning_does_not_break_a_gate_and_a_measure_without_bounds_is_only_reported(tmp_path: Path) -> None:
    rules = [Rule("rows", 10, None, "at least ten", "warn"), Rule("age", None, None, "days"), Rule("norm", 0, 1, "n")]
    report = evaluate_rules("demo", {"rows": 1, "age": None, "norm": 1.0}, rules, tmp_path)
    report.require()
    assert [(r.measure, r.observed, r.passed) for r in report.results] == [
        ("rows", 1.0, False),
        ("age", None, True),
        ("norm", 1.0, True),
    ]
    assert [r.measure for r in report.broken("warn")] == ["rows"]
    assert report.broken("fail") == []
    worse = evaluate_rules("demo", {"rows": 1, "age": None, "norm": 2.0}, rules, tmp_path)
    with pytest.raises(GateError) as error:
        worse.require()
    assert [(rule.rule, rule.observed) for rule in error.value.broken] == [("norm", 2.0)]
    assert "rows" not in str(error.value)


def test_a_row_keeps_every_reason_sorted_and_null_breaks_nothing(spark: SparkSession) -> None:
    frame = spark.createDataFrame([(1, "a"), (-1, None), (None, "b")], "n int, s string")
    rules = [
        RowRule(reason="the user's s is not \\ there", broken="s is null"),
        RowRule(reason="negative", broken="n < 0"),
    ]
    found = [row.reasons for row in check_rows(frame, rules).orderBy("s").collect()]
    assert found == [["negative", "the user's s is not \\ there"], [], []]


def test_a_rule_that_nulls_refuses_no_row(spark: SparkSession) -> None:
    frame = spark.createDataFrame([(1, "a"), (-1, "b"), (None, "c"), (-2, None)], "n int, s string")
    rules = [
        RowRule(reason="no s", broken="s is null"),
        RowRule(reason="negative", broken="n < 0", nulls="n"),
        RowRule(reason="one", broken="n = 1", nulls="n"),
    ]
    checked = {row.s: (row.n, row.reasons, row.flaws) for row in check_rows(frame, rules).collect()}
    assert checked == {
        "a": (None, [], ["one"]),
        "b": (None, [], ["negative"]),
        "c": (None, [], []),
        None: (None, ["no s"], ["negative"]),
    }


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
KEPT = {
    ("items", "{1}", ("a", "b"), 2, "a.csv", None),
    ("items", "{2}", ("a",), 3, "b.csv", '{"id": 2}'),
    ("items", "{2}", ("b",), 1, None, None),
}


def kept(spark: SparkSession, path: str) -> list[tuple[object, ...]]:
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
    found = kept(spark, path)
    assert set(found) == KEPT
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
