"""What an index is worth: the share of the exact best that it finds, and how many queries a second."""

from __future__ import annotations

import time
from typing import Any

import faiss
import numpy as np

KS = (10, 100)


def measure(index: Any, vectors: np.ndarray, queries: np.ndarray) -> dict[str, float]:
    """recall@10 and @100 of ``index`` over ``vectors`` [N, D] against exact search, for ``queries`` [Q, D], and both
    searches' queries a second (of 100 items each, all queries in one call, with FAISS's threads).

    The recall at k is the mean share of the exact k best (of all, where there are fewer) that is among the k found.
    """
    exact = faiss.IndexFlatIP(vectors.shape[1])
    exact.add(vectors)
    wide = min(max(KS), len(vectors))
    truth, flat_seconds = _search(exact, queries, wide)
    found, seconds = _search(index, queries, wide)
    measured: dict[str, float] = {}
    for k in KS:
        best = min(k, wide)
        hits = [len(np.intersect1d(t, f)) for t, f in zip(truth[:, :best], found[:, :best], strict=True)]
        measured[f"recall@{k}"] = float(np.mean(hits)) / best
    measured["queries"] = len(queries)
    measured["queries_per_second"] = len(queries) / seconds
    measured["flat_queries_per_second"] = len(queries) / flat_seconds
    measured["threads"] = faiss.omp_get_max_threads()
    return measured


def _search(index: Any, queries: np.ndarray, k: int) -> tuple[np.ndarray, float]:
    # Once to warm up: threads start, pages come in.
    index.search(queries[:1], k)
    start = time.perf_counter()
    _, found = index.search(queries, k)
    return found, max(time.perf_counter() - start, 1e-9)
