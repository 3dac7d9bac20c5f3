"""The ranker with and without LEARN features (LEARN, section on online deployment: the LEARN-Adaptor)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from learn_spark.ranking.exposures import Exposures
from learn_spark.settings.schema import Ranking


@dataclass(frozen=True)
class Features:
    """Exposures as tensors; see :class:`Exposures` for the shapes."""

    user_bucket: Tensor
    item_bucket: Tensor
    context: Tensor
    user: Tensor
    item: Tensor
    known: Tensor
    label: Tensor

    @staticmethod
    def of(exposures: Exposures) -> Features:
        """The tensors of ``exposures``."""
        known = np.stack([exposures.has_user, exposures.has_item], axis=1)
        return Features(
            torch.from_numpy(exposures.user_bucket),
            torch.from_numpy(exposures.item_bucket),
            torch.from_numpy(exposures.context),
            torch.from_numpy(exposures.user),
            torch.from_numpy(exposures.item),
            torch.from_numpy(known),
            torch.from_numpy(exposures.label.astype(np.float32)),
        )

    def take(self, rows: Tensor) -> Features:
        """The rows at the given positions."""
        return Features(**{name: values[rows] for name, values in self.__dict__.items()})


class Ranker(nn.Module):
    """An MLP over hashed ids and context; with ``adaptor`` also over the fused LEARN user and item vectors.

    The adaptor fuses both vectors by two linear layers, is itself supervised by an auxiliary conversion loss, and
    hands [fused, user, item] to the ranker.
    """

    def __init__(
        self, *, buckets: int, id_dim: int, hidden: int, feature_dim: int, fusion_dim: int, adaptor: bool
    ) -> None:
        super().__init__()
        self.user_id, self.item_id = nn.Embedding(buckets, id_dim), nn.Embedding(buckets, id_dim)
        nn.init.normal_(self.user_id.weight, std=0.01)
        nn.init.normal_(self.item_id.weight, std=0.01)
        width = 2 * id_dim + 4
        self.fusion: nn.Module | None = None
        if adaptor:
            self.fusion = nn.Sequential(
                nn.Linear(2 * feature_dim + 2, fusion_dim), nn.ReLU(), nn.Linear(fusion_dim, fusion_dim)
            )
            self.auxiliary = nn.Sequential(nn.ReLU(), nn.Linear(fusion_dim, 1))
            width += fusion_dim + 2 * feature_dim
        self.mlp = nn.Sequential(
            nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 1)
        )

    def forward(self, x: Features) -> tuple[Tensor, Tensor | None]:
        """Logits [n] of the ranker, and of the adaptor's auxiliary head [n] (None without adaptor)."""
        parts = [self.user_id(x.user_bucket), self.item_id(x.item_bucket), x.context]
        auxiliary = None
        if self.fusion is not None:
            fused = self.fusion(torch.cat([x.user, x.item, x.known], dim=1))
            auxiliary = self.auxiliary(fused).squeeze(1)
            parts += [fused, x.user, x.item]
        return self.mlp(torch.cat(parts, dim=1)).squeeze(1), auxiliary


def train_ranker(exposures: Exposures, settings: Ranking, *, adaptor: bool) -> Ranker:
    """A ranker trained on ``exposures``; the same seed and exposures give the same ranker."""
    torch.manual_seed(settings.seed)
    features = Features.of(exposures)
    ranker = Ranker(
        buckets=settings.buckets,
        id_dim=settings.id_dim,
        hidden=settings.hidden,
        feature_dim=features.user.shape[1],
        fusion_dim=settings.fusion_dim,
        adaptor=adaptor,
    )
    optimizer = torch.optim.Adam(ranker.parameters(), lr=settings.learning_rate, weight_decay=1e-5)
    for _ in range(settings.epochs):
        for rows in torch.randperm(len(exposures)).split(settings.batch_size):
            batch = features.take(rows)
            logits, auxiliary = ranker(batch)
            loss = F.binary_cross_entropy_with_logits(logits, batch.label)
            if auxiliary is not None:
                loss = loss + settings.auxiliary_weight * F.binary_cross_entropy_with_logits(auxiliary, batch.label)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
    return ranker.eval()


@torch.inference_mode()
def score(ranker: Ranker, exposures: Exposures) -> np.ndarray:
    """Predicted probabilities of conversion [n], float64."""
    logits, _ = ranker(Features.of(exposures))
    return torch.sigmoid(logits.double()).numpy()
