"""What the values of a column look like: how many, how many distinct, texts, ids, numbers or times."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from learn_spark.data.guesses.contents import Row
from learn_spark.data.guesses.names import name_score
from learn_spark.data.guesses.times import TimeColumn, time_column

PROFILED_ROWS = 2_000
NumberForm = Literal["plain", "comma", "currency", "currency comma"]
# In the order in which they are tried: the form and its values.
_MONEY = r"\s*([€$£¥₹]|EUR|USD|GBP|CHF|JPY|CAD|AUD|SEK|NOK|DKK|PLN|CZK|INR|CNY|BRL|kr\.?|zł|Fr\.?)?\s*"
_NUMBERS: tuple[tuple[NumberForm, str], ...] = (
    ("plain", r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?"),
    ("comma", r"[+-]?(\d{1,3}(\.\d{3})+|\d+),\d+|[+-]?\d+"),
    ("currency", rf"{_MONEY}[+-]?(\d{{1,3}}(,\d{{3}})+|\d+)(\.\d+)?{_MONEY}"),
    ("currency comma", rf"{_MONEY}[+-]?(\d{{1,3}}([. ]\d{{3}})+|\d+)(,\d+)?{_MONEY}"),
)
# Whole numbers with a separator of thousands, which one of them has: (form, separator, what every value is).
_THOUSANDS: tuple[tuple[NumberForm, str, str], ...] = (
    ("currency", ",", r"[+-]?\d{1,3}(,\d{3})*"),
    ("currency comma", ".", rf"{_MONEY}[+-]?\d{{1,3}}(\.\d{{3}})*{_MONEY}"),
)
_LEAST_SHARE = 0.95


@dataclass(frozen=True)
class Profile:
    """A column and the values of its first rows; ``rows`` counts all of them, nulls included."""

    column: str
    rows: int
    values: tuple[str, ...]

    @property
    def present(self) -> float:
        """Share of the rows with a value."""
        return len(self.values) / self.rows if self.rows else 0.0

    @cached_property
    def distinct(self) -> frozenset[str]:
        """The different values."""
        return frozenset(self.values)

    @cached_property
    def unique_share(self) -> float:
        """Different values among all values; 1 for a key."""
        return len(self.distinct) / len(self.values) if self.values else 0.0

    @cached_property
    def time(self) -> TimeColumn | None:
        """The form of the times, if these are times."""
        return time_column(self.values)

    @cached_property
    def number_form(self) -> NumberForm | None:
        """The form in which nearly all values are numbers; None where they are not."""
        if not self._all_fit(_NUMBERS[0][1]):
            for form, separator, pattern in _THOUSANDS:
                if any(separator in value for value in self.values) and self._all_fit(pattern):
                    return form
        for form, pattern in _NUMBERS:
            fits = re.compile(pattern)
            if self.values and sum(bool(fits.fullmatch(v)) for v in self.values) >= _LEAST_SHARE * len(self.values):
                return form
        return None

    def _all_fit(self, pattern: str) -> bool:
        return all(map(re.compile(pattern).fullmatch, self.values))

    @cached_property
    def is_text(self) -> bool:
        """Whether most values contain a letter and are no times."""
        letters = sum(any(c.isalpha() for c in value) for value in self.values)
        return letters > len(self.values) / 2 and self.time is None

    @cached_property
    def is_id(self) -> bool:
        """Whether the values may be identifiers: short, without fractions, and no times unless the name says so."""
        if not self.values:
            return False
        if self.time is not None:
            named_time = max(name_score("event_time", self.column), name_score("updated_at", self.column))
            named_id = max(name_score(field, self.column) for field in ("user_id", "item_id", "event_id"))
            if self.time.form in ("iso", "format") or named_time >= named_id:
                return False
        if self.number_form == "plain":
            return all(re.fullmatch(r"[+-]?\d+(\.0*)?", value) for value in self.values)
        words = sum(value.count(" ") for value in self.values) / len(self.values)
        return max(map(len, self.values)) <= 128 and words < 0.5 and self.number_form is None

    @property
    def mean_length(self) -> float:
        """Characters of a value on average."""
        return sum(map(len, self.values)) / len(self.values) if self.values else 0.0


def profiles(columns: Sequence[str], rows: Sequence[Row]) -> dict[str, Profile]:
    """The profile of every column, over rows spread over all of ``rows``."""
    step = max(1, len(rows) // PROFILED_ROWS)
    chosen = rows[::step]
    return {
        column: Profile(column, len(chosen), tuple(v for row in chosen if (v := row.get(column)) is not None))
        for column in columns
    }
