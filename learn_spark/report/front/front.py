"""The front page's own parts, gathered from the tables of a workspace."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from learn_spark.core.tables.runs import Run
from learn_spark.core.tables.workspace import Workspace
from learn_spark.features.ledger import LedgerRow, ledger, release_in_force
from learn_spark.report.front.experiments import ExperimentLine, experiments_of
from learn_spark.report.front.growth import TableState, table_states
from learn_spark.report.front.models import Models, models_of
from learn_spark.report.front.refused import Refusals, refusals
from learn_spark.report.front.releases import ReleaseLine, release_lines
from learn_spark.report.road import Road


@dataclass(frozen=True)
class Front:
    """What a page of one run has not."""

    models: Models | None
    tables: tuple[TableState, ...]
    refusals: Refusals | None
    releases: tuple[ReleaseLine, ...]
    experiments: tuple[ExperimentLine, ...]


def released(workspace: Workspace) -> LedgerRow | None:
    """The ledger's row of the release in force; None if there is none."""
    return release_in_force(ledger(workspace))


def publish_run(workspace: Workspace, road: Road, release: LedgerRow | None) -> str | None:
    """The run that staged ``release``; without one, the publish run of ``road``; None if there is none."""
    if release is None:
        published = road.of("publish")
        return published.run_id if published else None
    staged = [row for row in ledger(workspace) if row.release_id == release.release_id and row.status == "staged"]
    return (staged[-1] if staged else release).run_id


def front_of(
    workspace: Workspace, runs: Sequence[Run], verdicts: Mapping[str, str], release: LedgerRow | None
) -> Front:
    """The parts of the front page. ``runs``: all, oldest first; ``verdicts``: of the gate of "table @ version"."""
    return Front(
        models=models_of(workspace, None if release is None else release.model_id),
        tables=tuple(table_states(workspace, runs, verdicts)),
        refusals=refusals(workspace),
        releases=tuple(release_lines(workspace, ledger(workspace))),
        experiments=tuple(experiments_of(workspace)),
    )
