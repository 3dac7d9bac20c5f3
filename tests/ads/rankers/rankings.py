"""Inputs to train rankers on without a table."""

from __future__ import annotations

from typing import Any

import numpy as np

from learn_spark.ads.rankers.calibration import UNCHANGED
from learn_spark.ads.rankers.fit import logits_of
from learn_spark.ads.rankers.inputs import Inputs
from learn_spark.ads.rankers.network import Network
from learn_spark.ads.rankers.trees import Trees, tree_logits
from learn_spark.core.console import Reporter
from learn_spark.core.settings.ads import RankingSettings, TreesSettings

SMALL = {
    "hidden": [16],
    "id_dim": 4,
    "cross_rank": None,
    "adaptor_dim": 8,
    "batch_size": 128,
    "learning_rate": 5e-3,
    "epochs": 8,
    "id_gate": 10.0,
    "inputs": ["vectors", "score"],
    "patience": 15,
    "trees": TreesSettings(leaves=15, rounds=60, min_leaf=20),
}
QUIET = Reporter(quiet=True)


def ranking(**more: Any) -> RankingSettings:
    """Settings of a small ranker."""
    return RankingSettings(**{**SMALL, **more})


def inputs(
    rows: np.ndarray,
    label: np.ndarray,
    *,
    weight: np.ndarray | None = None,
    user: np.ndarray | None = None,
    item: np.ndarray | None = None,
    vectors: np.ndarray | None = None,
    counts: np.ndarray | None = None,
    similarities: np.ndarray | None = None,
) -> Inputs:
    """Inputs of n exposures at one time of the week."""
    n = len(rows)
    none = np.zeros(n, dtype=np.int32)
    return Inputs(
        rows.astype(np.int32),
        np.tile(np.array([0, 1, 0, 1], dtype=np.float32), (n, 1)),
        none if user is None else user.astype(np.int32),
        none if item is None else item.astype(np.int32),
        np.zeros((1, 2), np.float32) if vectors is None else vectors.astype(np.float32),
        label.astype(np.float32),
        np.ones(n, np.float32) if weight is None else weight.astype(np.float32),
        np.zeros((n, 6), np.float32) if counts is None else counts.astype(np.float32),
        np.full((n, 4), np.nan, np.float32) if similarities is None else similarities.astype(np.float32),
    )


def score_network(network: Network, exposures: Inputs) -> np.ndarray:
    """Uncalibrated probabilities of conversion [n]."""
    return UNCHANGED.probabilities(logits_of(network, exposures))


def score_trees(trees: Trees, exposures: Inputs) -> np.ndarray:
    """Uncalibrated probabilities of conversion [n]."""
    return UNCHANGED.probabilities(tree_logits(trees, exposures))
