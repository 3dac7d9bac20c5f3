"""Unconverted exposures sampled by a hash of their ids, so that the sample is the same in every run and order."""

from __future__ import annotations

from math import sqrt
from typing import TYPE_CHECKING

from learn_spark.core.errors import RowCountError

if TYPE_CHECKING:
    from pyspark.sql import Column


def is_kept(event_id: Column, rate: float, seed: int) -> Column:
    """Whether an unconverted exposure is in the sample of share ``rate``; its weight is then 1 / ``rate``.

    The upper 53 bits of xxhash64 over the id and ``seed``, as a number in [0, 1), are below ``rate``: a sample contains
    every sample of a lower rate, and another seed draws another sample.
    """
    from pyspark.sql import functions as F

    hashed = F.xxhash64(event_id, F.lit(seed).cast("bigint"))
    return F.shiftrightunsigned(hashed, 11) * F.lit(2.0**-53) < F.lit(rate)


def check_weights(kind: str, weights: float, population: int, unconverted: int, rate: float) -> None:
    """Raise RowCountError if the sum of ``weights`` is too far from ``population``.

    Too far is beyond six standard deviations of sampling ``unconverted`` exposures at ``rate`` (Horvitz-Thompson).
    """
    tolerance = 6 * sqrt(unconverted * (1 - rate) / rate) + 10 * (1 - rate) / rate
    # Sums of floating-point weights such as 1 / 0.3 are not whole.
    if abs(weights - population) > tolerance + 1e-6 * population:
        raise RowCountError(
            f"exposures: the weights of the rows of {kind} add up to {weights:,.0f} exposures, but there were "
            f"{population:,}; sampling at a rate of {rate:g} explains a difference of {tolerance:,.0f}"
        )
