"""Metrics of all users' lists together: coverage, Gini, share of head items, novelty."""

from __future__ import annotations

import numpy as np

from learn_spark.evaluation.bands import mass_band


def list_metrics(lists: np.ndarray, counts: np.ndarray) -> dict[str, float]:
    """Of every user's top k, ``lists`` [B, k] positions (-1: nothing), in a catalogue with training ``counts`` [N].

    coverage@k: the share of the catalogue that is in at least one list. Gini@k: inequality of how often items are
    listed, 0 (all equally often) to 1 - 1/N (one item only), items in no list included. head@k: the share of list
    entries that are head items, which have the first half of the training events (bands.py). novelty@k: the mean of
    -log2((count + 1) / (events + N)) over list entries, in bits (Zhou et al. 2010, with one event added to each item).

    Raises ValueError where all lists are empty, and for positions outside -1..N-1.
    """
    n_items, k = len(counts), lists.shape[1]
    offers = lists[lists >= 0]
    if lists.min(initial=-1) < -1 or lists.max(initial=-1) >= n_items:
        raise ValueError(f"positions {lists.min()}..{lists.max()} are outside -1..{n_items - 1}")
    if not len(offers):
        raise ValueError(f"the lists of {len(lists)} users are all empty")
    offered = np.bincount(offers, minlength=n_items)
    rising = np.sort(offered)
    places = 2 * np.arange(1, n_items + 1) - n_items - 1
    information = -np.log2((counts + 1) / (counts.sum() + n_items))
    return {
        f"coverage@{k}": float((offered > 0).mean()),
        f"Gini@{k}": float((places * rising).sum() / (n_items * rising.sum())),
        f"head@{k}": float(offered[mass_band(counts) == "head"].sum() / len(offers)),
        f"novelty@{k}": float(information[offers].mean()),
    }
