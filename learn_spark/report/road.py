"""Selection of the runs of a page: one run, the runs that its inputs come from, and the runs that follow from it."""

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
    """At most one run per stage, in the order of the pipeline.

    ``chosen``: the run that the page is about; None: the newest run of every stage. ``later``: failed or refused runs
    of these stages that started later; only if ``chosen`` is None.
    """

    runs: tuple[Run, ...]
    chosen: Run | None
    later: tuple[Run, ...] = ()

    def of(self, job: str) -> Run | None:
        """The run of the stage ``job``; None if there is none."""
        return next((run for run in self.runs if run.job == job), None)

    @property
    def model_id(self) -> str | None:
        """The model that these runs trained, else the one that they read; None if there is none."""
        trained = self.of("train")
        if trained is not None and trained.model_id is not None:
            return trained.model_id
        return next((run.inputs["model"] for run in self.runs if "model" in run.inputs), None)


def road_of(runs: Sequence[Run], run_id: str | None = None) -> Road:
    """The runs connected to ``run_id``, or the newest run of every stage. ``runs``: oldest first.

    Connected to a run are the runs that wrote its inputs at the versions that it read, directly or not; then, of every
    other stage, the newest run that depends on the same training (without a training: on the run itself). Raises
    LearnSparkError if there is no run, or no run of this id.
    """
    stage_runs = [run for run in runs if run.job != "report"]
    if run_id is None:
        newest = {run.job: run for run in stage_runs if run.status == "done"}
        if not newest:
            raise LearnSparkError("report: no stage has run in this workspace yet; learn-spark run runs them")
        failed = {run.job: run for run in stage_runs if run.status != "done"}
        later = [run for job, run in failed.items() if job not in newest or run.started_at > newest[job].started_at]
        return Road(_in_order(newest), None, _in_order({run.job: run for run in later}))
    chosen = next((run for run in runs if run.run_id == run_id), None)
    if chosen is None:
        few = ", ".join(f"{run.run_id} ({run.job})" for run in list(reversed(stage_runs))[:NAMED_IN_ERRORS])
        raise LearnSparkError(f"report: there is no run {run_id!r} of {len(runs)}; the newest are {few or 'none'}")
    lineage = Lineage(runs)
    above = lineage.above(chosen)
    pivot = above.get("train", chosen)
    below = [run for run in stage_runs if run.status == "done" and lineage.above(run).get(pivot.job) == pivot]
    their_sources = {job: other for run in below for job, other in lineage.above(run).items() if other not in below}
    connected = their_sources | {run.job: run for run in below} | above
    connected.pop("report", None)
    return Road(_in_order(connected), chosen)


def _in_order(runs: dict[str, Run]) -> tuple[Run, ...]:
    return tuple(runs[stage.name] for stage in all_stages() if stage.name in runs)
