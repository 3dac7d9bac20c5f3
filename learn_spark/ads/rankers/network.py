"""The ranker as a network: embeddings, DCN-v2's cross layers or an MLP alone, and the LEARN-Adaptor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor, nn

from learn_spark.ads.rankers.inputs import CIRCLE, Inputs

INITIAL_STD = 0.01


@dataclass(frozen=True)
class Shape:
    """All that a network is built from. ``sizes`` [F] rows of the fields' embedding tables; ``dims`` D of a released
    vector, for ``variant`` learn and learn-adaptor.
    """

    variant: str
    model: str
    sizes: tuple[int, ...]
    id_dim: int
    dims: int
    hidden: tuple[int, ...]
    cross_layers: int
    cross_rank: int | None
    fusion_dim: int

    @staticmethod
    def of_dict(told: dict[str, object]) -> Shape:
        """What ``to_dict`` gave, read back from JSON."""
        return Shape(**{name: tuple(v) if isinstance(v, list) else v for name, v in told.items()})  # type: ignore[arg-type]

    def to_dict(self) -> dict[str, object]:
        """As JSON knows it."""
        return asdict(self)


@dataclass(frozen=True)
class Batch:
    """``rows`` [B, F], ``circle`` [B, 4], ``user`` and ``item`` [B, D], ``known`` [B, 2]: see ``Inputs``."""

    rows: Tensor
    circle: Tensor
    user: Tensor
    item: Tensor
    known: Tensor

    @staticmethod
    def of(inputs: Inputs, at: slice | np.ndarray) -> Batch:
        """Some exposures; their released vectors are gathered here, for these alone."""
        narrow = (inputs.rows[at], inputs.circle[at])
        return Batch(*map(torch.from_numpy, (*narrow, *inputs.wide(at))))


class Cross(nn.Module):
    """A cross layer of DCN-v2: x0 * (W x + b) + x, [B, d] (Wang et al., WWW 2021, eq. 1); with ``rank`` r, W = U V^T
    with U, V [d, r] (eq. 2).
    """

    def __init__(self, width: int, rank: int | None) -> None:
        super().__init__()
        full = rank is None or rank >= width
        self.inner = nn.Identity() if full else nn.Linear(width, int(rank or 0), bias=False)
        self.outer = nn.Linear(width if full else int(rank or 0), width)

    def forward(self, x0: Tensor, x: Tensor) -> Tensor:
        """The next x."""
        crossed: Tensor = x0 * self.outer(self.inner(x)) + x
        return crossed


class Standard(nn.Module):
    """Released vectors moved to mean zero and scaled by one number to entries of variance one, as seen in training; a
    masked one stays zero.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, dims: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(dims))
        self.register_buffer("scale", torch.ones(()))

    def fit(self, vectors: np.ndarray) -> None:
        """Read mean and scale off ``vectors`` [R, D]; without any, they stay 0 and 1."""
        if len(vectors):
            mean = vectors.mean(axis=0, dtype=np.float64)
            spread = float(np.sqrt(np.mean((vectors - mean) ** 2)))
            self.mean.copy_(torch.from_numpy(mean))
            self.scale.fill_(spread or 1.0)

    def forward(self, vectors: Tensor, known: Tensor) -> Tensor:
        """[B, D] of ``vectors`` [B, D] and ``known`` [B] (0 or 1)."""
        return (vectors - self.mean) / self.scale * known[:, None]


class Adaptor(nn.Module):
    """LEARN's adaptor: user and item vector through a fusion module (two linear layers) and an MLP that is trained on
    conversions by a loss of its own (LEARN, online experiments). The fused vector is what the ranker reads.
    """

    def __init__(self, dims: int, fusion_dim: int) -> None:
        super().__init__()
        self.fusion = nn.Sequential(nn.Linear(2 * dims, fusion_dim), nn.ReLU(), nn.Linear(fusion_dim, fusion_dim))
        self.head = nn.Sequential(nn.ReLU(), nn.Linear(fusion_dim, fusion_dim), nn.ReLU(), nn.Linear(fusion_dim, 1))

    def forward(self, user: Tensor, item: Tensor) -> tuple[Tensor, Tensor]:
        """(fused [B, fusion_dim], the auxiliary logit [B])."""
        fused = self.fusion(torch.cat([user, item], dim=1))
        return fused, self.head(fused).squeeze(1)


class Network(nn.Module):
    """Logits of conversion. base: embeddings of the fields and the time; learn: also both released vectors and their
    dot product; learn-adaptor: [fused, user, item] beside the rest. What is known of a vector is always said with it.

    mlp: an MLP over all of it. dcn_v2: cross layers beside the MLP, both into one linear layer (its parallel form).
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        tables = [nn.Embedding(size, shape.id_dim) for size in shape.sizes]
        for table in tables:
            nn.init.normal_(table.weight, std=INITIAL_STD)
        self.embeddings = nn.ModuleList(tables)
        width = len(shape.sizes) * shape.id_dim + CIRCLE
        if shape.variant != "base":
            self.user, self.item = Standard(shape.dims), Standard(shape.dims)
            width += 2 * shape.dims + 2
        self.adaptor: Adaptor | None = None
        if shape.variant == "learn":
            width += 1
        elif shape.variant == "learn-adaptor":
            self.adaptor = Adaptor(shape.dims, shape.fusion_dim)
            width += shape.fusion_dim
        layers = shape.cross_layers if shape.model == "dcn_v2" else 0
        self.crosses = nn.ModuleList(Cross(width, shape.cross_rank) for _ in range(layers))
        self.deep = _mlp(width, shape.hidden)
        self.out = nn.Linear(shape.hidden[-1] + (width if layers else 0), 1)

    def fit_scales(self, inputs: Inputs) -> None:
        """Let the released vectors be scaled as the training exposures' are."""
        if self.shape.variant != "base":
            for standard, rows in ((self.user, inputs.user), (self.item, inputs.item)):
                used = np.unique(rows)
                standard.fit(inputs.vectors[used[used > 0]])

    def forward(self, x: Batch) -> tuple[Tensor, Tensor | None]:
        """(logits [B], the adaptor's logits [B]; None without an adaptor)."""
        parts = [table(x.rows[:, at]) for at, table in enumerate(self.embeddings)]
        parts.append(x.circle)
        auxiliary = None
        if self.shape.variant != "base":
            user, item = self.user(x.user, x.known[:, 0]), self.item(x.item, x.known[:, 1])
            parts += [user, item, x.known]
            if self.adaptor is None:
                # Of unit vectors: their cosine, what the tower was trained to rank by.
                parts.append((x.user * x.item).sum(dim=1, keepdim=True))
            else:
                fused, auxiliary = self.adaptor(user, item)
                parts.append(fused)
        x0 = torch.cat(parts, dim=1)
        last = self.deep(x0)
        if len(self.crosses):
            crossed = x0
            for layer in self.crosses:
                crossed = layer(x0, crossed)
            last = torch.cat([crossed, last], dim=1)
        return self.out(last).squeeze(1), auxiliary


def _mlp(width: int, hidden: Sequence[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for size in hidden:
        layers += [nn.Linear(width, size), nn.ReLU()]
        width = size
    return nn.Sequential(*layers)
