"""The embedding row of each value of a field: looked up among the training exposures' values, or hashed."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from learn_spark.ads.rankers.exposures import CodedColumn

UNKNOWN, NULL, FIRST = 0, 1, 2


@dataclass(frozen=True)
class Lookup:
    """``row_of`` maps a value to its row, from FIRST on. All other values have the row UNKNOWN, null has NULL."""

    row_of: Mapping[str, int]

    @staticmethod
    def of(train: CodedColumn, min_count: int) -> Lookup:
        """The values of at least ``min_count`` training exposures, in the order of the values.

        Rarer values train the row UNKNOWN, so that a new value reads a trained row.
        """
        counts = np.bincount(train.codes[train.codes >= 0], minlength=len(train.values))
        kept = sorted(train.values[counts >= min_count].tolist())
        return Lookup({value: row for row, value in enumerate(kept, FIRST)})

    @property
    def size(self) -> int:
        """Rows of the embedding table."""
        return FIRST + len(self.row_of)

    def rows(self, field: CodedColumn) -> np.ndarray:
        """The row of each exposure [n] int32."""
        of_value = [self.row_of.get(value, UNKNOWN) for value in field.values]
        return np.array([*of_value, NULL], dtype=np.int32)[field.codes]


@dataclass(frozen=True)
class Hashed:
    """CRC-32 of a value modulo ``buckets``, from FIRST on; a value that was not in training shares some bucket."""

    buckets: int

    @property
    def size(self) -> int:
        """Rows of the embedding table."""
        return FIRST + self.buckets

    def rows(self, field: CodedColumn) -> np.ndarray:
        """The row of each exposure [n] int32."""
        of_value = [FIRST + zlib.crc32(str(value).encode()) % self.buckets for value in field.values]
        return np.array([*of_value, NULL], dtype=np.int32)[field.codes]


Vocabulary = Lookup | Hashed


def to_arrow(vocabularies: Mapping[str, Vocabulary]) -> pa.Table:
    """All Lookup vocabularies as a table of (field, value, row)."""
    rows = [
        (field, value, row)
        for field, vocabulary in vocabularies.items()
        if isinstance(vocabulary, Lookup)
        for value, row in vocabulary.row_of.items()
    ]
    fields, values, numbers = zip(*rows, strict=True) if rows else ((), (), ())
    return pa.table(
        {
            "field": pa.array(fields, pa.string()),
            "value": pa.array(values, pa.string()),
            "row": pa.array(numbers, pa.int32()),
        }
    )


def of_arrow(table: pa.Table, fields: list[str], buckets: int | None) -> dict[str, Vocabulary]:
    """The inverse of ``to_arrow``; with ``buckets`` every field is Hashed."""
    if buckets is not None:
        return {field: Hashed(buckets) for field in fields}
    rows_of: dict[str, dict[str, int]] = {field: {} for field in fields}
    columns = (table[name].to_pylist() for name in ("field", "value", "row"))
    for field, value, row in zip(*columns, strict=True):
        rows_of[field][value] = row
    return {field: Lookup(values) for field, values in rows_of.items()}
