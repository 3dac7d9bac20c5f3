"""What is predicted, the training loop, and the evaluation."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from learn_spark.core.settings.base import Count, Rate, Section, Share


class RecencySettings(Section):
    """Samples recent positions more often, with weights log(alpha + i (beta - alpha) / (N - 1)) of position i of N (the
    paper's stage 2).
    """

    alpha: Annotated[float, Field(gt=1.0)] = 10.0
    """Sets the weight of the oldest position, log(alpha)."""
    beta: Annotated[float, Field(gt=1.0)] = 10000.0
    """Sets the weight of the newest position, log(beta); above alpha."""


class ObjectiveSettings(Section):
    """What is predicted, and against which negatives."""

    predicts: Literal["all_action", "next_item"] = "all_action"
    """all_action: positions of a history each predict several later targets (LEARN, section 3); next_item: every
    position predicts the item after it (SASRec)."""
    negatives: Literal["in_batch", "uniform", "mixed", "full"] = "in_batch"
    """in_batch: other users' targets; uniform: items drawn from the catalogue; mixed: both; full: softmax over the
    whole catalogue."""
    n_negatives: Count = 256
    """Items drawn for negatives uniform and mixed."""
    per_position: bool = False
    """Whether negatives uniform are drawn anew for each position instead of once a batch; slower."""
    history: Count = 80
    """Events that the user tower sees (the paper: 80)."""
    targets: Count = 40
    """Events after the history that may be positives with all_action (the paper: 40). More: longer-term interests."""
    history_positions: Count = 10
    """Positions of the history that predict, with all_action (the paper's N_h, 10)."""
    target_positions: Count = 10
    """Targets that each of these positions predicts, with all_action (the paper's N_t, 10)."""
    temperature: Rate = 0.05
    """Divides similarities in the softmax. Less gives hard negatives more weight (the released code: 0.05)."""
    learn_temperature: bool = False
    """Whether the temperature is learnt, from temperature on."""
    log_q: bool = False
    """Whether scores are corrected by log q, because popular items are negatives more often."""
    popularity_correction: Annotated[float, Field(ge=0.0)] = 0.0
    """Times log(an item's share of the events) is added to the scores in training, with negatives full: the vectors
    then need not encode popularity, and rare items rank higher. 1 takes all of it out."""
    crop_share: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    """Share of the sequences of which training sees a random part alone, with next_item."""
    recency: RecencySettings | None = None
    """Recent positions sampled more often; {} for its defaults, null for no."""

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
    """The training loop."""

    seed: Annotated[int, Field(ge=0)] = 2024
    """Everything random in training follows from it."""
    epochs: Count = 20
    """Epochs at most; the learning rate's schedule spans all of them."""
    passes_per_epoch: Count = 1
    """Passes over all users between two validations; each samples every history anew."""
    patience: Count = 5
    """Stops after so many epochs without a better NDCG@10 on validation."""
    learning_rate: Rate = 1e-3
    """AdamW's, at its peak after the warm-up."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """The learning rate after the warm-up: cosine to zero, or constant."""
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.01
    """AdamW's weight decay."""
    beta2: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.999
    """AdamW's decay of the mean squared gradient."""
    warmup_share: Share = 0.1
    """Share of all steps in which the learning rate rises from zero."""
    clip_norm: Rate = 1.0
    """Gradients are clipped to this norm."""
    accumulate: Count = 1
    """Batches an optimizer step: larger steps in the same memory. Negatives stay those of one batch."""
    average: Share = 0.0
    """Decay a step of a moving average of the weights, which is then what is evaluated and saved; 0.99 averages about
    100 steps, 0 takes the last step's weights."""
    precision: Literal["auto", "fp32", "bf16"] = "fp32"
    """bf16: matrix products in bf16, the rest in fp32; auto: bf16 where the device has instructions for it."""
    compile: bool = False
    """Whether torch.compile compiles the towers' blocks; the start takes longer."""
    refit: bool = False
    """Whether the tower is trained again, on validation events too, for the number of epochs that validation chose. The
    test split is then ranked by that tower, the validation split by the one before."""
    trial: bool = False
    """Whether the training is a trial of a search, which is neither ranked on the test split nor released; learn-spark
    search sets it."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the tower is trained; auto takes a GPU if PyTorch sees one."""
    resume: Literal["auto", "never"] = "auto"
    """auto: an interrupted run of the same settings and inputs continues at its checkpoint; never: it starts again."""
    checkpoint_minutes: Annotated[float, Field(ge=0.0)] = 10.0
    """Minutes between checkpoints inside an epoch; the end of an epoch always writes one."""
    processes: Count = 1
    """Processes of data-parallel training; negatives are gathered from all of them."""
    launcher: Literal["local", "spark"] = "local"
    """Where the processes run: on this machine, or in Spark's executors (TorchDistributor)."""
    threads: Count | None = None
    """Threads of PyTorch; null: all cores."""


class EvaluationSettings(Section):
    """Ranking of the whole catalogue, where ties count by half."""

    ks: list[Count] = Field(default_factory=lambda: [10, 50, 100, 200], min_length=1)
    """Cut-offs k of HR@k, recall@k, NDCG@k and of lists; slices take the smallest."""
    mask_history: bool = True
    """Whether items that a user had before the targets are left out of the ranking."""
    reranker: bool = True
    """Whether a model with a reranker is evaluated with and without it; false: without it alone."""
    bootstrap_samples: Count = 500
    """Resamples of users for the intervals of slices."""
