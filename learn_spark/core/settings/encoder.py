"""The frozen LLM, and the space in which towers read its embeddings."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from learn_spark.core.settings.base import Count, Section


class EncoderSettings(Section):
    """The frozen LLM that turns an item's text into an embedding (LEARN, content embedding generation).

    Model, revision, pooling, prefix, max_tokens, normalise and precision are part of an embedding's key: another value
    of one of them encodes every text again, beside the earlier embeddings.
    """

    model: str = Field(min_length=1)
    """The LLM: a folder with safetensors, a GGUF file, a hub name, or package:NAME/inside for a file of a package."""
    revision: str | None = None
    """Pins the weights: a hub commit, or the hash that an earlier run recorded. null: the weights that are there."""
    pooling: Literal["mean", "last", "cls"] = "mean"
    """How token states become one vector: mean over the tokens (the paper), the last one, or the first (cls, BERT)."""
    prefix: str = ""
    """An instruction that is put before every text."""
    max_tokens: Count = 500
    """Longer texts are truncated to this number of tokens (the paper's value)."""
    normalise: bool = True
    """Whether vectors are L2-normalised (the paper: yes)."""
    precision: Literal["fp32", "bf16", "int8"] = "fp32"
    """Arithmetic of the LLM: fp32, bf16 for GPUs, int8 for CPUs."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the LLM runs; auto takes a GPU if PyTorch sees one."""
    token_budget: Count = 4096
    """Largest batch in tokens, rows times padded length. More is faster until the memory is full."""
    window_rows: Count = 4096
    """Texts that a worker sorts by length together. More means less padding and more memory."""
    gpus: Annotated[int, Field(ge=0)] = 0
    """GPUs that each task of this stage requests from Spark; for clusters (docs/cluster.md)."""
    chunk_rows: Count = 4096
    """Texts a commit. A run that is killed loses at most one chunk; small chunks cost more commits."""
    tasks: Count | None = None
    """Spark tasks a chunk; null: as many as Spark has cores or GPUs."""


class RawSpaceSettings(Section):
    """Embeddings as the LLM gives them (the paper)."""

    kind: Literal["raw"] = "raw"
    """The embeddings as they are."""
    dtype: Literal["float32", "float16"] = "float32"
    """Number format of the item matrix, a file that the trainer maps into memory; float16 halves it."""


class CentredSpaceSettings(Section):
    """Embeddings minus their mean."""

    kind: Literal["centred"] = "centred"
    """Subtracts the mean of the training catalogue."""
    dtype: Literal["float32", "float16"] = "float32"
    """Number format of the item matrix, a file that the trainer maps into memory; float16 halves it."""


class WhitenedSpaceSettings(Section):
    """Embeddings with mean 0 and about equal variance in all directions."""

    kind: Literal["whitened"] = "whitened"
    """Subtracts the mean and equalises the variances, both of the training catalogue."""
    ridge: Annotated[float, Field(ge=0.0)] = 0.01
    """Added to the variances before they are equalised. More keeps directions of small variance small."""
    dims: Count | None = None
    """Keeps so many directions, those of largest variance; null: all."""
    dtype: Literal["float32", "float16"] = "float32"
    """Number format of the item matrix, a file that the trainer maps into memory; float16 halves it."""


EmbeddingSpaceSettings = Annotated[
    RawSpaceSettings | CentredSpaceSettings | WhitenedSpaceSettings, Field(discriminator="kind")
]
