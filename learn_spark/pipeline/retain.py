"""What may be deleted: old releases and what only they need. Shown first; nothing that is still read ever goes."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from deltalake import DeltaTable

from learn_spark.core.console import Reporter
from learn_spark.core.settings import Settings
from learn_spark.core.tables.contracts import all_tables
from learn_spark.core.tables.runs import Run, all_runs
from learn_spark.core.tables.snapshot import current_version
from learn_spark.core.tables.workspace import Workspace
from learn_spark.encoder.retention import forget, keys_in_use
from learn_spark.features.ledger import LedgerRow, expire, ledger, states
from learn_spark.features.read import KEYS
from learn_spark.pipeline.locks import whole_workspace


@dataclass(frozen=True)
class Going:
    """Something that may go: a release, folder, embeddings or files (``kind``); ``size`` in bytes, else rows."""

    kind: str
    name: str
    why: str
    size: int


@dataclass(frozen=True)
class Retention:
    """All that may go, and the versions of each table that must stay readable."""

    going: tuple[Going, ...]
    keep_versions: Mapping[str, Sequence[int]]
    hours: int


def plan_retention(workspace: Workspace, settings: Settings, *, releases: int, days: int) -> Retention:
    """What goes if the newest ``releases`` released ones stay (the one that holds is among them).

    Backfilled releases stay until they are withdrawn; withdrawn ones, what an audit refused, unfinished trainings,
    models and a table's removed files stay ``days`` days. What stays keeps: the releases' feature tables from the
    oldest on (so that their changes can be told), the tables they were made of, their models, encoders and indexes;
    the newest run of every stage keeps what it read and wrote.
    """
    now, rows = datetime.now(UTC), ledger(workspace)
    young = now - timedelta(days=days)
    known = states(rows)
    newest = sorted((r for r in known.values() if r.status == "released"), key=lambda r: -r.sequence)
    kept = {row.release_id: row for row in newest[:releases]}
    kept |= {name: row for name, row in known.items() if row.status == "backfilled"}
    kept |= {n: row for n, row in known.items() if row.status == "withdrawn" and row.written_at > young}
    gone = [row for name, row in known.items() if name not in kept and row.status != "expired"]
    last = list({run.job: run for run in all_runs(workspace) if run.status == "done"}.values())
    models = {row.model_id for row in kept.values()} | _models_of(last)
    going = [Going("release", row.release_id, _why_release(row, releases, days), 0) for row in gone]
    going += _folders(workspace, kept, models, young)
    without = {f"release {row.release_id}" for row in gone}
    without |= {f"model {Path(one.name).name}" for one in going if one.name.startswith("models/")}
    if current_version(workspace.table("text_embeddings")) is not None:
        unused = [key for key in keys_in_use(workspace, settings, without=without) if not key.used_by]
        going += [Going("embeddings", key.encoder_key, f"nothing uses {key.model}", key.rows) for key in unused]
    versions = _versions(workspace, kept.values(), last)
    for table, keep in versions.items():
        files = _vacuum(workspace, table, keep, days * 24, dry_run=True)
        if files:
            size = sum(_size(Path(workspace.table(table)) / file) for file in files)
            going.append(Going("files", table, f"{len(files):,} files that no kept version has", size))
    return Retention(tuple(going), versions, days * 24)


def retain(settings: Settings, *, releases: int, days: int, delete: bool, console: Reporter) -> Retention:
    """Show what may go, and delete it if asked to. LearnSparkError while a run is at work, which may need any of it."""
    workspace = Workspace.open(settings.workspace)
    with whole_workspace(workspace, "a run of retain"):
        plan = plan_retention(workspace, settings, releases=releases, days=days)
        units = {"embeddings": "rows"}
        rows = [
            [one.kind, one.name, f"{one.size:,} {units.get(one.kind, 'bytes')}" if one.size else "", one.why]
            for one in plan.going
        ]
        console.table("Not needed any more", ["what", "name", "size", "why"], rows)
        if not rows:
            console.line("nothing to delete")
        elif delete:
            apply_retention(workspace, plan)
            console.line("deleted")
        else:
            console.line("--delete would delete this")
    return plan


def apply_retention(workspace: Workspace, plan: Retention) -> None:
    """Delete what ``plan`` lists. The caller holds the workspace's lock since before it was made.

    First the ledger says that the releases expired, so that nobody finds one half gone; last the tables' files.
    """
    by_kind: dict[str, list[str]] = {}
    for one in plan.going:
        by_kind.setdefault(one.kind, []).append(one.name)
    if by_kind.get("release"):
        expire(workspace, by_kind["release"])
    for name in by_kind.get("folder", []):
        shutil.rmtree(workspace.root / name)
    if by_kind.get("embeddings"):
        forget(workspace, by_kind["embeddings"])
    for table in by_kind.get("files", []):
        _vacuum(workspace, table, plan.keep_versions[table], plan.hours, dry_run=False)


def _why_release(row: LedgerRow, releases: int, days: int) -> str:
    if row.status == "withdrawn":
        return f"withdrawn {row.written_at:%Y-%m-%d}, more than {days} days ago"
    return f"older than the newest {releases}"


def _models_of(runs: Iterable[Run]) -> set[str]:
    named = {model for run in runs for model in (run.model_id, run.inputs.get("model"))}
    return {model for model in named if model is not None}


def _folders(workspace: Workspace, kept: Mapping[str, Any], models: set[str], young: datetime) -> list[Going]:
    found = []
    for parent, needed, why in (
        ("staged", set(), "what an audit refused"),
        ("indexes", set(kept), "index of a release that is not kept"),
        ("models", models | {"unfinished"}, "a model that no kept release or newest run has"),
        ("models/unfinished", set(), "checkpoints of a training that was left"),
    ):
        folder = workspace.root / parent
        for one in sorted(folder.iterdir()) if folder.is_dir() else ():
            files = [file for file in one.rglob("*") if file.is_file()]
            touched = max((file.stat().st_mtime for file in files), default=one.stat().st_mtime)
            # An index can be exported again at any time; the others are somebody's work or evidence.
            old = parent == "indexes" or datetime.fromtimestamp(touched, UTC) < young
            if one.is_dir() and one.name not in needed and not one.name.startswith(".") and old:
                found.append(Going("folder", f"{parent}/{one.name}", why, sum(file.stat().st_size for file in files)))
    return found


def _versions(workspace: Workspace, kept: Iterable[LedgerRow], last: Iterable[Run]) -> dict[str, list[int]]:
    """Table -> versions that must stay readable, of all tables that are there."""
    kept, last = list(kept), list(last)
    found = {}
    for table in all_tables():
        newest = current_version(workspace.table(table))
        if newest is None:
            continue
        named = [side.get(table) for row in kept for side in (row.inputs, row.outputs)]
        named += [side.get(table) for run in last for side in (run.inputs, run.outputs)]
        needed = {int(version) for version in named if version is not None and version.isdecimal()} | {newest}
        if table in KEYS:
            # The change feed between two releases is made of the versions between them.
            needed = set(range(min(needed), newest + 1))
        found[table] = sorted(version for version in needed if version <= newest)
    return found


def _vacuum(workspace: Workspace, table: str, keep: Sequence[int], hours: int, *, dry_run: bool) -> list[str]:
    return DeltaTable(workspace.table(table)).vacuum(
        retention_hours=hours, dry_run=dry_run, enforce_retention_duration=False, keep_versions=list(keep)
    )


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
