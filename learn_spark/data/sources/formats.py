"""The raw formats by name: what ``source.format`` of the settings may be."""

from __future__ import annotations

from collections.abc import Callable

from learn_spark.core.settings.source import SourceSettings
from learn_spark.data.sources.amazon_2014 import Amazon2014
from learn_spark.data.sources.amazon_2018 import Amazon2018
from learn_spark.data.sources.complete_journey import CompleteJourney
from learn_spark.data.sources.configured import ConfiguredSource
from learn_spark.data.sources.delta_tables import Session
from learn_spark.data.sources.movielens import MovieLens
from learn_spark.data.sources.movielens_100k import MovieLens100K
from learn_spark.data.sources.online_retail import online_retail
from learn_spark.data.sources.source import Source

FORMATS: dict[str, Callable[[SourceSettings, Session | None], Source]] = {
    "movielens-100k": lambda settings, session: MovieLens100K(),
    "movielens": lambda settings, session: MovieLens(),
    "amazon-2014": lambda settings, session: Amazon2014(),
    "amazon-2018": lambda settings, session: Amazon2018(),
    "online-retail": lambda settings, session: online_retail(),
    "complete-journey": lambda settings, session: CompleteJourney(),
    "files": ConfiguredSource,
}


def source_of(settings: SourceSettings, session: Session | None = None) -> Source:
    """The reader of ``settings.format``. ``session`` gives the Spark session, which alone knows names of catalogs."""
    return FORMATS[settings.format](settings, session)
