"""Assignment of users to arms by a hash of user, experiment and salt, in Python and as a Spark column."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from itertools import accumulate
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyspark.sql import Column

EVEN = {"control": 0.5, "treatment": 0.5}
# Separates the hashed parts; names may not contain it, so that different questions have different hashes.
_BETWEEN = "\x1f"
_DIGITS = 13  # hex digits, 52 bits: a double holds them exactly, in Python as in the JVM


def arm(user: str, experiment: str, salt: str, arms: Mapping[str, float] = EVEN, *, traffic: float = 1.0) -> str | None:
    """The user's arm; None for a user outside the ``traffic`` (a share of all users) that takes part.

    ``arms`` are names with their shares of the traffic, which need not sum to 1. The arm is the same on every machine;
    the arms of two experiments, or two salts, are independent. Arm and traffic use different bits of the hash, so that
    raising ``traffic`` moves nobody from one arm to another.

    Raises ValueError for no arm, a share that is not above 0, a traffic outside (0, 1], and names with U+001F.
    """
    edges = _edges(experiment, salt, arms, traffic)
    digest = hashlib.sha256(_BETWEEN.join((salt, experiment, user)).encode()).hexdigest()
    place, admitted = (int(digest[at : at + _DIGITS], 16) / 16**_DIGITS for at in (0, _DIGITS))
    if admitted >= traffic:
        return None
    return next((name for name, edge in edges if place < edge), edges[-1][0])


def arm_column(
    user: str, experiment: str, salt: str, arms: Mapping[str, float] = EVEN, *, traffic: float = 1.0
) -> Column:
    """``arm`` of the column ``user`` (string), by Spark's own functions; null outside the traffic.

    Raises ValueError as ``arm``.
    """
    from pyspark.sql import functions as F

    edges = _edges(experiment, salt, arms, traffic)
    digest = F.sha2(F.concat(F.lit(_BETWEEN.join((salt, experiment, ""))), F.col(user)), 256)
    place, admitted = (
        F.conv(F.substring(digest, at + 1, _DIGITS), 16, 10).cast("bigint") / F.lit(16.0**_DIGITS)
        for at in (0, _DIGITS)
    )
    chosen = F.lit(edges[-1][0])
    for name, edge in reversed(edges[:-1]):
        chosen = F.when(place < F.lit(edge), F.lit(name)).otherwise(chosen)
    return F.when(admitted < F.lit(traffic), chosen)


def _edges(experiment: str, salt: str, arms: Mapping[str, float], traffic: float) -> list[tuple[str, float]]:
    """(arm, upper edge of its part of [0, 1)), after the checks."""
    if not arms or not all(share > 0 for share in arms.values()):
        raise ValueError(f"arms need names with shares above 0, got {dict(arms)}")
    if not 0 < traffic <= 1:
        raise ValueError(f"traffic is a share of all users in (0, 1], got {traffic}")
    if _BETWEEN in experiment or _BETWEEN in salt:
        raise ValueError("experiment and salt must not contain the character U+001F, which separates the hashed parts")
    whole = sum(arms.values())
    return list(zip(arms, accumulate(share / whole for share in arms.values()), strict=True))
