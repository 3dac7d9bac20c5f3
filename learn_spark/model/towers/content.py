"""LEARN behind the interface of all towers: items are given by index."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from learn_spark.model.manifest import Shape
from learn_spark.model.towers.bound import BoundTower
from learn_spark.model.towers.checks import check_lengths
from learn_spark.model.towers.learn import LearnTower, TowerShape
from learn_spark.model.towers.packing import Packing


class ContentTower(BoundTower):
    """A LearnTower over bound content. ``arguments`` are those of TowerShape; it raises the same errors.

    Padding costs no work (see Packing).
    """

    method = "learn"

    def __init__(self, *, n_items: int, **arguments: Any) -> None:
        super().__init__()
        shape = TowerShape(**arguments)
        self.n_items, self.output_dim = n_items, shape.output_dim
        self.content_dim = shape.content_dim
        self.learn = LearnTower.of(shape)

    def user(self, items: Tensor, times: Tensor | None = None) -> Tensor:
        """User vectors [B, L, D], L2-normalised; zeros at padding."""
        packing = Packing.of(items != 0)
        return packing.unpack(self.learn.user(self.content(packing.pack(items)), packing))

    def user_last(self, items: Tensor, lengths: Tensor, times: Tensor | None = None) -> Tensor:
        """User vectors [B, D] after the last event. Raises ValueError for lengths outside 1..L."""
        batch, longest = items.shape
        check_lengths(lengths, batch, longest)
        packing = Packing.of(items != 0)
        hidden = packing.unpack(self.learn.hidden(self.content(packing.pack(items)), packing))
        return self.learn.project(hidden[torch.arange(batch, device=items.device), lengths.long() - 1])

    def items(self, items: Tensor) -> Tensor:
        """Item vectors [..., D], L2-normalised; each item is embedded alone."""
        vectors = self.learn.items(self.content(items.reshape(-1)))
        return vectors.view(*items.shape, self.output_dim)

    def targets(self, items: Tensor) -> Tensor:
        """Item vectors [B, T, D] in training, by the variant ``item_tower`` (a, b or c)."""
        packing = Packing.of(items != 0)
        return packing.unpack(self.learn.targets(self.content(packing.pack(items)), packing))

    def to_dict(self) -> Shape:
        """The constructor's arguments."""
        return {"n_items": self.n_items, **self.learn.shape.to_dict()}
