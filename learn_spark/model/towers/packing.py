"""Histories of different lengths without work on their padding: all events in one stream, split into equal blocks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

DENSE = 0.5


@dataclass(frozen=True)
class Packing:
    """The blocks [G, C] of ``pack`` for a padded batch [B, L], and which keys each event may attend to.

    C is the length of the batch's longest row. A row of at most C events lies in one block or in two consecutive ones,
    so all keys of a query are among the 2 C of its block and the block before (``spans``). ``position`` [G, C] is each
    event's position in its row. ``visible`` [G, C, 2 C] is True for keys of the same row that are not ahead of the
    query. Where at least half of [B, C] are events, each row is a block of its own (``dense``), and ``visible`` is
    [C, C].
    """

    shape: tuple[int, int]
    index: Tensor
    events: int
    position: Tensor
    visible: Tensor
    dense: bool

    @classmethod
    def of(cls, real: Tensor) -> Packing:
        """The packing of a batch whose events are where ``real`` [B, L] is True: right-padded, without holes."""
        batch, length = real.shape
        flat = real.flatten().nonzero().squeeze(1)  # [T]
        events = len(flat)
        column = flat % max(length, 1)
        longest = int(column.max()) + 1 if events else 0
        if events >= DENSE * batch * longest:
            position = torch.arange(longest, device=real.device)
            index = torch.arange(batch, device=real.device).unsqueeze(1) * length + position  # [B, C]
            causal = position.unsqueeze(1) >= position
            return cls((batch, length), index.flatten(), batch * longest, position.expand(batch, -1), causal, True)
        blocks = -(-events // longest)
        spare = blocks * longest - events
        # Row numbers of no event: -1 for what fills the last block, -2 for what precedes the first.
        row = F.pad(flat // length, (0, spare), value=-1).view(blocks, longest)
        stream = torch.arange(blocks * longest, device=real.device).view(blocks, longest)
        visible = row.unsqueeze(2) == _with_block_before(row, -2).unsqueeze(1)
        visible &= stream.unsqueeze(2) >= _with_block_before(stream, 0).unsqueeze(1)
        position = F.pad(column, (0, spare)).view(blocks, longest)
        return cls((batch, length), F.pad(flat, (0, spare)), events, position, visible, False)

    @property
    def longest(self) -> int:
        """C, the number of events of the batch's longest row."""
        return self.position.shape[1]

    def distance(self) -> Tensor:
        """Distance in positions from each query back to each key: [1, C, C] where dense, else [G, C, 2 C].

        Keys ahead have 0; keys of another row an arbitrary number below C.
        """
        position = self.position[:1] if self.dense else self.position
        return (position.unsqueeze(2) - self.spans(position).unsqueeze(1)).clamp(min=0)

    def pack(self, values: Tensor) -> Tensor:
        """``values`` [B, L] as blocks [G, C]; the rest of the last block is arbitrary."""
        return values.flatten()[self.index].view(self.position.shape)

    def spans(self, values: Tensor) -> Tensor:
        """The keys of each block: [G, C, ...] to [G, 2 C, ...], or unchanged where dense."""
        return values if self.dense else _with_block_before(values, 0)

    def unpack(self, vectors: Tensor) -> Tensor:
        """Block ``vectors`` [G, C, D] as a padded batch [B, L, D]; zeros elsewhere."""
        batch, length = self.shape
        if self.dense:
            return F.pad(vectors, (0, 0, 0, length - self.longest))
        flat = vectors.flatten(0, 1)[: self.events]
        empty = vectors.new_zeros(batch * length, vectors.shape[2])
        return empty.index_copy(0, self.index[: self.events], flat).view(batch, length, -1)


def _with_block_before(values: Tensor, first: int) -> Tensor:
    """[G, C, ...] to [G, 2 C, ...]: each block after the block before it; ``first`` fills what precedes block 0."""
    before = torch.cat([torch.full_like(values[:1], first), values[:-1]])
    return torch.cat([before, values], dim=1)
