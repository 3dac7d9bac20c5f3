"""The command ab-report, which analyses an A/B test."""

from __future__ import annotations

from typing import Annotated

import typer

from learn_spark.commands.app import answered, app, without_workspace
from learn_spark.commands.options import DryRunOption, JsonOption, SetOption, VerboseOption


@app.command()
def ab_report(
    experiment: Annotated[
        str,
        typer.Argument(help="A YAML file with the experiment's settings (docs/experiments.md), or a log of exposures."),
    ],
    overrides: SetOption = None,
    aa: Annotated[
        int | None,
        typer.Option("--aa", min=1, metavar="SPLITS", help="A/A test: split the control's users in two SPLITS times."),
    ] = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Analyse an experiment: checks, lift with intervals, cohorts, CUPED, power, A/A; exit code 3 if a check fails."""

    def work() -> None:
        from learn_spark.ads.experiments.configure import settings_of, show_plan
        from learn_spark.core.console import Reporter
        from learn_spark.report.experiment import report_experiment, show

        settings = settings_of(experiment, [*(overrides or []), *([f"aa_splits={aa}"] if aa else [])])
        console = Reporter(as_json=as_json)
        with answered(console):
            if dry_run:
                show_plan(settings, console)
            else:
                show(report_experiment(settings, console, verbose=verbose), console)

    without_workspace(verbose, work)
