"""A new Delta table: its first commit, written without Spark, whose session would take many times as long."""

from __future__ import annotations

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Schema
from deltalake.exceptions import CommitFailedError

from learn_spark.core.storage.path import storage_path
from learn_spark.core.tables.contracts import Contract
from learn_spark.core.tables.snapshot import current_version

# Tables of bookkeeping that get some rows in every run. No run reads one of their older versions.
GROWING = frozenset(
    {
        "runs",
        "quality_results",
        "raw_files",
        "releases",
        "encoders",
        "embedding_spaces",
        "evaluations",
        "evaluation_slices",
        "ad_metrics",
    }
)
# Tables to which a stage adds a file or more at each delivery, and that it seldom changes otherwise.
APPENDED = frozenset({"items", "item_index", "item_text", "text_embeddings", "evaluation_users", "quarantine"})
FOR_GOOD = "interval 36500 days"
COMMITS_OF_A_CHECKPOINT = 10
# Protocol of writers that know CHECK constraints, and of those that know the feed of changes too
# (github.com/delta-io/delta/blob/master/PROTOCOL.md). deltalake would choose one that does not have checkConstraints.
WRITER_OF_CONSTRAINTS, WRITER_OF_CHANGES = "3", "4"


def create_table(path: str, contract: Contract) -> None:
    """Write version 0 of the table at ``path``: columns, NOT NULL and CHECK constraints and properties in one commit.

    The comments of table and columns are in it too: a later change of them would be a version without new rows.
    Does nothing where there is a table already, or another process writes that version meanwhile.
    """
    place = storage_path(path)
    try:
        DeltaTable.create(
            str(place),
            schema=Schema.from_arrow(commented_schema(contract)),
            description=contract.meaning,
            mode="ignore",
            configuration={**table_properties(contract), **_protocol(contract)},
            raise_if_key_not_exists=False,
            commit_properties=CommitProperties(max_commit_retries=0),
            storage_options=place.delta_options,
        )
    except CommitFailedError:
        if current_version(place) is None:
            raise


def commented_schema(contract: Contract) -> pa.Schema:
    """The columns as an Arrow schema, each with its meaning and unit as Delta's comment."""
    fields = zip(contract.arrow_schema(), contract.columns, strict=True)
    return pa.schema([field.with_metadata({"comment": column.comment}) for field, column in fields])


def table_properties(contract: Contract) -> dict[str, str]:
    """The properties of a table of this contract; its CHECK constraints are among them."""
    # Of the log only what came after the last checkpoint is read, a file a commit: Spark writes one every 10 commits,
    # deltalake every 100 unless the table says so.
    properties = {"delta.enableDeletionVectors": "false", "delta.checkpointInterval": str(COMMITS_OF_A_CHECKPOINT)}
    properties |= {f"delta.constraints.{name}": condition for name, condition in contract.constraints.items()}
    if contract.change_data_feed:
        properties["delta.enableChangeDataFeed"] = "true"
    if contract.keeps_versions:
        # 30 and 7 days by default: after a checkpoint, or a VACUUM, older versions could not be read any more.
        properties["delta.logRetentionDuration"] = FOR_GOOD
        properties["delta.deletedFileRetentionDuration"] = FOR_GOOD
    return properties


def _protocol(contract: Contract) -> dict[str, str]:
    if contract.change_data_feed:
        return {"delta.minReaderVersion": "1", "delta.minWriterVersion": WRITER_OF_CHANGES}
    if contract.constraints:
        return {"delta.minReaderVersion": "1", "delta.minWriterVersion": WRITER_OF_CONSTRAINTS}
    return {}
