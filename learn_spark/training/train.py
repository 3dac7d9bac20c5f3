"""The train stage: histories and embeddings into a LEARN tower, chosen by validation alone."""

from __future__ import annotations

import hashlib
import json
import os
import shutil

import numpy as np
import pyarrow as pa
import torch

from learn_spark.encoder.identity import identify
from learn_spark.errors import LearnSparkError
from learn_spark.feed.item_matrix import item_matrix, item_matrix_path
from learn_spark.feed.stream import HistoryStream
from learn_spark.pipeline.stage import StageContext, StageResult
from learn_spark.retrieval.cuts import cut_histories, training_events
from learn_spark.retrieval.metrics import summarise
from learn_spark.retrieval.ranks import ranks_from_vectors
from learn_spark.retrieval.vectors import item_vectors, user_vectors
from learn_spark.settings import Settings, save_settings
from learn_spark.text.templates import template
from learn_spark.towers.adaptor import fit_whitening
from learn_spark.towers.learn import LearnTower, TowerShape
from learn_spark.training.loop import TrainingLoop
from learn_spark.training.model_store import save_model


def content_matrix(context: StageContext) -> tuple[np.ndarray, str]:
    """The raw item matrix of the pinned tables, and the key of its encoder."""
    settings = context.settings
    key = identify(settings.encoder).key
    path = item_matrix_path(
        context.snapshot("item_index"),
        context.snapshot("item_text"),
        context.snapshot("text_embeddings"),
        template_version=template(settings.text.template).key,
        encoder_key=key,
        cache=context.folder("cache", "item_matrix"),
    )
    return item_matrix(path), key


def tower_shape(settings: Settings, content_dim: int) -> TowerShape:
    """The shape that the settings ask for."""
    tower = settings.tower
    return TowerShape(
        content_dim=content_dim,
        width=tower.width,
        layers=tower.layers,
        heads=tower.heads,
        ffn=tower.ffn,
        output_dim=tower.output_dim,
        dropout=tower.dropout,
        item_tower=tower.item_tower,
    )


def log_shares(histories: pa.Table, n_items: int) -> np.ndarray:
    """log of each item's share of the training events [n_items + 1] by item_index; items without one count as one."""
    positions, _ = training_events(histories)
    counts = np.maximum(np.bincount(positions + 1, minlength=n_items + 1), 1)
    return np.log(counts / counts[1:].sum()).astype(np.float32)


def run(context: StageContext) -> StageResult:
    """Train, resuming a run of the same settings and inputs that was cut off."""
    settings = context.settings
    torch.set_num_threads(settings.training.threads or os.cpu_count() or 1)
    content, encoder_key = content_matrix(context)
    snapshot = context.snapshot("user_histories")
    histories = snapshot.to_arrow()
    validation = cut_histories(histories, "validation")
    if not len(validation.targets):
        raise LearnSparkError("train: no user has a validation target; histories need users with three events or more")

    def validate(tower: LearnTower) -> dict[str, float]:
        tower.eval()
        users = user_vectors(tower, content, validation.items, validation.lengths, settings.objective.history)
        items = item_vectors(tower, content)
        ks = sorted({10, *settings.evaluation.ks})
        ranks = ranks_from_vectors(
            users, items, validation.targets, validation.seen, depth=max(ks), batch=settings.evaluation.batch_users
        )
        return summarise(ranks, ks)

    torch.manual_seed(settings.training.seed)
    tower = LearnTower.of(tower_shape(settings, content.shape[1]))
    if settings.tower.whiten:
        tower.adaptor.set_whitening(*fit_whitening(content[1:], ridge=settings.tower.whitening_ridge))
    sections = ("encoder", "text", "feed", "tower", "objective", "training", "evaluation")
    plan = {
        "settings": {name: settings.model_dump()[name] for name in sections},
        "inputs": dict(context.inputs),
        "code": context.code_version,
    }
    plan_key = hashlib.sha256(json.dumps(plan, sort_keys=True).encode()).hexdigest()[:16]
    unfinished = context.folder("models", "unfinished", plan_key)
    save_settings(settings, unfinished)
    loop = TrainingLoop(
        tower=tower,
        content=content,
        log_q=log_shares(histories, len(content) - 1) if settings.objective.log_q else None,
        stream=HistoryStream(
            snapshot,
            ["item_index", "cut_length", "train_length", *(["weight"] if settings.histories.weights else [])],
            shuffle_rows=settings.feed.shuffle_rows,
            seed=settings.training.seed,
        ),
        feed=settings.feed,
        objective=settings.objective,
        training=settings.training,
        validate=validate,
        checkpoint=unfinished / "checkpoint.safetensors",
        report=context.report,
    )
    trained = loop.fit()
    best = trained.curve[trained.best_epoch - 1]
    manifest = {
        "method": "learn",
        "encoder_key": encoder_key,
        "template_version": template(settings.text.template).key,
        "window": settings.objective.history,
        "inputs": dict(context.inputs),
        "as_of": settings.histories.as_of,
        "seed": settings.training.seed,
        "best_epoch": trained.best_epoch,
        "epochs": len(trained.curve),
        "validation": {k.removeprefix("validation "): v for k, v in best.items() if k.startswith("validation ")},
        "parameters": tower.parameter_count(),
    }
    model_id = save_model(context.workspace, tower, manifest, trained.curve, settings)
    shutil.rmtree(unfinished, ignore_errors=True)
    samples = sum(point["samples"] for point in trained.curve)
    return StageResult(
        rows_in=snapshot.rows,
        rows_out=snapshot.rows,
        counts={"epochs": len(trained.curve), "samples": samples, "parameters": tower.parameter_count()},
        outputs={f"models/{model_id}": model_id},
        notes=(
            f"{tower.parameter_count():,} parameters, {len(trained.curve)} epochs, {samples:,} sequences; best epoch "
            f"{trained.best_epoch} with NDCG@10 {trained.best_value:.4f} on validation; model {model_id}",
        ),
    )
