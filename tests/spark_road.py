"""Runs stages on the Spark of this Python: python -m tests.spark_road SETTINGS STAGE ... [--set KEY=VALUE ...]

Prints the versions that did it as JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
from importlib.metadata import version

from learn_spark.core.console import Reporter
from learn_spark.core.settings import load_settings
from learn_spark.pipeline.runner import run_stages


def main(settings: str, stages: list[str], overrides: list[str]) -> None:
    """Run the stages with their gates."""
    run_stages(stages, load_settings(settings, overrides), console=Reporter(quiet=True))
    versions = {name: version(name) for name in ("pyspark", "delta-spark", "pyarrow", "numpy", "pandas")}
    sys.stdout.write(f"{json.dumps(versions)}\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("settings")
    parser.add_argument("stages", nargs="+")
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    parsed = parser.parse_args()
    main(parsed.settings, parsed.stages, parsed.overrides)
