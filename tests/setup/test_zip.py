"""The package in a zip file, as Spark's --py-files and cluster deploy mode give it to a driver."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

from learn_spark.core.settings import load_settings
from learn_spark.core.stages.code import stage_version
from learn_spark.core.stages.registry import find_stage
from learn_spark.core.tables.contracts import all_tables

ROOT = Path(__file__).parents[2]
PROGRAM = """
import json, learn_spark
from learn_spark.core.connectors import s3_jars
from learn_spark.core.settings import load_settings
from learn_spark.core.stages.code import stage_version
from learn_spark.core.stages.registry import find_stage
from learn_spark.core.tables.contracts import all_tables, contract
from learn_spark.report.templates import environment
print(json.dumps({
    "file": learn_spark.__file__,
    "tables": [contract(name).table for name in all_tables()],
    "preset": load_settings("quickstart").model_dump(mode="json"),
    "train": stage_version(find_stage("train")),
    "templates": len(environment().list_templates()),
    "jars": len(s3_jars()),
}))
"""


def test_a_driver_finds_contracts_presets_code_and_templates_in_a_zip_file(tmp_path: Path) -> None:
    package = tmp_path / "learn_spark.zip"
    with ZipFile(package, "w") as archive:
        for folder, inside in (("learn_spark", ""), ("conf", "_conf"), ("schemas", "_schemas")):
            for path in sorted((ROOT / folder).rglob("*")):
                if path.is_file() and "__pycache__" not in path.parts:
                    archive.write(path, Path("learn_spark", inside, path.relative_to(ROOT / folder)))
    # -S: without the environment's own learn_spark; the packages beside it stay.
    packages = [path for path in sys.path if path.endswith("site-packages")]
    start = f"import sys; sys.path[:0] = {[str(package), *packages]!r}"
    command = [sys.executable, "-S", "-c", f"{start}\n{PROGRAM}"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env={"HOME": str(tmp_path)})
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["file"].startswith(str(package))
    assert found["tables"] == list(all_tables())
    assert found["preset"] == load_settings("quickstart").model_dump(mode="json")
    assert found["train"] == stage_version(find_stage("train"))
    assert found["templates"] >= 3
    assert found["jars"] == 34
