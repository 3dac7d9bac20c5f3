"""What a log file shows: lines and tables whole, however long."""

from __future__ import annotations

import json
import re

import pytest

from learn_spark.core.console import Reporter
from learn_spark.core.table_text import Column


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


ROWS = [
    [
        "3f2a9c41d5e6b780",
        "released *",
        "0.1234567",
        "1,234,567",
        "user_features: all 1,234,567 rewritten, because --force",
    ],
    [
        "20240131T120000-0a1b2c3d",
        "withdrawn",
        "-0.0001",
        "7",
        "the prices of three suppliers were wrong by a factor of 100",
    ],
]
NAMES = ["release", "state", "NDCG@10", "users", "note"]


@pytest.mark.parametrize("width", [40, 80, 120, None])
def test_figures_and_ids_are_whole_at_any_width(width: int | None, capsys: pytest.CaptureFixture[str]) -> None:
    Reporter(width=width).table("Releases", NAMES, ROWS)
    printed = capsys.readouterr().out
    words = printed.split()
    for row in ROWS:
        for cell in row:
            assert all(word in words for word in cell.split())
    assert all(name in words for name in NAMES)
    if width is not None:
        assert max(map(len, printed.splitlines())) <= width


def test_a_table_as_wide_as_a_terminal_allows(capsys: pytest.CaptureFixture[str]) -> None:
    Reporter(width=120).table("Releases", NAMES, ROWS)
    lines = capsys.readouterr().out.splitlines()[2:]
    # Figures are aligned right, prose wraps in its column.
    assert lines[0].index("users") + len("users") == lines[1].index("1,234,567") + len("1,234,567")
    assert lines[1].startswith("3f2a9c41d5e6b780 ")
    column = lines[0].index("note")
    note = " ".join(line[column:].strip() for line in lines[1:])
    assert re.sub(" +", " ", note) == f"{ROWS[0][4]} {ROWS[1][4]}"


def test_cells_keep_brackets_and_numbers_become_json(capsys: pytest.CaptureFixture[str]) -> None:
    for as_json in (False, True):
        console = Reporter(as_json=as_json)
        console.say("progress")
        columns = ["title", "rows", Column("NDCG@10", ".4f"), "none"]
        console.table("Items of w", columns, [["lamp [red] [/b]", 1234, 0.5, None]], name="items")
        console.record("all", {"a": (float("nan"), 1.5)})
        console.line("a result")
        console.print_json()
        printed = capsys.readouterr().out
        if as_json:
            row = {"title": "lamp [red] [/b]", "rows": 1234, "NDCG@10": 0.5, "none": None}
            assert json.loads(printed) == {"items": [row], "all": {"a": [None, 1.5]}, "notes": ["a result"]}
        else:
            assert printed.splitlines()[-2].split() == ["lamp", "[red]", "[/b]", "1,234", "0.5000"]
