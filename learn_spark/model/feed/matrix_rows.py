"""Which embedding belongs at which rows of the item matrix, and the embeddings a few at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from learn_spark.core.errors import LearnSparkError
from learn_spark.core.tables.snapshot import Snapshot, SnapshotError

_ROWS = 2048
_BUFFER = 1 << 20


class MissingEmbeddingsError(LearnSparkError):
    """Items without an embedding under the wanted encoder."""


@dataclass(frozen=True, eq=False)
class TextsOfItems:
    """The text of every item, and the items of every text.

    ``keys`` [distinct] are the sorted text keys. ``by_text[starts[t] : starts[t + 1]]`` are the items that share text
    t, as rows of ``item_ids`` [n] and ``indexes`` [n]. ``without`` [n] marks items that have no text.
    """

    item_ids: pa.Array
    indexes: np.ndarray
    without: np.ndarray
    keys: np.ndarray
    by_text: np.ndarray
    starts: np.ndarray

    @staticmethod
    def read(item_index: Snapshot, item_text: Snapshot, template_version: str) -> TextsOfItems:
        """From the two tables' narrow columns; MissingEmbeddingsError where there is no item at all."""
        items = item_index.to_arrow(["item_id", "item_index"])
        if not items.num_rows:
            raise MissingEmbeddingsError(f"{item_index.path} @ {item_index.version} has no items; run ingest first")
        texts = item_text.to_arrow(["item_id", "template_version", "text_key"])
        texts = texts.filter(pc.equal(texts["template_version"], template_version))
        item_ids = items["item_id"].combine_chunks()
        place = pc.index_in(item_ids, texts["item_id"].combine_chunks())
        without = place.is_null().to_numpy(zero_copy_only=False)
        rows = np.flatnonzero(~without)
        keys, text = np.unique(_fixed(texts["text_key"].combine_chunks().take(place.drop_null())), return_inverse=True)
        order = np.argsort(text, kind="stable")
        starts = np.searchsorted(text[order], np.arange(len(keys) + 1))
        return TextsOfItems(item_ids, items["item_index"].to_numpy(), without, keys, rows[order], starts)

    @property
    def distinct(self) -> int:
        """Number of distinct texts."""
        return len(self.keys)

    @property
    def highest_index(self) -> int:
        """The largest item_index."""
        return int(self.indexes.max())

    def find(self, keys: pa.Array) -> tuple[np.ndarray, np.ndarray]:
        """(texts, places): the known texts among ``keys``, each once, and where in ``keys`` they first stand."""
        if not self.distinct:
            return np.empty(0, np.int64), np.empty(0, np.int64)
        wanted = _fixed(keys)
        text = np.minimum(np.searchsorted(self.keys, wanted), self.distinct - 1)
        places = np.flatnonzero(self.keys[text] == wanted)
        known, first = np.unique(text[places], return_index=True)
        return known, places[first]

    def positions(self, texts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(item_index values that have one of ``texts``, which of ``texts`` each has)."""
        counts = self.starts[texts + 1] - self.starts[texts]
        source = np.repeat(np.arange(len(texts)), counts)
        within = np.arange(len(source)) - np.repeat(np.cumsum(counts) - counts, counts)
        return self.indexes[self.by_text[self.starts[texts][source] + within]], source

    def refuse_missing(self, found: np.ndarray) -> None:
        """MissingEmbeddingsError unless every item has a text and every text was ``found`` [distinct]."""
        lacking = self.without.copy()
        lacking[self.by_text[~np.repeat(found, np.diff(self.starts))]] = True
        if lacking.any():
            some = ", ".join(self.item_ids.filter(pa.array(lacking)).slice(0, 3).to_pylist())
            raise MissingEmbeddingsError(
                f"{int(lacking.sum()):,} of {len(lacking):,} items have no embedding of this encoder and template "
                f"(such as {some}); run item_text and embed_items, and look into quarantine"
            )


def embeddings_by_text(embeddings: Snapshot, encoder_key: str) -> Iterator[tuple[pa.Array, np.ndarray]]:
    """(text keys [m], vectors [m, hidden]) of one encoder, file by file, at most 2,048 at a time.

    Raises SnapshotError for a file that holds another number of rows than the log says, and MissingEmbeddingsError
    where vectors have different lengths.
    """
    width: int | None = None
    for path, promised in zip(embeddings.files, embeddings.file_rows, strict=True):
        with pq.ParquetFile(path, buffer_size=_BUFFER) as file:
            if file.metadata.num_rows != promised:
                raise SnapshotError(
                    f"{path} holds {file.metadata.num_rows:,} rows, but the log of {embeddings.path} @ "
                    f"{embeddings.version} says {promised:,}"
                )
            columns = ["encoder_key", "text_key", "embedding"]
            groups = [i for i in range(file.num_row_groups) if _may_hold(file.metadata.row_group(i), encoder_key)]
            for batch in file.iter_batches(_ROWS, row_groups=groups, columns=columns):
                batch = batch.filter(pc.equal(batch["encoder_key"], encoder_key))
                if not batch.num_rows:
                    continue
                vectors = batch["embedding"]
                lengths = pc.min_max(pc.list_value_length(vectors)).as_py()
                width = lengths["min"] if width is None else width
                if lengths != {"min": width, "max": width}:
                    raise MissingEmbeddingsError(
                        f"the embeddings of encoder {encoder_key} have different lengths, see {path}"
                    )
                yield batch["text_key"], vectors.flatten().to_numpy().reshape(-1, width)


def _may_hold(row_group: pq.RowGroupMetaData, encoder_key: str) -> bool:
    for number in range(row_group.num_columns):
        column = row_group.column(number)
        if column.path_in_schema == "encoder_key" and column.statistics is not None and column.statistics.has_min_max:
            return bool(column.statistics.min <= encoder_key <= column.statistics.max)
    return True


def _fixed(keys: pa.Array) -> np.ndarray:
    """Text keys as fixed-width bytes, which sort and compare without an object a key."""
    if not len(keys):
        return np.empty(0, "S1")
    lengths = pc.min_max(pc.binary_length(keys)).as_py()
    if lengths["min"] != lengths["max"]:
        raise LearnSparkError(
            f"text keys of {lengths['min']} to {lengths['max']} characters; they are hashes of one length"
        )
    width = lengths["max"]
    offsets = np.frombuffer(keys.buffers()[1], np.int64 if pa.types.is_large_string(keys.type) else np.int32)
    first = offsets[keys.offset]
    return np.frombuffer(keys.buffers()[2], np.uint8)[first : first + width * len(keys)].view(f"S{width}")
