"""``learn-spark erase``: users leave the tables, all their older versions, and the files beside them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from learn_spark.core.console import Reporter
from learn_spark.core.errors import LearnSparkError
from learn_spark.core.quality.table_gate import TableGate
from learn_spark.core.settings import Settings
from learn_spark.core.stages.context import SparkHolder
from learn_spark.core.storage.path import StoragePath
from learn_spark.core.tables import delta
from learn_spark.core.tables.contracts import all_tables, contract
from learn_spark.core.tables.erased import hashed, key_of
from learn_spark.core.tables.log import append_rows, read_rows
from learn_spark.core.tables.purge import purge
from learn_spark.core.tables.runs import new_run_id
from learn_spark.core.tables.snapshot import current_version
from learn_spark.core.tables.workspace import Workspace
from learn_spark.features.ledger import LedgerRow, add_rows, in_state, ledger, release_in_force, states
from learn_spark.pipeline.erasure.files import files_to_delete, forget_in_vocabulary, names_of, vocabularies_with
from learn_spark.pipeline.erasure.ids import COLUMN, read_ids
from learn_spark.pipeline.erasure.plan import Erasure, show
from learn_spark.pipeline.erasure.tables import QUARANTINE, REPLACED, TEXTS, UsersInTables
from learn_spark.pipeline.locks import whole_workspace

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

FEATURES = "user_features"


def erase(
    settings: Settings, file: str, *, delete: bool, console: Reporter, wait: bool = False, verbose: bool = False
) -> Erasure:
    """Print what the workspace has of the users in ``file``, and delete it with ``delete``; what was found.

    A run that was killed is completed by the same command. Raises SettingsError for a file that cannot be read,
    LearnSparkError while another run uses the workspace.
    """
    workspace = Workspace.open(settings.place, settings.scratch)
    written = read_ids(file, settings.storage.s3())
    holder = SparkHolder(settings, verbose=verbose, at=console.at)
    with whole_workspace(workspace, "a run of erase", wait=wait, say=console.say):
        erasure_id = new_run_id()
        scratch = workspace.place / "staging" / f"erase-{erasure_id}"
        try:
            work = _Work.of(settings, workspace, holder.get(workspace), written, scratch)
            console.at("looking for the users")
            plan = work.plan()
            show(plan, workspace, console)
            if delete:
                work.apply(plan, erasure_id, console)
        finally:
            scratch.remove()
            holder.stop()
    return plan


@dataclass(frozen=True)
class _Unfinished:
    """Erasures that were interrupted: the id of the newest, and the tables that they may have changed."""

    erasure_id: str
    tables: set[str]


@dataclass(frozen=True)
class _Work:
    settings: Settings
    workspace: Workspace
    spark: SparkSession
    ids: DataFrame
    written: pa.ChunkedArray
    scratch: StoragePath

    @staticmethod
    def of(
        settings: Settings, workspace: Workspace, spark: SparkSession, given: pa.Table, scratch: StoragePath
    ) -> _Work:
        """The ids as the tables write them, each once, in a file that all workers read."""
        from pyspark.sql import functions as F

        from learn_spark.data.sources.typed_rows import plain_id

        workspace.place.file_system.create_dir(scratch.inner, recursive=True)
        pq.write_table(given, (scratch / "given.parquet").inner, filesystem=scratch.file_system)
        frame = spark.read.schema(f"{COLUMN} string").parquet((scratch / "given.parquet").spark)
        plain = frame.select(plain_id(COLUMN).alias(COLUMN)).where(F.col(COLUMN).isNotNull()).distinct()
        plain.write.parquet((scratch / "ids").spark)
        ids = spark.read.schema(f"{COLUMN} string").parquet((scratch / "ids").spark)
        files = (scratch / "ids").parquet_files()
        parts = [pq.read_table(one, columns=[COLUMN], filesystem=scratch.file_system)[COLUMN] for one in files]
        written = pa.chunked_array([chunk for part in parts for chunk in part.chunks], pa.string())
        return _Work(settings, workspace, spark, ids, written, scratch)

    def plan(self) -> Erasure:
        """What the workspace has of the users."""
        found, unfinished = self._tables().find(), self._unfinished()
        if unfinished is not None:  # what it has deleted may have left no trace but old files
            older = {*found.older, *unfinished.tables} - set(found.rows)
            found = replace(found, older=tuple(sorted(older)))
        named = names_of(self.written)
        files = [*vocabularies_with(self.workspace, self.written), *files_to_delete(self.workspace, named)]
        files = [one for one in files if not one.path.startswith(self.scratch)]
        expiring = self._expiring() if FEATURES in found.tables else []
        name = None if unfinished is None else unfinished.erasure_id
        return Erasure(len(self.written), found, tuple(expiring), tuple(files), self._texts(named), name)

    def apply(self, plan: Erasure, erasure_id: str, console: Reporter) -> None:
        """Delete it. What the next runs must know comes first: a killed run has erased users, if not all their rows."""
        key = key_of(self.workspace, make=True)
        before = _versions(self.workspace)
        row: dict[str, object] = {
            "erasure_id": erasure_id,
            "users": plan.users,
            "unknown": plan.unknown,
            "deleted": plan.deleted(),
        }
        changed = plan.found.tables
        pairs = {table: before[table] for table in changed}
        self._remember(key, erasure_id)
        self._record(row | {"status": "started", "before": pairs, "after": {}})
        tables = self._tables()
        for table in changed:
            console.at(f"deleting from {table}")
            if table == QUARANTINE:
                tables.delete_refused()
            elif table != FEATURES:
                tables.delete(table)
            if table != FEATURES:
                purge(self.spark, self.workspace.table(table))
        # Other runs may have come between a killed erasure and this one: no version has a counterpart then.
        pairs = {} if plan.unfinished else pairs
        self._release_again(tables, plan, pairs)
        for table, rows in plan.texts.items():
            if rows:
                self._replace_texts(table, rows)
        console.at("deleting pages and caches")
        for one in plan.files:
            if one.kind == "vocabulary":
                forget_in_vocabulary(one.path, self.written)
            else:
                one.path.remove()
        after = _versions(self.workspace)
        self._record(row | {"status": "done", "before": pairs, "after": {table: after[table] for table in changed}})
        self._measure(changed, erasure_id)
        console.line(
            f"erased {plan.users:,} users (erasure {erasure_id}); to be erased elsewhere: raw files, backups, online "
            "stores and copies of consumers"
        )

    def _unfinished(self) -> _Unfinished | None:
        """What was begun since the last erasure that was done. LearnSparkError if the file lacks users of it."""
        from pyspark.sql import functions as F

        rows = sorted(read_rows(self.workspace.table("erasures")), key=lambda row: row["written_at"])
        done = max(
            (row["written_at"] for row in rows if row["status"] == "done"), default=datetime.min.replace(tzinfo=UTC)
        )
        begun = [row for row in rows if row["written_at"] > done]
        names = [str(row["erasure_id"]) for row in begun]
        path = self.workspace.table("erased_users")
        if current_version(path) is not None:
            # A killed run may have remembered its users, and not yet that it began.
            users = delta.read(self.spark, path).where(F.col("erased_at") > F.lit(done))
            names += [row.erasure_id for row in users.select("erasure_id").distinct().collect()]
            given = self.ids.select(hashed(key_of(self.workspace), F.col(COLUMN)).alias("user_hash"))
            missing = users.select("user_hash").distinct().join(given, "user_hash", "left_anti").count() if names else 0
            if missing:
                raise LearnSparkError(
                    f"erase: the erasure {max(names)} was interrupted, and {missing:,} of its users are not in the "
                    "file: give a file that has them too, so that it is completed"
                )
        return _Unfinished(max(names), {table for row in begun for table in row["before"]}) if names else None

    def _tables(self) -> UsersInTables:
        newest = release_in_force(ledger(self.workspace))
        versions = {} if newest is None else {FEATURES: newest.version(FEATURES)}
        return UsersInTables(self.spark, self.workspace, self.settings, self.ids, self.scratch, versions)

    def _expiring(self) -> list[LedgerRow]:
        rows = ledger(self.workspace)
        newest = release_in_force(rows)
        return [row for row in states(rows).values() if row.status != "expired" and row is not newest]

    def _release_again(self, tables: UsersInTables, plan: Erasure, before: Mapping[str, int]) -> None:
        """Expire all other releases, delete the users from the one in force, and record its present versions."""
        rows = ledger(self.workspace)
        newest, path = release_in_force(rows), self.workspace.table(FEATURES)
        concerned = FEATURES in plan.found.tables
        if plan.expiring:
            expired = [in_state(row, "expired", "a user was erased (learn-spark erase)") for row in plan.expiring]
            add_rows(self.workspace, expired)
        if concerned:
            tables.delete(FEATURES)
        if newest is not None:
            now = _versions(self.workspace)
            inputs = {
                name: str(now[name]) if name in before and value == str(before[name]) else value
                for name, value in newest.inputs.items()
            }
            outputs = {**newest.outputs, FEATURES: str(now[FEATURES])} if concerned else newest.outputs
            if (inputs, outputs) != (dict(newest.inputs), dict(newest.outputs)):
                again = in_state(newest, newest.status, "without erased users (learn-spark erase)")
                add_rows(self.workspace, [replace(again, inputs=inputs, outputs=outputs)])
        if concerned:
            purge(self.spark, path)

    def _remember(self, key: bytes, erasure_id: str) -> None:
        from pyspark.sql import functions as F

        time = F.timestamp_micros(F.lit(round(datetime.now(UTC).timestamp() * 1_000_000)))
        rows = self.ids.select(
            hashed(key, F.col(COLUMN)).alias("user_hash"),
            time.alias("erased_at"),
            F.lit(erasure_id).alias("erasure_id"),
        )
        delta.append(rows, self.workspace.table("erased_users"), contract("erased_users"))

    def _record(self, row: Mapping[str, object]) -> None:
        table = contract("erasures")
        append_rows(self.workspace.table("erasures"), table, [{**row, "written_at": datetime.now(UTC)}])

    def _texts(self, named: Callable[[str], bool]) -> dict[str, Sequence[Mapping[str, object]]]:
        """Table of bookkeeping -> keys of the rows whose text names a user."""
        found: dict[str, Sequence[Mapping[str, object]]] = {}
        for table, column in TEXTS.items():
            keys = contract(table).key
            rows = read_rows(self.workspace.table(table), [*keys, column])
            found[table] = [{key: row[key] for key in keys} for row in rows if row[column] and named(row[column])]
        return found

    def _replace_texts(self, table: str, keys: Sequence[Mapping[str, object]]) -> None:
        from pyspark.sql import functions as F

        described, path = contract(table), self.workspace.table(table)
        fields = [f for f in described.arrow_schema() if f.name in described.key]
        source = self.spark.createDataFrame(pa.Table.from_pylist([dict(key) for key in keys], pa.schema(fields)))
        same = " AND ".join(f"t.{key} = s.{key}" for key in described.key)
        with delta.translated(described, path):
            merge = delta.delta_table(self.spark, path).alias("t").merge(source.alias("s"), same)
            merge.whenMatchedUpdate(set={TEXTS[table]: F.lit(REPLACED)}).execute()
        purge(self.spark, path)

    def _measure(self, tables: Sequence[str], erasure_id: str) -> None:
        """Evaluate the gates of the new versions, which later versions are compared with."""
        gate = TableGate(self.workspace, self.settings.quality, lambda: self.spark)
        for table in tables:
            version = current_version(self.workspace.table(table))
            if version is not None and contract(table).rules:
                gate.evaluate(table, version, erasure_id)


def _versions(workspace: Workspace) -> dict[str, int]:
    versions = {table: current_version(workspace.table(table)) for table in all_tables()}
    return {table: version for table, version in versions.items() if version is not None}
