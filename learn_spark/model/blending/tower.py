"""A tower whose vectors include content and popularity, so that one inner product combines all three."""

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
    """``tower`` (with content bound) blended by ``frequency_weights``.

    For any user, the inner product orders items as ``FrequencyWeights`` scores them.

    A user is (tower's vector, mean content of the last ``reach`` events, 1, 0); an item is (a(n) / temperature times
    the tower's vector, c(n) times its content, b(n), filler): D + C + 2 numbers. Where the tower's vectors have length
    1, the filler gives all items the same length, which changes no order (Bachrach et al. 2014, section 3.1), and all
    vectors are then scaled to length 1; otherwise it is 0, and an inner product is the score itself. ``counts``
    [<= n_items] are the items' events; items beyond them have none.

    Raises ValueError for a temperature that is not above 0.
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
        if temperature <= 0:
            raise ValueError(f"temperature {temperature} must be above 0")
        self.tower, self.reach, self.needs_times = tower, reach, tower.needs_times
        self.method = tower.method  # type: ignore[misc]
        self.normalised = tower.normalised
        self.n_items, self.output_dim = tower.n_items, tower.output_dim + tower.content_dim + 2
        counts_by_index = np.zeros(tower.n_items + 1, np.int64)
        counts_by_index[1 : 1 + len(counts)] = counts[: tower.n_items]
        scales = np.array([1.0 / temperature, 1.0, LIKENESS_SCALE])[:, None]
        self._parts = torch.from_numpy((frequency_weights.of(counts_by_index) * scales).astype(np.float32))
        # Weights are linear between knots, so that the longest item is at a knot.
        self._longest = float(np.linalg.norm(frequency_weights.weights * scales, axis=0).max())

    def items(self, items: Tensor) -> Tensor:
        """Item vectors [..., D + C + 2]."""
        score, popularity, likeness = self._parts.to(items.device)[:, items].unsqueeze(-1)
        content = F.normalize(self.tower.content(items), dim=-1)
        raw = torch.cat([self.tower.items(items) * score, content * likeness, popularity], dim=-1)
        if not self.normalised:
            return F.pad(raw, (0, 1))
        filler = (self._longest**2 - raw.square().sum(dim=-1, keepdim=True)).clamp(min=0.0).sqrt()
        return F.normalize(torch.cat([raw, filler], dim=-1), dim=-1)

    def user(self, items: Tensor, times: Tensor | None = None) -> Tensor:
        """User vectors [B, L, D + C + 2] after each event; meaningless at padding."""
        sums = self._content(items).cumsum(dim=1)
        older = F.pad(sums, (0, 0, self.reach, 0))[:, : sums.shape[1]]
        return blend(self.tower.user(items, times), sums - older, unit=self.normalised)

    def user_last(self, items: Tensor, lengths: Tensor, times: Tensor | None = None) -> Tensor:
        """User vectors [B, D + C + 2] after the last of ``lengths`` [B] events. Raises ValueError for lengths outside
        1..L.
        """
        vectors = self.tower.user_last(items, lengths, times)
        age = lengths.unsqueeze(1) - 1 - torch.arange(items.shape[1], device=items.device)
        recent = items * ((age >= 0) & (age < self.reach))
        return blend(vectors, self._content(recent).sum(dim=1), unit=self.normalised)

    def to_dict(self) -> Shape:
        """The inner tower's arguments; weights and counts are saved in a file of their own."""
        return self.tower.to_dict()

    def _content(self, items: Tensor) -> Tensor:
        """Unit content [B, L, C] of events; zeros at padding."""
        return F.normalize(self.tower.content(items), dim=-1) * (items != 0).unsqueeze(-1)


def blend(vectors: Tensor, sums: Tensor, *, unit: bool) -> Tensor:
    """Users' blended vectors [..., D + C + 2] from the tower's ``vectors`` [..., D] and the ``sums`` [..., C] of their
    recent events' unit content; of length 1 where ``unit``.
    """
    ones = vectors.new_ones((*vectors.shape[:-1], 1))
    blended = torch.cat([vectors, F.normalize(sums, dim=-1), ones, 0 * ones], dim=-1)
    return F.normalize(blended, dim=-1) if unit else blended
