"""Java's archive of Spark's classes: used where it is, and an archive that does not fit disturbs nothing."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from learn_spark.core.tables import java_classes
from learn_spark.core.tables.java_classes import EXTRA_CLASS_PATH, EXTRA_OPTIONS, archive_file, archive_settings

JAVA = 'openjdk version "17.0.15"'


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with Spark's JARs beside which an archive lies, a damaged one."""
    monkeypatch.setattr(java_classes, "jar_folder", lambda: tmp_path / "jars")
    file = archive_file(JAVA)
    file.write_bytes(b"no archive")
    return file


def test_the_archive_of_another_java_is_not_used(made: Path) -> None:
    assert str(made) in archive_settings(JAVA, {})[EXTRA_OPTIONS]
    assert archive_settings('openjdk version "21.0.1"', {}) == {}


def test_options_of_the_settings_come_last_and_a_class_path_of_theirs_stays(made: Path) -> None:
    chosen = archive_settings(JAVA, {EXTRA_OPTIONS: "-XX:+UseSerialGC"})
    assert chosen[EXTRA_OPTIONS].endswith(" -XX:+UseSerialGC")
    assert "delta-spark" in chosen[EXTRA_CLASS_PATH]
    assert archive_settings(JAVA, {EXTRA_CLASS_PATH: "/opt/jars/*"}) == {}
    for theirs in ("-XX:SharedArchiveFile=x.jsa", "-Xshare:off"):
        assert archive_settings(JAVA, {EXTRA_OPTIONS: theirs}) == {}


def test_java_ignores_an_archive_that_does_not_fit_without_a_word(made: Path) -> None:
    java = shutil.which("java")
    assert java is not None
    options = archive_settings(JAVA, {})[EXTRA_OPTIONS].split()
    plain, with_archive = (
        subprocess.run([java, *given, "-version"], capture_output=True, text=True, check=True)
        for given in ([], options)
    )
    assert with_archive.stdout == plain.stdout == ""
    assert with_archive.stderr.splitlines()[0] == plain.stderr.splitlines()[0]
    assert len(with_archive.stderr.splitlines()) == len(plain.stderr.splitlines())
