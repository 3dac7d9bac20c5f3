"""Training a network on weighted exposures, with early stopping on later ones; scoring with it."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F

from learn_spark.ads.rankers.inputs import Inputs, InputSource, shuffled, windows
from learn_spark.ads.rankers.metrics import log_losses
from learn_spark.ads.rankers.network import Batch, Network, Shape
from learn_spark.ads.rankers.statistics import statistics_of
from learn_spark.core.console import Bar
from learn_spark.core.errors import LearnSparkError
from learn_spark.core.settings.ads import RankingSettings

SCORED_ROWS = 8192


@dataclass(frozen=True)
class Epoch:
    """Weighted mean training loss of an epoch, and the weighted log loss on validation after it."""

    number: int
    loss: float
    validation: float


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
    )


def train_network(
    shape: Shape,
    train: InputSource,
    validation: InputSource,
    settings: RankingSettings,
    seed: int,
    bar: Bar | None = None,
) -> tuple[Network, list[Epoch]]:
    """(the network of the epoch with the least log loss on validation, all epochs).

    Training loss and validation are weighted by the exposures' weights. Where unconverted exposures were sampled, the
    predicted probabilities are therefore those of all exposures. The same seed and exposures give the same network,
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
    order = np.random.default_rng(seed)
    epochs: list[Epoch] = []
    best = copy.deepcopy(network.state_dict())
    for number in range(1, settings.epochs + 1):
        network.train()
        total = 0.0
        for window in shuffled(train, order):
            for start in range(0, len(window), settings.batch_size):
                at = slice(start, start + settings.batch_size)
                label = torch.from_numpy(window.label[at])
                weight = torch.from_numpy(window.weight[at] / statistics.mean_weight)
                logits, auxiliary = network(Batch.of(window, at))
                loss = F.binary_cross_entropy_with_logits(logits, label, weight=weight)
                total += loss.item() * len(label)
                if auxiliary is not None:
                    auxiliary_loss = F.binary_cross_entropy_with_logits(auxiliary, label, weight=weight)
                    loss = loss + settings.auxiliary_weight * auxiliary_loss
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
        validation_loss = loss_of(network, validation)
        if not math.isfinite(total) or not math.isfinite(validation_loss):
            raise LearnSparkError(
                f"rank_ads: the loss of {shape.variant}, seed {seed}, is {total} in epoch {number}; lower "
                "ranking.learning_rate"
            )
        if not epochs or validation_loss < min(epoch.validation for epoch in epochs):
            best = copy.deepcopy(network.state_dict())
        epochs.append(Epoch(number, total / len(train), validation_loss))
        if bar is not None:
            bar.advance(len(train), f"log loss {validation_loss:.5f} on validation")
        if number - best_epoch(epochs) >= settings.patience:
            break
    network.load_state_dict(best)
    return network.eval(), epochs


def best_epoch(epochs: list[Epoch]) -> int:
    """The epoch that validation chose: the first with the least log loss."""
    return min(epochs, key=lambda epoch: (epoch.validation, epoch.number)).number


def loss_of(network: Network, source: InputSource) -> float:
    """The weighted log loss of a network on exposures, read a window at a time."""
    above = below = 0.0
    for window in windows(source):
        weight = window.weight.astype(np.float64)
        above += float((log_losses(score_network(network, window), window.label) * weight).sum())
        below += float(weight.sum())
    return above / below if below else math.nan


@torch.inference_mode()
def score_network(network: Network, inputs: Inputs) -> np.ndarray:
    """Predicted probabilities of conversion [n] float64."""
    network.eval()
    parts = [
        torch.sigmoid(network(Batch.of(inputs, slice(start, start + SCORED_ROWS)))[0].double()).numpy()
        for start in range(0, len(inputs), SCORED_ROWS)
    ]
    return np.concatenate(parts) if parts else np.zeros(0)
