"""Lineage: the sources of a table version, model or index up to the raw files, and everything derived from it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from learn_spark.core.console import Reporter
from learn_spark.core.errors import SettingsError
from learn_spark.core.tables.contracts import all_tables
from learn_spark.core.tables.log import read_rows
from learn_spark.core.tables.runs import BOOKKEEPING, MODELS, Run, all_runs
from learn_spark.core.tables.snapshot import current_version
from learn_spark.core.tables.workspace import Workspace

SHOWN_FILES = 5


@dataclass(frozen=True, order=True)
class Artifact:
    """A table at a version, a model (``model`` @ id), or a folder such as an index (its path @ its hash)."""

    name: str
    value: str

    def __str__(self) -> str:
        return f"{self.name} @ {self.value}"


def parse(text: str, workspace: Workspace) -> Artifact:
    """The artifact of ``TABLE`` (newest version), ``TABLE@VERSION`` or ``model@ID``. Raises SettingsError."""
    name, at, value = text.partition("@")
    if name == "model" and value:
        return Artifact(name, value)
    if name not in all_tables():
        raise SettingsError(f"there is no table {name!r}; give model@ID or one of {', '.join(all_tables())}")
    newest = current_version(workspace.table(name))
    if newest is None:
        raise SettingsError(f"there is no table {name} in {workspace.root} yet")
    if not at:
        return Artifact(name, str(newest))
    if not value.isdecimal() or int(value) > newest:
        raise SettingsError(f"{name} has the versions 0 to {newest}, not {value!r}")
    return Artifact(name, value)


class Lineage:
    """The provenance of all artifacts, from the runs table.

    ``runs``: oldest first, of every status. Only finished runs (``done``) write artifacts.
    """

    def __init__(self, runs: Sequence[Run]) -> None:
        self._by_id = {run.run_id: run for run in runs}
        self._done = [run for run in runs if run.status == "done"]
        self._left_by: dict[Artifact, list[Run]] = {}
        for run in self._done:
            for made in _outputs(run):
                self._left_by.setdefault(made, []).append(run)
        self._above: dict[str, dict[str, Run]] = {}

    def maker(self, what: Artifact) -> Run | None:
        """The run that wrote an artifact: of a table, the first run that ended at this version, else at a later one."""
        if what in self._left_by:
            return self._left_by[what][0]
        if not what.value.isdecimal():
            return None
        beyond = (
            run
            for run in self._done
            for made in _outputs(run)
            if made.name == what.name and made.value.isdecimal() and int(made.value) > int(what.value)
        )
        return next(beyond, None)

    def readers(self, what: Artifact) -> list[Run]:
        """The runs that read this artifact, oldest first."""
        return [run for run in self._done if run.inputs.get(what.name) == what.value]

    def made_by(self, run: Run) -> list[Artifact]:
        """The artifacts that a run wrote, without outputs that an earlier run left at the same version."""
        return [made for made in _outputs(run) if made.name not in BOOKKEEPING and self.maker(made) == run]

    def sources(self, run: Run) -> Iterator[Run]:
        """The source run of each input of ``run``: the newest earlier run with this output, whether or not it changed
        it; of an input ``run:JOB``, that run.
        """
        for name, value in run.inputs.items():
            if name.startswith("run:"):
                left_by = [self._by_id[value]] if value in self._by_id else []
            else:
                left_by = self._left_by.get(Artifact(name, value), [])
            earlier = [one for one in left_by if one.started_at < run.started_at]
            if earlier:
                yield earlier[-1]

    def above(self, run: Run) -> dict[str, Run]:
        """Stage -> run, of the run and all its direct and indirect sources; of several runs of a stage the newest."""
        if run.run_id not in self._above:
            sources = {run.job: run}
            for source in self.sources(run):
                for job, other in self.above(source).items():
                    if job not in sources or other.started_at > sources[job].started_at:
                        sources[job] = other
            sources[run.job] = run
            self._above[run.run_id] = sources
        return self._above[run.run_id]


def _outputs(run: Run) -> Iterator[Artifact]:
    for name, value in run.outputs.items():
        yield Artifact("model", name.removeprefix(MODELS)) if name.startswith(MODELS) else Artifact(name, value)


def show_lineage(workspace: Workspace, text: str, console: Reporter) -> None:
    """Print two trees: the sources up to the raw files, and all direct and indirect readers."""
    what = parse(text, workspace)
    lineage = Lineage(all_runs(workspace))
    console.heading(f"{what}: made from")
    seen: set[Artifact] = set()

    def up(artifact: Artifact, depth: int) -> None:
        indent = "  " * depth
        if artifact.name.startswith("files:"):
            console.line(f"{indent}raw files {artifact.name.removeprefix('files:')}")
            return
        run = lineage.maker(artifact)
        if run is None:
            console.line(f"{indent}{artifact}, written by no run of this workspace")
            return
        known = artifact in seen
        console.line(f"{indent}{artifact}, by {run.job} ({run.run_id}){', as above' if known else ''}")
        if known:
            return
        seen.add(artifact)
        for file in _raw_files(workspace, run):
            console.line(f"{indent}    {file}")
        for name, value in sorted(run.inputs.items()):
            up(Artifact(name, value), depth + 1)

    up(what, 1)
    console.heading(f"{what}: read by")
    shown: set[str] = set()

    def down(artifact: Artifact, depth: int) -> None:
        for run in lineage.readers(artifact):
            made = lineage.made_by(run)
            written = ", ".join(map(str, made)) or "nothing new"
            known = run.run_id in shown
            console.line(f"{'  ' * depth}{run.job} ({run.run_id}) -> {written}{', as above' if known else ''}")
            if known:
                continue
            shown.add(run.run_id)
            for other in made:
                down(other, depth + 1)

    down(what, 1)
    if not shown:
        console.line("  nothing yet")


def _raw_files(workspace: Workspace, run: Run) -> list[str]:
    if run.job != "ingest":
        return []
    read = [row for row in read_rows(workspace.table("raw_files")) if row["run_id"] == run.run_id]
    files = [f"{row['file']} ({row['rows']:,} rows, {row['refused']:,} refused)" for row in read]
    more = [f"and {len(files) - SHOWN_FILES:,} more files"] if len(files) > SHOWN_FILES else []
    return [*sorted(files)[:SHOWN_FILES], *more]
