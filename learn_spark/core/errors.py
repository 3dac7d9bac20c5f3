"""The errors a user can meet, each with the exit code its job ends with."""

from __future__ import annotations


class LearnSparkError(Exception):
    """Something a user can put right; the message says what is wrong, where, and what to do."""

    exit_code = 1


class SettingsError(LearnSparkError):
    """A setting that is unknown, of the wrong type or in contradiction with another."""

    exit_code = 2


class GateFailed(LearnSparkError):
    """A quality gate said no; nothing downstream was changed."""

    exit_code = 3
