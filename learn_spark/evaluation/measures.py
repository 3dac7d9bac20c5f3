"""What is measured of the ranked users of a split: the rows of evaluation_users, sums of metrics, and lists."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa

from learn_spark.data.splits.sample import user_hashes
from learn_spark.data.splits.split import SplitName
from learn_spark.evaluation.bands import Quarters
from learn_spark.evaluation.blocks import RankedUsers
from learn_spark.evaluation.results import user_rows
from learn_spark.evaluation.slices import ITEM_DIMENSIONS, ItemSlices, target_labels
from learn_spark.evaluation.sums import SplitSums

_IDS = "item_ids.arrow"


@dataclass(frozen=True)
class MeasuringPlan:
    """What is measured on a split: metrics at ``ks``, with ``samples`` resamples; rows get ``run_id``, and the
    ``model_ids`` by method.
    """

    run_id: str
    split: SplitName
    model_ids: Mapping[str, str]
    quarters: Quarters
    ks: Sequence[int]
    samples: int
    seed: int


@dataclass
class Measured:
    """What was measured of some users of a split, or of all.

    ``repeats`` is the number of targets that their user had before. ``lists`` has positions [R, longest_list] of the
    ``listed`` users by method, block after block, in no stated order.
    """

    sums: SplitSums
    users: int = 0
    targets: int = 0
    repeats: int = 0
    listed: int = 0
    lists: dict[str, list[np.ndarray]] = field(default_factory=dict)

    def merge(self, other: Measured) -> None:
        """Add what was measured of other users of the split."""
        self.sums.merge(other.sums)
        self._count(other.users, other.targets, other.repeats, other.listed)
        for method, lists in other.lists.items():
            self.lists.setdefault(method, []).extend(lists)

    def add(self, ranked: RankedUsers, labels: Mapping[str, np.ndarray]) -> None:
        """Add a block of users; ``labels`` [T] are the slices of their targets by dimension."""
        targets = ranked.targets
        seeds = user_hashes(pa.array(ranked.user_ids, pa.string()))
        self.sums.add(seeds, targets.positions, targets.owners, labels, ranked.ranks)
        self._count(len(ranked.user_ids), len(targets.positions), ranked.repeats, ranked.listed)
        for method, lists in ranked.lists.items():
            self.lists.setdefault(method, []).append(lists)

    def _count(self, users: int, targets: int, repeats: int, listed: int) -> None:
        self.users += users
        self.targets += targets
        self.repeats += repeats
        self.listed += listed


@dataclass(frozen=True)
class CatalogueFacts:
    """The slices and the ids of all items by position: 3 bytes an item and its id."""

    slices: ItemSlices
    item_ids: pa.Array

    def save(self, folder: Path) -> None:
        """Write the arrays into ``folder``."""
        for dimension in ITEM_DIMENSIONS:
            np.save(folder / f"slices-{dimension}.npy", getattr(self.slices, dimension), allow_pickle=False)
        ids = pa.record_batch([self.item_ids], ["item_id"])
        with pa.OSFile(str(folder / _IDS), "wb") as file, pa.ipc.new_file(file, ids.schema) as writer:
            writer.write_batch(ids)

    @staticmethod
    def load(folder: Path) -> CatalogueFacts:
        """The arrays of ``save``, mapped into memory."""
        arrays = {name: np.load(folder / f"slices-{name}.npy", mmap_mode="r") for name in ITEM_DIMENSIONS}
        ids = pa.ipc.open_file(pa.memory_map(str(folder / _IDS))).get_batch(0).column("item_id")
        return CatalogueFacts(ItemSlices(**arrays), ids)


def measure(
    blocks: Iterable[RankedUsers], plan: MeasuringPlan, catalogue: CatalogueFacts, measured: Measured
) -> Iterator[pa.Table]:
    """The rows of evaluation_users of ``blocks``, a table a block and method; each block is added to ``measured``."""
    for ranked in blocks:
        if not ranked.user_ids:
            continue
        targets = ranked.targets
        labels = target_labels(targets, ranked.lengths, ranked.last, catalogue.slices, plan.quarters)
        measured.add(ranked, labels)
        user_ids = np.array(ranked.user_ids, dtype=object)[targets.owners]
        item_ids = catalogue.item_ids.take(pa.array(targets.positions))
        for method, model_id in plan.model_ids.items():
            shared = {"run_id": plan.run_id, "model_id": model_id, "method": method, "split": plan.split}
            yield user_rows(shared, user_ids, item_ids, labels, ranked.ranks[method])


def nothing_measured(plan: MeasuringPlan) -> Measured:
    """What is measured of no users; blocks are added to it."""
    return Measured(SplitSums(plan.ks, samples=plan.samples, seed=plan.seed))
