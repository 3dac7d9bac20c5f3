"""How a column writes its times: ISO text, epochs in seconds to nanoseconds, or another form."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

TimeForm = Literal["iso", "s", "ms", "us", "ns", "format"]
_ISO = re.compile(r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d([.,]\d{1,9})?)?( ?(Z|UTC|[+-]\d\d:?\d\d))?)?$", re.IGNORECASE)
_PER_SECOND: dict[str, int] = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
_CLOCK = r"(?P<clock>[T ]+\d{1,2}:\d\d(?P<seconds>:\d\d)?(?P<half> ?[AaPp][Mm])?)?$"
_NUMERIC = re.compile(r"[+-]?\d{8,19}(\.\d+)?$")


@dataclass(frozen=True)
class TimeColumn:
    """The form of a column's times. ``pattern`` is Spark's, for ``format``; ``share``: of values that are such times.

    ``doubtful``: why the form may be another one, or "".
    """

    form: TimeForm
    share: float
    pattern: str = ""
    python: str = ""
    doubtful: str = ""

    def parse(self, text: str | None) -> datetime | None:
        """The time (UTC without a zone), or None."""
        if text is None:
            return None
        try:
            if self.form == "iso":
                return _iso(text)
            if self.form == "format":
                return datetime.strptime(text.strip(), self.python)
            return _epoch(text, self.form)
        except (ValueError, OverflowError):
            return None


def time_column(values: Sequence[str]) -> TimeColumn | None:
    """The form that most of ``values`` have; None where fewer than 0.8 of them are times from 1990 to tomorrow."""
    if not values:
        return None
    found = [_share(values, TimeColumn("iso", 0.0))]
    if sum(bool(_NUMERIC.match(value)) for value in values) >= 0.8 * len(values):
        found += [_share(values, TimeColumn(form, 0.0)) for form in ("s", "ms", "us", "ns")]
        found += [_share(values, _formatted(java, python)) for java, python in _DIGITS]
    else:
        found += [_share(values, one) for one in _written(values)]
    best = max(found, key=lambda one: one.share)
    return best if best.share >= 0.8 else None


_FEW = 20  # values after which a form is given up
_DIGITS = (("yyyyMMdd", "%Y%m%d"), ("yyyyMMddHHmmss", "%Y%m%d%H%M%S"))


def _share(values: Sequence[str], form: TimeColumn) -> TimeColumn:
    earliest, latest = datetime(1990, 1, 1), datetime.now(UTC).replace(tzinfo=None) + timedelta(days=1)
    good = 0
    for number, value in enumerate(values):
        time = form.parse(value)
        good += time is not None and earliest <= time <= latest
        if number == _FEW and good < _FEW / 2:
            return TimeColumn(form.form, 0.0)
    return TimeColumn(form.form, good / len(values), form.pattern, form.python, form.doubtful)


def _formatted(java: str, python: str, doubtful: str = "") -> TimeColumn:
    return TimeColumn("format", 0.0, java, python, doubtful)


def _written(values: Sequence[str]) -> list[TimeColumn]:
    """Forms with day, month and year between dots, slashes or dashes, with the clock of the first value."""
    clock = re.search(_CLOCK, values[0].strip())
    java, python = "", ""
    if clock and clock["clock"]:
        between = "'T'" if "T" in clock["clock"] else " "
        half = bool(clock["half"])
        java = f"{between}{'h' if half else 'H'}:mm{':ss' if clock['seconds'] else ''}{' a' if half else ''}"
        python = f"{between.strip(chr(39))}{'%I' if half else '%H'}:%M{':%S' if clock['seconds'] else ''}"
        python += " %p" if half else ""
    forms: list[TimeColumn] = []
    for mark in "./-":
        day_first = _formatted(f"d{mark}M{mark}yyyy{java}", f"%d{mark}%m{mark}%Y{python}")
        month_first = _formatted(f"M{mark}d{mark}yyyy{java}", f"%m{mark}%d{mark}%Y{python}")
        both = [_share(values, one).share for one in (day_first, month_first)]
        if mark == "/" and both[0] == both[1] and both[0] > 0:
            why = "no day is above 12, so day and month may be the other way round"
            day_first = _formatted(day_first.pattern, day_first.python, why)
        forms += [day_first, month_first, _formatted(f"yyyy{mark}M{mark}d{java}", f"%Y{mark}%m{mark}%d{python}")]
    return forms


def _iso(text: str) -> datetime | None:
    text = text.strip()
    if not _ISO.match(text):
        return None
    plain = re.sub(r" ?UTC$", "Z", text, flags=re.IGNORECASE).replace(",", ".")
    # Python reads at most six digits of a second.
    parsed = datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", plain))
    return parsed if parsed.tzinfo is None else parsed.astimezone(UTC).replace(tzinfo=None)


def _epoch(text: str, unit: str) -> datetime | None:
    if not _NUMERIC.match(text.strip()):
        return None
    return datetime(1970, 1, 1) + timedelta(microseconds=float(text) * 1_000_000 / _PER_SECOND[unit])
