"""The publish stage: write, audit, publish. Features are staged, a gate judges them, only then are they released."""

from __future__ import annotations

import hashlib
import json
import os
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from learn_spark.errors import LearnSparkError
from learn_spark.pipeline.stage import StageContext, StageResult
from learn_spark.quality.gate import run_gate
from learn_spark.release.profile import release_rules, vector_profile
from learn_spark.release.worker import FEATURES, TowerSpec, item_features, user_features
from learn_spark.settings import Settings
from learn_spark.tables import delta
from learn_spark.tables.contracts import contract
from learn_spark.tables.lineage import newest_model
from learn_spark.tables.snapshot import current_version
from learn_spark.tables.workspace import Workspace

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from learn_spark.training.model_store import Model

FEATURE_TABLES = ("item_features", "user_features")


def other_inputs(settings: Settings, workspace: Workspace) -> dict[str, str]:
    """The newest model."""
    return {"model": newest_model(workspace)}


def release_id(context: StageContext) -> str:
    """Hash of the model, every input's version and the gate's settings: a release judged by another gate is another
    release, so that a refusal withdraws nothing that was released before.
    """
    parts = {
        "inputs": dict(context.inputs),
        "as_of": context.settings.histories.as_of,
        "gate": context.settings.release.model_dump(),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def run(context: StageContext) -> StageResult:
    """Stage the features of all users and items, judge them, release them.

    Raises GateFailed (after marking the release withdrawn) where the gate says no; consumers go on reading the
    release before.
    """
    from pyspark.sql import functions as F

    from learn_spark.training.model_store import load_model

    model = load_model(context.workspace.root / "models" / context.inputs["model"])
    manifest, key = model.manifest, model.manifest["encoder_key"]
    release = release_id(context)
    histories = context.read("user_histories")
    as_of = _as_of(context, histories)
    counts = _stage(context, release, model, as_of, histories)
    outputs = {table: str(current_version(context.path(table))) for table in FEATURE_TABLES}
    row: dict[str, Any] = {
        "release_id": release,
        "model_id": context.inputs["model"],
        "encoder_key": key,
        "inputs": dict(context.inputs),
        "outputs": outputs,
        "gate_results": None,
        "metrics": {name: float(value) for name, value in manifest["validation"].items()},
        "as_of": as_of,
        "run_id": context.run_id,
    }
    _append_release(context, {**row, "status": "staged"})
    profile: dict[str, float | None] = {"validation_ndcg10": manifest["validation"]["NDCG@10"]}
    for table, name in (("user_features", "user"), ("item_features", "item")):
        rows = delta.read(context.spark, context.path(table), int(outputs[table]))
        staged = rows.where(F.col("release_id") == release)
        profile |= vector_profile(staged, f"{name}_id", name)
        profile[f"{name}_repeated"] = (profile[f"{name}_rows"] or 0) - (profile[f"{name}_ids"] or 0)
    rules = release_rules(
        context.settings.release,
        output_dim=model.tower.output_dim,
        normalised=model.tower.normalised,
        users=counts["users"],
        items=counts["items"],
    )
    gate = run_gate("release", profile, rules, context.folder("reports", "quality"))
    status = "released" if gate.passed else "withdrawn"
    _append_release(context, {**row, "status": status, "gate_results": json.dumps(gate.as_dicts())})
    gate.require()
    written = int(profile["user_rows"] or 0) + int(profile["item_rows"] or 0)
    return StageResult(
        rows_in=counts["users"] + counts["items"],
        rows_out=written,
        counts={"users": counts["users"], "items": counts["items"], "rules_passed": len(rules)},
        notes=(
            f"release {release}: {counts['users']:,} users, {counts['items']:,} items, "
            f"as of {as_of:%Y-%m-%d %H:%M:%S}; the gate's {len(rules)} rules passed (Data Docs: {gate.docs})",
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
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=micros)


def _stage(context: StageContext, release: str, model: Model, as_of: datetime, histories: DataFrame) -> dict[str, int]:
    """Write both feature tables' slice of this release; a second writing replaces the first."""
    from pyspark.sql import functions as F

    from learn_spark.training.content import bind_content

    spark = context.spark
    tasks = spark.sparkContext.defaultParallelism
    matrix = bind_content(context, model)
    spec = TowerSpec(
        model_folder=str(context.workspace.root / "models" / model.model_id),
        matrix_path=None if matrix is None else str(matrix),
        batch_rows=context.settings.release.batch_rows,
        threads=max(1, (os.cpu_count() or 1) // tasks),
    )
    newest = histories.where("chunk = 0").select(F.col("user_id").alias("id"), "item_index", "event_time", "length")
    items = context.read("item_index").select(F.col("item_id").alias("id"), "item_index")
    known, there = model.tower.n_items, items.agg(F.max("item_index")).first()
    if matrix is None and there is not None and there[0] > known:
        raise LearnSparkError(
            f"publish: the model {model.model_id} knows items by their IDs, {known:,} of them, but item_index goes "
            f"up to {there[0]:,}; train again (a learn tower needs not: it reads content)"
        )
    sources = {
        "item_features": ("item_id", items.repartition(tasks).mapInArrow(item_features(spec), FEATURES)),
        "user_features": ("user_id", newest.mapInArrow(user_features(spec), FEATURES)),
    }
    for table, (id_name, vectors) in sources.items():
        rows = vectors.select(
            F.lit(release).alias("release_id"),
            F.col("id").alias(id_name),
            "embedding",
            F.lit(as_of).cast("timestamp").alias("as_of"),
        )
        delta.overwrite(rows, context.path(table), contract(table), where=f"release_id = '{release}'")
    return {"users": newest.count(), "items": items.count()}


def _append_release(context: StageContext, row: dict[str, Any]) -> None:
    from pyspark.sql import functions as F

    table = contract("releases")
    delta.create_if_missing(context.spark, context.path("releases"), table)
    known = delta.read(context.spark, context.path("releases"))
    last = known.agg(F.coalesce(F.max("sequence"), F.lit(0))).first()
    full = {**row, "sequence": (last[0] if last else 0) + 1, "written_at": datetime.now(UTC)}
    frame = context.spark.createDataFrame([tuple(full[name] for name in table.names)], table.spark_schema())
    delta.append(frame, context.path("releases"), table)
