"""What is sent to a service arrives in order; one that fails or hangs costs one warning and a bounded wait."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from learn_spark.core.console import Reporter
from learn_spark.pipeline.tracking.curve import Curve
from learn_spark.pipeline.tracking.sender import Sender


def failing(message: str) -> Callable[[], None]:
    def job() -> None:
        raise OSError(message)

    return job


def test_jobs_are_done_in_order_and_a_failure_drops_what_was_given_with_it(capsys: pytest.CaptureFixture[str]) -> None:
    sender, done = Sender("The service", Reporter()), list[int]()
    for number in range(3):
        sender.send(lambda number=number: done.append(number))  # type: ignore[misc]
    assert sender.wait(60)
    sender.send(failing("no route to http://anna:hidden@host\nat line 3"))
    sender.send(lambda: done.append(3))
    assert not sender.wait(60)
    # The service is back, and fails again later: that is no news.
    sender.send(lambda: done.append(4))
    assert sender.wait(60)
    sender.send(failing("gone again"))
    assert not sender.wait(60)
    assert done == [0, 1, 2, 4]
    printed = capsys.readouterr().out.splitlines()
    assert printed == ["warning: The service failed: no route to http://***@host; the run goes on without it"]


def test_a_job_that_hangs_is_waited_for_once(capsys: pytest.CaptureFixture[str]) -> None:
    sender, never, done = Sender("The service", Reporter()), threading.Event(), list[int]()
    sender.send(lambda: never.wait() and None)
    assert not sender.wait(0.05)
    sender.send(lambda: done.append(1))
    assert not sender.wait(3600)
    assert not done
    never.set()
    assert capsys.readouterr().out.count("warning") == 1


def test_a_repeated_job_is_done_once_more_after_the_block() -> None:
    sender, seen, log = Sender("The service", Reporter()), list[int](), [1, 2]
    twice = threading.Event()

    def job() -> None:
        seen.append(len(log))
        if len(seen) == 3:
            twice.set()

    with sender.repeating(job, 0.01):
        assert twice.wait(60)
        log.append(3)
    assert sender.wait(60)
    assert seen[-1] == 3
    assert seen[:3] == [2, 2, 2]


def test_a_curve_is_read_as_far_as_its_lines_are_complete(tmp_path: Path) -> None:
    curve, file = Curve(tmp_path), tmp_path / "steps.jsonl"
    assert curve.new_points() == []
    file.write_text('{"step": 20, "loss": 2.5}\n{"step": 40, "lo', encoding="utf-8")
    assert curve.new_points() == [(20, {"loss": 2.5})]
    file.write_text('{"step": 20, "loss": 2.5}\n{"step": 40, "loss": null, "epoch": 1}\n', encoding="utf-8")
    assert curve.new_points() == [(40, {"epoch": 1.0})]
    assert curve.new_points() == []
    # A resumed training cuts its log to the checkpoint.
    file.write_text('{"step": 20, "loss": 2.5}\n', encoding="utf-8")
    assert curve.new_points() == [(20, {"loss": 2.5})]
    # Cut, and written on beyond what was read before: no line begins at that place.
    lines = [f'{{"step": {step}, "loss": {step / 7}}}\n' for step in range(1, 40)]
    file.write_text("".join(lines[:30]), encoding="utf-8")
    curve.new_points()
    file.write_text("".join([*lines[:20], '{"step": 21, "loss": 0.123456789012}\n', *lines[21:]]), encoding="utf-8")
    assert [step for step, _ in curve.new_points()] == list(range(1, 40))
    assert curve.new_points() == []
