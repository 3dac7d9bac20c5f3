"""What the commands of the online store print."""

from __future__ import annotations

from dataclasses import asdict

from learn_spark.core.console import Reporter
from learn_spark.core.errors import LearnSparkError
from learn_spark.features.online_store.check import OnlineCheck
from learn_spark.features.online_store.push import Pushed

_SHOWN = 10  # differing entities in an error


class OnlineCheckError(LearnSparkError):
    """An online store differs from the tables, or serves what it must not."""


def show_push(done: Pushed, console: Reporter) -> None:
    """Print what a push did."""
    for name, value in asdict(done).items():
        console.record(name, value)
    if done.up_to_date:
        console.line(f"online: release {done.release_id}, as before")
        return
    what = "all rows" if done.since is None else f"changes since {done.since}"
    more = f", after {done.resumed_at:,} of an earlier push" if done.resumed_at else ""
    kept = f", {done.kept:,} with a new time to live" if done.kept else ""
    console.line(f"online: release {done.release_id} ({what}: {done.written:,} rows{more}{kept}; {done.seconds:.1f} s)")


def show_check(found: OnlineCheck, console: Reporter) -> None:
    """Print what a check found. Raises OnlineCheckError if a vector differs, or the release must not be served."""
    online, in_force = found.online, found.in_force
    console.record("online", {name: getattr(online, name) for name in ("release_id", "model_id", "dtype", "versions")})
    console.record("online_published_at", online.published_at)
    console.record("online_as_of", online.as_of)
    console.record("in_force", None if in_force is None else in_force.release_id)
    console.record("in_force_published_at", None if in_force is None else in_force.written_at)
    for name in ("state", "behind_hours", "waiting_hours", "compared", "why_not"):
        console.record(name, getattr(found, name))
    console.record(
        "differences",
        [{"kind": one.entity.kind, "id": one.entity.id, "online": one.online} for one in found.differences],
    )
    console.line(
        f"online:    release {online.release_id} (published {online.published_at[:16]}, as of {online.as_of[:16]})"
    )
    if in_force is None:
        console.line("in force:  none")
    else:
        console.line(f"in force:  release {in_force.release_id} (published {in_force.written_at:%Y-%m-%dT%H:%M})")
    console.line(f"state:     {found.state}")
    if found.state != "current" and found.behind_hours is not None:
        console.line(
            f"staleness: {found.behind_hours:.1f} h between the two publications; the release in force waits for "
            f"{found.waiting_hours:.1f} h"
        )
    console.line(f"compared:  {found.compared:,} vectors, {len(found.differences):,} differ")
    if found.why_not:
        console.line(f"not compared: {found.why_not}")
    if found.differences:
        names = ", ".join(f"{one.entity.kind} {one.entity.id} ({one.online})" for one in found.differences[:_SHOWN])
        raise OnlineCheckError(
            f"{len(found.differences)} of {found.compared} vectors online differ from the tables: {names}; "
            "learn-spark online push --whole writes all"
        )
    if found.state in ("withdrawn", "changed", "expired"):
        reasons = {
            "withdrawn": "it was withdrawn",
            "changed": "users were erased from it",
            "expired": "its time to live is over",
        }
        raise OnlineCheckError(
            f"the store must not serve release {online.release_id}: {reasons[found.state]}; run learn-spark online push"
        )
