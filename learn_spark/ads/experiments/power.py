"""What the sample could have found. Of a true effect one cares for, never of the effect that was observed.

(Power at the observed effect is p in other words: Hoenig and Heisey 2001.)
"""

from __future__ import annotations

import math
from statistics import NormalDist

_NORMAL = NormalDist()


def power(effect: float, error: float, alpha: float) -> float:
    """The chance that a two-sided test at ``alpha`` finds a true ``effect`` measured with a standard ``error``."""
    if error <= 0:
        return 1.0 if effect else alpha
    reach, shift = _NORMAL.inv_cdf(1 - alpha / 2), abs(effect) / error
    return _NORMAL.cdf(shift - reach) + _NORMAL.cdf(-shift - reach)


def detectable(error: float, alpha: float, wanted: float) -> float:
    """The smallest true effect that is found with the chance ``wanted`` (above ``alpha``), to 1e-9 of ``error``.

    Raises ValueError where ``wanted`` is not between ``alpha`` and 1.
    """
    if not alpha < wanted < 1:
        raise ValueError(f"the power wanted lies between alpha {alpha} and 1, got {wanted}")
    low, high = 0.0, _NORMAL.inv_cdf(1 - alpha / 2) + _NORMAL.inv_cdf(max(wanted, 0.5)) + 1.0
    while high - low > 1e-9:
        middle = (low + high) / 2
        low, high = (middle, high) if power(middle, 1.0, alpha) < wanted else (low, middle)
    return high * error


def users_needed(users: int, error: float, effect: float, alpha: float, wanted: float) -> int:
    """How many users, in the same arms' ratio, find a true ``effect`` with the chance ``wanted``.

    ``error`` is what ``users`` gave. Raises ValueError for an effect of 0, and as ``detectable``.
    """
    if effect == 0:
        raise ValueError("no number of users finds an effect of 0")
    return math.ceil(users * (detectable(error, alpha, wanted) / effect) ** 2)
