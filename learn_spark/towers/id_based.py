"""What the ID-based rivals share: an embedding an item, learnt positions, one similarity for both sides."""

from __future__ import annotations

from abc import abstractmethod
from typing import Literal, get_args

import torch.nn.functional as F
from torch import Tensor, nn

from learn_spark.towers.packing import Packing
from learn_spark.towers.tower import Tower

Similarity = Literal["dot", "cosine"]
EMBEDDING_STD = 0.02


class IdTower(Tower):
    """A tower that knows items by an embedding of their own, shared by its input and its output.

    Positions count from the first event of the window. Where rows are left-padded, as in RecTools, they count from the
    last: a vector then depends on how many events follow it, and the position at which every served query stands is
    trained by each row's last event alone. Counted from the first, a training position is the very query that serving
    asks for the same prefix.

    ``similarity`` "dot" compares vectors as they are, "cosine" L2-normalises both sides. Raises ValueError for sizes
    below 1, a dropout outside [0, 1) and an unknown similarity.
    """

    def __init__(self, *, n_items: int, max_length: int, width: int, dropout: float, similarity: Similarity) -> None:
        for name, size in {"n_items": n_items, "max_length": max_length, "width": width}.items():
            if size < 1:
                raise ValueError(f"{name} {size} must be at least 1")
        if not 0.0 <= dropout < 1.0:
            raise ValueError(f"dropout {dropout} must be in [0, 1)")
        if similarity not in get_args(Similarity):
            raise ValueError(f"similarity {similarity!r} must be one of {get_args(Similarity)}")
        super().__init__()
        self.n_items = n_items
        self.max_length = max_length
        self.output_dim = width
        self.similarity: Similarity = similarity
        self.normalised = similarity == "cosine"
        self.dropout = nn.Dropout(dropout)
        self.embedding = nn.Embedding(n_items + 1, width, padding_idx=0)
        self.position = nn.Embedding(max_length, width)
        nn.init.normal_(self.embedding.weight, std=EMBEDDING_STD)
        nn.init.zeros_(self.embedding.weight[0].detach())
        nn.init.normal_(self.position.weight, std=EMBEDDING_STD)

    @abstractmethod
    def _encode(self, packing: Packing, items: Tensor, times: Tensor | None) -> Tensor:
        """Vectors [G, C, width] of packed ``items`` and ``times`` [G, C], before the similarity's normalisation."""

    def user(self, items: Tensor, times: Tensor | None = None) -> Tensor:
        """User vectors [B, L, width] after each event of ``items`` [B, L]; no work is done on padding (see Packing).

        Raises ValueError for another number of dimensions, more than ``max_length`` events in a row, and, where the
        tower needs them, for times that are missing or of another shape.
        """
        if items.dim() != 2:
            raise ValueError(f"expected items [B, L], got {list(items.shape)}")
        if self.needs_times and times is None:
            raise ValueError(f"{self.method} needs the times of the events beside their items")
        if times is not None and times.shape != items.shape:
            raise ValueError(f"expected times {list(items.shape)} as the items, got {list(times.shape)}")
        packing = Packing.of(items != 0)
        if packing.longest > self.max_length:
            raise ValueError(
                f"a row has {packing.longest} events, but the tower knows {self.max_length} positions; "
                f"give it the last {self.max_length}"
            )
        encoded = self._encode(packing, packing.pack(items), packing.pack(times) if times is not None else None)
        return packing.unpack(self._compared(encoded))

    def items(self, items: Tensor) -> Tensor:
        """Item vectors [..., width] of ``items`` [...]; 0 for padding."""
        return self._compared(self.embedding(items))

    def _compared(self, vectors: Tensor) -> Tensor:
        return F.normalize(vectors, dim=-1) if self.similarity == "cosine" else vectors
