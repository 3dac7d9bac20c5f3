"""The locks of a workspace: one for each thing that is written. Runs that write different things can overlap."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import TypeVar

from learn_spark.core.stages.stage import Stage
from learn_spark.core.storage.locks import Held, LockedError
from learn_spark.core.tables.workspace import Workspace
from learn_spark.core.tables.workspace_locks import only_user, writer_of

T = TypeVar("T")
SECONDS_BETWEEN_TRIES = 1.0
SECONDS_BETWEEN_LINES = 10.0


@contextmanager
def writing(
    workspace: Workspace,
    names: Iterable[str],
    job: str,
    *,
    wait: bool = False,
    say: Callable[[str], None] = lambda text: None,
) -> Iterator[Held]:
    """Keep others from writing ``names`` (tables, folders) while ``job`` does, and from deleting in the workspace.

    LockedError, which names the job that writes one of them; with ``wait``, ``say`` that job and wait until it ends.
    """
    wanted = list(names)

    def take() -> AbstractContextManager[Held]:
        return writer_of(workspace, wanted, job)

    with _patiently(take, say) if wait else take() as held:
        yield held


@contextmanager
def whole_workspace(
    workspace: Workspace, job: str, *, wait: bool = False, say: Callable[[str], None] = lambda text: None
) -> Iterator[None]:
    """Keep all others from changing the workspace while ``job`` deletes what nobody reads; LockedError if one does.

    ``wait`` and ``say`` as in ``writing``.
    """

    def take() -> AbstractContextManager[object]:
        return only_user(workspace, job)

    with _patiently(take, say) if wait else take():
        yield


@contextmanager
def _patiently(take: Callable[[], AbstractContextManager[T]], say: Callable[[str], None]) -> Iterator[T]:
    """Take locks, again and again until they are free. Between two tries none is held, so that nobody waits for us."""
    said = -SECONDS_BETWEEN_LINES
    with ExitStack() as stack:
        while True:
            try:
                held = stack.enter_context(take())
                break
            except LockedError as error:
                if time.monotonic() - said >= SECONDS_BETWEEN_LINES:
                    said = time.monotonic()
                    say(f"waiting: {error.resource} is in use by {error.holder}")
                time.sleep(SECONDS_BETWEEN_TRIES)
        yield held


def exclusively_written(stages: Iterable[Stage]) -> set[str]:
    """What only one run at a time may write, of all that the stages write."""
    return {name for stage in stages for name in (*stage.writes, *stage.folders) if name not in stage.appends}
