"""The whole road: every stage of pipeline.stages that is not up to date, in order.

Run:       spark-submit jobs/pipeline.py --config conf/quickstart.yaml
Override:  spark-submit jobs/pipeline.py --config conf/quickstart.yaml --set training.seed=7
Look:      ... --dry-run says what it would do and why, and changes nothing.
Exit code: 0 done, 1 failed, 2 wrong usage or settings, 3 a quality gate failed.
"""

import sys

from learn_spark.commands.main import run_job

if __name__ == "__main__":
    sys.exit(run_job("run", sys.argv[1:]))
