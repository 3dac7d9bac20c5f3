"""The encoder on a real standalone cluster: GPU addresses, who is given GPUs, machines that die, GPUs that never come.

No GPU is needed: a discovery script says what each worker has, and with ``encoder.device: cpu`` a task tells the
address that it was given and computes on the CPU.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import deltalake
import numpy as np
import pyarrow as pa
import pytest

from learn_spark.core.tables.contracts import contract
from learn_spark.core.tables.runs import all_runs
from learn_spark.core.tables.snapshot import Snapshot, current_version
from learn_spark.core.tables.workspace import Workspace
from learn_spark.data.text.templates import template
from learn_spark.encoder.engine import TextEncoder
from learn_spark.encoder.identity import EncoderError
from learn_spark.encoder.worker import cuda_index
from tests.encoder.standalone import REPOSITORY, Cluster, descendants
from tests.encoder.tiny import tiny_model
from tests.world import write_config

GPUS = "spark.executor.resource.gpu.amount"
ASK = Path(__file__).with_name("ask_for_gpus.py")
ONE = {"spark.cores.max": "1"}
# Starts with both executors.
BOTH = {
    "spark.cores.max": "2",
    "spark.scheduler.minRegisteredResourcesRatio": "1.0",
    "spark.scheduler.maxRegisteredResourcesWaitingTime": "120s",
}
TEXTS = [f"A film of number {number}, told in {number % 7} acts" for number in range(24)]


@pytest.fixture(scope="module")
def master(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    running = Cluster.start(tmp_path_factory.mktemp("cluster"))
    yield running
    running.stop()


@pytest.fixture
def cluster(master: Cluster) -> Cluster:
    """A master and two workers of one core and one GPU each, which have the addresses 0 and 1."""
    for address in {"0", "1"} - set(master.workers):
        master.add_worker(address)
    master.wait(2)
    return master


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("world")


@pytest.fixture(scope="module")
def model(folder: Path, llm_folder: Path) -> Path:
    return tiny_model("baichuan-like", folder / "model", llm_folder)


@pytest.fixture(scope="module")
def workspace(folder: Path) -> Workspace:
    """A workspace in which every item has its text already; what one test's job has judged need not be judged again."""
    made = Workspace.open(str(folder / "workspace"))
    version, items = template("movie").key, range(len(TEXTS))
    keys = [hashlib.sha256(text.encode()).hexdigest() for text in TEXTS]
    texts = [{"item_id": str(i), "template_version": version, "text": TEXTS[i], "text_key": keys[i]} for i in items]
    for table, rows in {"items": [{"item_id": str(i)} for i in items], "item_text": texts}.items():
        data = pa.Table.from_pylist(rows, schema=contract(table).arrow_schema())
        deltalake.write_deltalake(made.table(table), data)
    return made


@pytest.fixture(scope="module")
def config(folder: Path, workspace: Workspace, model: Path) -> Path:
    return write_config(folder / "small.yaml", raw=folder, workspace=workspace.root, model=model)


def asked(cluster: Cluster, *gpus: str, conf: dict[str, str]) -> dict[str, Any]:
    """What tests/encoder/ask_for_gpus.py prints."""
    program = cluster.submit(ASK, *gpus, conf=conf)
    output, _ = program.communicate(timeout=300)
    assert program.returncode == 0, output
    results: dict[str, Any] = json.loads(output.strip().splitlines()[-1])
    return results


def events(folder: Path) -> list[dict[str, Any]]:
    """Spark's own log of what it did."""
    (log,) = folder.iterdir()
    return [json.loads(line) for line in log.read_text().splitlines()]


def stop_in_the_middle(cluster: Cluster, address: str, table: str, program: Any) -> None:
    """Let the job commit once, stop the Python workers of one machine, wait until a task of it hangs there."""
    while program.poll() is None and (current_version(table) or 0) < 1:
        time.sleep(0.05)
    for pid in descendants(cluster.workers[address].pid):
        if b"pyspark.daemon" in Path(f"/proc/{pid}/cmdline").read_bytes():
            os.kill(pid, signal.SIGSTOP)
    since, before = time.monotonic(), ""
    while program.poll() is None and time.monotonic() - since < 3:
        log = cluster.executor_log(address)
        if log != before or log.count(": Running task") <= log.count(": Finished task"):
            since, before = time.monotonic(), log
        time.sleep(0.1)
    assert program.poll() is None, program.communicate()[0]


def test_a_job_that_submits_without_gpus_fails_and_says_what_to_set(
    cluster: Cluster, config: Path, workspace: Workspace
) -> None:
    program = cluster.submit(
        REPOSITORY / "jobs" / "embed_items.py", "--config", str(config), "--set", "encoder.gpus=1", conf=ONE
    )
    output, _ = program.communicate(timeout=300)
    assert program.returncode == 1
    assert f"encoder.gpus is 1 GPUs per task, but an executor has 0 ({GPUS})" in output
    assert f"--conf {GPUS}=1" in output
    assert all_runs(workspace)[-1].status == "failed"


def test_an_address_is_one_of_the_gpus_that_pytorch_sees() -> None:
    assert [cuda_index(None, 4), cuda_index("0", 4), cuda_index("3", 4)] == [0, 0, 3]
    # A container's only GPU, whatever its number on the machine.
    assert [cuda_index("5", 1), cuda_index("GPU-1f2e", 1)] == [0, 0]
    for address in ("4", "GPU-1f2e"):
        with pytest.raises(EncoderError, match=f"'{address}', but PyTorch finds 4 GPUs, 0 to 3"):
            cuda_index(address, 4)


def test_gpus_asked_of_all_tasks(cluster: Cluster) -> None:
    results = asked(cluster, "0", "1", "2", "plain", conf={**BOTH, GPUS: "1", "spark.task.resource.gpu.amount": "1"})
    assert results["plain"] == ["cpu (gpu 0)", "cpu (gpu 1)"]
    assert results["0"] in (["0"], ["1"])
    assert results["1"] in (["0"], ["1"])
    assert "is 2 GPUs per task, but an executor has 1" in results["2"]


def test_executors_with_gpus_come_when_the_stage_begins_or_it_says_that_none_came(cluster: Cluster) -> None:
    conf = {"spark.dynamicAllocation.enabled": "true", "spark.dynamicAllocation.maxExecutors": "1"}
    # No worker has two.
    results = asked(cluster, "1", "2@3", "plain", conf=conf)
    assert results["1"] in (["0"], ["1"])
    assert "got no executor with GPUs in 3 s" in results["2"]
    assert "--conf spark.learnSpark.gpuWaitSeconds=SECONDS" in results["2"]
    assert results["plain"] == ["cpu", "cpu"]


def test_an_application_whose_executors_never_come_is_told_so(cluster: Cluster) -> None:
    results = asked(cluster, "2@3", conf={GPUS: "2"})
    assert f"in 3 s (0 executors are registered; {GPUS}=2)" in results["2"]


def test_each_task_takes_its_address_only_the_encoder_has_gpus_and_a_dead_machine_is_survived(
    cluster: Cluster, config: Path, workspace: Workspace, model: Path, tmp_path: Path
) -> None:
    table, log = workspace.table("text_embeddings"), tmp_path / "events"
    log.mkdir()
    program = cluster.submit(
        REPOSITORY / "jobs" / "embed_items.py",
        *("--config", str(config), "--set", "encoder.gpus=1", "--set", "encoder.device=cpu"),
        *("--set", "encoder.chunk_rows=12"),
        conf={
            GPUS: "1",
            **BOTH,
            "spark.eventLog.enabled": "true",
            "spark.eventLog.dir": f"file:{log}",
            "spark.eventLog.compress": "false",
            "spark.eventLog.rolling.enabled": "false",
        },
    )
    stop_in_the_middle(cluster, "1", table, program)
    assert current_version(table) == 1
    cluster.pull_the_plug("1")
    output, _ = program.communicate(timeout=300)
    assert program.returncode == 0, output
    assert "on cpu (gpu 0), cpu (gpu 1)" in output

    run = all_runs(workspace)[-1]
    assert (run.counts["encoded"], run.counts["refused"], run.counts["chunk_retries"]) == (len(TEXTS), 0, 0)
    rows = {row["text_key"]: row for row in Snapshot.open(table).to_arrow().to_pylist()}
    assert Snapshot.open(table).rows == len(rows) == len(TEXTS)
    expected = TextEncoder(model, max_tokens=64).encode(TEXTS).vectors
    for text, vector in zip(TEXTS, expected, strict=True):
        assert float(np.dot(rows[hashlib.sha256(text.encode()).hexdigest()]["embedding"], vector)) >= 0.9999

    happened = events(log)
    profiles = {
        event["Resource Profile Id"]: set(event["Task Resource Requests"])
        for event in happened
        if event["Event"] == "SparkListenerResourceProfileAdded"
    }
    assert profiles == {0: {"cpus"}, 1: {"cpus", "gpu"}}
    stages = [event["Stage Info"] for event in happened if event["Event"] == "SparkListenerStageCompleted"]
    encoding = {
        stage["Stage ID"] for stage in stages if any("MapInArrow" in rdd.get("Scope", "") for rdd in stage["RDD Info"])
    }
    with_gpus = {stage["Stage ID"] for stage in stages if stage["Resource Profile Id"] == 1}
    asking = {stage["Stage ID"] for stage in stages if "gpus.py" in stage["Stage Name"]}
    assert len(asking) == 1
    assert len(stages) > len(with_gpus) == len(encoding | asking)
    assert with_gpus == encoding | asking
    # A task of the encoder was on the machine when it died.
    lost = [
        event["Stage ID"]
        for event in happened
        if event["Event"] == "SparkListenerTaskEnd" and event["Task End Reason"]["Reason"] == "ExecutorLostFailure"
    ]
    assert lost
    assert set(lost) <= encoding
