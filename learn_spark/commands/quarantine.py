"""The command quarantine: refused rows by reason, and their second attempt."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from learn_spark.commands.app import Opened, app, in_workspace
from learn_spark.commands.options import ConfigOption, SetOption, VerboseOption

if TYPE_CHECKING:
    from collections.abc import Sequence

    from learn_spark.core.console import Reporter
    from learn_spark.core.quality.refused import RefusedRow


@app.command(rich_help_panel="Operating")
def quarantine(
    config: ConfigOption = "quickstart",
    table: Annotated[str | None, typer.Option(help="Only rows refused by this table, such as interactions.")] = None,
    reason: Annotated[str | None, typer.Option(help="Only rows with this reason, or a part of it.")] = None,
    file: Annotated[str | None, typer.Option(help="Only rows of this file, or of a pattern.")] = None,
    rows: Annotated[int, typer.Option(min=0, metavar="N", help="Show the first N rows themselves.")] = 0,
    retry: Annotated[
        bool, typer.Option("--retry", help="Read all files again; rows that today's settings accept are ingested.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    overrides: SetOption = None,
    verbose: VerboseOption = False,
) -> None:
    """Show refused rows by reason with an example each; with --retry, ingest them again."""

    def work(opened: Opened) -> None:
        from learn_spark.core.console import Reporter
        from learn_spark.core.quality.refused import refused_rows

        if retry:
            from learn_spark.pipeline.runner import run_stages

            console = Reporter(quiet=True) if as_json else opened.console
            run_stages(("ingest",), opened.settings, console=console, force=True, verbose=verbose)
        found = refused_rows(opened.workspace, table=table, reason=reason, file=file)
        if as_json:
            _print_json(found, rows)
        else:
            _show(found, rows, opened.console)

    in_workspace(config, overrides, verbose, work)


def _print_json(found: Sequence[RefusedRow], most: int) -> None:
    import json
    from dataclasses import asdict

    from learn_spark.core.quality.refused import by_reason

    reasons = [{"table": table, **asdict(count)} for table, counts in by_reason(found).items() for count in counts]
    print(
        json.dumps({"reasons": reasons, "rows": [row.as_dict() for row in found[:most]]}, ensure_ascii=False, indent=1)
    )


def _show(found: Sequence[RefusedRow], most: int, console: Reporter) -> None:
    from learn_spark.core.quality.refused import by_reason

    if not found:
        console.line("no such row is in quarantine")
    for table, counts in by_reason(found).items():
        total = sum(row.occurrences for row in found if row.table == table)
        console.heading(f"{table}: {total:,} refused {'row' if total == 1 else 'rows'}")
        for count in counts:
            console.say(count.sentence())
    for row in found[:most]:
        console.line(f"{row.file or row.table}: {', '.join(row.reasons)}: {row.raw}")
