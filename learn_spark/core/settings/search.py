"""The search over settings."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, field_validator, model_validator

from learn_spark.core.settings.base import Count, Section


class ParameterSettings(Section):
    """What the search may set one setting to: one of ``choices``, or a number from ``low`` to ``high`` (both included),
    drawn evenly on the logarithm with ``log``. Whole numbers where both ends are.
    """

    choices: Annotated[list[Any], Field(min_length=1)] | None = None
    low: int | float | None = None
    high: int | float | None = None
    log: bool = False

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
    """``learn-spark search``: trainings with other settings, judged by validation alone. ``parameters`` names the
    settings to vary (``{tower.dropout: {low: 0.1, high: 0.5}}``) in the sections that training reads.
    """

    trials: Count = 10
    seed: Annotated[int, Field(ge=0)] = 2024
    parameters: dict[str, ParameterSettings] = Field(default_factory=dict)

    @field_validator("parameters")
    @classmethod
    def _only_what_training_reads(cls, parameters: dict[str, ParameterSettings]) -> dict[str, ParameterSettings]:
        allowed = ("embedding_space", "feed", "tower", "objective", "training")
        if wrong := sorted(key for key in parameters if key.partition(".")[0] not in allowed or "." not in key):
            raise ValueError(f"{', '.join(wrong)} cannot be searched over: name settings of {', '.join(allowed)}")
        return parameters
