"""The learning rate of a step."""

from __future__ import annotations

import math

from learn_spark.core.settings.training import TrainingSettings


def learning_rate(step: int, total: int, settings: TrainingSettings) -> float:
    """The rate of step ``step`` (from 0) of ``total``: linear warm-up to the peak, then cosine to zero, or constant."""
    warmup = max(1, round(settings.warmup_share * total))
    if step < warmup:
        return settings.learning_rate * (step + 1) / warmup
    if settings.schedule == "constant":
        return settings.learning_rate
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))
