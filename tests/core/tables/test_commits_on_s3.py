"""No commit to S3 is lost where writers meet, doubled where an answer is lost, or made without a lease."""

from __future__ import annotations

import secrets
import threading
import time
from typing import Any

import pyarrow as pa
import pytest
from deltalake import write_deltalake
from pyspark.sql import SparkSession

from learn_spark.core.storage.path import S3Access, StoragePath
from learn_spark.core.tables.contracts import contract
from learn_spark.core.tables.leases import lease
from learn_spark.core.tables.log import append_rows, read_rows
from learn_spark.core.tables.reach import reach
from learn_spark.core.tables.runs import all_runs, record
from learn_spark.core.tables.snapshot import Snapshot
from learn_spark.core.tables.workspace import Workspace
from tests.core.tables.test_log import run
from tests.servers import LostAnswers, make_bucket

ROUNDS, WRITERS = 500, 2


def store(spark: SparkSession) -> tuple[Any, Any]:
    """(the log store as Delta makes it, Hadoop's configuration)."""
    jvm, conf = spark._jvm, spark.sparkContext._jsc.hadoopConfiguration()
    assert jvm is not None
    return jvm.learnspark.S3ConditionalLogStore(conf), conf


def write(spark: SparkSession, path: str, line: str) -> bool:
    """Whether the commit ``path`` was written; False where another one is there."""
    log, conf = store(spark)
    jvm = spark._jvm
    assert jvm is not None
    actions = jvm.java.util.ArrayList()
    actions.add(line)
    try:
        log.write(jvm.org.apache.hadoop.fs.Path(path), actions.iterator(), False, conf)
    except Exception as error:
        if "FileAlreadyExistsException" not in str(error):
            raise
        return False
    return True


def test_of_several_writers_of_a_version_one_wins(spark: SparkSession, bucket: StoragePath) -> None:
    reach(spark, [bucket])
    log = bucket / f"race-{secrets.token_hex(4)}" / "_delta_log"
    winners: list[list[int]] = [[] for _ in range(ROUNDS)]
    start = threading.Barrier(WRITERS)

    def work(writer: int) -> None:
        for version in range(ROUNDS):
            start.wait()
            if write(spark, f"{log.spark}/{version:020}.json", str(writer)):
                winners[version].append(writer)

    threads = [threading.Thread(target=work, args=(writer,)) for writer in range(WRITERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [len(one) for one in winners] == [1] * ROUNDS
    # What lies there is the winner's, and every writer won some: they did meet.
    written = {entry.path.name: entry.path.read_text().strip() for entry in log.files()}
    assert written == {f"{version:020}.json": str(one[0]) for version, one in enumerate(winners)}
    assert {one[0] for one in winners} == set(range(WRITERS))


def test_spark_and_deltalake_that_append_at_once_lose_nothing(spark: SparkSession, bucket: StoragePath) -> None:
    path = bucket / f"both-{secrets.token_hex(4)}"
    reach(spark, [path])
    rows = pa.table({"id": pa.array([0], pa.int64())})
    write_deltalake(str(path), rows, storage_options=path.delta_options)
    by_spark, done = 0, threading.Event()

    def by_deltalake() -> None:
        for _ in range(60):
            write_deltalake(str(path), rows, mode="append", storage_options=path.delta_options)
        done.set()

    thread = threading.Thread(target=by_deltalake)
    thread.start()
    while by_spark < 2 or not done.is_set():
        spark.range(1).write.format("delta").mode("append").save(path.spark)
        by_spark += 1
    thread.join()
    assert Snapshot.open(path).rows == 1 + 60 + by_spark


def test_a_commit_whose_answer_is_lost_is_made_once(spark: SparkSession, bucket: StoragePath) -> None:
    # Another bucket: Spark keeps a bucket's connection, with its server.
    assert bucket.s3.server is not None
    other = make_bucket(bucket.s3.server)
    with LostAnswers(bucket.s3.server, "_delta_log/00000000000000000001.json") as proxy:
        path = StoragePath(f"{other}/t", S3Access(endpoint=proxy.url))
        reach(spark, [path])
        spark.range(3).write.format("delta").save(path.spark)
        spark.range(5).write.format("delta").mode("append").save(path.spark)
        assert proxy.lost() == 1
        assert sorted(row.id for row in spark.read.format("delta").load(path.spark).collect()) == [
            0,
            0,
            1,
            1,
            2,
            2,
            3,
            4,
        ]
        assert Snapshot.open(path).rows == 8
    with LostAnswers(bucket.s3.server, "_delta_log/0000000000000000000", lose=3) as proxy:
        workspace = Workspace.open(StoragePath(f"{other}/w", S3Access(endpoint=proxy.url)))
        for minute in range(4):
            record(workspace, run("a", minute=minute))
        item = workspace.table("item_index")
        for number in (1, 2):
            append_rows(item, contract("item_index"), [{"item_id": str(number), "item_index": number}])
        assert proxy.lost() == 3
        assert [(one.run_id, one.sequence) for one in all_runs(workspace)] == [(f"a-{n}", n + 1) for n in range(4)]
        assert sorted(row["item_id"] for row in read_rows(item)) == ["1", "2"]
    with LostAnswers(bucket.s3.server, "locks/leases/_delta_log", lose=2) as proxy:
        place = StoragePath(f"{other}/l", S3Access(endpoint=proxy.url))
        for job in ("first", "second"):
            with lease(place, [("items", "exclusive")], "the workspace", job):
                pass
        assert proxy.lost() == 2


def test_spark_commits_nothing_after_its_process_lost_the_lease(
    spark: SparkSession, bucket: StoragePath, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = bucket / f"lost-{secrets.token_hex(4)}"
    reach(spark, [place])
    path = place / "tables" / "t"
    spark.range(1).write.format("delta").save(path.spark)
    monkeypatch.setenv("LEARN_SPARK_LEASE_SECONDS", "8")
    with lease(place, [("t", "exclusive")], "the workspace", "a long job"):
        spark.range(1).write.format("delta").mode("append").save(path.spark)
        # The job goes on while its process cannot renew; only Spark's writer of commits can stop it.
        monkeypatch.setattr(StoragePath, "write_text", lambda self, text: (_ for _ in ()).throw(OSError("no answer")))
        time.sleep(6.5)
        with pytest.raises(Exception, match="were not renewed in time"):
            spark.range(1).write.format("delta").mode("append").save(path.spark)
        monkeypatch.undo()
    assert Snapshot.open(path).rows == 2
    spark.range(1).write.format("delta").mode("append").save(path.spark)
    assert Snapshot.open(path).rows == 3
