"""Rows of a workspace's tables for assertions, read without a query of Spark."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from pyspark.sql import Row

from learn_spark.core.tables.snapshot import Snapshot
from learn_spark.core.tables.workspace import Workspace


def stored_rows(workspace: str, table: str) -> list[Any]:
    """All rows of the newest version, as ``DataFrame.collect`` gives them: times are UTC without a zone."""
    found = Snapshot.open(Workspace.open(workspace).table(table)).to_arrow().to_pylist()
    return [Row(**{name: _plain(value) for name, value in row.items()}) for row in found]


def _plain(value: Any) -> Any:
    if isinstance(value, datetime) and value.tzinfo is not None:
        return value.astimezone(UTC).replace(tzinfo=None)
    return value
