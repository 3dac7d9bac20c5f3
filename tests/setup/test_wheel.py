"""The wheel: the same bytes twice; and its base alone, with the newest Arrow and numpy, reads the features."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest

from learn_spark.core.parts import PARTS, VERSION
from learn_spark.core.settings import load_settings, save_settings
from tests.features.published import Published
from tests.features.test_reading import EVENTS

ROOT = Path(__file__).parents[2]
SOURCES = ("pyproject.toml", "MANIFEST.in", "README.md", "LICENSE", "scripts/reproducible_build.py")
# setuptools replaces sys.argv.
BUILD = "import sys, reproducible_build as b; to = sys.argv[1]; b.build_sdist(to); b.build_wheel(to)"
READ = """
import json, sys
from datetime import datetime
import numpy, pyarrow as pa
import learn_spark as ls

asked = json.load(sys.stdin)
ws = ls.open(asked["workspace"])
times = pa.array([datetime.fromisoformat(time) for *_, time in asked["events"]], pa.timestamp("us", "UTC"))
names, users, items = zip(*(event[:3] for event in asked["events"]))
events = pa.table({"event_id": names, "user_id": users, "item_id": items, "event_time": times})
joined = ws.features_at(events).to_pylist()
try:
    ls.encode(["a lamp"], "/nowhere")
except ls.core.errors.LearnSparkError as error:
    missing = [str(error), error.part, isinstance(error, ImportError)]
try:
    import torch
except ModuleNotFoundError as error:
    others = type(error).__name__
print(json.dumps({
    "versions": [numpy.__version__, pa.__version__],
    "file": ls.__file__,
    "users": [ws.features("user_features", release).to_pydict() for release in ("latest", "r1")],
    "changes": ws.changes("user_features", "r1", until="r2").to_pylist(),
    "joined": [[row[n] for n in ("event_id", "release_id", "user_embedding", "item_embedding")] for row in joined],
    "missing": missing,
    "others": others,
    "loaded": sorted({name.partition(".")[0] for name in sys.modules}),
}, default=str))
"""


def _build(folder: Path, day: str, mask: int) -> dict[str, bytes]:
    """Build from a copy of the sources with times and modes of its own; file name -> content."""
    for name in ("conf", "learn_spark", "schemas"):
        shutil.copytree(ROOT / name, folder / "source" / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in SOURCES:
        (folder / "source" / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, folder / "source" / name)
    subprocess.run(["find", str(folder / "source"), "-type", "f", "-exec", "touch", "-d", day, "{}", "+"], check=True)
    (folder / "dist").mkdir()
    built = subprocess.run(
        [sys.executable, "-c", BUILD, str(folder / "dist")],
        cwd=folder / "source",
        env={"PATH": os.defpath, "PYTHONPATH": "scripts", "SOURCE_DATE_EPOCH": "1700000000"},
        capture_output=True,
        text=True,
        umask=mask,
    )
    assert built.returncode == 0, built.stderr
    return {path.name: path.read_bytes() for path in (folder / "dist").iterdir()}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with sdist and wheel."""
    folder = tmp_path_factory.mktemp("built")
    _build(folder, "2020-01-01", 0o022)
    return folder / "dist"


def _newest_python() -> str:
    """The newest CPython from 3.11 on that runs here: on PATH, in pyenv, or that of the tests."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    named = [path for minor in range(11, 20) if (path := shutil.which(f"python3.{minor}"))]
    asked = "import sys; print(*sys.version_info[:3], sys.version_info.releaselevel, sys._base_executable)"
    found = []
    for python in {sys.executable, *named, *map(str, pyenv.glob("3.*/bin/python"))}:
        told = subprocess.run([python, "-I", "-c", asked], capture_output=True, text=True).stdout.split()
        if len(told) == 5 and told[3] == "final":  # a shim of pyenv may name a Python that does not run
            found.append((tuple(map(int, told[:3])), told[4]))
    return max(found)[1]


@pytest.fixture(scope="module")
def base(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment with the base alone: its newest packages, on the newest Python."""
    folder = tmp_path_factory.mktemp("base") / "environment"
    uv = str(Path(sys.executable).parent / "uv")
    (wheel,) = built.glob("*.whl")
    # Without the packages of .venv.
    subprocess.run([uv, "venv", "--quiet", "--python", _newest_python(), str(folder)], check=True)
    install = [uv, "pip", "install", "--quiet", "--python", str(folder / "bin" / "python"), str(wheel)]
    done = subprocess.run(install, cwd=folder, capture_output=True, text=True)
    if done.returncode != 0:
        why = " / ".join(line.strip() for line in done.stderr.splitlines()[:3])
        pytest.fail(f"the packages of the base cannot be installed; does the package index answer? uv: {why}", False)
    return folder / "bin"


def _run(*command: str | Path, **more: Any) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "LEARN_SPARK"))}
    return subprocess.run(
        [str(part) for part in command], env=environment, cwd="/", capture_output=True, text=True, **more
    )


def test_the_same_sources_give_the_same_bytes_whatever_their_times_and_modes(built: Path, tmp_path: Path) -> None:
    again = _build(tmp_path, "2024-06-30", 0o077)
    assert {path.name: path.read_bytes() for path in built.iterdir()} == again
    assert sorted(again) == [f"learn_spark-{VERSION}-py3-none-any.whl", f"learn_spark-{VERSION}.tar.gz"]


def test_the_wheel_has_every_file_of_the_package(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    inside = set(ZipFile(wheel).namelist())
    for folder, place in (("learn_spark", ""), ("conf", "_conf"), ("schemas", "_schemas")):
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                assert str(Path("learn_spark", place, path.relative_to(ROOT / folder))) in inside


def test_the_base_alone_reads_joins_and_follows_releases(
    base: Path, published_copy: Callable[[Path], Published], tmp_path: Path
) -> None:
    published = published_copy(tmp_path)
    root = published.workspace.root
    save_settings(load_settings("quickstart"), root / "runs" / "20240101T000000-aaaaaaaa")
    events = [[name, user, item, time.isoformat()] for name, user, item, time, *_ in EVENTS]
    done = _run(base / "python", "-c", READ, input=json.dumps({"workspace": str(root), "events": events}))
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert Path(found["file"]).is_relative_to(base.parent)
    numpy, pyarrow = (int(version.partition(".")[0]) for version in found["versions"])
    assert (numpy >= 2, pyarrow > 20) == (True, True), found["versions"]
    latest, first = (dict(zip(t["user_id"], t["embedding"], strict=True)) for t in found["users"])
    assert first == {u: pytest.approx(v) for u, v in {"a": [1.0, 0.0], "b": [0.0, 1.0], "c": [0.6, 0.8]}.items()}
    assert set(latest) == {"a", "b", "c", "d"}
    assert {row["user_id"]: row["change"] for row in found["changes"]} == {"b": "update", "c": "delete", "d": "insert"}
    for row, (name, _, _, _, release, user, item) in zip(found["joined"], EVENTS, strict=True):
        vectors = [None if vector is None else pytest.approx(vector) for vector in (user, item)]
        assert row == [name, release, *vectors]
    sentence, part, is_import_error = found["missing"]
    assert sentence.startswith("torch is not installed")
    assert "pip install 'learn-spark[encode]'" in sentence
    assert (part, is_import_error, found["others"]) == ("encode", True, "ModuleNotFoundError")
    megabytes = sum(path.stat().st_size for path in base.parent.rglob("*") if path.is_file()) / 1e6
    assert megabytes < 500  # 393 on 2026-11-30, docs/start/parts.md
    packages = {"petastorm", "pyspark", "delta", "torch", "pandas", "scipy", "faiss", "great_expectations", "jinja2"}
    assert not packages & set(found["loaded"])


def test_commands_of_the_base_list_releases_and_name_the_extra_of_what_is_missing(
    base: Path, published_copy: Callable[[Path], Published], tmp_path: Path
) -> None:
    where = ["--set", f"workspace={published_copy(tmp_path).workspace.root}"]
    told = _run(base / "learn-spark", "--version")
    assert told.returncode == 0, told.stderr
    first, *lines = told.stdout.splitlines()
    assert first == f"learn-spark {VERSION}"
    assert [line.split()[0] for line in lines] == list(PARTS)
    assert "not installed" not in lines[0]
    for name, line in zip(list(PARTS)[1:], lines[1:], strict=True):
        assert f"pip install 'learn-spark[{name}]'" in line
    listed = _run(base / "learn-spark", "releases", "--json", *where)
    assert [row["release"] for row in json.loads(listed.stdout)["releases"]] == ["r3", "r4", "r2", "r1"]
    for command, part in (
        (["recommend", "--user", "a"], "index"),
        (["register", "--config", "quickstart"], "spark"),
        (["report", "--config", "quickstart"], "train"),
    ):
        refused = _run(base / "learn-spark", *command, *where)
        assert refused.returncode == 1
        (line,) = [one for one in refused.stderr.splitlines() if not one.startswith("  ... ")]  # signs of life
        assert line.startswith("error: "), line
        assert f"pip install 'learn-spark[{part}]'" in line
