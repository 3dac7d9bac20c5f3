"""What raw files there are, and how an item becomes one text."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from learn_spark.core.settings.base import Count, Section


class FilesSettings(Section):
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


class LogSettings(FilesSettings):
    """Some files of exposures or outcomes. A column of schemas/exposures.yaml that ``columns`` does not name is the
    file's column of that name, where it has one. ``time_unit`` is that of numbers; timestamps are read as they are.
    """

    columns: dict[str, str] = Field(default_factory=dict)
    time_unit: Literal["s", "ms", "us", "iso"] = "iso"


class SourceSettings(Section):
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
    items: FilesSettings | None = None
    events: FilesSettings | None = None
    event_type: str = Field(default="event", min_length=1)
    time_unit: Literal["s", "ms", "us", "iso"] = "s"

    @model_validator(mode="after")
    def _own_files_name_their_columns(self) -> SourceSettings:
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


class TextSettings(Section):
    """How an item becomes one text (learn_spark/data/text)."""

    template: str = "learn-industrial"
    max_characters: Count = 8000
    fallback: str = Field(default="No description.", min_length=1)
