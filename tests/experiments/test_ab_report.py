"""ab-report from files to page: planted lifts come back, rows are counted, and what cannot be compared is told."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import deltalake
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import yaml
from pyspark.sql import SparkSession

from learn_spark.errors import GateFailed, LearnSparkError, SettingsError
from learn_spark.experiments.ab_report import run, settings_of
from learn_spark.experiments.assignment import arm, arm_column
from learn_spark.experiments.result import Comparison, Report
from learn_spark.experiments.simulate import ITEMS, simulated_log
from learn_spark.progress import Reporter

START = datetime(2024, 5, 1, tzinfo=UTC)
LIFT, USERS = 0.5, 2500
DEVICE, ITEM_AGE = "device", "item_age"
Go = Callable[..., Report]


@pytest.fixture(scope="module")
def log() -> pa.Table:
    return simulated_log(USERS, seed=1, lift=LIFT)


@pytest.fixture
def go(spark: SparkSession, tmp_path: Path) -> Go:
    def go(named: Path, *overrides: str) -> Report:
        settings = settings_of(str(named), [f"workspace={tmp_path / 'workspace'}", *overrides])
        return run(settings, Reporter(quiet=True), spark=spark)

    return go


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory, log: pa.Table) -> Path:
    """The log under other names, with rows that must not count, and the YAML file that describes it."""
    folder = tmp_path_factory.mktemp("described")
    bad = log.slice(0, 3)
    bad = bad.set_column(bad.schema.get_field_index("user_id"), "user_id", pa.array([None, " ", "u1"]))
    bad = bad.set_column(bad.schema.get_field_index("event_id"), "event_id", pa.array(["b1", "b2", "b3"]))
    bad = bad.set_column(bad.schema.get_field_index("revenue"), "revenue", pa.array([0.0, 0.0, float("nan")]))
    late = log.slice(0, 5)
    late = late.set_column(late.schema.get_field_index("event_id"), "event_id", pa.array([f"l{n}" for n in range(5)]))
    times = pa.array([START + timedelta(days=20)] * 5, pa.timestamp("us", "UTC"))
    late = late.set_column(late.schema.get_field_index("event_time"), "event_time", times)
    whole = pa.concat_tables([log, log.slice(100, 40), bad, late])
    whole = whole.rename_columns(
        ["id", "customer", "sku", "at", "variant", "slot", "about", "bought", "paid", "counts"]
    )
    pq.write_table(whole, folder / "part-0.parquet")
    tree = {
        "name": "features",
        "path": str(folder),
        "logs": [
            {
                "files": "*.parquet",
                "format": "parquet",
                "columns": {
                    "event_id": "id",
                    "user_id": "customer",
                    "item_id": "sku",
                    "event_time": "at",
                    "arm": "variant",
                    "position": "slot",
                    "context": "about",
                    "converted": "bought",
                    "revenue": "paid",
                    "weight": "counts",
                },
            }
        ],
        "start": "2024-05-01",
        "end": "2024-05-15",
        "pre_days": 14,
        "shares": {"control": 0.5, "treatment": 0.5},
        "assignment": {"experiment": "simulated", "salt": "salt"},
        "cohorts": {
            DEVICE: {"by": "context['device']"},
            ITEM_AGE: {"history": "item", "thresholds": [1, 100]},
            "tenure": {"history": "user", "thresholds": [5, 15]},
        },
        "bootstrap_samples": 200,
    }
    path = folder / "features.yaml"
    path.write_text(yaml.safe_dump(tree, sort_keys=False))
    return path


@pytest.fixture(scope="module")
def found(described: Path, spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> tuple[Report, Path]:
    workspace = tmp_path_factory.mktemp("workspace")
    settings = settings_of(str(described), [f"workspace={workspace}"])
    return run(settings, Reporter(quiet=True), spark=spark), workspace


def of(comparisons: tuple[Comparison, ...], metric: str, group: str = "all") -> Comparison:
    (one,) = (c for c in comparisons if c.metric == metric and c.group == group)
    return one


def test_rows_are_counted_and_refused_ones_kept(found: tuple[Report, Path], log: pa.Table) -> None:
    report, workspace = found
    during = pc.sum(pc.is_valid(log["arm"])).as_py()
    assert report.rows == {
        "read": len(log) + 48,
        "refused": 3,
        "repeated": 40,
        "in the experiment": during,
        "before it": len(log) - during,
        "outside both": 5,
    }
    assert report.refused == {"no user_id": 2, "revenue is not a number": 1}
    kept = [
        json.loads(line) for part in (workspace / "reports/features.refused").glob("*.json") for line in part.open()
    ]
    assert sorted(row["reasons"][0] for row in kept) == ["no user_id", "no user_id", "revenue is not a number"]
    assert list((workspace / "staging").iterdir()) == []


def test_sums_are_those_of_a_slow_count(found: tuple[Report, Path], log: pa.Table) -> None:
    """Every metric of both arms by a loop over rows, on the whole and by cohort."""
    report, _ = found
    shown_before: dict[str, int] = defaultdict(int)
    history: dict[str, int] = defaultdict(int)
    rows = log.to_pylist()
    for row in rows:
        if row["event_time"] < START:
            shown_before[row["item_id"]] += 1
            history[row["user_id"]] += 1
    totals: dict[tuple[str, str, str], list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0])
    people: dict[tuple[str, str, str], set[str]] = defaultdict(set)
    converters: dict[tuple[str, str, str], set[str]] = defaultdict(set)
    for row in (row for row in rows if row["event_time"] >= START):
        age = (
            "cold"
            if shown_before[row["item_id"]] < 1
            else "long-tail"
            if shown_before[row["item_id"]] < 100
            else "other"
        )
        tenure = history[row["user_id"]]
        groups = [
            ("all", "all"),
            (DEVICE, json.loads(row["context"])["device"]),
            (ITEM_AGE, age),
            ("tenure", "cold" if tenure < 5 else "long-tail" if tenure < 15 else "other"),
        ]
        for name, group in groups:
            key = (name, group, row["arm"])
            for at, value in enumerate((1.0, float(row["converted"]), row["revenue"])):
                totals[key][at] += value
            people[key].add(row["user_id"])
            if row["converted"]:
                converters[key].add(row["user_id"])
    comparisons = [*report.whole, *report.cohorts]
    assert len(comparisons) == 6 * (1 + 2 + 2 + 3)
    for one in comparisons:
        values = []
        for name in ("control", "treatment"):
            key = (one.cohort, one.group, name)
            # A cohort of items compares all users by what happened on its exposures.
            users = len(people["all", "all", name] if one.cohort == ITEM_AGE else people[key])
            exposures, conversions, revenue = totals[key]
            values.append(
                {
                    "revenue_per_user": revenue / users,
                    "conversions_per_user": conversions / users,
                    "converting_users": len(converters[key]) / users,
                    "conversion_rate": conversions / exposures,
                    "revenue_per_exposure": revenue / exposures,
                    "exposures_per_user": exposures / users,
                }[one.metric]
            )
        assert [one.plain.control, one.plain.treatment] == pytest.approx(values), (one.cohort, one.group, one.metric)


def test_the_planted_lift_comes_back_and_cuped_sharpens_it(found: tuple[Report, Path]) -> None:
    report, _ = found
    for metric in ("revenue_per_user", "conversions_per_user", "conversion_rate"):
        one = of(report.whole, metric)
        assert one.best.lift_low is not None
        assert one.best.lift_high is not None
        assert one.best.lift_low < LIFT < one.best.lift_high
        assert one.p_adjusted < 0.001
        assert one.variance_kept is not None
        assert one.variance_kept < 0.95
        assert one.detectable is not None
        assert one.detectable_plain is not None
        assert one.detectable < one.detectable_plain
        assert one.bootstrap is not None
        assert one.bootstrap[1] - one.bootstrap[0] == pytest.approx(one.best.lift_high - one.best.lift_low, rel=0.25)
    assert of(report.whole, "exposures_per_user").p_adjusted > 0.01
    assert {one.group for one in report.cohorts if one.cohort == ITEM_AGE} == {"cold", "other"}
    assert all(one.p_adjusted >= one.best.p for one in report.cohorts)


def test_all_checks_pass_on_a_sound_log(found: tuple[Report, Path]) -> None:
    report, _ = found
    assert {check.name: check.verdict for check in report.checks} == {
        "the logs' gate": "passed",
        "sample ratio": "passed",
        "sample ratio by device": "passed",
        "sample ratio by tenure": "passed",
        "one arm a user": "passed",
        "logged as assigned": "passed",
        "alike before": "passed",
    }


def test_the_json_beside_the_page_is_the_report(found: tuple[Report, Path]) -> None:
    report, workspace = found
    told = json.loads((workspace / "reports/features.json").read_text())
    assert told["users"] == dict(report.users)
    assert len(told["whole"]) == 6
    assert told["settings"]["cohorts"][DEVICE]["by"] == "context['device']"
    assert "<h1>Experiment features</h1>" in (workspace / "reports/features.html").read_text()


def test_spark_assigns_as_python_does(spark: SparkSession) -> None:
    users = [f"user-{n}é" for n in range(300)]
    shares = {"a": 1, "b": 2, "c": 1}
    frame = spark.createDataFrame([(user,) for user in users], "user string")
    got = [row[0] for row in frame.select(arm_column("user", "x", "s", shares, traffic=0.7)).collect()]
    assert got == [arm(user, "x", "s", shares, traffic=0.7) for user in users]
    assert set(got) == {"a", "b", "c", None}


def test_csv_and_delta_give_what_parquet_gives(log: pa.Table, tmp_path: Path, go: Go) -> None:
    small = log.filter(pc.less(pc.utf8_length(log["user_id"]), 4))  # a hundred users
    pq.write_table(small, tmp_path / "one.parquet")
    deltalake.write_deltalake(str(tmp_path / "two"), small)
    with (tmp_path / "three.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, small.column_names)
        writer.writeheader()
        for row in small.to_pylist():
            writer.writerow(row | {"event_time": row["event_time"].isoformat(), "converted": int(row["converted"])})
    reports = [go(tmp_path / name, "bootstrap_samples=50", "min_users=20") for name in ("one.parquet", "two", "three.csv")]
    assert reports[0].rows["read"] == len(small)
    for other in reports[1:]:
        assert other.rows == reports[0].rows
        for one, same in zip(reports[0].whole, other.whole, strict=True):
            assert same.best.difference == pytest.approx(one.best.difference, rel=1e-9)
            assert same.bootstrap == pytest.approx(one.bootstrap, rel=1e-6)
    # Without start, the first row with an arm is where the experiment began, and what is before it serves CUPED.
    assert reports[0].whole[0].reduced is not None


def column(table: pa.Table, name: str, values: Any) -> pa.Table:
    return table.set_column(table.schema.get_field_index(name), name, values)


def test_users_in_two_arms_are_told_and_left_out(log: pa.Table, tmp_path: Path, go: Go) -> None:
    during = log.filter(pc.is_valid(log["arm"]))
    arms = np.array(during["arm"].to_pylist(), dtype=object)
    users = np.array(during["user_id"].to_pylist())
    mixed = ["u10", "u20", "u30"]
    for user in mixed:
        first = np.flatnonzero(users == user)[0]
        arms[first] = "control" if arms[first] == "treatment" else "treatment"
    pq.write_table(column(during, "arm", pa.array(arms)), tmp_path / "mixed.parquet")
    report = go(tmp_path / "mixed.parquet", "bootstrap_samples=0", "metrics=[conversion_rate]")
    (check,) = (check for check in report.checks if check.name == "one arm a user")
    assert check.verdict == "warning"
    assert check.observed.startswith(f"{len(mixed)} of {len(set(users)):,} users")
    assert sum(report.users.values()) == len(set(users)) - len(mixed)
    assert any("No variance reduction" in note for note in report.notes)
    with pytest.raises(GateFailed, match="one arm a user: 3 of"):
        go(tmp_path / "mixed.parquet", "bootstrap_samples=0", "metrics=[conversion_rate]", "max_two_arms=0.0")


def test_lost_users_are_a_mismatch_and_the_page_is_written_all_the_same(log: pa.Table, tmp_path: Path, go: Go) -> None:
    """A treatment whose users of one group are not logged: exit code 3, whatever the lift."""
    lost = pc.and_(pc.equal(log["arm"], "treatment"), pc.starts_with(log["user_id"], "u1"))
    pq.write_table(log.filter(pc.invert(pc.fill_null(lost, False))), tmp_path / "lost.parquet")
    with pytest.raises(GateFailed, match=r"sample ratio: p = .*the arms cannot be compared") as raised:
        go(tmp_path / "lost.parquet", "bootstrap_samples=0")
    assert raised.value.exit_code == 3
    page = (tmp_path / "workspace/reports/lost.html").read_text()
    assert "Do not believe the figures below: sample ratio failed" in page


def test_an_outcome_log_is_given_the_arms_of_the_assignment(log: pa.Table, tmp_path: Path, go: Go) -> None:
    """No arms in the log: those of arm(), with which it was simulated. Cohorts named by the item's own id."""
    pq.write_table(log.drop(["arm", "position", "context"]), tmp_path / "bare.parquet")
    overrides = [
        "start=2024-05-01",
        "shares={control: 1, treatment: 1}",
        "assignment={experiment: simulated, salt: salt}",
        "cohorts={new: {by: \"if(cast(substr(item_id, 2) as int) >= 180, 'new', 'old')\", of: exposure}}",
        "bootstrap_samples=0",
    ]
    report = go(tmp_path / "bare.parquet", *overrides)
    assert of(report.whole, "conversion_rate").best.lift == pytest.approx(LIFT, abs=0.12)
    new = of(report.cohorts, "exposures_per_user", "new")
    assert new.plain.control / of(report.whole, "exposures_per_user").plain.control == pytest.approx(0.1, abs=0.01)
    assert ITEMS == 200
    pq.write_table(log, tmp_path / "logged.parquet")
    with pytest.raises(GateFailed, match="logged as assigned"):
        go(tmp_path / "logged.parquet", *[o.replace("salt: salt", "salt: other") for o in overrides])


def test_a_a_halves_one_arm_and_counts_false_alarms(log: pa.Table, tmp_path: Path, go: Go) -> None:
    pq.write_table(log, tmp_path / "log.parquet")
    report = go(tmp_path / "log.parquet", "aa_splits=400")
    assert report.whole == ()
    assert {one.metric for one in report.false_alarms} == set(report.settings["metrics"])
    for one in report.false_alarms:
        assert one.reduced is not None
        assert 0.02 <= one.plain / 400 <= 0.09
        assert 0.02 <= one.reduced / 400 <= 0.09
        assert one.quantiles[9] == pytest.approx(0.5, abs=0.1)
    assert not report.failed
    page = (tmp_path / "workspace/reports/log.html").read_text()
    assert "halved at random 400 times" in page


@pytest.mark.parametrize(
    ("overrides", "error", "message"),
    [
        (["control=base"], LearnSparkError, "no user is in the control 'base'.*control, treatment"),
        (["start=2030-01-01"], LearnSparkError, "none of .* rows lies in the experiment's period, from 2030-01-01"),
        (["start=2024-05-01", "pre_days=30", "end=2024-05-08", "logs.0=x"], SettingsError, "logs"),
        (["shares={control: 1, b: 1}"], LearnSparkError, "the logs have the arms treatment, which shares does not"),
        (["cohorts={all: {by: user_id}}"], LearnSparkError, "cohorts.all makes .* groups or more; 50 are the most"),
        (["cohorts={bad: {by: nothing + 1}}"], SettingsError, "an expression does not fit the columns of exposures"),
        (["cohorts={bad: {by: 'if(converted, 1, 2)'}}"], SettingsError, "a cohort must not hang on converted"),
        (["min_users=100000"], LearnSparkError, "too few users to compare: .*min_users is 100,000"),
        (["primary=revenue_per_user", "metrics=[conversion_rate]"], SettingsError, "primary .* is not one of metrics"),
        (["alpah=0.1"], SettingsError, "alpah: there is no such setting; did you mean alpha"),
        (["end=2024-04-01", "start=2024-05-01"], SettingsError, "start 2024-05-01 is not before end 2024-04-01"),
        (["quality.rules={exposures.rows: {least: 1000000}}"], GateFailed, "the logs' gate: rows is"),
    ],
)
def test_what_cannot_be_reported_is_told(
    overrides: list[str], error: type[Exception], message: str, small: Path, go: Go
) -> None:
    with pytest.raises(error, match=message):
        go(small, "bootstrap_samples=0", *overrides)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("small") / "small.parquet"
    pq.write_table(simulated_log(400, seed=2), path)
    return path


def test_one_arm_and_an_empty_time_before_are_told(small: Path, tmp_path: Path, go: Go) -> None:
    whole = pq.read_table(small)
    during = whole.filter(pc.is_valid(whole["arm"]))
    pq.write_table(during.filter(pc.equal(during["arm"], "control")), tmp_path / "one.parquet")
    with pytest.raises(LearnSparkError, match="are in one arm, control; there is nothing to compare it with"):
        go(tmp_path / "one.parquet")
    pq.write_table(during, tmp_path / "during.parquet")
    with pytest.raises(LearnSparkError, match=r"the pre-period is empty: none of .* set pre_days to 0"):
        go(tmp_path / "during.parquet", "pre_days=7")
    pq.write_table(column(during, "arm", pa.nulls(len(during), pa.string())), tmp_path / "none.parquet")
    with pytest.raises(LearnSparkError, match="no row of the logs has an arm"):
        go(tmp_path / "none.parquet")
    pq.write_table(during.drop(["converted"]), tmp_path / "bare.parquet")
    with pytest.raises(SettingsError, match="no column converted, and columns does not say what stands for it"):
        go(tmp_path / "bare.parquet")


def test_the_command_plans_and_refuses_without_spark(small: Path, tmp_path: Path) -> None:
    def command(*arguments: str) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, "-c", "from learn_spark.cli import main; main()", "ab-report", *arguments]
        return subprocess.run(line, capture_output=True, text=True, timeout=300, check=False)

    planned = command(str(small), "--dry-run", "--set", f"workspace={tmp_path}")
    assert planned.returncode == 0, planned.stderr
    assert "would read   1 of small.parquet" in planned.stdout
    assert f"would write  {tmp_path}/reports/small.html" in planned.stdout
    missing = command("nowhere.parquet")
    assert missing.returncode == 2
    assert "there is no nowhere.parquet; name a log" in missing.stderr
