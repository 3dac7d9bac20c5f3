"""What pip does not bring: the two Delta JARs, and what Spark's launcher must know of this environment.

Run:  python -m learn_spark.core.install [--java-home PATH]    (make setup and ``learn-spark setup`` do)
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from learn_spark.core.errors import LearnSparkError

HEADER = "# written by learn_spark.core.install"


class InstallError(LearnSparkError):
    """A part of the installation is missing or damaged."""


@dataclass(frozen=True)
class Jar:
    """A JAR by its Maven coordinates and the SHA-256 it must have."""

    group: str
    artifact: str
    version: str
    sha256: str

    @property
    def file_name(self) -> str:
        """artifact-version.jar"""
        return f"{self.artifact}-{self.version}.jar"


# These two are enough; all 33 that they name would bring a second Hadoop and Parquet beside Spark's own.
JARS = (
    Jar(
        "io.delta",
        "delta-spark_4.0_2.13",
        "4.4.0",
        "49e899667168b9412f83cbe894ce264107d7b896d6c5e12edca4e216845c1104",
    ),
    Jar("io.delta", "delta-storage", "4.4.0", "c46735481fa8e326b0957be02b4420cbcab4b325bb08009b7f2045a95133f1cc"),
)

Fetch = Callable[[Jar, Path], None]


def jar_folder() -> Path:
    """Where this environment keeps the JARs."""
    return Path(sys.prefix) / "share" / "learn-spark" / "jars"


def jar_paths(folder: Path | None = None) -> list[Path]:
    """The JARs in place; InstallError where one is missing."""
    paths = [(folder or jar_folder()) / jar.file_name for jar in JARS]
    missing = [path.name for path in paths if not path.is_file()]
    if missing:
        raise InstallError(f"{', '.join(missing)} is not in {paths[0].parent}: run `make setup` or `learn-spark setup`")
    return paths


def fetch_with_ivy(jar: Jar, folder: Path, java: str = "java") -> None:
    """Put ``jar`` into ``folder`` with the Ivy that ships with Spark, whose defaults know Maven Central.

    LEARN_SPARK_IVY_SETTINGS may name an ivysettings.xml, for a company's mirror.
    """
    ivy = next(iter(sorted((pyspark_folder() / "jars").glob("ivy-*.jar"))), None)
    if ivy is None:
        raise InstallError(f"{pyspark_folder() / 'jars'} holds no ivy-*.jar; install pyspark anew")
    command = [java, "-cp", str(ivy), "org.apache.ivy.Main", "-confs", "default", "-notransitive"]
    if settings := os.environ.get("LEARN_SPARK_IVY_SETTINGS"):
        command += ["-settings", settings]
    command += ["-cache", str(folder / "ivy-cache"), "-dependency", jar.group, jar.artifact, jar.version]
    command += ["-retrieve", str(folder / "[artifact]-[revision].[ext]")]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=600)
    except OSError as error:
        raise InstallError(f"{java} does not run ({error.strerror}); Spark 4 needs Java 17 or 21") from None
    except subprocess.TimeoutExpired:
        raise InstallError(f"{jar.file_name} was not fetched in 10 minutes; check the network and run again") from None
    if said.returncode or not (folder / jar.file_name).is_file():
        coordinates = f"{jar.group}:{jar.artifact}:{jar.version}"
        raise InstallError(
            f"{coordinates} could not be fetched from Maven Central; check the network or proxy, or name a mirror by "
            f"LEARN_SPARK_IVY_SETTINGS, and run again"
        )


def install_jars(folder: Path, fetch: Fetch) -> list[str]:
    """Bring every JAR into ``folder``; returns the names of those that were fetched.

    A file with a wrong checksum is removed and fetched anew; a fetched one with a wrong checksum is an InstallError.
    """
    folder.mkdir(parents=True, exist_ok=True)
    fetched = []
    for jar in JARS:
        path = folder / jar.file_name
        if path.is_file() and _sha256(path) == jar.sha256:
            continue
        path.unlink(missing_ok=True)
        with tempfile.TemporaryDirectory(prefix=".fetch-", dir=folder) as temporary:
            fetch(jar, Path(temporary))
            found = _sha256(Path(temporary) / jar.file_name)
            if found != jar.sha256:
                raise InstallError(f"{jar.file_name} has the SHA-256 {found}, expected {jar.sha256}; it is not used")
            (Path(temporary) / jar.file_name).replace(path)
        fetched.append(jar.file_name)
    return fetched


def pyspark_folder() -> Path:
    """The pyspark package of this environment, found without importing it."""
    spec = find_spec("pyspark")
    if spec is None or spec.origin is None:
        raise InstallError("pyspark is not installed in this environment: run `make setup`")
    return Path(spec.origin).parent


def launcher_file(pyspark: Path) -> str:
    """The text of bin/find-spark-home, which every launcher beside it sources.

    pyspark's own asks the python3 on PATH, which knows nothing of this environment unless it is activated.
    """
    return f'{HEADER}\n[ -n "${{SPARK_HOME:-}}" ] || SPARK_HOME={shlex.quote(str(pyspark))}\nexport SPARK_HOME\n'


def spark_files(jars: list[Path], java_home: str | None) -> dict[str, str]:
    """The files of Spark's conf folder, by name: so that ``spark-submit`` finds Delta and this Python by itself."""
    defaults = f"""{HEADER}
spark.jars                     {",".join(str(path) for path in jars)}
spark.pyspark.python           {sys.executable}
spark.pyspark.driver.python    {sys.executable}
spark.ui.showConsoleProgress   false
"""
    logging = f"""{HEADER}
# Spark says little; LEARN_SPARK_LOG_LEVEL=info in the environment lets it speak.
rootLogger.level = ${{env:LEARN_SPARK_LOG_LEVEL:-error}}
rootLogger.appenderRef.stderr.ref = console
# Without a level of its own, this class sets the root's to WARN, and says so.
logger.gateway.name = org.apache.spark.api.python.PythonGatewayServer
logger.gateway.level = ${{env:LEARN_SPARK_LOG_LEVEL:-error}}
appender.console.type = Console
appender.console.name = console
appender.console.target = SYSTEM_ERR
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d{{yy/MM/dd HH:mm:ss}} %p %c{{1}}: %m%n%ex
"""
    files = {"spark-defaults.conf": defaults, "log4j2.properties": logging}
    if java_home:
        files["spark-env.sh"] = (
            f'{HEADER}\n[ -n "${{JAVA_HOME:-}}" ] || JAVA_HOME={shlex.quote(java_home)}\nexport JAVA_HOME\n'
        )
    return files


def write_spark_files(folder: Path, files: dict[str, str], replaceable: str = HEADER) -> list[str]:
    """Write what is missing or ours and different; returns the names of files that someone else wrote (left alone).

    ``replaceable`` is a text that marks another's file as one to replace.
    """
    folder.mkdir(parents=True, exist_ok=True)
    foreign = []
    for name, text in files.items():
        path = folder / name
        if path.is_file():
            held = path.read_text(encoding="utf-8")
            if held == text:
                continue
            if not held.startswith(HEADER) and replaceable not in held:
                foreign.append(name)
                continue
        temporary = folder / f".{name}.{os.getpid()}"
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    return foreign


def install(java_home: str | None = None) -> None:
    """Fetch the JARs (once) and write Spark's conf files; a second call changes nothing. Raises InstallError."""
    java = str(Path(java_home) / "bin" / "java") if java_home else shutil.which("java") or "java"
    folder = jar_folder()
    for name in install_jars(folder, lambda jar, where: fetch_with_ivy(jar, where, java)):
        print(f"fetched {name} (checksum verified)")
    pyspark, scripts = pyspark_folder(), Path(sys.executable).parent
    conf = pyspark / "conf"
    foreign = [conf / name for name in write_spark_files(conf, spark_files(jar_paths(folder), java_home))]
    launcher = {"find-spark-home": launcher_file(pyspark)}
    foreign += [scripts / name for name in write_spark_files(scripts, launcher, "FIND_SPARK_HOME_PYTHON_SCRIPT")]
    for path in foreign:
        print(f"note: {path} was written by someone else and is left alone")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def main() -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(description="Fetch the Delta JARs and tell Spark about this environment.")
    parser.add_argument("--java-home", help="the Java that Spark starts when JAVA_HOME is not set")
    try:
        install(parser.parse_args().java_home)
    except (InstallError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
