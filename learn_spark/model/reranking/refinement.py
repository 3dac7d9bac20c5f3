"""The second head of the reranker: it orders each user's best items anew, by inputs too costly for a whole catalogue.

A cascade: the first head scores every item, and the second one reads more about the best of them. None of the inputs
tells when an event was: under leave-last-out training events of other users may be later than a target.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from scipy import sparse
from torch import Tensor, nn

from learn_spark.core.ragged import owners_of, take_rows
from learn_spark.model.reranking.co_visitation import SCALE, SMOOTHING, Transitions
from learn_spark.model.scoring.queries import QueryBatch

# "user events" are those of the query, at most Transitions.reach of them.
FEATURES = (
    "score",
    "logit",
    "last content",
    "nearest content",
    "mean content",
    "last one step",
    "mean one step",
    "last two steps",
    "mean two steps",
    "user popularity",
    "user events",
    "item events",
)
BLOCK_PAIRS = 1 << 21  # pairs, or users x items where these are more, in a block of the steps through the co-visits


class RefiningHead(nn.Module):
    """score(user, item) = s + f(features), for the ``items`` best items of each user by the first head's score s.

    f is a perceptron of two hidden layers, ``hidden`` wide, over the FEATURES, less their ``mean`` and divided by their
    ``scale`` [F]. Initially f is 0.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, *, hidden: int, items: int) -> None:
        super().__init__()
        self.hidden, self.items = hidden, items
        self.register_buffer("mean", torch.zeros(len(FEATURES)))
        self.register_buffer("scale", torch.ones(len(FEATURES)))
        self.correction = nn.Sequential(
            nn.Linear(len(FEATURES), hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 1)
        )
        last = self.correction[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self, features: Tensor) -> Tensor:
        """Scores [...] of ``features`` [..., F]."""
        return features[..., 0] + self.correction((features - self.mean) / self.scale).squeeze(-1)


@dataclass(frozen=True)
class BestItems:
    """The best items of some users by ``scores`` [B, N]: ``positions`` [B, K], ``features`` [B, K, F], and whether each
    is ``ranked`` [B, K]: a user with few items that are not hidden has others at the end.
    """

    scores: Tensor
    positions: Tensor
    features: Tensor
    ranked: Tensor

    def refined(self, head: RefiningHead) -> Tensor:
        """``scores`` [B, N] with these items ordered by ``head``, all of them before the others, as they were."""
        first = self.features[..., 0]
        refined = head(self.features)
        infinity = torch.tensor(torch.inf)
        lowest, lowest_first = (
            torch.where(self.ranked, values, infinity).amin(dim=1, keepdim=True) for values in (refined, first)
        )
        refined = torch.where(self.ranked, refined - lowest + lowest_first, first)
        return self.scores.scatter(1, self.positions, refined)


def best_items(
    scores: Tensor,
    logits: Tensor,
    queries: QueryBatch,
    transitions: Transitions,
    content: Tensor | None,
    *,
    items: int,
    lowest: float,
) -> BestItems:
    """The ``items`` best of each user by ``scores`` [B, N], which is ``lowest`` or less for those that are not ranked.

    ``logits`` [B, N] are log-probabilities by the vectors, ``content`` [N, C] unit vectors, None without content. The
    last ``transitions.reach`` events of a user are read, each weighed by ``transitions.decay`` ^ (later events).
    """
    first, positions = scores.topk(min(items, scores.shape[1]), dim=1)
    events, weights = _last_events(queries, transitions.reach, transitions.decay)
    places = positions.numpy()
    content_cosines = _cosines(events, weights > 0, positions, content)
    steps = _steps(events, weights, places, transitions)
    log_counts = np.log1p(transitions.counts)
    by_user = np.stack([(weights * log_counts[events]).sum(axis=1), np.log1p(queries.lengths)], axis=1)
    features = [
        first,
        logits.gather(1, positions),
        content_cosines[:, 0],
        content_cosines.amax(dim=1),
        (content_cosines * torch.from_numpy(weights).float().unsqueeze(2)).sum(dim=1),
        *(torch.from_numpy(values) for values in steps),
        *torch.from_numpy(by_user).float().T.unsqueeze(2).expand(-1, -1, first.shape[1]),
        torch.from_numpy(log_counts[places]).float(),
    ]
    return BestItems(scores, positions, torch.stack(features, dim=2), first > lowest)


def _last_events(queries: QueryBatch, reach: int, decay: float) -> tuple[np.ndarray, np.ndarray]:
    """(positions of each user's last events [B, reach], newest first; their weights, which sum to 1, or 0 where there
    are no events).
    """
    ages = np.arange(reach)
    inside = ages < queries.lengths[:, None]
    events = np.take_along_axis(queries.items, np.maximum(queries.lengths[:, None] - 1 - ages, 0), axis=1)
    weights = inside * decay**ages
    return np.where(inside, events, 0).astype(np.int64), weights / np.maximum(weights.sum(axis=1, keepdims=True), 1e-9)


def _cosines(events: np.ndarray, inside: np.ndarray, positions: Tensor, content: Tensor | None) -> Tensor:
    """Cosines [B, reach, K] of the content of each user's events with that of ``positions``; 0 where there is none."""
    if content is None:
        return torch.zeros(len(events), events.shape[1], positions.shape[1])
    cosines = content[torch.from_numpy(events)] @ content[positions].transpose(1, 2)
    return cosines * torch.from_numpy(inside).unsqueeze(2)


def _steps(
    events: np.ndarray, weights: np.ndarray, places: np.ndarray, transitions: Transitions
) -> tuple[np.ndarray, ...]:
    """log(1 + 100 r) [B, K] of one and of two steps through the co-visits, from the last event and from the weighed
    mean of all: (one from the last, one from the mean, two from the last, two from the mean).

    A step goes from an item to its co-visits in any order, each by its count per event of the item plus SMOOTHING.
    """
    users, n_items, pairs = len(events), len(transitions.counts), transitions.pairs
    rates = (1.0 / (transitions.counts + SMOOTHING)).astype(np.float32)
    results = tuple(np.zeros(places.shape, np.float32) for _ in range(4))
    # A popular item has pairs with most of a small catalogue.
    sizes = np.maximum(np.diff(pairs.indptr)[places].sum(axis=1, dtype=np.int64), n_items)
    starts = np.flatnonzero(np.diff(np.cumsum(sizes) // BLOCK_PAIRS, prepend=-1))
    for start, stop in pairwise([*starts.tolist(), users]):
        rows = slice(start, stop)
        begins = np.stack([np.eye(1, events.shape[1]) * (weights[rows] > 0), weights[rows]]) * rates[events[rows]]
        one = np.stack([(_matrix(begin, events[rows], n_items) @ pairs).toarray() for begin in begins])
        # Of the second step only the asked items are computed, each from its own pairs: the counts are symmetric.
        two = _products(one * rates, pairs, places[rows])
        for number in range(len(begins)):
            results[number][rows] = np.log1p(SCALE * np.take_along_axis(one[number], places[rows], axis=1))
            results[number + 2][rows] = np.log1p(SCALE * two[number])
    return results


def _matrix(weights: np.ndarray, events: np.ndarray, n_items: int) -> sparse.csr_matrix:
    """The ``weights`` [B, reach] of each user's ``events`` as rows [B, n_items]."""
    row, slot = np.nonzero(weights)
    values = weights[row, slot].astype(np.float32)
    return sparse.csr_matrix((values, (row, events[row, slot])), shape=(len(weights), n_items))


def _products(vectors: np.ndarray, pairs: sparse.csr_matrix, places: np.ndarray) -> np.ndarray:
    """The inner products [V, B, K] of ``vectors`` [V, B, N] with the rows ``places`` [B, K] of ``pairs``."""
    taken, offsets = take_rows(pairs.indptr, places.ravel())
    asked, columns, counts = owners_of(offsets), pairs.indices[taken], pairs.data[taken]
    users = asked // places.shape[1]
    sums = [np.bincount(asked, weights=one[users, columns] * counts, minlength=places.size) for one in vectors]
    return np.stack(sums).reshape(len(vectors), *places.shape)
