"""Slices of a split: the targets of each, and their metrics with bootstrap intervals."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from learn_spark.data.splits.split import Targets
from learn_spark.evaluation import bands
from learn_spark.evaluation.bootstrap import interval, resampled_means
from learn_spark.model.scoring.metrics import per_user

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


def target_labels(
    targets: Targets, lengths: np.ndarray, last: np.ndarray, trained: np.ndarray, before_split: np.ndarray
) -> dict[str, np.ndarray]:
    """The slice of each target [T] in every one of DIMENSIONS.

    ``lengths`` [B] are each user's events before the targets and ``last`` [B] the time of the last one. ``trained`` [N]
    counts each item's events in training samples, ``before_split`` [N] those before the split (split.trained_counts,
    split.training_events). They differ only under protocol time_split.
    """
    items, owners = targets.positions, targets.owners
    first = targets.times[targets.offsets[:-1]]
    return {
        "popularity": bands.popularity_band(trained)[items],
        "mass": bands.mass_band(trained)[items],
        "cold": np.where(before_split[items] == 0, *DIMENSIONS["cold"]),
        "history": bands.history_band(lengths)[owners],
        "recency": bands.recency_band(last, first)[owners],
        "time": bands.quarter(targets.times),
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


@dataclass(frozen=True)
class SliceMetric:
    """One metric of one method on one slice.

    ``value`` is the mean over ``users`` users, ``low`` and ``high`` its bootstrap interval, ``items`` the number of
    distinct target items.
    """

    dimension: str
    slice: str
    method: str
    metric: str
    value: float
    low: float
    high: float
    users: int
    items: int


def slice_metrics(
    ranks: Mapping[str, np.ndarray],
    items: np.ndarray,
    owners: np.ndarray,
    labels: Mapping[str, np.ndarray],
    ks: Sequence[int],
    *,
    samples: int,
    seed: int,
) -> Iterator[SliceMetric]:
    """Metrics of every method; targets [T] have ``ranks[method]`` [T] and are ``items`` [T] of users ``owners`` [T].

    The whole split has all metrics, its parts HR and NDCG at the smallest k. All methods and metrics of a slice share
    the resamples of its users.
    """
    smallest_k = min(ks)
    for part in slices(labels, owners):
        names, columns = [], []
        for method, method_ranks in ranks.items():
            for metric, values in per_user(method_ranks[part.mask], ks, part.offsets).items():
                if part.dimension == "all" or metric in (f"HR@{smallest_k}", f"NDCG@{smallest_k}"):
                    names.append((method, metric))
                    columns.append(values)
        values = np.stack(columns, axis=1)
        low, high = interval(resampled_means(values, samples=samples, seed=seed))
        distinct = len(np.unique(items[part.mask]))
        for column, (method, metric) in enumerate(names):
            yield SliceMetric(
                dimension=part.dimension,
                slice=part.name,
                method=method,
                metric=metric,
                value=float(values[:, column].mean()),
                low=float(np.clip(low[column], 0, 1)),
                high=float(np.clip(high[column], 0, 1)),
                users=len(part.users),
                items=distinct,
            )
