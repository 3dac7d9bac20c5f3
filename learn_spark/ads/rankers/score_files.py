"""The scores of all rankers on the test exposures, in files of this machine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from learn_spark.ads.rankers.evaluation import Outcomes
from learn_spark.ads.rankers.external_sort import read_records

Name = tuple[str, int]  # variant and seed of a ranker

OUTCOME = np.dtype(
    [
        ("weight", np.float64),
        ("user", np.int64),
        ("item", np.int64),
        ("request", np.int64),
        ("label", np.int8),
        ("item_cohort", np.int8),
        ("user_cohort", np.int8),
    ]
)
SCORED = np.dtype([("score", np.float64), *OUTCOME.descr])
KINDS = ("item", "user")


@dataclass(frozen=True)
class ScoreFiles:
    """``rows`` test exposures of ``users`` and ``items`` (numbered from 0 on), and their scores by ``names``;
    ``requests``: whether exposures have one.
    """

    folder: Path
    names: Sequence[Name]
    users: int
    items: int
    requests: bool = False

    def append(self, outcomes: np.ndarray) -> None:
        """Add exposures: records of OUTCOME."""
        with (self.folder / "outcomes").open("ab") as file:
            file.write(outcomes.tobytes())

    def append_scores(self, name: Name, scores: np.ndarray) -> None:
        """Add the scores of the exposures that were added last."""
        with self._scores(name).open("ab") as file:
            file.write(scores.astype(np.float64).tobytes())

    @property
    def rows(self) -> int:
        """Number of exposures."""
        return (self.folder / "outcomes").stat().st_size // OUTCOME.itemsize

    def outcomes(self, rows: int) -> Iterator[np.ndarray]:
        """Records of OUTCOME, at most ``rows`` at once."""
        return read_records(self.folder / "outcomes", OUTCOME, rows)

    def scored(self, name: Name, rows: int) -> Iterator[np.ndarray]:
        """Records of SCORED by one ranker, at most ``rows`` at once."""
        start = 0
        for outcomes in self.outcomes(rows):
            records = np.empty(len(outcomes), SCORED)
            records["score"] = np.fromfile(self._scores(name), np.float64, len(outcomes), offset=8 * start)
            for field in OUTCOME.names or ():
                records[field] = outcomes[field]
            start += len(outcomes)
            yield records

    def arrays(self) -> tuple[dict[Name, np.ndarray], Outcomes]:
        """Scores by ranker and outcomes, all in memory."""
        (every,) = self.outcomes(self.rows)
        cohorts = {kind: every[f"{kind}_cohort"].copy() for kind in KINDS}
        label, weight, user, item = (every[name].copy() for name in ("label", "weight", "user", "item"))
        scores = {name: np.fromfile(self._scores(name), np.float64) for name in self.names}
        request = every["request"].copy() if self.requests else None
        return scores, Outcomes(label, weight, user, item, cohorts, request)

    def _scores(self, name: Name) -> Path:
        return self.folder / f"scores-{name[0]}-{name[1]}"
