"""A workspace as a whole road leaves it, planted by hand: real tables, a real (untrained) tower, hostile titles."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch

from learn_spark.core.settings import load_settings, save_settings
from learn_spark.core.tables.runs import Run, record
from learn_spark.core.tables.workspace import Workspace
from learn_spark.encoder.embedding_space import fit_embedding_space, register_embedding_space
from learn_spark.model.store import save_model
from learn_spark.model.towers.content import ContentTower
from tests.model.facts import training_facts
from tests.report.planted import FIRST_DAY, history_row, plant, release_row
from tests.world import write_config

HOSTILE = '</title></svg><script>document.title = "pwned"</script><img src=x onerror="document.title=1">'
N_ITEMS, N_USERS, HIDDEN, WINDOW = 30, 24, 12, 4
TEMPLATE, ENCODER = "movie@1", "e" * 64
METHODS = {"popularity": 0.04, "markov": 0.08, "frozen": 0.02, "learn": 0.06}
ADS_COHORTS = (("all", "all"), ("item", "cold"), ("item", "other"), ("user", "other"))
SLICES = {"popularity": ("unseen", "1-4", "5-19", "100+"), "same_day": ("same day", "another day")}


def item_id(index: int) -> str:
    """The id of an item; ids and indexes are in different orders."""
    return f"i{(index * 7) % 31:02d}"


def histories() -> dict[str, list[int]]:
    """24 users of 4 to 7 items of 1..29, every third of whom ends with its first item; item 30 has no event."""
    chance = random.Random(3)
    found = {f"u{n:02d}": chance.sample(range(1, N_ITEMS), chance.randint(4, 7)) for n in range(N_USERS)}
    return {user: [*items[:-1], items[0]] if n % 3 == 0 else items for n, (user, items) in enumerate(found.items())}


def embeddings() -> np.ndarray:
    """Raw vectors [N_ITEMS + 1, HIDDEN]; row 0 is the padding."""
    vectors = np.random.default_rng(5).normal(size=(N_ITEMS + 1, HIDDEN)).astype(np.float32)
    vectors[0] = 0
    return vectors


class Planted:
    """The workspace, its model and the ids of its runs by stage."""

    def __init__(self, folder: Path) -> None:
        self.workspace = Workspace.open(str(folder / "workspace"))
        self.config = write_config(
            folder / "small.yaml", raw=folder, workspace=self.workspace.root, model=folder / "llm"
        )
        self.settings = load_settings(self.config)
        self.runs: dict[str, str] = {}
        self._started = FIRST_DAY
        self.versions = self._tables()
        self._run("ingest", {}, ("items", "item_index"), rows_in=90, rows_out=84, refused=6)
        self._run("histories", self._of("item_index"), ("user_histories",), rows_in=80, rows_out=N_USERS)
        self.model_id = self._model()
        inputs = self._of("user_histories", "item_index", "item_text", "text_embeddings")
        self._run("train", inputs, (), outputs={f"models/{self.model_id}": "hash"}, parameters=1234)
        inputs["model"] = self.model_id
        self._evaluation(self._run("evaluate", inputs, (), rows_in=N_USERS, rows_out=2 * N_USERS), self.model_id)
        self._release(self._run("publish", inputs, (), rows_out=N_USERS + N_ITEMS))
        self._ads(self._run("rank_ads", {}, (), rows_in=500, rows_out=100))
        self._gates()

    def _of(self, *tables: str) -> dict[str, str]:
        return {table: self.versions[table] for table in tables}

    def _tables(self) -> dict[str, str]:
        indexes, vectors = range(1, N_ITEMS + 1), embeddings()
        titles = {i: f"Film {i}: a story & more" for i in indexes} | {2: HOSTILE, 3: None}
        keys = {i: hashlib.sha256(str(i).encode()).hexdigest() for i in indexes}
        rows: dict[str, list[dict[str, Any]]] = {
            "items": [{"item_id": item_id(i), "title": titles[i]} for i in indexes],
            "item_index": [{"item_id": item_id(i), "item_index": i} for i in indexes],
            "item_text": [
                {"item_id": item_id(i), "template_version": TEMPLATE, "text": str(i), "text_key": keys[i]}
                for i in indexes
            ],
            "text_embeddings": [
                {"encoder_key": ENCODER, "text_key": keys[i], "embedding": vectors[i].tolist(), "n_tokens": 3}
                for i in indexes
            ],
            "user_histories": [history_row(user, items) for user, items in histories().items()],
            "encoders": [
                {
                    "encoder_key": ENCODER,
                    "model": "a-small-llm",
                    "revision": "0123456789abcdef0",
                    "pooling": "mean",
                    "prefix": "",
                    "max_tokens": 64,
                    "normalise": True,
                    "precision": "fp32",
                    "first_used_at": FIRST_DAY,
                }
            ],
        }
        return {table: plant(self.workspace, table, found) for table, found in rows.items()}

    def _model(self, seed: int = 7) -> str:
        torch.manual_seed(seed)
        tower = ContentTower(
            n_items=N_ITEMS,
            content_dim=HIDDEN,
            width=8,
            layers=1,
            heads=2,
            ffn=16,
            output_dim=8,
            dropout=0.0,
            item_tower="a",
        )
        space = fit_embedding_space(embeddings()[1:], "centred")
        inputs = self._of("user_histories", "item_index", "item_text", "text_embeddings")
        facts = training_facts(
            encoder_key=ENCODER,
            template_version=TEMPLATE,
            space_key=register_embedding_space(self.workspace, space, ENCODER, inputs),
            window=WINDOW,
            inputs=inputs,
            seed=seed,
            best_epoch=2,
            epochs=3,
            validation={"NDCG@10": 0.05},
            parameters=tower.parameter_count(),
        )
        curve = [
            {"epoch": n, "loss": 5.0 - n, "validation NDCG@10": 0.05 - 0.01 * abs(n - 2), "validation HR@10": 0.1}
            for n in (1, 2, 3)
        ]
        return save_model(self.workspace, tower.eval(), facts, curve, self.settings)

    def _run(
        self,
        job: str,
        inputs: Mapping[str, str],
        writes: tuple[str, ...],
        outputs: Mapping[str, str] | None = None,
        **counts: int,
    ) -> str:
        self._started += timedelta(hours=1)
        run_id = f"{self._started:%Y%m%dT%H%M%S}-{job[:4]}"
        done = Run(
            run_id=run_id,
            job=job,
            status="done",
            config_hash="c" * 64,
            code_version="0.1.0+abc",
            inputs=dict(inputs),
            outputs={**self._of(*writes), **(outputs or {})},
            counts=counts,
            seconds=1.5,
            started_at=self._started,
        )
        record(self.workspace, done)
        save_settings(self.settings, self.workspace.folder("runs", run_id))
        self.runs[job] = run_id
        return run_id

    def _evaluation(self, run_id: str, model_id: str, better: float = 1.0) -> None:
        """Figures of METHODS, the model's ``better`` times as high."""
        rows, slices = [], []
        tables = self._of("user_histories", "item_index", "item_text", "text_embeddings")
        told = {"protocol": "leave_last_out", "settings_hash": "c" * 64, "tables": tables, "catalogue": N_ITEMS}
        for method, value in METHODS.items():
            model = model_id if method == "learn" else method
            value = value * better if method == "learn" else value
            base = {"run_id": run_id, "model_id": model, "method": method, "split": "test", "users": N_USERS}
            for number, name in enumerate(("coverage", "Gini", "head", "novelty")):
                rows.append({**base, **told, "metric": f"{name}@10", "value": 0.25 * (1 + number)})
            for metric, share in (("HR@10", 2 * value), ("NDCG@10", value)):
                rows.append({**base, **told, "metric": metric, "value": share})
                for dimension, names in (SLICES | {"all": ("all",)}).items():
                    for number, name in enumerate(names):
                        own = share * (1 + number / 10)
                        slices.append(
                            {
                                **base,
                                "dimension": dimension,
                                "slice": name,
                                "metric": metric,
                                "value": own,
                                "low": own / 2,
                                "high": 2 * own,
                                "items": 5 + number,
                            }
                        )
        plant(self.workspace, "evaluations", rows)
        plant(self.workspace, "evaluation_slices", slices)

    def _ads(self, run_id: str) -> None:
        size = {"exposures": 100, "weight": 900.0, "conversions": 20.0, "users": 9, "items": 8}
        shared = {"run_id": run_id, "model": "dcn_v2", "seed": None, "against": None, "p": None, **size}
        rows = []
        for number, (dimension, cohort) in enumerate(ADS_COHORTS):
            place = {**shared, "dimension": dimension, "cohort": cohort}
            for variant, better in (("base", 0.0), ("learn", 0.05)):
                value = 0.6 + better + number / 100
                around = {"value": value, "low": value - 0.01, "high": value + 0.01}
                for metric in ("AUC", "UAUC", "WUAUC", "log loss", "calibration", "ECE"):
                    rows.append({**place, "variant": variant, "metric": metric, **around})
                    rows.append({**place, "variant": variant, "metric": metric, "value": value, "seed": 1})
            around = {"value": 0.05, "low": -0.0125, "high": 0.1125}
            rows.append({**place, "variant": "learn", "against": "base", "metric": "AUC", "p": 0.125, **around})
        # Without both classes there is no AUC.
        place = {**shared, "dimension": "user", "cohort": "cold", "variant": "base", "metric": "AUC"}
        rows.append({**place, "value": None})
        plant(self.workspace, "ad_metrics", rows)

    def _release(self, run_id: str) -> None:
        rule = {"measure": "item_ids", "least": 30, "most": 30, "meaning": "items", "severity": "fail"}
        gate = json.dumps([{**rule, "observed": 30.0, "passed": True}])
        as_of = FIRST_DAY + timedelta(days=30)
        rows = [
            release_row(1, "r1", "staged", as_of, run_id=run_id),
            release_row(2, "r1", "released", as_of, run_id=run_id, gate_results=gate),
        ]
        plant(self.workspace, "releases", rows)

    def _gates(self) -> None:
        judged: list[tuple[str, float, bool, str, datetime]] = [
            ("rows", 30.0, True, "fail", FIRST_DAY),
            ("no_title", 0.9, False, "warn", FIRST_DAY),
            ("repeated_keys", 1.0, False, "fail", FIRST_DAY),
            # Judged again, by then right.
            ("repeated_keys", 0.0, True, "fail", FIRST_DAY + timedelta(hours=1)),
        ]
        rows = [
            {
                "run_id": self.runs["ingest"],
                "judged_table": "items",
                "judged_version": int(self.versions["items"]),
                "rule": rule,
                "fingerprint": "f",
                "severity": severity,
                "passed": passed,
                "observed": observed,
                "least": None,
                "most": 0.5,
                "compared_version": None,
                "meaning": "a rule",
                "judged_at": at,
            }
            for rule, observed, passed, severity, at in judged
        ]
        plant(self.workspace, "quality_results", rows)
