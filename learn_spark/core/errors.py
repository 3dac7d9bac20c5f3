"""The errors that a user can meet, each with the exit code of the command that it ends."""

from __future__ import annotations


class LearnSparkError(Exception):
    """Something that a user can correct. The message says what is wrong, where, and what to do."""

    exit_code = 1


class SettingsError(LearnSparkError):
    """A setting that is unknown, has a wrong type, or contradicts another one."""

    exit_code = 2


class GateError(LearnSparkError):
    """A quality gate failed. Stages that read its table do not run, and their tables stay as they were."""

    exit_code = 3


class RowCountError(LearnSparkError):
    """The rows written or read differ in number from those that went in: some were lost, or counted twice."""
