"""docs/data.md is up to date with the contracts, and lists every part of every contract."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from learn_spark.core.stages.registry import all_stages
from learn_spark.core.tables.contracts import all_tables, contract
from learn_spark.report.data_page import data_page

PAGE = Path(__file__).parents[2] / "docs" / "data.md"


def section(page: str, table: str) -> str:
    """The page from the table's heading to the next one."""
    match = re.search(rf"^## {table}\n(.*?)(?=^## |\Z)", page, re.M | re.S)
    assert match, table
    return match[1]


def cells(line: str) -> list[str]:
    """The cells of a row of a Markdown table, split at bars without a backslash."""
    return [part.strip() for part in re.split(r"(?<!\\)\|", line)[1:-1]]


def test_the_page_in_docs_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == data_page(), "run make docs"


@pytest.mark.parametrize("table", all_tables())
def test_a_section_lists_every_part_of_its_contract(table: str) -> None:
    expected, written = contract(table), section(PAGE.read_text(encoding="utf-8"), table)
    rows = {tuple(cells(line)[:3]) for line in written.splitlines() if line.startswith("|")}
    for column in expected.columns:
        nullable = "yes" if column.nullable else "no"
        assert (f"`{column.name}`", f"`{column.type}`", nullable) in rows, column.name
    unescaped = written.replace("\\|", "|")
    for text in (
        expected.meaning,
        *[c.meaning for c in expected.columns],
        *[c.unit for c in expected.columns if c.unit],
        *expected.constraints,
        *[" ".join(condition.split()) for condition in expected.constraints.values()],
        *[rule.reason for rule in expected.row_rules],
        *[rule.broken.replace("\ufffd", "\\uFFFD") for rule in expected.row_rules],
        *[rule.meaning for rule in expected.rules],
    ):
        assert text in unescaped, text
    lines = {cells(line)[0]: cells(line) for line in written.splitlines() if line.startswith("|")}
    for rule in expected.rules:
        line = lines[f"`{rule.name}`"]
        subject = rule.measure or rule.drift_of or rule.given or (rule.repeats_of and rule.repeats_of[0])
        subject = subject or (rule.references and rule.references.table) or (rule.even and rule.even.among)
        assert f"`{subject}`" in line[1].replace("\\|", "|")
        assert line[2:5] == ["" if b is None else f"{b:g}" for b in (rule.least, rule.most)] + [rule.severity]


def test_every_table_has_one_section_in_the_order_of_the_pipeline() -> None:
    tables = re.findall(r"^## (\w+)$", data_page(), re.M)
    assert sorted(tables) == all_tables()
    expected = list(dict.fromkeys(table for stage in all_stages() for table in stage.writes))
    assert tables[: len(expected)] == expected


def test_every_row_has_as_many_cells_as_its_head() -> None:
    width = 0
    for line, following in zip(data_page().splitlines(), [*data_page().splitlines()[1:], ""], strict=True):
        if not line.startswith("|"):
            width = 0
            continue
        width = width or len(cells(following))
        assert len(cells(line)) == width, line
