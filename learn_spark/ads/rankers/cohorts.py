"""How well an item or user was known when it was exposed: by its events before the as-of time of what was read."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from learn_spark.ads.rankers.exposures import Exposures
from learn_spark.ads.rankers.features import Features
from learn_spark.core.settings.ads import CohortsSettings
from learn_spark.core.tables.snapshot import Snapshot

NAMES = ("cold", "long-tail", "other")
KEYS = {"item": "item_id", "user": "user_id"}
BATCH_ROWS = 65_536


def cohorts_of(
    interactions: Snapshot, exposures: Exposures, features: Features, settings: CohortsSettings
) -> dict[str, np.ndarray]:
    """``item`` and ``user``: the place in NAMES of each exposure [n], by the events of its item (user) before the as-of
    time of its release; of one without a release, before the first of all exposures.
    """
    moments = np.append(features.moments(), exposures.time[0])
    counts = events_before(interactions, moments, {KEYS[kind]: exposures.fields[KEYS[kind]].values for kind in KEYS})
    found = {}
    for kind, key in KEYS.items():
        seen = counts[key][features.release, exposures.fields[key].codes]  # -1, no release, looks at the last moment
        found[kind] = np.searchsorted(getattr(settings, kind), seen, side="right").astype(np.int8)
    return found


def events_before(
    interactions: Snapshot, moments: np.ndarray, entities: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Events strictly before each of ``moments`` [M] (microseconds since 1970): for every key column the counts [M, k]
    of its ``entities`` [k]. One pass, a batch at a time.
    """
    order = np.argsort(moments, kind="stable")
    rising = moments[order]
    names = {key: pa.array(values.tolist(), pa.string()) for key, values in entities.items()}
    counts = {key: np.zeros((len(moments), len(values)), dtype=np.int64) for key, values in entities.items()}
    for batch in interactions.batches([*entities, "event_time"], BATCH_ROWS):
        micros = np.asarray(batch["event_time"].cast(pa.timestamp("us", "UTC")).cast(pa.int64()))
        first = np.searchsorted(rising, micros, side="right")  # the first moment that the event is before
        for key, values in names.items():
            place = np.asarray(pc.fill_null(pc.index_in(batch[key], values), -1))
            kept = (first < len(moments)) & (place >= 0)
            np.add.at(counts[key], (first[kept], place[kept]), 1)
    found = {}
    for key, table in counts.items():
        found[key] = np.empty_like(table)
        found[key][order] = np.cumsum(table, axis=0)
    return found
