"""The publish stage: changed vectors are staged, audited, and then committed to the tables that consumers read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING

import pyarrow.compute as pc

from learn_spark.core.errors import LearnSparkError
from learn_spark.core.machine import available_cores
from learn_spark.core.quality.gate import GateReport, evaluate_rules
from learn_spark.core.settings import Settings
from learn_spark.core.stages.code import code_version
from learn_spark.core.stages.context import StageContext
from learn_spark.core.stages.stage import StageResult
from learn_spark.core.tables.small import small_plans
from learn_spark.core.tables.workspace import Workspace
from learn_spark.core.times import from_micros
from learn_spark.encoder.gpus import threads_of_task
from learn_spark.features.audit import Profile, release_profile, release_rules
from learn_spark.features.commit import commit
from learn_spark.features.entities import active_users, catalogue_items
from learn_spark.features.ledger import READABLE, LedgerRow, add_row, ledger, release_in_force, states
from learn_spark.features.models import usable_model
from learn_spark.features.read import NAMES
from learn_spark.features.staged_release import StagedTable, stage, staged_folder
from learn_spark.features.worker import TowerSpec

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

FEW_ENTITIES = 20_000  # up to so many, this process is done before a Python worker of Spark has started


def other_inputs(settings: Settings, workspace: Workspace, model_id: str | None) -> dict[str, str]:
    """The model as an input: ``model_id``, or the newest model that ``usable_model`` accepts."""
    return {"model": usable_model(settings, workspace, first=model_id)}


def vector_code() -> str:
    """Version of the code that computes vectors: workers, towers, and their inputs. Other code rewrites no vector."""
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


@dataclass(frozen=True)
class StagedRelease:
    """A release before its audit: its ledger row and its part of each feature table.

    ``histories``: user_histories that it was computed from. ``output_dim`` and ``normalised``: of the vectors.
    """

    row: LedgerRow
    tables: Mapping[str, StagedTable]
    histories: DataFrame
    output_dim: int
    normalised: bool

    @property
    def entities(self) -> int:
        """Users and items of the release."""
        return sum(part.entities for part in self.tables.values())


@dataclass(frozen=True)
class Audit:
    """The measures of the audit, and the results of its rules."""

    profile: Profile
    gate: GateReport


def run(context: StageContext) -> StageResult:
    """Stage the vectors of changed users and items, audit the tables as they will be, and release them.

    Raises GateError if the audit fails; then only a row of releases is written, and the staged rows stay in
    staged/<release_id>. A release that was withdrawn, or that is in force and unchanged, is not written again.
    """
    with small_plans(context.spark, _entities(context)):
        return _run(context)


def _entities(context: StageContext) -> int:
    """At least as many as users and items of the release: rows of the tables that list them."""
    return context.snapshot("user_histories").rows + context.snapshot("item_index").rows


def _run(context: StageContext) -> StageResult:
    release, rows = release_id(context), ledger(context.workspace)
    state = states(rows).get(release)
    if state is not None and state.status == "withdrawn" and not context.forced:
        note = (
            f"release {release} was withdrawn, so that nothing is published; learn-spark restore {release} brings it "
            "back, learn-spark publish --force writes it again"
        )
        return StageResult(0, 0, notes=(note,))
    context.console.at("computing vectors")
    staged = _stage(context, release, rows)
    newest = release_in_force(rows)
    backfilled = context.settings.release.backfill and state is not None
    if (backfilled or (newest is not None and newest.release_id == release)) and all(
        part.nothing for part in staged.tables.values()
    ):
        staged_folder(context.workspace, release).remove()
        note = f"release {release} is in force and unchanged; nothing is written"
        return StageResult(staged.entities, 0, notes=(note,))
    add_row(context.workspace, staged.row)
    context.console.at("auditing the release")
    audit = _audit(context, staged, rows)
    context.console.at("writing the release")
    _commit(context, staged, audit)
    return _result(staged, audit)


def _stage(context: StageContext, release: str, rows: Sequence[LedgerRow]) -> StagedRelease:
    """Compute the vectors of changed users and items into the release's folder."""
    from learn_spark.model.content import bind_content
    from learn_spark.model.store import load_model

    model = load_model(context.workspace.place / "models" / context.inputs["model"])
    histories = context.read("user_histories")
    as_of = _as_of(context, histories)
    producer = f"{model.model_id} {vector_code()}"
    matrix, vectors = bind_content(context, model), model.vectors()
    few = _entities(context) <= FEW_ENTITIES
    spec = TowerSpec(
        model_folder=context.workspace.place / "models" / model.model_id,
        matrix=None
        if matrix is None
        else context.for_workers(matrix.parent, f"item_matrix-{matrix.parent.name}", here=few),
        batch_rows=context.settings.release.batch_rows,
        threads=len(available_cores())
        if few
        else threads_of_task(context.spark, context.spark.sparkContext.defaultParallelism, 0),
    )
    users = active_users(histories, producer, model.window, needs_times=model.tower.needs_times)
    items = catalogue_items(context, model, producer, reads_content=matrix is not None)
    tables = stage(
        context.spark, context.workspace, release, as_of, spec, users, items, everything=context.forced, few=few
    )
    row = LedgerRow(
        release_id=release,
        status="staged",
        model_id=model.model_id,
        code_version=vector_code(),
        encoder_key=model.manifest.encoder_key,
        inputs=dict(context.inputs),
        outputs={table: f"staged/{release}/{table}" for table in tables},
        gate_results=None,
        metrics=model.manifest.released_validation,
        as_of=as_of,
        run_id=context.run_id,
        note=_changes_and_reason(tables, model.model_id, context, _last_written(rows)),
    )
    return StagedRelease(row, tables, histories, vectors.output_dim, vectors.normalised)


def _audit(context: StageContext, staged: StagedRelease, rows: Sequence[LedgerRow]) -> Audit:
    """Audit both tables as they will be. Raises GateError if a rule fails, after writing a row ``refused``.

    They are compared with the newest release as of the same time or earlier.
    """
    row, tables = staged.row, staged.tables
    before = release_in_force(rows, row.as_of)
    profile, alignment = release_profile(context, tables, staged.histories, row, before)
    rules = release_rules(
        context.settings.release,
        profile,
        output_dim=staged.output_dim,
        normalised=staged.normalised,
        users=tables["user_features"].entities,
        items=tables["item_features"].entities,
        alignment=alignment,
    )
    title = f"release {row.release_id}"
    gate = evaluate_rules("release", profile, rules, context.workspace.place / "reports" / "quality", title=title)
    gate.write_docs()
    if not gate.passed:
        add_row(context.workspace, replace(row, status="refused", gate_results=json.dumps(gate.as_dicts())))
        context.console.say(f"the staged rows are kept in {staged_folder(context.workspace, row.release_id)}")
    gate.require()
    return Audit(profile, gate)


def _commit(context: StageContext, staged: StagedRelease, audit: Audit) -> None:
    """Write the audited rows to the tables, then the ledger row that releases them."""
    # Users first: with items first, a run after a kill would not find the users who saw the changed items.
    outputs = {
        table: str(
            commit(
                context.spark,
                context.path(table),
                staged.tables[table],
                int(audit.profile[f"{NAMES[table]}_rows"] or 0),
            )
        )
        for table in ("user_features", "item_features")
    }
    status = "backfilled" if context.settings.release.backfill else "released"
    results = json.dumps(audit.gate.as_dicts())
    add_row(context.workspace, replace(staged.row, status=status, outputs=outputs, gate_results=results))
    staged_folder(context.workspace, staged.row.release_id).remove()


def _result(staged: StagedRelease, audit: Audit) -> StageResult:
    warnings, rules = audit.gate.broken("warn"), len(audit.gate.results)
    counts = {"rules_passed": rules - len(warnings)}
    for table, part in staged.tables.items():
        name = f"{NAMES[table]}s"
        counts |= {name: part.entities, f"{name}_written": part.written, f"{name}_removed": part.removed}
    row = staged.row
    return StageResult(
        rows_in=staged.entities,
        rows_out=sum(part.written for part in staged.tables.values()),
        counts=counts,
        notes=(
            row.note or "",
            f"release {row.release_id}: {counts['users']:,} users, {counts['items']:,} items, as of "
            f"{row.as_of:%Y-%m-%d %H:%M:%S}; {counts['rules_passed']} of the audit's {rules} rules passed "
            f"(Data Docs: {audit.gate.docs})",
            *(f"warning: {result.sentence()}" for result in warnings),
        ),
    )


def _as_of(context: StageContext, histories: DataFrame) -> datetime:
    """The as-of time of the release: the setting, else one microsecond after the last event.

    Raises LearnSparkError if the histories contain events at or after the setting.
    """
    last = _last_event(context, histories)
    micros = context.settings.histories.as_of_micros()
    if micros is None:
        micros = last + 1
    elif last >= micros:
        raise LearnSparkError(
            f"publish: histories.as_of is {context.settings.histories.as_of}, but user_histories has later events; "
            "run histories and train with the same histories.as_of first"
        )
    return from_micros(micros)


def _last_event(context: StageContext, histories: DataFrame) -> int:
    """The time of the last event in microseconds."""
    from pyspark.sql import functions as F

    snapshot = context.snapshot("user_histories")
    if snapshot.is_small:
        times = snapshot.to_arrow(["event_time"])["event_time"]
        return int(pc.max(pc.list_flatten(times)).as_py())
    last = histories.agg(F.max(F.array_max("event_time"))).first()
    assert last is not None
    return int(last[0])


def _last_written(rows: Sequence[LedgerRow]) -> LedgerRow | None:
    """The release that last wrote the feature tables, withdrawn or not."""
    published = [row for row in rows if row.status in READABLE]
    return max(published, key=lambda row: row.version("user_features"), default=None)


def _changes_and_reason(
    parts: Mapping[str, StagedTable], model_id: str, context: StageContext, last: LedgerRow | None
) -> str:
    """The number of written rows of each table, and the reason if all rows are rewritten."""
    if last is None:
        why = "nothing was released before"
    elif context.forced:
        why = "--force was given"
    elif last.model_id != model_id:
        why = f"the model changed ({last.model_id} -> {model_id})"
    elif last.code_version != vector_code():
        why = "the code changed"
    else:
        why = "all entities changed"
    changes = []
    for table, part in parts.items():
        removed = f", {part.removed:,} removed" if part.removed else ""
        if part.nothing:
            changes.append(f"{table}: nothing changed")
        elif part.everything:
            changes.append(f"{table}: all {part.entities:,} rewritten{removed}, because {why}")
        else:
            changes.append(f"{table}: {part.written:,} of {part.entities:,} written{removed}")
    return "; ".join(changes)
