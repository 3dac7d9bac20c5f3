"""The errors that commands report to users, each with the exit code of the command."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class LearnSparkError(Exception):
    """An error that a user can correct. The message states what is wrong, where, and what to do."""

    exit_code = 1


class SettingsError(LearnSparkError):
    """A setting that is unknown, has a wrong type, or contradicts another one."""

    exit_code = 2


@dataclass(frozen=True)
class BrokenRule:
    """A rule of a quality gate, its bounds (None: no bound), and the observed value that is outside of them."""

    rule: str
    observed: float | None
    least: float | None
    most: float | None
    meaning: str

    def __str__(self) -> str:
        observed = "null" if self.observed is None else f"{self.observed:g}"
        if self.least is not None and self.least == self.most:
            expected = f"= {self.least:g}"
        else:
            bounds = {">=": self.least, "<=": self.most}
            expected = " and ".join(f"{sign} {bound:g}" for sign, bound in bounds.items() if bound is not None)
        return f"{self.rule} = {observed}, expected {expected} ({self.meaning})"


class GateError(LearnSparkError):
    """A quality gate failed. Stages that read its table do not run, and their tables are unchanged.

    ``broken``: the rules that failed; empty if the gate failed for another reason.
    """

    exit_code = 3

    def __init__(self, message: str, gate: str = "", broken: Sequence[BrokenRule] = ()) -> None:
        super().__init__(message)
        self.gate = gate
        self.broken = tuple(broken)


class RowCountError(LearnSparkError):
    """The number of rows written or read differs from the number expected: rows were lost or counted twice."""
