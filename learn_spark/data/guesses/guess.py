"""The description of a folder of raw files: which are the items, which the events, and what their columns mean."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from learn_spark.core.errors import SettingsError
from learn_spark.data.guesses import fields, mapping
from learn_spark.data.guesses.file_sets import FileSet, file_sets
from learn_spark.data.guesses.look import Folder
from learn_spark.data.guesses.mapping import Mapped
from learn_spark.data.guesses.names import event_type_of
from learn_spark.data.guesses.pairs import choose, describe
from learn_spark.data.guesses.times import TimeColumn

_TABLES = ("items", "events")


@dataclass(frozen=True)
class TableGuess:
    """The files of items or of events, and their fields. ``where``: a condition for the rows to read, or None."""

    files: FileSet
    fields: tuple[Mapped, ...]
    where: str | None = None
    where_note: str = ""

    def field(self, name: str) -> Mapped | None:
        """The mapping of one field."""
        return next((one for one in self.fields if one.field == name), None)


@dataclass(frozen=True)
class Guess:
    """The description of a folder. ``passed_over``: file -> why it is not read; ``notes``: what to check."""

    folder: Path
    items: TableGuess
    events: TableGuess
    time_unit: str
    time_formats: tuple[str, ...]
    event_type: str
    overlap: float
    passed_over: Mapping[str, str]
    notes: tuple[str, ...]


def guess(
    folder: Folder, *, items: str | None = None, events: str | None = None, given: Mapping[str, str] | None = None
) -> Guess:
    """Describe the files. ``items`` and ``events``: a file or pattern that settles which; ``given``: ``events.value``
    -> column. Raises SettingsError where the files do not have what a road needs; the message lists what they have.
    """
    columns = _given(given or {})
    sets, left_out = file_sets(folder.path, folder.files)
    passed_over = {**folder.passed_over, **left_out}
    if not sets:
        reasons = "".join(f"\n  {name}: {why}" for name, why in list(passed_over.items())[:20])
        raise SettingsError(f"{folder.path} has no file with a table{reasons or ': it is empty'}")
    pair = choose(describe(sets), items, events)
    log = fields.Columns(pair.events, columns["events"])
    key = columns["events"].get("item_id", pair.event_key)
    log.use(key)
    time_name, time_form = fields.event_time(log)
    log.use(time_name)
    changed = fields.updated_at(log)
    user = fields.user(log)
    event_key, no_key = fields.event_id(log, pair.events, key, changed[0] if changed else None)
    kind, value = fields.event_type(log), fields.event_value(log)
    catalogue = fields.Columns(pair.items, columns["items"])
    item_key = columns["items"].get("item_id", pair.item_key)
    catalogue.use(item_key)
    same = pair.items is pair.events
    if same:  # an item has none of the event's columns
        for one in (user, event_key, kind, value):
            for name in one.columns if one else ():
                catalogue.use(name)
        catalogue.use(time_name)
    item_changed = changed if same else fields.updated_at(catalogue)
    forms = [time_form, *(one[1] for one in (changed, item_changed) if one is not None)]
    unit = _unit(forms)

    def time(field: str, of: fields.Columns, name: str, form: TimeColumn) -> Mapped:
        return mapping.time(field, name, form, unit, of.contents, of.basis(field, name, content=True))

    key_basis = log.basis("item_id", key, content=pair.overlap > 0.5 and not same)
    event_fields = [
        event_key,
        user,
        mapping.column("item_id", key, log.contents, key_basis),
        kind,
        value,
        time("event_time", log, time_name, time_form),
        time("updated_at", log, *changed) if changed else None,
    ]
    item_fields = [
        mapping.column("item_id", item_key, catalogue.contents, catalogue.basis("item_id", item_key)),
        *fields.item_fields(catalogue),
        time("updated_at", catalogue, *item_changed) if item_changed else None,
    ]
    where, where_note = _where(log, user)
    item_table = TableGuess(pair.items.files, tuple(one for one in item_fields if one))
    event_table = TableGuess(pair.events.files, tuple(one for one in event_fields if one), where, where_note)
    notes = [no_key, *_doubts(item_table, event_table, pair.overlap, same)]
    event_type = event_type_of(pair.events.files.pattern) or event_type_of(folder.path.name) or "event"
    return Guess(
        folder.path,
        item_table,
        event_table,
        unit,
        tuple(dict.fromkeys(form.pattern for form in forms if form.form == "format")),
        event_type,
        pair.overlap,
        passed_over,
        tuple(note for note in notes if note),
    )


def _given(given: Mapping[str, str]) -> dict[str, dict[str, str]]:
    tables: dict[str, dict[str, str]] = {table: {} for table in _TABLES}
    for name, column in given.items():
        table, _, field = name.partition(".")
        if table not in tables or not field:
            raise SettingsError(f"--column {name}={column}: write TABLE.FIELD=COLUMN, such as events.user_id=customer")
        tables[table][field] = column
    return tables


def _unit(forms: list[TimeColumn]) -> str:
    """The setting ``time_unit``: the unit of all numbers, else iso; columns in another form are expressions."""
    kinds = {form.form for form in forms}
    (only,) = kinds if len(kinds) == 1 else ("iso",)
    return only if only in ("s", "ms", "us") else "iso"


def _where(columns: fields.Columns, user: Mapped) -> tuple[str | None, str]:
    present = columns.of(user.columns[0]).present
    if present == 1:
        return None, ""
    sql = mapping.reference(user.columns[0], columns.contents)
    return f"{sql} is not null", f"{1 - present:.1%} of the rows have no user, and are skipped"


def _doubts(items: TableGuess, events: TableGuess, overlap: float, same: bool) -> list[str]:
    notes = []
    if items.field("title") is None:
        notes.append("no column is a title: every item would get the same text; name one with --column items.title=")
    if overlap < 0.9 and all(file.complete for file in items.files.files):
        notes.append(
            f"of the items in the sampled events, {overlap:.0%} are in the files of items; events of unknown items "
            "wait in quarantine"
        )
    if events.field("updated_at") is None and events.field("event_id") is not None:
        notes.append("no column says when an event changed: of two rows with one event_id the later event_time counts")
    for table, one in (("items", items), ("events", events)):
        if len(one.files.encodings) > 1:
            notes.append(f"{table}: the files have several encodings ({', '.join(sorted(one.files.encodings))})")
        for mapped in one.fields:
            if mapped.field in ("event_time", "updated_at") and mapped.note:
                notes.append(f"{table}.{mapped.field}: {mapped.note}")
    return notes
