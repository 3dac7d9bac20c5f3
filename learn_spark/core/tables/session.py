"""The Spark session: Delta on the classpath, this interpreter in the workers, quiet, fit for one machine or many."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from learn_spark.core.errors import LearnSparkError

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from learn_spark.core.settings.platform import SparkSettings

JAVA_VERSIONS = (17, 21)
# Without these the tables would not be the tables of the contracts.
_NEEDED = frozenset({"spark.sql.extensions", "spark.sql.catalog.spark_catalog", "spark.sql.session.timeZone"})


class SessionError(LearnSparkError):
    """Spark cannot start here."""


def check_java() -> None:
    """SessionError unless the Java that Spark would start is 17 or 21."""
    home = os.environ.get("JAVA_HOME")
    java = str(Path(home) / "bin" / "java") if home else shutil.which("java")
    advice = f"Spark 4 needs Java {' or '.join(map(str, JAVA_VERSIONS))}: install one and set JAVA_HOME to it"
    if java is None:
        raise SessionError(f"no Java found. {advice}")
    try:
        said = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=60, check=True).stderr
    except (OSError, subprocess.SubprocessError):
        raise SessionError(f"{java} does not run. {advice}") from None
    found = re.search(r'version "(\d+)', said)
    if not found or int(found[1]) not in JAVA_VERSIONS:
        raise SessionError(f"{java} is Java {found[1] if found else 'of unknown version'}. {advice}")


def start_session(settings: SparkSettings, *, app: str, log_file: Path | None) -> SparkSession:
    """The running session, or a new one with Delta.

    ``log_file`` takes what the JVM would print on standard error; None leaves it on the terminal.
    Raises SessionError with one sentence where the JVM or Delta cannot be had.
    """
    from pyspark import SparkConf, SparkContext

    from learn_spark.core.install import InstallError, jar_paths

    in_spark_submit = "PYSPARK_GATEWAY_PORT" in os.environ
    if SparkContext._gateway is None and not in_spark_submit:
        _default_java_home()
        check_java()
    # The executors' Python must be this one; else a worker imports another pandas, or nothing.
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    os.environ.setdefault("PYSPARK_DRIVER_PYTHON", sys.executable)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

    from pyspark.sql import SparkSession

    builder = SparkSession.builder.appName(app)
    conf = {
        "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
        "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
        "spark.sql.shuffle.partitions": str(settings.shuffle_partitions),
        # 50 by default: every commit on a small machine would run 50 tiny tasks.
        "spark.databricks.delta.snapshotPartitions": "2",
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.execution.arrow.pyspark.enabled": "true",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.sql.warehouse.dir": str(Path(os.environ.get("TMPDIR", "/tmp")) / "learn-spark-warehouse"),
        "spark.sql.parquet.compression.codec": "zstd",
        # pandas writes nanoseconds, which Spark's timestamps do not hold: they come as numbers instead of an error.
        "spark.sql.legacy.parquet.nanosAsLong": "true",
        # A speculative copy of a task would run the LLM twice.
        "spark.speculation": "false",
    }
    if not in_spark_submit:
        master = settings.master or "local[*]"
        conf["spark.master"] = master
        conf["spark.driver.memory"] = settings.driver_memory
        try:
            conf["spark.jars"] = ",".join(str(path) for path in jar_paths())
        except InstallError as error:
            raise SessionError(str(error)) from None
        if master.startswith("local"):
            os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
            conf["spark.driver.host"] = "127.0.0.1"
            conf["spark.driver.bindAddress"] = "127.0.0.1"
    wanted = {**conf, **settings.conf}
    if in_spark_submit:
        # What spark-submit was told comes first: master, memory, and any --conf.
        submitted = {key for key, _ in SparkConf().getAll()}
        wanted = {key: value for key, value in wanted.items() if key not in submitted or key in _NEEDED}
    for key, value in wanted.items():
        builder = builder.config(key, value)
    try:
        with _stderr_to(log_file):
            session = builder.getOrCreate()
            session.sparkContext.setLogLevel("ERROR" if log_file else "WARN")
            # Proves that Delta is on the classpath, before a stage finds out half-way.
            session._jvm.org.apache.spark.sql.delta.DeltaLog  # type: ignore[union-attr]  # noqa: B018
    except Exception as error:
        where = f"; what the JVM said is in {log_file}" if log_file else ""
        raise SessionError(f"Spark did not start: {_first_line(error)}{where}") from error
    return session


def _default_java_home() -> None:
    """Spark's own launcher reads conf/spark-env.sh; so that our check looks at the same Java, read it here too."""
    from importlib.util import find_spec

    spec = find_spec("pyspark")
    env = Path(spec.origin).parent / "conf" / "spark-env.sh" if spec and spec.origin else None
    if "JAVA_HOME" not in os.environ and env and env.is_file():
        said = subprocess.run(
            ["bash", "-c", '. "$1"; printf %s "${JAVA_HOME:-}"', "_", str(env)], capture_output=True, text=True
        ).stdout
        if said and Path(said, "bin", "java").is_file():
            os.environ["JAVA_HOME"] = said


@contextmanager
def _stderr_to(path: Path | None) -> Iterator[None]:
    """File descriptor 2 in a file while the JVM is started, so that the JVM inherits that file for good."""
    if path is None:
        yield
        return
    sys.stderr.flush()
    saved = os.dup(2)
    try:
        with path.open("ab") as file:
            os.dup2(file.fileno(), 2)
        yield
    finally:
        sys.stderr.flush()
        os.dup2(saved, 2)
        os.close(saved)


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
