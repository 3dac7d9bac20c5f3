"""The train stage: histories (and, for LEARN, embeddings) into a trained tower, chosen by validation."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from learn_spark.core.machine import peak_memory_mib
from learn_spark.core.settings.load import section_values
from learn_spark.core.settings.tower import blending_of
from learn_spark.core.stages.context import StageContext
from learn_spark.core.stages.registry import find_stage
from learn_spark.core.stages.stage import StageResult
from learn_spark.core.storage.folders import upload
from learn_spark.core.storage.path import StoragePath, storage_path
from learn_spark.core.tables.runs import MODELS
from learn_spark.core.tables.workspace_locks import only_one
from learn_spark.data.splits.selection import selection_of
from learn_spark.data.splits.training_view import TrainingView, Until
from learn_spark.data.text.templates import template
from learn_spark.encoder.identity import identify
from learn_spark.model.manifest import BlendingFacts, NarrowingFacts, Point, RerankerFacts, TrainingFacts
from learn_spark.model.parts import wide_vectors
from learn_spark.model.store import save_model
from learn_spark.model.training.calibration import (
    Calibration,
    HeldOut,
    calibrate,
    co_visits_of,
    is_calibrated,
    recent_of,
)
from learn_spark.model.training.checkpoint import Checkpoints
from learn_spark.model.training.launch import train_in_process, train_in_processes, train_on_spark
from learn_spark.model.training.loop import Trained, TrainingError
from learn_spark.model.training.narrowing import narrow
from learn_spark.model.training.prepare import prepare, save_catalogue, save_shares
from learn_spark.model.training.task import MARGIN, TrainingTask, build_tower, read_validation

STAGE = find_stage("train")
_AGAIN = {
    "strict": "with the last training events, which chose the epoch; no validation event is read",
    "refit": "with the validation events, which chose the epoch",
}


def run(context: StageContext) -> StageResult:
    """Train the settings' tower and save the model; an interrupted run of the same settings and inputs is resumed.

    Raises LockedError while another process does this training.
    """
    key = _plan_key(context)
    with only_one(context.workspace, f"training-{key}", f"the training {key}", f"run {context.run_id} of train"):
        unfinished = context.workspace.place / "models" / "unfinished" / key
        if unfinished.is_local:
            unfinished.local.mkdir(parents=True, exist_ok=True)
            return _run(context, unfinished.local, None)
        return _run(context, context.folder("models", "unfinished", key), unfinished)


def _run(context: StageContext, folder: Path, copy: StoragePath | None) -> StageResult:
    """Train in ``folder``; ``copy`` is the address of its checkpoints for another machine, None in a shared folder."""
    settings = context.settings
    if settings.training.resume == "auto" and copy is not None:
        for part in ("", "refit/"):
            Checkpoints(folder / f"{part}checkpoints", copy / f"{part}checkpoints").fetch()
    version = int(context.inputs["user_histories"])
    histories = TrainingView.open(context.path("user_histories"), version, selection_of(settings))
    resumed = settings.training.resume == "auto" and (folder / "checkpoints").is_dir()
    task, counts, space_key = prepare(context, histories, folder, copy)
    trained = _train(context, task)
    chosen_weights = final_weights = _best(task, trained)
    best_point = final_point = trained.curve[trained.best_epoch - 1]
    samples = sum(int(epoch["samples"]) for epoch in trained.curve)
    final_counts = counts
    trains_again = settings.training.trains_again
    if trains_again:
        context.console.say(f"training again for {trained.best_epoch} epochs, {_AGAIN[settings.training.rule]}")
        final_counts = histories.counts(task.n_items, until="validation_length")
        refit_task = replace(
            task,
            folder=str(folder / "refit"),
            copy=None if copy is None else copy / "refit",
            refit=trained.best_epoch,
            validation=None,
            catalogue=save_catalogue(final_counts, folder / "refit.npy"),
            log_q=save_shares(final_counts, folder / "refit_log_q.npy") if task.log_q else None,
        )
        refitted = _train(context, refit_task)
        samples += sum(int(epoch["samples"]) for epoch in refitted.curve)
        final_weights = _best(refit_task, refitted)
        final_point = refitted.curve[-1]
    tower = build_tower(task)
    tower.load_state_dict(final_weights)
    validation = {k.removeprefix("validation "): v for k, v in best_point.items() if k.startswith("validation ")}
    margin = validation.pop(MARGIN)
    calibration, held_out = Calibration(validation), None
    if is_calibrated(settings):
        chosen_tower = build_tower(task)
        chosen_tower.load_state_dict(chosen_weights)
        temperature = best_point.get("temperature", settings.objective.temperature)
        assert task.validation is not None
        held_out = HeldOut(histories, read_validation(storage_path(task.validation)), counts.events)
        calibration = calibrate(chosen_tower.eval(), temperature, held_out, validation, settings, context.console)
    validated = min(counts.users, settings.training.validation_users)
    facts = _facts(context, trained, final_point, calibration, tower.parameter_count(), space_key, validated, margin)
    blending, blending_settings, blended, narrowing = calibration.blending, blending_of(settings.tower), None, None
    if blending is not None and blending_settings is not None:
        co_visits, recent = blending.co_visits, blending.recent
        if trains_again:
            until: Until = "validation_length"
            co_visits = co_visits_of(histories, task.n_items, blending_settings, until=until)
            recent = recent_of(histories, task.n_items, blending_settings, settings, until=until)
        blended = blending.tensors(final_counts.events, co_visits, recent)
        blending = replace(
            blending, counts=final_counts.events, co_visits=co_visits, recent=recent, temperature=facts.temperature
        )
    if calibration.narrowing is not None and settings.tower.narrowing is not None and held_out is not None:
        released = calibration.narrowing[0]  # of the same vectors, where nothing is blended or trained again
        if trains_again or blending is not None:
            vectors, split = wide_vectors(tower.eval(), blending), held_out.split
            released = narrow(vectors, facts.temperature, split, settings.tower.narrowing, settings, context.console)
        narrowing = (released, *calibration.narrowing)
    model_id = save_model(
        context.workspace,
        tower,
        facts,
        trained.curve,
        settings,
        logs=folder / "logs",
        before_refit=chosen_weights if trains_again and settings.training.rule == "refit" else None,
        blending=blended,
        heads=calibration.heads,
        narrowing=narrowing,
    )
    shutil.rmtree(folder, ignore_errors=True)
    if copy is not None:
        copy.remove()
    return StageResult(
        rows_in=histories.rows,
        rows_out=histories.rows,
        counts={
            "epochs": len(trained.curve),
            "samples": samples,
            "parameters": tower.parameter_count(),
            "resumed": int(resumed),
            **({} if (peak := peak_memory_mib()) is None else {"peak_mib": peak}),
        },
        outputs={f"{MODELS}{model_id}": model_id},
        notes=(
            f"{tower.method}: {tower.parameter_count():,} parameters, {len(trained.curve)} epochs, {samples:,} "
            f"sequences; best epoch {trained.best_epoch} with NDCG@10 {calibration.validation['NDCG@10']:.4f} on "
            f"validation{_of_sample(counts.users, settings.training.validation_users, margin)}"
            f"{f', trained again {_AGAIN[settings.training.rule]}' if trains_again else ''}; model {model_id}",
        ),
    )


def _of_sample(users: int, sampled: int, margin: float) -> str:
    """What a figure on a sample of users is of; empty where all ``users`` were ranked."""
    return f" (+-{margin:.4f} at 95%: {sampled:,} of {users:,} users)" if users > sampled else ""


def _facts(
    context: StageContext,
    trained: Trained,
    final_point: Point,
    calibration: Calibration,
    parameters: int,
    space_key: str | None,
    validation_users: int,
    validation_margin: float,
) -> TrainingFacts:
    """The manifest's part of the training; ``final_point`` is the last epoch of the saved weights' training."""
    settings = context.settings
    blending, reranker = blending_of(settings.tower), settings.tower.reranker
    temperature = settings.objective.temperature
    return TrainingFacts(
        encoder_key=identify(settings.encoder).key,
        template_version=template(settings.text.template).key,
        space_key=space_key,
        window=settings.objective.history,
        inputs=dict(context.inputs),
        as_of=settings.histories.as_of,
        seed=settings.training.seed,
        epochs=len(trained.curve),
        best_epoch=trained.best_epoch,
        parameters=parameters,
        temperature=final_point.get("temperature", temperature),
        temperature_before_refit=trained.curve[trained.best_epoch - 1].get("temperature", temperature),
        validation=calibration.validation,
        validation_users=validation_users,
        validation_margin=validation_margin,
        validation_of_vectors=calibration.validation_of_vectors,
        rule=settings.training.rule,
        trial=settings.training.trial,
        blending=None
        if calibration.blending is None or blending is None
        else BlendingFacts(reach=blending.reach, decay=blending.decay, profile=blending.profile),
        reranker=None
        if calibration.heads is None or reranker is None
        else RerankerFacts(
            reach=reranker.reach,
            decay=reranker.decay,
            hidden=reranker.hidden,
            pair_users=reranker.pair_users,
            blended=calibration.blending is not None,
        ),
        narrowing=_narrowing(calibration),
    )


def _narrowing(calibration: Calibration) -> NarrowingFacts | None:
    if calibration.narrowing is None or calibration.validation_of_wide is None:
        return None
    one = calibration.narrowing[0]
    return NarrowingFacts(width=one.width, wide=one.wide, validation_of_wide=calibration.validation_of_wide)


def _plan_key(context: StageContext) -> str:
    """Identifies a training by its settings, inputs and code."""
    plan = {
        "settings": section_values(context.settings, STAGE.sections),
        "inputs": dict(context.inputs),
        "code": context.code_version,
    }
    return hashlib.sha256(json.dumps(plan, sort_keys=True).encode()).hexdigest()[:16]


def _best(task: TrainingTask, trained: Trained) -> dict[str, torch.Tensor]:
    """The weights of a training's best epoch. Raises TrainingError where no epoch has any."""
    assert task.folder is not None
    weights = Checkpoints(Path(task.folder) / "checkpoints").load_best()
    if weights is None:
        raise TrainingError(
            f"none of {len(trained.curve)} epochs has a validation NDCG@10, so that there is no model to save; see the "
            "training log"
        )
    return weights


def _train(context: StageContext, task: TrainingTask) -> Trained:
    assert task.folder is not None
    with context.observer.training(_plan_key(context), Path(task.folder) / "logs", again=bool(task.refit)):
        return _train_where_set(context, task)


def _train_where_set(context: StageContext, task: TrainingTask) -> Trained:
    training = context.settings.training
    if training.launcher == "spark":
        elsewhere = None if context.workers_are_here else _elsewhere(context, task)
        return train_on_spark(task, training.processes, lambda: context.spark, elsewhere)
    if training.processes > 1:
        return train_in_processes(task, training.processes)
    return train_in_process(task, context.console)


def _elsewhere(context: StageContext, task: TrainingTask) -> TrainingTask:
    """``task`` as executors on other machines read it.

    In a workspace at an address, each machine works in a temporary folder, and the rest lies beside the checkpoints.
    """
    if task.matrix is not None:
        matrix = Path(task.matrix)
        task = replace(task, matrix=context.for_workers(matrix, f"item_matrix-{matrix.name}"))
    if task.copy is None:
        return task
    copy = storage_path(task.copy, context.settings.storage.s3())
    there: dict[str, Any] = {"folder": None}
    for name, file in (("catalogue", task.catalogue), ("log_q", task.log_q), ("validation", task.validation)):
        if file is not None:
            there[name] = copy / Path(file).name
            upload(Path(file), copy / Path(file).name)
    return replace(task, **there)
