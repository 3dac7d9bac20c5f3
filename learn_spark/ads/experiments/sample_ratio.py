"""Did users arrive in the arms in the shares they were assigned in? (Fabijan et al. 2019: sample ratio mismatch)"""

from __future__ import annotations

from collections.abc import Mapping

from scipy import special


def sample_ratio_p(users: Mapping[str, int], shares: Mapping[str, float]) -> float:
    """p of Pearson's chi-squared test that the arms' ``users`` are in the ratio of ``shares`` (any scale).

    >>> round(sample_ratio_p({"control": 5000, "treatment": 5200}, {"control": 1, "treatment": 1}), 4)
    0.0477

    Raises ValueError where the two do not name the same arms, two at least, where nobody is in any arm, and where a
    number of users is negative.
    """
    total = sum(users.values())
    if set(users) != set(shares) or len(shares) < 2 or total < 1 or min(users.values()) < 0:
        raise ValueError(
            f"a sample ratio needs two arms with users and shares, got users {dict(users)} and shares {dict(shares)}"
        )
    all_shares = sum(shares.values())
    expected = {name: total * share / all_shares for name, share in shares.items()}
    statistic = sum((users[name] - count) ** 2 / count for name, count in expected.items())
    return float(special.chdtrc(len(shares) - 1, statistic))  # the upper tail of chi-squared
