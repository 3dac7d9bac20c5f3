"""The rows of the item matrix that each text's embedding fills, and the embeddings a few at a time."""

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
    """Items without an embedding under the requested encoder and template."""


@dataclass(frozen=True, eq=False)
class ItemTexts:
    """The text of every item, and the items of every text.

    ``keys`` [distinct] are the sorted text keys. ``by_text[starts[t] : starts[t + 1]]`` are the items that share text
    t, as rows of ``item_ids`` [n] and ``indexes`` [n]. ``lacks_text`` [n] is True for items without a text.
    """

    item_ids: pa.Array
    indexes: np.ndarray
    lacks_text: np.ndarray
    keys: np.ndarray
    by_text: np.ndarray
    starts: np.ndarray

    @staticmethod
    def read(item_index: Snapshot, item_text: Snapshot, template_version: str) -> ItemTexts:
        """Read from the narrow columns of the two tables. Raises MissingEmbeddingsError where there is no item."""
        items = item_index.to_arrow(["item_id", "item_index"])
        if not items.num_rows:
            raise MissingEmbeddingsError(f"{item_index.path} @ {item_index.version} has no items; run ingest first")
        texts = item_text.to_arrow(["item_id", "template_version", "text_key"])
        texts = texts.filter(pc.equal(texts["template_version"], template_version))
        item_ids = items["item_id"].combine_chunks()
        item_rows = pc.index_in(item_ids, texts["item_id"].combine_chunks())
        lacks_text = item_rows.is_null().to_numpy(zero_copy_only=False)
        rows = np.flatnonzero(~lacks_text)
        keys, text = np.unique(
            _fixed_width(texts["text_key"].combine_chunks().take(item_rows.drop_null())), return_inverse=True
        )
        order = np.argsort(text, kind="stable")
        starts = np.searchsorted(text[order], np.arange(len(keys) + 1))
        return ItemTexts(item_ids, items["item_index"].to_numpy(), lacks_text, keys, rows[order], starts)

    @property
    def distinct(self) -> int:
        """Number of distinct texts."""
        return len(self.keys)

    @property
    def highest_index(self) -> int:
        """The largest item_index."""
        return int(self.indexes.max())

    def find(self, keys: pa.Array) -> tuple[np.ndarray, np.ndarray]:
        """(texts, places): the texts of items among ``keys``, each once, and the index of its first occurrence in
        ``keys``.
        """
        if not self.distinct:
            return np.empty(0, np.int64), np.empty(0, np.int64)
        requested = _fixed_width(keys)
        candidates = np.minimum(np.searchsorted(self.keys, requested), self.distinct - 1)
        places = np.flatnonzero(self.keys[candidates] == requested)
        texts, first_places = np.unique(candidates[places], return_index=True)
        return texts, places[first_places]

    def positions(self, texts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(item_index of every item with one of ``texts``, the index in ``texts`` of each one's text)."""
        counts = self.starts[texts + 1] - self.starts[texts]
        source = np.repeat(np.arange(len(texts)), counts)
        within = np.arange(len(source)) - np.repeat(np.cumsum(counts) - counts, counts)
        return self.indexes[self.by_text[self.starts[texts][source] + within]], source

    def refuse_missing(self, embedded: np.ndarray) -> None:
        """Raise MissingEmbeddingsError unless every item has a text and every text is ``embedded`` [distinct]."""
        missing = self.lacks_text.copy()
        missing[self.by_text[~np.repeat(embedded, np.diff(self.starts))]] = True
        if missing.any():
            examples = ", ".join(self.item_ids.filter(pa.array(missing)).slice(0, 3).to_pylist())
            raise MissingEmbeddingsError(
                f"{int(missing.sum()):,} of {len(missing):,} items have no embedding of this encoder and template "
                f"(for example {examples}); run item_text and embed_items, and see the table quarantine"
            )


def embeddings_by_text(embeddings: Snapshot, encoder_key: str) -> Iterator[tuple[pa.Array, np.ndarray]]:
    """(text keys [m], vectors [m, hidden]) of one encoder, file by file, at most 2,048 at a time.

    Raises SnapshotError for a file whose number of rows differs from the Delta log's, and MissingEmbeddingsError where
    vectors have different lengths.
    """
    width: int | None = None
    for path, logged_rows in zip(embeddings.files, embeddings.file_rows, strict=True):
        with pq.ParquetFile(path, buffer_size=_BUFFER, filesystem=embeddings.file_system) as file:
            if file.metadata.num_rows != logged_rows:
                raise SnapshotError(
                    f"{path} has {file.metadata.num_rows:,} rows, but the Delta log of {embeddings.path} @ "
                    f"{embeddings.version} records {logged_rows:,}"
                )
            columns = ["encoder_key", "text_key", "embedding"]
            groups = [i for i in range(file.num_row_groups) if _may_contain(file.metadata.row_group(i), encoder_key)]
            for batch in file.iter_batches(_ROWS, row_groups=groups, columns=columns):
                batch = batch.filter(pc.equal(batch["encoder_key"], encoder_key))
                if not batch.num_rows:
                    continue
                vectors = batch["embedding"]
                lengths = pc.min_max(pc.list_value_length(vectors)).as_py()
                width = lengths["min"] if width is None else width
                if lengths != {"min": width, "max": width}:
                    raise MissingEmbeddingsError(
                        f"embeddings of encoder {encoder_key} have {lengths['min']} to {lengths['max']} values "
                        f"in {path}, expected {width}"
                    )
                yield batch["text_key"], vectors.flatten().to_numpy().reshape(-1, width)


def _may_contain(row_group: pq.RowGroupMetaData, encoder_key: str) -> bool:
    for number in range(row_group.num_columns):
        column = row_group.column(number)
        if column.path_in_schema == "encoder_key" and column.statistics is not None and column.statistics.has_min_max:
            return bool(column.statistics.min <= encoder_key <= column.statistics.max)
    return True


def _fixed_width(keys: pa.Array) -> np.ndarray:
    """Text keys as fixed-width bytes, which sort and compare without a Python object per key."""
    if not len(keys):
        return np.empty(0, "S1")
    lengths = pc.min_max(pc.binary_length(keys)).as_py()
    if lengths["min"] != lengths["max"]:
        raise LearnSparkError(
            f"text keys have {lengths['min']} to {lengths['max']} characters; expected hashes of one length"
        )
    width = lengths["max"]
    offsets = np.frombuffer(keys.buffers()[1], np.int64 if pa.types.is_large_string(keys.type) else np.int32)
    first = offsets[keys.offset]
    return np.frombuffer(keys.buffers()[2], np.uint8)[first : first + width * len(keys)].view(f"S{width}")
