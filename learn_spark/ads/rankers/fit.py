"""Training a network on weighted exposures, with early stopping on later ones; scoring with it."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F

from learn_spark.ads.rankers.calibration import UNCHANGED, LogitHistogram, Thresholds
from learn_spark.ads.rankers.inputs import Inputs, InputSource, shuffled, windows
from learn_spark.ads.rankers.metrics import log_losses
from learn_spark.ads.rankers.network import Batch, Network, Shape
from learn_spark.ads.rankers.statistics import statistics_of
from learn_spark.core.console import Bar
from learn_spark.core.errors import LearnSparkError
from learn_spark.core.settings.ads import RankingSettings

SCORED_ROWS = 8192
CHECKS_PER_EPOCH = 10


@dataclass(frozen=True)
class Check:
    """A validation after ``step`` batches: the weighted mean training ``loss`` since the one before, and the weighted
    log loss on validation, of the probabilities as they are and with the calibration that fits it best.
    """

    step: int
    loss: float
    validation: float
    calibrated: float


def shape_of(variant: str, sizes: list[int], dims: int, settings: RankingSettings) -> Shape:
    """The shape that the settings ask for."""
    return Shape(
        variant=variant,
        model=settings.model,
        sizes=tuple(sizes),
        id_dim=settings.id_dim,
        dims=dims,
        hidden=tuple(settings.hidden),
        cross_layers=settings.cross_layers,
        cross_rank=settings.cross_rank,
        adaptor_dim=settings.adaptor_dim,
        counts=settings.counts,
        gate=settings.id_gate,
        group_dropout=settings.group_dropout,
        inputs=tuple(settings.inputs),
    )


def train_network(
    shape: Shape,
    train: InputSource,
    validation: InputSource,
    settings: RankingSettings,
    seed: int,
    bar: Bar | None = None,
) -> tuple[Network, list[Check]]:
    """(the network of the check that ``best_check`` chooses, all checks).

    Validation is every ``validation_steps`` batches, and training stops after ``patience`` checks without a better
    one. Training loss and validation are weighted by the exposures' weights. Where unconverted exposures were sampled,
    the predicted probabilities are therefore those of all exposures. The same seed and exposures give the same network,
    whatever files they came from. Exposures are read a window at a time (``inputs.shuffled``).

    Raises LearnSparkError if the loss is not finite.
    """
    torch.manual_seed(seed)
    network = Network(shape)
    statistics = statistics_of(train)
    network.fit_scales(train, statistics)
    optimizer = torch.optim.Adam(
        network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay, foreach=True
    )
    every = settings.validation_steps or max(1, len(train) // settings.batch_size // CHECKS_PER_EPOCH)
    checks: list[Check] = []
    best = copy.deepcopy(network.state_dict())
    total, rows, step = 0.0, 0, 0
    for window, at, last in _batches(train, np.random.default_rng(seed), settings):
        network.train()
        label = torch.from_numpy(window.label[at])
        weight = torch.from_numpy(window.weight[at] / statistics.mean_weight)
        logits, auxiliary = network(Batch.of(window, at))
        loss = F.binary_cross_entropy_with_logits(logits, label, weight=weight)
        step, rows, total = step + 1, rows + len(label), total + loss.item() * len(label)
        if auxiliary is not None:
            auxiliary_loss = F.binary_cross_entropy_with_logits(auxiliary, label, weight=weight)
            loss = loss + settings.auxiliary_weight * auxiliary_loss
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        if step % every and not last:
            continue
        validation_loss, calibrated = losses_of(network, validation, thresholds_of(settings))
        if not math.isfinite(total) or not math.isfinite(validation_loss):
            raise LearnSparkError(
                f"rank_ads: the loss of {shape.variant}, seed {seed}, is {total / rows} in training and "
                f"{validation_loss} on validation after {step} steps; lower ranking.learning_rate"
            )
        checks.append(Check(step, total / rows, validation_loss, calibrated if settings.calibrate else validation_loss))
        if best_check(checks) is checks[-1]:
            best = copy.deepcopy(network.state_dict())
        if bar is not None:
            bar.advance(rows, f"log loss {checks[-1].calibrated:.5f} on validation")
        total, rows = 0.0, 0
        if len(checks) - checks.index(best_check(checks)) > settings.patience:
            break
    network.load_state_dict(best)
    return network.eval(), checks


def _batches(
    train: InputSource, order: np.random.Generator, settings: RankingSettings
) -> Iterator[tuple[Inputs, slice, bool]]:
    """(a window, the batch in it, whether it is the last of all) for every batch of every epoch."""
    for epoch in range(settings.epochs):
        rows = 0
        for window in shuffled(train, order):
            rows += len(window)
            for start in range(0, len(window), settings.batch_size):
                stop = start + settings.batch_size
                ends = epoch + 1 == settings.epochs and rows == len(train) and stop >= len(window)
                yield window, slice(start, stop), ends


def best_check(checks: list[Check]) -> Check:
    """The check with the least calibrated log loss, of equal ones the first.

    The rate of conversion drifts: an uncalibrated loss would stop a network that still learns to rank because its level
    is off, which calibration corrects.
    """
    return min(checks, key=lambda check: (check.calibrated, check.step))


def thresholds_of(settings: RankingSettings) -> Thresholds:
    """The cohorts that probabilities are calibrated by."""
    return (tuple(settings.cohorts.item), tuple(settings.cohorts.user))


def losses_of(network: Network, source: InputSource, thresholds: Thresholds = ()) -> tuple[float, float]:
    """The weighted log loss of a network on exposures, read a window at a time: (as it is, calibrated on them)."""
    histogram = LogitHistogram(thresholds)
    above = below = 0.0
    for window in windows(source):
        logits, weight = logits_of(network, window), window.weight.astype(np.float64)
        above += float((log_losses(UNCHANGED.probabilities(logits), window.label) * weight).sum())
        below += float(weight.sum())
        if np.isfinite(logits).all():
            histogram.add(logits, window.label, weight, window.counts)
    return (above / below if below else math.nan), histogram.loss(histogram.fit())


@torch.inference_mode()
def logits_of(network: Network, inputs: Inputs) -> np.ndarray:
    """The network's logits of conversion [n] float64."""
    network.eval()
    parts = [
        network(Batch.of(inputs, slice(start, start + SCORED_ROWS)))[0].double().numpy()
        for start in range(0, len(inputs), SCORED_ROWS)
    ]
    return np.concatenate(parts) if parts else np.zeros(0)
