"""user_histories + text_embeddings -> a LEARN tower, read by Petastorm (without a JVM; spark-submit also works).

Run:       spark-submit jobs/train.py --config conf/quickstart.yaml
Override:  spark-submit jobs/train.py --config conf/quickstart.yaml --set training.epochs=40
Dry run:   ... --dry-run shows what would run and why, without changes.
Exit code: 0 done, 1 failed, 2 wrong usage or settings, 3 a quality gate failed.
"""

import sys

from learn_spark.commands.main import run_job

if __name__ == "__main__":
    sys.exit(run_job("train", sys.argv[1:]))
