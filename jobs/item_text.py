"""items -> item_text: one cleaned prompt per item, with the hash of its text as key.

Run:       spark-submit jobs/item_text.py --config conf/quickstart.yaml
Override:  spark-submit jobs/item_text.py --config conf/quickstart.yaml --set text.template=learn-industrial
Dry run:   ... --dry-run shows what would run and why, without changes.
Exit code: 0 done, 1 failed, 2 wrong usage or settings, 3 a quality gate failed.
"""

import sys

from learn_spark.commands.main import run_job

if __name__ == "__main__":
    sys.exit(run_job("item_text", sys.argv[1:]))
