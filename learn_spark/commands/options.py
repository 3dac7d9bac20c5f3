"""Arguments and options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

ConfigOption = Annotated[str, typer.Option("--config", "-c", help="A settings file, or its name in conf/.")]
ConfigArgument = Annotated[
    str | None, typer.Argument(metavar="[CONFIG]", help="A settings file, or its name in conf/ (same as --config).")
]
ConfigOptional = Annotated[str | None, typer.Option("--config", "-c", help="A settings file, or its name in conf/.")]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a setting; may be repeated.")
]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Show what would run and why, without changes.")]
ForceOption = Annotated[bool, typer.Option("--force", help="Run even if the result is up to date.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON value instead of text.")]
VerboseOption = Annotated[bool, typer.Option("--verbose", "-v", help="Show warnings, Spark's log and stack traces.")]

WaitOption = Annotated[
    bool, typer.Option("--wait", help="Wait for another command that writes the same tables, instead of ending.")
]
ReasonOption = Annotated[str | None, typer.Option("--reason", help="Reason, stored in the ledger.")]


def one_of(name: str | None, config: str | None, example: str) -> str:
    """The settings file, given as an argument or by --config. Raises BadParameter unless exactly one is given."""
    if (name is None) == (config is None):
        raise typer.BadParameter(f"give one settings file, as in: {example}")
    return name or config or ""
