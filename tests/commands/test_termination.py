"""SIGTERM: a command gives its locks back, and ends with a sentence, whatever its main thread does."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from learn_spark.commands.app import without_workspace
from learn_spark.commands.termination import SENTENCE, Terminated
from learn_spark.core.errors import LearnSparkError
from learn_spark.core.settings import load_settings
from learn_spark.core.stages.registry import find_stage
from learn_spark.core.tables.workspace import Workspace
from learn_spark.pipeline.locks import exclusively_written, writing
from tests.world import write_config

COMMAND = (sys.executable, "-c", "from learn_spark.commands.main import main; main()")
# In C, which says "begun" itself, so that no handler of Python runs between that and its end.
STUCK = "import ctypes; ctypes.CDLL(None).system(b'echo begun; exec cat > /dev/null 2>&1')"
BLOCK = """
import time
from learn_spark.commands.termination import ended_by_sigterm, Terminated
try:
    with ended_by_sigterm(seconds=0.5):
        try:
            {work}
        finally:
            {finally_}
except Terminated:
    print("left", flush=True)
"""


def terminated(work: str, finally_: str = "pass") -> tuple[int, str, str]:
    """(exit code, output, errors) of ``work`` that got SIGTERM."""
    code = BLOCK.format(work=work, finally_=finally_)
    process = subprocess.Popen([sys.executable, "-c", code], stdin=-1, stdout=-1, stderr=-1, text=True)
    assert process.stdout is not None
    begun = process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    process.wait(60)
    output, errors = process.communicate()
    return process.returncode, begun + output, errors


SLEEP = "print('begun', flush=True); time.sleep(600)"


def test_the_block_is_left_and_what_follows_it_runs() -> None:
    assert terminated(SLEEP) == (0, "begun\nleft\n", "")


@pytest.mark.parametrize("work", [(STUCK,), (SLEEP, STUCK)], ids=["in C", "while it cleans up"])
def test_a_main_thread_that_does_not_leave_is_ended(work: tuple[str, ...]) -> None:
    code, output, errors = terminated(*work)
    assert (code, output.splitlines()[0]) == (143, "begun")
    assert "left" not in output
    assert errors.splitlines()[-1] == SENTENCE


def test_a_command_gives_its_locks_back(tmp_path: Path) -> None:
    config = write_config(tmp_path / "shop.yaml", raw=tmp_path / "raw", workspace=tmp_path / "w", model=tmp_path)
    workspace = Workspace.open(load_settings(config).workspace)
    names = exclusively_written([find_stage("ingest")])
    with writing(workspace, names, "the first"):
        second = subprocess.Popen(
            [*COMMAND, "ingest", "--wait", "--config", str(config)], stdout=-1, stderr=subprocess.STDOUT, text=True
        )
        assert second.stdout is not None
        while "the first" not in (line := second.stdout.readline()):
            assert line, "it waits for nobody"
        second.send_signal(signal.SIGTERM)
        rest, _ = second.communicate(timeout=60)
        assert second.returncode == 143
        assert rest.splitlines()[-1] == SENTENCE
    with writing(workspace, names, "the third"):
        pass


class Breaks(Exception):
    """What a connection to Java raises that the signal broke."""


@pytest.mark.parametrize(("signal_", "code"), [(Terminated, 143), (KeyboardInterrupt, 130)])
@pytest.mark.parametrize("cleaning", [Breaks, LearnSparkError])
def test_an_error_of_the_cleaning_up_does_not_hide_the_signal(
    signal_: type[BaseException], code: int, cleaning: type[Exception], capsys: pytest.CaptureFixture[str]
) -> None:
    def work() -> None:
        try:
            raise signal_
        finally:
            raise cleaning("the Java process has ended")

    with pytest.raises(typer.Exit) as ended:
        without_workspace(False, work)
    assert ended.value.exit_code == code
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("stopped")


def test_an_error_after_a_handled_one_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    def work() -> None:
        try:
            raise Breaks("first")
        except Breaks:
            raise LearnSparkError("second") from None

    with pytest.raises(typer.Exit) as ended:
        without_workspace(False, work)
    assert ended.value.exit_code == 1
    assert capsys.readouterr().err == "error: second\n"
