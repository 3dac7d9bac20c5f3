"""Reranking by co-visitation: counts by hand, slow versions, a head that learns, users scored by heads not fitted on
them.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations, pairwise
from typing import Any

import numpy as np
import pytest
import torch

from learn_spark.core.settings.tower import RerankerSettings
from learn_spark.data.splits.folds import FOLDS, fold_of
from learn_spark.model.reranking.co_visitation import CHANNELS, FEATURES, Transitions
from learn_spark.model.reranking.fit import RerankerError, fit_heads, passes
from learn_spark.model.reranking.head import CrossFittedHeads, RerankerHead
from learn_spark.model.reranking.reranker import HIDDEN, Reranker
from learn_spark.model.scoring.frequency import knot_weights
from learn_spark.model.scoring.queries import QueryBatch
from learn_spark.model.scoring.ranks import ranks_from_vectors


def _log(seed: int, users: int = 60, n_items: int = 25) -> tuple[np.ndarray, np.ndarray]:
    chance = np.random.default_rng(seed)
    sizes = chance.integers(1, 9, users)
    return chance.integers(0, n_items, sizes.sum()), np.concatenate([[0], np.cumsum(sizes)])


def _random_queries(seed: int, users: int = 40, n_items: int = 25, targets: int = 3, width: int = 6) -> QueryBatch:
    chance = np.random.default_rng(seed)
    counts = chance.integers(1, targets + 1, users)
    orders = [chance.permutation(n_items)[: count + 5] for count in counts]
    return QueryBatch(
        chance.normal(size=(users, width)).astype(np.float32),
        chance.integers(0, n_items, (users, 4)),
        chance.integers(1, 5, users),
        np.concatenate([items[:count] for items, count in zip(orders, counts, strict=True)]),
        np.concatenate([[0], np.cumsum(counts)]),
        [np.sort(items[max(0, count - 1) : count + 4]) for items, count in zip(orders, counts, strict=True)],
    )


def _catalogue(seed: int, n_items: int = 25, width: int = 6) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n_items, width)).astype(np.float32)


def test_transitions_by_hand() -> None:
    """a b c b | c a, reach 2, decay .5: next ab bc cb ca; later (two apart, .5) ac, bb; before: the other way round."""
    values, offsets = np.array([0, 1, 2, 1, 2, 0]), np.array([0, 4, 6])
    transitions = Transitions.of(values, offsets, 3, reach=2, decay=0.5)
    near, later, before = (matrix.toarray() for matrix in transitions.channels)
    assert near.tolist() == [[0, 1, 0], [0, 0, 1], [1, 1, 0]]
    assert later.tolist() == [[0, 0, 0.5], [0, 0.5, 0], [0, 0, 0]]
    assert before.tolist() == (near + later).T.tolist()
    assert transitions.counts.tolist() == [2, 2, 2]
    # All counted events of a are other events than the uncounted newest one: a's rate is 1 / (2 + 2), c's is unchanged.
    uncounted = transitions.candidates(np.array([[2, 0]]), np.array([2]), np.array([1]))
    rows = dict(zip(uncounted.position.tolist(), np.expm1(uncounted.features[:, :6]) / 100, strict=True))
    assert rows[1] == pytest.approx([1 / 4, 0.5 / 3, 0, 0, 0, 0.5 / 3])
    assert np.expm1(uncounted.features[:, 6:]) == pytest.approx(np.array([[2, 2]] * 3))
    # A user who has c, then a. Both have one other event, so a seed's rate is 1 / (1 + 2).
    co_visits = transitions.candidates(np.array([[2, 0]]), np.array([2]))
    rows = dict(zip(co_visits.position.tolist(), np.expm1(co_visits.features[:, :6]) / 100, strict=True))
    # a: next b 1, later c .5, before c 1 (ca); c, weighted .5: next a, b; before b, from bc, and a .5, from ac.
    assert rows[1] == pytest.approx([1 / 3, 0.5 / 3, 0, 0, 0, 0.5 / 3])
    assert rows[2] == pytest.approx([0, 0, 0.5 / 3, 0, 1 / 3, 0])
    assert rows[0] == pytest.approx([0, 0.5 / 3, 0, 0, 0, 0.25 / 3])
    assert np.expm1(co_visits.features[:, 6:]) == pytest.approx(np.array([[1, 2]] * 3))


@pytest.mark.parametrize("seed", [0, 1])
def test_a_slow_count_of_candidates_gives_the_same(seed: int) -> None:
    values, offsets = _log(seed)
    reach, decay, n_items = 3, 0.7, 25
    transitions = Transitions.of(values, offsets, n_items, reach=reach, decay=decay)
    items, lengths = np.random.default_rng(seed).integers(0, n_items, (30, 6)), np.arange(30) % 7
    co_visits = transitions.candidates(items, lengths)
    features = {(r, p): f for r, p, f in zip(co_visits.row, co_visits.position, co_visits.features, strict=True)}
    assert (np.diff(co_visits.row * n_items + co_visits.position) > 0).all()
    counts = np.bincount(values, minlength=n_items)
    for user in range(30):
        history = items[user, : lengths[user]].tolist()
        sums: dict[int, dict[str, float]] = {}
        for ago, seed_item in enumerate(history[::-1][:reach]):
            slot = "last" if ago == 0 else "older"
            share = (1.0 if ago == 0 else decay**ago) / (max(counts[seed_item] - 1, 0) + 2)
            for start, stop in pairwise(offsets.tolist()):
                events = values[start:stop].tolist()
                for a, b in (pair for pair in combinations(range(len(events)), 2) if pair[1] - pair[0] <= reach):
                    weight = decay ** (b - a - 1)
                    pairs = [
                        ("next" if b == a + 1 else "later", events[a], events[b]),
                        ("before", events[b], events[a]),
                    ]
                    for channel, first, second in pairs:
                        if first == seed_item:
                            channels_of = sums.setdefault(second, {})
                            channels_of[f"{slot} {channel}"] = (
                                channels_of.get(f"{slot} {channel}", 0.0) + share * weight
                            )
        assert {p for r, p in features if r == user} == set(sums)
        for position, values_of in sums.items():
            expected = [np.log1p(100 * values_of.get(name, 0.0)) for name in FEATURES[:6]]
            expected += [np.log1p(max(counts[history[-1]] - 1, 0)), np.log1p(counts[position])]
            assert features[user, position] == pytest.approx(expected, abs=1e-4)
    assert len(CHANNELS) * 2 + 2 == len(FEATURES)


def _noisy_head(seed: int = 0) -> RerankerHead:
    torch.manual_seed(seed)
    head = RerankerHead(hidden=8)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.5)
    return head.eval()


def test_knot_weights_are_linear_in_the_logarithm() -> None:
    """7 events: log 8 lies .63 of the way from log 3 to log 11; beyond the last knot weights are constant."""
    weights = knot_weights(np.array([0, 2, 7, 250, 9999]))
    assert weights.sum(axis=1) == pytest.approx(np.ones(5))
    assert weights[[0, 1, 3, 4]].tolist() == np.eye(5)[[0, 1, 4, 4]].tolist()
    share = np.log(8 / 3) / np.log(11 / 3)
    assert weights[2] == pytest.approx([0, 1 - share, share, 0, 0])


@pytest.mark.parametrize("with_content", [True, False])
def test_a_score_worked_out_by_hand(with_content: bool) -> None:
    """a(n) * l + b(n) + c(n) * s, and f of the co-visits, the cosine with the last item, s and l where there are
    co-visits; hidden items are not in l's normalisation, but a target that the user had before is.
    """
    catalogue, transitions, head = _catalogue(8), Transitions.of(*_log(9), 25, reach=3, decay=0.8), _noisy_head(3)
    content = _catalogue(10, width=4)
    reranker = Reranker(catalogue, 0.4, transitions, content if with_content else None)
    queries = QueryBatch(
        np.array([[0.3, -1.0, 0.5, 0.2, 0.1, -0.4]], np.float32),
        np.array([[4, 11, 2]]),
        np.array([2]),  # the last event is of item 11
        np.array([4]),
        np.array([0, 1]),
        [np.array([4, 7, 11])],
    )
    with torch.inference_mode():
        scores = reranker.score(head, queries)[0]
    products = catalogue.astype(float) @ queries.users[0] / 0.4
    shown = [i for i in range(25) if i not in (7, 11)]
    logits = products - np.log(np.exp(products[shown]).sum())
    co_visits = transitions.candidates(queries.items, queries.lengths)
    seen_with = dict(zip(co_visits.position.tolist(), co_visits.features, strict=True))
    assert 0 < len(set(seen_with) & set(shown)) < len(shown)
    unit = content / np.linalg.norm(content, axis=1, keepdims=True)
    mean = unit[4] + unit[11]
    weights = [parameter.detach().numpy() for parameter in (head.scale, head.popularity, head.likeness)]
    for item in shown:
        like = unit[item] @ mean / np.linalg.norm(mean) if with_content else 0.0
        a, b, c = (
            np.interp(np.log1p(transitions.counts[item]), np.log1p([0, 2, 10, 50, 250]), knots) for knots in weights
        )
        expected = a * logits[item] + b + c * 10 * like
        if item in seen_with:
            cosine = catalogue[item] @ catalogue[11] / np.linalg.norm(catalogue[item]) / np.linalg.norm(catalogue[11])
            logit = max(logits[item], -20.0) / 5.0
            inputs = torch.tensor([*seen_with[item], cosine, like, logit, logit * logit], dtype=torch.float32)
            expected += float(head.score(inputs).detach())
        assert float(scores[item]) == pytest.approx(expected, abs=1e-4)
    assert scores[[7, 11]].tolist() == [HIDDEN, HIDDEN]


def test_an_untrained_head_ranks_as_the_tower_does() -> None:
    reranker, queries = (
        Reranker(_catalogue(3), 0.3, Transitions.of(*_log(1), 25, reach=3, decay=0.8)),
        _random_queries(2),
    )
    tower_ranks = ranks_from_vectors(
        queries.users, _catalogue(3), queries.targets, queries.hidden, offsets=queries.offsets
    )
    assert reranker.ranks(RerankerHead(hidden=4).eval(), queries).tolist() == tower_ranks.tolist()


def test_uncounted_events_change_the_features() -> None:
    transitions, queries = Transitions.of(*_log(1), 25, reach=3, decay=0.8), _random_queries(2)
    reranker, fresh = Reranker(_catalogue(3), 0.3, transitions), np.arange(len(queries.users)) % 2
    uncounted = reranker.prepare(replace(queries, fresh=fresh).take(np.arange(len(fresh)))).co_visits
    expected = transitions.candidates(queries.items, queries.lengths, fresh)
    assert np.array_equal(uncounted.features, expected.features)
    assert not np.array_equal(uncounted.features, reranker.prepare(queries).co_visits.features)


@pytest.mark.parametrize("with_content", [True, False])
def test_taken_inputs_are_those_of_the_users_alone(with_content: bool) -> None:
    content = np.random.default_rng(5).standard_normal((25, 6)).astype(np.float32) if with_content else None
    reranker = Reranker(_catalogue(3), 0.3, Transitions.of(*_log(1), 25, reach=3, decay=0.8), content)
    queries, rows = _random_queries(2), np.array([3, 0, 3, 4])
    taken, alone = reranker.prepare(queries).take(rows), reranker.prepare(queries.take(rows))
    assert torch.allclose(taken.logits, alone.logits, atol=1e-6)
    assert torch.allclose(taken.similarity, alone.similarity, atol=1e-6)
    assert (taken.likeness is None) == (alone.likeness is None) == (not with_content)
    if taken.likeness is not None and alone.likeness is not None:
        assert torch.allclose(taken.likeness, alone.likeness, atol=1e-6)
    for name in ("row", "position", "features"):
        assert np.array_equal(getattr(taken.co_visits, name), getattr(alone.co_visits, name)), name
    assert all(torch.equal(a, b) for a, b in zip(taken.hidden, alone.hidden, strict=True))


@pytest.mark.parametrize("scale", [-0.05, 0.0])
def test_hidden_items_stay_hidden_by_any_head(scale: float) -> None:
    reranker, queries = (
        Reranker(_catalogue(3), 0.3, Transitions.of(*_log(1), 25, reach=3, decay=0.8)),
        _random_queries(2),
    )
    head = RerankerHead(hidden=4).eval()
    with torch.no_grad():
        head.scale.fill_(scale)
    ranks = reranker.ranks(head, queries)
    for user, hidden in enumerate(queries.hidden):
        targets_of_user = slice(queries.offsets[user], queries.offsets[user + 1])
        shown = 25 - len(set(hidden.tolist()) - set(queries.targets[targets_of_user].tolist()))
        # With zero weights all scores are equal, and a target ranks in the middle.
        assert all(ranks[targets_of_user] <= shown)
        assert scale or all(ranks[targets_of_user] == (1 + shown) / 2)


@pytest.mark.parametrize("block", [1, 7, 1000])
def test_ranks_and_tops_are_those_of_a_full_sort(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr("learn_spark.model.reranking.reranker.BLOCK_SCORES", 25 * block)
    catalogue = _catalogue(4)
    catalogue[3] = catalogue[9]
    transitions = Transitions.of(*_log(5), 25, reach=3, decay=0.8)
    reranker, queries, head = Reranker(catalogue, 0.3, transitions), _random_queries(6), _noisy_head()
    advances: list[int] = []
    ranks, top = reranker.ranks(head, queries, advances.append), reranker.top(head, queries, 30)
    assert sum(advances) == len(queries.users)
    with torch.inference_mode():
        scores = reranker.score(head, queries).numpy()
    for user, hidden in enumerate(queries.hidden):
        targets_of_user = slice(queries.offsets[user], queries.offsets[user + 1])
        shown = sorted(set(range(25)) - (set(hidden.tolist()) - set(queries.targets[targets_of_user].tolist())))
        for at in range(targets_of_user.start, targets_of_user.stop):
            target = queries.targets[at]
            by = [scores[user, other] - scores[user, target] for other in shown if other != target]
            assert ranks[at] == 1 + sum(b > 1e-6 for b in by) + 0.5 * sum(abs(b) <= 1e-6 for b in by)
        listed = [p for p in top[user].tolist() if p >= 0]
        assert listed == sorted(set(range(25)) - set(hidden.tolist()), key=lambda p: (-scores[user, p], p))


def _followers(users: int = 400) -> tuple[Reranker, QueryBatch, list[str]]:
    """Item i is followed by i + 20 in the log, and so in the targets; the tower's vectors are random."""
    chance = np.random.default_rng(0)
    first = np.tile(np.arange(20), 6)
    values = np.stack([first, first + 20], axis=1).ravel()
    offsets = np.arange(0, len(values) + 1, 2)
    reranker = Reranker(_catalogue(7, 40), 0.3, Transitions.of(values, offsets, 40, reach=4, decay=0.8))
    last = chance.integers(0, 20, users)
    queries = QueryBatch(
        chance.normal(size=(users, 6)).astype(np.float32),
        last[:, None],
        np.ones(users, np.int64),
        last + 20,
        np.arange(users + 1),
        [last[i : i + 1] for i in range(users)],
    )
    return reranker, queries, [f"u{i}" for i in range(users)]


def _fit(reranker: Reranker, queries: QueryBatch, users: list[str], **change: Any) -> CrossFittedHeads:
    settings = RerankerSettings(**({"hidden": 8, "epochs": 6, "batch_size": 32, "learning_rate": 0.02} | change))
    return fit_heads([reranker] * FOLDS, queries, users, settings, seed=1)


def test_a_head_learns_the_weight_of_co_visits_for_unseen_users() -> None:
    reranker, queries, users = _followers()
    before = reranker.ranks(RerankerHead(hidden=8).eval(), queries)
    heads, fold = _fit(reranker, queries, users), fold_of(users)
    assert before.mean() > 15
    for f, head in enumerate(heads.folds):
        rows = np.flatnonzero(fold == f)
        assert 150 < len(rows) < 250
        assert reranker.ranks(head, queries.take(rows)).mean() < 2
    again = _fit(reranker, queries, users)
    assert all(torch.equal(a, b) for a, b in zip(heads.tensors().values(), again.tensors().values(), strict=True))
    back = CrossFittedHeads.of_tensors(heads.tensors(), hidden=8)
    assert reranker.ranks(back.full, queries).tolist() == reranker.ranks(heads.full, queries).tolist()


def test_no_user_is_scored_by_a_head_that_was_fitted_on_them() -> None:
    """Other targets for the users of a fold change no bit of that fold's head; they change the others'."""
    reranker, queries, users = _followers(60)
    fold = fold_of(users)
    targets = np.where(fold == 0, (queries.targets + 3) % 40, queries.targets)
    other = QueryBatch(queries.users, queries.items, queries.lengths, targets, queries.offsets, queries.hidden)
    ours, theirs = _fit(reranker, queries, users, epochs=2), _fit(reranker, other, users, epochs=2)

    def same(a: RerankerHead, b: RerankerHead) -> bool:
        pairs = zip(a.state_dict().values(), b.state_dict().values(), strict=True)
        return all(torch.equal(x, y) for x, y in pairs)

    assert same(ours.folds[0], theirs.folds[0])
    assert not same(ours.folds[1], theirs.folds[1])
    assert not same(ours.full, theirs.full)


def test_rare_targets_weigh_more_by_the_setting() -> None:
    """Half of the users follow the log to an item seen 6 times, half buy an item without events in the log."""
    _, queries, users = _followers(200)
    unseen = Reranker(
        _catalogue(7, 60),
        0.3,
        Transitions.of(np.repeat(np.arange(40), 3), np.arange(0, 121, 3), 60, reach=2, decay=0.8),
    )
    targets = np.where(np.arange(200) % 2 == 0, queries.targets, 40 + queries.targets - 20)
    mixed = QueryBatch(queries.users, queries.items, queries.lengths, targets, queries.offsets, queries.hidden)
    plain, rare = (_fit(unseen, mixed, users, rare=rare).full for rare in (0.0, 1.0))
    # The advantage of unseen items over items seen a few times.
    extra = [float((head.popularity[0] - head.popularity[1]).detach()) for head in (rare, plain)]
    assert extra[0] > extra[1] > 0


@pytest.mark.parametrize("rare", [0.0, 0.7])
def test_a_step_goes_down_the_loss_of_any_target_that_is_written_out(
    rare: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One step over users with several targets, compared with AdamW on probabilities summed one by one."""
    monkeypatch.setattr("learn_spark.model.reranking.fit.MIN_STEPS", 1)
    queries, counts = _random_queries(5), Transitions.of(*_log(5), 25, reach=3, decay=0.8)
    reranker = Reranker(_catalogue(5), 0.3, counts)
    same_fold = [name for name in (f"u{i}" for i in range(200)) if fold_of([name])[0] == 0][:40]
    settings = RerankerSettings(hidden=3, epochs=1, batch_size=64, learning_rate=0.02, rare=rare)
    heads = fit_heads([reranker] * FOLDS, queries, same_fold, settings, seed=3)
    head = _fresh(3, 3)
    losses = []
    probabilities = torch.softmax(reranker.score(head, queries), dim=1)
    for user in range(40):
        targets = queries.targets[queries.offsets[user] : queries.offsets[user + 1]]
        rarity = [(1.0 + counts.counts[target]) ** -rare for target in targets]
        any_of = sum(w / sum(rarity) * probabilities[user, target] for w, target in zip(rarity, targets, strict=True))
        losses.append((sum(rarity) / len(targets), -torch.log(any_of)))
    loss = sum(weight * user_loss for weight, user_loss in losses) / sum(weight for weight, _ in losses)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(head.parameters(), 5.0)
    expected = {name: -0.02 * (1.0 if "score" in name else 10.0) for name, _ in head.named_parameters()}
    for (name, before), after in zip(head.named_parameters(), heads.full.parameters(), strict=True):
        gradient = before.grad
        if name == "likeness":  # there is no content
            assert gradient is None
            continue
        assert gradient is not None
        clear = gradient.abs() > 1e-5  # below this, Adam's first step is smaller than the learning rate
        moved = (after - before * (1.0 + expected[name] * 1e-4)).detach()
        assert torch.allclose(moved[clear], (expected[name] * gradient.sign())[clear], rtol=0.01)
        assert name.startswith("score.") or clear.any()
    assert all(torch.equal(a, b) for a, b in zip(heads.folds[0].parameters(), _fresh(3, 3).parameters(), strict=True))


def _fresh(seed: int, hidden: int) -> RerankerHead:
    torch.manual_seed(seed)
    return RerankerHead(hidden=hidden)


def test_a_small_set_has_more_passes_and_a_large_one_those_of_the_settings() -> None:
    settings = RerankerSettings(epochs=8, batch_size=128)
    assert passes(943, settings) == 38  # 8 batches a pass: 304 steps
    assert passes(22_363, settings) == 8
    assert passes(1, settings) == 300


def test_unseen_items_are_ranked_by_their_content() -> None:
    """Half of the users buy items without events, whose text is similar to that of their last item."""
    _, queries, users = _followers(400)
    log = np.repeat(np.arange(40), 3), np.arange(0, 121, 3)
    transitions = Transitions.of(*log, 60, reach=2, decay=0.8)
    content = np.concatenate([np.eye(20), np.eye(20)[::-1], np.eye(20)]).astype(np.float32)
    unlike = np.random.default_rng(3).permutation(20)
    targets = np.where(np.arange(400) % 2 == 0, unlike[queries.targets - 20] + 20, queries.targets + 20)
    mixed = QueryBatch(queries.users, queries.items, queries.lengths, targets, queries.offsets, queries.hidden)
    fold = np.flatnonzero(fold_of(users) == 0)
    unseen = fold[fold % 2 == 1]
    ranks = []
    for item_content in (content, None):
        reranker = Reranker(_catalogue(7, 60), 0.3, transitions, item_content)
        heads = _fit(reranker, mixed, users, epochs=10)
        ranks.append(reranker.ranks(heads.folds[0], mixed.take(unseen)).mean())
        if item_content is not None:
            assert float(heads.full.likeness[0].detach()) > float(heads.full.likeness[1:3].detach().max())
    assert ranks[0] < 3
    assert ranks[1] > 8


def test_a_fit_in_small_blocks_is_the_same_and_a_diverging_fit_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("learn_spark.model.reranking.fit.MIN_STEPS", 1)
    reranker, queries, users = _followers(60)
    at_once = _fit(reranker, queries, users, epochs=2).full
    monkeypatch.setattr("learn_spark.model.reranking.reranker.BLOCK_SCORES", 40 * 7)
    small = _fit(reranker, queries, users, epochs=2).full
    with torch.inference_mode():  # Adam amplifies the rounding errors of small gradients
        # No gradient determines a constant added to all scores.
        ours, theirs = (torch.log_softmax(reranker.score(head, queries), dim=1) for head in (at_once, small))
        assert torch.allclose(ours, theirs, atol=0.05)
    with pytest.raises(RerankerError, match=r"lower tower\.reranker\.learning_rate"):
        _fit(reranker, queries, users, learning_rate=1e30)


def test_catalogue_and_transitions_must_be_of_the_same_items() -> None:
    with pytest.raises(ValueError, match="transitions of 25 items, expected 24"):
        Reranker(_catalogue(0, 24), 0.3, Transitions.of(*_log(0), 25, reach=3, decay=0.8))
    with pytest.raises(ValueError, match="content of 26 items, expected 25"):
        Reranker(_catalogue(0), 0.3, Transitions.of(*_log(0), 25, reach=3, decay=0.8), _catalogue(0, 26))
    reranker = Reranker(_catalogue(0), 0.3, Transitions.of(*_log(0), 25, reach=3, decay=0.8))
    queries = _random_queries(0)
    wrong = QueryBatch(
        queries.users, queries.items, queries.lengths, queries.targets + 25, queries.offsets, queries.hidden
    )
    with pytest.raises(ValueError, match="outside the catalogue"):
        reranker.ranks(_noisy_head(), wrong)
