"""A field of a table as an expression over a file's columns: for Spark as SQL, and for the preview as Python."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from learn_spark.data.guesses.contents import Contents, Row
from learn_spark.data.guesses.profiles import NumberForm
from learn_spark.data.guesses.times import TimeColumn

Basis = Literal["by name", "by content", "by name and content", "given"]


@dataclass(frozen=True)
class Mapped:
    """``field`` of items or events. ``sql`` is a column's name or an expression; ``read`` gives its value of a row.

    ``basis``: why this column; ``note``: what to check, or "".
    """

    field: str
    sql: str
    columns: tuple[str, ...]
    read: Callable[[Row], str | None]
    basis: Basis
    note: str = ""


def quoted(column: str) -> str:
    """A column's name inside an SQL expression."""
    return column if re.fullmatch(r"[A-Za-z_]\w*", column, re.ASCII) else f"`{column}`"


def reference(name: str, contents: Contents) -> str:
    """A column inside an SQL expression. A list is joined by commas; ``a.b`` of JSON is the field ``b`` of ``a``."""
    if name in contents.lists:
        return f"array_join({quoted(name)}, ', ')"
    if contents.format == "json-lines" and "." in name:
        outer, _, inner = name.partition(".")
        return f"{quoted(outer)}['{inner}']"
    return quoted(name)


def column(field: str, name: str, contents: Contents, basis: Basis, note: str = "") -> Mapped:
    """The column itself."""
    plain = name not in contents.lists and not (contents.format == "json-lines" and "." in name)
    sql = name if plain else reference(name, contents)
    return Mapped(field, sql, (name,), lambda row: row.get(name), basis, note)


def number(field: str, name: str, form: NumberForm, contents: Contents, basis: Basis) -> Mapped:
    """A number; one with a decimal comma or a currency is rewritten."""
    if form == "plain":
        return column(field, name, contents, basis)
    source = reference(name, contents)
    # The dot of Fr. 12.50 is none of the number. It is a class, because a backslash is an escape in Spark's SQL.
    kept = {"comma": None, "currency": "(?i)(kr|fr)[.]|[^0-9.-]", "currency comma": "[^0-9,-]"}[form]
    text = f"replace({source}, '.', '')" if kept is None else f"regexp_replace({source}, '{kept}', '')"
    sql = f"replace({text}, ',', '.')" if form != "currency" else text

    def read(row: Row) -> str | None:
        value = row.get(name)
        if value is None:
            return None
        value = value.replace(".", "") if kept is None else re.sub(kept, "", value)
        return value.replace(",", ".") or None

    note = {"comma": "decimal comma", "currency": "without the currency", "currency comma": "decimal comma, currency"}
    return Mapped(field, f"try_cast({sql} as double)", (name,), read, basis, note[form])


def time(field: str, name: str, form: TimeColumn, unit: str, contents: Contents, basis: Basis) -> Mapped:
    """A time for ``source.time_unit: unit``; a number in another unit is an expression that gives a timestamp.

    Text in another form than ISO is the column itself: ``source.time_formats`` has its form.
    """
    source = reference(name, contents)
    # Not straight to bigint: Spark takes no decimals there, and pandas writes whole numbers with .0.
    number_of = (
        f"cast(try_cast({source} as double) as bigint)" if form.form != "ns" else f"try_cast({source} as bigint)"
    )
    sql = {
        "s": f"timestamp_seconds({number_of})",
        "ms": f"timestamp_millis({number_of})",
        "us": f"timestamp_micros({number_of})",
        "ns": f"timestamp_micros({number_of} div 1000)",
    }.get(form.form if form.form != unit else "", column(field, name, contents, basis).sql)

    def read(row: Row) -> str | None:
        parsed = form.parse(row.get(name))
        return None if parsed is None else parsed.isoformat(sep=" ")

    return Mapped(field, sql, (name,), read, basis, form.doubtful)


def key(field: str, names: tuple[str, ...], contents: Contents, basis: Basis, note: str) -> Mapped:
    """Several columns as one key; null where one of them is."""
    parts = ", '-', ".join(reference(name, contents) for name in names)

    def read(row: Row) -> str | None:
        values = [value for name in names if (value := row.get(name)) is not None]
        return "-".join(values) if len(values) == len(names) else None

    return Mapped(field, f"concat({parts})", names, read, basis, note)


def joined(
    field: str, names: tuple[str, ...], separator: str, contents: Contents, basis: Basis, note: str = ""
) -> Mapped:
    """Several columns as one text; missing ones are left out."""
    columns = ", ".join(reference(name, contents) for name in names)

    def read(row: Row) -> str | None:
        return separator.join(value for name in names if (value := row.get(name)) is not None) or None

    return Mapped(field, f"concat_ws('{separator}', {columns})", names, read, basis, note)
