"""Installs what pip does not: the two Delta JARs, and Spark's configuration files for this environment.

Run:  python -m learn_spark.core.install [--java-home PATH]    (make setup and ``learn-spark setup`` do)
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from xml.sax.saxutils import quoteattr

from learn_spark.core.errors import LearnSparkError

HEADER = "# written by learn_spark.core.install"
OUR_HEADERS = (HEADER, "# written by learn_spark.install")  # the latter by version 0.1


class InstallError(LearnSparkError):
    """A part of the installation is missing or damaged."""


@dataclass(frozen=True)
class Jar:
    """A JAR: its Maven coordinates and its expected SHA-256."""

    group: str
    artifact: str
    version: str
    sha256: str

    @property
    def file_name(self) -> str:
        """artifact-version.jar"""
        return f"{self.artifact}-{self.version}.jar"


# Delta's own JAR for each Spark, and one that both need. These are enough: their 33 transitive dependencies would add a
# second Hadoop and Parquet to Spark's.
DELTA = "4.4.0"
DELTA_OF = {
    "4.0": "49e899667168b9412f83cbe894ce264107d7b896d6c5e12edca4e216845c1104",
    "4.1": "75a9400986853c061f5109f012547de2545a5759e5e752e5ef633dabe16a4f10",
}
STORAGE = Jar("io.delta", "delta-storage", DELTA, "c46735481fa8e326b0957be02b4420cbcab4b325bb08009b7f2045a95133f1cc")

Fetch = Callable[[Jar, Path], None]


def spark_version() -> str:
    """Major and minor version of the installed pyspark, such as 4.0. Raises InstallError if there is none."""
    text = (pyspark_folder() / "version.py").read_text(encoding="utf-8")
    found = re.search(r"""__version__[^"']*["'](\d+\.\d+)""", text)
    return found[1] if found else "unknown"


def delta_jars(spark: str) -> tuple[Jar, Jar]:
    """The JARs that a version of Spark, such as 4.0, needs. Raises InstallError for a version without any."""
    if spark not in DELTA_OF:
        raise InstallError(
            f"pyspark {spark} is installed, but learn-spark runs on Spark {' and '.join(DELTA_OF)}: install one of them"
        )
    return Jar("io.delta", f"delta-spark_{spark}_2.13", DELTA, DELTA_OF[spark]), STORAGE


def jar_folder() -> Path:
    """The folder of this environment's JARs."""
    return Path(sys.prefix) / "share" / "learn-spark" / "jars"


def jar_paths(folder: Path | None = None) -> list[Path]:
    """Paths of the installed JARs of this pyspark. Raises InstallError if one is missing."""
    paths = [(folder or jar_folder()) / jar.file_name for jar in delta_jars(spark_version())]
    missing = [path.name for path in paths if not path.is_file()]
    if missing:
        raise InstallError(f"{', '.join(missing)} is not in {paths[0].parent}: run `make setup` or `learn-spark setup`")
    return paths


def fetch_with_ivy(jars: Sequence[Jar], folder: Path, java: str = "java") -> None:
    """Download ``jars`` from Maven Central into ``folder``, by one run of the Ivy that Spark contains.

    The environment variable LEARN_SPARK_IVY_SETTINGS may name an ivysettings.xml, such as one for a mirror. Raises
    InstallError if Java or Ivy is missing, or if a download fails.
    """
    ivy = next(iter(sorted((pyspark_folder() / "jars").glob("ivy-*.jar"))), None)
    if ivy is None:
        raise InstallError(f"{pyspark_folder() / 'jars'} contains no ivy-*.jar; reinstall pyspark")
    wanted = "\n".join(
        f"<dependency org={quoteattr(jar.group)} name={quoteattr(jar.artifact)} rev={quoteattr(jar.version)} "
        'conf="default->default(*),master(*)" transitive="false"/>'
        for jar in jars
    )
    module = folder / "ivy.xml"
    module.write_text(
        '<ivy-module version="2.0"><info organisation="learn-spark" module="jars"/><configurations>'
        f'<conf name="default"/></configurations><dependencies>{wanted}</dependencies></ivy-module>',
        encoding="utf-8",
    )
    command = [java, "-cp", str(ivy), "org.apache.ivy.Main", "-ivy", str(module), "-cache", str(folder / "ivy-cache")]
    if settings := os.environ.get("LEARN_SPARK_IVY_SETTINGS"):
        command += ["-settings", settings]
    command += ["-retrieve", str(folder / "[artifact]-[revision].[ext]")]
    try:
        process = subprocess.run(command, capture_output=True, text=True, timeout=600)
    except OSError as error:
        raise InstallError(f"{java} does not run ({error.strerror}); Spark 4 needs Java 17 or 21") from None
    except subprocess.TimeoutExpired:
        names = ", ".join(jar.file_name for jar in jars)
        raise InstallError(f"{names} was not fetched in 10 minutes; check the network and run again") from None
    absent = [jar for jar in jars if not (folder / jar.file_name).is_file()]
    if process.returncode or absent:
        coordinates = ", ".join(f"{jar.group}:{jar.artifact}:{jar.version}" for jar in absent or jars)
        raise InstallError(
            f"{coordinates} could not be fetched from Maven Central (exit code {process.returncode}); check the "
            "network or proxy, or name a mirror in LEARN_SPARK_IVY_SETTINGS, and run again"
        )


def install_jars(folder: Path, fetch: Fetch) -> list[str]:
    """Install the JARs of this pyspark in ``folder``; returns the names of the fetched ones.

    A file with a wrong checksum is removed and fetched again. Raises InstallError if a fetched file has a wrong one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    fetched = []
    for jar in delta_jars(spark_version()):
        path = folder / jar.file_name
        if path.is_file() and sha256(path) == jar.sha256:
            continue
        path.unlink(missing_ok=True)
        with tempfile.TemporaryDirectory(prefix=".fetch-", dir=folder) as temporary:
            fetch(jar, Path(temporary))
            checksum = sha256(Path(temporary) / jar.file_name)
            if checksum != jar.sha256:
                raise InstallError(
                    f"{jar.file_name} has the SHA-256 {checksum}, expected {jar.sha256}; it was not installed"
                )
            (Path(temporary) / jar.file_name).replace(path)
        fetched.append(jar.file_name)
    return fetched


def pyspark_folder() -> Path:
    """The folder of the installed pyspark package, without importing it. Raises InstallError if there is none."""
    spec = find_spec("pyspark")
    if spec is None or spec.origin is None:
        raise InstallError(
            "pyspark is not installed in this environment: run `make setup`, or `pip install 'learn-spark[spark]'`"
        )
    return Path(spec.origin).parent


def launcher_file(pyspark: Path) -> str:
    """The text of bin/find-spark-home, which every launcher in the same folder sources.

    pyspark's version runs the python3 on PATH, which has no pyspark unless this environment is activated.
    """
    return f'{HEADER}\n[ -n "${{SPARK_HOME:-}}" ] || SPARK_HOME={shlex.quote(str(pyspark))}\nexport SPARK_HOME\n'


def spark_files(jars: list[Path], java_home: str | None) -> dict[str, str]:
    """File name -> text of Spark's conf folder: ``spark-submit`` gets Delta, this Python and a locale of UTF-8."""
    defaults = f"""{HEADER}
spark.jars                     {",".join(str(path) for path in jars)}
spark.pyspark.python           {sys.executable}
spark.pyspark.driver.python    {sys.executable}
spark.ui.showConsoleProgress   false
"""
    logging = f"""{HEADER}
# Spark logs errors only; LEARN_SPARK_LOG_LEVEL=info in the environment logs more.
rootLogger.level = ${{env:LEARN_SPARK_LOG_LEVEL:-error}}
rootLogger.appenderRef.stderr.ref = console
# Without a level here, this class sets the level of the root logger to WARN and logs that.
logger.gateway.name = org.apache.spark.api.python.PythonGatewayServer
logger.gateway.level = ${{env:LEARN_SPARK_LOG_LEVEL:-error}}
appender.console.type = Console
appender.console.name = console
appender.console.target = SYSTEM_ERR
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d{{yy/MM/dd HH:mm:ss}} %p %c{{1}}: %m%n%ex
"""
    environment = f"""{HEADER}
# In a locale without UTF-8, Java sees no file with a name outside ASCII.
case "${{LC_ALL:-${{LC_CTYPE:-${{LANG:-}}}}}}" in *[Uu][Tt][Ff]*) ;; *) export LC_ALL=C.UTF-8 ;; esac
"""
    if java_home:
        environment += f'[ -n "${{JAVA_HOME:-}}" ] || JAVA_HOME={shlex.quote(java_home)}\nexport JAVA_HOME\n'
    return {"spark-defaults.conf": defaults, "log4j2.properties": logging, "spark-env.sh": environment}


def write_spark_files(folder: Path, files: dict[str, str], replaceable: str = HEADER) -> list[str]:
    """Write files that are missing, or that an earlier run of this module wrote with another text.

    A file that other software wrote is replaced only if it contains ``replaceable``. Returns the names of the other
    foreign files, which are unchanged.
    """
    folder.mkdir(parents=True, exist_ok=True)
    foreign = []
    for name, text in files.items():
        path = folder / name
        if path.is_file():
            current = path.read_text(encoding="utf-8")
            if current == text:
                continue
            if not current.startswith(OUR_HEADERS) and replaceable not in current:
                foreign.append(name)
                continue
        temporary = folder / f".{name}.{os.getpid()}"
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    return foreign


def java_of(java_home: str | None) -> str:
    """The Java of a JAVA_HOME; None: the one on PATH."""
    return str(Path(java_home) / "bin" / "java") if java_home else shutil.which("java") or "java"


def install(java_home: str | None = None) -> None:
    """Fetch missing JARs and write Spark's configuration files; a second call changes nothing.

    Raises InstallError.
    """
    java = java_of(java_home)
    folder = jar_folder()
    for name in install_jars(folder, lambda jar, where: fetch_with_ivy([jar], where, java)):
        print(f"fetched {name} (checksum verified)")
    pyspark, scripts = pyspark_folder(), Path(sys.executable).parent
    conf = pyspark / "conf"
    connectors = [jar for name in ("s3", "kafka") for jar in sorted((folder / name).glob("*.jar"))]
    jars = [*jar_paths(folder), *connectors]
    foreign = [conf / name for name in write_spark_files(conf, spark_files(jars, java_home))]
    launcher = {"find-spark-home": launcher_file(pyspark)}
    foreign += [scripts / name for name in write_spark_files(scripts, launcher, "FIND_SPARK_HOME_PYTHON_SCRIPT")]
    for path in foreign:
        print(f"note: {path} was written by other software and is unchanged")


def sha256(path: Path) -> str:
    """The SHA-256 of a file, as hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def main() -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(description="Fetch the Delta JARs and write Spark's configuration files.")
    parser.add_argument("--java-home", help="the Java that Spark starts when JAVA_HOME is not set")
    try:
        install(parser.parse_args().java_home)
    except (InstallError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
