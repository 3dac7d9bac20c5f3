"""Settings of the search over settings."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from learn_spark.core.settings.base import Count, Section


class ParameterSettings(Section):
    """The search space of one setting: ``choices``, or numbers from ``low`` to ``high``."""

    choices: Annotated[list[Any], Field(min_length=1)] | None = None
    """The values; instead of low and high."""
    low: int | float | None = None
    """Smallest number; if low and high are whole, whole numbers are sampled."""
    high: int | float | None = None
    """Largest number (included)."""
    log: bool = False
    """Whether numbers are sampled uniformly on a logarithmic scale."""

    @model_validator(mode="after")
    def _one_way(self) -> ParameterSettings:
        if (self.choices is None) == (self.low is None and self.high is None):
            raise ValueError("give either choices, or low and high")
        if self.choices is not None and self.log:
            raise ValueError("log is for low and high, not for choices")
        if self.choices is None:
            if self.low is None or self.high is None or not self.low < self.high:
                raise ValueError(f"low {self.low} and high {self.high}: low must be below high")
            if self.log and self.low <= 0:
                raise ValueError(f"log needs low above 0, not {self.low}")
        return self


class SearchSettings(Section):
    """``learn-spark search``: trainings with different settings, compared on validation only."""

    trials: Count = 10
    """Number of trainings; the first uses the settings unchanged."""
    seed: Annotated[int, Field(ge=0)] = 2024
    """Seed of the sampler that proposes values."""
    judged_by: Literal["vectors", "model"] = "vectors"
    """Whose NDCG@10 on validation chooses: vectors, as publish releases them; model, with the reranker."""
    parameters: dict[str, ParameterSettings] = Field(default_factory=dict)
    """The settings to vary, of sections that training reads: {tower.dropout: {low: 0.1, high: 0.5}}."""

    @field_validator("parameters")
    @classmethod
    def _only_what_training_reads(cls, parameters: dict[str, ParameterSettings]) -> dict[str, ParameterSettings]:
        allowed = ("embedding_space", "feed", "tower", "objective", "training")
        if wrong := sorted(key for key in parameters if key.partition(".")[0] not in allowed or "." not in key):
            raise ValueError(
                f"{', '.join(wrong)} cannot be searched over; use settings of the sections {', '.join(allowed)}"
            )
        return parameters
