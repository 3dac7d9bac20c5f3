"""The power of a sample to detect a true effect of a given size, never of the effect that was observed.

(Power at the observed effect is p in other words: Hoenig and Heisey 2001.)
"""

from __future__ import annotations

import math

from scipy import special


def power(effect: float, error: float, alpha: float) -> float:
    """The chance that a two-sided z test at ``alpha`` rejects, given a true ``effect`` and its standard ``error``.

    >>> round(power(2.8, 1.0, 0.05), 3)
    0.8
    """
    if error <= 0:
        return 1.0 if effect else alpha
    critical, shift = special.ndtri(1 - alpha / 2), abs(effect) / error
    return float(special.ndtr(shift - critical) + special.ndtr(-shift - critical))


def detectable(error: float, alpha: float, target_power: float) -> float:
    """The smallest true effect that is detected with ``target_power`` (above ``alpha``), to 1e-9 of ``error``.

    >>> round(detectable(1.0, 0.05, 0.8), 3)
    2.802

    Raises ValueError where ``target_power`` is not between ``alpha`` and 1.
    """
    from scipy.optimize import brentq

    if not alpha < target_power < 1:
        raise ValueError(f"target_power must lie between alpha {alpha} and 1, got {target_power}")
    # The one-tailed formula bounds the root: the far tail only adds power.
    largest = special.ndtri(1 - alpha / 2) + special.ndtri(max(target_power, 0.5)) + 1.0
    in_errors = brentq(lambda effect: power(effect, 1.0, alpha) - target_power, 0.0, largest, xtol=1e-9)
    return float(in_errors) * error


def users_needed(users: int, error: float, effect: float, alpha: float, target_power: float) -> int:
    """How many users, in the same ratio of arms, detect a true ``effect`` with ``target_power``.

    ``error`` is the standard error that ``users`` gave. Raises ValueError for an effect of 0, and as ``detectable``.

    >>> users_needed(1000, 1.0, 1.4, 0.05, 0.8)
    4005
    """
    if effect == 0:
        raise ValueError("no number of users detects an effect of 0")
    return math.ceil(users * (detectable(error, alpha, target_power) / effect) ** 2)
