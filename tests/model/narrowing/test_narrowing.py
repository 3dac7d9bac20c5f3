"""Narrower vectors: the order of a user's items, the fit against the wide vectors, and what it must not read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from learn_spark.core.settings import load_settings
from learn_spark.core.settings.tower import NarrowingSettings
from learn_spark.core.tables.workspace import Workspace
from learn_spark.model.manifest import NarrowingFacts, Shape
from learn_spark.model.narrowing.fit import NarrowingError, WideVectors, _loss, _start, _unranked, fit_projections
from learn_spark.model.narrowing.projections import NarrowedTower, Projections
from learn_spark.model.store import load_model, save_model
from learn_spark.model.towers.registry import tower_of_shape
from learn_spark.model.towers.tower import Tower
from tests.model.facts import training_facts

USERS, ITEMS, WIDE = 300, 80, 24


class Fixed(Tower):
    """Given vectors: a user's is that of the last item in ``users``."""

    method = "fixed"

    def __init__(self, users: np.ndarray, items: np.ndarray, *, normalised: bool) -> None:
        super().__init__()
        self.of_user, self.of_item = (torch.from_numpy(np.float32(one)) for one in (users, items))
        self.n_items, self.output_dim, self.normalised = len(items) - 1, items.shape[1], normalised

    def user(self, items: Tensor, times: Tensor | None = None) -> Tensor:
        return self.of_user[items]

    def items(self, items: Tensor) -> Tensor:
        return self.of_item[items]

    def to_dict(self) -> Shape:
        return {}


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def wide(seed: int = 0, *, directions: int = WIDE, scale: float = 1.0) -> WideVectors:
    """Vectors of length 1 in ``directions`` of WIDE, of which the last have a fifth of the first's variance."""
    chance = np.random.default_rng(seed)
    basis = np.linalg.qr(chance.normal(size=(WIDE, WIDE)))[0][:directions]
    spread = np.linspace(1.0, scale, directions)
    users, items = (unit(chance.normal(size=(n, directions)) * spread @ basis) for n in (USERS, ITEMS))
    hidden = [np.sort(chance.choice(ITEMS, 3, replace=False)) for _ in range(USERS)]
    return WideVectors(np.float32(users), np.float32(items), np.arange(ITEMS), hidden, 0.1, True)


def narrow(given: WideVectors, made: Projections) -> tuple[np.ndarray, np.ndarray]:
    """The vectors of all users and items, by the tower."""
    rows = np.zeros((1, WIDE), np.float32)
    tower = NarrowedTower(
        Fixed(np.concatenate([rows, given.users]), np.concatenate([rows, given.items]), normalised=given.unit), made
    )
    users = tower.user_last(torch.arange(1, USERS + 1).unsqueeze(1), torch.ones(USERS, dtype=torch.int64))
    assert torch.equal(users, tower.user(torch.arange(1, USERS + 1).unsqueeze(1))[:, 0])
    items = tower.items(torch.arange(1, ITEMS + 1))
    assert users.shape[1] == items.shape[1] == tower.output_dim
    return users.numpy(), items.numpy()


def settings(width: int, **changes: int) -> NarrowingSettings:
    return NarrowingSettings(width=width, **{"steps": 60, "batch_size": 64} | changes)


def best(users: np.ndarray, items: np.ndarray, k: int = 5) -> list[set[int]]:
    return [set(row[:k].tolist()) for row in np.argsort(-(users @ items.T), axis=1)]


def shared(given: WideVectors, made: Projections) -> float:
    """The share of each user's five best items that the narrow vectors find."""
    pairs = zip(best(given.users, given.items), best(*narrow(given, made)), strict=True)
    return float(np.mean([len(ours & theirs) / 5 for ours, theirs in pairs]))


@pytest.mark.parametrize("is_unit", [True, False])
def test_vectors_that_lie_in_few_directions_lose_nothing(is_unit: bool) -> None:
    given = replace(wide(directions=6), unit=is_unit)
    made = fit_projections(given, settings(6 + is_unit, steps=200), seed=0)
    users, items = narrow(given, made)
    assert (made.width, made.wide, users.shape) == (6 + is_unit, WIDE, (USERS, 6 + is_unit))
    if is_unit:
        assert np.linalg.norm(users, axis=1) == pytest.approx(np.ones(USERS), abs=1e-5)
        assert np.linalg.norm(items, axis=1) == pytest.approx(np.ones(ITEMS), abs=1e-5)
        assert np.abs(items[:, -1]).min() == pytest.approx(0.0, abs=1e-3)  # the longest has no filler
    exact = given.users @ given.items.T
    ours = users @ items.T
    # A user's scores are those of the wide vectors but for a factor and a constant.
    for row in range(USERS):
        assert np.corrcoef(exact[row], ours[row])[0, 1] > 0.9999


def test_the_start_has_the_least_difference_of_scores() -> None:
    """Against the singular values of the matrix of scores itself (Eckart and Young 1936)."""
    given = wide(seed=3, scale=0.2)
    centre = given.items.mean(axis=0, dtype=np.float64)
    of_users, of_items = _start(given, centre, 7)
    scores = given.users.astype(np.float64) @ (given.items - centre).T
    ours = (given.users @ of_users) @ ((given.items - centre) @ of_items).T
    least = np.sqrt((np.linalg.svd(scores, compute_uv=False)[7:] ** 2).sum())
    assert np.linalg.norm(scores - ours) == pytest.approx(least, rel=1e-4)


def misleading() -> WideVectors:
    """Scores vary most among the 40 items that are nobody's best; six numbers decide the order of the other 40."""
    chance = np.random.default_rng(1)
    taste = chance.normal(size=(USERS, 6))
    users = np.concatenate([np.ones((USERS, 1)), chance.normal(size=(USERS, 6)), taste], axis=1)
    far = np.concatenate([np.full((40, 1), -20.0), 4 * chance.normal(size=(40, 6)), np.zeros((40, 6))], axis=1)
    good = np.concatenate([np.zeros((40, 7)), chance.normal(size=(40, 6))], axis=1)
    grow = ((0, 0), (0, WIDE - 13))
    users, items = (np.pad(one, grow).astype(np.float32) for one in (users, np.concatenate([far, good])))
    return WideVectors(users, items, np.arange(ITEMS), [np.zeros(0, np.int64)] * USERS, 1.0, False)


def test_the_fit_keeps_what_decides_the_order_of_the_best_items() -> None:
    given = misleading()
    start, fitted = (fit_projections(given, settings(7, steps=steps), seed=0) for steps in (0, 1000))
    assert shared(given, start) < 0.3
    assert shared(given, fitted) > 0.42
    sampled, again, other = (fit_projections(given, settings(7, steps=1000, items=30), seed=seed) for seed in (0, 0, 1))
    assert shared(given, sampled) > 0.42
    assert np.array_equal(again.users, sampled.users)
    assert not np.array_equal(other.users, sampled.users)


def test_the_loss_written_out() -> None:
    """Of three users, over a sample of the catalogue, without the items that are not ranked."""
    chance = np.random.default_rng(4)
    users, items, of_users, of_items = (chance.normal(size=size) for size in ((3, 5), (4, 5), (5, 2), (5, 2)))
    positions = np.array([2, 7, 8, 11])
    hidden = [np.array([7, 9]), np.array([], np.int64), np.array([2, 8, 12])]
    unranked = _unranked(hidden, positions)
    assert [one.tolist() for one in unranked] == [[0, 2, 2], [1, 0, 2]]
    expected = 0.0
    for row, ranked in enumerate(([0, 2, 3], [0, 1, 2, 3], [1, 3])):
        wanted = np.exp(items[ranked] @ users[row] / 0.5)
        ours = np.exp((items[ranked] @ of_items) @ (users[row] @ of_users) / 0.5)
        expected -= float((wanted / wanted.sum()) @ np.log(ours / ours.sum())) / 3
    given = [torch.from_numpy(np.float32(one)) for one in (users, items, of_users, of_items)]
    assert float(_loss(given[0], given[1], given[2:], unranked, 0.5)) == pytest.approx(expected, rel=1e-5)


def test_a_user_who_had_every_item_does_not_end_the_fit() -> None:
    given = wide()
    hidden = [np.arange(ITEMS), *given.hidden[1:]]
    made = fit_projections(replace(given, hidden=hidden), settings(7, steps=5), seed=0)
    assert np.isfinite(made.users).all()
    alone = fit_projections(replace(given, hidden=[np.arange(ITEMS)] * USERS), settings(7, steps=5), seed=0)
    assert np.isfinite(alone.users).all()


def test_what_cannot_be_fitted_is_an_error() -> None:
    given = wide(directions=4)
    with pytest.raises(NarrowingError, match="4 directions, fewer than 6"):
        fit_projections(given, settings(7), seed=0)
    broken = wide()
    broken.items[3, 2] = np.nan
    with pytest.raises(NarrowingError, match="not finite"):
        fit_projections(broken, settings(7), seed=0)


def test_projections_of_other_vectors_are_refused() -> None:
    made = fit_projections(wide(), settings(7, steps=0), seed=0)
    for width, normalised in ((WIDE + 1, True), (WIDE, False)):
        vectors = np.zeros((3, width), np.float32)
        with pytest.raises(ValueError, match="do not fit"):
            NarrowedTower(Fixed(vectors, vectors, normalised=normalised), made)


def test_a_saved_model_has_its_projections_and_before_a_refit_those_by_fold_alone(tmp_path: Path) -> None:
    workspace = Workspace.open(str(tmp_path))
    shape: Shape = {"kind": "sasrec", "n_items": 9, "width": 8, "layers": 1, "heads": 2, "ffn": 8, "dropout": 0.0}
    tower = tower_of_shape({**shape, "max_length": 4, "similarity": "cosine"})
    chance = np.random.default_rng(0)
    parts = [
        Projections(*(np.float32(chance.normal(size=size)) for size in ((8, 3), (8, 3), 8)), 1.5 + n, True)
        for n in range(3)
    ]
    facts = training_facts(narrowing=NarrowingFacts(width=4, wide=8, validation_of_wide={"NDCG@10": 0.2}))
    again = {name: value + 1 for name, value in tower.state_dict().items()}
    model_id = save_model(workspace, tower, facts, [], load_settings("learn"), chosen=again, narrowing=parts)
    model = load_model(tmp_path / "models" / model_id)
    assert model.folded
    for fold, made in zip((None, 0, 1), parts, strict=True):
        expected = NarrowedTower(model.tower, made)
        items = torch.arange(1, 10)
        assert torch.equal(model.vectors(fold).items(items), expected.items(items))
        assert model.vectors(fold).output_dim == 4
    chosen = load_model(tmp_path / "models" / model_id, before_refit=True)
    assert torch.equal(chosen.vectors(1).items(items), NarrowedTower(chosen.tower, parts[2]).items(items))
    with pytest.raises(ValueError, match="by fold alone"):
        chosen.vectors()
