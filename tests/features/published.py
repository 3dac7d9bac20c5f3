"""Releases planted one after the other, as publishing leaves them: tables with a change feed, and the ledger."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any

from pyspark.sql import SparkSession

import learn_spark.features
from learn_spark.core.tables import delta
from learn_spark.core.tables.contracts import contract
from learn_spark.core.tables.log import append_rows
from learn_spark.core.tables.snapshot import current_version
from learn_spark.core.tables.workspace import Workspace
from learn_spark.features.ledger import LedgerRow, ledger
from tests.report.planted import release_row

DAYS = [datetime(2024, 1, day, 12, tzinfo=UTC) for day in range(1, 9)]
Vectors = dict[str, list[float]]


class Published:
    """Releases r1 to r4, published at noon of January 1 to 4, and r3 withdrawn on the 5th.

    r2 updates b, deletes c and inserts d; r3 is another model's, all rewritten; r4 brings c back.
    """

    def __init__(self, spark: SparkSession, root: str) -> None:
        self.spark, self.workspace = spark, Workspace.open(root)
        self.rows: list[LedgerRow] = ledger(self.workspace)

    def plant(self) -> None:
        """Publish them."""
        self._release("r1", {"a": [1.0, 0.0], "b": [0.0, 1.0], "c": [0.6, 0.8]}, {"x": [1.0, 1.0]})
        self._release("r2", {"a": [1.0, 0.0], "b": [0.8, 0.6], "d": [0.0, 1.0]}, {"x": [1.0, 1.0], "y": [2.0, 0.0]})
        self._release("r3", {"a": [0.5, 0.5], "b": [0.4, 0.4], "d": [0.3, 0.3]}, {"x": [3.0, 3.0], "y": [3.0, 0.0]})
        users = {"a": [0.5, 0.5], "b": [0.4, 0.4], "c": [0.2, 0.2], "d": [0.3, 0.3]}
        self._release("r4", users, {"x": [3.0, 3.0], "y": [3.0, 0.0]})
        self._write("r3", "withdrawn", self.rows[2].outputs, DAYS[4], DAYS[1])

    def _release(self, release: str, users: Vectors, items: Vectors) -> None:
        number = len(self.rows)
        outputs = {
            "user_features": self._table("user_features", release, users),
            "item_features": self._table("item_features", release, items),
        }
        # Its as-of time is midnight, a day and a half before its publication.
        self._write(release, "released", outputs, DAYS[number], DAYS[number] - timedelta(days=1.5))

    def _write(self, release: str, status: str, outputs: Mapping[str, str], at: datetime, as_of: datetime) -> None:
        row = release_row(len(self.rows) + 1, release, status, as_of, outputs=outputs, written_at=at)
        append_rows(self.workspace.table("releases"), contract("releases"), [asdict(row)])
        self.rows.append(row)

    def _table(self, name: str, release: str, vectors: Vectors) -> str:
        path, table, key = self.workspace.table(name), contract(name), f"{name[:4]}_id"
        rows = [(entity, vector, release, DAYS[0], hash(tuple(vector))) for entity, vector in vectors.items()]
        frame = self.spark.createDataFrame(rows, table.spark_schema())
        if release in ("r1", "r3"):
            delta.overwrite(frame, path, table)
        else:
            frame.createOrReplaceTempView("new_rows")
            self.spark.sql(f"""
                MERGE INTO delta.`{path}` t USING new_rows s ON t.{key} = s.{key}
                WHEN MATCHED AND t.embedding != s.embedding THEN UPDATE SET *
                WHEN NOT MATCHED THEN INSERT *
                WHEN NOT MATCHED BY SOURCE THEN DELETE""")
        return str(current_version(path))

    def read(self, table: str = "user_features", **which: Any) -> dict[str, list[float]]:
        """id -> vector by ``learn_spark.features.read``."""
        rows = learn_spark.features.read(self.spark, table, **which, workspace=self.workspace).collect()
        return {row[0]: row.embedding for row in rows}
