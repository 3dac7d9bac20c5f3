"""The session: an unfit Java is told in one sentence; the workers run this interpreter."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pyspark
import pytest
from pyspark.sql import SparkSession

from learn_spark.core.settings.platform import SparkSettings
from learn_spark.core.tables.session import (
    SessionError,
    check_java,
    folder_for_libraries,
    session_defaults,
    use_this_installation,
)


def fake_java(folder: Path, version: str) -> Path:
    java = folder / "bin" / "java"
    java.parent.mkdir(parents=True)
    java.write_text(f"#!/bin/sh\necho 'openjdk version \"{version}\" 2025-01-01' >&2\n")
    java.chmod(0o755)
    return folder


@pytest.mark.parametrize(("version", "found"), [("25.0.1", "Java 25"), ("11.0.2", "Java 11"), ("1.8.0_392", "Java 1")])
def test_an_unfit_java_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, found: str) -> None:
    monkeypatch.setenv("JAVA_HOME", str(fake_java(tmp_path / "jdk", version)))
    with pytest.raises(SessionError, match=f"{found}.* Spark 4 needs Java 17 or 21"):
        check_java()


@pytest.mark.parametrize("version", ["17.0.15", "21"])
def test_a_fit_java_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    monkeypatch.setenv("JAVA_HOME", str(fake_java(tmp_path / "jdk", version)))
    check_java()


def test_no_java_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SessionError, match="no Java found"):
        check_java()
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(SessionError, match="does not run"):
        check_java()


@pytest.mark.parametrize("master", ["yarn", "spark://host:7077", "k8s://https://host", ""])
def test_sizes_of_one_machine_are_not_given_to_a_cluster(master: str) -> None:
    here, there = (session_defaults(SparkSettings(), one) for one in ("local[*]", master))
    assert {key: value for key, value in here.items() if key not in there} == {
        "spark.ui.enabled": "false",
        "spark.databricks.delta.snapshotPartitions": "2",
        "spark.sql.shuffle.partitions": "4",
    }
    assert there.items() <= here.items()
    for one in ("local[2]", master):
        assert session_defaults(SparkSettings(shuffle_partitions=400), one)["spark.sql.shuffle.partitions"] == "400"


def test_other_installations_in_the_environment_are_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("PYSPARK_PYTHON", "/usr/bin/python3"), ("PYSPARK_DRIVER_PYTHON", "ipython")):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("SPARK_HOME", str(tmp_path))
    monkeypatch.setenv("SPARK_CONF_DIR", str(tmp_path / "conf"))
    # On a cluster they name places of the workers, if it is the same Spark.
    with pytest.raises(SessionError, match=r"SPARK_HOME is .*, which has no Spark"):
        use_this_installation(local=False)
    (tmp_path / "jars").mkdir()
    (tmp_path / "jars" / f"spark-core_2.13-{pyspark.__version__}.jar").touch()
    use_this_installation(local=False)
    assert (os.environ["PYSPARK_PYTHON"], os.environ["SPARK_HOME"]) == ("/usr/bin/python3", str(tmp_path))
    use_this_installation(local=True)
    assert os.environ["PYSPARK_PYTHON"] == os.environ["PYSPARK_DRIVER_PYTHON"] == sys.executable
    assert os.environ["SPARK_HOME"] == str(Path(pyspark.__file__).parent)
    assert "SPARK_CONF_DIR" not in os.environ


def test_with_tmp_mounted_noexec_java_gets_a_folder_of_the_workspace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, noexec = os.statvfs, {"/tmp"}

    def statvfs(path: str | Path) -> os.statvfs_result:
        fields = list(real(path))
        fields[8] = fields[8] | os.ST_NOEXEC if str(path) in noexec else fields[8] & ~os.ST_NOEXEC
        return os.statvfs_result(fields)

    monkeypatch.setattr(os, "statvfs", statvfs)
    logs, place = tmp_path / "w" / "logs", tmp_path / "w" / "cache" / "java"
    assert folder_for_libraries(logs) == place
    assert place.is_dir()
    with pytest.raises(SessionError, match=r"/tmp is mounted noexec.* name a folder for them by --set spark\.conf"):
        folder_for_libraries(tmp_path / "a b" / "logs")
    noexec.add(str(place))
    with pytest.raises(SessionError, match=r"java will not do either"):
        folder_for_libraries(logs)
    noexec.clear()
    assert folder_for_libraries(logs) is None


def test_while_java_starts_its_errors_go_to_a_file_and_signs_of_life_to_the_terminal(tmp_path: Path) -> None:
    program = """
import os, sys
from pathlib import Path
from learn_spark.core.tables.session import _stderr_to
from learn_spark.core.ticker import Ticker
with _stderr_to(Path(sys.argv[1])):
    os.system("echo of Java >&2")
    Ticker(now=iter([0.0, 9.0, 9.0]).__next__).look()
os.system("echo after >&2")
print("and Python", file=sys.stderr)
"""
    command = [sys.executable, "-c", program, str(tmp_path / "log")]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stderr.splitlines()
    assert (tmp_path / "log").read_text() == "of Java\n"
    assert said[0].startswith("  ... starting (9 s")
    assert said[1:] == ["after", "and Python"]


def test_workers_run_this_interpreter(spark: SparkSession) -> None:
    def where(_: object) -> list[str]:
        import sys

        return [sys.executable]

    found = set(spark.sparkContext.parallelize(range(2), 2).mapPartitions(where).collect())
    assert found == {sys.executable}
