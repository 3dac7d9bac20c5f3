"""The command init, which describes a folder of raw files in a settings file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from learn_spark.commands.app import app, without_workspace
from learn_spark.commands.options import JsonOption, VerboseOption

if TYPE_CHECKING:
    from learn_spark.data.guesses.guess import Guess


@app.command()
def init(
    folder: Annotated[str, typer.Argument(help="The folder of your raw files: CSV, JSON lines, Parquet, Delta.")],
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", metavar="FILE", help="The settings file; default: FOLDER's name.yaml."),
    ] = None,
    workspace: Annotated[
        str | None, typer.Option(metavar="FOLDER", help="The workspace; default: var/NAME beside the settings file.")
    ] = None,
    items: Annotated[str | None, typer.Option(metavar="FILE", help="The file or pattern of the items.")] = None,
    events: Annotated[str | None, typer.Option(metavar="FILE", help="The file or pattern of the events.")] = None,
    columns: Annotated[
        list[str] | None,
        typer.Option("--column", metavar="TABLE.FIELD=COLUMN", help="A column, as in events.user_id=customer."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a settings file that exists.")] = False,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Look at your files, guess what their columns mean, and write a settings file with the reasons."""

    def work() -> None:
        from learn_spark.core.console import strict_json
        from learn_spark.core.errors import SettingsError
        from learn_spark.data.guesses.guess import guess
        from learn_spark.data.guesses.look import look
        from learn_spark.data.guesses.settings_file import described, settings_text, write_new

        if "://" in folder:
            raise SettingsError(
                f"init looks at files of this machine, and {folder} is an address: run it on a folder with some of the "
                f"files, and write source.path: {folder} in the settings that it makes"
            )
        place = Path(folder).expanduser()
        name = place.resolve().stem or "shop"
        path = Path(output or f"{name}.yaml").expanduser()
        if path.exists() and not force:
            raise SettingsError(f"{path} exists; --force replaces it, --output FILE writes another file")
        pairs = [text.partition("=") for text in columns or []]
        found = guess(look(place), items=items, events=events, given={key: column for key, _, column in pairs})
        at = Path(workspace).expanduser() if workspace else path.parent / "var" / path.stem
        write_new(path, settings_text(found, path, at.absolute()))
        if as_json:
            print(strict_json({"settings": str(path), **described(found)}))
        else:
            _show(found, path)

    without_workspace(verbose, work)


def _show(guess: Guess, path: Path) -> None:
    from learn_spark.core.console import Reporter
    from learn_spark.data.guesses import preview

    console = Reporter()
    for name, table in (("items", guess.items), ("events", guess.events)):
        files = table.files
        console.heading(f"{name}: {files.pattern} ({len(files.files):,} of format {files.format})")
        rows = [(one.field, one.sql, f"{one.basis}; {one.note}" if one.note else one.basis) for one in table.fields]
        width = [max(len(row[place]) for row in rows) for place in (0, 1)]
        for field, sql, basis in rows:
            console.say(f"{field:<{width[0]}}  {sql:<{width[1]}}  {basis}")
    console.heading("Prompts of three items")
    for item, prompt in preview.prompts(guess):
        console.say(f"{item}: {_short(prompt)}")
    console.heading("Five events")
    for event in preview.events(guess):
        console.say(", ".join(f"{field} {_short(value, 60)}" for field, value in event.items() if value is not None))
    for note in guess.notes:
        console.line(f"check: {note}")
    for file, why in list(guess.passed_over.items())[:20]:
        console.line(f"passed over: {file}: {why}")
    if len(guess.passed_over) > 20:
        console.line(f"passed over: {len(guess.passed_over) - 20:,} more files")
    console.line(f"wrote {path}; look at it, then: learn-spark run {path} --dry-run")


def _short(text: str | None, most: int = 300) -> str:
    shown = " ".join((text or "").split())
    return shown if len(shown) <= most else f"{shown[: most - 3]}..."
