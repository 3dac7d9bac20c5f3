"""Empty places of every kind for tests of storage."""

from __future__ import annotations

import secrets
from pathlib import Path

import pytest

from learn_spark.core.storage.path import StoragePath, storage_path


def empty_place(kind: str, request: pytest.FixtureRequest) -> StoragePath:
    """A place where nothing is: a "folder", or an address in "s3" or "hdfs", which the tests' Spark session reaches."""
    folder: Path = request.getfixturevalue("tmp_path")
    if kind == "folder":
        return storage_path(folder)
    server: StoragePath = request.getfixturevalue({"s3": "bucket", "hdfs": "hdfs"}[kind])
    address = server / f"{folder.name}-{secrets.token_hex(4)}"
    if "spark" in request.fixturenames:
        from learn_spark.core.tables.reach import reach

        reach(request.getfixturevalue("spark"), [address])
    return address


def copy_place(source: StoragePath, target: StoragePath) -> None:
    """Copy all files below ``source``, as a tool for that does: it knows nothing of tables."""
    for entry in source.files():
        (target / entry.path.removeprefix(source)).write_bytes(entry.path.read_bytes())
