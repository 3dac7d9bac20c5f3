"""Exposures that memory has no room for: windows, samples, sorted files, and metrics that are those of the arrays."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from learn_spark.ads.rankers import external_sort, streamed
from learn_spark.ads.rankers import inputs as windowing
from learn_spark.ads.rankers.evaluation import ArrayScores, evaluate_rankers
from learn_spark.ads.rankers.external_sort import read_records, sort_records
from learn_spark.ads.rankers.fit import losses_of, shape_of, train_network
from learn_spark.ads.rankers.input_files import InputFile, _record
from learn_spark.ads.rankers.inputs import Inputs, sampled, shuffled, windows
from learn_spark.ads.rankers.metrics import log_loss
from learn_spark.ads.rankers.score_files import OUTCOME, ScoreFiles
from learn_spark.ads.rankers.streamed import StreamedScores
from tests.ads.rankers.rankings import ranking, score_network


class Counted:
    """A file of exposures that remembers how many rows each read had."""

    def __init__(self, file: InputFile) -> None:
        self.file, self.vectors, self.reads = file, file.vectors, list[int]()

    def __len__(self) -> int:
        return len(self.file)

    def read(self, start: int, stop: int) -> Inputs:
        read = self.file.read(start, stop)
        self.reads.append(len(read))
        return read


def stored(folder: Path, rows: int) -> Counted:
    """Exposures whose time, user, item and weight are their number, and whose label follows their first field."""
    chance = np.random.default_rng(0)
    records = np.empty(rows, _record(2))
    records["time"] = records["weight"] = np.arange(rows) + 1
    records["user"], records["item"] = chance.integers(0, 5, (2, rows))
    records["rows"] = chance.integers(0, 6, (rows, 2))
    records["counts"] = chance.integers(0, 9, (rows, 6)) + np.array([9, 0, 9, 0, 0, 0])
    records["label"] = chance.random(rows) < records["rows"][:, 0] / 6
    records.tofile(folder / "exposures")
    vectors = chance.normal(size=(5, 3)).astype(np.float32)
    return Counted(InputFile(folder / "exposures", rows, 2, vectors))


@pytest.fixture
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windowing, "WINDOW_ROWS", 64)
    monkeypatch.setattr(windowing, "BLOCK_ROWS", 8)


def numbers(parts: Iterator[Inputs]) -> list[int]:
    return [int(weight) for part in parts for weight in part.weight]


def test_a_shuffle_of_windows_has_every_exposure_once_in_an_order_of_the_seed(
    tmp_path: Path, small_windows: None
) -> None:
    source = stored(tmp_path, 1003)
    first, again, other = (numbers(shuffled(source, np.random.default_rng(seed))) for seed in (1, 1, 2))
    assert sorted(first) == list(range(1, 1004))
    assert first == again != other
    assert max(source.reads) <= 64
    # A window comes from all of the exposures, not from one stretch of them.
    assert np.ptp(first[:64]) > 500
    assert numbers(windows(source)) == list(range(1, 1004))
    in_memory = Inputs(*(getattr(source.file.read(0, 1003), name) for name in Inputs.__dataclass_fields__))
    assert numbers(shuffled(in_memory, np.random.default_rng(1))) == first
    # What fits in a window is shuffled as a whole, by one permutation.
    few = stored(tmp_path, 60)
    order = np.random.default_rng(1)
    assert numbers(shuffled(few, order)) == (np.random.default_rng(1).permutation(60) + 1).tolist()


def test_a_sample_has_one_exposure_of_each_stretch(tmp_path: Path, small_windows: None) -> None:
    source = stored(tmp_path, 1003)
    chosen = [int(weight) - 1 for weight in sampled(source, 100, 3).weight]
    assert len(chosen) == 100
    assert [number * 100 // 1003 for number in chosen] == pytest.approx(range(100), abs=1)
    assert sorted(set(chosen)) == chosen
    assert max(source.reads) <= 64
    assert len(sampled(source, 1003, 3)) == len(sampled(source, 5000, 3)) == 1003


def test_a_network_of_windows_scores_as_one_of_arrays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train, validation = (stored(tmp_path / name, rows) for name, rows in _folders(tmp_path, train=1500, validation=300))
    settings = ranking(epochs=4, patience=100, batch_size=64)
    shape = shape_of("learn", [6, 6], 3, settings)
    whole = train_network(shape, train, validation, settings, 1)
    arrays = [each.file.read(0, len(each)) for each in (train, validation)]
    same = train_network(shape, *arrays, settings, 1)
    assert whole[1] == same[1]
    monkeypatch.setattr(windowing, "WINDOW_ROWS", 64)
    monkeypatch.setattr(windowing, "BLOCK_ROWS", 8)
    train.reads.clear()
    validation.reads.clear()
    parted, checks = train_network(shape, train, validation, settings, 1)
    # Another order of batches, the same task: the exposures are weighted by their number.
    best, expected = (min(check.validation for check in each) for each in (checks, whole[1]))
    assert best == pytest.approx(expected, abs=0.03)
    assert max(train.reads + validation.reads) <= 64
    # Four epochs; statistics, and the scales of counts, vectors and scores, are a pass each.
    assert sum(train.reads) == 1500 * (4 + 4)
    full = validation.file.read(0, 300)
    expected = log_loss(score_network(parted, full), full.label, full.weight.astype(np.float64))
    assert losses_of(parted, validation)[0] == pytest.approx(expected, abs=1e-12)


def _folders(folder: Path, **rows: int) -> Iterator[tuple[str, int]]:
    for name, count in rows.items():
        (folder / name).mkdir()
        yield name, count


@pytest.fixture
def small_runs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Small runs, blocks and chunks; the number of records of each read."""
    monkeypatch.setattr(external_sort, "RUN_ROWS", 100)
    monkeypatch.setattr(external_sort, "LEAST_BLOCK", 7)
    monkeypatch.setattr(streamed, "CHUNK_ROWS", 37)
    monkeypatch.setattr(streamed, "TIMES_BYTES", 1000)
    reads: list[int] = []

    def read(*arguments: Any) -> Iterator[np.ndarray]:
        for records in read_records(*arguments):
            reads.append(len(records))
            yield records

    monkeypatch.setattr(external_sort, "read_records", read)
    return reads


def test_sorting_in_files_is_sorting_in_memory(tmp_path: Path, small_runs: list[int]) -> None:
    chance = np.random.default_rng(1)
    dtype = np.dtype([("user", np.int64), ("score", np.float64), ("number", np.int64)])
    for rows, values in ((0, 3), (40, 3), (1003, 5), (1003, 10**6), (700, 1)):
        records = np.empty(rows, dtype)
        records["user"], records["score"] = chance.integers(0, values, (2, rows))
        records["number"] = np.arange(rows)
        path = tmp_path / f"{rows}-{values}"
        sort_records((records[start : start + 60] for start in range(0, rows, 60)), ("user", "score"), path)
        ordered = np.fromfile(path, dtype)
        expected = records[np.lexsort((records["score"], records["user"]))]
        for key in ("user", "score"):
            assert np.array_equal(ordered[key], expected[key])
        assert np.array_equal(np.sort(ordered["number"]), np.arange(rows))
    assert max(small_runs) <= 100 // 7
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0-3", "1003-1000000", "1003-5", "40-3", "700-1"]


@pytest.mark.parametrize("levels", [4, 10**6])
def test_metrics_of_sorted_files_are_those_of_arrays(tmp_path: Path, small_runs: list[int], levels: int) -> None:
    chance = np.random.default_rng(levels)
    rows, users, items = 900, 40, 25
    names = [(variant, seed) for variant in ("base", "learn") for seed in (1, 2)]
    files = ScoreFiles(tmp_path, names, users, items, True)
    for _ in range(9):
        outcomes = np.empty(rows // 9, OUTCOME)
        # A third of the rows are of one user, whose ties are longer than a chunk.
        outcomes["user"] = np.where(chance.random(rows // 9) < 0.3, 7, chance.integers(0, users, rows // 9))
        outcomes["item"] = chance.integers(0, items, rows // 9)
        outcomes["request"] = chance.integers(-1, 60, rows // 9)
        outcomes["label"] = chance.random(rows // 9) < 0.3
        outcomes["weight"] = chance.integers(1, 9, rows // 9) / 4
        outcomes["item_cohort"] = np.minimum(outcomes["item"] // 5, 2)
        outcomes["user_cohort"] = np.where(outcomes["user"] == 7, 0, 2)
        files.append(outcomes)
        for name in names:
            scores = (outcomes["label"] * 0.2 + chance.random(rows // 9)) / 1.2
            files.append_scores(name, (scores * levels).astype(int) / levels)
    assert files.rows == rows
    arrays = evaluate_rankers(ArrayScores(*files.arrays()), bins=5, samples=30, seed=3)
    passes = evaluate_rankers(StreamedScores(files), bins=5, samples=30, seed=3)
    assert len(arrays) == len(passes) == 6 * (2 * 3 * 8 + 4)
    for one, other in zip(arrays, passes, strict=True):
        for name in ("variant", "seed", "against", "dimension", "cohort", "metric", "size"):
            assert getattr(one, name) == getattr(other, name)
        for name in ("value", "low", "high", "p"):
            expected, number = getattr(one, name), getattr(other, name)
            assert (number is None) == (expected is None)
            if number is not None:
                assert number == pytest.approx(expected, abs=1e-12, nan_ok=True), (one, name)
    assert max(small_runs) <= 37
