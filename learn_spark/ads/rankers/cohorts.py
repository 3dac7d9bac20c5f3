"""Cohorts of exposures, by the events of the item, or user, before the as-of time of the release that was read."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from learn_spark.ads.rankers.exposures import Exposures
from learn_spark.ads.rankers.features import Features
from learn_spark.core.settings.ads import CohortsSettings
from learn_spark.core.tables.snapshot import Snapshot

KEYS = {"item": "item_id", "user": "user_id"}
BATCH_ROWS = 65_536


def cohorts_of(
    interactions: Snapshot, exposures: Exposures, features: Features, settings: CohortsSettings
) -> dict[str, np.ndarray]:
    """For ``item`` and ``user``: the place in COHORTS (ads/cohorts.py) of each exposure [n].

    It depends on the events of the item (user) before the as-of time of the exposure's release; without a release,
    before the first exposure.
    """
    moments = np.append(features.moments(), exposures.time[0])
    counts = events_before(interactions, moments, {KEYS[kind]: exposures.fields[KEYS[kind]].values for kind in KEYS})
    cohorts = {}
    for kind, key in KEYS.items():
        events = counts[key][features.release, exposures.fields[key].codes]  # -1, no release, looks at the last moment
        cohorts[kind] = np.searchsorted(getattr(settings, kind), events, side="right").astype(np.int8)
    return cohorts


def events_before(
    interactions: Snapshot, moments: np.ndarray, entities: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """For every key column the counts [M, k] of the events of its ``entities`` [k] strictly before each of ``moments``.

    ``moments`` [M] are microseconds since 1970. One pass over the table, a batch at a time.
    """
    order = np.argsort(moments, kind="stable")
    ascending = moments[order]
    names = {key: pa.array(values.tolist(), pa.string()) for key, values in entities.items()}
    counts = {key: np.zeros((len(moments), len(values)), dtype=np.int64) for key, values in entities.items()}
    for batch in interactions.batches([*entities, "event_time"], BATCH_ROWS):
        micros = np.asarray(batch["event_time"].cast(pa.timestamp("us", "UTC")).cast(pa.int64()))
        first = np.searchsorted(ascending, micros, side="right")  # the first moment that the event is before
        for key, values in names.items():
            place = np.asarray(pc.fill_null(pc.index_in(batch[key], values), -1))
            kept = (first < len(moments)) & (place >= 0)
            np.add.at(counts[key], (first[kept], place[kept]), 1)
    totals = {}
    for key, table in counts.items():
        totals[key] = np.empty_like(table)
        totals[key][order] = np.cumsum(table, axis=0)
    return totals
