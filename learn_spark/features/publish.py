"""The publish stage: write, audit, publish. What changed is staged, audited, and only then reaches consumers."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from learn_spark.core.errors import LearnSparkError
from learn_spark.core.machine import available_cores
from learn_spark.core.quality.gate import evaluate_rules
from learn_spark.core.settings import Settings
from learn_spark.core.stages.code import code_version
from learn_spark.core.stages.context import StageContext
from learn_spark.core.stages.stage import StageResult
from learn_spark.core.tables import delta
from learn_spark.core.tables.workspace import Workspace
from learn_spark.core.times import from_micros
from learn_spark.features.alignment import fit_rotation, rotated
from learn_spark.features.audit import Profile, release_rules, table_profile, validation_profile
from learn_spark.features.commit import commit
from learn_spark.features.entities import active_users, catalogue_items
from learn_spark.features.ledger import READABLE, add_row, ledger, release_in_force, states
from learn_spark.features.models import usable_model
from learn_spark.features.read import KEYS
from learn_spark.features.staged_release import StagedTable, stage, staged_folder
from learn_spark.features.worker import TowerSpec

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


NAMES = {"user_features": "user", "item_features": "item"}


def other_inputs(settings: Settings, workspace: Workspace, model_id: str | None) -> dict[str, str]:
    """``model_id``, or the newest model, of those that know nothing of what the features may not know."""
    return {"model": usable_model(settings, workspace, first=model_id)}


def vector_code() -> str:
    """Version of the code that computes vectors: workers, towers, and what they read. Other code rewrites no vector."""
    return code_version("learn_spark.features.worker", "learn_spark.features.entities", "learn_spark.model.content")


def release_id(context: StageContext) -> str:
    """Hash of the model, the stage's code, every input's version, the as-of setting and the gate's settings."""
    parts = {
        "inputs": dict(context.inputs),
        "code": context.code_version,
        "as_of": context.settings.histories.as_of,
        "gate": context.settings.release.model_dump(exclude={"model"}),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def run(context: StageContext) -> StageResult:
    """Stage the vectors of the users and items that changed, audit the tables as they will be, release them.

    Raises GateError where the audit says no: nothing but a row of releases is written then, and what was staged stays
    in staged/<release_id>. A release that was withdrawn, or that holds and is as it should be, is left alone.
    """
    from learn_spark.model.content import bind_content
    from learn_spark.model.store import load_model

    release, rows = release_id(context), ledger(context.workspace)
    state = states(rows).get(release)
    if state is not None and state["status"] == "withdrawn" and not context.forced:
        note = f"release {release} was withdrawn; nothing is published (publish --force releases it again)"
        return StageResult(0, 0, notes=(note,))
    model = load_model(context.workspace.root / "models" / context.inputs["model"])
    histories = context.read("user_histories")
    as_of = _as_of(context, histories)
    producer, last = f"{model.model_id} {vector_code()}", _last_written(rows)
    matrix, vectors = bind_content(context, model), model.vectors()
    spec = TowerSpec(
        model_folder=str(context.workspace.root / "models" / model.model_id),
        matrix_path=None if matrix is None else str(matrix),
        batch_rows=context.settings.release.batch_rows,
        threads=max(1, len(available_cores()) // context.spark.sparkContext.defaultParallelism),
    )
    users = active_users(histories, producer, model.window, needs_times=model.tower.needs_times)
    items = catalogue_items(context, model, producer, reads_content=matrix is not None)
    parts = stage(context.spark, context.workspace, release, as_of, spec, users, items, everything=context.forced)
    entities = sum(part.entities for part in parts.values())
    status = "backfilled" if context.settings.release.backfill else "released"
    newest = release_in_force(rows)
    holds = (newest is not None and newest["release_id"] == release) or (status == "backfilled" and state is not None)
    if holds and all(part.nothing for part in parts.values()):
        shutil.rmtree(staged_folder(context.workspace, release))
        return StageResult(entities, 0, notes=(f"release {release} holds, and nothing changed; nothing is written",))
    note = _what_and_why(parts, model.model_id, context, last)
    row: dict[str, Any] = {
        "release_id": release,
        "model_id": model.model_id,
        "code_version": vector_code(),
        "encoder_key": model.manifest.encoder_key,
        "inputs": dict(context.inputs),
        "outputs": {table: f"staged/{release}/{table}" for table in parts},
        "gate_results": None,
        "metrics": {name: float(value) for name, value in model.manifest.released_validation.items()},
        "as_of": as_of,
        "run_id": context.run_id,
        "note": note,
    }
    add_row(context.workspace, {**row, "status": "staged"})
    # Compared with the newest release that holds and knows no later events.
    profile, alignment = _profile(context, parts, histories, row, release_in_force(rows, as_of))
    rules = release_rules(
        context.settings.release,
        profile,
        output_dim=vectors.output_dim,
        normalised=vectors.normalised,
        users=parts["user_features"].entities,
        items=parts["item_features"].entities,
        alignment=alignment,
    )
    gate = evaluate_rules("release", profile, rules, context.folder("reports", "quality"), title=f"release {release}")
    gate.write_docs()
    row["gate_results"] = json.dumps(gate.as_dicts())
    if not gate.passed:
        add_row(context.workspace, {**row, "status": "refused"})
        context.console.say(f"what was staged stays in {staged_folder(context.workspace, release)}")
    gate.require()
    # Users first: were the items' new texts there already, a run killed in between would not find who saw them.
    row["outputs"] = {
        table: str(commit(context.spark, context.path(table), parts[table], int(profile[f"{NAMES[table]}_rows"] or 0)))
        for table in ("user_features", "item_features")
    }
    add_row(context.workspace, {**row, "status": status})
    shutil.rmtree(staged_folder(context.workspace, release))
    counts = {"rules_passed": len(rules) - len(gate.broken("warn"))}
    for table, part in parts.items():
        name = f"{NAMES[table]}s"
        counts |= {name: part.entities, f"{name}_written": part.written, f"{name}_removed": part.removed}
    return StageResult(
        rows_in=entities,
        rows_out=sum(part.written for part in parts.values()),
        counts=counts,
        notes=(
            note,
            f"release {release}: {counts['users']:,} users, {counts['items']:,} items, as of "
            f"{as_of:%Y-%m-%d %H:%M:%S}; {counts['rules_passed']} of the audit's {len(rules)} rules passed "
            f"(Data Docs: {gate.docs})",
            *(f"warning: {result.sentence()}" for result in gate.broken("warn")),
        ),
    )


def _as_of(context: StageContext, histories: DataFrame) -> datetime:
    """The time that no event of the release reaches: the setting, else just after the last event.

    Raises LearnSparkError where the histories were built with later events than the setting allows: the release would
    claim a past that it does not keep.
    """
    from pyspark.sql import functions as F

    last = histories.agg(F.max(F.array_max("event_time"))).first()
    assert last is not None
    micros = context.settings.histories.as_of_micros()
    if micros is None:
        micros = last[0] + 1
    elif last[0] >= micros:
        raise LearnSparkError(
            f"publish: histories.as_of is {context.settings.histories.as_of}, but user_histories holds later events; "
            "run histories and train with the same histories.as_of first"
        )
    return from_micros(micros)


def _profile(
    context: StageContext,
    parts: Mapping[str, StagedTable],
    histories: DataFrame,
    row: Mapping[str, Any],
    before: Mapping[str, Any] | None,
) -> tuple[Profile, str]:
    """The measures of both tables as they will be, and how they were aligned with the release before."""
    from pyspark.sql import functions as F

    spark = context.spark
    profile = validation_profile(row["metrics"], None if before is None else before["metrics"])
    then: dict[str, DataFrame | None] = dict.fromkeys(parts)
    alignment = "none: the same model"
    if before is not None:
        then = {t: delta.read(spark, context.path(t), int(before["outputs"][t])) for t in parts}
    if before is not None and before["model_id"] != row["model_id"]:
        # Users and items live in one space: the items that both have turn both tables.
        old = then["item_features"]
        assert old is not None
        turn = fit_rotation(old, parts["item_features"].after(), "item_id")
        alignment = "orthogonal Procrustes on the items of both"
        then = {
            table: None if turn is None or frame is None else rotated(frame, KEYS[table], turn)
            for table, frame in then.items()
        }
    seen = histories.select(F.explode(F.slice("item_index", F.lit(1), F.col("length"))).alias("item_index")).distinct()
    events = seen.withColumn("cold", F.lit(False))
    wanted = {
        "user_features": parts["user_features"].expected.select("id", F.lit(False).alias("cold")),
        "item_features": parts["item_features"]
        .expected.join(events, "item_index", "left")
        .select("id", F.coalesce("cold", F.lit(True)).alias("cold")),
    }
    for table, part in parts.items():
        profile |= table_profile(NAMES[table], part.key, part.after(), wanted[table], then[table])
    return profile, alignment


def _last_written(rows: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The release whose rows the feature tables hold now, withdrawn or not."""
    published = [row for row in rows if row["status"] in READABLE]
    return max(published, key=lambda row: int(row["outputs"]["user_features"]), default=None)


def _what_and_why(
    parts: Mapping[str, StagedTable], model_id: str, context: StageContext, last: Mapping[str, Any] | None
) -> str:
    """What is written of each table, and, where that is all of it, why."""
    if last is None:
        why = "nothing was released before"
    elif context.forced:
        why = "asked to (--force)"
    elif last["model_id"] != model_id:
        why = f"the model changed ({last['model_id']} -> {model_id})"
    elif last["code_version"] != vector_code():
        why = "the code changed"
    else:
        why = "all of them changed"
    said = []
    for table, part in parts.items():
        removed = f", {part.removed:,} removed" if part.removed else ""
        if part.nothing:
            said.append(f"{table}: nothing changed")
        elif part.everything:
            said.append(f"{table}: all {part.entities:,} rewritten{removed}, because {why}")
        else:
            said.append(f"{table}: {part.written:,} of {part.entities:,} written{removed}")
    return "; ".join(said)
