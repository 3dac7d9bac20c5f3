"""Runs stages of the small world in a folder, on the Spark of this Python: python -m tests.spark_road FOLDER STAGE ...

Prints the versions that did it as JSON. Where the folder has no raw files yet, they are written.
"""

from __future__ import annotations

import json
import sys
from importlib.metadata import version
from pathlib import Path

from learn_spark.core.console import Reporter
from learn_spark.core.settings import load_settings
from learn_spark.pipeline.runner import run_stages
from tests.world import write_config, write_raw


def main(folder: Path, stages: list[str]) -> None:
    """Run the stages with their gates. No LLM is there: stages before it need none, and later ones have its vectors."""
    if not (folder / "raw").is_dir():
        write_raw(folder / "raw")
    llm = folder / "llm"
    llm.mkdir(exist_ok=True)
    (llm / "model.safetensors").touch()
    config = write_config(folder / "road.yaml", raw=folder / "raw", workspace=folder / "workspace", model=llm)
    run_stages(stages, load_settings(config), console=Reporter(quiet=True))
    versions = {name: version(name) for name in ("pyspark", "delta-spark", "pyarrow", "numpy", "pandas")}
    sys.stdout.write(f"{json.dumps(versions)}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
