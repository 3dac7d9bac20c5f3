"""interactions, exposure logs, or promotions and coupons -> exposures of the ads ranker.

Run:       spark-submit jobs/exposures.py --config conf/complete-journey-ads.yaml
Override:  spark-submit jobs/exposures.py --config conf/complete-journey-ads.yaml --set exposures.until=2017-12-01
Dry run:   ... --dry-run shows what would run and why, without changes.
Exit code: 0 done, 1 failed, 2 wrong usage or settings, 3 a quality gate failed.
"""

import sys

from learn_spark.commands.main import run_job

if __name__ == "__main__":
    sys.exit(run_job("exposures", sys.argv[1:]))
