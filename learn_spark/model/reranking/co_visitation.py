"""What followed what in histories, how far apart and which way round: sparse counts, and what they say of a user."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from learn_spark.core.ragged import check_ragged

SMOOTHING = 2.0
SCALE = 100.0
CHANNELS = ("next", "later", "before")
FEATURES = (*(f"{slot} {channel}" for channel in CHANNELS for slot in ("last", "older")), "seed", "item")


@dataclass(frozen=True)
class CoVisits:
    """The items that co-occur with what some users have: pairs of ``row`` [M], rising, and ``position`` [M], rising in
    a row, with ``features`` [M, len(FEATURES)] float32. All others have no evidence.

    "last next" and so on: log(1 + 100 r), r being how often the candidate stood next behind (later, before) the user's
    last item, for each other event of that item (and SMOOTHING more); "older" the same of the items before it, weighted
    by ``decay`` ^ how many events ago. "seed": log(1 + other events of the last item), "item": log(1 + events of the
    candidate).
    """

    row: np.ndarray
    position: np.ndarray
    features: np.ndarray


@dataclass(frozen=True)
class Transitions:
    """Counts of pairs of a history's events at most ``reach`` apart. ``channels`` [N, N] hold, for an earlier item i
    and a later item j: (i, j) for those next to each other; (i, j) for the others, each ``decay`` ^ (apart - 1); (j, i)
    for all of them, weighted likewise. ``counts`` [N] events of each item.

    Memory grows with the different pairs, at most ``reach`` an event.
    """

    channels: tuple[sparse.csr_matrix, ...]
    counts: np.ndarray
    reach: int
    decay: float

    @classmethod
    def of(cls, values: np.ndarray, offsets: np.ndarray, n_items: int, *, reach: int, decay: float) -> Transitions:
        """Of events ``values`` (positions 0..n_items-1), user u's being ``values[offsets[u] : offsets[u + 1]]``.

        Raises ValueError for positions outside, and offsets that do not cover the values.
        """
        check_ragged(values, offsets, n_items)
        items = values.astype(np.int32)
        user = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
        shape = (n_items, n_items)
        near, far, back = (sparse.csr_matrix(shape, dtype=np.float32) for _ in CHANNELS)
        for apart in range(1, reach + 1):
            pair = user[apart:] == user[:-apart]
            earlier, later = items[:-apart][pair], items[apart:][pair]
            weight = np.full(len(earlier), decay ** (apart - 1), dtype=np.float32)
            ahead = sparse.csr_matrix((weight, (earlier, later)), shape=shape)
            if apart == 1:
                near = ahead
            else:
                far = far + ahead
            back = back + ahead.T.tocsr()
        for matrix in (near, far, back):
            matrix.sort_indices()
        return cls((near, far, back), np.bincount(items, minlength=n_items), reach, decay)

    def candidates(self, items: np.ndarray, lengths: np.ndarray, fresh: np.ndarray | None = None) -> CoVisits:
        """What co-occurs with histories ``items`` [B, L] (positions; the last ``reach`` of each user's ``lengths`` [B]
        events count). Of these the newest ``fresh`` [B] are not among the events that were counted (None: all are).
        Users without an event have none.
        """
        users, n_items = len(items), len(self.counts)
        ago = np.arange(self.reach)
        real = ago < lengths[:, None]  # [B, reach]
        row, slot = np.nonzero(real)
        position = items[row, lengths[row] - 1 - slot].astype(np.int64)
        # The user's own event, where it was counted, has no successor to be counted with.
        own = np.ones(len(row), np.int64) if fresh is None else (slot >= fresh[row]).astype(np.int64)
        others = np.maximum(self.counts[position] - own, 0)
        rate = 1.0 / (others + SMOOTHING)
        last = np.where(slot == 0, rate, 0.0)
        older = np.where(slot > 0, rate * self.decay**slot, 0.0)
        parts = []
        for weight in (last, older):
            kept = weight > 0
            seeds = sparse.csr_matrix((weight[kept], (row[kept], position[kept])), shape=(users, n_items))
            parts.append([(seeds @ channel).tocsr() for channel in self.channels])
        found = [matrix for pair in zip(*parts, strict=True) for matrix in pair]  # in the order of FEATURES
        whole = sum(found[1:], found[0]).tocsr()
        whole.sort_indices()
        rows, places = np.repeat(np.arange(users), np.diff(whole.indptr)), whole.indices.astype(np.int64)
        keys = rows * np.int64(n_items) + places
        features = np.zeros((len(keys), len(FEATURES)), dtype=np.float32)
        for number, matrix in enumerate(found):
            matrix.sort_indices()
            own = np.repeat(np.arange(users), np.diff(matrix.indptr)) * np.int64(n_items) + matrix.indices
            features[np.searchsorted(keys, own), number] = matrix.data
        count = 2 * len(CHANNELS)
        features[:, :count] = np.log1p(SCALE * features[:, :count])
        seed = np.zeros(users)
        seed[row[slot == 0]] = others[slot == 0]
        features[:, count] = np.log1p(seed)[rows]
        features[:, count + 1] = np.log1p(self.counts[places])
        return CoVisits(rows, places, features)
