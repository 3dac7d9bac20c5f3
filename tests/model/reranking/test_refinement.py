"""The second head: inputs by a slow version, an order worked out by hand, a relation of two steps, folds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from learn_spark.core.settings.tower import RerankerSettings
from learn_spark.data.splits.folds import FOLDS, fold_of
from learn_spark.model.reranking.co_visitation import Transitions
from learn_spark.model.reranking.fit import RerankerError
from learn_spark.model.reranking.head import CrossFittedHeads, RerankerHead
from learn_spark.model.reranking.refinement import FEATURES, BestItems, RefiningHead
from learn_spark.model.reranking.refinement_fit import fit_refinement
from learn_spark.model.reranking.reranker import HIDDEN, Reranker
from learn_spark.model.scoring.queries import QueryBatch

ITEMS, WIDTH = 25, 6
USERS = [f"u{number}" for number in range(400)]


def _log(seed: int, users: int = 60) -> tuple[np.ndarray, np.ndarray]:
    chance = np.random.default_rng(seed)
    sizes = chance.integers(1, 9, users)
    return chance.integers(0, ITEMS, sizes.sum()), np.concatenate([[0], np.cumsum(sizes)])


def _queries(seed: int, users: int = 30) -> QueryBatch:
    chance = np.random.default_rng(seed)
    orders = [chance.permutation(ITEMS) for _ in range(users)]
    return QueryBatch(
        chance.normal(size=(users, WIDTH)).astype(np.float32),
        chance.integers(0, ITEMS, (users, 5)),
        np.arange(users) % 6,
        np.array([order[0] for order in orders]),
        np.arange(users + 1),
        [np.sort(order[:4]) for order in orders],
    )


def _vectors(seed: int, n_items: int = ITEMS, width: int = WIDTH) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n_items, width)).astype(np.float32)


@pytest.mark.parametrize("with_content", [True, False])
def test_a_slow_version_gives_the_same_inputs(with_content: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("learn_spark.model.reranking.refinement.BLOCK_PAIRS", 7 * ITEMS)
    transitions = Transitions.of(*_log(1), ITEMS, reach=3, decay=0.7)
    content, queries = _vectors(2, width=4), _queries(3)
    reranker = Reranker(_vectors(4), 0.5, transitions, content if with_content else None)
    head = RerankerHead(hidden=4).eval()
    with torch.inference_mode():
        logits = reranker.score(head, queries)  # an untrained head changes nothing
        head.scale.fill_(0.5)
        best, scores = reranker.best(head, queries, 6), reranker.score(head, queries)
    counts = transitions.counts
    step = np.sum([matrix.toarray() for matrix in transitions.channels], axis=0) / (counts[:, None] + 2.0)
    unit = content / np.linalg.norm(content, axis=1, keepdims=True)
    for user in range(30):
        order = np.argsort(-scores[user].numpy(), kind="stable")[:6]
        assert best.positions[user].tolist() == order.tolist()
        last = queries.items[user, : queries.lengths[user]][::-1][:3]
        weights = 0.7 ** np.arange(len(last))
        weights = weights / weights.sum()
        begins = np.zeros((2, ITEMS))
        if len(last):
            begins[0, last[0]] = 1.0
            np.add.at(begins[1], last, weights)
        one, two = begins @ step, begins @ step @ step
        for place, item in enumerate(order):
            cosines = unit[last] @ unit[item] if with_content and len(last) else np.zeros(1)
            mean = float(weights @ cosines) if with_content and len(last) else 0.0
            nearest = max([*cosines.tolist(), *[0.0] * (3 - len(last))])  # 0 for an event that is not there
            expected = [
                float(torch.log_softmax(scores[user], 0)[item]),
                float(logits[user, item]),
                float(cosines[0]),
                float(nearest),
                mean,
                *(np.log1p(100 * vector[item]) for vector in (one[0], one[1], two[0], two[1])),
                float(weights @ np.log1p(counts[last])) if len(last) else 0.0,
                np.log1p(queries.lengths[user]),
                np.log1p(counts[item]),
            ]
            assert best.features[user, place].tolist() == pytest.approx(expected, abs=2e-4)
    assert len(FEATURES) == best.features.shape[2]


def _head_of(values: dict[str, float], items: int) -> RefiningHead:
    """A head whose correction is a weighted sum of features."""
    head = RefiningHead(hidden=2, items=items)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.zero_()
        first, second, last = (layer for layer in head.correction if isinstance(layer, torch.nn.Linear))
        for name, weight in values.items():
            first.weight[0, FEATURES.index(name)] = weight
            first.weight[1, FEATURES.index(name)] = -weight
        second.weight.copy_(torch.eye(2))
        last.weight.copy_(torch.tensor([[1.0, -1.0]]))
    return head.eval()


def test_an_order_worked_out_by_hand() -> None:
    """The three best get the scores -1 + 0, -2 + 4 and -3 + 1; the others stay behind them, in their order."""
    scores = torch.tensor([[-5.0, -2.0, -1.0, HIDDEN, -3.0, -4.0]])
    features = torch.zeros(1, 3, len(FEATURES))
    features[0, :, 0] = torch.tensor([-1.0, -2.0, -3.0])
    features[0, :, FEATURES.index("mean content")] = torch.tensor([0.0, 4.0, 1.0])
    best = BestItems(scores, torch.tensor([[2, 1, 4]]), features, torch.ones(1, 3, dtype=torch.bool))
    refined = best.refined(_head_of({"mean content": 1.0}, 3))
    assert refined.argsort(descending=True)[0].tolist() == [1, 2, 4, 5, 0, 3]
    assert refined[0, [0, 3, 5]].tolist() == [-5.0, HIDDEN, -4.0]
    # The worst of the three is as good as it was, -3, and still better than all others.
    assert refined[0, [1, 2, 4]].tolist() == pytest.approx([1.0, -2.0, -3.0])


def test_hidden_items_and_the_order_of_the_others_stay() -> None:
    reranker, queries = Reranker(_vectors(4), 0.5, Transitions.of(*_log(1), ITEMS, reach=3, decay=0.7)), _queries(3)
    plain = RerankerHead(hidden=4).eval()
    torch.manual_seed(0)
    heads = CrossFittedHeads(plain, (plain, plain))
    second = RefiningHead(hidden=4, items=8)
    with torch.no_grad():
        for parameter in second.parameters():
            parameter.add_(torch.randn_like(parameter))
    with_second = heads.refined(second, [second, second]).full
    with torch.inference_mode():
        before, after = (reranker.score(head, queries).numpy() for head in (plain, with_second))
    changed = 0
    for user in range(30):
        order, new = np.argsort(-before[user], kind="stable"), np.argsort(-after[user], kind="stable")
        assert set(order[:8]) == set(new[:8])
        assert order[8:].tolist() == new[8:].tolist()
        changed += order[:8].tolist() != new[:8].tolist()
        unranked = np.setdiff1d(queries.hidden[user], queries.targets[user])
        assert (after[user][unranked] == HIDDEN).all()
    assert changed > 20
    # More items than there are: the hidden ones are among the best, and stay hidden.
    every = heads.refined(RefiningHead(hidden=4, items=99), [second, second]).full
    with torch.inference_mode():
        assert np.argsort(-reranker.score(every, queries).numpy()).tolist() == np.argsort(-before).tolist()
    back = CrossFittedHeads.of_tensors(heads.refined(second, [second, second]).tensors(), hidden=4, refining=(4, 8))
    assert reranker.ranks(back.full, queries).tolist() == reranker.ranks(with_second, queries).tolist()
    assert reranker.ranks(with_second, queries).tolist() != reranker.ranks(plain, queries).tolist()


def _two_steps(users: int = 400) -> tuple[Reranker, QueryBatch, CrossFittedHeads]:
    """In the log i and i + 20 are together, and i + 20 and i + 40; a user of i wants i + 40. Vectors say nothing."""
    chance = np.random.default_rng(0)
    first = np.tile(np.arange(20), 6)
    pairs = np.concatenate([np.stack([first, first + 20], axis=1), np.stack([first + 20, first + 40], axis=1)])
    transitions = Transitions.of(pairs.ravel(), np.arange(0, pairs.size + 1, 2), 60, reach=4, decay=0.8)
    last = chance.integers(0, 20, users)
    queries = QueryBatch(
        chance.normal(size=(users, WIDTH)).astype(np.float32),
        last[:, None],
        np.ones(users, np.int64),
        last + 40,
        np.arange(users + 1),
        [last[i : i + 1] for i in range(users)],
    )
    head = RerankerHead(hidden=4).eval()
    return Reranker(_vectors(7, 60), 1.0, transitions), queries, CrossFittedHeads(head, (head, head))


def _fit(
    reranker: Reranker,
    queries: QueryBatch,
    heads: CrossFittedHeads,
    users: list[str] | None = None,
    advance: Callable[[int], object] = lambda count: None,
    **change: Any,
) -> CrossFittedHeads:
    refinement = {"items": 60, "hidden": 8, "epochs": 40, "learning_rate": 0.01} | change
    settings = RerankerSettings.model_validate({"batch_size": 32, "refinement": refinement})
    named = USERS[: len(queries.users)] if users is None else users
    return fit_refinement([reranker] * FOLDS, heads, queries, named, settings, seed=1, advance=advance)


def test_it_learns_what_only_two_steps_show_for_users_that_it_was_not_fitted_on() -> None:
    reranker, queries, heads = _two_steps()
    advances: list[int] = []
    refined, fold = _fit(reranker, queries, heads), fold_of(USERS)
    assert reranker.ranks(heads.full, queries).mean() > 20
    for number, head in enumerate(refined.folds):
        rows = np.flatnonzero(fold == number)
        assert reranker.ranks(head, queries.take(rows)).mean() < 2
    again = _fit(reranker, queries, heads, advance=advances.append)
    assert sum(advances) == FOLDS * len(USERS)
    pairs = zip(refined.tensors().values(), again.tensors().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_other_targets_of_a_folds_users_change_no_bit_of_its_second_head() -> None:
    reranker, queries, heads = _two_steps(80)
    fold = fold_of(USERS[:80])
    other = replace(queries, targets=np.where(fold == 0, (queries.targets + 3) % 60, queries.targets))
    ours, theirs = (_fit(reranker, one, heads, epochs=1) for one in (queries, other))

    def same(a: RerankerHead, b: RerankerHead) -> bool:
        assert a.refining is not None
        assert b.refining is not None
        pairs = zip(a.refining.state_dict().values(), b.refining.state_dict().values(), strict=True)
        return all(torch.equal(x, y) for x, y in pairs)

    assert same(ours.folds[0], theirs.folds[0])
    assert not same(ours.folds[1], theirs.folds[1])
    assert not same(ours.full, theirs.full)


def test_without_a_target_among_the_best_items_nothing_changes() -> None:
    reranker, queries, heads = _two_steps(40)
    with torch.inference_mode():
        worst = reranker.score(heads.full, replace(queries, hidden=[np.zeros(0, np.int64)] * 40)).argmin(dim=1).numpy()
    lost = replace(queries, targets=worst)
    refined = _fit(reranker, lost, heads, items=3)
    assert reranker.ranks(refined.full, lost).tolist() == reranker.ranks(heads.full, lost).tolist()


def test_a_fold_without_users_gets_a_head_that_changes_nothing() -> None:
    reranker, queries, heads = _two_steps(400)
    alone = np.flatnonzero(fold_of(USERS) == 0)[:20]
    few = queries.take(alone)
    refined = _fit(reranker, few, heads, [USERS[row] for row in alone])
    assert reranker.ranks(refined.folds[0], few).tolist() == reranker.ranks(heads.full, few).tolist()
    assert reranker.ranks(refined.full, few).tolist() != reranker.ranks(heads.full, few).tolist()


def test_a_loss_that_is_not_finite_is_an_error() -> None:
    reranker, queries, heads = _two_steps(80)
    with pytest.raises(RerankerError, match=r"refinement\.learning_rate"):
        _fit(reranker, queries, heads, learning_rate=1e30)
