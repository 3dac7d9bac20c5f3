"""What a model may have besides its tower: blending, narrower vectors, a reranker."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from learn_spark.model.blending.frequency_weights import FrequencyWeights
from learn_spark.model.blending.tower import BlendedTower
from learn_spark.model.narrowing.projections import NarrowedTower, Projections
from learn_spark.model.reranking.head import CrossFittedHeads
from learn_spark.model.towers.bound import BoundTower
from learn_spark.model.towers.tower import Tower


@dataclass(frozen=True)
class ModelReranker:
    """A model's reranker: its heads, the transitions' ``reach`` and ``decay``, and the tower's temperature.

    Co-visits are counted for at most ``pair_users`` users (None: for all). ``blended``: the heads read the blended
    vectors, and not the tower's.
    """

    heads: CrossFittedHeads
    reach: int
    decay: float
    temperature: float
    pair_users: int | None = None
    blended: bool = False


@dataclass(frozen=True)
class ModelBlending:
    """How content, co-visits and popularity are blended into a model's vectors.

    ``frequency_weights`` were fitted on all validation users, ``folds[f]`` on those of other folds than f. ``counts``
    [N]: training events per item. ``temperature``: of the tower. ``reach``: number of recent events averaged, each
    weighed by ``decay`` ^ (number of later events). ``co_visits`` [N, S]: the items' vectors of co-visits in the same
    events, None without them. ``recent`` [N]: their events in the last days of training, None where the trend is not
    blended. ``profile``: whether users' profiles are.
    """

    frequency_weights: FrequencyWeights
    folds: tuple[FrequencyWeights, ...]
    counts: np.ndarray
    reach: int
    temperature: float
    co_visits: np.ndarray | None = None
    decay: float = 1.0
    recent: np.ndarray | None = None
    profile: bool = False

    def upon(self, tower: Tower, fold: int | None = None) -> BlendedTower:
        """``tower``, with content bound, blended by the weights of all users, or by those that may rank the users of
        ``fold``.
        """
        assert isinstance(tower, BoundTower)
        frequency_weights = self.frequency_weights if fold is None else self.folds[fold]
        return BlendedTower(
            tower,
            frequency_weights,
            self.counts,
            temperature=self.temperature,
            reach=self.reach,
            decay=self.decay,
            co_visits=self.co_visits,
            recent=self.recent,
            profile=self.profile,
        )

    def tensors(
        self, counts: np.ndarray, co_visits: np.ndarray | None = None, recent: np.ndarray | None = None
    ) -> dict[str, torch.Tensor]:
        """The content of blending.safetensors.

        ``counts`` [N], ``co_visits`` [N, S] and ``recent`` [N] are of the events that the saved tower was trained on;
        those of ``self`` are from before a refit.
        """
        weights = (self.frequency_weights, *self.folds)
        by_setting = {
            "co_visits": co_visits,
            "co_visits_before_refit": self.co_visits,
            "recent": recent,
            "recent_before_refit": self.recent,
        }
        return {
            **{name: torch.tensor(values) for name, values in by_setting.items() if values is not None},
            "frequency_weights": torch.from_numpy(np.stack([fold_weights.weights for fold_weights in weights])),
            # Copies, because safetensors rejects tensors that share memory.
            "counts": torch.tensor(counts),
            "counts_before_refit": torch.tensor(self.counts),
        }


@dataclass(frozen=True)
class ModelNarrowing:
    """How a model's vectors are made narrower.

    ``released`` belongs to the weights that are released, ``folds[f]`` to those that validation chose, blended by
    weights that may rank the users of fold f. ``released`` is None where other weights were loaded (``load_model``).
    """

    released: Projections | None
    folds: tuple[Projections, ...]

    def upon(self, vectors: Tower, fold: int | None = None) -> NarrowedTower:
        """``vectors``, blended where the model has blending (for ``fold``), made narrower."""
        projections = self.released if fold is None else self.folds[fold]
        if projections is None:
            raise ValueError("the weights of before a refit have projections by fold alone")
        return NarrowedTower(vectors, projections)


def wide_vectors(tower: Tower, blending: ModelBlending | None, fold: int | None = None) -> Tower:
    """``tower``, blended where there is ``blending`` (for the users of ``fold``), before it is made narrower."""
    return tower if blending is None else blending.upon(tower, fold)
