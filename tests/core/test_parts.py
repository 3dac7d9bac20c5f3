"""Parts of an installation: they are the extras of pyproject.toml, and each import of the package belongs to one."""

from __future__ import annotations

import ast
import importlib.util
import pickle
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from learn_spark.core.errors import LearnSparkError
from learn_spark.core.parts import BASE, PARTS, VERSION, MissingPartError, name_missing_parts, part_of, parts

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# Modules of the base, and those that a setting or learn-spark setup asks for by name, with errors of their own.
OF_BASE = {"annotated_types", "deltalake", "filelock", "numpy", "pyarrow", "pydantic", "rich", "typer", "yaml"}
BY_NAME = {"fsspec", "hdfs_native"}
# pyspark's own.
WITH_SPARK = {"py4j"}


def names(requirements: list[str]) -> list[str]:
    return [re.split(r"[=<>\[]", one)[0] for one in requirements]


def test_parts_are_the_extras() -> None:
    extras = PROJECT["optional-dependencies"]
    assert [*PARTS] == [BASE, *(name for name in extras if name not in ("all", "dev"))]
    assert set(PARTS[BASE]) <= set(names(PROJECT["dependencies"]))
    for name, packages in PARTS.items():
        if name != BASE:
            assert set(packages) <= set(names(extras[name]))
    (everything,) = extras["all"]
    assert re.findall(r"\w+", everything.partition("[")[2]) == [*PARTS][1:]
    assert "learn-spark[all]" in extras["dev"]
    # Old pins are those of training alone.
    pinned = {name for name, ones in extras.items() if {"pyarrow", "numpy"} & set(names(ones))}
    assert pinned == {"train"}
    assert not [one for one in PROJECT["dependencies"] if "==" in one]


def test_every_import_of_the_package_is_of_the_base_or_of_an_extra() -> None:
    unknown = set()
    for path in sorted((ROOT / "learn_spark").rglob("*.py")):
        importer = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for node in ast.walk(ast.parse(path.read_text())):
            found = [one.name for one in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found = [node.module]
            tops = {one.partition(".")[0] for one in found} - {"learn_spark", *sys.stdlib_module_names}
            tops -= OF_BASE | BY_NAME | WITH_SPARK
            unknown |= {(importer, top) for top in tops if part_of(top, importer) is None}
    assert unknown == set()


@pytest.mark.parametrize(
    ("module", "importer", "part"),
    [
        ("torch.nn", "learn_spark.encoder.pooling", "encode"),
        ("torch", "learn_spark.model.towers.learn", "train"),
        ("torch", "learn_spark.ads.rankers.trees", "ads"),
        ("scipy", "learn_spark.report.figures", "report"),
        ("pandas", "learn_spark.core.quality.expectations", "quality"),
        ("pandas", "learn_spark.core.tables.delta", "spark"),
        ("delta", "learn_spark.core.tables.delta", "spark"),
        ("faiss", "learn_spark.features.faiss_index", "index"),
        ("redis", "learn_spark.features.online_store.redis_store", "online"),
        ("mlflow", "learn_spark.pipeline.tracking.mlflow_server", "mlflow"),
        ("openlineage", "learn_spark.pipeline.tracking.lineage_events", "openlineage"),
        ("learn_spark.nothing", "learn_spark.api", None),
        ("numpy", "learn_spark.api", None),
    ],
)
def test_the_part_of_an_import(module: str, importer: str, part: str | None) -> None:
    assert part_of(module, importer) == part


@pytest.fixture
def without_faiss(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python finds no faiss, as where it is not installed."""
    name_missing_parts()
    for name in [name for name in sys.modules if name.partition(".")[0] == "faiss"]:
        monkeypatch.delitem(sys.modules, name)
    ours = [finder for finder in sys.meta_path if type(finder).__name__ == "_MissingParts"]
    assert len(ours) == 1
    monkeypatch.setattr(sys, "meta_path", ours)


def run_as(module: str, code: str) -> None:
    exec(compile(code, module, "exec"), {"__name__": module})


def test_only_imports_of_this_package_name_the_extra(without_faiss: None) -> None:
    with pytest.raises(MissingPartError, match=r"faiss is not installed.*pip install 'learn-spark\[index\]'") as error:
        run_as("learn_spark.features.faiss_index", "import faiss")
    assert (error.value.name, error.value.part) == ("faiss", "index")
    assert isinstance(error.value, LearnSparkError)
    assert isinstance(error.value, ImportError)
    copied = pickle.loads(pickle.dumps(error.value))
    assert (str(copied), copied.name, copied.part) == (str(error.value), "faiss", "index")
    with pytest.raises(MissingPartError):
        run_as("learn_spark.features.faiss_index", "import importlib; importlib.import_module('faiss')")
    with pytest.raises(ModuleNotFoundError) as other:
        run_as("another.package", "import faiss")
    assert not isinstance(other.value, MissingPartError)
    with pytest.raises(ModuleNotFoundError) as unknown:
        run_as("learn_spark.api", "import no_such_module")
    assert not isinstance(unknown.value, MissingPartError)
    assert importlib.util.find_spec("faiss") is None


def test_the_version_and_the_parts_are_told() -> None:
    import pyarrow

    assert {part.name: part.installed for part in parts()} == dict.fromkeys(PARTS, True)
    told = subprocess.run(
        [sys.executable, "-c", "from learn_spark.commands.main import main; main()", "--version"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    first, base, *_ = told.splitlines()
    assert first == f"learn-spark {VERSION}"
    assert base.split()[:2] == ["base", "deltalake"]
    assert f"pyarrow {pyarrow.__version__}" in told
    assert "not installed" not in told
