"""HSTU: a slow layer written from the paper, relative time, causality in items and in times, size."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from learn_spark.model.towers.hstu import HSTU, HSTUBlock, time_buckets

SECOND = 1_000_000
DAY = 86_400 * SECOND
SMALL: dict[str, Any] = {
    "n_items": 30,
    "max_length": 8,
    "width": 12,
    "layers": 2,
    "heads": 3,
    "dqk": 5,
    "dv": 4,
    "dropout": 0.2,
}


MIXED = (1, 4, 6)  # each row is a block
SHORT = (1, 2, 6, 1, 2, 1, 3)  # rows share blocks


def _tower(seed: int = 0, **change: Any) -> HSTU:
    """A small tower at inference whose weights are large enough for every path to show."""
    torch.manual_seed(seed)
    tower = HSTU(**(SMALL | change))
    with torch.no_grad():
        for name, parameter in tower.named_parameters():
            parameter.add_(torch.randn_like(parameter) * 0.5)
            if name == "embedding.weight":
                parameter[0] = 0.0
    return tower.eval()


def _histories(lengths: tuple[int, ...] = MIXED, width: int = 6) -> tuple[Tensor, Tensor]:
    items = torch.zeros(len(lengths), width, dtype=torch.int64)
    times = torch.zeros(len(lengths), width, dtype=torch.int64)
    for row, length in enumerate(lengths):
        items[row, :length] = torch.randint(1, 31, (length,))
        times[row, :length] = 1_400_000_000 * SECOND + torch.randint(0, 3000 * DAY, (length,)).sort().values
    return items, times


def _silu(x: Tensor) -> Tensor:
    return x / (1 + torch.exp(-x))


def _norm(x: Tensor) -> Tensor:
    """LayerNorm of one vector without weights."""
    return (x - x.mean()) / torch.sqrt(((x - x.mean()) ** 2).mean() + 1e-6)


def slow_block(block: HSTUBlock, hidden: Tensor, times: Tensor) -> Tensor:
    """One row [L, width], pair by pair: equations 1-3 of the paper, with rab = position + time."""
    heads, dqk, dv = block.heads, block.dqk, block.dv
    mixed = [_silu(block.uvqk.weight @ _norm(row)) for row in hidden]
    rows = []
    for i, at in enumerate(mixed):
        gate = at[: heads * dv]
        attended = []
        for head in range(heads):
            total = torch.zeros(dv, dtype=hidden.dtype)
            query = at[heads * dv + head * dqk :][:dqk]
            for j in range(i + 1):
                value, key = mixed[j][heads * (dv + dqk) + head * (dv + dqk) :][: dv + dqk].split([dv, dqk])
                seconds = abs(int(times[i]) - int(times[j])) // SECOND
                bucket = min(128, int(math.log(max(1, seconds)) / 0.301))
                bias = block.position_bias[i - j] + block.time_bias[bucket]
                total = total + _silu(query @ key + bias) / block.max_length * value
            attended.append(total)
        rows.append(hidden[i] + block.output.weight @ (gate * _norm(torch.cat(attended))) + block.output.bias)
    return torch.stack(rows)


@torch.no_grad()
@pytest.mark.parametrize("similarity", ["cosine", "dot"])
@pytest.mark.parametrize("lengths", [MIXED, SHORT])
def test_agrees_with_a_slow_tower(lengths: tuple[int, ...], similarity: str) -> None:
    tower = _tower(similarity=similarity).double()
    items, times = _histories(lengths)
    actual = tower.user(items, times)
    for row, length in enumerate(lengths):
        hidden = tower.embedding.weight[items[row, :length]] * math.sqrt(12) + tower.position.weight[:length]
        for block in tower.blocks:
            assert isinstance(block, HSTUBlock)
            hidden = slow_block(block, hidden, times[row])
        for i in range(length):
            last = hidden[i]
            if similarity == "dot":
                spread = torch.sqrt(((last - last.mean()) ** 2).mean() + 1e-5)
                last = (last - last.mean()) / spread * tower.norm.weight + tower.norm.bias
            else:
                last = last / last.norm()
            torch.testing.assert_close(actual[row, i], last, rtol=0, atol=1e-9)


def test_buckets_by_hand() -> None:
    apart = [0, 1, 1, 2, 3600, 86_400, 365 * 86_400]  # seconds before the last event
    times = torch.tensor([[(10**9 - seconds) * SECOND + SECOND // 2 for seconds in apart]])
    # ln 2 / 0.301 = 2.30, ln 3600 / 0.301 = 27.2, ln 86400 / 0.301 = 37.8, ln 31536000 / 0.301 = 57.4
    assert time_buckets(times, times)[0, 0].tolist() == [0, 0, 0, 2, 27, 37, 57]
    assert torch.equal(time_buckets(times, times), time_buckets(times, times).transpose(1, 2))
    half = torch.tensor([[0, SECOND - 1, 2 * SECOND - 1]])  # parts of a second don't count
    assert time_buckets(half, half)[0, 0].tolist() == [0, 0, 0]
    # Half of what int64 microseconds span is 9.2e12 s: ln / 0.301 = 99.2.
    assert time_buckets(torch.tensor([[-(2**62)]]), torch.tensor([[2**62 - 1]])).item() == 99


def test_size_is_that_of_metas_books_shape() -> None:
    # generative-recommenders' HSTU on Amazon Books: 64-d, 4 blocks, 4 heads, dqk = dv = 16, 50 events.
    with torch.device("meta"):
        tower = HSTU(n_items=695_762, max_length=50, width=64, layers=4, heads=4, dqk=16, dv=16, dropout=0.5)
    block = 64 * (2 * 64 + 2 * 64) + (64 * 64 + 64) + 129 + 50  # U, V, Q, K; output; time and position biases
    assert tower.parameter_count() == 695_763 * 64 + 50 * 64 + 4 * block == 44_614_924
    with torch.device("meta"):
        dot = HSTU(**(tower.to_dict() | {"similarity": "dot"}))
    assert dot.parameter_count() - tower.parameter_count() == 2 * 64


def test_later_events_never_reach_earlier_vectors_and_earlier_ones_do() -> None:
    tower = _tower()
    items, times = torch.randint(1, 15, (3, 7)), torch.arange(7).expand(3, 7) * DAY
    before = tower.user(items, times)
    for changed in range(7):
        other = items.clone()
        other[:, changed] += 15
        after = tower.user(other, times)
        torch.testing.assert_close(after[:, :changed], before[:, :changed], rtol=0, atol=1e-6)
        assert ((after[:, changed:] - before[:, changed:]).abs().amax(dim=2) > 1e-3).all()


def test_later_times_never_reach_earlier_vectors_and_earlier_ones_do() -> None:
    tower = _tower()
    items, times = torch.randint(1, 31, (3, 7)), torch.arange(7).expand(3, 7) * DAY
    before = tower.user(items, times)
    for changed in range(1, 7):
        other = times.clone()
        other[:, changed:] += 1000 * DAY  # the target's time among them
        after = tower.user(items, other)
        torch.testing.assert_close(after[:, :changed], before[:, :changed], rtol=0, atol=1e-6)
        assert ((after[:, changed:] - before[:, changed:]).abs().amax(dim=2) > 1e-4).all()


def test_only_differences_of_times_matter() -> None:
    tower = _tower()
    items, times = _histories()
    real = items != 0
    before = tower.user(items, times)[real]
    for shift in (1, 12_345 * SECOND, -3000 * DAY):
        assert torch.equal(tower.user(items, times + shift)[real], before)
    assert not torch.allclose(tower.user(items, times * 3)[real], before, atol=1e-4)


@pytest.mark.parametrize("lengths", [MIXED, SHORT])
def test_padding_does_not_matter(lengths: tuple[int, ...]) -> None:
    tower = _tower()
    items, times = _histories(lengths)
    real = items != 0
    single = [
        tower.user(items[row : row + 1, :length], times[row : row + 1, :length])[0]
        for row, length in enumerate(lengths)
    ]
    longer = torch.cat([items, torch.zeros(len(items), 40, dtype=torch.int64)], dim=1)
    actual = tower.user(longer, torch.cat([times, torch.full((len(items), 40), 7 * DAY)], dim=1))
    assert actual.shape == (len(items), 46, 12)
    assert not actual[:, 6:].any()
    torch.testing.assert_close(actual[:, :6][real], torch.cat(single), rtol=0, atol=1e-6)
    tower.embedding.weight.data[0] = 100.0
    dirty = times.masked_fill(~real, 2**61)
    torch.testing.assert_close(tower.user(items, dirty)[real], torch.cat(single), rtol=0, atol=1e-6)


def test_user_last_is_the_vector_after_the_last_event() -> None:
    tower = _tower()
    items, times = _histories()
    last = tower.user_last(items, torch.tensor([1, 4, 6]), times)
    torch.testing.assert_close(last, tower.user(items, times)[torch.arange(3), torch.tensor([0, 3, 5])])
    torch.testing.assert_close(last.norm(dim=1), torch.ones(3))


def test_gradient_reaches_every_parameter_but_the_padding_row() -> None:
    tower = _tower(n_items=6)
    items = torch.tensor([[1, 2, 3, 4, 5, 6, 1, 2], [3, 1, 0, 0, 0, 0, 0, 0]])
    times = torch.arange(8).expand(2, 8) ** 3 * DAY
    (tower.user(items, times)[items != 0] * torch.randn(10, 12)).sum().backward()
    for name, parameter in tower.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name
    assert tower.embedding.weight.grad is not None
    assert not tower.embedding.weight.grad[0].any()


def test_dropout_acts_in_training_only() -> None:
    tower = _tower()
    items, times = _histories()
    assert torch.equal(tower.user(items, times), tower.user(items, times))
    tower.train()
    assert not torch.equal(tower.user(items, times), tower.user(items, times))


def test_arguments_survive_json() -> None:
    tower = _tower(similarity="dot")
    again = HSTU(**json.loads(json.dumps(tower.to_dict())))
    again.load_state_dict(tower.state_dict())
    items, times = _histories()
    assert torch.equal(again.eval().user(items, times), tower.user(items, times))
    assert again.to_dict() == tower.to_dict()


def test_empty_batches_have_empty_vectors() -> None:
    tower = _tower()
    for shape in ((0, 5), (2, 5), (2, 0)):
        nothing = torch.zeros(shape, dtype=torch.int64)
        assert tower.user(nothing, nothing).shape == (*shape, 12)


def test_refuses_missing_times_and_contradictory_arguments() -> None:
    tower = _tower()
    with pytest.raises(ValueError, match="hstu needs times"):
        tower.user(torch.ones(2, 4, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"expected times of the items' shape \[2, 4\], got \[2, 3\]"):
        tower.user(torch.ones(2, 4, dtype=torch.int64), torch.ones(2, 3, dtype=torch.int64))
    for name in ("layers", "heads", "dqk", "dv", "width"):
        with pytest.raises(ValueError, match=f"{name} 0 must be at least 1"):
            HSTU(**(SMALL | {name: 0}))
