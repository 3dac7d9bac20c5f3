"""The twin towers of LEARN: user vectors at every position and item vectors, in one space."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from learn_spark.model.manifest import Shape
from learn_spark.model.towers.adaptor import ContentAdaptor
from learn_spark.model.towers.checks import check_arguments, check_lengths
from learn_spark.model.towers.packing import Packing
from learn_spark.model.towers.transformer import CausalTransformer, bert_initialise

ItemTower = Literal["a", "b", "c"]


@dataclass(frozen=True, kw_only=True)
class TowerShape:
    """The arguments of a LearnTower. Raises ValueError where they contradict each other."""

    content_dim: int
    width: int
    layers: int
    heads: int
    ffn: int
    output_dim: int
    dropout: float
    item_tower: ItemTower

    def __post_init__(self) -> None:
        sizes = ("content_dim", "width", "layers", "heads", "ffn", "output_dim")
        check_arguments({name: getattr(self, name) for name in sizes}, dropout=self.dropout)
        if self.item_tower not in get_args(ItemTower):
            raise ValueError(f"item_tower {self.item_tower!r} must be one of {get_args(ItemTower)}")

    def to_dict(self) -> Shape:
        """The arguments as plain values that JSON can represent."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TowerShape:
        """The shape that ``to_dict`` described. Raises ValueError with the keys that are missing or unknown."""
        expected = {field.name for field in fields(cls)}
        if set(values) != expected:
            missing, unknown = sorted(expected - set(values)), sorted(set(values) - expected)
            raise ValueError(f"tower shape: missing {missing}, unknown {unknown}")
        return cls(**values)


class LearnTower(nn.Module):
    """User and item tower of LEARN (arXiv 2405.03988, section 3, preference module and its figure of variants).

    ``item_tower`` is the embedding of target items in training: "a", the user tower, causal over the whole target
    sequence (the paper's choice); "b", the user tower, each item alone; "c", no transformer, only a separate linear
    layer on the content. At inference every variant embeds each item alone.

    All returned vectors are L2-normalised. Raises ValueError for contradictory arguments (see TowerShape).
    """

    def __init__(
        self,
        *,
        content_dim: int,
        width: int,
        layers: int,
        heads: int,
        ffn: int,
        output_dim: int,
        dropout: float,
        item_tower: ItemTower,
    ) -> None:
        shape = TowerShape(
            content_dim=content_dim,
            width=width,
            layers=layers,
            heads=heads,
            ffn=ffn,
            output_dim=output_dim,
            dropout=dropout,
            item_tower=item_tower,
        )
        super().__init__()
        self.shape = shape
        self.adaptor = ContentAdaptor(content_dim=content_dim, width=width)
        self.transformer = CausalTransformer(width=width, layers=layers, heads=heads, ffn=ffn, dropout=dropout)
        self.projection = nn.Linear(width, output_dim)
        self.item_projection = nn.Linear(content_dim, output_dim) if item_tower == "c" else None
        for part in (self.adaptor, self.projection, self.item_projection):
            if part is not None:
                bert_initialise(part)

    @classmethod
    def of(cls, shape: TowerShape) -> LearnTower:
        """A freshly initialised tower of ``shape``."""
        return cls(**asdict(shape))

    def parameter_count(self) -> int:
        """Number of trained parameters."""
        return sum(parameter.numel() for parameter in self.parameters() if parameter.requires_grad)

    def content(self, content: Tensor) -> Tensor:
        """Adapted content: [..., content_dim] to [..., width]."""
        return self.adaptor(content)

    def user(self, content: Tensor, packing: Packing | None = None) -> Tensor:
        """User vectors [B, L, output_dim] after each event of right-padded histories [B, L, content_dim].

        With ``packing``, ``content`` and the vectors are in its blocks: [G, C, ...].
        """
        self._check(content, dims=3)
        return self.project(self.hidden(content, packing))

    def user_last(self, content: Tensor, lengths: Tensor) -> Tensor:
        """User vectors [B, output_dim] after the last event of right-padded histories [B, L, content_dim].

        Raises ValueError if a length of ``lengths`` [B] is below 1 or above L.
        """
        self._check(content, dims=3)
        batch, longest = content.shape[:2]
        check_lengths(lengths, batch, longest)
        last = self.hidden(content)[torch.arange(batch, device=content.device), lengths.long() - 1]  # [B, width]
        return self.project(last)

    def project(self, hidden: Tensor) -> Tensor:
        """User vectors [..., output_dim] of the transformer's output [..., width]."""
        return F.normalize(self.projection(hidden), dim=-1)

    def targets(self, content: Tensor, packing: Packing | None = None) -> Tensor:
        """Item vectors [B, T, output_dim] in training, of right-padded target sequences [B, T, content_dim].

        With ``packing``, ``content`` and the vectors are in its blocks: [G, C, ...].
        """
        self._check(content, dims=3)
        if self.item_projection is not None:
            return F.normalize(self.item_projection(content), dim=-1)
        if self.shape.item_tower == "a":
            return self.user(content, packing)
        return self.user(content.reshape(-1, 1, content.shape[2])).view(*content.shape[:2], self.shape.output_dim)

    def items(self, content: Tensor) -> Tensor:
        """Item vectors [N, output_dim] at inference; each item of [N, content_dim] is embedded alone."""
        self._check(content, dims=2)
        return self.targets(content.unsqueeze(1)).squeeze(1)

    def hidden(self, content: Tensor, packing: Packing | None = None) -> Tensor:
        """The transformer's output [B, L, width] for histories [B, L, content_dim]; [G, C, width] with ``packing``."""
        return self.transformer(self.content(content), packing)  # [B, L, width]

    def _check(self, content: Tensor, *, dims: int) -> None:
        if content.dim() != dims or content.shape[-1] != self.shape.content_dim:
            raise ValueError(
                f"expected content of {dims} dimensions, the last {self.shape.content_dim}, got {list(content.shape)}"
            )
