"""Reading features through releases, never as the newest rows of a table."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

import pyarrow as pa

from learn_spark.core.errors import LearnSparkError, SettingsError
from learn_spark.core.tables.catalog import workspace_named
from learn_spark.core.tables.snapshot import Snapshot
from learn_spark.core.tables.workspace import Workspace
from learn_spark.features.ledger import LedgerRow, NoReleaseError, current_release, find_release, ledger

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

__all__ = [
    "KEYS",
    "NAMES",
    "FeatureTable",
    "NoReleaseError",
    "current_release",
    "key_of",
    "read",
    "read_release",
    "released_arrow",
    "released_features",
    "table_of",
    "workspace_of",
]

FeatureTable = Literal["user_features", "item_features"]
KEYS = {"user_features": "user_id", "item_features": "item_id"}
NAMES = {"user_features": "user", "item_features": "item"}
WORKSPACE_CONF = "spark.learn_spark.workspace"


def read(
    spark: SparkSession,
    table: str,
    release: str = "latest",
    as_of: datetime | None = None,
    *,
    workspace: Workspace | str | None = None,
) -> DataFrame:
    """The rows of ``user_features`` or ``item_features`` in one release.

    ``table``: also its name in a catalog (learn.user_features), without a workspace. ``release``: an id, or "latest"
    for the release in force. ``as_of`` (in UTC unless it has a time zone): the newest release without an event at or
    after that time; a named release is checked for this. ``workspace``: its folder or address; default: the Spark
    setting spark.learn_spark.workspace.

    Raises NoReleaseError if no release fits, CatalogError if the catalog has no such name, LearnSparkError for another
    table.
    """
    from learn_spark.core.tables import delta

    where, table = table_of(spark, table, workspace)
    row = read_release(where, as_of, release)
    return delta.read(spark, where.table(table), row.version(table))


def read_release(workspace: Workspace, as_of: datetime | None = None, release: str = "latest") -> LedgerRow:
    """The ledger row of the release in force, now or as of a time, or of a named release. Raises NoReleaseError."""
    if as_of is not None and as_of.tzinfo is None:
        as_of = as_of.replace(tzinfo=UTC)
    if release == "latest":
        return current_release(ledger(workspace), as_of)
    row = find_release(ledger(workspace), release)
    if as_of is not None and row.as_of > as_of:
        raise NoReleaseError(
            f"release {release} is as of {row.as_of:%Y-%m-%d %H:%M:%S}: it may contain events at or after "
            f"{as_of:%Y-%m-%d %H:%M:%S}"
        )
    return row


def released_features(spark: SparkSession, workspace: Workspace, table: str) -> DataFrame:
    """The rows of a feature table in the release in force, by Spark."""
    return read(spark, table, workspace=workspace)


def released_arrow(
    workspace: Workspace, table: str, release: str = "latest", *, as_of: datetime | None = None
) -> pa.Table:
    """The rows of a feature table in a release, without Spark."""
    key_of(table)
    row = read_release(workspace, as_of, release)
    return Snapshot.open(workspace.table(table), row.version(table)).to_arrow()


def key_of(table: str) -> str:
    """The key column of a feature table; LearnSparkError for any other table."""
    if table not in KEYS:
        raise LearnSparkError(f"{table!r} is not a feature table; feature tables: {', '.join(KEYS)}")
    return KEYS[table]


def table_of(spark: SparkSession, table: str, workspace: Workspace | str | None) -> tuple[Workspace, str]:
    """(workspace, name of the feature table there) of ``table``, which may be a name in the session's catalog.

    Raises CatalogError if the catalog has no such name, SettingsError for a name and a workspace, LearnSparkError for
    another table.
    """
    if "." not in table:
        key_of(table)
        return workspace_of(spark, workspace), table
    if workspace is not None:
        raise SettingsError(f"{table} is a name in a catalog, which says where its workspace is: leave workspace out")
    found = workspace_named(spark, table)
    key_of(found[1])
    return found


def workspace_of(spark: SparkSession, workspace: Workspace | str | None, schema: str | None = None) -> Workspace:
    """``workspace``, or that of the tables in a ``schema`` of the session's catalog, else the one in the Spark
    session's settings. Raises SettingsError if none is set, CatalogError if the schema has no tables of a workspace.
    """
    if schema is not None:
        if workspace is not None:
            raise SettingsError(f"the schema {schema} says where its workspace is: leave workspace out")
        return workspace_named(spark, f"{schema}.releases")[0]
    if isinstance(workspace, Workspace):
        return workspace
    root = workspace or spark.conf.get(WORKSPACE_CONF, None)
    if root is None:
        raise SettingsError(f"no workspace was given: pass workspace=..., or set --conf {WORKSPACE_CONF}=/folder")
    return Workspace.open(root)
