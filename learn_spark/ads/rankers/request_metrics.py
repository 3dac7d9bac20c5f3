"""How a ranker orders the exposures that were shown together: AUC and NDCG within a request."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from learn_spark.ads.rankers.metrics import grouped_auc

PLACES = 10
REQUEST_METRICS = ("request AUC", f"request NDCG@{PLACES}")
NO_REQUEST = -1


class RequestMetrics:
    """REQUEST_METRICS of exposures that come whole requests at a time.

    Both are means over the requests that have exposures with and without a conversion. Within a request every exposure
    counts once, whatever its weight. Exposures without a request (NO_REQUEST) are left out.
    """

    def __init__(self) -> None:
        self._requests = 0
        self._auc = self._ndcg = 0.0

    def add(self, scores: np.ndarray, labels: np.ndarray, requests: np.ndarray) -> None:
        """The exposures [n] of whole requests, in any order."""
        kept = requests != NO_REQUEST
        names, places = np.unique(requests[kept], return_inverse=True)
        scores, positive = scores[kept], labels[kept] > 0
        aucs = grouped_auc(scores, positive, np.ones(len(scores)), places, len(names))
        both = np.isfinite(aucs)
        self._requests += int(both.sum())
        self._auc += float(aucs[both].sum())
        self._ndcg += float(ndcg_of(scores, positive, places, len(names))[both].sum())

    def values(self) -> dict[str, float]:
        """Each of REQUEST_METRICS; empty where no request has both outcomes."""
        if not self._requests:
            return {}
        means = (self._auc / self._requests, self._ndcg / self._requests)
        return dict(zip(REQUEST_METRICS, means, strict=True))


def ndcg_of(scores: np.ndarray, positive: np.ndarray, requests: np.ndarray, count: int) -> np.ndarray:
    """NDCG@PLACES [count] of each request 0..count-1 with binary gains; equal scores share the mean of their discounts.

    NaN for a request without a conversion.
    """
    order = np.lexsort((-scores, requests))
    scores, positive, requests = scores[order], positive[order].astype(np.float64), requests[order]
    sizes = np.bincount(requests, minlength=count)
    place = np.arange(len(scores)) - (np.cumsum(sizes) - sizes)[requests]
    discount = _discounts(place)
    tie = np.cumsum(np.append(True, (np.diff(requests) != 0) | (np.diff(scores) != 0))[: len(scores)]) - 1
    shared = np.bincount(tie, discount) / np.bincount(tie) if len(scores) else np.zeros(0)
    gained = np.bincount(requests, positive * shared[tie], count)
    most = int(sizes.max(initial=0))
    best = np.append(0.0, np.cumsum(_discounts(np.arange(most))))
    ideal = best[np.bincount(requests, positive, count).astype(np.int64)]
    return np.divide(gained, ideal, out=np.full(count, np.nan), where=ideal > 0)


def whole_requests(records: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """``records`` in ascending order of their field request, cut so that no request is in two parts."""
    rest: np.ndarray | None = None
    for part in records:
        joined = part if rest is None else np.concatenate([rest, part])
        last = int(np.searchsorted(joined["request"], joined["request"][-1], side="left"))
        if last:
            yield joined[:last]
        rest = joined[last:]
    if rest is not None:
        yield rest


def _discounts(places: np.ndarray) -> np.ndarray:
    """1 / log2(place + 2) of places from 0 on, 0 from PLACES on."""
    return np.where(places < PLACES, 1 / np.log2(places + 2.0), 0.0)
