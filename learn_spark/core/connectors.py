"""Installs what reaches S3, HDFS and Kafka: Spark's S3 connector (34 JARs, 9.5 MB), hdfs-native, and Spark's Kafka
connector (4 JARs, 9.9 MB). ``learn-spark setup --s3``, ``--hdfs`` and ``--kafka`` run it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from zipfile import ZipFile, ZipInfo

from learn_spark.core.install import InstallError, Jar, fetch_with_ivy, jar_folder, pyspark_folder, sha256
from learn_spark.core.resources import package_folder

HDFS_CLIENT = "hdfs-native==0.14.7"
# Delta's own store for s3a can lose a commit where two writers meet (docs/storage.md).
LOG_STORE = "learnspark.S3ConditionalLogStore"
_SOURCE = package_folder() / "core" / "S3ConditionalLogStore.java"
_LIST = package_folder() / "core" / "s3_jars.txt"


def s3_jars() -> list[Jar]:
    """The JARs of Spark's S3 connector that Spark does not have itself."""
    return listed_jars(_LIST)


def listed_jars(path: Path) -> list[Jar]:
    """The JARs of a list: coordinates and SHA-256 a line."""
    jars = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            coordinates, checksum = line.split()
            group, artifact, version = coordinates.split(":")
            jars.append(Jar(group, artifact, version, checksum))
    return jars


def s3_jar_folder() -> Path:
    """The folder of this environment's S3 JARs."""
    return jar_folder() / "s3"


def s3_jar_paths(folder: Path | None = None) -> list[Path]:
    """Paths of the installed S3 JARs. Raises InstallError if one is missing."""
    place = folder or s3_jar_folder()
    paths = [*(place / jar.file_name for jar in s3_jars()), log_store_jar(place)]
    if not all(path.is_file() for path in paths):
        raise InstallError("Spark's connector of S3 is not installed: learn-spark setup --s3 fetches it (9.5 MB)")
    return paths


def install_s3(java: str = "java", folder: Path | None = None) -> list[str]:
    """Fetch the missing S3 JARs from Maven Central by one run of Spark's Ivy, and build LOG_STORE; the fetched names.

    LEARN_SPARK_IVY_SETTINGS may name an ivysettings.xml. Raises InstallError where Java, the network or a checksum
    fails; then nothing is installed.
    """
    target = folder or s3_jar_folder()
    fetched = fetch_jars(s3_jars(), target, java)
    if not log_store_jar(target).is_file():
        _build_log_store(target, java)
    return fetched


def log_store_jar(folder: Path) -> Path:
    """The JAR of LOG_STORE in ``folder``, named by its source."""
    return folder / f"learn-spark-log-store-{sha256(_SOURCE)[:12]}.jar"


def _build_log_store(folder: Path, java: str) -> None:
    """Compile LOG_STORE with the compiler that Spark contains, so that no JDK is needed."""
    from py4j.java_gateway import GatewayParameters, JavaGateway, launch_gateway

    classpath = ":".join(str(one / "*") for one in (pyspark_folder() / "jars", jar_folder(), folder))
    try:
        port = launch_gateway(classpath=classpath, die_on_exit=True, java_path=java)
        gateway = JavaGateway(gateway_parameters=GatewayParameters(port=port))
        try:
            compiler = gateway.jvm.org.codehaus.janino.SimpleCompiler()
            compiler.cook(_SOURCE.name, _SOURCE.read_text(encoding="utf-8"))
            classes = {name: bytes(code) for name, code in dict(compiler.getBytecodes()).items()}
        finally:
            gateway.shutdown()
    except Exception as error:
        raise InstallError(f"{_SOURCE.name} could not be compiled: {' '.join(str(error).split())[:300]}") from None
    for old in folder.glob("learn-spark-log-store-*.jar"):
        old.unlink()
    temporary = folder / f".log-store.{os.getpid()}"
    with ZipFile(temporary, "w") as jar:
        for name, code in sorted(classes.items()):
            jar.writestr(ZipInfo(f"{name.replace('.', '/')}.class"), code)
    temporary.replace(log_store_jar(folder))


# Maven Central has no connector of Spark 4.0.5, and its token provider up to 4.0.0 (docs/storage.md).
KAFKA_JARS = (
    Jar(
        "org.apache.spark",
        "spark-sql-kafka-0-10_2.13",
        "4.0.4",
        "b2f7b3a4fbf292b5bf10bd4dd6af301eded9c9985b16239b407401d66dbc8a25",
    ),
    Jar(
        "org.apache.spark",
        "spark-token-provider-kafka-0-10_2.13",
        "4.0.0",
        "f2be3b76f9e6cbe63379d4e4e0dc14f59dbf056ae2ad16ff15ac108004c86767",
    ),
    Jar(
        "org.apache.kafka", "kafka-clients", "3.9.1", "7568b998572d256f0b7bc0afdc1b7a2588b8b08415c62ce314c864a6851ae9d9"
    ),
    Jar(
        "org.apache.commons",
        "commons-pool2",
        "2.12.0",
        "6d3bd18df8410f3e31b031aca582cc109342358a62a2759ebd0c4cdf30d06f8b",
    ),
)


def kafka_jar_folder() -> Path:
    """The folder of this environment's Kafka JARs."""
    return jar_folder() / "kafka"


def kafka_jar_paths(folder: Path | None = None) -> list[Path]:
    """Paths of the installed Kafka JARs. Raises InstallError if one is missing."""
    paths = [(folder or kafka_jar_folder()) / jar.file_name for jar in KAFKA_JARS]
    if not all(path.is_file() for path in paths):
        raise InstallError("Spark's connector of Kafka is not installed: learn-spark setup --kafka fetches it (9.9 MB)")
    return paths


def install_kafka(java: str = "java", folder: Path | None = None) -> list[str]:
    """Fetch the missing Kafka JARs from Maven Central; the fetched names. Raises InstallError as ``install_s3``."""
    return fetch_jars(KAFKA_JARS, folder or kafka_jar_folder(), java)


def install_hdfs() -> bool:
    """Install the HDFS client of Python with pip, without its dependencies; whether it was missing.

    Raises InstallError if pip fails.
    """
    if find_spec("hdfs_native") is not None:
        return False
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", HDFS_CLIENT]
    process = subprocess.run(command, capture_output=True, text=True)
    if process.returncode:
        last = (process.stderr.strip().splitlines() or ["no message"])[-1]
        raise InstallError(f"{HDFS_CLIENT} could not be installed: {last}")
    return True


def fetch_jars(jars: Sequence[Jar], folder: Path, java: str = "java") -> list[str]:
    """Fetch what of ``jars`` is missing in ``folder`` from Maven Central, by one run of Ivy; the fetched names.

    Raises InstallError where Java, the network or a checksum fails; then nothing is installed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    missing = [jar for jar in jars if not _is_installed(folder / jar.file_name, jar)]
    if not missing:
        return []
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=folder) as temporary:
        fetched = Path(temporary)
        fetch_with_ivy(missing, fetched, java)
        for jar in missing:
            if not _is_installed(fetched / jar.file_name, jar):
                raise InstallError(f"{jar.file_name} was fetched with another SHA-256 than expected; nothing installed")
        for jar in missing:
            (fetched / jar.file_name).replace(folder / jar.file_name)
    return [jar.file_name for jar in missing]


def _is_installed(path: Path, jar: Jar) -> bool:
    return path.is_file() and sha256(path) == jar.sha256
