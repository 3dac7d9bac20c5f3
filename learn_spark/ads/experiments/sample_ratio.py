"""Did users arrive in the arms in the shares they were assigned in? (Fabijan et al. 2019: sample ratio mismatch)"""

from __future__ import annotations

import math
from collections.abc import Mapping


def sample_ratio_p(users: Mapping[str, int], shares: Mapping[str, float]) -> float:
    """p of Pearson's chi-squared test that the arms' ``users`` are in the ratio of ``shares``.

    Raises ValueError where the two do not name the same arms, two at least, or nobody is in any.
    """
    total = sum(users.values())
    if set(users) != set(shares) or len(shares) < 2 or total < 1:
        raise ValueError(f"a ratio needs two arms with users and shares, got users {users} and shares {shares}")
    whole = sum(shares.values())
    expected = {name: total * share / whole for name, share in shares.items()}
    statistic = sum((users[name] - count) ** 2 / count for name, count in expected.items())
    return chi_squared_tail(statistic, len(shares) - 1)


def chi_squared_tail(x: float, degrees: int) -> float:
    """P(X >= x) of the chi-squared distribution with whole degrees of freedom (Abramowitz and Stegun, 26.4.4-5)."""
    if x < 0 or degrees < 1:
        raise ValueError(f"chi-squared needs x >= 0 and degrees >= 1, got {x} and {degrees}")
    half = x / 2
    if degrees % 2:
        found = math.erfc(math.sqrt(half))
        terms = ((k - 0.5, math.lgamma(k + 0.5)) for k in range(1, (degrees - 1) // 2 + 1))
    else:
        found = 0.0
        terms = ((float(k), math.lgamma(k + 1)) for k in range(degrees // 2))
    for power, gamma in terms:
        found += math.exp(power * math.log(half) - half - gamma) if half > 0 else float(power == 0)
    return min(1.0, found)
