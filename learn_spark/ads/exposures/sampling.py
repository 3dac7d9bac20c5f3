"""Unconverted exposures sampled by a hash of their ids, so that the sample is the same in every run and order."""

from __future__ import annotations

from math import sqrt
from typing import TYPE_CHECKING

from learn_spark.core.errors import RowCountError

if TYPE_CHECKING:
    from pyspark.sql import Column


def is_kept(event_id: Column, rate: float, seed: int) -> Column:
    """Whether an unconverted exposure is among the share ``rate`` that is kept; its weight is then 1 / ``rate``.

    The upper 53 bits of xxhash64 over the id and ``seed``, as a number in [0, 1), are below ``rate``: what is kept at
    one rate is kept at every higher one, and another seed draws another sample.
    """
    from pyspark.sql import functions as F

    hashed = F.xxhash64(event_id, F.lit(seed).cast("bigint"))
    return F.shiftrightunsigned(hashed, 11) * F.lit(2.0**-53) < F.lit(rate)


def check_weights(kind: str, weights: float, population: int, unconverted: int, rate: float) -> None:
    """RowCountError where the ``weights`` of the sampled rows are no longer those of the ``population``: further
    away than six standard deviations of the sampling of ``unconverted`` exposures at ``rate`` (Horvitz-Thompson).
    """
    reach = 6 * sqrt(unconverted * (1 - rate) / rate) + 10 * (1 - rate) / rate
    # Sums of floating-point weights such as 1 / 0.3 are not whole.
    if abs(weights - population) > reach + 1e-6 * population:
        raise RowCountError(
            f"exposures: by their weights the rows of {kind} stand for {weights:,.0f} exposures, but there were "
            f"{population:,}; sampling at a rate of {rate:g} explains {reach:,.0f} more or less"
        )
