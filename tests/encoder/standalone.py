"""A real standalone Spark cluster on loopback: a master, and workers that say that they have GPUs."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.world import QUICK_JVM

BIN = Path(sys.executable).parent
REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass
class Cluster:
    """``workers`` maps the address of the one GPU that a worker says it has to the worker's process."""

    folder: Path
    master: subprocess.Popen[bytes]
    port: int
    page: int
    workers: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """The master, as Spark wants it."""
        return f"spark://127.0.0.1:{self.port}"

    @staticmethod
    def start(folder: Path) -> Cluster:
        """The master alone."""
        port, page = _free_ports(2)
        arguments = ["--host", "127.0.0.1", "--port", str(port), "--webui-port", str(page)]
        return Cluster(folder, _daemon("master.Master", arguments, folder / "master.log"), port, page)

    def add_worker(self, address: str, hidden: Sequence[Path] = ()) -> None:
        """A worker of one core; the nvidia-smi on its PATH, which the discovery script asks, names one GPU.

        As on a machine of its own, the folders ``hidden`` are empty for it and its executors, and it has a cache of its
        own: ``cache(address)``.
        """
        tools, properties = self.folder / f"tools-{address}", self.folder / f"worker-{address}.conf"
        tools.mkdir(exist_ok=True)
        (tools / "nvidia-smi").write_text(f"#!/bin/sh\necho {address}\n")
        (tools / "nvidia-smi").chmod(0o755)
        properties.write_text(
            "spark.worker.resource.gpu.amount 1\n"
            f"spark.worker.resource.gpu.discoveryScript {REPOSITORY / 'conf' / 'gpu-addresses.sh'}\n"
        )
        arguments = ["--host", "127.0.0.1", "--cores", "1", "--memory", "1g", "--webui-port", "0"]
        arguments += ["--work-dir", str(self.folder / f"work-{address}")]
        arguments += ["--properties-file", str(properties), self.url]
        self.workers[address] = _daemon(
            "worker.Worker", arguments, self.folder / f"worker-{address}.log", tools, hidden, self.cache(address)
        )

    def cache(self, address: str) -> Path:
        """The folder in which a worker's machine keeps copies of files."""
        return self.folder / f"cache-{address}"

    def wait(self, workers: int, seconds: float = 120) -> None:
        """Until the master counts so many living workers."""
        deadline = time.monotonic() + seconds
        while self.alive() != workers:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.alive()} workers instead of {workers}: see {self.folder}")
            time.sleep(0.2)

    def alive(self) -> int:
        """Workers that the master has heard of and not lost, as its page tells; -1 before it answers."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.page}/json/", timeout=5) as page:
                return page.read().decode().count('"state" : "ALIVE"')
        except OSError:
            return -1

    def executor_log(self, address: str) -> str:
        """What the executors of a worker say, oldest first."""
        logs = sorted((self.folder / f"work-{address}").glob("app-*/*/stderr"), key=lambda path: path.stat().st_ctime)
        return "".join(path.read_text(errors="replace") for path in logs)

    def pull_the_plug(self, address: str) -> None:
        """kill -9 of a worker and of all executors and Python processes that it started."""
        worker = self.workers.pop(address)
        for pid in descendants(worker.pid):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        worker.kill()
        worker.wait()

    def stop(self) -> None:
        """End everything."""
        for address in list(self.workers):
            self.pull_the_plug(address)
        self.master.kill()
        self.master.wait()

    def submit(self, script: Path, *arguments: str, conf: dict[str, str]) -> subprocess.Popen[str]:
        """spark-submit of a script, as a user of the cluster would; its output is one stream of text."""
        command = [str(BIN / "spark-submit"), "--master", self.url, "--driver-memory", "1g"]
        for key, value in {**_CONF, **conf}.items():
            command += ["--conf", f"{key}={value}"]
        command += [str(script), *arguments]
        return subprocess.Popen(
            command, env=_environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=self.folder
        )


_CONF = {
    "spark.driver.host": "127.0.0.1",
    "spark.executor.memory": "512m",
    "spark.executor.cores": "1",
    "spark.ui.enabled": "false",
    "spark.sql.adaptive.enabled": "false",
    "spark.driver.extraJavaOptions": QUICK_JVM,
    "spark.executor.extraJavaOptions": QUICK_JVM,
}


def descendants(pid: int) -> list[int]:
    """All processes below one."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
            children.setdefault(parent, []).append(int(entry.name))
    pids, waiting = [], [pid]
    while waiting:
        below = children.get(waiting.pop(), [])
        pids += below
        waiting += below
    return pids


def _daemon(
    name: str,
    arguments: list[str],
    log: Path,
    tools: Path | None = None,
    hidden: Sequence[Path] = (),
    cache: Path | None = None,
) -> subprocess.Popen[bytes]:
    import pyspark

    spark_class = Path(pyspark.__file__).parent / "bin" / "spark-class"
    command = [str(spark_class), f"org.apache.spark.deploy.{name}", *arguments]
    more = {"PATH": f"{tools}{os.pathsep}{os.environ['PATH']}"} if tools else {}
    if cache is not None:
        more["LEARN_SPARK_CACHE"] = str(cache)
    if hidden:
        # A mount namespace, in which an empty file system covers each folder.
        cover = 'while [ "$1" != -- ]; do mount -t tmpfs none "$1" || exit 1; shift; done; shift; exec "$@"'
        command = ["unshare", "-Urm", "sh", "-c", cover, "sh", *map(str, hidden), "--", *command]
    with log.open("wb") as file:
        # spark-class ends as the JVM (exec), so that the process is the daemon itself.
        return subprocess.Popen(
            command, env=_environment(LEARN_SPARK_LOG_LEVEL="info", **more), stdout=file, stderr=subprocess.STDOUT
        )


def _environment(**more: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if k not in ("PYSPARK_GATEWAY_PORT", "PYSPARK_GATEWAY_SECRET")}
    return {**kept, **more, "SPARK_LOCAL_IP": "127.0.0.1", "SPARK_DAEMON_JAVA_OPTS": QUICK_JVM, "OMP_NUM_THREADS": "1"}


def _free_ports(count: int) -> list[int]:
    opened = [socket.socket() for _ in range(count)]
    for one in opened:
        one.bind(("127.0.0.1", 0))
    ports: list[int] = [one.getsockname()[1] for one in opened]
    for one in opened:
        one.close()
    return ports
