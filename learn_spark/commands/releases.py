"""Commands about releases: releases, show, withdraw, rollback."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Annotated

import typer

from learn_spark.commands.app import Opened, app, in_workspace
from learn_spark.commands.options import ConfigOption, DryRunOption, ReasonOption, SetOption, VerboseOption

if TYPE_CHECKING:
    from learn_spark.core.tables.workspace import Workspace


@app.command(rich_help_panel="Releases")
def releases(config: ConfigOption = "quickstart", overrides: SetOption = None, verbose: VerboseOption = False) -> None:
    """List all releases: state, as-of time, time of publication, model, and numbers of users and items."""

    def work(opened: Opened) -> None:
        from learn_spark.features.show import list_releases

        list_releases(opened.workspace, opened.console)

    in_workspace(config, overrides, verbose, work)


@app.command(rich_help_panel="Releases")
def show(
    release: Annotated[str, typer.Argument(help="A release id, or latest.")] = "latest",
    config: ConfigOption = "quickstart",
    overrides: SetOption = None,
    verbose: VerboseOption = False,
) -> None:
    """Show one release: its rows in the ledger, versions of inputs and outputs, and the results of its audit."""

    def work(opened: Opened) -> None:
        from learn_spark.features.show import show_release

        show_release(opened.workspace, release, opened.console)

    in_workspace(config, overrides, verbose, work)


@app.command(rich_help_panel="Releases")
def withdraw(
    release: Annotated[str, typer.Argument(help="A release id.")],
    config: ConfigOption,
    overrides: SetOption = None,
    reason: ReasonOption = None,
    dry_run: DryRunOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Withdraw one release. If it is in force, the previous release comes into force."""

    def work(opened: Opened) -> None:
        from learn_spark.features.ledger import find_release, ledger, withdraw
        from learn_spark.features.show import show_change

        if dry_run:
            opened.console.line(f"would withdraw release {find_release(ledger(opened.workspace), release).release_id}")
            return
        withdrawn, in_force = withdraw(opened.workspace, release, reason)
        show_change([withdrawn], in_force, opened.console)

    in_workspace(config, overrides, verbose, work, lock=_no_other_release)


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
    """Withdraw the release in force, so that the previous one comes into force; or all releases newer than --to."""

    def work(opened: Opened) -> None:
        from learn_spark.features.ledger import ledger, roll_back, to_withdraw
        from learn_spark.features.show import show_change

        if dry_run:
            for row in to_withdraw(ledger(opened.workspace), to):
                opened.console.line(f"would withdraw release {row.release_id}")
            return
        withdrawn, in_force = roll_back(opened.workspace, to, reason)
        show_change(withdrawn, in_force, opened.console)

    in_workspace(config, overrides, verbose, work, lock=_no_other_release)


def _no_other_release(workspace: Workspace) -> AbstractContextManager[None]:
    from learn_spark.pipeline.locks import writing

    return writing(workspace, ("releases",), "a change of releases")
