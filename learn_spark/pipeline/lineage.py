"""Lineage: which run wrote and which runs read a table version, a model or an index, from the runs table."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from learn_spark.core.errors import SettingsError
from learn_spark.core.tables.contracts import all_tables
from learn_spark.core.tables.runs import BOOKKEEPING, MODELS, ROWS_OF_MANY_RUNS, Run
from learn_spark.core.tables.snapshot import current_version
from learn_spark.core.tables.workspace import Workspace


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
        raise SettingsError(f"there is no table {name} in {workspace.place} yet")
    if not at:
        return Artifact(name, str(newest))
    if not value.isdecimal() or int(value) > newest:
        raise SettingsError(f"{name} has the versions 0 to {newest}, not {value!r}")
    return Artifact(name, value)


class Lineage:
    """The makers and readers of all artifacts.

    ``runs``: in the order of writing, of every status. A run that failed after a commit wrote that version too; only
    finished runs (``done``) are readers and sources.
    """

    def __init__(self, runs: Sequence[Run]) -> None:
        self._place = {run.run_id: number for number, run in enumerate(runs)}
        self._by_id = {run.run_id: run for run in runs}
        self._done = [run for run in runs if run.status == "done"]
        self._left_by: dict[Artifact, list[Run]] = {}
        for run in self._done:
            for made in _outputs(run):
                self._left_by.setdefault(made, []).append(run)
        self._ends = _first_ends(runs)
        self._versions: dict[str, list[int]] = {}
        self._above: dict[str, dict[str, Run]] = {}

    def maker(self, what: Artifact) -> Run | None:
        """The run that wrote an artifact: of a table, the first run that ended at this version, else at the next."""
        if what.name not in all_tables():
            return next(iter(self._left_by.get(what, [])), None)
        ends = self._ends.get(what.name, {})
        versions = self._versions.setdefault(what.name, sorted(ends))
        place = bisect_left(versions, int(what.value))
        return ends[versions[place]] if place < len(versions) else None

    def place(self, run: Run) -> int:
        """The place of a run in the order of writing."""
        return self._place[run.run_id]

    def before(self, run: Run) -> list[str]:
        """Ids of the runs that were recorded before ``run``."""
        return [name for name, place in self._place.items() if place < self.place(run)]

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
            earlier = [one for one in left_by if self.place(one) < self.place(run)]
            if earlier:
                yield earlier[-1]

    def above(self, run: Run) -> dict[str, Run]:
        """Stage -> run, of the run and all its direct and indirect sources; of several runs of a stage the newest."""
        if run.run_id not in self._above:
            sources = {run.job: run}
            for source in self.sources(run):
                for job, other in self.above(source).items():
                    if job not in sources or self.place(other) > self.place(sources[job]):
                        sources[job] = other
            sources[run.job] = run
            self._above[run.run_id] = sources
        return self._above[run.run_id]


def _outputs(run: Run) -> Iterator[Artifact]:
    for name, value in run.outputs.items():
        yield Artifact("model", name.removeprefix(MODELS)) if name.startswith(MODELS) else Artifact(name, value)


def _first_ends(runs: Sequence[Run]) -> dict[str, dict[int, Run]]:
    """Table -> version -> the first run that ended at it. A table whose versions start anew was made anew."""
    ends: dict[str, dict[int, Run]] = {}
    for run in runs:
        for made in _outputs(run):
            if not made.value.isdecimal():
                continue
            versions, version = ends.setdefault(made.name, {}), int(made.value)
            if made.name not in ROWS_OF_MANY_RUNS and versions and version < max(versions):
                versions.clear()
            versions.setdefault(version, run)
    return ends
