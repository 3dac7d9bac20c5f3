"""Which row of its embedding table a field's value has: looked up among those of the training exposures, or hashed."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from learn_spark.ads.rankers.exposures import Coded

UNKNOWN, NULL, FIRST = 0, 1, 2


@dataclass(frozen=True)
class Lookup:
    """``known`` value -> row, from FIRST on. All other values have the row UNKNOWN, null has NULL."""

    known: Mapping[str, int]

    @staticmethod
    def of(train: Coded, min_count: int) -> Lookup:
        """The values that at least ``min_count`` of the training exposures have, in the order of the values.

        Rarer values are what UNKNOWN learns from, so that a value which comes later reads something trained.
        """
        counts = np.bincount(train.codes[train.codes >= 0], minlength=len(train.values))
        kept = sorted(train.values[counts >= min_count].tolist())
        return Lookup({value: row for row, value in enumerate(kept, FIRST)})

    @property
    def size(self) -> int:
        """Rows of the embedding table."""
        return FIRST + len(self.known)

    def rows(self, field: Coded) -> np.ndarray:
        """The row of each exposure [n] int32."""
        of_value = [self.known.get(value, UNKNOWN) for value in field.values]
        return np.array([*of_value, NULL], dtype=np.int32)[field.codes]


@dataclass(frozen=True)
class Hashed:
    """CRC-32 of a value modulo ``buckets``, from FIRST on; a value that was not in training shares some bucket."""

    buckets: int

    @property
    def size(self) -> int:
        """Rows of the embedding table."""
        return FIRST + self.buckets

    def rows(self, field: Coded) -> np.ndarray:
        """The row of each exposure [n] int32."""
        of_value = [FIRST + zlib.crc32(str(value).encode()) % self.buckets for value in field.values]
        return np.array([*of_value, NULL], dtype=np.int32)[field.codes]


Vocabulary = Lookup | Hashed


def to_arrow(vocabularies: Mapping[str, Vocabulary]) -> pa.Table:
    """The looked up ones as (field, value, row)."""
    rows = [
        (field, value, row)
        for field, vocabulary in vocabularies.items()
        if isinstance(vocabulary, Lookup)
        for value, row in vocabulary.known.items()
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
    """What ``to_arrow`` made a table of; ``buckets``: they were hashed."""
    if buckets is not None:
        return {field: Hashed(buckets) for field in fields}
    known: dict[str, dict[str, int]] = {field: {} for field in fields}
    columns = (table[name].to_pylist() for name in ("field", "value", "row"))
    for field, value, row in zip(*columns, strict=True):
        known[field][value] = row
    return {field: Lookup(values) for field, values in known.items()}
