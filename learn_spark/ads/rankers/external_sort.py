"""Sorting records that do not fit in memory: sorted runs in files, then merged."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

RUN_ROWS = 1 << 20  # records in memory at once
LEAST_BLOCK = 1 << 10  # records of a run that are read at once, however many runs there are


def sort_records(parts: Iterable[np.ndarray], keys: Sequence[str], path: Path) -> None:
    """Write the records of ``parts`` (arrays of one structured type) to ``path``, ascending by ``keys``.

    In memory are RUN_ROWS records, and LEAST_BLOCK of each run where there are more than RUN_ROWS / LEAST_BLOCK runs.
    """
    runs: list[Path] = []
    for records in _of_size(parts, RUN_ROWS):
        run = path.with_name(f"{path.name}.{len(runs)}")
        records[_order(records, keys)].tofile(run)
        runs.append(run)
        dtype = records.dtype
    if len(runs) < 2:
        runs[0].rename(path) if runs else path.touch()
        return
    with path.open("wb") as file:
        for records in _merged(runs, dtype, keys):
            file.write(records.tobytes())
    for run in runs:
        run.unlink()


def read_records(path: Path, dtype: np.dtype[np.void], rows: int) -> Iterator[np.ndarray]:
    """The records of a file, at most ``rows`` at once."""
    start = 0
    while len(records := np.fromfile(path, dtype, rows, offset=start * dtype.itemsize)):
        start += len(records)
        yield records


def _of_size(parts: Iterable[np.ndarray], rows: int) -> Iterator[np.ndarray]:
    waiting: list[np.ndarray] = []
    count = 0
    for part in parts:
        while len(part):
            taken = part[: rows - count]
            waiting.append(taken)
            count += len(taken)
            part = part[len(taken) :]
            if count == rows:
                yield np.concatenate(waiting)
                waiting, count = [], 0
    if waiting:
        yield np.concatenate(waiting)


def _order(records: np.ndarray, keys: Sequence[str]) -> np.ndarray:
    return np.lexsort([records[key] for key in reversed(keys)])


def _merged(runs: Sequence[Path], dtype: np.dtype[np.void], keys: Sequence[str]) -> Iterator[np.ndarray]:
    """The records of the sorted ``runs`` in order: of a block of each run, those up to the least of the last ones."""
    rows = max(LEAST_BLOCK, RUN_ROWS // len(runs))
    sources = [read_records(run, dtype, rows) for run in runs]
    blocks = [next(source) for source in sources]
    while blocks:
        limit = min(tuple(block[key][-1] for key in keys) for block in blocks)
        ready, kept, open_sources = [], [], []
        for block, source in zip(blocks, sources, strict=True):
            count = int(_not_above(block, keys, limit).sum())
            ready.append(block[:count])
            rest = block[count:] if count < len(block) else next(source, None)
            if rest is not None:
                kept.append(rest)
                open_sources.append(source)
        blocks, sources = kept, open_sources
        records = np.concatenate(ready)
        yield records[_order(records, keys)]


def _not_above(records: np.ndarray, keys: Sequence[str], limit: Sequence[float]) -> np.ndarray:
    """Which records are at most ``limit``: a prefix, as the records ascend."""
    inside = np.ones(len(records), dtype=bool)
    for key, most in zip(reversed(keys), reversed(limit), strict=True):
        inside = (records[key] < most) | ((records[key] == most) & inside)
    return inside
