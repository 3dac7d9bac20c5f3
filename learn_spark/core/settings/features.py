"""Publishing features, and their index."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from learn_spark.core.settings.base import Count, Rate, Section


class ReleaseSettings(Section):
    """Publishing user and item features: staged, audited, released. ``min_cosine`` and those after it compare with the
    release before. ``backfill``: for a past day; read by its id or as of a time, never as the latest.
    """

    batch_rows: Count = 512
    min_validation_ndcg10: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    min_user_coverage: Annotated[float, Field(ge=0.0, le=1.0)] = 1.0
    norm_tolerance: Rate = 0.001
    min_cosine: Annotated[float, Field(ge=-1.0, le=1.0)] = 0.3
    max_vanished_share: Annotated[float, Field(ge=0.0, le=1.0)] = 0.1
    max_new_share: Annotated[float, Field(ge=0.0, le=1.0)] = 0.5
    max_validation_lost: Annotated[float, Field(ge=0.0, le=1.0)] = 0.2
    backfill: bool = False


class IndexSettings(Section):
    """The FAISS index of the released items (inner product). ``nlist`` and ``nprobe`` are for ivf, the others for hnsw.

    ``nlist`` None: 4 sqrt(items), and not more than a 39th of them, below which FAISS finds a training too small.
    """

    kind: Literal["flat", "hnsw", "ivf"] = "flat"
    links: Annotated[int, Field(ge=2)] = 32
    ef_construction: Count = 200
    ef_search: Count = 128
    nlist: Count | None = None
    nprobe: Count = 32
    queries: Count = 1000
    max_added_share: Annotated[float, Field(ge=0.0, le=1.0)] = 0.3
