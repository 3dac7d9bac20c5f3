"""The next-item losses against slow loops and plain autograd, by hand, and changes that must leave them unchanged."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from learn_spark.model.objectives.softmax import full_softmax_loss, sampled_softmax_loss

KINDS = ["shared", "per position"]


def _batch(seed: int, kind: str, positions: int = 6, negatives: int = 5, width: int = 4) -> dict[str, Any]:
    """Random vectors in float64; few ids, so that a negative is often the positive."""
    generator = torch.Generator().manual_seed(seed)
    size = (negatives,) if kind == "shared" else (positions, negatives)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    return {
        "user": normal(positions, width),
        "positive": normal(positions, width),
        "negative": normal(*size, width),
        "positive_ids": torch.randint(1, 6, (positions,), generator=generator),
        "negative_ids": torch.randint(1, 6, size, generator=generator),
        "log_q_positive": normal(positions),
        "log_q_negative": normal(*size),
        "weight": torch.rand(positions, generator=generator, dtype=torch.float64),
    }


def slow_sampled_softmax(batch: dict[str, Any], temperature: float) -> float:
    """The formula term by term."""
    total, weights = 0.0, 0.0
    positions = len(batch["user"])
    for i in range(positions):
        user, weight = batch["user"][i], float(batch["weight"][i]) if "weight" in batch else 1.0
        q_of_positive = float(batch["log_q_positive"][i]) if "log_q_positive" in batch else 0.0
        positive = math.exp(float(user @ batch["positive"][i]) / temperature - q_of_positive)
        against = 0.0
        for k in range(batch["negative_ids"].shape[-1]):
            at = (k,) if batch["negative_ids"].dim() == 1 else (i, k)
            if batch["negative_ids"][at] == batch["positive_ids"][i]:
                continue
            q = float(batch["log_q_negative"][at]) if "log_q_negative" in batch else 0.0
            against += math.exp(float(user @ batch["negative"][at]) / temperature - q)
        total -= weight * math.log(positive / (positive + against))
        weights += weight
    return total / weights


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("given", [(), ("log_q_negative",), ("log_q_positive", "log_q_negative"), ("weight",)])
@pytest.mark.parametrize("seed", range(4))
def test_sampled_softmax_agrees_with_the_formula(seed: int, given: tuple[str, ...], kind: str) -> None:
    batch = _batch(seed, kind)
    for name in {"log_q_positive", "log_q_negative", "weight"} - set(given):
        del batch[name]
    for temperature in (1.0, 0.2):
        actual = sampled_softmax_loss(**batch, temperature=temperature)
        assert actual.shape == ()
        assert float(actual) == pytest.approx(slow_sampled_softmax(batch, temperature), abs=1e-9)


def test_sampled_softmax_by_hand() -> None:
    # Scores: positive 2, negatives 0 and 1; the third negative is the positive itself.
    user = torch.tensor([[1.0, 0.0]])
    negative = torch.tensor([[0.0, 5.0], [1.0, 0.0], [9.0, 9.0]])
    actual = sampled_softmax_loss(
        user, torch.tensor([[2.0, 7.0]]), negative, torch.tensor([4]), torch.tensor([1, 2, 4]), temperature=1.0
    )
    assert float(actual) == pytest.approx(math.log(1 + math.exp(-2) + math.exp(-1)), abs=1e-6)
    # A draw of item 1 has the probability 1/2, of item 2 1/4: e^0 counts twice, e^1 four times.
    log_q = torch.log(torch.tensor([0.5, 0.25, 0.25]))
    corrected = sampled_softmax_loss(
        user,
        torch.tensor([[2.0, 7.0]]),
        negative,
        torch.tensor([4]),
        torch.tensor([1, 2, 4]),
        temperature=1.0,
        log_q_negative=log_q,
    )
    assert float(corrected) == pytest.approx(math.log(1 + 2 * math.exp(-2) + 4 * math.exp(-1)), abs=1e-6)


def test_log_q_of_expected_counts_makes_sampled_softmax_the_full_one_on_average() -> None:
    """Khrylchenko et al. 2025: negatives by q without the positive, log(M q) taken off, the positive as it is."""
    generator = torch.Generator().manual_seed(0)
    items = torch.randn(20, 4, generator=generator, dtype=torch.float64)
    user = torch.randn(1, 4, generator=generator, dtype=torch.float64)
    q = torch.rand(20, generator=generator, dtype=torch.float64) + 0.2
    q[3] = 0.0
    q /= q.sum()
    exact = F.cross_entropy(user @ items.T, torch.tensor([3]))
    drawn = torch.multinomial(q, 60_000, replacement=True, generator=generator)
    actual = sampled_softmax_loss(
        user,
        items[[3]],
        items[drawn],
        torch.tensor([3]),
        drawn,
        temperature=1.0,
        log_q_negative=torch.log(q[drawn] * len(drawn)),
    )
    assert float(actual) == pytest.approx(float(exact), abs=0.01)
    biased = sampled_softmax_loss(
        user,
        items[[3]],
        items[drawn],
        torch.tensor([3]),
        drawn,
        temperature=1.0,
        log_q_negative=torch.full((len(drawn),), math.log(len(drawn) / 19), dtype=torch.float64),
    )
    assert abs(float(biased) - float(exact)) > 0.05


@pytest.mark.parametrize("kind", KINDS)
def test_sampled_softmax_gradient_is_that_of_finite_differences(kind: str) -> None:
    batch = _batch(2, kind)
    temperature = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    names = ("user", "positive", "negative")
    rest = {name: value for name, value in batch.items() if name not in names}
    assert torch.autograd.gradcheck(
        lambda u, p, n, t: sampled_softmax_loss(u, p, n, temperature=t, **rest),
        (*(batch[name].requires_grad_() for name in names), temperature),
    )


def test_a_position_whose_negatives_are_all_its_positive_gives_zero_with_a_finite_gradient() -> None:
    batch = _batch(0, "shared")
    batch["positive_ids"][:], batch["negative_ids"][:] = 3, 3
    tensors = [batch[name].requires_grad_() for name in ("user", "positive", "negative")]
    loss = sampled_softmax_loss(**batch, temperature=0.1)
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert all(torch.isfinite(tensor.grad).all() for tensor in tensors)


def test_mixed_negatives_are_the_concatenation() -> None:
    one, other = _batch(0, "shared"), _batch(1, "shared", negatives=3)
    mixed = dict(one)
    for name in ("negative", "negative_ids", "log_q_negative"):
        mixed[name] = torch.cat([one[name], other[name]])
    wide = dict(mixed)
    for name in ("negative", "negative_ids", "log_q_negative"):
        wide[name] = mixed[name].expand(6, *mixed[name].shape)
    assert float(sampled_softmax_loss(**mixed, temperature=0.5)) == pytest.approx(slow_sampled_softmax(mixed, 0.5))
    assert float(sampled_softmax_loss(**wide, temperature=0.5)) == pytest.approx(slow_sampled_softmax(mixed, 0.5))


def test_half_precision_is_summed_in_single() -> None:
    batch = _batch(0, "shared")
    single = {name: value.float() if value.is_floating_point() else value for name, value in batch.items()}
    half = {
        name: value.bfloat16() if name in ("user", "positive", "negative") else value for name, value in single.items()
    }
    actual = sampled_softmax_loss(**half, temperature=1.0)
    assert actual.dtype == torch.float32
    assert float(actual) == pytest.approx(float(sampled_softmax_loss(**single, temperature=1.0)), abs=0.05)


def _catalogue(seed: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    user = torch.randn(23, 5, generator=generator, dtype=torch.float64).to(dtype)
    catalogue = torch.randn(40, 5, generator=generator, dtype=torch.float64).to(dtype)
    positive = torch.randint(0, 40, (23,), generator=generator)
    positive[1] = positive[0]
    return user, catalogue, positive, torch.rand(23, generator=generator, dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("chunk", [1, 7, 23, 1000, None])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("biased", [False, True])
def test_full_softmax_is_the_cross_entropy_with_its_gradients(chunk: int | None, weighted: bool, biased: bool) -> None:
    user, catalogue, positive, weight = _catalogue(0)
    bias = torch.linspace(-3.0, 1.0, 40, dtype=torch.float64) if biased else None
    gradients = []
    losses = []
    for ours in (True, False):
        leaves = [user.clone(), catalogue.clone(), torch.tensor(0.3, dtype=torch.float64)]
        leaves = [leaf.requires_grad_() for leaf in leaves]
        u, c, t = leaves
        if ours:
            used = weight if weighted else None
            loss = full_softmax_loss(u, c, positive, temperature=t, weight=used, bias=bias, chunk=chunk)
        else:
            scores = u @ c.T / t if bias is None else u @ c.T / t + bias
            terms = F.cross_entropy(scores, positive, reduction="none")
            loss = (terms * weight).sum() / weight.sum() if weighted else terms.mean()
        (3.0 * loss).backward()
        gradients.append([leaf.grad for leaf in leaves])
        losses.append(float(loss.detach()))
    assert losses[0] == pytest.approx(losses[1], abs=1e-12)
    for actual, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(actual, expected, rtol=0, atol=1e-12)


def test_full_softmax_is_the_sampled_one_with_all_items_as_negatives() -> None:
    user, catalogue, positive, _ = _catalogue(1)
    ids = torch.arange(40)
    full = full_softmax_loss(user, catalogue, positive, temperature=0.5)
    sampled = sampled_softmax_loss(user, catalogue[positive], catalogue, positive, ids, temperature=0.5)
    assert float(full) == pytest.approx(float(sampled), rel=1e-12)


@pytest.mark.parametrize("argument", [0, 1, 2])
def test_full_softmax_gives_each_gradient_independently(argument: int) -> None:
    user, catalogue, positive, _ = _catalogue(2)
    values = [user, catalogue, torch.tensor(0.3, dtype=torch.float64)]
    expected = [value.clone().requires_grad_() for value in values]
    F.cross_entropy(expected[0] @ expected[1].T / expected[2], positive).backward()
    values[argument] = values[argument].clone().requires_grad_()
    full_softmax_loss(values[0], values[1], positive, temperature=values[2]).backward()
    for index, (value, leaf) in enumerate(zip(values, expected, strict=True)):
        if index == argument:
            torch.testing.assert_close(value.grad, leaf.grad, rtol=0, atol=1e-12)
        else:
            assert value.grad is None


def test_full_softmax_backward_continues_into_its_inputs() -> None:
    user, _, positive, _ = _catalogue(3)
    layer = torch.nn.Linear(5, 5, dtype=torch.float64)
    table = torch.nn.Embedding(40, 5, dtype=torch.float64)
    results = []
    for ours in (True, False):
        layer.zero_grad(), table.zero_grad()
        u, c = F.normalize(layer(user), dim=1), F.normalize(table.weight, dim=1)
        loss = full_softmax_loss(u, c, positive, temperature=0.1) if ours else F.cross_entropy(u @ c.T / 0.1, positive)
        loss.backward()
        results.append([parameter.grad.clone() for parameter in (layer.weight, table.weight)])  # type: ignore[union-attr]
    for actual, expected in zip(*results, strict=True):
        torch.testing.assert_close(actual, expected, rtol=0, atol=1e-12)


def test_full_softmax_without_gradients_and_in_half_precision() -> None:
    user, catalogue, positive, _ = _catalogue(4, torch.float32)
    exact = F.cross_entropy(user @ catalogue.T / 0.5, positive)
    user.requires_grad_(), catalogue.requires_grad_()
    with torch.no_grad():
        actual = full_softmax_loss(user, catalogue, positive, temperature=0.5)
    assert not actual.requires_grad
    assert float(actual) == pytest.approx(float(exact), abs=1e-6)
    half = user.detach().bfloat16().requires_grad_()
    loss = full_softmax_loss(half, catalogue, positive, temperature=0.5)
    loss.backward()
    assert loss.dtype == torch.float32
    assert half.grad is not None
    assert half.grad.dtype == torch.bfloat16
    assert float(loss.detach()) == pytest.approx(float(exact), abs=0.05)


@pytest.mark.parametrize("chunk", [7, None])
def test_full_softmax_under_autocast_multiplies_in_half_and_sums_in_single(chunk: int | None) -> None:
    generator = torch.Generator().manual_seed(5)
    user = F.normalize(torch.randn(70, 64, generator=generator), dim=1)
    catalogue = F.normalize(torch.randn(3000, 64, generator=generator), dim=1)
    positive = torch.randint(0, 3000, (70,), generator=generator)
    results = []
    for half in (False, True):
        leaves = [leaf.clone().requires_grad_() for leaf in (user, catalogue, torch.tensor(0.07))]
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
            loss = full_softmax_loss(leaves[0], leaves[1], positive, temperature=leaves[2], chunk=chunk)
        loss.backward()
        assert loss.dtype == torch.float32
        assert all(leaf.grad is not None and leaf.grad.dtype == torch.float32 for leaf in leaves)
        results.append((float(loss.detach()), [leaf.grad for leaf in leaves]))
    (exact, exact_gradients), (loss_in_half, gradients) = results
    assert loss_in_half == pytest.approx(exact, rel=2e-3)
    assert loss_in_half != exact
    for near, true in zip(gradients, exact_gradients, strict=True):
        assert float((near - true).norm() / true.norm()) < 0.01  # bfloat16 has eight bits: 0.4 %


def test_full_softmax_neither_overflows_nor_loses_an_unlikely_positive() -> None:
    user = torch.tensor([[1.0, 0.0]], requires_grad=True)
    catalogue = torch.tensor([[500.0, 0.0], [-500.0, 0.0]])
    loss = full_softmax_loss(user, catalogue, torch.tensor([1]), temperature=0.5)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(2000.0)
    torch.testing.assert_close(user.grad, torch.tensor([[2000.0, 0.0]]))


def test_full_softmax_refuses_a_second_derivative() -> None:
    user, catalogue, positive, _ = _catalogue(5)
    user.requires_grad_()
    loss = full_softmax_loss(user, catalogue, positive, temperature=0.5)
    (first,) = torch.autograd.grad(loss * loss, user, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


def test_nothing_to_learn_from_gives_zero() -> None:
    empty, ids = torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64)
    items = torch.randn(3, 4, requires_grad=True)
    sampled = sampled_softmax_loss(empty, empty, items, ids, torch.arange(3), temperature=1.0)
    full = full_softmax_loss(empty, items, ids, temperature=1.0)
    (sampled + full).backward()
    assert float(sampled.detach()) == float(full.detach()) == 0.0
    assert items.grad is not None
    assert not items.grad.any()


def test_arguments_that_do_not_fit_are_an_error() -> None:
    batch = _batch(0, "shared")
    with pytest.raises(ValueError, match=r"negative_ids has the shape \(4,\), expected \(5,\) for user \(6, 4\)"):
        sampled_softmax_loss(**(batch | {"negative_ids": batch["negative_ids"][:4]}), temperature=1.0)
    with pytest.raises(ValueError, match=r"log_q_positive has the shape \(5,\), expected \(6,\)"):
        sampled_softmax_loss(**(batch | {"log_q_positive": batch["log_q_positive"][:5]}), temperature=1.0)
    with pytest.raises(ValueError, match=r"negative has the shape \(5, 3\), expected \(5, 4\)"):
        sampled_softmax_loss(**(batch | {"negative": batch["negative"][:, :3]}), temperature=1.0)
    with pytest.raises(ValueError, match=r"temperature 0\.0 must be above 0"):
        sampled_softmax_loss(**batch, temperature=0.0)
    user, catalogue, positive, _ = _catalogue(0)
    with pytest.raises(ValueError, match=r"positive_positions are 0\.\.40, outside the catalogue\'s rows 0\.\.39"):
        full_softmax_loss(user, catalogue, torch.arange(23).clamp(max=1) * 40, temperature=1.0)
    with pytest.raises(ValueError, match="chunk 0 must be at least 1"):
        full_softmax_loss(user, catalogue, positive, temperature=1.0, chunk=0)
    with pytest.raises(ValueError, match="temperature nan must be above 0"):
        full_softmax_loss(user, catalogue, positive, temperature=torch.tensor(float("nan")))
