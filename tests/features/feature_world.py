"""A world to publish from: tables planted without a JVM, a real tower of random weights, the publish stage alone."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from deltalake import write_deltalake
from pyspark.sql import SparkSession

from learn_spark.core.console import Reporter
from learn_spark.core.ragged import fixed_lists
from learn_spark.core.settings import Settings, load_settings
from learn_spark.core.stages.context import SparkHolder, StageContext
from learn_spark.core.stages.registry import find_stage
from learn_spark.core.stages.stage import StageResult
from learn_spark.core.tables.contracts import contract
from learn_spark.core.tables.runs import Run, new_run_id, record
from learn_spark.core.tables.snapshot import Snapshot, current_version
from learn_spark.core.tables.workspace import Workspace
from learn_spark.data.text.templates import template
from learn_spark.encoder.embedding_space import fit_embedding_space, register_embedding_space
from learn_spark.encoder.identity import identify
from learn_spark.features.publish import release_id, run
from learn_spark.features.read import KEYS
from learn_spark.model.manifest import BlendingFacts, NarrowingFacts
from learn_spark.model.narrowing.projections import Projections
from learn_spark.model.parts import ModelBlending
from learn_spark.model.store import save_model
from learn_spark.model.towers.content import ContentTower
from tests.model.facts import training_facts
from tests.report.planted import FIRST_DAY, history_row
from tests.world import write_config

HIDDEN, WINDOW, DIMS = 6, 3, 4


class FeatureWorld:
    """Users with histories, items with texts, a model; ``publish`` runs the stage on the current tables."""

    def __init__(self, folder: Path, spark: SparkSession, encoder: Path | None = None) -> None:
        self.spark = spark
        self.workspace = Workspace.open(str(folder / "workspace"))
        if encoder is None:
            encoder = folder / "llm"
            encoder.mkdir(parents=True)
            # Identified by a hash of its weights; it is not loaded here.
            (encoder / "model.safetensors").write_bytes(b"weights")
        self.encoder = encoder
        self.config = write_config(folder / "c.yaml", raw=folder, workspace=self.workspace.root, model=encoder)
        self.encoder_key = identify(self.settings().encoder).key
        self.texts: dict[str, str] = {}
        self.histories: dict[str, list[int]] = {}
        self.model_id = ""

    def copy(self, folder: Path) -> FeatureWorld:
        """An independent copy of this world in ``folder``."""
        shutil.copytree(self.workspace.root, folder / "workspace")
        world = FeatureWorld(folder, self.spark, self.encoder)
        world.texts, world.histories, world.model_id = dict(self.texts), dict(self.histories), self.model_id
        return world

    def settings(self, *overrides: str) -> Settings:
        """The world's settings."""
        return load_settings(self.config, overrides)

    def put(self, table: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Replace a table's rows."""
        data = pa.Table.from_pylist([dict(row) for row in rows], schema=contract(table).arrow_schema())
        write_deltalake(self.workspace.table(table), data, mode="overwrite")

    def items(self, texts: Mapping[str, str]) -> None:
        """The catalogue: item id -> text. Item n (from 1) is the n-th that was ever named."""
        self.texts |= texts
        version = template(self.settings().text.template).key
        keys = {item: hashlib.sha256(text.encode()).hexdigest() for item, text in self.texts.items()}
        chance = {k: np.random.default_rng(int(k[:8], 16)).normal(size=HIDDEN).tolist() for k in keys.values()}
        self.put("item_index", [{"item_id": i, "item_index": n} for n, i in enumerate(self.texts, 1)])
        self.put(
            "item_text",
            [
                {"item_id": i, "template_version": version, "text": t, "text_key": keys[i]}
                for i, t in self.texts.items()
            ],
        )
        self.put(
            "text_embeddings",
            [
                {"encoder_key": self.encoder_key, "text_key": k, "embedding": v, "n_tokens": 3}
                for k, v in chance.items()
            ],
        )

    def users(self, histories: Mapping[str, list[int]], *, gone: Sequence[str] = ()) -> None:
        """Set the histories (user id -> item numbers, one a day) of these users; ``gone`` have none any more."""
        self.histories = {u: h for u, h in {**self.histories, **histories}.items() if u not in gone}
        self.put("user_histories", [history_row(user, items) for user, items in self.histories.items()])

    def train(
        self,
        seed: int = 1,
        ndcg: float = 0.1,
        encoder_key: str | None = None,
        blending: ModelBlending | None = None,
        narrowing: Projections | None = None,
    ) -> None:
        """A model of weights drawn by ``seed``, over the settings' encoder or another; ``blending`` and ``narrowing``
        upon it.
        """
        encoder_key = encoder_key or self.encoder_key
        torch.manual_seed(seed)
        shape: dict[str, Any] = {"width": 8, "layers": 1, "heads": 2, "ffn": 16, "dropout": 0.0, "item_tower": "a"}
        tower = ContentTower(n_items=len(self.texts), content_dim=HIDDEN, output_dim=DIMS, **shape)
        space = fit_embedding_space(np.eye(HIDDEN, dtype=np.float32), "raw")
        facts = training_facts(
            encoder_key=encoder_key,
            space_key=register_embedding_space(self.workspace, space, encoder_key, {}),
            window=WINDOW,
            validation={"NDCG@10": ndcg},
            seed=seed,
            blending=None if blending is None else BlendingFacts(reach=blending.reach),
            narrowing=None
            if narrowing is None
            else NarrowingFacts(width=narrowing.width, wide=narrowing.wide, validation_of_wide={"NDCG@10": ndcg}),
            temperature=0.05 if blending is None else blending.temperature,
        )
        tensors = None if blending is None else blending.tensors(blending.counts)
        self.model_id = save_model(
            self.workspace,
            tower.eval(),
            facts,
            [],
            self.settings(),
            blending=tensors,
            narrowing=None if narrowing is None else [narrowing] * 3,
        )
        record(
            self.workspace,
            Run(
                run_id=new_run_id(),
                job="train",
                status="done",
                config_hash="c",
                code_version="v",
                inputs={},
                outputs={f"models/{self.model_id}": "h"},
                counts={},
                seconds=1.0,
                started_at=FIRST_DAY,
            ),
        )

    def context(self, *overrides: str, force: bool = False) -> StageContext:
        """The context of the publish stage, with every input pinned to its newest version."""
        settings = self.settings(*overrides)
        inputs = {t: str(current_version(self.workspace.table(t))) for t in find_stage("publish").reads}
        inputs["model"] = self.model_id
        holder = SparkHolder(settings, verbose=False)
        return StageContext(
            settings, self.workspace, new_run_id(), inputs, Reporter(quiet=True), holder, "v", forced=force
        )

    def publish(self, *overrides: str, force: bool = False) -> tuple[str, StageResult]:
        """(release id, result of the stage)."""
        context = self.context(*overrides, force=force)
        return release_id(context), run(context)

    def version(self, table: str) -> int | None:
        """Newest version of a table."""
        return current_version(self.workspace.table(table))

    def vectors(self, table: str, version: int | None = None) -> dict[str, np.ndarray]:
        """id -> vector of a feature table, newest version if None."""
        rows = Snapshot.open(self.workspace.table(table), version).to_arrow()
        return dict(zip(rows[KEYS[table]].to_pylist(), fixed_lists(rows["embedding"]), strict=True))
