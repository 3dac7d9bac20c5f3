"""A server of S3 that answers with errors alone, or not at all, is named in one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from learn_spark.core.causes import explained
from learn_spark.core.storage.path import S3Access, StoragePath
from learn_spark.core.tables.runs import all_runs, record
from learn_spark.core.tables.workspace import Workspace
from tests.core.tables.test_log import run
from tests.servers import LostAnswers, free_port


def quickly(monkeypatch: pytest.MonkeyPatch, **more: str) -> None:
    """Give deltalake other options for its requests."""
    options = StoragePath.delta_options.fget  # type: ignore[attr-defined]
    monkeypatch.setattr(StoragePath, "delta_options", property(lambda path: options(path) | more))


@pytest.mark.parametrize("kind", ["503", "500", "cut", "down"])
def test_a_server_that_answers_with_errors_alone_is_named(
    bucket: StoragePath, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not called a broken contract, or an end of Java, whose connections are refused too."""
    quickly(monkeypatch, max_retries="1")
    assert bucket.s3.server is not None
    with LostAnswers(bucket.s3.server, "", lose=0) as proxy:
        server = f"http://127.0.0.1:{free_port()}" if kind == "down" else proxy.url
        workspace = Workspace(StoragePath(f"{bucket}/{kind}", S3Access(server)), Path("scratch"))
        proxy.fail(kind, every=1)
        for use in (
            lambda: record(workspace, run("a", minute=0)),
            lambda: all_runs(workspace),
            lambda: (workspace.place / "ids.txt").write_text("1"),
            lambda: (workspace.place / "ids.txt").read_text(),
        ):
            with pytest.raises(Exception, match=r"\w") as raised:
                use()
            known, sentence = explained(raised.value)
            assert known, raised.value
            assert sentence.startswith("the server of the workspace or of the source does not answer"), raised.value
