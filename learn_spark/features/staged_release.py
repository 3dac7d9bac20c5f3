"""A staged release: its rows are written to a folder of their own before they are audited and published."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial, reduce
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from learn_spark.core.storage.path import StoragePath
from learn_spark.core.tables import delta
from learn_spark.core.tables.contracts import contract
from learn_spark.core.tables.snapshot import Snapshot, current_version
from learn_spark.core.tables.workspace import Workspace
from learn_spark.features.entities import changed, users_who_saw
from learn_spark.features.read import KEYS
from learn_spark.features.worker import FEATURES, FEATURES_ARROW, TowerSpec, item_features, user_features

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession


def staged_folder(workspace: Workspace, release_id: str) -> StoragePath:
    """The folder of a release's rows until it is published: a Delta table of users and one of items."""
    return workspace.place / "staged" / release_id


@dataclass(frozen=True)
class StagedTable:
    """The staged part of one feature table.

    ``expected``: one row per entity of the release (id, fingerprint, ...), ``entities`` in number. ``rows``: the
    recomputed rows (the contract's columns), ``written`` in number. ``head``: the current table (None if it is empty),
    with ``removed`` entities that the release no longer has. ``place``: the table of the staged rows.
    """

    table: str
    expected: DataFrame
    entities: int
    rows: DataFrame
    written: int
    removed: int
    head: DataFrame | None
    place: StoragePath

    @property
    def everything(self) -> bool:
        """Whether the release keeps no row of ``head``."""
        return self.head is None or self.written == self.entities

    @property
    def key(self) -> str:
        """The key column."""
        return KEYS[self.table]

    @property
    def nothing(self) -> bool:
        """Whether the release leaves the table unchanged."""
        return not self.written and not self.removed

    def removed_keys(self) -> DataFrame:
        """The keys of ``head`` that the release no longer has."""
        assert self.head is not None
        return self.head.select(self.key).join(self._ids(), self.key, "left_anti")

    def after(self) -> DataFrame:
        """The table after the release: the kept rows of ``head`` and the staged rows."""
        if self.everything or self.head is None:
            return self.rows
        kept = self.head.join(self.rows.select(self.key), self.key, "left_anti")
        return kept.join(self._ids(), self.key, "left_semi").unionByName(self.rows)

    def _ids(self) -> DataFrame:
        return self.expected.select("id").withColumnRenamed("id", self.key)


def stage(
    spark: SparkSession,
    workspace: Workspace,
    release_id: str,
    as_of: datetime,
    spec: TowerSpec,
    users: DataFrame,
    items: DataFrame,
    *,
    everything: bool,
    few: bool,
) -> dict[str, StagedTable]:
    """Compute the vectors of changed items and users (all with ``everything``) into the release's folder.

    A user is also changed if the vector of an item in their window was recomputed. Rows of an earlier attempt at the
    same release are replaced. ``few``: compute in this process, because a Python worker of Spark takes longer to start.
    Returns table -> staged part.
    """
    staged_folder(workspace, release_id).remove()
    tasks = spark.sparkContext.defaultParallelism
    heads = {table: _head(spark, workspace, table) for table in KEYS}
    by_id = {
        table: None if head is None else head.withColumnRenamed(KEYS[table], "id") for table, head in heads.items()
    }

    new_items = changed(items, by_id["item_features"], everything=everything)
    inputs = new_items.select("id", "fingerprint", "item_index")
    write = partial(_write, spark, workspace, release_id, as_of, few=few)
    staged_items = write("item_features", inputs if few else inputs.repartition(tasks), item_features(spec))
    rewritten = _rewritten(
        staged_items,
        heads["item_features"],
        (staged_folder(workspace, release_id) / "item_features", workspace.table("item_features")) if few else None,
    )
    new_users = changed(users, by_id["user_features"], everything=everything)
    if rewritten is not None and not everything:
        at = items.join(rewritten.withColumnRenamed("item_id", "id"), "id", "left_semi")
        new_users = new_users.unionByName(users_who_saw(users, at)).dropDuplicates(["id"])
    inputs = new_users.select("id", "fingerprint", "item_index", "event_time", "length")
    staged_users = write("user_features", inputs, user_features(spec))
    staged = {"user_features": (users, *staged_users), "item_features": (items, *staged_items)}
    parts = {
        table: StagedTable(
            table,
            expected,
            0,
            rows,
            written,
            0,
            heads[table],
            staged_folder(workspace, release_id) / table,
        )
        for table, (expected, rows, written) in staged.items()
    }
    return _counted(parts)


def _head(spark: SparkSession, workspace: Workspace, table: str) -> DataFrame | None:
    path = workspace.table(table)
    version = current_version(path)
    if version is None or not Snapshot.open(path, version).rows:
        return None
    return delta.read(spark, path, version)


def _write(
    spark: SparkSession,
    workspace: Workspace,
    release_id: str,
    as_of: datetime,
    table: str,
    inputs: DataFrame,
    compute: Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]],
    *,
    few: bool,
) -> tuple[DataFrame, int]:
    """(the staged rows of a table, their number), their vectors computed from ``inputs``."""
    from pyspark.sql import functions as F

    path = staged_folder(workspace, release_id) / table
    if few:
        vectors = pa.Table.from_batches(compute(inputs.toArrow().to_batches()), FEATURES_ARROW)
        time = pa.scalar(as_of, pa.timestamp("us", tz="UTC"))
        constants = {"release_id": pa.repeat(release_id, len(vectors)), "as_of": pa.repeat(time, len(vectors))}
        columns = {KEYS[table]: vectors["id"], "embedding": vectors["embedding"], "fingerprint": vectors["fingerprint"]}
        # Without the constraints, which only Spark can check: the audit does, and the table that the rows end in.
        described = contract(table).model_copy(update={"constraints": {}})
        delta.create_if_missing(path, described)
        delta.append_arrow(spark, pa.table(columns | constants).select(described.names), path, described)
        return delta.read(spark, path), len(vectors)
    rows = inputs.mapInArrow(compute, FEATURES).select(
        F.col("id").alias(KEYS[table]),
        "embedding",
        F.lit(release_id).alias("release_id"),
        F.timestamp_micros(F.lit(round(as_of.timestamp() * 1_000_000))).alias("as_of"),
        "fingerprint",
    )
    delta.append(rows, path, contract(table))
    written = Snapshot.open(path).rows
    return delta.read(spark, path, current_version(path)), written


def _rewritten(
    staged: tuple[DataFrame, int], head: DataFrame | None, places: tuple[str, str] | None
) -> DataFrame | None:
    """Ids of items in ``head`` whose vectors were recomputed; None if there are none.

    ``places``: the tables of both where they are few, so that Spark need not be asked.
    """
    rows, written = staged
    if head is None or not written:
        return None
    if places is not None:
        new, known = (Snapshot.open(place).to_arrow(["item_id"])["item_id"] for place in places)
        if not pc.any(pc.is_in(new, value_set=known)).as_py():
            return None
    ids = rows.select("item_id").join(head.select("item_id"), "item_id", "left_semi")
    return None if ids.isEmpty() else ids


def _counted(parts: dict[str, StagedTable]) -> dict[str, StagedTable]:
    """The parts with ``entities`` and ``removed`` counted by one query."""
    from pyspark.sql import functions as F

    frames = []
    for table, part in parts.items():
        frames.append(part.expected.agg(F.count("*").alias("n")).withColumn("what", F.lit(f"{table} expected")))
        if part.head is not None:
            frames.append(
                part.removed_keys().agg(F.count("*").alias("n")).withColumn("what", F.lit(f"{table} removed"))
            )
    counted = {row.what: row.n for row in reduce(lambda a, b: a.unionByName(b), frames).collect()}
    return {
        table: replace(part, entities=counted[f"{table} expected"], removed=counted.get(f"{table} removed", 0))
        for table, part in parts.items()
    }
