"""An online store in a SQLite file of one machine: a row a version."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from learn_spark.features.online_store.store import (
    Entity,
    LostVectorsError,
    OnlineStoreError,
    OvertakenError,
    Reading,
    Record,
    Row,
    Sign,
)

_TABLES = """
CREATE TABLE IF NOT EXISTS records (namespace TEXT PRIMARY KEY, record BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS vectors (
  namespace TEXT NOT NULL, kind TEXT NOT NULL, id TEXT NOT NULL, generation INTEGER NOT NULL, vector BLOB,
  PRIMARY KEY (namespace, kind, id, generation)
);
"""
# Of the entities of a kind in a JSON list: the version in force.
_READ = """
SELECT id, vector FROM (
  SELECT id, vector, generation, max(generation) OVER (PARTITION BY id) AS newest FROM vectors
  WHERE namespace = ? AND kind = ? AND id IN (SELECT value FROM json_each(?)) AND generation BETWEEN ? AND ?
) WHERE generation = newest
"""
# All versions but the one in force, and that one if it says that the entity is deleted.
_DROP = """
DELETE FROM vectors AS old WHERE namespace = ? AND kind = ? AND {which} AND (
  vector IS NULL OR generation IS NOT (
    SELECT max(generation) FROM vectors WHERE namespace = old.namespace AND kind = old.kind AND id = old.id
    AND generation BETWEEN ? AND ?
  )
)
"""


class SQLiteStore:
    """A store in a file, under a namespace. The file appears with the first write.

    Threads may share it: their calls go one after the other. Processes read while one writes.
    """

    def __init__(self, path: str, namespace: str) -> None:
        self.name, self.namespace, self._path = f"sqlite:///{path}", namespace, Path(path)
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None

    def read(self, entities: Sequence[Entity]) -> Reading:
        """One transaction, which sees the file as it was at its beginning."""
        if not self._path.exists():
            return Reading(Record(), [None] * len(entities))
        with self._transaction("DEFERRED") as connection:
            record = self._record(connection)
            vectors: dict[Entity, bytes | None] = {}
            for kind in ("user", "item") if record.release else ():
                if ids := [one.id for one in entities if one.kind == kind]:
                    assert record.release is not None
                    bounds = (record.release.floor, record.release.generation)
                    rows = connection.execute(_READ, (self.namespace, kind, json.dumps(ids), *bounds))
                    vectors.update((Entity(kind, key), vector) for key, vector in rows)
        return Reading(record, [vectors.get(one) for one in entities])

    def write(self, rows: Sequence[Row], was: Record, now: Record) -> None:
        """One transaction. Versions do not expire one by one: the record says when all do."""
        assert was.push is not None
        number = was.push.target.generation
        with self._transaction("IMMEDIATE") as connection:
            self._replace(connection, was, now)
            kept = [entity for entity, row in rows if row is Sign.KEPT]
            for kind in ("user", "item"):
                ids = {one.id for one in kept if one.kind == kind}
                query = (
                    "SELECT count(DISTINCT id) FROM vectors WHERE namespace = ? AND kind = ? "
                    "AND id IN (SELECT value FROM json_each(?))"
                )
                (found,) = connection.execute(query, (self.namespace, kind, json.dumps(list(ids)))).fetchone()
                if found < len(ids):
                    raise LostVectorsError(f"{self.name} lost {len(ids) - found} of {len(ids)} vectors")
            written = [(entity, row) for entity, row in rows if row is not Sign.KEPT]
            self._forget(connection, [entity for entity, _ in written], was)
            connection.executemany(
                "INSERT OR REPLACE INTO vectors VALUES (?, ?, ?, ?, ?)",
                (
                    (self.namespace, entity.kind, entity.id, number, None if isinstance(row, Sign) else row)
                    for entity, row in written
                ),
            )

    def drop(self, entities: Sequence[Entity] | None, was: Record, now: Record) -> None:
        """One transaction."""
        with self._transaction("IMMEDIATE") as connection:
            self._replace(connection, was, now)
            self._forget(connection, entities, was)

    def switch(self, was: Record, now: Record) -> None:
        """One transaction."""
        with self._transaction("IMMEDIATE") as connection:
            self._replace(connection, was, now)

    def _forget(self, connection: sqlite3.Connection, entities: Sequence[Entity] | None, was: Record) -> None:
        bounds = (1, 0) if was.release is None else (was.release.floor, was.release.generation)
        if entities is None:
            for kind in ("user", "item"):
                connection.execute(_DROP.format(which="true"), (self.namespace, kind, *bounds))
            return
        connection.executemany(
            _DROP.format(which="id = ?"), ((self.namespace, one.kind, one.id, *bounds) for one in entities)
        )

    def _replace(self, connection: sqlite3.Connection, was: Record, now: Record) -> None:
        if self._record(connection) != was:
            raise OvertakenError(
                f"another push to {self.name} ({self.namespace}) has begun, and goes on where this one stopped"
            )
        connection.execute("INSERT OR REPLACE INTO records VALUES (?, ?)", (self.namespace, now.to_bytes()))

    def _record(self, connection: sqlite3.Connection) -> Record:
        row = connection.execute("SELECT record FROM records WHERE namespace = ?", (self.namespace,)).fetchone()
        return Record.from_bytes(row[0] if row else b"")

    @contextmanager
    def _transaction(self, kind: str) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                connection = self._opened()
                connection.execute(f"BEGIN {kind}")
                try:
                    yield connection
                except BaseException:
                    connection.execute("ROLLBACK")
                    raise
                connection.execute("COMMIT")
            except sqlite3.Error as error:
                raise OnlineStoreError(f"{self.name}: {error}") from error

    def _opened(self) -> sqlite3.Connection:
        if self._connection is None:
            connection = sqlite3.connect(self._path, timeout=60, isolation_level=None, check_same_thread=False)
            # Deleted vectors are overwritten; a reader does not wait for the writer.
            connection.executescript(
                f"PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA secure_delete=ON; {_TABLES}"
            )
            self._connection = connection
        return self._connection
