"""Commands about models and users: recommend, compare, search, study."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from learn_spark.commands.app import Opened, answered, app, in_workspace, without_workspace
from learn_spark.commands.options import (
    ConfigArgument,
    ConfigOption,
    ConfigOptional,
    DryRunOption,
    JsonOption,
    SetOption,
    VerboseOption,
    one_of,
)


@app.command()
def recommend(
    user: Annotated[str, typer.Option("--user", help="Id of the user, unchanged from the source.")],
    k: Annotated[int, typer.Option("--k", min=1, help="Number of items.")] = 10,
    by_index: Annotated[
        bool, typer.Option("--index", help="Search the release's exported FAISS index instead of scoring every item.")
    ] = False,
    as_of: Annotated[
        str | None,
        typer.Option("--as-of", metavar="TIME", help="Use the newest release without an event at or after TIME."),
    ] = None,
    config: ConfigOption = "quickstart",
    overrides: SetOption = None,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Recommend items to a user from released features, each with the most similar items of the user's history."""

    def work(opened: Opened) -> None:
        from dataclasses import asdict

        from learn_spark.report.explain import explain, moment, show

        moment_as_of = None if as_of is None else moment(as_of)
        explanation = explain(opened.workspace, user, k=k, as_of=moment_as_of, by_index=by_index)
        opened.console.answer(asdict(explanation))
        show(explanation, opened.console)

    in_workspace(config, overrides, verbose, work, reads_only=True, as_json=as_json)


@app.command()
def compare(
    runs: Annotated[
        list[str],
        typer.Argument(metavar="RUN...", help="Runs of evaluate or train, or model ids; the first is compared."),
    ],
    split: Annotated[str, typer.Option("--split", help="test, or validation (for model selection).")] = "test",
    k: Annotated[int, typer.Option("--k", min=1, help="Compare HR@k and NDCG@k.")] = 10,
    samples: Annotated[int, typer.Option("--samples", min=100, help="Resamples of users for the bootstrap.")] = 2000,
    as_json: JsonOption = False,
    config: ConfigOption = "quickstart",
    overrides: SetOption = None,
    verbose: VerboseOption = False,
) -> None:
    """Compare the first RUN with the others and the baselines: paired differences, intervals and p for every slice."""
    if split not in ("test", "validation"):
        raise typer.BadParameter(f"--split must be test or validation, not {split}")

    def work(opened: Opened) -> None:
        from learn_spark.evaluation.compare import compare as compare_models
        from learn_spark.report.comparison import show

        name: Literal["test", "validation"] = "test" if split == "test" else "validation"
        show(compare_models(opened.workspace, runs, split=name, k=k, samples=samples), opened.console)

    in_workspace(config, overrides, verbose, work, reads_only=True, as_json=as_json)


@app.command()
def search(
    name: ConfigArgument = None,
    config: ConfigOptional = None,
    overrides: SetOption = None,
    trials: Annotated[
        int | None, typer.Option("--trials", min=1, help="Number of trials, those of earlier calls included.")
    ] = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Search search.parameters for the settings with the best validation result; call it again to continue."""
    settings_file = one_of(name, config, "learn-spark search beauty-sasrec")

    def work(opened: Opened) -> None:
        from learn_spark.core.settings import load_settings
        from learn_spark.studies.search import search as search_settings

        search_settings(
            lambda more: load_settings(settings_file, [*(overrides or []), *more]),
            console=opened.console,
            trials=trials,
            dry_run=dry_run,
            verbose=verbose,
        )

    in_workspace(settings_file, overrides, verbose, work, as_json=as_json)


@app.command()
def study(
    plan: Annotated[str, typer.Argument(metavar="PLAN.yaml", help="A study's plan: tables, rows, seeds.")],
    overrides: SetOption = None,
    seeds: Annotated[
        list[int] | None, typer.Option("--seed", min=0, help="Instead of the plan's seeds; may be repeated.")
    ] = None,
    slices: Annotated[
        list[str] | None,
        typer.Option("--slices", metavar="DIMENSION", help="Show a dimension, such as popularity; may be repeated."),
    ] = None,
    at_once: Annotated[
        int | None,
        typer.Option("--at-once", min=1, help="Trainings at a time; default: as training.threads leaves cores for."),
    ] = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Train and evaluate every row of a plan with every seed: one table with intervals, gains, costs and charts."""

    def work() -> None:
        import json
        from pathlib import Path

        from learn_spark.core.console import Reporter
        from learn_spark.core.settings.load import load_study
        from learn_spark.studies.study import run_study

        given = {"seeds": seeds, "slices": slices}
        of_plan = [f"{key}={json.dumps(value)}" for key, value in given.items() if value]
        console = Reporter(as_json=as_json)
        with answered(console):
            run_study(
                load_study(plan, of_plan),
                Path(plan).stem,
                overrides or [],
                console,
                at_once=at_once,
                dry_run=dry_run,
                verbose=verbose,
            )

    without_workspace(verbose, work)
