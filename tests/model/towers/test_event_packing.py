"""Events in packed blocks attend to their row up to themselves; packing and unpacking are inverse."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from learn_spark.model.towers.packing import Packing


def _real(lengths: list[int], width: int) -> Tensor:
    return torch.arange(width) < torch.tensor(lengths, dtype=torch.int64).view(-1, 1)


@settings(max_examples=200, deadline=None)
@given(lengths=st.lists(st.integers(0, 9), max_size=12), spare=st.integers(0, 5))
def test_each_event_sees_its_own_row_up_to_itself(lengths: list[int], spare: int) -> None:
    width = max(lengths, default=0) + spare
    real = _real(lengths, width)
    packing = Packing.of(real)
    slots = torch.arange(1, len(lengths) * width + 1).view(len(lengths), width)
    queries = packing.pack(slots * real)  # 0 in what is not an event
    keys = packing.spans(queries)
    visible = packing.visible.expand(*queries.shape, keys.shape[1])
    seen = {}
    for block, place in (queries != 0).nonzero().tolist():
        query = int(queries[block, place])
        if query in seen or (not packing.dense and block * packing.longest + place >= packing.events):
            continue  # what fills the last block
        seen[query] = keys[block][visible[block, place]].tolist()
        assert int(packing.position[block, place]) == (query - 1) % width
    expected = {}
    for row, length in enumerate(lengths):
        for at in range(length):
            expected[row * width + at + 1] = [row * width + other + 1 for other in range(at + 1)]
    assert seen == expected


@settings(max_examples=100, deadline=None)
@given(lengths=st.lists(st.integers(0, 9), max_size=12), spare=st.integers(0, 5))
def test_unpacking_restores_the_places_of_events(lengths: list[int], spare: int) -> None:
    width = max(lengths, default=0) + spare
    real = _real(lengths, width)
    packing = Packing.of(real)
    values = torch.arange(1.0, len(lengths) * width + 1).view(len(lengths), width)
    back = packing.unpack(torch.stack([packing.pack(values), -packing.pack(values)], dim=2))
    assert back.shape == (len(lengths), width, 2)
    assert torch.equal(back[real], torch.stack([values[real], -values[real]], dim=1))
    if not packing.dense:
        assert not back[~real].any()


def test_short_rows_share_blocks_and_full_ones_keep_theirs() -> None:
    mixed = Packing.of(_real([10, *[1] * 25], 50))
    assert not mixed.dense
    assert mixed.position.shape == (4, 10)  # 35 events in blocks of the longest row's 10
    assert mixed.visible.shape == (4, 10, 20)
    full = Packing.of(_real([10, 9, 10], 50))
    assert full.dense
    assert full.position.shape == (3, 10)
    assert torch.equal(full.visible, torch.ones(10, 10, dtype=torch.bool).tril())
