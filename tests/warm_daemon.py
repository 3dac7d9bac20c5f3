"""Spark's Python daemon with torch and transformers imported, so that the workers that it forks need no six seconds."""

import gc

import pandas  # noqa: F401
import pyarrow  # noqa: F401
import torch  # noqa: F401
import transformers.modeling_utils  # noqa: F401
from pyspark.daemon import manager

if __name__ == "__main__":
    # A worker collects garbage after every task.
    gc.freeze()
    manager()
