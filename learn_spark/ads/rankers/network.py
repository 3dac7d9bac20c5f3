"""The neural ranker: embeddings, DCN-v2's cross layers or an MLP alone, and LEARN's adaptor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from learn_spark.ads.rankers.count_features import COUNT_DIMS, COUNTS_OF_ONE, CountScaler
from learn_spark.ads.rankers.inputs import CYCLIC_TIME_DIMS, Inputs, InputSource, used_vectors, vector_blocks, windows
from learn_spark.ads.rankers.scalers import ScoreScaler, SimilarityScaler, VectorScaler
from learn_spark.ads.rankers.similarity import NEAREST, SIMILARITIES
from learn_spark.ads.rankers.statistics import TrainingStatistics

INITIAL_STD = 0.01


@dataclass(frozen=True)
class Shape:
    """Everything that a network is built from.

    ``sizes`` [F] rows of the fields' embedding tables; ``dims`` D of a released vector, for ``variant`` learn and
    learn-adaptor, which read ``inputs`` (ranking.inputs). ``counts``: whether it reads running counts. ``gate``:
    training exposures of an id whose embedding counts half; 0: all count in full. ``group_dropout``: chance of each
    group of inputs to be 0 in training.
    """

    variant: str
    model: str
    sizes: tuple[int, ...]
    id_dim: int
    dims: int
    hidden: tuple[int, ...]
    cross_layers: int
    cross_rank: int | None
    adaptor_dim: int
    counts: bool = True
    gate: float = 0.0
    group_dropout: float = 0.0
    inputs: tuple[str, ...] = ("vectors", "score")

    @staticmethod
    def of_dict(shape: dict[str, object]) -> Shape:
        """The inverse of ``to_dict``, after a round trip through JSON."""
        return Shape(**{name: tuple(v) if isinstance(v, list) else v for name, v in shape.items()})  # type: ignore[arg-type]

    def to_dict(self) -> dict[str, object]:
        """The fields as JSON types."""
        return asdict(self)


@dataclass(frozen=True)
class Batch:
    """``rows`` [B, F], ``cyclic_time`` [B, 4], ``counts`` [B, 6], ``similarities`` [B, 4], ``user`` and ``item``
    [B, D], ``has_vector`` [B, 2]: see ``Inputs``.
    """

    rows: Tensor
    cyclic_time: Tensor
    counts: Tensor
    similarities: Tensor
    user: Tensor
    item: Tensor
    has_vector: Tensor

    @staticmethod
    def of(inputs: Inputs, at: slice | np.ndarray) -> Batch:
        """The exposures ``at``, with their released vectors gathered."""
        narrow = (inputs.rows[at], inputs.cyclic_time[at], inputs.counts[at], inputs.similarities[at])
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


class GatedEmbedding(nn.Module):
    """An embedding of each of ``size`` rows, times n / (n + ``gate``) for a row of n training exposures.

    An id that training did not have gives nothing; null, as any value, counts its exposures. With ``gate`` 0 every row
    counts in full.
    """

    factors: Tensor

    def __init__(self, size: int, width: int, gate: float) -> None:
        super().__init__()
        self.table = nn.Embedding(size, width)
        nn.init.normal_(self.table.weight, std=INITIAL_STD)
        self.gate = gate
        self.register_buffer("factors", torch.ones(size))

    def fit(self, frequencies: np.ndarray) -> None:
        """Set the factors by the number of training exposures of the first rows; the others have none."""
        if self.gate:
            n = torch.zeros(len(self.factors), dtype=torch.float64)
            n[: len(frequencies)] = torch.from_numpy(frequencies).double()
            self.factors.copy_(n / (n + self.gate))

    def forward(self, rows: Tensor) -> Tensor:
        """The embeddings [B, width] of ``rows`` [B]."""
        embedded: Tensor = self.table(rows)
        return embedded * self.factors[rows.long(), None]


class GroupDropout(nn.Module):
    """In training, each group of inputs of each exposure is 0 with chance ``p``: no input is relied on alone.

    Nothing is scaled up, as a group that is not known is 0 when rankers score too.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, groups: list[Tensor]) -> list[Tensor]:
        """The groups, each [B, width]."""
        if not self.training or not self.p:
            return groups
        kept = torch.rand(len(groups[0]), len(groups)) >= self.p
        return [group * kept[:, [number]] for number, group in enumerate(groups)]


class Adaptor(nn.Module):
    """LEARN's adaptor: two linear layers over user and item vector, and an MLP trained by a conversion loss of its own.

    The ranker reads the output of the linear layers (arXiv 2405.03988, online experiments).
    """

    def __init__(self, dims: int, adaptor_dim: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(2 * dims, adaptor_dim), nn.ReLU(), nn.Linear(adaptor_dim, adaptor_dim))
        self.head = nn.Sequential(nn.ReLU(), nn.Linear(adaptor_dim, adaptor_dim), nn.ReLU(), nn.Linear(adaptor_dim, 1))

    def forward(self, user: Tensor, item: Tensor) -> tuple[Tensor, Tensor]:
        """(adapted [B, adaptor_dim], the auxiliary logit [B])."""
        adapted = self.layers(torch.cat([user, item], dim=1))
        return adapted, self.head(adapted).squeeze(1)


class Network(nn.Module):
    """Logits of conversion. base: embeddings of the fields, the time and running counts; learn: also the
    shape's ``inputs``: both released vectors, their product (the score), similarities; learn-adaptor: the adapted
    vectors too. Whether a vector exists is always an input.

    mlp: an MLP over all of it. dcn_v2: cross layers beside the MLP, both into one linear layer (its parallel form).
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.embeddings = nn.ModuleList(GatedEmbedding(size, shape.id_dim, shape.gate) for size in shape.sizes)
        width = len(shape.sizes) * shape.id_dim + CYCLIC_TIME_DIMS
        self.counts: CountScaler | None = None
        if shape.counts:
            self.counts = CountScaler()
            width += COUNT_DIMS
        if shape.variant != "base":
            self.user, self.item, self.score = VectorScaler(shape.dims), VectorScaler(shape.dims), ScoreScaler()
            width += 2 * shape.dims * ("vectors" in shape.inputs) + 2 + ("score" in shape.inputs)
            ends = {"nearest": (0, len(NEAREST)), "list": (len(NEAREST), len(SIMILARITIES))}
            scalers = [SimilarityScaler(*ends[each]) for each in ends if each in shape.inputs]
            width += sum(scaler.width for scaler in scalers)
            self.similarities = nn.ModuleList(scalers)
        self.adaptor: Adaptor | None = None
        if shape.variant == "learn-adaptor":
            self.adaptor = Adaptor(shape.dims, shape.adaptor_dim)
            width += shape.adaptor_dim
        self.drop = GroupDropout(shape.group_dropout)
        layers = shape.cross_layers if shape.model == "dcn_v2" else 0
        self.crosses = nn.ModuleList(Cross(width, shape.cross_rank) for _ in range(layers))
        self.deep = _mlp(width, shape.hidden)
        self.out = nn.Linear(shape.hidden[-1] + (width if layers else 0), 1)

    def fit_scales(self, source: InputSource, statistics: TrainingStatistics) -> None:
        """Fit gates and the scaling of counts, vectors and scores to the training exposures and their statistics."""
        for embedding, frequencies in zip(self.embeddings, statistics.frequencies, strict=True):
            embedding.fit(frequencies)  # type: ignore[operator]
        if self.counts is not None:
            self.counts.fit(statistics.rate, lambda: (torch.from_numpy(each.counts) for each in windows(source)))
        if self.shape.variant != "base":
            for standard, used in zip((self.user, self.item), used_vectors(source), strict=True):
                standard.fit_blocks(partial(vector_blocks, source.vectors, used))
            self.score.fit(source)
            for scaler in self.similarities:
                scaler.fit(source)  # type: ignore[operator]

    def forward(self, x: Batch) -> tuple[Tensor, Tensor | None]:
        """(logits [B], the adaptor's logits [B]; None without an adaptor)."""
        groups = [table(x.rows[:, at]) for at, table in enumerate(self.embeddings)]
        groups.append(x.cyclic_time)
        if self.counts is not None:
            groups += self.counts(x.counts).split(COUNTS_OF_ONE, dim=1)
        auxiliary = None
        if self.shape.variant != "base":
            user, item = self.user(x.user, x.has_vector[:, 0]), self.item(x.item, x.has_vector[:, 1])
            if "vectors" in self.shape.inputs:
                groups += [torch.cat([user, x.has_vector[:, :1]], dim=1), torch.cat([item, x.has_vector[:, 1:]], dim=1)]
            else:
                groups += x.has_vector.split(1, dim=1)
            if "score" in self.shape.inputs:
                groups.append(self.score(x.user, x.item, x.has_vector))
            groups += [scaler(x.similarities) for scaler in self.similarities]
            if self.adaptor is not None:
                adapted, auxiliary = self.adaptor(user, item)
                groups.append(adapted)
        x0 = torch.cat(self.drop(groups), dim=1)
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
