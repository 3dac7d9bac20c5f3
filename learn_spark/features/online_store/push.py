"""Pushes the release in force to an online store: changes first, then the record, then what no release needs."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

from learn_spark.core.console import Reporter
from learn_spark.core.errors import LearnSparkError
from learn_spark.core.settings.online import OnlineSettings
from learn_spark.core.tables.workspace import Workspace
from learn_spark.features.ledger import LedgerRow, current_release, ledger, states
from learn_spark.features.online_store.layout import TABLES
from learn_spark.features.online_store.rows import AllRows, ChangedRows, kept_rows, lengths_of
from learn_spark.features.online_store.store import (
    LostVectorsError,
    OnlineRelease,
    OnlineStore,
    OnlineStoreError,
    Push,
    Row,
)


@dataclass(frozen=True)
class Pushed:
    """What a push did. ``since``: the release whose vectors were changed, None: all rows were written; ``resumed_at``:
    rows that an earlier, killed push had written.
    """

    release_id: str
    since: str | None
    written: int
    kept: int
    resumed_at: int
    seconds: float
    up_to_date: bool = False


def push(
    workspace: Workspace,
    store: OnlineStore,
    settings: OnlineSettings,
    *,
    whole: bool = False,
    console: Reporter | None = None,
) -> Pushed:
    """Bring the release in force into ``store``, from which readers get the release before until all is written.

    Written are the changes since the release that the store has. All rows are written with ``whole``, into an empty
    store, in another format, after an erasure of users, and where the changes are not known any more. A killed push is
    repeated: it goes on where it stopped. With ``online.ttl_hours``, the time to live of all vectors begins again.

    Raises NoReleaseError if no release is in force, OnlineStoreError if the store does not answer or has a release of
    another workspace, OvertakenError if another push to it begins meanwhile, LearnSparkError for a vector that does
    not fit into the format.
    """
    begun = time.monotonic()
    one = _Pusher(workspace, store, settings, console or Reporter(quiet=True))
    try:
        done = one.run(whole)
    except LostVectorsError:
        done = one.run(True)
    return replace(done, seconds=time.monotonic() - begun)


class _Pusher:
    def __init__(self, workspace: Workspace, store: OnlineStore, settings: OnlineSettings, console: Reporter) -> None:
        self.workspace, self.store, self.settings, self.console = workspace, store, settings, console

    def run(self, whole: bool) -> Pushed:
        self.ledger = ledger(self.workspace)
        row = current_release(self.ledger)
        target = self._target(row)
        self.record = self.store.read([]).record
        self._check_workspace(whole)
        if self.record.push is not None:
            # From here on, the process that began it can write nothing more.
            self._change(push=replace(self.record.push, token=secrets.token_hex(8)))
            if self.record.push.switched:
                self._drop()
        served, unfinished = self.record.release, self.record.push
        live = served is not None and not served.expired
        renews = self._renews(served, unfinished)
        if not whole and unfinished is None and live and target.same_vectors(served) and not renews:
            return Pushed(row.release_id, row.release_id, 0, 0, 0, 0.0, up_to_date=True)
        changed = None if whole or not live else self._changes(row)
        since = None if changed is None or served is None else served.release_id
        resumed_at = 0
        same = unfinished is not None and target.same_vectors(unfinished.target) and since == unfinished.since
        if unfinished is not None and same and not whole:
            resumed_at = unfinished.done
            target = replace(target, generation=unfinished.target.generation, floor=unfinished.target.floor)
        else:
            if unfinished is not None and changed is not None and not self._undo(unfinished):
                changed = since = None
            number = self.record.generation + 1
            target = replace(target, generation=number, floor=served.floor if served and changed else number)
        self._change(
            generation=target.generation,
            push=Push(secrets.token_hex(8), target, since, resumed_at, renews=renews),
        )
        rows = changed or AllRows(self.workspace, row, target.dtype)
        written = self._write(rows, resumed_at)
        kept = 0
        if (changed is not None or resumed_at) and renews:
            kept = self._keep(row)
        first = served is None and self.record.generation == 1
        self._change(release=target, push=replace(self._push, switched=True))
        self._drop(changed, nothing=first)
        return Pushed(row.release_id, since, written, kept, resumed_at, 0.0)

    @property
    def _push(self) -> Push:
        assert self.record.push is not None
        return self.record.push

    def _change(self, **changes: object) -> None:
        now = replace(self.record, **changes)  # type: ignore[arg-type]
        self.store.switch(self.record, now)
        self.record = now

    def _target(self, row: LedgerRow) -> OnlineRelease:
        hours = self.settings.ttl_hours
        return OnlineRelease(
            release_id=row.release_id,
            model_id=row.model_id,
            versions={table: row.version(table) for table in TABLES.values()},
            published_at=row.written_at.isoformat(),
            as_of=row.as_of.isoformat(),
            dtype=self.settings.dtype,
            dims=lengths_of(self.workspace, row),
            generation=0,
            floor=0,
            expires_at=None if hours is None else time.time() + 3600 * hours,
        )

    def _check_workspace(self, whole: bool) -> None:
        served = self.record.release
        if served is not None and not whole and all(row.release_id != served.release_id for row in self.ledger):
            raise OnlineStoreError(
                f"the store has release {served.release_id} in the namespace {self.settings.namespace!r}, which this "
                "workspace never published: set online.namespace to another name, or replace it by --whole"
            )

    def _renews(self, served: OnlineRelease | None, unfinished: Push | None) -> bool:
        """Whether the vectors that stay need another time to live: that of now, or none any more."""
        before = [served, None if unfinished is None else unfinished.target]
        if self.settings.ttl_hours is not None or any(one is not None and one.expires_at is not None for one in before):
            return True
        return unfinished is not None and unfinished.renews

    def _changes(self, row: LedgerRow) -> ChangedRows | None:
        """The changes since the release that the store has; None if all rows must be written."""
        served = self.record.release
        assert served is not None
        before = states(self.ledger).get(served.release_id)
        if served.dtype != self.settings.dtype or before is None or not _has_versions(before, served):
            return None
        try:
            return ChangedRows(self.workspace, served.release_id, row.release_id, served.dtype)
        except LearnSparkError as error:
            self.console.say(f"all rows are written, because {error}")
            return None

    def _undo(self, unfinished: Push) -> bool:
        """Delete what an unfinished push of another release wrote; False if it is not known what that was."""
        served = self.record.release
        assert served is not None
        if unfinished.since is None:
            self.store.drop(None, self.record, self.record)
            return True
        before = states(self.ledger).get(unfinished.target.release_id)
        if before is None or not _has_versions(before, unfinished.target):
            return False
        try:
            changed = ChangedRows(self.workspace, before.release_id, served.release_id, served.dtype)
        except LearnSparkError:
            return False
        for entities in changed.entities(self.settings.batch_rows):
            self.store.drop(entities, self.record, self.record)
        return True

    def _write(self, rows: AllRows | ChangedRows, start: int) -> int:
        written = 0
        with self.console.bar("vectors to the online store", rows.total, "rows") as bar:
            bar.advance(start)
            for batch in _after(rows.batches(self.settings.batch_rows), start):
                now = replace(self.record, push=replace(self._push, done=self._push.done + len(batch)))
                self.store.write(batch, self.record, now)
                self.record = now
                written += len(batch)
                bar.advance(len(batch))
        return written

    def _keep(self, row: LedgerRow) -> int:
        kept = 0
        for batch in kept_rows(self.workspace, row, self.settings.batch_rows):
            self.store.write(batch, self.record, self.record)
            kept += len(batch)
        return kept

    def _drop(self, changed: ChangedRows | None = None, *, nothing: bool = False) -> None:
        """End a push whose release is served: delete what the release does not have."""
        if changed is not None:
            for entities in changed.entities(self.settings.batch_rows):
                self.store.drop(entities, self.record, self.record)
        elif not nothing:
            self.store.drop(None, self.record, self.record)
        self._change(push=None)


def _has_versions(row: LedgerRow, release: OnlineRelease) -> bool:
    return all(row.outputs.get(table) == str(version) for table, version in release.versions.items())


def _after(batches: Iterator[list[Row]], rows: int) -> Iterator[list[Row]]:
    """The batches without their first ``rows`` rows."""
    for batch in batches:
        if len(batch) > rows:
            yield batch[rows:]
        rows = max(0, rows - len(batch))
