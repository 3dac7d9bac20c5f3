"""user_histories + text_embeddings -> a LEARN tower, fed by Petastorm (needs no JVM; spark-submit works too).

Run:       spark-submit jobs/train.py --config conf/quickstart.yaml
Override:  spark-submit jobs/train.py --config conf/quickstart.yaml --set training.epochs=40
Look:      ... --dry-run says what it would do and why, and changes nothing.
Exit code: 0 done, 1 failed, 2 wrong usage or settings, 3 a quality gate failed.
"""

import sys

from learn_spark.commands.main import run_job

if __name__ == "__main__":
    sys.exit(run_job("train", sys.argv[1:]))
