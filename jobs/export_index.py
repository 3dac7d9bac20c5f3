"""Released item_features -> a FAISS index (flat, HNSW or IVF) with item ids, manifest and measured recall.

Run:       spark-submit jobs/export_index.py --config conf/quickstart.yaml
Override:  spark-submit jobs/export_index.py --config conf/quickstart.yaml --set workspace=/data/learn
Dry run:   ... --dry-run shows what would run and why, without changes.
Exit code: 0 done, 1 failed, 2 wrong usage or settings, 3 a quality gate failed.
"""

import sys

from learn_spark.commands.main import run_job

if __name__ == "__main__":
    sys.exit(run_job("export_index", sys.argv[1:]))
