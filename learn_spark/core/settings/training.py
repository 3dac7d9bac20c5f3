"""What is predicted, the training loop, and the evaluation."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from learn_spark.core.settings.base import Count, Rate, Section, Share


class RecencySettings(Section):
    """The paper's stage-2 sampling weights, log(alpha + i (beta - alpha) / (N - 1))."""

    alpha: Annotated[float, Field(gt=1.0)] = 10.0
    beta: Annotated[float, Field(gt=1.0)] = 10000.0


class ObjectiveSettings(Section):
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
    recency: RecencySettings | None = None

    @property
    def needs_shares(self) -> bool:
        """Whether the loss reads the items' shares of the events."""
        return self.log_q or self.popularity_correction > 0.0

    @model_validator(mode="after")
    def _negatives_fit(self) -> ObjectiveSettings:
        if self.per_position and self.negatives != "uniform":
            raise ValueError(f"per_position is for negatives uniform, not for {self.negatives}")
        if self.popularity_correction and self.negatives != "full":
            raise ValueError(f"popularity_correction is for negatives full, not for {self.negatives}")
        if self.crop_share and self.predicts != "next_item":
            raise ValueError(f"crop_share is for next_item, not for {self.predicts}")
        return self


class TrainingSettings(Section):
    """The training loop.

    ``refit``: once validation has chosen the epoch, the tower is trained anew for as many epochs on the validation
    events too. What is released, and judged on the test split, has then learnt from all but the test events; validation
    is judged with the tower that was chosen. ``trial``: one of a search (which sets it); it is neither judged on the
    test split nor released. ``average``: the weights that are judged and kept are the moving average of all steps',
    each step weighing ``average`` times the next one; 0: the last step's. ``precision``: bf16 makes products in bf16,
    the rest in fp32; auto does so where the device has instructions for them.
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


class EvaluationSettings(Section):
    """Full-catalogue ranking, ties counted against the model by half. ``mask_history``: items that a user had before
    the targets do not compete with them. ``reranker``: a model that has a reranker is judged with it
    and, as its released vectors rank, by its tower alone; false: by its tower alone.
    """

    ks: list[Count] = Field(default_factory=lambda: [10, 50, 100, 200], min_length=1)
    mask_history: bool = True
    reranker: bool = True
    bootstrap_samples: Count = 500
