"""Which runs a page is about: one run, those that made what it read, and those that went on from there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from learn_spark.core.errors import LearnSparkError
from learn_spark.core.stages.registry import all_stages
from learn_spark.core.tables.runs import Run
from learn_spark.pipeline.lineage import Lineage

NAMED_IN_ERRORS = 5


@dataclass(frozen=True)
class Road:
    """At most one run a stage, in the order of the road. ``asked`` is the run that was asked for; None: the newest.

    ``later`` are runs of the same stages that began afterwards and did not end well; only of the newest road.
    """

    runs: tuple[Run, ...]
    asked: Run | None
    later: tuple[Run, ...] = ()

    def of(self, job: str) -> Run | None:
        """The run of a stage."""
        return next((run for run in self.runs if run.job == job), None)

    @property
    def model_id(self) -> str | None:
        """The model that was trained, or else read, on this road."""
        trained = self.of("train")
        if trained is not None and trained.model_id is not None:
            return trained.model_id
        return next((run.inputs["model"] for run in self.runs if "model" in run.inputs), None)


def road_of(runs: Sequence[Run], run_id: str | None = None) -> Road:
    """The road of a run, or of the newest run of every stage. ``runs`` is oldest first.

    To a run belong the runs whose outputs it read, at the versions that it read, and theirs in turn; then of every
    other stage the newest run that read, directly or not, what the same training wrote (where there is no training
    yet: what the run itself wrote). Raises LearnSparkError where there is no run, or none of this id.
    """
    told = [run for run in runs if run.job != "report"]
    if run_id is None:
        newest = {run.job: run for run in told if run.status == "done"}
        if not newest:
            raise LearnSparkError("report: no stage has run yet; there is nothing to tell")
        failed = {run.job: run for run in told if run.status != "done"}
        later = [run for job, run in failed.items() if job not in newest or run.started_at > newest[job].started_at]
        return Road(_in_order(newest), None, _in_order({run.job: run for run in later}))
    asked = next((run for run in runs if run.run_id == run_id), None)
    if asked is None:
        few = ", ".join(f"{run.run_id} ({run.job})" for run in list(reversed(told))[:NAMED_IN_ERRORS])
        raise LearnSparkError(f"report: there is no run {run_id!r} of {len(runs)}; the newest are {few or 'none'}")
    lineage = Lineage(runs)
    above = lineage.above(asked)
    pivot = above.get("train", asked)
    below = [run for run in told if run.status == "done" and lineage.above(run).get(pivot.job) == pivot]
    beside = {job: other for run in below for job, other in lineage.above(run).items() if other not in below}
    found = beside | {run.job: run for run in below} | above
    found.pop("report", None)
    return Road(_in_order(found), asked)


def _in_order(runs: dict[str, Run]) -> tuple[Run, ...]:
    return tuple(runs[stage.name] for stage in all_stages() if stage.name in runs)
