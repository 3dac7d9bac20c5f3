"""Gradient-boosted trees (LightGBM) over the same inputs, the baseline without a network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import lightgbm
import numpy as np
import torch

from learn_spark.ads.inputs.vocabulary import FIRST
from learn_spark.ads.rankers.count_features import count_features
from learn_spark.ads.rankers.inputs import Inputs, InputSource, sampled
from learn_spark.ads.rankers.similarity import NEAREST
from learn_spark.ads.rankers.statistics import statistics_of
from learn_spark.core.console import Bar
from learn_spark.core.settings.ads import RankingSettings

SCORED_ROWS = 65_536
IDS = 2  # the first fields are user_id and item_id, of which the running counts are


@dataclass(frozen=True)
class Trees:
    """LightGBM's ``text``, and how its inputs are made: see ``TreeInputs``."""

    text: str
    inputs: TreeInputs


@dataclass(frozen=True)
class TreeInputs:
    """Which numbers of an exposure trees read. ``features`` are those of ranking.inputs, none for gbdt.

    ``rate``: of the training exposures, for running counts; None: they read no counts. ``frequencies`` by field, for
    fields of too many values to be categories: the number of training exposures of each embedding row, read in place
    of the row. A field in ``without`` is not read, because its running counts are.
    """

    features: tuple[str, ...]
    rate: float | None
    frequencies: Mapping[int, np.ndarray]
    without: tuple[int, ...]

    @staticmethod
    def of(variant: str, train: InputSource, settings: RankingSettings) -> TreeInputs:
        """The inputs of a variant by the settings, from all training exposures."""
        statistics = statistics_of(train)
        most = settings.trees.categories + FIRST
        wide = {n: each for n, each in enumerate(statistics.frequencies) if len(each) > most}
        without = tuple(n for n in wide if settings.counts and n < IDS)
        frequencies = {n: each for n, each in wide.items() if n not in without}
        rate = statistics.rate if settings.counts else None
        features = tuple(settings.inputs) if variant == "gbdt-learn" else ()
        return TreeInputs(features, rate, frequencies, without)

    def categories(self, fields: int) -> list[int]:
        """The columns that are categories, of exposures of so many fields."""
        read = [n for n in range(fields) if n not in self.without]
        return [column for column, n in enumerate(read) if n not in self.frequencies]

    def of_rows(self, inputs: Inputs, rows: slice | np.ndarray) -> np.ndarray:
        """The numbers [n, columns] float64 of the exposures ``rows``."""
        parts: list[np.ndarray] = []
        for n in range(inputs.rows.shape[1]):
            values = inputs.rows[rows, n]
            if n in self.frequencies:
                seen = np.append(self.frequencies[n], 0)  # the last: of rows that training did not have
                values = np.log1p(seen[np.minimum(values, len(seen) - 1)])
            if n not in self.without:
                parts.append(values[:, None])
        parts.append(inputs.cyclic_time[rows])
        if self.rate is not None:
            parts.append(count_features(torch.from_numpy(inputs.counts[rows]), self.rate).numpy())
        if self.features:
            user, item, has_vector = inputs.wide(rows)
            # NaN: LightGBM splits on whether a number is missing.
            user, item = (np.where(has_vector[:, [n]] > 0, vectors, np.nan) for n, vectors in enumerate((user, item)))
            similarities = inputs.similarities[rows]
            of = {
                "vectors": [user, item],
                "score": [(user * item).sum(axis=1, keepdims=True)],
                "nearest": [similarities[:, : len(NEAREST)]],
                "list": [similarities[:, len(NEAREST) :]],
            }
            parts += [part for name in self.features for part in of[name]]
        return np.concatenate(parts, axis=1, dtype=np.float64)


class _Rows(lightgbm.Sequence):
    """The inputs as rows of numbers, gathered a batch at a time."""

    batch_size = 16_384

    def __init__(self, inputs: Inputs, made: TreeInputs) -> None:
        self._inputs, self._made = inputs, made

    def __len__(self) -> int:
        return len(self._inputs)

    def __getitem__(self, at: Any) -> np.ndarray:
        one = np.isscalar(at)
        rows = np.array([at]) if one else at if isinstance(at, slice) else np.asarray(at)
        wide = self._made.of_rows(self._inputs, rows)
        return wide[0] if one else wide


def train_trees(
    variant: str,
    train: InputSource,
    validation: InputSource,
    settings: RankingSettings,
    seed: int,
    bar: Bar | None = None,
) -> tuple[Trees, int]:
    """(the trees, the round that validation chose); weighted as ``train_network`` is.

    Fields of few values are categories by their embedding rows; see ``TreeInputs``. The same seed and exposures
    give the same trees. LightGBM keeps its rows in memory, a byte a number: at most ``trees.rows`` exposures of each
    part, one of each stretch of time.
    """
    made, trees = TreeInputs.of(variant, train, settings), settings.trees
    parts = [sampled(source, trees.rows, settings.seeds[0]) for source in (train, validation)]
    categories = made.categories(parts[0].rows.shape[1])
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
                _Rows(inputs, made),
                label=inputs.label,
                weight=inputs.weight,
                categorical_feature=categories,
                reference=sets[0] if sets else None,
                params=parameters,
            )
        )
    stop = lightgbm.early_stopping(trees.patience, verbose=False)
    callbacks: list[Callable[..., Any]] = [stop]
    if bar is not None:
        callbacks.append(lambda _: bar.advance(1))
    booster = lightgbm.train(parameters, sets[0], trees.rounds, valid_sets=[sets[1]], callbacks=callbacks)
    text = booster.model_to_string(num_iteration=booster.best_iteration)
    return Trees(text, made), int(booster.best_iteration)


def tree_logits(trees: Trees, inputs: Inputs) -> np.ndarray:
    """The trees' logits of conversion [n] float64."""
    booster = lightgbm.Booster(model_str=trees.text)
    wide = _Rows(inputs, trees.inputs)
    parts = [
        np.asarray(booster.predict(wide[start : start + SCORED_ROWS], raw_score=True))
        for start in range(0, len(inputs), SCORED_ROWS)
    ]
    return np.concatenate(parts) if parts else np.zeros(0)
