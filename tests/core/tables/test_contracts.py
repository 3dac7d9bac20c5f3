"""Contracts: every table's is whole, and a faulty one is refused by name."""

from __future__ import annotations

import pytest

from learn_spark.core.stages.registry import all_stages
from learn_spark.core.tables.contracts import ContractError, all_tables, contract, parse_contract

GOOD = {
    "table": "t",
    "meaning": "m",
    "key": ["a"],
    "columns": [{"name": "a", "type": "int", "nullable": False, "meaning": "m"}],
}


def test_every_table_that_a_stage_touches_has_a_contract() -> None:
    touched = {table for stage in all_stages() for table in (*stage.reads, *stage.writes)}
    assert touched <= set(all_tables())


@pytest.mark.parametrize("table", all_tables())
def test_spark_and_arrow_agree_on_a_contract(spark: object, table: str) -> None:
    from pyspark.sql.pandas.types import to_arrow_schema

    ours, theirs = contract(table).arrow_schema(), to_arrow_schema(contract(table).spark_schema())
    assert ours.names == theirs.names
    assert [f.nullable for f in ours] == [f.nullable for f in theirs]
    assert [str(f.type).replace("element", "item") for f in ours] == [
        str(f.type).replace("element", "item") for f in theirs
    ]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"key": ["b"]}, "b is not one of its columns"),
        ({"colour": "red"}, "colour"),
        ({"columns": [{"name": "a b", "type": "int", "nullable": False, "meaning": "m"}]}, "not a plain column name"),
        ({"columns": [{"name": "a", "type": "integer64", "nullable": False, "meaning": "m"}]}, "not a valid type"),
        ({"columns": [{"name": "a", "type": "int", "nullable": False}]}, "meaning"),
        ({"columns": [*GOOD["columns"], *GOOD["columns"]]}, "is repeated"),  # type: ignore[misc]
    ],
)
def test_a_faulty_contract_is_refused(change: dict[str, object], expected: str) -> None:
    assert parse_contract(GOOD, "here").key == ["a"]
    with pytest.raises(ContractError, match=expected):
        parse_contract({**GOOD, **change}, "here")


def test_an_unknown_table_is_named() -> None:
    with pytest.raises(ContractError, match="no table 'nothing'"):
        contract("nothing")
    with pytest.raises(ContractError):
        contract("../items")
