"""Metrics of rankers on more test exposures than memory has room for: passes over sorted files.

The figures are those of ``evaluation.ArrayScores``: sums are of the same numbers in another order.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from learn_spark.ads.cohorts import COHORTS
from learn_spark.ads.rankers.evaluation import WHOLE, UserFigures, UserMeans
from learn_spark.ads.rankers.external_sort import read_records, sort_records
from learn_spark.ads.rankers.metrics import COMPARED, log_losses, user_auc
from learn_spark.ads.rankers.request_metrics import RequestMetrics, whole_requests
from learn_spark.ads.rankers.score_files import KINDS, SCORED, Name, ScoreFiles
from learn_spark.ads.rankers.sums import AucSums, CalibrationSums, GroupedAucSums

CHUNK_ROWS = 1 << 16  # records in memory at once
TIMES_BYTES = 1 << 28  # of the numbers of times that users are drawn, a byte a user and resample


@dataclass(frozen=True)
class StreamedScores:
    """The test exposures of ``files``, or those of one cohort: ``dimension`` and its place in COHORTS."""

    files: ScoreFiles
    dimension: str = WHOLE
    place: int = 0
    _by_user: dict[Name, UserFigures] = field(default_factory=dict)

    @property
    def names(self) -> Sequence[Name]:
        """Variant and seed of each ranker."""
        return self.files.names

    def cohorts(self) -> Iterator[tuple[str, str, StreamedScores]]:
        """(dimension, cohort, its exposures): the whole, then every cohort that has some."""
        present = {kind: np.zeros(len(COHORTS), dtype=bool) for kind in KINDS}
        for outcomes in self.files.outcomes(CHUNK_ROWS):
            for kind in KINDS:
                present[kind][np.unique(outcomes[f"{kind}_cohort"])] = True
        yield WHOLE, WHOLE, self
        for kind in KINDS:
            for place in np.flatnonzero(present[kind]).tolist():
                yield kind, COHORTS[place], StreamedScores(self.files, kind, place)

    def size(self) -> dict[str, float]:
        """Numbers of exposures (rows, and their sum of weights), conversions, users and items."""
        sums = {"exposures": 0, "weight": 0.0, "conversions": 0.0}
        users, items = np.zeros(self.files.users, dtype=bool), np.zeros(self.files.items, dtype=bool)
        for outcomes in self._kept(self.files.outcomes(CHUNK_ROWS)):
            sums["exposures"] += len(outcomes)
            sums["weight"] += float(outcomes["weight"].sum())
            sums["conversions"] += float(outcomes["weight"] @ (outcomes["label"] > 0))
            users[outcomes["user"]] = True
            items[outcomes["item"]] = True
        return {**sums, "users": int(users.sum()), "items": int(items.sum())}

    def metrics(self, name: Name, bins: int) -> dict[str, float]:
        """Each of METRICS of one ranker, and of REQUEST_METRICS where there are requests."""
        of_users = self._figures(name)
        weight = float(of_users.weights.sum())
        overall, calibrated = AucSums(np.ones((1, self.files.users), np.uint8)), CalibrationSums(weight, bins)
        for records in self._by_score(name):
            overall.add(records["score"], records["label"], records["weight"], records["user"])
            calibrated.add(records["score"], records["label"], records["weight"])
        return {
            "AUC": float(overall.aucs()[0]),
            "UAUC": user_auc(of_users.aucs),
            "WUAUC": user_auc(of_users.aucs, of_users.weights),
            "log loss": float(of_users.losses.sum() / weight),
            "calibration": calibrated.calibration(),
            "ECE": calibrated.error(),
            **self._of_requests(name),
        }

    def _of_requests(self, name: Name) -> dict[str, float]:
        metrics = RequestMetrics()
        if self.files.requests:
            for records in whole_requests(self._kept(self._sorted(name, ("request",)))):
                metrics.add(records["score"], records["label"], records["request"])
        return metrics.values()

    def resampled(self, variant: str, samples: int, seed: int) -> np.ndarray:
        """COMPARED metrics [1 + samples, 4] of a variant, means over its seeds; see ``evaluation.resampled``."""
        names = [name for name in self.names if name[0] == variant]
        figures = [self._figures(name) for name in names]
        users, means = figures[0].users, UserMeans(figures)
        generator = np.random.default_rng(seed)
        rows = np.empty((1 + samples, len(COMPARED)))
        step = max(1, TIMES_BYTES // max(1, self.files.users))
        for first in range(0, len(rows), step):
            numbers = range(first, min(first + step, len(rows)))
            times = np.zeros((len(numbers), self.files.users), np.uint8)
            for place, number in enumerate(numbers):
                drawn = generator.integers(0, len(users), len(users)) if number else np.arange(len(users))
                times[place, users] = np.bincount(drawn, minlength=len(users))
            aucs = np.mean([self._aucs(name, times) for name in names], axis=0)
            for place, number in enumerate(numbers):
                rows[number] = means.at(times[place, users].astype(np.float64), float(aucs[place]))
        return rows

    def _aucs(self, name: Name, times: np.ndarray) -> np.ndarray:
        sums = AucSums(times)
        for records in self._by_score(name):
            sums.add(records["score"], records["label"], records["weight"], records["user"])
        return sums.aucs()

    def _figures(self, name: Name) -> UserFigures:
        if name not in self._by_user:
            aucs = GroupedAucSums(self.files.users)
            weights, losses = np.zeros(self.files.users), np.zeros(self.files.users)
            present = np.zeros(self.files.users, dtype=bool)
            for records in self._kept(self._sorted(name, ("user", "score"))):
                user, score, label, weight = (records[each] for each in ("user", "score", "label", "weight"))
                aucs.add(score, label, weight, user)
                present[user] = True
                first, last = int(user[0]), int(user[-1])
                span = slice(first, last + 1)
                weights[span] += np.bincount(user - first, weight, last + 1 - first)
                losses[span] += np.bincount(user - first, weight * log_losses(score, label), last + 1 - first)
            users = np.flatnonzero(present)
            self._by_user[name] = UserFigures(users, aucs.aucs()[users], weights[users], losses[users])
        return self._by_user[name]

    def _by_score(self, name: Name) -> Iterator[np.ndarray]:
        return self._kept(self._sorted(name, ("score",)))

    def _sorted(self, name: Name, keys: Sequence[str]) -> Iterator[np.ndarray]:
        """All exposures in the order of ``keys``, from a file that the first call makes."""
        path: Path = self.files.folder / f"{'-'.join(keys)}-{name[0]}-{name[1]}"
        if not path.exists():
            sort_records(self.files.scored(name, CHUNK_ROWS), keys, path)
        return read_records(path, SCORED, CHUNK_ROWS)

    def _kept(self, parts: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        for records in parts:
            kept = records if self.dimension == WHOLE else records[records[f"{self.dimension}_cohort"] == self.place]
            if len(kept):
                yield kept
