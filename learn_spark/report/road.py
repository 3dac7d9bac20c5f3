"""Which runs a page is about: one run, those that made what it read, and those that went on from there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from learn_spark.core.errors import LearnSparkError
from learn_spark.core.stages.registry import all_stages
from learn_spark.core.tables.runs import Run

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
    lineage = _Lineage(runs)
    above = lineage.above(asked)
    pivot = above.get("train", asked)
    below = [run for run in told if run.status == "done" and lineage.above(run).get(pivot.job) == pivot]
    beside = {job: other for run in below for job, other in lineage.above(run).items() if other not in below}
    found = beside | {run.job: run for run in below} | above
    found.pop("report", None)
    return Road(_in_order(found), asked)


def _in_order(runs: dict[str, Run]) -> tuple[Run, ...]:
    return tuple(runs[stage.name] for stage in all_stages() if stage.name in runs)


class _Lineage:
    """What each run stands on."""

    def __init__(self, runs: Sequence[Run]) -> None:
        self._by_id = {run.run_id: run for run in runs}
        self._makers: dict[tuple[str, str], list[Run]] = {}
        self._above: dict[str, dict[str, Run]] = {}
        for run in runs:
            for name, value in run.outputs.items() if run.status == "done" else ():
                model = name.startswith("models/")
                key = ("model", name.removeprefix("models/")) if model else (name, value)
                self._makers.setdefault(key, []).append(run)

    def above(self, run: Run) -> dict[str, Run]:
        """The run and all runs before it, by stage; of two runs of a stage the newer."""
        if run.run_id not in self._above:
            found = {run.job: run}
            for maker in self._read_by(run):
                for job, other in self.above(maker).items():
                    if job not in found or other.started_at > found[job].started_at:
                        found[job] = other
            found[run.job] = run
            self._above[run.run_id] = found
        return self._above[run.run_id]

    def _read_by(self, run: Run) -> Iterator[Run]:
        for name, value in run.inputs.items():
            if name.startswith("run:"):
                makers = [self._by_id[value]] if value in self._by_id else []
            else:
                makers = self._makers.get((name, value), [])
            before = [maker for maker in makers if maker.started_at < run.started_at]
            if before:
                yield before[-1]
