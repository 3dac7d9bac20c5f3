"""Settings of user histories and of the training feed."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from learn_spark.core.settings.base import Count, Rate, Section, iso_time
from learn_spark.core.times import as_micros


class _HistoriesSettings(Section):
    max_length: Annotated[int, Field(ge=3)] = 256
    """Maximum number of events of a history."""
    long_users: Literal["newest", "chunks"] = "newest"
    """Users with more events than max_length. newest: their newest events; chunks: older events in further rows, for
    training only."""
    rows_per_file: Count = 65536
    """Users per file, the unit in which the feed reads and shuffles."""
    event_types: Annotated[list[str], Field(min_length=1)] | None = None
    """Event types to use; null: all."""
    min_value: float | None = None
    """Minimum value of an event; events below it are left out. null: no bound."""
    weights: dict[str, Rate] = Field(default_factory=dict)
    """Weight of an event by its type; a type that is not named has weight 1."""
    as_of: str | None = None
    """ISO time; events at or after it are ignored. null: all events are used."""

    @field_validator("as_of")
    @classmethod
    def _is_a_time(cls, value: str | None) -> str | None:
        return iso_time(value)

    @model_validator(mode="after")
    def _weights_are_of_used_types(self) -> _HistoriesSettings:
        if self.event_types is not None and (unknown := sorted(set(self.weights) - set(self.event_types))):
            raise ValueError(f"weights has the types {', '.join(unknown)}, which are not in event_types")
        return self

    def as_of_micros(self) -> int | None:
        """``as_of`` in microseconds since 1970 (UTC unless it names a zone)."""
        return None if self.as_of is None else as_micros(self.as_of)

    def split_micros(self) -> int | None:
        """The split time in microseconds since 1970 (UTC unless it names a zone); None if the protocol has none."""
        return None


class LastEventsHistoriesSettings(_HistoriesSettings):
    """Targets are the last events of each user; docs/protocols.md compares the protocols."""

    protocol: Literal["leave_last_out", "last_day", "books_meta", "books_hllm"] = "leave_last_out"
    """leave_last_out: the last event is the test target, the one before the validation target. last_day: the events of
    the last day (test) and of the day before (validation). books_meta, books_hllm: the splits of Amazon Books of two
    papers."""

    @model_validator(mode="after")
    def _long_users_fit_the_protocol(self) -> LastEventsHistoriesSettings:
        if self.long_users == "chunks" and self.protocol not in ("leave_last_out", "books_hllm"):
            raise ValueError(f"long_users chunks is for leave_last_out and books_hllm, not for {self.protocol}")
        if self.long_users == "newest" and self.protocol == "books_hllm":
            raise ValueError("books_hllm trains on all events of long users: set long_users: chunks")
        return self


class TimeSplitHistoriesSettings(_HistoriesSettings):
    """Targets are the events from a time on; the users of validation and test are excluded from training."""

    protocol: Literal["time_split"] = "time_split"
    """Events before split_time are history, events at or after it are targets (LEARN, industrial data set)."""
    split_time: str
    """ISO time from which on events are targets."""
    targets: Count = 40
    """Maximum number of targets per user."""
    held_out: Annotated[float, Field(gt=0.0, le=0.5)] = 0.02
    """Share of the users for validation, and the same share for test."""
    sample: Literal["newest", "uniform"] = "newest"
    """Which events of a long log: the newest, or a uniform sample (the paper's stage 1)."""
    train_after_split: bool = True
    """Whether training users' events from split_time on are training targets. false: all users, those of validation and
    test included, train on events before split_time only, so that later items are cold."""

    @field_validator("split_time")
    @classmethod
    def _split_is_a_time(cls, value: str) -> str:
        iso_time(value)
        return value

    @model_validator(mode="after")
    def _leaves_room_for_history(self) -> TimeSplitHistoriesSettings:
        if self.targets >= self.max_length:
            raise ValueError(
                f"targets {self.targets} must be fewer than max_length {self.max_length}, so that a history has room"
            )
        if self.long_users == "chunks":
            raise ValueError("long_users chunks is for leave_last_out and books_hllm, not for time_split")
        return self

    def split_micros(self) -> int:
        """``split_time`` in microseconds since 1970 (UTC unless it names a zone)."""
        return as_micros(self.split_time)


HistoriesSettings = Annotated[LastEventsHistoriesSettings | TimeSplitHistoriesSettings, Field(discriminator="protocol")]


class FeedSettings(Section):
    """How training reads histories: Petastorm over one Delta snapshot."""

    batch_size: Annotated[int, Field(ge=2)] = 256
    """Users per step; with objective.prefixes, prefixes per step. With in-batch negatives, each user's targets are the
    negatives of the others."""
    shuffle_rows: Count = 65536
    """Rows in the shuffle buffer, of users or prefixes as batch_size. More rows mix better and take more memory."""
    bucket_batches: Count = 1
    """Batches that are sorted by length together. More batches mean less padding and less random batches."""
