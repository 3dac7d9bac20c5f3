"""All sections of a workspace's settings together, and what they require of each other."""

from __future__ import annotations

from pydantic import Field, model_validator

from learn_spark.core.settings.ads import ExposuresSettings, RankingSettings
from learn_spark.core.settings.base import Section
from learn_spark.core.settings.encoder import EmbeddingSpaceSettings, EncoderSettings
from learn_spark.core.settings.features import IndexSettings, ReleaseSettings
from learn_spark.core.settings.histories import FeedSettings, HistoriesSettings
from learn_spark.core.settings.platform import PipelineSettings, QualitySettings, SparkSettings
from learn_spark.core.settings.search import SearchSettings
from learn_spark.core.settings.source import SourceSettings, TextSettings
from learn_spark.core.settings.tower import TowerSettings
from learn_spark.core.settings.training import EvaluationSettings, ObjectiveSettings, TrainingSettings


class Settings(Section):
    """All settings of one workspace."""

    workspace: str = Field(min_length=1)
    source: SourceSettings
    spark: SparkSettings = SparkSettings()
    quality: QualitySettings = QualitySettings()
    text: TextSettings = TextSettings()
    encoder: EncoderSettings
    embedding_space: EmbeddingSpaceSettings = EmbeddingSpaceSettings()
    histories: HistoriesSettings = HistoriesSettings()
    feed: FeedSettings = FeedSettings()
    tower: TowerSettings = TowerSettings()
    objective: ObjectiveSettings = ObjectiveSettings()
    training: TrainingSettings = TrainingSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    release: ReleaseSettings = ReleaseSettings()
    index: IndexSettings = IndexSettings()
    exposures: ExposuresSettings = ExposuresSettings()
    ranking: RankingSettings = RankingSettings()
    search: SearchSettings = SearchSettings()
    pipeline: PipelineSettings

    @model_validator(mode="after")
    def _parts_agree(self) -> Settings:
        wanted = self.objective.history_positions
        sampled = self.objective.predicts == "all_action"
        if sampled and wanted > self.objective.history:
            raise ValueError(
                f"objective.history_positions {wanted} cannot be sampled from "
                f"objective.history {self.objective.history}"
            )
        if sampled and self.objective.target_positions > self.objective.targets:
            raise ValueError(
                f"objective.target_positions {self.objective.target_positions} cannot be sampled from "
                f"objective.targets {self.objective.targets}"
            )
        if self.objective.history > self.histories.max_length:
            raise ValueError(
                f"objective.history {self.objective.history} is longer than histories.max_length "
                f"{self.histories.max_length}, the longest history that is stored"
            )
        if self.training.refit and self.histories.protocol not in (
            "leave_last_out",
            "last_day",
            "books_hllm",
        ):
            raise ValueError(
                f"training.refit is for protocols whose validation targets are events of users who train, not for "
                f"{self.histories.protocol}"
            )
        if self.objective.recency and self.objective.recency.beta <= self.objective.recency.alpha:
            raise ValueError(
                f"objective.recency.beta {self.objective.recency.beta} must be above alpha "
                f"{self.objective.recency.alpha}"
            )
        return self
