"""Commands that run stages: run, one command per stage, report, check."""

from __future__ import annotations

from typing import Annotated

import typer

from learn_spark.commands.app import Opened, app, in_workspace, run_in_workspace
from learn_spark.commands.options import (
    ConfigArgument,
    ConfigOption,
    ConfigOptional,
    DryRunOption,
    ForceOption,
    JsonOption,
    SetOption,
    VerboseOption,
    WaitOption,
    one_of,
)
from learn_spark.core.stages.registry import all_stages


def run_stages_command(
    names: list[str] | None,
    config: str,
    overrides: list[str],
    *,
    dry_run: bool,
    force: bool,
    verbose: bool,
    model_id: str | None = None,
    wait: bool = False,
    as_json: bool = False,
) -> int:
    """Run stages (all of ``pipeline.stages`` if None), print their outcomes and return the exit code.

    ``model_id``: the model that evaluate or publish works on; None: the newest that fits.
    """

    def work(opened: Opened) -> None:
        from learn_spark.pipeline.runner import run_stages
        from learn_spark.pipeline.summary import show_metrics, show_outcomes, show_places

        settings, workspace, console = opened.settings, opened.workspace, opened.console
        outcomes = run_stages(
            names if names is not None else settings.pipeline.stages,
            settings,
            console=console,
            dry_run=dry_run,
            force=force,
            verbose=verbose,
            model_id=model_id,
            wait=wait,
        )
        if dry_run:
            return
        show_outcomes(outcomes, console)
        for outcome in outcomes:
            if outcome.stage.name == "evaluate":
                show_metrics(workspace, outcome.run, console)
        show_places(settings, workspace, console)

    return run_in_workspace(config, overrides, verbose, work, as_json=as_json, waits=True, planned=dry_run)


@app.command()
def run(
    name: ConfigArgument = None,
    config: ConfigOptional = None,
    overrides: SetOption = None,
    dry_run: DryRunOption = False,
    force: ForceOption = False,
    wait: WaitOption = False,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Run every stage of pipeline.stages that is not up to date."""
    settings_file = one_of(name, config, "learn-spark run quickstart")
    raise typer.Exit(
        run_stages_command(
            None,
            settings_file,
            overrides or [],
            dry_run=dry_run,
            force=force,
            verbose=verbose,
            wait=wait,
            as_json=as_json,
        )
    )


def _add_stage_command(name: str, summary: str) -> None:
    def command(
        config: ConfigOption,
        overrides: SetOption = None,
        dry_run: DryRunOption = False,
        force: ForceOption = False,
        wait: WaitOption = False,
        as_json: JsonOption = False,
        verbose: VerboseOption = False,
    ) -> None:
        raise typer.Exit(
            run_stages_command(
                [name],
                config,
                overrides or [],
                dry_run=dry_run,
                force=force,
                verbose=verbose,
                wait=wait,
                as_json=as_json,
            )
        )

    app.command(name, help=f"{summary}.", rich_help_panel="Stages")(command)


@app.command(rich_help_panel="Stages")
def evaluate(
    config: ConfigOption,
    model: Annotated[str | None, typer.Option("--model", help="Id of the model; default: the newest model.")] = None,
    overrides: SetOption = None,
    dry_run: DryRunOption = False,
    force: ForceOption = False,
    wait: WaitOption = False,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Rank the whole catalogue with a model, popularity, Markov and the frozen embeddings; metrics and slices."""
    raise typer.Exit(
        run_stages_command(
            ["evaluate"],
            config,
            overrides or [],
            dry_run=dry_run,
            force=force,
            verbose=verbose,
            model_id=model,
            wait=wait,
            as_json=as_json,
        )
    )


@app.command(rich_help_panel="Stages")
def publish(
    config: ConfigOption,
    model: Annotated[
        str | None, typer.Option("--model", help="Id of the model; default: the newest model of the settings.")
    ] = None,
    overrides: SetOption = None,
    dry_run: DryRunOption = False,
    force: ForceOption = False,
    wait: WaitOption = False,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Compute user and item features with the tower in Spark's workers; stage, audit and release them."""
    chosen = [] if model is None else [f"release.model={model}"]
    raise typer.Exit(
        run_stages_command(
            ["publish"],
            config,
            [*(overrides or []), *chosen],
            dry_run=dry_run,
            force=force,
            verbose=verbose,
            wait=wait,
            as_json=as_json,
        )
    )


for _stage in all_stages():
    if _stage.name not in ("evaluate", "publish", "report"):  # defined above and below, with further options
        _add_stage_command(_stage.name, _stage.summary)


@app.command(rich_help_panel="Stages")
def report(
    run_id: Annotated[
        str | None,
        typer.Argument(metavar="[RUN]", help="Id of a run; default: the newest run of every stage."),
    ] = None,
    config: ConfigOption = "quickstart",
    overrides: SetOption = None,
    dry_run: DryRunOption = False,
    force: ForceOption = False,
    wait: WaitOption = False,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Write the front page of the workspace; with RUN, a page about that run and the runs connected to it."""
    if run_id is None:
        raise typer.Exit(
            run_stages_command(
                ["report"],
                config,
                overrides or [],
                dry_run=dry_run,
                force=force,
                verbose=verbose,
                wait=wait,
                as_json=as_json,
            )
        )
    if dry_run or force:
        raise typer.BadParameter("--dry-run and --force apply to the stage; the page of one RUN is always written")

    def work(opened: Opened) -> None:
        from learn_spark.report.write import write_page

        opened.console.line(f"report  {write_page(opened.workspace, run_id)}")

    in_workspace(config, overrides, verbose, work, existing=True, as_json=as_json)


@app.command()
def check(
    table: Annotated[str, typer.Argument(help="The table; schemas/ has its rules.")],
    config: ConfigOption,
    overrides: SetOption = None,
    version: Annotated[int | None, typer.Option(help="Version of the table; default: the newest.")] = None,
    docs: Annotated[bool, typer.Option("--docs", help="Write the Data Docs page even if the gate passes.")] = False,
    wait: WaitOption = False,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Run the quality gate of one table; exit code 3 if it fails."""

    def work(opened: Opened) -> None:
        from learn_spark.pipeline.check import check_table

        check_table(
            table, opened.settings, console=opened.console, version=version, docs=docs, verbose=verbose, wait=wait
        )

    in_workspace(config, overrides, verbose, work, existing=True, as_json=as_json, waits=True)
