"""The experiments whose pages lie beside the front page."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from learn_spark.ads.experiments.metrics import METRICS
from learn_spark.core.storage.path import StoragePath
from learn_spark.core.tables.workspace import Workspace
from learn_spark.report.front.experiment_files import experiment_files
from learn_spark.report.plots.text import SIGNED_PERCENT


@dataclass(frozen=True)
class ExperimentLine:
    """A treatment of an experiment in its primary metric. ``page``: the file of its page; ``lift`` and its
    ``interval`` in percent.

    ``verdict``: the worst of its checks.
    """

    name: str
    page: str
    metric: str
    treatment: str
    lift: str
    interval: str
    p: float | None
    users: int
    verdict: str


def experiments_of(workspace: Workspace) -> list[ExperimentLine]:
    """The treatments of all experiments; files that are no result of an experiment are left out."""
    return [line for file in experiment_files(workspace) for line in _lines(file.path)]


def _lines(file: StoragePath) -> Iterator[ExperimentLine]:
    try:
        result: Any = json.loads(file.read_text())
        verdicts = [check["verdict"] for check in result["checks"]]
        worst = next((name for name in ("failed", "warning") if name in verdicts), "passed")
        for one in result["whole"]:
            if one["metric"] != result["primary"]:
                continue
            best = one["reduced"] or one["plain"]
            yield ExperimentLine(
                name=str(result["name"]),
                page=f"{file.name.removesuffix('.json')}.html",
                metric=METRICS[one["metric"]].label,
                treatment=f"{one['treatment']} against {result['control']}",
                lift=_percent(best["lift"]),
                interval=f"{_percent(best['lift_low'])} to {_percent(best['lift_high'])}",
                p=one["p_adjusted"],
                users=sum(result["users"].values()),
                verdict=worst,
            )
    except (OSError, ValueError, KeyError, TypeError):
        return


def _percent(share: float | None) -> str:
    return "none" if share is None else SIGNED_PERCENT.write(share)
