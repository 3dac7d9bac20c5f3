"""Reading releases: as a whole, point in time, as changes; by this package, by deltalake, by Spark SQL."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from deltalake import DeltaTable
from pyspark.sql import SparkSession

import learn_spark.features
from learn_spark.core.errors import LearnSparkError, SettingsError
from learn_spark.core.tables import delta
from learn_spark.core.tables.contracts import contract
from learn_spark.core.tables.workspace import Workspace
from learn_spark.features.ledger import LedgerRow, NoReleaseError, releases_in_force
from learn_spark.features.point_in_time import intervals_of, releases_at
from learn_spark.features.read import read_release
from tests.features.published import DAYS, Published, Vectors
from tests.report.planted import plant, release_row


@pytest.fixture(scope="module")
def published(published_copy: Callable[[Path], Published], tmp_path_factory: pytest.TempPathFactory) -> Published:
    return published_copy(tmp_path_factory.mktemp("published"))


def approximately(vectors: Vectors) -> Any:
    return {entity: pytest.approx(vector) for entity, vector in vectors.items()}


def test_reading_the_latest_a_named_release_and_one_as_of_a_time(published: Published) -> None:
    assert set(published.read()) == {"a", "b", "c", "d"}
    assert published.read(release="r1") == approximately({"a": [1.0, 0.0], "b": [0.0, 1.0], "c": [0.6, 0.8]})
    assert published.read("item_features", release="r1") == {"x": [1.0, 1.0]}
    # r3 would be the newest by that time, but it was withdrawn.
    noon = datetime(2024, 1, 2, 12)
    assert published.read(as_of=noon) == approximately({"a": [1.0, 0.0], "b": [0.8, 0.6], "d": [0.0, 1.0]})
    with pytest.raises(NoReleaseError, match=r"release r4 is as of 2024-01-03 00:00:00: it may contain events"):
        published.read(release="r4", as_of=noon)
    with pytest.raises(NoReleaseError, match="r3 was withdrawn on 2024-01-05"):
        published.read(release="r3")
    with pytest.raises(NoReleaseError, match="there is no release 'r9'; the newest are r2, r3, r4"):
        published.read(release="r9")
    with pytest.raises(LearnSparkError, match="'items' is not a feature table; feature tables: user_features"):
        published.read("items")
    with pytest.raises(SettingsError, match=r"no workspace was given"):
        learn_spark.features.read(published.spark, "user_features")
    published.spark.conf.set("spark.learn_spark.workspace", str(published.workspace.root))
    try:
        assert learn_spark.features.read(published.spark, "user_features").count() == 4
    finally:
        published.spark.conf.unset("spark.learn_spark.workspace")


def test_any_delta_client_reads_a_release(published: Published) -> None:
    """Without this package: the ledger names a version, and that version has the rows of the release."""
    tables = published.workspace.root / "tables"
    ledger = DeltaTable(str(tables / "releases")).to_pyarrow_table().sort_by("sequence").to_pylist()
    newest = {row["release_id"]: row for row in ledger if row["status"] in ("released", "withdrawn")}
    row = max((r for r in newest.values() if r["status"] == "released"), key=lambda r: r["sequence"])
    assert row["release_id"] == "r4"
    for release in ("r2", "r4"):
        version = int(dict(newest[release]["outputs"])["user_features"])
        arrow = DeltaTable(str(tables / "user_features"), version=version).to_pyarrow_table()
        by_client = dict(zip(arrow["user_id"].to_pylist(), arrow["embedding"].to_pylist(), strict=True))
        sql = f"SELECT user_id, embedding FROM delta.`{tables / 'user_features'}` VERSION AS OF {version}"
        by_sql = {r.user_id: r.embedding for r in published.spark.sql(sql).collect()}
        assert by_client == by_sql == published.read(release=release)


EVENTS = [
    ("early", "a", "x", DAYS[0] - timedelta(seconds=1), None, None, None),
    ("at the very instant", "a", "x", DAYS[0], None, None, None),
    ("after r1", "a", "x", DAYS[0] + timedelta(seconds=1), "r1", [1.0, 0.0], [1.0, 1.0]),
    ("just before r2", "b", "x", DAYS[1], "r1", [0.0, 1.0], [1.0, 1.0]),
    ("after r2", "b", "y", DAYS[1] + timedelta(hours=1), "r2", [0.8, 0.6], [2.0, 0.0]),
    ("of one who is gone", "c", "y", DAYS[1] + timedelta(hours=1), "r2", None, [2.0, 0.0]),
    # What was served then, though it was withdrawn later.
    ("after r3", "d", "x", DAYS[2] + timedelta(hours=1), "r3", [0.3, 0.3], [3.0, 3.0]),
    ("today", "c", "nobody", DAYS[7], "r4", [0.2, 0.2], None),
]


def joined(published: Published, rows: Iterable[tuple[Any, ...]], **how: Any) -> dict[str, tuple[Any, ...]]:
    columns = "event_id string, user_id string, item_id string, event_time timestamp"
    events = published.spark.createDataFrame([row[:4] for row in rows], columns)
    result = learn_spark.features.features_at(published.spark, events, workspace=published.workspace, **how)
    assert result.columns == [*events.columns, "release_id", "user_embedding", "item_embedding"]
    collected = result.collect()
    assert len(collected) == len(list(rows))
    return {row.event_id: (row.release_id, row.user_embedding, row.item_embedding) for row in collected}


def test_an_event_gets_the_release_in_force_at_its_time(published: Published) -> None:
    result = joined(published, EVENTS)
    for name, _, _, _, release, user, item in EVENTS:
        expected = tuple(None if vector is None else pytest.approx(vector) for vector in (user, item))
        assert result[name] == (release, *expected), name


def test_by_the_as_of_clock_a_release_contains_no_event_at_or_after_the_event(published: Published) -> None:
    midnight = [row.as_of for row in published.rows[:4]]
    rows = [
        ("before all", "a", "x", midnight[0] - timedelta(microseconds=1)),
        ("r1 knows what was before", "a", "x", midnight[0]),
        ("r3 is withdrawn", "b", "x", midnight[2]),
        ("r4", "c", "x", midnight[3]),
    ]
    result = joined(published, rows, clock="as_of")
    assert [result[row[0]][0] for row in rows] == [None, "r1", "r2", "r4"]
    assert result["r3 is withdrawn"][1] == pytest.approx([0.8, 0.6])
    events = published.spark.createDataFrame([("u", DAYS[0])], "user_id string, event_time timestamp")
    with pytest.raises(LearnSparkError, match=r"lacks the columns \['item_id'\]"):
        learn_spark.features.features_at(published.spark, events, workspace=published.workspace)


def test_intervals_of_releases_in_force() -> None:
    def rows(*events: tuple[int, str, str]) -> list[LedgerRow]:
        return [
            release_row(n, name, status, DAYS[0], written_at=DAYS[day])
            for n, (day, name, status) in enumerate(events, 1)
        ]

    def intervals(*events: tuple[int, str, str]) -> list[tuple[int, int | None, str]]:
        in_force = releases_in_force(rows(*events))
        return [(DAYS.index(a), None if b is None else DAYS.index(b), row.release_id) for a, b, row in in_force]

    first, second = (0, "a", "released"), (2, "b", "released")
    assert intervals(first, second) == [(0, 2, "a"), (2, None, "b")]
    assert intervals(first, second, (3, "b", "withdrawn")) == [(0, 2, "a"), (2, 3, "b"), (3, None, "a")]
    assert intervals(first, (1, "a", "withdrawn"), second) == [(0, 1, "a"), (2, None, "b")]
    # Withdrawing a release that is not in force, or staging one, does not change the release in force.
    assert intervals(first, second, (3, "a", "withdrawn"), (4, "c", "staged")) == [(0, 2, "a"), (2, None, "b")]


@pytest.mark.parametrize(
    ("since", "until", "changed"),
    [
        ("r1", "r2", {"b": "update", "c": "delete", "d": "insert"}),
        ("r1", "r4", {"a": "update", "b": "update", "c": "update", "d": "insert"}),
        ("r3", "latest", {"c": "insert"}),
        # Back again: what an online store needs after a rollback.
        ("r3", "r1", {"a": "update", "b": "update", "c": "insert", "d": "delete"}),
        ("r2", "r2", {}),
    ],
)
def test_changes_applied_to_the_old_copy_give_the_new_one(
    published: Published, since: str, until: str, changed: dict[str, str]
) -> None:
    spark, workspace = published.spark, published.workspace
    names = contract("user_features").names
    versions = {row.release_id: row.version("user_features") for row in published.rows}

    def copy(release: str) -> dict[str, tuple[Any, ...]]:
        version = versions[release] if release != "latest" else versions["r4"]
        rows = delta.read(spark, workspace.table("user_features"), version).collect()
        return {row.user_id: tuple(row[name] for name in names) for row in rows}

    result = learn_spark.features.changes(spark, "user_features", since, until=until, workspace=workspace)
    assert result.columns == [*names, "change"]
    rows = result.collect()
    assert {row.user_id: row.change for row in rows} == changed
    assert len(rows) == len(changed)
    store = copy(since)
    for row in rows:
        if row.change == "delete":
            del store[row.user_id]
        else:
            assert (row.user_id in store) == (row.change == "update")
            store[row.user_id] = tuple(row[name] for name in names)
    assert store == copy(until)


def test_changes_of_what_is_not_there(published: Published) -> None:
    with pytest.raises(LearnSparkError, match="changes since 'r9': no such release was published"):
        learn_spark.features.changes(published.spark, "user_features", "r9", workspace=published.workspace)
    with pytest.raises(NoReleaseError, match="r3 was withdrawn"):
        learn_spark.features.changes(published.spark, "user_features", "r1", until="r3", workspace=published.workspace)
    assert read_release(published.workspace).release_id == "r4"


def test_under_clocks_that_jump_hours_the_later_row_decides_and_both_joins_agree(
    spark: SparkSession, tmp_path: Path
) -> None:
    """r2 was published by a machine whose clock was two hours ahead; r3 and r4 by one whose clock was right."""
    workspace, noon = Workspace.open(str(tmp_path)), DAYS[0]
    hours = {"r1": 0.0, "r2": 3.0, "r3": 2.0, "r4": 4.0, "r5": 1.5}
    row = {"release_id": "r", "as_of": noon, "fingerprint": 0, "embedding": [1.0]}
    outputs = {
        f"{kind}_features": plant(workspace, f"{kind}_features", [{**row, f"{kind}_id": "x"}])
        for kind in ("user", "item")
    }
    ledger_rows = [
        release_row(
            number,
            name,
            "released",
            noon + timedelta(days=(number * 3) % 5),
            outputs=outputs,
            written_at=noon + timedelta(hours=after),
        )
        for number, (name, after) in enumerate(hours.items(), 1)
    ]
    plant(workspace, "releases", ledger_rows)
    offsets = [-0.5, 0.0, 0.5, 1.5, 1.75, 2.5, 3.5, 5.0]
    expected = [None, None, "r1", "r1", "r5", "r5", "r5", "r5"]
    events = [("x", "x", noon + timedelta(hours=after)) for after in offsets]
    frame = spark.createDataFrame(events, "user_id string, item_id string, event_time timestamp")
    for clock in ("published", "as_of"):
        joined = learn_spark.features.features_at(spark, frame, clock=clock, workspace=workspace).collect()
        by_spark = {one.event_time.astimezone(UTC): one.release_id for one in joined}
        micros = np.array([round(when.timestamp() * 1e6) for _, _, when in events])
        rows, places = releases_at(workspace, micros, clock)
        by_arrow = [None if place < 0 else rows[place].release_id for place in places]
        assert [by_spark[when] for _, _, when in events] == by_arrow
        if clock == "published":
            assert by_arrow == expected
    # Any ledger: the interval of a time is the newest row, by sequence, that was written before it.
    chance = random.Random(5)
    for _ in range(200):
        names = [f"r{number}" for number in range(chance.randint(1, 8))]
        rows_of = [
            release_row(
                number,
                chance.choice(names),
                chance.choice(("released", "withdrawn")),
                noon,
                written_at=noon + timedelta(hours=chance.randint(0, 9)),
            )
            for number in range(1, 12)
        ]
        intervals = intervals_of(rows_of, "published")
        starts = [start for start, _ in intervals]
        assert starts == sorted(set(starts))
