"""Forecast of a run for --dry-run: its inputs, texts to encode, and duration by the rates of earlier runs."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import pyarrow.compute as pc

from learn_spark.core.settings import Settings
from learn_spark.core.stages.stage import Stage
from learn_spark.core.tables.runs import Run, all_runs
from learn_spark.core.tables.snapshot import Snapshot, SnapshotError, current_version
from learn_spark.core.tables.workspace import Workspace
from learn_spark.data.sources.headers import Incoming
from learn_spark.data.text.templates import template
from learn_spark.encoder.identity import identify
from learn_spark.pipeline.preflight import Delivery

BATCH_ROWS = 1 << 16


def rows_of(workspace: Workspace, tables: Mapping[str, int | None]) -> dict[str, int]:
    """Table -> number of rows at a version (None: newest), without tables or versions that do not exist."""
    rows = {}
    for table, version in tables.items():
        try:
            rows[table] = Snapshot.open(workspace.table(table), version).rows
        except SnapshotError:
            continue
    return rows


def forecast(
    stage: Stage,
    settings: Settings,
    workspace: Workspace,
    arriving: Delivery | None = None,
    changing: Collection[str] = (),
) -> list[str]:
    """Lines that describe a run of ``stage`` on the current tables: inputs, outputs and duration.

    ``arriving``: the files that an ingest before it would read; ``changing``: tables that stages before it would write.
    """
    now = rows_of(workspace, dict.fromkeys(stage.reads))
    lines = []
    if stage.name == "ingest" and arriving is not None:
        lines.append(f"reads  {_amount('items', arriving.items)}, {_amount('events', arriving.events)}")
        lines += arriving.notes
    elif now:
        tables = (f"{table} @ {current_version(workspace.table(table))} ({rows:,} rows)" for table, rows in now.items())
        lines.append(f"reads  {', '.join(tables)}")
    else:
        others = ", ".join([*stage.reads] or _files(stage, settings, workspace))
        lines.append(f"reads  {others or 'the tables that there are'}")
    lines.append(f"writes {', '.join(stage.writes) or 'files below ' + str(workspace.place)}")
    done = [run for run in all_runs(workspace) if run.job == stage.name and run.status == "done"]
    if stage.name == "embed_items":
        return [*lines, *_encoding(settings, workspace, done, arriving, may_change="item_text" in changing)]
    if not done:
        return [*lines, "time   unknown: the stage has not run in this workspace yet"]
    last = done[-1]
    then = rows_of(workspace, {t: int(v) for t, v in last.inputs.items() if t in now and v.isdecimal()})
    rows_now, rows_then = sum(list(now.values())), sum(list(then.values()))
    share = rows_now / rows_then if len(then) == len(now) and rows_then else 1.0
    return [*lines, f"time   about {last.seconds * share:,.0f} s (the last run took {last.seconds:,.0f} s)"]


def _files(stage: Stage, settings: Settings, workspace: Workspace) -> list[str]:
    others = stage.other_inputs(settings, workspace)
    return [name.removeprefix("files:") for name in others if name.startswith("files:")]


def texts_to_encode(settings: Settings, workspace: Workspace) -> int:
    """Number of distinct texts of the settings' template without an embedding of the settings' encoder."""
    if current_version(workspace.table("item_text")) is None:
        return 0
    texts = _text_hashes(workspace, "item_text", "template_version", template(settings.text.template).key)
    if current_version(workspace.table("text_embeddings")) is None:
        return len(texts)
    encoded = _text_hashes(workspace, "text_embeddings", "encoder_key", identify(settings.encoder).key)
    return len(texts) - int(np.isin(texts, encoded, assume_unique=True).sum())


def _text_hashes(workspace: Workspace, table: str, column: str, value: str) -> np.ndarray:
    """A hash, uint64, of each distinct text key of the rows whose ``column`` is ``value``: 8 bytes a text."""
    from pandas.util import hash_array

    parts = [np.zeros(0, np.uint64)]
    for batch in Snapshot.open(workspace.table(table)).batches([column, "text_key"], BATCH_ROWS):
        keys = batch.filter(pc.equal(batch[column], value))["text_key"]
        if len(keys):
            parts.append(hash_array(keys.to_numpy(zero_copy_only=False), categorize=False))
    return np.unique(np.concatenate(parts))


def _amount(table: str, files: Incoming) -> str:
    rows = "" if files.rows is None else f", up to {files.rows:,} rows"
    return f"{files.files:,} new files of {table} ({files.size / 1e6:,.1f} MB{rows})"


def _encoding(
    settings: Settings, workspace: Workspace, done: list[Run], arriving: Delivery | None, *, may_change: bool
) -> list[str]:
    rates = [run.counts["encoded"] / run.seconds for run in done if run.counts.get("encoded") and run.seconds]
    new = arriving.items.rows if arriving is not None else 0
    if may_change and (current_version(workspace.table("item_text")) is None or new != 0):
        known = texts_to_encode(settings, workspace)
        more = "the texts of new and changed items" if new is None else f"up to {new:,} texts of new and changed items"
        total = None if new is None else known + new
        known_ones = f"{known:,} texts that are there, and " if known else ""
        line = f"encodes {known_ones}{more}; equal texts are encoded once"
    else:
        total = texts_to_encode(settings, workspace)
        line = f"encodes {total:,} texts"
    if not rates:
        return [f"{line}; time unknown, because this workspace has no earlier run"]
    if total is None:
        return [line]
    seconds = f"{total / rates[-1]:,.0f} s, at the rate of the last run ({rates[-1]:,.1f} texts/s)"
    return [f"{line} in about {seconds}" if line.endswith("texts") else f"{line}: at most {seconds}"]
