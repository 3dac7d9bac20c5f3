"""A trained tower -> user_features, item_features: staged, audited with Great Expectations, then released.

Run:       spark-submit jobs/publish.py --config conf/quickstart.yaml
Override:  spark-submit jobs/publish.py --config conf/quickstart.yaml --set release.min_validation_ndcg10=0.02
Dry run:   ... --dry-run shows what would run and why, without changes.
Exit code: 0 done, 1 failed, 2 wrong usage or settings, 3 a quality gate failed.
"""

import sys

from learn_spark.commands.main import run_job

if __name__ == "__main__":
    sys.exit(run_job("publish", sys.argv[1:]))
