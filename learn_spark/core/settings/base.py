"""The base class of all sections of the settings, and shared types."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from learn_spark.core.times import as_micros

Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0.0, lt=1.0)]
Rate = Annotated[float, Field(gt=0.0)]


class Section(BaseModel):
    """A section of the settings: unknown keys are errors, types are not converted, and instances are immutable."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, serialize_by_alias=True, use_attribute_docstrings=True
    )


def iso_time(value: str | None) -> str | None:
    """``value`` unchanged. Raises ValueError if it is neither None nor an ISO time."""
    if value is not None:
        try:
            as_micros(value)
        except ValueError:
            raise ValueError(f"{value!r} is not an ISO time such as 1998-03-01T00:00:00") from None
    return value
