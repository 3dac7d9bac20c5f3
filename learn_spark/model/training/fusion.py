"""Fusion for a tower that validation has chosen: levels fitted on the validation targets, and what they are worth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch

from learn_spark.core.console import Reporter
from learn_spark.core.settings import Settings
from learn_spark.core.settings.tower import BlendingSettings
from learn_spark.data.splits.cuts import cut_histories, event_counts
from learn_spark.data.splits.folds import FOLDS
from learn_spark.model.blending.fit import Offered, fit_levels
from learn_spark.model.blending.folded import FoldedVectors
from learn_spark.model.scoring.metrics import summarise
from learn_spark.model.scoring.queries import asked_on
from learn_spark.model.store import ModelFusion
from learn_spark.model.towers.bound import BoundTower
from learn_spark.model.towers.vectors import item_vectors, mean_vectors, unit_rows, user_vectors


@dataclass(frozen=True)
class FittedFusion:
    """``validation`` are metrics of the validation cut, every user judged by levels fitted on others."""

    fusion: ModelFusion
    validation: dict[str, float]

    def tensors(self, counts: np.ndarray) -> dict[str, torch.Tensor]:
        """What save_model keeps; ``counts`` [N] are of what the saved tower has learnt from."""
        levels = (self.fusion.levels, *self.fusion.folds)
        return {
            "levels": torch.from_numpy(np.stack([own.weights for own in levels])),
            # Copies: the format does not keep one memory under two names.
            "counts": torch.tensor(counts),
            "chosen_counts": torch.tensor(self.fusion.counts),
        }


def fit_fusion(
    tower: BoundTower,
    temperature: float,
    histories: pa.Table,
    wanted: BlendingSettings,
    settings: Settings,
    report: Reporter,
) -> FittedFusion:
    """Levels for ``tower``, content bound, which must not have learnt the validation events of ``histories``."""
    window = settings.objective.history
    cut = cut_histories(histories, "validation")
    hidden = cut.hidden(settings.evaluation.mask_history)
    unit = unit_rows(tower.bound.astype(np.float32))
    users = user_vectors(tower, cut.items, cut.lengths, window, times=cut.times)
    offered = Offered(
        asked_on(cut, users, hidden, wanted.reach),
        mean_vectors(unit, cut.items, cut.lengths, wanted.reach),
        item_vectors(tower),
        unit[1:],
        event_counts(histories, tower.n_items),
        temperature,
    )
    report.say("fitting fusion")
    levels, folds = fit_levels(offered, cut.user_ids, wanted, seed=settings.training.seed)
    fusion = ModelFusion(levels, folds, offered.counts, wanted.reach, temperature)
    towers = [fusion.upon(tower, fold) for fold in range(FOLDS)]
    ranks = FoldedVectors(cut, towers, window).ranks(hidden, lambda count: None)
    ks = sorted({10, *settings.evaluation.ks})
    return FittedFusion(fusion, summarise(ranks, ks, cut.every_target.offsets))
