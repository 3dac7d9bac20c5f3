"""The command quarantine: refused rows by reason, and their second attempt."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from learn_spark.commands.app import Opened, app, in_workspace
from learn_spark.commands.options import ConfigOption, JsonOption, SetOption, VerboseOption

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
        bool, typer.Option("--retry", help="Read all files again; rows that today's settings accept are kept.")
    ] = False,
    as_json: JsonOption = False,
    overrides: SetOption = None,
    verbose: VerboseOption = False,
) -> None:
    """Show refused rows by reason with an example each; with --retry, ingest them again."""

    def work(opened: Opened) -> None:
        from learn_spark.core.quality.refused import refused_rows

        if retry:
            from learn_spark.pipeline.runner import run_stages

            stage = {"exposures": "exposures", "text_embeddings": "embed_items"}.get(table or "", "ingest")
            run_stages((stage,), opened.settings, console=opened.console, force=True, verbose=verbose)
        show(refused_rows(opened.workspace, table=table, reason=reason, file=file), rows, opened.console)

    in_workspace(config, overrides, verbose, work, reads_only=not retry, existing=True, as_json=as_json)


def show(found: Sequence[RefusedRow], most: int, console: Reporter) -> None:
    """Print the rows by reason, and the first ``most`` of them; in JSON ``reasons`` and ``rows``."""
    from dataclasses import asdict

    from learn_spark.core.quality.refused import by_reason

    reasons = by_reason(found)
    console.record("reasons", [{"table": table, **asdict(one)} for table, counts in reasons.items() for one in counts])
    console.record("rows", [row.as_dict() for row in found[:most]])
    if not found:
        console.say("no such row is in quarantine")
    for table, counts in reasons.items():
        total = sum(row.occurrences for row in found if row.table == table)
        console.heading(f"{table}: {total:,} refused {'row' if total == 1 else 'rows'}")
        for count in counts:
            console.say(count.sentence())
    for row in found[:most]:
        console.say(f"{row.file or row.table}: {', '.join(row.reasons)}: {row.raw}")
