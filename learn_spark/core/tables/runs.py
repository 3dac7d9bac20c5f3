"""The runs table: inputs, outputs and status of every run."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.dataset as ds

from learn_spark.core.storage.path import StoragePath
from learn_spark.core.tables.contracts import contract
from learn_spark.core.tables.dicts import as_dicts
from learn_spark.core.tables.log import append_depending, forget_log, rows_of_newest
from learn_spark.core.tables.snapshot import Snapshot, commits_at
from learn_spark.core.tables.workspace import Workspace

MODELS = "models/"  # prefix of an output that is a model; the rest is its id
# Tables that runs of several stages append to: a run records their versions, but no other table is made from them.
BOOKKEEPING = frozenset({"quarantine", "raw_files", "encoders"})
# Tables whose rows belong to one run or key: rows of another run do not make an output out of date.
ROWS_OF_MANY_RUNS = BOOKKEEPING | {"embedding_spaces", "evaluations", "evaluation_slices", "evaluation_users"}


@dataclass(frozen=True)
class Run:
    """A row of the runs table; schemas/runs.yaml describes the fields."""

    run_id: str
    job: str
    status: str
    config_hash: str
    code_version: str
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    counts: Mapping[str, int]
    seconds: float
    started_at: datetime
    message: str | None = None
    sequence: int | None = None

    @property
    def model_id(self) -> str | None:
        """The model that the run wrote; None if it wrote none."""
        written = (name.removeprefix(MODELS) for name in self.outputs if name.startswith(MODELS))
        return next(written, None)


def new_run_id(now: datetime | None = None) -> str:
    """A run id that sorts by start time."""
    moment = (now or datetime.now(UTC)).strftime("%Y%m%dT%H%M%S")
    return f"{moment}-{secrets.token_hex(4)}"


def record(workspace: Workspace, run: Run) -> None:
    """Append the run to the table, with the next ``sequence``."""
    path = workspace.table("runs")
    values = {name: getattr(run, name) for name in contract("runs").names}
    append_depending(path, contract("runs"), lambda: [values | {"sequence": Snapshot.open(path).rows + 1}])


def all_runs(workspace: Workspace) -> list[Run]:
    """All recorded runs, oldest first: in the order of writing, and not by the clocks of their machines.

    The table is read once a process, and then only what was written since.

    Rows of version 0.2, which have no sequence, come first, by their start times.
    """
    path = workspace.table("runs")
    commits, read = commits_at(path), _read.get(path)
    if not commits:
        _read.pop(path, None)
        forget_log(path)
        return []
    if read is None or read.mark != max(commits.items()):
        read = _read[path] = _read_runs(path, commits, read)
    return list(read.runs)


@dataclass(frozen=True)
class _Read:
    """Runs that this process has read: of which table, and up to which commit."""

    table_id: str
    mark: tuple[int, int]
    runs: tuple[Run, ...]


_read: dict[str, _Read] = {}


def _read_runs(path: StoragePath, commits: Mapping[int, int], before: _Read | None) -> _Read:
    """The runs, of which only those are read that were written since ``before``."""
    mark = max(commits.items())
    if before is not None and before.runs and before.runs[-1].sequence:
        sequence = ds.field("sequence")
        table_id, new = rows_of_newest(path, commits, (sequence > before.runs[-1].sequence) | sequence.is_null())
        runs = (*before.runs, *_sorted(new))
        if table_id == before.table_id and not new["sequence"].null_count and runs[-1].sequence == len(runs):
            return _Read(table_id, mark, runs)
    table_id, rows = rows_of_newest(path, commits)
    return _Read(table_id, mark, tuple(_sorted(rows)))


def _sorted(rows: pa.Table) -> list[Run]:
    runs = (Run(**row) for row in as_dicts(rows))
    return sorted(runs, key=lambda run: (run.sequence or 0, run.started_at, run.run_id))


def last_done(workspace: Workspace, job: str) -> Run | None:
    """The newest run of ``job`` with the status done; None if there is none."""
    return next((run for run in reversed(all_runs(workspace)) if run.job == job and run.status == "done"), None)


def run_order(workspace: Workspace) -> dict[str, int]:
    """Run id -> its place among all recorded runs, from 0. Results are ordered by it: ids are times of some clock."""
    return {run.run_id: place for place, run in enumerate(all_runs(workspace))}


def versions_beside(workspace: Workspace, table: str, version: int) -> dict[str, int]:
    """Table -> version, as they were when the run that wrote ``version`` of ``table`` ended, by the recorded runs.

    Of the run itself what it wrote, else what it read; of other tables what the newest earlier run wrote. Clocks play
    no part. Empty where no run recorded that version.
    """
    beside: dict[str, int] = {}
    for run in all_runs(workspace):
        written = {name: int(value) for name, value in run.outputs.items() if value.isdigit()}
        if written.get(table, -1) >= version:
            read = {name: int(value) for name, value in run.inputs.items() if value.isdigit()}
            return {**beside, **read, **written}
        beside |= written
    return {}
