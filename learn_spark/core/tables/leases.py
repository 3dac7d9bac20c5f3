"""Leases: mutual exclusion between machines that share an address and no file locks.

The leases of a workspace are the rows of one small Delta table at locks/leases. A holder replaces all rows by one
commit that fails if any other commit came first, so that of several takers one wins. A holder renews its leases by
writing its file locks/holders/<token> again; ages are differences of the store's own times of these files, never of two
machines' clocks. Leases that were not renewed for ``lease_seconds()`` are free: the next taker removes them.

A lease alone is advice: its holder may be suspended, lose it, and go on. So a holder counts the time since its last
renewal by its own clock, and ``require_leases`` refuses a commit after it.
"""

from __future__ import annotations

import json
import os
import random
import secrets
import socket
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Literal

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError

from learn_spark.core.errors import LearnSparkError
from learn_spark.core.storage.locks import Held, LockedError
from learn_spark.core.storage.path import StoragePath
from learn_spark.core.tables.snapshot import open_table, rows_of

_SCHEMA = pa.schema([(name, pa.string()) for name in ("name", "mode", "token", "job", "host", "process", "since")])
_LONGEST_PAUSE = 0.2  # seconds before another try, where another commit came first
Mode = Literal["shared", "exclusive"]


class LeaseLostError(LearnSparkError):
    """A lease was not renewed in time, so that another process may write the same."""


def lease_seconds() -> float:
    """Seconds without renewal after which a lease is free: LEARN_SPARK_LEASE_SECONDS, 60 by default."""
    return float(os.environ.get("LEARN_SPARK_LEASE_SECONDS", "60"))


@dataclass(frozen=True)
class Lease:
    """A row of the table: the lease ``name`` of the holder ``token``; shared ones exclude only exclusive ones."""

    name: str
    mode: str
    token: str
    job: str
    host: str
    process: str
    since: str

    def excludes(self, name: str, mode: Mode) -> bool:
        """Whether nobody else can take ``name`` in ``mode`` beside it."""
        return self.name == name and "exclusive" in (self.mode, mode)


class _Holder:
    """The leases that one block of this process has, and the thread that renews them."""

    def __init__(self, place: StoragePath, job: str) -> None:
        self.place, self.token = place, f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(6)}"
        self.job, self.what = job, ""
        self.file = place / "locks" / "holders" / self.token
        self._stop, self._writing = threading.Event(), threading.Lock()
        self.table: DeltaTable | None = None
        self._renewed = _clock()
        self._lost = False
        self._thread = threading.Thread(target=self._keep, name="leases", daemon=True)

    def renew(self) -> None:
        """Write the holder's file, unless the leases are lost already: somebody else may have them then."""
        with self._writing:
            if self.lost:
                return
            before = _clock()
            self.file.write_text(json.dumps({"job": self.job, "at": self.what}))
            self._renewed = before
            _tell_spark(self, ended=False)

    @property
    def lost(self) -> bool:
        """Whether the last renewal is so long ago that others may take the leases."""
        # A quarter less than others wait, for the commit that follows.
        self._lost = self._lost or _clock() - self._renewed > 0.75 * lease_seconds()
        return self._lost

    def start(self) -> None:
        self._thread.start()

    def end(self) -> None:
        self._stop.set()
        self._thread.join()
        _tell_spark(self, ended=True)

    def _keep(self) -> None:
        while not self._stop.wait(lease_seconds() / 6):
            # A store that does not answer now may answer before the time is over.
            with suppress(Exception):
                self.renew()


def _tell_spark(holder: _Holder, *, ended: bool) -> None:
    """State to Spark's writer of commits on S3 until when the leases last: a job may commit long after it started."""
    pyspark = sys.modules.get("pyspark")
    context = None if pyspark is None else pyspark.SparkContext._active_spark_context
    if context is None or holder.place.scheme != "s3":
        return
    store = context._jvm.learnspark.S3ConditionalLogStore
    with suppress(TypeError):  # a session that does not reach S3 has no such class
        if ended:
            store.ended(holder.token)
        else:
            store.renewed(holder.token, holder.place.spark, int(750 * lease_seconds()))


class _HeldLeases(Held):
    """Leases that are held; ``at`` says in the holder's file what the holder does now."""

    def __init__(self, holder: _Holder) -> None:
        super().__init__()
        self._holder = holder

    def at(self, what: str) -> None:
        """Record ``what`` the holder works on, such as ``stage train``."""
        self._holder.what = what  # the next renewal writes it


_holders: set[_Holder] = set()


def require_leases(path: StoragePath) -> None:
    """Raise LeaseLostError if this process lost leases of the workspace of ``path``; called before commits."""
    for holder in list(_holders):
        if path.startswith(f"{holder.place}/") and holder.lost:
            raise LeaseLostError(
                f"{path} was not changed: this process ({holder.job}) could not renew its leases of {holder.place} for "
                f"{0.75 * lease_seconds():.0f} s, so that another one may have them; run again"
            )


@contextmanager
def lease(place: StoragePath, names: Sequence[tuple[str, Mode]], resource: str, job: str) -> Iterator[Held]:
    """Have the leases ``names`` of the workspace at ``place`` in the name of ``job``, all of them or none.

    Raises LockedError, with the holder, if another process has one of them that excludes it.
    """
    holder = _Holder(place, job)
    holder.renew()
    try:
        _take(holder, names, resource)
        _holders.add(holder)
        holder.start()
        try:
            yield _HeldLeases(holder)
        finally:
            holder.end()
            _holders.discard(holder)
            _release(holder)
    finally:
        with suppress(OSError, RuntimeError):
            holder.file.remove()


def _take(holder: _Holder, names: Sequence[tuple[str, Mode]], resource: str) -> None:
    """Take all leases by one commit. Raises LockedError where another holder has one."""
    since = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    mine = [
        Lease(name, mode, holder.token, holder.job, socket.gethostname(), str(os.getpid()), since)
        for name, mode in names
    ]
    while True:
        table, leases = _read(holder.place)
        holder.table = table
        if any(one.token == holder.token for one in leases):
            return  # the answer to an earlier try was lost
        others = [one for one in leases if any(one.excludes(name, mode) for name, mode in names)]
        alive = [one for one in others if _alive(holder, one)]
        if alive:
            first = alive[0]
            what = resource if first.name == "workspace" else f"{first.name} in the workspace {holder.place}"
            raise LockedError(what, _holder_text(holder.place, first))
        dead = {one.token for one in others}
        if _replace(holder.place, table, [one for one in leases if one.token not in dead] + mine):
            for token in dead:
                with suppress(OSError, RuntimeError):
                    (holder.file.parent / token).remove()
            return
        time.sleep(random.uniform(0.0, _LONGEST_PAUSE))


def _release(holder: _Holder) -> None:
    while True:
        table, leases = _read(holder.place, holder.table)
        rest = [one for one in leases if one.token != holder.token]
        if len(rest) == len(leases) or _replace(holder.place, table, rest):
            return


def _alive(holder: _Holder, other: Lease) -> bool:
    """Whether another holder renewed its leases lately, by the store's clock: our own file was written just now."""
    now = (holder.file.parent / holder.token).changed()
    renewed = (holder.file.parent / other.token).changed()
    return renewed is not None and now is not None and now - renewed <= lease_seconds()


def _read(place: StoragePath, known: DeltaTable | None = None) -> tuple[DeltaTable | None, list[Lease]]:
    """(the table, its rows); (None, []) where it does not exist yet. ``known``: an older state of it."""
    path = place / "locks" / "leases"
    try:
        if known is None:
            table = open_table(path)
        else:
            table = known
            table.update_incremental()
    except TableNotFoundError:
        return None, []
    return table, [Lease(**row) for row in rows_of(table, path).to_pylist()]


def _replace(place: StoragePath, table: DeltaTable | None, leases: Sequence[Lease]) -> bool:
    """Replace all rows of ``table``; False where another commit came first."""
    path = place / "locks" / "leases"
    data = pa.Table.from_pylist([asdict(one) for one in leases], schema=_SCHEMA)
    once = CommitProperties(max_commit_retries=0)
    try:
        if table is None:
            write_deltalake(
                str(path),
                data,
                mode="error",
                storage_options=path.delta_options,
                commit_properties=once,
                configuration={"delta.checkpointInterval": "5"},
            )
        else:
            write_deltalake(table, data, mode="overwrite", commit_properties=once)
    except (CommitFailedError, FileExistsError):
        return False
    except DeltaError as error:
        # A table that was created meanwhile.
        if table is None and _read(place)[0] is not None:
            return False
        raise error
    return True


def _holder_text(place: StoragePath, one: Lease) -> str:
    """Who has the lease: job, process and host, since when, and what it does now where it says so."""
    at = ""
    with suppress(OSError, ValueError):
        at = json.loads((place / "locks" / "holders" / one.token).read_text()).get("at") or ""
    now = f", now at {at}" if at else ""
    return f"{one.job} (process {one.process} on {one.host}, since {one.since}{now})"


def _clock() -> float:
    """Seconds of a clock that goes on while the machine is suspended, where there is one."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))
