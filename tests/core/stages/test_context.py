"""The holder of a session: what runs beside the start of the JVM."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from learn_spark.core.settings import Settings, load_settings
from learn_spark.core.stages.context import SparkHolder
from learn_spark.core.tables import session
from learn_spark.core.tables.workspace import Workspace


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings("quickstart", [f"workspace={tmp_path / 'workspace'}"])


def test_work_beside_the_start_of_a_session_is_done_when_there_is_one(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a running session; starting one is the part that takes a JVM."""
    from pyspark import SparkContext

    started, done = threading.Event(), []
    monkeypatch.setattr(SparkContext, "_active_spark_context", None)
    monkeypatch.setattr(session, "start_session", lambda *a, **k: started.set())

    def work() -> None:
        assert started.wait(30)
        done.append(threading.current_thread() is threading.main_thread())
        raise RuntimeError("whoever needs the work meets this error again")

    SparkHolder(settings, verbose=True, meanwhile=work).get(Workspace.open(settings.workspace))
    assert done == [False]


def test_a_session_of_the_caller_is_used_and_nothing_runs_beside_it(settings: Settings, spark: SparkSession) -> None:
    done: list[bool] = []
    holder = SparkHolder(settings, verbose=True, meanwhile=lambda: done.append(True))
    assert holder.get(Workspace.open(settings.workspace)).sparkContext is spark.sparkContext
    holder.stop()
    assert not done
    assert spark.range(3).count() == 3
