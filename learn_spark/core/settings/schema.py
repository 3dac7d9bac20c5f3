"""The settings of a workspace: all sections, and the constraints between them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field, model_validator

from learn_spark.core.settings.ads import (
    ExposuresSettings,
    InteractionExposuresSettings,
    LogExposuresSettings,
    RankingSettings,
    exposures_path,
)
from learn_spark.core.settings.base import Section
from learn_spark.core.settings.encoder import EmbeddingSpaceSettings, EncoderSettings, WhitenedSpaceSettings
from learn_spark.core.settings.features import FlatIndexSettings, IndexSettings, ReleaseSettings
from learn_spark.core.settings.histories import FeedSettings, HistoriesSettings, LastEventsHistoriesSettings
from learn_spark.core.settings.online import OnlineSettings
from learn_spark.core.settings.platform import (
    CatalogSettings,
    PipelineSettings,
    QualitySettings,
    RetentionSettings,
    SparkSettings,
    StorageSettings,
)
from learn_spark.core.settings.search import SearchSettings
from learn_spark.core.settings.source import TEMPLATE_OF_FORMAT, SourceSettings, TextSettings, described_files
from learn_spark.core.settings.tower import LearnTowerSettings, TowerSettings, blending_of
from learn_spark.core.settings.tracking import MlflowSettings, OpenLineageSettings
from learn_spark.core.settings.training import EvaluationSettings, ObjectiveSettings, TrainingSettings
from learn_spark.core.storage.path import SCHEMES, StoragePath, storage_path


class Settings(Section):
    """All settings of one workspace."""

    workspace: str = Field(min_length=1)
    """Place of all tables, models, indexes and reports: a folder, relative to the current folder, or an address:
    s3://bucket/shop, hdfs://host:port/shop (docs/storage.md). Each place is a separate workspace."""
    source: SourceSettings
    """The raw files."""
    spark: SparkSettings = SparkSettings()
    """The Spark session."""
    scratch: str | None = None
    """Folder of this machine for logs, caches and searches; it may be deleted. null: the workspace's folder, or a
    folder in ~/.cache/learn-spark for a workspace at an address."""
    storage: StorageSettings = StorageSettings()
    """How an object store is reached."""
    catalog: CatalogSettings = CatalogSettings()
    """Names of the tables for SQL."""
    quality: QualitySettings = QualitySettings()
    """The quality gates."""
    retention: RetentionSettings = RetentionSettings()
    """What ``learn-spark retain`` keeps, and for how long."""
    text: TextSettings = TextSettings()
    """The text of an item."""
    encoder: EncoderSettings
    """The frozen LLM."""
    embedding_space: EmbeddingSpaceSettings = WhitenedSpaceSettings()
    """The transformation of embeddings that towers read, fitted on the training catalogue; texts are not encoded
    again."""
    histories: HistoriesSettings = LastEventsHistoriesSettings()
    """Filtering, ordering, truncation and split of a user's events."""
    feed: FeedSettings = FeedSettings()
    """The training feed, which reads histories."""
    tower: TowerSettings = LearnTowerSettings()
    """The preference tower: LEARN's over content, or a baseline over item IDs."""
    objective: ObjectiveSettings = ObjectiveSettings()
    """The training objective: positions, targets and negatives."""
    training: TrainingSettings = TrainingSettings()
    """The training loop."""
    mlflow: MlflowSettings = MlflowSettings()
    """The MLflow server of training.tracking mlflow."""
    openlineage: OpenLineageSettings = OpenLineageSettings()
    """Events of OpenLineage."""
    evaluation: EvaluationSettings = EvaluationSettings()
    """Ranking of the whole catalogue."""
    release: ReleaseSettings = ReleaseSettings()
    """Publishing user and item features."""
    index: IndexSettings = FlatIndexSettings()
    """The FAISS index of the released items, by inner product."""
    online: OnlineSettings = OnlineSettings()
    """The online store of released vectors."""
    exposures: ExposuresSettings = InteractionExposuresSettings()
    """The exposures of the ads ranker (docs/exposures.md)."""
    ranking: RankingSettings = RankingSettings()
    """The ads rankers (docs/ranking.md)."""
    search: SearchSettings = SearchSettings()
    """The search over settings."""
    pipeline: PipelineSettings
    """The stages of learn-spark run."""

    @property
    def place(self) -> StoragePath:
        """``workspace`` with what reaching it needs, as ``Workspace.open`` takes it."""
        return StoragePath(self.workspace, self.storage.s3())

    @property
    def addresses(self) -> list[StoragePath]:
        """The addresses of workspace, raw files and tables, which Spark must reach; none where all are folders."""
        logs = self.exposures.logs if isinstance(self.exposures, LogExposuresSettings) else []
        tables = [one.files for one in (*described_files(self.source), *logs) if one.format == "delta"]
        of_files = [self.source.path, exposures_path(self.exposures), *tables]
        named = [self.place, *[StoragePath(path, self.storage.s3()) for path in of_files if path]]
        return [storage_path(place) for place in named if place.scheme in SCHEMES]

    @property
    def reads_topics(self) -> bool:
        """Whether Spark must reach Kafka."""
        return any(one.format == "kafka" for one in described_files(self.source))

    @model_validator(mode="before")
    @classmethod
    def _template_of_the_source(cls, tree: Any) -> Any:
        """``text.template`` by ``source.format`` where it is null or not given, so that it is in the saved settings."""
        source, text = (tree.get("source"), tree.get("text", {})) if isinstance(tree, Mapping) else (None, None)
        if not isinstance(source, Mapping) or not isinstance(text, Mapping) or text.get("template") is not None:
            return tree
        template = TEMPLATE_OF_FORMAT.get(str(source.get("format")), TextSettings.model_fields["template"].default)
        return {**tree, "text": {**text, "template": template}}

    @model_validator(mode="after")
    def _parts_agree(self) -> Settings:
        positions = self.objective.history_positions
        sampled = self.objective.predicts == "all_action"
        if sampled and positions > self.objective.history:
            raise ValueError(
                f"objective.history_positions {positions} cannot be sampled from "
                f"objective.history {self.objective.history}"
            )
        if sampled and self.objective.target_positions > self.objective.targets:
            raise ValueError(
                f"objective.target_positions {self.objective.target_positions} cannot be sampled from "
                f"objective.targets {self.objective.targets}"
            )
        blending = blending_of(self.tower)
        if blending is not None and blending.trend_days and self.histories.split_micros() is None:
            raise ValueError(
                f"tower.blending.trend_days {blending.trend_days} needs histories.protocol time_split: under "
                f"{self.histories.protocol} the last days of training are after many of the targets"
            )
        if self.objective.history > self.histories.max_length:
            raise ValueError(
                f"objective.history {self.objective.history} is longer than histories.max_length "
                f"{self.histories.max_length}, the longest history that is stored"
            )
        rule, protocol = self.training.rule, self.histories.protocol
        if (rule == "refit" and protocol == "books_meta") or (rule != "holdout" and protocol == "time_split"):
            raise ValueError(
                f"training.rule {rule} is for protocols whose {'training' if rule == 'strict' else 'validation'} "
                f"targets are events of users who train, not for {protocol}; use holdout"
            )
        if self.objective.recency and self.objective.recency.beta <= self.objective.recency.alpha:
            raise ValueError(
                f"objective.recency.beta {self.objective.recency.beta} must be above alpha "
                f"{self.objective.recency.alpha}"
            )
        return self
