"""A workspace planted without Spark: readers of one of two kinds of books, the log cut by the real assembler."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from learn_spark.core.console import Reporter
from learn_spark.core.settings import Settings, load_settings
from learn_spark.core.stages.code import stage_version
from learn_spark.core.stages.context import SparkHolder, StageContext
from learn_spark.core.stages.observer import Observer
from learn_spark.core.stages.registry import find_stage
from learn_spark.core.stages.stage import StageResult
from learn_spark.core.tables.contracts import contract
from learn_spark.core.tables.runs import Run, record
from learn_spark.core.tables.workspace import Workspace
from learn_spark.data.histories.protocols import TEST, TRAINING, VALIDATION
from learn_spark.data.text.templates import template
from learn_spark.encoder.identity import identify
from learn_spark.pipeline.runner import plan_stage
from tests.numpy_histories import AssemblyPlan, assemble_stream
from tests.report.planted import plant
from tests.world import write_config

USERS, BOOKS, COLD, WIDTH = 96, 40, 8, 12
CUT, DAY = datetime(2024, 6, 1, tzinfo=UTC), 86_400_000_000
Event = tuple[int, int]  # (day from the cut on, book)

SETTINGS = (
    "histories={max_length: 12}",
    "tower={kind: learn, width: 16, layers: 1, heads: 2, ffn: 16, output_dim: 8, dropout: 0.1, item_tower: a}",
    "objective={history: 6, targets: 3, history_positions: 3, target_positions: 2, temperature: 0.1}",
    "training={epochs: 2, passes_per_epoch: 1, learning_rate: 0.01, seed: 3, threads: 1, device: cpu}",
    "evaluation={ks: [5, 10], bootstrap_samples: 50}",
    "embedding_space={kind: centred}",
)
RIVAL = ("tower.kind=sasrec", "tower.similarity=dot", "objective.predicts=next_item", "objective.temperature=1.0")


def kind_of(book: int) -> int:
    """Books are of the kinds 0 and 1 in turns."""
    return book % 2


def reading(seed: int = 0) -> list[list[Event]]:
    """The log: every user reads 4 to 7 books of a kind before the cut and 3 from it on, the last of them one that came
    out after the cut: 41 or 42, but users 0, 4, 8, ... read 47 or 48, and nobody else does.
    """
    chance = np.random.default_rng(seed)
    log = []
    for user in range(USERS):
        own = [book for book in range(1, BOOKS + 1) if kind_of(book) == user // 4 % 2]
        new = [book for book in range(BOOKS + 1, BOOKS + COLD + 1) if kind_of(book) == kind_of(own[0])]
        books = chance.permutation(own)[: chance.integers(6, 10)].tolist()
        late = [*books[-2:], new[-1 if user % 4 == 0 else 0]]
        before = books[:-2]
        log.append([*((-3 * len(before) + 3 * i - 1, b) for i, b in enumerate(before)), *enumerate(late)])
    return log


def role_of(user: int) -> int:
    """A quarter of the users is held out for test, another for validation."""
    return {0: TEST, 1: VALIDATION}.get(user % 4, TRAINING)


class Shelf:
    """The workspace, and its stages without their gates. ``protocol`` is time_split, leave_last_out or last_day."""

    def __init__(self, folder: Path, log: Sequence[Sequence[Event]], protocol: str = "leave_last_out") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        llm = folder.parent / "llm"
        llm.mkdir(exist_ok=True)
        (llm / "model.safetensors").write_bytes(b"weights that nobody loads")
        self.workspace = Workspace.open(str(folder / "workspace"))
        self.config = write_config(folder / "shelf.yaml", raw=folder, workspace=self.workspace.root, model=llm)
        split = {
            "leave_last_out": (),
            "last_day": (f"histories={{max_length: {WIDTH}, protocol: last_day}}",),
            "time_split": (
                f"histories={{max_length: {WIDTH}, protocol: time_split, split_time: '{CUT:%Y-%m-%d}', targets: 4}}",
            ),
        }
        self._settings = (*SETTINGS, *split[protocol])
        self.protocol = protocol
        self._clock = CUT
        self._plant_items()
        self.plant_log(log)

    def settings(self, *overrides: str) -> Settings:
        """The shelf's settings with overrides on top."""
        return load_settings(self.config, (*self._settings, *overrides))

    def plant_log(self, log: Sequence[Sequence[Event]]) -> None:
        """Append the log's histories, one file a call."""
        plant(self.workspace, "user_histories", histories(log, self.protocol).to_pylist())

    def _plant_items(self) -> None:
        settings = self.settings()
        books = range(1, BOOKS + COLD + 1)
        chance = np.random.default_rng(1)
        vectors = chance.normal(scale=0.3, size=(len(books), 8)).astype(np.float32)
        vectors[:, 0] += [2.0 * kind_of(book) - 1.0 for book in books]
        titles = [f"Book {book}" for book in books]
        keys = [hashlib.sha256(title.encode()).hexdigest() for title in titles]
        named = [{"item_id": f"b{book:02}"} for book in books]
        version = template(settings.text.template).key
        plant(self.workspace, "items", [n | {"title": t} for n, t in zip(named, titles, strict=True)])
        plant(self.workspace, "item_index", [n | {"item_index": b} for n, b in zip(named, books, strict=True)])
        texts = [
            n | {"template_version": version, "text": text, "text_key": key}
            for n, text, key in zip(named, titles, keys, strict=True)
        ]
        plant(self.workspace, "item_text", texts)
        encoder = identify(settings.encoder).key
        embedded = [
            {"encoder_key": encoder, "text_key": key, "embedding": vector.tolist(), "n_tokens": 3}
            for key, vector in zip(keys, vectors, strict=True)
        ]
        plant(self.workspace, "text_embeddings", embedded)

    def context(self, name: str, *overrides: str, forced: bool = False) -> StageContext:
        """What the stage would be given now."""
        settings = self.settings(*overrides)
        stage = find_stage(name)
        plan = plan_stage(stage, settings, self.workspace)
        self._clock += timedelta(hours=1)
        run_id = f"{self._clock:%Y%m%dT%H%M%S}-{name}"
        holder = SparkHolder(settings, verbose=False)
        return StageContext(
            settings,
            self.workspace,
            run_id,
            plan.inputs,
            Reporter(quiet=True),
            holder,
            stage_version(stage),
            forced=forced,
        )

    def run(
        self, name: str, *overrides: str, forced: bool = False, observer: Observer | None = None
    ) -> tuple[Run, StageResult]:
        """Run a stage and record it; ``observer`` is told of it."""
        observer = observer or Observer()
        context = replace(self.context(name, *overrides, forced=forced), observer=observer)
        plan = plan_stage(find_stage(name), context.settings, self.workspace)
        begun = Run(
            run_id=context.run_id,
            job=name,
            status="running",
            config_hash=plan.config_hash,
            code_version=context.code_version,
            inputs=dict(context.inputs),
            outputs={},
            counts={},
            seconds=1.0,
            started_at=self._clock,
        )
        observer.started(find_stage(name), begun)
        result: StageResult = find_stage(name).load().run(context)
        done = replace(begun, status="done", outputs=dict(result.outputs), counts=dict(result.counts))
        record(self.workspace, done)
        observer.finished(find_stage(name), done)
        return done, result


def histories(log: Sequence[Sequence[Event]], protocol: str) -> pa.Table:
    """The log as rows of user_histories, as the assembler's worker makes them."""
    cut = int(CUT.timestamp() * 1e6)
    flat = [(user, day, book) for user, events in enumerate(log) for day, book in events]
    columns: Mapping[str, Any] = {
        "run": pa.array([user for user, _, _ in flat], pa.int64()),
        "user_id": [f"u{user:02}" for user, _, _ in flat],
        "item_index": pa.array([book for _, _, book in flat], pa.int32()),
        "time": pa.array([cut + day * DAY for _, day, _ in flat], pa.int64()),
        "event_id": [f"e{number:05}" for number in range(len(flat))],
        "role": pa.array([role_of(user) for user, _, _ in flat], pa.int32()),
    }
    timed = protocol == "time_split"
    plan = AssemblyPlan(protocol, WIDTH, cut if timed else None, 4 if timed else 0)
    work: Callable[..., Any] = assemble_stream(plan, contract("user_histories").arrow_schema())
    return pa.Table.from_batches(list(work(pa.table(columns).to_batches())))
