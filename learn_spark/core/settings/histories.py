"""How a user's log becomes a history, and how training reads histories."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from learn_spark.core.settings.base import Count, Rate, Section, iso_time
from learn_spark.core.times import as_micros


class HistoriesSettings(Section):
    """How a user's log is filtered, ordered, capped and cut (docs/protocols.md shows the protocols side by side).

    ``cut``, ``targets``, ``held_out``, ``sample`` and ``train_behind_cut`` are for protocol ``time_cut``. Without
    ``train_behind_cut`` all users, held-out ones too, train on what lies before the cut and on nothing else.
    """

    protocol: Literal["leave_last_out", "last_day", "time_cut", "books_meta", "books_hllm"] = "leave_last_out"
    max_length: Annotated[int, Field(ge=3)] = 256
    long_users: Literal["newest", "chunks"] = "newest"
    rows_per_file: Count = 65536
    event_types: Annotated[list[str], Field(min_length=1)] | None = None
    min_value: float | None = None
    weights: dict[str, Rate] = Field(default_factory=dict)
    as_of: str | None = None
    cut: str | None = None
    targets: Count = 40
    held_out: Annotated[float, Field(gt=0.0, le=0.5)] = 0.02
    sample: Literal["newest", "uniform"] = "newest"
    train_behind_cut: bool = True

    @field_validator("as_of", "cut")
    @classmethod
    def _is_a_time(cls, value: str | None) -> str | None:
        return iso_time(value)

    @model_validator(mode="after")
    def _fits_the_protocol(self) -> HistoriesSettings:
        if (self.protocol == "time_cut") != (self.cut is not None):
            raise ValueError("cut is the time T of protocol time_cut: it needs it, and no other protocol takes it")
        if self.protocol != "time_cut" and not self.train_behind_cut:
            raise ValueError("train_behind_cut is for protocol time_cut; no other has a cut in time")
        if self.protocol == "time_cut" and self.targets >= self.max_length:
            raise ValueError(f"targets {self.targets} leave no room for history in max_length {self.max_length}")
        if self.long_users == "chunks" and self.protocol not in ("leave_last_out", "books_hllm"):
            raise ValueError(f"long_users chunks is for leave_last_out and books_hllm, not for {self.protocol}")
        if self.long_users == "newest" and self.protocol == "books_hllm":
            raise ValueError("books_hllm trains on all events of long users: set long_users: chunks")
        if self.event_types is not None and (unknown := sorted(set(self.weights) - set(self.event_types))):
            raise ValueError(f"weights names {', '.join(unknown)}, which event_types leaves out")
        return self

    def as_of_micros(self) -> int | None:
        """``as_of`` in microseconds since 1970 (UTC unless it names a zone); events at or after it don't exist."""
        return None if self.as_of is None else as_micros(self.as_of)

    def cut_micros(self) -> int | None:
        """``cut`` in microseconds since 1970 (UTC unless it names a zone): targets are the events at or after it."""
        return None if self.cut is None else as_micros(self.cut)


class FeedSettings(Section):
    """Petastorm over one Delta snapshot."""

    batch_size: Annotated[int, Field(ge=2)] = 256
    shuffle_rows: Count = 65536
    bucket_batches: Count = 1
