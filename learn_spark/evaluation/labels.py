"""The names that people read: of methods, slices, and ads variants, in the order in which they are shown.

Tables record the short names; a change here changes no result. The stages that compute figures do not import this.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from learn_spark.evaluation.results import VECTORS_ONLY

FIRST_METRIC = "NDCG@10"  # by which models are chosen, and the one that is shown first
WHOLE = "all"  # the dimension and the slice of a whole split
# Of methods without a training, by which every model is measured.
BASELINES = {
    "popularity": "popularity",
    "markov": "item-to-item Markov",
    "frozen": "frozen embeddings, untrained",
}
METHODS = {
    **BASELINES,
    "sasrec": "SASRec",
    "bsarec": "BSARec",
    "hstu": "HSTU",
    "learn-plus": "LEARN+",
    "learn-plus-members": "LEARN+, ensemble",
    "learn": "LEARN",
}
DIMENSIONS = {
    "popularity": "Training events of the target item",
    "mass": "Head, middle and tail of the catalogue, by mass of training events",
    "cold": "Items that first appear after the cut",
    "history": "Length of the user's history",
    "recency": "Days since the user's last event",
    "time": "When the target was",
    "same_day": "Whether the target came on the day of the event before it",
}
VARIANTS = {
    "base": "without features",
    "learn": "with features",
    "learn-adaptor": "LEARN-Adaptor",
    "gbdt": "trees without features",
    "gbdt-learn": "trees with features",
}
AD_DIMENSIONS = {WHOLE: "All", "item": "Items", "user": "Users"}
_UNSEEN = {"unseen": "no training event"}
_FIRST_SLICES = ("unseen", "head", "mid", "middle", "tail")


def method_label(method: str) -> str:
    """A method's name; of a model that has a reranker, without it: "..., vectors only"."""
    plain = method.removesuffix(VECTORS_ONLY)
    label = METHODS.get(plain, plain)
    return label if plain == method else f"{label}, vectors only"


def in_order(methods: Iterable[str]) -> list[str]:
    """``methods``, each once, in the order of METHODS, a model before vectors only; unknown ones last."""
    known = list(METHODS)

    def place(method: str) -> tuple[int, str]:
        plain = method.removesuffix(VECTORS_ONLY)
        return (known.index(plain) if plain in METHODS else len(known), method)

    return sorted(set(methods), key=place)


def shown_metrics(values: Mapping[str, float]) -> dict[str, float]:
    """Metrics by name and k, without what says the same twice: of users with one target each, recall@k is HR@k."""
    recalls = [name for name in values if name.startswith("recall@")]
    repeated = set(recalls) if all(values[n] == values.get(n.replace("recall", "HR")) for n in recalls) else set()

    def place(name: str) -> tuple[str, int]:
        kind, _, k = name.partition("@")
        return kind, int(k) if k.isdecimal() else 0

    return {name: values[name] for name in sorted(values, key=place) if name not in repeated}


def variant_label(variant: str) -> str:
    """The name of an ads ranker's variant."""
    return VARIANTS.get(variant, variant)


def band_label(band: str) -> str:
    """The name of a band of items by training events (evaluation.bands.POPULARITY)."""
    return _UNSEEN.get(band, band)


def place_of_dimension(name: str) -> tuple[int, str]:
    """Sorts dimensions of slices in the order of DIMENSIONS; unknown ones last."""
    known = list(DIMENSIONS)
    return (known.index(name) if name in known else len(known), name)


def place_of_slice(name: str) -> tuple[int, float, str]:
    """Sorts slices of numbers by their lower end, "unseen" and "under ..." first; others by name, but head, middle,
    tail.
    """
    if name in _FIRST_SLICES or name.startswith("under "):
        return (0, _FIRST_SLICES.index(name) if name in _FIRST_SLICES else 0, name)
    start = re.match(r"\d+(?:\.\d+)?", name)
    return (1, float(start[0]), name) if start else (2, 0.0, name)
