"""The processes of a training whose launcher is stopped or killed: they end with it, or keep its locks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from learn_spark.core.storage.locks import LockedError, lock_or_refuse

LAUNCHER = """
import sys
from pathlib import Path
from learn_spark.commands.termination import ended_by_sigterm
from learn_spark.core.storage.locks import lock_or_refuse
from learn_spark.model.training.launch import run_in_processes
from tests.model.training.sleeper import sleep_on

with ended_by_sigterm(), lock_or_refuse(Path(sys.argv[1]), "the model", "a training"):
    run_in_processes(sleep_on, (), 1)
"""


def lives(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text(encoding="ascii").rpartition(") ")[2][0] not in "ZX"
    except OSError:
        return False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_nobody_gets_the_locks_of_a_training_while_one_of_its_processes_lives(
    tmp_path: Path, number: signal.Signals
) -> None:
    lock = tmp_path / "training.lock"
    launcher = subprocess.Popen([sys.executable, "-c", LAUNCHER, str(lock)], stdout=-1, stderr=-1, text=True)
    assert launcher.stdout is not None
    line = launcher.stdout.readline()
    assert line, launcher.communicate()
    process = int(line)
    launcher.send_signal(number)
    launcher.wait(300)
    if number == signal.SIGKILL:
        with pytest.raises(LockedError, match=f"process {process}, which a training"), lock_or_refuse(lock, "it", "I"):
            pass
        os.kill(process, signal.SIGKILL)
        while lives(process):
            pass
    assert not lives(process)
    with lock_or_refuse(lock, "it", "I"):
        pass
