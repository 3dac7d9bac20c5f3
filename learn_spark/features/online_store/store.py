"""What an online store is: versions of vectors behind four methods, and the record of the release that it serves."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import Enum
from functools import lru_cache
from typing import Literal, NamedTuple, Protocol

from learn_spark.core.errors import LearnSparkError

Kind = Literal["user", "item"]


class Entity(NamedTuple):
    """A user or an item."""

    kind: Kind
    id: str


class Sign(Enum):
    """What a push does with an entity whose vector it does not write."""

    DELETED = "deleted"
    """The release does not have the entity."""
    KEPT = "kept"
    """The release has the vector that the store has: only its time to live changes."""


Row = tuple[Entity, bytes | Sign]


class OnlineStoreError(LearnSparkError):
    """An online store cannot be reached, or has nothing to read."""


class OvertakenError(OnlineStoreError):
    """The store's record is not the expected one: another push has begun."""


class LostVectorsError(OnlineStoreError):
    """The store lacks vectors that a push expects it to keep: they expired or were evicted."""


@dataclass(frozen=True)
class OnlineRelease:
    """A release as a store has it. Its vector of an entity is the newest version with ``floor`` <= generation <=
    ``generation``; a whole push raises the floor to its own generation.
    """

    release_id: str
    model_id: str
    versions: Mapping[str, int]  # of user_features and item_features; an erasure of users gives a release new ones
    published_at: str  # ISO, UTC
    as_of: str  # ISO, UTC
    dtype: str  # float32 or float16, little endian
    dims: Mapping[str, int]  # length of a vector by kind
    generation: int
    floor: int
    expires_at: float | None = None  # seconds since 1970; then the store serves nothing

    @property
    def expired(self) -> bool:
        """Whether its time to live is over."""
        return self.expires_at is not None and self.expires_at <= time.time()

    def same_vectors(self, other: OnlineRelease | None) -> bool:
        """Whether another release has the same rows in the same format."""
        return other is not None and (self.release_id, self.versions, self.dtype) == (
            other.release_id,
            other.versions,
            other.dtype,
        )


@dataclass(frozen=True)
class Push:
    """A push that has not ended. ``since``: the release that it changes, None for all rows; ``done``: rows written, in
    the push's order; ``switched``: its release is served, and older versions are being dropped. ``renews``: vectors
    that stay may have another time to live than the release, from a push before it that did not end.
    """

    token: str
    target: OnlineRelease
    since: str | None
    done: int = 0
    switched: bool = False
    renews: bool = False


@dataclass(frozen=True)
class Record:
    """What a store serves and what is under way. ``generation``: the newest one that any push has used."""

    generation: int = 0
    release: OnlineRelease | None = None
    push: Push | None = None

    def to_bytes(self) -> bytes:
        """The record as JSON; empty for a store that nobody has written."""
        return json.dumps(asdict(self), sort_keys=True).encode() if self != EMPTY else b""

    @staticmethod
    @lru_cache(16)  # a reader gets the same bytes with every call
    def from_bytes(stored: bytes) -> Record:
        """The record of ``to_bytes``. Raises OnlineStoreError for other bytes."""
        if not stored:
            return EMPTY
        try:
            tree = json.loads(stored)
            release, push = tree["release"], tree["push"]
            return Record(
                tree["generation"],
                None if release is None else OnlineRelease(**release),
                None if push is None else Push(**{**push, "target": OnlineRelease(**push["target"])}),
            )
        except (ValueError, KeyError, TypeError) as error:
            raise OnlineStoreError(
                f"the record of the online store is not one of this version ({error}): {stored[:80]!r}; "
                "push with another online.namespace"
            ) from None


EMPTY = Record()


class Reading(NamedTuple):
    """A store's record, and one vector (bytes of ``release.dtype``) an entity: None where its release has none."""

    record: Record
    vectors: list[bytes | None]


class OnlineStore(Protocol):
    """Vectors by entity in versions of increasing generation, and a record.

    ``write``, ``drop`` and ``switch`` raise OvertakenError, and change nothing more, unless the store's record is
    ``was``; afterwards it is ``now``. A call that is repeated after a kill gives the same result. Every method raises
    OnlineStoreError if the store does not answer.
    """

    def read(self, entities: Sequence[Entity]) -> Reading:
        """The record and the vectors of the release that it names, of one moment, in one round trip."""

    def write(self, rows: Sequence[Row], was: Record, now: Record) -> None:
        """Add versions of the generation of ``was.push``, beside those that the release of ``was`` has.

        Raises LostVectorsError if an entity that is kept is not there.
        """

    def drop(self, entities: Sequence[Entity] | None, was: Record, now: Record) -> None:
        """Delete all versions of ``entities`` (None: of all in the store) that the release of ``was`` does not have."""

    def switch(self, was: Record, now: Record) -> None:
        """Replace the record: a push begins, its release is served, or it ends."""
