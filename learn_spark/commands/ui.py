"""The command ui, which serves a workspace's front page on this machine."""

from __future__ import annotations

from typing import Annotated

import typer

from learn_spark.commands.app import Opened, app, in_workspace
from learn_spark.commands.options import ConfigOption, SetOption, VerboseOption


@app.command(rich_help_panel="Operating")
def ui(
    config: ConfigOption = "quickstart",
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, help="The port on 127.0.0.1; 0: any free one.")
    ] = 8390,
    overrides: SetOption = None,
    verbose: VerboseOption = False,
) -> None:
    """Serve the front page to browsers of this machine, with what works now; Ctrl-C ends it. It changes nothing."""

    def work(opened: Opened) -> None:
        from learn_spark.report.ui.server import UiServer, serve

        server = UiServer(opened.workspace, port)
        opened.console.line(f"front page of {opened.workspace.place}: {server.url} (Ctrl-C ends)")
        with opened.console.ticker.paused():
            serve(server)

    in_workspace(config, overrides, verbose, work, reads_only=True)
