"""Histories of unlike lengths without work on their padding: all events in one stream, cut into equal blocks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

DENSE = 0.5


@dataclass(frozen=True)
class Packing:
    """Where the events of a padded batch [B, L] stand in blocks [G, C] of ``pack``, and what each may look at.

    C is the batch's longest row. A row of at most C events lies in one block or in two that follow each other, so a
    query finds all its keys among the 2 C of its own block and the one before (``spans``). ``position`` [G, C] is
    each event's place in its row; ``visible`` [G, C, 2 C] is True for keys of the same row that are not ahead. Where
    at least half of [B, C] is real, rows are blocks as they are and the spans their own: ``visible`` is [C, C].
    """

    shape: tuple[int, int]
    index: Tensor
    events: int
    position: Tensor
    visible: Tensor
    dense: bool

    @classmethod
    def of(cls, real: Tensor) -> Packing:
        """The packing of a batch whose events are where ``real`` [B, L] is True, from the left, without holes."""
        batch, length = real.shape
        flat = real.flatten().nonzero().squeeze(1)  # [T]
        events = len(flat)
        column = flat % max(length, 1)
        longest = int(column.max()) + 1 if events else 0
        if events >= DENSE * batch * longest:
            place = torch.arange(longest, device=real.device)
            index = torch.arange(batch, device=real.device).unsqueeze(1) * length + place  # [B, C]
            causal = place.unsqueeze(1) >= place
            return cls((batch, length), index.flatten(), batch * longest, place.expand(batch, -1), causal, True)
        blocks = -(-events // longest)
        spare = blocks * longest - events
        # What fills the last block is a row of its own, -1, and what stands before the first is another, -2.
        row = F.pad(flat // length, (0, spare), value=-1).view(blocks, longest)
        stream = torch.arange(blocks * longest, device=real.device).view(blocks, longest)
        visible = row.unsqueeze(2) == _with_block_before(row, -2).unsqueeze(1)
        visible &= stream.unsqueeze(2) >= _with_block_before(stream, 0).unsqueeze(1)
        position = F.pad(column, (0, spare)).view(blocks, longest)
        return cls((batch, length), F.pad(flat, (0, spare)), events, position, visible, False)

    @property
    def longest(self) -> int:
        """C, the events of the batch's longest row."""
        return self.position.shape[1]

    def distance(self) -> Tensor:
        """How many places each key is behind each query, [1, C, C] where rows are blocks, else [G, C, 2 C]; 0 for keys
        ahead, arbitrary below C for those of another row.
        """
        place = self.position[:1] if self.dense else self.position
        return (place.unsqueeze(2) - self.spans(place).unsqueeze(1)).clamp(min=0)

    def pack(self, values: Tensor) -> Tensor:
        """``values`` [B, L] as blocks [G, C]; what fills the last block is arbitrary."""
        return values.flatten()[self.index].view(self.position.shape)

    def spans(self, values: Tensor) -> Tensor:
        """The keys of each block, [G, C, ...] to [G, 2 C, ...], or to itself where rows are blocks."""
        return values if self.dense else _with_block_before(values, 0)

    def unpack(self, vectors: Tensor) -> Tensor:
        """``vectors`` [G, C, D] back in their places [B, L, D]; 0 elsewhere."""
        batch, length = self.shape
        if self.dense:
            return F.pad(vectors, (0, 0, 0, length - self.longest))
        flat = vectors.flatten(0, 1)[: self.events]
        empty = vectors.new_zeros(batch * length, vectors.shape[2])
        return empty.index_copy(0, self.index[: self.events], flat).view(batch, length, -1)


def _with_block_before(values: Tensor, first: int) -> Tensor:
    """[G, C, ...] to [G, 2 C, ...]: each block behind the one before it; ``first`` before the first."""
    before = torch.cat([torch.full_like(values[:1], first), values[:-1]])
    return torch.cat([before, values], dim=1)
