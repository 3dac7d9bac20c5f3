"""ab-report from files to page: planted lifts come back, rows are counted, and unsound logs fail."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import yaml
from pyspark.sql import SparkSession

from learn_spark.ads.experiments.configure import settings_of
from learn_spark.ads.experiments.result import Comparison, ExperimentResult
from learn_spark.ads.experiments.simulate import ITEMS, simulated_log
from learn_spark.core.console import Reporter
from learn_spark.core.errors import GateError
from learn_spark.core.storage.path import StoragePath
from learn_spark.core.tables.reach import reach
from learn_spark.report.experiment import report_experiment, show

START = datetime(2024, 5, 1, tzinfo=UTC)
LIFT, USERS = 0.5, 2500
DEVICE, ITEM_AGE = "device", "item_age"
ReportOn = Callable[..., ExperimentResult]


@pytest.fixture(scope="module")
def log() -> pa.Table:
    return simulated_log(USERS, seed=1, lift=LIFT)


@pytest.fixture
def report_on(spark: SparkSession, tmp_path: Path) -> ReportOn:
    def report_on(named: Path, *overrides: str) -> ExperimentResult:
        settings = settings_of(str(named), [f"workspace={tmp_path / 'workspace'}", *overrides])
        return report_experiment(settings, Reporter(quiet=True), spark=spark)

    return report_on


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory, log: pa.Table) -> Path:
    """The log under other names, with rows that must not count, and the YAML file that describes it."""
    folder = tmp_path_factory.mktemp("described")
    bad = log.slice(0, 3)
    bad = bad.set_column(bad.schema.get_field_index("user_id"), "user_id", pa.array([None, " ", "u1"]))
    bad = bad.set_column(bad.schema.get_field_index("event_id"), "event_id", pa.array(["b1", "b2", "b3"]))
    bad = bad.set_column(bad.schema.get_field_index("weight"), "weight", pa.array([1.0, 1.0, float("nan")]))
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
def reported(
    described: Path, spark: SparkSession, tmp_path_factory: pytest.TempPathFactory
) -> tuple[ExperimentResult, Path]:
    workspace = tmp_path_factory.mktemp("workspace")
    settings = settings_of(str(described), [f"workspace={workspace}"])
    return report_experiment(settings, Reporter(quiet=True), spark=spark), workspace


def of(comparisons: tuple[Comparison, ...], metric: str, group: str = "all") -> Comparison:
    (one,) = (c for c in comparisons if c.metric == metric and c.group == group)
    return one


def test_rows_are_counted_and_refused_ones_kept(reported: tuple[ExperimentResult, Path], log: pa.Table) -> None:
    result, workspace = reported
    during = pc.sum(pc.is_valid(log["arm"])).as_py()
    assert result.rows == {
        "read": len(log) + 48,
        "refused": 3,
        "repeated": 40,
        "in the experiment": during,
        "before it": len(log) - during,
        "outside both": 5,
    }
    assert result.refused == {"no user_id": 2, "weight is not a number from 0 on": 1}
    kept = [
        json.loads(line) for part in (workspace / "reports/features.refused").glob("*.json") for line in part.open()
    ]
    assert sorted(row["reasons"][0] for row in kept) == ["no user_id", "no user_id", "weight is not a number from 0 on"]
    assert list((workspace / "staging").iterdir()) == []


def test_a_log_in_s3_gives_the_same_report(
    reported: tuple[ExperimentResult, Path],
    described: Path,
    report_on: ReportOn,
    spark: SparkSession,
    bucket: StoragePath,
) -> None:
    reach(spark, [bucket])
    (bucket / "logs" / "part-0.parquet").write_bytes((described.parent / "part-0.parquet").read_bytes())
    there = report_on(described, f"path={bucket / 'logs'}", f"storage.endpoint={bucket.s3.server}")
    here, _ = reported
    assert (there.rows, there.refused) == (here.rows, here.refused)
    assert (there.whole, there.cohorts) == (here.whole, here.cohorts)


def test_sums_are_those_of_a_slow_count(reported: tuple[ExperimentResult, Path], log: pa.Table) -> None:
    """Every metric of both arms by a loop over rows, on the whole and by cohort."""
    result, _ = reported
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
    comparisons = [*result.whole, *result.cohorts]
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


def test_the_planted_lift_comes_back_and_cuped_sharpens_it(reported: tuple[ExperimentResult, Path]) -> None:
    result, _ = reported
    for metric in ("revenue_per_user", "conversions_per_user", "conversion_rate"):
        one = of(result.whole, metric)
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
    assert of(result.whole, "exposures_per_user").p_adjusted > 0.01
    assert {one.group for one in result.cohorts if one.cohort == ITEM_AGE} == {"cold", "other"}
    assert all(one.p_adjusted >= one.best.p for one in result.cohorts)


def test_all_checks_pass_on_a_sound_log(reported: tuple[ExperimentResult, Path]) -> None:
    result, _ = reported
    assert {check.name: check.verdict for check in result.checks} == {
        "the logs' gate": "passed",
        "sample ratio": "passed",
        "sample ratio by device": "passed",
        "sample ratio by tenure": "passed",
        "one arm a user": "passed",
        "logged as assigned": "passed",
        "alike before": "passed",
    }


def test_the_json_file_is_the_result(
    reported: tuple[ExperimentResult, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    result, workspace = reported
    content = json.loads((workspace / "reports/features.json").read_text())
    assert content["users"] == dict(result.users)
    assert len(content["whole"]) == 6
    assert content["settings"]["cohorts"][DEVICE]["by"] == "context['device']"
    console = Reporter(as_json=True)
    show(result, console)
    console.print_json()
    printed = json.loads(capsys.readouterr().out)
    assert {name: printed[name] for name in content if name != "notes"} == {
        name: value for name, value in content.items() if name != "notes"
    }
    assert set(content["notes"]) <= set(printed["notes"])
    assert [row["verdict"] for row in printed["Experiment features: checks"]] == ["passed"] * len(content["checks"])
    assert "<h1>Experiment features</h1>" in (workspace / "reports/features.html").read_text()


def column(table: pa.Table, name: str, values: Any) -> pa.Table:
    return table.set_column(table.schema.get_field_index(name), name, values)


def test_users_in_two_arms_or_another_than_assigned_fail_the_checks(
    log: pa.Table, tmp_path: Path, report_on: ReportOn
) -> None:
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
    with pytest.raises(GateError, match=rf"one arm a user: 3 of {people:,} users .*logged as assigned: "):
        report_on(
            tmp_path / "mixed.parquet",
            "bootstrap_samples=0",
            "metrics=[conversion_rate]",
            "max_two_arms=0.0",
            "shares={control: 1, treatment: 1}",
            "assignment={experiment: simulated, salt: salt}",
        )
    content = json.loads((tmp_path / "workspace/reports/mixed.json").read_text())
    assert sum(content["users"].values()) == people - 3
    (check,) = (check for check in content["checks"] if check["name"] == "logged as assigned")
    # u40, and those of the three whose least arm by name is not theirs.
    assert 1 <= int(check["observed"].split()[0]) <= 4
    assert any("No variance reduction" in note for note in content["notes"])


def test_lost_users_are_a_mismatch_and_the_page_is_written_all_the_same(
    log: pa.Table, tmp_path: Path, report_on: ReportOn
) -> None:
    """A treatment whose users of one group are not logged: exit code 3, whatever the lift."""
    lost = pc.and_(pc.equal(log["arm"], "treatment"), pc.starts_with(log["user_id"], "u1"))
    pq.write_table(log.filter(pc.invert(pc.fill_null(lost, False))), tmp_path / "lost.parquet")
    gate = "quality.rules={exposures.rows: {least: 1000000}}"
    message = "the logs' gate: rows = .*sample ratio: p = .*the arms cannot be compared"
    with pytest.raises(GateError, match=message) as raised:
        report_on(tmp_path / "lost.parquet", "bootstrap_samples=0", gate)
    assert raised.value.exit_code == 3
    page = (tmp_path / "workspace/reports/lost.html").read_text()
    assert "The figures below are not valid: the check sample ratio failed" in page


def test_an_outcome_log_is_given_the_arms_of_the_assignment(log: pa.Table, tmp_path: Path, report_on: ReportOn) -> None:
    """No arms in the log: those of arm(), with which it was simulated. A cohort of exposures by the item's own id."""
    pq.write_table(log.drop(["arm", "position", "context"]), tmp_path / "bare.parquet")
    result = report_on(
        tmp_path / "bare.parquet",
        "start=2024-05-01",
        "shares={control: 1, treatment: 1}",
        "assignment={experiment: simulated, salt: salt}",
        "cohorts={new: {by: \"if(cast(substr(item_id, 2) as int) >= 180, 'new', 'old')\", of: exposure}}",
        "bootstrap_samples=0",
    )
    assert of(result.whole, "conversion_rate").best.lift == pytest.approx(LIFT, abs=0.12)
    new = of(result.cohorts, "exposures_per_user", "new")
    assert new.plain.control / of(result.whole, "exposures_per_user").plain.control == pytest.approx(0.1, abs=0.01)
    assert ITEMS == 200


def test_a_a_halves_one_arm_and_counts_false_alarms(log: pa.Table, tmp_path: Path, report_on: ReportOn) -> None:
    pq.write_table(log, tmp_path / "log.parquet")
    result = report_on(tmp_path / "log.parquet", "aa_splits=400")
    assert result.whole == ()
    assert {one.metric for one in result.false_alarms} == set(result.settings["metrics"])
    for one in result.false_alarms:
        assert one.reduced is not None
        assert 0.02 <= one.plain / 400 <= 0.09
        assert 0.02 <= one.reduced / 400 <= 0.09
        assert one.quantiles[9] == pytest.approx(0.5, abs=0.1)
    assert not result.failed
    page = (tmp_path / "workspace/reports/log.html").read_text()
    assert "split in two at random 400 times" in page
