"""What a training knows of its model, for tests that save a model without training one."""

from __future__ import annotations

from typing import Any

from learn_spark.model.manifest import TrainingFacts


def training_facts(**changes: Any) -> TrainingFacts:
    """Facts of a small training, with ``changes``."""
    facts: dict[str, Any] = {
        "encoder_key": "encoder",
        "template_version": "template",
        "space_key": None,
        "window": 5,
        "inputs": {},
        "as_of": None,
        "seed": 1,
        "epochs": 1,
        "best_epoch": 1,
        "parameters": 1,
        "temperature": 0.05,
        "temperature_before_refit": 0.05,
        "validation": {"NDCG@10": 0.1},
    }
    return TrainingFacts(**(facts | changes))
