"""The exposures stage: logs with bad rows, interactions, the quality gate, and runs with nothing to do."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from learn_spark.core.console import Reporter
from learn_spark.core.errors import GateError, LearnSparkError, SettingsError
from learn_spark.core.settings import Settings, load_settings
from learn_spark.core.settings.load import find_config
from learn_spark.core.tables import delta
from learn_spark.core.tables.log import read_rows
from learn_spark.core.tables.runs import all_runs
from learn_spark.core.tables.snapshot import current_version
from learn_spark.core.tables.workspace import Workspace
from learn_spark.data.sources.source import UnreadableFileError
from learn_spark.pipeline.erasure.erase import erase
from learn_spark.pipeline.runner import run_stages
from tests.ads.exposures.journey_world import exposure_settings, write_journey
from tests.ads.exposures.test_journey_exposures import CHOSEN, WORLD, exposures_of
from tests.report.planted import plant

Run = Callable[..., Any]
LOOSE = "quality.rules={exposures.refused_share: {most: 1}}"
LINES = [
    '{"id": "a", "who": "u1", "sku": "i1", "at": "2024-05-01T10:00:00", "took": "true", "paid": "2.5", "slot": "1"}',
    # Once more, later, and with another outcome: the later one counts.
    '{"id": "a", "who": "u1", "sku": "i1", "at": "2024-05-01T11:00:00", "took": "false", "slot": "1"}',
    '{"id": "b", "who": "u2", "sku": "i1", "at": "2024-05-02T10:00:00", "took": "0", "about": {"device": "tv"}}',
    '{"id": "b", "who": "u2", "sku": "i1", "at": "2024-05-02T10:00:00", "took": "0", "about": {"device": "tv"}}',
    '{"id": "c", "who": "u2", "sku": "i2", "at": "2024-05-03T00:00:00", "took": "1", "paid": "4", "counts": "10"}',
    '{"id": "d", "who": "u3", "sku": "i2", "at": "2024-04-30T23:59:59.999999", "took": "0"}',
    '{"id": "e", "who": " ", "sku": "i2", "at": "never", "took": "0"}',
    '{"id": "f", "who": "u3", "sku": "i2", "at": "2024-05-02T10:00:00", "took": "perhaps", "counts": "-1"}',
    '{"id": "g", "who": "u3",',
]


def own_logs(folder: Path, lines: list[str], *overrides: str, **exposures: Any) -> Settings:
    (folder / "shown").mkdir(parents=True, exist_ok=True)
    (folder / "shown" / "1.json").write_text("\n".join(lines) + "\n")
    columns = {"event_id": "id", "user_id": "who", "item_id": "sku", "event_time": "at", "converted": "took"}
    columns |= {"revenue": "paid", "position": "slot", "context": "about", "weight": "counts"}
    log = {"files": "shown/*.json", "format": "json-lines", "columns": columns}
    return exposure_settings(folder, {"from": "logs", "path": str(folder), "logs": [log], **exposures}, *overrides)


def test_own_logs_with_bad_rows(tmp_path: Path, run: Run) -> None:
    settings = own_logs(tmp_path, LINES, LOOSE, since="2024-05-01", until="2024-05-03")
    (outcome,) = run(settings, "exposures")
    rows = exposures_of(settings)
    assert [(row["event_id"], row["event_time"], row["converted"], row["revenue"]) for row in rows] == [
        ("a", datetime(2024, 5, 1, 11, tzinfo=UTC), False, None),
        ("b", datetime(2024, 5, 2, 10, tzinfo=UTC), False, None),
    ]
    assert [(row["position"], row["context"] or {}, row["weight"]) for row in rows] == [
        (1, {}, 1.0),
        (None, {"device": "tv"}, 1.0),
    ]
    counts = outcome.run.counts
    names = ("rows_in", "rows_out", "refused", "duplicates", "outside", "not_sampled")
    assert [counts[name] for name in names] == [9, 2, 3, 2, 2, 0]
    refused = read_rows(f"{settings.workspace}/tables/quarantine")
    assert {row["source_table"] for row in refused} == {"exposures"}
    assert {row["source_file"] for row in refused} == {"shown/1.json"}
    assert sorted(row["reasons"] for row in refused) == [
        ["converted is not true or false", "weight is not a number from 0 on"],
        ["event_time is not a time", "no user_id"],
        ["malformed line"],
    ]
    assert {json.loads(row["raw"]).get("id") for row in refused} == {"e", "f", None}
    assert outcome.run.outputs["exposures"] == str(current_version(f"{settings.workspace}/tables/exposures"))
    assert list(outcome.run.inputs) == [f"files:{tmp_path}"]
    assert not list(Path(settings.workspace).glob("staging/*"))


def test_exposures_of_erased_users_stay_out_when_the_logs_are_read_again(tmp_path: Path, run: Run) -> None:
    refused = '{"id": "h", "who": "u2", "sku": "i2", "at": "2024-05-02T10:00:00", "took": "perhaps"}'
    settings = own_logs(tmp_path, [*LINES, refused], LOOSE)
    run(settings, "exposures")
    assert [row["user_id"] for row in exposures_of(settings)] == ["u1", "u2", "u2", "u3"]
    users = tmp_path / "gone.csv"
    users.write_text("user_id\nu2\n")
    done = erase(settings, str(users), delete=True, console=Reporter(quiet=True))
    assert done.found.rows == {"exposures": 2, "quarantine": 1}
    (outcome,) = run(settings, "exposures")
    assert {row["user_id"] for row in exposures_of(settings)} == {"u1", "u3"}
    names = ("rows_in", "rows_out", "refused", "duplicates", "erased")
    assert [outcome.run.counts[name] for name in names] == [10, 2, 4, 2, 2]
    kept = read_rows(f"{settings.workspace}/tables/quarantine")
    assert {json.loads(row["raw"]).get("id") for row in kept} == {"e", "f", None}


def test_positions_from_0_and_another_unit_of_time_are_named_before_rows_are_judged(tmp_path: Path, run: Run) -> None:
    def shown(*, place: int, at: Any) -> str:
        return json.dumps({"who": "u", "sku": f"i{place}", "at": at, "took": "0", "position": place, "device": "tv"})

    def settings_of(lines: list[str], **log: Any) -> Settings:
        (tmp_path / "shown").mkdir(exist_ok=True)
        (tmp_path / "shown" / "1.json").write_text("\n".join(lines) + "\n")
        columns = {"user_id": "who", "item_id": "sku", "event_time": "at", "converted": "took"}
        described = {"files": "shown/*.json", "format": "json-lines", "columns": columns, **log}
        return exposure_settings(tmp_path, {"from": "logs", "path": str(tmp_path), "logs": [described]})

    from_zero = [shown(place=place, at="2024-05-01T10:00:00") for place in range(4)]
    with pytest.raises(SettingsError, match=r"exposures\.logs\.0: position is 0 in 1 of 4 rows.*first_position: 0"):
        run(settings_of(from_zero), "exposures")
    assert current_version(f"{settings_of(from_zero).workspace}/tables/quarantine") is None
    counting = settings_of(from_zero, first_position=0)
    run(counting, "exposures")
    assert sorted(row["position"] for row in exposures_of(counting)) == [1, 2, 3, 4]
    unnamed = settings_of(from_zero, by_name=False)
    run(unnamed, "exposures")
    assert {row["position"] for row in exposures_of(unnamed)} == {None}
    epochs = [shown(place=place, at=1_714_557_600 + place) for place in range(1, 4)]
    with pytest.raises(SettingsError, match=r"exposures\.logs\.0\.columns\.event_time: 3 of 3 values.*time_unit: s"):
        run(settings_of(epochs), "exposures")


def test_a_broken_optional_field_becomes_null_and_an_unreadable_file_is_skipped(
    tmp_path: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    def shown(**changed: Any) -> str:
        row = {"who": "u", "sku": "i", "at": "2024-05-01T10:00:00", "took": "1", "paid": "2", "arm": "a", **changed}
        return json.dumps(row)

    lines = [
        shown(id="fine", position=3, paid="2.5"),
        shown(id="price", paid="9,90"),
        shown(id="place", position="first"),
        shown(id="about", context="phone"),
        shown(id="bytes", context={"device": "t\ufffdv"}),
        # A weight that is no number is refused: without one a row counts once, which would be a guess.
        shown(id="weight", weight="many"),
        shown(id="arm", arm="b\ufffd"),
    ]
    folder = tmp_path / "shown"
    folder.mkdir()
    (folder / "1.json").write_text("\n".join(lines) + "\n")
    whole = gzip.compress("\n".join(shown(id=f"cut{n}") for n in range(3_000)).encode())
    (folder / "2.json.gz").write_bytes(whole[: len(whole) // 2])
    (folder / "3.json").write_text("[" + shown(id="array") + "]")
    columns = {"event_id": "id", "user_id": "who", "item_id": "sku", "event_time": "at", "converted": "took"}
    columns |= {"revenue": "paid"}
    log = {"files": "shown/*.json*", "format": "json-lines", "columns": columns}

    def settings_of(unreadable: str, pattern: str) -> Settings:
        exposures = {"from": "logs", "path": str(tmp_path), "logs": [log | {"files": pattern}]}
        return exposure_settings(tmp_path, {**exposures, "unreadable": unreadable}, LOOSE)

    for pattern, name in (("shown/2.json*", r"shown/2\.json\.gz: "), ("shown/3.json", r"shown/3\.json: .* JSON array")):
        with pytest.raises(UnreadableFileError, match=name):
            run(settings_of("stop", pattern), "exposures")
    with pytest.raises(LearnSparkError, match="none of the 1 files"):
        run(settings_of("skip", "shown/3.json"), "exposures")
    settings = settings_of("skip", "shown/*.json*")
    (outcome,) = run_stages(["exposures"], settings, console=Reporter())
    printed = capsys.readouterr().out
    rows = {row["event_id"]: (row["revenue"], row["position"], row["context"]) for row in exposures_of(settings)}
    assert rows == {
        "fine": (2.5, 3, None),
        "price": (None, None, None),
        "place": (2.0, None, None),
        "about": (2.0, None, None),
        "bytes": (2.0, None, None),
    }
    counts = outcome.run.counts
    assert [counts[name] for name in ("rows_in", "refused", "fields_nulled", "files_skipped")] == [7, 2, 4, 2]
    reasons = {tuple(row["reasons"]) for row in read_rows(f"{settings.workspace}/tables/quarantine")}
    assert reasons == {("not UTF-8",), ("weight is not a number from 0 on",)}
    assert "exposures.logs.0: read by their names: arm, position, context, weight" in printed
    for said in ("skip: shown/2.json.gz: ", "skip: shown/3.json: ", "1 row: revenue is not a number, as in", "9,90"):
        assert said in printed, said


def test_a_log_that_is_mostly_refused_stops_at_the_gate(tmp_path: Path, run: Run) -> None:
    settings = own_logs(tmp_path, LINES[:1])
    run(settings, "exposures")
    path = f"{settings.workspace}/tables/exposures"
    before = current_version(path)
    own_logs(tmp_path, LINES)
    with pytest.raises(GateError) as error:
        run(settings, "exposures")
    assert error.value.gate.startswith("exposures @ ")
    assert {rule.rule: (rule.observed, rule.most) for rule in error.value.broken} == {
        "refused_share": (pytest.approx(1 / 3), 0.05)
    }
    (last, *_) = reversed(all_runs(Workspace.open(settings.workspace)))
    assert (last.job, last.status) == ("exposures", "refused")
    good = delta.read(SparkSession.active(), path, before).collect()
    assert [(row.event_id, row.converted) for row in good] == [("a", True)]
    # The refused version is not used, though nothing changed since.
    with pytest.raises(GateError):
        run(settings, "exposures")


def test_it_rests_until_something_changes(tmp_path: Path, run: Run) -> None:
    settings = own_logs(tmp_path, LINES[:1])
    path = f"{settings.workspace}/tables/exposures"
    assert [outcome.up_to_date for outcome in run(settings, "exposures")] == [False]
    version = current_version(path)
    assert [outcome.up_to_date for outcome in run(settings, "exposures")] == [True]
    assert current_version(path) == version
    own_logs(tmp_path, LINES[2:3])
    assert [outcome.up_to_date for outcome in run(settings, "exposures")] == [False]
    assert [row["event_id"] for row in exposures_of(settings)] == ["b"]
    later = own_logs(tmp_path, LINES[2:3], since="2024-05-02")
    assert [outcome.up_to_date for outcome in run(later, "exposures")] == [False]


def test_empty_and_missing_logs_are_errors(tmp_path: Path, run: Run) -> None:
    with pytest.raises(LearnSparkError, match="have no row"):
        run(_passing_over_all(tmp_path), "exposures")
    settings = own_logs(tmp_path, LINES)
    (tmp_path / "shown" / "1.json").unlink()
    with pytest.raises(LearnSparkError, match=r"there is no shown/\*\.json"):
        run(settings, "exposures")


def _passing_over_all(folder: Path) -> Settings:
    settings = own_logs(folder, LINES[:1])
    tree = settings.exposures.logs[0].model_dump() | {"where": "id = 'z'"}
    return exposure_settings(folder, {"from": "logs", "path": str(folder), "logs": [tree]})


def test_interactions_as_exposures(tmp_path: Path, run: Run) -> None:
    """Four ratings: one before the period, a high and a low one, and one without a value."""
    settings = exposure_settings(tmp_path, {"from": "interactions", "since": "2024-05-02", "positive_value": 4.0})
    with pytest.raises(LearnSparkError, match="exposures reads the table interactions, which does not exist"):
        run(settings, "exposures")
    workspace = Workspace.open(settings.workspace)
    ratings = [
        {
            "event_id": f"e{n}",
            "user_id": "u1",
            "item_id": f"i{n}",
            "event_type": "rating",
            "value": value,
            "event_time": datetime(2024, 5, day, tzinfo=UTC),
            "event_date": date(2024, 5, day),
        }
        for n, (value, day) in enumerate([(5.0, 1), (4.0, 2), (3.9, 3), (None, 4)])
    ]
    plant(workspace, "items", [{"item_id": row["item_id"]} for row in ratings])
    plant(workspace, "interactions", ratings)
    (outcome,) = run(settings, "exposures")
    rows = exposures_of(settings)
    assert [
        (row["event_id"], row["user_id"], row["item_id"], row["event_time"].day, row["converted"]) for row in rows
    ] == [
        ("e1", "u1", "i1", 2, True),
        ("e2", "u1", "i2", 3, False),
        ("e3", "u1", "i3", 4, False),
    ]
    assert {(row["arm"], row["position"], row["revenue"], row["weight"]) for row in rows} == {(None, None, None, 1.0)}
    assert not any(row["context"] for row in rows)
    assert (outcome.run.counts["rows_in"], outcome.run.counts["outside"]) == (4, 1)
    assert outcome.run.inputs == {"interactions": str(current_version(f"{settings.workspace}/tables/interactions"))}


def test_a_dry_run_prints_what_it_would_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_journey(tmp_path / "raw", WORLD)
    settings = exposure_settings(tmp_path, {**CHOSEN, "path": str(folder)})
    run_stages(["exposures"], settings, console=Reporter(), dry_run=True)
    message = capsys.readouterr().out
    assert "exposures: would run, because it has not run yet" in message
    assert f"reads  {folder}" in message
    assert "writes exposures, quarantine" in message
    assert current_version(f"{settings.workspace}/tables/exposures") is None


@pytest.mark.parametrize(
    ("exposures", "message"),
    [
        ({"from": "logs"}, "exposures: logs must be given if from is logs: logs: [{files: ..., columns: {...}}]"),
        ({"from": "complete-journey", "logs": [{"files": "*"}]}, "exposures.logs: a setting of exposures.from logs"),
        (
            {"logs": [{"files": "*"}]},
            "exposures.logs: a setting of exposures.from logs, and exposures.from is interactions",
        ),
        ({"coupon_rate": 0.5}, "exposures.coupon_rate: a setting of exposures.from complete-journey"),
        ({"from": "shop"}, "exposures.from: must be one of interactions, logs, complete-journey (got 'shop')"),
        ({"since": "2024-05-02", "until": "2024-05-02"}, "since 2024-05-02 is not before until 2024-05-02"),
        ({"since": "yesterday"}, "'yesterday' is not an ISO time"),
        (
            {"from": "complete-journey", "promotion_rate": 0.0},
            "exposures.promotion_rate: input should be greater than 0",
        ),
        ({"form": "logs"}, "exposures.form: there is no such setting; did you mean exposures.from?"),
        ({"from": "complete-journey", "kinds": []}, "exposures.kinds"),
    ],
)
def test_contradictions_are_refused(tmp_path: Path, exposures: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError) as error:
        exposure_settings(tmp_path, exposures)
    assert message in str(error.value)


def test_the_settings_beside_a_run_can_be_read_again(tmp_path: Path, run: Run) -> None:
    settings = own_logs(tmp_path, LINES[:1], since="2024-05-01")
    (outcome,) = run(settings, "exposures")
    saved = Path(settings.workspace) / "runs" / outcome.run.run_id / "settings.yaml"
    assert load_settings(saved) == settings


def test_the_bundled_settings_know_nothing_of_their_exposures() -> None:
    """Tower and features end before the first exposure, so that no release may know what came of it."""
    for name in ("ads", "complete-journey-ads"):
        settings = load_settings(find_config(name))
        as_of, since = settings.histories.as_of_micros(), settings.exposures.since_micros()
        assert as_of is not None
        assert since is not None
        assert as_of <= since
        stages = settings.pipeline.stages
        assert stages.index("publish") < stages.index("exposures") < stages.index("rank_ads")
