"""Times as microseconds since 1970, UTC."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

DAY = 86_400_000_000


def as_micros(value: str) -> int:
    """An ISO time in microseconds since 1970, in UTC unless it has an offset. Raises ValueError for other text."""
    moment = datetime.fromisoformat(value)
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return round(moment.timestamp() * 1_000_000)


def from_micros(micros: int) -> datetime:
    """The UTC time ``micros`` microseconds after 1970-01-01, exact to the microsecond."""
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=micros)
