"""The session: an unfit Java is told in one sentence; the workers run this interpreter."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from learn_spark.core.tables.session import SessionError, check_java


def fake_java(folder: Path, version: str) -> Path:
    java = folder / "bin" / "java"
    java.parent.mkdir(parents=True)
    java.write_text(f"#!/bin/sh\necho 'openjdk version \"{version}\" 2025-01-01' >&2\n")
    java.chmod(0o755)
    return folder


@pytest.mark.parametrize(("version", "found"), [("25.0.1", "Java 25"), ("11.0.2", "Java 11"), ("1.8.0_392", "Java 1")])
def test_an_unfit_java_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, found: str) -> None:
    monkeypatch.setenv("JAVA_HOME", str(fake_java(tmp_path / "jdk", version)))
    with pytest.raises(SessionError, match=f"{found}.* Spark 4 needs Java 17 or 21"):
        check_java()


@pytest.mark.parametrize("version", ["17.0.15", "21"])
def test_a_fit_java_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    monkeypatch.setenv("JAVA_HOME", str(fake_java(tmp_path / "jdk", version)))
    check_java()


def test_no_java_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SessionError, match="no Java found"):
        check_java()
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(SessionError, match="does not run"):
        check_java()


def test_workers_run_this_interpreter(spark: SparkSession) -> None:
    def where(_: object) -> list[str]:
        import sys

        return [sys.executable]

    found = set(spark.sparkContext.parallelize(range(2), 2).mapPartitions(where).collect())
    assert found == {sys.executable}
