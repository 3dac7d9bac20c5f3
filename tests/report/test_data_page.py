"""docs/data.md is what the contracts say: written anew it is the same, and nothing of a contract is left out."""

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
    found = re.search(rf"^## {table}\n(.*?)(?=^## |\Z)", page, re.M | re.S)
    assert found, table
    return found[1]


def cells(line: str) -> list[str]:
    """The cells of a row, cut where Markdown cuts: at bars that no backslash escapes."""
    return [part.strip() for part in re.split(r"(?<!\\)\|", line)[1:-1]]


def test_the_page_in_docs_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == data_page(), "run make docs"


@pytest.mark.parametrize("table", all_tables())
def test_everything_of_a_contract_stands_in_its_section(table: str) -> None:
    held, own = contract(table), section(PAGE.read_text(encoding="utf-8"), table)
    rows = {tuple(cells(line)[:3]) for line in own.splitlines() if line.startswith("|")}
    for column in held.columns:
        nullable = "yes" if column.nullable else "no"
        assert (f"`{column.name}`", f"`{column.type}`", nullable) in rows, column.name
    said = own.replace("\\|", "|")
    for text in (
        held.meaning,
        *[c.meaning for c in held.columns],
        *[c.unit for c in held.columns if c.unit],
        *held.constraints,
        *[" ".join(condition.split()) for condition in held.constraints.values()],
        *[rule.reason for rule in held.row_rules],
        *[rule.broken.replace("\ufffd", "\\uFFFD") for rule in held.row_rules],
        *[rule.meaning for rule in held.rules],
    ):
        assert text in said, text
    judged = {cells(line)[0]: cells(line) for line in own.splitlines() if line.startswith("|")}
    for rule in held.rules:
        line = judged[f"`{rule.name}`"]
        looked_at = rule.measure or rule.drift_of or rule.given or (rule.repeats_of and rule.repeats_of[0])
        looked_at = looked_at or (rule.references and rule.references.table) or (rule.even and rule.even.among)
        assert f"`{looked_at}`" in line[1].replace("\\|", "|")
        assert line[2:5] == ["" if b is None else f"{b:g}" for b in (rule.least, rule.most)] + [rule.severity]


def test_tables_stand_in_the_order_of_the_road_each_once() -> None:
    found = re.findall(r"^## (\w+)$", data_page(), re.M)
    assert sorted(found) == all_tables()
    road = list(dict.fromkeys(table for stage in all_stages() for table in stage.writes))
    assert found[: len(road)] == road


def test_every_row_has_as_many_cells_as_its_head() -> None:
    width = 0
    for line, following in zip(data_page().splitlines(), [*data_page().splitlines()[1:], ""], strict=True):
        if not line.startswith("|"):
            width = 0
            continue
        width = width or len(cells(following))
        assert len(cells(line)) == width, line
