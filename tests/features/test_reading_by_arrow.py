"""Reading releases without Spark: joined point in time, and as changes; the same as by Spark."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyspark.sql import SparkSession

import learn_spark.features
from learn_spark.core.errors import LearnSparkError
from learn_spark.core.tables.snapshot import Snapshot
from learn_spark.core.tables.versions import snapshots_of
from learn_spark.core.tables.workspace import Workspace
from learn_spark.features import change_feed_arrow, point_in_time_arrow
from learn_spark.features.change_feed_arrow import changes_arrow
from learn_spark.features.ledger import NoReleaseError
from learn_spark.features.point_in_time_arrow import features_at_arrow
from learn_spark.features.read import read_release, released_arrow
from tests.features.many_releases import START, ManyReleases
from tests.features.published import DAYS, Published
from tests.features.test_reading import EVENTS
from tests.report.planted import plant, release_row

EVENT_SCHEMA = pa.schema(
    [("event_id", "string"), ("user_id", "string"), ("item_id", "string"), ("event_time", pa.timestamp("us", "UTC"))]
)


@pytest.fixture(scope="module")
def published(published_copy: Callable[[Path], Published], tmp_path_factory: pytest.TempPathFactory) -> Published:
    return published_copy(tmp_path_factory.mktemp("by_arrow"))


def table_of(*rows: tuple[Any, ...]) -> pa.Table:
    return pa.Table.from_pylist([dict(zip(EVENT_SCHEMA.names, row, strict=False)) for row in rows], EVENT_SCHEMA)


@pytest.mark.parametrize("chunk", [3, 1 << 19])
def test_an_event_gets_the_release_in_force_at_its_time(
    published: Published, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    monkeypatch.setattr(point_in_time_arrow, "EVENTS_OF_A_CHUNK", chunk)
    events = table_of(*EVENTS, ("without a time", "a", "x", None), ("nameless", None, "x", DAYS[7]))
    joined = features_at_arrow(published.workspace, events)
    assert joined.column_names == [*events.column_names, "release_id", "user_embedding", "item_embedding"]
    assert joined.select(events.column_names).equals(events)
    expected = [*(row[4:] for row in EVENTS), (None, None, None), ("r4", None, [3.0, 3.0])]
    for row, (release, user, item) in zip(joined.to_pylist(), expected, strict=True):
        assert row["release_id"] == release, row
        assert row["user_embedding"] == (None if user is None else pytest.approx(user)), row
        assert row["item_embedding"] == (None if item is None else pytest.approx(item)), row
    assert features_at_arrow(published.workspace, events.slice(0, 0)).num_rows == 0


def test_times_of_other_types_and_events_that_cannot_be_joined(published: Published) -> None:
    when = datetime(2024, 1, 2, 13)
    ways = {
        "nanoseconds": pa.array([when], pa.timestamp("ns")),
        "another zone": pa.array([when.replace(tzinfo=UTC)], pa.timestamp("ms", "UTC")).cast(
            pa.timestamp("ms", "Asia/Tokyo")
        ),
    }
    for way, times in ways.items():
        events = pa.table({"user_id": ["b"], "item_id": ["y"], "event_time": times})
        (row,) = features_at_arrow(published.workspace, events).to_pylist()
        assert (row["release_id"], row["item_embedding"]) == ("r2", [2.0, 0.0]), way
    day = pa.table({"user_id": ["b"], "item_id": ["y"], "event_time": pa.array([when.date()])})
    assert features_at_arrow(published.workspace, day)["release_id"].to_pylist() == ["r1"]
    with pytest.raises(LearnSparkError, match=r"lacks the columns \['item_id'\]"):
        features_at_arrow(published.workspace, day.drop_columns(["item_id"]))
    with pytest.raises(LearnSparkError, match=r"already has the columns \['release_id'\]"):
        features_at_arrow(published.workspace, day.append_column("release_id", pa.array(["r1"])))
    with pytest.raises(LearnSparkError, match="event_time is string; make it a timestamp"):
        features_at_arrow(published.workspace, day.set_column(2, "event_time", pa.array(["2024-01-02"])))


def test_hundreds_of_releases_give_what_spark_gives(spark: SparkSession, tmp_path: Path) -> None:
    many = ManyReleases(str(tmp_path), 120, backfilled=False)
    # Published every hour, as of one day after the other.
    times = [timedelta(hours=n * 0.37 - 2) for n in range(350)] + [timedelta(days=n * 0.36 - 502) for n in range(350)]
    rows = [(str(n), f"u{n % 7}", f"i{n % 5}", START + after) for n, after in enumerate(times)]
    events = table_of(*rows)
    frame = spark.createDataFrame(events)
    for clock in ("published", "as_of"):
        by_spark = learn_spark.features.features_at(spark, frame, clock=clock, workspace=many.workspace)
        joined = features_at_arrow(many.workspace, events, clock=clock)
        names = ("release_id", "user_embedding", "item_embedding")
        expected = {row.event_id: tuple(row[name] for name in names) for row in by_spark.collect()}
        assert {row["event_id"]: tuple(row[name] for name in names) for row in joined.to_pylist()} == expected
        assert len({release for release, _, _ in expected.values()}) > 50


@pytest.fixture(scope="module")
def without_feed(published_copy: Callable[[Path], Published], tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """The same releases, of which the files of the change data feed are gone."""
    workspace = published_copy(tmp_path_factory.mktemp("without_feed")).workspace
    for table in ("user_features", "item_features"):
        shutil.rmtree(workspace.table(table).local / "_change_data")
    return workspace


@pytest.mark.parametrize("table", ["user_features", "item_features"])
@pytest.mark.parametrize(
    ("since", "until"),
    [("r1", "r2"), ("r1", "r4"), ("r3", "latest"), ("r3", "r1"), ("r2", "r1"), ("r2", "r2"), ("r4", "r1")],
)
def test_changes_are_those_of_spark(
    published: Published, without_feed: Workspace, table: str, since: str, until: str
) -> None:
    frame = learn_spark.features.changes(published.spark, table, since, until=until, workspace=published.workspace)
    expected = sorted(str(tuple(row.values())) for row in frame.toArrow().to_pylist())
    for workspace in (published.workspace, without_feed):
        ours = changes_arrow(workspace, table, since, until=until)
        assert ours.column_names == frame.columns
        assert sorted(str(tuple(row.values())) for row in ours.to_pylist()) == expected


def test_without_a_feed_only_the_files_that_differ_are_read(
    without_feed: Workspace, published: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    read_file = Snapshot.read_file

    def noted(self: Snapshot, number: int, columns: list[str]) -> pa.Table:
        read.append(Path(self.files[number]).name)
        return read_file(self, number, columns)

    monkeypatch.setattr(Snapshot, "read_file", noted)
    path, versions = without_feed.table("user_features"), {row.release_id: row for row in published.rows}
    one, other = (Snapshot.open(path, versions[r].version("user_features")).files for r in ("r1", "r2"))
    changes_arrow(without_feed, "user_features", "r1", until="r2")
    assert sorted(read) == sorted(Path(file).name for file in set(one) ^ set(other))
    read.clear()
    changes_arrow(published.workspace, "user_features", "r1", until="r2")
    assert read == []


def test_a_vector_that_differs_in_one_bit_is_an_update_and_a_rewritten_row_is_none(tmp_path: Path) -> None:
    workspace = Workspace.open(str(tmp_path))
    row = {"release_id": "r1", "as_of": DAYS[0], "fingerprint": 7, "embedding": [1.0, 2.0]}
    versions = []
    for bit in ([1.0, 2.0], [1.0, 2.0000002]):
        rows = [{**row, "user_id": "same"}, {**row, "user_id": "other", "embedding": bit}]
        versions.append(plant(workspace, "user_features", rows, mode="overwrite"))
    ledger_rows = [
        release_row(n, f"r{n}", "released", DAYS[n], outputs={"user_features": version}, written_at=DAYS[n])
        for n, version in enumerate(versions, 1)
    ]
    plant(workspace, "releases", ledger_rows)
    rows = changes_arrow(workspace, "user_features", "r1").to_pylist()
    assert [(one["user_id"], one["change"]) for one in rows] == [("other", "update")]
    assert rows[0]["embedding"] == np.array([1, 2.0000002], np.float32).tolist()


def test_what_is_not_there_is_named(published_copy: Callable[[Path], Published], tmp_path: Path) -> None:
    workspace = published_copy(tmp_path).workspace
    with pytest.raises(LearnSparkError, match="changes since 'r9': no such release was published"):
        changes_arrow(workspace, "user_features", "r9")
    with pytest.raises(NoReleaseError, match="r3 was withdrawn"):
        changes_arrow(workspace, "user_features", "r1", until="r3")
    with pytest.raises(LearnSparkError, match="'releases' is not a feature table"):
        changes_arrow(workspace, "releases", "r1")
    assert released_arrow(workspace, "user_features").num_rows == 4
    shutil.rmtree(workspace.table("user_features").local / "_change_data")
    version = read_release(workspace, release="r1").version("user_features")
    for file in Snapshot.open(workspace.table("user_features"), version).files:
        Path(file).unlink()
    with pytest.raises(LearnSparkError, match="is gone; its version is no longer kept"):
        changes_arrow(workspace, "user_features", "r1")


@pytest.mark.parametrize("fault", ["none", "the log was cleaned", "statistics are missing"])
def test_snapshots_from_one_reading_of_the_log_are_those_of_each_version(tmp_path: Path, fault: str) -> None:
    many = ManyReleases(str(tmp_path), 40, backfilled=False)
    place = many.workspace.table("user_features")
    newest = len(many.tables["user_features"].versions) - 1
    log = place.local / "_delta_log"
    versions = [1, newest] if fault == "the log was cleaned" else [1, 4, 5, 17, newest]
    opened = [Snapshot.open(place, version) for version in versions]
    if fault == "the log was cleaned":
        (log / f"{10:020d}.json").unlink()  # the checkpoint of the newest version has its files
    if fault == "statistics are missing":
        commit = log / f"{17:020d}.json"
        commit.write_text(commit.read_text().replace("numRecords", "nullCount"))
        with pytest.raises(LearnSparkError, match="no number of rows"):
            snapshots_of(place, versions)
    else:
        assert snapshots_of(place, versions) == opened
    assert snapshots_of(place, []) == []


@pytest.mark.parametrize("by_feed", [True, False])
def test_changes_between_any_two_of_many_releases(
    tmp_path: Path, by_feed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Merges, appended files, and versions written anew."""
    many = ManyReleases(str(tmp_path), 105, backfilled=False)
    if not by_feed:
        monkeypatch.setattr(change_feed_arrow, "_ends_of_feed", lambda *_: None)
    newest = {row.release_id: row for row in many.ledger}
    readable = [name for name, row in newest.items() if row.status == "released"]
    chance = random.Random(4)
    kinds = set()
    for _ in range(12):
        since, until = chance.choice(list(newest)), chance.choice(readable)
        for name, table in many.tables.items():
            old, new = (table.versions[newest[release].version(name)] for release in (since, until))
            expected = {
                key: ("update" if key in old else "insert", new[key]) for key in new if old.get(key) != new[key]
            }
            expected |= {key: ("delete", None) for key in old if key not in new}
            rows = changes_arrow(many.workspace, name, since, until=until).to_pylist()
            found = {row[table.key]: (row["change"], row["embedding"]) for row in rows}
            assert len(rows) == len(found)
            assert found == {
                key: (kind, None if value is None else [pytest.approx(value)])
                for key, (kind, value) in expected.items()
            }
            kinds |= {kind for kind, _ in found.values()}
    assert kinds == {"insert", "update", "delete"}
