"""Provenance: every run whose rows are in a table version, and the raw files that these rows come from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow.dataset as ds

from learn_spark.core.tables.contracts import all_tables
from learn_spark.core.tables.log import read_rows
from learn_spark.core.tables.runs import BOOKKEEPING, Run, all_runs
from learn_spark.core.tables.snapshot import current_version, open_table
from learn_spark.core.tables.workspace import Workspace
from learn_spark.data.sources.kafka import offsets_of
from learn_spark.pipeline.lineage import Artifact, Lineage

FILES = "files:"  # prefix of an input that is a folder of raw files
# Tables of ingest -> the table whose rows of a file they are made from.
FROM_ROWS_OF = {"items": "items", "item_index": "items", "interactions": "interactions"}


@dataclass(frozen=True, order=True)
class RawFileUse:
    """A raw file that one run read. ``rows`` and ``refused`` count all its rows, of items and events together."""

    folder: str
    file: str
    rows: int
    refused: int
    run_id: str


@dataclass(frozen=True)
class Step:
    """One run whose rows are in an artifact.

    ``wrote``: the newest version of the artifact that this run wrote; ``inputs``: what it read, without raw files;
    ``folders``: of raw files.
    """

    wrote: Artifact
    run: Run | None
    inputs: tuple[Artifact, ...] = ()
    folders: tuple[str, ...] = ()
    files: tuple[RawFileUse, ...] = ()


class Provenance:
    """The provenance of all artifacts of a workspace, from runs, raw_files and the logs of the tables."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self.lineage = Lineage(all_runs(workspace))
        self._replaced: dict[str, list[int]] = {}
        self._files_of_run: dict[str, list[dict[str, Any]]] = {}

    def steps(self, what: Artifact) -> Iterator[Step]:
        """The runs whose rows are in ``what``, newest first.

        A version that was merged into or appended to has the rows of earlier versions, back to the last version that
        replaced all rows. A version whose commit the log no longer has counts as one that replaced nothing.
        """
        if what.name not in all_tables():
            yield self._step(what, self.lineage.maker(what))
            return
        version = int(what.value)
        first = max((one for one in self._replacements(what.name) if one <= version), default=0)
        last: Step | None = None
        for number in range(version, first - 1, -1):
            wrote = Artifact(what.name, str(number))
            run = self.lineage.maker(wrote)
            if last is None or last.run is not run:
                last = self._step(wrote, run)
                yield last

    def raw_files(self, what: Artifact) -> list[RawFileUse]:
        """The raw files that the rows of ``what`` come from, directly or not, sorted."""
        files: set[RawFileUse] = set()
        seen: set[Artifact] = set()
        waiting = [what]
        while waiting:
            for step in self.steps(waiting.pop()):
                if step.wrote in seen:
                    # So were the steps below it.
                    break
                seen.add(step.wrote)
                files.update(step.files)
                waiting.extend(step.inputs)
        return sorted(files)

    def derived(self, what: Artifact) -> Iterator[tuple[Run, list[Artifact]]]:
        """(run, what it wrote) of every run that read ``what`` or merged into it, in the order of the runs."""
        readers = {run.run_id: run for run in self.lineage.readers(what)}
        later = Artifact(what.name, str(int(what.value) + 1)) if what.name in all_tables() else None
        merged = None if later is None else next(self.steps(later), None)
        if (
            merged is not None
            and merged.run is not None
            and int(merged.wrote.value) not in self._replacements(what.name)
        ):
            readers.setdefault(merged.run.run_id, merged.run)
        for run in sorted(readers.values(), key=self.lineage.place):
            yield run, [made for made in self.lineage.made_by(run) if made != what]

    def _step(self, wrote: Artifact, run: Run | None) -> Step:
        if run is None:
            return Step(wrote, None)
        folders = tuple(name.removeprefix(FILES) for name in sorted(run.inputs) if name.startswith(FILES))
        inputs = [Artifact(name, value) for name, value in sorted(run.inputs.items()) if not name.startswith(FILES)]
        return Step(wrote, run, tuple(inputs), folders, tuple(self._files(wrote.name, run, folders)))

    def _files(self, table: str, run: Run, folders: tuple[str, ...]) -> list[RawFileUse]:
        if run.job != "ingest":
            return []
        rows = [row for row in self._raw_files([run.run_id]) if _gave_rows(row, table)]
        if table == "interactions" and run.counts.get("out_of_quarantine"):
            # Events that waited in quarantine for their item: of files that an earlier run read.
            earlier = self._raw_files(list(self.lineage.before(run)))
            rows += filter(_may_have_waited, earlier)
        folder = folders[0] if folders else ""
        uses = [RawFileUse(folder, _named(row), row["rows"], row["refused"], row["run_id"]) for row in rows]
        return sorted(uses)

    def _raw_files(self, run_ids: Sequence[str]) -> list[dict[str, Any]]:
        """The rows of raw_files of some runs, in the order of the runs."""
        wanted = [one for one in dict.fromkeys(run_ids) if one not in self._files_of_run]
        if wanted:
            self._files_of_run |= {one: [] for one in wanted}
            for row in read_rows(self._workspace.table("raw_files"), where=ds.field("run_id").isin(wanted)):
                self._files_of_run[row["run_id"]].append(row)
        return [row for one in run_ids for row in self._files_of_run[one]]

    def _replacements(self, table: str) -> list[int]:
        """The versions that replaced all rows of a table."""
        if table not in self._replaced:
            path = self._workspace.table(table)
            commits = [] if current_version(path) is None else open_table(path).history()
            self._replaced[table] = [int(one["version"]) for one in commits if _replaced_all(one)]
        return self._replaced[table]


def _gave_rows(row: Mapping[str, Any], table: str) -> bool:
    """Whether rows of the file can be in the table. Version 0.2 did not count them by table."""
    if row["error"] is not None:
        return False
    if table == "quarantine":
        return bool(row["refused"])
    if table in BOOKKEEPING or table not in FROM_ROWS_OF or row.get("good_rows") is None:
        return True
    return bool(row["good_rows"].get(FROM_ROWS_OF[table]))


def _named(row: Mapping[str, Any]) -> str:
    """The file; a partition of a topic with the offsets that were read."""
    if not row["state"].startswith("offsets:"):
        return str(row["file"])
    begin, end = offsets_of(row["state"])
    return f"{row['file']} offsets {begin} to {end - 1}"


def _may_have_waited(row: Mapping[str, Any]) -> bool:
    return bool(row["refused"]) and (row.get("good_rows") is None or "interactions" in row["good_rows"])


def _replaced_all(commit: Mapping[str, Any]) -> bool:
    """Whether a commit of a table's log replaced all rows: an overwrite without a predicate."""
    given = commit.get("operationParameters") or {}
    return str(given.get("mode")).lower() == "overwrite" and given.get("predicate") in (None, "", "[]")
