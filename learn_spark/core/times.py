"""Times as microseconds since 1970, UTC."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta


def as_micros(value: str) -> int:
    """An ISO time in microseconds since 1970, UTC unless it names a zone; ValueError for anything else."""
    moment = datetime.fromisoformat(value)
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return round(moment.timestamp() * 1_000_000)


def from_micros(micros: int) -> datetime:
    """The time (UTC) that is so many microseconds after 1970, to the microsecond."""
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=micros)
