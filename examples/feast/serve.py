"""Feast's own commands on the features, as one program; run in the folder of the Feast repository.

python serve.py load                 register the features, and write their newest rows into Redis
python serve.py ask USER ITEM ...    print the vectors that Redis has now, as JSON
python serve.py join EVENTS TO       give each event of a Parquet file the vectors of its time, from the files
"""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime

import features
import pandas as pd
from feast import FeatureStore


def load(store: FeatureStore) -> None:
    """What ``feast apply`` and ``feast materialize`` do."""
    store.apply([features.user, features.item, features.user_features, features.item_features, features.vectors])
    store.materialize(datetime(2000, 1, 1, tzinfo=UTC), datetime.now(UTC))


def ask(store: FeatureStore, user: str, *items: str) -> None:
    """Print the vectors of a user and of items; null for one that is not served."""
    rows = [{"user_id": user, "item_id": item} for item in items]
    service = store.get_feature_service("vectors")
    answer = store.get_online_features(features=service, entity_rows=rows, full_feature_names=True).to_dict()
    vectors = [None if vector is None else list(vector) for vector in answer["item_features__embedding"]]
    print(json.dumps({"user": answer["user_features__embedding"][0], "items": dict(zip(items, vectors, strict=True))}))


def join(store: FeatureStore, events: str, to: str) -> None:
    """Write the events (columns user_id, item_id, event_time and any others) with user_embedding and item_embedding.

    One view at a time: Feast's file store gives one row for each user and time, whatever the items are, and none for an
    id that had no row before the event.
    """
    rows = pd.read_parquet(events)
    for kind in ("user", "item"):
        key = f"{kind}_id"
        asked = rows[[key, "event_time"]].drop_duplicates().rename(columns={"event_time": "event_timestamp"})
        job = store.get_historical_features(entity_df=asked, features=[f"{kind}_features:embedding"])
        names = {"event_timestamp": "event_time", "embedding": f"{kind}_embedding"}
        rows = rows.merge(job.to_df().rename(columns=names), on=[key, "event_time"], how="left")
    rows.to_parquet(to)


if __name__ == "__main__":
    {"load": load, "ask": ask, "join": join}[sys.argv[1]](FeatureStore(repo_path="."), *sys.argv[2:])
