"""The train stage: histories (and, for LEARN, embeddings) into a trained tower, chosen by validation."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

from learn_spark.core.machine import peak_memory_mib
from learn_spark.core.settings.load import section_values
from learn_spark.core.settings.tower import blending_of
from learn_spark.core.stages.context import StageContext
from learn_spark.core.stages.registry import find_stage
from learn_spark.core.stages.stage import StageResult
from learn_spark.core.storage.path import StoragePath, storage_path
from learn_spark.core.tables.runs import MODELS
from learn_spark.core.tables.workspace_locks import only_one
from learn_spark.data.splits.selection import selection_of
from learn_spark.data.splits.training_view import TrainingView, Until
from learn_spark.data.text.templates import template
from learn_spark.encoder.identity import identify
from learn_spark.model.manifest import BlendingFacts, NarrowingFacts, RerankerFacts, TrainingFacts
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
from learn_spark.model.training.narrowing import narrow
from learn_spark.model.training.prepare import prepare
from learn_spark.model.training.saved_towers import fetch_logs, key_of_tower, saved_tower
from learn_spark.model.training.task import MARGIN, build_tower, read_validation, use_threads
from learn_spark.model.training.twice import AGAIN, TrainedTower, train_tower

STAGE = find_stage("train")


def run(context: StageContext) -> StageResult:
    """Train the settings' tower and save the model; an interrupted run of the same settings and inputs is resumed.

    The tower of a saved model is used again where nothing that decides its weights has changed, except with --force and
    under ``training.resume`` never.

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
    again = histories.counts(task.n_items, until="validation_length") if settings.training.trains_again else None
    tower_key = key_of_tower(settings, context.inputs)
    found = None if context.forced or settings.training.resume == "never" else saved_tower(context.workspace, tower_key)
    if found is None:
        trained = train_tower(context, task, again, _plan_key(context))
    else:
        trained, saved_as = found
        if settings.training.launcher != "spark" and settings.training.processes == 1:
            use_threads(settings.training)  # as a training in this process does, for what is fitted upon it
        fetch_logs(context.workspace, saved_as, folder / "logs")
        context.console.say(
            f"the tower is that of model {saved_as}, which was trained by the same settings, inputs and code; only "
            "what is fitted upon it is new"
        )
    final_counts = counts if again is None else again
    best_point = trained.curve[trained.best_epoch - 1]
    tower = build_tower(task)
    tower.load_state_dict(trained.final)
    validation = {k.removeprefix("validation "): v for k, v in best_point.items() if k.startswith("validation ")}
    margin = validation.pop(MARGIN)
    calibration, held_out = Calibration(validation), None
    if is_calibrated(settings):
        chosen_tower = build_tower(task)
        chosen_tower.load_state_dict(trained.chosen)
        temperature = best_point.get("temperature", settings.objective.temperature)
        assert task.validation is not None
        held_out = HeldOut(histories, read_validation(storage_path(task.validation)), counts.events)
        calibration = calibrate(chosen_tower.eval(), temperature, held_out, validation, settings, context.console)
    validated = min(counts.users, settings.training.validation_users)
    facts = _facts(context, trained, tower_key, calibration, tower.parameter_count(), space_key, validated, margin)
    blending, blending_settings, blended, narrowing = calibration.blending, blending_of(settings.tower), None, None
    if blending is not None and blending_settings is not None:
        co_visits, recent = blending.co_visits, blending.recent
        if again is not None:
            until: Until = "validation_length"
            co_visits = co_visits_of(histories, task.n_items, blending_settings, until=until)
            recent = recent_of(histories, task.n_items, blending_settings, settings, until=until)
        blended = blending.tensors(final_counts.events, co_visits, recent)
        blending = replace(
            blending, counts=final_counts.events, co_visits=co_visits, recent=recent, temperature=facts.temperature
        )
    if calibration.narrowing is not None and settings.tower.narrowing is not None and held_out is not None:
        released = calibration.narrowing[0]  # of the same vectors, where nothing is blended or trained again
        if again is not None or blending is not None:
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
        chosen=None if again is None else trained.chosen,
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
            "samples": trained.samples,
            "parameters": tower.parameter_count(),
            "resumed": int(resumed and found is None),
            "reused_tower": int(found is not None),
            **({} if (peak := peak_memory_mib()) is None else {"peak_mib": peak}),
        },
        outputs={f"{MODELS}{model_id}": model_id},
        notes=(
            f"{tower.method}: {tower.parameter_count():,} parameters, {len(trained.curve)} epochs, {trained.samples:,} "
            f"sequences; best epoch {trained.best_epoch} with NDCG@10 {calibration.validation['NDCG@10']:.4f} on "
            f"validation{_of_sample(counts.users, settings.training.validation_users, margin)}"
            f"{f', trained again {AGAIN[settings.training.rule]}' if again is not None else ''}; model {model_id}",
        ),
    )


def _of_sample(users: int, sampled: int, margin: float) -> str:
    """What a figure on a sample of users is of; empty where all ``users`` were ranked."""
    return f" (+-{margin:.4f} at 95%: {sampled:,} of {users:,} users)" if users > sampled else ""


def _facts(
    context: StageContext,
    trained: TrainedTower,
    tower_key: str,
    calibration: Calibration,
    parameters: int,
    space_key: str | None,
    validation_users: int,
    validation_margin: float,
) -> TrainingFacts:
    """The manifest's part of the training."""
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
        temperature=temperature if trained.temperature is None else trained.temperature,
        temperature_before_refit=trained.curve[trained.best_epoch - 1].get("temperature", temperature),
        validation=calibration.validation,
        validation_users=validation_users,
        validation_margin=validation_margin,
        validation_of_vectors=calibration.validation_of_vectors,
        rule=settings.training.rule,
        tower_key=tower_key,
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
            refined_items=None if (refining := calibration.heads.full.refining) is None else refining.items,
            refining_hidden=None if refining is None else refining.hidden,
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
