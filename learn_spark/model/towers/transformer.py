"""The causal transformer of LEARN: BERT blocks trained from scratch; order comes from the causal mask alone."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from learn_spark.model.towers.checks import check_arguments
from learn_spark.model.towers.dropout import Dropout, attend
from learn_spark.model.towers.packing import Packing

INIT_STD = 0.02
LAYER_NORM_EPS = 1e-12


def bert_initialise(module: nn.Module) -> None:
    """Initialise every linear layer and LayerNorm inside ``module`` as BERT does: N(0, 0.02), zero bias, unit scale."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.normal_(part.weight, std=INIT_STD)
            nn.init.zeros_(part.bias)
        elif isinstance(part, nn.LayerNorm):
            nn.init.ones_(part.weight)
            nn.init.zeros_(part.bias)


class CausalBlock(nn.Module):
    """One post-LayerNorm block: causal self-attention, then a GELU feed-forward, each added to its input."""

    def __init__(self, *, width: int, heads: int, ffn: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.attention_output = nn.Linear(width, width)
        self.attention_norm = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.ffn_input = nn.Linear(width, ffn)
        self.ffn_output = nn.Linear(ffn, width)
        self.ffn_norm = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.dropout = Dropout(dropout)

    def forward(self, hidden: Tensor, packing: Packing | None = None) -> Tensor:
        """Map ``hidden`` [B, L, width] to [B, L, width], or the blocks [G, C, width] of ``packing`` to the same."""
        return self.feed_forward(self.attend(hidden, packing))

    def attend(self, hidden: Tensor, packing: Packing | None = None) -> Tensor:
        """The block's first half: attention, added to its input and normalised; shapes as in ``forward``."""
        width = hidden.shape[2]
        query, key_value = self.qkv(hidden).split([width, 2 * width], dim=2)
        query = query.unflatten(2, (self.heads, -1)).transpose(1, 2)  # [B, heads, L, width / heads]
        key_value = key_value if packing is None else packing.spans(key_value)
        key, value = key_value.unflatten(2, (2, self.heads, width // self.heads)).permute(2, 0, 3, 1, 4)
        dense = packing is None or packing.dense
        attended = attend(
            query,
            key,
            value,
            mask=None if packing is None or dense else packing.visible.unsqueeze(1),
            p=self.dropout.p if self.training else 0.0,
            causal=dense,
        )
        attended = attended.transpose(1, 2).flatten(2)  # [B, L, width]
        return self.attention_norm(hidden + self.dropout(self.attention_output(attended)))

    def feed_forward(self, hidden: Tensor) -> Tensor:
        """The block's second half: the feed-forward, added to its input and normalised."""
        return self.ffn_norm(hidden + self.dropout(self.ffn_output(F.gelu(self.ffn_input(hidden)))))


class CausalTransformer(nn.Module):
    """A stack of BERT blocks with a causal mask (LEARN, section 3, preference module; sizes as BERT-base).

    There are no position embeddings and no LayerNorm on the input, as in the released code. Sequences are right-padded
    and need no key mask: padding comes after every event, so the causal mask alone keeps it from reaching one. Outputs
    at padding positions are meaningless.

    Raises ValueError for sizes below 1, a width that is no multiple of ``heads``, or a dropout outside [0, 1).
    """

    def __init__(self, *, width: int, layers: int, heads: int, ffn: int, dropout: float) -> None:
        check_arguments({"width": width, "layers": layers, "heads": heads, "ffn": ffn}, dropout=dropout)
        super().__init__()
        self.width = width
        self.blocks = nn.ModuleList(
            CausalBlock(width=width, heads=heads, ffn=ffn, dropout=dropout) for _ in range(layers)
        )
        bert_initialise(self)

    def forward(self, hidden: Tensor, packing: Packing | None = None) -> Tensor:
        """Map ``hidden`` [B, L, width] to [B, L, width]; position l depends on positions 0..l only.

        With ``packing``, ``hidden`` are its blocks [G, C, width], and an event depends on events of its row up to it.
        Raises ValueError for any other shape.
        """
        if hidden.dim() != 3 or hidden.shape[2] != self.width:
            raise ValueError(f"expected [B, L, {self.width}], got {list(hidden.shape)}")
        for block in self.blocks:
            hidden = block(hidden, packing)
        return hidden
