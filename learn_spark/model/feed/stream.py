"""User histories of one Delta snapshot, streamed by Petastorm, shuffled in bounded memory, every row accounted for."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from learn_spark.core.errors import LearnSparkError, RowCountError
from learn_spark.core.tables.snapshot import Snapshot
from learn_spark.model.feed.batches import cut_batches
from learn_spark.model.feed.order import (
    BATCHES,
    ROWS,
    Segment,
    generator_for,
    rank_range,
    rank_segments,
    steps_per_epoch,
)
from learn_spark.model.feed.shuffle import Rows, ShuffleBuffer, row_count


class HistoryStream:
    """Rows of a snapshot, an epoch at a time, for one of ``world`` ranks.

    The order is a pure function of (seed, epoch, rank, world). Files are permuted by (seed, epoch) and laid end to end;
    a rank has a contiguous range of their rows, balanced within one row. Its row groups are permuted, and rows pass
    through a buffer of ``shuffle_rows``. Ranks are disjoint, together complete, and have equally many steps.

    ``bucket_batches`` k > 1 sorts k batches of shuffled rows at a time by ``length_column`` (one of ``columns``), so
    that rows of like length share a batch, and shuffles the order of those batches. At any step all ranks then have
    batches of like length.

    Lists are 0 from the number on that the column ``until`` (one of ``columns``; None: nowhere) has in their row: what
    a reader may not know never leaves the file.

    Rows held at once: ``shuffle_rows``, one row group, and k batches.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        columns: list[str],
        *,
        shuffle_rows: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
        bucket_batches: int = 1,
        length_column: str | None = None,
        until: str | None = None,
    ) -> None:
        if shuffle_rows < 1:
            raise ValueError(f"shuffle_rows {shuffle_rows} must be at least 1")
        if not 0 <= rank < world:
            raise ValueError(f"rank {rank} is not one of {world} ranks, 0 to {world - 1}")
        if bucket_batches < 1:
            raise ValueError(f"bucket_batches {bucket_batches} must be at least 1 (1: no bucketing)")
        if bucket_batches > 1 and length_column not in columns:
            raise ValueError(f"bucket_batches {bucket_batches} needs a length_column among {columns}: {length_column}")
        if until is not None and until not in columns:
            raise ValueError(f"until {until} must be one of the columns {columns}")
        if snapshot.rows == 0:
            raise LearnSparkError(f"{snapshot.path} @ {snapshot.version} is empty; there is nothing to train on")
        self.snapshot, self.columns, self.shuffle_rows, self.seed = snapshot, columns, shuffle_rows, seed
        self.rank, self.world = rank, world
        self.bucket_batches, self.length_column, self.until = bucket_batches, length_column, until
        self._group_rows: dict[int, tuple[int, ...]] = {}

    def steps(self, batch_size: int) -> int:
        """Batches of an epoch, the same on all ranks."""
        return steps_per_epoch(self.snapshot.rows, self.world, batch_size)

    def epoch(self, epoch: int, batch_size: int, *, start: int = 0) -> Iterator[Rows]:
        """Batches ``start``, ``start`` + 1, ... of an epoch: column -> array [rows] or [rows, L].

        All have ``batch_size`` rows but the last, which on some ranks has one row less than on others (none, if the
        others have one). A later ``start`` gives the batches that an unbroken epoch would have given, equal to the bit.

        Raises RowCountError, before the last batch at the latest, if any row of the rank was not seen or a file does
        not hold the rows that the Delta log promises.
        """
        steps = self.steps(batch_size)
        if not 0 <= start <= steps:
            raise ValueError(f"start {start} is not within the {steps} steps of an epoch")
        return cut_batches(
            self._shuffled(epoch),
            batch_size=batch_size,
            steps=steps,
            start=start,
            bucket_batches=self.bucket_batches,
            length_column=self.length_column if self.bucket_batches > 1 else None,
            pool_generator=partial(generator_for, self.seed, epoch, BATCHES),
        )

    def _shuffled(self, epoch: int) -> Iterator[Rows]:
        low, high = rank_range(self.snapshot.rows, self.rank, self.world)
        generator = generator_for(self.seed, epoch, ROWS, self.world, self.rank)
        buffer = ShuffleBuffer(max(1, min(self.shuffle_rows, high - low)), generator)
        groups = self._groups(epoch)
        seen = 0
        for rows in self._read([groups[i] for i in generator.permutation(len(groups))]):
            seen += row_count(rows)
            yield from buffer.push(rows)
        if seen != high - low:
            raise RowCountError(
                f"epoch {epoch} gave rank {self.rank} of {self.world} {seen:,} rows, but it has {high - low:,} of "
                f"{self._name} (rows {low:,} to {high:,} of {self.snapshot.rows:,})"
            )
        yield from buffer.flush()

    @property
    def _name(self) -> str:
        return f"{self.snapshot.path} @ {self.snapshot.version}"

    def _groups(self, epoch: int) -> list[tuple[Segment, int]]:
        """The row groups that overlap the rank's range, each with the part of it that the rank has."""
        segments = rank_segments(
            self.snapshot.file_rows, seed=self.seed, epoch=epoch, rank=self.rank, world=self.world
        ) or [self._nothing()]
        groups = []
        for segment in segments:
            at = 0
            for number, rows in enumerate(self._rows_of_groups(segment.file)):
                low, high = max(segment.start, at), min(segment.stop, at + rows)
                if low < high or (segment.start == segment.stop and at == 0):
                    groups.append((Segment(segment.file, low - at, high - at), number))
                at += rows
        return groups

    def _nothing(self) -> Segment:
        """For a rank without a row: no row of a file, which still tells the shape of its empty batches."""
        return Segment(next(i for i, rows in enumerate(self.snapshot.file_rows) if rows), 0, 0)

    def _rows_of_groups(self, file: int) -> tuple[int, ...]:
        """Rows of each row group of a file by its footer, which must agree with the Delta log; read once."""
        if file not in self._group_rows:
            path, promised = self.snapshot.files[file], self.snapshot.file_rows[file]
            try:
                footer = pq.read_metadata(path)
            except FileNotFoundError:
                raise RowCountError(
                    f"{path} of {self._name} is gone: it was vacuumed or removed; open a newer version"
                ) from None
            except (pa.ArrowInvalid, OSError) as error:
                raise RowCountError(f"{path} of {self._name} is no readable Parquet file: {error}") from None
            if footer.num_rows != promised:
                raise RowCountError(
                    f"{path} holds {footer.num_rows:,} rows, but the log of {self._name} says {promised:,}"
                )
            missing = set(self.columns) - set(footer.schema.to_arrow_schema().names)
            if missing:
                raise LearnSparkError(f"{path} of {self._name} has no column {', '.join(sorted(missing))}")
            self._group_rows[file] = tuple(footer.row_group(i).num_rows for i in range(footer.num_row_groups))
        return self._group_rows[file]

    def _read(self, groups: list[tuple[Segment, int]]) -> Iterator[Rows]:
        # Petastorm takes a second to import; the layout above needs none of it.
        from learn_spark.model.feed.row_groups import RowGroup, read_row_groups

        wanted = [RowGroup(str(Path(self.snapshot.files[part.file])), number) for part, number in groups]
        shapes: dict[str, tuple[int, ...]] = {}
        read = read_row_groups(wanted, self.columns)
        for (part, number), group in zip(groups, wanted, strict=True):
            given, rows = next(read, (None, {}))
            if given != group:
                raise RowCountError(f"{self._name}: wanted row group {number} of {group.file}, Petastorm gave {given}")
            promised = self._rows_of_groups(part.file)[number]
            if row_count(rows) != promised:
                raise RowCountError(
                    f"row group {number} of {group.file} gave {row_count(rows):,} rows, its footer says {promised:,}"
                )
            for name, values in rows.items():
                if values.shape[1:] != shapes.setdefault(name, values.shape[1:]):
                    raise LearnSparkError(
                        f"column {name} of {group.file} has lists of {values.shape[1:]} values, other files of "
                        f"{shapes[name]}; histories of one table must be padded to one length"
                    )
            split = {name: values[part.start : part.stop] for name, values in rows.items()}
            yield split if self.until is None else _until(split, split[self.until])
        if next(read, None) is not None:
            raise RowCountError(f"{self._name}: Petastorm gave more row groups than the {len(wanted):,} wanted")


def _until(rows: Rows, lengths: np.ndarray) -> Rows:
    """``rows`` with 0 in every list [rows, L] from its row's ``lengths`` [rows] on."""
    known = {}
    for name, values in rows.items():
        if values.ndim == 2:
            inside = np.arange(values.shape[1]) < lengths[:, None]
            values = np.where(inside, values, values.dtype.type(0))
        known[name] = values
    return known
