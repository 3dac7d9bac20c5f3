"""The raw formats by name: what ``source.format`` of the settings may be."""

from __future__ import annotations

from collections.abc import Callable

from learn_spark.core.settings.source import SourceSettings
from learn_spark.data.sources.amazon_2014 import Amazon2014
from learn_spark.data.sources.amazon_2018 import Amazon2018
from learn_spark.data.sources.complete_journey import CompleteJourney
from learn_spark.data.sources.configured import ConfiguredSource
from learn_spark.data.sources.movielens import MovieLens
from learn_spark.data.sources.movielens_100k import MovieLens100K
from learn_spark.data.sources.online_retail import online_retail
from learn_spark.data.sources.source import Source

FORMATS: dict[str, Callable[[SourceSettings], Source]] = {
    "movielens-100k": lambda settings: MovieLens100K(),
    "movielens": lambda settings: MovieLens(),
    "amazon-2014": lambda settings: Amazon2014(),
    "amazon-2018": lambda settings: Amazon2018(),
    "online-retail": lambda settings: online_retail(),
    "complete-journey": lambda settings: CompleteJourney(),
    "files": ConfiguredSource,
}


def source_of(settings: SourceSettings) -> Source:
    """The reader of ``settings.format``."""
    return FORMATS[settings.format](settings)
