"""What lists of recommendations look like as a whole: coverage, Gini, share of head items, novelty."""

from __future__ import annotations

import numpy as np

from learn_spark.evaluation.bands import mass_band


def list_metrics(lists: np.ndarray, counts: np.ndarray) -> dict[str, float]:
    """Of every user's top k, ``lists`` [B, k] positions (-1: nothing), in a catalogue with training ``counts`` [N].

    coverage@k: the share of the catalogue that somebody is offered. Gini@k: how unequally items are offered, 0 (all
    alike) to 1 - 1/N (one item only), never offered ones included. head@k: the share of offers that are head items,
    those that make the first half of the training events (bands.py). novelty@k: the mean of -log2((count + 1) / (events
    + N)) over offers, in bits (Zhou et al. 2010, with one event added to each item).

    Raises ValueError where nothing is offered, and for positions outside -1..N-1.
    """
    n_items, k = len(counts), lists.shape[1]
    offers = lists[lists >= 0]
    if lists.min(initial=-1) < -1 or lists.max(initial=-1) >= n_items:
        raise ValueError(f"positions {lists.min()}..{lists.max()} are outside -1..{n_items - 1}")
    if not len(offers):
        raise ValueError(f"the lists of {len(lists)} users offer nothing")
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
