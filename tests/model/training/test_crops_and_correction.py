"""Crops of training sequences, and the popularity correction of the loss."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from learn_spark.core.settings.training import ObjectiveSettings
from learn_spark.model.training.batches import BatchMaker, NextItemBatch
from learn_spark.model.training.objective import ObjectiveLoss
from learn_spark.model.training.process_group import ProcessGroup
from tests.model.training.planted import ITEMS, make_tower

LENGTHS = np.array([2, 5, 9, 0, 1])


def batch(step: int, **objective: Any) -> NextItemBatch:
    """Of sequences in which item 10 u + t is event t of user u."""
    settings = ObjectiveSettings(**{"predicts": "next_item", "negatives": "full", "history": 6, **objective})
    items = np.where(np.arange(9) < LENGTHS[:, None], 10 * np.arange(5)[:, None] + np.arange(1, 10), 0)
    rows = {"item_index": items, "train_length": LENGTHS, "train_end": np.zeros(5, np.int64)}
    made = BatchMaker(settings, n_items=99, seed=1).make(rows, turn=0, step=step)
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


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"popularity_correction": 0.2}, "popularity_correction is for negatives full"),
        ({"crop_share": 0.2}, "crop_share is for next_item"),
    ],
)
def test_settings_without_effect_are_an_error(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ObjectiveSettings(**given)
