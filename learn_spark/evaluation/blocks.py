"""Users of a split ranked block by block.

The driver and Spark's workers rank the same blocks by the same code, so that figures do not depend on where they ran.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from learn_spark.data.splits.sample import UserSample
from learn_spark.data.splits.split import SplitName, Targets, split_histories
from learn_spark.evaluation.contenders import Contender

BLOCK_USERS = 4_096  # on average


@dataclass(frozen=True)
class RankingPlan:
    """How users are ranked: the split, whether their history is masked, the longest list, and whose lists are kept."""

    split: SplitName
    mask_history: bool
    longest_list: int
    listed: UserSample


@dataclass(frozen=True)
class RankedUsers:
    """B users of a block with the ranks of their T targets.

    ``lengths`` [B] are the events before the targets and ``last`` [B] the time of the last of them; ``repeats`` is the
    number of targets that their user has had before. ``ranks`` has [T] of each method, ``lists`` [R, longest_list]
    positions of the ``listed`` R users (-1: none).
    """

    user_ids: list[str]
    lengths: np.ndarray
    last: np.ndarray
    targets: Targets
    repeats: int
    ranks: Mapping[str, np.ndarray]
    listed: int
    lists: Mapping[str, np.ndarray]


def block_count(users: int) -> int:
    """Number of blocks for ``users`` users."""
    return max(1, -(-users // BLOCK_USERS))


def block_of(user_ids: Sequence[str], blocks: int) -> np.ndarray:
    """The block of each user [B], by a hash of the id. (Its lowest bit is the fold of ``folds.fold_of``.)"""
    return np.array([(zlib.crc32(user.encode()) >> 1) % blocks for user in user_ids], dtype=np.int64)


def rank_block(
    rows: pa.Table,
    plan: RankingPlan,
    contenders: Sequence[Contender],
    advance: Callable[[int], object] = lambda count: None,
) -> RankedUsers:
    """The users of ``rows``, of one block, ranked by every contender.

    ``advance`` receives numbers of finished users.
    """
    split = split_histories(rows, plan.split)
    hidden = split.hidden(plan.mask_history)
    listed = np.flatnonzero(plan.listed.contains(split.user_ids))
    hidden_of_listed = [hidden[row] for row in listed]
    ranks: dict[str, np.ndarray] = {}
    lists: dict[str, np.ndarray] = {}
    for contender in contenders:
        if not split.user_ids:
            ranks[contender.method], lists[contender.method] = np.zeros(0), np.zeros((0, plan.longest_list), np.int64)
            continue
        scorer = contender.scorer(split)
        ranks[contender.method] = scorer.ranks(hidden, advance)
        lists[contender.method] = np.zeros((0, plan.longest_list), np.int64)
        if len(listed):
            lists[contender.method] = scorer.top(listed, plan.longest_list, hidden_of_listed)
    last = split.times[np.arange(len(split.lengths)), split.lengths - 1]
    return RankedUsers(
        split.user_ids, split.lengths, last, split.every_target, split.repeats(), ranks, len(listed), lists
    )


def rank_blocks(
    rows: pa.Table,
    users: int,
    plan: RankingPlan,
    contenders: Sequence[Contender],
    advance: Callable[[int], object] = lambda count: None,
) -> Iterator[RankedUsers]:
    """All ``users`` users of ``rows`` in this process, a block at a time."""
    blocks = block_count(users)
    if blocks == 1:
        yield rank_block(rows, plan, contenders, advance)
        return
    number = block_of(rows["user_id"].to_pylist(), blocks)
    for block in range(blocks):
        yield rank_block(rows.filter(pa.array(number == block)), plan, contenders, advance)
