"""The online store, in Redis and in SQLite: one whole release at any time, whatever stops a push."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from learn_spark.core.errors import LearnSparkError
from learn_spark.features.ledger import NoReleaseError
from learn_spark.features.online_store.check import check
from learn_spark.features.online_store.push import Pushed
from learn_spark.features.online_store.reader import OnlineFeatures, online
from learn_spark.features.online_store.store import Entity, OnlineStoreError, OvertakenError
from tests.features.online_world import OnlineWorld, Stopped, StoppingStore

# r1 to r2: c is new, b goes, a changes, e stays; of the items only x changes.
R1 = ({"a": 1.0, "b": 2.0, "e": 5.0}, {"x": 10.0, "y": 11.0})
R2 = ({"a": 1.5, "c": 3.0, "e": 5.0}, {"x": 10.5, "y": 11.0})
# r2 to r3: a is as in r1 again, d is new.
R3 = ({"a": 1.0, "b": 2.5, "c": 3.0, "d": 4.0, "e": 5.0}, {"x": 10.5, "y": 11.0, "z": 12.0})


@pytest.fixture(params=["redis", "sqlite"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> OnlineWorld:
    """An empty workspace and an empty store."""
    url = request.getfixturevalue("redis_url") if request.param == "redis" else f"sqlite:///{tmp_path}/online.db"
    return OnlineWorld(str(tmp_path / "workspace"), url, f"test-{secrets.token_hex(4)}")


def entities_of(world: OnlineWorld, release: str) -> dict[str, int]:
    """What the store must have of a release: one version an entity."""
    users, items = world.content[release]
    return {f"user {one}": 1 for one in users} | {f"item {one}": 1 for one in items}


def test_a_push_writes_changes_and_a_rollback_leads_back(world: OnlineWorld) -> None:
    with pytest.raises(OnlineStoreError, match="has no release"):
        OnlineFeatures(world.store()).vectors(["a"])
    with pytest.raises(NoReleaseError):
        world.push()
    world.publish("r1", *R1)
    first = world.push()
    assert (first.since, first.written, world.read(), world.versions()) == (None, 5, "r1", entities_of(world, "r1"))
    assert world.push().up_to_date
    world.publish("r2", *R2)
    second = world.push()
    assert (second.since, second.written) == ("r1", 4)  # a, b, c, x: what is the same is not written again
    assert (world.read(), world.versions()) == ("r2", entities_of(world, "r2"))
    world.publish("r3", *R3)
    world.push()
    assert (world.read(), world.versions()) == ("r3", entities_of(world, "r3"))
    world.withdraw("r3")
    world.withdraw("r2")
    back = world.push()
    assert (back.release_id, back.since) == ("r1", "r3")
    assert (world.read(), world.versions()) == ("r1", entities_of(world, "r1"))
    found = check(world.workspace, world.store())
    assert (found.state, found.compared, found.differences, found.waiting_hours) == ("current", 5, (), 0.0)


def test_what_is_refused_or_withdrawn_is_never_pushed(world: OnlineWorld) -> None:
    world.publish("r1", *R1)
    for status in ("staged", "refused", "backfilled"):
        world.publish(status, *R2, status=status)
        assert world.push().release_id == "r1"
        assert world.read() == "r1"
    world.withdraw("r1")
    with pytest.raises(NoReleaseError, match="no release is in force"):
        world.push()


@pytest.mark.parametrize("whole", [False, True])
def test_a_push_may_stop_anywhere(world: OnlineWorld, whole: bool) -> None:
    """Readers get one whole release, and the next push ends what was begun."""
    world.publish("r1", *R1)
    world.push()
    stops, releases = 0, ["r1", "r2"]
    world.publish("r2", *R2)
    for last in range(1, 100):
        stopping = StoppingStore(world.store(), last)
        try:
            world.push(stopping, whole=whole, batch_rows=2)
        except Stopped:
            stops += 1
            now = world.read()
            assert now in releases
            again = world.push(batch_rows=3)
            assert again.resumed_at + again.written <= 5
        else:
            break
        assert (world.read(), world.versions()) == (releases[-1], entities_of(world, releases[-1]))
        # And back and forth, so that each stop meets the same change.
        world.publish(f"r{len(releases) + 1}", *(R2 if len(releases) % 2 else R1))
        releases.append(f"r{len(releases) + 1}")
    assert stops >= 6


def test_a_push_goes_on_after_the_rows_that_it_has_written(world: OnlineWorld) -> None:
    users = {f"u{n}": float(n) for n in range(30)}
    world.publish("r1", users, {"x": 1.0})
    # A push begins and writes the item, and then four users at a time; the second one takes over before it begins.
    for done, last in ((5, 3), (13, 4)):
        with pytest.raises(Stopped):
            world.push(StoppingStore(world.store(), last))
        assert world.store().read([]).record.push.done == done
    ended = world.push()
    assert (ended.resumed_at, ended.written, world.read()) == (13, 18, "r1")


@pytest.mark.parametrize("withdrawn", [False, True])
@pytest.mark.parametrize("last", [2, 3, 4])
def test_another_release_comes_into_force_after_a_stop(world: OnlineWorld, withdrawn: bool, last: int) -> None:
    world.publish("r1", *R1)
    world.push()
    world.publish("r2", *R2)
    with pytest.raises(Stopped):
        world.push(StoppingStore(world.store(), last), batch_rows=2)
    if withdrawn:
        world.withdraw("r2")
    else:
        world.publish("r3", *R3)
    expected = "r1" if withdrawn else "r3"
    assert world.push(batch_rows=2).since == "r1"
    assert (world.read(), world.versions()) == (expected, entities_of(world, expected))


def test_readers_get_one_whole_release_while_others_are_pushed(world: OnlineWorld) -> None:
    """All vectors of a release have its number behind the point, so that a mixture shows."""
    chance = np.random.default_rng(3)
    seen: list[str] = []
    ended = threading.Event()
    problems: list[BaseException] = []

    def read_on() -> None:
        features = OnlineFeatures(world.store())
        while not ended.is_set():
            try:
                seen.append(world.read(features))
                time.sleep(0)  # the writer's turn
            except BaseException as error:
                problems.append(error)
                return

    rows: dict[str, float] = {f"u{n}": float(n) for n in range(60)}
    world.publish("r0", rows, {"x": 0.0})
    world.push()
    reader = threading.Thread(target=read_on)
    reader.start()
    for number in range(1, 6):
        changed = {one: value + number / 16 for one, value in rows.items() if chance.random() < 0.5}
        gone = {one for one in rows if chance.random() < 0.1}
        rows = {one: value for one, value in (rows | changed).items() if one not in gone} | {f"n{number}": 1.0}
        world.publish(f"r{number}", rows, {"x": float(number)})
        world.push(whole=number == 3, batch_rows=8)
    ended.set()
    reader.join()
    assert problems == []
    assert len(set(seen)) > 1
    assert seen == sorted(seen)


def test_an_erased_user_is_gone_after_the_next_push(world: OnlineWorld) -> None:
    world.publish("r1", *R1)
    world.push()
    world.erase("r1", "b")
    assert check(world.workspace, world.store()).state == "changed"
    pushed = world.push()
    assert (pushed.release_id, pushed.since) == ("r1", None)
    assert "user b" not in world.versions()
    assert (world.read(), world.versions()) == ("r1", entities_of(world, "r1"))
    assert check(world.workspace, world.store()).state == "current"


def test_half_precision_is_that_of_the_table_rounded(world: OnlineWorld) -> None:
    users = {"a": 1 / 3, "b": 2.0}
    world.publish("r1", users, {"x": 10.0})
    world.push()
    half = world.push(dtype="float16")
    assert (half.since, half.written) == (None, 3)
    found = OnlineFeatures(world.store()).vectors(["a", "nobody"], ["x"])
    assert found.users[0, 0] == np.float16(np.float32(1 / 3))
    assert (found.users.dtype, found.users.shape, np.isnan(found.users[1]).all()) == (np.float32, (2, 1), True)
    assert world.store().read([Entity("item", "x")]).vectors == [b"\x00\x49"]
    checked = check(world.workspace, world.store())
    assert (checked.compared, checked.differences) == (3, ())
    world.publish("r2", users | {"huge": 1e6}, {"x": 10.0})
    with pytest.raises(LearnSparkError, match="as large as 1e\\+06 do not fit into float16"):
        world.push(dtype="float16")
    assert OnlineFeatures(world.store()).vectors(["a"]).release.release_id == "r1"


def test_two_pushes_at_once_are_one(world: OnlineWorld) -> None:
    """The later one takes over, and the earlier one can write nothing more."""
    world.publish("r1", *R1)
    world.push()
    world.publish("r2", *R2)
    others: list[Pushed] = []

    class Meanwhile(StoppingStore):
        def _count(self) -> None:
            self.calls += 1
            if self.calls == self.last:
                others.append(world.push(batch_rows=2))

    with pytest.raises(OvertakenError, match="another push"):
        world.push(Meanwhile(world.store(), 2), batch_rows=2)
    (other,) = others
    assert (other.resumed_at, other.written) == (1, 3)
    assert (world.read(), world.versions()) == ("r2", entities_of(world, "r2"))


def test_the_time_to_live_begins_again_with_each_push(world: OnlineWorld) -> None:
    world.publish("r1", *R1)
    world.push(ttl_hours=1.0)
    ends = [world.store().read([]).record.release.expires_at]
    world.publish("r2", *R2)
    pushed = world.push(ttl_hours=1.0)
    assert (pushed.since, pushed.written, pushed.kept) == ("r1", 4, 5)
    same = world.push(ttl_hours=1.0)
    assert (same.written, same.kept, world.read()) == (0, 5, "r2")
    ends.append(world.store().read([]).record.release.expires_at)
    assert ends[1] > ends[0]
    assert world.push().kept == 5  # no time to live from now on
    assert world.store().read([]).record.release.expires_at is None
    assert world.push().up_to_date
    short = 1 / 3600
    world.push(ttl_hours=short)
    time.sleep(1.1)
    with pytest.raises(OnlineStoreError, match="the time to live of r2 is over"):
        OnlineFeatures(world.store()).vectors(["a"])
    assert check(world.workspace, world.store()).state == "expired"
    again = world.push()
    assert (again.since, again.written) == (None, 5)
    assert (world.read(), world.versions()) == ("r2", entities_of(world, "r2"))


def test_a_store_of_another_workspace_is_not_overwritten(world: OnlineWorld, tmp_path: Path) -> None:
    world.publish("r1", *R1)
    world.push()
    other = OnlineWorld(str(tmp_path / "other"), world.url, world.namespace)
    other.publish("q1", {"f": 1.0}, {"x": 2.0})
    with pytest.raises(OnlineStoreError, match=r"release r1 in the namespace .* never published"):
        other.push()
    assert world.read() == "r1"
    beside = OnlineWorld(str(tmp_path / "other"), world.url, f"{world.namespace}-other")
    beside.content = other.content
    assert beside.push().release_id == "q1"
    assert (beside.read(), world.read()) == ("q1", "r1")
    assert other.push(whole=True).release_id == "q1"
    assert other.read() == "q1"


def test_a_release_whose_changes_are_not_known_any_more_is_written_whole(world: OnlineWorld) -> None:
    world.publish("r1", *R1)
    world.push()
    world.publish("r2", *R2)
    world._row("r1", "expired", world.rows[0])
    pushed = world.push()
    assert (pushed.since, pushed.written) == (None, 5)
    assert (world.read(), world.versions()) == ("r2", entities_of(world, "r2"))


@pytest.fixture
def in_redis(redis_url: str, tmp_path: Path) -> Iterator[tuple[OnlineWorld, Any]]:
    """A workspace with a store in Redis, and Redis."""
    import redis

    with redis.Redis.from_url(redis_url) as client:
        yield OnlineWorld(str(tmp_path / "workspace"), redis_url, f"test-{secrets.token_hex(4)}"), client


def test_the_layout_in_redis_is_the_documented_one(in_redis: tuple[OnlineWorld, Any]) -> None:
    world, client = in_redis
    world.publish("r1", *R1)
    world.push()
    key = f"{{{world.namespace}}}:user:a"
    assert client.get(key) == bytes([1, 0, 0, 0, 4, 0, 0, 0]) + np.float32(1.0).tobytes()
    world.publish("r2", *R2)
    with pytest.raises(Stopped):
        world.push(StoppingStore(world.store(), 4), batch_rows=2)
    # Beside the version in force (of the first push) is that of the second one, which nobody reads yet.
    assert client.get(key)[12:] == bytes([2, 0, 0, 0, 4, 0, 0, 0]) + np.float32(1.5).tobytes()
    assert world.read() == "r1"


def test_vectors_in_redis_expire_with_their_release(in_redis: tuple[OnlineWorld, Any]) -> None:
    world, client = in_redis
    world.publish("r1", *R1)
    world.push(ttl_hours=1.0)
    world.publish("r2", *R2)
    world.push(ttl_hours=2.0)
    release = world.store().read([]).record.release
    keys = list(client.scan_iter(match=f"{{{world.namespace}}}:[ui]*"))
    assert {client.pexpiretime(key) for key in keys} == {int(release.expires_at * 1000)}
    assert len(keys) == 5
    world.push()
    assert {client.ttl(key) for key in keys} == {-1}


def test_a_push_without_end_leaves_no_time_to_live(in_redis: tuple[OnlineWorld, Any]) -> None:
    """Of a push that was killed, of another after it, and of one whose release is never served."""
    world, client = in_redis

    def lives() -> set[int]:
        return {client.ttl(key) for key in client.scan_iter(match=f"{{{world.namespace}}}:[ui]*")}

    world.publish("r1", *R1)
    for hours, calls in ((1.0, 3), (None, 3)):
        with pytest.raises(Stopped):
            world.push(StoppingStore(world.store(), calls), batch_rows=1, ttl_hours=hours)
    assert lives() != {-1}
    assert world.push().resumed_at == 3
    assert (world.read(), world.versions(), lives()) == ("r1", entities_of(world, "r1"), {-1})
    world.publish("r2", *R2)
    with pytest.raises(Stopped):
        world.push(StoppingStore(world.store(), 3), batch_rows=1, ttl_hours=1.0)
    assert lives() != {-1}
    world.publish("r3", *R1)
    world.push()
    assert (world.read(), world.versions(), lives()) == ("r3", entities_of(world, "r3"), {-1})


def test_vectors_that_redis_lost_are_noticed(in_redis: tuple[OnlineWorld, Any]) -> None:
    world, client = in_redis
    world.publish("r1", *R1)
    world.push(ttl_hours=1.0)
    client.delete(f"{{{world.namespace}}}:user:e")
    found = check(world.workspace, world.store())
    assert [(one.entity, one.online) for one in found.differences] == [(Entity("user", "e"), "missing")]
    pushed = world.push(ttl_hours=1.0)
    assert (pushed.since, pushed.written, world.read()) == (None, 5, "r1")


def test_one_round_trip_reads_users_and_items(in_redis: tuple[OnlineWorld, Any]) -> None:
    world, client = in_redis
    world.publish("r1", *R1)
    world.push()
    features = online(world.url, namespace=world.namespace)
    features.vectors(["a"], ["x"])

    def commands() -> dict[str, int]:
        return {name: stats["calls"] for name, stats in client.info("commandstats").items()}

    before = commands()
    found = features.vectors(["a", "b"], ["x", "y", "a"])
    after = commands()
    grown = {name for name in after if after[name] != before.get(name, 0)}
    assert grown == {"cmdstat_mget", "cmdstat_info"}
    assert found.users.ravel().tolist() == [1.0, 2.0]
    assert found.items.ravel()[:2].tolist() == [10.0, 11.0]
    assert np.isnan(found.items[2, 0])


def test_a_redis_that_is_away_is_named_without_its_password() -> None:
    features = online("redis://:planted-secret@127.0.0.1:1/3")
    with pytest.raises(OnlineStoreError, match=r"redis://127\.0\.0\.1:1/3 does not answer") as error:
        features.vectors(["a"])
    assert "planted-secret" not in str(error.value)
