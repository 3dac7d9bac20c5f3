"""Settings of the training objective, the training loop and the evaluation."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from learn_spark.core.settings.base import Count, Rate, Section, Share

Tracking = Literal["tensorboard", "mlflow"]


def _tensorboard() -> list[Tracking]:
    return ["tensorboard"]


class RecencySettings(Section):
    """Sampling weights log(alpha + i (beta - alpha) / (N - 1)) of position i of N, so that recent positions are sampled
    more often (the paper's stage 2).
    """

    alpha: Annotated[float, Field(gt=1.0)] = 10.0
    """The weight of the oldest position is log(alpha)."""
    beta: Annotated[float, Field(gt=1.0)] = 10000.0
    """The weight of the newest position is log(beta); must be above alpha."""


class ObjectiveSettings(Section):
    """The training objective: positions, targets and negatives."""

    predicts: Literal["all_action", "next_item"] = "all_action"
    """all_action: sampled positions of a history predict several later targets each (LEARN, section 3); next_item:
    every position predicts the next item (SASRec)."""
    negatives: Literal["in_batch", "uniform", "mixed", "full"] = "in_batch"
    """in_batch: other users' targets; uniform: items drawn from the catalogue; mixed: both; full: softmax over the
    whole catalogue."""
    n_negatives: Count = 256
    """Number of sampled items for negatives uniform and mixed."""
    in_batch_negatives: Count | None = None
    """negatives mixed: maximum number of other users' targets in a batch, drawn anew for each batch; null: all."""
    full_softmax_items: Count = 300_000
    """negatives full: the largest catalogue, in items with a training event, whose softmax is exact. Above it, training
    uses negatives mixed with log_q and at least 1,024 items of either kind, and prints a line that says so."""
    per_position: bool = False
    """Whether negatives uniform are sampled for each position instead of once per batch; slower."""
    history: Count = 80
    """Length of the user tower's input in events (the paper: 80)."""
    targets: Count = 40
    """all_action: events after the history that may be positives (the paper: 40). More events cover longer-term
    interests."""
    history_positions: Count = 10
    """all_action: positions of the history that predict (the paper's N_h, 10)."""
    target_positions: Count = 10
    """all_action: targets that each of these positions predicts (the paper's N_t, 10)."""
    temperature: Rate = 0.05
    """Divisor of similarities in the softmax. A lower one gives hard negatives more weight (the released code:
    0.05)."""
    learn_temperature: bool = False
    """Whether the temperature is learnt; temperature is its start."""
    log_q: bool = False
    """Whether scores are corrected by log q, the sampling probability of an item as a negative."""
    popularity_correction: Annotated[float, Field(ge=0.0)] = 0.0
    """negatives full, or mixed with log_q: this factor times log(an item's share of the events) is added to the scores
    in training. Vectors then encode less popularity, and rare items rank higher; 1 removes it completely."""
    prefixes: bool = False
    """next_item: whether each prefix of a history is a sample of its own, whose last event alone predicts (the data of
    BSARec and WEARec). Dropout is then drawn anew for each predicted item, and positions count as when items are
    ranked. feed.batch_size and feed.shuffle_rows then count samples, and a batch has those of many users. An epoch has
    a sample for each event but a history's first, and takes about as many times as long as histories have events."""
    crop_share: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    """next_item: share of the sequences that training replaces by a random contiguous part."""
    recency: RecencySettings | None = None
    """Sampling of recent positions more often; {}: with defaults, null: uniform sampling."""

    @property
    def needs_shares(self) -> bool:
        """Whether the loss needs the items' shares of the events."""
        return self.log_q or self.popularity_correction > 0.0

    @model_validator(mode="after")
    def _negatives_fit(self) -> ObjectiveSettings:
        if self.per_position and self.negatives != "uniform":
            raise ValueError(f"per_position is for negatives uniform, not for {self.negatives}")
        if self.popularity_correction and self.negatives != "full" and not (self.negatives == "mixed" and self.log_q):
            raise ValueError(
                f"popularity_correction is for negatives full, or mixed with log_q, not for {self.negatives}"
                f"{'' if self.log_q else ' without log_q'}"
            )
        if self.in_batch_negatives is not None and self.negatives not in ("mixed", "full"):
            raise ValueError(f"in_batch_negatives is for negatives mixed, not for {self.negatives}")
        for name in ("crop_share", "prefixes"):
            if getattr(self, name) and self.predicts != "next_item":
                raise ValueError(f"{name} is for next_item, not for {self.predicts}")
        return self


class TrainingSettings(Section):
    """The training loop."""

    seed: Annotated[int, Field(ge=0)] = 2024
    """Seed of all random numbers in training."""
    epochs: Count = 20
    """Maximum number of epochs; the learning rate schedule spans all of them."""
    passes_per_epoch: Count = 1
    """Passes over all users between two validations; each pass samples every history again."""
    validation_users: Count = 50_000
    """Maximum number of users that validation ranks after every epoch, and that blending and the reranker are fitted
    on: the same users in every epoch, process and run. All where there are fewer."""
    patience: Count = 5
    """Epochs without a better NDCG@10 on validation after which training stops."""
    learning_rate: Rate = 1e-3
    """AdamW's peak learning rate, after the warm-up."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """The learning rate after the warm-up: cosine to zero, or constant."""
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.01
    """AdamW's weight decay."""
    beta2: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.999
    """AdamW's decay of the mean squared gradient."""
    warmup_share: Share = 0.1
    """Share of all steps for the warm-up, in which the learning rate rises from zero."""
    id_gradients: Literal["auto", "dense", "sparse"] = "auto"
    """Gradients of the table of ID vectors. sparse: a step changes only the rows of its batch (lazy AdamW), in 12 bytes
    a number of the table; dense: every row by its momentum and weight decay, in 16 bytes; auto: sparse above 300,000
    items, where the loss does not compare with the whole catalogue and average is 0."""
    clip_norm: Rate = 1.0
    """Maximum norm of the gradient; larger ones are clipped."""
    accumulate: Count = 1
    """Batches per optimizer step: larger steps in the same memory. Negatives come from one batch."""
    average: Share = 0.0
    """Decay per step of a moving average of the weights, which is evaluated and saved; 0.99 averages about 100 steps,
    0 uses the weights of the last step."""
    precision: Literal["auto", "fp32", "bf16"] = "fp32"
    """bf16: matrix products in bf16, the rest in fp32; auto: bf16 where the device has instructions for it."""
    compile: bool = False
    """Whether torch.compile compiles the towers' blocks; the start is slower."""
    rule: Literal["holdout", "strict", "refit"] = "holdout"
    """Which events choose the epoch and fit blending and reranker, and which are trained on. holdout: the validation
    targets choose and fit, and are not trained on. refit: the same, and the tower is trained again with the validation
    events, for the number of epochs that they selected. strict: no validation event is read. Each user's last training
    event (last_day: last training day) chooses and fits, and the tower is trained again with it."""
    trial: bool = False
    """Whether the training is a trial of a search, which is neither trained again, ranked on the test split nor
    released. Set by learn-spark search."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device of the training; auto: a GPU if PyTorch finds one, else the CPU."""
    resume: Literal["auto", "never"] = "auto"
    """auto: an interrupted run of the same settings and inputs continues from its checkpoint; never: it starts
    again."""
    checkpoint_minutes: Annotated[float, Field(ge=0.0)] = 10.0
    """Minutes between checkpoints within an epoch; every epoch ends with one."""
    processes: Count = 1
    """Processes of data-parallel training; in-batch negatives are gathered from all of them."""
    launcher: Literal["local", "spark"] = "local"
    """Where the processes run. local: on this machine; spark: in Spark's executors (TorchDistributor)."""
    threads: Count | None = None
    """Threads of PyTorch; null: all cores."""
    tracking: list[Tracking] = Field(default_factory=_tensorboard)
    """Where the course of a training goes besides the JSON lines of its model folder. tensorboard: event files in the
    model folder; mlflow: the server of the section mlflow, with the model, its evaluations and releases
    (docs/tracking.md). No result depends on it, and no stage runs again for it."""

    @property
    def trains_again(self) -> bool:
        """Whether the tower is trained again with the targets that chose the epoch."""
        return self.rule != "holdout" and not self.trial


class EvaluationSettings(Section):
    """Ranking of the whole catalogue; a tied item counts as half."""

    ks: list[Count] = Field(default_factory=lambda: [10, 50, 100, 200], min_length=1)
    """Cut-offs k of HR@k, recall@k, NDCG@k and of lists; slices use the smallest."""
    mask_history: bool = True
    """Whether items that a user had before the targets are excluded from the ranking."""
    reranker: bool = True
    """Whether a model with a reranker is evaluated with and without it; false: only without it."""
    users: Count | None = None
    """Maximum number of users that are ranked on each split: those with the lowest hashes, the same ones in every run.
    null: all. Statistics are of all users. Results of samples of different sizes are not compared."""
    pair_users: Count = 1_000_000
    """Maximum number of users whose pairs of consecutive items the Markov baseline counts, the same users in every run.
    Memory: 32 bytes for each of their distinct pairs."""
    runner: Literal["auto", "driver", "spark"] = "auto"
    """Where users are ranked. driver: in this process; spark: in Spark's workers; auto: on the driver up to 200,000
    users of a split. Figures do not depend on it."""
    bootstrap_samples: Count = 500
    """Bootstrap resamples of users for the intervals of slices."""
