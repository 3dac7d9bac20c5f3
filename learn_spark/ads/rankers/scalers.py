"""Released vectors, scores and similarities, centred and scaled by those of the training exposures."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor, nn

from learn_spark.ads.rankers.inputs import InputSource, windows

SCORED_ROWS = 65_536
FURTHEST = 4.0  # standard deviations of a similarity


class VectorScaler(nn.Module):
    """Centres released vectors and scales them by one number to variance one, by the training exposures' vectors.

    A masked vector stays zero.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, dims: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(dims))
        self.register_buffer("scale", torch.ones(()))

    def fit(self, vectors: np.ndarray) -> None:
        """Set mean and scale from ``vectors`` [R, D]; they stay 0 and 1 if there are none."""
        self.fit_blocks(lambda: iter([vectors] if len(vectors) else []))

    def fit_blocks(self, blocks: Callable[[], Iterator[np.ndarray]]) -> None:
        """``fit`` to vectors that are read twice, a block at a time."""
        count, total = 0, np.zeros(0)
        for block in blocks():
            sums = np.add.reduce(block, axis=0, dtype=np.float64)
            count, total = count + len(block), sums if not count else total + sums
        if not count:
            return
        mean = total / count
        squares = sum(float(np.sum((block - mean) ** 2)) for block in blocks())
        self.mean.copy_(torch.from_numpy(mean))
        self.scale.fill_(float(np.sqrt(squares / (count * len(mean)))) or 1.0)

    def forward(self, vectors: Tensor, has_vector: Tensor) -> Tensor:
        """Scaled ``vectors`` [B, D], zero where ``has_vector`` [B] is 0."""
        return (vectors - self.mean) / self.scale * has_vector[:, None]


class ScoreScaler(nn.Module):
    """The product of user and item vector, centred and scaled by the training exposures that have both; else 0."""

    mean: Tensor
    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("scale", torch.ones(()))

    def fit(self, source: InputSource) -> None:
        """Set mean and scale; they stay 0 and 1 if no exposure has both vectors."""
        count, total, squares = 0, 0.0, 0.0
        for window in windows(source):
            for start in range(0, len(window), SCORED_ROWS):
                user, item, has_vector = window.wide(slice(start, start + SCORED_ROWS))
                scores = np.einsum("nd,nd->n", user, item)[has_vector.all(axis=1)].astype(np.float64)
                count, total = count + len(scores), total + float(scores.sum())
                squares += float(scores @ scores)
        if count:
            mean = total / count
            self.mean.fill_(mean)
            self.scale.fill_(float(np.sqrt(max(squares / count - mean * mean, 0.0))) or 1.0)

    def forward(self, user: Tensor, item: Tensor, has_vector: Tensor) -> Tensor:
        """[B, 1] of vectors [B, D] and ``has_vector`` [B, 2]. Of unit vectors it is their cosine, by which the tower
        ranks.
        """
        score = (user * item).sum(dim=1, keepdim=True)
        return (score - self.mean) / self.scale * has_vector.prod(dim=1, keepdim=True)


class SimilarityScaler(nn.Module):
    """Columns ``first`` to ``last`` of the similarities, each centred and scaled by the training exposures that have
    it, and whether an exposure has them.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, first: int, last: int) -> None:
        super().__init__()
        self.columns, self.width = slice(first, last), last - first + 1
        self.register_buffer("mean", torch.zeros(last - first))
        self.register_buffer("scale", torch.ones(last - first))

    def fit(self, source: InputSource) -> None:
        """Set mean and scale; they stay 0 and 1 if no exposure has a value."""
        count, sums = 0, np.zeros((2, len(self.mean)))
        for window in windows(source):
            values = window.similarities[:, self.columns].astype(np.float64)
            values = values[np.isfinite(values).all(axis=1)]
            count, sums = count + len(values), sums + np.stack([values.sum(axis=0), (values**2).sum(axis=0)])
        if count:
            mean, square = sums / count
            scale = np.sqrt(np.maximum(square - mean**2, 0.0))
            self.mean.copy_(torch.from_numpy(mean))
            self.scale.copy_(torch.from_numpy(np.where(scale > 0, scale, 1.0)))

    def forward(self, similarities: Tensor) -> Tensor:
        """[B, width] of all similarities [B, 4]: zeros where they are not known, then 1 or 0."""
        values = similarities[:, self.columns]
        known = torch.isfinite(values).all(dim=1, keepdim=True)
        scaled = ((values - self.mean) / self.scale).clamp(-FURTHEST, FURTHEST)
        return torch.cat([torch.where(known, scaled, 0.0), known.to(scaled.dtype)], dim=1)
