"""A tower whose vectors hold content and popularity too, so that one inner product weighs all three."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from learn_spark.model.blending.frequency_weights import FrequencyWeights
from learn_spark.model.manifest import Shape
from learn_spark.model.scoring.frequency import LIKENESS_SCALE
from learn_spark.model.towers.bound import BoundTower
from learn_spark.model.towers.tower import Tower


class BlendedTower(Tower):
    """``tower`` (its content bound, its vectors of length 1) with ``frequency_weights``.

    For any user the inner product orders items as ``FrequencyWeights`` scores them.

    A user is (tower's vector, mean content of the last ``reach`` events, 1, 0), an item (a(n) / temperature times the
    tower's vector, c(n) times its content, b(n), filler): D + C + 2 numbers. The filler brings all items to one length,
    which changes no order (Bachrach et al. 2014, section 3.1), and all vectors are then scaled to length 1. ``counts``
    [.., up to n_items] are the items' events; those behind have none. Raises ValueError for a tower whose vectors are
    not normalised, and where the temperature is not above 0.
    """

    def __init__(
        self,
        tower: BoundTower,
        frequency_weights: FrequencyWeights,
        counts: np.ndarray,
        *,
        temperature: float,
        reach: int,
    ) -> None:
        super().__init__()
        if not tower.normalised or temperature <= 0:
            raise ValueError(f"fusion needs vectors of length 1 and a temperature above 0, got {temperature}")
        self.tower, self.reach, self.needs_times = tower, reach, tower.needs_times
        self.method = tower.method  # type: ignore[misc]
        self.n_items, self.output_dim = tower.n_items, tower.output_dim + tower.content_dim + 2
        every = np.zeros(tower.n_items + 1, np.int64)
        every[1 : 1 + len(counts)] = counts[: tower.n_items]
        scales = np.array([1.0 / temperature, 1.0, LIKENESS_SCALE])[:, None]
        self._parts = torch.from_numpy((frequency_weights.of(every) * scales).astype(np.float32))
        # Linear between knots, so that no item is longer than one at a knot.
        self._longest = float(np.linalg.norm(frequency_weights.weights * scales, axis=0).max())

    def items(self, items: Tensor) -> Tensor:
        """Item vectors [..., D + C + 2], L2-normalised."""
        score, popularity, likeness = self._parts.to(items.device)[:, items].unsqueeze(-1)
        content = F.normalize(self.tower.content(items), dim=-1)
        raw = torch.cat([self.tower.items(items) * score, content * likeness, popularity], dim=-1)
        filler = (self._longest**2 - raw.square().sum(dim=-1, keepdim=True)).clamp(min=0.0).sqrt()
        return F.normalize(torch.cat([raw, filler], dim=-1), dim=-1)

    def user(self, items: Tensor, times: Tensor | None = None) -> Tensor:
        """User vectors [B, L, D + C + 2] after each event, L2-normalised; meaningless at padding."""
        sums = self._content(items).cumsum(dim=1)
        older = F.pad(sums, (0, 0, self.reach, 0))[:, : sums.shape[1]]
        return self._fused(self.tower.user(items, times), sums - older)

    def user_last(self, items: Tensor, lengths: Tensor, times: Tensor | None = None) -> Tensor:
        """User vectors [B, D + C + 2] after the last of ``lengths`` [B] events. ValueError for lengths outside 1..L."""
        vectors = self.tower.user_last(items, lengths, times)
        ago = lengths.unsqueeze(1) - 1 - torch.arange(items.shape[1], device=items.device)
        kept = items * ((ago >= 0) & (ago < self.reach))
        return self._fused(vectors, self._content(kept).sum(dim=1))

    def to_dict(self) -> Shape:
        """The tower's; levels and counts are saved beside it."""
        return self.tower.to_dict()

    def _content(self, items: Tensor) -> Tensor:
        """Unit content [B, L, C] of events, 0 at padding."""
        return F.normalize(self.tower.content(items), dim=-1) * (items != 0).unsqueeze(-1)

    @staticmethod
    def _fused(vectors: Tensor, sums: Tensor) -> Tensor:
        ones = vectors.new_ones((*vectors.shape[:-1], 1))
        return F.normalize(torch.cat([vectors, F.normalize(sums, dim=-1), ones, 0 * ones], dim=-1), dim=-1)
