"""Which raw files there are, and how an item becomes one text."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from learn_spark.core.settings.base import Count, Section

TimeUnit = Literal["s", "ms", "us", "iso"]


class FilesSettings(Section):
    """The files of one table, and which column is which.

    All columns of CSV and JSON lines are text. ``try_cast`` gives null where a text is no number; a plain cast, or a
    sum with text, fails the run at the first such row.
    """

    files: str = Field(min_length=1)
    """Pattern of the files inside source.path, such as orders/*.csv.gz; of format delta, the table's folder."""
    format: Literal["csv", "json-lines", "parquet", "delta"] = "csv"
    """Format of the files."""
    separator: str = Field(default=",", min_length=1)
    """Between two fields of a CSV line."""
    multiline: bool = False
    """Whether quoted CSV fields may have line breaks. Each file is then read by one task, and a quote that is never
    closed makes one malformed row of the rest of its file."""
    columns: dict[str, str]
    """For each of our columns, a column of the files or a Spark SQL expression over them: {item_id: sku, value:
    "try_cast(pieces as int) * 2"}."""
    where: str | None = None
    """Spark SQL condition; rows for which it is false or null are skipped. null: no row is skipped."""


class LogSettings(FilesSettings):
    """Files of exposures or outcomes."""

    columns: dict[str, str] = Field(default_factory=dict)
    """For each column of schemas/exposures.yaml, a column of the files or a Spark SQL expression over them. A column
    that is not named is the files' column of that name, if there is one."""
    time_unit: TimeUnit = "iso"
    """Unit of times that are numbers (since 1970), or iso; timestamps are read as they are."""


class _SourceSettings(Section):
    path: str = Field(min_length=1)
    """The folder of the raw files, or package:NAME/inside for files that an installed package has."""
    unreadable: Literal["stop", "skip"] = "stop"
    """A file that cannot be read at all: stop fails the run, skip names the file and goes on."""


class KnownSourceSettings(_SourceSettings):
    """Raw files in a known format (learn_spark/data/sources)."""

    format: Literal["movielens-100k", "movielens", "amazon-2014", "amazon-2018", "online-retail", "complete-journey"]
    """The format, which decides which files must be there."""


_COLUMNS = {
    "items": {"item_id", "title", "category", "brand", "price", "keywords", "attributes", "updated_at"},
    "events": {"event_id", "user_id", "item_id", "event_type", "value", "event_time", "updated_at"},
}
_NEEDED = {"items": {"item_id"}, "events": {"user_id", "item_id", "event_time"}}


class FilesSourceSettings(_SourceSettings):
    """Own files, described here."""

    format: Literal["files"] = "files"
    """Own files, described by items and events."""
    items: FilesSettings
    """The items. columns must name item_id."""
    events: FilesSettings
    """The events. columns must name user_id, item_id and event_time."""
    event_type: str = Field(default="event", min_length=1)
    """Type of all events, where events.columns names no event_type."""
    time_unit: TimeUnit = "s"
    """Unit of times that are numbers (since 1970), or iso."""

    @model_validator(mode="after")
    def _columns_are_ours(self) -> FilesSourceSettings:
        for name, files in (("items", self.items), ("events", self.events)):
            if missing := sorted(_NEEDED[name] - set(files.columns)):
                raise ValueError(f"{name}.columns must name {', '.join(missing)}")
            if unknown := sorted(set(files.columns) - _COLUMNS[name]):
                raise ValueError(
                    f"{name}.columns has {', '.join(unknown)}; there are {', '.join(sorted(_COLUMNS[name]))}"
                )
        return self


SourceSettings = Annotated[KnownSourceSettings | FilesSourceSettings, Field(discriminator="format")]


class TextSettings(Section):
    """How an item becomes one text (learn_spark/data/text)."""

    template: str = "learn-industrial"
    """The prompt. Another one makes other texts, which are encoded beside the earlier ones."""
    max_characters: Count = 8000
    """Longer fields are truncated to this number of characters."""
    fallback: str = Field(default="No description.", min_length=1)
    """The text of an item without any."""
