"""Console output about releases: the list, one release in detail, and the result of a withdrawal."""

from __future__ import annotations

import json

from learn_spark.core.console import Reporter
from learn_spark.core.quality.gate import RuleResult
from learn_spark.core.table_text import Cell, Column
from learn_spark.core.tables.snapshot import Snapshot
from learn_spark.core.tables.workspace import Workspace
from learn_spark.evaluation.labels import shown_metrics
from learn_spark.features.ledger import READABLE, LedgerRow, current_release, ledger, release_in_force
from learn_spark.features.read import KEYS, read_release
from learn_spark.features.withdrawal import Change


def list_releases(workspace: Workspace, console: Reporter) -> None:
    """Print one line per release, newest first: state, as-of time, model, and numbers of users and items."""
    rows = ledger(workspace)
    if not rows:
        console.line("there is no release yet; learn-spark publish makes one")
        return
    current = release_in_force(rows)
    in_force = None if current is None else current.release_id
    newest = {row.release_id: row for row in rows}
    lines: list[list[Cell]] = []
    for release, row in sorted(newest.items(), key=lambda pair: -pair[1].sequence):
        lines.append(
            [
                release,
                row.status,
                row.as_of,
                row.written_at,
                row.model_id,
                row.metrics.get("NDCG@10"),
                *(_rows(workspace, row, table) if _published(row) else None for table in KEYS),
            ]
        )
    names = ["release", "state", "as of (UTC)", "since (UTC)", "model", "NDCG@10", "users", "items"]
    console.table(
        f"Releases of {workspace.place}",
        [Column(name, ".4f" if name == "NDCG@10" else "") for name in names],
        [[release, f"{state} *" if release == in_force else state, *rest] for release, state, *rest in lines],
        name="releases",
    )
    # In place of the rows with the mark, which is for people: a program compares the state.
    console.record("releases", [dict(zip(names, line, strict=True)) for line in lines])
    console.record("in_force", in_force)
    console.line("* the release in force, which consumers read" if in_force else "no release is in force")


def show_release(workspace: Workspace, release: str, console: Reporter) -> None:
    """Print the rows of one release (``latest``: the one in force), its versions, and the rules of its last audit.

    Raises NoReleaseError if there is no such release.
    """
    rows = ledger(workspace)
    release_id = current_release(rows).release_id if release == "latest" else release
    history = [row for row in rows if row.release_id == release_id]
    if not history:
        # Raises NoReleaseError, which lists the newest releases.
        read_release(workspace, release=release_id)
    last = history[-1]
    console.record("release", release_id)
    for name in ("as_of", "model_id", "code_version", "encoder_key", "inputs", "outputs", "metrics"):
        console.record(name, getattr(last, name))
    lines = [[r.status, r.written_at, r.run_id, r.note] for r in history]
    console.table(
        f"Release {release_id}",
        ["state", Column("since (UTC)", "%Y-%m-%d %H:%M:%S"), "run", "note"],
        lines,
        name="rows",
    )
    console.line()
    console.line(f"as of    {last.as_of:%Y-%m-%d %H:%M:%S} UTC: contains the events before this time")
    console.line(f"model    {last.model_id}, code {last.code_version}, encoder {last.encoder_key}")
    for title, pairs in (("inputs", last.inputs), ("outputs", last.outputs)):
        console.line(f"{title:<8} {', '.join(f'{name} @ {version}' for name, version in sorted(pairs.items()))}")
    console.line(f"metrics  {', '.join(f'{n} {v:.4f}' for n, v in shown_metrics(last.metrics).items())}")
    audited = next((row.gate_results for row in reversed(history) if row.gate_results), None)
    if audited:
        rules = [_rule(RuleResult(**result)) for result in json.loads(audited)]
        console.table("Audit", ["rule", "observed", "least", "most", "verdict", "meaning"], rules, name="audit")


def show_plan(change: Change, does: str, console: Reporter, *, dry_run: bool) -> None:
    """Print what a change of the ledger will do, and which release will be in force; ``does``: withdraw or restore."""
    will = "would" if dry_run else "will"
    for row in change.changed:
        console.line(f"{will} {does} release {row.release_id} (model {row.model_id})")
    console.line(f"{will} be in force: {_in_words(change.after)}")
    console.record(does, [row.release_id for row in change.changed])
    console.record("in_force", None if change.after is None else change.after.release_id)
    console.record("dry_run", dry_run)


def show_change(change: Change, does: str, in_force: LedgerRow | None, console: Reporter) -> None:
    """Print the withdrawn or restored releases and the release in force."""
    done = {"withdraw": "withdrawn", "restore": "restored"}[does]
    for row in change.changed:
        console.line(f"{done + ':':<10} release {row.release_id} (model {row.model_id})")
    console.line(f"released:  {_in_words(in_force)}")


def _in_words(row: LedgerRow | None) -> str:
    if row is None:
        return "none"
    return f"release {row.release_id} (model {row.model_id}, as of {row.as_of:%Y-%m-%d %H:%M})"


def _published(row: LedgerRow) -> bool:
    return row.status in (*READABLE, "withdrawn")


def _rows(workspace: Workspace, row: LedgerRow, table: str) -> int:
    return Snapshot.open(workspace.table(table), row.version(table)).rows


def _rule(result: RuleResult) -> list[Cell]:
    verdict = "passed" if result.passed else "broken" if result.severity == "fail" else "warning"
    return [result.measure, result.observed, result.least, result.most, verdict, result.meaning]
