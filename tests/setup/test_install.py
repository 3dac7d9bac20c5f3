"""The Delta JARs and Spark's conf files, on temporary folders and without a network."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from learn_spark.core.install import (
    HEADER,
    InstallError,
    Jar,
    delta_jars,
    install_jars,
    jar_folder,
    jar_paths,
    launcher_file,
    spark_files,
    spark_version,
    write_spark_files,
)

JARS = delta_jars(spark_version())


def _copy(jar: Jar, folder: Path) -> None:
    shutil.copy(jar_folder() / jar.file_name, folder)


def _drop_bytes(jar: Jar, folder: Path) -> None:
    whole = (jar_folder() / jar.file_name).read_bytes()
    (folder / jar.file_name).write_bytes(whole[:-100])


def _no_network(jar: Jar, folder: Path) -> None:
    raise InstallError(f"{jar.file_name} was asked for")


def _times(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}


def test_jars_are_fetched_once(tmp_path: Path) -> None:
    names = [jar.file_name for jar in JARS]
    assert install_jars(tmp_path / "jars", _copy) == names
    before = _times(tmp_path / "jars")
    assert sorted(before) == sorted(names)
    assert install_jars(tmp_path / "jars", _no_network) == []
    assert _times(tmp_path / "jars") == before


def test_a_damaged_jar_is_fetched_anew(tmp_path: Path) -> None:
    install_jars(tmp_path, _copy)
    damaged = tmp_path / JARS[0].file_name
    damaged.write_bytes(damaged.read_bytes()[:-1])
    assert install_jars(tmp_path, _copy) == [damaged.name]
    assert install_jars(tmp_path, _no_network) == []


def test_a_download_with_a_wrong_checksum_is_not_kept(tmp_path: Path) -> None:
    with pytest.raises(InstallError, match="SHA-256") as caught:
        install_jars(tmp_path, _drop_bytes)
    assert JARS[0].file_name in str(caught.value)
    assert JARS[0].sha256 in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_jar_is_gone_even_when_it_cannot_be_fetched(tmp_path: Path) -> None:
    install_jars(tmp_path, _copy)
    (tmp_path / JARS[1].file_name).write_bytes(b"half")
    with pytest.raises(InstallError, match="was asked for"):
        install_jars(tmp_path, _no_network)
    assert [path.name for path in tmp_path.iterdir()] == [JARS[0].file_name]


def test_missing_jars_say_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(InstallError, match=r"make setup.*learn-spark setup"):
        jar_paths(tmp_path)


def test_each_spark_has_its_own_delta(tmp_path: Path) -> None:
    names = {spark: [jar.file_name for jar in delta_jars(spark)] for spark in ("4.0", "4.1")}
    assert names == {
        spark: [f"delta-spark_{spark}_2.13-4.4.0.jar", "delta-storage-4.4.0.jar"] for spark in ("4.0", "4.1")
    }
    with pytest.raises(InstallError, match=r"pyspark 3\.5 is installed.*Spark 4\.0 and 4\.1"):
        delta_jars("3.5")


def test_spark_files_name_the_jars_and_this_python(tmp_path: Path) -> None:
    jars = [tmp_path / "a.jar", tmp_path / "b.jar"]
    files = spark_files(jars, "/opt/java")
    assert all(text.startswith(HEADER) for text in files.values())
    defaults = dict(line.split(maxsplit=1) for line in files["spark-defaults.conf"].splitlines()[1:])
    assert defaults == {
        "spark.jars": f"{jars[0]},{jars[1]}",
        "spark.pyspark.python": sys.executable,
        "spark.pyspark.driver.python": sys.executable,
        "spark.ui.showConsoleProgress": "false",
    }
    assert "rootLogger.level = ${env:LEARN_SPARK_LOG_LEVEL:-error}" in files["log4j2.properties"]
    assert "JAVA_HOME" not in spark_files(jars, None)["spark-env.sh"]


@pytest.mark.parametrize("home", ["/opt/java", '/opt/it\'s a "Java" $HOME'])
def test_spark_env_names_the_java_unless_the_user_did(tmp_path: Path, home: str) -> None:
    write_spark_files(tmp_path, {"spark-env.sh": spark_files([], home)["spark-env.sh"]})

    def java_home(environment: dict[str, str]) -> str:
        script = f'set -eu; . "{tmp_path}/spark-env.sh"; printf %s "$JAVA_HOME"'
        return subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True).stdout

    assert java_home({}) == home
    assert java_home({"JAVA_HOME": "/mine"}) == "/mine"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, "C.UTF-8"),
        ({"LC_ALL": "C", "LANG": "de_DE.UTF-8"}, "C.UTF-8"),
        ({"LANG": "POSIX"}, "C.UTF-8"),
        ({"LC_CTYPE": "de_DE.ISO-8859-1", "LANG": "de_DE.UTF-8"}, "C.UTF-8"),
        ({"LANG": "de_DE.UTF-8"}, ""),
        ({"LC_ALL": "en_US.utf8", "LANG": "C"}, "en_US.utf8"),
    ],
)
def test_spark_env_gives_java_a_locale_of_utf_8(tmp_path: Path, given: dict[str, str], expected: str) -> None:
    write_spark_files(tmp_path, {"spark-env.sh": spark_files([], None)["spark-env.sh"]})
    script = f'set -eu; . "{tmp_path}/spark-env.sh"; sh -c \'printf %s "${{LC_ALL:-}}"\''
    said = subprocess.run(["bash", "-c", script], env={"PATH": os.defpath, **given}, capture_output=True, text=True)
    assert said.stdout == expected


def test_a_second_run_writes_nothing_and_a_changed_one_writes_its_own(tmp_path: Path) -> None:
    assert write_spark_files(tmp_path, spark_files([tmp_path / "a.jar"], "/opt/java")) == []
    before = _times(tmp_path)
    assert write_spark_files(tmp_path, spark_files([tmp_path / "a.jar"], "/opt/java")) == []
    assert _times(tmp_path) == before
    assert write_spark_files(tmp_path, spark_files([tmp_path / "b.jar"], "/opt/java")) == []
    assert "b.jar" in (tmp_path / "spark-defaults.conf").read_text()
    assert sorted(_times(tmp_path)) == sorted(before)


def test_a_file_of_someone_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "spark-defaults.conf").write_text("spark.master local[7]\n")
    assert write_spark_files(tmp_path, spark_files([], None)) == ["spark-defaults.conf"]
    assert (tmp_path / "spark-defaults.conf").read_text() == "spark.master local[7]\n"
    assert (tmp_path / "log4j2.properties").is_file()


def test_files_of_an_earlier_version_are_replaced(tmp_path: Path) -> None:
    (tmp_path / "spark-env.sh").write_text("# written by learn_spark.install\nexport JAVA_HOME=/old\n")
    assert write_spark_files(tmp_path, spark_files([], "/opt/java")) == []
    assert "/old" not in (tmp_path / "spark-env.sh").read_text()


def test_only_pyspark_s_own_launcher_is_replaced(tmp_path: Path) -> None:
    path, mark = tmp_path / "find-spark-home", "FIND_SPARK_HOME_PYTHON_SCRIPT"
    wanted = {"find-spark-home": launcher_file(tmp_path)}
    path.write_text("echo mine\n")
    assert write_spark_files(tmp_path, wanted, mark) == [path.name]
    path.write_text(f'{mark}="$(pwd)/find_spark_home.py"\n')
    assert write_spark_files(tmp_path, wanted, mark) == []
    assert path.read_text() == launcher_file(tmp_path)


def test_spark_submit_starts_from_a_shell_that_knows_nothing_of_this_environment() -> None:
    # /usr/bin has a python3 without pyspark, or none.
    environment = {"PATH": "/usr/bin:/bin", "HOME": os.environ.get("HOME", "/")}
    submit = Path(sys.executable).parent / "spark-submit"
    said = subprocess.run([str(submit), "--version"], env=environment, capture_output=True, text=True, timeout=120)
    assert said.returncode == 0, said.stderr
    assert "version 4.0" in said.stderr
