"""A trained tower -> evaluations: full-catalogue ranking by the tower, popularity, Markov and frozen embeddings.

Run:       spark-submit jobs/evaluate.py --config conf/quickstart.yaml
Override:  spark-submit jobs/evaluate.py --config conf/quickstart.yaml --set evaluation.ks=[10,50,100]
Dry run:   ... --dry-run shows what would run and why, without changes.
Exit code: 0 done, 1 failed, 2 wrong usage or settings, 3 a quality gate failed.
"""

import sys

from learn_spark.commands.main import run_job

if __name__ == "__main__":
    sys.exit(run_job("evaluate", sys.argv[1:]))
