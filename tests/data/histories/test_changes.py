"""Only the users whose events changed are rebuilt, and the table is what a rebuild of everything gives."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from learn_spark.core.errors import LearnSparkError
from learn_spark.core.settings import Settings
from learn_spark.core.tables.snapshot import Snapshot, current_version, open_table
from learn_spark.core.tables.workspace import Workspace
from tests.world import USERS, event_lines, write_raw


def table(settings: Settings) -> list[dict[str, Any]]:
    path = Workspace.open(settings.workspace).table("user_histories")
    rows: list[dict[str, Any]] = Snapshot.open(path).to_arrow().sort_by("user_id").to_pylist()
    return rows


def version(settings: Settings) -> int | None:
    return current_version(Workspace.open(settings.workspace).table("user_histories"))


def test_late_events_rebuild_their_users_alone(
    spark: SparkSession,
    small_settings: Callable[..., Settings],
    run: Callable[..., Any],
    prepared: Callable[..., None],
    tmp_path: Path,
) -> None:
    settings = small_settings()
    prepared("ingest", "histories")
    before = {row["user_id"]: row for row in table(settings)}
    late = ["3\t1\t5\t700000000", "new\t2\t4\t890000000"]
    write_raw(tmp_path / "raw", events=[*event_lines(), *late])
    _, outcome = run(settings, "ingest", "histories")
    assert outcome.run.counts["users_rebuilt"] == 2
    # The merge changes the rows of two users and nothing else, in the one file there is.
    path = Workspace.open(settings.workspace).table("user_histories")
    metrics = open_table(path).history(1)[0]["operationMetrics"]
    names = ("RowsUpdated", "RowsInserted", "RowsDeleted", "FilesRemoved")
    assert [int(metrics[f"numTarget{name}"]) for name in names] == [1, 1, 0, 1]
    after = {row["user_id"]: row for row in table(settings)}
    assert len(after) == USERS + 1
    assert {user for user in after if after[user] != before.get(user)} == {"3", "new"}
    # It happened long before all others, so it comes first.
    assert after["3"]["event_time"][0] == 700_000_000_000_000
    assert after["3"]["length"] == before["3"]["length"] + 1
    incremental = table(settings)
    (outcome,) = run(settings, "histories", force=True)
    assert outcome.run.counts["users_rebuilt"] == USERS + 1
    assert table(settings) == incremental


def test_a_fault_of_reading_is_an_error_and_versions_that_are_gone_rebuild_all(
    small_settings: Callable[..., Settings],
    run: Callable[..., Any],
    prepared: Callable[..., None],
    tmp_path: Path,
) -> None:
    settings = small_settings()
    prepared("ingest", "histories")
    before = version(settings)
    write_raw(tmp_path / "raw", events=[*event_lines(), "3\t1\t5\t700000000"])
    run(settings, "ingest")
    path = Workspace.open(settings.workspace).table("interactions")
    added = Path(max(Snapshot.open(path).files, key=lambda file: Path(file).stat().st_mtime))
    content = added.read_bytes()
    added.write_bytes(content[:20])
    with pytest.raises(LearnSparkError, match="changes of interactions from version") as raised:
        run(settings, "histories")
    assert added.name in str(raised.value)
    assert version(settings) == before
    added.write_bytes(content)
    interactions = open_table(path)
    interactions.optimize.compact()
    interactions.vacuum(retention_hours=0, dry_run=False, enforce_retention_duration=False)
    assert not added.exists()
    (outcome,) = run(settings, "histories")
    assert outcome.run.counts["users_rebuilt"] == USERS
    rows = {row["user_id"]: row for row in table(settings)}
    assert rows["3"]["event_time"][0] == 700_000_000_000_000


def test_a_user_without_usable_events_any_more_leaves(
    spark: SparkSession, small_settings: Callable[..., Settings], run: Callable[..., Any], tmp_path: Path
) -> None:
    """A correction of the only event that counted (by the table's key) takes the user out of the histories."""
    settings = small_settings("histories.min_value=4", "quality.rules={user_histories.volume: {least: 0}}")
    write_raw(tmp_path / "raw", events=[*event_lines(), "lone\t2\t5\t880000000"])
    run(settings, "ingest", "histories")
    assert "lone" in {row["user_id"] for row in table(settings)}
    path = Workspace.open(settings.workspace).table("interactions")
    spark.sql(f"UPDATE delta.`{path}` SET value = 1 WHERE user_id = 'lone'")
    (outcome,) = run(settings, "histories")
    assert outcome.run.counts["users_rebuilt"] == 0
    assert "lone" not in {row["user_id"] for row in table(settings)}


def test_nothing_new_writes_nothing(
    spark: SparkSession,
    small_settings: Callable[..., Settings],
    run: Callable[..., Any],
    prepared: Callable[..., None],
    tmp_path: Path,
) -> None:
    settings = small_settings()
    prepared("ingest", "histories")
    first = version(settings)
    # A new item without events: the index changes, no history does.
    path = tmp_path / "raw" / "ml-100k.item"
    path.write_text(path.read_text() + "99\tNobody saw it\t1999\tWestern\n")
    _, outcome = run(settings, "ingest", "histories")
    assert not outcome.up_to_date
    assert outcome.run.counts["users_rebuilt"] == 0
    assert version(settings) == first
