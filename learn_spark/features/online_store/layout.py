"""The bytes of vectors in an online store (docs/online.md)."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

from learn_spark.core.errors import LearnSparkError
from learn_spark.features.online_store.store import Entity, OnlineRelease

# Of a version: its generation, and the bytes of its vector, of which 0 say that the entity is deleted.
HEADER = struct.Struct("<II")
FORMATS: dict[str, np.dtype[Any]] = {"float32": np.dtype("<f4"), "float16": np.dtype("<f2")}
TABLES = {"item": "item_features", "user": "user_features"}  # in the order in which they are pushed


def record_key(namespace: str) -> str:
    """The key of the record. The braces put all keys of a namespace on one node of a Redis Cluster."""
    return f"{{{namespace}}}:record"


def entity_key(namespace: str, entity: Entity) -> str:
    """The key of an entity's versions."""
    return f"{{{namespace}}}:{entity.kind}:{entity.id}"


def version_of(generation: int, vector: bytes) -> bytes:
    """One version; an empty vector says that the entity is deleted."""
    return HEADER.pack(generation, len(vector)) + vector


def vector_in(versions: bytes | None, release: OnlineRelease | None) -> bytes | None:
    """The vector of a release among the versions of an entity, end to end; None if it has none."""
    if not versions or release is None:
        return None
    newest, vector, place = -1, b"", 0
    while place < len(versions):
        generation, size = HEADER.unpack_from(versions, place)
        place += HEADER.size + size
        if max(newest, release.floor - 1) < generation <= release.generation:
            newest, vector = generation, versions[place - size : place]
    return vector or None


def as_bytes(vectors: np.ndarray, dtype: str) -> list[bytes]:
    """The bytes of each row of ``vectors`` [n, L] in the format ``dtype``.

    Raises LearnSparkError if a number is not finite there.
    """
    with np.errstate(over="ignore"):
        stored = np.ascontiguousarray(vectors.astype(FORMATS[dtype]))
    if not np.isfinite(stored).all():
        largest = float(np.abs(vectors).max())
        raise LearnSparkError(
            f"vectors with numbers as large as {largest:g} do not fit into {dtype}; set online.dtype=float32"
        )
    return [row.tobytes() for row in stored]


def as_array(vectors: list[bytes | None], dtype: str, length: int) -> np.ndarray:
    """``vectors`` as an array [n, length] float32; the row of None is NaN."""
    stored = FORMATS[dtype]
    missing = np.full(length, np.nan, stored).tobytes()
    joined = b"".join(missing if vector is None else vector for vector in vectors)
    return np.frombuffer(joined, stored).reshape(len(vectors), length).astype(np.float32)
