"""What a run says of refused rows and corrections, the command quarantine, and rows that later settings accept."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from learn_spark.commands.main import main
from learn_spark.commands.quarantine import show
from learn_spark.core.console import Reporter
from learn_spark.core.quality.refused import by_reason, refused_rows
from learn_spark.core.quality.table_gate import rules_of
from learn_spark.core.settings import Settings
from learn_spark.core.settings.platform import QualitySettings
from learn_spark.core.tables.runs import all_runs
from learn_spark.core.tables.workspace import Workspace
from learn_spark.pipeline.runner import run_stages
from tests.data.sources.test_row_values import EVENT_COLUMNS, SECONDS, rows, shop, write

__all__ = ["shop"]


def test_refused_rows_are_said_by_reason_and_go_in_once_the_settings_fit(
    spark: SparkSession,
    shop: Callable[..., Settings],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tmp_path / "own"
    write(folder / "items.csv", "sku,name,brand,cost,changed", 'A,Lamp,,"9,90",', "B,Rug,,EUR 1,", ",None,,,")
    good = [f"u{number},A,1,{SECONDS + number}" for number in range(3)]
    write(folder / "log-1.csv", "u,sku,n,t", *good, "ann,A,1,28.11.2024 09:00", "bob,A,1,29.11.2024 09:00", "eve,Z,1,")
    write(folder / "log-2.csv", "u,sku,n,t", f"kime\u0301,A,1,{SECONDS}", f",A,1,{SECONDS}")
    settings = shop()

    def ingest(chosen: Settings, *, force: bool = False) -> tuple[Any, list[str]]:
        (outcome,) = run_stages(("ingest",), chosen, console=Reporter(), force=force)
        return outcome.run.counts, [line.strip() for line in capsys.readouterr().out.splitlines()]

    counts, lines = ingest(settings)
    assert (counts["refused"], counts["fields_nulled"], counts["left_quarantine"]) == (5, 2, 0)
    assert any(line.startswith("refused: 4 of 8 rows of interactions (50.00%)") for line in lines)
    (times,) = [line for line in lines if "event_time is not a time" in line]
    assert times.startswith("2 rows: ")
    assert "28.11.2024 09:00" in times
    assert "(log-1.csv)" in times
    assert any(line.startswith("2 rows: price is not a number") for line in lines)
    assert any(line.startswith("warning: user_id of 1 rows of interactions") and "kime\u0301" in line for line in lines)
    assert any(line.startswith("warning: refused = 0.5") for line in lines)

    workspace = Workspace.open(settings.workspace)
    found = {
        table: {one.reason: (one.rows, one.file) for one in counts}
        for table, counts in by_reason(refused_rows(workspace)).items()
    }
    assert found == {
        "items": {"no item_id": (1, "items.csv")},
        "interactions": {
            "event_time is not a time": (2, "log-1.csv"),
            "no event_time": (1, "log-1.csv"),
            "unknown item": (1, "log-1.csv"),
            "no user_id": (1, "log-2.csv"),
        },
    }
    assert {row.file for row in refused_rows(workspace, file="log-*.csv")} == {"log-1.csv", "log-2.csv"}
    assert len(refused_rows(workspace, table="interactions", reason="not a time")) == 2
    assert refused_rows(workspace, table="exposures") == []
    console = Reporter(as_json=True)
    show(refused_rows(workspace, reason="user_id"), 5, console)
    console.print_json()
    printed = json.loads(capsys.readouterr().out)
    assert [(one["table"], one["reason"], one["rows"]) for one in printed["reasons"]] == [
        ("interactions", "no user_id", 1)
    ]
    assert printed["rows"][0]["raw"] == {"sku": "A", "n": "1", "t": str(SECONDS)}
    show(refused_rows(workspace), 2, Reporter())
    assert "interactions: 4 refused rows" in capsys.readouterr().out

    # The same settings accept nothing more; a format of times does.
    counts, _ = ingest(settings, force=True)
    assert (counts["left_quarantine"], counts["interactions"]) == (0, 0)
    for name, value in os.environ.items():
        monkeypatch.setenv(name, value)  # commands set variables, which are undone so
    retry = ["quarantine", "--config", str(tmp_path / "own.yaml"), "--retry", "--json"]
    changed = ["--set", "source.time_formats=[dd.MM.yyyy HH:mm]"]
    monkeypatch.setattr(sys, "argv", ["learn-spark", *retry, *changed])
    with pytest.raises(SystemExit) as end:
        main()
    assert not end.value.code
    left = json.loads(capsys.readouterr().out)["reasons"]
    assert {one["reason"] for one in left} == {"no item_id", "no event_time", "unknown item", "no user_id"}
    last = all_runs(workspace)[-1]
    assert (last.job, last.counts["left_quarantine"], last.counts["interactions"]) == ("ingest", 2, 2)
    assert sorted(row.file for row in refused_rows(workspace)) == ["items.csv", "log-1.csv", "log-2.csv"]
    assert {"ann", "bob"} <= {row.user_id for row in rows(settings, "interactions")}


def test_corrections_without_a_key_or_a_time_of_change_are_said(
    shop: Callable[..., Settings], run: Callable[..., Any], tmp_path: Path
) -> None:
    folder = tmp_path / "own"
    write(folder / "items.csv", "sku,name,brand,cost,changed", "A,Lamp,,,", "B,Rug,,,")
    write(
        folder / "log-1.csv", "line,u,sku,n,t", f"1,ann,A,3,{SECONDS}", f"2,ann,B,1,{SECONDS}", f"3,bob,A,1,{SECONDS}"
    )

    def corrected(settings: Settings) -> int:
        (outcome,) = run(settings, "ingest")
        return int(outcome.run.counts["possible_corrections"])

    unkeyed = shop()
    keyed = shop({"columns": {**EVENT_COLUMNS, "event_id": "line"}}).model_copy(
        update={"workspace": str(tmp_path / "keyed")}
    )
    assert corrected(unkeyed) == corrected(keyed) == 0
    # An order again with another quantity, and one that is the same.
    write(folder / "log-2.csv", "line,u,sku,n,t", f"1,ann,A,2,{SECONDS}", f"3,bob,A,1,{SECONDS}")
    assert corrected(unkeyed) == corrected(keyed) == 1
    # Nothing of that kind in a later delivery.
    write(folder / "log-3.csv", "line,u,sku,n,t", f"4,eve,A,2,{SECONDS}")
    assert corrected(unkeyed) == corrected(keyed) == 0


@pytest.mark.parametrize("table", ["items", "interactions", "exposures"])
def test_refused_shares_warn_from_one_percent_on(table: str) -> None:
    (rule,) = [rule for rule in rules_of(table, QualitySettings()) if rule.name == "refused"]
    assert (rule.most, rule.severity) == (0.01, "warn")
