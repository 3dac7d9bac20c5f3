"""scripts/setup.sh is really run, in a copy of what it needs, with planted faults."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
TOOLS = ("bash", "sed", "head", "awk", "df", "cat", "cksum", "dirname", "readlink")
REAL_PYTHON = os.path.realpath(sys._base_executable)


def _program(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def _java(path: Path, version: str) -> Path:
    return _program(path, f"""echo 'openjdk version "{version}" 2025-09-16' >&2""")


@dataclass
class Checkout:
    """A copy of the project's set-up, and a PATH on which only what a test plants can be found."""

    root: Path
    bin: Path

    def run(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": str(self.bin), "HOME": str(self.root), "LEARN_SPARK_JAVA_DIRS": "", **variables}
        script = self.root / "scripts" / "setup.sh"
        return subprocess.run(
            [str(self.bin / "bash"), str(script), *arguments], env=environment, capture_output=True, text=True
        )

    def files(self) -> set[str]:
        return {str(path.relative_to(self.root)) for path in self.root.rglob("*")}


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    root, folder = tmp_path / "check out", tmp_path / "bin"
    for name in ("scripts", "requirements"):
        shutil.copytree(PROJECT / name, root / name)
    (root / "learn_spark" / "core").mkdir(parents=True)
    shutil.copy(PROJECT / "pyproject.toml", root)
    shutil.copy(PROJECT / "learn_spark" / "core" / "install.py", root / "learn_spark" / "core")
    folder.mkdir()
    for tool in TOOLS:
        found = shutil.which(tool)
        assert found, f"{tool} is not on this machine"
        (folder / tool).symlink_to(found)
    return Checkout(root, folder)


def _refused(checkout: Checkout, *words: str, **variables: str) -> None:
    """The whole set-up, not only --check, stops with these words and leaves nothing behind."""
    before = checkout.files()
    said = checkout.run(**variables)
    assert said.returncode == 2, said
    assert said.stderr.startswith("error: "), said.stderr
    for word in words:
        assert word in said.stderr
    assert checkout.files() == before


def test_a_fit_machine_passes_the_checks_and_is_not_changed(checkout: Checkout) -> None:
    java = _java(checkout.root.parent / "java 21" / "bin" / "java", "21.0.4")
    before = checkout.files()
    said = checkout.run(
        "--check", PYTHON=REAL_PYTHON, JAVA_HOME=str(java.parents[1]), LEARN_SPARK_FREE_KB=str(9 * 1024**2)
    )
    assert said.returncode == 0, said.stderr
    assert said.stdout == f"Python: {REAL_PYTHON}\nJava:   {java.parents[1]}\n"
    assert checkout.files() == before


def test_only_python_3_9(checkout: Checkout) -> None:
    _program(checkout.bin / "python3", '[ "$1" = --version ] && echo "Python 3.9.18" || exit 1')
    _refused(checkout, "no Python 3.11", "Python 3.9.18", "Install Python 3.11", "PYTHON=/path/to/python3.11")


def test_no_python_at_all(checkout: Checkout) -> None:
    _refused(checkout, "nothing called python is on PATH", "Install Python 3.11")


def test_the_python_named_by_the_user_is_not_replaced_by_another(checkout: Checkout) -> None:
    (checkout.bin / "python3.11").symlink_to(REAL_PYTHON)
    wrong = _program(checkout.root.parent / "old", '[ "$1" = --version ] && echo "Python 3.9.18" || exit 1')
    _refused(checkout, f"PYTHON={wrong}", "Python 3.9.18", "Unset it", PYTHON=str(wrong))


def test_a_shim_that_fails_does_not_hide_a_python_that_runs(checkout: Checkout) -> None:
    shims = checkout.root.parent / "shims"
    _program(shims / "python3.11", "echo 'python3.11: command not found' >&2; exit 127")
    _program(checkout.bin / "python3.11", f'exec "{REAL_PYTHON}" "$@"')
    _java(checkout.bin / "java", "17.0.15")
    said = checkout.run("--check", PATH=f"{shims}:{checkout.bin}", LEARN_SPARK_FREE_KB=str(9 * 1024**2))
    assert said.returncode == 0, said.stderr
    assert f"Python: {REAL_PYTHON}\n" in said.stdout


def test_an_activated_environment_does_not_name_itself(checkout: Checkout) -> None:
    if sys.prefix == sys.base_prefix:
        pytest.skip("the tests run outside a virtual environment")
    _java(checkout.bin / "java", "17.0.15")
    said = checkout.run("--check", PYTHON=sys.executable, LEARN_SPARK_FREE_KB=str(9 * 1024**2))
    assert f"Python: {REAL_PYTHON}\n" in said.stdout


@pytest.mark.parametrize("version", ["25", "11.0.2", "1.8.0_392"])
def test_a_java_that_spark_does_not_run_on(checkout: Checkout, version: str) -> None:
    java = _java(checkout.bin / "java", version)
    _refused(checkout, "no Java 17 or 21", f"{java}: {version.split('.')[0]}", "set JAVA_HOME", PYTHON=REAL_PYTHON)


def test_no_java(checkout: Checkout) -> None:
    _refused(checkout, "nothing called java is on PATH", "openjdk-17", "PyPI", "25", PYTHON=REAL_PYTHON)


def test_an_unfit_java_home_gives_way_to_a_fit_one_with_a_notice(checkout: Checkout) -> None:
    unfit, fit = (checkout.root.parent / name for name in ("jdk-25", "jdk-17"))
    _java(unfit / "bin" / "java", "25")
    _java(fit / "bin" / "java", "17.0.15")
    said = checkout.run(
        "--check",
        PYTHON=REAL_PYTHON,
        JAVA_HOME=str(unfit),
        LEARN_SPARK_JAVA_DIRS=f"{unfit} {fit}",
        LEARN_SPARK_FREE_KB=str(9 * 1024**2),
    )
    assert said.returncode == 0, said.stderr
    assert said.stdout.endswith(f"Java:   {fit}\n")
    assert said.stderr.count("\n") == 1
    assert f"JAVA_HOME={unfit} is Java 25" in said.stderr


def test_no_space(checkout: Checkout) -> None:
    _java(checkout.bin / "java", "17.0.15")
    _refused(
        checkout, "500 MB are free", "8192 MB are needed", "Make room", PYTHON=REAL_PYTHON, LEARN_SPARK_FREE_KB="512000"
    )


def test_an_environment_behind_a_link_is_not_cleared(checkout: Checkout, tmp_path: Path) -> None:
    """Such as that of another checkout: the set-up would take it away from there."""
    java = _java(tmp_path / "java 21" / "bin" / "java", "21.0.4")
    kept = _program(tmp_path / "other" / ".venv" / "bin" / "python", "exit 0")
    (checkout.root / ".venv").symlink_to(kept.parents[1])
    _refused(checkout, ".venv is a link to", str(kept.parents[1]), PYTHON=REAL_PYTHON, JAVA_HOME=str(java.parents[1]))
    assert kept.is_file()


def test_an_unknown_option_does_not_start_the_set_up(checkout: Checkout) -> None:
    before = checkout.files()
    said = checkout.run("--chek", PYTHON=REAL_PYTHON)
    assert said.returncode == 2
    assert "usage: scripts/setup.sh [--check]" in said.stderr
    assert checkout.files() == before
