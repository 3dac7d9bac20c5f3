"""The tables of a workspace: newest version, rows, bytes, and how the rows grew from run to run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from learn_spark.core.stages.registry import all_stages
from learn_spark.core.tables.runs import Run
from learn_spark.core.tables.snapshot import Snapshot, SnapshotError, current_version
from learn_spark.core.tables.workspace import Workspace

VERSIONS = 6  # of a table, the newest ones that runs left
WIDE, HIGH = 72.0, 18.0  # of a line of growth, in pixels


@dataclass(frozen=True)
class TableState:
    """A table now. ``bytes`` are those of its files; ``grew``: rows more than at the version that an earlier run left.

    ``points``: (version, rows) of the newest versions that runs left, oldest first; ``line``: they as the points of an
    SVG polyline, empty for fewer than two. ``written``: the run's start. ``verdict``: of the newest gate, if any.
    """

    name: str
    version: int
    rows: int
    bytes: int
    grew: int | None
    points: tuple[tuple[int, int], ...]
    line: str
    job: str
    written: datetime | None
    verdict: str | None


def table_states(workspace: Workspace, runs: Sequence[Run], verdicts: Mapping[str, str]) -> list[TableState]:
    """The tables that stages write, in the order of the stages, each once. ``runs``: oldest first; ``verdicts``: of
    "table @ version".

    A version whose files or log are gone has no point.
    """
    names = list(dict.fromkeys(table for stage in all_stages() for table in stage.writes))
    return [state for name in names if (state := _state(workspace, name, runs, verdicts)) is not None]


def _state(workspace: Workspace, name: str, runs: Sequence[Run], verdicts: Mapping[str, str]) -> TableState | None:
    path = workspace.table(name)
    newest = current_version(path)
    if newest is None:
        return None
    writers = [run for run in runs if run.outputs.get(name, "").isdecimal()]
    left = dict.fromkeys(int(run.outputs[name]) for run in writers)
    versions = sorted(version for version in left if version < newest)[1 - VERSIONS :]
    now = Snapshot.open(path)
    points = [(version, rows) for version in versions if (rows := _rows(path, version)) is not None]
    points.append((now.version, now.rows))
    first = next((run for run in writers if run.outputs[name] == str(newest)), None)
    return TableState(
        name=name,
        version=now.version,
        rows=now.rows,
        bytes=now.size_bytes,
        grew=points[-1][1] - points[-2][1] if len(points) > 1 else None,
        points=tuple(points),
        line=_line([rows for _, rows in points]),
        job=first.job if first else "",
        written=first.started_at if first else None,
        verdict=verdicts.get(f"{name} @ {now.version}"),
    )


def _rows(path: str, version: int) -> int | None:
    try:
        return Snapshot.open(path, version).rows
    except SnapshotError:
        return None


def _line(rows: Sequence[int]) -> str:
    """Points from 0 to the highest number of rows, from left to right."""
    if len(rows) < 2:
        return ""
    top = max(1, *rows)
    step = WIDE / (len(rows) - 1)
    return " ".join(f"{1 + place * step:.1f},{1 + HIGH * (1 - count / top):.1f}" for place, count in enumerate(rows))
