"""Retention: finds and deletes old releases, and the models, embeddings, records and files that nothing else needs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from learn_spark.ads.rankers.store import FOLDER as RANKINGS
from learn_spark.core.console import Reporter
from learn_spark.core.quality.table_gate import gate_title
from learn_spark.core.settings import Settings
from learn_spark.core.stages.context import SparkHolder
from learn_spark.core.storage.path import Entry, storage_path
from learn_spark.core.storage.worker_files import FOLDER as WORKER_FILES
from learn_spark.core.table_text import Cell
from learn_spark.core.tables import delta
from learn_spark.core.tables.contracts import all_tables
from learn_spark.core.tables.create import APPENDED, GROWING
from learn_spark.core.tables.erased import Erasures
from learn_spark.core.tables.log_files import oldest_version
from learn_spark.core.tables.maintenance import checkpoint, compact, maintain
from learn_spark.core.tables.runs import Run, all_runs
from learn_spark.core.tables.snapshot import Snapshot, current_version, open_table
from learn_spark.core.tables.workspace import Workspace
from learn_spark.encoder.retention import forget, keys_in_use
from learn_spark.features.ledger import LedgerRow, expire, ledger, states
from learn_spark.features.read import KEYS
from learn_spark.pipeline.locks import whole_workspace
from learn_spark.pipeline.records import Limits, old_records, runs_in_use

DELETED_AT_ONCE = 16  # files of a table
_OF_ROWS = ("embeddings", "quarantine")


@dataclass(frozen=True)
class Removable:
    """An object that may be deleted; ``kind``: release, folder, record, embeddings, quarantine or files.

    ``size``: in rows for embeddings and quarantine, else in bytes; 0 for a release. ``name``: of a record its path.
    """

    kind: str
    name: str
    why: str
    size: int


@dataclass(frozen=True)
class Retention:
    """The objects that may be deleted, and the versions of each table that must stay readable."""

    removable: tuple[Removable, ...]
    keep_versions: Mapping[str, Sequence[int]]
    hours: int


def plan_retention(workspace: Workspace, settings: Settings, *, releases: int, days: int) -> Retention:
    """The objects that may be deleted if the newest ``releases`` releases are kept (the one in force included).

    Backfilled releases are kept until they are withdrawn. Withdrawn releases, refused staged rows, unfinished
    trainings, models and removed files of tables are kept for ``days`` days. Also kept are, of kept releases, the
    feature table versions from the oldest on (for their change feed), input table versions, models, encoders and
    indexes; the inputs and outputs of the newest run of every stage; and pages and settings of all these. How long
    reports, logs, caches and refused rows are kept is in the settings (``retention``).
    """
    now, rows = datetime.now(UTC), ledger(workspace)
    limit = now - timedelta(days=days)
    newest_rows = states(rows)
    newest = sorted((r for r in newest_rows.values() if r.status == "released"), key=lambda r: -r.sequence)
    kept = {row.release_id: row for row in newest[:releases]}
    kept |= {name: row for name, row in newest_rows.items() if row.status == "backfilled"}
    kept |= {n: row for n, row in newest_rows.items() if row.status == "withdrawn" and row.written_at > limit}
    old = [row for name, row in newest_rows.items() if name not in kept and row.status != "expired"]
    last = _newest_runs(all_runs(workspace))
    models = {row.model_id for row in kept.values()} | _models_of(last)
    removable = [Removable("release", row.release_id, _why_release(row, releases, days), 0) for row in old]
    removable += _folders(workspace, kept, models, limit)
    without = {f"release {row.release_id}" for row in old}
    without |= {f"model {Path(one.name).name}" for one in removable if one.name.startswith("models/")}
    if current_version(workspace.table("text_embeddings")) is not None:
        unused = [key for key in keys_in_use(workspace, settings, without=without) if not key.used_by]
        removable += [Removable("embeddings", key.encoder_key, f"nothing uses {key.model}", key.rows) for key in unused]
    versions = _versions(workspace, kept.values(), last)
    removable += _records(workspace, settings, rows, kept, models, versions, now)
    removable += _refused(workspace, settings, now)
    for table, keep in versions.items():
        sizes = [file.size for file in _unused(workspace, table, keep, days * 24)]
        if sizes:
            removable.append(Removable("files", table, f"{len(sizes):,} files of no kept version", sum(sizes)))
    return Retention(tuple(removable), versions, days * 24)


def retain(
    settings: Settings, *, releases: int, days: int, delete: bool, console: Reporter, wait: bool = False
) -> Retention:
    """Print the objects that may be deleted, and delete them with ``delete``; the plan.

    Raises LearnSparkError while another run uses the workspace.
    """
    workspace = Workspace.open(settings.place, settings.scratch)
    with whole_workspace(workspace, "a run of retain", wait=wait, say=console.say):
        plan = plan_retention(workspace, settings, releases=releases, days=days)
        rows: list[list[Cell]] = [
            [one.kind, one.name, one.size or None, "rows" if one.kind in _OF_ROWS else "bytes", one.why]
            for one in plan.removable
        ]
        console.table("Unused objects", ["kind", "name", "size", "unit", "reason"], rows, name="unused")
        if delete:
            # Log tables are compacted even if there is nothing to delete.
            apply_retention(workspace, settings, plan)
            console.line("deleted" if rows else "nothing to delete")
        elif not rows:
            console.line("nothing to delete")
        else:
            console.line("nothing was deleted; --delete deletes these objects")
    return plan


def apply_retention(workspace: Workspace, settings: Settings, plan: Retention) -> None:
    """Delete the objects of ``plan``. The caller must have taken the workspace's lock before planning.

    Releases are marked as expired first, so that no consumer reads a partly deleted one; files of tables come last.
    Then tables of many small files are written as few, and logs end with a checkpoint.
    """
    by_kind: dict[str, list[str]] = {}
    for one in plan.removable:
        by_kind.setdefault(one.kind, []).append(one.name)
    if by_kind.get("release"):
        expire(workspace, by_kind["release"])
    for name in by_kind.get("folder", []):
        (workspace.place / name).remove()
    for name in by_kind.get("record", []):
        storage_path(name, workspace.place.s3).remove()
    if by_kind.get("quarantine"):
        _delete_refused(workspace, settings, by_kind["quarantine"][0])
    if by_kind.get("embeddings"):
        forget(workspace, by_kind["embeddings"])
    for table in by_kind.get("files", []):
        _delete_unused(workspace, table, plan.keep_versions[table], plan.hours)
    for table in sorted(APPENDED):
        compact(workspace.table(table))
    for table in sorted(set(all_tables()) - GROWING):
        checkpoint(workspace.table(table))
    # Of ad_metrics the newest run of rank_ads names the version, which it would not find any more.
    for table in sorted(GROWING - {"ad_metrics"}):
        maintain(workspace.table(table))


def _records(
    workspace: Workspace,
    settings: Settings,
    rows: Sequence[LedgerRow],
    kept: Mapping[str, LedgerRow],
    models: Iterable[str],
    versions: Mapping[str, Sequence[int]],
    now: datetime,
) -> list[Removable]:
    runs = all_runs(workspace)
    named = {row.run_id for row in rows if row.release_id in kept}
    last = _newest_runs(runs)
    named |= {value for run in last for side in (run.inputs, run.outputs) for value in side.values()}
    # An erasure of users changes the rankers' hash, by which the lineage knows them.
    named |= {name.partition("/")[2] for run in last for name in run.inputs if name.startswith(f"{RANKINGS}/")}
    ranker = getattr(settings.ranking, "ranker", None)
    in_use = runs_in_use(runs, {*named, *({ranker} if ranker else ())}, models)
    pages = {table: [gate_title(table, version) for version in keep] for table, keep in versions.items()}
    pages["release"] = [f"release {name}" for name in kept]
    age = settings.retention
    limits = Limits(now - timedelta(days=age.records_days), now - timedelta(days=age.cache_days))
    old = old_records(workspace, runs, in_use, pages, limits)
    return [Removable("record", str(one.path), one.why, one.size) for one in old]


def _refused(workspace: Workspace, settings: Settings, now: datetime) -> list[Removable]:
    """The refused rows of runs that started before the limit, which the ids of runs begin with; ``name``: the limit."""
    path, days = workspace.table("quarantine"), settings.retention.quarantine_days
    if days is None or current_version(path) is None:
        return []
    limit = f"{now - timedelta(days=days):%Y%m%dT%H%M%S}"
    old = sum(pc.sum(pc.less(b["run_id"], limit)).as_py() or 0 for b in Snapshot.open(path).batches(["run_id"], 65_536))
    return [Removable("quarantine", limit, f"refused more than {days} days ago", old)] if old else []


def _delete_refused(workspace: Workspace, settings: Settings, limit: str) -> None:
    """By Spark, which writes this table: deltalake cannot check its constraint."""
    holder = SparkHolder(settings, verbose=False)
    try:
        delta.delta_table(holder.get(workspace), workspace.table("quarantine")).delete(f"run_id < '{limit}'")
    finally:
        holder.stop()


def _why_release(row: LedgerRow, releases: int, days: int) -> str:
    if row.status == "withdrawn":
        return f"withdrawn {row.written_at:%Y-%m-%d}, more than {days} days ago"
    return f"older than the newest {releases}"


def _newest_runs(runs: Iterable[Run]) -> list[Run]:
    return list({run.job: run for run in runs if run.status == "done"}.values())


def _models_of(runs: Iterable[Run]) -> set[str]:
    named = {model for run in runs for model in (run.model_id, run.inputs.get("model"))}
    return {model for model in named if model is not None}


def _folders(workspace: Workspace, kept: Mapping[str, Any], models: set[str], limit: datetime) -> list[Removable]:
    removable = []
    for parent, needed, why in (
        ("staged", set(), "staged rows of a refused release"),
        ("staging", {"to_encode"}, "temporary files of a killed run"),
        ("indexes", set(kept), "index of a release that is not kept"),
        (WORKER_FILES, set(), "a copy for workers, which is made again"),
        ("models", models | {"unfinished"}, "a model of no kept release and no newest run"),
        ("models/unfinished", set(), "checkpoints of an abandoned training"),
    ):
        folder = workspace.place / parent
        for one in folder.children():
            files = list(one.files())
            touched = max((file.changed for file in files), default=0.0)
            # An index can be exported again at any time; the other folders cannot be recreated as easily.
            old = parent == "indexes" or datetime.fromtimestamp(touched, UTC) < limit
            if one.is_folder() and one.name not in needed and not one.name.startswith(".") and old:
                removable.append(Removable("folder", f"{parent}/{one.name}", why, sum(file.size for file in files)))
    return removable


def _versions(workspace: Workspace, kept: Iterable[LedgerRow], last: Iterable[Run]) -> dict[str, list[int]]:
    """Table -> versions that must stay readable, for all existing tables."""
    kept, last, erasures = list(kept), list(last), Erasures(workspace)
    versions = {}
    for table in all_tables():
        newest = current_version(workspace.table(table))
        if newest is None:
            continue
        named = [side.get(table) for row in kept for side in (row.inputs, row.outputs)]
        named += [side.get(table) for run in last for side in (run.inputs, run.outputs)]
        needed = {int(version) for version in named if version is not None and version.isdecimal()} | {newest}
        # Spark deletes old commits of a log, and maintain does; files of versions before are lost to every reader.
        oldest = max(erasures.oldest_version(table), oldest_version(workspace.table(table)) or 0)
        needed = {version for version in needed if version >= oldest}
        if table in KEYS:
            # The change feed between two releases needs the versions between them.
            needed = set(range(min(needed), newest + 1))
        versions[table] = sorted(version for version in needed if version <= newest)
    return versions


def _unused(workspace: Workspace, table: str, keep: Sequence[int], hours: int) -> list[Entry]:
    """The files of a table that no version of ``keep`` has, and that left it more than ``hours`` ago."""
    place = workspace.table(table)
    names = open_table(place).vacuum(
        retention_hours=hours, dry_run=True, enforce_retention_duration=False, keep_versions=list(keep)
    )
    if not names:
        return []
    # An erasure of users deletes files that the log still names as removed.
    there = {entry.path: entry for entry in place.files()}
    return [there[place / name] for name in names if place / name in there]


def _delete_unused(workspace: Workspace, table: str, keep: Sequence[int], hours: int) -> None:
    """A VACUUM would be two commits: versions without other rows, after which the stages that read them run again."""
    files = _unused(workspace, table, keep, hours)
    with ThreadPoolExecutor(DELETED_AT_ONCE) as threads:
        list(threads.map(lambda file: file.path.remove(), files))
