"""Locks between real processes: one at a time, who has it by name, free again after a kill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from learn_spark.core.storage.locks import LockedError, exclude, lock_or_refuse, share, wait_for_lock

PROGRAM = """
import sys
from pathlib import Path
from learn_spark.core.storage.locks import {name}
with {name}(Path(sys.argv[1]), *sys.argv[2:]):
    print("locked", flush=True)
    sys.stdin.read()
"""


@contextmanager
def other_process(name: str, path: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A process that has the lock until the block ends."""
    command = [sys.executable, "-c", PROGRAM.format(name=name), str(path), *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        yield process
        process.kill()


def test_the_second_process_is_refused_and_told_who_was_first(tmp_path: Path) -> None:
    path = tmp_path / "locks" / "items.lock"
    with other_process("lock_or_refuse", path, "items", "a run of ingest") as first:
        with pytest.raises(LockedError) as refused, lock_or_refuse(path, "items", "mine"):
            pass
        assert refused.value.resource == "items"
        assert refused.value.holder.startswith(f"a run of ingest (process {first.pid} on ")
    again = lock_or_refuse(path, "items", "the same process again")
    with lock_or_refuse(path, "items", "mine"), pytest.raises(LockedError, match="mine"), again:
        pass


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    path = tmp_path / "items.lock"
    with other_process("lock_or_refuse", path, "items", "a run of ingest") as first:
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
        with lock_or_refuse(path, "items", "mine", remove=True):
            pass
    assert list(tmp_path.iterdir()) == []


HELPED = """
import subprocess, sys
from pathlib import Path
from learn_spark.core.storage.locks import helped_by, lock_or_refuse
path, when = Path(sys.argv[1]), sys.argv[2]
helper = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
if when == "before":
    helped_by(helper.pid)
with lock_or_refuse(path, "items", "a run of ingest"):
    if when == "after":
        helped_by(helper.pid)
    print(helper.pid, flush=True)
    sys.stdin.readline()
print("released", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("killed", [True, False])
def test_a_lock_is_free_when_the_java_process_of_a_killed_run_has_ended_too(
    tmp_path: Path, when: str, killed: bool
) -> None:
    path = tmp_path / "items.lock"
    command = [sys.executable, "-c", HELPED, str(path), when]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        helper = int(process.stdout.readline())
        # It lives for as long as its pipe has a writer: this test, then.
        pipe = os.open(f"/proc/{helper}/fd/0", os.O_WRONLY)
        try:
            if killed:
                process.kill()
                process.wait()
                for remove in (False, True):
                    with (
                        pytest.raises(LockedError, match=f"process {helper}, which a run of ingest left behind"),
                        lock_or_refuse(path, "items", "mine", remove=remove),
                    ):
                        pass
            else:
                process.stdin.write("\n")
                process.stdin.flush()
                assert process.stdout.readline() == "released\n"
                with lock_or_refuse(path, "items", "mine"):
                    pass
        finally:
            os.close(pipe)
            process.kill()
        for _ in range(600):
            with suppress(LockedError), lock_or_refuse(path, "items", "mine"):
                return
            time.sleep(0.1)
        raise AssertionError("the helper has ended, and the lock is not free")


def test_users_share_and_whoever_needs_all_waits_for_none(tmp_path: Path) -> None:
    with other_process("share", tmp_path, "the workspace", "a run of train") as user:
        with share(tmp_path, "the workspace", "mine"):
            pass
        refused = pytest.raises(LockedError, match=f"a run of train \\(process {user.pid}")
        with refused, exclude(tmp_path, "the workspace", "a run of retain"):
            pass
        with share(tmp_path, "the workspace", "mine"):  # a refused one leaves no lock behind
            pass
        os.kill(user.pid, signal.SIGKILL)
        user.wait()
        refused, late = pytest.raises(LockedError, match="retain"), share(tmp_path, "the workspace", "mine")
        with exclude(tmp_path, "the workspace", "a run of retain"), refused, late:
            pass
    assert not list(tmp_path.glob("user-*"))


def test_a_lock_that_waits_orders_what_processes_decide(tmp_path: Path) -> None:
    program = """
import sys
from pathlib import Path
from learn_spark.core.storage.locks import wait_for_lock
folder = Path(sys.argv[1])
for _ in range(40):
    with wait_for_lock(folder / "lock"):
        count = folder / "count"
        count.write_text(str(int(count.read_text()) + 1))
"""
    (tmp_path / "count").write_text("0")
    processes = [subprocess.Popen([sys.executable, "-c", program, str(tmp_path)]) for _ in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]
    with wait_for_lock(tmp_path / "lock"):
        assert (tmp_path / "count").read_text() == "120"
