"""The command ab-report, which analyses an A/B test."""

from __future__ import annotations

from typing import Annotated

import typer

from learn_spark.commands.app import app, without_workspace
from learn_spark.commands.options import DryRunOption, SetOption, VerboseOption


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
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as one JSON object.")] = False,
    dry_run: DryRunOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Analyse an experiment: checks, lift with intervals, cohorts, CUPED, power, A/A; exit code 3 if a check fails."""

    def work() -> None:
        from learn_spark.ads.experiments.configure import settings_of, show_plan
        from learn_spark.ads.experiments.result import as_json as to_json
        from learn_spark.core.console import Reporter
        from learn_spark.report.experiment import report_experiment, show

        settings = settings_of(experiment, [*(overrides or []), *([f"aa_splits={aa}"] if aa else [])])
        if dry_run:
            show_plan(settings, Reporter())
            return
        result = report_experiment(settings, Reporter(quiet=as_json), verbose=verbose)
        if as_json:
            print(to_json(result))
        else:
            show(result, Reporter())

    without_workspace(verbose, work)
