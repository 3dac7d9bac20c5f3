"""Releases planted without a JVM, and what an online store must have of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta

import numpy as np

from learn_spark.core.settings.online import OnlineSettings
from learn_spark.core.tables.contracts import contract
from learn_spark.core.tables.log import append_rows
from learn_spark.core.tables.workspace import Workspace
from learn_spark.features.ledger import LedgerRow
from learn_spark.features.online_store.address import open_store
from learn_spark.features.online_store.push import Pushed, push
from learn_spark.features.online_store.reader import OnlineFeatures, OnlineVectors
from learn_spark.features.online_store.store import Entity, OnlineStore, Reading, Record, Row
from tests.features.many_releases import Rows, VersionedTable
from tests.report.planted import release_row

NOON = datetime(2024, 1, 1, 12, tzinfo=UTC)


class OnlineWorld:
    """A workspace with releases, and an online store at ``url``. A vector has one number."""

    def __init__(self, root: str, url: str, namespace: str) -> None:
        self.workspace, self.url, self.namespace = Workspace.open(root), url, namespace
        self.tables = {name: VersionedTable(self.workspace, name) for name in ("user_features", "item_features")}
        self.rows: list[LedgerRow] = []
        self.content: dict[str, tuple[Rows, Rows]] = {}

    def settings(self, **more: object) -> OnlineSettings:
        return OnlineSettings.model_validate({"namespace": self.namespace, "batch_rows": 4, **more})

    def store(self) -> OnlineStore:
        return open_store(self.url, self.namespace)

    def publish(self, release: str, users: Rows, items: Rows, status: str = "released") -> None:
        """A release that is written as changes of the one before."""
        for table, rows in (("user_features", users), ("item_features", items)):
            if rows != self.tables[table].rows:
                self.tables[table].merge(rows)
        self.content[release] = (dict(users), dict(items))
        self._row(release, status)

    def erase(self, release: str, user: str) -> None:
        """Take a user from a release, which has other versions then."""
        users, items = self.content[release]
        rest = {one: value for one, value in users.items() if one != user}
        self.tables["user_features"].overwrite(rest)
        self.content[release] = (rest, items)
        self._row(release, "released")

    def withdraw(self, release: str) -> None:
        first = next(row for row in self.rows if row.release_id == release)
        self._row(release, "withdrawn", first)

    def _row(self, release: str, status: str, like: LedgerRow | None = None) -> None:
        outputs = {name: str(len(table.versions) - 1) for name, table in self.tables.items()}
        number, at = len(self.rows) + 1, NOON + timedelta(days=len(self.rows))
        row = release_row(number, release, status, at, outputs=outputs if like is None else like.outputs, written_at=at)
        append_rows(self.workspace.table("releases"), contract("releases"), [asdict(row)])
        self.rows.append(row)

    def push(self, store: OnlineStore | None = None, *, whole: bool = False, **settings: object) -> Pushed:
        return push(self.workspace, store or self.store(), self.settings(**settings), whole=whole)

    def everybody(self) -> tuple[list[str], list[str]]:
        """All users and items of all releases."""
        users = sorted({one for users, _ in self.content.values() for one in users})
        return users, sorted({one for _, items in self.content.values() for one in items})

    def read(self, features: OnlineFeatures | None = None) -> str:
        """The release that a reader of everybody gets; AssertionError unless it gets that one whole, and only it."""
        users, items = self.everybody()
        found = (features or OnlineFeatures(self.store())).vectors(users, items)
        self.compare(found, users, items)
        return found.release.release_id

    def compare(self, found: OnlineVectors, users: Sequence[str], items: Sequence[str]) -> None:
        expected = self.content[found.release.release_id]
        for ids, rows, vectors in zip((users, items), expected, (found.users, found.items), strict=True):
            wanted = np.array([[rows.get(one, np.nan)] for one in ids], np.float32)
            np.testing.assert_array_equal(vectors, wanted)

    def versions(self) -> dict[str, int]:
        """The number of versions that the store has of each entity, by its kind and id: what is on its disk."""
        if self.url.startswith("redis"):
            import redis

            client = redis.Redis.from_url(self.url)
            found = {}
            for key in client.scan_iter(match=f"{{{self.namespace}}}:*"):
                kind, one = key.decode().removeprefix(f"{{{self.namespace}}}:").partition(":")[::2]
                if one:
                    found[f"{kind} {one}"] = len(client.get(key)) // 12
            return found
        import sqlite3

        rows = sqlite3.connect(self.url.removeprefix("sqlite:///")).execute("SELECT kind, id, 1 FROM vectors")
        counts: dict[str, int] = {}
        for kind, one, count in rows:
            counts[f"{kind} {one}"] = counts.get(f"{kind} {one}", 0) + count
        return counts


class Stopped(Exception):
    """What a process that is killed does not survive."""


class StoppingStore:
    """A store whose process dies at the ``last``-th change: the change is made, and nothing after it."""

    def __init__(self, store: OnlineStore, last: int) -> None:
        self.store, self.last, self.calls = store, last, 0

    def _count(self) -> None:
        self.calls += 1
        if self.calls == self.last:
            raise Stopped

    def read(self, entities: Sequence[Entity]) -> Reading:
        return self.store.read(entities)

    def write(self, rows: Sequence[Row], was: Record, now: Record) -> None:
        self.store.write(rows, was, now)
        self._count()

    def drop(self, entities: Sequence[Entity] | None, was: Record, now: Record) -> None:
        self.store.drop(entities, was, now)
        self._count()

    def switch(self, was: Record, now: Record) -> None:
        self.store.switch(was, now)
        self._count()
