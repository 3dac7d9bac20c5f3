"""LEARN (arXiv 2405.03988) as a Spark feature platform. ``learn_spark.api`` describes the names below."""

from learn_spark.api import OpenWorkspace, encode, open, user_tower
from learn_spark.core.parts import VERSION, name_missing_parts

__version__ = VERSION

name_missing_parts()

__all__ = ["OpenWorkspace", "encode", "open", "user_tower"]
