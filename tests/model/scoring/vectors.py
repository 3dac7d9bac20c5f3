"""Users and items to rank: random, and of the kinds where ties and rounding matter."""

from __future__ import annotations

import numpy as np

NOTHING = np.zeros(0, dtype=np.int64)


def make_vectors(kind: str, users: int, items: int, width: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Float32 users [users, width] and items [items, width]."""
    generator = np.random.default_rng(seed)
    u: np.ndarray
    v: np.ndarray
    if kind == "integer":  # few scores, exact in float32: most items tie
        u = generator.integers(-2, 3, size=(users, width))
        v = generator.integers(-2, 3, size=(items, width))
    elif kind == "constant":
        u, v = generator.normal(size=(users, width)), np.ones((items, width))
    else:
        u, v = generator.normal(size=(users, width)), generator.normal(size=(items, width))
        if "duplicated" in kind:  # every vector stands about four times in the catalogue
            v = v[generator.integers(0, max(1, items // 4), size=items)]
        if "large" in kind:  # rounding in float32 is beyond the tolerance of ties
            u, v = u * 100, v * 100
    return u.astype(np.float32), v.astype(np.float32)
