"""A thousand releases, written in two seconds: commits as Spark leaves them are put into the logs of their tables."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable

from learn_spark.core.tables.contracts import contract
from learn_spark.core.tables.create import create_table
from learn_spark.core.tables.log import append_rows
from learn_spark.core.tables.workspace import Workspace
from learn_spark.features.ledger import STATES, LedgerRow
from tests.report.planted import release_row

START = datetime(2024, 1, 1, tzinfo=UTC)
Rows = dict[str, float]
Event = tuple[int, str, str, datetime]


class VersionedTable:
    """A feature table; ``versions``: the rows of each version (id -> the only number of its vector); ``changed``: the
    number of rows of the change data feed of each version.
    """

    def __init__(self, workspace: Workspace, name: str) -> None:
        self.place, self.contract, self.key = workspace.table(name).local, contract(name), f"{name[:4]}_id"
        create_table(str(self.place), self.contract)
        self.versions: list[Rows] = [{}]
        self.changed: list[int] = [0]
        self._files: list[str] = []

    @property
    def rows(self) -> Rows:
        return self.versions[-1]

    def merge(self, rows: Rows) -> None:
        """The next version, as MERGE writes it: files rewritten, and what changed in the change data feed."""
        before = self.rows
        images = [("delete", key, value) for key, value in before.items() if key not in rows]
        for key, value in rows.items():
            if key not in before:
                images.append(("insert", key, value))
            elif before[key] != value:
                images += [("update_preimage", key, before[key]), ("update_postimage", key, value)]
        self.changed.append(len(images))
        file = self._write([image[1:] for image in images], [image[0] for image in images])
        feed = {"cdc": {"path": file, "partitionValues": {}, "size": self._size(file), "dataChange": False}}
        self._commit(rows, [*self._removals(), *self._additions(rows), feed])

    def overwrite(self, rows: Rows) -> None:
        """The next version, all rows written anew: without a file of changes, which follow from the files."""
        self.changed.append(len(self.rows) + len(rows))
        self._commit(rows, [*self._removals(), *self._additions(rows)])

    def append(self, rows: Rows) -> None:
        """The next version, with these new rows in a further file."""
        self.changed.append(len(rows))
        self._commit(self.rows | rows, self._additions(rows))

    def checkpoint(self) -> None:
        DeltaTable(str(self.place)).create_checkpoint()

    def _removals(self) -> list[dict[str, Any]]:
        removed, self._files = self._files, []
        more = {"partitionValues": {}, "extendedFileMetadata": True, "deletionTimestamp": 1_704_067_200_000}
        return [{"remove": {"path": file, "dataChange": True, "size": self._size(file), **more}} for file in removed]

    def _additions(self, rows: Rows) -> list[dict[str, Any]]:
        file = self._write(list(rows.items()))
        self._files.append(file)
        more = {"partitionValues": {}, "dataChange": True, "modificationTime": 1_704_067_200_000}
        stats = json.dumps({"numRecords": len(rows)})
        return [{"add": {"path": file, "size": self._size(file), "stats": stats, **more}}]

    def _size(self, file: str) -> int:
        return (self.place / file).stat().st_size

    def _write(self, rows: list[Any], changes: list[str] | None = None) -> str:
        name = f"part-{len(self.versions):05}-{len(self._files)}.parquet"
        constants = {"release_id": "r", "as_of": START, "fingerprint": 0}
        table = pa.Table.from_pylist(
            [{self.key: key, "embedding": [value], **constants} for key, value in rows], self.contract.arrow_schema()
        )
        if changes is not None:
            name = f"_change_data/cdc-{name}"
            table = table.append_column("_change_type", pa.array(changes, pa.string()))
            (self.place / "_change_data").mkdir(exist_ok=True)
        pq.write_table(table, self.place / name)
        return name

    def _commit(self, rows: Rows, actions: list[dict[str, Any]]) -> None:
        version = len(self.versions)
        info = {"commitInfo": {"timestamp": 1_704_067_200_000 + version, "operation": "MERGE"}}
        lines = "".join(json.dumps(action) + "\n" for action in [info, *actions])
        (self.place / "_delta_log" / f"{version:020d}.json").write_text(lines)
        self.versions.append(dict(rows))


class ManyReleases:
    """``count`` releases, one an hour, as of one day after the other; every fifth leaves the users unchanged."""

    def __init__(self, root: str, count: int, *, backfilled: bool) -> None:
        self.workspace = Workspace.open(root)
        self.tables = {name: VersionedTable(self.workspace, name) for name in ("user_features", "item_features")}
        self.ledger: list[LedgerRow] = []
        for number in range(count):
            self._change_users(number)
            if number % 9 == 0:
                self.tables["item_features"].merge({f"i{n}": number + n / 10 for n in range(3 + number % 2)})
            self._publish(number, backfilled=backfilled)
        for table in self.tables.values():
            table.checkpoint()
        append_rows(self.workspace.table("releases"), contract("releases"), [asdict(row) for row in self.ledger])

    @property
    def changes(self) -> int:
        """Rows of the change data feeds of both tables."""
        return sum(sum(table.changed) for table in self.tables.values())

    def _change_users(self, number: int) -> None:
        users = self.tables["user_features"]
        rows, user, value = dict(users.rows), f"u{number % 12}", float(number)
        if number % 100 == 0:
            users.overwrite({f"u{n}": value + n / 100 for n in range(12)})
        elif number % 10 == 3:
            rows.pop(user, None)
            users.merge(rows)
        elif user not in rows:
            users.append({user: value})
        elif number % 5 != 1:
            users.merge(rows | {user: value, f"u{(number * 7) % 12}": value + 0.5})

    def _publish(self, number: int, *, backfilled: bool) -> None:
        at = START + timedelta(hours=number)
        status = "backfilled" if backfilled or number % 13 == 6 else "released"
        self._row(f"r{number}", status, at, {name: len(t.versions) - 1 for name, t in self.tables.items()}, number)
        if backfilled:
            return
        if number % 11 == 5:
            self._again(number, "withdrawn", at + timedelta(minutes=30))
        if number % 50 == 49:  # rolled back over three releases, of which one comes back
            for back in range(3):
                self._again(number - back, "withdrawn", at + timedelta(minutes=40))
            self._again(number - 1, "released", at + timedelta(minutes=50))
        if number % 40 == 39 and number > 300:
            self._again(number - 300, "expired", at + timedelta(minutes=55))

    def _again(self, number: int, status: str, at: datetime) -> None:
        first = next(row for row in self.ledger if row.release_id == f"r{number}")
        self._row(f"r{number}", status, at, {name: int(v) for name, v in first.outputs.items()}, number)

    def _row(self, release: str, status: str, at: datetime, versions: dict[str, int], number: int) -> None:
        outputs = {name: str(version) for name, version in versions.items()}
        as_of = START + timedelta(days=number - 500)
        row = release_row(len(self.ledger) + 1, release, status, as_of, outputs=outputs, written_at=at)
        self.ledger.append(row)

    def expected(self, clock: str, events: Sequence[Event]) -> dict[int, tuple[str | None, Any, Any]]:
        """Number of an event -> (release, user vector, item vector), by reading the ledger row after row."""
        found: dict[int, tuple[str | None, Any, Any]] = {}
        state: dict[str, LedgerRow] = {}
        rows = sorted((row for row in self.ledger if row.status in STATES), key=lambda row: -row.sequence)
        for number, user, item, at in sorted(events, key=lambda event: event[3]):
            while rows and (clock == "as_of" or rows[-1].written_at < at):
                row = rows.pop()
                state[row.release_id] = row
            if clock == "published":
                fits = [row for row in state.values() if row.status == "released"]
                release = max(fits, key=lambda row: row.sequence, default=None)
            else:
                fits = [row for row in state.values() if row.status in ("released", "backfilled") and row.as_of <= at]
                release = max(fits, key=lambda row: (row.as_of, row.sequence), default=None)
            vectors = (None, None) if release is None else self._of(release, user, item)
            found[number] = (None if release is None else release.release_id, *vectors)
        return found

    def _of(self, release: LedgerRow, user: str, item: str) -> tuple[float | None, float | None]:
        users, items = (table.versions[release.version(name)] for name, table in self.tables.items())
        return users.get(user), items.get(item)
