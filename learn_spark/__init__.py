"""LEARN (arXiv 2405.03988) as a Spark feature platform. ``learn_spark.api`` describes the names below."""

from learn_spark.api import OpenWorkspace, encode, open

__version__ = "0.1.0"
__all__ = ["OpenWorkspace", "encode", "open"]
