"""Commands about an online store: online push, online check."""

from __future__ import annotations

from typing import Annotated

import typer

from learn_spark.commands.app import Opened, app, in_workspace
from learn_spark.commands.options import ConfigOption, JsonOption, SetOption, VerboseOption

online = typer.Typer(
    name="online",
    help="The online store of released vectors: push, check.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(online, rich_help_panel="Releases")

ToOption = Annotated[
    str | None,
    typer.Option(
        "--to", metavar="URL", help="redis://host:port/db, rediss://... or sqlite:///path; default: online.store."
    ),
]


@online.command()
def push(
    config: ConfigOption = "quickstart",
    overrides: SetOption = None,
    to: ToOption = None,
    whole: Annotated[bool, typer.Option("--whole", help="Write all rows, and not only the changes.")] = False,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Bring the release in force into an online store; readers get the one before until all is written.

    A killed push is repeated, and goes on where it stopped. After a rollback it leads back.
    """

    def work(opened: Opened) -> None:
        from learn_spark.features.online_store.address import chosen_store
        from learn_spark.features.online_store.push import push as push_release
        from learn_spark.features.online_store.show import show_push

        store = chosen_store(opened.settings.online, to)
        done = push_release(opened.workspace, store, opened.settings.online, whole=whole, console=opened.console)
        show_push(done, opened.console)

    in_workspace(config, overrides, verbose, work, reads_only=True, as_json=as_json)


@online.command()
def check(
    config: ConfigOption = "quickstart",
    overrides: SetOption = None,
    to: ToOption = None,
    sample: Annotated[int, typer.Option("--sample", min=1, help="Users, and items, that are compared.")] = 1000,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the sample.")] = 0,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Compare sampled vectors of an online store with the tables, bit for bit, and say how old its release is.

    Fails if a vector differs, and if the store serves what it must not: a withdrawn release, erased users.
    """

    def work(opened: Opened) -> None:
        from learn_spark.features.online_store.address import chosen_store
        from learn_spark.features.online_store.check import check as check_store
        from learn_spark.features.online_store.show import show_check

        store = chosen_store(opened.settings.online, to)
        show_check(check_store(opened.workspace, store, sample=sample, seed=seed), opened.console)

    in_workspace(config, overrides, verbose, work, reads_only=True, as_json=as_json)
