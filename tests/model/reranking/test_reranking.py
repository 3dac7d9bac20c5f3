"""Co-occurrence beside a tower: counts by hand, slow versions, a head that learns, users never judged by their own."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations, pairwise
from typing import Any

import numpy as np
import pytest
import torch

from learn_spark.core.settings.tower import RerankerSettings
from learn_spark.data.splits.folds import fold_of
from learn_spark.model.reranking.co_visitation import CHANNELS, FEATURES, Transitions
from learn_spark.model.reranking.fit import RerankerError, fit_heads, passes
from learn_spark.model.reranking.head import CrossFittedHeads, RerankerHead
from learn_spark.model.reranking.reranker import HIDDEN, Reranker
from learn_spark.model.scoring.frequency import between_knots
from learn_spark.model.scoring.queries import QueryBatch
from learn_spark.model.scoring.ranks import ranks_from_vectors


def _log(seed: int, users: int = 60, n_items: int = 25) -> tuple[np.ndarray, np.ndarray]:
    chance = np.random.default_rng(seed)
    sizes = chance.integers(1, 9, users)
    return chance.integers(0, n_items, sizes.sum()), np.concatenate([[0], np.cumsum(sizes)])


def _asked(seed: int, users: int = 40, n_items: int = 25, targets: int = 3, width: int = 6) -> QueryBatch:
    chance = np.random.default_rng(seed)
    counts = chance.integers(1, targets + 1, users)
    own = [chance.permutation(n_items)[: count + 5] for count in counts]
    return QueryBatch(
        chance.normal(size=(users, width)).astype(np.float32),
        chance.integers(0, n_items, (users, 4)),
        chance.integers(1, 5, users),
        np.concatenate([items[:count] for items, count in zip(own, counts, strict=True)]),
        np.concatenate([[0], np.cumsum(counts)]),
        [np.sort(items[max(0, count - 1) : count + 4]) for items, count in zip(own, counts, strict=True)],
    )


def _catalogue(seed: int, n_items: int = 25, width: int = 6) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n_items, width)).astype(np.float32)


def test_transitions_by_hand() -> None:
    """a b c b | c a, reach 2, decay .5: next ab bc cb ca; later (two apart, .5) ac, bb; before: the other way round."""
    values, offsets = np.array([0, 1, 2, 1, 2, 0]), np.array([0, 4, 6])
    found = Transitions.of(values, offsets, 3, reach=2, decay=0.5)
    near, later, before = (matrix.toarray() for matrix in found.channels)
    assert near.tolist() == [[0, 1, 0], [0, 0, 1], [1, 1, 0]]
    assert later.tolist() == [[0, 0, 0.5], [0, 0.5, 0], [0, 0, 0]]
    assert before.tolist() == (near + later).T.tolist()
    assert found.counts.tolist() == [2, 2, 2]
    # Of the newest event that was not counted all are other ones: a's rate is 1 / (2 + 2), c's as it was.
    fresh = found.candidates(np.array([[2, 0]]), np.array([2]), np.array([1]))
    rows = dict(zip(fresh.position.tolist(), np.expm1(fresh.features[:, :6]) / 100, strict=True))
    assert rows[1] == pytest.approx([1 / 4, 0.5 / 3, 0, 0, 0, 0.5 / 3])
    assert np.expm1(fresh.features[:, 6:]) == pytest.approx(np.array([[2, 2]] * 3))
    # A user who has c, then a. Both have one other event, so a seed's rate is 1 / (1 + 2).
    who = found.candidates(np.array([[2, 0]]), np.array([2]))
    rows = dict(zip(who.position.tolist(), np.expm1(who.features[:, :6]) / 100, strict=True))
    # a: next b 1, later c .5, before c 1 (ca); c, weighted .5: next a, b; before b, from bc, and a .5, from ac.
    assert rows[1] == pytest.approx([1 / 3, 0.5 / 3, 0, 0, 0, 0.5 / 3])
    assert rows[2] == pytest.approx([0, 0, 0.5 / 3, 0, 1 / 3, 0])
    assert rows[0] == pytest.approx([0, 0.5 / 3, 0, 0, 0, 0.25 / 3])
    assert np.expm1(who.features[:, 6:]) == pytest.approx(np.array([[1, 2]] * 3))


@pytest.mark.parametrize("seed", [0, 1])
def test_a_slow_count_of_candidates_gives_the_same(seed: int) -> None:
    values, offsets = _log(seed)
    reach, decay, n_items = 3, 0.7, 25
    found = Transitions.of(values, offsets, n_items, reach=reach, decay=decay)
    items, lengths = np.random.default_rng(seed).integers(0, n_items, (30, 6)), np.arange(30) % 7
    who = found.candidates(items, lengths)
    told = {(r, p): f for r, p, f in zip(who.row, who.position, who.features, strict=True)}
    assert (np.diff(who.row * n_items + who.position) > 0).all()
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
                            own = sums.setdefault(second, {})
                            own[f"{slot} {channel}"] = own.get(f"{slot} {channel}", 0.0) + share * weight
        assert {p for r, p in told if r == user} == set(sums)
        for position, values_of in sums.items():
            expected = [np.log1p(100 * values_of.get(name, 0.0)) for name in FEATURES[:6]]
            expected += [np.log1p(max(counts[history[-1]] - 1, 0)), np.log1p(counts[position])]
            assert told[user, position] == pytest.approx(expected, abs=1e-4)
    assert len(CHANNELS) * 2 + 2 == len(FEATURES)


def _noisy_head(seed: int = 0) -> RerankerHead:
    torch.manual_seed(seed)
    head = RerankerHead(hidden=8)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.5)
    return head.eval()


def test_between_knots_is_linear_in_the_logarithm() -> None:
    """7 events: log 8 lies .63 of the way from log 3 to log 11; behind the last knot all is as there."""
    found = between_knots(np.array([0, 2, 7, 250, 9999]))
    assert found.sum(axis=1) == pytest.approx(np.ones(5))
    assert found[[0, 1, 3, 4]].tolist() == np.eye(5)[[0, 1, 4, 4]].tolist()
    share = np.log(8 / 3) / np.log(11 / 3)
    assert found[2] == pytest.approx([0, 1 - share, share, 0, 0])


@pytest.mark.parametrize("with_content", [True, False])
def test_a_score_worked_out_by_hand(with_content: bool) -> None:
    """a(n) * l + b(n) + c(n) * s, and f of the evidence, of the cosine with the last item, of s and of l where there is
    evidence; what is hidden takes no part in l, but a target that the user has had does.
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
        found = reranker.score(head, queries)[0]
    products = catalogue.astype(float) @ queries.users[0] / 0.4
    shown = [i for i in range(25) if i not in (7, 11)]
    logits = products - np.log(np.exp(products[shown]).sum())
    told = transitions.candidates(queries.items, queries.lengths)
    seen_with = dict(zip(told.position.tolist(), told.features, strict=True))
    assert 0 < len(set(seen_with) & set(shown)) < len(shown)
    unit = content / np.linalg.norm(content, axis=1, keepdims=True)
    mean = unit[4] + unit[11]
    weights = [parameter.detach().numpy() for parameter in (head.scale, head.popularity, head.likeness)]
    for item in shown:
        like = unit[item] @ mean / np.linalg.norm(mean) if with_content else 0.0
        a, b, c = (np.interp(np.log1p(transitions.counts[item]), np.log1p([0, 2, 10, 50, 250]), own) for own in weights)
        expected = a * logits[item] + b + c * 10 * like
        if item in seen_with:
            cosine = catalogue[item] @ catalogue[11] / np.linalg.norm(catalogue[item]) / np.linalg.norm(catalogue[11])
            own = max(logits[item], -20.0) / 5.0
            inputs = torch.tensor([*seen_with[item], cosine, like, own, own * own], dtype=torch.float32)
            expected += float(head.score(inputs).detach())
        assert float(found[item]) == pytest.approx(expected, abs=1e-4)
    assert found[[7, 11]].tolist() == [HIDDEN, HIDDEN]


def test_a_head_at_its_start_is_the_tower_alone() -> None:
    reranker, queries = Reranker(_catalogue(3), 0.3, Transitions.of(*_log(1), 25, reach=3, decay=0.8)), _asked(2)
    alone = ranks_from_vectors(queries.users, _catalogue(3), queries.targets, queries.hidden, offsets=queries.offsets)
    assert reranker.ranks(RerankerHead(hidden=4).eval(), queries).tolist() == alone.tolist()


def test_events_that_were_not_counted_are_weighed_as_such() -> None:
    transitions, queries = Transitions.of(*_log(1), 25, reach=3, decay=0.8), _asked(2)
    reranker, fresh = Reranker(_catalogue(3), 0.3, transitions), np.arange(len(queries.users)) % 2
    told = reranker.see(replace(queries, fresh=fresh).take(np.arange(len(fresh)))).found
    expected = transitions.candidates(queries.items, queries.lengths, fresh)
    assert np.array_equal(told.features, expected.features)
    assert not np.array_equal(told.features, reranker.see(queries).found.features)


@pytest.mark.parametrize("scale", [-0.05, 0.0])
def test_what_is_hidden_stays_hidden_whatever_a_head_makes_of_scores(scale: float) -> None:
    reranker, queries = Reranker(_catalogue(3), 0.3, Transitions.of(*_log(1), 25, reach=3, decay=0.8)), _asked(2)
    head = RerankerHead(hidden=4).eval()
    with torch.no_grad():
        head.scale.fill_(scale)
    ranks = reranker.ranks(head, queries)
    for user, hidden in enumerate(queries.hidden):
        own = slice(queries.offsets[user], queries.offsets[user + 1])
        shown = 25 - len(set(hidden.tolist()) - set(queries.targets[own].tolist()))
        # Weighed by nothing all are equal, and a target stands in their middle.
        assert all(ranks[own] <= shown)
        assert scale or all(ranks[own] == (1 + shown) / 2)


@pytest.mark.parametrize("block", [1, 7, 1000])
def test_ranks_and_tops_are_those_of_a_full_sort(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr("learn_spark.model.reranking.reranker.BLOCK_SCORES", 25 * block)
    catalogue = _catalogue(4)
    catalogue[3] = catalogue[9]
    transitions = Transitions.of(*_log(5), 25, reach=3, decay=0.8)
    reranker, queries, head = Reranker(catalogue, 0.3, transitions), _asked(6), _noisy_head()
    told: list[int] = []
    ranks, top = reranker.ranks(head, queries, told.append), reranker.top(head, queries, 30)
    assert sum(told) == len(queries.users)
    with torch.inference_mode():
        scores = reranker.score(head, queries).numpy()
    for user, hidden in enumerate(queries.hidden):
        own = slice(queries.offsets[user], queries.offsets[user + 1])
        shown = sorted(set(range(25)) - (set(hidden.tolist()) - set(queries.targets[own].tolist())))
        for at in range(own.start, own.stop):
            target = queries.targets[at]
            by = [scores[user, other] - scores[user, target] for other in shown if other != target]
            assert ranks[at] == 1 + sum(b > 1e-6 for b in by) + 0.5 * sum(abs(b) <= 1e-6 for b in by)
        listed = [p for p in top[user].tolist() if p >= 0]
        assert listed == sorted(set(range(25)) - set(hidden.tolist()), key=lambda p: (-scores[user, p], p))


def _followers(users: int = 400) -> tuple[Reranker, QueryBatch, list[str]]:
    """Item i is followed by i + 20 in the log, and so in the targets; the tower's vectors say nothing."""
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
    return fit_heads(reranker, queries, users, settings, seed=1)


def test_a_head_learns_what_evidence_is_worth_to_users_it_has_not_seen() -> None:
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
    assert reranker.ranks(back.whole, queries).tolist() == reranker.ranks(heads.whole, queries).tolist()


def test_no_user_is_judged_by_a_head_that_was_fitted_on_him() -> None:
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
    assert not same(ours.whole, theirs.whole)


def test_rare_targets_weigh_more_where_asked() -> None:
    """Half of the users follow the log to an item seen 6 times, half buy one that the log never saw."""
    _, queries, users = _followers(200)
    unseen = Reranker(
        _catalogue(7, 60),
        0.3,
        Transitions.of(np.repeat(np.arange(40), 3), np.arange(0, 121, 3), 60, reach=2, decay=0.8),
    )
    targets = np.where(np.arange(200) % 2 == 0, queries.targets, 40 + queries.targets - 20)
    mixed = QueryBatch(queries.users, queries.items, queries.lengths, targets, queries.offsets, queries.hidden)
    plain, rare = (_fit(unseen, mixed, users, rare=rare).whole for rare in (0.0, 1.0))
    # What unseen items get beyond those seen a few times.
    extra = [float((head.popularity[0] - head.popularity[1]).detach()) for head in (rare, plain)]
    assert extra[0] > extra[1] > 0


@pytest.mark.parametrize("rare", [0.0, 0.7])
def test_a_step_goes_down_the_loss_of_any_target_that_is_written_out(
    rare: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One step over users of several targets, beside AdamW on probabilities that are added up one by one."""
    monkeypatch.setattr("learn_spark.model.reranking.fit.LEAST_STEPS", 1)
    queries, counts = _asked(5), Transitions.of(*_log(5), 25, reach=3, decay=0.8)
    reranker = Reranker(_catalogue(5), 0.3, counts)
    same_fold = [name for name in (f"u{i}" for i in range(200)) if fold_of([name])[0] == 0][:40]
    settings = RerankerSettings(hidden=3, epochs=1, batch_size=64, learning_rate=0.02, rare=rare)
    found = fit_heads(reranker, queries, same_fold, settings, seed=3)
    head = _fresh(3, 3)
    losses = []
    probabilities = torch.softmax(reranker.score(head, queries), dim=1)
    for user in range(40):
        own = queries.targets[queries.offsets[user] : queries.offsets[user + 1]]
        worth = [(1.0 + counts.counts[target]) ** -rare for target in own]
        any_of = sum(w / sum(worth) * probabilities[user, target] for w, target in zip(worth, own, strict=True))
        losses.append((sum(worth) / len(own), -torch.log(any_of)))
    loss = sum(weight * own for weight, own in losses) / sum(weight for weight, _ in losses)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(head.parameters(), 5.0)
    expected = {name: -0.02 * (1.0 if "score" in name else 10.0) for name, _ in head.named_parameters()}
    for (name, before), after in zip(head.named_parameters(), found.whole.parameters(), strict=True):
        gradient = before.grad
        if name == "likeness":  # there is no content
            assert gradient is None
            continue
        assert gradient is not None
        clear = gradient.abs() > 1e-5  # of less, Adam's first step is less than a whole one
        moved = (after - before * (1.0 + expected[name] * 1e-4)).detach()
        assert torch.allclose(moved[clear], (expected[name] * gradient.sign())[clear], rtol=0.01)
        assert name.startswith("score.") or clear.any()
    assert all(torch.equal(a, b) for a, b in zip(found.folds[0].parameters(), _fresh(3, 3).parameters(), strict=True))


def _fresh(seed: int, hidden: int) -> RerankerHead:
    torch.manual_seed(seed)
    return RerankerHead(hidden=hidden)


def test_a_small_set_has_more_passes_and_a_large_one_those_of_the_settings() -> None:
    settings = RerankerSettings(epochs=8, batch_size=128)
    assert passes(943, settings) == 38  # 8 batches a pass: 304 steps
    assert passes(22_363, settings) == 8
    assert passes(1, settings) == 300


def test_unseen_items_are_told_apart_by_their_content() -> None:
    """Half of the users buy items that neither counts nor vectors know, but whose text is like that of their last."""
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
    for own in (content, None):
        reranker = Reranker(_catalogue(7, 60), 0.3, transitions, own)
        heads = _fit(reranker, mixed, users, epochs=10)
        ranks.append(reranker.ranks(heads.folds[0], mixed.take(unseen)).mean())
        if own is not None:
            assert float(heads.whole.likeness[0].detach()) > float(heads.whole.likeness[1:3].detach().max())
    assert ranks[0] < 3
    assert ranks[1] > 8


def test_a_fit_in_small_blocks_is_the_fit_and_one_that_diverges_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("learn_spark.model.reranking.fit.LEAST_STEPS", 1)
    reranker, queries, users = _followers(60)
    whole = _fit(reranker, queries, users, epochs=2).whole
    monkeypatch.setattr("learn_spark.model.reranking.reranker.BLOCK_SCORES", 40 * 7)
    small = _fit(reranker, queries, users, epochs=2).whole
    with torch.inference_mode():  # Adam makes much of what rounding leaves of a small gradient
        # Nor does any gradient say what all scores have in common.
        ours, theirs = (torch.log_softmax(reranker.score(head, queries), dim=1) for head in (whole, small))
        assert torch.allclose(ours, theirs, atol=0.05)
    with pytest.raises(RerankerError, match=r"lower tower\.reranker\.learning_rate"):
        _fit(reranker, queries, users, learning_rate=1e30)


def test_catalogue_and_transitions_must_be_of_the_same_items() -> None:
    with pytest.raises(ValueError, match="24 items, but transitions of 25"):
        Reranker(_catalogue(0, 24), 0.3, Transitions.of(*_log(0), 25, reach=3, decay=0.8))
    with pytest.raises(ValueError, match="25 items, but content of 26"):
        Reranker(_catalogue(0), 0.3, Transitions.of(*_log(0), 25, reach=3, decay=0.8), _catalogue(0, 26))
    reranker = Reranker(_catalogue(0), 0.3, Transitions.of(*_log(0), 25, reach=3, decay=0.8))
    queries = _asked(0)
    wrong = QueryBatch(
        queries.users, queries.items, queries.lengths, queries.targets + 25, queries.offsets, queries.hidden
    )
    with pytest.raises(ValueError, match="outside the catalogue"):
        reranker.ranks(_noisy_head(), wrong)
