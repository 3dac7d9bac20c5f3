"""Released features + later exposures -> ads rankers with and without the features, ad_scores and ad_metrics.

Run:       spark-submit jobs/rank_ads.py --config conf/quickstart.yaml
Override:  spark-submit jobs/rank_ads.py --config conf/quickstart.yaml --set ranking.epochs=10
Dry run:   ... --dry-run shows what would run and why, without changes.
Exit code: 0 done, 1 failed, 2 wrong usage or settings, 3 a quality gate failed.
"""

import sys

from learn_spark.commands.main import run_job

if __name__ == "__main__":
    sys.exit(run_job("rank_ads", sys.argv[1:]))
