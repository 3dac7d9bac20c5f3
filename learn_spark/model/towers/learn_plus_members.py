"""Several LEARN+ towers in one: trained side by side, each by its own loss, their vectors concatenated."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from learn_spark.model.manifest import Shape
from learn_spark.model.towers.bound import BoundTower
from learn_spark.model.towers.checks import check_sizes
from learn_spark.model.towers.learn_plus import LearnPlus


class LearnPlusMembers(BoundTower):
    """An ensemble of ``members`` LEARN+ towers of the same arguments, initialised and dropped out independently.

    A vector is the members' vectors side by side, divided by the root of their number: members * width numbers, of
    length 1 where the members' are. So the inner product of a user and an item is the mean of the members'
    similarities, and the ensemble (Lakshminarayanan et al. 2017, section 2.4) is read by one inner product. Training
    takes members times as long.

    Raises ValueError for fewer than one member, and as LearnPlus.
    """

    method: ClassVar[str] = "learn-plus-members"

    def __init__(self, *, members: int, **arguments: Any) -> None:
        check_sizes({"members": members})
        super().__init__()
        self.members = nn.ModuleList(LearnPlus(**arguments) for _ in range(members))
        first = next(self.towers())
        self.n_items, self.content_dim = first.n_items, first.content_dim
        self.output_dim, self.needs_times = members * first.output_dim, first.needs_times
        self.normalised = first.normalised

    def towers(self) -> Iterator[LearnPlus]:
        """The members."""
        for member in self.members:
            assert isinstance(member, LearnPlus)
            yield member

    def bind(self, content: np.ndarray) -> None:
        """Use ``content`` [>= n_items + 1, content_dim] in every member. Raises ValueError for another shape."""
        known = self.n_items
        super().bind(content)
        for member in self.towers():
            member.n_items = known
            member.bind(content)

    def items(self, items: Tensor) -> Tensor:
        """Item vectors [..., members * width]."""
        return self._together([member.items(items) for member in self.towers()])

    def user(self, items: Tensor, times: Tensor | None = None) -> Tensor:
        """User vectors [B, L, members * width] after each event; zeros at padding.

        Raises ValueError as LearnPlus's.
        """
        return self._together([member.user(items, times) for member in self.towers()])

    def user_last(self, items: Tensor, lengths: Tensor, times: Tensor | None = None) -> Tensor:
        """User vectors [B, members * width] after the last of ``lengths`` [B] events. Raises ValueError as ``user``."""
        return self._together([member.user_last(items, lengths, times) for member in self.towers()])

    @property
    def id_tables(self) -> Sequence[nn.Embedding]:
        """The tables of all members."""
        return [table for member in self.towers() for table in member.id_tables]

    def compile_blocks(self) -> None:
        """Compile the blocks of every member."""
        for member in self.towers():
            member.compile_blocks()

    def to_dict(self) -> Shape:
        """The constructor's arguments."""
        return {"members": len(self.members), **next(self.towers()).to_dict()}

    def _together(self, vectors: list[Tensor]) -> Tensor:
        return torch.cat(vectors, dim=-1) / len(vectors) ** 0.5
