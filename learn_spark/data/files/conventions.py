"""Conventions of those who write files: folders that are columns, and a line that names the separator."""

from __future__ import annotations

import re
from urllib.parse import unquote

# A line sep=; above the header, as Excel writes it; a pattern for Python and for Spark.
SEPARATOR_NOTE = r'(?i)^"?sep=(.|\\t)"?[ ,;]*$'
# The same as a record: where the separator that the note names also separates, the note is two fields.
SEPARATOR_NOTE_RECORD = r'(?i)^\ufeff?"?sep=(.|\\t)?"?[ ,;]*\s*$'
NO_PARTITION = "__HIVE_DEFAULT_PARTITION__"


def partition_values(name: str) -> dict[str, str | None]:
    """The columns that a file's folders name, as Hive does: ``dt=2024-03-01/a.csv`` has dt. An empty value is null."""
    pairs = (part.split("=", 1) for part in name.split("/")[:-1] if "=" in part[1:])
    return {key: None if value in ("", NO_PARTITION) else unquote(value) for key, value in pairs}


def noted_separator(line: str) -> str | None:
    """The separator that the line ``sep=;`` names; None for any other line."""
    note = re.match(SEPARATOR_NOTE, line)
    return note[1].replace("\\t", "\t") if note else None
