"""The command ab-report: what an A/B test shows."""

from __future__ import annotations

from typing import Annotated

import typer

from learn_spark.commands.app import app, without_workspace
from learn_spark.commands.options import DryRunOption, SetOption, VerboseOption


@app.command()
def ab_report(
    experiment: Annotated[
        str,
        typer.Argument(
            help="A YAML file that describes the experiment (docs/experiments.md), or a log with exposures' columns."
        ),
    ],
    overrides: SetOption = None,
    aa: Annotated[
        int | None, typer.Option("--aa", min=1, metavar="SPLITS", help="A/A: halve the control's users so many times.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as one JSON object.")] = False,
    dry_run: DryRunOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Report on an experiment: checks, lift with intervals, cohorts, CUPED, power, A/A; exit 3 if it is unsound."""

    def work() -> None:
        from learn_spark.ads.experiments.configure import settings_of, show_plan
        from learn_spark.ads.experiments.result import as_json as to_json
        from learn_spark.core.console import Reporter
        from learn_spark.report.experiment import report_experiment, show

        settings = settings_of(experiment, [*(overrides or []), *([f"aa_splits={aa}"] if aa else [])])
        if dry_run:
            show_plan(settings, Reporter())
            return
        found = report_experiment(settings, Reporter(quiet=as_json), verbose=verbose)
        if as_json:
            print(to_json(found))
        else:
            show(found, Reporter())

    without_workspace(verbose, work)
