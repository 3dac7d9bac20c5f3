"""Settings of the raw files and of the text of an item."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from learn_spark.core.settings.base import Count, Section

TimeUnit = Literal["s", "ms", "us", "iso"]
Encoding = Literal["utf-8", "utf-16", "utf-16-le", "utf-16-be", "cp1252", "latin-1"]


def _dated(pattern: str) -> str:
    """``pattern`` unchanged. Raises ValueError unless it is one of Spark's with a year, a month and a day."""
    letters = set(re.sub("'[^']*'", "", pattern)) & set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
    if unknown := letters - set("yMLdHhmsSaEXxZzVO"):
        raise ValueError(
            f"{pattern!r} has {', '.join(sorted(unknown))}, which is no letter of a time; quote text as 'T'"
        )
    if not {"y", "d"} <= letters or not letters & {"M", "L"} or pattern.count("'") % 2:
        raise ValueError(f"{pattern!r} needs a year, a month and a day, as in dd.MM.yyyy HH:mm")
    return pattern


TimeFormat = Annotated[str, AfterValidator(_dated)]


class FilesSettings(Section):
    """The files of one table, and the mapping of their columns.

    All columns of CSV and JSON lines are text. ``try_cast`` gives null for text that is not a number; a plain cast or
    a sum fails the run at the first such row.
    """

    files: str = Field(min_length=1)
    """Pattern of the files inside source.path, such as orders/*.csv.gz; of format delta, the table's folder inside
    source.path, its address, or its name in Spark's catalog, such as learn.orders; of format kafka, the topics,
    separated by commas."""
    format: Literal["csv", "json-lines", "parquet", "delta", "kafka"] = "csv"
    """Format of the files; kafka: messages of JSON objects (docs/storage.md)."""
    brokers: str | None = Field(default=None, pattern=r"^[^\s,:@/]+:[0-9]+(,[^\s,:@/]+:[0-9]+)*$")
    """Of format kafka: the brokers to begin with, host:port separated by commas. Keys and passwords are never settings:
    LEARN_SPARK_KAFKA_PROPERTIES in the environment names a file of properties."""
    separator: str = Field(default=",", min_length=1)
    """Separator of the fields of a CSV line; \\t is a tab."""
    quote: str = Field(default='"', max_length=1)
    """Character around CSV fields that contain separators; "": no field is quoted."""
    escape: str | None = Field(default=None, min_length=1, max_length=1)
    r"""Character before a quote inside a quoted CSV field, such as \ of MySQL; null: the quote is doubled."""
    encoding: Encoding = "utf-8"
    """Encoding of CSV and JSON lines."""
    multiline: bool = False
    """Whether quoted CSV fields may contain line breaks. Each file is then read by one task, and an unclosed quote
    turns the rest of its file into one malformed row."""
    columns: dict[str, str]
    """Column of the table -> column of the files, or Spark SQL expression over them: {item_id: sku, value:
    "try_cast(pieces as int) * 2"}."""
    where: str | None = None
    """Spark SQL condition; rows for which it is false or null are skipped. null: all rows are read."""

    @model_validator(mode="after")
    def _topics_have_brokers(self) -> FilesSettings:
        if (self.format == "kafka") != (self.brokers is not None):
            raise ValueError("brokers: format kafka needs them (host:port, separated by commas), and no other format")
        return self

    @field_validator("separator", "quote", "escape")
    @classmethod
    def _escapes_are_characters(cls, text: str | None) -> str | None:
        return {r"\t": "\t", r"\\": "\\"}.get(text or "", text)


class LogSettings(FilesSettings):
    """Files of exposures or outcomes."""

    columns: dict[str, str] = Field(default_factory=dict)
    """Column of schemas/exposures.yaml -> column of the files, or Spark SQL expression over them. by_name says what
    happens to a column that is not listed."""
    by_name: bool = True
    """Whether a column that columns does not list is read from the files' column of the same name, if there is one."""
    first_position: Literal[0, 1] = 1
    """The position of the first place in the files; the table exposures counts from 1."""
    time_unit: TimeUnit = "iso"
    """Unit of numeric times (since 1970), or iso for text; timestamps and ISO text need no unit."""
    time_formats: list[TimeFormat] = Field(default_factory=list)
    """Spark's patterns of other text times, such as "dd.MM.yyyy HH:mm", tried in order; without a zone they are UTC."""

    @model_validator(mode="after")
    def _is_of_files(self) -> LogSettings:
        if self.format == "kafka":
            raise ValueError("format: logs are files or tables; kafka is for source.items and source.events")
        return self


class _SourceSettings(Section):
    path: str = Field(min_length=1)
    """The folder of the raw files, an address (s3://bucket/raw, hdfs://host:port/raw; docs/storage.md), or
    package:NAME/inside for files of an installed package."""
    unreadable: Literal["stop", "skip"] = "stop"
    """An unreadable file: stop fails the run, skip reports the file and continues."""


class KnownSourceSettings(_SourceSettings):
    """Raw files in a known format (learn_spark/data/sources)."""

    format: Literal["movielens-100k", "movielens", "amazon-2014", "amazon-2018", "online-retail", "complete-journey"]
    """The format, which determines the required files."""


_COLUMNS = {
    "items": {"item_id", "title", "category", "brand", "price", "keywords", "attributes", "updated_at"},
    "events": {"event_id", "user_id", "item_id", "event_type", "value", "event_time", "updated_at"},
}
_NEEDED = {"items": {"item_id"}, "events": {"user_id", "item_id", "event_time"}}


class FilesSourceSettings(_SourceSettings):
    """Files in any layout, described by items and events."""

    format: Literal["files"] = "files"
    """Files in any layout, described by items and events."""
    items: FilesSettings
    """The items. columns must contain item_id."""
    events: FilesSettings
    """The events. columns must contain user_id, item_id and event_time."""
    event_type: str = Field(default="event", min_length=1)
    """Type of all events if events.columns has no event_type."""
    time_unit: TimeUnit = "s"
    """Unit of numeric times (since 1970), or iso for text; timestamps and ISO text need no unit."""
    time_formats: list[TimeFormat] = Field(default_factory=list)
    """Spark's patterns of other text times, such as "dd.MM.yyyy HH:mm", tried in order; without a zone they are UTC."""

    @model_validator(mode="after")
    def _columns_are_ours(self) -> FilesSourceSettings:
        for name, files in (("items", self.items), ("events", self.events)):
            if missing := sorted(_NEEDED[name] - set(files.columns)):
                raise ValueError(f"{name}.columns must contain {', '.join(missing)}")
            if unknown := sorted(set(files.columns) - _COLUMNS[name]):
                raise ValueError(
                    f"{name}.columns has {', '.join(unknown)}; valid names: {', '.join(sorted(_COLUMNS[name]))}"
                )
        return self


SourceSettings = Annotated[KnownSourceSettings | FilesSourceSettings, Field(discriminator="format")]


def described_files(settings: SourceSettings) -> list[FilesSettings]:
    """What the settings describe of the files themselves; nothing for a known format."""
    return [settings.items, settings.events] if isinstance(settings, FilesSourceSettings) else []


TEMPLATE_OF_FORMAT = {
    "movielens-100k": "movie",
    "movielens": "movie",
    "amazon-2014": "amazon",
    "amazon-2018": "amazon",
}


class TextSettings(Section):
    """The text of an item (learn_spark/data/text)."""

    template: str = "shop"
    """The prompt template; null or not given: movie for MovieLens, amazon for Amazon reviews, else shop, which has no
    price. Texts of another template are encoded in addition; earlier ones are kept."""
    max_characters: Count = 8000
    """Longer fields are truncated to this number of characters."""
    fallback: str = Field(default="No description.", min_length=1)
    """The text of an item without any text field."""
