"""Tables by name: the tables of a workspace in a catalog of Spark, and the paths of tables that a catalog names.

A path stays the truth: a name is an entry of the catalog that points to it. Registering writes nothing into a table;
the comments that a catalog shows are those that the table's first version has (``create.commented_schema``).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from learn_spark.core.causes import first_line
from learn_spark.core.errors import LearnSparkError
from learn_spark.core.storage.path import StoragePath, storage_path
from learn_spark.core.tables.contracts import all_tables, contract
from learn_spark.core.tables.reach import access_of
from learn_spark.core.tables.snapshot import current_version
from learn_spark.core.tables.workspace import Workspace

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

SESSION_CATALOG = "spark_catalog"
IN_MEMORY = "--conf spark.sql.catalogImplementation=hive"
# What names a metastore: its service, its database, or another client such as Glue's.
_METASTORE = ("hive.metastore.uris", "javax.jdo.option.ConnectionURL", "hive.metastore.client.factory.class")
_NAME = re.compile(r"^\w+(\.\w+)*$")
_LOCATION = re.compile(r"^Location: (.*)$", re.M)


class CatalogError(LearnSparkError):
    """A catalog that cannot be used, a name that is taken, or a name that is not there."""


@dataclass(frozen=True)
class Registration:
    """Names of the tables of a workspace in ``schema``: those made now, and those that were there."""

    schema: str
    made: tuple[str, ...]
    there: tuple[str, ...]


def metastore_settings(metastore: str | None) -> dict[str, str]:
    """The Spark settings of a session whose catalog is a Hive metastore.

    ``metastore``: the address of its service (thrift://host:port), or the folder of a Derby database, which one process
    uses at a time; None: that of Spark's own configuration (hive-site.xml, spark-defaults.conf).
    """
    settings = {"spark.sql.catalogImplementation": "hive"}
    if metastore is None:
        return settings
    if metastore.startswith("thrift://"):
        return settings | {"spark.hadoop.hive.metastore.uris": metastore}
    folder = Path(metastore).expanduser().resolve()
    folder.parent.mkdir(parents=True, exist_ok=True)
    return settings | {
        "spark.hadoop.javax.jdo.option.ConnectionURL": f"jdbc:derby:;databaseName={folder};create=true",
        "spark.hadoop.datanucleus.schema.autoCreateAll": "true",
        "spark.hadoop.hive.metastore.schema.verification": "false",
    }


def require_metastore(session: SparkSession, catalog: str, *, started_here: bool) -> None:
    """Raise CatalogError where a session does not know ``catalog``, or would lose its names at its end.

    ``started_here``: the session is the command's own, and must not make Spark's default metastore, a Derby database in
    the current folder.
    """
    implementation = session.conf.get(f"spark.sql.catalog.{catalog}", "") or ""
    if catalog != SESSION_CATALOG and not implementation:
        raise CatalogError(
            f"this Spark session knows no catalog {catalog}: set spark.conf.spark.sql.catalog.{catalog} to its class, "
            f"or name {SESSION_CATALOG}"
        )
    if not implementation.endswith(".DeltaCatalog"):
        return
    if session.conf.get("spark.sql.catalogImplementation") != "hive":
        raise CatalogError(
            "the catalog of this Spark session is in memory, so that names would be lost at its end: start the session "
            f"with {IN_MEMORY}"
        )
    hadoop = session.sparkContext._jsc.hadoopConfiguration()  # has what Spark read from hive-site.xml
    if started_here and not any(hadoop.get(key) for key in _METASTORE):
        raise CatalogError(
            "no metastore is configured: set catalog.metastore to thrift://HOST:PORT or to a folder, or give Spark a "
            "hive-site.xml in SPARK_CONF_DIR"
        )


def keep_derby_log(session: SparkSession, folder: Path) -> None:
    """Let Derby write derby.log into ``folder`` and not into the current one; call it before the catalog is used."""
    system = session._jvm.java.lang.System  # type: ignore[union-attr]
    if system.getProperty("derby.stream.error.file") is None:
        system.setProperty("derby.stream.error.file", str(folder / "derby.log"))


def register(session: SparkSession, workspace: Workspace, schema: str) -> Registration:
    """Make every table of the workspace visible as ``schema``.<table> (schema: spark_catalog.learn).

    A name that has this table already is left as it is. Raises CatalogError, before anything is made, if a name is
    taken by another location or by a view, or if the catalog cannot be used.
    """
    if not _NAME.match(schema) or schema.count(".") != 1:
        raise CatalogError(f"{schema!r} is no schema of a catalog: both names have letters, digits and _ alone")
    tables = [table for table in all_tables() if current_version(workspace.table(table)) is not None]
    try:
        there = session.catalog.databaseExists(schema)
    except Exception as error:
        raise _unusable(schema, error) from error
    if not there:
        # A folder of its own: dropping the schema deletes it, and a table that others create in the schema lies in it.
        place = workspace.place / "catalog" / f"{schema.partition('.')[2]}.db"
        _sql(session, f"CREATE SCHEMA IF NOT EXISTS {schema} LOCATION {_quoted(place.spark)}", schema)
    known = _locations(session, schema, tables)
    for table in (table for table in tables if table in known):
        if known[table] != workspace.table(table):
            raise CatalogError(
                f"{schema}.{table} is {known[table] or 'a view'} and not {workspace.table(table)}: choose another "
                f"schema, or remove the name (DROP TABLE {schema}.{table} deletes no rows of a table that was "
                "registered) and register again"
            )
    made = [table for table in tables if table not in known]
    for table in made:
        place, comment = workspace.table(table), contract(table).meaning
        options = f"USING DELTA COMMENT {_quoted(comment)} LOCATION {_quoted(place.spark)}"
        _sql(session, f"CREATE TABLE IF NOT EXISTS {schema}.{table} {options}", schema)
    return Registration(schema, tuple(made), tuple(table for table in tables if table in known))


def path_of(session: SparkSession, name: str) -> StoragePath:
    """The place of the table that the session's catalog has under ``name`` (learn.user_features). Raises CatalogError
    if there is none."""
    schema, _, table = name.rpartition(".")
    if not _NAME.match(name) or not schema:
        raise CatalogError(f"{name!r} is no name of a table, such as learn.user_features")
    place = _locations(session, schema, [table]).get(table)
    if place is None:
        memory = session.conf.get("spark.sql.catalogImplementation") == "in-memory"
        hint = f" (its catalog is in memory; {IN_MEMORY} lets it read a metastore)" if memory else ""
        raise CatalogError(
            f"this Spark session knows no table {name}{hint}: learn-spark register makes the tables of a workspace "
            "visible by name"
        )
    return place


def workspace_named(session: SparkSession, name: str) -> tuple[Workspace, str]:
    """(workspace, table) of the table that the session's catalog has under ``name``. Raises CatalogError if there is
    none, or if it is no table of a workspace."""
    place = path_of(session, name)
    if place.parent.name != "tables" or place.name not in all_tables():
        raise CatalogError(f"{name} is {place}, which is no table of a workspace (WORKSPACE/tables/TABLE)")
    return Workspace.existing(place.parent.parent), place.name


def _locations(session: SparkSession, schema: str, tables: Iterable[str]) -> dict[str, StoragePath | None]:
    """Table -> its place, of those of ``tables`` that the schema has; None for a view. No table is opened."""
    wanted = {table.lower(): table for table in tables}
    if not wanted:
        return {}
    try:
        rows = session.sql(f"SHOW TABLE EXTENDED IN {schema} LIKE '{'|'.join(wanted)}'").collect()
    except Exception as error:
        if "SCHEMA_NOT_FOUND" in str(error):
            raise CatalogError(f"there is no schema {schema} in the catalog of this Spark session") from None
        raise _unusable(schema, error) from error
    found: dict[str, StoragePath | None] = {}
    for row in rows:
        location = _LOCATION.search(row.information)
        # A temporary view is visible in every schema, and belongs to none.
        if not row.isTemporary and row.tableName.lower() in wanted:
            found[wanted[row.tableName.lower()]] = _place(session, location[1]) if location else None
    return found


def _place(session: SparkSession, location: str) -> StoragePath:
    """The place of a location as a catalog writes it, reached as the session reaches it."""
    if re.match(r"^file:/", location):
        return storage_path("/" + location.removeprefix("file:").lstrip("/"))
    place = storage_path(location)
    return StoragePath(place, access_of(session, place))


def _sql(session: SparkSession, statement: str, schema: str) -> None:
    try:
        session.sql(statement)
    except Exception as error:
        raise _unusable(schema, error) from error


def _unusable(schema: str, error: Exception) -> CatalogError:
    text = str(error)
    if "Another instance of Derby" in text or "SessionHiveMetaStoreClient" in text:
        return CatalogError(
            f"the metastore of {schema} does not answer: its service must run, and a Derby database be used by no "
            "other process; then run learn-spark register"
        )
    return CatalogError(f"{schema} cannot be used: {first_line(error)}")


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
