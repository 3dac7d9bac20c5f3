"""Making a model's vectors narrower at the end of its training."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from learn_spark.core.console import Reporter
from learn_spark.core.settings import Settings
from learn_spark.core.settings.tower import NarrowingSettings
from learn_spark.data.splits.folds import FOLDS
from learn_spark.data.splits.split import Split
from learn_spark.model.blending.folded import FoldedVectors
from learn_spark.model.blending.tower import temperature_of
from learn_spark.model.narrowing.fit import WideVectors, fit_projections
from learn_spark.model.narrowing.projections import NarrowedTower, Projections
from learn_spark.model.parts import ModelBlending, wide_vectors
from learn_spark.model.scoring.catalogue import sampled_positions
from learn_spark.model.towers.tower import Tower
from learn_spark.model.towers.vectors import item_vectors, user_vectors

POOL = 200_000  # items that the fit draws from; the same sample in every run
BLOCK = 65_536  # items whose lengths are measured at once


def narrowing_of(tower: Tower, blending: ModelBlending | None, settings: Settings) -> NarrowingSettings | None:
    """The settings of narrowing; None without, and where the model's vectors are not wider."""
    narrowing = settings.tower.narrowing
    return None if narrowing is None or wide_vectors(tower, blending).output_dim <= narrowing.width else narrowing


def narrow_by_fold(
    tower: Tower,
    temperature: float,
    blending: ModelBlending | None,
    split: Split,
    narrowing: NarrowingSettings,
    settings: Settings,
    console: Reporter,
) -> tuple[tuple[Projections, ...], np.ndarray]:
    """(projections of each fold, for vectors that may rank its users; ranks [T] of the targets of ``split``).

    Projections are fitted to the wide vectors of all users without a target; the weights of ``blending`` for a fold,
    which they imitate, were fitted on other users' targets.
    """
    wide = [wide_vectors(tower, blending, fold) for fold in (range(FOLDS) if blending is not None else (None,))]
    fitted = [narrow(one, temperature, split, narrowing, settings, console) for one in wide]
    if blending is None:  # nothing differs by fold
        wide, fitted = wide * FOLDS, fitted * FOLDS
    towers = [NarrowedTower(vectors, projections) for vectors, projections in zip(wide, fitted, strict=True)]
    hidden = split.hidden(settings.evaluation.mask_history)
    ranks = FoldedVectors(split, towers, settings.objective.history).ranks(hidden, lambda count: None)
    return tuple(fitted), ranks


def narrow(
    vectors: Tower,
    temperature: float,
    split: Split,
    narrowing: NarrowingSettings,
    settings: Settings,
    console: Reporter,
) -> Projections:
    """Projections of ``vectors`` for the users of ``split``, whose targets are not read.

    ``temperature`` is that of a tower without blending; the catalogue is sampled beyond POOL items.
    """
    positions, _ = sampled_positions(vectors.n_items, POOL, np.zeros(0, np.int64))
    wide = WideVectors(
        user_vectors(vectors, split.items, split.lengths, settings.objective.history, times=split.times),
        item_vectors(vectors, positions=positions),
        positions,
        split.hidden(settings.evaluation.mask_history),
        temperature_of(vectors, temperature),
        vectors.normalised,
    )
    with console.bar(f"fitting vectors of {narrowing.width} numbers", narrowing.steps, "steps") as bar:
        projections = fit_projections(wide, narrowing, seed=settings.training.seed, advance=bar.advance)
    return projections if len(positions) == vectors.n_items else _with_longest(vectors, projections)


def _with_longest(vectors: Tower, projections: Projections) -> Projections:
    """``projections`` with the length of the longest item of the whole catalogue."""
    longest = 0.0
    for start in range(0, vectors.n_items, BLOCK):
        positions = np.arange(start, min(start + BLOCK, vectors.n_items))
        items = (item_vectors(vectors, positions=positions) - projections.centre) @ projections.items
        longest = max(longest, float(np.linalg.norm(items, axis=1).max()))
    return replace(projections, longest=longest)
