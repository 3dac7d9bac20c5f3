"""Metrics of exposures that come in parts, in the order of their scores: what is kept between the parts."""

from __future__ import annotations

import numpy as np


class AucSums:
    """The AUC [B] of exposures in ascending order of score, where user u counts ``times[b, u]`` times."""

    def __init__(self, times: np.ndarray) -> None:
        self._times = times
        self._right, self._won, self._lost = (np.zeros(len(times)) for _ in range(3))
        self._score: float | None = None  # of the tie that is not complete yet
        self._tie = np.zeros((2, len(times)))

    def add(self, scores: np.ndarray, labels: np.ndarray, weights: np.ndarray, users: np.ndarray) -> None:
        """The next exposures [n]."""
        ties = np.flatnonzero(np.append(True, np.diff(scores) != 0))
        positive = labels > 0
        if scores[0] != self._score:
            self._close()
        for number, times in enumerate(self._times):
            counted = weights * times[users]
            won = np.where(positive, counted, 0.0)
            lost = counted - won
            if len(ties) < len(scores):
                won, lost = np.add.reduceat(won, ties), np.add.reduceat(lost, ties)
            won[0] += self._tie[0, number]
            lost[0] += self._tie[1, number]
            self._tie[:, number] = won[-1], lost[-1]
            won, lost = won[:-1], lost[:-1]
            below = self._lost[number] + np.cumsum(lost)
            self._right[number] += won @ (below - 0.5 * lost)
            self._won[number] += won.sum()
            self._lost[number] += lost.sum()
        self._score = float(scores[-1])

    def aucs(self) -> np.ndarray:
        """The AUC [B] of all that was added; NaN without both classes."""
        self._close()
        pairs = self._won * self._lost
        return np.divide(self._right, pairs, out=np.full(len(pairs), np.nan), where=pairs > 0)

    def _close(self) -> None:
        won, lost = self._tie
        self._right += won * (self._lost + 0.5 * lost)
        self._won += won
        self._lost += lost
        self._tie = np.zeros_like(self._tie)
        self._score = None


class GroupedAucSums:
    """The AUC within each of ``count`` groups, of exposures in ascending order of (group, score)."""

    def __init__(self, count: int) -> None:
        self._right, self._won, self._lost = (np.zeros(count) for _ in range(3))
        self._open: tuple[int, float, float, float] | None = None  # group, score, won and lost of the last tie

    def add(self, scores: np.ndarray, labels: np.ndarray, weights: np.ndarray, groups: np.ndarray) -> None:
        """The next exposures [n]."""
        positive = labels > 0
        starts = np.flatnonzero(np.append(True, (np.diff(groups) != 0) | (np.diff(scores) != 0)))
        won, lost = (np.add.reduceat(np.where(side, weights, 0.0), starts) for side in (positive, ~positive))
        owner, score = groups[starts].astype(np.int64), scores[starts]
        if self._open is not None:
            group, last, tie_won, tie_lost = self._open
            if (owner[0], score[0]) == (group, last):
                won[0] += tie_won
                lost[0] += tie_lost
            else:
                owner, won, lost = np.append(group, owner), np.append(tie_won, won), np.append(tie_lost, lost)
        self._open = (int(owner[-1]), float(score[-1]), float(won[-1]), float(lost[-1]))
        self._complete(owner[:-1], won[:-1], lost[:-1])

    def aucs(self) -> np.ndarray:
        """The AUC [count] of all that was added; NaN where a group lacks a class."""
        if self._open is not None:
            group, _, won, lost = self._open
            self._open = None
            self._complete(np.array([group]), np.array([won]), np.array([lost]))
        pairs = self._won * self._lost
        return np.divide(self._right, pairs, out=np.full(len(pairs), np.nan), where=pairs > 0)

    def _complete(self, owner: np.ndarray, won: np.ndarray, lost: np.ndarray) -> None:
        """Add whole ties, in the order of (group, score)."""
        if not len(owner):
            return
        first, span = int(owner[0]), slice(int(owner[0]), int(owner[-1]) + 1)
        place, count = owner - first, span.stop - first
        wins, losses = (np.bincount(place, each, count) for each in (won, lost))
        before_group = np.append(0.0, np.cumsum(losses)[:-1])
        below = np.cumsum(lost) - lost - before_group[place] + self._lost[owner]
        self._right[span] += np.bincount(place, won * (below + 0.5 * lost), count)
        self._won[span] += wins
        self._lost[span] += losses


class CalibrationSums:
    """Calibration and ECE of exposures in ascending order of score, whose weights are ``weight`` together."""

    def __init__(self, weight: float, bins: int) -> None:
        self._weight, self._bins = weight, bins
        self._gaps = np.zeros(bins)
        self._below = 0.0  # weight of the exposures that were added
        self._score, self._tie_below = float("nan"), 0.0  # the last score, and the weight below it
        self._predicted = self._observed = 0.0

    def add(self, scores: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> None:
        """The next exposures [n]."""
        starts = np.append(True, np.diff(scores) != 0)
        below = (self._below + np.cumsum(weights) - weights)[starts]
        if scores[0] == self._score:
            below[0] = self._tie_below
        self._score, self._tie_below = float(scores[-1]), float(below[-1])
        self._below += float(weights.sum())
        share = below[np.cumsum(starts) - 1] / self._weight
        place = np.minimum((share * self._bins).astype(np.int64), self._bins - 1)
        self._gaps += np.bincount(place, weights * (scores - (labels > 0)), minlength=self._bins)
        self._predicted += float(weights @ scores)
        self._observed += float(weights @ (labels > 0))

    def calibration(self) -> float:
        """Predicted over observed conversions; NaN without a conversion."""
        return self._predicted / self._observed if self._observed else float("nan")

    def error(self) -> float:
        """ECE of all that was added."""
        return float(np.abs(self._gaps).sum() / self._weight) if self._weight else float("nan")
