"""The dense all-action loss against a slow loop written from the formula, and changes that must leave it unchanged."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from learn_spark.model.objectives.dense_all_action import dense_all_action_loss

Batch = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


def _batch(seed: int, users: int = 5, history: int = 4, targets: int = 3, width: int = 8, ids: int = 10) -> Batch:
    """Random unit vectors; few ids, so that users share targets; some positions of each side masked."""
    generator = torch.Generator().manual_seed(seed)
    user = torch.randn(users, history, width, generator=generator, dtype=torch.float64)
    item = torch.randn(users, targets, width, generator=generator, dtype=torch.float64)
    user_mask = torch.rand(users, history, generator=generator) < 0.7
    item_mask = torch.rand(users, targets, generator=generator) < 0.7
    item_ids = torch.randint(1, ids + 1, (users, targets), generator=generator)
    normalise = torch.nn.functional.normalize
    return normalise(user, dim=-1), user_mask, normalise(item, dim=-1), item_mask, item_ids


def slow_loss(user: Tensor, user_mask: Tensor, item: Tensor, item_mask: Tensor, ids: Tensor, heat: float) -> float:
    """The formula term by term, in float64."""
    terms = []
    users, targets = item_mask.shape
    for i in range(users):
        user_targets = {int(ids[i, k]) for k in range(targets) if item_mask[i, k]}
        for j in range(user.shape[1]):
            for k in range(targets):
                if not (user_mask[i, j] and item_mask[i, k]):
                    continue
                positive = math.exp(float(user[i, j] @ item[i, k]) / heat)
                negative = 0.0
                for z in range(users):
                    for other in range(targets):
                        if z != i and item_mask[z, other] and int(ids[z, other]) not in user_targets:
                            negative += math.exp(float(user[i, j] @ item[z, other]) / heat)
                terms.append(-math.log(positive / (positive + negative)))
    return sum(terms) / len(terms) if terms else 0.0


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("temperature", [1.0, 0.1])
def test_agrees_with_the_formula(seed: int, temperature: float) -> None:
    batch = _batch(seed)
    actual = dense_all_action_loss(*batch, temperature=temperature)
    assert actual.shape == ()
    assert float(actual) == pytest.approx(slow_loss(*batch, temperature), abs=1e-7)
    single = dense_all_action_loss(
        batch[0].float(), batch[1], batch[2].float(), batch[3], batch[4], temperature=temperature
    )
    assert single.dtype == torch.float32
    assert float(single) == pytest.approx(float(actual), rel=1e-4)


def test_two_users_by_hand() -> None:
    # Each user's vector equals its target's and is orthogonal to the other's: -log(e / (e + 1)).
    vectors = torch.eye(2).unsqueeze(1)  # [2, 1, 2]
    ones = torch.ones(2, 1, dtype=torch.bool)
    actual = dense_all_action_loss(vectors, ones, vectors, ones, torch.tensor([[7], [8]]), temperature=1.0)
    assert float(actual) == pytest.approx(math.log(1 + math.exp(-1)), abs=1e-6)


def _full(seed: int) -> Batch:
    user, user_mask, item, item_mask, _ = _batch(seed)
    ids = torch.arange(1, item_mask.numel() + 1).view(item_mask.shape)
    return user, torch.ones_like(user_mask), item, torch.ones_like(item_mask), ids


def test_the_same_item_at_another_user_is_no_negative() -> None:
    user, user_mask, item, item_mask, ids = _full(0)
    ids[1, 0] = ids[0, 2]  # user 1 has an item of user 0 among its targets
    # Put it where it would change user 0's loss most. User 1's terms change, so only user 0 is checked.
    only_first = torch.zeros_like(user_mask)
    only_first[0] = True
    before = dense_all_action_loss(user, only_first, item, item_mask, ids, temperature=0.1)
    moved = item.clone()
    moved[1, 0] = user[0, 0]
    after = dense_all_action_loss(user, only_first, moved, item_mask, ids, temperature=0.1)
    assert float(after) == pytest.approx(float(before), abs=1e-12)
    ids[1, 0] = 5000  # a different item in its place is a negative
    planted = dense_all_action_loss(user, only_first, moved, item_mask, ids, temperature=0.1)
    assert float(planted) > float(before) + 0.1


def test_a_masked_target_of_the_user_excludes_no_negative() -> None:
    user, user_mask, item, item_mask, ids = _full(1)
    item_mask[0, 2] = False
    before = dense_all_action_loss(user, user_mask, item, item_mask, ids, temperature=0.1)
    ids[0, 2] = ids[1, 0]  # not sampled for user 0, so user 1's item stays its negative
    after = dense_all_action_loss(user, user_mask, item, item_mask, ids, temperature=0.1)
    assert float(after) == float(before)


@pytest.mark.parametrize("seed", range(4))
def test_masked_entries_change_nothing(seed: int) -> None:
    user, user_mask, item, item_mask, ids = _batch(seed)
    before = dense_all_action_loss(user, user_mask, item, item_mask, ids, temperature=0.1)
    other = _batch(seed + 100)
    user = torch.where(user_mask[:, :, None], user, other[0] * 50)
    item = torch.where(item_mask[:, :, None], item, other[2] * 50)
    ids = torch.where(item_mask, ids, other[4])
    after = dense_all_action_loss(user, user_mask, item, item_mask, ids, temperature=0.1)
    assert float(after) == pytest.approx(float(before), abs=1e-12)


def test_masked_entries_get_no_gradient_and_real_ones_do() -> None:
    user, user_mask, item, item_mask, _ = _batch(3)
    ids = torch.arange(item_mask.numel()).view(item_mask.shape)
    user.requires_grad_(), item.requires_grad_()
    dense_all_action_loss(user, user_mask, item, item_mask, ids, temperature=0.1).backward()
    assert user.grad is not None
    assert item.grad is not None
    assert not user.grad[~user_mask].any()
    assert not item.grad[~item_mask].any()
    served = user_mask & item_mask.any(dim=1, keepdim=True)
    assert (user.grad[served].abs().amax(dim=1) > 0).all()
    assert (item.grad[item_mask].abs().amax(dim=1) > 0).all()


def test_gradient_is_that_of_finite_differences() -> None:
    user, user_mask, item, item_mask, ids = _batch(5, users=3, history=2, targets=2, width=3)
    user_mask[:], item_mask[:] = True, True
    item_mask[2, 1] = False
    temperature = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda u, i, t: dense_all_action_loss(u, user_mask, i, item_mask, ids, temperature=t),
        (user.requires_grad_(), item.requires_grad_(), temperature),
    )


def _finite_gradients(loss: Tensor, *inputs: Tensor) -> bool:
    loss.backward()
    return all(tensor.grad is not None and bool(torch.isfinite(tensor.grad).all()) for tensor in inputs)


@pytest.mark.filterwarnings("ignore:Anomaly Detection has been enabled")
def test_a_batch_of_one_gives_zero_with_a_finite_gradient() -> None:
    user, user_mask, item, item_mask, ids = (part[:1].clone() for part in _full(0))
    user.requires_grad_(), item.requires_grad_()
    with torch.autograd.detect_anomaly():  # no NaN on the way either
        loss = dense_all_action_loss(user, user_mask, item, item_mask, ids, temperature=0.05)
        assert float(loss.detach()) == 0.0
        assert _finite_gradients(loss, user, item)


def test_a_user_without_negatives_counts_in_the_mean() -> None:
    user, user_mask, item, item_mask, ids = _full(2)
    ids[0] = torch.tensor([1, 2, 3])
    ids[1:] = torch.tensor([1, 2, 1])  # all of it user 0's too; the 3 of user 0 is a negative of the others
    user.requires_grad_(), item.requires_grad_()
    loss = dense_all_action_loss(user, user_mask, item, item_mask, ids, temperature=0.1)
    expected = slow_loss(user.detach(), user_mask, item.detach(), item_mask, ids, 0.1)
    assert expected > 0.01
    assert float(loss.detach()) == pytest.approx(expected, abs=1e-7)
    assert _finite_gradients(loss, user, item)
    assert user.grad is not None
    assert not user.grad[0].any()
    assert user.grad[1:].any()


def test_same_targets_for_all_give_zero_with_a_finite_gradient() -> None:
    user, user_mask, item, item_mask, ids = _full(2)
    ids[:] = torch.tensor([1, 2, 3])
    user.requires_grad_(), item.requires_grad_()
    loss = dense_all_action_loss(user, user_mask, item, item_mask, ids, temperature=0.1)
    assert float(loss.detach()) == 0.0
    assert _finite_gradients(loss, user, item)


def test_nothing_valid_gives_zero_with_a_finite_gradient() -> None:
    user, user_mask, item, item_mask, ids = _full(0)
    user.requires_grad_(), item.requires_grad_()
    loss = dense_all_action_loss(user, user_mask & False, item, item_mask & False, ids, temperature=0.05)
    assert float(loss.detach()) == 0.0
    assert _finite_gradients(loss, user, item)


def test_no_overflow_at_a_small_temperature() -> None:
    user, user_mask, item, item_mask, ids = (part[:2].clone() for part in _full(4))
    user, item = user.float(), item.float()
    item[1] = user[0, 0]
    item[0] = -user[0, 0]
    only = torch.zeros_like(user_mask)
    only[0, 0] = True
    item.requires_grad_()
    loss = dense_all_action_loss(user, only, item, item_mask, ids, temperature=1e-3)
    # Three negatives at +1000, the positive at -1000.
    assert float(loss.detach()) == pytest.approx(2000 + math.log(3), rel=1e-5)
    assert _finite_gradients(loss, item)


def test_a_duplicate_target_of_one_user_counts_twice() -> None:
    user, user_mask, item, item_mask, ids = _full(6)
    ids[0, 1] = ids[0, 0]
    assert float(dense_all_action_loss(user, user_mask, item, item_mask, ids, temperature=0.3)) == pytest.approx(
        slow_loss(user, user_mask, item, item_mask, ids, 0.3), abs=1e-9
    )


def test_training_on_it_finds_the_targets() -> None:
    torch.manual_seed(0)
    user = torch.nn.Parameter(torch.randn(16, 1, 8))
    item = torch.nn.functional.normalize(torch.randn(16, 1, 8), dim=-1)
    mask, ids = torch.ones(16, 1, dtype=torch.bool), torch.arange(16).unsqueeze(1)
    optimizer = torch.optim.Adam([user], lr=0.1)
    for _ in range(100):
        optimizer.zero_grad()
        vectors = torch.nn.functional.normalize(user, dim=-1)
        dense_all_action_loss(vectors, mask, item, mask, ids, temperature=0.05).backward()
        optimizer.step()
    scores = torch.nn.functional.normalize(user, dim=-1)[:, 0] @ item[:, 0].T
    assert np.array_equal(scores.argmax(dim=1).numpy(), np.arange(16))


@pytest.mark.parametrize("temperature", [0.0, -0.1, float("nan")])
def test_refuses_a_temperature_that_is_not_positive(temperature: float) -> None:
    with pytest.raises(ValueError, match=f"temperature {temperature}"):
        dense_all_action_loss(*_full(0), temperature=temperature)
    with pytest.raises(ValueError, match="temperature"):
        dense_all_action_loss(*_full(0), temperature=torch.tensor(temperature))


def test_refuses_shapes_that_do_not_fit() -> None:
    user, user_mask, item, item_mask, ids = _full(0)
    with pytest.raises(ValueError, match=r"item_mask has the shape \(5, 2\), expected \(5, 3\)"):
        dense_all_action_loss(user, user_mask, item, item_mask[:, :2], ids, temperature=1.0)
    with pytest.raises(ValueError, match=r"item has the shape \(4, 3, 8\)"):
        dense_all_action_loss(user, user_mask, item[:4], item_mask[:4], ids[:4], temperature=1.0)


def test_the_log_q_correction_is_the_loss_on_corrected_scores() -> None:
    user, user_mask, item, item_mask, ids = _full(3)
    log_q = torch.log(torch.rand(ids.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1)))
    corrected = dense_all_action_loss(user, user_mask, item, item_mask, ids, temperature=0.5, log_q=log_q)
    # One more coordinate that is 1 in every user and -log q * temperature in the item adds -log q to each score.
    ones = torch.ones(*user.shape[:2], 1, dtype=user.dtype)
    wider = torch.cat([item, -0.5 * log_q.unsqueeze(-1)], dim=-1)
    plain = dense_all_action_loss(torch.cat([user, ones], dim=-1), user_mask, wider, item_mask, ids, temperature=0.5)
    assert float(corrected) == pytest.approx(float(plain), abs=1e-12)
    assert float(corrected) != pytest.approx(
        float(dense_all_action_loss(user, user_mask, item, item_mask, ids, temperature=0.5)), abs=1e-3
    )
    same = dense_all_action_loss(user, user_mask, item, item_mask, ids, temperature=0.5, log_q=log_q * 0 + 3.0)
    assert float(same) == pytest.approx(
        float(dense_all_action_loss(user, user_mask, item, item_mask, ids, temperature=0.5)), abs=1e-12
    )
