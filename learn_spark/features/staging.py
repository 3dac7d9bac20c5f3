"""Staged features: what a release will write, computed and kept apart from the tables that consumers read."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from datetime import datetime
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING

from learn_spark.core.tables import delta
from learn_spark.core.tables.contracts import contract
from learn_spark.core.tables.snapshot import Snapshot, current_version
from learn_spark.core.tables.workspace import Workspace
from learn_spark.features.entities import changed, seers
from learn_spark.features.read import KEYS
from learn_spark.features.worker import FEATURES, TowerSpec, item_features, user_features

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession


def staged_folder(workspace: Workspace, release_id: str) -> Path:
    """Where a release's rows lie until they are published: one Delta table each of users and items."""
    return workspace.root / "staged" / release_id


@dataclass(frozen=True)
class Staged:
    """One table's part of a release.

    ``wanted`` are all its ``entities`` (id, fingerprint, ...); ``rows`` those computed anew (the contract's columns),
    of which there are ``written``; ``head`` is the table as it is now (None where it is empty), ``removed`` how many
    of its entities are wanted no more.
    """

    table: str
    wanted: DataFrame
    entities: int
    rows: DataFrame
    written: int
    removed: int
    head: DataFrame | None

    @property
    def everything(self) -> bool:
        """Whether nothing of ``head`` stays."""
        return self.head is None or self.written == self.entities

    @property
    def key(self) -> str:
        """The key column."""
        return KEYS[self.table]

    @property
    def nothing(self) -> bool:
        """Whether the table is as it should be already."""
        return not self.written and not self.removed

    def gone(self) -> DataFrame:
        """The keys of ``head`` that are wanted no more."""
        assert self.head is not None
        return self.head.select(self.key).join(self._ids(), self.key, "left_anti")

    def after(self) -> DataFrame:
        """The table as it will be: what of ``head`` stays, and the staged rows."""
        if self.everything or self.head is None:
            return self.rows
        stays = self.head.join(self.rows.select(self.key), self.key, "left_anti")
        return stays.join(self._ids(), self.key, "left_semi").unionByName(self.rows)

    def _ids(self) -> DataFrame:
        return self.wanted.select("id").withColumnRenamed("id", self.key)


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
) -> dict[str, Staged]:
    """Compute the vectors of the items and users that changed (or ``everything``) into the release's folder.

    A user counts as changed where a known item that its tower sees has another text by now. What an earlier attempt
    at the same release left is replaced.
    """
    shutil.rmtree(staged_folder(workspace, release_id), ignore_errors=True)
    tasks = spark.sparkContext.defaultParallelism
    heads = {table: _head(spark, workspace, table) for table in KEYS}
    by_id = {
        table: None if head is None else head.withColumnRenamed(KEYS[table], "id") for table, head in heads.items()
    }

    new_items = changed(items, by_id["item_features"], everything=everything)
    vectors = new_items.select("id", "fingerprint", "item_index").repartition(tasks)
    staged_items = _write(
        spark, workspace, release_id, as_of, "item_features", vectors.mapInArrow(item_features(spec), FEATURES)
    )
    rewritten = _rewritten(staged_items, heads["item_features"])
    new_users = changed(users, by_id["user_features"], everything=everything)
    if rewritten is not None and not everything:
        at = items.join(rewritten.withColumnRenamed("item_id", "id"), "id", "left_semi")
        new_users = new_users.unionByName(seers(users, at)).dropDuplicates(["id"])
    vectors = new_users.select("id", "fingerprint", "item_index", "event_time", "length")
    staged_users = _write(
        spark, workspace, release_id, as_of, "user_features", vectors.mapInArrow(user_features(spec), FEATURES)
    )
    parts = {
        "user_features": Staged("user_features", users, 0, *staged_users, 0, heads["user_features"]),
        "item_features": Staged("item_features", items, 0, *staged_items, 0, heads["item_features"]),
    }
    return _counted(parts)


def _head(spark: SparkSession, workspace: Workspace, table: str) -> DataFrame | None:
    path = workspace.table(table)
    version = current_version(path)
    if version is None or not Snapshot.open(path, version).rows:
        return None
    return delta.read(spark, path, version)


def _write(
    spark: SparkSession, workspace: Workspace, release_id: str, as_of: datetime, table: str, vectors: DataFrame
) -> tuple[DataFrame, int]:
    from pyspark.sql import functions as F

    path = str(staged_folder(workspace, release_id) / table)
    rows = vectors.select(
        F.col("id").alias(KEYS[table]),
        "embedding",
        F.lit(release_id).alias("release_id"),
        F.timestamp_micros(F.lit(round(as_of.timestamp() * 1_000_000))).alias("as_of"),
        "fingerprint",
    )
    delta.append(rows, path, contract(table))
    written = Snapshot.open(path).rows
    return delta.read(spark, path, current_version(path)), written


def _rewritten(staged: tuple[DataFrame, int], head: DataFrame | None) -> DataFrame | None:
    """The ids of known items that are computed anew; None where there are none."""
    rows, written = staged
    if head is None or not written:
        return None
    known = rows.select("item_id").join(head.select("item_id"), "item_id", "left_semi")
    return None if known.isEmpty() else known


def _counted(parts: dict[str, Staged]) -> dict[str, Staged]:
    """The parts with their ``entities`` and ``removed``, counted by one query."""
    from pyspark.sql import functions as F

    frames = []
    for table, part in parts.items():
        frames.append(part.wanted.agg(F.count("*").alias("n")).withColumn("what", F.lit(f"{table} wanted")))
        if part.head is not None:
            frames.append(part.gone().agg(F.count("*").alias("n")).withColumn("what", F.lit(f"{table} gone")))
    counted = {row.what: row.n for row in reduce(lambda a, b: a.unionByName(b), frames).collect()}
    return {
        table: replace(part, entities=counted[f"{table} wanted"], removed=counted.get(f"{table} gone", 0))
        for table, part in parts.items()
    }
