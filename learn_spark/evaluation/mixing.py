"""Random numbers as a function of user and number alone: the same in every order, batch and process."""

from __future__ import annotations

import numpy as np

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def mixed(seeds: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """64 well mixed bits, uint64 [m, n], for each of ``seeds`` uint64 [n] and ``numbers`` uint64 [m].

    SplitMix64 (Steele, Lea and Flood 2014): number k of a seed is the k-th of its stream.
    """
    with np.errstate(over="ignore"):
        z = seeds[None, :] + (numbers[:, None] + np.uint64(1)) * _GOLDEN
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def seeded(seeds: np.ndarray, seed: int) -> np.ndarray:
    """Users' ``seeds`` uint64 [n] under another seed: other streams."""
    key = np.array([seed % (1 << 64)], np.uint64)
    return seeds ^ mixed(key, np.zeros(1, np.uint64))[0, 0]
