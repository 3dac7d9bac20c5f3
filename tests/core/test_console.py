"""What a log file shows: lines and tables whole, however long."""

from __future__ import annotations

import pytest

from learn_spark.core.console import Reporter


def test_outside_a_terminal_no_cell_of_a_table_is_cut_off(capsys: pytest.CaptureFixture[str]) -> None:
    meaning = "rows without which a run has not all of three baselines and a tower, " * 8
    Reporter().table(
        "Gate", ["rule", "verdict", "meaning"], [["absent", "passed", meaning], ["rows", "broken", "rows"]]
    )
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "Gate"
    assert lines[3].split(maxsplit=2) == ["absent", "passed", meaning.strip()]
    assert lines[4].split() == ["rows", "broken", "rows"]
    assert "…" not in "".join(lines)


def test_a_long_line_stays_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    Reporter().say("word " * 200)
    assert len(capsys.readouterr().out.splitlines()) == 1
