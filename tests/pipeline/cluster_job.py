"""jobs/pipeline.py, with vectors computed by Spark's workers, as for more users and items than FEW_ENTITIES."""

import sys

from learn_spark.commands.main import run_job
from learn_spark.features import publish

if __name__ == "__main__":
    publish.FEW_ENTITIES = 0
    sys.exit(run_job("run", sys.argv[1:]))
