"""The training loop: AdamW, warm-up, clipping, accumulation, early stopping by validation NDCG@10, exact resume."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from learn_spark.core.console import Bar, Reporter
from learn_spark.core.errors import LearnSparkError
from learn_spark.core.settings.histories import FeedSettings
from learn_spark.core.settings.training import TrainingSettings
from learn_spark.core.storage.path import StoragePath
from learn_spark.model.feed.prefetch import prefetch
from learn_spark.model.feed.stream import HistoryStream
from learn_spark.model.manifest import Point
from learn_spark.model.towers.tower import Tower
from learn_spark.model.training.average import WeightAverage
from learn_spark.model.training.batches import BatchMaker
from learn_spark.model.training.checkpoint import Checkpoints, Progress
from learn_spark.model.training.lazy_adamw import LazyAdamW, clip_gradients, has_sparse_ids
from learn_spark.model.training.objective import Batch, ObjectiveLoss
from learn_spark.model.training.precision import mixed, multiplies_bf16
from learn_spark.model.training.process_group import ProcessGroup
from learn_spark.model.training.schedule import learning_rate
from learn_spark.model.training.tracking import Tracker

Validate = Callable[[Tower], dict[str, float]]
PREFETCHED_BATCHES = 4  # batches prepared while the model computes
STEPS_PER_LINE = 20


class TrainingError(LearnSparkError):
    """Training that cannot continue: no usable sequence, or a loss that is not finite."""


@dataclass(frozen=True)
class Trained:
    """The result of a training. ``curve`` has one point an epoch; the tower has the weights of ``best_epoch``."""

    best_epoch: int
    best_value: float
    curve: list[Point]
    resumed_at: int


class TrainingLoop:
    """Trains a tower on the histories of one snapshot, in one process or as one of several.

    Everything random is a function of (seed, turn, rank, step), so that a training that was killed and resumed ends
    with the weights of an unbroken one (on CPU in fp32: bit for bit). ``validate`` is called in all processes at once,
    and the first one's metrics count.
    """

    def __init__(
        self,
        *,
        tower: Tower,
        loss: ObjectiveLoss,
        stream: HistoryStream,
        maker: BatchMaker,
        feed: FeedSettings,
        training: TrainingSettings,
        validate: Validate | None,
        folder: Path,
        copy: StoragePath | None = None,
        console: Reporter,
        device: torch.device | None = None,
    ) -> None:
        self.device = device or torch.device("cpu")
        self.tower, self.loss = tower.to(self.device), loss.to(self.device)
        self.group: ProcessGroup = loss.group
        self.stream, self.maker, self.feed, self.training = stream, maker, feed, training
        self.validate, self.folder, self.console = validate, folder, console
        self.mixed = mixed(training.precision, self.device)
        if self.mixed and not multiplies_bf16(self.device):
            console.say(
                "training.precision bf16: this device has no bf16 products; fp32 (or auto) is several times faster"
            )
        elif training.precision == "auto":
            console.say(f"training.precision auto: {'bf16' if self.mixed else 'fp32'} on this device")
        tables = self.tower.id_tables
        if tables and has_sparse_ids(training, loss.settings, self.tower.n_items):
            for table in tables:
                table.sparse = True
            console.say("training.id_gradients: a step changes the ID vectors of its batch only")
        self.modules = nn.ModuleDict({"tower": self.tower, "loss": self.loss})
        self.average = WeightAverage(self.tower, training.average) if training.average else None
        if self.average is not None:
            self.modules["average"] = self.average
        self.parameters = [p for p in self.modules.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in self.parameters if p.dim() >= 2], "weight_decay": training.weight_decay},
            {"params": [p for p in self.parameters if p.dim() < 2], "weight_decay": 0.0},
        ]
        self.optimizer = LazyAdamW(
            [group for group in groups if group["params"]],
            lr=training.learning_rate,
            betas=(0.9, training.beta2),
            fused=True,
        )
        self.checkpoints = Checkpoints(folder / "checkpoints", copy)
        self.batches_per_turn = stream.steps(feed.batch_size)
        self.batches_per_epoch = training.passes_per_epoch * self.batches_per_turn
        self.steps_per_epoch = math.ceil(self.batches_per_epoch / training.accumulate)
        if training.compile:
            tower.compile_blocks()

    def fit(self, epochs: int | None = None) -> Trained:
        """Train until all epochs are done or patience is exhausted; the tower then has its best epoch's weights.

        ``epochs`` ends training before the settings' number of epochs, with the learning rates of the longer training.
        Without validation, the newest epoch is the best.

        Raises TrainingError where an epoch has no pair to learn from, or the loss is not finite.
        """
        progress = self._resume()
        resumed_at = progress.epoch
        board = "tensorboard" in self.training.tracking
        tracker = Tracker(self.folder / "logs", step=progress.step, tensorboard=board) if self.group.first else None
        epochs = self.training.epochs if epochs is None else epochs
        total = self.batches_per_epoch * epochs
        try:
            with self.console.bar("training", total, "batches") as bar:
                bar.advance(progress.epoch * self.batches_per_epoch + progress.batch)
                while progress.epoch < epochs and not self._out_of_patience(progress):
                    self._epoch(progress, bar, tracker)
                    self._validate(progress, tracker)
        finally:
            if tracker is not None:
                tracker.close()
        best = self.checkpoints.load_best()
        if best is not None:
            self.tower.load_state_dict(best)
        return Trained(progress.best_epoch, progress.best_value, progress.curve, resumed_at)

    def _out_of_patience(self, progress: Progress) -> bool:
        return 0 < progress.best_epoch <= progress.epoch - self.training.patience

    def _resume(self) -> Progress:
        progress = self.checkpoints.load_last(self.modules, self.optimizer) if self.training.resume == "auto" else None
        if progress is None:
            return Progress()
        self.console.say(
            f"resuming in epoch {progress.epoch + 1}, batch {progress.batch + 1} (from {self.checkpoints.folder})"
        )
        return progress

    def _epoch(self, progress: Progress, bar: Bar, tracker: Tracker | None) -> None:
        """Train the rest of the epoch at ``progress``."""
        self.tower.train()
        running = progress.running
        for name in ("loss", "pairs", "samples", "seconds", "waited"):
            running.setdefault(name, 0.0)
        last_saved = clock = time.perf_counter()
        batches = prefetch(self._batches(progress.epoch, progress.batch), PREFETCHED_BATCHES)
        try:
            while progress.batch < self.batches_per_epoch:
                requested_at = time.perf_counter()
                batch = next(batches, None)
                running["waited"] += time.perf_counter() - requested_at
                if batch is None:
                    raise TrainingError(
                        f"epoch {progress.epoch + 1} ended after {progress.batch} of {self.batches_per_epoch} batches"
                    )
                self._batch(progress, batch)
                now = time.perf_counter()
                running["seconds"] += now - clock
                clock = now
                stepped = progress.batch % self.training.accumulate == 0 or progress.batch == self.batches_per_epoch
                bar.advance(1, self._progress_note(progress))
                if not stepped:
                    continue
                if tracker is not None and progress.step % STEPS_PER_LINE == 0:
                    tracker.write(progress.step, {"epoch": progress.epoch, **self._rates(progress)})
                due = now - last_saved >= 60 * self.training.checkpoint_minutes
                if progress.batch < self.batches_per_epoch and self.group.broadcast(due):
                    if self.group.first:
                        self.checkpoints.save_last(self.modules, self.optimizer, progress)
                    last_saved = now
            # One more request makes the stream check that it gave every row.
            if next(batches, None) is not None:
                raise TrainingError(f"epoch {progress.epoch + 1} has more than {self.batches_per_epoch} batches")
        finally:
            batches.close()

    def _batches(self, epoch: int, start: int) -> Iterator[Batch]:
        """The epoch's batches from number ``start`` on."""
        for number in range(start // self.batches_per_turn, self.training.passes_per_epoch):
            turn = epoch * self.training.passes_per_epoch + number
            first = max(0, start - number * self.batches_per_turn)
            rows = self.stream.epoch(turn, self.feed.batch_size, start=first)
            for step, row in enumerate(rows, first):
                yield self.maker.make(row, turn=turn, step=step)

    def _batch(self, progress: Progress, batch: Batch) -> None:
        training = self.training
        at = progress.epoch * self.batches_per_epoch + progress.batch
        # Dropout, too, is a function of the batch's place in the training.
        torch.manual_seed((training.seed * 1_000_003 + at) * self.group.size + self.group.rank)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.mixed):
            terms, count = self.loss(self.tower, batch.to(self.device))
        users = torch.tensor(batch.users, dtype=torch.float64, device=self.device)
        sums = self.group.sum(torch.stack([terms.detach().double(), count.double(), users]))
        value, pairs, samples = (float(x) for x in sums)
        if not math.isfinite(value):
            raise TrainingError(
                f"the loss is {value} in epoch {progress.epoch + 1}, batch {progress.batch + 1}; lower "
                "training.learning_rate or raise objective.temperature"
            )
        if pairs:
            (terms / pairs).backward()
        progress.running["loss"] += value
        progress.running["pairs"] += pairs
        progress.running["samples"] += samples
        progress.batch += 1
        if progress.batch % training.accumulate == 0 or progress.batch == self.batches_per_epoch:
            self._step(progress)

    def _step(self, progress: Progress) -> None:
        self.group.sum_gradients(self.parameters)
        rate = learning_rate(progress.step, self.steps_per_epoch * self.training.epochs, self.training)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        accumulated = (progress.batch - 1) % self.training.accumulate + 1
        if accumulated > 1:
            for parameter in self.parameters:
                if parameter.grad is not None:
                    parameter.grad /= accumulated
        clip_gradients(self.parameters, self.training.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update(progress.step)
        progress.step += 1

    def _validate(self, progress: Progress, tracker: Tracker | None) -> None:
        running = progress.running
        if not running["pairs"]:
            raise TrainingError(
                "no batch has two users with at least two training events each, so there are no pairs to contrast; "
                "train on more histories or raise feed.batch_size"
            )
        self.tower.eval()
        metrics: dict[str, float] = {}
        if self.validate is not None:
            with self._averaged_weights():
                metrics = self.group.broadcast(self.validate(self.tower))
        progress.epoch, progress.batch = progress.epoch + 1, 0
        point: Point = {"epoch": progress.epoch, **self._rates(progress), "samples": int(running["samples"])}
        point |= {f"validation {name}": value for name, value in metrics.items()}
        if self.loss.log_temperature is not None:
            point["temperature"] = float(torch.as_tensor(self.loss.temperature).detach())
        progress.curve.append(point)
        progress.running = {}
        if tracker is not None:
            tracker.write(progress.step, point)
        better = not metrics or metrics["NDCG@10"] > progress.best_value
        if better:
            progress.best_value, progress.best_epoch = metrics.get("NDCG@10", progress.best_value), progress.epoch
        if self.group.first:
            if better:
                with self._averaged_weights():
                    self.checkpoints.save_best(self.tower, progress)
            self.checkpoints.save_last(self.modules, self.optimizer, progress)
        self.group.broadcast(None)  # no process continues before the checkpoint is written

    def _averaged_weights(self) -> AbstractContextManager[None]:
        return nullcontext() if self.average is None else self.average.applied()

    @staticmethod
    def _rates(progress: Progress) -> dict[str, float]:
        running, seconds = progress.running, max(progress.running["seconds"], 1e-9)
        return {
            "loss": running["loss"] / max(running["pairs"], 1.0),
            "samples_per_second": running["samples"] / seconds,
            "waiting_share": running["waited"] / seconds,
        }

    def _progress_note(self, progress: Progress) -> str:
        rates = self._rates(progress)
        return (
            f"loss {rates['loss']:.3f}, {rates['samples_per_second']:,.0f} samples/s, "
            f"waiting {rates['waiting_share']:.0%}, best NDCG@10 {max(progress.best_value, 0):.4f}"
        )
