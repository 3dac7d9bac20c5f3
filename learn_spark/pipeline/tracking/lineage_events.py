"""Runs of stages as events of OpenLineage: https://openlineage.io/spec/2-0-2/OpenLineage.json."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from datetime import UTC, timedelta
from typing import TYPE_CHECKING

from learn_spark.core.parts import VERSION
from learn_spark.core.settings.secrets import without_secrets
from learn_spark.core.stages.stage import Stage
from learn_spark.core.storage.path import SCHEMES, StoragePath, storage_path
from learn_spark.core.tables.contracts import all_tables, contract
from learn_spark.core.tables.runs import Run
from learn_spark.core.tables.versions import written_between
from learn_spark.core.tables.workspace import Workspace
from learn_spark.pipeline.provenance import FILES

if TYPE_CHECKING:
    from openlineage.client.event_v2 import InputDataset, OutputDataset, RunEvent
    from openlineage.client.facet_v2 import DatasetFacet, OutputDatasetFacet

PRODUCER = f"urn:learn-spark:{VERSION}"
Versions = Mapping[str, int | None]  # table -> its newest version, None before its first
ENDS = {"done": "COMPLETE", "failed": "FAIL", "refused": "FAIL", "running": "START", "aborted": "ABORT"}


def event_of(stage: Stage, run: Run, workspace: Workspace, namespace: str, before: Versions | None = None) -> RunEvent:
    """The event of a run in its present state; ``run.status`` is one of ENDS. The job is named by the stage.

    Datasets are tables at Delta versions, folders of raw files, models and other folders of the workspace, at hashes.
    ``before``: the tables that the stage writes, as they were when the run began; None: unknown, and then no output
    says what the run wrote into it.
    """
    from openlineage.client import event_v2, facet_v2

    event_v2.set_producer(PRODUCER)
    ended = run.started_at if run.status == "running" else run.started_at + timedelta(seconds=run.seconds)
    facts = {"run_id": run.run_id, "code_version": run.code_version, "config_hash": run.config_hash}
    facts |= {f"count.{name}": str(count) for name, count in run.counts.items()}
    tags = [facet_v2.tags_run.TagsRunFacetFields(name, value, "learn-spark") for name, value in facts.items()]
    of_run: dict[str, facet_v2.RunFacet] = {
        "processing_engine": facet_v2.processing_engine_run.ProcessingEngineRunFacet(VERSION, "learn-spark"),
        "tags": facet_v2.tags_run.TagsRunFacet(tags),
    }
    if run.message is not None:
        message = without_secrets(run.message)
        of_run["errorMessage"] = facet_v2.error_message_run.ErrorMessageRunFacet(message, "PYTHON")
    of_job: dict[str, facet_v2.JobFacet] = {
        "jobType": facet_v2.job_type_job.JobTypeJobFacet("BATCH", "LEARN_SPARK", "STAGE"),
        "documentation": facet_v2.documentation_job.DocumentationJobFacet(stage.summary),
    }
    return event_v2.RunEvent(
        eventTime=ended.astimezone(UTC).isoformat(),
        run=event_v2.Run(run_uuid(workspace, run.run_id), of_run),
        job=event_v2.Job(namespace, stage.name, of_job),
        eventType=event_v2.RunState[ENDS[run.status]],
        inputs=_inputs(run.inputs, workspace),
        outputs=_outputs(run.outputs, workspace, before),
    )


def run_uuid(workspace: Workspace, run_id: str) -> str:
    """The UUID of a run: the same for every event of it, and another one in another workspace."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"{workspace.place}/runs/{run_id}"))


def _inputs(versions: Mapping[str, str], workspace: Workspace) -> list[InputDataset]:
    from openlineage.client.event_v2 import InputDataset

    return [
        InputDataset(*name_of(place), facets=_facets(table, version))
        for place, table, version in _datasets(versions, workspace)
    ]


def _outputs(versions: Mapping[str, str], workspace: Workspace, before: Versions | None) -> list[OutputDataset]:
    from openlineage.client.event_v2 import OutputDataset

    return [
        OutputDataset(
            *name_of(place), facets=_facets(table, version), outputFacets=_statistics(place, table, version, before)
        )
        for place, table, version in _datasets(versions, workspace)
    ]


def _statistics(
    place: StoragePath, table: str | None, version: str, before: Versions | None
) -> dict[str, OutputDatasetFacet]:
    """Rows, bytes and files that the run wrote into a table, by Delta's log; nothing where the log does not say it."""
    from openlineage.client import facet_v2

    if table is None or before is None or table not in before:
        return {}
    written = written_between(place, before[table], int(version))
    if written is None:
        return {}
    facet = facet_v2.output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet(
        written.rows, written.bytes, written.files
    )
    return {"outputStatistics": facet}


def _datasets(versions: Mapping[str, str], workspace: Workspace) -> Iterable[tuple[StoragePath, str | None, str]]:
    """(place, name of the table if it is one, version or hash) of what a run read or wrote.

    Runs and encoders, which are inputs too, are no datasets.
    """
    for name, value in sorted(versions.items()):
        if name in all_tables():
            yield workspace.table(name), name, value
        elif name.startswith(FILES):
            yield StoragePath(name.removeprefix(FILES)), None, value
        elif name == "model":
            yield workspace.place / "models" / value, None, value
        elif "/" in name and ":" not in name:
            yield workspace.place / name, None, value


def name_of(place: StoragePath) -> tuple[str, str]:
    """(namespace, name) of a folder by the naming rules of OpenLineage: its store, and its path there."""
    if place.scheme in SCHEMES:
        scheme, _, rest = str(place).partition("://")
        store, _, path = rest.partition("/")
        return f"{scheme}://{store}", path or "/"
    if place.scheme or str(place).startswith("package:"):
        return "learn-spark", str(place)
    return "file", str(storage_path(place).local.resolve())


def _facets(table: str | None, version: str) -> dict[str, DatasetFacet]:
    from openlineage.client import facet_v2

    facets: dict[str, DatasetFacet] = {"version": facet_v2.dataset_version_dataset.DatasetVersionDatasetFacet(version)}
    if table is not None:
        columns = [
            facet_v2.schema_dataset.SchemaDatasetFacetFields(column.name, column.type, column.meaning)
            for column in contract(table).columns
        ]
        facets["schema"] = facet_v2.schema_dataset.SchemaDatasetFacet(columns)
    return facets
