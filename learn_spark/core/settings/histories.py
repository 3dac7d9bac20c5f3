"""How a user's log becomes a history, and how training reads histories."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from learn_spark.core.settings.base import Count, Rate, Section, iso_time
from learn_spark.core.times import as_micros


class HistoriesSettings(Section):
    """How a user's log is filtered, ordered, capped and cut (docs/protocols.md shows the protocols side by side).

    ``split_time``, ``targets``, ``held_out``, ``sample`` and ``train_after_split`` are for protocol ``time_split``.
    Without ``train_after_split`` all users, held-out ones too, train on the events before ``split_time`` alone.
    """

    protocol: Literal["leave_last_out", "last_day", "time_split", "books_meta", "books_hllm"] = "leave_last_out"
    max_length: Annotated[int, Field(ge=3)] = 256
    long_users: Literal["newest", "chunks"] = "newest"
    rows_per_file: Count = 65536
    event_types: Annotated[list[str], Field(min_length=1)] | None = None
    min_value: float | None = None
    weights: dict[str, Rate] = Field(default_factory=dict)
    as_of: str | None = None
    split_time: str | None = None
    targets: Count = 40
    held_out: Annotated[float, Field(gt=0.0, le=0.5)] = 0.02
    sample: Literal["newest", "uniform"] = "newest"
    train_after_split: bool = True

    @field_validator("as_of", "split_time")
    @classmethod
    def _is_a_time(cls, value: str | None) -> str | None:
        return iso_time(value)

    @model_validator(mode="after")
    def _fits_the_protocol(self) -> HistoriesSettings:
        if (self.protocol == "time_split") != (self.split_time is not None):
            raise ValueError(
                "split_time is the time T of protocol time_split: it needs it, and no other protocol takes it"
            )
        if self.protocol != "time_split" and not self.train_after_split:
            raise ValueError("train_after_split is for protocol time_split; no other has a split in time")
        if self.protocol == "time_split" and self.targets >= self.max_length:
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

    def split_micros(self) -> int | None:
        """``split_time`` in microseconds since 1970 (UTC unless it names a zone): events from it on are targets."""
        return None if self.split_time is None else as_micros(self.split_time)


class FeedSettings(Section):
    """Petastorm over one Delta snapshot."""

    batch_size: Annotated[int, Field(ge=2)] = 256
    shuffle_rows: Count = 65536
    bucket_batches: Count = 1
