"""The rooms of docs/ARCHITECTURE.md: who may import whom, found by walking the imports."""

from __future__ import annotations

import ast
from pathlib import Path

import learn_spark

PACKAGE = Path(learn_spark.__file__).parent
SPARK_ROOMS = {"sources", "text", "histories", "quality", "tables", "release", "encoder", "experiments", "exposures"}
TORCH_ROOMS = {"evidence", "fusion", "towers", "objectives", "feed", "training", "retrieval", "ranking", "report"}
WORKER_CODE = {
    "encoder/api.py",
    "encoder/attention.py",
    "encoder/engine.py",
    "encoder/linear.py",
    "encoder/loading.py",
    "encoder/pooling.py",
    "encoder/reader.py",
    "encoder/worker.py",
    "release/worker.py",
}

LAUNCHER = {"training/launch.py"}


def imports(path: Path, *, top_level_only: bool = False) -> set[str]:
    """Every module that a file imports, inside functions too."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = set()
    nodes = ast.iter_child_nodes(tree) if top_level_only else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def files(rooms: set[str]) -> list[Path]:
    found = [path for room in rooms for path in (PACKAGE / room).rglob("*.py")]
    assert len(found) > len(rooms)
    return found


def uses(names: set[str], library: str) -> bool:
    return any(name == library or name.startswith(f"{library}.") for name in names)


def test_spark_rooms_do_not_know_torch() -> None:
    for path in files(SPARK_ROOMS):
        if str(path.relative_to(PACKAGE)) not in WORKER_CODE:
            found = imports(path)
            assert not uses(found, "torch"), path
            assert not uses(found, "transformers"), path


def test_torch_rooms_do_not_know_pyspark() -> None:
    for path in files(TORCH_ROOMS):
        if str(path.relative_to(PACKAGE)) in LAUNCHER:
            continue
        assert not uses(imports(path), "pyspark"), path
        assert not uses(imports(path), "learn_spark.core.tables.delta"), path


def test_settings_tables_and_quality_know_nobody_above_them() -> None:
    allowed = {"learn_spark", "learn_spark.core.errors", "learn_spark.core.resources", "learn_spark.core.install"}
    known = {"settings": {"settings"}, "tables": {"tables", "settings"}, "quality": {"quality", "tables", "settings"}}
    for room, below in known.items():
        for path in files({room}):
            ours = {name for name in imports(path) if uses({name}, "learn_spark")} - allowed
            assert {name.split(".")[1] for name in ours} <= below, path


def test_the_command_line_imports_nothing_heavy() -> None:
    heavy = ("torch", "pyspark", "transformers", "great_expectations", "pyarrow", "numpy", "deltalake", "pandas")
    for name in ("cli.py", "errors.py", "pipeline/registry.py"):
        found = imports(PACKAGE / name, top_level_only=True)
        assert not [library for library in heavy if uses(found, library)], name


def test_every_stage_has_a_job_that_says_how_to_run_it() -> None:
    from learn_spark.core.stages.registry import all_stages

    jobs = PACKAGE.parent / "jobs"
    named = {stage.name for stage in all_stages()} | {"pipeline"}
    assert {path.stem for path in jobs.glob("*.py")} == named
    for path in jobs.glob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert f"spark-submit jobs/{path.name} --config" in text
        assert "--set" in text
        assert f'run_job("{"run" if path.stem == "pipeline" else path.stem}", sys.argv[1:])' in text
        assert len(text.splitlines()) < 25


def test_every_package_is_in_the_wheel() -> None:
    import tomllib

    listed = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    found = {".".join(("learn_spark", *p.parent.relative_to(PACKAGE).parts)) for p in PACKAGE.rglob("__init__.py")}
    assert found | {"learn_spark._conf", "learn_spark._schemas"} == set(listed)


def test_no_file_names_a_registry() -> None:
    hosts = (b"pypi" + b".org", b"maven" + b".org", b"python" + b"hosted.org", b"huggingface" + b".co/")
    root = PACKAGE.parent
    for folder in ("learn_spark", "jobs", "conf", "schemas", "requirements", "scripts", "docs", ".ci"):
        for path in (root / folder).rglob("*"):
            if path.is_file() and path.suffix not in (".pyc",):
                content = path.read_bytes()
                assert not [host for host in hosts if host in content], path
