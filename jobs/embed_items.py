"""item_text -> text_embeddings: the frozen LLM in Spark's workers, only texts that are not encoded yet.

Run:       spark-submit jobs/embed_items.py --config conf/quickstart.yaml
Override:  spark-submit jobs/embed_items.py --config conf/quickstart.yaml --set encoder.model=/models/my-llm
Look:      ... --dry-run says what it would do and why, and changes nothing.
Exit code: 0 done, 1 failed, 2 wrong usage or settings, 3 a quality gate failed.
"""

import sys

from learn_spark.commands.main import run_job

if __name__ == "__main__":
    sys.exit(run_job("embed_items", sys.argv[1:]))
