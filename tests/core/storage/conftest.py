"""Tests of paths and folders run in HDFS too."""

from __future__ import annotations

import pytest

from learn_spark.core.storage.path import StoragePath
from tests.places import empty_place


@pytest.fixture(params=["folder", "s3", "hdfs"])
def place(request: pytest.FixtureRequest) -> StoragePath:
    """An empty place: a folder, an address in S3, an address in HDFS."""
    return empty_place(request.param, request)
