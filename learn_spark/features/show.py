"""Console output about releases: the list, one release in detail, and the result of a withdrawal."""

from __future__ import annotations

import json
from collections.abc import Sequence

from learn_spark.core.console import Reporter
from learn_spark.core.quality.gate import RuleResult
from learn_spark.core.tables.snapshot import Snapshot
from learn_spark.core.tables.workspace import Workspace
from learn_spark.features.ledger import READABLE, LedgerRow, current_release, ledger, release_in_force
from learn_spark.features.read import KEYS, read_release


def list_releases(workspace: Workspace, console: Reporter) -> None:
    """Print one line per release, newest first: state, as-of time, model, and numbers of users and items."""
    rows = ledger(workspace)
    if not rows:
        console.line("there is no release yet; run the publish stage")
        return
    current = release_in_force(rows)
    in_force = None if current is None else current.release_id
    newest = {row.release_id: row for row in rows}
    lines = []
    for release, row in sorted(newest.items(), key=lambda pair: -pair[1].sequence):
        lines.append(
            [
                release,
                f"{row.status}{' *' if release == in_force else ''}",
                f"{row.as_of:%Y-%m-%d %H:%M}",
                f"{row.written_at:%Y-%m-%d %H:%M}",
                row.model_id,
                f"{row.metrics.get('NDCG@10', float('nan')):.4f}",
                *(f"{_rows(workspace, row, table):,}" if _published(row) else "" for table in KEYS),
            ]
        )
    columns = ["release", "state", "as of (UTC)", "since (UTC)", "model", "NDCG@10", "users", "items"]
    console.table(f"Releases of {workspace.root}", columns, lines)
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
    lines = [[r.status, f"{r.written_at:%Y-%m-%d %H:%M:%S}", r.run_id, r.note or ""] for r in history]
    console.table(f"Release {release_id}", ["state", "since (UTC)", "run", "note"], lines)
    console.line()
    console.line(f"as of    {last.as_of:%Y-%m-%d %H:%M:%S} UTC: contains the events before this time")
    console.line(f"model    {last.model_id}, code {last.code_version}, encoder {last.encoder_key[:12]}")
    for title, pairs in (("inputs", last.inputs), ("outputs", last.outputs)):
        console.line(f"{title:<8} {', '.join(f'{name} @ {version}' for name, version in sorted(pairs.items()))}")
    console.line(f"metrics  {', '.join(f'{n} {v:.4f}' for n, v in sorted(last.metrics.items()))}")
    audited = next((row.gate_results for row in reversed(history) if row.gate_results), None)
    if audited:
        rules = [_rule(RuleResult(**result)) for result in json.loads(audited)]
        console.table("Audit", ["rule", "observed", "least", "most", "verdict", "meaning"], rules)


def show_change(withdrawn: Sequence[LedgerRow], in_force: LedgerRow | None, console: Reporter) -> None:
    """Print the withdrawn releases and the release in force."""
    for row in withdrawn:
        console.line(f"withdrawn: release {row.release_id} (model {row.model_id})")
    if in_force is None:
        console.line("released:  none")
    else:
        as_of = f"{in_force.as_of:%Y-%m-%d %H:%M}"
        console.line(f"released:  release {in_force.release_id} (model {in_force.model_id}, as of {as_of})")


def _published(row: LedgerRow) -> bool:
    return row.status in (*READABLE, "withdrawn")


def _rows(workspace: Workspace, row: LedgerRow, table: str) -> int:
    return Snapshot.open(workspace.table(table), row.version(table)).rows


def _rule(result: RuleResult) -> list[str]:
    verdict = "passed" if result.passed else "broken" if result.severity == "fail" else "warning"
    numbers = ["" if number is None else f"{number:g}" for number in (result.observed, result.least, result.most)]
    return [result.measure, *numbers, verdict, result.meaning]
