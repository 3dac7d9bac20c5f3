"""The rank of a target in the whole catalogue, and the top of the catalogue, exactly and with a stated tie rule.

Rank = 1 + (unseen items that score higher) + 0.5 * (other unseen items that score the same), where scores within
TIE_TOLERANCE of the target's are the same. Seen items do not count; the target always does. Items are positions
0..N-1.
"""

from __future__ import annotations

from collections.abc import Sequence

import faiss
import numpy as np

TIE_TOLERANCE = 1e-6
MARGIN = 16
GROWTH = 4
EXACT_VALUES = 1 << 22  # products held at once when scores are computed again in float64


def ranks_from_scores(scores: np.ndarray, targets: np.ndarray, seen: Sequence[np.ndarray]) -> np.ndarray:
    """Ranks [B] float64 of ``targets`` [B] by dense ``scores`` [B, N]; ``seen[i]`` positions that user i had before.

    Raises ValueError for shapes that do not fit, positions outside 0..N-1 and scores that are not finite.
    """
    if scores.ndim != 2:
        raise ValueError(f"expected scores [B, N], got {scores.shape}")
    if not np.isfinite(scores).all():
        raise ValueError(f"{int((~np.isfinite(scores)).sum())} of {scores.size} scores are not finite")
    users, items = scores.shape
    _check_positions(users, items, targets, seen)
    rows = np.arange(users)
    counted = np.ones(scores.shape, dtype=bool)
    counted[np.repeat(rows, [len(s) for s in seen]), _joined(seen)] = False
    counted[rows, targets] = False  # the target is not one of the others
    above = scores.astype(np.float64) - scores[rows, targets].astype(np.float64)[:, None]  # [B, N]
    higher = (counted & (above > TIE_TOLERANCE)).sum(axis=1)
    same = (counted & (np.abs(above) <= TIE_TOLERANCE)).sum(axis=1)
    return 1.0 + higher + 0.5 * same


def ranks_from_vectors(
    users: np.ndarray,
    items: np.ndarray,
    targets: np.ndarray,
    seen: Sequence[np.ndarray],
    *,
    depth: int,
    batch: int = 1024,
) -> np.ndarray:
    """Ranks [B] float64 of ``targets`` [B] by the inner products of ``users`` [B, D] and ``items`` [N, D].

    The rank of ``ranks_from_scores`` where it is at most ``depth``, else inf, without a [B, N] matrix. Vectors are
    taken as float32; scores that are close to the target's are computed again in float64, so that rounding in the
    search decides nothing. A search too short to decide is made longer until it does.

    Raises ValueError for shapes that do not fit, positions outside 0..N-1, vectors not finite, depth or batch < 1.
    """
    if depth < 1 or batch < 1:
        raise ValueError(f"depth {depth} and batch {batch} must be at least 1")
    catalogue = _Catalogue(users, items)
    _check_positions(len(users), len(items), targets, seen)
    lengths = np.array([len(s) for s in seen], dtype=np.int64)
    found = np.full(len(users), np.inf)
    # Users with like many seen items together: one long history does not make the search of all the others long.
    order = np.argsort(lengths, kind="stable")
    for start in range(0, len(order), batch):
        rows = order[start : start + batch]
        size = min(len(items), depth + int(lengths[rows].max()) + MARGIN)
        while len(rows):
            ranks, decided = _try_ranks(catalogue, rows, targets[rows], [seen[i] for i in rows], size)
            decided |= ranks > depth  # what the list does not hold can only make a rank worse
            found[rows[decided]] = np.where(ranks[decided] <= depth, ranks[decided], np.inf)
            rows = rows[~decided]
            size = min(len(items), GROWTH * size)
    return found


def top_k(
    users: np.ndarray, items: np.ndarray, k: int, seen: Sequence[np.ndarray], *, batch: int = 1024
) -> tuple[np.ndarray, np.ndarray]:
    """The k unseen items with the largest inner products: scores [B, k] float32 and positions [B, k] int64.

    Ordered by score (computed in float64), largest first, then by position. Where a user has fewer than k unseen
    items the rest are -inf and -1. Raises ValueError for shapes that do not fit, positions outside 0..N-1, vectors
    not finite, k or batch < 1.
    """
    if k < 1 or batch < 1:
        raise ValueError(f"k {k} and batch {batch} must be at least 1")
    catalogue = _Catalogue(users, items)
    _check_positions(len(users), len(items), None, seen)
    lengths = np.array([len(s) for s in seen], dtype=np.int64)
    scores = np.full((len(users), k), -np.inf, dtype=np.float32)
    positions = np.full((len(users), k), -1, dtype=np.int64)
    order = np.argsort(lengths, kind="stable")
    for start in range(0, len(order), batch):
        rows = order[start : start + batch]
        size = min(len(items), k + int(lengths[rows].max()) + MARGIN)
        while len(rows):
            coarse, listed = catalogue.search(rows, size)
            exact = catalogue.exact(np.repeat(rows, size), listed.reshape(-1)).reshape(listed.shape)
            exact[_is_seen(listed, [seen[i] for i in rows], len(items))] = -np.inf
            best = np.lexsort((listed, -exact), axis=1)[:, :k]
            exact, listed = np.take_along_axis(exact, best, axis=1), np.take_along_axis(listed, best, axis=1)
            if size == len(items):
                decided = np.ones(len(rows), dtype=bool)
            else:
                decided = coarse[:, -1] + catalogue.slack(rows) < exact[:, -1]
            done, width = rows[decided], exact.shape[1]
            scores[done, :width] = exact[decided]
            positions[done, :width] = np.where(np.isfinite(exact[decided]), listed[decided], -1)
            rows = rows[~decided]
            size = min(len(items), GROWTH * size)
    return scores, positions


class _Catalogue:
    """Users and items as float32, a flat index over the items, and exact scores of chosen pairs."""

    def __init__(self, users: np.ndarray, items: np.ndarray) -> None:
        if users.ndim != 2 or items.ndim != 2 or users.shape[1] != items.shape[1] or not len(items):
            raise ValueError(f"expected users [B, D] and items [N >= 1, D], got {users.shape} and {items.shape}")
        for name, vectors in {"users": users, "items": items}.items():
            if not np.isfinite(vectors).all():
                raise ValueError(f"{int((~np.isfinite(vectors)).sum())} of {vectors.size} values of {name} not finite")
        self.users = np.ascontiguousarray(users, dtype=np.float32)
        self.items = np.ascontiguousarray(items, dtype=np.float32)
        self.index = faiss.IndexFlatIP(self.items.shape[1])
        self.index.add(self.items)
        self.longest_item = float(np.linalg.norm(self.items, axis=1).max())

    def search(self, rows: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
        """Scores and positions [rows, size], both as the float32 search finds them, best first."""
        scores, positions = self.index.search(self.users[rows], size)
        return scores.astype(np.float64), positions

    def slack(self, rows: np.ndarray) -> np.ndarray:
        """How far a float32 score of each row can be from the exact one: D * 2u * |user| * |item|, twice the bound."""
        unit = float(np.finfo(np.float32).eps)  # 2u
        norms = np.linalg.norm(self.users[rows].astype(np.float64), axis=1)
        return (self.users.shape[1] + 1) * unit * norms * self.longest_item

    def exact(self, rows: np.ndarray, positions: np.ndarray) -> np.ndarray:
        """Float64 scores [P] of user rows [P] and item positions [P]; equal vectors score equal to the last bit."""
        scores = np.empty(len(rows))
        step = max(1, EXACT_VALUES // self.users.shape[1])
        for start in range(0, len(rows), step):
            part = slice(start, start + step)
            products = self.users[rows[part]].astype(np.float64) * self.items[positions[part]]
            scores[part] = products.sum(axis=1)
        return scores


def _try_ranks(
    catalogue: _Catalogue, rows: np.ndarray, targets: np.ndarray, seen: Sequence[np.ndarray], size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Ranks among the best ``size`` items, and whether every item that counts is surely among them."""
    coarse, listed = catalogue.search(rows, size)  # [rows, size]
    target = catalogue.exact(rows, targets)[:, None]  # [rows, 1]
    band = TIE_TOLERANCE + catalogue.slack(rows)[:, None]
    counted = ~_is_seen(listed, seen, len(catalogue.items)) & (listed != targets[:, None])
    above = coarse - target
    near_row, near_column = np.nonzero(counted & (np.abs(above) <= band))
    above[near_row, near_column] = catalogue.exact(rows[near_row], listed[near_row, near_column]) - target[near_row, 0]
    higher = (counted & (above > TIE_TOLERANCE)).sum(axis=1)
    same = (counted & (np.abs(above) <= TIE_TOLERANCE)).sum(axis=1)
    complete = (coarse[:, -1] < (target - band)[:, 0]) | (size == len(catalogue.items))
    return 1.0 + higher + 0.5 * same, complete


def _is_seen(listed: np.ndarray, seen: Sequence[np.ndarray], items: int) -> np.ndarray:
    """Whether each position of ``listed`` [B, K] is among its row's seen positions; [B, K]."""
    rows = np.arange(len(seen), dtype=np.int64)
    keys = np.sort(np.repeat(rows, [len(s) for s in seen]) * items + _joined(seen))
    if not len(keys):
        return np.zeros(listed.shape, dtype=bool)
    wanted = rows[:, None] * items + listed
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return keys[at] == wanted


def _joined(seen: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.zeros(0, np.int64), *(np.asarray(s, dtype=np.int64) for s in seen)])


def _check_positions(users: int, items: int, targets: np.ndarray | None, seen: Sequence[np.ndarray]) -> None:
    if len(seen) != users:
        raise ValueError(f"{users} users, but seen items of {len(seen)}")
    if targets is not None and targets.shape != (users,):
        raise ValueError(f"expected targets [{users}], got {targets.shape}")
    for name, positions in {"target": targets, "seen": _joined(seen)}.items():
        if positions is not None and len(positions) and (positions.min() < 0 or positions.max() >= items):
            raise ValueError(
                f"{name} positions {positions.min()}..{positions.max()} are outside the catalogue 0..{items - 1}"
            )
