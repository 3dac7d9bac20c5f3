"""The base of ID-based towers: an embedding per item, learned positions, one similarity for both sides."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from learn_spark.model.manifest import Shape
from learn_spark.model.towers.checks import Similarity, check_shares, check_similarity, check_sizes
from learn_spark.model.towers.dropout import Dropout
from learn_spark.model.towers.packing import Packing
from learn_spark.model.towers.tower import Tower

Positions = Literal["first", "last"]
EMBEDDING_STD = 0.02


class IdTower(Tower):
    """A tower that embeds items by their ID; input and output share the embeddings.

    ``sizes`` are the subclass's own sizes, all at least 1. ``positions`` is the end from which learned positions count.
    With "last", 0 is the row's last event, as under the left padding of SASRec's authors and of RecTools. The newest
    event then always has the same position, but the vector at a training position depends on how many events follow it.
    With "first", 0 is the window's first event, and a training position is exactly the query that serving asks for that
    prefix.

    ``similarity`` "dot" compares vectors as they are; "cosine" L2-normalises both sides. Raises ValueError for sizes
    below 1, a dropout outside [0, 1), an unknown similarity and unknown ``positions``.
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
        all_sizes = {"n_items": n_items, "max_length": max_length, "width": width, **sizes}
        check_sizes(all_sizes)
        check_shares(dropout=dropout)
        check_similarity(similarity)
        if positions not in get_args(Positions):
            raise ValueError(f"positions {positions!r} must be one of {get_args(Positions)}")
        super().__init__()
        self.n_items = n_items
        self.max_length = max_length
        self.output_dim = width
        self.similarity: Similarity = similarity
        self.normalised = similarity == "cosine"
        self.positions: Positions = positions
        self._sizes = all_sizes
        self.dropout = Dropout(dropout)
        self.embedding = nn.Embedding(n_items + 1, width, padding_idx=0)
        self.position = nn.Embedding(max_length, width)
        nn.init.normal_(self.embedding.weight, std=EMBEDDING_STD)
        nn.init.zeros_(self.embedding.weight[0].detach())
        nn.init.normal_(self.position.weight, std=EMBEDDING_STD)

    def to_dict(self) -> Shape:
        """The constructor's arguments."""
        return {
            **self._sizes,
            "dropout": self.dropout.p,
            "similarity": self.similarity,
            "positions": self.positions,
        }

    def items(self, items: Tensor) -> Tensor:
        """Item vectors [..., width] of ``items`` [...]; zeros for padding."""
        return self._normalise(self.embedding(items))

    @property
    def id_tables(self) -> Sequence[nn.Embedding]:
        """The vectors of the items."""
        return (self.embedding,)

    @staticmethod
    def _check_dimensions(items: Tensor) -> None:
        """Raise ValueError unless ``items`` are [B, L]."""
        if items.dim() != 2:
            raise ValueError(f"expected items [B, L], got {list(items.shape)}")

    def _check_length(self, longest: int) -> None:
        """Raise ValueError for a row of more events than the tower has positions."""
        if longest > self.max_length:
            raise ValueError(
                f"a row has {longest} events, but the tower has {self.max_length} positions; "
                f"pass the last {self.max_length} events"
            )

    def _normalise(self, vectors: Tensor) -> Tensor:
        return F.normalize(vectors, dim=-1) if self.similarity == "cosine" else vectors


class CausalIdTower(IdTower):
    """An IdTower whose vector after an event is one position of one pass over the row, packed without padding."""

    @abstractmethod
    def _encode(self, packing: Packing, items: Tensor, position_ids: Tensor, times: Tensor | None) -> Tensor:
        """Vectors [G, C, width] of packed ``items`` and ``times`` [G, C], before the similarity's normalisation.

        ``position_ids`` [G, C] are rows of the table of learned positions.
        """

    def user(self, items: Tensor, times: Tensor | None = None) -> Tensor:
        """User vectors [B, L, width] after each event of ``items`` [B, L]. Padding costs no work (see Packing).

        Raises ValueError for another number of dimensions, for more than ``max_length`` events in a row, and, where the
        tower needs them, for times that are missing or of another shape.
        """
        self._check_dimensions(items)
        if self.needs_times and times is None:
            raise ValueError(f"{self.method} needs times [B, L] of the events; pass times")
        if times is not None and times.shape != items.shape:
            raise ValueError(f"expected times of the items' shape {list(items.shape)}, got {list(times.shape)}")
        real = items != 0
        packing = Packing.of(real)
        self._check_length(packing.longest)
        position_ids = packing.position
        if self.positions == "last":
            from_end = real.sum(dim=1, keepdim=True) - 1 - torch.arange(items.shape[1], device=items.device)  # [B, L]
            position_ids = packing.pack(from_end.clamp(min=0))
        packed_times = packing.pack(times) if times is not None else None
        encoded = self._encode(packing, packing.pack(items), position_ids, packed_times)
        return packing.unpack(self._normalise(encoded))
