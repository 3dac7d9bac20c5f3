"""Any sequence of publications, refusals, backfills, withdrawals, rollbacks, restorations and expiries: readers see
exactly one whole release, the one that a slow twin names."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from learn_spark.features.ledger import (
    READABLE,
    LedgerRow,
    NoReleaseError,
    find_release,
    in_state,
    release_in_force,
    releases_in_force,
    states,
)
from learn_spark.features.withdrawal import Change, plan_restoration, plan_rollback, plan_withdrawal
from tests.report.planted import release_row

START = datetime(2026, 1, 1, tzinfo=UTC)
ACTIONS = ("publish", "refuse", "backfill", "stage again", "publish again", "withdraw", "roll back", "roll back to")
MORE_ACTIONS = ("restore", "restore several", "expire")


class Twin:
    """What each action means: releases in the order of their publication, each in a state. The newest one that is
    released is in force."""

    def __init__(self) -> None:
        self.order: list[str] = []
        self.state: dict[str, str] = {}
        self.before: dict[str, str] = {}

    def publish(self, name: str, state: str) -> None:
        if name in self.order:
            self.order.remove(name)
        self.order.append(name)
        self.state[name] = self.before[name] = state

    def having(self, *states: str) -> list[str]:
        return [name for name in self.order if self.state[name] in states]

    @property
    def in_force(self) -> str | None:
        return next(iter(self.having("released")[::-1]), None)


class Ledger:
    """Rows as ``add_rows`` writes them, one time a commit, with the release that was in force after each."""

    def __init__(self) -> None:
        self.rows: list[LedgerRow] = []
        self.twin, self.published = Twin(), 0
        self.after: list[tuple[datetime, str | None]] = []

    def add(self, *rows: LedgerRow) -> None:
        last = len(self.rows)
        now = START + timedelta(days=len(self.after))
        self.rows += [replace(row, sequence=last + place, written_at=now) for place, row in enumerate(rows, 1)]

    def stage(self, name: str, day: int) -> None:
        self.add(release_row(0, name, "staged", START + timedelta(days=day)))

    def finish(self, name: str, day: int, status: str) -> None:
        self.published += 1
        outputs = dict.fromkeys(("user_features", "item_features"), str(self.published))
        self.add(release_row(0, name, status, START + timedelta(days=day), outputs=outputs, note=str(self.published)))

    def change(self, change: Change) -> None:
        self.add(*change.rows)
        now = release_in_force(self.rows)
        assert (change.after and change.after.release_id) == (now and now.release_id)

    def act(self, action: str, choice: int, day: int) -> None:
        twin = self.twin
        new = f"r{len({row.release_id for row in self.rows})}"
        known = {
            "stage again": twin.having(*READABLE),
            "publish again": twin.having("withdrawn", "expired", "released"),
            "withdraw": twin.having(*READABLE),
            "roll back": twin.having("released"),
            "roll back to": twin.having("released")[:-1],
            "restore": twin.having("withdrawn"),
            "restore several": twin.having("withdrawn"),
            "expire": twin.having(*READABLE, "withdrawn"),
        }
        names = known.get(action, [new])
        if not names:
            return
        name = names[choice % len(names)]
        if action in ("publish", "refuse", "backfill", "stage again", "publish again"):
            self.stage(name, day)
            status = {"refuse": "refused", "stage again": "refused", "backfill": "backfilled"}.get(action, "released")
            self.finish(name, day, status)
            if status in READABLE:
                twin.publish(name, status)
        elif action == "withdraw":
            self.change(plan_withdrawal(self.rows, name))
            twin.state[name] = "withdrawn"
        elif action == "roll back":
            self.change(plan_rollback(self.rows))
            twin.state[names[-1]] = "withdrawn"
        elif action == "roll back to":
            self.change(plan_rollback(self.rows, name))
            for newer in twin.having("released")[choice % len(names) + 1 :]:
                twin.state[newer] = "withdrawn"
        elif action == "expire":
            self.add(in_state(states(self.rows)[name], "expired", None))
            twin.state[name] = "expired"
        else:
            restored = [name] if action == "restore" else names
            self.change(plan_restoration(self.rows, restored))
            for one in restored:
                twin.state[one] = twin.before[one]
        self.after.append((self.rows[-1].written_at, twin.in_force))


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    st.lists(
        st.tuples(st.sampled_from(ACTIONS + MORE_ACTIONS), st.integers(0, 5), st.integers(0, 9)),
        min_size=1,
        max_size=14,
    )
)
def test_readers_see_exactly_one_whole_release(actions: list[tuple[str, int, int]]) -> None:
    ledger = Ledger()
    for action, choice, day in actions:
        ledger.act(action, choice, day)
        rows, twin = ledger.rows, ledger.twin
        now = release_in_force(rows)
        assert (now and now.release_id) == twin.in_force
        if now is not None:
            # Both tables are of one publication, and of the release's last one.
            assert now.outputs["user_features"] == now.outputs["item_features"]
            numbers = [row.outputs["user_features"] for row in rows if row.release_id == now.release_id and row.outputs]
            readable = [row for row in rows if row.release_id == now.release_id and row.status in READABLE]
            assert now.outputs["user_features"] == readable[-1].outputs["user_features"]
            assert now.outputs["user_features"] in numbers
        for name in {row.release_id for row in rows}:
            try:
                assert find_release(rows, name).status == twin.state[name]
            except NoReleaseError:
                assert twin.state.get(name) not in READABLE
        for at in (START, START + timedelta(days=4), START + timedelta(days=9)):
            possible = [row for row in states(rows).values() if row.status in READABLE and row.as_of <= at]
            seen = release_in_force(rows, at)
            assert (seen is None) == (not possible)
            assert seen is None or seen.as_of == max(row.as_of for row in possible)
    intervals = releases_in_force(ledger.rows)
    assert all(end is not None and end <= start for (_, end, _), (start, _, _) in pairwise(intervals))
    for moment, expected in ledger.after:
        inside = [row.release_id for start, end, row in intervals if start <= moment and (end is None or moment < end)]
        assert inside == ([] if expected is None else [expected]), moment
