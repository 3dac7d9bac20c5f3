"""``learn-spark --version``: the version, and the installed parts with the versions of their packages."""

from __future__ import annotations

from typing import Annotated

import typer

from learn_spark.commands.app import app


def _show(asked: bool) -> None:
    if not asked:
        return
    from learn_spark.core.parts import BASE, VERSION, parts

    print(f"learn-spark {VERSION}")
    installed = parts()
    width = max(len(part.name) for part in installed) + 2
    for part in installed:
        missing = [package for package, version in part.packages.items() if version is None]
        there = ", ".join(f"{package} {version}" for package, version in part.packages.items() if version is not None)
        if not missing:
            print(f"  {part.name:<{width}}{there}")
        elif part.name == BASE:
            print(f"  {part.name:<{width}}{there}; not installed: {', '.join(missing)}")
        else:
            how = f"pip install 'learn-spark[{part.name}]'"
            print(f"  {part.name:<{width}}not installed (without {', '.join(missing)}): {how}")
    raise typer.Exit


@app.callback()
def program(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and the installed parts.", callback=_show, is_eager=True)
    ] = False,
) -> None:
    """LEARN as a Spark feature platform: frozen-LLM item embeddings, a preference tower, released features."""
