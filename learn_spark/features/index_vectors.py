"""Released vectors for an index: items in a mapped file in the order of their ids, and a sample of users as queries."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from learn_spark.core.ragged import fixed_lists
from learn_spark.core.storage.path import StoragePath
from learn_spark.core.tables.snapshot import Snapshot
from learn_spark.data.splits.sample import lowest_hashes, user_hashes

BLOCK_ROWS = 1 << 16  # vectors in memory at a time


@dataclass(frozen=True)
class ItemVectors:
    """Item ids [N], increasing, and their vectors [N, D] float32 in a file that is mapped into memory."""

    ids: pa.Array
    vectors: np.ndarray

    @staticmethod
    def read(path: StoragePath, version: int, file: Path) -> ItemVectors:
        """The vectors of ``item_features`` at ``version``, written to ``file`` in two passes over the table.

        In memory are the ids and BLOCK_ROWS vectors.
        """
        snapshot = Snapshot.open(path, version)
        ids = pa.chunked_array([batch["item_id"] for batch in snapshot.batches(["item_id"], BLOCK_ROWS)], pa.string())
        order = pc.sort_indices(ids)
        place = np.empty(len(ids), np.int64)
        place[order.to_numpy()] = np.arange(len(ids))
        vectors: np.ndarray = np.zeros((0, 1), np.float32)
        first = 0
        for batch in snapshot.batches(["embedding"], BLOCK_ROWS):
            block = fixed_lists(pa.chunked_array([batch["embedding"]]))
            if not first:
                vectors = np.lib.format.open_memmap(file, "w+", np.float32, (len(ids), block.shape[1]))
            vectors[place[first : first + len(block)]] = block
            first += len(block)
        return ItemVectors(ids.take(order).combine_chunks(), vectors)

    def blocks(self, order: np.ndarray | None = None) -> Iterator[np.ndarray]:
        """The vectors, BLOCK_ROWS at a time; ``order`` [M]: these rows, in this order."""
        places = np.arange(len(self.ids)) if order is None else order
        for start in range(0, len(places), BLOCK_ROWS):
            yield np.ascontiguousarray(self.vectors[places[start : start + BLOCK_ROWS]])

    def normalised(self, tolerance: float) -> bool:
        """Whether every vector has length 1."""
        return all(bool(np.allclose(np.linalg.norm(block, axis=1), 1.0, atol=tolerance)) for block in self.blocks())

    def lacks(self, other: ItemVectors) -> int:
        """How many items of ``other`` are not here."""
        return int(pc.index_in(other.ids, self.ids).null_count)

    def has_vectors_of(self, other: ItemVectors) -> bool:
        """Whether every item of ``other``, all of which are here, has the same vector here."""
        rows = pc.index_in(other.ids, self.ids).to_numpy().astype(np.int64)
        return all(np.array_equal(*pair) for pair in zip(self.blocks(rows), other.blocks(), strict=True))


def sampled_queries(path: StoragePath, version: int, most: int) -> np.ndarray:
    """Vectors [Q, D] of at most ``most`` users of ``user_features``, those with the lowest hashes, by their ids.

    One pass reads the ids, another one the vectors of these users.
    """
    snapshot = Snapshot.open(path, version)
    ids = (batch["user_id"] for batch in snapshot.batches(["user_id"], BLOCK_ROWS))
    highest = lowest_hashes(ids, most)
    kept_ids, kept = [], []
    for batch in snapshot.batches(["user_id", "embedding"], BLOCK_ROWS):
        chosen = batch if highest is None else batch.filter(pa.array(user_hashes(batch["user_id"]) <= highest))
        kept_ids += chosen["user_id"].to_pylist()
        kept.append(fixed_lists(pa.chunked_array([chosen["embedding"]])))
    vectors = np.concatenate([block for block in kept if len(block)])
    return np.ascontiguousarray(vectors[np.argsort(np.array(kept_ids))])
