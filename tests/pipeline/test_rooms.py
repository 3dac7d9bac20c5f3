"""What a new file must be named in: jobs, packages of the wheel; and what the command line must not load."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import learn_spark

PACKAGE = Path(learn_spark.__file__).parent
HEAVY = ("torch", "pyspark", "transformers", "great_expectations", "pyarrow", "numpy", "deltalake", "pandas")


def test_the_command_line_loads_nothing_heavy_before_a_command_runs() -> None:
    code = "import sys, learn_spark.commands.main, learn_spark.core.stages.registry; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "learn_spark.commands.main" in loaded
    assert not set(HEAVY) & set(loaded)


def test_deciding_whether_stages_are_up_to_date_loads_neither_spark_nor_torch() -> None:
    """What a run imports whose stages are all up to date: the runner, and the modules of the stages' other inputs."""
    code = (
        "import importlib, sys, learn_spark.pipeline.runner, learn_spark.pipeline.summary\n"
        "from learn_spark.core.stages.registry import all_stages\n"
        "for stage in all_stages():\n"
        "    stage.inputs_module and importlib.import_module(stage.inputs_module)\n"
        "print(*sys.modules)"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "learn_spark.report.other_inputs" in loaded
    assert not {"torch", "pyspark", "transformers", "great_expectations", "altair", "scipy"} & set(loaded)


def test_every_stage_has_a_job_that_says_how_to_run_it() -> None:
    from learn_spark.core.stages.registry import all_stages

    jobs = PACKAGE.parent / "jobs"
    named = {stage.name for stage in all_stages()} | {"pipeline", "register"}
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
