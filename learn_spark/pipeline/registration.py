"""Registers the tables of a workspace in a catalog: by a command, or at the end of a run."""

from __future__ import annotations

from learn_spark.core.causes import explained
from learn_spark.core.console import Reporter
from learn_spark.core.errors import LearnSparkError
from learn_spark.core.settings import Settings
from learn_spark.core.tables.catalog import (
    SESSION_CATALOG,
    Registration,
    keep_derby_log,
    metastore_settings,
    register,
    require_metastore,
)
from learn_spark.core.tables.workspace import Workspace


def register_tables(
    settings: Settings, workspace: Workspace, console: Reporter, *, verbose: bool = False
) -> Registration:
    """Make all tables visible by name in the catalog of the settings, and print what was made.

    A Spark session that runs is used as it is; else one is started for this, with the metastore of the settings. Raises
    CatalogError if that has no metastore, or a name is taken.
    """
    from pyspark import SparkContext

    from learn_spark.core.tables.session import start_session

    started_here = SparkContext._active_spark_context is None
    uses_metastore = started_here and settings.catalog.name == SESSION_CATALOG
    metastore = metastore_settings(settings.catalog.metastore) if uses_metastore else {}
    conf = {**metastore, **settings.spark.conf}
    console.at("starting Spark")
    session = start_session(
        settings.spark.model_copy(update={"conf": conf}),
        app="learn-spark register",
        log_file=None if verbose else workspace.folder("logs") / "spark.log",
        addresses=settings.addresses,
    )
    try:
        require_metastore(session, settings.catalog.name, started_here=started_here)
        keep_derby_log(session, workspace.folder("logs"))
        console.at("registering tables")
        done = register(session, workspace, settings.catalog.schema_name)
    finally:
        if started_here:
            session.stop()
    console.record("registered", {"schema": done.schema, "made": done.made, "there": done.there})
    if done.made:
        console.line(f"{done.schema}: {len(done.made)} tables registered: {', '.join(done.made)}")
    else:
        console.line(f"{done.schema}: nothing to register; all {len(done.there)} tables are there")
    return done


def register_after_run(settings: Settings, workspace: Workspace, console: Reporter, *, verbose: bool) -> None:
    """``register_tables`` at the end of a run, which is done whatever a catalog says: an error is a warning."""
    try:
        register_tables(settings, workspace, console, verbose=verbose)
    except Exception as error:
        reason = str(error) if isinstance(error, LearnSparkError) else explained(error)[1]
        console.line(
            f"warning: the run is complete, but its tables were not registered in {settings.catalog.schema_name}: "
            f"{reason}; then run learn-spark register"
        )
