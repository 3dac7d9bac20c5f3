"""Compares an online store with the tables: the release that it serves, and sampled vectors bit for bit."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

import pyarrow.dataset as ds

from learn_spark.core.errors import LearnSparkError
from learn_spark.core.ragged import fixed_lists
from learn_spark.core.tables.snapshot import Snapshot, open_version, rows_of
from learn_spark.core.tables.workspace import Workspace
from learn_spark.features.ledger import LedgerRow, ledger, release_in_force, states
from learn_spark.features.online_store.layout import TABLES, as_bytes
from learn_spark.features.online_store.store import Entity, OnlineRelease, OnlineStore, OnlineStoreError
from learn_spark.features.read import KEYS

State = Literal["current", "behind", "withdrawn", "changed", "expired"]


@dataclass(frozen=True)
class Difference:
    """An entity whose vector online is another one than in the release's table; ``online``: missing or other bits."""

    entity: Entity
    online: Literal["missing", "different"]


@dataclass(frozen=True)
class OnlineCheck:
    """What was found.

    ``state`` of the release online: it is in force (current); another one is in force (behind); it was withdrawn, or an
    erasure of users changed it (changed), and must not be served; its time to live is over (expired).
    ``behind_hours``: from the publication of the release online to that of the release in force, negative after a
    rollback. ``waiting_hours``: since the release in force could have been online; 0 if it is. ``compared`` is 0, with
    the reason in ``why_not``, if the time to live is over or the tables of the release are deleted.
    """

    online: OnlineRelease
    in_force: LedgerRow | None
    state: State
    behind_hours: float | None
    waiting_hours: float | None
    compared: int
    differences: tuple[Difference, ...]
    why_not: str | None = None


def check(
    workspace: Workspace, store: OnlineStore, *, sample: int = 1000, seed: int = 0, now: datetime | None = None
) -> OnlineCheck:
    """Compare ``sample`` users and as many items (all, if there are fewer) of the release online with its tables.

    Raises OnlineStoreError if the store does not answer or has no release.
    """
    record = store.read([]).record
    if (online := record.release) is None:
        raise OnlineStoreError("the online store has no release; learn-spark online push brings the one in force")
    rows = ledger(workspace)
    in_force, now = release_in_force(rows), now or datetime.now(UTC)
    behind = waiting = None
    if in_force is not None:
        behind = (in_force.written_at - datetime.fromisoformat(online.published_at)).total_seconds() / 3600
        current = in_force.release_id == online.release_id
        waiting = 0.0 if current else (now - in_force.written_at).total_seconds() / 3600
    compares = {} if online.expired else TABLES
    compared, differences, why_not = 0, [], "its time to live is over" if online.expired else None
    try:
        for kind, table in compares.items():
            vectors = _sampled(workspace.table(table), online.versions[table], KEYS[table], sample, seed, online.dtype)
            entities = [Entity(kind, one) for one in vectors]  # type: ignore[arg-type]
            found = store.read(entities)
            if found.record.release != online:
                raise OnlineStoreError("the online store switched to another release meanwhile; check again")
            compared += len(entities)
            for entity, expected, stored in zip(entities, vectors.values(), found.vectors, strict=True):
                if stored != expected:
                    differences.append(Difference(entity, "missing" if stored is None else "different"))
    except OnlineStoreError:
        raise
    except LearnSparkError as error:
        why_not = str(error)
    return OnlineCheck(
        online, in_force, _state(online, in_force, rows), behind, waiting, compared, tuple(differences), why_not
    )


def _state(online: OnlineRelease, in_force: LedgerRow | None, rows: list[LedgerRow]) -> State:
    if online.expired:
        return "expired"
    row = states(rows).get(online.release_id)
    if row is None or row.status == "withdrawn":
        return "withdrawn"
    if any(row.outputs.get(table) != str(version) for table, version in online.versions.items()):
        return "changed"
    return "current" if in_force is not None and in_force.release_id == online.release_id else "behind"


def _sampled(path: str, version: int, key: str, sample: int, seed: int, dtype: str) -> dict[str, bytes]:
    """id -> bytes of the vector, of a sample of the rows of a table."""
    ids = Snapshot.open(path, version).to_arrow([key])[key].to_pylist()
    chosen = random.Random(seed).sample(ids, min(sample, len(ids)))
    rows = rows_of(open_version(path, version), path, [key, "embedding"], ds.field(key).isin(chosen))
    return dict(zip(rows[key].to_pylist(), as_bytes(fixed_lists(rows["embedding"]), dtype), strict=True))
