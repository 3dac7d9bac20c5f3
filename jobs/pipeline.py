"""The whole pipeline: every stage of pipeline.stages that is not up to date, in order.

Run:       spark-submit jobs/pipeline.py --config conf/quickstart.yaml
Override:  spark-submit jobs/pipeline.py --config conf/quickstart.yaml --set training.seed=7
Dry run:   ... --dry-run shows what would run and why, without changes.
Exit code: 0 done, 1 failed, 2 wrong usage or settings, 3 a quality gate failed.
"""

import sys

from learn_spark.commands.main import run_job

if __name__ == "__main__":
    sys.exit(run_job("run", sys.argv[1:]))
