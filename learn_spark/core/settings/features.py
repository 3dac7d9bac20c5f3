"""Settings of releases and of the item index."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from learn_spark.core.settings.base import Count, Rate, Section

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]


class ReleaseSettings(Section):
    """Publishing user and item features: staged, audited, released. The bounds are rules of the audit."""

    model: str | None = None
    """Id of the model to publish (learn-spark models lists them); null: the newest model of these settings."""
    batch_rows: Count = 512
    """Rows per batch of the tower in a Spark worker."""
    min_validation_ndcg10: Fraction = 0.0
    """Minimum NDCG@10 of the model on validation."""
    min_user_coverage: Fraction = 1.0
    """Minimum share of the users with a history that have a vector."""
    norm_tolerance: Rate = 0.001
    """Maximum deviation of a vector's norm from 1."""
    min_cosine: Annotated[float, Field(ge=-1.0, le=1.0)] = 0.3
    """Minimum mean cosine with the previous release's vectors (of another model: after a rotation onto them)."""
    max_vanished_share: Fraction = 0.1
    """Maximum share of the previous release's users, or items, that are missing."""
    max_new_share: Fraction = 0.5
    """Share of new users, or items, above which the audit warns."""
    max_validation_lost: Fraction = 0.2
    """Maximum relative loss of NDCG@10 on validation against the previous release."""
    backfill: bool = False
    """Whether the release is for a past day: readable by its id or as of a time, never as the latest. Set by
    learn-spark backfill."""


class _IndexSettings(Section):
    queries: Count = 1000
    """Users whose search results are compared with exact search."""


class FlatIndexSettings(_IndexSettings):
    """Exact search."""

    kind: Literal["flat"] = "flat"
    """Exact search over all items."""


class HNSWIndexSettings(_IndexSettings):
    """Approximate search in a graph of neighbours, for large catalogues."""

    kind: Literal["hnsw"] = "hnsw"
    """Approximate search in a graph of neighbours."""
    links: Annotated[int, Field(ge=2)] = 32
    """Neighbours per item in the graph. More give better recall and take more memory."""
    ef_construction: Count = 200
    """Candidates per item while the graph is built. More give a better graph and a slower build."""
    ef_search: Count = 128
    """Candidates per query. More give better recall and slower search."""


class _CellIndexSettings(_IndexSettings):
    nlist: Count | None = None
    """Number of cells; null: 4 sqrt(items), at most items / 39, because FAISS trains a cell on at least 39 items."""
    nprobe: Count = 32
    """Cells per query. More give better recall and slower search."""
    trained_items: Count = 262_144
    """Number of items that cells and codes are trained on; at least 39 a cell, all where there are fewer."""
    max_added_share: Fraction = 0.3
    """Share of items added since the cells were trained above which the index is rebuilt."""


class IVFIndexSettings(_CellIndexSettings):
    """Approximate search in some of many cells, for large catalogues."""

    kind: Literal["ivf"] = "ivf"
    """Approximate search in the cells nearest to the query."""


class IVFPQIndexSettings(_CellIndexSettings):
    """Approximate search in cells of compressed vectors, for catalogues that do not fit in memory."""

    kind: Literal["ivf_pq"] = "ivf_pq"
    """Approximate search in the cells nearest to the query, by product-quantised vectors."""
    code_bytes: Count = 64
    """Bytes of a vector in the index, at most its width; a vector of another kind takes 4 bytes a dimension. Fewer
    give a smaller index and worse recall."""


IndexSettings = Annotated[
    FlatIndexSettings | HNSWIndexSettings | IVFIndexSettings | IVFPQIndexSettings, Field(discriminator="kind")
]
