"""Metrics of all users' lists together: coverage, Gini, share of head items, novelty."""

from __future__ import annotations

import numpy as np

from learn_spark.evaluation.bands import mass_band


def list_metrics(lists: np.ndarray, counts: np.ndarray) -> dict[str, float]:
    """Metrics of every user's top k, ``lists`` [B, k] positions (-1: none), in a catalogue with training ``counts``
    [N].

    coverage@k is the share of the catalogue that is in at least one list. Gini@k is the inequality of how often items
    are listed, from 0 (all equally often) to 1 - 1/N (one item only); unlisted items are included. head@k is the share
    of list entries that are head items, which have the first half of the training events (bands.py). novelty@k is the
    mean of -log2((count + 1) / (events + N)) over list entries, in bits (Zhou et al. 2010, with one event added to each
    item).

    Raises ValueError where all lists are empty, and for positions outside -1..N-1.
    """
    n_items, k = len(counts), lists.shape[1]
    listed = lists[lists >= 0]
    if lists.min(initial=-1) < -1 or lists.max(initial=-1) >= n_items:
        raise ValueError(f"positions {lists.min()}..{lists.max()} are outside -1..{n_items - 1}")
    if not len(listed):
        raise ValueError(f"the lists of {len(lists)} users are all empty")
    times_listed = np.bincount(listed, minlength=n_items)
    rising = np.sort(times_listed)
    coefficients = 2 * np.arange(1, n_items + 1) - n_items - 1
    information = -np.log2((counts + 1) / (counts.sum() + n_items))
    return {
        f"coverage@{k}": float((times_listed > 0).mean()),
        f"Gini@{k}": float((coefficients * rising).sum() / (n_items * rising.sum())),
        f"head@{k}": float(times_listed[mass_band(counts) == "head"].sum() / len(listed)),
        # By item, so that the order of users changes no digit.
        f"novelty@{k}": float((information * times_listed).sum() / len(listed)),
    }
