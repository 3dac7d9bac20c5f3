"""LEARN behind the interface of all towers: items by index, their content gathered from the frozen embeddings."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from learn_spark.towers.learn import ItemTower, LearnTower, TowerShape
from learn_spark.towers.tower import Tower


class ContentTower(Tower):
    """A LearnTower over a matrix of content embeddings [n_items + 1, C], which ``bind`` gives it and nobody saves.

    Content is gathered on the CPU, row by row as it is asked for, so that the matrix may be a memory-mapped file
    larger than memory, fp16 or fp32. Arguments and errors are those of TowerShape; RuntimeError where nothing is bound.
    """

    method = "learn"

    def __init__(
        self,
        *,
        n_items: int,
        content_dim: int,
        width: int,
        layers: int,
        heads: int,
        ffn: int,
        output_dim: int,
        dropout: float,
        item_tower: ItemTower,
    ) -> None:
        super().__init__()
        self.n_items, self.output_dim = n_items, output_dim
        shape = TowerShape(
            content_dim=content_dim,
            width=width,
            layers=layers,
            heads=heads,
            ffn=ffn,
            output_dim=output_dim,
            dropout=dropout,
            item_tower=item_tower,
        )
        self.learn = LearnTower.of(shape)
        self._content: np.ndarray | None = None

    def bind(self, content: np.ndarray) -> None:
        """Use ``content`` [>= n_items + 1, content_dim]: its rows are the catalogue from now on, newer items included.

        Raises ValueError for another shape.
        """
        wanted = self.learn.shape.content_dim
        if content.ndim != 2 or content.shape[1] != wanted or len(content) <= self.n_items:
            raise ValueError(
                f"expected content [{self.n_items + 1} or more, {wanted}], got {list(content.shape)}; is it of the "
                "encoder that the model was trained on?"
            )
        self._content = content
        self.n_items = len(content) - 1

    def content(self, items: Tensor) -> Tensor:
        """Raw content [..., C] float32 of ``items`` [...], on their device."""
        if self._content is None:
            raise RuntimeError("the tower has no content: call bind with the item matrix first")
        rows = self._content[items.cpu().numpy()]
        return torch.from_numpy(rows.astype(np.float32, copy=False)).to(items.device)

    def user(self, items: Tensor, times: Tensor | None = None) -> Tensor:
        """User vectors [B, L, D], L2-normalised."""
        return self.learn.user(self.content(items))

    def user_last(self, items: Tensor, lengths: Tensor, times: Tensor | None = None) -> Tensor:
        """User vectors [B, D] after the last event; ValueError for lengths outside 1..L."""
        return self.learn.user_last(self.content(items), lengths)

    def items(self, items: Tensor) -> Tensor:
        """Item vectors [..., D], L2-normalised, each item alone."""
        vectors = self.learn.items(self.content(items.reshape(-1)))
        return vectors.view(*items.shape, self.output_dim)

    def targets(self, items: Tensor) -> Tensor:
        """Item vectors [B, T, D] in training, as the item tower (a, b, c) has it."""
        return self.learn.targets(self.content(items))

    def to_dict(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"n_items": self.n_items, **self.learn.shape.to_dict()}
