"""The result of each way of making exposures: rows in the contract's columns, and the counts of all others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from learn_spark.core.errors import RowCountError
from learn_spark.core.stages.context import StageContext
from learn_spark.core.tables import delta
from learn_spark.core.tables.contracts import contract
from learn_spark.core.tables.erased import ErasedUsers
from learn_spark.core.tables.log import add_new_columns
from learn_spark.core.tables.snapshot import Snapshot

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


@dataclass(frozen=True)
class ExposuresResult:
    """Row counts, with read = written + refused + duplicates + outside + not_sampled + erased.

    ``outside`` are rows before ``since`` or from ``until`` on; ``not_sampled`` unconverted ones that were not drawn;
    ``erased`` those of erased users.
    ``nulled`` are fields of written or outside rows that became null, ``files_skipped`` files that could not be read.
    ``of_written`` counts written rows of some kind. ``measures`` are inputs of the table's quality gate.
    """

    read: int
    written: int
    refused: int = 0
    duplicates: int = 0
    outside: int = 0
    not_sampled: int = 0
    erased: int = 0
    nulled: int = 0
    files_skipped: int = 0
    of_written: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    measures: Mapping[str, float] = field(default_factory=dict)

    def check(self) -> None:
        """Raise RowCountError unless every row is accounted for."""
        names = ("refused", "duplicates", "outside", "not_sampled", "erased")
        others = {name: getattr(self, name) for name in names}
        if self.read != self.written + sum(others.values()) or min(others.values()) < 0:
            counts = " + ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in others.items())
            raise RowCountError(f"exposures: {self.read:,} rows were read, but {self.written:,} written + {counts}")


def write_exposures(context: StageContext, rows: DataFrame) -> int:
    """Replace the rows of the table with ``rows``, in one commit; returns their number by the table's own log.

    A table that an earlier version wrote gets the columns that it lacks first.
    """
    path = context.path("exposures")
    add_new_columns(path, contract("exposures"))
    delta.overwrite(rows, path, contract("exposures"))
    return Snapshot.open(path).rows


def without_erased(context: StageContext, rows: DataFrame) -> tuple[DataFrame, int]:
    """(``rows`` without those of erased users, their number); ``rows`` as they are where no user was ever erased."""
    erased = ErasedUsers.of(context.workspace)
    if erased is None:
        return rows, 0
    marked = erased.marked(rows)
    return marked.where("not _erased").select(*rows.columns), marked.where("_erased").count()
