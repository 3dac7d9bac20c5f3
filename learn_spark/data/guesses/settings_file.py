"""The settings file that learn-spark init writes: YAML with the reason beside every guess."""

from __future__ import annotations

import json
import os
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from learn_spark.core.errors import SettingsError
from learn_spark.data.guesses import preview
from learn_spark.data.guesses.guess import Guess, TableGuess

_RESERVED = {"y", "n", "yes", "no", "on", "off", "true", "false", "null", "~", "none"}


def settings_text(guess: Guess, path: Path, workspace: Path) -> str:
    """The text of ``path``, settings with the workspace ``workspace``."""
    name = scalar(str(path))
    lines = [
        f"# Written by learn-spark init on {datetime.now(UTC):%Y-%m-%d} from the files in {guess.folder}.",
        "# Each field has the reason of its column. Correct what is wrong; nothing reads the files but these settings.",
        f"# Check: learn-spark run {name} --dry-run",
        f"# Run:   learn-spark run {name}",
        "",
        "extends: conf/shop.yaml                # the preset: LEARN+ at a size for two cores",
        f"workspace: {scalar(str(workspace))}",
        "",
        "source:",
        "  format: files",
        f"  path: {scalar(str(guess.folder))}",
        _beside(
            f"  time_unit: {guess.time_unit}", "of the columns with times: iso is text or timestamps, else numbers"
        ),
        *_time_formats(guess),
        *_event_type(guess),
        "  unreadable: stop                     # skip: an unreadable file is reported, and the run goes on",
        *_table("items", guess.items),
        *_table("events", guess.events),
        "",
        "text:",
        "  template: shop                       # without the price, because it changes often, and each new text is",
        "                                       # encoded again; learn-industrial is the prompt of the paper, with it",
        "evaluation:",
        "  mask_history: false                  # customers buy the same again; true where nobody takes an item twice",
        "",
    ]
    if guess.notes:
        lines += ["# To check:", *(f"# - {note}" for note in guess.notes), ""]
    return "\n".join(" ".join(line.splitlines()) for line in lines)


def scalar(text: str) -> str:
    """A text in YAML, in quotes where it would be read as something else."""
    plain = re.fullmatch(r"[A-Za-z_/][\w./*() -]*", text) and not text.endswith(" ") and text.lower() not in _RESERVED
    return text if plain else json.dumps(text, ensure_ascii=False)


def _beside(line: str, comment: str) -> str:
    return f"{line:<38} # {comment}" if comment else line


def _time_formats(guess: Guess) -> list[str]:
    if not guess.time_formats:
        return []
    formats = ", ".join(json.dumps(one) for one in guess.time_formats)
    return [_beside(f"  time_formats: [{formats}]", "Spark's patterns of text that is not ISO; times are UTC")]


def _event_type(guess: Guess) -> list[str]:
    if guess.events.field("event_type"):
        return []
    return [_beside(f"  event_type: {scalar(guess.event_type)}", "of all events; from the names of the files")]


def _table(name: str, table: TableGuess) -> list[str]:
    files, layout = table.files, table.files.layout
    if files.format == "delta":
        number = "a Delta table; its new versions are read too"
    elif "*" in files.pattern:
        number = (
            f"{len(files.files):,} file{'s' if len(files.files) > 1 else ''} now; new files that match are read too"
        )
    else:
        number = "one file; a pattern with * reads new files too"
    lines = [
        f"  {name}:",
        _beside(f"    files: {scalar(files.pattern)}", number),
    ]
    if files.format != "csv":
        lines.append(f"    format: {files.format}")
    elif layout.separator != ",":
        lines.append(f"    separator: {json.dumps(layout.separator)}")
    if layout.encoding != "utf-8":
        lines.append(f"    encoding: {layout.encoding}")
    if layout.quote != '"':
        quotes = "" if layout.quote else "a quote is a character of the text"
        lines.append(_beside(f"    quote: {json.dumps(layout.quote)}", quotes))
    if layout.escape != layout.quote:
        lines.append(f"    escape: {json.dumps(layout.escape)}")
    if files.multiline:
        lines.append(_beside("    multiline: true", "quoted fields have line breaks"))
    lines.append("    columns:")
    for one in table.fields:
        comment = one.basis + (f"; {one.note}" if one.note else "")
        lines.append(_beside(f"      {one.field}: {scalar(one.sql)}", comment))
    if table.where:
        lines.append(_beside(f"    where: {scalar(table.where)}", table.where_note))
    if unused := [c for c in files.columns if not any(c in one.columns for one in table.fields)]:
        lines.append(f"    # not used: {', '.join(unused)}")
    return lines


def described(guess: Guess) -> dict[str, Any]:
    """The guess as plain values, with the preview, for --json."""
    tables = {
        name: {
            "files": table.files.pattern,
            "format": table.files.format,
            "number_of_files": len(table.files.files),
            **(_layout(table) if table.files.format in ("csv", "json-lines") else {}),
            "columns": {one.field: one.sql for one in table.fields},
            "reasons": {one.field: "; ".join(filter(None, (one.basis, one.note))) for one in table.fields},
            "where": table.where,
        }
        for name, table in (("items", guess.items), ("events", guess.events))
    }
    return {
        **tables,
        "time_unit": guess.time_unit,
        "time_formats": list(guess.time_formats),
        "event_type": None if guess.events.field("event_type") else guess.event_type,
        "prompts": [{"item_id": item, "prompt": prompt} for item, prompt in preview.prompts(guess)],
        "first_events": preview.events(guess),
        "notes": list(guess.notes),
        "passed_over": dict(guess.passed_over),
    }


def _layout(table: TableGuess) -> dict[str, Any]:
    layout = table.files.layout
    csv = {"separator": layout.separator, "quote": layout.quote, "escape": layout.escape}
    return {
        "encoding": layout.encoding,
        **(csv if table.files.format == "csv" else {}),
        "multiline": table.files.multiline,
    }


def write_new(path: Path, text: str) -> None:
    """Write the file at once, so that no half of it is ever there. Raises SettingsError where it cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        raise SettingsError(f"{path} cannot be written: {error.strerror}") from None
