"""The head of the reranker: it combines a tower's score with co-visits, popularity and content similarity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from learn_spark.data.splits.folds import FOLDS, by_fold
from learn_spark.model.reranking.co_visitation import FEATURES, CoVisits
from learn_spark.model.reranking.refinement import RefiningHead
from learn_spark.model.scoring.frequency import KNOTS, LIKENESS_SCALE

LOGIT_FLOOR = -20.0  # log-probabilities below this carry no ranking signal
LOGIT_SCALE = 5.0


class RerankerHead(nn.Module):
    """score(user, item) = a(n) * l + b(n) + c(n) * s + f(co-visits, similarity, l), with f only for candidates.

    l is the tower's log-probability of the item: inner product / temperature, minus the log-sum-exp over the ranked
    items. s is the cosine of the item's frozen content with that of the user's last events. n are the item's events; a,
    b and c are linear in log(1 + n) between KNOTS, so that items with few or no training events can be weighted
    differently. f is a perceptron of two hidden layers, ``hidden`` wide, over CoVisits.features, the candidate's
    similarity to the user's last item, s and l. Initially a is 1 and all else 0: the tower's score only.

    ``refining``: the second head, which orders the best items by this score anew; None: there is none.
    """

    refining: RefiningHead | None

    def __init__(self, *, hidden: int) -> None:
        super().__init__()
        self.hidden = hidden
        self.refining = None
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
        self, logits: Tensor, events: Tensor, co_visits: CoVisits, similarity: Tensor, likeness: Tensor | None
    ) -> Tensor:
        """Scores [B, N] of ``logits`` [B, N], the tower's log-probabilities.

        ``events`` [N, K] are ``knot_weights`` of the items' counts, ``similarity`` [M] is that of the candidates to the
        user's last item, and ``likeness`` [B, N] the cosine of contents (None: there is no content).
        """
        row, position = torch.from_numpy(co_visits.row), torch.from_numpy(co_visits.position)
        logit = logits[row, position].clamp(min=LOGIT_FLOOR).unsqueeze(1) / LOGIT_SCALE
        content_cosine = torch.zeros_like(logit) if likeness is None else likeness[row, position].unsqueeze(1)
        inputs = torch.cat(
            [torch.from_numpy(co_visits.features), similarity.unsqueeze(1), content_cosine, logit, logit * logit], dim=1
        )
        scores = logits * (events @ self.scale) + events @ self.popularity
        if likeness is not None:
            scores = scores + likeness * (LIKENESS_SCALE * (events @ self.likeness))
        return scores.index_put((row, position), self.score(inputs).squeeze(1), accumulate=True)


def _with_refining(head: RerankerHead, refining: RefiningHead) -> RerankerHead:
    copy = RerankerHead(hidden=head.hidden)
    copy.load_state_dict(head.state_dict())
    copy.refining = refining
    return copy.eval()


@dataclass(frozen=True)
class CrossFittedHeads:
    """A head fitted on all validation users, and one for each fold fitted on the other folds.

    ``folds[f]`` was fitted on users whose ``fold_of`` is not f, so that every user of the validation split can be
    scored by a head that was not fitted on them.
    """

    full: RerankerHead
    folds: tuple[RerankerHead, ...]

    def heads_of_users(self, user_ids: Sequence[str], *, folded: bool) -> list[tuple[np.ndarray, RerankerHead]]:
        """Pairs (rows of ``user_ids`` [B], the head that scores them).

        All users are scored by ``full``; if ``folded``, each user by the head of their fold.
        """
        if not folded:
            return [(np.arange(len(user_ids)), self.full)]
        return list(zip(by_fold(user_ids), self.folds, strict=True))

    def refined(self, full: RefiningHead, folds: Sequence[RefiningHead]) -> CrossFittedHeads:
        """These heads with second heads: ``full`` fitted on all validation users, ``folds`` as ``self.folds``."""
        pairs = zip(self.folds, folds, strict=True)
        return CrossFittedHeads(_with_refining(self.full, full), tuple(_with_refining(*pair) for pair in pairs))

    def tensors(self) -> dict[str, Tensor]:
        """All weights by name, for ``of_tensors``."""
        parts = {"whole": self.full, **{f"fold{f}": head for f, head in enumerate(self.folds)}}
        return {f"{part}.{name}": t for part, head in parts.items() for name, t in head.state_dict().items()}

    @staticmethod
    def of_tensors(
        tensors: Mapping[str, Tensor], *, hidden: int, refining: tuple[int, int] | None = None
    ) -> CrossFittedHeads:
        """The heads whose ``tensors`` are given; ``refining`` are the second head's width and number of items.

        Raises RuntimeError for tensors of another shape.
        """

        def head(part: str) -> RerankerHead:
            fresh = RerankerHead(hidden=hidden)
            if refining is not None:
                fresh.refining = RefiningHead(hidden=refining[0], items=refining[1])
            fresh.load_state_dict(
                {name.removeprefix(f"{part}."): t for name, t in tensors.items() if name.startswith(f"{part}.")}
            )
            return fresh.eval()

        return CrossFittedHeads(head("whole"), tuple(head(f"fold{f}") for f in range(FOLDS)))
