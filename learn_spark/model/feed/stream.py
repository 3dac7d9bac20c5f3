"""User histories of one Delta snapshot, streamed by Petastorm, shuffled in bounded memory, with every row counted."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from learn_spark.core.errors import LearnSparkError, RowCountError
from learn_spark.core.tables.snapshot import Snapshot
from learn_spark.model.feed.batches import even_bound, form_batches
from learn_spark.model.feed.order import (
    BATCHES,
    ROWS,
    Segment,
    generator_for,
    rank_range,
    rank_segments,
    steps_per_epoch,
)
from learn_spark.model.feed.prefixes import Prefixes
from learn_spark.model.feed.shuffle import Rows, ShuffleBuffer, row_count


class HistoryStream:
    """Rows of a snapshot, one epoch at a time, for one of ``world`` processes.

    The order is a pure function of (seed, epoch, rank, world). Files are permuted by (seed, epoch) and laid end to end.
    A process has a contiguous range of their rows; ranges differ by at most one row. Its row groups are permuted, and
    rows pass through a buffer of ``shuffle_rows``. Processes are disjoint, together complete, and have equally many
    steps.

    ``bucket_batches`` k > 1 sorts k batches of shuffled rows at a time by ``length_column`` (one of ``columns``), so
    that rows of similar length share a batch, and shuffles the order of those batches. At any step all processes then
    have batches of similar length.

    ``until`` (one of ``columns``; None: no limit) is a column of lengths: lists are 0 from their row's value on, so
    that events that a reader may not see are never passed on. ``transform`` (None: none) changes the columns of rows
    as they are read, before ``until`` applies; it must treat each row by itself, and reads ``transform_columns`` of
    ``columns``.

    With ``prefixes`` the stream is of samples: every row becomes its samples before the buffer, and ``shuffle_rows``
    and batches count samples. All processes have the same number of steps in every epoch, and each spreads its samples
    evenly over them. The numbers of samples are read from a few columns before the first epoch.

    Rows in memory: ``shuffle_rows``, one row group, and k batches. Raises ValueError for contradictory arguments and
    LearnSparkError for an empty snapshot.
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
        transform: Callable[[Rows], Rows] | None = None,
        transform_columns: Sequence[str] = (),
        prefixes: Prefixes | None = None,
    ) -> None:
        if shuffle_rows < 1:
            raise ValueError(f"shuffle_rows {shuffle_rows} must be at least 1")
        if not 0 <= rank < world:
            raise ValueError(f"rank {rank} must be in 0..{world - 1}, for {world} processes")
        if bucket_batches < 1:
            raise ValueError(f"bucket_batches {bucket_batches} must be at least 1 (1: no bucketing)")
        if bucket_batches > 1 and length_column not in columns:
            raise ValueError(f"bucket_batches {bucket_batches} needs a length_column among {columns}: {length_column}")
        if until is not None and until not in columns:
            raise ValueError(f"until {until} must be one of the columns {columns}")
        if snapshot.rows == 0:
            raise LearnSparkError(f"{snapshot.path} @ {snapshot.version} has no rows; run histories on events first")
        self.snapshot, self.columns, self.shuffle_rows, self.seed = snapshot, columns, shuffle_rows, seed
        self.rank, self.world = rank, world
        self.bucket_batches, self.length_column, self.until = bucket_batches, length_column, until
        self.transform, self.transform_columns, self.prefixes = transform, transform_columns, prefixes
        self._group_rows: dict[int, tuple[int, ...]] = {}
        self._group_samples: dict[tuple[Segment, int], int] = {}

    def steps(self, batch_size: int) -> int:
        """Batches of an epoch, the same for all processes and epochs; 0 where no row has a sample."""
        if self.prefixes is None:
            return steps_per_epoch(self.snapshot.rows, self.world, batch_size)
        everything = [Segment(file, 0, rows) for file, rows in enumerate(self.snapshot.file_rows)]
        return steps_per_epoch(self._count_samples(self._groups(everything)), self.world, batch_size)

    def epoch(self, epoch: int, batch_size: int, *, start: int = 0) -> Iterator[Rows]:
        """Batches ``start``, ``start`` + 1, ... of an epoch: column -> array [rows] or [rows, L].

        All have ``batch_size`` rows but the last, which in some processes has one row less than in others (none, if the
        others have one). With ``prefixes`` the batches of a process differ by at most one sample. A later ``start``
        gives exactly the batches that the whole epoch would have given, bit for bit.

        Raises ValueError for a start outside the epoch, and RowCountError, before the last batch at the latest, if a
        row of the process was not read or a file's number of rows differs from the Delta log's.
        """
        steps = self.steps(batch_size)
        if not 0 <= start <= steps:
            raise ValueError(f"start {start} must be in 0..{steps}, the steps of an epoch")
        groups = self._groups(self._segments(epoch))
        bound = partial(operator.mul, batch_size)
        if self.prefixes is not None:
            bound = partial(even_bound, self._count_samples(groups), steps)
        return form_batches(
            self._shuffled(epoch, groups),
            bound=bound,
            steps=steps,
            start=start,
            bucket_batches=self.bucket_batches,
            length_column=self.length_column if self.bucket_batches > 1 else None,
            pool_generator=partial(generator_for, self.seed, epoch, BATCHES),
        )

    def _shuffled(self, epoch: int, groups: list[tuple[Segment, int]]) -> Iterator[Rows]:
        low, high = rank_range(self.snapshot.rows, self.rank, self.world)
        generator = generator_for(self.seed, epoch, ROWS, self.world, self.rank)
        expected = high - low if self.prefixes is None else self._count_samples(groups)
        buffer = ShuffleBuffer(max(1, min(self.shuffle_rows, expected)), generator)
        seen = 0
        for rows in self._read([groups[i] for i in generator.permutation(len(groups))], self.columns):
            seen += row_count(rows)
            readable = rows if self.until is None else _truncate(rows, rows[self.until])
            for block in [readable] if self.prefixes is None else self.prefixes.samples(readable):
                yield from buffer.push(block)
        if seen != high - low:
            raise RowCountError(
                f"epoch {epoch}, process {self.rank} of {self.world}: {seen:,} rows were read, expected {high - low:,} "
                f"of {self._name} (rows {low:,} to {high:,} of {self.snapshot.rows:,})"
            )
        yield from buffer.flush()

    @property
    def _name(self) -> str:
        return f"{self.snapshot.path} @ {self.snapshot.version}"

    def _segments(self, epoch: int) -> list[Segment]:
        """The process's range of an epoch; at least one segment, which may be empty."""
        file_rows = self.snapshot.file_rows
        segments = rank_segments(file_rows, seed=self.seed, epoch=epoch, rank=self.rank, world=self.world)
        return segments or [self._empty_segment()]

    def _count_samples(self, groups: list[tuple[Segment, int]]) -> int:
        """The number of samples of the segments in ``groups``, by the columns that tell it; read once."""
        assert self.prefixes is not None
        unknown = [group for group in groups if group not in self._group_samples]
        columns = list(dict.fromkeys([*self.prefixes.columns, *self.transform_columns]))
        for group, rows in zip(unknown, self._read(unknown, columns) if unknown else (), strict=True):
            self._group_samples[group] = int(self.prefixes.counts(rows).sum())
        return sum(self._group_samples[group] for group in groups)

    def _groups(self, segments: list[Segment]) -> list[tuple[Segment, int]]:
        """The row groups that overlap ``segments``, each with the segment of it that is read."""
        groups = []
        for segment in segments:
            first_row = 0
            for number, rows in enumerate(self._group_sizes(segment.file)):
                low, high = max(segment.start, first_row), min(segment.stop, first_row + rows)
                if low < high or (segment.start == segment.stop and first_row == 0):
                    groups.append((Segment(segment.file, low - first_row, high - first_row), number))
                first_row += rows
        return groups

    def _empty_segment(self) -> Segment:
        """A segment without rows, from which a process without rows learns the shapes of its empty batches."""
        return Segment(next(i for i, rows in enumerate(self.snapshot.file_rows) if rows), 0, 0)

    def _group_sizes(self, file: int) -> tuple[int, ...]:
        """Rows of each row group by the file's footer, cached. Raises RowCountError where the Delta log has another
        total.
        """
        if file not in self._group_rows:
            path, logged_rows = self.snapshot.files[file], self.snapshot.file_rows[file]
            try:
                footer = pq.read_metadata(path, filesystem=self.snapshot.file_system)
            except FileNotFoundError:
                raise RowCountError(
                    f"{path} of {self._name} does not exist: it was vacuumed or removed; open a newer version"
                ) from None
            except (pa.ArrowInvalid, OSError) as error:
                raise RowCountError(f"{path} of {self._name} is not a readable Parquet file: {error}") from None
            if footer.num_rows != logged_rows:
                raise RowCountError(
                    f"{path} has {footer.num_rows:,} rows, but the Delta log of {self._name} records {logged_rows:,}"
                )
            missing = set(self.columns) - set(footer.schema.to_arrow_schema().names)
            if missing:
                raise LearnSparkError(f"{path} of {self._name} has no column {', '.join(sorted(missing))}")
            self._group_rows[file] = tuple(footer.row_group(i).num_rows for i in range(footer.num_row_groups))
        return self._group_rows[file]

    def _read(self, groups: list[tuple[Segment, int]], columns: list[str]) -> Iterator[Rows]:
        # Petastorm takes a second to import, and the layout above does not need it.
        from learn_spark.model.feed.row_groups import RowGroup, read_row_groups

        requested = [RowGroup(self.snapshot.files[segment.file], number) for segment, number in groups]
        shapes: dict[str, tuple[int, ...]] = {}
        read = read_row_groups(requested, columns, self.snapshot.file_system)
        for (segment, number), group in zip(groups, requested, strict=True):
            received, rows = next(read, (None, {}))
            if received != group:
                raise RowCountError(
                    f"{self._name}: expected row group {number} of {group.file}, Petastorm returned {received}"
                )
            expected_rows = self._group_sizes(segment.file)[number]
            if row_count(rows) != expected_rows:
                raise RowCountError(
                    f"row group {number} of {group.file} has {row_count(rows):,} rows, "
                    f"its footer records {expected_rows:,}"
                )
            for name, values in rows.items():
                if values.shape[1:] != shapes.setdefault(name, values.shape[1:]):
                    raise LearnSparkError(
                        f"column {name} of {group.file} has lists of {values.shape[1:]} values, other files of "
                        f"{shapes[name]}; histories of one table must have one padded length"
                    )
            in_segment: Rows = {name: values[segment.start : segment.stop] for name, values in rows.items()}
            yield in_segment if self.transform is None else self.transform(in_segment)
        if next(read, None) is not None:
            raise RowCountError(
                f"{self._name}: Petastorm returned more than the {len(requested):,} requested row groups"
            )


def _truncate(rows: Rows, lengths: np.ndarray) -> Rows:
    """``rows`` with every list [rows, L] set to 0 from its row's value of ``lengths`` [rows] on."""
    truncated = {}
    for name, values in rows.items():
        if values.ndim == 2:
            inside = np.arange(values.shape[1]) < lengths[:, None]
            values = np.where(inside, values, values.dtype.type(0))
        truncated[name] = values
    return truncated
