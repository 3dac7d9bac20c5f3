"""Exposures for the ads ranker: what happened strictly after the release's as-of time, split by time."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from learn_spark.errors import LearnSparkError
from learn_spark.retrieval.cuts import fixed_lists


@dataclass(frozen=True)
class Exposures:
    """One row an exposure, in the order of time.

    ``user_bucket``, ``item_bucket`` [n] hashed ids; ``context`` [n, 4] hour and weekday as points on circles;
    ``user``, ``item`` [n, D] released vectors (zero where ``has_user``, ``has_item`` [n] is 0); ``label`` [n].
    """

    event_id: list[str]
    user_id: list[str]
    item_id: list[str]
    time: np.ndarray
    user_bucket: np.ndarray
    item_bucket: np.ndarray
    context: np.ndarray
    user: np.ndarray
    item: np.ndarray
    has_user: np.ndarray
    has_item: np.ndarray
    label: np.ndarray

    def __len__(self) -> int:
        return len(self.label)

    def take(self, rows: np.ndarray) -> Exposures:
        """The rows at the given positions."""
        chosen: dict[str, Any] = {
            name: [values[i] for i in rows] if isinstance(values, list) else values[rows]
            for name, values in self.__dict__.items()
        }
        return replace(self, **chosen)


def build_exposures(
    interactions: pa.Table,
    users: pa.Table,
    items: pa.Table,
    *,
    as_of: datetime,
    positive_value: float,
    buckets: int,
) -> Exposures:
    """Exposures at or after ``as_of``, joined with the released vectors; positive where value >= ``positive_value``.

    Raises LearnSparkError where there is none: an exposure before ``as_of`` is already inside the features, and
    ranking it with them would be ranking the past with the future.
    """
    later = interactions.filter(
        pc.greater_equal(interactions["event_time"], pa.scalar(as_of, pa.timestamp("us", "UTC")))
    )
    if later.num_rows == 0:
        raise LearnSparkError(
            f"rank_ads: no interaction lies at or after {as_of:%Y-%m-%d %H:%M:%S} UTC, the release's as-of time; every "
            "one is already in its features. Train and publish with histories.as_of before the exposures to rank"
        )
    later = later.sort_by([("event_time", "ascending"), ("event_id", "ascending")])
    micros = later["event_time"].cast(pa.int64()).to_numpy()
    hour = micros / 3.6e9 % 24 / 24 * 2 * np.pi
    weekday = (micros // 86_400_000_000 + 3) % 7 / 7 * 2 * np.pi
    user, has_user = _vectors(later["user_id"], users, "user_id")
    item, has_item = _vectors(later["item_id"], items, "item_id")
    value = later["value"].to_numpy()
    return Exposures(
        event_id=later["event_id"].to_pylist(),
        user_id=later["user_id"].to_pylist(),
        item_id=later["item_id"].to_pylist(),
        time=micros,
        user_bucket=_buckets(later["user_id"], buckets),
        item_bucket=_buckets(later["item_id"], buckets),
        context=np.stack([np.sin(hour), np.cos(hour), np.sin(weekday), np.cos(weekday)], axis=1).astype(np.float32),
        user=user,
        item=item,
        has_user=has_user,
        has_item=has_item,
        label=(np.nan_to_num(value, nan=-np.inf) >= positive_value).astype(np.int32),
    )


def split_by_time(exposures: Exposures, train_share: float) -> tuple[Exposures, Exposures]:
    """Earlier and later exposures. Those of one instant stay together, so the test never shares a time with training.

    Raises LearnSparkError where either side would be empty.
    """
    wanted = int(len(exposures) * train_share)
    border = int(np.searchsorted(exposures.time, exposures.time[min(wanted, len(exposures) - 1)], side="left"))
    if border == 0:
        raise LearnSparkError(
            f"rank_ads: {len(exposures):,} exposures cannot be split by time into {train_share:.0%} for training and "
            "the rest for test: the first of them all have one time"
        )
    return exposures.take(np.arange(border)), exposures.take(np.arange(border, len(exposures)))


def _vectors(ids: pa.ChunkedArray, features: pa.Table, key: str) -> tuple[np.ndarray, np.ndarray]:
    matrix = fixed_lists(features["embedding"]).astype(np.float32)
    place = pc.index_in(ids.combine_chunks(), features[key].combine_chunks())
    known = np.asarray(pc.is_valid(place))
    rows = np.asarray(pc.fill_null(place, 0))
    return np.where(known[:, None], matrix[rows], np.float32(0)), known.astype(np.float32)


def _buckets(ids: pa.ChunkedArray, buckets: int) -> np.ndarray:
    encoded = ids.combine_chunks().dictionary_encode()
    hashed = np.array([zlib.crc32(str(name).encode()) % buckets for name in encoded.dictionary.to_pylist()])
    return hashed[encoded.indices.to_numpy()].astype(np.int64)
