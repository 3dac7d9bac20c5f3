"""Every tower's user side over right-padded rows, in operations whose shapes do not depend on the values.

The towers pack events of several rows into blocks (towers/packing.py), by counts that a graph cannot know. Here each
row is a block of its own, whatever its length; vectors are the same.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from learn_spark.core.errors import LearnSparkError
from learn_spark.model.export.buckets import ExactBuckets
from learn_spark.model.towers.bound import BoundTower
from learn_spark.model.towers.bsarec import BSARec, BSARecBlock
from learn_spark.model.towers.content import ContentTower
from learn_spark.model.towers.hstu import BUCKET_WIDTH, HSTU, MICROSECONDS, TIME_BUCKETS, time_buckets
from learn_spark.model.towers.id_based import IdTower
from learn_spark.model.towers.learn_plus import LearnPlus, PlusBlock
from learn_spark.model.towers.learn_plus_members import LearnPlusMembers
from learn_spark.model.towers.packing import Packing
from learn_spark.model.towers.sasrec import SASRec
from learn_spark.model.towers.time_gaps import FIRST, GAPS, gap_buckets
from learn_spark.model.towers.tower import Tower

BATCH = 4096


class PaddedUser(nn.Module):
    """The user side of one tower, from embedded events to vectors. Call ``padded_user`` to make one."""

    def forward(self, embedded: Tensor, counts: Tensor, times: Tensor | None = None) -> Tensor:
        """User vectors [B, D] after the last of ``counts`` [B] events, from ``embedded`` [B, K, width].

        ``times`` [B, K] are microseconds, for a tower that needs them. Rows without an event have arbitrary vectors.
        """
        raise NotImplementedError


class _Learn(PaddedUser):
    def __init__(self, tower: ContentTower) -> None:
        super().__init__()
        self.tower = tower.learn

    def forward(self, embedded: Tensor, counts: Tensor, times: Tensor | None = None) -> Tensor:
        return self.tower.project(_last(self.tower.transformer(embedded), counts))


class _Plus(PaddedUser):
    def __init__(self, tower: LearnPlus) -> None:
        super().__init__()
        self.blocks, self.norm, self.gap, self.input_norm = tower.blocks, tower.norm, tower.gap, tower.input_norm
        self.compared = tower.compared
        self.buckets = ExactBuckets(_gap_bucket, GAPS) if tower.gap is not None else None

    def forward(self, embedded: Tensor, counts: Tensor, times: Tensor | None = None) -> Tensor:
        if self.gap is not None and self.buckets is not None and times is not None:
            place = torch.arange(times.shape[1])
            seconds = (times - times[:, (place - 1).clamp(min=0)]).clamp(min=0) // MICROSECONDS
            logarithm = seconds.clamp(min=1).double().log() * ((GAPS - 2) / 28 / math.log(2))
            gaps = self.buckets(seconds, 2 + logarithm.long())
            embedded = embedded + self.gap(torch.where(place == 0, FIRST, gaps))
        packing = _padded_packing(embedded)
        distance, hidden = packing.distance()[0], self.input_norm(embedded)
        for block in self.blocks:
            assert isinstance(block, PlusBlock)
            hidden = self._block(block, hidden, distance, packing.visible)
        return self.compared(self.norm(_last(hidden, counts)))

    @staticmethod
    def _block(block: PlusBlock, hidden: Tensor, distance: Tensor, visible: Tensor) -> Tensor:
        """PlusBlock.forward, which cannot be traced: there ``len`` makes the batch's size a constant."""
        heads = block.qkv(block._before(block.attention_norm, hidden)).unflatten(2, (3, block.heads, -1))
        query, key, value = heads.permute(2, 0, 3, 1, 4)  # each [B, heads, K, head_dim]
        bias = block.distance_bias[:, distance].masked_fill(~visible, float("-inf"))  # [heads, K, K]
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        hidden = hidden + block.attention_output(attended.transpose(1, 2).flatten(2))
        hidden = block._after(block.attention_norm, hidden)
        inner = F.gelu(block.ffn_input(block._before(block.ffn_norm, hidden)))
        return block._after(block.ffn_norm, hidden + block.ffn_output(inner))


class _Members(PaddedUser):
    """Several LEARN+ towers; what they read of an item lies side by side."""

    def __init__(self, tower: LearnPlusMembers) -> None:
        super().__init__()
        self.members = nn.ModuleList(_Plus(member) for member in tower.towers())

    def forward(self, embedded: Tensor, counts: Tensor, times: Tensor | None = None) -> Tensor:
        parts = embedded.chunk(len(self.members), dim=-1)
        vectors = [member(part, counts, times) for member, part in zip(self.members, parts, strict=True)]
        return torch.cat(vectors, dim=-1) / len(vectors) ** 0.5


class _ByPosition(PaddedUser):
    """What towers over IDs share: learned positions and the similarity's normalisation."""

    def __init__(self, tower: IdTower) -> None:
        super().__init__()
        self.position, self.from_end = tower.position, tower.positions == "last"
        self.cosine = tower.similarity == "cosine"

    def positions(self, embedded: Tensor, counts: Tensor) -> Tensor:
        """Learned positions [B or 1, K, width]."""
        place = torch.arange(embedded.shape[1]).unsqueeze(0)
        return self.position((counts.unsqueeze(1) - 1 - place).clamp(min=0) if self.from_end else place)

    def vectors(self, hidden: Tensor, counts: Tensor) -> Tensor:
        """The last events' vectors [B, width] of ``hidden`` [B, K, width]."""
        last = _last(hidden, counts)
        return F.normalize(last, dim=-1) if self.cosine else last


class _SASRec(_ByPosition):
    def __init__(self, tower: SASRec) -> None:
        super().__init__(tower)
        self.blocks, self.norm = tower.blocks, tower.norm

    def forward(self, embedded: Tensor, counts: Tensor, times: Tensor | None = None) -> Tensor:
        hidden, packing = embedded + self.positions(embedded, counts), _padded_packing(embedded)
        for block in self.blocks:
            hidden = block(hidden, packing)
        return self.vectors(self.norm(hidden), counts)


class _HSTU(_ByPosition):
    def __init__(self, tower: HSTU) -> None:
        super().__init__(tower)
        self.blocks, self.norm, self.scale = tower.blocks, tower.norm, tower.scale
        self.buckets = ExactBuckets(_span_bucket, TIME_BUCKETS + 1)

    def forward(self, embedded: Tensor, counts: Tensor, times: Tensor | None = None) -> Tensor:
        assert times is not None
        packing = _padded_packing(embedded)
        seconds = (times.unsqueeze(2) - times.unsqueeze(1)).abs() // MICROSECONDS
        buckets = self.buckets(seconds, (seconds.clamp(min=1).float().log() / BUCKET_WIDTH).long())
        distance = packing.distance()
        hidden = embedded * self.scale + self.positions(embedded, counts)
        for block in self.blocks:
            hidden = block(hidden, packing, distance, buckets)
        return self.vectors(self.norm(hidden), counts)


class _BSARec(_ByPosition):
    def __init__(self, tower: BSARec) -> None:
        super().__init__(tower)
        self.blocks, self.norm = tower.blocks, tower.norm

    def forward(self, embedded: Tensor, counts: Tensor, times: Tensor | None = None) -> Tensor:
        real = (torch.arange(embedded.shape[1]) < counts.unsqueeze(1)).unsqueeze(2)
        hidden = self.norm(embedded + self.positions(embedded, counts))
        for block in self.blocks:
            assert isinstance(block, BSARecBlock)
            hidden = block.mix(hidden, real)
        return self.vectors(hidden, counts)


def padded_user(tower: Tower) -> PaddedUser:
    """The user side of ``tower`` over right-padded rows. Raises LearnSparkError for a kind that has none here."""
    match tower:
        case ContentTower():
            return _Learn(tower)
        case LearnPlus():
            return _Plus(tower)
        case LearnPlusMembers():
            return _Members(tower)
        case SASRec():
            return _SASRec(tower)
        case HSTU():
            return _HSTU(tower)
        case BSARec():
            return _BSARec(tower)
    raise LearnSparkError(
        f"a {tower.method} tower cannot be exported: learn_spark/model/export/padded.py has no padded form of it"
    )


@torch.inference_mode()
def embedded_items(tower: Tower) -> Tensor:
    """What the user side reads of each item: [n_items + 1, width] float32; row 0 is padding."""
    if isinstance(tower, IdTower):
        return tower.embedding.weight.detach().clone()
    assert isinstance(tower, BoundTower)
    parts = [
        embedded_content(tower, items, tower.content(items)) for items in torch.arange(tower.n_items + 1).split(BATCH)
    ]
    return torch.cat(parts)


def embedded_content(tower: BoundTower, items: Tensor | None, content: Tensor) -> Tensor:
    """What the user side reads of ``items`` [...] with ``content`` [..., C]: [..., width].

    None, and items beyond those of the tower's ID table, are items without an ID vector.
    """
    if isinstance(tower, ContentTower):
        return tower.learn.content(content)
    if isinstance(tower, LearnPlusMembers):
        return torch.cat([embedded_content(member, items, content) for member in tower.towers()], dim=-1)
    assert isinstance(tower, LearnPlus)
    embedded = tower.project(content)
    if tower.identity is not None and items is not None:
        embedded = embedded + tower.identity(items * (items < tower.identity.num_embeddings))
    return embedded


def _last(hidden: Tensor, counts: Tensor) -> Tensor:
    """The vectors [B, width] of ``hidden`` [B, K, width] at each row's last event."""
    at = (counts - 1).clamp(min=0).view(-1, 1, 1).expand(-1, 1, hidden.shape[2])
    return hidden.gather(1, at).squeeze(1)


def _padded_packing(embedded: Tensor) -> Packing:
    """The packing [B, K] in which every row is a block of its own, whatever its number of events."""
    batch, length = embedded.shape[:2]
    position = torch.arange(length)
    causal = position.unsqueeze(1) >= position
    empty = position[:0]  # no event is packed or unpacked
    return Packing((batch, length), empty, 0, position.expand(batch, -1), causal, True)


def _gap_bucket(seconds: Tensor) -> Tensor:
    return gap_buckets(torch.stack([torch.zeros_like(seconds), seconds * MICROSECONDS], dim=1))[:, 1]


def _span_bucket(seconds: Tensor) -> Tensor:
    return time_buckets(seconds.unsqueeze(0) * MICROSECONDS, torch.zeros(1, 1, dtype=torch.int64)).flatten()
