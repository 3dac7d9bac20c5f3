"""The training loop: AdamW, warm-up and cosine, clipping, early stopping on validation NDCG@10, resume by epoch."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from learn_spark.errors import LearnSparkError
from learn_spark.feed.stream import HistoryStream
from learn_spark.objectives.dense_all_action import dense_all_action_loss
from learn_spark.objectives.sampling import CutBatch, RecencyWeights, cut_sequences, sample_positions
from learn_spark.progress import Bar, Reporter
from learn_spark.settings.schema import Feed, Objective, Training
from learn_spark.towers.learn import LearnTower
from learn_spark.training.checkpoint import Progress, load_checkpoint, save_checkpoint

Validate = Callable[[LearnTower], dict[str, float]]


class TrainingFailed(LearnSparkError):
    """Training that cannot go on: no usable sequence, or a loss that is not finite."""


@dataclass(frozen=True)
class Trained:
    """What training gave. ``curve`` has one point an epoch; ``rows`` counts rows seen, of ``expected_rows``."""

    best_epoch: int
    best_value: float
    curve: list[dict[str, Any]]
    resumed_at: int


def learning_rate(step: int, total: int, settings: Training) -> float:
    """Linear warm-up to the peak, then cosine to zero; ``step`` from 0."""
    warmup = max(1, round(settings.warmup_share * total))
    if step < warmup:
        return settings.learning_rate * (step + 1) / warmup
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))


class TrainingLoop:
    """Trains a LEARN tower on the histories of one snapshot.

    ``content`` [N + 1, C] holds the frozen embeddings by item_index, ``log_q`` [N + 1] the log shares of the training
    events for the objective's correction (None: no correction).

    Everything random is a function of (seed, pass), so that a run resumed after any epoch ends with the weights of
    an unbroken one.
    """

    def __init__(
        self,
        *,
        tower: LearnTower,
        content: np.ndarray,
        log_q: np.ndarray | None,
        stream: HistoryStream,
        feed: Feed,
        objective: Objective,
        training: Training,
        validate: Validate,
        checkpoint: Path,
        report: Reporter,
    ) -> None:
        self.tower, self.content, self.log_q, self.stream = tower, content, log_q, stream
        self.feed, self.objective, self.training = feed, objective, training
        self.validate, self.checkpoint, self.report = validate, checkpoint, report
        decayed = [p for p in tower.parameters() if p.dim() >= 2]
        plain = [p for p in tower.parameters() if p.dim() < 2]
        groups = [{"params": decayed, "weight_decay": training.weight_decay}, {"params": plain, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=training.learning_rate)
        self.recency = RecencyWeights(**objective.recency.model_dump()) if objective.recency else None

    def fit(self, *, stop_after: int | None = None) -> Trained:
        """Train until the epochs are done or patience is out; the tower then has its best epoch's weights.

        ``stop_after`` ends the work after so many epochs of this call, as if it had been killed there.
        """
        progress, best = self._resume()
        resumed_at = progress.epoch
        steps_per_epoch = self.training.passes_per_epoch * math.ceil(self.stream.snapshot.rows / self.feed.batch_size)
        total = steps_per_epoch * self.training.epochs
        with self.report.bar("training", total, "steps") as bar:
            bar.advance(progress.step)
            while progress.epoch < self.training.epochs:
                if progress.epoch - progress.best_epoch >= self.training.patience and progress.best_epoch > 0:
                    break
                if stop_after is not None and progress.epoch - resumed_at >= stop_after:
                    break
                point = self._epoch(progress, total, bar)
                metrics = self.validate(self.tower)
                progress.epoch += 1
                point |= {"epoch": progress.epoch, **{f"validation {k}": v for k, v in metrics.items()}}
                progress.curve.append(point)
                if metrics["NDCG@10"] > progress.best_value:
                    progress.best_value, progress.best_epoch = metrics["NDCG@10"], progress.epoch
                    best = {name: tensor.clone() for name, tensor in self.tower.state_dict().items()}
                save_checkpoint(self.checkpoint, self.tower, best, self.optimizer, progress)
        self.tower.load_state_dict(best)
        return Trained(progress.best_epoch, progress.best_value, progress.curve, resumed_at)

    def _resume(self) -> tuple[Progress, dict[str, torch.Tensor]]:
        found = load_checkpoint(self.checkpoint, self.tower, self.optimizer)
        if found is None:
            return Progress(0, 0, 0, -1.0, []), {n: t.clone() for n, t in self.tower.state_dict().items()}
        self.report.say(f"resuming after epoch {found[0].epoch} (checkpoint {self.checkpoint})")
        return found

    def _epoch(self, progress: Progress, total: int, bar: Bar) -> dict[str, Any]:
        self.tower.train()
        losses: list[float] = []
        rows = 0
        start = time.perf_counter()
        waited = 0.0
        for number in range(self.training.passes_per_epoch):
            turn = progress.epoch * self.training.passes_per_epoch + number
            torch.manual_seed(self.training.seed * 1_000_003 + turn)
            batches = self._batches(turn)
            while True:
                asked = time.perf_counter()
                batch = next(batches, None)
                waited += time.perf_counter() - asked
                if batch is None:
                    break
                for group in self.optimizer.param_groups:
                    group["lr"] = learning_rate(progress.step, total, self.training)
                progress.step += 1
                loss = self._step(batch)
                if loss is not None:
                    losses.append(loss)
                    rows += len(batch[0].rows)
                elapsed = time.perf_counter() - start
                bar.advance(
                    1,
                    f"loss {np.mean(losses[-50:]) if losses else float('nan'):.3f}, {rows / elapsed:,.0f} samples/s, "
                    f"waiting {waited / elapsed:.0%}, best NDCG@10 {max(progress.best_value, 0):.4f}",
                )
        if not losses:
            raise TrainingFailed(
                "no batch held two users with at least two training events each; there is nothing to contrast"
            )
        elapsed = time.perf_counter() - start
        return {
            "loss": float(np.mean(losses)),
            "samples": rows,
            "samples_per_second": rows / elapsed,
            "waiting_share": waited / elapsed,
        }

    def _batches(self, turn: int) -> Iterator[tuple[CutBatch, _Positions]]:
        generator = np.random.default_rng([self.training.seed, turn, 1])
        objective = self.objective
        for rows in self.stream.epoch(turn, self.feed.batch_size):
            cut = cut_sequences(
                rows["item_index"],
                rows["train_length"],
                history=objective.history,
                targets=objective.targets,
                generator=generator,
                cuts=rows["cut_length"],
            )
            history_weights, target_weights = cut.align(rows["weight"]) if "weight" in rows else (None, None)
            yield (
                cut,
                _Positions(
                    *sample_positions(
                        cut.history_length,
                        objective.history_positions,
                        generator=generator,
                        weights=self.recency or "uniform",
                        event_weights=history_weights,
                    ),
                    *sample_positions(
                        cut.target_length,
                        objective.target_positions,
                        generator=generator,
                        weights=self.recency or "uniform",
                        nearest="start",
                        event_weights=target_weights,
                    ),
                ),
            )

    def _step(self, batch: tuple[CutBatch, _Positions]) -> float | None:
        cut, at = batch
        if len(cut.rows) < 2:
            return None
        # No longer than the batch's longest: padding is work for nothing.
        history = cut.history[:, : int(cut.history_length.max())]
        targets = cut.targets[:, : int(cut.target_length.max())]
        target_ids = np.take_along_axis(cut.targets, at.targets, axis=1)
        user = self.tower.user(torch.from_numpy(self.content[history]))  # [B, H, D]
        item = self.tower.targets(torch.from_numpy(self.content[targets]))  # [B, T, D]
        rows = torch.arange(len(cut.rows)).unsqueeze(1)
        loss = dense_all_action_loss(
            user[rows, torch.from_numpy(at.history)],
            torch.from_numpy(at.history_mask),
            item[rows, torch.from_numpy(at.targets)],
            torch.from_numpy(at.target_mask),
            torch.from_numpy(target_ids),
            temperature=self.objective.temperature,
            log_q=None if self.log_q is None else torch.from_numpy(self.log_q[target_ids]),
        )
        value = float(loss.detach())
        if not math.isfinite(value):
            raise TrainingFailed(f"the loss is {value}; lower training.learning_rate or raise objective.temperature")
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.tower.parameters(), self.training.clip_norm)
        self.optimizer.step()
        return value


@dataclass(frozen=True)
class _Positions:
    history: np.ndarray
    history_mask: np.ndarray
    targets: np.ndarray
    target_mask: np.ndarray
