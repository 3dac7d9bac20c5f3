"""What a run would read and encode, and how long that takes by the rates of earlier runs. Nothing is changed."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow.compute as pc

from learn_spark.core.settings import Settings
from learn_spark.core.stages.stage import Stage
from learn_spark.core.tables.runs import Run, all_runs
from learn_spark.core.tables.snapshot import Snapshot, SnapshotError, current_version
from learn_spark.core.tables.workspace import Workspace
from learn_spark.data.text.templates import template
from learn_spark.encoder.identity import identify


def rows_of(workspace: Workspace, tables: Mapping[str, int | None]) -> dict[str, int]:
    """Table -> rows at a version (None: newest); a table or version that is not there is left out."""
    found = {}
    for table, version in tables.items():
        try:
            found[table] = Snapshot.open(workspace.table(table), version).rows
        except SnapshotError:
            continue
    return found


def forecast(stage: Stage, settings: Settings, workspace: Workspace) -> list[str]:
    """Sentences about a run of ``stage`` on the tables as they are now."""
    now = rows_of(workspace, dict.fromkeys(stage.reads))
    said = []
    if now:
        tables = (f"{table} @ {current_version(workspace.table(table))} ({rows:,} rows)" for table, rows in now.items())
        said.append(f"reads  {', '.join(tables)}")
    else:
        said.append(f"reads  {', '.join(stage.reads) or ', '.join(_files(stage, settings, workspace))}")
    said.append(f"writes {', '.join(stage.writes) or 'files below ' + str(workspace.root)}")
    done = [run for run in all_runs(workspace) if run.job == stage.name and run.status == "done"]
    if stage.name == "embed_items":
        return [*said, _encoding(settings, workspace, done)]
    if not done:
        return [*said, "time   unknown: it has not run here yet"]
    last = done[-1]
    then = rows_of(workspace, {t: int(v) for t, v in last.inputs.items() if t in now and v.isdecimal()})
    rows_now, rows_then = sum(list(now.values())), sum(list(then.values()))
    share = rows_now / rows_then if len(then) == len(now) and rows_then else 1.0
    return [*said, f"time   about {last.seconds * share:,.0f} s (the last run took {last.seconds:,.0f} s)"]


def _files(stage: Stage, settings: Settings, workspace: Workspace) -> list[str]:
    others = stage.other_inputs(settings, workspace)
    return [name.removeprefix("files:") for name in others if name.startswith("files:")]


def texts_to_encode(settings: Settings, workspace: Workspace) -> int:
    """Distinct texts of the settings' template that have no embedding under the settings' encoder; 0 without texts."""
    if current_version(workspace.table("item_text")) is None:
        return 0
    texts = Snapshot.open(workspace.table("item_text")).to_arrow(["template_version", "text_key"])
    mine = pc.equal(texts["template_version"], template(settings.text.template).key)
    wanted = pc.unique(texts.filter(mine)["text_key"])
    if current_version(workspace.table("text_embeddings")) is None:
        return len(wanted)
    held = Snapshot.open(workspace.table("text_embeddings")).to_arrow(["encoder_key", "text_key"])
    known = held.filter(pc.equal(held["encoder_key"], identify(settings.encoder).key))["text_key"]
    return len(wanted) - int(pc.sum(pc.is_in(wanted, value_set=known)).as_py() or 0)


def _encoding(settings: Settings, workspace: Workspace, done: list[Run]) -> str:
    texts = texts_to_encode(settings, workspace)
    rates = [run.counts["encoded"] / run.seconds for run in done if run.counts.get("encoded") and run.seconds]
    if not rates:
        return f"encodes {texts:,} texts; time unknown: nothing was encoded here yet"
    return f"encodes {texts:,} texts, in about {texts / rates[-1]:,.0f} s by the last rate ({rates[-1]:,.1f} texts/s)"
