"""Blending: vectors ordered as the score orders items, weights at the one optimum, users ranked by weights not fitted
on them.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from learn_spark.core.settings.tower import BlendingSettings
from learn_spark.data.splits.folds import fold_of
from learn_spark.model.blending.candidates import Candidates, Likeness
from learn_spark.model.blending.fit import RIDGE, BlendingError, fit_frequency_weights
from learn_spark.model.blending.frequency_weights import FrequencyWeights
from learn_spark.model.blending.tower import BlendedTower
from learn_spark.model.scoring.catalogue import sampled_positions
from learn_spark.model.scoring.frequency import KNOTS, LIKENESS_SCALE, PROFILE_SCALE, knot_weights
from learn_spark.model.scoring.metrics import ndcg
from learn_spark.model.scoring.queries import QueryBatch
from learn_spark.model.scoring.ranks import ranks_in
from learn_spark.model.towers.checks import Similarity
from learn_spark.model.towers.learn_plus import LearnPlus
from learn_spark.model.towers.vectors import item_vectors, mean_vectors, unit_rows, user_vectors

ITEMS, CONTENT = 30, 7


def _tower(seed: int = 0, n_items: int = ITEMS, similarity: Similarity = "cosine") -> LearnPlus:
    torch.manual_seed(seed)
    sizes = {"n_items": n_items, "content_dim": CONTENT, "max_length": 9, "width": 8, "layers": 1, "heads": 2, "ffn": 8}
    tower = LearnPlus(**sizes, dropout=0.1, similarity=similarity).eval()
    torch.nn.init.normal_(tower.identity.weight)  # type: ignore[union-attr]
    content = np.random.default_rng(seed).normal(size=(n_items + 1, CONTENT)).astype(np.float32)
    content[0], content[4] = 0.0, 0.0  # padding, and an item without text
    tower.bind(content)
    return tower


def _weights(seed: int = 1, *, parts: int = 3) -> FrequencyWeights:
    return FrequencyWeights(np.random.default_rng(seed).normal(size=(parts, len(KNOTS))))


def _co_visits(seed: int = 8, items: int = 0, size: int = 3) -> np.ndarray:
    """Unit vectors; those of two items are zeros, as of items without co-visits."""
    vectors = unit_rows(np.random.default_rng(seed).normal(size=(items or ITEMS, size)).astype(np.float32))
    vectors[[5, 6]] = 0.0
    return vectors


def _histories(seed: int = 2, users: int = 12) -> tuple[np.ndarray, np.ndarray]:
    chance = np.random.default_rng(seed)
    lengths = chance.integers(1, 9, users)
    items = chance.integers(1, ITEMS + 1, (users, 8))
    return np.where(np.arange(8) < lengths[:, None], items, 0), lengths


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    norms = np.linalg.norm(a) * np.linalg.norm(b)
    return float(a @ b) / norms if norms > 0 else 0.0


@pytest.mark.parametrize("every", [False, True], ids=["content", "all parts"])
@pytest.mark.parametrize("similarity", ["cosine", "dot"])
def test_inner_products_order_items_as_the_score_does(similarity: Similarity, every: bool) -> None:
    tower, reach, decay, temperature = _tower(similarity=similarity), 3, 0.7, 0.1
    frequency_weights = _weights(parts=7 if every else 3)
    counts = np.random.default_rng(3).integers(0, 400, ITEMS)
    recent = np.random.default_rng(4).integers(0, counts + 1) if every else None
    co_visits = _co_visits() if every else None
    blended = BlendedTower(
        tower,
        frequency_weights,
        counts,
        temperature=temperature,
        reach=reach,
        decay=decay,
        co_visits=co_visits,
        recent=recent,
        profile=every,
    )
    items, lengths = _histories()
    users, catalogue = user_vectors(blended, items, lengths, 50), item_vectors(blended)
    width = 8 + CONTENT + 2 + (3 + 2 if every else 0)
    assert users.shape[1] == catalogue.shape[1] == blended.output_dim == width
    for vectors in (users, catalogue) if similarity == "cosine" else ():
        assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(len(vectors)), abs=1e-6)
    # Each pair of user and item, written out.
    plain, item_plain = user_vectors(tower, items, lengths, 50), item_vectors(tower)
    for user in range(len(items)):
        events = items[user, max(0, lengths[user] - reach) : lengths[user]]
        ages = decay ** np.arange(len(events))[::-1]
        content = tower.bound[events].astype(np.float64)
        mean = sum(v * weight / max(np.linalg.norm(v), 1e-12) for v, weight in zip(content, ages, strict=True))
        scores = []
        for item in range(ITEMS):
            rows = frequency_weights.weights
            a, b, c, *more = (np.interp(np.log1p(counts[item]), np.log1p(KNOTS), row) for row in rows)
            likeness = c * _cosine(mean, tower.bound[item + 1].astype(np.float64))
            if co_visits is not None and recent is not None:
                likeness += more[0] * _cosine(ages @ co_visits[events - 1], co_visits[item])
                b += more[1] * np.log1p(recent[item])
                b += more[2] * (ages @ np.log1p(counts[events - 1])) / ages.sum() + more[3] * np.log1p(lengths[user])
            scores.append(a * float(plain[user] @ item_plain[item]) / temperature + b + LIKENESS_SCALE * likeness)
        products = catalogue @ users[user]
        slope = np.polyfit(scores, products, 1) if similarity == "cosine" else [1.0, 0.0]
        assert slope[0] > 0
        assert products == pytest.approx(np.polyval(slope, scores), abs=1e-6 if similarity == "cosine" else 1e-4)


def test_all_positions_and_the_last_agree() -> None:
    weights, options = _weights(parts=6), {"co_visits": _co_visits(), "profile": True}
    blended = BlendedTower(_tower(), weights, np.arange(ITEMS), temperature=0.2, reach=3, decay=0.6, **options)
    items, lengths = (torch.from_numpy(x) for x in _histories())
    with torch.inference_mode():
        every = blended.user(items)
        for end in range(1, 9):
            rows = torch.nonzero(lengths >= end).squeeze(1)
            some = blended.user_last(items[rows], torch.full((len(rows),), end))
            torch.testing.assert_close(every[rows, end - 1], some, rtol=0, atol=1e-5)
            # It contains nothing of later events.
            early = blended.user_last(items[rows, :end], torch.full((len(rows),), end))
            torch.testing.assert_close(early, some, rtol=0, atol=1e-5)


def test_an_item_that_came_after_the_fit_has_no_events() -> None:
    counts = np.full(ITEMS - 5, 40)
    blended = BlendedTower(_tower(), _weights(), counts, temperature=0.2, reach=3)
    padded = BlendedTower(_tower(), _weights(), np.append(counts, np.zeros(5, int)), temperature=0.2, reach=3)
    assert np.array_equal(item_vectors(blended), item_vectors(padded))
    wrong = BlendedTower(_tower(), _weights(), np.append(counts, np.full(5, 9)), temperature=0.2, reach=3)
    assert not np.allclose(item_vectors(blended)[-5:], item_vectors(wrong)[-5:])
    few = _co_visits(items=ITEMS - 5)
    both = [
        BlendedTower(_tower(), _weights(parts=5), counts, temperature=0.2, reach=3, co_visits=vectors, recent=recent)
        for vectors, recent in (
            (few, counts // 2),
            (np.concatenate([few, np.zeros((5, 3), np.float32)]), np.append(counts // 2, np.zeros(5, int))),
        )
    ]
    assert np.array_equal(item_vectors(both[0]), item_vectors(both[1]))


def test_a_temperature_that_is_not_above_0_is_refused() -> None:
    with pytest.raises(ValueError, match="temperature 0"):
        BlendedTower(_tower(), FrequencyWeights.start(), np.ones(5), temperature=0.0, reach=2)
    with pytest.raises(ValueError, match="4 rows of weights do not fit 3 parts"):
        BlendedTower(_tower(), FrequencyWeights.start(4), np.ones(5), temperature=1.0, reach=2)


def _random_candidates(seed: int = 5, users: int = 90, *, targets: int = 2, every: bool = False) -> Candidates:
    chance = np.random.default_rng(seed)
    tower = _tower(seed, ITEMS)
    counts = chance.integers(0, 300, ITEMS)
    items = chance.integers(1, ITEMS + 1, (users, 6))
    lengths = chance.integers(1, 7, users)
    items[np.arange(6) >= lengths[:, None]] = 0
    vectors = user_vectors(tower, items, lengths, 50)
    unit = unit_rows(tower.bound)
    means = mean_vectors(unit, items, lengths, 3)
    likenesses = [Likeness(means, unit[1:])]
    if every:
        more = np.concatenate([np.zeros((1, 3), np.float32), _co_visits()])
        likenesses.append(Likeness(mean_vectors(more, items, lengths, 3), more[1:]))
    # Targets that depend on all but the tower, so that there is something to learn.
    utility = sum(likeness.means @ likeness.items.T * 5 for likeness in likenesses)
    utility = utility + 0.7 * np.log1p(counts) + chance.gumbel(size=(users, ITEMS))
    trend = np.log1p(counts // 3).astype(np.float32) if every else None
    profiles = chance.normal(size=(users, 2)).astype(np.float32) if every else None
    if profiles is not None:
        utility += profiles[:, :1] * np.log1p(counts)
    order = np.argsort(-utility, axis=1)
    sizes = chance.integers(1, targets + 1, users)
    targets = np.concatenate([row[:size] for row, size in zip(order, sizes, strict=True)])
    # Some hidden items are targets too.
    hidden = [np.unique(np.append(chance.integers(0, ITEMS, 4), row[0])) for row in order]
    queries = QueryBatch(vectors, items.astype(np.int64) - 1, lengths, targets, np.append(0, np.cumsum(sizes)), hidden)
    return Candidates(queries, tuple(likenesses), item_vectors(tower), counts, 0.2, None, trend, profiles)


def _loss(candidates: Candidates, rows: np.ndarray, rare: float, at: np.ndarray) -> float:
    """The fit's objective, one user and target at a time."""
    a, b, *more = at.reshape(-1, len(KNOTS)) @ knot_weights(candidates.counts).T.astype(np.float64)
    total = RIDGE / 2 * float(((at - FrequencyWeights.start(2 + len(more)).weights.ravel()) ** 2).sum())
    queries = candidates.queries
    for user in rows:
        utility = a * (candidates.catalogue @ queries.users[user]).astype(np.float64) / candidates.temperature
        utility += b
        for weight, likeness in zip(more, candidates.likenesses, strict=False):
            utility += weight * LIKENESS_SCALE * (likeness.items @ likeness.means[user])
        if candidates.trend is not None and candidates.profiles is not None:
            taste, activity = candidates.profiles[user] * PROFILE_SCALE
            utility += more[2] * candidates.trend + more[3] * taste + more[4] * activity
        targets = queries.targets[queries.offsets[user] : queries.offsets[user + 1]]
        free = np.ones(ITEMS, dtype=bool)
        free[queries.hidden[user]] = False
        free[targets] = True
        log_sum = np.log(np.exp(utility[free]).sum())
        rarity = (1.0 + candidates.counts[targets]) ** -rare
        total -= float((rarity * (utility[targets] - log_sum)).sum()) / len(targets)
    return total


@pytest.mark.parametrize(("rare", "every"), [(0.0, False), (0.4, True)])
def test_weights_minimise_the_loss_written_out(rare: float, every: bool) -> None:
    candidates, users = _random_candidates(every=every), [f"user {i}" for i in range(90)]
    start = FrequencyWeights.start(7 if every else 3).weights.ravel()
    full, folds = fit_frequency_weights(candidates, users, BlendingSettings(rare=rare), seed=1)
    fold = fold_of(users)
    for frequency_weights, rows in (
        (full, np.arange(90)),
        (folds[0], np.flatnonzero(fold != 0)),
        (folds[1], np.flatnonzero(fold != 1)),
    ):
        expected = minimize(lambda at, rows=rows: _loss(candidates, rows, rare, at), start, tol=1e-9)
        assert _loss(candidates, rows, rare, frequency_weights.weights.ravel()) == pytest.approx(expected.fun, rel=1e-5)
        assert frequency_weights.weights.ravel() == pytest.approx(expected.x, abs=0.02)
    assert not np.allclose(folds[0].weights, folds[1].weights, atol=0.05)
    # There was something to learn.
    assert _loss(candidates, np.arange(90), rare, full.weights.ravel()) < 0.8 * _loss(
        candidates, np.arange(90), rare, start
    )


def test_vectors_have_the_scores_of_the_parts() -> None:
    candidates, weights = _random_candidates(every=True), _weights(parts=7)
    products = candidates.user_vectors @ candidates.item_vectors(weights).T
    at_items = weights.of(candidates.counts)
    parts = [1.0 if part is None else part.numpy() for part in candidates.measures()]
    scores = sum(part * weight for part, weight in zip(parts, at_items, strict=True))
    assert products == pytest.approx(scores, abs=1e-3)
    owners, targets = candidates.queries.owners, candidates.queries.targets
    every = [np.broadcast_to(part, scores.shape)[owners, targets] for part in parts]
    assert candidates.measures_of_targets() == pytest.approx(np.stack(every), abs=1e-4)


def _two_levels(users: int = 400) -> Candidates:
    """Users of whom four of five want the popular item that their vectors name, and one the rare item that their texts
    name. There are more popular items than places in a list.
    """
    chance = np.random.default_rng(11)
    popular, rare = 12, 60
    counts = np.concatenate([np.full(popular, 300), np.full(rare, 2)])
    content = unit_rows(chance.normal(size=(popular + rare, 16)).astype(np.float32))
    catalogue = unit_rows(chance.normal(size=(popular + rare, 8)).astype(np.float32))
    likes_rare = (np.arange(users) % 5 == 0)[:, None]
    wanted = np.where(likes_rare[:, 0], popular + np.arange(users) % rare, np.arange(users) % popular)
    means, vectors = (chance.normal(size=(users, size)) * noise for size, noise in ((16, 0.6), (8, 0.8)))
    means = unit_rows((content[wanted] * likes_rare + means).astype(np.float32))
    vectors = unit_rows((catalogue[wanted] * ~likes_rare + vectors).astype(np.float32))
    hidden = [np.zeros(0, np.int64)] * users
    items, lengths = np.zeros((users, 1), np.int64), np.ones(users, np.int64)
    queries = QueryBatch(vectors, items, lengths, wanted, np.arange(users + 1), hidden)
    return Candidates(queries, (Likeness(means, content),), catalogue, counts, 0.5)


def test_a_level_below_its_floor_comes_near_it() -> None:
    candidates, users = _two_levels(), [f"user {i}" for i in range(400)]
    is_rare = candidates.counts[candidates.queries.targets] == 2

    def found(weights: FrequencyWeights) -> tuple[float, float]:
        scores = candidates.user_vectors @ candidates.item_vectors(weights).T
        ranks = ranks_in(scores, candidates.queries.targets)
        return float(ndcg(ranks[is_rare], 10).mean()), float(ndcg(ranks[~is_rare], 10).mean())

    rows = np.zeros((3, len(KNOTS)))
    text, tower = rows.copy(), rows.copy()
    text[2], tower[0] = 1.0, 1.0
    by_text, by_tower = found(FrequencyWeights(text)), found(FrequencyWeights(tower))
    free, _ = fit_frequency_weights(candidates, users, BlendingSettings(), seed=1)
    kept, folds = fit_frequency_weights(candidates, users, BlendingSettings(text_floor=0.7), seed=1)
    assert found(free)[0] < 0.5 * by_text[0]
    assert found(kept)[0] > 0.9 * 0.7 * by_text[0]
    assert found(kept)[1] < found(free)[1]
    assert not np.allclose(folds[0].weights, folds[1].weights, atol=0.01)
    # A floor by the tower keeps the popular items.
    both, _ = fit_frequency_weights(candidates, users, BlendingSettings(text_floor=0.7, tower_floor=2.2), seed=1)
    assert found(kept)[1] < found(both)[1]
    assert found(kept)[0] > found(both)[0]
    # Where each level keeps its floor, nothing changes.
    low, _ = fit_frequency_weights(candidates, users, BlendingSettings(text_floor=0.01), seed=1)
    assert low.weights == pytest.approx(free.weights, abs=1e-3)
    assert by_tower[1] > by_text[1]


def test_no_user_is_ranked_by_weights_fitted_on_them() -> None:
    candidates, users = _random_candidates(), [f"user {i}" for i in range(90)]
    _, folds = fit_frequency_weights(candidates, users, BlendingSettings(), seed=1)
    fold = fold_of(users)
    # Other targets of one fold's users change the weights of the other folds, not those that rank these users.
    changed = candidates.queries.targets.copy()
    of_first = fold[candidates.queries.owners] == 0
    changed[of_first] = (changed[of_first] + 7) % ITEMS
    other = Candidates(
        QueryBatch(
            candidates.queries.users,
            candidates.queries.items,
            candidates.queries.lengths,
            changed,
            candidates.queries.offsets,
            candidates.queries.hidden,
        ),
        candidates.likenesses,
        candidates.catalogue,
        candidates.counts,
        candidates.temperature,
    )
    _, after = fit_frequency_weights(other, users, BlendingSettings(), seed=1)
    assert np.array_equal(folds[0].weights, after[0].weights)
    assert not np.allclose(folds[1].weights, after[1].weights, atol=0.05)


def test_a_sampled_catalogue_gives_nearly_the_weights_of_the_whole_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "ITEMS", 400)
    few, names = _random_candidates(users=80), [f"user {i}" for i in range(80)]
    queries = few.queries
    positions, stands_for = sampled_positions(ITEMS, 90, queries.targets)
    certain = np.isin(positions, queries.targets)
    assert 0 < (~certain).sum() == 90 < ITEMS - certain.sum()
    assert stands_for[certain].tolist() == [1.0] * int(certain.sum())
    assert stands_for.sum() == pytest.approx(ITEMS)
    within = queries.within(positions)
    assert positions[within.targets].tolist() == queries.targets.tolist()
    for ours, theirs in zip(within.hidden, queries.hidden, strict=True):
        assert positions[ours].tolist() == sorted(set(theirs) & set(positions.tolist()))
    with pytest.raises(ValueError, match="lack targets"):
        queries.within(np.setdiff1d(np.arange(ITEMS), queries.targets[:1]))
    likenesses = tuple(Likeness(one.means, one.items[positions]) for one in few.likenesses)
    parts = (few.catalogue[positions], few.counts[positions])
    sampled = Candidates(within, likenesses, *parts, few.temperature, stands_for)
    rows = np.arange(80)
    whole, _ = fit_frequency_weights(few, names, BlendingSettings(), seed=1)
    fitted, _ = fit_frequency_weights(sampled, names, BlendingSettings(), seed=1)
    unweighted, _ = fit_frequency_weights(replace(sampled, stands_for=None), names, BlendingSettings(), seed=1)
    start = _loss(few, rows, 0.0, FrequencyWeights.start().weights.ravel())
    least, near, far = (_loss(few, rows, 0.0, w.weights.ravel()) for w in (whole, fitted, unweighted))
    assert least <= near < least + 0.1 * (start - least)
    assert near < far  # numbers of items that each stands for matter
    every, ones = sampled_positions(ITEMS, ITEMS, queries.targets)
    assert every.tolist() == list(range(ITEMS))
    assert ones.tolist() == [1.0] * ITEMS


def test_users_are_drawn_up_to_the_limit_and_small_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    candidates, users = _random_candidates(), [f"user {i}" for i in range(90)]
    full, _ = fit_frequency_weights(candidates, users, BlendingSettings(), seed=1)
    subset, _ = fit_frequency_weights(candidates, users, BlendingSettings(users=40), seed=1)
    again, _ = fit_frequency_weights(candidates, users, BlendingSettings(users=40), seed=1)
    assert np.array_equal(subset.weights, again.weights)
    assert not np.allclose(subset.weights, full.weights, atol=0.02)
    monkeypatch.setattr("learn_spark.model.blending.fit.BLOCK_SCORES", 7 * ITEMS)
    blocked, _ = fit_frequency_weights(candidates, users, BlendingSettings(), seed=1)
    assert blocked.weights == pytest.approx(full.weights, abs=1e-4)


def test_values_that_are_not_finite_are_an_error() -> None:
    candidates = _random_candidates()
    candidates.catalogue[3] = np.nan
    with pytest.raises(BlendingError, match="not finite"):
        fit_frequency_weights(candidates, [f"user {i}" for i in range(90)], BlendingSettings(), seed=1)
