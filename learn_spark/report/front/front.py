"""The front page's own parts, gathered from the tables of a workspace."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from learn_spark.core.tables.runs import Run
from learn_spark.core.tables.workspace import Workspace
from learn_spark.features.ledger import LedgerRow
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


def publish_run(releases: Sequence[LedgerRow], road: Road, release: LedgerRow | None) -> str | None:
    """The run that staged ``release``; without one, the publish run of ``road``; None if there is none.

    ``releases``: the ledger.
    """
    if release is None:
        published = road.of("publish")
        return published.run_id if published else None
    staged = [row for row in releases if row.release_id == release.release_id and row.status == "staged"]
    return (staged[-1] if staged else release).run_id


def front_of(
    workspace: Workspace,
    runs: Sequence[Run],
    verdicts: Mapping[str, str],
    releases: Sequence[LedgerRow],
    release: LedgerRow | None,
) -> Front:
    """The parts of the front page. ``runs``: all, oldest first; ``verdicts``: of the gate of "table @ version";
    ``releases``: the ledger; ``release``: the release in force.
    """
    return Front(
        models=models_of(workspace, release),
        tables=tuple(table_states(workspace, runs, verdicts)),
        refusals=refusals(workspace),
        releases=tuple(release_lines(workspace, releases)),
        experiments=tuple(experiments_of(workspace)),
    )
