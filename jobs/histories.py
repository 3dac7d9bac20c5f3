"""interactions -> user_histories: ordered, truncated, split into training, validation and test, padded.

Run:       spark-submit jobs/histories.py --config conf/quickstart.yaml
Override:  spark-submit jobs/histories.py --config conf/quickstart.yaml --set histories.max_length=512
Dry run:   ... --dry-run shows what would run and why, without changes.
Exit code: 0 done, 1 failed, 2 wrong usage or settings, 3 a quality gate failed.
"""

import sys

from learn_spark.commands.main import run_job

if __name__ == "__main__":
    sys.exit(run_job("histories", sys.argv[1:]))
