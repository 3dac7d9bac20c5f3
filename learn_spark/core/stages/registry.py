"""All stages of the pipeline, in order."""

from __future__ import annotations

from collections.abc import Iterable

from learn_spark.core.errors import SettingsError
from learn_spark.core.stages.stage import Stage

_HISTORIES = ("user_histories", "item_index")
_TEXTS = ("item_text", "text_embeddings")
_STAGES = (
    Stage(
        name="ingest",
        module="learn_spark.data.sources.ingest",
        summary="Read raw files into items and interactions; refused rows go to quarantine",
        sections=("source",),
        reads=(),
        writes=("items", "item_index", "interactions", "quarantine", "raw_files"),
        uses_spark=True,
        inputs_module="learn_spark.data.sources.ingest",
    ),
    Stage(
        name="item_text",
        module="learn_spark.data.text.item_text",
        summary="Write one prompt text for each item",
        sections=("text",),
        reads=("items",),
        writes=("item_text",),
        uses_spark=True,
    ),
    Stage(
        name="embed_items",
        module="learn_spark.encoder.embed_items",
        summary="Embed texts with the frozen LLM in Spark's workers; texts with an embedding are skipped",
        sections=("encoder", "text"),
        reads=("item_text",),
        writes=("text_embeddings", "encoders"),
        uses_spark=True,
        inputs_module="learn_spark.encoder.other_inputs",
    ),
    Stage(
        name="histories",
        module="learn_spark.data.histories.assemble",
        summary="Build ordered, truncated and split user histories from interactions",
        sections=("histories",),
        reads=("interactions", "item_index"),
        writes=("user_histories",),
        uses_spark=True,
    ),
    Stage(
        name="train",
        module="learn_spark.model.training.train",
        summary="Train a preference tower on histories and embeddings: LEARN, or a baseline over item IDs",
        sections=(
            "encoder",
            "text",
            "embedding_space",
            "histories",
            "feed",
            "tower",
            "objective",
            "training",
            "evaluation.ks",
            "evaluation.mask_history",
        ),
        reads=("user_histories", "item_index", "item_text", "text_embeddings"),
        reads_under=lambda settings: (
            "user_histories",
            "item_index",
            *(_TEXTS if settings.tower.reads_content else ()),
        ),
        writes=("embedding_spaces",),
        appends=("embedding_spaces",),
        uses_spark=False,
    ),
    Stage(
        name="evaluate",
        module="learn_spark.evaluation.evaluate",
        summary="Rank the whole catalogue with the model and the baselines (popularity, Markov, frozen embeddings)",
        sections=(
            "encoder",
            "text",
            "embedding_space",
            "histories",
            "evaluation.ks",
            "evaluation.mask_history",
            "evaluation.reranker",
            "evaluation.users",
            "evaluation.pair_users",
            "evaluation.bootstrap_samples",
        ),
        reads=("user_histories", "item_index", "item_text", "text_embeddings"),
        writes=("evaluations", "evaluation_slices", "evaluation_users", "embedding_spaces"),
        appends=("evaluations", "evaluation_slices", "evaluation_users", "embedding_spaces"),
        reads_model=True,
        uses_spark=False,
        inputs_module="learn_spark.evaluation.other_inputs",
    ),
    Stage(
        name="publish",
        module="learn_spark.features.publish",
        summary="Compute user and item features with the tower in Spark's workers; stage, audit and release them",
        sections=("encoder", "text", "histories", "release"),
        reads=("user_histories", "item_index", "item_text", "text_embeddings"),
        writes=("user_features", "item_features", "releases"),
        reads_model=True,
        uses_spark=True,
        inputs_module="learn_spark.features.publish",
    ),
    Stage(
        name="export_index",
        module="learn_spark.features.export_index",
        summary="Build a FAISS index (flat, HNSW or IVF) of the released item features and measure its recall",
        sections=("index",),
        reads=("releases", "item_features", "user_features"),
        writes=(),
        folders=("indexes",),
        uses_spark=False,
    ),
    Stage(
        name="exposures",
        module="learn_spark.ads.exposures.write",
        summary="Build the exposures of the ads ranker from interactions, logs or promotions",
        sections=("exposures",),
        reads=("interactions",),
        writes=("exposures", "quarantine"),
        uses_spark=True,
        inputs_module="learn_spark.ads.exposures.write",
        reads_under=lambda settings: ("interactions",) if settings.exposures.origin == "interactions" else (),
    ),
    Stage(
        name="rank_ads",
        module="learn_spark.ads.rankers.rank_ads",
        summary="Train ads rankers with and without the released features, or score with saved ones; compute metrics",
        sections=("ranking",),
        reads=("releases", "exposures", "interactions", "user_features", "item_features"),
        writes=("ad_scores", "ad_metrics"),
        uses_spark=True,
        inputs_module="learn_spark.ads.rankers.other_inputs",
    ),
    Stage(
        name="report",
        module="learn_spark.report.write",
        summary="Write one HTML page: metrics, slices, examples, runs, gates and lineage",
        sections=(),
        reads=(),
        writes=(),
        uses_spark=False,
        inputs_module="learn_spark.report.other_inputs",
    ),
)


def all_stages() -> tuple[Stage, ...]:
    """Every stage in the order of the pipeline."""
    return _STAGES


def writers_of(tables: Iterable[str]) -> list[str]:
    """Names of the stages that write these tables, in the order of the pipeline; of each table the first one."""
    first = {table: stage.name for stage in reversed(_STAGES) for table in stage.writes}
    names = {first[table] for table in tables}
    return [stage.name for stage in _STAGES if stage.name in names]


def find_stage(name: str) -> Stage:
    """The stage called ``name``. Raises SettingsError, with all names, if there is none."""
    for stage in _STAGES:
        if stage.name == name:
            return stage
    raise SettingsError(f"there is no stage {name!r}; the stages are {', '.join(s.name for s in _STAGES)}")
