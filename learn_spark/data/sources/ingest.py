"""The ingest stage: raw files that were not read yet into items, item_index, interactions; refused rows to quarantine.

Whatever is grouped into one run, delivered twice or late, the tables end up the same: which of several deliveries of a
key wins is decided by their times and contents (schemas/items.yaml, schemas/interactions.yaml), never by their order.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from learn_spark.core.errors import RowCountError
from learn_spark.core.quality.quarantine import quarantine
from learn_spark.core.settings.schema import Settings
from learn_spark.core.stages.context import StageContext
from learn_spark.core.stages.stage import StageResult
from learn_spark.core.tables import delta
from learn_spark.core.tables.contracts import contract
from learn_spark.core.tables.lineage import last_done
from learn_spark.core.tables.snapshot import Snapshot, current_version
from learn_spark.core.tables.workspace import Workspace
from learn_spark.data.sources.deliveries import fingerprint, not_read_yet, reader_version, remember
from learn_spark.data.sources.formats import source_of
from learn_spark.data.sources.location import resolve
from learn_spark.data.sources.source import RawFile, UnreadableFileError
from learn_spark.data.sources.staging import Staged, Stager, stage_all
from learn_spark.data.sources.typed_rows import EVENT_ORDER
from learn_spark.data.sources.waiting import Waiting

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

TABLES = ("items", "item_index", "interactions", "quarantine")


@dataclass(frozen=True)
class Tally:
    """Where the rows of one table went. ``waited`` came out of quarantine because their item arrived."""

    read: int = 0
    waited: int = 0
    accepted: int = 0
    refused: int = 0
    duplicates: int = 0

    def check(self, table: str) -> None:
        """RowCountError unless every row is accounted for."""
        total = self.accepted + self.refused + self.duplicates
        if total != self.read + self.waited or self.duplicates < 0:
            waited = f" and {self.waited:,} came out of quarantine" if self.waited else ""
            raise RowCountError(
                f"{table}: {self.read:,} rows were read{waited}, but {self.accepted:,} accepted + {self.refused:,} "
                f"refused + {self.duplicates:,} duplicates = {total:,}"
            )


def other_inputs(settings: Settings, workspace: Workspace) -> dict[str, str]:
    """The raw files, by names, sizes and times of change."""
    files = source_of(settings.source).files(resolve(settings.source.path))
    return {f"files:{settings.source.path}": fingerprint(files)}


def run(context: StageContext) -> StageResult:
    """Read the files that are new, judge their rows, and bring the tables up to them."""
    settings = context.settings.source
    folder, reader = resolve(settings.path), reader_version(settings)
    files = source_of(settings).files(folder)
    if not context.forced and not _tables_went_back(context):
        files = not_read_yet(files, context.workspace, reader, skipped_too=settings.unreadable == "stop")
    for table in TABLES:
        delta.create_if_missing(context.spark, context.path(table), contract(table))
    if not files:
        return StageResult(0, 0, notes=("no new file",))
    place = context.folder("cache", "ingest", context.run_id)
    try:
        errors, items, events = _stage(context, folder, files, place)
        item_tally = _bring_in_items(context, items)
        _extend_index(context)
        event_tally = _bring_in_events(context, events, place)
    finally:
        shutil.rmtree(place, ignore_errors=True)
    counted: dict[str, tuple[int, int]] = {}
    for staged in (items, events):
        for name, (rows, refused) in (staged.by_file if staged else {}).items():
            before = counted.get(name, (0, 0))
            counted[name] = (before[0] + rows, before[1] + refused)
    # Last: a run that is cut off before this reads its files again, and finds every row a duplicate.
    remember(files, context.workspace, reader=reader, run_id=context.run_id, rows=counted, errors=errors)
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
        },
        measures={
            f"{table}_refused_share": tally.refused / tally.read for table, tally in tallies.items() if tally.read
        },
        notes=(
            f"{len(files) - len(errors):,} new files; duplicates: {item_tally.duplicates:,} rows of items, "
            f"{event_tally.duplicates:,} events",
            *(f"skipped, because source.unreadable is skip: {name}: {why}" for name, why in errors.items()),
        ),
    )


def _tables_went_back(context: StageContext) -> bool:
    """Whether a table is gone or older than the last run left it, so that the ledger tells nothing about it."""
    last = last_done(context.workspace, "ingest")
    for table in TABLES:
        version = current_version(context.path(table))
        if version is None or (last is not None and version < int(last.outputs.get(table, 0))):
            return True
    return False


def _stage(
    context: StageContext, folder: Path, files: Sequence[RawFile], place: Path
) -> tuple[dict[str, str], Staged | None, Staged | None]:
    """What was skipped and why, and the judged rows. UnreadableFileError where source.unreadable is stop."""
    settings = context.settings.source
    errors: dict[str, str] = {}
    while True:
        readable = [file for file in files if file.name not in errors]
        stager = Stager(context.spark, source_of(settings), folder, readable, place)
        try:
            return (errors, *stage_all(stager, context.path("items")))
        except UnreadableFileError as error:
            if settings.unreadable == "stop" or error.name in errors:
                raise
            errors[error.name] = error.why


def _bring_in_items(context: StageContext, staged: Staged | None) -> Tally:
    if staged is None:
        return Tally()
    names = contract("items").names
    order = ["updated_at", *(name for name in names if name not in ("item_id", "updated_at"))]
    # Without times nobody can tell which is newer but the order of delivery.
    wins = (
        "case when s.updated_at is null and t.updated_at is null "
        f"then not ({_struct('s', order)} <=> {_struct('t', order)}) "
        f"else {_struct('s', order)} > {_struct('t', order)} end"
    )
    chosen = _winners(staged.good(), "item_id", order, names)
    written = delta.merge(chosen, context.path("items"), contract("items"), update_when=wins)
    return _tally(context, "items", staged, sum(written.values()))


def _bring_in_events(context: StageContext, staged: Staged | None, place: Path) -> Tally:
    table = contract("interactions")
    waiting = Waiting(context.spark, context.path("quarantine"), context.path("items"), place)
    good, waited = staged.good().select(*table.names) if staged else None, 0
    if (arrived := waiting.good_events()) is not None:
        waited = arrived.count()
        good = good.unionByName(arrived) if good is not None else arrived
    if good is None:
        return Tally()
    wins = f"{_struct('s', EVENT_ORDER)} > {_struct('t', EVENT_ORDER)}"
    chosen = _winners(good, "event_id", EVENT_ORDER, table.names)
    written = delta.merge(chosen, context.path("interactions"), table, update_when=wins)
    tally = _tally(context, "interactions", staged, sum(written.values()), waited)
    waiting.leave()
    return tally


def _winners(rows: DataFrame, key: str, order: Sequence[str], names: Sequence[str]) -> DataFrame:
    """Of all rows of a key the greatest in ``order``: the same whatever order they come in."""
    from pyspark.sql import functions as F

    best = rows.groupBy(key).agg(F.max(F.struct(*order)).alias("best")).select(key, "best.*")
    if "event_date" in names:
        best = best.withColumn("event_date", F.to_date("event_time"))
    return best.select(*names)


def _struct(alias: str, names: Sequence[str]) -> str:
    return f"struct({', '.join(f'{alias}.{name}' for name in names)})"


def _tally(context: StageContext, table: str, staged: Staged | None, accepted: int, waited: int = 0) -> Tally:
    read, good, refused = (staged.read, staged.good_rows, staged.refused_rows) if staged else (0, 0, 0)
    tally = Tally(read, waited, accepted, refused, good + waited - accepted)
    tally.check(table)
    if staged and refused:
        quarantine(staged.refused(), context.path("quarantine"), source_table=table, run_id=context.run_id)
    return tally


def _extend_index(context: StageContext) -> None:
    """Give every item without an index the next free one, in the order of item_id."""
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    path = context.path("item_index")
    known = Snapshot.open(path).rows
    if Snapshot.open(context.path("items")).rows == known:
        return
    index = delta.read(context.spark, path)
    new = delta.read(context.spark, context.path("items")).select("item_id").join(index, "item_id", "left_anti")
    # Indexes are dense, so the number of them is the last one. Ids alone fit into one partition at any size.
    number = F.row_number().over(Window.orderBy("item_id")) + F.lit(known)
    delta.append(new.select("item_id", number.cast("int").alias("item_index")), path, contract("item_index"))
