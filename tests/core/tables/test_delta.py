"""Delta writes keep the contracts: types, NOT NULL, CHECK; a merge that changes nothing commits nothing."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from learn_spark.core.storage.path import StoragePath
from learn_spark.core.tables import delta
from learn_spark.core.tables.contracts import ContractError, contract
from learn_spark.core.tables.session import started_jobs
from learn_spark.core.tables.snapshot import Snapshot, current_version
from learn_spark.data.histories.changes import users_of_feed

ITEMS = contract("items")


def item(item_id: str | None, title: str = "t", price: float | None = None, day: int = 1) -> tuple[Any, ...]:
    return (item_id, title, None, None, price, None, None, datetime(2024, 1, day))


def frame(spark: SparkSession, *rows: tuple[Any, ...]) -> Any:
    return spark.createDataFrame(
        list(rows),
        "item_id string, title string, category string, brand string, price double, "
        "keywords string, attributes string, updated_at timestamp",
    )


def test_rows_that_break_the_contract_are_refused_in_one_sentence(spark: SparkSession, place: StoragePath) -> None:
    path = place / "items"
    delta.append(frame(spark, item("1", price=2.5)), path, ITEMS)
    for rows, expected in (
        ([item("2", price=-1.0)], "price_not_negative"),
        ([item("  ")], "item_id_not_blank"),
        ([item(None)], "item_id"),
    ):
        with pytest.raises(ContractError) as error:
            delta.append(frame(spark, item("3"), *rows), path, ITEMS)
        assert expected in str(error.value)
        assert "\n" not in str(error.value)
        assert "java" not in str(error.value).lower()
    assert [row.item_id for row in delta.read(spark, path).collect()] == ["1"]


def test_null_where_the_contract_says_not_null_is_refused(spark: SparkSession, place: StoragePath) -> None:
    path, table = place / "text", contract("item_text")
    columns = "item_id string, template_version string, text string, text_key string"
    with pytest.raises(ContractError, match="item_text: template_version must not be null"):
        delta.append(spark.createDataFrame([("1", None, "text", "k" * 64)], columns), path, table)


def test_columns_must_be_those_of_the_contract(spark: SparkSession, place: StoragePath) -> None:
    path = place / "items"
    good = frame(spark, item("1"))
    for bad, expected in (
        (good.drop("title"), "title is missing"),
        (good.withColumn("colour", F.lit("red")), "colour is not in the contract"),
        (good.withColumn("price", F.lit("12")), "price is string, not double"),
    ):
        with pytest.raises(ContractError, match=expected):
            delta.append(bad, path, ITEMS)
    assert delta.read(spark, path).count() == 0


def test_a_table_of_another_shape_or_constraint_is_refused(spark: SparkSession, place: StoragePath) -> None:
    path = place / "items"
    delta.create_if_missing(path, ITEMS)
    with pytest.raises(ContractError, match="lacks the constraint cheap"):
        delta.create_if_missing(path, ITEMS.model_copy(update={"constraints": {"cheap": "price < 10"}}))
    with pytest.raises(ContractError, match="item_index is missing"):
        delta.create_if_missing(path, contract("item_index"))


def test_merge_inserts_updates_and_rests(spark: SparkSession, place: StoragePath) -> None:
    path = place / "items"
    newer = "s.updated_at > t.updated_at"
    first = delta.merge(frame(spark, item("1", "old"), item("2", "old", day=5)), path, ITEMS, update_when=newer)
    assert first == {"inserted": 2, "updated": 0}
    change = frame(spark, item("1", "new", day=3), item("2", "late", day=3), item("3", "x"))
    assert delta.merge(change, path, ITEMS, update_when=newer) == {"inserted": 1, "updated": 1}
    titles = {row.item_id: row.title for row in delta.read(spark, path).collect()}
    assert titles == {"1": "new", "2": "old", "3": "x"}
    version = current_version(path)
    assert delta.merge(change, path, ITEMS, update_when=newer) == {"inserted": 0, "updated": 0}
    assert current_version(path) == version


def test_few_changed_rows_are_replaced_without_spark(spark: SparkSession, place: StoragePath) -> None:
    path, newer, long = place / "items", "s.updated_at > t.updated_at", "it's " + "ab\\é" * 40
    first = [item(f"{long}{n}", "old") for n in range(5)]
    for rows in (first[:3], first[3:]):
        delta.merge(frame(spark, *rows), path, ITEMS, most=5)
    before, jobs = delta.read(spark, path), started_jobs()
    change = frame(spark, item(f"{long}1", "new", day=3), item(f"{long}4", "new", day=3), item("n", "x", price=2.0))
    assert delta.merge(change, path, ITEMS, update_when=newer, most=3) == {"inserted": 1, "updated": 2}
    assert started_jobs() - jobs <= 2
    titles = {row.item_id: row.title for row in delta.read(spark, path).collect()}
    old = {f"{long}{n}": "old" for n in (0, 2, 3)}
    assert titles == {**old, f"{long}1": "new", f"{long}4": "new", "n": "x"}
    assert before.where("title = 'old'").count() == 5  # the version before is read as it was
    version = current_version(path)
    assert delta.merge(change, path, ITEMS, update_when=newer, most=3) == {"inserted": 0, "updated": 0}
    for bad in ([item("n", price=-1.0, day=9)], [item("n", day=9), item(None)]):
        with pytest.raises(ContractError, match="items"):
            delta.merge(frame(spark, *bad), path, ITEMS, update_when=newer, most=2)
    assert current_version(path) == version
    # More than a condition names: by Spark, and the same.
    many = [item(f"m{n}", "old") for n in range(2_500)]
    delta.merge(frame(spark, *many), path, ITEMS, most=2_500)
    changed = [item(f"m{n}", "new", day=3) for n in range(2_300)]
    done = delta.merge(frame(spark, *changed), path, ITEMS, update_when=newer, most=2_500)
    assert done == {"inserted": 0, "updated": 2_300}
    assert delta.read(spark, path).where("title = 'new'").count() == 2_302


def test_replaced_rows_of_a_key_of_two_columns_and_the_feed_of_changes(spark: SparkSession, place: StoragePath) -> None:
    path, table = place / "item_text", contract("item_text")
    columns = "item_id string, template_version string, text string, text_key string"

    def texts(*rows: tuple[str, str, str]) -> Any:
        return spark.createDataFrame([(*row, (row[2] * 64)[:64]) for row in rows], columns)

    changed = "t.text_key != s.text_key"
    delta.merge(texts(("1", "v", "a"), ("2", "v", "a"), ("1", "w", "a")), path, table, most=3)
    # One template, and two at once.
    assert delta.merge(texts(("1", "v", "b")), path, table, update_when=changed, most=1)["updated"] == 1
    both = texts(("1", "w", "c"), ("2", "v", "c"))
    assert delta.merge(both, path, table, update_when=changed, most=2) == {"inserted": 0, "updated": 2}
    found = {(row.item_id, row.template_version): row.text for row in delta.read(spark, path).collect()}
    assert found == {("1", "v"): "b", ("2", "v"): "c", ("1", "w"): "c"}

    path, table, day = place / "interactions", contract("interactions"), datetime(2024, 3, 1)
    schema = (
        "event_id string, user_id string, item_id string, event_type string, value double, event_time timestamp, "
        "event_date date, updated_at timestamp"
    )

    def events(*rows: tuple[str, str, float]) -> Any:
        made = [(key, user, "A", "buy", value, day, day.date(), day) for key, user, value in rows]
        return spark.createDataFrame(made, schema)

    delta.merge(events(("1", "ann", 1.0), ("2", "bob", 1.0), ("3", "eve", 1.0)), path, table, most=3)
    changed = "s.value > t.value"
    delta.merge(events(("2", "max", 2.0), ("4", "tom", 1.0)), path, table, update_when=changed, most=2)
    version = current_version(path)
    assert version is not None
    assert sorted(users_of_feed(path, version, version).to_pylist()) == ["bob", "max", "tom"]
    assert sorted(row.user_id for row in delta.read(spark, path).collect()) == ["ann", "eve", "max", "tom"]


def test_merging_no_rows_into_an_empty_table_commits_nothing(spark: SparkSession, place: StoragePath) -> None:
    path = place / "items"
    for none in (frame(spark, item("1")).where("item_id = '2'"), frame(spark, item("1")).limit(0)):
        assert delta.merge(none, path, ITEMS) == {"inserted": 0, "updated": 0}
        assert current_version(path) == 0
    assert delta.merge(frame(spark, item("1")), path, ITEMS) == {"inserted": 1, "updated": 0}
    assert current_version(path) == 1


def test_overwriting_one_slice_leaves_the_others(spark: SparkSession, place: StoragePath) -> None:
    path, table = place / "features", contract("item_features")
    columns = "release_id string, item_id string, embedding array<float>, as_of timestamp, fingerprint long"

    def rows(release: str, *ids: str) -> Any:
        data = [(release, i, [1.0], datetime(2024, 1, 1), 7) for i in ids]
        return spark.createDataFrame(data, columns)

    delta.overwrite(rows("r1", "a", "b"), path, table, where="release_id = 'r1'")
    delta.overwrite(rows("r2", "c"), path, table, where="release_id = 'r2'")
    delta.overwrite(rows("r1", "d"), path, table, where="release_id = 'r1'")
    assert {(r.release_id, r.item_id) for r in delta.read(spark, path).collect()} == {("r1", "d"), ("r2", "c")}
    properties = spark.sql(f"DESCRIBE DETAIL delta.`{path.spark}`").first()["properties"]  # type: ignore[index]
    assert properties["delta.enableChangeDataFeed"] == "true"
    # Consumers read old versions by number: age takes neither log nor files away.
    assert properties["delta.logRetentionDuration"] == properties["delta.deletedFileRetentionDuration"]
    assert properties["delta.logRetentionDuration"] == "interval 36500 days"


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf"), None])
def test_an_embedding_that_is_not_finite_cannot_be_written(
    spark: SparkSession, place: StoragePath, bad: float | None
) -> None:
    path, table = place / "e", contract("text_embeddings")
    columns = "encoder_key string, text_key string, embedding array<float>, n_tokens int"
    delta.append(spark.createDataFrame([("k", "t", [1.0, 2.0], 3)], columns), path, table)
    with pytest.raises(ContractError, match="embedding"):
        delta.append(spark.createDataFrame([("k", "u", [1.0, bad], 3)], columns), path, table)
    with pytest.raises(ContractError, match="embedding_not_empty"):
        delta.append(spark.createDataFrame([("k", "u", [], 3)], columns), path, table)
    assert delta.read(spark, path).count() == 1


def test_a_snapshot_lists_its_own_files_and_rows(spark: SparkSession, place: StoragePath) -> None:
    path = place / "items"
    for i in range(3):
        delta.append(frame(spark, *(item(f"{i}-{j}") for j in range(4))).coalesce(1), path, ITEMS)
    spark.sql(f"DELETE FROM delta.`{path.spark}` WHERE item_id LIKE '0-%' OR item_id = '1-1'")
    newest, before = Snapshot.open(path), Snapshot.open(path, 3)
    on_disk = {entry.path.inner for entry in path.files() if entry.path.name.endswith(".parquet")}
    assert newest.rows == 7
    assert before.rows == 12
    assert set(newest.files) < on_disk
    assert {row["item_id"] for row in newest.to_arrow().to_pylist()} == {
        "1-0",
        "1-2",
        "1-3",
        "2-0",
        "2-1",
        "2-2",
        "2-3",
    }
    assert len(before.to_arrow()) == 12


def test_a_snapshot_with_deletion_vectors_is_refused(spark: SparkSession, place: StoragePath) -> None:
    from learn_spark.core.tables.snapshot import SnapshotError

    path = place / "t"
    rows = spark.range(100).coalesce(1)
    rows.write.format("delta").option("delta.enableDeletionVectors", "true").save(path.spark)
    assert Snapshot.open(path).rows == 100
    spark.sql(f"DELETE FROM delta.`{path.spark}` WHERE id = 7")
    with pytest.raises(SnapshotError, match="deletion vectors"):
        Snapshot.open(path)
    with pytest.raises(SnapshotError, match="no Delta table"):
        Snapshot.open(place / "nowhere")
    with pytest.raises(SnapshotError, match="version 99"):
        Snapshot.open(path, 99)
