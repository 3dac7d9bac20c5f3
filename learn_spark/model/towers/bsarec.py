"""BSARec: a frequency filter beside self-attention over item IDs, the strongest published ID baseline on Beauty."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from learn_spark.model.manifest import Shape
from learn_spark.model.towers.checks import Similarity, check_heads, check_lengths, check_sizes
from learn_spark.model.towers.dropout import Dropout
from learn_spark.model.towers.id_based import IdTower, Positions
from learn_spark.model.towers.transformer import LAYER_NORM_EPS, CausalBlock, bert_initialise


class FrequencyFilter(nn.Module):
    """low(x) + beta^2 * (x - low(x)), with dropout, added to x and normalised (BSARec, section 4.1).

    low(x) keeps the ``frequencies`` lowest frequencies of the discrete Fourier transform of a window of ``length``
    positions; beta [width] is learnt. It is a product with a matrix of the distances between positions, so that a
    shorter row, padded with zeros, gives what the whole window would. The filter looks ahead: it is for rows that end
    with the event before the prediction.
    """

    low: Tensor

    def __init__(self, *, width: int, length: int, frequencies: int, dropout: float) -> None:
        super().__init__()
        kept = torch.fft.rfft(torch.eye(length), dim=0)
        kept[frequencies:] = 0
        self.register_buffer("low", torch.fft.irfft(kept, n=length, dim=0), persistent=False)
        self.beta = nn.Parameter(torch.randn(width))
        self.dropout = Dropout(dropout)
        self.norm = nn.LayerNorm(width, eps=LAYER_NORM_EPS)

    def forward(self, hidden: Tensor) -> Tensor:
        """Map ``hidden`` [B, L, width], with zeros at padding, to the same shape; L is at most ``length``."""
        row = hidden.shape[1]
        low = self.low[:row, :row].to(hidden.dtype) @ hidden
        return self.norm(hidden + self.dropout(low + self.beta.square() * (hidden - low)))


class BSARecBlock(CausalBlock):
    """``alpha`` times a FrequencyFilter plus 1 - ``alpha`` times causal self-attention, then a GELU feed-forward."""

    def __init__(
        self, *, width: int, heads: int, ffn: int, dropout: float, alpha: float, length: int, frequencies: int
    ) -> None:
        super().__init__(width=width, heads=heads, ffn=ffn, dropout=dropout)
        self.alpha = alpha
        self.filter = FrequencyFilter(width=width, length=length, frequencies=frequencies, dropout=dropout)

    def mix(self, hidden: Tensor, real: Tensor) -> Tensor:
        """Map ``hidden`` [B, L, width] to the same shape; ``real`` [B, L, 1] is True for events."""
        filtered = self.filter(hidden * real)
        return self.feed_forward(self.alpha * filtered + (1.0 - self.alpha) * self.attend(hidden))


class BSARec(IdTower):
    """BSARec (Shin et al., AAAI 2024, arXiv 2312.10325); input and output share the item embeddings.

    Positions count from the last event. Padding is zero in the filter; the authors' code filters the position
    embeddings of a left-padded window of fixed length, too. ``c``: the filter keeps the c // 2 + 1 lowest frequencies.
    Train it with objective.prefixes: ``user`` encodes every prefix by itself, because the filter looks ahead.

    Raises ValueError for contradictory arguments (see IdTower), a width that is no multiple of ``heads``, and an
    ``alpha`` outside 0..1.
    """

    method: ClassVar[str] = "bsarec"

    def __init__(
        self,
        *,
        n_items: int,
        max_length: int,
        width: int,
        layers: int,
        heads: int,
        ffn: int,
        dropout: float,
        alpha: float,
        c: int,
        similarity: Similarity = "dot",
        positions: Positions = "last",
    ) -> None:
        super().__init__(
            n_items=n_items,
            max_length=max_length,
            width=width,
            dropout=dropout,
            similarity=similarity,
            positions=positions,
            sizes={"layers": layers, "heads": heads, "ffn": ffn},
        )
        check_heads(width, heads)
        check_sizes({"c": c})
        if not 0.0 <= alpha <= 1.0:
            raise ValueError(f"alpha {alpha} must be in 0..1")
        self.alpha, self.c = alpha, c
        self.norm = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.blocks = nn.ModuleList(
            BSARecBlock(
                width=width,
                heads=heads,
                ffn=ffn,
                dropout=dropout,
                alpha=alpha,
                length=max_length,
                frequencies=c // 2 + 1,
            )
            for _ in range(layers)
        )
        bert_initialise(self)

    def user(self, items: Tensor, times: Tensor | None = None) -> Tensor:
        """User vectors [B, L, width] after each event of ``items`` [B, L]: the work of L rows for each row.

        Raises ValueError for another number of dimensions, and for more than ``max_length`` events in a row.
        """
        self._check_dimensions(items)
        batch, longest = items.shape
        self._check_length(longest)
        prefixes = items.unsqueeze(1) * torch.ones(longest, longest, dtype=items.dtype, device=items.device).tril()
        lengths = torch.arange(1, longest + 1, device=items.device).repeat(batch)
        # Rows end before their padding, so that a vector there is that of the whole row.
        lengths = torch.minimum(lengths, (items != 0).sum(dim=1).clamp(min=1).repeat_interleave(longest))
        return self.user_last(prefixes.flatten(0, 1), lengths).view(batch, longest, -1)

    def user_last(self, items: Tensor, lengths: Tensor, times: Tensor | None = None) -> Tensor:
        """User vectors [B, width] after the last of ``lengths`` [B] events. Raises ValueError for lengths outside
        1..L, and as ``user``.
        """
        batch, longest = items.shape
        check_lengths(lengths, batch, longest)
        longest = int(lengths.max()) if batch else 0
        items, place = items[:, :longest], torch.arange(longest, device=items.device)
        self._check_length(longest)
        real = place < lengths.unsqueeze(1)  # [B, L]
        position_ids = place.expand(batch, -1)
        if self.positions == "last":
            position_ids = (lengths.unsqueeze(1) - 1 - place).clamp(min=0)
        hidden = self.dropout(self.norm(self.embedding(items) + self.position(position_ids)))
        for block in self.blocks:
            assert isinstance(block, BSARecBlock)
            hidden = block.mix(hidden, real.unsqueeze(2))
        return self._normalise(hidden[torch.arange(batch, device=items.device), lengths.long() - 1])

    def to_dict(self) -> Shape:
        """The constructor's arguments."""
        return {**super().to_dict(), "alpha": self.alpha, "c": self.c}
