"""The ingest stage: new raw files become rows of items, item_index and interactions; refused rows go to quarantine.

The tables do not depend on how deliveries are grouped into runs, repeated or delayed. Times and contents decide which
of several rows of a key wins (schemas/items.yaml, schemas/interactions.yaml), not the order of arrival.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from learn_spark.core.errors import RowCountError
from learn_spark.core.quality.quarantine import quarantine
from learn_spark.core.quality.reasons import flaw_notes, refusal_notes
from learn_spark.core.settings.schema import Settings
from learn_spark.core.stages.context import StageContext, session_of
from learn_spark.core.stages.stage import StageResult
from learn_spark.core.storage.path import StoragePath
from learn_spark.core.tables import delta
from learn_spark.core.tables.contracts import contract
from learn_spark.core.tables.erased import ErasedUsers
from learn_spark.core.tables.log import append_table
from learn_spark.core.tables.runs import last_done
from learn_spark.core.tables.small import small_plans
from learn_spark.core.tables.snapshot import Snapshot, current_version
from learn_spark.core.tables.workspace import Workspace
from learn_spark.data.sources.corrections import correction_notes
from learn_spark.data.sources.deliveries import fingerprint, messages_read_again, new_files, reader_version, remember
from learn_spark.data.sources.formats import source_of
from learn_spark.data.sources.landing import LandedRows, Landing, about_rows, land_all
from learn_spark.data.sources.location import source_folder
from learn_spark.data.sources.reingestion import QuarantinedEvents, remove_accepted
from learn_spark.data.sources.source import RawFile, UnreadableFileError
from learn_spark.data.sources.typed_rows import EVENT_ORDER

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

TABLES = ("items", "item_index", "interactions", "quarantine")


@dataclass(frozen=True)
class Tally:
    """Row counts of one table. ``waited`` counts rows from quarantine whose item has arrived, ``erased`` rows of erased
    users, which stay out."""

    read: int = 0
    waited: int = 0
    accepted: int = 0
    refused: int = 0
    duplicates: int = 0
    erased: int = 0

    def check(self, table: str) -> None:
        """Raise RowCountError unless every row is accounted for."""
        total = self.accepted + self.refused + self.duplicates + self.erased
        if total != self.read + self.waited or self.duplicates < 0:
            waited = f" and {self.waited:,} re-ingested from quarantine" if self.waited else ""
            erased = f" + {self.erased:,} of erased users" if self.erased else ""
            raise RowCountError(
                f"{table}: {self.read:,} rows were read{waited}, but {self.accepted:,} accepted + {self.refused:,} "
                f"refused + {self.duplicates:,} duplicates{erased} = {total:,}"
            )


def other_inputs(settings: Settings, workspace: Workspace) -> dict[str, str]:
    """The raw files, by name and state."""
    source = source_of(settings.source, lambda: session_of(settings, workspace))
    files = source.files(source_folder(settings.source.path, settings.storage.s3()))
    return {f"files:{settings.source.path}": fingerprint(files)}


def run(context: StageContext) -> StageResult:
    """Read the new files, check their rows, and merge them into the tables."""
    settings = context.settings.source
    folder, reader = source_folder(settings.path, context.settings.storage.s3()), reader_version(settings)
    files = everything = source_of(settings, lambda: context.spark).files(folder)
    if not context.forced and not _tables_were_reset(context):
        files = new_files(files, context.workspace, reader, skipped_too=settings.unreadable == "stop")
    for table in TABLES:
        delta.create_if_missing(context.path(table), contract(table))
    if not files:
        return StageResult(0, 0, notes=("no new file",))
    # With all files read, what they have in quarantine from before and is not refused again was accepted. A topic is
    # never read whole, because its brokers delete messages; but each refused message names its offset.
    whole = [file.name for file in files if file.is_whole]
    whole = whole if len(whole) == sum(not file.is_partition for file in everything) else []
    again = messages_read_again(files, context.workspace)
    judged_again = bool(whole or again) and Snapshot.open(context.path("quarantine")).rows > 0
    scratch = context.staging
    left, most = 0, max(about_rows(files), *(Snapshot.open(context.path(table)).rows for table in TABLES))
    try:
        with small_plans(context.spark, most):
            context.console.at(f"reading {len(files):,} files")
            errors, items, events = _land(context, folder, files, scratch)
            context.console.at("writing items and events")
            item_tally = _merge_items(context, items)
            _extend_index(context)
            event_tally = _merge_events(context, events, scratch)
            if judged_again:
                names = [name for name in whole if name not in errors]
                by_table = {"items": items, "interactions": events}
                left = remove_accepted(context.spark, context.path("quarantine"), by_table, names, again, scratch)
            corrections, corrected = _corrections(context, events, event_tally)
    finally:
        scratch.remove()
    counted: dict[str, tuple[int, int]] = {}
    good_rows: dict[str, dict[str, int]] = {}
    for table, landed in (("items", items), ("interactions", events)):
        for name, (rows, refused) in (landed.by_file if landed else {}).items():
            earlier = counted.get(name, (0, 0))
            counted[name] = (earlier[0] + rows, earlier[1] + refused)
            good_rows.setdefault(name, {})[table] = rows - refused
    # Last: after a kill before this point the files are read again, and every row is a duplicate.
    remember(
        files,
        context.workspace,
        reader=reader,
        run_id=context.run_id,
        rows=counted,
        errors=errors,
        good_rows=good_rows,
    )
    tallies = {"items": item_tally, "interactions": event_tally}
    return StageResult(
        rows_in=sum(tally.read for tally in tallies.values()),
        rows_out=sum(tally.accepted for tally in tallies.values()),
        refused=sum(tally.refused for tally in tallies.values()),
        counts={
            **{table: tally.accepted for table, tally in tallies.items()},
            "duplicates": sum(tally.duplicates for tally in tallies.values()),
            "out_of_quarantine": event_tally.waited,
            "files": len(files) - len(errors),
            "files_skipped": len(errors),
            "left_quarantine": left,
            "erased": event_tally.erased,
            "possible_corrections": corrected,
            "fields_nulled": sum(flaw.rows for landed in (items, events) if landed for flaw in landed.flaws),
        },
        measures={
            f"{table}_refused_share": tally.refused / tally.read for table, tally in tallies.items() if tally.read
        },
        notes=(
            f"{len(files) - len(errors):,} new files; duplicates: {item_tally.duplicates:,} rows of items, "
            f"{event_tally.duplicates:,} events",
            *(f"skipped, because source.unreadable is skip: {name}: {why}" for name, why in errors.items()),
            *_row_notes("items", items),
            *_row_notes("interactions", events),
            *corrections,
            *([f"{event_tally.erased:,} events of erased users stay out"] if event_tally.erased else []),
            *([f"{left:,} rows left quarantine, because today's settings accept them"] if left else []),
        ),
    )


def _corrections(context: StageContext, landed: LandedRows | None, tally: Tally) -> tuple[tuple[str, ...], int]:
    if landed is None:
        return (), 0
    path, settings = context.path("interactions"), context.settings.source
    return correction_notes(
        context.spark, settings, path, landed.good(), added=tally.accepted, repeated=tally.duplicates
    )


def _row_notes(table: str, landed: LandedRows | None) -> tuple[str, ...]:
    if landed is None:
        return ()
    refused = refusal_notes(table, landed.read, landed.refused_rows, landed.reasons)
    spelled = (
        f"warning: {column} of {rows:,} rows of {table} has accents apart from their letters (NFD), such as {example}; "
        "the composed spelling (NFC) is another id, so write all ids in one of them"
        for column, rows, example in landed.decomposed
    )
    return (*refused, *flaw_notes(table, landed.flaws), *spelled)


def _tables_were_reset(context: StageContext) -> bool:
    """Whether a table is missing or older than after the last run; then the ledger does not describe it."""
    last = last_done(context.workspace, "ingest")
    for table in TABLES:
        version = current_version(context.path(table))
        if version is None or (last is not None and version < int(last.outputs.get(table, 0))):
            return True
    return False


def _land(
    context: StageContext, folder: StoragePath, files: Sequence[RawFile], scratch: StoragePath
) -> tuple[dict[str, str], LandedRows | None, LandedRows | None]:
    """(skipped files with reasons, items, events). Raises UnreadableFileError where source.unreadable is stop."""
    settings = context.settings.source
    errors: dict[str, str] = {}
    erased = ErasedUsers.of(context.workspace)
    while True:
        readable = [file for file in files if file.name not in errors]
        formats = settings.time_formats if settings.format == "files" else None
        landing = Landing(context.spark, source_of(settings), folder, readable, scratch, formats, erased)
        try:
            return (errors, *land_all(landing, context.path("items")))
        except UnreadableFileError as error:
            if settings.unreadable == "stop" or error.name in errors:
                raise
            errors[error.name] = error.why


def _merge_items(context: StageContext, landed: LandedRows | None) -> Tally:
    if landed is None:
        return Tally()
    names = contract("items").names
    order = ["updated_at", *(name for name in names if name not in ("item_id", "updated_at"))]
    # Without times, the newest delivery wins.
    wins = (
        "case when s.updated_at is null and t.updated_at is null "
        f"then not ({_struct('s', order)} <=> {_struct('t', order)}) "
        f"else {_struct('s', order)} > {_struct('t', order)} end"
    )
    chosen = _winners(landed.good(), "item_id", order, names)
    written = delta.merge(chosen, context.path("items"), contract("items"), update_when=wins, most=landed.good_rows)
    return _tally(context, "items", landed, sum(written.values()))


def _merge_events(context: StageContext, landed: LandedRows | None, scratch: StoragePath) -> Tally:
    table = contract("interactions")
    quarantined = QuarantinedEvents(context.spark, context.path("quarantine"), context.path("items"), scratch)
    good, waited = landed.good().select(*table.names) if landed else None, 0
    if (arrived := quarantined.good_events()) is not None:
        waited = quarantined.good
        good = good.unionByName(arrived) if good is not None else arrived
    if good is None:
        return Tally()
    wins = f"{_struct('s', EVENT_ORDER)} > {_struct('t', EVENT_ORDER)}"
    chosen = _winners(good, "event_id", EVENT_ORDER, table.names)
    most = waited + (landed.good_rows if landed else 0)
    written = delta.merge(chosen, context.path("interactions"), table, update_when=wins, most=most)
    tally = _tally(context, "interactions", landed, sum(written.values()), waited)
    quarantined.remove()
    return tally


def _winners(rows: DataFrame, key: str, order: Sequence[str], names: Sequence[str]) -> DataFrame:
    """For each key the greatest row by ``order``, which does not depend on the order of arrival."""
    from pyspark.sql import functions as F

    best = rows.groupBy(key).agg(F.max(F.struct(*order)).alias("best")).select(key, "best.*")
    if "event_date" in names:
        best = best.withColumn("event_date", F.to_date("event_time"))
    return best.select(*names)


def _struct(alias: str, names: Sequence[str]) -> str:
    return f"struct({', '.join(f'{alias}.{name}' for name in names)})"


def _tally(context: StageContext, table: str, landed: LandedRows | None, accepted: int, waited: int = 0) -> Tally:
    read, good, refused = (landed.read, landed.good_rows, landed.refused_rows) if landed else (0, 0, 0)
    tally = Tally(read, waited, accepted, refused, good + waited - accepted, landed.erased if landed else 0)
    tally.check(table)
    if landed and refused:
        rows, users = landed.refused(), ErasedUsers.of(context.workspace)
        if users is not None and table == "interactions":
            rows = users.without_mentions(rows)
        quarantine(rows, context.path("quarantine"), source_table=table, run_id=context.run_id, most=refused)
    return tally


def _extend_index(context: StageContext) -> None:
    """Assign the next free indexes to items without one, in the order of item_id.

    Without Spark: for the few new items of a delivery its jobs would take longer than everything else.
    """
    path = context.path("item_index")
    index, items = Snapshot.open(path), Snapshot.open(context.path("items"))
    if items.rows == index.rows:
        return
    ids, known = items.to_arrow(["item_id"])["item_id"], index.to_arrow(["item_id"])["item_id"]
    # The ids of a large catalogue are more than the 2 GB of one Arrow string array.
    new = ids.filter(pc.invert(pc.is_in(ids, value_set=known))).cast(pa.large_string())
    new = new.take(pc.sort_indices(new))
    # Indexes are dense: their number is the last one.
    numbers = pa.array(np.arange(index.rows + 1, index.rows + 1 + len(new), dtype=np.int32))
    rows = pa.table({"item_id": new, "item_index": numbers})
    append_table(path, contract("item_index"), pa.Table.from_batches(rows.to_batches(max_chunksize=1_000_000)))
