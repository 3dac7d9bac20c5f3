"""Raw files -> items, item_index, interactions (and quarantine: every refused row with its reasons).

Run:       spark-submit jobs/ingest.py --config conf/quickstart.yaml
Override:  spark-submit jobs/ingest.py --config conf/quickstart.yaml --set source.path=/data/ml-100k
Dry run:   ... --dry-run shows what would run and why, without changes.
Exit code: 0 done, 1 failed, 2 wrong usage or settings, 3 a quality gate failed.
"""

import sys

from learn_spark.commands.main import run_job

if __name__ == "__main__":
    sys.exit(run_job("ingest", sys.argv[1:]))
