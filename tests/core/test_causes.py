"""Unexpected errors of Java, of Spark's workers and of the disk in one sentence: the innermost cause and the file."""

from __future__ import annotations

import errno
import os
import resource
import signal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from learn_spark.commands.app import Opened, _guarded
from learn_spark.core.causes import explained
from learn_spark.core.console import Reporter
from learn_spark.core.settings import load_settings
from learn_spark.core.tables.contracts import contract
from learn_spark.core.tables.log import append_rows
from learn_spark.core.tables.workspace import Workspace


def raised_by(spark: SparkSession, folder: Path, case: str) -> Exception:
    """The error of one thing that goes wrong behind Java or in a worker."""
    good, broken = folder / "good.parquet", folder / "broken.parquet"
    pq.write_table(pa.table({"x": [1, 2]}), good)
    broken.write_bytes(good.read_bytes()[:-20])

    def fails(rows: object) -> list[int]:
        raise KeyError("the tower has no layer 7")

    def is_killed(rows: object) -> list[int]:
        os.kill(os.getpid(), signal.SIGKILL)  # as the kernel does where memory runs out
        return []

    def takes_too_much(rows: object) -> list[int]:
        resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
        return [len(np.ones(1 << 30))]

    try:
        if case == "worker":
            spark.range(2).rdd.mapPartitions(fails).collect()
        elif case == "killed worker":
            spark.range(2).rdd.mapPartitions(is_killed).collect()
        elif case == "worker without memory":
            spark.range(1).rdd.mapPartitions(takes_too_much).collect()
        elif case == "udf":
            spark.range(2).select(F.udf(fails, "int")("id")).collect()
        elif case == "broken file":
            spark.read.schema("x long").parquet(f"file:{good}", f"file:{broken}").collect()
        elif case == "vanished file":
            frame = spark.read.parquet(f"file:{good}")
            good.unlink()
            frame.collect()
        elif case == "division":
            spark.sql("select 1 / (id - 1) from range(2)").collect()
    except Exception as error:
        return error
    raise AssertionError(f"{case} raised nothing")


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        ("worker", "KeyError: 'the tower has no layer 7'"),
        ("udf", "KeyError: 'the tower has no layer 7'"),
        ("killed worker", "a worker of Spark was killed"),
        ("worker without memory", "a process of Python has too little memory"),
        ("broken file", "broken.parquet"),
        ("vanished file", "good.parquet"),
        ("division", "Division by zero"),
    ],
)
def test_the_innermost_cause_and_the_file_are_named(
    spark: SparkSession, tmp_path: Path, case: str, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    error = raised_by(spark, tmp_path, case)
    _, sentence = explained(error)
    assert expected in sentence
    assert "\n" not in sentence
    assert not any(noise in sentence for noise in ("Py4J", "An error occurred while calling", "Traceback", "o1"))

    def work() -> None:
        raise error

    assert _guarded(work, verbose=False, opened=[]) == 1
    printed = capsys.readouterr().err.splitlines()[-1]
    assert printed.startswith("error: ")
    assert expected in printed


def test_a_full_disk_and_a_folder_that_is_not_writable_are_told_as_such(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, word in ((errno.ENOSPC, "full"), (errno.EROFS, "read-only"), (errno.EACCES, "permitted")):
        known, sentence = explained(OSError(number, os.strerror(number), "/data/w/tables/items"))
        assert known
        assert word in sentence
        assert "/data/w/tables/items" in sentence
    # A log table whose disk is full is no broken contract.
    workspace = Workspace.open(str(tmp_path))
    from deltalake.exceptions import DeltaError

    from learn_spark.core.tables import log

    def full(*_: object, **__: object) -> None:
        raise DeltaError(
            "Generic LocalFileSystem error: Unable to copy data to file: No space left on device (os error 28)"
        )

    monkeypatch.setattr(log, "write_deltalake", full)
    with pytest.raises(DeltaError) as refused:
        append_rows(workspace.table("encoders"), contract("encoders"), [])
    assert explained(refused.value)[0]


def test_where_the_stack_trace_cannot_be_written_the_error_is_one_line_all_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace = Workspace.open(str(tmp_path / "w"))
    (tmp_path / "w" / "logs").write_text("a file, where the folder should be")
    opened = [Opened(load_settings("learn"), workspace, Reporter())]

    def work() -> None:
        raise RuntimeError("the tower fell")

    assert _guarded(work, verbose=False, opened=opened) == 1
    assert capsys.readouterr().err == "error: RuntimeError: the tower fell (--verbose shows the stack trace)\n"
    (tmp_path / "w" / "logs").unlink()
    assert _guarded(work, verbose=False, opened=opened) == 1
    said = capsys.readouterr().err
    assert said.endswith("last-error.txt)\n")
    assert said.count("\n") == 1
    assert "the tower fell" in (tmp_path / "w" / "logs" / "last-error.txt").read_text()


def test_a_full_gpu_is_not_taken_for_spark() -> None:
    known, sentence = explained(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."))
    assert known
    assert "GPU" in sentence


def test_a_message_of_thousands_of_characters_is_bounded() -> None:
    assert len(explained(ValueError("x" * 100_000))[1]) < 600
    assert explained(ValueError(""))[1] == "ValueError"
    assert explained(RuntimeError("first line\nsecond line"))[1] == "RuntimeError: first line"
