"""The road as a picture: a step a stage, with rows, seconds and gates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from learn_spark.core.stages.registry import find_stage
from learn_spark.core.tables.runs import Run


@dataclass(frozen=True)
class StepGate:
    """The gates of the tables that a stage wrote: the worst verdict, and how many of them have it."""

    verdict: str
    count: int
    of: int

    @property
    def words(self) -> str:
        """For example ``3 gates passed`` and ``1 of 3 gates: warning``."""
        gates = "gate" if self.of == 1 else "gates"
        if self.verdict == "passed":
            return f"{self.of} {gates} passed"
        return f"{self.count} of {self.of} {gates}: {self.verdict}"


@dataclass(frozen=True)
class RoadStep:
    """A stage's run. ``share``: its part of the longest step's seconds, 0 to 1."""

    run: Run
    summary: str
    share: float
    gate: StepGate | None


def steps_of(runs: Sequence[Run], verdicts: Mapping[str, str]) -> list[RoadStep]:
    """A step for each run. ``verdicts``: of the gate of "table @ version"."""
    longest = max((run.seconds for run in runs), default=0.0) or 1.0
    steps = []
    for run in runs:
        own = [verdicts[name] for table, version in run.outputs.items() if (name := f"{table} @ {version}") in verdicts]
        gate = None
        if own:
            worst = next(v for v in ("failed", "warning", "passed") if v in own)
            gate = StepGate(worst, own.count(worst), len(own))
        steps.append(RoadStep(run, find_stage(run.job).summary, run.seconds / longest, gate))
    return steps
