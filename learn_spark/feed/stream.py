"""User histories of one Delta snapshot, streamed by Petastorm, shuffled in bounded memory, every row accounted for."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from learn_spark.errors import LearnSparkError
from learn_spark.tables.snapshot import Snapshot

Rows = Mapping[str, np.ndarray]


class RowsLost(LearnSparkError):
    """An epoch gave another number of rows than the snapshot has."""


class HistoryStream:
    """Rows of a snapshot, an epoch at a time.

    Petastorm is given the explicit file list of one snapshot: on a folder it would read removed files too, and
    unpickle whatever lies in ``_common_metadata``. The order is a pure function of (seed, epoch): files are
    permuted, then rows are drawn from a buffer of ``shuffle_rows``.
    """

    def __init__(self, snapshot: Snapshot, columns: list[str], *, shuffle_rows: int, seed: int) -> None:
        if shuffle_rows < 1:
            raise ValueError(f"shuffle_rows {shuffle_rows} must be at least 1")
        if snapshot.rows == 0:
            raise LearnSparkError(f"{snapshot.path} @ {snapshot.version} is empty; there is nothing to train on")
        self.snapshot, self.columns, self.shuffle_rows, self.seed = snapshot, columns, shuffle_rows, seed

    def epoch(self, epoch: int, batch_size: int) -> Iterator[Rows]:
        """Batches of at most ``batch_size`` rows: column -> array [rows] or [rows, L].

        Raises RowsLost at the end of the epoch if any row of the snapshot was not seen, or one was seen twice.
        """
        generator = np.random.default_rng([self.seed, epoch])
        files = [self.snapshot.files[i] for i in generator.permutation(len(self.snapshot.files))]
        held: list[Rows] = []
        seen = waiting = 0
        for rows in self._read(files):
            count = len(next(iter(rows.values())))
            seen += count
            waiting += count
            held.append(rows)
            if waiting >= self.shuffle_rows + batch_size:
                pool = _shuffled(held, generator)
                usable = waiting - self.shuffle_rows
                ready = usable - usable % batch_size
                yield from _sliced(pool, 0, ready, batch_size)
                held = [{name: values[ready:] for name, values in pool.items()}]
                waiting -= ready
        if seen != self.snapshot.rows:
            raise RowsLost(
                f"epoch {epoch} gave {seen:,} rows, but {self.snapshot.path} @ {self.snapshot.version} has "
                f"{self.snapshot.rows:,}"
            )
        yield from _sliced(_shuffled(held, generator), 0, waiting, batch_size)

    def _read(self, files: list[str]) -> Iterator[Rows]:
        # Petastorm announces its own deprecations at import and at every open.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            logging.getLogger("petastorm").setLevel(logging.ERROR)
            from petastorm import make_batch_reader

            # The dummy pool reads in this thread: the only pool whose order repeats exactly.
            with make_batch_reader(
                [Path(file).as_uri() for file in files],
                schema_fields=[f"^{name}$" for name in self.columns],
                reader_pool_type="dummy",
                shuffle_row_groups=False,
                num_epochs=1,
            ) as reader:
                for group in reader:
                    yield {name: np.asarray(getattr(group, name)) for name in self.columns}


def _shuffled(held: list[Rows], generator: np.random.Generator) -> Rows:
    joined = {name: np.concatenate([rows[name] for rows in held]) for name in held[0]}
    order = generator.permutation(len(next(iter(joined.values()))))
    return {name: values[order] for name, values in joined.items()}


def _sliced(rows: Rows, start: int, stop: int, size: int) -> Iterator[Rows]:
    for at in range(start, stop, size):
        yield {name: values[at : min(at + size, stop)] for name, values in rows.items()}
