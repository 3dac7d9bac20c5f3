"""Publishing features, and their index."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from learn_spark.core.settings.base import Count, Rate, Section

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]


class ReleaseSettings(Section):
    """Publishing user and item features: staged, audited, released. The bounds are those of the audit."""

    model: str | None = None
    """Id of the model to publish (learn-spark models lists them). null: the newest one of these settings."""
    batch_rows: Count = 512
    """Rows that the tower computes at a time in a Spark worker."""
    min_validation_ndcg10: Fraction = 0.0
    """Least NDCG@10 on validation of a model that may be released."""
    min_user_coverage: Fraction = 1.0
    """Least share of the users with a history that must have a vector."""
    norm_tolerance: Rate = 0.001
    """Largest distance of a vector's norm from 1."""
    min_cosine: Annotated[float, Field(ge=-1.0, le=1.0)] = 0.3
    """Least mean cosine with the previous release's vectors (after a training: rotated onto them)."""
    max_vanished_share: Fraction = 0.1
    """Largest share of the previous release's users, or items, that may be missing."""
    max_new_share: Fraction = 0.5
    """Share of new users, or items, above which the audit warns."""
    max_validation_lost: Fraction = 0.2
    """Largest share of the previous release's NDCG@10 on validation that a new model may lose."""
    backfill: bool = False
    """Whether the release is for a past day: readable by its id or as of a time, never as the latest. learn-spark
    backfill sets it."""


class _IndexSettings(Section):
    queries: Count = 1000
    """Users whose search is measured against exact search."""


class FlatIndexSettings(_IndexSettings):
    """Exact search."""

    kind: Literal["flat"] = "flat"
    """Exact search over all items."""


class HNSWIndexSettings(_IndexSettings):
    """Approximate search in a graph of neighbours, for large catalogues."""

    kind: Literal["hnsw"] = "hnsw"
    """Approximate search in a graph of neighbours."""
    links: Annotated[int, Field(ge=2)] = 32
    """Neighbours an item in the graph. More: better recall, more memory."""
    ef_construction: Count = 200
    """Candidates an item while the graph is built. More: a better graph, built more slowly."""
    ef_search: Count = 128
    """Candidates a query. More: better recall, slower search."""


class IVFIndexSettings(_IndexSettings):
    """Approximate search in some of many cells, for large catalogues."""

    kind: Literal["ivf"] = "ivf"
    """Approximate search in the cells nearest to the query."""
    nlist: Count | None = None
    """Cells; null: 4 sqrt(items), at most items / 39, the fewest that FAISS trains a cell on."""
    nprobe: Count = 32
    """Cells that a query visits. More: better recall, slower search."""
    max_added_share: Fraction = 0.3
    """Share of items added since the cells were trained above which the index is built anew."""


IndexSettings = Annotated[FlatIndexSettings | HNSWIndexSettings | IVFIndexSettings, Field(discriminator="kind")]
