"""The new files of a source, by the ledger raw_files: file, state when read, and version of the reader."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from learn_spark.core.settings.source import SourceSettings
from learn_spark.core.stages.code import code_version, contract_without_explanations
from learn_spark.core.tables.contracts import contract
from learn_spark.core.tables.log import append_rows, read_rows
from learn_spark.core.tables.workspace import Workspace
from learn_spark.data.sources.delta_tables import has_changes_since
from learn_spark.data.sources.kafka import offsets_of, read_after
from learn_spark.data.sources.source import RawFile

# The modules that turn files into rows.
READERS = ("learn_spark.data.sources.formats", "learn_spark.data.sources.landing")


def reader_version(settings: SourceSettings) -> str:
    """16 hex digits that change whenever rows could be read differently: settings, readers, contracts."""
    digest = hashlib.sha256(settings.model_dump_json(exclude={"path", "unreadable"}).encode())
    digest.update(code_version(*READERS, within="learn_spark.data.").encode())
    contracts = [contract_without_explanations(table) for table in ("items", "interactions", "quarantine")]
    digest.update(json.dumps(contracts, sort_keys=True).encode())
    return digest.hexdigest()[:16]


def fingerprint(files: Sequence[RawFile]) -> str:
    """SHA-256 over names and states; it changes when a file is added, removed or modified."""
    lines = (f"{file.name}\0{_mark(file)}\n" for file in sorted(files, key=lambda file: file.name))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _mark(file: RawFile) -> str:
    """What of a state says that there is something new: of a partition the end, because the brokers move the begin."""
    return str(offsets_of(file.state)[1]) if file.is_partition else file.state


def new_files(
    files: Sequence[RawFile], workspace: Workspace, reader: str, *, skipped_too: bool = False
) -> list[RawFile]:
    """The files whose state and reader are not in the ledger; with ``skipped_too``, also those with an error.

    Of a Delta table with a change feed, and of a partition of a topic, only what is new since the state in the ledger
    is to be read (``since``).
    """
    newest: dict[str, tuple[datetime, str, str]] = {}
    broken: set[tuple[str, str]] = set()
    for row in read_rows(workspace.table("raw_files"), ["file", "state", "reader", "error", "read_at"]):
        state = "" if skipped_too and row["error"] is not None else row["state"]
        entry = (row["read_at"], state, row["reader"])
        newest[row["file"]] = max(entry, newest.get(row["file"], entry))
        if row["error"] is not None:
            broken.add((row["file"], row["state"]))
    new = []
    for file in files:
        _, state, by = newest.get(file.name, (None, "", ""))
        known = state if by == reader else ""
        if file.is_partition:
            new += read_after(file, known)
        elif known != file.state:
            was_read = known and file.is_table and (file.name, known) not in broken
            new.append(replace(file, since=known) if was_read and has_changes_since(file, known) else file)
    return new


def messages_read_again(files: Sequence[RawFile], workspace: Workspace) -> dict[str, tuple[int, int]]:
    """Partition -> (first offset, the one after the last), of the partitions of which all is read that brokers have.

    Without those that were made anew: their offsets name other messages than before.
    """
    found = {file.name: offsets_of(file.state) for file in files if file.is_partition and file.since is None}
    if not found:
        return {}
    ends = dict.fromkeys(found, 0)
    for row in read_rows(workspace.table("raw_files")):
        if row["file"] in ends:
            ends[row["file"]] = max(ends[row["file"]], offsets_of(row["state"])[1])
    return {name: (begin, end) for name, (begin, end) in found.items() if end >= ends[name]}


def remember(
    files: Sequence[RawFile],
    workspace: Workspace,
    *,
    reader: str,
    run_id: str,
    rows: Mapping[str, tuple[int, int]],
    errors: Mapping[str, str],
    good_rows: Mapping[str, Mapping[str, int]],
) -> None:
    """Add the files to the ledger.

    ``rows`` has (rows, refused) by name, ``errors`` the reasons of skipped files, ``good_rows`` the rows that break no
    rule by name and table.
    """
    path = workspace.table("raw_files")
    # Later than every earlier row, under any clock: the newest row of a file has its state.
    newest = max((row["read_at"] for row in read_rows(path, ["read_at"])), default=datetime.min.replace(tzinfo=UTC))
    now = max(datetime.now(UTC), newest + timedelta(microseconds=1))
    append_rows(
        path,
        contract("raw_files"),
        [
            {
                "file": file.name,
                "state": file.state,
                "reader": reader,
                "rows": rows.get(file.name, (0, 0))[0],
                "refused": rows.get(file.name, (0, 0))[1],
                "error": errors.get(file.name),
                "run_id": run_id,
                "read_at": now,
                "good_rows": dict(good_rows.get(file.name, {})),
            }
            for file in files
        ],
    )
