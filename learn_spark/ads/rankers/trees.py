"""Gradient-boosted trees (LightGBM) over the same inputs, the baseline without a network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lightgbm
import numpy as np

from learn_spark.ads.rankers.inputs import Inputs, InputSource, sampled
from learn_spark.core.console import Bar
from learn_spark.core.settings.ads import RankingSettings

SCORED_ROWS = 65_536


class _Rows(lightgbm.Sequence):
    """The inputs as rows of numbers, gathered a batch at a time."""

    batch_size = 16_384

    def __init__(self, inputs: Inputs, with_features: bool) -> None:
        self._inputs, self._with_features = inputs, with_features

    def __len__(self) -> int:
        return len(self._inputs)

    def __getitem__(self, at: Any) -> np.ndarray:
        one = np.isscalar(at)
        rows = np.array([at]) if one else at if isinstance(at, slice) else np.asarray(at)
        inputs = self._inputs
        parts: list[np.ndarray] = [inputs.rows[rows], inputs.cyclic_time[rows]]
        if self._with_features:
            user, item, has_vector = inputs.wide(rows)
            # NaN: LightGBM splits on whether a number is missing.
            user, item = (np.where(has_vector[:, [n]] > 0, vectors, np.nan) for n, vectors in enumerate((user, item)))
            parts += [user, item, (user * item).sum(axis=1, keepdims=True)]
        wide = np.concatenate(parts, axis=1, dtype=np.float64)
        return wide[0] if one else wide


def train_trees(
    variant: str,
    train: InputSource,
    validation: InputSource,
    settings: RankingSettings,
    seed: int,
    bar: Bar | None = None,
) -> tuple[str, int]:
    """(the model as LightGBM's text, the round that validation chose); weighted as ``train_network`` is.

    Fields are categories by their embedding rows. The same seed and exposures give the same trees. LightGBM keeps its
    rows in memory, a byte a number: at most ``trees.rows`` exposures of each part, one of each stretch of time.
    """
    with_features = variant == "gbdt-learn"
    trees = settings.trees
    parts = [sampled(source, trees.rows, settings.seeds[0]) for source in (train, validation)]
    fields = list(range(parts[0].rows.shape[1]))
    parameters = {
        "objective": "binary",
        "metric": "binary_logloss",
        "num_leaves": trees.leaves,
        "learning_rate": trees.learning_rate,
        "min_data_in_leaf": trees.min_leaf,
        "max_delta_step": trees.max_step,
        "bagging_fraction": 0.8,
        "bagging_freq": 1,
        "feature_fraction": 0.8,
        "seed": seed,
        "deterministic": True,
        "force_row_wise": True,
        "num_threads": settings.threads or 0,
        "verbosity": -1,
    }
    sets: list[lightgbm.Dataset] = []
    for inputs in parts:
        sets.append(
            lightgbm.Dataset(
                _Rows(inputs, with_features),
                label=inputs.label,
                weight=inputs.weight,
                categorical_feature=fields,
                reference=sets[0] if sets else None,
                params=parameters,
            )
        )
    stop = lightgbm.early_stopping(trees.patience, verbose=False)
    callbacks: list[Callable[..., Any]] = [stop]
    if bar is not None:
        callbacks.append(lambda _: bar.advance(1))
    booster = lightgbm.train(parameters, sets[0], trees.rounds, valid_sets=[sets[1]], callbacks=callbacks)
    return booster.model_to_string(num_iteration=booster.best_iteration), int(booster.best_iteration)


def score_trees(model: str, variant: str, inputs: Inputs) -> np.ndarray:
    """Predicted probabilities of conversion [n] float64."""
    booster = lightgbm.Booster(model_str=model)
    wide = _Rows(inputs, variant == "gbdt-learn")
    parts = [
        np.asarray(booster.predict(wide[start : start + SCORED_ROWS])) for start in range(0, len(inputs), SCORED_ROWS)
    ]
    return np.concatenate(parts) if parts else np.zeros(0)
