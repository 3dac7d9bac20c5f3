"""The interface of every tower: training, evaluation and release use nothing else."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from learn_spark.model.manifest import Shape
from learn_spark.model.towers.checks import check_lengths


class Tower(nn.Module, ABC):
    """User and item vectors in one space, compared by inner product.

    Items are given by item_index (int64; 0 is padding, 1..``n_items`` are items). Events are right-padded, oldest
    first. Vectors have length 1 where ``normalised``. ``times`` are microseconds since 1970 (int64), for towers with
    ``needs_times``; values at padding are ignored. No vector depends on padding, nor on an event after its own
    position.
    """

    method: ClassVar[str]
    needs_times: bool = False
    normalised: bool = True
    n_items: int
    output_dim: int

    @abstractmethod
    def user(self, items: Tensor, times: Tensor | None = None) -> Tensor:
        """User vectors [B, L, D], one after each event of ``items`` [B, L]; meaningless at padding."""

    @abstractmethod
    def items(self, items: Tensor) -> Tensor:
        """Item vectors [..., D] of ``items`` [...], each embedded alone; the catalogue is ranked by these."""

    def targets(self, items: Tensor) -> Tensor:
        """Item vectors [B, T, D] in training, of target sequences ``items`` [B, T]; by default each item alone."""
        return self.items(items)

    def user_last(self, items: Tensor, lengths: Tensor, times: Tensor | None = None) -> Tensor:
        """User vectors [B, D] after the last of ``lengths`` [B] events. Raises ValueError for lengths outside 1..L."""
        batch, longest = items.shape
        check_lengths(lengths, batch, longest)
        return self.user(items, times)[torch.arange(batch, device=items.device), lengths.long() - 1]

    @abstractmethod
    def to_dict(self) -> Shape:
        """The constructor's arguments as plain values that JSON can represent."""

    @property
    def id_tables(self) -> Sequence[nn.Embedding]:
        """The tables with a row for each item's ID, which grow with the catalogue; none where the tower has no IDs."""
        return ()

    def compile_blocks(self) -> None:
        """Compile the repeated blocks of every layer by torch.compile: one graph, for batches of any size.

        The code around the blocks stays eager: it consists of a few gathers whose shapes depend on the batch's values.
        """
        for stack in self.modules():
            if isinstance(stack, nn.ModuleList):
                for block in stack:
                    block.compile(dynamic=True)

    def parameter_count(self) -> int:
        """Number of trained parameters; buffers do not count."""
        return sum(parameter.numel() for parameter in self.parameters() if parameter.requires_grad)
