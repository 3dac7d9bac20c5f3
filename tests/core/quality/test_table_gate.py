"""A table's gate over real versions: what it measures, compares, stores and refuses, and what a refusal holds back."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from learn_spark.core.console import Reporter
from learn_spark.core.errors import GateError, SettingsError
from learn_spark.core.quality.gate import GateReport, RuleResult
from learn_spark.core.quality.profile import hash_partitions, profile
from learn_spark.core.quality.results import Results
from learn_spark.core.quality.table_gate import TableGate, check_rule_names, rules_of
from learn_spark.core.settings import Settings
from learn_spark.core.settings.platform import QualitySettings, RuleSettings
from learn_spark.core.tables import delta
from learn_spark.core.tables.contracts import Evenness, Reference, TableRule, contract
from learn_spark.core.tables.log import append_rows, read_rows
from learn_spark.core.tables.runs import Run, all_runs, new_run_id, record, versions_beside
from learn_spark.core.tables.snapshot import SnapshotError, commit_time, current_version, version_at
from learn_spark.core.tables.workspace import Workspace
from learn_spark.pipeline.check import check_table
from tests.world import write_raw

BAD_EVENT = "\t2\t3\t880000000"


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace.open(str(tmp_path / "workspace"))


def put_items(spark: SparkSession, workspace: Workspace, count: int, *, untitled: int = 0) -> int:
    """Replace the catalogue by ``count`` items, the first ``untitled`` of them without a title; the new version."""
    rows = [(str(n), None if n < untitled else f"title {n}") for n in range(count)]
    own = contract("items")
    others = [f"cast(null as {c.type}) {c.name}" for c in own.columns if c.name not in ("item_id", "title")]
    frame = spark.createDataFrame(rows, "item_id string, title string").selectExpr("*", *others)
    path = workspace.table("items")
    delta.overwrite(frame, path, own)
    version = current_version(path)
    assert version is not None
    return version


def gate_of(spark: SparkSession, workspace: Workspace, **changes: RuleSettings) -> TableGate:
    """A gate whose settings change rules of items: ``volume=RuleChange(...)``."""
    rules = {f"items.{name}": change for name, change in changes.items()}
    return TableGate(workspace, QualitySettings(rules=rules), lambda: spark)


def judged(report: GateReport | None) -> dict[str, RuleResult]:
    assert report is not None
    return {result.measure: result for result in report.results}


def broken(error: pytest.ExceptionInfo[GateError]) -> dict[str, tuple[float | None, float | None, float | None]]:
    """Rule -> (observed, least, most) of the rules that an error names."""
    return {rule.rule: (rule.observed, rule.least, rule.most) for rule in error.value.broken}


def stored(workspace: Workspace) -> list[dict[str, Any]]:
    return read_rows(workspace.table("quality_results"))


def test_a_profile_measures_what_hand_and_eye_do(spark: SparkSession) -> None:
    rows = [("a", 1.0, "x"), ("b", None, "x"), ("b", 4.0, None), ("z", None, "y"), ("z", 1.0, "y")]
    frame = spark.createDataFrame(rows, "item_id string, value double, colour string")
    others = {
        # A value that stands twice in the other table must not count a row twice.
        "items": spark.createDataFrame([("a",), ("b",), ("b",), ("c",)], "item_id string"),
        "item_text": spark.createDataFrame([("x",)], "colour string"),
    }

    def rule(name: str, **what: Any) -> TableRule:
        return TableRule(name=name, meaning="...", **what)

    rules = [
        rule("rows", measure="count(*)"),
        rule("repeated", measure="count(*) - count(distinct item_id)"),
        rule("repeats", repeats_of=["item_id"]),
        rule("no_repeats", repeats_of=["item_id", "value", "colour"]),
        rule("no_value", measure="avg(if(value is null, 1, 0))"),
        rule("mean", measure="avg(value)"),
        rule("nothing", measure="avg(if(item_id = 'q', value, null))"),
        rule("unknown_items", references=Reference(column="item_id", table="items")),
        rule("unknown_colours", references=Reference(column="colour", table="item_text")),
        rule("change", drift_of="rows"),
        rule("told", given="something"),
    ]
    expected = {
        "rows": 5.0,
        "repeated": 2.0,
        "repeats": 2.0,
        "no_repeats": 0.0,
        "no_value": 0.4,
        "mean": 2.0,
        "nothing": None,
        "unknown_items": 2.0,
        "unknown_colours": 3.0,
    }
    assert profile(frame, rules, others.__getitem__) == expected
    # Few rows, by the log: repeats are counted in the same pass.
    assert profile(frame, rules, others.__getitem__, rows=5) == expected
    assert profile(frame, rules[-2:], others.__getitem__) == {}


def test_rows_that_a_value_is_short_of_the_fullest_in_its_group(spark: SparkSession) -> None:
    counts = {("r1", "a"): 3, ("r1", "b"): 3, ("r1", "c"): 1, ("r2", "a"): 5, (None, "a"): 2, (None, None): 1}
    rows = [(run, method, i) for (run, method), n in counts.items() for i in range(n)]
    frame = spark.createDataFrame(rows, "run string, method string, place int")

    def short(*within: str) -> float | None:
        rule = TableRule(name="short", even=Evenness(within=list(within), among="method"), meaning="...")
        return profile(frame, [rule], lambda _: frame)["short"]

    # c lacks two of run r1's three, r2 has one method only, the method without a name lacks one of two.
    assert short("run") == 3.0
    # By place: 0 has a 3, b 1, c 1, none 1; 1 has a 3, b 1; 2 has a 2, b 1; from 3 on there is a alone.
    assert short("place") == 6.0 + 2.0 + 1.0
    assert profile(
        frame.limit(0),
        [TableRule(name="s", even=Evenness(within=["run"], among="method"), meaning="...")],
        lambda _: frame,
    ) == {"s": 0.0}


def test_drift_is_against_the_version_that_passed_before(spark: SparkSession, workspace: Workspace) -> None:
    gate = gate_of(spark, workspace)
    first = put_items(spark, workspace, 20)
    seen = judged(gate.require("items", first, "r1"))
    assert seen["rows"].observed == 20
    assert {seen[name].observed for name in ("volume", "new_items", "title_drift", "refused_share")} == {None}
    assert all(result.passed for result in seen.values())

    # Half of the rows vanish.
    half = put_items(spark, workspace, 10)
    with pytest.raises(GateError) as error:
        gate.require("items", half, "r2")
    assert broken(error) == {"volume": (0.5, 0.9, None)}
    assert error.value.gate == f"items @ {half}"
    assert f"items @ {half}" in str(error.value)

    # More than double, and many without a title: told, not refused; the version that failed is not compared with.
    more = put_items(spark, workspace, 50, untitled=20)
    seen = judged(report := gate.require("items", more, "r3"))
    assert report is not None
    assert report.passed
    assert seen["volume"].observed == pytest.approx(50 / 20)
    assert seen["new_items"].observed == pytest.approx(30 / 50)
    assert seen["title_drift"].observed == pytest.approx(0.4 - 0.0)
    assert [result.measure for result in report.broken("warn")] == ["new_items", "title_drift"]

    # A version that only warned is compared with.
    last = put_items(spark, workspace, 45, untitled=9)
    seen = judged(gate.require("items", last, "r4"))
    assert seen["volume"].observed == pytest.approx(45 / 50)
    assert seen["new_items"].observed == pytest.approx(-5 / 45)
    assert seen["title_drift"].observed == pytest.approx(0.2 - 0.4)
    compared = {(row["judged_version"], row["rule"]): row["compared_version"] for row in stored(workspace)}
    assert [compared[version, "volume"] for version in (first, half, more, last)] == [None, first, first, more]
    assert {compared[version, "rows"] for version in (first, half, more, last)} == {None}


def test_of_several_judgements_of_a_version_the_newest_says_whether_it_is_compared_with(
    spark: SparkSession, workspace: Workspace
) -> None:
    lax, strict = gate_of(spark, workspace), gate_of(spark, workspace, rows=RuleSettings(least=15))
    versions = [put_items(spark, workspace, count) for count in (20, 19, 14)]
    for version in versions:
        lax_seen = judged(lax.evaluate("items", version, f"lax-{version}"))
    assert lax_seen["volume"].observed == pytest.approx(14 / 19)
    small = put_items(spark, workspace, 10)
    report = strict.evaluate("items", versions[1], "strict")
    assert report is not None
    assert report.passed
    strictest = gate_of(spark, workspace, rows=RuleSettings(least=20))
    with pytest.raises(GateError) as error:
        strictest.require("items", versions[1], "strictest")
    assert broken(error) == {"rows": (19, 20, None)}
    # 14 failed by its volume, 19 by its last judgement: what is left is 20.
    found = Results(workspace).passed_before("items", small)
    assert found is not None
    assert (found[0], found[1]["rows"]) == (versions[0], 20)
    assert Results(workspace).passed_before("items", versions[0]) is None
    assert Results(workspace).passed_before("interactions", small) is None


def test_the_fingerprint_of_a_rule_leaves_out_its_wording() -> None:
    rule = contract("items").rule("rows")
    assert rule.model_copy(update={"meaning": "another wording"}).fingerprint() == rule.fingerprint()
    assert rule.model_copy(update={"least": 7.0}).fingerprint() != rule.fingerprint()


def test_settings_change_bounds_and_severity_but_must_name_a_rule() -> None:
    own = {rule.name: rule for rule in contract("items").rules}
    changed = QualitySettings(
        rules={
            "items.rows": RuleSettings(least=30),
            "items.volume": RuleSettings(severity="warn"),
            "items.no_title": RuleSettings(most=None),
            "interactions.rows": RuleSettings(least=99),
        }
    )
    found = {rule.name: rule for rule in rules_of("items", changed)}
    assert list(found) == list(own)
    assert (found["rows"].least, found["rows"].severity, found["rows"].measure) == (30, "fail", "count(*)")
    assert (found["volume"].least, found["volume"].severity) == (0.9, "warn")
    # A severity that is not named stays: this one was a warning before.
    assert (found["no_title"].most, found["no_title"].severity) == (None, "warn")
    assert {name for name in own if own[name].fingerprint() != found[name].fingerprint()} == {
        "rows",
        "volume",
        "no_title",
    }
    for name, message in (
        ("items.rowz", "has no rule 'rowz'; it has rows, repeated_keys"),
        ("itemz.rows", "there is no table 'itemz'"),
        ("rows", "there is no table 'rows'"),
        ("runs.rows", "runs has no rule 'rows'"),
    ):
        with pytest.raises(SettingsError, match=message) as error:
            check_rule_names(QualitySettings(rules={name: RuleSettings(least=1)}))
        assert f"quality.rules.{name}" in str(error.value)
        assert error.value.exit_code == 2


def test_a_wrong_rule_name_stops_a_run_before_anything_is_done(
    small_settings: Callable[..., Settings], run: Callable[..., Any]
) -> None:
    settings = small_settings("quality.rules={items.rowz: {least: 1}}")
    with pytest.raises(SettingsError, match=r"quality\.rules\.items\.rowz"):
        run(settings, "ingest")
    assert not Path(settings.workspace).exists()


def test_results_are_stored_and_only_a_changed_rule_is_evaluated_again(
    spark: SparkSession, workspace: Workspace
) -> None:
    version = put_items(spark, workspace, 12, untitled=3)
    assert gate_of(spark, workspace).require("items", version, "r1") is not None
    rows = {row["rule"]: row for row in stored(workspace)}
    assert set(rows) == {rule.name for rule in contract("items").rules}
    for rule in contract("items").rules:
        row = rows[rule.name]
        assert (row["run_id"], row["judged_table"], row["judged_version"]) == ("r1", "items", version)
        assert (row["fingerprint"], row["severity"], row["meaning"]) == (
            rule.fingerprint(),
            rule.severity,
            rule.meaning,
        )
        assert (row["least"], row["most"], row["passed"]) == (rule.least, rule.most, True)
    assert (rows["rows"]["observed"], rows["no_title"]["observed"]) == (12, 0.25)

    # Evaluated already, by this process or by another: nothing is measured or stored.
    def no_spark() -> SparkSession:
        raise AssertionError("nothing is to be measured")

    assert TableGate(workspace, QualitySettings(), no_spark).require("items", version, "r2") is None
    assert len(stored(workspace)) == len(rows)

    stricter = gate_of(spark, workspace, rows=RuleSettings(least=13))
    with pytest.raises(GateError) as error:
        stricter.require("items", version, "r3")
    assert broken(error) == {"rows": (12, 13, None)}
    again = [row for row in stored(workspace) if row["run_id"] == "r3"]
    assert len(again) == len(rows)
    changed = {row["rule"] for row in again if row["fingerprint"] != rows[row["rule"]]["fingerprint"]}
    assert changed == {"rows"}
    # Failed results are stored too, and so are the results of the earlier rules.
    remembered = TableGate(workspace, QualitySettings(rules={"items.rows": RuleSettings(least=13)}), no_spark)
    with pytest.raises(GateError) as error:
        remembered.require("items", version, "r4")
    assert broken(error) == {"rows": (12, 13, None)}
    assert TableGate(workspace, QualitySettings(), no_spark).require("items", version, "r5") is None
    assert len(stored(workspace)) == 2 * len(rows)


def test_references_are_read_as_they_were_when_the_version_was_committed(
    spark: SparkSession, small_settings: Callable[..., Settings]
) -> None:
    settings = small_settings()
    workspace = Workspace.open(settings.workspace)
    path = workspace.table("item_index")
    put_items(spark, workspace, 5)
    put_items(spark, workspace, 20)
    numbers = spark.range(20).selectExpr("cast(id as string) item_id", "cast(id + 1 as int) item_index")
    delta.overwrite(numbers, path, contract("item_index"))
    old = current_version(path)
    assert old is not None
    # Half of the catalogue vanishes after the commit, and only then is there another version of the index.
    half = put_items(spark, workspace, 10)
    delta.overwrite(numbers, path, contract("item_index"))
    new = current_version(path)
    assert new is not None

    gate, pinned = gate_of(spark, workspace), {"items": half, "item_index": old}
    assert judged(gate.evaluate("item_index", old, "r1"))["known_items"].observed == 0
    assert judged(gate.evaluate("item_index", new, "r2"))["known_items"].observed == 10
    assert judged(gate.evaluate("item_index", old, "r3", versions=pinned))["known_items"].observed == 10
    quiet = Reporter(quiet=True)
    assert check_table("item_index", settings, console=quiet, version=old).passed
    with pytest.raises(GateError) as error:
        check_table("item_index", settings, console=quiet, version=new)
    assert broken(error) == {"known_items": (10, None, 0)}


def test_references_of_recorded_runs_are_read_by_version_whatever_the_clocks_say(
    spark: SparkSession, small_settings: Callable[..., Settings]
) -> None:
    settings = small_settings()
    workspace = Workspace.open(settings.workspace)
    path = workspace.table("item_index")

    def recorded(job: str, inputs: dict[str, int], outputs: dict[str, int]) -> None:
        texts = [{name: str(number) for name, number in versions.items()} for versions in (inputs, outputs)]
        record(workspace, Run(new_run_id(), job, "done", "c", "v", *texts, {}, 1.0, datetime.now(UTC)))

    whole = put_items(spark, workspace, 20)
    recorded("ingest", {}, {"items": whole})
    half = put_items(spark, workspace, 10)
    numbers = spark.range(20).selectExpr("cast(id as string) item_id", "cast(id + 1 as int) item_index")
    delta.overwrite(numbers, path, contract("item_index"))
    old = current_version(path)
    assert old is not None
    # The index was made from the whole catalogue by a run on a machine whose clock is late.
    recorded("index", {}, {"item_index": old})
    recorded("ingest", {}, {"items": half})
    delta.overwrite(numbers, path, contract("item_index"))
    new = current_version(path)
    assert new is not None
    recorded("index", {"items": half}, {"item_index": new})
    assert versions_beside(workspace, "item_index", old) == {"items": whole, "item_index": old}
    assert versions_beside(workspace, "item_index", new) == {"items": half, "item_index": new}
    assert versions_beside(workspace, "item_index", new + 1) == {}
    gate = gate_of(spark, workspace)
    assert judged(gate.evaluate("item_index", old, "r1"))["known_items"].observed == 0
    assert judged(gate.evaluate("item_index", new, "r2"))["known_items"].observed == 10


def test_a_version_that_was_current_at_a_time(spark: SparkSession, workspace: Workspace) -> None:
    versions = [put_items(spark, workspace, count) for count in (3, 2, 1)]
    path = workspace.table("items")
    times = [commit_time(path, version) for version in versions]
    assert times == sorted(times)
    assert [version_at(path, time) for time in times] == versions
    assert version_at(path, times[1] - timedelta(microseconds=1)) == versions[0]
    assert version_at(path, times[2] + timedelta(days=1)) == versions[2]
    assert version_at(path, times[0] - timedelta(days=1)) == 0


def test_a_run_writes_the_pages_of_its_gates_at_its_end(
    small_settings: Callable[..., Settings], run: Callable[..., Any]
) -> None:
    settings = small_settings()
    run(settings, "ingest", "histories")
    workspace = Workspace.open(settings.workspace)
    judgements = {(row["judged_table"], row["judged_version"]) for row in stored(workspace)}
    folder = workspace.folder("reports", "quality")
    pages = {(page.parent.name, page.stem) for page in folder.rglob("*/*.html")}
    assert len(pages) > 3
    assert pages == {(table, f"{table}-{version}") for table, version in judgements}


def test_a_rule_that_is_gone_no_longer_refuses(spark: SparkSession, workspace: Workspace) -> None:
    version = put_items(spark, workspace, 12)
    gate_of(spark, workspace).require("items", version, "r1")
    old = {row["rule"]: row for row in stored(workspace)}["rows"]
    gone = [{**row, "run_id": "r0"} for row in stored(workspace)]
    gone.append({**old, "run_id": "r0", "rule": "gone", "fingerprint": "0" * 16, "passed": False})
    other = Workspace.open(str(workspace.root.parent / "other"))
    append_rows(other.table("quality_results"), contract("quality_results"), gone)
    put_items(spark, other, 12)
    assert judged(gate_of(spark, other).require("items", version, "r2"))["rows"].passed


def test_a_number_of_the_run_is_judged_though_the_run_wrote_no_version(
    spark: SparkSession, workspace: Workspace
) -> None:
    version = put_items(spark, workspace, 12)
    gate = gate_of(spark, workspace)
    assert judged(gate.require("items", version, "r1", {"items_refused_share": 0.1}))["refused_share"].observed == 0.1
    # The same number, or none, is nothing new.
    assert gate.require("items", version, "r2", {"items_refused_share": 0.1}) is None
    assert gate.require("items", version, "r3") is None
    # All rows of a delivery were refused, so that the table stayed as it was.
    for run, given in (("r4", {"items_refused_share": 1.0}), ("r5", None)):
        with pytest.raises(GateError) as error:
            gate.require("items", version, run, given)
        assert broken(error) == {"refused_share": (1, None, 0.5)}
    # A later judgement takes the number from the earlier one.
    with pytest.raises(GateError) as error:
        gate_of(spark, workspace, rows=RuleSettings(least=2)).require("items", version, "r6")
    assert broken(error) == {"refused_share": (1, None, 0.5)}
    assert judged(gate.require("items", version, "r7", {"items_refused_share": 0.0}))["refused_share"].passed
    assert gate.require("items", version, "r8") is None


def test_a_broken_gate_after_ingest_holds_back_what_is_downstream(
    small_settings: Callable[..., Settings], run: Callable[..., Any], prepared: Callable[..., None], tmp_path: Path
) -> None:
    settings = small_settings()
    prepared("ingest", "histories")
    workspace = Workspace.open(settings.workspace)
    before = {t: current_version(workspace.table(t)) for t in ("interactions", "user_histories")}

    # A delivery of one new event among two that are bad: two thirds are refused.
    (tmp_path / "raw" / "ml-100k.inter").unlink()
    write_raw(tmp_path / "raw", events=["1\t2\t3\t889999999", BAD_EVENT, BAD_EVENT.replace("3", "4")])
    with pytest.raises(GateError) as error:
        run(settings, "ingest", "histories")
    assert error.value.exit_code == 3
    assert broken(error) == {"refused_share": (pytest.approx(2 / 3), None, 0.5)}
    assert error.value.broken[0].meaning.startswith("share of")
    written = current_version(workspace.table("interactions"))
    assert written != before["interactions"]
    assert f"interactions @ {written}" in str(error.value)
    assert [(r.job, r.status) for r in all_runs(workspace)] == [
        ("ingest", "done"),
        ("histories", "done"),
        ("ingest", "refused"),
    ]
    refused = all_runs(workspace)[-1]
    assert refused.message == str(error.value)
    assert refused.counts["refused"] == 2
    assert refused.outputs["interactions"] == str(written)

    # Asked for alone, histories finds the same; so does ingest, which has nothing new to read.
    for stage in ("histories", "ingest"):
        with pytest.raises(GateError) as again:
            run(settings, stage)
        assert set(broken(again)) == {"refused_share"}
    assert [(r.job, r.status) for r in all_runs(workspace)[3:]] == [("histories", "refused"), ("ingest", "refused")]
    assert current_version(workspace.table("user_histories")) == before["user_histories"]

    # The page that the error names has rule, observed and bound, and says which version it is about.
    page = Path(str(error.value).rpartition("Data Docs: ")[2]).read_text(encoding="utf-8")
    for word in ("refused_share", "0.666", "less than or equal to", f"interactions-{written}"):
        assert word in page

    lenient = small_settings("quality.rules={interactions.refused_share: {severity: warn}}")
    outcomes = run(lenient, "ingest", "histories")
    assert [outcome.run.status for outcome in outcomes] == ["done", "done"]
    assert current_version(workspace.table("user_histories")) != before["user_histories"]
    newest = {
        row["rule"]: row
        for row in sorted(stored(workspace), key=lambda row: row["judged_at"])
        if row["judged_table"] == "interactions"
    }
    told = newest["refused_share"]
    assert (told["passed"], told["severity"], told["observed"]) == (False, "warn", pytest.approx(2 / 3))


def test_a_check_alone(
    spark: SparkSession,
    small_settings: Callable[..., Settings],
    capsys: pytest.CaptureFixture[str],
) -> None:
    settings = small_settings()
    workspace = Workspace.open(settings.workspace)
    quiet = Reporter(quiet=True)
    with pytest.raises(SettingsError, match=r"there is no table items in .* yet"):
        check_table("items", settings, console=quiet)
    with pytest.raises(SettingsError, match="the contract of runs has no rules to check"):
        check_table("runs", settings, console=quiet)
    with pytest.raises(SettingsError, match="there is no table 'itemz'"):
        check_table("itemz", settings, console=quiet)

    old, new = put_items(spark, workspace, 30), put_items(spark, workspace, 6, untitled=6)
    assert check_table("items", settings, console=quiet, version=old).title == f"items @ {old}"
    assert not list(workspace.folder("reports").rglob("*.html"))
    with_docs = check_table("items", settings, console=quiet, version=old, docs=True)
    assert with_docs.docs.is_file()
    with pytest.raises(GateError) as error:
        check_table("items", settings, console=Reporter())
    assert error.value.exit_code == 3
    assert broken(error) == {"volume": (0.2, 0.9, None)}
    said = capsys.readouterr().out
    lines = {line.split()[0]: line for line in said.splitlines() if line.strip()}
    for rule, words in {
        "rows": ["6", "1", "passed"],
        "volume": ["0.2", "0.9", "broken"],
        "no_title": ["1", "0.5", "warning"],
        "refused_share": ["0.5", "passed"],
    }.items():
        assert lines[rule].split()[1 : 1 + len(words)] == words
    assert Path(lines["Data"].partition("Docs")[2].strip()).is_file()
    with pytest.raises(SnapshotError, match="version 99"):
        check_table("items", settings, console=quiet, version=99)
    # Checked again, it is judged again, whatever was said before; under milder rules it passes.
    mild = small_settings("quality.rules={items.volume: {least: 0.1}}")
    assert check_table("items", mild, console=quiet).passed
    runs = {row["run_id"]: row["judged_version"] for row in stored(workspace)}
    assert sorted(runs.values()) == [old, old, new, new]
    assert all_runs(workspace) == []


def test_partitions_of_hashes_follow_rows_and_then_bytes() -> None:
    assert [hash_partitions(rows) for rows in (0, 149_999, 1_050_000, 150_000_000)] == [1, 1, 7, 1_000]
    assert hash_partitions(10**10) == 10**10 * 8 // (32 << 20)  # 2,384 tasks of 32 MiB of hashes
    assert sorted(sizes := [hash_partitions(10**n) for n in range(13)]) == sizes
