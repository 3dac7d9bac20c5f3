"""How consumers read features: through releases, never a table's newest rows."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from learn_spark.errors import LearnSparkError
from learn_spark.tables.log import read_rows
from learn_spark.tables.snapshot import Snapshot
from learn_spark.tables.workspace import Workspace

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession


class NoRelease(LearnSparkError):
    """Nothing is released, or not what was asked for."""


def current_release(rows: Sequence[dict[str, Any]], as_of: datetime | None = None) -> dict[str, Any]:
    """Of all rows of ``releases``, the one that holds now: the newest ``released`` row that no later row withdrew.

    With ``as_of`` (aware) the newest of those whose own as_of is not after it: one that knows nothing of what came
    then. Staging a release again takes nothing away from it. NoRelease where every release is staged or withdrawn,
    or of a later as_of.
    """
    newest: dict[str, dict[str, Any]] = {}
    for row in sorted(rows, key=lambda row: row["sequence"]):
        if row["status"] != "staged":
            newest[row["release_id"]] = row
    released = [row for row in newest.values() if row["status"] == "released"]
    if not released:
        raise NoRelease("nothing is released; run the publish stage, and look at its gate if it ran")
    if as_of is not None:
        earliest = min(row["as_of"] for row in released)
        released = [row for row in released if row["as_of"] <= as_of]
        if not released:
            raise NoRelease(
                f"no release is as of {as_of:%Y-%m-%d %H:%M:%S} UTC or earlier; the earliest of those that hold is as "
                f"of {earliest:%Y-%m-%d %H:%M:%S}"
            )
    return max(released, key=lambda row: row["sequence"])


def read_release(workspace: Workspace, as_of: datetime | None = None) -> dict[str, Any]:
    """The row of ``releases`` that holds now, or as of a time (``current_release``)."""
    return current_release(read_rows(workspace.table("releases")), as_of)


def released_features(spark: SparkSession, workspace: Workspace, table: str) -> DataFrame:
    """The released rows of ``user_features`` or ``item_features``, by Spark, at the version the release names."""
    from pyspark.sql import functions as F

    from learn_spark.tables import delta

    row = read_release(workspace)
    frame = delta.read(spark, workspace.table(table), int(row["outputs"][table]))
    return frame.where(F.col("release_id") == row["release_id"])


def released_arrow(workspace: Workspace, table: str) -> pa.Table:
    """The same without Spark."""
    row = read_release(workspace)
    rows = Snapshot.open(workspace.table(table), int(row["outputs"][table])).to_arrow()
    return rows.filter(pc.equal(rows["release_id"], row["release_id"]))
