"""Computing items ahead in one background thread, so that the consumer need not wait."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Iterator
from threading import Condition, Thread
from typing import Generic, TypeVar

T = TypeVar("T")


def prefetch(source: Iterable[T], depth: int) -> Generator[T, None, None]:
    """The items of ``source`` in their order, computed in a background thread while the consumer works.

    At most ``depth`` items are ready, and one more is being computed. An exception of ``source`` is raised here, after
    the items before it and with its traceback. The thread starts with the first request. When the consumer stops early
    (``close``, or the iterator is garbage collected), the thread finishes its item, closes ``source`` and ends before
    ``close`` returns. Raises ValueError for a depth below 1.
    """
    if depth < 1:
        raise ValueError(f"depth {depth} must be at least 1")
    return _consume(source, depth)


def _consume(source: Iterable[T], depth: int) -> Generator[T, None, None]:
    ready: _Ready[T] = _Ready(depth)
    # The thread must not reference this generator, or garbage collection would never end it.
    thread = Thread(target=_produce, args=(source, ready), name="prefetch", daemon=True)
    thread.start()
    try:
        yield from ready
    finally:
        ready.stop()
        thread.join()


def _produce(source: Iterable[T], ready: _Ready[T]) -> None:
    error = None
    try:
        iterator = iter(source)
        try:
            for item in iterator:
                if not ready.put(item):
                    break
        finally:
            close = getattr(iterator, "close", None)
            if close is not None:
                close()
    except BaseException as raised:
        error = raised
    ready.end(error)


class _Ready(Generic[T]):
    """A bounded queue between two threads that either side can end."""

    def __init__(self, depth: int) -> None:
        self._depth = depth
        self._items: deque[T] = deque()
        self._changed = Condition()
        self._stopped = self._ended = False
        self._error: BaseException | None = None

    def put(self, item: T) -> bool:
        """Wait for room and add ``item``; returns False if the consumer has stopped."""
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or len(self._items) < self._depth)
            if not self._stopped:
                self._items.append(item)
                self._changed.notify_all()
            return not self._stopped

    def end(self, error: BaseException | None) -> None:
        """Mark the end of the items, after ``error`` or because there are no more."""
        with self._changed:
            self._ended, self._error = True, error
            self._changed.notify_all()

    def stop(self) -> None:
        """Mark that the consumer takes no more items."""
        with self._changed:
            self._stopped = True
            self._items.clear()
            self._changed.notify_all()

    def __iter__(self) -> Iterator[T]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._items or self._ended)
                if not self._items:
                    break
                item = self._items.popleft()
                self._changed.notify_all()
            yield item
        if self._error is not None:
            raise self._error
