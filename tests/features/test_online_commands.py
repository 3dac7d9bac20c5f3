"""learn-spark online push and check: output, strict JSON, exit codes, and a real kill -9."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

import learn_spark as ls
from learn_spark.commands.main import app
from tests.features.online_world import OnlineWorld
from tests.features.test_online_store import R1, R2
from tests.world import write_config

Command = Callable[..., Result]


@pytest.fixture
def world(tmp_path: Path) -> OnlineWorld:
    world = OnlineWorld(str(tmp_path / "workspace"), f"sqlite:///{tmp_path}/online.db", "shop")
    world.publish("r1", *R1)
    return world


@pytest.fixture
def config(world: OnlineWorld, tmp_path: Path) -> Path:
    path = write_config(tmp_path / "c.yaml", raw=tmp_path, workspace=world.workspace.root, model=tmp_path)
    with path.open("a") as file:
        file.write(f"\nonline: {{store: '{world.url}', namespace: shop}}\n")
    return path


@pytest.fixture
def command(config: Path) -> Command:
    def run(*arguments: str) -> Result:
        return CliRunner().invoke(app, ["online", *arguments, "--config", str(config)])

    return run


def strict(text: str) -> dict[str, object]:
    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    return dict(json.loads(text, parse_constant=refuse))


def test_push_then_check(world: OnlineWorld, command: Command, config: Path) -> None:
    nothing = command("check")
    assert (nothing.exit_code, "has no release" in nothing.stderr) == (1, True)
    assert "release r1 (all rows: 5 rows; " in command("push").stdout
    assert command("push").stdout.strip() == "online: release r1, as before"
    assert ls.open(str(config)).online().vectors(["b"], ["y"]).users.tolist() == [[2.0]]
    world.publish("r2", *R2)
    found = strict(command("check", "--json").stdout)
    assert {name: found[name] for name in ("state", "behind_hours", "compared", "differences", "in_force")} == {
        "state": "behind",
        "behind_hours": 24.0,
        "compared": 5,
        "differences": [],
        "in_force": "r2",
    }
    assert "state:     behind" in command("check").stdout
    pushed = strict(command("push", "--json").stdout)
    assert (pushed["release_id"], pushed["since"], pushed["written"]) == ("r2", "r1", 4)
    checked = command("check", "--sample", "2")
    assert (checked.exit_code, "compared:  4 vectors, 0 differ" in checked.stdout) == (0, True)


def test_check_fails_where_the_store_must_not_serve_what_it_has(world: OnlineWorld, command: Command) -> None:
    world.publish("r2", *R2)
    command("push")
    world.withdraw("r2")
    withdrawn = command("check", "--json")
    assert (withdrawn.exit_code, strict(withdrawn.stdout)["state"]) == (1, "withdrawn")
    assert "must not serve release r2: it was withdrawn" in withdrawn.stderr
    command("push")
    import sqlite3

    with sqlite3.connect(world.url.removeprefix("sqlite:///")) as database:
        database.execute("UPDATE vectors SET vector = x'0000803f' WHERE id = 'b'")
        database.execute("DELETE FROM vectors WHERE id = 'y'")
    damaged = command("check", "--json")
    assert damaged.exit_code == 1
    assert strict(damaged.stdout)["differences"] == [
        {"kind": "item", "id": "y", "online": "missing"},
        {"kind": "user", "id": "b", "online": "different"},
    ]
    assert "2 of 5 vectors online differ" in damaged.stderr
    command("push", "--whole")
    assert command("check").exit_code == 0


def test_addresses(command: Command, config: Path) -> None:
    wrong = command("push", "--to", "memcached://user:planted-secret@host")
    assert (wrong.exit_code, "is not the address of an online store" in wrong.stderr) == (2, True)
    assert "planted-secret" not in wrong.stderr
    config.write_text(config.read_text().replace("store: ", "# "))
    # The rest of the line is a comment now.
    config.write_text(config.read_text().replace("online: {# ", "# "))
    nowhere = command("push")
    assert (nowhere.exit_code, "no online store is named" in nowhere.stderr) == (2, True)


@pytest.mark.parametrize("kind", ["redis", "sqlite"])
def test_a_push_that_is_killed_leaves_the_release_before_and_goes_on(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    url = request.getfixturevalue("redis_url") if kind == "redis" else f"sqlite:///{tmp_path}/online.db"
    world = OnlineWorld(str(tmp_path / "workspace"), url, f"test-{secrets.token_hex(4)}")
    users = {f"u{n}": float(n) for n in range(3000)}
    world.publish("r1", users, {"x": 1.0})
    world.push(batch_rows=1000)
    world.publish("r2", {one: value + 0.5 for one, value in users.items()}, {"x": 2.0})
    code = "from learn_spark.commands.main import main; main()"
    settings = [f"workspace={world.workspace.root}", f"online.namespace={world.namespace}", "online.batch_rows=1"]
    arguments = ["online", "push", "--to", url, *(part for one in settings for part in ("--set", one))]
    root = Path(__file__).parents[2]
    process = subprocess.Popen([sys.executable, "-c", code, *arguments], cwd=root)
    store = world.store()
    while (under_way := store.read([]).record.push) is None or under_way.done < 50:
        assert process.poll() is None, "it ended before it was killed"
        time.sleep(0.001)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert world.read() == "r1"
    done = store.read([]).record.push.done
    assert 50 <= done < 3001
    again = world.push(batch_rows=1000)
    assert (again.since, again.resumed_at, again.written) == ("r1", done, 3001 - done)
    assert world.read() == "r2"
    assert set(world.versions().values()) == {1}
