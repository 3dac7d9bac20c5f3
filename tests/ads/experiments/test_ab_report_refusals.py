"""What ab-report refuses: logs that cannot be compared, contradictory settings, and unknown files."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from learn_spark.ads.experiments.analysis import analyse
from learn_spark.ads.experiments.configure import settings_of
from learn_spark.ads.experiments.rows import Rows, prepare
from learn_spark.ads.experiments.simulate import simulated_log
from learn_spark.ads.experiments.users import Users, make_users
from learn_spark.core.errors import LearnSparkError, SettingsError
from learn_spark.core.settings.experiment import ExperimentSettings
from learn_spark.data.sources.exposure_log import read_logs


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
def test_arms_that_cannot_be_compared_are_errors(
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
def test_times_and_cohorts_that_do_not_fit_are_errors(
    overrides: list[str], message: str, small: Path, rows: Rows, tmp_path: Path
) -> None:
    with pytest.raises(LearnSparkError, match=message):
        make_users(rows.frame, settings_of(str(small), overrides), tmp_path)


def test_one_arm_alone_and_none_at_all_are_errors(small: Path, rows: Rows, tmp_path: Path) -> None:
    settings = settings_of(str(small), [])
    one_arm = make_users(rows.frame.where("arm = 'control'"), settings, tmp_path)
    with pytest.raises(LearnSparkError, match="users are in one arm, control; there is nothing to compare it with"):
        analyse(settings, rows, one_arm, [], "r", 0.0)
    with pytest.raises(
        LearnSparkError, match="no row of the logs has an arm, so the start of the experiment is unknown"
    ):
        make_users(rows.frame.withColumn("arm", F.lit(None).cast("string")), settings, tmp_path)


def test_logs_without_what_is_needed_are_errors(small: Path, spark: SparkSession, tmp_path: Path) -> None:
    pq.write_table(pq.read_table(small).drop(["converted"]), tmp_path / "bare.parquet")
    settings = settings_of(str(tmp_path / "bare.parquet"), [])
    with pytest.raises(SettingsError, match=r"no column converted, and \w+\.\d+\.columns does not map it"):
        read_logs(spark, tmp_path, settings.logs, {})
    logs = settings_of(str(small), []).logs
    with pytest.raises(SettingsError, match="an expression does not fit the columns of exposures"):
        read_logs(spark, small.parent, logs, {"bad": "nothing + 1"})
    wrong = logs[0].model_copy(update={"columns": {"arm": "variant"}})
    with pytest.raises(
        SettingsError, match=r"logs\.0\.columns\.arm: 'variant' does not fit the files: there is no column variant"
    ):
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
def test_settings_that_contradict_themselves_are_errors(overrides: list[str], message: str, small: Path) -> None:
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
        line = [sys.executable, "-c", "from learn_spark.commands.main import main; main()", "ab-report", *arguments]
        return subprocess.run(line, capture_output=True, text=True, timeout=300, check=False)

    planned = command(str(small), "--dry-run", "--set", f"workspace={tmp_path}")
    assert planned.returncode == 0, planned.stderr
    assert "would read   1 of small.parquet" in planned.stdout
    assert f"would write  {tmp_path}/reports/small.html" in planned.stdout
    missing = command("nowhere.parquet")
    assert missing.returncode == 2
    assert "there is no nowhere.parquet; name a log" in missing.stderr
