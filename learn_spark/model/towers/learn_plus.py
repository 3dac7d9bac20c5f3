"""LEARN+: content and ID of an item in one vector, a pre-norm transformer over them, one space for both sides."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from learn_spark.model.manifest import Shape
from learn_spark.model.towers.bound import BoundTower
from learn_spark.model.towers.checks import Similarity, check_arguments, check_lengths, check_similarity
from learn_spark.model.towers.dropout import Dropout, attend
from learn_spark.model.towers.packing import Packing
from learn_spark.model.towers.time_gaps import GAPS, gap_buckets
from learn_spark.model.towers.transformer import bert_initialise

Norm = Literal["pre", "post"]
INIT_STD = 0.02


class PlusBlock(nn.Module):
    """norm pre: x + Attention(LayerNorm(x)), then + FFN(LayerNorm(x)); post: LayerNorm(x + Attention(x)), then
    LayerNorm(x + FFN(x)), as in BERT.

    Attention scores have a learned bias per head and distance (Shaw et al. 2018; T5's form, without its buckets), so
    that the tower needs no position embeddings.
    """

    def __init__(self, *, width: int, heads: int, ffn: int, max_length: int, dropout: float, norm: Norm) -> None:
        super().__init__()
        self.heads, self.post = heads, norm == "post"
        self.attention_norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.attention_output = nn.Linear(width, width)
        self.distance_bias = nn.Parameter(torch.zeros(heads, max_length))
        self.ffn_norm = nn.LayerNorm(width)
        self.ffn_input = nn.Linear(width, ffn)
        self.ffn_output = nn.Linear(ffn, width)
        self.dropout = Dropout(dropout)

    def forward(self, hidden: Tensor, packing: Packing, distance: Tensor) -> Tensor:
        """Map ``hidden`` [G, C, width] to [G, C, width]; ``distance`` [.., C, K] is that to each event's K keys."""
        width = hidden.shape[2]
        query, key_value = self.qkv(self._before(self.attention_norm, hidden)).split([width, 2 * width], dim=2)
        return self._finish(hidden, query, packing.spans(key_value), distance, packing.visible)

    def last(self, hidden: Tensor, packing: Packing, lengths: Tensor) -> Tensor:
        """What ``forward`` gives after the last of ``lengths`` [B] events of each row: [B, width].

        Only keys and values are computed for all events.
        """
        width, device = hidden.shape[2], lengths.device
        (query_weight, weight), (query_bias, bias) = (p.split([width, 2 * width]) for p in self.qkv.parameters())
        key_value = packing.unpack(F.linear(self._before(self.attention_norm, hidden), weight, bias))
        last = packing.unpack(hidden)[torch.arange(len(lengths), device=device), lengths.long() - 1].unsqueeze(1)
        query = F.linear(self._before(self.attention_norm, last), query_weight, query_bias)
        age = (lengths.unsqueeze(1) - 1 - torch.arange(packing.longest, device=device)).unsqueeze(1)  # [B, 1, C]
        return self._finish(last, query, key_value[:, : packing.longest], age.clamp(min=0), age >= 0).squeeze(1)

    def _finish(self, hidden: Tensor, query: Tensor, key_value: Tensor, distance: Tensor, visible: Tensor) -> Tensor:
        """The block's result for ``hidden`` [G, Q, width], whose ``query`` [G, Q, width] attends to K keys.

        ``key_value`` [G, K, 2 width]; ``distance`` and ``visible`` [.., Q, K].
        """
        head_dim = hidden.shape[2] // self.heads
        query = query.unflatten(2, (self.heads, head_dim)).transpose(1, 2)  # [G, heads, Q, head_dim]
        key, value = key_value.unflatten(2, (2, self.heads, head_dim)).permute(2, 0, 3, 1, 4)
        bias = self.distance_bias[:, distance].movedim(0, -3)  # [.., heads, Q, K]
        attended = attend(
            query,
            key,
            value,
            mask=bias.masked_fill(~visible.unsqueeze(-3), float("-inf")).expand(len(hidden), -1, -1, -1),
            p=self.dropout.p if self.training else 0.0,
        )
        hidden = hidden + self.dropout(self.attention_output(attended.transpose(1, 2).flatten(2)))
        hidden = self._after(self.attention_norm, hidden)
        inner = F.gelu(self.ffn_input(self._before(self.ffn_norm, hidden)))
        return self._after(self.ffn_norm, hidden + self.dropout(self.ffn_output(inner)))

    def _before(self, norm: nn.LayerNorm, hidden: Tensor) -> Tensor:
        return hidden if self.post else norm(hidden)

    def _after(self, norm: nn.LayerNorm, hidden: Tensor) -> Tensor:
        return norm(hidden) if self.post else hidden


class LearnPlus(BoundTower):
    """The tower LEARN+: one vector per item, read in histories and ranked in the catalogue.

    An item is a linear image of its frozen content plus, with ``ids``, a learned embedding of its ID. What training
    learns about items with similar text therefore reaches it as well. An item without training events, or newer than
    the model, is its content alone.

    ``id_dropout`` is the share of items whose ID is dropped in training, drawn anew for each call of either side, so
    that the tower also learns to rank by content. ``time_gaps`` adds an embedding of the time since the event before.
    ``norm`` is the blocks' (PlusBlock); with post, events are normalised before the first block, too. ``unit_content``
    scales content to length 1 before its projection: whitened content has about the length sqrt(content_dim), beside
    which IDs learn slowly. ``similarity`` "cosine" L2-normalises vectors, "dot" compares them as they are.

    Raises ValueError for sizes below 1, shares outside [0, 1), and a width that is no multiple of ``heads``.
    """

    method: ClassVar[str] = "learn-plus"

    def __init__(
        self,
        *,
        n_items: int,
        content_dim: int,
        max_length: int,
        width: int,
        layers: int,
        heads: int,
        ffn: int,
        dropout: float,
        ids: bool = True,
        id_dropout: float = 0.0,
        time_gaps: bool = False,
        norm: Norm = "pre",
        unit_content: bool = False,
        similarity: Similarity = "cosine",
    ) -> None:
        sizes = {
            "n_items": n_items,
            "content_dim": content_dim,
            "max_length": max_length,
            "width": width,
            "layers": layers,
            "heads": heads,
            "ffn": ffn,
        }
        check_arguments(sizes, dropout=dropout, id_dropout=id_dropout)
        if norm not in get_args(Norm):
            raise ValueError(f"norm {norm!r} must be one of {', '.join(get_args(Norm))}")
        check_similarity(similarity)
        super().__init__()
        options: Shape = {"ids": ids, "id_dropout": id_dropout, "time_gaps": time_gaps, "norm": norm}
        options |= {"unit_content": unit_content, "similarity": similarity}
        self._shape = {**sizes, "dropout": dropout, **options}
        self.n_items, self.content_dim, self.output_dim, self.max_length = n_items, content_dim, width, max_length
        self.needs_times, self.unit_content = time_gaps, unit_content
        self.id_dropout, self.normalised = id_dropout, similarity == "cosine"
        self.adaptor = nn.Linear(content_dim, width)
        self.identity = nn.Embedding(n_items + 1, width, padding_idx=0) if ids else None
        self.gap = nn.Embedding(GAPS, width) if time_gaps else None
        self.blocks = nn.ModuleList(
            PlusBlock(width=width, heads=heads, ffn=ffn, max_length=max_length, dropout=dropout, norm=norm)
            for _ in range(layers)
        )
        self.input_norm: nn.Module = nn.Identity()
        self.norm: nn.Module = nn.LayerNorm(width)
        if norm == "post":
            # The last block has normalised its result already.
            self.input_norm, self.norm = self.norm, self.input_norm
            bert_initialise(self.blocks)
        self.dropout = Dropout(dropout)
        nn.init.normal_(self.adaptor.weight, std=INIT_STD)
        nn.init.zeros_(self.adaptor.bias)
        if self.identity is not None:
            # Zero at the start: an item without a training event keeps no ID vector.
            nn.init.zeros_(self.identity.weight)
        if self.gap is not None:
            nn.init.zeros_(self.gap.weight)

    def to_dict(self) -> Shape:
        """The constructor's arguments."""
        return dict(self._shape)

    def items(self, items: Tensor) -> Tensor:
        """Item vectors [..., width]."""
        return self.compared(self._embed(items))

    def user(self, items: Tensor, times: Tensor | None = None) -> Tensor:
        """User vectors [B, L, width] after each event of ``items`` [B, L]; zeros at padding.

        Raises ValueError for more than ``max_length`` events in a row, and where ``times`` are needed and missing.
        """
        packing, hidden = self._through(items, times, len(self.blocks))
        return packing.unpack(self.compared(self.norm(hidden)))

    def user_last(self, items: Tensor, lengths: Tensor, times: Tensor | None = None) -> Tensor:
        """User vectors [B, width] after the last of ``lengths`` [B] events.

        The last block works for these events alone. Raises ValueError for lengths outside 1..L, and as ``user``.
        """
        batch, longest = items.shape
        check_lengths(lengths, batch, longest)
        if not batch:
            return self.user(items, times)[:, 0]
        real = torch.arange(longest, device=items.device) < lengths.unsqueeze(1)
        packing, hidden = self._through(items * real, times, len(self.blocks) - 1)
        block = self.blocks[-1]
        assert isinstance(block, PlusBlock)
        return self.compared(self.norm(block.last(hidden, packing, lengths)))

    def compared(self, vectors: Tensor) -> Tensor:
        """``vectors`` [..., width] as the similarity compares them."""
        return F.normalize(vectors, dim=-1) if self.normalised else vectors

    def _through(self, items: Tensor, times: Tensor | None, blocks: int) -> tuple[Packing, Tensor]:
        """(packing of ``items`` [B, L], their hidden states [G, C, width] after so many ``blocks``)."""
        if self.gap is not None and times is None:
            raise ValueError("learn-plus with time_gaps needs times [B, L] of the events; pass times")
        packing = Packing.of(items != 0)
        if packing.longest > self.max_length:
            raise ValueError(
                f"a row has {packing.longest} events, but the tower has {self.max_length} distances; pass the last "
                f"{self.max_length} events"
            )
        hidden = self._embed(packing.pack(items))
        if self.gap is not None and times is not None:
            hidden = hidden + self.gap(packing.pack(gap_buckets(times)))
        hidden = self.dropout(self.input_norm(hidden))
        distance = packing.distance()
        for block in self.blocks[:blocks]:
            hidden = block(hidden, packing, distance)
        return packing, hidden

    def project(self, content: Tensor) -> Tensor:
        """The part [..., width] of items' vectors that comes from their ``content`` [..., content_dim]."""
        projected: Tensor = self.adaptor(F.normalize(content, dim=-1) if self.unit_content else content)
        return projected

    def _embed(self, items: Tensor) -> Tensor:
        """Vectors [..., width] of ``items`` [...], not normalised."""
        # An item that occurs several times is projected once.
        distinct, occurrence = items.unique(return_inverse=True)
        vectors = self.project(self.content(distinct))
        if self.identity is not None:
            ids = self.identity(distinct * (distinct < self.identity.num_embeddings))
            if self.training and self.id_dropout:
                # Drawn per item: all occurrences of an item in this call keep its ID, or none.
                ids = ids * (torch.rand(len(ids), 1, device=ids.device) >= self.id_dropout)
            vectors = vectors + ids
        return F.embedding(occurrence, vectors)

    @property
    def id_tables(self) -> Sequence[nn.Embedding]:
        """The vectors of the items' IDs, if the tower has them."""
        return () if self.identity is None else (self.identity,)
