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
from pyspark.sql import functions as F

from learn_spark.ads.experiments.analysis import analyse
from learn_spark.ads.experiments.assignment import arm, arm_column
from learn_spark.ads.experiments.configure import settings_of
from learn_spark.ads.experiments.result import Comparison, ExperimentResult
from learn_spark.ads.experiments.rows import Rows, prepare
from learn_spark.ads.experiments.simulate import ITEMS, simulated_log
from learn_spark.ads.experiments.users import Users, make_users
from learn_spark.core.console import Reporter
from learn_spark.core.errors import GateFailed, LearnSparkError, SettingsError
from learn_spark.core.settings.experiment import ExperimentSettings
from learn_spark.data.sources.exposure_log import read_logs
from learn_spark.report.experiment import report_experiment

START = datetime(2024, 5, 1, tzinfo=UTC)
LIFT, USERS = 0.5, 2500
DEVICE, ITEM_AGE = "device", "item_age"
Go = Callable[..., ExperimentResult]


@pytest.fixture(scope="module")
def log() -> pa.Table:
    return simulated_log(USERS, seed=1, lift=LIFT)


@pytest.fixture
def go(spark: SparkSession, tmp_path: Path) -> Go:
    def go(named: Path, *overrides: str) -> ExperimentResult:
        settings = settings_of(str(named), [f"workspace={tmp_path / 'workspace'}", *overrides])
        return report_experiment(settings, Reporter(quiet=True), spark=spark)

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
def found(
    described: Path, spark: SparkSession, tmp_path_factory: pytest.TempPathFactory
) -> tuple[ExperimentResult, Path]:
    workspace = tmp_path_factory.mktemp("workspace")
    settings = settings_of(str(described), [f"workspace={workspace}"])
    return report_experiment(settings, Reporter(quiet=True), spark=spark), workspace


def of(comparisons: tuple[Comparison, ...], metric: str, group: str = "all") -> Comparison:
    (one,) = (c for c in comparisons if c.metric == metric and c.group == group)
    return one


def test_rows_are_counted_and_refused_ones_kept(found: tuple[ExperimentResult, Path], log: pa.Table) -> None:
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


def test_sums_are_those_of_a_slow_count(found: tuple[ExperimentResult, Path], log: pa.Table) -> None:
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


def test_the_planted_lift_comes_back_and_cuped_sharpens_it(found: tuple[ExperimentResult, Path]) -> None:
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


def test_all_checks_pass_on_a_sound_log(found: tuple[ExperimentResult, Path]) -> None:
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


def test_the_json_beside_the_page_is_the_report(found: tuple[ExperimentResult, Path]) -> None:
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


def test_csv_and_delta_give_what_parquet_gives(spark: SparkSession, log: pa.Table, tmp_path: Path) -> None:
    few = pa.concat_tables([log.slice(0, 20), log.slice(len(log) - 20)])
    pq.write_table(few, tmp_path / "one.parquet")
    deltalake.write_deltalake(str(tmp_path / "two"), few)
    lines = [
        row | {"event_time": row["event_time"].isoformat(), "converted": int(row["converted"]), "position": "3.0"}
        for row in few.to_pylist()
    ]
    lines.append(
        lines[0] | {"event_id": "bad", "context": "phone", "position": "0", "weight": "-1", "converted": "maybe"}
    )
    with (tmp_path / "three.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, few.column_names)
        writer.writeheader()
        writer.writerows(lines)
    read = []
    for name in ("one.parquet", "two", "three.csv"):
        settings = settings_of(str(tmp_path / name), [])
        rows = read_logs(spark, Path(settings.path), settings.logs, {"device": "context['device']"}).collect()
        read.append({row["event_id"]: row.asDict() | {"position": None} for row in rows})
        assert {row.pop("source_file") for row in read[-1].values()} == {name}
    refused = read[2].pop("bad")
    assert refused["reasons"] == [
        "context is not a JSON object",
        "converted is not true or false",
        "position is not a whole number from 1 on",
        "weight is not a number from 0 on",
    ]
    assert len(read[0]) == 40
    assert {row["cohort_device"] for row in read[0].values()} == {"phone", "desktop"}
    assert all(row["reasons"] == [] for row in read[0].values())
    assert read[0] == read[1] == read[2]


def column(table: pa.Table, name: str, values: Any) -> pa.Table:
    return table.set_column(table.schema.get_field_index(name), name, values)


def test_users_in_two_arms_or_another_than_assigned_are_told(log: pa.Table, tmp_path: Path, go: Go) -> None:
    during = log.filter(pc.is_valid(log["arm"]))
    arms = np.array(during["arm"].to_pylist(), dtype=object)
    users = np.array(during["user_id"].to_pylist())
    other = {"control": "treatment", "treatment": "control"}
    for user in ("u10", "u20", "u30"):
        first = np.flatnonzero(users == user)[0]
        arms[first] = other[arms[first]]
    moved = users == "u40"
    arms[moved] = [other[one] for one in arms[moved]]
    pq.write_table(column(during, "arm", pa.array(arms)), tmp_path / "mixed.parquet")
    people = len(set(users))
    with pytest.raises(GateFailed, match=rf"one arm a user: 3 of {people:,} users .*logged as assigned: "):
        go(
            tmp_path / "mixed.parquet",
            "bootstrap_samples=0",
            "metrics=[conversion_rate]",
            "max_two_arms=0.0",
            "shares={control: 1, treatment: 1}",
            "assignment={experiment: simulated, salt: salt}",
        )
    told = json.loads((tmp_path / "workspace/reports/mixed.json").read_text())
    assert sum(told["users"].values()) == people - 3
    (check,) = (check for check in told["checks"] if check["name"] == "logged as assigned")
    # u40, and those of the three whose least arm by name is not theirs.
    assert 1 <= int(check["observed"].split()[0]) <= 4
    assert any("No variance reduction" in note for note in told["notes"])


def test_lost_users_are_a_mismatch_and_the_page_is_written_all_the_same(log: pa.Table, tmp_path: Path, go: Go) -> None:
    """A treatment whose users of one group are not logged: exit code 3, whatever the lift."""
    lost = pc.and_(pc.equal(log["arm"], "treatment"), pc.starts_with(log["user_id"], "u1"))
    pq.write_table(log.filter(pc.invert(pc.fill_null(lost, False))), tmp_path / "lost.parquet")
    gate = "quality.rules={exposures.rows: {least: 1000000}}"
    message = "the logs' gate: rows is .*sample ratio: p = .*the arms cannot be compared"
    with pytest.raises(GateFailed, match=message) as raised:
        go(tmp_path / "lost.parquet", "bootstrap_samples=0", gate)
    assert raised.value.exit_code == 3
    page = (tmp_path / "workspace/reports/lost.html").read_text()
    assert "Do not believe the figures below: sample ratio failed" in page


def test_an_outcome_log_is_given_the_arms_of_the_assignment(log: pa.Table, tmp_path: Path, go: Go) -> None:
    """No arms in the log: those of arm(), with which it was simulated. A cohort of exposures by the item's own id."""
    pq.write_table(log.drop(["arm", "position", "context"]), tmp_path / "bare.parquet")
    report = go(
        tmp_path / "bare.parquet",
        "start=2024-05-01",
        "shares={control: 1, treatment: 1}",
        "assignment={experiment: simulated, salt: salt}",
        "cohorts={new: {by: \"if(cast(substr(item_id, 2) as int) >= 180, 'new', 'old')\", of: exposure}}",
        "bootstrap_samples=0",
    )
    assert of(report.whole, "conversion_rate").best.lift == pytest.approx(LIFT, abs=0.12)
    new = of(report.cohorts, "exposures_per_user", "new")
    assert new.plain.control / of(report.whole, "exposures_per_user").plain.control == pytest.approx(0.1, abs=0.01)
    assert ITEMS == 200


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


# What cannot be reported


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("small") / "small.parquet"
    pq.write_table(simulated_log(400, seed=2), path)
    return path


@pytest.fixture(scope="module")
def rows(small: Path, spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Rows:
    settings = settings_of(str(small), ["cohorts={all: {by: user_id}}"])
    return prepare(spark, settings, small.parent, tmp_path_factory.mktemp("rows"), tmp_path_factory.mktemp("reports"))


@pytest.fixture(scope="module")
def users(small: Path, rows: Rows, tmp_path_factory: pytest.TempPathFactory) -> Users:
    return make_users(rows.frame, settings_of(str(small), []), tmp_path_factory.mktemp("users"))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("control=base", "no user is in the control 'base'; set control to one of .*: control, treatment"),
        ("shares={control: 1, b: 1}", "the logs have the arms treatment, which shares does not name"),
        ("min_users=100000", "too few users to compare: .* in control, .* in treatment; min_users is 100,000"),
    ],
)
def test_arms_that_cannot_be_compared_are_told(
    override: str, message: str, small: Path, rows: Rows, users: Users
) -> None:
    with pytest.raises(LearnSparkError, match=message):
        analyse(settings_of(str(small), [override]), rows, users, [], "r", 0.0)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["start=2030-01-01"], "none of .* rows lies in the experiment's period, from 2030-01-01 00:00:00 UTC to open"),
        (["start=2024-04-17", "pre_days=7"], "the pre-period is empty: none of 394 users .* or set pre_days to 0"),
        (["cohorts={all: {by: user_id}}"], "cohorts.all makes .* groups or more; 50 are the most"),
    ],
)
def test_times_and_cohorts_that_do_not_fit_are_told(
    overrides: list[str], message: str, small: Path, rows: Rows, tmp_path: Path
) -> None:
    with pytest.raises(LearnSparkError, match=message):
        make_users(rows.frame, settings_of(str(small), overrides), tmp_path)


def test_one_arm_alone_and_none_at_all_are_told(small: Path, rows: Rows, tmp_path: Path) -> None:
    settings = settings_of(str(small), [])
    alone = make_users(rows.frame.where("arm = 'control'"), settings, tmp_path)
    with pytest.raises(LearnSparkError, match="users are in one arm, control; there is nothing to compare it with"):
        analyse(settings, rows, alone, [], "r", 0.0)
    with pytest.raises(
        LearnSparkError, match="no row of the logs has an arm, so the start of the experiment is unknown"
    ):
        make_users(rows.frame.withColumn("arm", F.lit(None).cast("string")), settings, tmp_path)


def test_logs_without_what_is_needed_are_told(small: Path, spark: SparkSession, tmp_path: Path) -> None:
    pq.write_table(pq.read_table(small).drop(["converted"]), tmp_path / "bare.parquet")
    settings = settings_of(str(tmp_path / "bare.parquet"), [])
    with pytest.raises(SettingsError, match="no column converted, and columns does not say what stands for it"):
        read_logs(spark, tmp_path, settings.logs, {})
    logs = settings_of(str(small), []).logs
    with pytest.raises(SettingsError, match="an expression does not fit the columns of exposures"):
        read_logs(spark, small.parent, logs, {"bad": "nothing + 1"})
    wrong = logs[0].model_copy(update={"columns": {"arm": "variant"}})
    with pytest.raises(SettingsError, match="columns or where do not fit the files"):
        read_logs(spark, small.parent, [wrong], {})


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["cohorts={bad: {by: 'if(converted, 1, 2)'}}"], "a cohort must not depend on converted"),
        (["cohorts={bad: {by: device, history: user}}"], "a cohort needs one of by"),
        (["primary=revenue_per_user", "metrics=[conversion_rate]"], "primary revenue_per_user is not one of metrics"),
        (["alpah=0.1"], "alpah: there is no such setting; did you mean alpha"),
        (["end=2024-04-01", "start=2024-05-01"], "start 2024-05-01 is not before end 2024-04-01"),
        (["start=soon"], "'soon' is not an ISO time"),
        (["assignment={salt: s}"], "assignment needs shares"),
        (["shares={a: 1, b: 1}"], "control control is not one of shares"),
    ],
)
def test_settings_that_contradict_themselves_are_told(overrides: list[str], message: str, small: Path) -> None:
    with pytest.raises(SettingsError, match=message):
        settings_of(str(small), overrides)


def test_the_example_of_the_documentation_is_valid(tmp_path: Path) -> None:
    page = (Path(__file__).parents[3] / "docs/experiments.md").read_text(encoding="utf-8")
    example = page.partition("```yaml\n")[2].partition("```")[0]
    (tmp_path / "features.yaml").write_text(example, encoding="utf-8")
    settings = settings_of(str(tmp_path / "features.yaml"), [])
    # What the example spells out of the defaults is the default.
    plain = ExperimentSettings(name="x", path="x", logs=settings.logs)
    for name in ("metrics", "cuped", "alpha", "correction", "power", "effect", "bootstrap_samples", "min_users"):
        assert getattr(settings, name) == getattr(plain, name), name


def test_the_command_plans_and_refuses_without_spark(small: Path, tmp_path: Path) -> None:
    def command(*arguments: str) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, "-c", "from learn_spark.commands.cli import main; main()", "ab-report", *arguments]
        return subprocess.run(line, capture_output=True, text=True, timeout=300, check=False)

    planned = command(str(small), "--dry-run", "--set", f"workspace={tmp_path}")
    assert planned.returncode == 0, planned.stderr
    assert "would read   1 of small.parquet" in planned.stdout
    assert f"would write  {tmp_path}/reports/small.html" in planned.stdout
    missing = command("nowhere.parquet")
    assert missing.returncode == 2
    assert "there is no nowhere.parquet; name a log" in missing.stderr
