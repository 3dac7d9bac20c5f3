"""The frozen LLM, and the space in which towers read its embeddings."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from learn_spark.core.settings.base import Count, Section


class EncoderSettings(Section):
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


class EmbeddingSpaceSettings(Section):
    """The space in which towers read embeddings, fitted on the training catalogue alone.

    ``ridge`` and ``dims`` (None: all) are for whitened. ``dtype`` is that of the item matrix's file.
    """

    kind: Literal["raw", "centred", "whitened"] = "whitened"
    ridge: Annotated[float, Field(ge=0.0)] = 0.01
    dims: Count | None = None
    dtype: Literal["float32", "float16"] = "float32"

    @model_validator(mode="after")
    def _dims_are_of_a_whitened_space(self) -> EmbeddingSpaceSettings:
        if self.dims is not None and self.kind != "whitened":
            raise ValueError(f"dims {self.dims} is for a whitened space, not for a {self.kind} one; set dims to null")
        return self
