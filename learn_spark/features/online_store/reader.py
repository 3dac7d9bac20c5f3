"""Reading vectors of users and items from an online store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from learn_spark.features.online_store.address import open_store
from learn_spark.features.online_store.layout import as_array
from learn_spark.features.online_store.store import Entity, OnlineRelease, OnlineStore, OnlineStoreError


@dataclass(frozen=True)
class OnlineVectors:
    """Vectors of one release.

    ``users`` [users, L] and ``items`` [items, L], float32, in the order that was asked; the row of an entity that the
    release does not have is NaN.
    """

    release: OnlineRelease
    users: np.ndarray
    items: np.ndarray


class OnlineFeatures:
    """A connection to an online store, for the life of a service. Threads may share it."""

    def __init__(self, store: OnlineStore) -> None:
        self.store = store

    def vectors(self, users: Sequence[str] = (), items: Sequence[str] = ()) -> OnlineVectors:
        """The vectors of users and items of ONE release, the one in force in the store, in one round trip.

        Raises OnlineStoreError if the store does not answer, has no release, or its time to live is over.
        """
        entities = [*(Entity("user", one) for one in users), *(Entity("item", one) for one in items)]
        record, vectors = self.store.read(entities)
        release = record.release
        if release is None or release.expired:
            why = (
                "no release"
                if release is None
                else f"no live release: the time to live of {release.release_id} is over"
            )
            raise OnlineStoreError(f"the online store has {why}; learn-spark online push brings the one in force")
        return OnlineVectors(
            release,
            as_array(vectors[: len(users)], release.dtype, release.dims["user"]),
            as_array(vectors[len(users) :], release.dtype, release.dims["item"]),
        )


def online(store: str, *, namespace: str = "learn-spark") -> OnlineFeatures:
    """The features in the online store at a URL (redis://host:port/db, sqlite:///path). Nothing is connected yet.

    >>> service = online("redis://localhost:6379/0")  # doctest: +SKIP
    >>> found = service.vectors(users=["customer-17"], items=["lamp-3", "lamp-4"])  # doctest: +SKIP
    >>> found.items @ found.users[0]  # doctest: +SKIP

    Raises SettingsError for another URL, MissingPartError for Redis without the extra ``online``.
    """
    return OnlineFeatures(open_store(store, namespace))
