"""Released features + later exposures -> an ads ranker with and without them, and its scores (ad_scores).

Run:       spark-submit jobs/rank_ads.py --config conf/quickstart.yaml
Override:  spark-submit jobs/rank_ads.py --config conf/quickstart.yaml --set ranking.epochs=10
Look:      ... --dry-run says what it would do and why, and changes nothing.
Exit code: 0 done, 1 failed, 2 wrong usage or settings, 3 a quality gate failed.
"""

import sys

from learn_spark.commands.main import run_job

if __name__ == "__main__":
    sys.exit(run_job("rank_ads", sys.argv[1:]))
