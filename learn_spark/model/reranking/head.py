"""The head: what a tower's score and the evidence of co-occurrence are worth together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from learn_spark.data.splits.folds import FOLDS, by_fold
from learn_spark.model.reranking.co_visitation import FEATURES, CoVisits
from learn_spark.model.scoring.frequency import KNOTS, LIKENESS_SCALE

COLD = -20.0  # clamp: log-probabilities below this carry no ranking signal
LOG_SCALE = 5.0


class RerankerHead(nn.Module):
    """score(user, item) = a(n) * l + b(n) + c(n) * s + f(evidence, similarity, l) where there is evidence.

    l is the tower's log-probability of the item: its inner product / temperature, less the log-sum-exp over what is
    ranked. s is how like the item's frozen content is to that of the user's last events. n are the item's events: a, b
    and c are linear in log(1 + n) between KNOTS, so that what training knows little of, or nothing, can be weighed by
    other measures than the rest. f is a perceptron of two hidden layers, ``hidden`` wide, over CoVisits.features, the
    candidate's similarity to the user's last item, and l. At the start a is 1 and all else 0: the tower alone.
    """

    def __init__(self, *, hidden: int) -> None:
        super().__init__()
        self.hidden = hidden
        self.scale = nn.Parameter(torch.ones(len(KNOTS)))
        self.popularity = nn.Parameter(torch.zeros(len(KNOTS)))
        self.likeness = nn.Parameter(torch.zeros(len(KNOTS)))
        self.score = nn.Sequential(
            nn.Linear(len(FEATURES) + 4, hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Linear(hidden, 1),
        )
        last = self.score[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(
        self, logits: Tensor, events: Tensor, found: CoVisits, similarity: Tensor, likeness: Tensor | None
    ) -> Tensor:
        """Scores [B, N] of ``logits`` [B, N] (log-probabilities), ``events`` [N, K] (``between_knots`` of the items'
        counts), ``similarity`` [M] of the candidates, and ``likeness`` [B, N], a cosine, where there is content.
        """
        row, position = torch.from_numpy(found.row), torch.from_numpy(found.position)
        own = logits[row, position].clamp(min=COLD).unsqueeze(1) / LOG_SCALE
        like = torch.zeros_like(own) if likeness is None else likeness[row, position].unsqueeze(1)
        inputs = torch.cat([torch.from_numpy(found.features), similarity.unsqueeze(1), like, own, own * own], dim=1)
        base = logits * (events @ self.scale) + events @ self.popularity
        if likeness is not None:
            base = base + likeness * (LIKENESS_SCALE * (events @ self.likeness))
        return base.index_put((row, position), self.score(inputs).squeeze(1), accumulate=True)


@dataclass(frozen=True)
class CrossFittedHeads:
    """``whole`` was fitted on all validation users; ``folds[f]`` on those whose ``fold_of`` is not f, so that each user
    of the validation split can be scored by a head that was not fitted on them.
    """

    whole: RerankerHead
    folds: tuple[RerankerHead, ...]

    def heads_of_users(self, user_ids: Sequence[str], *, folded: bool) -> list[tuple[np.ndarray, RerankerHead]]:
        """Which of ``user_ids`` [B], by number, each head scores: all by ``whole``; if ``folded``, nobody by a head
        that was fitted on them.
        """
        if not folded:
            return [(np.arange(len(user_ids)), self.whole)]
        return list(zip(by_fold(user_ids), self.folds, strict=True))

    def tensors(self) -> dict[str, Tensor]:
        """All weights by name."""
        parts = {"whole": self.whole, **{f"fold{f}": head for f, head in enumerate(self.folds)}}
        return {f"{part}.{name}": t for part, head in parts.items() for name, t in head.state_dict().items()}

    @staticmethod
    def of_tensors(tensors: Mapping[str, Tensor], *, hidden: int) -> CrossFittedHeads:
        """What ``tensors`` gave; a RuntimeError where they are of other heads."""

        def head(part: str) -> RerankerHead:
            made = RerankerHead(hidden=hidden)
            made.load_state_dict(
                {name.removeprefix(f"{part}."): t for name, t in tensors.items() if name.startswith(f"{part}.")}
            )
            return made.eval()

        return CrossFittedHeads(head("whole"), tuple(head(f"fold{f}") for f in range(FOLDS)))
