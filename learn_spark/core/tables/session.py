"""Starts the Spark session: Delta on the classpath, this Python in the workers, logs in a file."""

from __future__ import annotations

import logging
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from learn_spark.core.causes import first_line
from learn_spark.core.errors import LearnSparkError
from learn_spark.core.storage.files import umask
from learn_spark.core.storage.locks import helped_by
from learn_spark.core.storage.path import StoragePath
from learn_spark.core.tables.reach import jars_for, reach, settings_for

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from learn_spark.core.settings.platform import SparkSettings

JAVA_VERSIONS = (17, 21)
# Settings that the table contracts depend on; spark-submit cannot override them.
_NEEDED = frozenset({"spark.sql.extensions", "spark.sql.catalog.spark_catalog", "spark.sql.session.timeZone"})


class SessionError(LearnSparkError):
    """Spark cannot start."""


def check_java() -> str:
    """What ``java -version`` says of the Java that Spark would start. Raises SessionError unless it is 17 or 21."""
    home = os.environ.get("JAVA_HOME")
    java = str(Path(home) / "bin" / "java") if home else shutil.which("java")
    advice = f"Spark 4 needs Java {' or '.join(map(str, JAVA_VERSIONS))}: install one and set JAVA_HOME to it"
    if java is None:
        raise SessionError(f"no Java found. {advice}")
    try:
        said = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=60, check=True).stderr
    except (OSError, subprocess.SubprocessError) as error:
        # CalledProcessError and TimeoutExpired say what became of the command.
        raise SessionError(f"{java} does not run ({first_line(error)}). {advice}") from None
    match = re.search(r'version "(\d+)', said)
    if not match or int(match[1]) not in JAVA_VERSIONS:
        raise SessionError(f"{java} is Java {match[1] if match else 'of unknown version'}. {advice}")
    return said


def start_session(
    settings: SparkSettings,
    *,
    app: str,
    log_file: Path | None,
    addresses: Sequence[StoragePath] = (),
    topics: bool = False,
) -> SparkSession:
    """The running session, or a new one with Delta.

    ``log_file`` receives the standard error of the JVM; None leaves it on the terminal. ``addresses``: what the session
    must reach beside this machine; ``topics``: whether it reads Kafka. Raises SessionError if the JVM does not start or
    Delta is missing, UnreachableError if a connector is.
    """
    from pyspark import SparkConf, SparkContext

    from learn_spark.core.install import InstallError, jar_paths
    from learn_spark.core.tables.java_classes import archive_settings

    in_spark_submit = "PYSPARK_GATEWAY_PORT" in os.environ
    java: str | None = None
    if SparkContext._gateway is None and not in_spark_submit:
        set_java_home()
        java = check_java()
    master = settings.master or "local[*]"
    if not in_spark_submit:
        use_this_installation(local=master.startswith("local"))
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    os.environ.setdefault("PYSPARK_DRIVER_PYTHON", sys.executable)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    _utf8_for_java()

    from pyspark.logger import PySparkLogger
    from pyspark.sql import SparkSession

    # It prints each error in an SQL expression as JSON with Java's stack trace; the exception has the sentence.
    PySparkLogger.getLogger("SQLQueryContextLogger").setLevel(logging.CRITICAL + 1)
    builder = SparkSession.builder.appName(app)
    conf = session_defaults(settings, (SparkConf().get("spark.master") or "") if in_spark_submit else master)
    if not in_spark_submit:
        conf["spark.master"] = master
        conf["spark.driver.memory"] = settings.driver_memory
        try:
            conf["spark.jars"] = ",".join(str(path) for path in [*jar_paths(), *jars_for(addresses, topics)])
        except InstallError as error:
            raise SessionError(str(error)) from None
        if master.startswith("local"):
            os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
            conf["spark.driver.host"] = "127.0.0.1"
            conf["spark.driver.bindAddress"] = "127.0.0.1"
    options = {**conf, **settings_for(addresses), **settings.conf}
    if not in_spark_submit and log_file is not None and (folder := folder_for_libraries(log_file.parent)):
        given = options.get("spark.driver.extraJavaOptions", "")
        if "java.io.tmpdir" not in given:
            options["spark.driver.extraJavaOptions"] = f"{given} -Djava.io.tmpdir={folder}".strip()
    if java is not None and master.startswith("local"):
        options |= archive_settings(java, options)
    if in_spark_submit:
        # Options of spark-submit override settings: master, memory, and any --conf.
        submitted = {key for key, _ in SparkConf().getAll()}
        options = {key: value for key, value in options.items() if key not in submitted or key in _NEEDED}
    for key, value in options.items():
        builder = builder.config(key, value)
    try:
        with _stderr_to(log_file):
            session = builder.getOrCreate()
            session.sparkContext.setLogLevel("ERROR" if log_file else "WARN")
            _give_umask(session)
            # Fails now, and not in a stage, if Delta is not on the classpath.
            session._jvm.org.apache.spark.sql.delta.DeltaLog  # type: ignore[union-attr]  # noqa: B018
    except Exception as error:
        where = f"; the log of the JVM is {log_file}" if log_file else ""
        raise SessionError(f"Spark did not start: {first_line(error)}{where}") from error
    # A killed driver's Java process may commit for seconds. In spark-submit it is this process's parent.
    java_process = getattr(SparkContext._gateway, "proc", None)
    if java_process is not None or in_spark_submit:
        helped_by(os.getppid() if java_process is None else java_process.pid)
    reach(session, addresses)
    return session


def session_defaults(settings: SparkSettings, master: str) -> dict[str, str]:
    """What a session gets without being asked; sizes of this machine's work only where ``master`` is this machine."""
    conf = {
        "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
        "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.execution.arrow.pyspark.enabled": "true",
        "spark.ui.showConsoleProgress": "false",
        "spark.sql.warehouse.dir": str(Path(os.environ.get("TMPDIR", "/tmp")) / "learn-spark-warehouse"),
        "spark.sql.parquet.compression.codec": "zstd",
        # pandas writes nanoseconds, which Spark's timestamps do not support: read as numbers, they are made timestamps.
        "spark.sql.legacy.parquet.nanosAsLong": "true",
        # Hadoop does not ask the process for it; without this setting it is 022.
        "spark.hadoop.fs.permissions.umask-mode": f"{umask():03o}",
        # A speculative copy of a task would run the LLM twice.
        "spark.speculation": "false",
    }
    if master.startswith("local"):
        # The default of 50 partitions would run 50 tiny tasks for every commit.
        conf |= {"spark.ui.enabled": "false", "spark.databricks.delta.snapshotPartitions": "2"}
        conf["spark.sql.shuffle.partitions"] = "4"
    if settings.shuffle_partitions is not None:
        conf["spark.sql.shuffle.partitions"] = str(settings.shuffle_partitions)
    return conf


def _give_umask(session: SparkSession) -> None:
    """Give the session's umask to Hadoop's local file system, which spark-submit opened before the session."""
    key, hadoop = "fs.permissions.umask-mode", session.sparkContext._jsc.hadoopConfiguration()
    local = session._jvm.org.apache.hadoop.fs.FileSystem.getLocal(hadoop)  # type: ignore[union-attr]
    for system in (local, local.getRaw()):
        system.getConf().set(key, hadoop.get(key))


def started_jobs() -> int:
    """Number of Spark jobs that this process has started; 0 without a session."""
    if "pyspark" not in sys.modules:
        return 0
    from pyspark import SparkContext

    gateway = getattr(SparkContext._active_spark_context, "_jsc", None)
    return 0 if gateway is None else int(gateway.sc().dagScheduler().numTotalJobs())


def use_this_installation(*, local: bool) -> None:
    """Make the environment name this Python and its pyspark, whatever other installations it named.

    Workers need this Python's packages, and the JVM the classes of this pyspark's version. On a cluster (``local`` is
    False) both stay, because they name places on the workers' machines; SessionError for a Spark of another version.
    """
    from importlib.util import find_spec

    spec = find_spec("pyspark")
    ours = Path(spec.origin).parent if spec and spec.origin else None
    other = os.environ.get("SPARK_HOME")
    if ours is not None and other and Path(other).resolve() != ours.resolve():
        if not local and not list(Path(other).glob(f"jars/spark-core_*-{version('pyspark')}.jar")):
            raise SessionError(
                f"SPARK_HOME is {other}, which has no Spark {version('pyspark')}, the version of this pyspark: unset "
                "SPARK_HOME, or set it to a Spark of that version"
            )
        if local:
            os.environ["SPARK_HOME"] = str(ours)
            if Path(os.environ.get("SPARK_CONF_DIR", "/")).is_relative_to(other):
                del os.environ["SPARK_CONF_DIR"]
    if local:
        os.environ["PYSPARK_PYTHON"] = os.environ["PYSPARK_DRIVER_PYTHON"] = sys.executable


def folder_for_libraries(logs: Path) -> Path | None:
    """A folder beside ``logs`` from which Java may load libraries, if /tmp is mounted noexec; None if /tmp will do.

    Raises SessionError where that folder will not do either.
    """
    if not os.statvfs("/tmp").f_flag & os.ST_NOEXEC:
        return None
    folder = logs.parent / "cache" / "java"
    folder.mkdir(parents=True, exist_ok=True)
    if os.statvfs(folder).f_flag & os.ST_NOEXEC or " " in str(folder):
        raise SessionError(
            f"/tmp is mounted noexec and {folder} will not do either, so that Java cannot load its libraries: name a "
            "folder for them by --set spark.conf.spark.driver.extraJavaOptions=-Djava.io.tmpdir=FOLDER"
        )
    return folder


def _utf8_for_java() -> None:
    """Give the JVM a locale of UTF-8 unless there is one: in others it does not see files with non-ASCII names."""
    locale = os.environ.get("LC_ALL") or os.environ.get("LC_CTYPE") or os.environ.get("LANG") or "C"
    if "utf" not in locale.lower():
        os.environ["LC_ALL"] = "C.UTF-8"


def set_java_home() -> None:
    """Set JAVA_HOME from conf/spark-env.sh as Spark's launcher does, so that ``check_java`` checks the same Java."""
    from importlib.util import find_spec

    spec = find_spec("pyspark")
    env = Path(spec.origin).parent / "conf" / "spark-env.sh" if spec and spec.origin else None
    if "JAVA_HOME" not in os.environ and env and env.is_file():
        java_home = subprocess.run(
            ["bash", "-c", '. "$1"; printf %s "${JAVA_HOME:-}"', "_", str(env)], capture_output=True, text=True
        ).stdout
        if java_home and Path(java_home, "bin", "java").is_file():
            os.environ["JAVA_HOME"] = java_home


@contextmanager
def _stderr_to(path: Path | None) -> Iterator[None]:
    """Redirect file descriptor 2 to a file while the JVM starts, so that the JVM inherits it.

    What Python writes to sys.stderr meanwhile, such as signs of life, goes where it went before.
    """
    if path is None:
        yield
        return
    stderr = sys.stderr
    stderr.flush()
    saved = os.dup(2)
    try:
        with path.open("ab") as file:
            os.dup2(file.fileno(), 2)
        if _writes_to_2(stderr):
            sys.stderr = os.fdopen(saved, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)
        yield
    finally:
        sys.stderr.flush()
        sys.stderr = stderr
        os.dup2(saved, 2)
        os.close(saved)


def _writes_to_2(stream: TextIO) -> bool:
    try:
        return stream.fileno() == 2
    except (OSError, ValueError):
        return False
