"""Slices of a split: the names of the slices of each target, and the targets of each slice."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields

import numpy as np

from learn_spark.data.splits.split import Targets
from learn_spark.evaluation import bands

# Every dimension with its slices in order. Slices of time are named by their dates, which sort.
DIMENSIONS: dict[str, tuple[str, ...]] = {
    "popularity": tuple(bands.POPULARITY.values()),
    "mass": tuple(bands.MASS.values()),
    "cold": ("no event before the split", "event before the split"),
    "history": tuple(bands.HISTORY.values()),
    "recency": tuple(bands.RECENCY.values()),
    "time": (),
    "same_day": ("yes", "no"),
}


@dataclass(frozen=True)
class ItemSlices:
    """The slices [N] of every item in the dimensions of items: places in DIMENSIONS[dimension], a byte each."""

    popularity: np.ndarray
    mass: np.ndarray
    cold: np.ndarray

    @staticmethod
    def of(trained: np.ndarray, before_split: np.ndarray) -> ItemSlices:
        """The slices of N items with ``trained`` [N] events in training samples and ``before_split`` [N] before the
        split (split.trained_counts, split.training_events). They differ only under protocol time_split.
        """
        cold = (before_split > 0).astype(np.int8)
        return ItemSlices(bands.popularity_numbers(trained), bands.mass_numbers(trained), cold)

    def labels(self, dimension: str, items: np.ndarray) -> np.ndarray:
        """The names [T] of the slices of ``items`` [T]."""
        return np.array(DIMENSIONS[dimension])[getattr(self, dimension)[items]]


ITEM_DIMENSIONS = tuple(field.name for field in fields(ItemSlices))


def target_labels(
    targets: Targets, lengths: np.ndarray, last: np.ndarray, items: ItemSlices, quarters: bands.Quarters
) -> dict[str, np.ndarray]:
    """The slice of each target [T] in every one of DIMENSIONS.

    ``lengths`` [B] are each user's events before the targets and ``last`` [B] the time of the last one; ``quarters``
    are those of the targets of all users of the split.
    """
    owners, first = targets.owners, targets.times[targets.offsets[:-1]]
    return {
        **{dimension: items.labels(dimension, targets.positions) for dimension in ITEM_DIMENSIONS},
        "history": bands.history_band(lengths)[owners],
        "recency": bands.recency_band(last, first)[owners],
        "time": quarters.labels(targets.times),
        "same_day": bands.same_day(targets.times_before, targets.times),
    }


@dataclass(frozen=True)
class Slice:
    """One slice of a split.

    ``mask`` [T] are its targets, ``users`` [n] its users by number in the split, and ``offsets`` [n + 1] the start of
    each user's targets among the slice's. Of a user, only the targets in the slice count as relevant.
    """

    dimension: str
    name: str
    mask: np.ndarray
    users: np.ndarray
    offsets: np.ndarray


def slices(labels: Mapping[str, np.ndarray], owners: np.ndarray) -> Iterator[Slice]:
    """The whole split (``all`` of the dimension ``all``), then every slice with a target; ``owners`` [T] increase."""
    yield _slice("all", "all", np.ones(len(owners), dtype=bool), owners)
    for dimension, target_names in labels.items():
        order = DIMENSIONS.get(dimension) or np.unique(target_names).tolist()
        for name in order:
            mask = target_names == name
            if mask.any():
                yield _slice(dimension, name, mask, owners)


def _slice(dimension: str, name: str, mask: np.ndarray, owners: np.ndarray) -> Slice:
    users, starts = np.unique(owners[mask], return_index=True)
    return Slice(dimension, name, mask, users, np.append(starts, mask.sum()))
