"""Two linear maps that make a tower's vectors narrower, and the tower that applies them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from learn_spark.model.manifest import Shape
from learn_spark.model.towers.tower import Tower
from learn_spark.model.towers.vectors import to_one_length


@dataclass(frozen=True)
class Projections:
    """Wide vectors of D numbers to K: a user u to u @ ``users`` [D, K], an item v to (v - ``centre`` [D]) @ ``items``
    [D, K], all float32. ``longest`` is the length of the longest narrow item of the catalogue.

    Subtracting ``centre`` changes a user's scores by the same number for every item, and so changes no order. Where
    ``unit``, one more number gives all items one length, which changes no order (Bachrach et al. 2014, section 3.1),
    and all vectors are scaled to length 1; items that are newer than the projections and longer than ``longest`` are
    scaled alone. Scores compare the items of a user, not users.
    """

    users: np.ndarray
    items: np.ndarray
    centre: np.ndarray
    longest: float
    unit: bool

    @property
    def wide(self) -> int:
        """D, numbers of a vector before."""
        return len(self.users)

    @property
    def width(self) -> int:
        """Numbers of a vector after."""
        return self.users.shape[1] + self.unit

    @staticmethod
    def tensors(projections: Sequence[Projections]) -> dict[str, Tensor]:
        """The content of narrowing.safetensors: P projections of equal shapes."""
        return {
            "users": torch.from_numpy(np.stack([one.users for one in projections])),
            "items": torch.from_numpy(np.stack([one.items for one in projections])),
            "centre": torch.from_numpy(np.stack([one.centre for one in projections])),
            "longest": torch.tensor([one.longest for one in projections], dtype=torch.float64),
            "unit": torch.tensor([one.unit for one in projections]),
        }

    @staticmethod
    def of_tensors(tensors: Mapping[str, Tensor]) -> list[Projections]:
        """What ``tensors`` was made of."""
        arrays = (tensors[name].numpy() for name in ("users", "items", "centre"))
        parts = zip(*arrays, tensors["longest"].tolist(), tensors["unit"].tolist(), strict=True)
        return [Projections(*one) for one in parts]


class NarrowedTower(Tower):
    """``tower`` with vectors of ``projections.width`` numbers.

    Raises ValueError where the projections are not those of the tower's vectors.
    """

    def __init__(self, tower: Tower, projections: Projections) -> None:
        super().__init__()
        if (projections.wide, projections.unit) != (tower.output_dim, tower.normalised):
            raise ValueError(f"projections of {projections.wide} numbers do not fit vectors of {tower.output_dim}")
        self.tower, self.needs_times, self.normalised = tower, tower.needs_times, tower.normalised
        self.method = tower.method  # type: ignore[misc]
        self.n_items = tower.n_items
        self.output_dim = projections.width
        self.of_users, self.of_items = torch.from_numpy(projections.users), torch.from_numpy(projections.items)
        self.centre, self.longest = torch.from_numpy(projections.centre), projections.longest

    def items(self, items: Tensor) -> Tensor:
        """Item vectors [..., output_dim]."""
        narrow = (self.tower.items(items) - self.centre.to(items.device)) @ self.of_items.to(items.device)
        return to_one_length(narrow, self.longest) if self.normalised else narrow

    def user(self, items: Tensor, times: Tensor | None = None) -> Tensor:
        """User vectors [B, L, output_dim] after each event; meaningless at padding."""
        return self._narrow(self.tower.user(items, times))

    def user_last(self, items: Tensor, lengths: Tensor, times: Tensor | None = None) -> Tensor:
        """The same [B, output_dim] after the last of ``lengths`` [B] events. Raises ValueError for lengths outside
        1..L.
        """
        return self._narrow(self.tower.user_last(items, lengths, times))

    def _narrow(self, users: Tensor) -> Tensor:
        return narrow_users(users, self.of_users.to(users.device), unit=self.normalised)

    def to_dict(self) -> Shape:
        """The inner tower's arguments; projections are saved in a file of their own."""
        return self.tower.to_dict()


def narrow_users(users: Tensor, of_users: Tensor, *, unit: bool) -> Tensor:
    """``users`` [..., D] by ``of_users`` [D, K]: [..., K], or, where ``unit``, [..., K + 1] of length 1."""
    narrow = users @ of_users
    return F.normalize(F.pad(narrow, (0, 1)), dim=-1) if unit else narrow
