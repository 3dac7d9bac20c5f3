"""A tower over content: items are given by index, their frozen embeddings are gathered from a matrix."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from learn_spark.model.towers.tower import Tower


class BoundTower(Tower):
    """A tower over a matrix of content embeddings [n_items + 1, ``content_dim``], given by ``bind`` and not saved.

    Rows are gathered on the CPU one batch at a time, so that the matrix may be a memory-mapped file larger than memory,
    in fp16 or fp32. Reading content before ``bind`` raises RuntimeError.
    """

    content_dim: int

    def __init__(self) -> None:
        super().__init__()
        self._content: np.ndarray | None = None

    def bind(self, content: np.ndarray) -> None:
        """Use ``content`` [>= n_items + 1, content_dim]; its rows become the catalogue, newer items included.

        Raises ValueError for another shape.
        """
        if content.ndim != 2 or content.shape[1] != self.content_dim or len(content) <= self.n_items:
            raise ValueError(
                f"expected content [{self.n_items + 1} or more, {self.content_dim}], got {list(content.shape)}; bind "
                "the item matrix of the encoder that the model was trained on"
            )
        self._content = content
        self.n_items = len(content) - 1

    @property
    def bound(self) -> np.ndarray:
        """The matrix given to ``bind``; row 0 is padding. Raises RuntimeError before ``bind``."""
        if self._content is None:
            raise RuntimeError("the tower has no content: call bind with the item matrix first")
        return self._content

    def content(self, items: Tensor) -> Tensor:
        """Content [..., C] float32 of ``items`` [...], on their device."""
        rows = self.bound[items.cpu().numpy()]
        return torch.from_numpy(rows.astype(np.float32, copy=False)).to(items.device)
