"""An ensemble of LEARN+ towers: one inner product for the mean of the members, and each member trained by itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from learn_spark.core.settings.tower import LearnPlusTowerSettings
from learn_spark.core.settings.training import ObjectiveSettings
from learn_spark.model.towers.learn_plus import LearnPlus
from learn_spark.model.towers.learn_plus_members import LearnPlusMembers
from learn_spark.model.towers.registry import shape_of, tower_of_settings, tower_of_shape
from learn_spark.model.training.batches import NextItemBatch
from learn_spark.model.training.objective import ObjectiveLoss
from learn_spark.model.training.process_group import ProcessGroup

N, C, MEMBERS = 12, 5, 3
SMALL: dict[str, Any] = {
    "n_items": N,
    "content_dim": C,
    "max_length": 6,
    "width": 8,
    "layers": 1,
    "heads": 2,
    "ffn": 16,
    "dropout": 0.0,
}
ITEMS = torch.tensor([[3, 1, 7, 2], [5, 9, 0, 0], [4, 4, 6, 0]])
LENGTHS = torch.tensor([4, 2, 3])


@pytest.fixture
def content() -> np.ndarray:
    matrix = np.random.default_rng(0).normal(size=(N + 1, C)).astype(np.float32)
    matrix[0] = 0.0
    return matrix


def _ensemble(content: np.ndarray, **change: Any) -> LearnPlusMembers:
    torch.manual_seed(4)
    tower = LearnPlusMembers(members=MEMBERS, **(SMALL | change))
    with torch.no_grad():
        for table in tower.id_tables:
            torch.nn.init.normal_(table.weight[1:])
    tower.bind(content)
    return tower


@pytest.fixture
def ensemble(content: np.ndarray) -> LearnPlusMembers:
    return _ensemble(content)


@pytest.mark.parametrize("similarity", ["cosine", "dot"])
def test_an_inner_product_is_the_mean_of_the_members_similarities(content: np.ndarray, similarity: str) -> None:
    ensemble, every = _ensemble(content, similarity=similarity), torch.arange(1, N + 1)
    assert ensemble.normalised == (similarity == "cosine")
    users, items = ensemble.user_last(ITEMS, LENGTHS), ensemble.items(every)
    assert users.shape == (3, MEMBERS * 8)
    assert items.shape == (N, MEMBERS * 8)
    assert ensemble.output_dim == MEMBERS * 8
    if ensemble.normalised:
        torch.testing.assert_close(users.norm(dim=1), torch.ones(3))
        torch.testing.assert_close(items.norm(dim=1), torch.ones(N))
    each = torch.stack([m.user_last(ITEMS, LENGTHS) @ m.items(every).T for m in ensemble.towers()])
    assert float((each[0] - each[1]).detach().abs().max()) > 0.1  # the members differ
    torch.testing.assert_close(users @ items.T, each.mean(dim=0))


def test_newer_items_are_bound_in_turns_of_any_size(ensemble: LearnPlusMembers, content: np.ndarray) -> None:
    """As new_items does it: known items, and another number of newer ones each time."""
    chance, vectors = np.random.default_rng(3), []
    newer = chance.normal(size=(3, content.shape[1])).astype(content.dtype)
    for rows in (newer, newer[:1]):
        ensemble.n_items = N
        ensemble.bind(np.concatenate([content, rows]))
        vectors.append(ensemble.items(torch.arange(N + 1, N + 1 + len(rows))))
    torch.testing.assert_close(vectors[1], vectors[0][:1])


def test_it_is_made_again_from_its_shape_and_from_settings(ensemble: LearnPlusMembers, content: np.ndarray) -> None:
    again = tower_of_shape(shape_of(ensemble))
    assert isinstance(again, LearnPlusMembers)
    again.load_state_dict(ensemble.state_dict())
    again.bind(content)
    assert torch.equal(again.user(ITEMS), ensemble.user(ITEMS))
    sizes = {"width": 8, "layers": 1, "heads": 2, "ffn": 16}
    made = [
        tower_of_settings(
            LearnPlusTowerSettings(**sizes, members=members), ObjectiveSettings(), n_items=N, content_dim=C
        )
        for members in (1, 2)
    ]
    assert [type(tower) for tower in made] == [LearnPlus, LearnPlusMembers]
    assert made[1].output_dim == 16
    with pytest.raises(ValueError, match="members 0"):
        LearnPlusMembers(members=0, **SMALL)


@pytest.mark.parametrize("prefixes", [False, True])
def test_each_member_learns_as_if_it_were_alone(ensemble: LearnPlusMembers, prefixes: bool) -> None:
    settings = ObjectiveSettings(predicts="next_item", negatives="full", prefixes=prefixes, learn_temperature=True)
    inside = torch.arange(4) < LENGTHS.unsqueeze(1)
    valid = torch.arange(4) == LENGTHS.unsqueeze(1) - 1 if prefixes else inside
    following = torch.arange(1, 1 + int(valid.sum()))
    batch = NextItemBatch(items=ITEMS, times=None, negatives=None, valid=valid, following=following, weight=None)

    def gradients(tower: LearnPlus | LearnPlusMembers) -> tuple[dict[str, torch.Tensor], torch.Tensor, float]:
        tower.zero_grad()
        loss = ObjectiveLoss(settings, log_q=None, group=ProcessGroup())
        total, pairs = loss(tower, batch)
        assert int(pairs) == len(following)
        (total / pairs).backward()
        assert loss.log_temperature is not None
        assert loss.log_temperature.grad is not None
        named = {name: p.grad.clone() for name, p in tower.named_parameters() if p.grad is not None}
        return named, loss.log_temperature.grad, float(total.detach())

    together, temperature, total = gradients(ensemble)
    alone = [gradients(member) for member in ensemble.towers()]
    assert len(together) == sum(len(named) for named, _, _ in alone) > 0
    for number, (named, _, _) in enumerate(alone):
        for name, gradient in named.items():
            torch.testing.assert_close(together[f"members.{number}.{name}"], gradient)
    torch.testing.assert_close(temperature, torch.stack([one for _, one, _ in alone]).sum())
    assert total == pytest.approx(sum(value for _, _, value in alone), rel=1e-5)
