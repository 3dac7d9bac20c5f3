"""Items as vectors of their co-visits: near where the same users had both within a few events."""

from __future__ import annotations

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import eigsh

from learn_spark.model.reranking.co_visitation import Transitions
from learn_spark.model.towers.vectors import unit_rows

DECAY = 0.8  # a pair's weight is DECAY ^ (distance in events - 1)
SMOOTHING = 5.0  # added to every item's sum of pairs: a few pairs say little


def co_visit_vectors(transitions: Transitions, size: int) -> np.ndarray:
    """Vectors [N, size] float32 of length 1; zeros for items without co-visits.

    The pairs of ``transitions``, in both directions, are a weighted graph with the matrix A. Vectors are the leading
    eigenvectors of D^-1/2 A D^-1/2, where D has the sums of A plus SMOOTHING, by item, each times the root of its
    eigenvalue; an item's vector is then scaled to length 1 (spectral embedding, Ng, Jordan and Weiss 2001, section 2).
    Columns without an eigenvalue above 0 are zeros. Deterministic.
    """
    earlier = transitions.channels[-1]
    n_items = earlier.shape[0]
    pairs = (earlier + earlier.T).astype(np.float64)
    scale = sparse.diags_array((np.asarray(pairs.sum(axis=1)).ravel() + SMOOTHING) ** -0.5)
    graph = (scale @ pairs @ scale).tocsr()
    vectors = np.zeros((n_items, size), np.float32)
    if not graph.nnz:
        return vectors
    if size >= n_items - 1:
        values, columns = np.linalg.eigh(graph.toarray())
    else:
        values, columns = eigsh(graph, k=size, which="LA", v0=np.ones(n_items))
    order = np.argsort(-values, kind="stable")[:size]
    kept = order[values[order] > 1e-9]
    vectors[:, : len(kept)] = columns[:, kept] * np.sqrt(values[kept])
    # What rounding leaves of an item that occurs in no pair.
    vectors[np.diff(graph.indptr) == 0] = 0.0
    return unit_rows(vectors)
