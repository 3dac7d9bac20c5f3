"""Crops and prefixes of training sequences, and the popularity correction of the loss."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from learn_spark.core.settings.training import ObjectiveSettings
from learn_spark.model.towers.sasrec import SASRec
from learn_spark.model.training.batches import BatchMaker, NextItemBatch
from learn_spark.model.training.objective import ObjectiveLoss, objective_for
from learn_spark.model.training.process_group import ProcessGroup
from tests.model.training.planted import ITEMS, make_tower

LENGTHS = np.array([2, 5, 9, 0, 1])


def batch(step: int, **objective: Any) -> NextItemBatch:
    """Of sequences in which item 10 u + t is event t of user u."""
    settings = ObjectiveSettings(**{"predicts": "next_item", "negatives": "full", "history": 6, **objective})
    items = np.where(np.arange(9) < LENGTHS[:, None], 10 * np.arange(5)[:, None] + np.arange(1, 10), 0)
    rows = {"item_index": items, "train_length": LENGTHS, "train_end": np.zeros(5, np.int64)}
    maker = BatchMaker(settings, n_items=99, seed=1)
    (samples,) = [rows] if maker.prefixes is None else maker.prefixes.samples(rows)
    made = maker.make(samples, turn=0, step=step)
    assert isinstance(made, NextItemBatch)
    return made


def test_crops_are_windows_of_at_least_two_events_from_all_positions() -> None:
    seen: set[tuple[int, ...]] = set()
    for step in range(300):
        made = batch(step, crop_share=1.0)
        ends = iter(made.following.tolist())
        for row, valid in zip(made.items.tolist(), made.valid, strict=True):
            length = int(valid.sum())
            following = [next(ends) for _ in range(length)]
            assert row[length:] == [0] * (len(row) - length)
            # Event after event, and what follows is the next one.
            assert row[:length] == list(range(row[0], row[0] + length))
            assert following == [item + 1 for item in row[:length]]
            assert following[-1] % 10 <= LENGTHS[row[0] // 10]
            seen.add((*row[:length], following[-1]))
    # Every window of the user of five events, and of the user of nine those that fit six inputs.
    expected = {
        tuple(range(10 * user + first, 10 * user + last + 1))
        for user, length in ((0, 2), (1, 5), (2, 9))
        for first in range(1, length)
        for last in range(first + 1, min(length, first + 6) + 1)
    }
    assert seen == expected


def test_each_prefix_is_a_sample_that_predicts_the_event_after_it() -> None:
    made = batch(0, prefixes=True)
    samples = [
        ([item for item in row if item], following)
        for row, following in zip(made.items.tolist(), made.following.tolist(), strict=True)
    ]
    # The user of two events has one, that of five four, that of nine eight; a window has six events.
    ends = [(user, end) for user, length in ((0, 2), (1, 5), (2, 9)) for end in range(1, length)]
    assert samples == [
        (list(range(10 * user + max(1, end - 5), 10 * user + end + 1)), 10 * user + end + 1) for user, end in ends
    ]
    assert made.valid.sum(1).tolist() == [1] * len(ends)
    assert made.valid.nonzero()[:, 1].tolist() == [len(inputs) - 1 for inputs, _ in samples]


def test_prefixes_of_whole_histories_have_the_loss_of_sequences() -> None:
    """A tower whose vectors depend on nothing after an event, without dropout, makes no difference."""
    losses = []
    for prefixes in (False, True):
        objective = ObjectiveSettings(predicts="next_item", negatives="full", history=9, prefixes=prefixes)
        torch.manual_seed(5)
        tower = SASRec(n_items=99, max_length=9, width=8, layers=2, heads=2, ffn=8, dropout=0.0, positions="first")
        loss = ObjectiveLoss(objective, log_q=None, group=ProcessGroup())
        losses.append(loss(tower, batch(0, history=9, prefixes=prefixes)))
    (total, count), (other_total, other_count) = losses
    assert count == other_count == 1 + 4 + 8
    assert total.item() == pytest.approx(other_total.item(), rel=1e-5)


def test_a_process_without_a_prefix_adds_nothing_to_the_loss() -> None:
    settings = ObjectiveSettings(predicts="next_item", negatives="full", history=6, prefixes=True)
    maker = BatchMaker(settings, n_items=99, seed=1)
    rows = {"item_index": np.ones((0, 7), np.int32), "train_length": LENGTHS[:0], "train_end": LENGTHS[:0]}
    made = maker.make(rows, turn=0, step=0)
    torch.manual_seed(5)
    tower = SASRec(n_items=99, max_length=6, width=8, layers=1, heads=2, ffn=8, dropout=0.0)
    total, count = ObjectiveLoss(settings, log_q=None, group=ProcessGroup())(tower, made)
    assert (total.item(), int(count)) == (0.0, 0)
    total.backward()
    assert all(p.grad is None or not p.grad.any() for p in tower.parameters())


def test_a_share_of_the_sequences_is_cropped_and_without_it_none() -> None:
    assert all(batch(step).valid[:2].sum() == 1 + 4 for step in range(50))
    uncropped = [int(batch(step, crop_share=0.5).valid[1].sum()) == 4 for step in range(400)]
    # Half are not cropped, and of the crops one in four is the complete sequence.
    assert np.mean(uncropped) == pytest.approx(0.5 + 0.5 * 0.25, abs=0.08)


@pytest.mark.parametrize("strength", [0.0, 0.4])
def test_popularity_is_added_to_the_scores_of_the_catalogue(strength: float) -> None:
    """Against PyTorch's cross-entropy; items outside the catalogue are in no sum."""
    tower = make_tower("sasrec").eval()
    settings = ObjectiveSettings(
        predicts="next_item", negatives="full", history=6, temperature=0.2, popularity_correction=strength
    )
    shares = torch.log(torch.arange(ITEMS + 1.0).clamp(min=1.0) / 820.0)
    catalogue = torch.arange(3, ITEMS + 1)
    items = torch.tensor([[3, 9, 20], [7, 11, 0]])
    valid = items != 0
    following = torch.tensor([9, 20, 40, 11, 5])
    made = NextItemBatch(items=items, times=None, negatives=None, valid=valid, following=following, weight=None)
    loss = ObjectiveLoss(settings, log_q=shares, group=ProcessGroup(), catalogue=catalogue)
    total, count = loss(tower, made)
    scores = tower.user(items)[valid] @ tower.items(catalogue).T / 0.2 + strength * shares[catalogue]
    assert float(count) == 5
    assert float(total.detach()) == pytest.approx(
        float(F.cross_entropy(scores.detach(), following - 3, reduction="sum")), rel=1e-5
    )


def test_a_full_softmax_of_a_large_catalogue_becomes_mixed_negatives() -> None:
    full = ObjectiveSettings(predicts="next_item", negatives="full", popularity_correction=0.4, n_negatives=3)
    assert objective_for(full, 300_000) == full
    sampled = objective_for(full, 300_001)
    assert (sampled.negatives, sampled.log_q, sampled.popularity_correction) == ("mixed", True, 0.4)
    assert (sampled.n_negatives, sampled.in_batch_negatives) == (1_024, 1_024)
    # A process reads the settings again from plain values.
    assert ObjectiveSettings.model_validate(sampled.model_dump()) == sampled
    uniform = ObjectiveSettings(predicts="next_item", negatives="uniform")
    assert objective_for(uniform, 10**9) == uniform


@pytest.mark.parametrize("strength", [0.0, 0.4])
def test_many_mixed_negatives_have_nearly_the_gradient_of_the_full_softmax(strength: float) -> None:
    """The mean of many draws against the exact loss, with the same shares and catalogue."""
    tower = make_tower("sasrec").eval()
    counts = torch.cat([torch.zeros(1), torch.arange(1.0, ITEMS + 1)])
    shares = torch.log((counts / counts.sum()).clamp(min=1e-9))
    options: dict[str, Any] = {"predicts": "next_item", "history": 6, "popularity_correction": strength}
    settings = {
        "full": ObjectiveSettings(negatives="full", **options),
        "mixed": ObjectiveSettings(negatives="mixed", log_q=True, in_batch_negatives=64, n_negatives=64, **options),
    }
    generator, rows, draws = np.random.default_rng(0), 256, 60
    # A batch's positives are draws by the items' shares.
    following = torch.from_numpy(generator.choice(ITEMS, size=rows, p=(counts[1:] / counts.sum()).double().numpy())) + 1
    items = torch.from_numpy(generator.integers(1, ITEMS + 1, (rows, 1)))
    gradients: dict[str, torch.Tensor] = {}
    for kind, objective in settings.items():
        loss = ObjectiveLoss(objective, log_q=shares, group=ProcessGroup(), catalogue=torch.arange(1, ITEMS + 1))
        tower.zero_grad()
        for draw in range(draws):
            torch.manual_seed(draw)
            negatives = torch.from_numpy(generator.integers(1, ITEMS + 1, 64)) if kind == "mixed" else None
            made = NextItemBatch(
                items=items, times=None, negatives=negatives, valid=items != 0, following=following, weight=None
            )
            loss(tower, made)[0].backward()
        gradients[kind] = {name: p.grad.clone() for name, p in tower.named_parameters() if p.grad is not None}[
            "embedding.weight"
        ]
    likeness = F.cosine_similarity(gradients["full"].flatten(), gradients["mixed"].flatten(), dim=0)
    assert float(likeness) > 0.9, float(likeness)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"popularity_correction": 0.2}, "popularity_correction is for negatives full"),
        ({"in_batch_negatives": 9}, "in_batch_negatives is for negatives mixed"),
        ({"crop_share": 0.2}, "crop_share is for next_item"),
        ({"prefixes": True}, "prefixes is for next_item"),
    ],
)
def test_settings_without_effect_are_an_error(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ObjectiveSettings(**given)
