"""Java's archive of Spark's classes, from which a JVM starts sooner (class data sharing, JEP 350).

``learn-spark setup`` makes it (learn_spark/pipeline/class_archive.py). It fits one Java and one set of JARs: its name
has their hash, and Java itself ignores an archive that does not fit.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from learn_spark.core.install import jar_folder, jar_paths, pyspark_folder

EXTRA_CLASS_PATH, EXTRA_OPTIONS = "spark.driver.extraClassPath", "spark.driver.extraJavaOptions"


def class_path() -> str:
    """All JARs of Spark and Delta. An archive needs them before the folder of Spark's configuration files."""
    return ":".join([*map(str, jar_paths()), f"{pyspark_folder() / 'jars'}/*"])


def archive_file(java_version: str) -> Path:
    """The archive for this Java (the output of ``java -version``) and the installed JARs, made or not."""
    digest = hashlib.sha256(java_version.encode())
    for jar in [*jar_paths(), *sorted((pyspark_folder() / "jars").glob("*.jar"))]:
        stat = jar.stat()
        digest.update(f"{jar}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    return jar_folder().parent / f"classes-{digest.hexdigest()[:16]}.jsa"


def archive_settings(java_version: str, given: dict[str, str]) -> dict[str, str]:
    """The settings of Spark with which a JVM starts from the archive; none where there is none, or where the ``given``
    settings have a class path or an archive of their own.
    """
    options = given.get(EXTRA_OPTIONS, "")
    file = archive_file(java_version)
    if EXTRA_CLASS_PATH in given or "SharedArchiveFile" in options or "-Xshare" in options or " " in str(file):
        return {}
    if not file.is_file():
        return {}
    # Java's warnings about an archive that does not fit would be among the command's output.
    quiet = f"-XX:SharedArchiveFile={file} -Xshare:auto -Xlog:disable -Xlog:all=error:stderr"
    return {EXTRA_CLASS_PATH: class_path(), EXTRA_OPTIONS: f"{quiet} {options}".strip()}
