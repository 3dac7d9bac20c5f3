"""Settings of the frozen LLM and of the embedding space."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from learn_spark.core.machine import multiplies_bf16
from learn_spark.core.settings.base import Count, Section


class EncoderSettings(Section):
    """The frozen LLM that turns an item's text into an embedding (LEARN, content embedding generation).

    Model, revision, pooling, prefix, max_tokens, normalise and precision are part of an embedding's key: with another
    value of one of them, every text is encoded again; earlier embeddings are kept.
    """

    model: str = Field(min_length=1)
    """The LLM: a folder with safetensors, a GGUF file, a hub name, or package:NAME/inside for a file of a package."""
    revision: str | None = None
    """Pins the weights: a hub commit, or the hash that an earlier run recorded. null: the weights that are there."""
    pooling: Literal["mean", "last", "cls"] = "mean"
    """How token states become one vector: mean over the tokens (the paper), the last one, or the first (cls, BERT)."""
    prefix: str = ""
    """Instruction before every text."""
    max_tokens: Count = 500
    """Longer texts are truncated to this number of tokens (the paper's value)."""
    normalise: bool = True
    """Whether vectors are L2-normalised (the paper: yes)."""
    precision: Literal["fp32", "bf16", "int8", "auto"] = "fp32"
    """Arithmetic of the LLM: fp32, bf16 for GPUs, int8 for CPUs. auto: bf16 if this machine's CPU has instructions for
    it, else fp32; not for settings of several machines, because embeddings of another precision have another key."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device of the LLM; auto: a GPU if PyTorch finds one, else the CPU."""
    token_budget: Count = 4096
    """Maximum batch size in tokens: rows x padded length. Larger batches are faster until memory is full."""
    window_rows: Count = 4096
    """Texts that a worker sorts by length together. More texts mean less padding and more memory."""
    gpus: Annotated[int, Field(ge=0)] = 0
    """GPUs that each task of this stage requests from Spark; for clusters (docs/cluster.md)."""
    chunk_rows: Count | None = None
    """Texts per commit. A killed run loses at most one chunk; small chunks mean more commits. null (or auto): 512, and
    with more than 102,400 texts a two-hundredth of them, so that a run makes about 200 commits at most."""
    tasks: Count | None = None
    """Spark tasks per chunk; null: the number of Spark's cores or GPUs."""

    @field_validator("chunk_rows", mode="before")
    @classmethod
    def _auto_is_null(cls, value: object) -> object:
        return None if value == "auto" else value

    @field_validator("precision")
    @classmethod
    def _of_this_machine(cls, value: str) -> str:
        if value != "auto":
            return value
        return "bf16" if multiplies_bf16() else "fp32"


class RawSpaceSettings(Section):
    """Unchanged embeddings of the LLM (the paper)."""

    kind: Literal["raw"] = "raw"
    """Unchanged embeddings."""
    dtype: Literal["float32", "float16"] = "float32"
    """Number format of the item matrix, which the trainer maps into memory; float16 halves its size."""


class CentredSpaceSettings(Section):
    """Embeddings minus their mean."""

    kind: Literal["centred"] = "centred"
    """Subtracts the mean of the training catalogue."""
    dtype: Literal["float32", "float16"] = "float32"
    """Number format of the item matrix, which the trainer maps into memory; float16 halves its size."""


class WhitenedSpaceSettings(Section):
    """Embeddings with mean 0 and about equal variance in all directions."""

    kind: Literal["whitened"] = "whitened"
    """Subtracts the mean and equalises the variances, both of the training catalogue."""
    ridge: Annotated[float, Field(ge=0.0)] = 0.01
    """Added to the variances before they are equalised. A larger ridge keeps directions of small variance small."""
    dims: Count | None = None
    """Number of directions to keep, those of largest variance; null: all."""
    dtype: Literal["float32", "float16"] = "float32"
    """Number format of the item matrix, which the trainer maps into memory; float16 halves its size."""


EmbeddingSpaceSettings = Annotated[
    RawSpaceSettings | CentredSpaceSettings | WhitenedSpaceSettings, Field(discriminator="kind")
]
