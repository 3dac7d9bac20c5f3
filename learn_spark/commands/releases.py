"""Commands about releases: releases, show, export, withdraw, rollback, restore."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Annotated, Literal, NoReturn

import typer

from learn_spark.commands.app import Opened, app, in_workspace
from learn_spark.commands.options import (
    ConfigOption,
    DryRunOption,
    JsonOption,
    ReasonOption,
    SetOption,
    VerboseOption,
    WaitOption,
)

if TYPE_CHECKING:
    from learn_spark.features.ledger import LedgerRow
    from learn_spark.features.withdrawal import Change

AllowNoneOption = Annotated[
    bool, typer.Option("--allow-none", help="Withdraw even if no release is in force afterwards.")
]


@app.command(rich_help_panel="Releases")
def releases(
    config: ConfigOption = "quickstart",
    overrides: SetOption = None,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """List all releases: state, as-of time, time of publication, model, and numbers of users and items."""

    def work(opened: Opened) -> None:
        from learn_spark.features.show import list_releases

        list_releases(opened.workspace, opened.console)

    in_workspace(config, overrides, verbose, work, reads_only=True, as_json=as_json)


@app.command(rich_help_panel="Releases")
def show(
    release: Annotated[str, typer.Argument(help="A release id, or latest.")] = "latest",
    config: ConfigOption = "quickstart",
    overrides: SetOption = None,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Show one release: its rows in the ledger, versions of inputs and outputs, and the results of its audit."""

    def work(opened: Opened) -> None:
        from learn_spark.features.show import show_release

        show_release(opened.workspace, release, opened.console)

    in_workspace(config, overrides, verbose, work, reads_only=True, as_json=as_json)


@app.command(rich_help_panel="Releases")
def export(
    to: Annotated[str, typer.Option("--to", metavar="DIR", help="A new folder, or one with an earlier export.")],
    config: ConfigOption = "quickstart",
    overrides: SetOption = None,
    model: Annotated[
        str, typer.Option("--model", metavar="ID", help="A trained model, or released: that of the release in force.")
    ] = "released",
    form: Annotated[
        Literal["onnx", "torch"], typer.Option("--format", help="onnx, or torch: a program of torch.export.")
    ] = "onnx",
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Write the user tower for services: events in, the vector that a release has out; with items and a model card."""

    def work(opened: Opened) -> None:
        from learn_spark.core.storage.path import storage_path
        from learn_spark.features.export.folder import export_user_tower
        from learn_spark.features.pinned_model import PinnedModel

        pinned = PinnedModel.open(opened.workspace, opened.settings, model)
        where = storage_path(to, opened.settings.storage.s3())
        written = export_user_tower(pinned, where, form, opened.console)
        opened.console.answer({"folder": str(where), **written.model_dump(mode="json")})
        opened.console.line(
            f"{where}: {written.graph} of the {written.method} model {written.model_id}, {written.n_items:,} items, "
            f"vectors of {written.output_dim}"
        )
        opened.console.line(
            f"compared with the tower for {written.checked.users} users: largest difference "
            f"{written.checked.largest_difference:.1e}"
        )

    in_workspace(config, overrides, verbose, work, existing=True, as_json=as_json)


@app.command(rich_help_panel="Releases")
def withdraw(
    release: Annotated[str, typer.Argument(help="A release id.")],
    config: ConfigOption,
    overrides: SetOption = None,
    reason: ReasonOption = None,
    allow_none: AllowNoneOption = False,
    dry_run: DryRunOption = False,
    wait: WaitOption = False,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Withdraw one release. If it is in force, the previous release comes into force; restore undoes it."""

    def plan(rows: Sequence[LedgerRow]) -> Change:
        from learn_spark.features.withdrawal import plan_withdrawal

        return plan_withdrawal(rows, release, reason)

    _change(
        plan,
        "withdraw",
        "restore",
        config,
        overrides,
        verbose,
        allow_none=allow_none,
        dry_run=dry_run,
        wait=wait,
        as_json=as_json,
    )


@app.command(rich_help_panel="Releases")
def rollback(
    config: ConfigOption,
    overrides: SetOption = None,
    to: Annotated[
        str | None, typer.Option("--to", metavar="RELEASE", help="Withdraw every release newer than this one.")
    ] = None,
    reason: ReasonOption = None,
    allow_none: AllowNoneOption = False,
    dry_run: DryRunOption = False,
    wait: WaitOption = False,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Withdraw the release in force, so that the previous one comes into force; or all releases newer than --to."""

    def plan(rows: Sequence[LedgerRow]) -> Change:
        from learn_spark.features.withdrawal import plan_rollback

        return plan_rollback(rows, to, reason)

    _change(
        plan,
        "withdraw",
        "restore",
        config,
        overrides,
        verbose,
        allow_none=allow_none,
        dry_run=dry_run,
        wait=wait,
        as_json=as_json,
    )


@app.command(rich_help_panel="Releases")
def restore(
    release: Annotated[list[str], typer.Argument(metavar="RELEASE...", help="Ids of withdrawn releases.")],
    config: ConfigOption,
    overrides: SetOption = None,
    reason: ReasonOption = None,
    dry_run: DryRunOption = False,
    wait: WaitOption = False,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Undo the withdrawal of releases. The newest one comes into force, unless a newer release is."""

    def plan(rows: Sequence[LedgerRow]) -> Change:
        from learn_spark.features.withdrawal import plan_restoration

        return plan_restoration(rows, release, reason)

    _change(
        plan,
        "restore",
        "withdraw",
        config,
        overrides,
        verbose,
        allow_none=True,
        dry_run=dry_run,
        wait=wait,
        as_json=as_json,
    )


def _change(
    plan: Callable[[Sequence[LedgerRow]], Change],
    does: str,
    undone_by: str,
    config: str,
    overrides: list[str] | None,
    verbose: bool,
    *,
    allow_none: bool,
    dry_run: bool,
    wait: bool,
    as_json: bool,
) -> NoReturn:
    """Print what will be in force, change the ledger, print the undoing, and exit."""

    def work(opened: Opened) -> None:
        from learn_spark.features.ledger import ledger
        from learn_spark.features.show import show_change, show_plan
        from learn_spark.features.withdrawal import apply
        from learn_spark.pipeline.tracking.observers import tell_of_releases

        change = plan(ledger(opened.workspace))
        show_plan(change, does, opened.console, dry_run=dry_run)
        if not allow_none:
            change.require_a_release()
        if dry_run:
            return
        in_force = apply(opened.workspace, change)
        show_change(change, does, in_force, opened.console)
        tell_of_releases(opened.settings, opened.workspace, opened.console)
        names = [row.release_id for row in change.changed]
        # Of several restored releases each is withdrawn by its own command.
        for ids in [names] if undone_by == "restore" else [[name] for name in names]:
            given = [*ids, "--config", config, *(part for one in overrides or [] for part in ("--set", one))]
            more = ["--allow-none"] if undone_by == "withdraw" and change.before is None else []
            opened.console.line(f"undo:      learn-spark {undone_by} {shlex.join([*given, *more])}")

    def lock(opened: Opened) -> AbstractContextManager[object]:
        from learn_spark.pipeline.locks import writing

        return writing(opened.workspace, ("releases",), "a change of releases", wait=wait, say=opened.console.say)

    in_workspace(
        config,
        overrides,
        verbose,
        work,
        lock=lock,
        reads_only=dry_run,
        existing=True,
        as_json=as_json,
        waits=True,
    )
