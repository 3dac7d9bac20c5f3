"""HSTU: pointwise attention without a softmax, biased by relative position and relative time."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from learn_spark.model.towers.checks import Similarity
from learn_spark.model.towers.dropout import Dropout
from learn_spark.model.towers.id_based import CausalIdTower, Positions
from learn_spark.model.towers.packing import Packing

TIME_BUCKETS = 128
BUCKET_WIDTH = 0.301
MICROSECONDS = 1_000_000
INIT_STD = 0.02
NORM_EPS = 1e-6


def time_buckets(times: Tensor, keys: Tensor) -> Tensor:
    """Buckets [G, C, K] int64 of the time between queries ``times`` [G, C] and ``keys`` [G, K], both in microseconds.

    A bucket is min(128, floor(ln(max(1, seconds)) / 0.301)) with whole seconds. Source: Meta's public code. Its natural
    logarithm over 0.301 makes each bucket 1.35 times as long as the one before, not twice.

    The query's time is that of event i itself. Meta's code takes the time of event i + 1, the target. That time is
    known at a request, but not when a user vector is computed ahead, and it leaks how soon the next event came.
    """
    seconds = (times.unsqueeze(2) - keys.unsqueeze(1)).abs() // MICROSECONDS
    return (seconds.clamp(min=1).log() / BUCKET_WIDTH).long().clamp(max=TIME_BUCKETS)


class HSTUBlock(nn.Module):
    """One layer: x + W_o(U * LayerNorm(A V)), with A = SiLU(Q K' + bias) / N below the diagonal and no softmax.

    U, V, Q and K come from one matrix without bias, through SiLU, on LayerNorm(x). Neither norm has weights. The bias
    is a number per distance in positions plus a number per time bucket, shared by all heads. N is the tower's
    ``max_length``, a constant; in Meta's public code it is the padded length. So the sum grows with the number of
    events, and no vector depends on the batch's padding.
    """

    def __init__(self, *, width: int, heads: int, dqk: int, dv: int, max_length: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dqk, self.dv, self.max_length = heads, dqk, dv, max_length
        self.uvqk = nn.Linear(width, 2 * heads * (dv + dqk), bias=False)
        self.output = nn.Linear(heads * dv, width)
        # A query sees only keys at its own position and before: distances 0..max_length - 1.
        self.position_bias = nn.Parameter(torch.empty(max_length))
        self.time_bias = nn.Parameter(torch.empty(TIME_BUCKETS + 1))
        self.dropout = Dropout(dropout)
        for weight in (self.uvqk.weight, self.position_bias, self.time_bias):
            nn.init.normal_(weight, std=INIT_STD)
        nn.init.xavier_uniform_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def forward(self, hidden: Tensor, packing: Packing, distance: Tensor, buckets: Tensor) -> Tensor:
        """Map ``hidden`` [G, C, width] to [G, C, width].

        ``distance`` [.., C, K] and ``buckets`` [G, C, K] are those from each query to its K keys.
        """
        sizes = [self.heads * self.dv, self.heads * self.dqk, self.heads * (self.dv + self.dqk)]
        projected = F.silu(self.uvqk(F.layer_norm(hidden, hidden.shape[2:], eps=NORM_EPS)))
        gate, query, value_key = projected.split(sizes, dim=-1)
        query = query.unflatten(2, (self.heads, self.dqk)).transpose(1, 2)  # [G, heads, C, dqk]
        spans = packing.spans(value_key).unflatten(2, (self.heads, self.dv + self.dqk))
        value, key = spans.transpose(1, 2).split([self.dv, self.dqk], dim=-1)  # [G, heads, K, dv], [G, heads, K, dqk]
        position_bias = self.position_bias.index_select(0, distance.flatten()).view(distance.shape)  # [.., C, K]
        time_bias = self.time_bias.index_select(0, buckets.flatten()).view(buckets.shape)  # [G, C, K]
        weights = F.silu(query @ key.transpose(2, 3) + (position_bias + time_bias).unsqueeze(1))  # [G, heads, C, K]
        attended = weights.masked_fill(~packing.visible.unsqueeze(-3), 0.0) @ value / self.max_length
        attended = attended.transpose(1, 2).flatten(2)  # [G, C, heads * dv]
        attended = F.layer_norm(attended, attended.shape[2:], eps=NORM_EPS)
        return hidden + self.output(self.dropout(gate * attended))


class HSTU(CausalIdTower):
    """HSTU (Zhai et al. 2024, arXiv 2402.17152) in the usual setting of one item per event.

    As in Meta's public code for that setting, item embeddings are multiplied by sqrt(width) and learned positions are
    added; dropout acts there and before each output matrix. With similarity "cosine" (Meta's choice) only the L2 norm
    follows the last layer; with "dot" a LayerNorm, as in RecTools. Two things differ from Meta's code: the query's time
    (see ``time_buckets``), and half as many position biases, because the other half lies ahead of the query.

    The tower needs times. A constant added to all of them changes nothing.

    Raises ValueError for contradictory arguments (see IdTower).
    """

    method: ClassVar[str] = "hstu"
    needs_times = True

    def __init__(
        self,
        *,
        n_items: int,
        max_length: int,
        width: int,
        layers: int,
        heads: int,
        dqk: int,
        dv: int,
        dropout: float,
        similarity: Similarity = "cosine",
        positions: Positions = "first",
    ) -> None:
        super().__init__(
            n_items=n_items,
            max_length=max_length,
            width=width,
            dropout=dropout,
            similarity=similarity,
            positions=positions,
            sizes={"layers": layers, "heads": heads, "dqk": dqk, "dv": dv},
        )
        nn.init.normal_(self.position.weight, std=1.0 / math.sqrt(width))
        self.scale = math.sqrt(width)
        self.blocks = nn.ModuleList(
            HSTUBlock(width=width, heads=heads, dqk=dqk, dv=dv, max_length=max_length, dropout=dropout)
            for _ in range(layers)
        )
        self.norm = nn.LayerNorm(width) if similarity == "dot" else nn.Identity()

    def _encode(self, packing: Packing, items: Tensor, position_ids: Tensor, times: Tensor | None) -> Tensor:
        assert times is not None
        distance = packing.distance()
        buckets = time_buckets(times, packing.spans(times))
        hidden = self.dropout(self.embedding(items) * self.scale + self.position(position_ids))
        for block in self.blocks:
            hidden = block(hidden, packing, distance, buckets)
        return self.norm(hidden)
