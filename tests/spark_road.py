"""Runs stages of the small world on the Spark of this Python: python -m tests.spark_road FOLDER LLM STAGE ...

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


def main(folder: Path, llm: Path, stages: list[str]) -> None:
    """Run the stages with their gates."""
    if not (folder / "raw").is_dir():
        write_raw(folder / "raw")
    config = write_config(folder / "road.yaml", raw=folder / "raw", workspace=folder / "workspace", model=llm)
    run_stages(stages, load_settings(config), console=Reporter(quiet=True))
    versions = {name: version(name) for name in ("pyspark", "delta-spark", "pyarrow", "numpy", "pandas")}
    sys.stdout.write(f"{json.dumps(versions)}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
