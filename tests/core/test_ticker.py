"""A command that works long says something within two seconds, and never less often than every ten."""

from __future__ import annotations

import threading
from itertools import pairwise

import pytest

from learn_spark.core.console import Reporter
from learn_spark.core.ticker import SECONDS_BETWEEN_LINES, SECONDS_TO_FIRST_LINE, Ticker

Event = tuple[float, str]  # (time, what the command does then)


def lines_of(events: list[Event], end: float, step: float = 0.25) -> list[tuple[float, str]]:
    """(time, line) of all that is written while the ticker looks every ``step`` seconds until ``end``."""
    clock, written = [0.0], []
    ticker = Ticker(now=lambda: clock[0], write=lambda line: written.append((clock[0], line)))
    left = sorted(events)
    while clock[0] < end:
        while left and left[0][0] <= clock[0]:
            kind, _, name = left.pop(0)[1].partition(" ")
            if kind == "print":
                ticker.printed()
                written.append((clock[0], name))
            elif kind == "stage":
                ticker.at_stage(name)
            else:
                ticker.at(name)
        ticker.look()
        clock[0] += step
    return written


BUSY = [
    ("nothing is printed at all", []),
    ("a heading at once, then silence", [(0.5, "print heading"), (0.5, "stage ingest"), (1.0, "step starting Spark")]),
    ("lines now and then", [(1.0, "print a"), (8.0, "print b"), (31.0, "print c"), (32.0, "print d")]),
    ("steps without lines", [(float(n), f"step number {n}") for n in range(0, 60, 3)]),
]


@pytest.mark.parametrize(("case", "events"), BUSY)
def test_no_silence_is_longer_than_ten_seconds(case: str, events: list[Event]) -> None:
    times = [time for time, _ in lines_of(events, 60.0)]
    assert times[0] <= SECONDS_TO_FIRST_LINE
    gaps = [after - before for before, after in pairwise(times)]
    assert max([*gaps, 60.0 - times[-1]]) <= SECONDS_BETWEEN_LINES + 0.25


def test_a_line_names_the_stage_the_step_and_the_seconds() -> None:
    events = [(0.0, "print heading"), (0.0, "stage [1/6] ingest"), (4.0, "step reading 3 files")]
    (_, first), (time, second) = lines_of(events, 11.0)
    assert first == "heading"
    assert time == SECONDS_BETWEEN_LINES
    assert "[1/6] ingest" in second
    assert "reading 3 files" in second
    assert "6 s" in second
    assert "10 s in all" in second


def test_a_command_that_prints_often_enough_gets_no_line() -> None:
    events = [(float(n), f"print {n}") for n in range(60)]
    assert [line for _, line in lines_of(events, 60.0)] == [str(n) for n in range(60)]


def test_nothing_is_said_beside_a_progress_bar() -> None:
    clock, written = [0.0], []
    ticker = Ticker(now=lambda: clock[0], write=written.append)
    with ticker.paused():
        clock[0] = 100.0
        ticker.look()
    ticker.look()
    assert written == []


def test_the_console_notes_stages_steps_and_lines(capsys: pytest.CaptureFixture[str]) -> None:
    console, clock, written = Reporter(), [0.0], []
    console.ticker = Ticker(now=lambda: clock[0], write=written.append)
    console.heading("[2/6] item_text")
    console.at("gate of item_text")
    clock[0] = 9.0
    console.say("a line")
    clock[0] = 18.0
    console.ticker.look()
    assert written == []
    clock[0] = 19.0
    console.ticker.look()
    assert ["[2/6] item_text" in line and "gate of item_text" in line for line in written] == [True]
    assert capsys.readouterr().err == ""


def test_the_thread_looks_until_the_work_ends() -> None:
    said, clock = threading.Event(), [0.0]
    ticker = Ticker(now=lambda: clock[0], write=lambda line: said.set())
    with ticker.running():
        clock[0] = SECONDS_TO_FIRST_LINE
        assert said.wait(60)
    assert not any(thread.name == "ticker" and thread.is_alive() for thread in threading.enumerate())
