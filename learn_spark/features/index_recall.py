"""Quality of an index: recall against exact search, and queries per second."""

from __future__ import annotations

import time
from typing import Any

import faiss
import numpy as np

KS = (10, 100)


def measure(index: Any, vectors: np.ndarray, queries: np.ndarray) -> dict[str, float]:
    """recall@10 and recall@100 of ``index`` over ``vectors`` [N, D] against exact search, for ``queries`` [Q, D].

    Recall at k is the mean share of the k best items by exact search (of all N if N < k) that the index returns in its
    first k. Also the queries per second of both searches: 100 items per query, all queries in one call, with all
    threads of FAISS.
    """
    exact = faiss.IndexFlatIP(vectors.shape[1])
    exact.add(vectors)
    most = min(max(KS), len(vectors))
    truth, flat_seconds = _search(exact, queries, most)
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


def _search(index: Any, queries: np.ndarray, k: int) -> tuple[np.ndarray, float]:
    # A first call to start threads and load pages.
    index.search(queries[:1], k)
    start = time.perf_counter()
    _, numbers = index.search(queries, k)
    return numbers, max(time.perf_counter() - start, 1e-9)
