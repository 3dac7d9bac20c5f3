"""Commands for operators: status, models, runs, lineage, backfill, retain, erase, register and others."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from typing import Annotated

import typer

from learn_spark.commands.app import Opened, app, in_workspace, without_workspace
from learn_spark.commands.options import ConfigOption, DryRunOption, JsonOption, SetOption, VerboseOption, WaitOption


@app.command()
def status(
    config: ConfigOption = "quickstart",
    overrides: SetOption = None,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Show the last run of each stage, and the version, rows and last gate of each table."""

    def work(opened: Opened) -> None:
        from learn_spark.pipeline.summary import show_status

        show_status(opened.workspace, opened.console)

    in_workspace(config, overrides, verbose, work, reads_only=True, as_json=as_json)


@app.command(rich_help_panel="Operating")
def models(
    config: ConfigOption = "quickstart",
    overrides: SetOption = None,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """List the trained models with their metrics and tags, and which one is released."""

    def work(opened: Opened) -> None:
        from learn_spark.pipeline.models import show_models

        show_models(opened.workspace, opened.console)

    in_workspace(config, overrides, verbose, work, reads_only=True, as_json=as_json)


@app.command(rich_help_panel="Operating")
def runs(
    stage: Annotated[str | None, typer.Option("--stage", help="Only runs of this stage, such as train.")] = None,
    last: Annotated[int | None, typer.Option("--last", min=1, metavar="N", help="Only the newest N runs.")] = None,
    config: ConfigOption = "quickstart",
    overrides: SetOption = None,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """List the runs of stages, newest first: state, time, rows and what they wrote."""

    def work(opened: Opened) -> None:
        from learn_spark.pipeline.summary import show_runs

        show_runs(opened.workspace, opened.console, stage=stage, last=last)

    in_workspace(config, overrides, verbose, work, reads_only=True, as_json=as_json)


@app.command(rich_help_panel="Operating")
def lineage(
    what: Annotated[
        str, typer.Argument(metavar="TABLE[@VERSION]", help="A table (newest version by default), or model@ID.")
    ],
    config: ConfigOption = "quickstart",
    overrides: SetOption = None,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Show the inputs of a table version up to all raw files, and every run that read it."""

    def work(opened: Opened) -> None:
        from learn_spark.pipeline.lineage_tree import show_lineage

        show_lineage(opened.workspace, what, opened.console)

    in_workspace(config, overrides, verbose, work, reads_only=True, as_json=as_json)


@app.command(rich_help_panel="Operating")
def backfill(
    config: ConfigOption,
    first: Annotated[str, typer.Option("--from", metavar="DAY", help="The first day, such as 2024-01-31.")],
    last: Annotated[str, typer.Option("--to", metavar="DAY", help="The last day (included).")],
    every: Annotated[int, typer.Option("--every", min=1, help="Days from one release to the next.")] = 1,
    overrides: SetOption = None,
    dry_run: DryRunOption = False,
    wait: WaitOption = False,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Publish a release as of each past day, with a tower trained as of the first day; the release in force stays."""

    def work(opened: Opened) -> None:
        from learn_spark.core.settings import load_settings
        from learn_spark.pipeline.backfill import backfill, days_between

        backfill(
            lambda more: load_settings(config, [*(overrides or []), *more]),
            days_between(first, last, every),
            console=opened.console,
            dry_run=dry_run,
            verbose=verbose,
            wait=wait,
        )

    in_workspace(config, overrides, verbose, work, existing=True, reads_only=dry_run, as_json=as_json, waits=True)


@app.command(rich_help_panel="Operating")
def retain(
    config: ConfigOption,
    overrides: SetOption = None,
    keep: Annotated[int, typer.Option("--releases", min=1, help="Number of newest releases to keep.")] = 5,
    days: Annotated[int, typer.Option("--days", min=0, help="Days to keep files, models and checkpoints.")] = 7,
    delete: Annotated[bool, typer.Option("--delete", help="Delete the listed objects.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list paths and bytes (the default).")] = False,
    wait: WaitOption = False,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """List unused releases, models, checkpoints, embeddings, reports, logs, caches and files; delete with --delete."""
    if delete and dry_run:
        raise typer.BadParameter("give --delete or --dry-run, not both")

    def work(opened: Opened) -> None:
        from learn_spark.pipeline.retain import retain

        retain(opened.settings, releases=keep, days=days, delete=delete, console=opened.console, wait=wait)

    in_workspace(config, overrides, verbose, work, existing=True, as_json=as_json, waits=True)


@app.command(rich_help_panel="Operating")
def erase(
    config: ConfigOption,
    users: Annotated[
        str, typer.Option("--users", metavar="FILE", help="One id a line, or a CSV or Parquet file with user_id.")
    ],
    overrides: SetOption = None,
    delete: Annotated[bool, typer.Option("--delete", help="Delete what is listed; it cannot be brought back.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list rows and files (the default).")] = False,
    wait: WaitOption = False,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """List what the workspace has of some users, in all versions of its tables; erase it with --delete."""
    if delete and dry_run:
        raise typer.BadParameter("give --delete or --dry-run, not both")

    def work(opened: Opened) -> None:
        from learn_spark.pipeline.erasure.erase import erase

        erase(opened.settings, users, delete=delete, console=opened.console, wait=wait, verbose=verbose)

    in_workspace(config, overrides, verbose, work, existing=True, as_json=as_json, waits=True)


@app.command(rich_help_panel="Operating")
def register(
    config: ConfigOption,
    catalog: Annotated[
        str | None, typer.Option("--catalog", help="The catalog; default: catalog.name (spark_catalog).")
    ] = None,
    schema: Annotated[str | None, typer.Option("--schema", help="The schema; default: catalog.namespace.")] = None,
    overrides: SetOption = None,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Make the tables visible by name to SQL, in a Hive metastore or another catalog; a second time changes nothing."""
    given = {"catalog.name": catalog, "catalog.namespace": schema}
    chosen = [f"{key}={value}" for key, value in given.items() if value is not None]

    def work(opened: Opened) -> None:
        from learn_spark.pipeline.registration import register_tables

        register_tables(opened.settings, opened.workspace, opened.console, verbose=verbose)

    in_workspace(config, [*(overrides or []), *chosen], verbose, work, existing=True, as_json=as_json)


@app.command()
def forget_embeddings(
    config: ConfigOption,
    overrides: SetOption = None,
    delete: Annotated[bool, typer.Option("--delete", help="Delete the listed objects.")] = False,
    wait: WaitOption = False,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """List the embeddings that no settings, model or release uses; delete them with --delete."""

    def work(opened: Opened) -> None:
        from learn_spark.encoder.retention import show_embeddings

        show_embeddings(opened.workspace, opened.settings, opened.console, delete=delete)

    def lock(opened: Opened) -> AbstractContextManager[None]:
        from learn_spark.pipeline.locks import whole_workspace

        return whole_workspace(opened.workspace, "a run of forget-embeddings", wait=wait, say=opened.console.say)

    in_workspace(config, overrides, verbose, work, lock=lock, existing=True, as_json=as_json, waits=True)


@app.command()
def settings(
    section: Annotated[str | None, typer.Argument(help="A section such as tower; default: all.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
    verbose: VerboseOption = False,
) -> None:
    """Show every setting with its type, default, range and effect."""

    def work() -> None:
        from learn_spark.commands.settings_page import settings_json, settings_text

        print(settings_json(section) if as_json else settings_text(section))

    without_workspace(verbose, work)


@app.command()
def setup(
    s3: Annotated[bool, typer.Option("--s3", help="Fetch Spark's connector of S3 too (9.5 MB).")] = False,
    hdfs: Annotated[bool, typer.Option("--hdfs", help="Install Python's client of HDFS too (17 MB).")] = False,
    kafka: Annotated[bool, typer.Option("--kafka", help="Fetch Spark's connector of Kafka too (9.9 MB).")] = False,
    verbose: VerboseOption = False,
) -> None:
    """Fetch the two Delta JARs (once), configure Spark for this environment, archive its classes for quick starts."""

    def work() -> None:
        from learn_spark.core.connectors import install_hdfs, install_kafka, install_s3
        from learn_spark.core.install import install, java_of
        from learn_spark.pipeline.class_archive import main

        if s3:
            fetched = install_s3(java_of(os.environ.get("JAVA_HOME")))
            print(f"fetched {len(fetched)} JARs of the S3 connector (checksums verified)")
        if kafka:
            fetched = install_kafka(java_of(os.environ.get("JAVA_HOME")))
            print(f"fetched {len(fetched)} JARs of the Kafka connector (checksums verified)")
        if hdfs and install_hdfs():
            print("installed hdfs-native")
        install(os.environ.get("JAVA_HOME"))
        main()

    without_workspace(verbose, work)
