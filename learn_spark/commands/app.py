"""The Typer application, and how every command opens its settings, workspace and lock and reports errors."""

from __future__ import annotations

import os
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

import typer

from learn_spark.commands.termination import ended_by_sigterm, stopped
from learn_spark.core.errors import LearnSparkError
from learn_spark.core.visible import visible

if TYPE_CHECKING:
    from learn_spark.core.console import Reporter
    from learn_spark.core.settings.schema import Settings
    from learn_spark.core.tables.workspace import Workspace


CLOSED_PIPE = 128 + 13  # the exit code of a command that SIGPIPE ended

app = typer.Typer(
    name="learn-spark",
    help="LEARN as a Spark feature platform: frozen-LLM item embeddings, a preference tower, released features.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@dataclass(frozen=True)
class Opened:
    """The settings, the workspace and the console of a command; ``reads_only``: it makes no file."""

    settings: Settings
    workspace: Workspace
    console: Reporter
    reads_only: bool = False


def quiet_environment(verbose: bool) -> None:
    """Set environment variables before any heavy import: no telemetry or progress bars of libraries, thread and cache
    sizes.
    """
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # FAISS is twice as fast with its own threads alone as with OpenBLAS threads below them.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # oneDNN and PyTorch cache kernels and memory for 1,024 shapes by default; each unpadded batch has a new shape.
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64")
    os.environ.setdefault("LRU_CACHE_CAPACITY", "64")
    if not verbose:
        os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        os.environ.setdefault("TQDM_DISABLE", "1")
        os.environ.setdefault("PYTHONWARNINGS", "ignore")
        warnings.simplefilter("ignore")


def _guarded(work: Callable[[], None], verbose: bool, opened: list[Opened], *, waits: bool = False) -> int:
    """Run ``work`` and return its exit code; an error is printed as one line on standard error.

    The stack trace of an unexpected error is written to logs/last-error.txt of the workspace in ``opened``, if there is
    one that may be written. ``waits``: the command has the option --wait.
    """
    from learn_spark.core.storage.locks import LockedError
    from learn_spark.core.ticker import COMMAND

    try:
        with ended_by_sigterm(), COMMAND.running():
            work()
        sys.stdout.flush()
        return 0
    except LearnSparkError as error:
        if (end := stopped(error)) is not None:
            print(end[0], file=sys.stderr)
            return end[1]
        if verbose:
            traceback.print_exc()
        hint = ", or give --wait" if waits and isinstance(error, LockedError) else ""
        print(f"error: {visible(str(error))}{hint}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        # The reader of a pipe, such as head, has read enough. What is left to print, at the exit too, goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return CLOSED_PIPE
    except BaseException as error:
        if (end := stopped(error)) is not None:
            print(end[0], file=sys.stderr)
            return end[1]
        # A panic of deltalake's Rust code is no Exception.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        from learn_spark.core.causes import explained
        from learn_spark.core.settings.secrets import without_secrets

        if verbose:
            traceback.print_exc()
        known, sentence = explained(error)
        where = "" if known else f" ({_left_trace(opened) or '--verbose shows the stack trace'})"
        print(f"error: {visible(without_secrets(sentence))}{where}", file=sys.stderr)
        return 1


def _left_trace(opened: list[Opened]) -> str | None:
    """Write the stack trace of the current error below the workspace; a hint to it, or None if it was not written."""
    if not opened or opened[0].reads_only:
        return None
    try:
        trace = opened[0].workspace.folder("logs") / "last-error.txt"
        trace.write_text(traceback.format_exc(), encoding="utf-8")
    except OSError:
        return None
    return f"the stack trace is in {trace}"


@contextmanager
def answered(console: Reporter) -> Iterator[None]:
    """After the block, print what the console has for JSON; after an error too, such as the rules of a gate that
    failed, with its sentence as ``error``, so that no program takes it for an empty answer.
    """
    try:
        yield
    except LearnSparkError as error:
        console.record("error", str(error))
        raise
    except Exception as error:
        from learn_spark.core.causes import explained
        from learn_spark.core.settings.secrets import without_secrets

        console.record("error", without_secrets(explained(error)[1]))
        raise
    finally:
        console.print_json()


def run_in_workspace(
    config: str,
    overrides: list[str] | None,
    verbose: bool,
    work: Callable[[Opened], None],
    *,
    lock: Callable[[Opened], AbstractContextManager[object]] | None = None,
    reads_only: bool = False,
    existing: bool = False,
    as_json: bool = False,
    waits: bool = False,
    planned: bool = False,
) -> int:
    """Run ``work`` in the workspace of the settings, under ``lock`` if given, and return the exit code.

    ``reads_only``: the command makes no file and takes no lock, and the workspace must exist. ``existing``: the
    workspace must exist. ``planned``: it need not exist, and nothing is made. ``as_json``: the console collects tables
    and lines, which are printed as one JSON object. ``waits``: the command has the option --wait.
    """
    quiet_environment(verbose)
    opened_so_far: list[Opened] = []

    def open_and_work() -> None:
        from learn_spark.core.console import Reporter
        from learn_spark.core.settings import load_settings
        from learn_spark.core.tables.workspace import Workspace

        settings = load_settings(config, overrides or [])
        open_it = Workspace.planned if planned else Workspace.existing if reads_only or existing else Workspace.open
        opened = Opened(
            settings, open_it(settings.place, settings.scratch), Reporter(as_json=as_json), reads_only or planned
        )
        opened_so_far.append(opened)
        if opened.workspace.writable_by_all:
            print(f"note: everybody may write into {opened.workspace.place}: chmod o-w", file=sys.stderr)
        with answered(opened.console), nullcontext() if lock is None or reads_only else lock(opened):
            work(opened)

    return _guarded(open_and_work, verbose, opened_so_far, waits=waits)


def in_workspace(
    config: str,
    overrides: list[str] | None,
    verbose: bool,
    work: Callable[[Opened], None],
    *,
    lock: Callable[[Opened], AbstractContextManager[object]] | None = None,
    reads_only: bool = False,
    existing: bool = False,
    as_json: bool = False,
    waits: bool = False,
) -> NoReturn:
    """Run ``work`` in the workspace of the settings, as ``run_in_workspace`` does, then exit with its exit code."""
    raise typer.Exit(
        run_in_workspace(
            config,
            overrides,
            verbose,
            work,
            lock=lock,
            reads_only=reads_only,
            existing=existing,
            as_json=as_json,
            waits=waits,
        )
    )


def without_workspace(verbose: bool, work: Callable[[], None]) -> NoReturn:
    """Run ``work``, which needs no workspace, then exit with its exit code."""
    quiet_environment(verbose)
    raise typer.Exit(_guarded(work, verbose, []))
