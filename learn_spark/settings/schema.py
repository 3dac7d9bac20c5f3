"""Every setting there is, with its type, default and limits. conf/*.yaml say what a knob does to a run."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0.0, lt=1.0)]
Rate = Annotated[float, Field(gt=0.0)]


class Section(BaseModel):
    """A part of the settings: no unknown keys, no silent conversion of types, no change after loading."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class CsvFile(Section):
    """One CSV file with a header. ``columns`` says which of ours is which of the file's: ``{item_id: sku}``."""

    file: str = Field(min_length=1)
    columns: dict[str, str]


class Source(Section):
    """Where the raw rows come from (learn_spark/sources: one file a format). All but the first two are for csv."""

    format: Literal["movielens-100k", "csv"]
    path: str = Field(min_length=1)
    items: CsvFile | None = None
    events: CsvFile | None = None
    event_type: str = Field(default="event", min_length=1)
    time_unit: Literal["s", "ms", "us", "iso"] = "s"
    separator: str = Field(default=",", min_length=1, max_length=1)

    @model_validator(mode="after")
    def _csv_names_its_columns(self) -> Source:
        needed = {"items": {"item_id"}, "events": {"user_id", "item_id", "event_time"}}
        known = {
            "items": {"item_id", "title", "category", "brand", "price", "keywords", "attributes", "updated_at"},
            "events": {"event_id", "user_id", "item_id", "event_type", "value", "event_time"},
        }
        for name, file in (("items", self.items), ("events", self.events)):
            if self.format != "csv":
                if file is not None:
                    raise ValueError(f"{name} is for format csv, not for {self.format}")
                continue
            if file is None:
                raise ValueError(f"format csv needs {name}: {{file: ..., columns: {{...}}}}")
            if missing := sorted(needed[name] - set(file.columns)):
                raise ValueError(f"{name}.columns must name {', '.join(missing)}")
            if unknown := sorted(set(file.columns) - known[name]):
                raise ValueError(f"{name}.columns has {', '.join(unknown)}; there are {', '.join(sorted(known[name]))}")
        return self


class Spark(Section):
    """The Spark session. On a cluster, spark-submit's own options come first."""

    master: str | None = None
    driver_memory: str = "3g"
    shuffle_partitions: Count = 4
    conf: dict[str, str] = Field(default_factory=dict)


class Text(Section):
    """How an item becomes one text (learn_spark/text)."""

    template: str = "learn-industrial"
    max_characters: Count = 8000
    fallback: str = Field(default="No description.", min_length=1)


class Encoder(Section):
    """The frozen LLM (LEARN, content embedding generation)."""

    model: str = Field(min_length=1)
    revision: str | None = None
    pooling: Literal["mean"] = "mean"
    max_tokens: Count = 500
    normalise: bool = True
    token_budget: Count = 4096
    chunk_rows: Count = 4096
    tasks: Count | None = None


class Histories(Section):
    """How a user's log is ordered, capped and cut."""

    protocol: Literal["leave_last_out"] = "leave_last_out"
    max_length: Annotated[int, Field(ge=3)] = 256
    rows_per_file: Count = 65536
    min_value: float | None = None
    as_of: str | None = None

    @field_validator("as_of")
    @classmethod
    def _is_a_time(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                datetime.fromisoformat(value)
            except ValueError:
                raise ValueError(f"{value!r} is not an ISO time such as 1998-03-01T00:00:00") from None
        return value

    def as_of_micros(self) -> int | None:
        """``as_of`` in microseconds since 1970 (UTC unless it names a zone); events at or after it don't exist."""
        if self.as_of is None:
            return None
        moment = datetime.fromisoformat(self.as_of)
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return round(moment.timestamp() * 1_000_000)


class Feed(Section):
    """Petastorm over one Delta snapshot."""

    batch_size: Annotated[int, Field(ge=2)] = 256
    shuffle_rows: Count = 65536


class Tower(Section):
    """The preference tower (LEARN, preference comprehension)."""

    width: Count = 128
    layers: Count = 2
    heads: Count = 4
    ffn: Count = 512
    output_dim: Count = 64
    dropout: Share = 0.1
    item_tower: Literal["a", "b", "c"] = "a"
    whiten: bool = True
    whitening_ridge: Rate = 0.01

    @model_validator(mode="after")
    def _heads_divide_width(self) -> Tower:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
        return self


class Recency(Section):
    """The paper's stage-2 sampling weights, log(alpha + i (beta - alpha) / (N - 1))."""

    alpha: Annotated[float, Field(gt=1.0)] = 10.0
    beta: Annotated[float, Field(gt=1.0)] = 10000.0


class Objective(Section):
    """The dense all-action loss and its sampling."""

    history: Count = 80
    targets: Count = 40
    history_positions: Count = 10
    target_positions: Count = 10
    temperature: Rate = 0.05
    log_q: bool = False
    recency: Recency | None = None


class Training(Section):
    """The training loop."""

    seed: Annotated[int, Field(ge=0)] = 2024
    epochs: Count = 20
    passes_per_epoch: Count = 1
    patience: Count = 5
    learning_rate: Rate = 1e-3
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.01
    warmup_share: Share = 0.1
    clip_norm: Rate = 1.0
    threads: Count | None = None


class Evaluation(Section):
    """Full-catalogue ranking, history masked, ties counted against the model by half."""

    ks: list[Count] = Field(default_factory=lambda: [10, 50], min_length=1)
    batch_users: Count = 1024


class Release(Section):
    """Publishing user and item features: staged, gated, released."""

    batch_rows: Count = 512
    min_validation_ndcg10: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    min_user_coverage: Annotated[float, Field(ge=0.0, le=1.0)] = 1.0
    norm_tolerance: Rate = 0.001


class Ranking(Section):
    """The ads ranker: exposures after the release's as-of time, cut by time into train and test."""

    positive_value: float = 4.0
    train_share: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.7
    buckets: Count = 4096
    id_dim: Count = 16
    hidden: Count = 64
    fusion_dim: Count = 32
    auxiliary_weight: Annotated[float, Field(ge=0.0)] = 0.5
    epochs: Count = 5
    batch_size: Count = 512
    learning_rate: Rate = 1e-3
    seed: Annotated[int, Field(ge=0)] = 2024


class Pipeline(Section):
    """Which stages ``learn-spark run`` takes, in this order."""

    stages: list[str] = Field(min_length=1)


class Settings(Section):
    """All settings of one workspace."""

    workspace: str = Field(min_length=1)
    source: Source
    spark: Spark = Spark()
    text: Text = Text()
    encoder: Encoder
    histories: Histories = Histories()
    feed: Feed = Feed()
    tower: Tower = Tower()
    objective: Objective = Objective()
    training: Training = Training()
    evaluation: Evaluation = Evaluation()
    release: Release = Release()
    ranking: Ranking = Ranking()
    pipeline: Pipeline

    @model_validator(mode="after")
    def _parts_agree(self) -> Settings:
        wanted = self.objective.history_positions
        if wanted > self.objective.history:
            raise ValueError(
                f"objective.history_positions {wanted} cannot be sampled from "
                f"objective.history {self.objective.history}"
            )
        if self.objective.target_positions > self.objective.targets:
            raise ValueError(
                f"objective.target_positions {self.objective.target_positions} cannot be sampled from "
                f"objective.targets {self.objective.targets}"
            )
        if self.objective.history > self.histories.max_length:
            raise ValueError(
                f"objective.history {self.objective.history} is longer than histories.max_length "
                f"{self.histories.max_length}, the longest history that is stored"
            )
        if self.objective.recency and self.objective.recency.beta <= self.objective.recency.alpha:
            raise ValueError(
                f"objective.recency.beta {self.objective.recency.beta} must be above alpha "
                f"{self.objective.recency.alpha}"
            )
        return self
