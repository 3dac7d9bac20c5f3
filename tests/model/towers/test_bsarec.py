"""BSARec: the authors' formulas by a discrete Fourier transform, its published size, padding, and no look ahead."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from learn_spark.model.towers.bsarec import BSARec, FrequencyFilter
from learn_spark.model.towers.registry import shape_of, tower_of_shape

SMALL: dict[str, Any] = {
    "n_items": 30,
    "max_length": 8,
    "width": 12,
    "layers": 2,
    "heads": 3,
    "ffn": 20,
    "dropout": 0.2,
    "alpha": 0.7,
    "c": 3,
}


def tower(**change: Any) -> BSARec:
    """A small tower at inference whose weights are large enough for every path to show."""
    torch.manual_seed(0)
    made = BSARec(**(SMALL | change))
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
        made.embedding.weight[0] = 0.0
    return made.eval()


def low_pass(values: Tensor, frequencies: int) -> Tensor:
    """``values`` [window, D] without their higher frequencies."""
    spectrum = torch.fft.rfft(values, dim=0, norm="ortho")
    spectrum[frequencies:] = 0
    return torch.fft.irfft(spectrum, n=len(values), dim=0, norm="ortho")


def by_formula(made: BSARec, row: Tensor) -> Tensor:
    """The user vector after a row of ``max_length`` events, by section 4 of the paper."""
    length, heads = len(row), SMALL["heads"]
    x = made.norm(made.embedding(row) + made.position(torch.arange(length - 1, -1, -1)))
    for block in made.blocks:
        low = low_pass(x, SMALL["c"] // 2 + 1)
        filtered = block.filter.norm(x + low + block.filter.beta**2 * (x - low))
        query, key, value = (part.view(length, heads, -1).transpose(0, 1) for part in block.qkv(x).chunk(3, dim=1))
        scores = query @ key.transpose(1, 2) / (x.shape[1] // heads) ** 0.5
        scores = scores.masked_fill(torch.ones(length, length).triu(1).bool(), -torch.inf)
        attended = block.attention_output((scores.softmax(-1) @ value).transpose(0, 1).flatten(1))
        mixed = 0.7 * filtered + 0.3 * block.attention_norm(x + attended)
        x = block.ffn_norm(mixed + block.ffn_output(F.gelu(block.ffn_input(mixed))))
    return x[-1]


@torch.no_grad()
def test_a_whole_window_by_the_papers_formulas() -> None:
    made, row = tower(), torch.randint(1, 31, (8,))
    assert torch.allclose(made.user_last(row[None], torch.tensor([8]))[0], by_formula(made, row), atol=1e-5)


def test_the_published_number_of_parameters() -> None:
    """The authors' log of Beauty: 12,101 items, 64 wide, 2 layers, feed-forward 256."""
    made = BSARec(n_items=12_101, max_length=50, width=64, layers=2, heads=1, ffn=256, dropout=0.5, alpha=0.7, c=5)
    assert made.parameter_count() == 878_208


@torch.no_grad()
def test_a_shorter_row_is_filtered_as_the_whole_window_with_zeros() -> None:
    torch.manual_seed(3)
    layer = FrequencyFilter(width=4, length=9, frequencies=2, dropout=0.0)
    row = torch.randn(5, 4)
    window = torch.cat([torch.zeros(4, 4), row])  # the authors pad on the left
    low = low_pass(window, 2)
    expected = layer.norm(window + low + layer.beta**2 * (window - low))[4:]
    assert torch.allclose(layer(row[None])[0], expected, atol=1e-5)
    assert not torch.allclose(low_pass(row, 2), low[4:], atol=1e-2)


@torch.no_grad()
@pytest.mark.parametrize("positions", ["first", "last"])
def test_vectors_depend_on_their_own_prefix_alone(positions: str) -> None:
    made = tower(positions=positions)
    rows = torch.tensor([[3, 5, 7, 9, 2, 0], [4, 4, 1, 0, 0, 0]])
    lengths = torch.tensor([5, 3])
    last = made.user_last(rows, lengths)
    padded = made.user_last(F.pad(rows, (0, 2)), lengths)
    assert torch.allclose(last, padded, atol=1e-6)
    assert torch.allclose(made.user_last(rows[1:, :3], lengths[1:]), last[1:], atol=1e-6)
    every = made.user(rows)
    for event in range(1, 6):
        alone = made.user_last(rows[:1, :event], torch.tensor([event]))
        assert torch.allclose(every[0, event - 1], alone[0], atol=1e-6)
    assert torch.allclose(every[1, 2], last[1], atol=1e-6)
    # Positions count from the last event, so that the same events later in a row are another history.
    assert not torch.allclose(made.user_last(rows[:1, :4], torch.tensor([4])), last[:1], atol=1e-2)


@torch.no_grad()
def test_it_is_rebuilt_from_its_shape() -> None:
    made = tower(similarity="cosine")
    again = tower_of_shape(shape_of(made))
    again.load_state_dict(made.state_dict())
    rows, lengths = torch.tensor([[3, 5, 7]]), torch.tensor([3])
    assert torch.equal(again.eval().user_last(rows, lengths), made.user_last(rows, lengths))
    assert made.user_last(rows, lengths).norm() == pytest.approx(1.0, abs=1e-6)
    assert torch.equal(made.items(torch.tensor([0])), torch.zeros(1, 12))


def test_contradictory_arguments_are_refused() -> None:
    for change in ({"alpha": 1.5}, {"c": 0}, {"heads": 5}, {"similarity": "near"}):
        with pytest.raises(ValueError, match=next(iter(change))):
            tower(**change)
    with pytest.raises(ValueError, match="8 positions"):
        tower().user(torch.ones(1, 9, dtype=torch.int64))
