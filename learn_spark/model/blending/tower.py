"""A tower whose vectors include content, co-visits and popularity, so that one inner product combines them all."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from learn_spark.model.blending.frequency_weights import FrequencyWeights
from learn_spark.model.manifest import Shape
from learn_spark.model.scoring.frequency import LIKENESS_SCALE, PROFILE_SCALE
from learn_spark.model.towers.bound import BoundTower
from learn_spark.model.towers.tower import Tower
from learn_spark.model.towers.vectors import to_one_length


class BlendedTower(Tower):
    """``tower`` (with content bound) blended by ``frequency_weights``.

    For any user, the inner product orders items as ``FrequencyWeights`` scores them.

    A user is (tower's vector, content of the last ``reach`` events, 1, 0), where an event's content is weighed by
    ``decay`` ^ (number of later events) and their sum has length 1; an item is (a(n) / temperature times
    the tower's vector, c(n) times its content, b(n), filler): D + C + 2 numbers. With ``co_visits``
    [<= n_items, S], items' vectors of length 1 or 0, both have S numbers more, after those of the content and made as
    these. ``recent`` [<= n_items] are the items' events in the last days of training, which change b(n). With
    ``profile`` there are two numbers more, before the filler: the user's p and m, divided by PROFILE_SCALE, and the
    item's f(n) and g(n) times it, so that they are as long as the others.

    Where the tower's vectors have length 1, the filler gives all items the same length, which changes no order
    (Bachrach et al. 2014, section 3.1), and all vectors are then scaled to length 1; otherwise it is 0, and an inner
    product is the score itself. ``counts`` [<= n_items] are the items' events; items beyond them have none.

    Raises ValueError for a temperature that is not above 0, and weights of other parts than are given.
    """

    def __init__(
        self,
        tower: BoundTower,
        frequency_weights: FrequencyWeights,
        counts: np.ndarray,
        *,
        temperature: float,
        reach: int,
        decay: float = 1.0,
        co_visits: np.ndarray | None = None,
        recent: np.ndarray | None = None,
        profile: bool = False,
    ) -> None:
        super().__init__()
        if temperature <= 0:
            raise ValueError(f"temperature {temperature} must be above 0")
        likenesses = 1 if co_visits is None else 2
        expected = 2 + likenesses + (recent is not None) + 2 * profile
        if len(frequency_weights.weights) != expected:
            raise ValueError(f"{len(frequency_weights.weights)} rows of weights do not fit {expected} parts")
        self.tower, self.needs_times = tower, tower.needs_times
        self.reach, self.decay = reach, decay
        self.method = tower.method  # type: ignore[misc]
        self.normalised = tower.normalised
        self.n_items, self.output_dim = tower.n_items, tower.output_dim + tower.content_dim + 2 + 2 * profile
        counts_by_index = by_index(counts, tower.n_items)
        scales = np.array(
            [
                1.0 / temperature,
                1.0,
                *[LIKENESS_SCALE] * likenesses,
                *[1.0] * (recent is not None),
                *[PROFILE_SCALE] * (2 * profile),
            ]
        )
        scaled = frequency_weights.weights * scales[:, None]
        parts = FrequencyWeights(scaled).of(counts_by_index)
        lengths = scaled  # at knots and, with recent events, at none and at the most of them
        if recent is not None:
            trend, row = np.log1p(by_index(recent, tower.n_items)), 2 + likenesses
            parts[1] += parts[row] * trend
            parts, none = (np.delete(rows, row, axis=0) for rows in (parts, scaled))
            most = none.copy()
            most[1] += scaled[row] * trend.max()
            lengths = np.concatenate([none, most], axis=1)
        self._parts = torch.from_numpy(parts.astype(np.float32))
        # Weights are linear between knots and in the trend, so that the longest item is at one of these ends.
        self._longest = float(np.linalg.norm(lengths, axis=0).max())
        self.co_visits: Tensor | None = None  # [n_items + 1, S]
        if co_visits is not None:
            size = co_visits.shape[1]
            self.co_visits = torch.zeros(tower.n_items + 1, size)
            self.co_visits[1 : 1 + len(co_visits)] = torch.from_numpy(co_visits[: tower.n_items])
            self.output_dim += size
        self.log_counts = torch.from_numpy(np.log1p(counts_by_index).astype(np.float32)) if profile else None

    @property
    def temperature(self) -> float:
        """By which an inner product is divided to give the score that the weights were fitted for; without the lengths
        of profiles.
        """
        unit_parts = 3 if self.co_visits is None else 4  # the tower's vector, the number 1, content, co-visits
        return 1.0 / (self._longest * unit_parts**0.5) if self.normalised else 1.0

    def items(self, items: Tensor) -> Tensor:
        """Item vectors [..., D + C + S + 2]."""
        score, popularity, *weights = self._parts.to(items.device)[:, items].unsqueeze(-1)
        compared = self._likenesses(items)
        likenesses = (vectors * weight for vectors, weight in zip(compared, weights, strict=False))
        profile = weights[len(compared) :]
        raw = torch.cat([self.tower.items(items) * score, *likenesses, popularity, *profile], dim=-1)
        return to_one_length(raw, self._longest) if self.normalised else F.pad(raw, (0, 1))

    def user(self, items: Tensor, times: Tensor | None = None) -> Tensor:
        """User vectors [B, L, D + C + S + 2] after each event; meaningless at padding."""
        sums = [self._until_each(vectors) for vectors in self._likenesses(items)]
        profile = None
        if self.log_counts is not None:
            logs = self.log_counts.to(items.device)[items].unsqueeze(2)
            weights = self._until_each(torch.ones_like(logs))
            numbers = torch.arange(1, items.shape[1] + 1, device=items.device)
            means = self._until_each(logs) / weights
            profile = torch.cat([means, numbers.log1p().expand_as(items).unsqueeze(2)], dim=2) / PROFILE_SCALE
        return blend(self.tower.user(items, times), sums, profile, unit=self.normalised)

    def _until_each(self, values: Tensor) -> Tensor:
        """The weighted sums [B, L, V] of the last ``reach`` of ``values`` [B, L, V] until each event."""
        total = values.clone()
        for age in range(1, min(self.reach, values.shape[1])):
            total[:, age:] += values[:, :-age] * self.decay**age
        return total

    def user_last(self, items: Tensor, lengths: Tensor, times: Tensor | None = None) -> Tensor:
        """User vectors [B, D + C + S + 2] after the last of ``lengths`` [B] events.

        Raises ValueError for lengths outside 1..L.
        """
        vectors = self.tower.user_last(items, lengths, times)
        weights = recency_weights(lengths, items.shape[1], self.reach, self.decay)
        recent = items * (weights > 0)  # no other content is read
        sums = [(of_events * weights.unsqueeze(2)).sum(dim=1) for of_events in self._likenesses(recent)]
        logs = None if self.log_counts is None else self.log_counts.to(items.device)[recent]
        profile = None if logs is None else profile_of(logs, weights, lengths)
        return blend(vectors, sums, profile, unit=self.normalised)

    def to_dict(self) -> Shape:
        """The inner tower's arguments; weights and counts are saved in a file of their own."""
        return self.tower.to_dict()

    def _likenesses(self, items: Tensor) -> list[Tensor]:
        """Unit content [..., C] of ``items`` [...], and co-visits [..., S] where they are blended; zeros at padding."""
        content = F.normalize(self.tower.content(items), dim=-1) * (items != 0).unsqueeze(-1)
        return [content] if self.co_visits is None else [content, self.co_visits.to(items.device)[items]]


def recency_weights(lengths: Tensor, length: int, reach: int, decay: float) -> Tensor:
    """The weights [B, length] of events in a mean: decay ^ (number of later events) for the last ``reach`` of each of
    ``lengths`` [B] events, else 0.
    """
    age = lengths.unsqueeze(1) - 1 - torch.arange(length, device=lengths.device)
    return torch.where((age >= 0) & (age < reach), decay ** age.clamp(min=0), 0.0)


def profile_of(log_counts: Tensor, weights: Tensor, lengths: Tensor) -> Tensor:
    """Users' p and m [B, 2], divided by PROFILE_SCALE, from the ``log_counts`` [B, L] of their items, the events'
    ``weights`` [B, L] and their ``lengths`` [B].
    """
    mean = (log_counts * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1e-6)
    return torch.stack([mean, lengths.float().log1p()], dim=1) / PROFILE_SCALE


def blend(vectors: Tensor, sums: Sequence[Tensor], profile: Tensor | None, *, unit: bool) -> Tensor:
    """Users' blended vectors [..., D + C + S + 2] from the tower's ``vectors`` [..., D], the ``sums`` [..., C] (and
    [..., S]) over their recent events of what is compared, and their ``profile`` [..., 2] (None: without); of length 1
    where ``unit``.
    """
    ones = vectors.new_ones((*vectors.shape[:-1], 1))
    more = [] if profile is None else [profile]
    blended = torch.cat([vectors, *(F.normalize(one, dim=-1) for one in sums), ones, *more, 0 * ones], dim=-1)
    return F.normalize(blended, dim=-1) if unit else blended


def by_index(counts: np.ndarray, n_items: int) -> np.ndarray:
    """``counts`` [<= n_items] of items as [n_items + 1] by item_index; 0 for padding and for newer items."""
    padded = np.zeros(n_items + 1, np.int64)
    padded[1 : 1 + len(counts)] = counts[:n_items]
    return padded


def temperature_of(vectors: Tower, temperature: float) -> float:
    """By which an inner product of ``vectors`` is divided to give a logit: ``temperature`` for a tower without
    blending.
    """
    return vectors.temperature if isinstance(vectors, BlendedTower) else temperature
