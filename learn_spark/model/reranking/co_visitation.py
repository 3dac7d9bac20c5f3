"""Co-visitation in histories: sparse counts of item pairs by distance and direction, and features of candidates."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import sparse

from learn_spark.core.ragged import check_ragged

SMOOTHING = 2.0
SCALE = 100.0
PART_EVENTS = 1 << 22
CHANNELS = ("next", "later", "before")
FEATURES = (*(f"{slot} {channel}" for channel in CHANNELS for slot in ("last", "older")), "seed", "item")


@dataclass(frozen=True)
class CoVisits:
    """The items that co-occur with users' histories, as candidates for reranking.

    ``row`` [M] (increasing) and ``position`` [M] (increasing within a row) are pairs of user and item; ``features``
    [M, len(FEATURES)] float32. All other pairs have no co-visits.

    "last next" is log(1 + 100 r), where r is how often the candidate came directly after the user's last item, per
    other event of that item plus SMOOTHING; "last later" and "last before" likewise. "older next" and so on are the
    same for the user's earlier items, weighted by ``decay`` ^ (number of events ago). "seed" is log(1 + other events of
    the last item), "item" is log(1 + events of the candidate).
    """

    row: np.ndarray
    position: np.ndarray
    features: np.ndarray


@dataclass(frozen=True)
class Transitions:
    """Counts of pairs of a history's events at most ``reach`` apart.

    ``channels`` are three sparse matrices [N, N]. For an earlier item i and a later item j they have: (i, j) for
    adjacent events; (i, j) for the other pairs, each ``decay`` ^ (distance - 1); (j, i) for all pairs with the same
    weights. ``counts`` [N] are the events of each item. Memory grows with the distinct pairs, at most ``reach`` per
    event.
    """

    channels: tuple[sparse.csr_matrix, ...]
    counts: np.ndarray
    reach: int
    decay: float

    @classmethod
    def of(cls, values: np.ndarray, offsets: np.ndarray, n_items: int, *, reach: int, decay: float) -> Transitions:
        """Count events ``values`` (positions 0..n_items-1); user u has ``values[offsets[u] : offsets[u + 1]]``.

        Raises ValueError for positions outside the catalogue, and offsets that do not cover the values.
        """
        return cls.of_parts([(values, offsets)], n_items, reach=reach, decay=decay)

    @classmethod
    def of_parts(
        cls, parts: Iterable[tuple[np.ndarray, np.ndarray]], n_items: int, *, reach: int, decay: float
    ) -> Transitions:
        """Count the events of all ``parts`` (values, offsets), each with other users, together.

        Besides the counts, about PART_EVENTS events are in memory at a time. Raises ValueError as ``of``.
        """
        channels = [sparse.csr_matrix((n_items, n_items), dtype=np.float32) for _ in CHANNELS]
        counts = np.zeros(n_items, np.int64)
        for values, offsets in _joined(parts):
            check_ragged(values, offsets, n_items)
            counts += np.bincount(values, minlength=n_items)
            for number, added in enumerate(_pairs(values.astype(np.int32), offsets, n_items, reach, decay)):
                channels[number] = channels[number] + added
        for matrix in channels:
            matrix.sort_indices()
        return cls(tuple(channels), counts, reach, decay)

    @cached_property
    def pairs(self) -> sparse.csr_matrix:
        """The counts of all channels together [N, N], which are symmetric."""
        near, later, before = self.channels
        return (near + later + before).tocsr()

    def candidates(self, items: np.ndarray, lengths: np.ndarray, fresh: np.ndarray | None = None) -> CoVisits:
        """The items that co-occur with histories ``items`` [B, L] (positions), with their features.

        The last ``reach`` of each user's ``lengths`` [B] events count. The newest ``fresh`` [B] of them are not among
        the counted events (None: all are counted). Users without events have no candidates.
        """
        users, n_items = len(items), len(self.counts)
        ages = np.arange(self.reach)
        is_event = ages < lengths[:, None]  # [B, reach]
        row, slot = np.nonzero(is_event)
        position = items[row, lengths[row] - 1 - slot].astype(np.int64)
        # The user's event itself, where it was counted, has no successor that could count.
        counted = np.ones(len(row), np.int64) if fresh is None else (slot >= fresh[row]).astype(np.int64)
        others = np.maximum(self.counts[position] - counted, 0)
        rate = 1.0 / (others + SMOOTHING)
        last = np.where(slot == 0, rate, 0.0)
        older = np.where(slot > 0, rate * self.decay**slot, 0.0)
        parts = []
        for weight in (last, older):
            kept = weight > 0
            seeds = sparse.csr_matrix((weight[kept], (row[kept], position[kept])), shape=(users, n_items))
            parts.append([(seeds @ channel).tocsr() for channel in self.channels])
        matrices = [matrix for pair in zip(*parts, strict=True) for matrix in pair]  # in the order of FEATURES
        union = sum(matrices[1:], matrices[0]).tocsr()
        union.sort_indices()
        rows, candidates = np.repeat(np.arange(users), np.diff(union.indptr)), union.indices.astype(np.int64)
        keys = rows * np.int64(n_items) + candidates
        features = np.zeros((len(keys), len(FEATURES)), dtype=np.float32)
        for number, matrix in enumerate(matrices):
            matrix.sort_indices()
            matrix_keys = np.repeat(np.arange(users), np.diff(matrix.indptr)) * np.int64(n_items) + matrix.indices
            features[np.searchsorted(keys, matrix_keys), number] = matrix.data
        count = 2 * len(CHANNELS)
        features[:, :count] = np.log1p(SCALE * features[:, :count])
        seed = np.zeros(users)
        seed[row[slot == 0]] = others[slot == 0]
        features[:, count] = np.log1p(seed)[rows]
        features[:, count + 1] = np.log1p(self.counts[candidates])
        return CoVisits(rows, candidates, features)


def _pairs(items: np.ndarray, offsets: np.ndarray, n_items: int, reach: int, decay: float) -> list[sparse.csr_matrix]:
    """The channels of the events ``items`` alone."""
    user = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    shape = (n_items, n_items)
    near, far, back = (sparse.csr_matrix(shape, dtype=np.float32) for _ in CHANNELS)
    for distance in range(1, reach + 1):
        same_user = user[distance:] == user[:-distance]
        earlier, later = items[:-distance][same_user], items[distance:][same_user]
        weight = np.full(len(earlier), decay ** (distance - 1), dtype=np.float32)
        ahead = sparse.csr_matrix((weight, (earlier, later)), shape=shape)
        if distance == 1:
            near = ahead
        else:
            far = far + ahead
        back = back + ahead.T.tocsr()
    return [near, far, back]


def _joined(parts: Iterable[tuple[np.ndarray, np.ndarray]]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """``parts`` joined to at least PART_EVENTS events each, because a sum of sparse matrices copies them whole."""
    waiting: list[tuple[np.ndarray, np.ndarray]] = []
    for part in parts:
        waiting.append(part)
        if sum(len(values) for values, _ in waiting) >= PART_EVENTS:
            yield _join(waiting)
            waiting = []
    if waiting:
        yield _join(waiting)


def _join(parts: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    sizes = [np.diff(offsets) for _, offsets in parts]
    return np.concatenate([values for values, _ in parts]), np.concatenate([[0], np.cumsum(np.concatenate(sizes))])
