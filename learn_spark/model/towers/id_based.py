"""What the ID-based rivals share: an embedding an item, learnt positions, one similarity for both sides."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from learn_spark.model.manifest import Shape
from learn_spark.model.towers.checks import check_shares, check_sizes
from learn_spark.model.towers.packing import Packing
from learn_spark.model.towers.tower import Tower

Similarity = Literal["dot", "cosine"]
Positions = Literal["first", "last"]
EMBEDDING_STD = 0.02


class IdTower(Tower):
    """A tower that knows items by an embedding of their own, shared by its input and its output. ``sizes`` are those
    that a kind of tower has besides.

    ``positions`` says from where the learnt positions count. "last": 0 is the row's last event, as with the left
    padding of SASRec's authors and of RecTools. What was bought last is then always found at the same place, but a
    training position's vector depends on how many events follow it. "first": 0 is the window's first event, and a
    training position is the very query that serving asks for the same prefix.

    ``similarity`` "dot" compares vectors as they are, "cosine" L2-normalises both sides. Raises ValueError for sizes
    below 1, a dropout outside [0, 1), an unknown similarity or way to count.
    """

    def __init__(
        self,
        *,
        n_items: int,
        max_length: int,
        width: int,
        dropout: float,
        similarity: Similarity,
        positions: Positions,
        sizes: Mapping[str, int],
    ) -> None:
        counted = {"n_items": n_items, "max_length": max_length, "width": width, **sizes}
        check_sizes(counted)
        check_shares(dropout=dropout)
        if similarity not in get_args(Similarity):
            raise ValueError(f"similarity {similarity!r} must be one of {get_args(Similarity)}")
        if positions not in get_args(Positions):
            raise ValueError(f"positions {positions!r} must be one of {get_args(Positions)}")
        super().__init__()
        self.n_items = n_items
        self.max_length = max_length
        self.output_dim = width
        self.similarity: Similarity = similarity
        self.normalised = similarity == "cosine"
        self.positions: Positions = positions
        self._sizes = counted
        self.dropout = nn.Dropout(dropout)
        self.embedding = nn.Embedding(n_items + 1, width, padding_idx=0)
        self.position = nn.Embedding(max_length, width)
        nn.init.normal_(self.embedding.weight, std=EMBEDDING_STD)
        nn.init.zeros_(self.embedding.weight[0].detach())
        nn.init.normal_(self.position.weight, std=EMBEDDING_STD)

    @abstractmethod
    def _encode(self, packing: Packing, items: Tensor, places: Tensor, times: Tensor | None) -> Tensor:
        """Vectors [G, C, width] of packed ``items`` and ``times`` [G, C], whose learnt positions are those of
        ``places`` [G, C], before the similarity's normalisation.
        """

    def to_dict(self) -> Shape:
        """The constructor's arguments."""
        own = {"dropout": self.dropout.p, "similarity": self.similarity, "positions": self.positions}
        return {**self._sizes, **own}

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
        real = items != 0
        packing = Packing.of(real)
        if packing.longest > self.max_length:
            raise ValueError(
                f"a row has {packing.longest} events, but the tower knows {self.max_length} positions; "
                f"give it the last {self.max_length}"
            )
        places = packing.position
        if self.positions == "last":
            after = real.sum(dim=1, keepdim=True) - 1 - torch.arange(items.shape[1], device=items.device)  # [B, L]
            places = packing.pack(after.clamp(min=0))
        packed_times = packing.pack(times) if times is not None else None
        encoded = self._encode(packing, packing.pack(items), places, packed_times)
        return packing.unpack(self._compared(encoded))

    def items(self, items: Tensor) -> Tensor:
        """Item vectors [..., width] of ``items`` [...]; 0 for padding."""
        return self._compared(self.embedding(items))

    def _compared(self, vectors: Tensor) -> Tensor:
        return F.normalize(vectors, dim=-1) if self.similarity == "cosine" else vectors
