"""A server of S3 that answers 500 or 503, cuts connections, loses answers or does not answer in time: tables and files
are written whole and once, and read as they are.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from learn_spark.core.causes import explained
from learn_spark.core.storage.path import S3Access, StoragePath
from learn_spark.core.tables.contracts import contract
from learn_spark.core.tables.leases import lease
from learn_spark.core.tables.log import append_rows, read_rows
from learn_spark.core.tables.reach import reach
from learn_spark.core.tables.runs import all_runs, record
from learn_spark.core.tables.snapshot import Snapshot
from learn_spark.core.tables.workspace import Workspace
from tests.core.tables.test_log import run
from tests.servers import LostAnswers, free_port, make_bucket


def work(spark: SparkSession, workspace: Workspace, number: int) -> None:
    """Record a run; write a row by deltalake, a file by Arrow, and rows by Spark, under a lease."""
    record(workspace, run("a", minute=number))
    with lease(workspace.place, [("items", "exclusive")], "the workspace", "a run"):
        append_rows(
            workspace.table("item_index"), contract("item_index"), [{"item_id": str(number), "item_index": number + 1}]
        )
        (workspace.place / "models" / f"m{number}" / "ids.txt").write_text(str(number) * 10_000)
        spark.range(number + 1).write.format("delta").mode("append").save(
            (workspace.place / "tables" / "by_spark").spark
        )


def quickly(monkeypatch: pytest.MonkeyPatch, **more: str) -> None:
    """Give deltalake other options for its requests."""
    options = StoragePath.delta_options.fget  # type: ignore[attr-defined]
    monkeypatch.setattr(StoragePath, "delta_options", property(lambda path: options(path) | more))


def test_what_is_written_and_read_through_faults_is_whole_and_once(
    spark: SparkSession, bucket: StoragePath, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert bucket.s3.server is not None
    with LostAnswers(bucket.s3.server, "", lose=0) as proxy:
        # Another bucket: Spark keeps a bucket's connection, with its server.
        place = StoragePath(f"{make_bucket(bucket.s3.server)}/w", S3Access(endpoint=proxy.url))
        # The clients would wait for an answer for 30 s (deltalake) and 200 s (Spark).
        quickly(monkeypatch, timeout="2s")
        conf = spark.sparkContext._jsc.hadoopConfiguration()
        for name in ("connection.timeout", "connection.request.timeout"):
            conf.set(f"fs.s3a.bucket.{place.bucket.name}.{name}", "2s")
        reach(spark, [place])
        workspace = Workspace.open(place)
        for number, kinds, every, least in ((0, ("500", "503", "cut", "lost"), 5, 20), (1, ("silent",), 40, 2)):
            before = proxy.faults()
            proxy.fail(*kinds, every=every)
            work(spark, workspace, number)
            found = sorted(
                row.id
                for row in spark.read.format("delta").load((workspace.place / "tables" / "by_spark").spark).collect()
            )
            files = {entry.path.parent.name: entry.path.read_text() for entry in (place / "models").files()}
            runs = [(one.run_id, one.sequence) for one in all_runs(workspace)]
            rows = sorted(row["item_id"] for row in read_rows(workspace.table("item_index")))
            assert proxy.faults() - before >= least
            assert found == [0, 0, 1][: 1 + 2 * number]
            assert files == {f"m{n}": str(n) * 10_000 for n in range(number + 1)}
            assert runs == [(f"a-{n}", n + 1) for n in range(number + 1)]
            assert rows == [str(n) for n in range(number + 1)]
    # No half file, and no second row, is there for those who look without the proxy.
    assert Snapshot.open(StoragePath(str(workspace.table("item_index")), bucket.s3)).rows == 2


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
