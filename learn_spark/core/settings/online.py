"""Settings of the online store."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from learn_spark.core.settings.base import Count, Rate, Section


class OnlineSettings(Section):
    """The online store, which learn-spark online push fills (docs/online.md)."""

    store: str | None = None
    """Its address: redis://host:port/db, rediss://host:port/db or sqlite:///path; --to overrides it. A password belongs
    into the environment variable LEARN_SPARK_REDIS_PASSWORD."""
    namespace: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+$")] = "learn-spark"
    """Prefix of all keys. Each workspace needs a namespace of its own in a store."""
    dtype: Literal["float32", "float16"] = "float32"
    """Format of a number. float16 halves the bytes and rounds to 11 bits."""
    ttl_hours: Rate | None = None
    """Hours after the last push at which the store serves nothing more; null: never."""
    batch_rows: Count = 1000
    """Rows of one round trip of a push."""
