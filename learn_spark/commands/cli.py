"""The command ``learn-spark``, and the same for spark-submit: arguments in, exit code out.

Heavy libraries are imported where they are used, so that ``--help`` answers at once.
"""

from __future__ import annotations

import os
import sys
import traceback
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NoReturn

import typer

from learn_spark.core.errors import LearnSparkError
from learn_spark.core.stages.registry import all_stages

if TYPE_CHECKING:
    from learn_spark.core.console import Reporter
    from learn_spark.core.tables.workspace import Workspace

ConfigOption = Annotated[str, typer.Option("--config", "-c", help="A settings file, or its name in conf/.")]
ConfigArgument = Annotated[
    str | None, typer.Argument(metavar="[CONFIG]", help="A settings file, or its name in conf/ (same as --config).")
]
ConfigOptional = Annotated[str | None, typer.Option("--config", "-c", help="A settings file, or its name in conf/.")]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a setting; may be repeated.")
]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Say what would run and why; change nothing.")]
ForceOption = Annotated[bool, typer.Option("--force", help="Run even if nothing changed.")]
VerboseOption = Annotated[bool, typer.Option("--verbose", "-v", help="Show warnings, Spark's log and stack traces.")]

app = typer.Typer(
    name="learn-spark",
    help="LEARN as a Spark feature platform: frozen-LLM item embeddings, a preference tower, released features.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _quiet_environment(verbose: bool) -> None:
    """Set before any heavy import: no telephone calls, no third-party bars, threads and caches where they pay."""
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # FAISS is twice as fast with its own threads than with OpenBLAS's under them.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # oneDNN, and PyTorch upon it, keep kernels and memory for 1,024 shapes; each batch without padding has a new one.
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64")
    os.environ.setdefault("LRU_CACHE_CAPACITY", "64")
    if not verbose:
        os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        os.environ.setdefault("TQDM_DISABLE", "1")
        os.environ.setdefault("PYTHONWARNINGS", "ignore")
        warnings.simplefilter("ignore")


def _guarded(work: Callable[[], None], verbose: bool, logs: Callable[[], Path | None]) -> int:
    """Run ``work``; an exit code, with one clear sentence on standard error where it went wrong."""
    try:
        work()
        return 0
    except LearnSparkError as error:
        if verbose:
            traceback.print_exc()
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("stopped; run the same command again to continue", file=sys.stderr)
        return 130
    except Exception as error:
        if verbose:
            traceback.print_exc()
        first = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
        place = logs()
        where = "--verbose shows the stack trace"
        if place:
            (place / "last-error.txt").write_text(traceback.format_exc(), encoding="utf-8")
            where = f"the stack trace is in {place / 'last-error.txt'}"
        print(f"error: {type(error).__name__}: {first[:400]} ({where})", file=sys.stderr)
        return 1


def run_stages_command(
    names: list[str] | None, config: str, overrides: list[str], *, dry_run: bool, force: bool, verbose: bool
) -> int:
    """Run stages (all of ``pipeline.stages`` if None) and show what came of it; the exit code."""
    _quiet_environment(verbose)
    folder: list[Path] = []

    def work() -> None:
        from learn_spark.core.console import Reporter
        from learn_spark.core.settings import load_settings
        from learn_spark.core.tables.workspace import Workspace
        from learn_spark.pipeline.runner import run_stages
        from learn_spark.pipeline.summary import show_metrics, show_outcomes, show_places

        settings = load_settings(config, overrides)
        workspace = Workspace.open(settings.workspace)
        folder.append(workspace.folder("logs"))
        console = Reporter()
        outcomes = run_stages(
            names if names is not None else settings.pipeline.stages,
            settings,
            console=console,
            dry_run=dry_run,
            force=force,
            verbose=verbose,
        )
        if dry_run:
            return
        show_outcomes(outcomes, console)
        for outcome in outcomes:
            if outcome.stage.name == "evaluate":
                show_metrics(workspace, outcome.run, console)
        show_places(settings, workspace, console)

    return _guarded(work, verbose, lambda: folder[0] if folder else None)


def _one_of(name: str | None, config: str | None, example: str) -> str:
    """The settings file, given as an argument or by --config."""
    if (name is None) == (config is None):
        raise typer.BadParameter(f"give one settings file, as in: {example}")
    return name or config or ""


@app.command()
def run(
    name: ConfigArgument = None,
    config: ConfigOptional = None,
    overrides: SetOption = None,
    dry_run: DryRunOption = False,
    force: ForceOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Run the whole road: every stage of pipeline.stages that is not up to date."""
    wanted = _one_of(name, config, "learn-spark run quickstart")
    raise typer.Exit(run_stages_command(None, wanted, overrides or [], dry_run=dry_run, force=force, verbose=verbose))


def _add_stage_command(name: str, summary: str) -> None:
    def command(
        config: ConfigOption,
        overrides: SetOption = None,
        dry_run: DryRunOption = False,
        force: ForceOption = False,
        verbose: VerboseOption = False,
    ) -> None:
        raise typer.Exit(
            run_stages_command([name], config, overrides or [], dry_run=dry_run, force=force, verbose=verbose)
        )

    app.command(name, help=f"{summary}.", rich_help_panel="Stages")(command)


for _stage in all_stages():
    if _stage.name != "report":  # it has an argument of its own
        _add_stage_command(_stage.name, _stage.summary)


@app.command(rich_help_panel="Stages")
def report(
    run_id: Annotated[
        str | None,
        typer.Argument(metavar="[RUN]", help="A run of any stage; the newest of every stage if left out."),
    ] = None,
    config: ConfigOption = "quickstart",
    overrides: SetOption = None,
    dry_run: DryRunOption = False,
    force: ForceOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Write one HTML page: figures, examples, the road, gates, lineage; with RUN about that run and its relatives."""
    if run_id is None:
        raise typer.Exit(
            run_stages_command(["report"], config, overrides or [], dry_run=dry_run, force=force, verbose=verbose)
        )
    if dry_run or force:
        raise typer.BadParameter("--dry-run and --force are for the stage; the page of one RUN is always written")
    _quiet_environment(verbose)

    def work() -> None:
        from learn_spark.core.console import Reporter
        from learn_spark.core.settings import load_settings
        from learn_spark.core.tables.workspace import Workspace
        from learn_spark.report.write import write_page

        workspace = Workspace.open(load_settings(config, overrides or []).workspace)
        Reporter().line(f"report  {write_page(workspace, run_id)}")

    raise typer.Exit(_guarded(work, verbose, lambda: None))


@app.command()
def status(config: ConfigOption = "quickstart", overrides: SetOption = None, verbose: VerboseOption = False) -> None:
    """Show each stage's last run and each table's version and rows."""
    _quiet_environment(verbose)

    def work() -> None:
        from learn_spark.core.console import Reporter
        from learn_spark.core.settings import load_settings
        from learn_spark.core.tables.workspace import Workspace
        from learn_spark.pipeline.summary import show_status

        show_status(Workspace.open(load_settings(config, overrides or []).workspace), Reporter())

    raise typer.Exit(_guarded(work, verbose, lambda: None))


@app.command()
def check(
    table: Annotated[str, typer.Argument(help="The table whose rules (schemas/) are evaluated.")],
    config: ConfigOption,
    overrides: SetOption = None,
    version: Annotated[int | None, typer.Option(help="A version of the table; the newest if left out.")] = None,
    docs: Annotated[bool, typer.Option("--docs", help="Write the Data Docs page even if the gate passes.")] = False,
    verbose: VerboseOption = False,
) -> None:
    """Run one table's quality gate alone; exit code 3 if it fails."""
    _quiet_environment(verbose)
    folder: list[Path] = []

    def work() -> None:
        from learn_spark.core.console import Reporter
        from learn_spark.core.settings import load_settings
        from learn_spark.core.tables.workspace import Workspace
        from learn_spark.pipeline.check import check_table

        settings = load_settings(config, overrides or [])
        folder.append(Workspace.open(settings.workspace).folder("logs"))
        check_table(table, settings, console=Reporter(), version=version, docs=docs, verbose=verbose)

    raise typer.Exit(_guarded(work, verbose, lambda: folder[0] if folder else None))


ReasonOption = Annotated[str | None, typer.Option("--reason", help="Why; kept in the row.")]


def _in_workspace(
    config: str, overrides: list[str] | None, verbose: bool, work: Callable[[Workspace, Reporter], None], *, lock: bool
) -> NoReturn:
    """Run ``work`` in the workspace of the settings (with ``lock``: as the only one who changes it), then exit."""
    _quiet_environment(verbose)

    def locked() -> None:
        from learn_spark.core.console import Reporter
        from learn_spark.core.settings import load_settings
        from learn_spark.core.tables.workspace import Workspace
        from learn_spark.pipeline.runner import workspace_lock

        workspace = Workspace.open(load_settings(config, overrides or []).workspace)
        with workspace_lock(workspace) if lock else nullcontext():
            work(workspace, Reporter())

    raise typer.Exit(_guarded(locked, verbose, lambda: None))


@app.command(rich_help_panel="Releases")
def releases(config: ConfigOption = "quickstart", overrides: SetOption = None, verbose: VerboseOption = False) -> None:
    """List all releases: state, model, as-of time, when published, sizes."""

    def work(workspace: Workspace, console: Reporter) -> None:
        from learn_spark.features.show import list_releases

        list_releases(workspace, console)

    _in_workspace(config, overrides, verbose, work, lock=False)


@app.command(rich_help_panel="Releases")
def show(
    release: Annotated[str, typer.Argument(help="A release id, or latest.")] = "latest",
    config: ConfigOption = "quickstart",
    overrides: SetOption = None,
    verbose: VerboseOption = False,
) -> None:
    """Show one release: its rows in the ledger, inputs and outputs with versions, and what its audit measured."""

    def work(workspace: Workspace, console: Reporter) -> None:
        from learn_spark.features.show import show_release

        show_release(workspace, release, console)

    _in_workspace(config, overrides, verbose, work, lock=False)


@app.command(rich_help_panel="Releases")
def withdraw(
    release: Annotated[str, typer.Argument(help="A release id.")],
    config: ConfigOption,
    overrides: SetOption = None,
    reason: ReasonOption = None,
    dry_run: DryRunOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Withdraw one release, by a new row; if it is the one that holds, consumers then read the one before it."""

    def work(workspace: Workspace, console: Reporter) -> None:
        from learn_spark.features.ledger import find_release, ledger, withdraw
        from learn_spark.features.show import show_change

        if dry_run:
            console.line(f"would withdraw release {find_release(ledger(workspace), release)['release_id']}")
            return
        gone, holds = withdraw(workspace, release, reason)
        show_change([gone], holds, console)

    _in_workspace(config, overrides, verbose, work, lock=True)


@app.command(rich_help_panel="Releases")
def rollback(
    config: ConfigOption,
    overrides: SetOption = None,
    to: Annotated[
        str | None, typer.Option("--to", metavar="RELEASE", help="Withdraw every release newer than this one.")
    ] = None,
    reason: ReasonOption = None,
    dry_run: DryRunOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Withdraw the release that holds, by a new row; consumers then read the release before it."""

    def work(workspace: Workspace, console: Reporter) -> None:
        from learn_spark.features.ledger import ledger, roll_back, to_withdraw
        from learn_spark.features.show import show_change

        if dry_run:
            for row in to_withdraw(ledger(workspace), to):
                console.line(f"would withdraw release {row['release_id']}")
            return
        gone, holds = roll_back(workspace, to, reason)
        show_change(gone, holds, console)

    _in_workspace(config, overrides, verbose, work, lock=True)


@app.command()
def recommend(
    user: Annotated[str, typer.Option("--user", help="The user's id, as the source spells it.")],
    k: Annotated[int, typer.Option("--k", min=1, help="How many items.")] = 10,
    by_index: Annotated[
        bool, typer.Option("--index", help="Search the release's exported FAISS index instead of scoring every item.")
    ] = False,
    as_of: Annotated[
        str | None,
        typer.Option("--as-of", metavar="TIME", help="By the newest release that knows nothing of this time or later."),
    ] = None,
    config: ConfigOption = "quickstart",
    overrides: SetOption = None,
    verbose: VerboseOption = False,
) -> None:
    """Explain a user from the released features: history, recommendations, and what of the history is near them."""

    def work(workspace: Workspace, console: Reporter) -> None:
        from learn_spark.report.explain import explain, moment, show

        moment_as_of = None if as_of is None else moment(as_of)
        show(explain(workspace, user, k=k, as_of=moment_as_of, by_index=by_index), console)

    _in_workspace(config, overrides, verbose, work, lock=False)


@app.command()
def compare(
    runs: Annotated[
        list[str],
        typer.Argument(metavar="RUN...", help="Runs of evaluate or train, or model ids; the first is compared."),
    ],
    split: Annotated[str, typer.Option("--split", help="test, or validation (to choose by).")] = "test",
    k: Annotated[int, typer.Option("--k", min=1, help="HR@k and NDCG@k are compared.")] = 10,
    samples: Annotated[int, typer.Option("--samples", min=100, help="Resamples of users.")] = 2000,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    config: ConfigOption = "quickstart",
    overrides: SetOption = None,
    verbose: VerboseOption = False,
) -> None:
    """Compare the first RUN with the others and the baselines: paired differences, intervals, p, slice by slice."""
    if split not in ("test", "validation"):
        raise typer.BadParameter(f"--split is test or validation, not {split}")

    def work(workspace: Workspace, console: Reporter) -> None:
        from learn_spark.evaluation.compare import compare as compare_models
        from learn_spark.report.comparison import as_json as to_json
        from learn_spark.report.comparison import show

        name: Literal["test", "validation"] = "test" if split == "test" else "validation"
        found = compare_models(workspace, runs, split=name, k=k, samples=samples)
        if as_json:
            print(to_json(found))
        else:
            show(found, console)

    _in_workspace(config, overrides, verbose, work, lock=False)


@app.command()
def search(
    name: ConfigArgument = None,
    config: ConfigOptional = None,
    overrides: SetOption = None,
    trials: Annotated[
        int | None, typer.Option("--trials", min=1, help="How many in all, those of earlier calls among them.")
    ] = None,
    dry_run: DryRunOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Search over search.parameters for the settings that validation likes best; call it again to go on."""
    wanted = _one_of(name, config, "learn-spark search beauty-sasrec")
    _quiet_environment(verbose)

    def work() -> None:
        from learn_spark.core.console import Reporter
        from learn_spark.core.settings import load_settings
        from learn_spark.studies.search import search as search_settings

        search_settings(
            lambda more: load_settings(wanted, [*(overrides or []), *more]),
            console=Reporter(),
            trials=trials,
            dry_run=dry_run,
            verbose=verbose,
        )

    raise typer.Exit(_guarded(work, verbose, lambda: None))


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
    _quiet_environment(verbose)

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

    raise typer.Exit(_guarded(work, verbose, lambda: None))


@app.command()
def forget_embeddings(
    config: ConfigOption,
    overrides: SetOption = None,
    delete: Annotated[bool, typer.Option("--delete", help="Delete what would be deleted.")] = False,
    verbose: VerboseOption = False,
) -> None:
    """Show whose embeddings nothing uses any more (no settings, model or release); delete them with --delete."""
    _quiet_environment(verbose)

    def work() -> None:
        from learn_spark.core.console import Reporter
        from learn_spark.core.settings import load_settings
        from learn_spark.core.tables.workspace import Workspace
        from learn_spark.encoder.retention import forget, keys_in_use
        from learn_spark.pipeline.runner import workspace_lock

        settings = load_settings(config, overrides or [])
        workspace, console = Workspace.open(settings.workspace), Reporter()
        with workspace_lock(workspace):
            kept = keys_in_use(workspace, settings)
            rows = [
                [k.encoder_key[:12], k.model, k.detail, f"{k.rows:,}", ", ".join(k.used_by) or "nothing: to be deleted"]
                for k in kept
            ]
            console.table("Embeddings by encoder", ["key", "model", "how", "rows", "used by"], rows)
            unused = [k for k in kept if not k.used_by]
            if not unused:
                console.line("nothing to delete")
            elif delete:
                console.line(f"deleted {forget(workspace, [k.encoder_key for k in unused]):,} rows")
            else:
                console.line(f"--delete would delete {sum(k.rows for k in unused):,} rows of {len(unused)} encoders")

    raise typer.Exit(_guarded(work, verbose, lambda: None))


@app.command(rich_help_panel="Operating")
def lineage(
    what: Annotated[str, typer.Argument(metavar="TABLE[@VERSION]", help="A table, or model@ID.")],
    config: ConfigOption = "quickstart",
    overrides: SetOption = None,
    verbose: VerboseOption = False,
) -> None:
    """Show what a table version was made from, up to the raw files, and all that read it."""

    def work(workspace: Workspace, console: Reporter) -> None:
        from learn_spark.pipeline.lineage import show_lineage

        show_lineage(workspace, what, console)

    _in_workspace(config, overrides, verbose, work, lock=False)


@app.command(rich_help_panel="Operating")
def backfill(
    config: ConfigOption,
    first: Annotated[str, typer.Option("--from", metavar="DAY", help="The first day, as 2024-01-31.")],
    last: Annotated[str, typer.Option("--to", metavar="DAY", help="The last day.")],
    every: Annotated[int, typer.Option("--every", min=1, help="Days from one release to the next.")] = 1,
    overrides: SetOption = None,
    dry_run: DryRunOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Publish releases for days gone by, each as of its day, by a tower trained as of the first; the latest stays."""
    _quiet_environment(verbose)

    def work() -> None:
        from learn_spark.core.console import Reporter
        from learn_spark.core.settings import load_settings
        from learn_spark.pipeline.backfill import backfill, days_between

        backfill(
            lambda more: load_settings(config, [*(overrides or []), *more]),
            days_between(first, last, every),
            console=Reporter(),
            dry_run=dry_run,
            verbose=verbose,
        )

    raise typer.Exit(_guarded(work, verbose, lambda: None))


@app.command(rich_help_panel="Operating")
def retain(
    config: ConfigOption,
    overrides: SetOption = None,
    keep: Annotated[int, typer.Option("--releases", min=1, help="The newest so many releases stay.")] = 5,
    days: Annotated[int, typer.Option("--days", min=0, help="Files, models, checkpoints stay so many days.")] = 7,
    delete: Annotated[bool, typer.Option("--delete", help="Delete what would be deleted.")] = False,
    verbose: VerboseOption = False,
) -> None:
    """Show which releases, models, checkpoints, embeddings and files nothing needs; delete them with --delete."""
    _quiet_environment(verbose)

    def work() -> None:
        from learn_spark.core.console import Reporter
        from learn_spark.core.settings import load_settings
        from learn_spark.pipeline.retain import retain

        retain(load_settings(config, overrides or []), releases=keep, days=days, delete=delete, console=Reporter())

    raise typer.Exit(_guarded(work, verbose, lambda: None))


@app.command()
def settings(
    section: Annotated[str | None, typer.Argument(help="A section, such as tower; all if left out.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON instead of text.")] = False,
    verbose: VerboseOption = False,
) -> None:
    """Show every setting with its type, default, range and effect."""

    def work() -> None:
        from learn_spark.commands.settings_page import settings_json, settings_text

        print(settings_json(section) if as_json else settings_text(section))

    raise typer.Exit(_guarded(work, verbose, lambda: None))


@app.command()
def setup(verbose: VerboseOption = False) -> None:
    """Fetch the two Delta JARs (once) and tell Spark about this environment."""

    def work() -> None:
        from learn_spark.core.install import InstallError, install

        try:
            install(os.environ.get("JAVA_HOME"))
        except InstallError as error:
            raise LearnSparkError(str(error)) from None

    raise typer.Exit(_guarded(work, verbose, lambda: None))


def run_job(name: str, arguments: list[str]) -> int:
    """What jobs/<name>.py calls: the stage (or ``run`` for the pipeline) with spark-submit's arguments."""
    try:
        app([name, *arguments], standalone_mode=True)
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def main() -> None:
    """Entry point of the installed command."""
    app()
