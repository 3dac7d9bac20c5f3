"""SASRec: causal self-attention over learned item embeddings, the usual baseline of sequential recommendation."""

from __future__ import annotations

from typing import ClassVar, Literal, get_args

import torch.nn.functional as F
from torch import Tensor, nn

from learn_spark.model.manifest import Shape
from learn_spark.model.towers.checks import Similarity, check_heads
from learn_spark.model.towers.dropout import Dropout, attend
from learn_spark.model.towers.id_based import CausalIdTower, Positions
from learn_spark.model.towers.packing import Packing

Activation = Literal["relu", "gelu"]


class SASRecBlock(nn.Module):
    """Attention from the normalised query to the raw sequence, then a feed-forward, as in the authors' code.

    q = LayerNorm(x); y = LayerNorm(q + Attention(q, x, x)); block(x) = y + FFN(y). The paper's text normalises keys and
    values too; the authors' code, and RecTools after it, only the query.
    """

    def __init__(self, *, width: int, heads: int, ffn: int, activation: Activation, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.query_norm = nn.LayerNorm(width)
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.attention_output = nn.Linear(width, width)
        self.ffn_norm = nn.LayerNorm(width)
        self.ffn_input = nn.Linear(width, ffn)
        self.ffn_output = nn.Linear(ffn, width)
        self.activation = F.relu if activation == "relu" else F.gelu
        self.dropout = Dropout(dropout)

    def forward(self, hidden: Tensor, packing: Packing) -> Tensor:
        """Map ``hidden`` [G, C, width] to [G, C, width]; an event depends only on events of its row up to itself."""
        head_dim = hidden.shape[2] // self.heads
        normed = self.query_norm(hidden)
        query = self.query(normed).unflatten(2, (self.heads, head_dim)).transpose(1, 2)  # [G, heads, C, head_dim]
        key_value = packing.spans(self.key_value(hidden)).unflatten(2, (2, self.heads, head_dim))  # [G, C or 2 C, ...]
        key, value = key_value.permute(2, 0, 3, 1, 4)
        attended = attend(
            query,
            key,
            value,
            mask=None if packing.dense else packing.visible.unsqueeze(1),
            p=self.dropout.p if self.training else 0.0,
            causal=packing.dense,
        )
        attended = self.attention_output(attended.transpose(1, 2).flatten(2))
        normed = self.ffn_norm(normed + attended)
        inner = self.dropout(self.activation(self.ffn_input(normed)))
        return normed + self.dropout(self.ffn_output(inner))


class SASRec(CausalIdTower):
    """SASRec (Kang & McAuley 2018, arXiv 1808.09781); input and output share the item embeddings.

    Items and positions are initialised as N(0, 0.02), matrices as Xavier normal, biases as 0. Dropout acts on the
    summed embeddings, the attention weights, the feed-forward's inner layer and its output. A LayerNorm follows the
    last block.

    Raises ValueError for contradictory arguments (see IdTower), a width that is no multiple of ``heads``, and an
    unknown activation.
    """

    method: ClassVar[str] = "sasrec"

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
        activation: Activation = "relu",
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
        if activation not in get_args(Activation):
            raise ValueError(f"activation {activation!r} must be one of {get_args(Activation)}")
        self.activation: Activation = activation
        self.blocks = nn.ModuleList(
            SASRecBlock(width=width, heads=heads, ffn=ffn, activation=activation, dropout=dropout)
            for _ in range(layers)
        )
        self.norm = nn.LayerNorm(width)
        for part in self.blocks.modules():
            if isinstance(part, nn.Linear):
                nn.init.xavier_normal_(part.weight)
                nn.init.zeros_(part.bias)

    def _encode(self, packing: Packing, items: Tensor, position_ids: Tensor, times: Tensor | None) -> Tensor:
        hidden = self.dropout(self.embedding(items) + self.position(position_ids))
        for block in self.blocks:
            hidden = block(hidden, packing)
        return self.norm(hidden)

    def to_dict(self) -> Shape:
        """The constructor's arguments."""
        return {**super().to_dict(), "activation": self.activation}
