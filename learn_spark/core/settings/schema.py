"""Every setting there is, with its type, default and limits. conf/*.yaml say what a knob does to a run."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0.0, lt=1.0)]
Rate = Annotated[float, Field(gt=0.0)]


class Section(BaseModel):
    """A part of the settings: no unknown keys, no silent conversion of types, no change after loading."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, serialize_by_alias=True)


class Files(Section):
    """Some files of one table, for format ``files``. ``columns`` says what each of our columns is: a column of the
    file, or a Spark SQL expression over its columns (``{item_id: sku, value: "try_cast(pieces as int) * 2"}``).

    The columns of CSV and JSON lines are text. ``try_cast`` makes null of what is no number; a plain cast, or a sum
    with text, stops the run at the first such row. ``where`` passes rows over for which it is false or null.
    ``multiline`` lets a quoted CSV field hold line breaks; a file is then read by one task, and a quote that is never
    closed makes one malformed row of the rest of it.
    """

    files: str = Field(min_length=1)
    format: Literal["csv", "json-lines", "parquet", "delta"] = "csv"
    separator: str = Field(default=",", min_length=1)
    multiline: bool = False
    columns: dict[str, str]
    where: str | None = None


class Log(Files):
    """Some files of exposures or outcomes. A column of schemas/exposures.yaml that ``columns`` does not name is the
    file's column of that name, where it has one. ``time_unit`` is that of numbers; timestamps are read as they are.
    """

    columns: dict[str, str] = Field(default_factory=dict)
    time_unit: Literal["s", "ms", "us", "iso"] = "iso"


class Source(Section):
    """Where the raw rows come from (learn_spark/data/sources: one file a format). ``items``, ``events``, ``event_type``
    and ``time_unit`` are for format ``files``: own data, described wholly here.
    """

    format: Literal[
        "movielens-100k",
        "movielens",
        "amazon-2014",
        "amazon-2018",
        "online-retail",
        "complete-journey",
        "files",
    ]
    path: str = Field(min_length=1)
    unreadable: Literal["stop", "skip"] = "stop"
    items: Files | None = None
    events: Files | None = None
    event_type: str = Field(default="event", min_length=1)
    time_unit: Literal["s", "ms", "us", "iso"] = "s"

    @model_validator(mode="after")
    def _own_files_name_their_columns(self) -> Source:
        needed = {"items": {"item_id"}, "events": {"user_id", "item_id", "event_time"}}
        known = {
            "items": {"item_id", "title", "category", "brand", "price", "keywords", "attributes", "updated_at"},
            "events": {"event_id", "user_id", "item_id", "event_type", "value", "event_time", "updated_at"},
        }
        for name, files in (("items", self.items), ("events", self.events)):
            if self.format != "files":
                if files is not None:
                    raise ValueError(f"{name} is for format files, not for {self.format}")
                continue
            if files is None:
                raise ValueError(f"format files needs {name}: {{files: ..., columns: {{...}}}}")
            if missing := sorted(needed[name] - set(files.columns)):
                raise ValueError(f"{name}.columns must name {', '.join(missing)}")
            if unknown := sorted(set(files.columns) - known[name]):
                raise ValueError(f"{name}.columns has {', '.join(unknown)}; there are {', '.join(sorted(known[name]))}")
        return self


class Spark(Section):
    """The Spark session. On a cluster, spark-submit's own options come first."""

    master: str | None = None
    driver_memory: str = "3g"
    shuffle_partitions: Count = 4
    conf: dict[str, str] = Field(default_factory=dict)


class RuleChange(Section):
    """What a workspace wants otherwise than the contract's rule says. A bound of null is no bound."""

    least: float | None = None
    most: float | None = None
    severity: Literal["fail", "warn"] = "fail"


class Quality(Section):
    """The gates (schemas/*.yaml list the rules): ``rules: {interactions.age_days: {most: 2}}`` changes one. On the
    command line: ``--set 'quality.rules={interactions.age_days: {most: 2}}'``.
    """

    rules: dict[str, RuleChange] = Field(default_factory=dict)


class Text(Section):
    """How an item becomes one text (learn_spark/data/text)."""

    template: str = "learn-industrial"
    max_characters: Count = 8000
    fallback: str = Field(default="No description.", min_length=1)


class Encoder(Section):
    """The frozen LLM (LEARN, content embedding generation)."""

    model: str = Field(min_length=1)
    revision: str | None = None
    pooling: Literal["mean", "last", "cls"] = "mean"
    prefix: str = ""
    max_tokens: Count = 500
    normalise: bool = True
    precision: Literal["fp32", "bf16", "int8"] = "fp32"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    token_budget: Count = 4096
    window_rows: Count = 4096
    gpus: Annotated[int, Field(ge=0)] = 0
    chunk_rows: Count = 4096
    tasks: Count | None = None


class Space(Section):
    """The space in which towers read embeddings, fitted on the training catalogue alone (learn_spark/encoder/space.py).

    ``ridge`` and ``dims`` (None: all) are for whitened. ``dtype`` is that of the item matrix's file.
    """

    kind: Literal["raw", "centred", "whitened"] = "whitened"
    ridge: Annotated[float, Field(ge=0.0)] = 0.01
    dims: Count | None = None
    dtype: Literal["float32", "float16"] = "float32"

    @model_validator(mode="after")
    def _dims_are_of_a_whitened_space(self) -> Space:
        if self.dims is not None and self.kind != "whitened":
            raise ValueError(f"dims {self.dims} is for a whitened space, not for a {self.kind} one; set dims to null")
        return self


class Histories(Section):
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
        return _iso_time(value)

    @model_validator(mode="after")
    def _fits_the_protocol(self) -> Histories:
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


def as_micros(value: str) -> int:
    """An ISO time in microseconds since 1970, UTC unless it names a zone; ValueError for anything else."""
    moment = datetime.fromisoformat(value)
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return round(moment.timestamp() * 1_000_000)


def _iso_time(value: str | None) -> str | None:
    if value is not None:
        try:
            as_micros(value)
        except ValueError:
            raise ValueError(f"{value!r} is not an ISO time such as 1998-03-01T00:00:00") from None
    return value


def from_micros(micros: int) -> datetime:
    """The time (UTC) that is so many microseconds after 1970, to the microsecond."""
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=micros)


class Feed(Section):
    """Petastorm over one Delta snapshot."""

    batch_size: Annotated[int, Field(ge=2)] = 256
    shuffle_rows: Count = 65536
    bucket_batches: Count = 1


class Evidence(Section):
    """Co-occurrence beside the tower (learn_spark/model/reranking), where validation likes it better than the tower alone:
    pairs of events at most ``reach`` apart, each ``decay`` ^ (apart - 1), weighed by a small head that is fitted on the
    validation targets. ``rare``: a target of an item with n events weighs (1 + n) ^ -rare in the fit; above 0 it
    favours rare items. In each of ``epochs`` every user is scored against the whole catalogue: for some 100,000 items.
    """

    reach: Count = 10
    decay: Annotated[float, Field(gt=0.0, le=1.0)] = 0.8
    hidden: Count = 32
    epochs: Count = 8
    batch_size: Count = 128
    learning_rate: Rate = 3e-3
    rare: Annotated[float, Field(ge=0.0)] = 0.0


class Fusion(Section):
    """Content and popularity in the vectors (learn_spark/model/blending), where validation likes them better than the tower's
    own: the likeness of an item's text to that of the user's last ``reach`` events, and how often it was bought, each
    by how much is known of the item. Fitted on the validation targets of at most so many ``users``, each scored against
    the whole catalogue. ``rare`` as in Evidence. Vectors become longer by those of the content, and two.
    """

    reach: Count = 10
    users: Count = 10_000
    rare: Annotated[float, Field(ge=0.0)] = 0.0


class Tower(Section):
    """The preference tower: LEARN's over content, or a rival over item IDs (learn_spark/model/towers: one file a kind).

    ``item_tower`` and ``output_dim`` are for learn; the vectors of the others are as wide as the tower. ``ids``,
    ``id_dropout`` and ``time_gaps`` are for learn-plus; ``similarity`` and ``positions`` for sasrec and hstu.
    ``evidence`` is for all, ``fusion`` for those over content. ``positions`` count from the window's first event or
    from its last; null: as its authors do, sasrec from the last, hstu from the first.
    """

    kind: Literal["learn", "learn-plus", "sasrec", "hstu"] = "learn"
    width: Count = 128
    layers: Count = 2
    heads: Count = 4
    ffn: Count = 512
    output_dim: Count = 64
    dropout: Share = 0.1
    item_tower: Literal["a", "b", "c"] = "a"
    similarity: Literal["cosine", "dot"] = "cosine"
    positions: Literal["first", "last"] | None = None
    ids: bool = True
    id_dropout: Share = 0.0
    time_gaps: bool = False
    fusion: Fusion | None = None
    evidence: Evidence | None = None

    @property
    def reads_content(self) -> bool:
        """Whether the tower is one over the frozen embeddings."""
        return self.kind in ("learn", "learn-plus")

    @model_validator(mode="after")
    def _heads_divide_width(self) -> Tower:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
        return self

    @model_validator(mode="after")
    def _fusion_has_content(self) -> Tower:
        if self.fusion is not None and not self.reads_content:
            raise ValueError(f"fusion is of content, which a {self.kind} tower does not read; set tower.fusion to null")
        return self


class Recency(Section):
    """The paper's stage-2 sampling weights, log(alpha + i (beta - alpha) / (N - 1))."""

    alpha: Annotated[float, Field(gt=1.0)] = 10.0
    beta: Annotated[float, Field(gt=1.0)] = 10000.0


class Objective(Section):
    """What is predicted, and against which negatives.

    ``predicts`` all_action: N_h positions of a history each predict N_t later targets (LEARN, section 3); next_item:
    every position predicts the item after it (SASRec). ``negatives`` in_batch: other users' targets; uniform:
    ``n_negatives`` drawn from the catalogue for the batch, or for each position with ``per_position``; mixed: both;
    full: softmax over the whole catalogue.

    ``crop_share`` of the sequences show training a random stretch of themselves alone (next_item).
    ``popularity_correction`` a: training adds a * log(an item's share of the events) to the scores of a full softmax,
    so that the vectors need not say how popular an item is, and rank rare ones higher.
    """

    predicts: Literal["all_action", "next_item"] = "all_action"
    negatives: Literal["in_batch", "uniform", "mixed", "full"] = "in_batch"
    n_negatives: Count = 256
    per_position: bool = False
    history: Count = 80
    targets: Count = 40
    history_positions: Count = 10
    target_positions: Count = 10
    temperature: Rate = 0.05
    learn_temperature: bool = False
    log_q: bool = False
    popularity_correction: Annotated[float, Field(ge=0.0)] = 0.0
    crop_share: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    recency: Recency | None = None

    @property
    def needs_shares(self) -> bool:
        """Whether the loss reads the items' shares of the events."""
        return self.log_q or self.popularity_correction > 0.0

    @model_validator(mode="after")
    def _negatives_fit(self) -> Objective:
        if self.per_position and self.negatives != "uniform":
            raise ValueError(f"per_position is for negatives uniform, not for {self.negatives}")
        if self.popularity_correction and self.negatives != "full":
            raise ValueError(f"popularity_correction is for negatives full, not for {self.negatives}")
        if self.crop_share and self.predicts != "next_item":
            raise ValueError(f"crop_share is for next_item, not for {self.predicts}")
        return self


class Training(Section):
    """The training loop.

    ``refit``: once validation has chosen the epoch, the tower is trained anew for as many epochs on the validation
    events too. What is released, and judged on the test cut, has then learnt from all but the test events; validation
    is judged with the tower that was chosen. ``trial``: one of a search (which sets it); it is neither judged on the
    test cut nor released. ``average``: the weights that are judged and kept are the moving average of all steps', each
    step weighing ``average`` times the next one; 0: the last step's. ``precision``: bf16 makes products in bf16, the
    rest in fp32; auto does so where the device has instructions for them.
    """

    seed: Annotated[int, Field(ge=0)] = 2024
    epochs: Count = 20
    passes_per_epoch: Count = 1
    patience: Count = 5
    learning_rate: Rate = 1e-3
    schedule: Literal["cosine", "constant"] = "cosine"
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.01
    beta2: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.999
    warmup_share: Share = 0.1
    clip_norm: Rate = 1.0
    accumulate: Count = 1
    average: Share = 0.0
    precision: Literal["auto", "fp32", "bf16"] = "fp32"
    compile: bool = False
    refit: bool = False
    trial: bool = False
    device: Literal["auto", "cpu", "cuda"] = "auto"
    resume: Literal["auto", "never"] = "auto"
    checkpoint_minutes: Annotated[float, Field(ge=0.0)] = 10.0
    processes: Count = 1
    launcher: Literal["local", "spark"] = "local"
    threads: Count | None = None


class Evaluation(Section):
    """Full-catalogue ranking, ties counted against the model by half. ``mask_history``: items that a user had before
    the targets do not compete with them. ``evidence``: a model that has evidence of co-occurrence is judged with it
    and, as its released vectors rank, by its tower alone; false: by its tower alone.
    """

    ks: list[Count] = Field(default_factory=lambda: [10, 50, 100, 200], min_length=1)
    mask_history: bool = True
    evidence: bool = True
    bootstrap_samples: Count = 500


class Release(Section):
    """Publishing user and item features: staged, audited, released. ``min_cosine`` and those after it compare with the
    release before. ``backfill``: for a past day; read by its id or as of a time, never as the latest.
    """

    batch_rows: Count = 512
    min_validation_ndcg10: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    min_user_coverage: Annotated[float, Field(ge=0.0, le=1.0)] = 1.0
    norm_tolerance: Rate = 0.001
    min_cosine: Annotated[float, Field(ge=-1.0, le=1.0)] = 0.3
    max_vanished_share: Annotated[float, Field(ge=0.0, le=1.0)] = 0.1
    max_new_share: Annotated[float, Field(ge=0.0, le=1.0)] = 0.5
    max_validation_lost: Annotated[float, Field(ge=0.0, le=1.0)] = 0.2
    backfill: bool = False


class Index(Section):
    """The FAISS index of the released items (inner product). ``nlist`` and ``nprobe`` are for ivf, the others for hnsw.

    ``nlist`` None: 4 sqrt(items), and not more than a 39th of them, below which FAISS finds a training too small.
    """

    kind: Literal["flat", "hnsw", "ivf"] = "flat"
    links: Annotated[int, Field(ge=2)] = 32
    ef_construction: Count = 200
    ef_search: Count = 128
    nlist: Count | None = None
    nprobe: Count = 32
    queries: Count = 1000
    max_added_share: Annotated[float, Field(ge=0.0, le=1.0)] = 0.3


class Exposures(Section):
    """The exposures that ads are ranked on (docs/exposures.md), those with ``since`` <= event_time < ``until``.

    ``origin`` (``from`` in YAML) interactions: every event of the workspace, converted from ``positive_value`` on;
    logs: own logs, as ``logs`` describes them; complete-journey: promotions and coupons of that package, which are
    simulated. ``path`` is the folder of the logs, or of the package's files; null: ``source.path``. Coupons are of
    campaigns of ``campaign_types``: what a household received of a campaign of Type A the files do not tell.

    Of the unconverted exposures of complete-journey a share is kept, ``promotion_rate`` and ``coupon_rate``, chosen by
    a hash of the event_id and ``seed``; they weigh 1 / rate. A coupon is converted if it is redeemed within
    ``attribution_days``.
    """

    origin: Literal["interactions", "logs", "complete-journey"] = Field(default="interactions", alias="from")
    since: str | None = None
    until: str | None = None
    positive_value: float = 4.0
    path: str | None = Field(default=None, min_length=1)
    logs: list[Log] = Field(default_factory=list)
    kinds: Annotated[list[Literal["promotion", "coupon"]], Field(min_length=1)] = ["promotion", "coupon"]
    campaign_types: Annotated[list[str], Field(min_length=1)] = ["Type B", "Type C"]
    promotion_rate: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    coupon_rate: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    attribution_days: Count = 21
    seed: Annotated[int, Field(ge=0)] = 2024

    @field_validator("since", "until")
    @classmethod
    def _is_a_time(cls, value: str | None) -> str | None:
        return _iso_time(value)

    @model_validator(mode="after")
    def _parts_agree(self) -> Exposures:
        if (self.origin == "logs") != bool(self.logs):
            raise ValueError("logs are described if and only if from is logs: logs: [{files: ..., columns: {...}}]")
        if self.since is not None and self.until is not None and as_micros(self.since) >= as_micros(self.until):
            raise ValueError(f"since {self.since} is not before until {self.until}")
        return self

    def since_micros(self) -> int | None:
        """``since`` in microseconds since 1970 (UTC unless it names a zone)."""
        return None if self.since is None else as_micros(self.since)

    def until_micros(self) -> int | None:
        """``until`` in microseconds since 1970 (UTC unless it names a zone)."""
        return None if self.until is None else as_micros(self.until)


Variant = Literal["base", "learn", "learn-adaptor", "gbdt", "gbdt-learn"]
Thresholds = Annotated[list[Count], Field(min_length=2, max_length=2)]


class Cohorts(Section):
    """Items and users by their events before the release's as-of time: cold (fewer than the first), long-tail (fewer
    than the second), other.
    """

    item: Thresholds = Field(default_factory=lambda: [1, 20])
    user: Thresholds = Field(default_factory=lambda: [1, 20])

    @model_validator(mode="after")
    def _rise(self) -> Cohorts:
        for name, (first, second) in (("item", self.item), ("user", self.user)):
            if first >= second:
                raise ValueError(f"cohorts.{name}: thresholds must rise, got {[first, second]}")
        return self


class Trees(Section):
    """Gradient-boosted trees (LightGBM), the sanity baseline of variants gbdt and gbdt-learn.

    ``max_step`` bounds what a leaf adds to a logit before the learning rate: where conversions are rare and the others'
    weights large, the Newton step of a leaf of conversions alone is next to endless.
    """

    leaves: Annotated[int, Field(ge=2)] = 31
    rounds: Count = 300
    patience: Count = 20
    learning_rate: Rate = 0.1
    min_leaf: Count = 50
    max_step: Rate = 1.0


class Ranking(Section):
    """The ads ranker: a conversion model on exposures, with and without the released features (docs/ranking.md).

    ``mode`` score ranks with what the run ``ranker`` saved (null: the newest that trained), from ``since`` on or from
    where its test began. ``variants``: base; learn: released user and item vector and their dot product beside it;
    learn-adaptor: LEARN's fusion module; gbdt, gbdt-learn: trees over the same. Exposures are cut by time into train,
    validation and test: by shares, or at two times. ``ids`` hashed: ``buckets`` rows a field; lookup: a row an id
    with ``min_count`` training exposures, and one for all others.
    """

    mode: Literal["train", "score"] = "train"
    ranker: str | None = None
    since: str | None = None
    clock: Literal["published", "as_of"] = "published"
    variants: list[Variant] = Field(default_factory=lambda: list(get_args(Variant)), min_length=1)
    model: Literal["mlp", "dcn_v2"] = "dcn_v2"
    seeds: list[Annotated[int, Field(ge=0)]] = Field(
        default_factory=lambda: [2024, 2025, 2026], min_length=1, max_length=10
    )
    train_share: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.7
    validation_share: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.1
    validation_from: str | None = None
    test_from: str | None = None
    ids: Literal["lookup", "hashed"] = "lookup"
    buckets: Count = 4096
    min_count: Count = 2
    context: list[Annotated[str, Field(min_length=1)]] = Field(default_factory=list)
    id_dim: Count = 16
    hidden: list[Count] = Field(default_factory=lambda: [64, 32], min_length=1)
    cross_layers: Count = 2
    cross_rank: Count | None = 32
    fusion_dim: Count = 32
    auxiliary_weight: Annotated[float, Field(ge=0.0)] = 0.5
    epochs: Count = 10
    patience: Count = 1
    batch_size: Count = 1024
    learning_rate: Rate = 1e-3
    weight_decay: Annotated[float, Field(ge=0.0)] = 1e-5
    threads: Count | None = None
    trees: Trees = Trees()
    cohorts: Cohorts = Cohorts()
    calibration_bins: Count = 10
    bootstrap_samples: Count = 200

    @field_validator("since", "validation_from", "test_from")
    @classmethod
    def _is_a_time(cls, value: str | None) -> str | None:
        return _iso_time(value)

    @model_validator(mode="after")
    def _parts_agree(self) -> Ranking:
        for name in ("variants", "seeds", "context"):
            if len(set(getattr(self, name))) < len(getattr(self, name)):
                raise ValueError(f"{name} names one twice: {getattr(self, name)}")
        if self.train_share + self.validation_share >= 1:
            raise ValueError(
                f"train_share {self.train_share} and validation_share {self.validation_share} leave nothing for test"
            )
        if (self.validation_from is None) != (self.test_from is None):
            raise ValueError("validation_from and test_from belong together: give both or neither")
        if self.validation_from and self.test_from and as_micros(self.validation_from) >= as_micros(self.test_from):
            raise ValueError(f"validation_from {self.validation_from} is not before test_from {self.test_from}")
        if self.mode == "train" and (self.ranker or self.since):
            raise ValueError("ranker and since are for mode score")
        return self


class Knob(Section):
    """What the search may set one setting to: one of ``choices``, or a number from ``low`` to ``high`` (both included),
    drawn evenly on the logarithm with ``log``. Whole numbers where both ends are.
    """

    choices: Annotated[list[Any], Field(min_length=1)] | None = None
    low: int | float | None = None
    high: int | float | None = None
    log: bool = False

    @model_validator(mode="after")
    def _one_way(self) -> Knob:
        if (self.choices is None) == (self.low is None and self.high is None):
            raise ValueError("give either choices, or low and high")
        if self.choices is not None and self.log:
            raise ValueError("log is for low and high, not for choices")
        if self.choices is None:
            if self.low is None or self.high is None or not self.low < self.high:
                raise ValueError(f"low {self.low} and high {self.high}: low must be below high")
            if self.log and self.low <= 0:
                raise ValueError(f"log needs low above 0, not {self.low}")
        return self


class Search(Section):
    """``learn-spark search``: trainings with other settings, judged by validation alone. ``space`` names the settings
    to vary (``{tower.dropout: {low: 0.1, high: 0.5}}``) in the sections that training reads.
    """

    trials: Count = 10
    seed: Annotated[int, Field(ge=0)] = 2024
    space: dict[str, Knob] = Field(default_factory=dict)

    @field_validator("space")
    @classmethod
    def _only_what_training_reads(cls, space: dict[str, Knob]) -> dict[str, Knob]:
        allowed = ("space", "feed", "tower", "objective", "training")
        if wrong := sorted(key for key in space if key.partition(".")[0] not in allowed or "." not in key):
            raise ValueError(f"{', '.join(wrong)} cannot be searched over: name settings of {', '.join(allowed)}")
        return space


class Pipeline(Section):
    """Which stages ``learn-spark run`` takes, in this order."""

    stages: list[str] = Field(min_length=1)


class Settings(Section):
    """All settings of one workspace."""

    workspace: str = Field(min_length=1)
    source: Source
    spark: Spark = Spark()
    quality: Quality = Quality()
    text: Text = Text()
    encoder: Encoder
    space: Space = Space()
    histories: Histories = Histories()
    feed: Feed = Feed()
    tower: Tower = Tower()
    objective: Objective = Objective()
    training: Training = Training()
    evaluation: Evaluation = Evaluation()
    release: Release = Release()
    index: Index = Index()
    exposures: Exposures = Exposures()
    ranking: Ranking = Ranking()
    search: Search = Search()
    pipeline: Pipeline

    @model_validator(mode="after")
    def _parts_agree(self) -> Settings:
        wanted = self.objective.history_positions
        sampled = self.objective.predicts == "all_action"
        if sampled and wanted > self.objective.history:
            raise ValueError(
                f"objective.history_positions {wanted} cannot be sampled from "
                f"objective.history {self.objective.history}"
            )
        if sampled and self.objective.target_positions > self.objective.targets:
            raise ValueError(
                f"objective.target_positions {self.objective.target_positions} cannot be sampled from "
                f"objective.targets {self.objective.targets}"
            )
        if self.objective.history > self.histories.max_length:
            raise ValueError(
                f"objective.history {self.objective.history} is longer than histories.max_length "
                f"{self.histories.max_length}, the longest history that is stored"
            )
        if self.training.refit and self.histories.protocol not in (
            "leave_last_out",
            "last_day",
            "books_hllm",
        ):
            raise ValueError(
                f"training.refit is for protocols whose validation targets are events of users who train, not for "
                f"{self.histories.protocol}"
            )
        if self.objective.recency and self.objective.recency.beta <= self.objective.recency.alpha:
            raise ValueError(
                f"objective.recency.beta {self.objective.recency.beta} must be above alpha "
                f"{self.objective.recency.alpha}"
            )
        return self
