"""Fusion for a tower that validation has chosen: levels fitted on the validation targets, and what they are worth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch

from learn_spark.core.console import Reporter
from learn_spark.core.settings import Settings
from learn_spark.core.settings.tower import BlendingSettings
from learn_spark.data.splits.folds import FOLDS
from learn_spark.data.splits.split import event_counts, split_histories
from learn_spark.model.blending.fit import Candidates, fit_frequency_weights
from learn_spark.model.blending.folded import FoldedVectors
from learn_spark.model.scoring.metrics import summarise
from learn_spark.model.scoring.queries import query_batch
from learn_spark.model.store import ModelBlending
from learn_spark.model.towers.bound import BoundTower
from learn_spark.model.towers.vectors import item_vectors, mean_vectors, unit_rows, user_vectors


@dataclass(frozen=True)
class FittedBlending:
    """``validation`` are metrics of the validation split, every user judged by levels fitted on others."""

    fusion: ModelBlending
    validation: dict[str, float]

    def tensors(self, counts: np.ndarray) -> dict[str, torch.Tensor]:
        """What save_model keeps; ``counts`` [N] are of what the saved tower has learnt from."""
        frequency_weights = (self.fusion.frequency_weights, *self.fusion.folds)
        return {
            "levels": torch.from_numpy(np.stack([own.weights for own in frequency_weights])),
            # Copies: the format does not keep one memory under two names.
            "counts": torch.tensor(counts),
            "chosen_counts": torch.tensor(self.fusion.counts),
        }


def fit_blending(
    tower: BoundTower,
    temperature: float,
    histories: pa.Table,
    wanted: BlendingSettings,
    settings: Settings,
    console: Reporter,
) -> FittedBlending:
    """Levels for ``tower``, content bound, which must not have learnt the validation events of ``histories``."""
    window = settings.objective.history
    split = split_histories(histories, "validation")
    hidden = split.hidden(settings.evaluation.mask_history)
    unit = unit_rows(tower.bound.astype(np.float32))
    users = user_vectors(tower, split.items, split.lengths, window, times=split.times)
    candidates = Candidates(
        query_batch(split, users, hidden, wanted.reach),
        mean_vectors(unit, split.items, split.lengths, wanted.reach),
        item_vectors(tower),
        unit[1:],
        event_counts(histories, tower.n_items),
        temperature,
    )
    console.say("fitting fusion")
    frequency_weights, folds = fit_frequency_weights(candidates, split.user_ids, wanted, seed=settings.training.seed)
    fusion = ModelBlending(frequency_weights, folds, candidates.counts, wanted.reach, temperature)
    towers = [fusion.upon(tower, fold) for fold in range(FOLDS)]
    ranks = FoldedVectors(split, towers, window).ranks(hidden, lambda count: None)
    ks = sorted({10, *settings.evaluation.ks})
    return FittedBlending(fusion, summarise(ranks, ks, split.every_target.offsets))
