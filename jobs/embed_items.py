"""item_text -> text_embeddings: the frozen LLM in Spark's workers; texts with an embedding are skipped.

Run:       spark-submit jobs/embed_items.py --config conf/quickstart.yaml
Override:  spark-submit jobs/embed_items.py --config conf/quickstart.yaml --set encoder.model=/models/my-llm
Dry run:   ... --dry-run shows what would run and why, without changes.
Exit code: 0 done, 1 failed, 2 wrong usage or settings, 3 a quality gate failed.
"""

import sys

from learn_spark.commands.main import run_job

if __name__ == "__main__":
    sys.exit(run_job("embed_items", sys.argv[1:]))
