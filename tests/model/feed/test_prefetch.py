"""Prefetching: nothing lost, nothing out of order, errors and endings pass between the threads."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from learn_spark.model.feed.prefetch import prefetch


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "prefetch"]


@settings(max_examples=30)
@given(st.lists(st.integers(), max_size=60), st.integers(1, 8))
def test_the_items_in_their_order(items: list[int], depth: int) -> None:
    assert list(prefetch(items, depth)) == items
    assert not threads()


def test_items_are_made_in_one_other_thread_and_no_more_than_the_depth() -> None:
    made: list[int] = []
    makers = set()
    full = threading.Event()

    def source() -> Iterator[int]:
        for n in range(100):
            makers.add(threading.get_ident())
            made.append(n)
            # Three ready and one in the making, after the one that was taken.
            if len(made) == 5:
                full.set()
            yield n

    ahead = prefetch(source(), 3)
    assert not made
    assert next(ahead) == 0
    assert full.wait(10)
    assert made == [0, 1, 2, 3, 4]
    assert list(ahead) == list(range(1, 100))
    assert len(makers) == 1
    assert makers.isdisjoint({threading.get_ident()})


def test_an_error_comes_after_the_items_before_it_with_its_own_traceback() -> None:
    def breaks_here() -> int:
        raise KeyError("row 3")

    def source() -> Iterator[int]:
        yield 1
        yield 2
        yield breaks_here()

    ahead = prefetch(source(), 4)
    assert [next(ahead), next(ahead)] == [1, 2]
    with pytest.raises(KeyError, match="row 3") as caught:
        next(ahead)
    assert "breaks_here" in [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert not threads()


def test_a_source_that_cannot_even_start_is_an_error_not_a_wait() -> None:
    with pytest.raises(TypeError, match="not iterable"):
        list(prefetch(7, 2))  # type: ignore[arg-type]


def test_a_consumer_that_stops_early_ends_thread_and_source() -> None:
    closed = threading.Event()

    def source() -> Iterator[int]:
        try:
            n = 0
            while True:
                yield n
                n += 1
        finally:
            closed.set()

    for item in prefetch(source(), 2):
        if item == 5:
            break
    assert closed.is_set()
    assert not threads()
    closed.clear()
    ahead = prefetch(source(), 2)
    assert next(ahead) == 0
    ahead.close()
    assert closed.is_set()
    assert not threads()


def test_a_depth_below_one_is_an_error() -> None:
    with pytest.raises(ValueError, match="depth 0"):
        prefetch([1], 0)
