"""Servers of storage that tests start on this machine."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote
from urllib.request import urlopen

from pyarrow.fs import S3FileSystem

from learn_spark.core.connectors import fetch_jars, install_hdfs, install_kafka, install_s3, listed_jars
from learn_spark.core.install import Jar, java_of, pyspark_folder
from learn_spark.core.storage.path import S3Access, StoragePath

ROOT = Path(__file__).parents[1]
# Keys that no message, table or file may have: tests look for them.
KEY_ID, SECRET = "AKIAPLANTEDKEYOFTEST", "planted/secret/that/nobody/may/see"
# At import, before a JVM starts, which reads them once; so no key of a developer reaches a test.
for _name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_REGION"):
    os.environ.pop(_name, None)
os.environ.update(AWS_ACCESS_KEY_ID=KEY_ID, AWS_SECRET_ACCESS_KEY=SECRET, AWS_EC2_METADATA_DISABLED="true")


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextmanager
def s3_server(folder: Path) -> Iterator[str]:
    """The URL of an S3 server for KEY_ID and SECRET: that of LEARN_SPARK_TEST_S3, else of moto, started here."""
    if given := os.environ.get("LEARN_SPARK_TEST_S3"):
        yield given
        return
    log_file = folder / "s3.log"
    python = ROOT / ".venv-servers" / "bin" / "python"
    assert python.is_file(), f"{python} is missing: make servers installs it"
    port = free_port()
    command = [str(python), str(ROOT / "tests" / "s3_server.py"), "-H", "127.0.0.1", "-p", str(port)]
    with log_file.open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        url = f"http://127.0.0.1:{port}"
        _await(url, server, log_file)
        _logs[url] = log_file
        yield url
    finally:
        server.terminate()
        server.wait(30)


def _await(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(1200):
        assert server.poll() is None, log.read_text(encoding="utf-8")
        try:
            with urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.1)
    raise AssertionError(f"{url} does not answer: {log.read_text(encoding='utf-8')}")


_logs: dict[str, Path] = {}


def requests_of(bucket: StoragePath, kind: str = "") -> int:
    """The number of requests that the server of a bucket has answered; ``kind``: those with this text in their line."""
    assert bucket.s3.server is not None
    lines = _logs[bucket.s3.server].read_text(encoding="utf-8").splitlines()
    return sum("HTTP/1.1" in line and kind in line for line in lines)


def make_bucket(url: str) -> StoragePath:
    """A new bucket of the server at ``url``."""
    made = S3FileSystem(
        endpoint_override=url.partition("://")[2], scheme="http", region="us-east-1", allow_bucket_creation=True
    )
    name = f"learn-spark-{secrets.token_hex(4)}"
    made.create_dir(name)
    return StoragePath(f"s3://{name}", S3Access(endpoint=url))


# A name node and a data node in one JAR, and what it starts with.
HDFS_JARS = (
    Jar(
        "org.apache.hadoop",
        "hadoop-client-minicluster",
        "3.4.1",
        "5b90be54a39d856f237a4530e25f62aea4b67c180c73b5cfb1aff35c502b2d29",
    ),
    Jar("junit", "junit", "4.13.2", "8e495b634469d64fb8acfa3495a065cbacc8a0fff55ce1e31007be4c16dc57d3"),
    Jar("org.hamcrest", "hamcrest-core", "1.3", "66fdef91e9739348df7a096aa384a5685f4e875584cce89386a7a47251c4d8e9"),
)
HDFS_FOLDER = ROOT / ".venv-servers" / "hdfs"


@contextmanager
def hdfs_server(folder: Path) -> Iterator[str]:
    """The address of a new HDFS of one name node and one data node, started here."""
    missing = [jar.file_name for jar in HDFS_JARS if not (HDFS_FOLDER / jar.file_name).is_file()]
    assert not missing, f"{missing} are missing in {HDFS_FOLDER}: make servers fetches them"
    port = free_port()
    classpath = f"{HDFS_FOLDER}/*:{pyspark_folder()}/jars/*"
    command = ["java", "-Xmx400m", f"-Dtest.build.data={folder}", "-cp", classpath]
    command += ["org.apache.hadoop.mapreduce.MiniHadoopClusterManager", "-nomr", "-format", "-datanodes", "1"]
    command += ["-nnport", str(port), "-nnhttpport", str(free_port())]
    log_file = folder / "hdfs.log"
    with log_file.open("wb") as log:
        server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=folder)
    try:
        address = StoragePath(f"hdfs://127.0.0.1:{port}")
        for _ in range(600):
            assert server.poll() is None, log_file.read_text(encoding="utf-8")
            try:
                (address / "ready").write_text("a data node has it")
                break
            except (OSError, RuntimeError):  # the client of HDFS raises both
                time.sleep(0.5)
        yield address
    finally:
        server.terminate()
        server.wait(60)


def _await_port(port: int, server: subprocess.Popen[bytes], log: Path) -> None:
    """Return when somebody listens on ``port`` of this machine, or after two minutes."""
    for _ in range(600):
        assert server.poll() is None, log.read_text(encoding="utf-8")
        with socket.socket() as caller:
            if caller.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.2)


@contextmanager
def redis_server(folder: Path) -> Iterator[str]:
    """The URL of a new Redis that writes nothing to disk, started here."""
    program = shutil.which("redis-server")
    assert program is not None, "redis-server is missing: Debian has it (apt-get install redis-server)"
    port, log_file = free_port(), folder / "redis.log"
    command = [program, "--bind", "127.0.0.1", "--port", str(port), "--save", "", "--appendonly", "no"]
    with log_file.open("wb") as log:
        server = subprocess.Popen([*command, "--dir", str(folder)], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        _await_port(port, server, log_file)
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        server.kill()
        server.wait(60)


@contextmanager
def mlflow_server(folder: Path) -> Iterator[str]:
    """The URL of an MLflow server: that of LEARN_SPARK_TEST_MLFLOW, else one started here, with its database and
    artifacts in ``folder``."""
    if given := os.environ.get("LEARN_SPARK_TEST_MLFLOW"):
        yield given
        return
    python, log_file = ROOT / ".venv-servers" / "bin" / "python", folder / "mlflow.log"
    assert python.is_file(), f"{python} is missing: make servers installs it"
    port = free_port()
    with log_file.open("wb") as log:
        command = [str(python), str(ROOT / "tests" / "mlflow_server.py"), str(port), str(folder)]
        server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=folder)
    try:
        url = f"http://127.0.0.1:{port}"
        _await(f"{url}/api/2.0/mlflow/experiments/search?max_results=1", server, log_file)
        yield url
    finally:
        server.kill()
        server.wait(30)


KAFKA_LIST, KAFKA_FOLDER = Path(__file__).with_name("kafka_jars.txt"), ROOT / ".venv-servers" / "kafka"
_BROKER = """process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{other}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{other}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
log.dirs={folder}/kafka-logs
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
log.cleaner.enable=false
auto.create.topics.enable=false
"""


@contextmanager
def kafka_broker(folder: Path) -> Iterator[str]:
    """host:port of a new broker of Kafka 4.1.1, a single node in KRaft mode, started here."""
    missing = [jar.file_name for jar in listed_jars(KAFKA_LIST) if not (KAFKA_FOLDER / jar.file_name).is_file()]
    assert not missing, f"{missing} are missing in {KAFKA_FOLDER}: make servers fetches them"
    port, properties, log_file = free_port(), folder / "server.properties", folder / "kafka.log"
    properties.write_text(_BROKER.format(port=port, other=free_port(), folder=folder), encoding="utf-8")
    java = ["java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx192m"]
    java += ["-cp", f"{KAFKA_FOLDER}/*:{pyspark_folder()}/jars/*"]
    formatted = ["kafka.tools.StorageTool", "format", "-t", "MkU3OEVBNTcwNTJENDM2Qg", "-c", str(properties)]
    with log_file.open("wb") as log:
        subprocess.run([*java, *formatted], stdout=log, stderr=log, check=True)
        server = subprocess.Popen([*java, "kafka.Kafka", str(properties)], stdout=log, stderr=log, cwd=folder)
    try:
        _await_port(port, server, log_file)
        yield f"127.0.0.1:{port}"
    finally:
        server.kill()
        server.wait(60)


YARN_LIST, YARN_FOLDER = Path(__file__).with_name("yarn_jars.txt"), ROOT / ".venv-servers" / "yarn"
_RESOURCE_MANAGER = "org.apache.hadoop.yarn.server.resourcemanager"
_YARN = {
    "yarn.resourcemanager.scheduler.class": f"{_RESOURCE_MANAGER}.scheduler.fifo.FifoScheduler",
    "yarn.scheduler.minimum-allocation-mb": "256",
    "yarn.nodemanager.resource.memory-mb": "8000",
    "yarn.nodemanager.vmem-check-enabled": "false",
    "yarn.nodemanager.pmem-check-enabled": "false",
    "yarn.nodemanager.disk-health-checker.enable": "false",
    # Without this, a disk that is nine tenths full is taken for full at the start, checker or not.
    "yarn.nodemanager.disk-health-checker.max-disk-utilization-per-disk-percentage": "100",
}


@contextmanager
def yarn_server(folder: Path) -> Iterator[Path]:
    """The configuration folder of a new YARN of one resource manager and two node managers, started here."""
    missing = [jar.file_name for jar in listed_jars(YARN_LIST) if not (YARN_FOLDER / jar.file_name).is_file()]
    assert not missing, f"{missing} are missing in {YARN_FOLDER}: make servers fetches them"
    conf, work = folder / "conf", folder / "yarn"
    conf.mkdir()
    work.mkdir()
    command = [sys.executable, "-m", "tests.yarn_cluster", str(conf), json.dumps(_YARN)]
    classpath = f"{HDFS_FOLDER}/*:{YARN_FOLDER}/*:{pyspark_folder()}/jars/*"
    log_file = folder / "yarn.log"
    with log_file.open("wb") as log:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "YARN_CLASSPATH": classpath}
        server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=log, cwd=work, env=environment)
    try:
        for _ in range(1200):
            assert server.poll() is None, log_file.read_text(encoding="utf-8")
            if (conf / "yarn-site.xml").is_file():
                break
            time.sleep(0.1)
        yield conf
    finally:
        server.terminate()
        server.wait(60)


class LostAnswers:
    """A proxy of an S3 server that forwards every request, and gives no answer to the first ``lose`` uploads of files
    whose path contains ``part``: they succeed, and their sender does not learn it.

    It is a process of its own, because calls into Rust keep Python's other threads waiting.
    """

    def __init__(self, server: str, part: str, lose: int = 1) -> None:
        command = [sys.executable, "-m", "tests.lossy_proxy", server.partition("://")[2], part, str(lose)]
        self._process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.url = f"http://127.0.0.1:{self._process.stdout.readline().strip()}"

    def lost(self) -> int:
        """The number of answers that were lost."""
        return int(self._ask("lost"))

    def hold(self, part: str, number: int = 1, *, after: bool) -> None:
        """Hold the sender of the ``number``-th upload from now of a path that contains ``part``: before the server
        gets it, or ``after`` that, before the answer."""
        self._ask(f"hold={quote(part)}&number={number}&after={after}")

    def held(self) -> bool:
        """Whether the sender is held now; waits for it half a second."""
        return self._ask("held") == "True"

    def drop(self) -> None:
        """Let the sender go, without an answer; hold nobody from now on."""
        self._ask("drop")

    def fail(self, *kinds: str, every: int) -> None:
        """From now on, every ``every``-th request has a fault (0: none), of the kinds that tests/lossy_proxy.py names,
        in turn."""
        self._ask(f"faults={','.join(kinds)}&every={every}")

    def faults(self) -> int:
        """The number of requests that had a fault of ``fail``."""
        return int(self._ask("faulty"))

    def uploads(self) -> list[str]:
        """Paths of all uploads so far."""
        return self._ask("uploads").splitlines()

    def _ask(self, what: str) -> str:
        with urlopen(f"{self.url}/?test&{what}") as answer:
            return str(answer.read().decode())

    def __enter__(self) -> LostAnswers:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()


if __name__ == "__main__":  # make servers
    java = java_of(os.environ.get("JAVA_HOME"))
    install_s3(java)
    install_hdfs()
    install_kafka(java)
    fetch_jars(HDFS_JARS, HDFS_FOLDER, java)
    fetch_jars(listed_jars(KAFKA_LIST), KAFKA_FOLDER, java)
    fetch_jars(listed_jars(YARN_LIST), YARN_FOLDER, java)
