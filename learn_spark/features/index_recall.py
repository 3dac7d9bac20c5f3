"""Quality of an index: recall against exact search, and queries per second."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import faiss
import numpy as np

KS = (10, 100)


def measure(index: Any, blocks: Iterable[np.ndarray], queries: np.ndarray) -> dict[str, float]:
    """recall@10 and recall@100 of ``index`` against exact search, for ``queries`` [Q, D].

    ``blocks`` are the vectors of the index by number, some rows at a time.

    Recall at k is the mean share of the k best items by exact search (of all N if N < k) that the index returns in its
    first k. Also the queries per second of both searches: 100 items per query, all queries in one call, with all
    threads of FAISS.
    """
    most = min(max(KS), index.ntotal)
    truth, flat_seconds = _exact(blocks, queries, most)
    returned, seconds = _search(index, queries, most)
    measured: dict[str, float] = {}
    for k in KS:
        best = min(k, most)
        hits = [len(np.intersect1d(t, f)) for t, f in zip(truth[:, :best], returned[:, :best], strict=True)]
        measured[f"recall@{k}"] = float(np.mean(hits)) / best
    measured["queries"] = len(queries)
    measured["queries_per_second"] = len(queries) / seconds
    measured["flat_queries_per_second"] = len(queries) / flat_seconds
    measured["threads"] = faiss.omp_get_max_threads()
    return measured


def _exact(blocks: Iterable[np.ndarray], queries: np.ndarray, k: int) -> tuple[np.ndarray, float]:
    """(numbers [Q, k] of the best items, best first; seconds of the search, without reading the blocks)."""
    scores, numbers = np.zeros((len(queries), 0), np.float32), np.zeros((len(queries), 0), np.int64)
    first, seconds = 0, 0.0
    for block in blocks:
        flat = faiss.IndexFlatIP(block.shape[1])
        flat.add(block)
        if not first:
            flat.search(queries[:1], 1)
        start = time.perf_counter()
        block_scores, block_numbers = flat.search(queries, min(k, len(block)))
        scores, numbers = np.hstack([scores, block_scores]), np.hstack([numbers, block_numbers + first])
        if scores.shape[1] > k:
            best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
            scores, numbers = np.take_along_axis(scores, best, axis=1), np.take_along_axis(numbers, best, axis=1)
        seconds += time.perf_counter() - start
        first += len(block)
    return numbers, max(seconds, 1e-9)


def _search(index: Any, queries: np.ndarray, k: int) -> tuple[np.ndarray, float]:
    # A first call to start threads and load pages.
    index.search(queries[:1], k)
    start = time.perf_counter()
    _, numbers = index.search(queries, k)
    return numbers, max(time.perf_counter() - start, 1e-9)
