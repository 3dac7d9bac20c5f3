"""All stages, in the order of the data's road."""

from __future__ import annotations

from learn_spark.core.errors import SettingsError
from learn_spark.core.stages.stage import Stage

_STAGES = (
    Stage(
        name="ingest",
        module="learn_spark.data.sources.ingest",
        summary="Raw files into items and interactions; refused rows into quarantine",
        sections=("source",),
        reads=(),
        writes=("items", "item_index", "interactions", "quarantine", "raw_files"),
        uses_spark=True,
    ),
    Stage(
        name="item_text",
        module="learn_spark.data.text.item_text",
        summary="Items into the texts that the LLM reads",
        sections=("text",),
        reads=("items",),
        writes=("item_text",),
        uses_spark=True,
    ),
    Stage(
        name="embed_items",
        module="learn_spark.encoder.embed_items",
        summary="Texts into embeddings by the frozen LLM in Spark's workers; only texts not encoded yet",
        sections=("encoder", "text"),
        reads=("item_text",),
        writes=("text_embeddings", "encoders"),
        uses_spark=True,
    ),
    Stage(
        name="histories",
        module="learn_spark.data.histories.assemble",
        summary="Interactions into ordered, capped, cut user histories",
        sections=("histories",),
        reads=("interactions", "item_index"),
        writes=("user_histories",),
        uses_spark=True,
    ),
    Stage(
        name="train",
        module="learn_spark.model.training.train",
        summary="Histories and embeddings into a trained tower: LEARN, or a rival over item IDs",
        sections=(
            "encoder",
            "text",
            "embedding_space",
            "histories",
            "feed",
            "tower",
            "objective",
            "training",
            "evaluation",
        ),
        reads=("user_histories", "item_index", "item_text", "text_embeddings"),
        writes=("embedding_spaces",),
        uses_spark=False,
    ),
    Stage(
        name="evaluate",
        module="learn_spark.evaluation.evaluate",
        summary="Full-catalogue ranking of the model beside popularity, Markov and the frozen embeddings",
        sections=("encoder", "text", "embedding_space", "histories", "evaluation"),
        reads=("user_histories", "item_index", "item_text", "text_embeddings"),
        writes=("evaluations", "evaluation_slices", "evaluation_users", "embedding_spaces"),
        uses_spark=False,
    ),
    Stage(
        name="publish",
        module="learn_spark.features.publish",
        summary="User and item features by the tower in Spark's workers: staged, gated, released",
        sections=("encoder", "text", "histories", "release"),
        reads=("user_histories", "item_index", "item_text", "text_embeddings"),
        writes=("user_features", "item_features", "releases"),
        uses_spark=True,
    ),
    Stage(
        name="export_index",
        module="learn_spark.features.export_index",
        summary="The released item features as a FAISS index: flat, HNSW or IVF, with what it measures",
        sections=("index",),
        reads=("releases", "item_features", "user_features"),
        writes=(),
        uses_spark=False,
    ),
    Stage(
        name="exposures",
        module="learn_spark.ads.exposures.write",
        summary="What was shown to whom and what came of it, for the ads ranker: from interactions, logs or promotions",
        sections=("exposures",),
        reads=("interactions",),
        writes=("exposures", "quarantine"),
        uses_spark=True,
        reads_under=lambda settings: ("interactions",) if settings.exposures.origin == "interactions" else (),
    ),
    Stage(
        name="rank_ads",
        module="learn_spark.ads.rankers.rank_ads",
        summary="Ads rankers trained with and without the released features, or saved ones that score; their metrics",
        sections=("ranking",),
        reads=("releases", "exposures", "interactions", "user_features", "item_features"),
        writes=("ad_scores", "ad_metrics"),
        uses_spark=False,
    ),
    Stage(
        name="report",
        module="learn_spark.report.write",
        summary="One HTML page: the road, metrics, slices, examples, the gate, the lineage",
        sections=(),
        reads=(),
        writes=(),
        uses_spark=False,
    ),
)


def all_stages() -> tuple[Stage, ...]:
    """Every stage in the order of the road."""
    return _STAGES


def find_stage(name: str) -> Stage:
    """The stage called ``name``; SettingsError names the known ones."""
    for stage in _STAGES:
        if stage.name == name:
            return stage
    raise SettingsError(f"there is no stage {name!r}; the stages are {', '.join(s.name for s in _STAGES)}")
