"""Two processes give the loss and the gradients of one process on the joined batch."""

from __future__ import annotations

import os
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing

from learn_spark.core.settings.training import ObjectiveSettings
from learn_spark.model.feed.shuffle import Rows
from learn_spark.model.training.batches import AllActionBatch, BatchMaker, NextItemBatch
from learn_spark.model.training.objective import Batch, ObjectiveLoss
from learn_spark.model.training.process_group import ProcessGroup
from tests.model.training.planted import ITEMS, make_tower

# Of five users the first process has three, the second two: what they gather is of unequal length.
SPLIT = (slice(0, 3), slice(3, 5))
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "all actions": ("learn", {}),
    "all actions, corrected": ("learn", {"log_q": True, "learn_temperature": True}),
    "next item, in batch": ("sasrec", {"predicts": "next_item", "log_q": True}),
    "next item, sparse ids": ("sasrec", {"predicts": "next_item", "log_q": True}),
    "next item, whole catalogue": ("hstu", {"predicts": "next_item", "negatives": "full", "learn_temperature": True}),
}


def rows() -> Rows:
    generator = np.random.default_rng(2)
    lengths = np.array([8, 3, 6, 2, 7])
    items = generator.integers(1, ITEMS + 1, (5, 10))
    items[np.arange(10) >= lengths[:, None]] = 0
    return {
        "item_index": items.astype(np.int32),
        "event_time": np.cumsum(generator.integers(1, 10**10, (5, 10)), axis=1),
        "train_end": np.zeros(5, np.int32),
        "train_length": lengths.astype(np.int32),
    }


def part(batch: Batch, users: slice) -> Batch:
    """The batch of some of its users."""
    names = ["items", "times"]
    if isinstance(batch, AllActionBatch):
        names += ["targets", "user_at", "user_mask", "target_at", "target_mask"]
    split: dict[str, Any] = {n: None if getattr(batch, n) is None else getattr(batch, n)[users] for n in names}
    if isinstance(batch, NextItemBatch):
        ends = batch.valid.sum(1).cumsum(0)
        start = 0 if users.start == 0 else int(ends[users.start - 1])
        split |= {"valid": batch.valid[users], "following": batch.following[start : int(ends[users.stop - 1])]}
    return replace(batch, **split)


def gradients(case: str, group: ProcessGroup, users: slice) -> dict[str, torch.Tensor]:
    kind, changes = CASES[case]
    objective = ObjectiveSettings(
        **{"history": 6, "targets": 3, "history_positions": 3, "target_positions": 2, "temperature": 0.5, **changes}
    )
    tower = make_tower(kind).eval()  # without dropout, which would differ
    if "sparse" in case:
        for table in tower.id_tables:
            table.sparse = True
    log_q = torch.log_softmax(torch.linspace(0, 3, ITEMS + 1), 0) if objective.log_q else None
    loss = ObjectiveLoss(objective, log_q=log_q, group=group)
    batch = BatchMaker(objective, n_items=ITEMS, seed=1, times=tower.needs_times).make(rows(), turn=0, step=0)
    terms, count = loss(tower, part(batch, users))
    total, pairs = group.sum(torch.stack([terms.detach(), count.float()]))
    (terms / pairs).backward()
    named = [*tower.named_parameters(), *loss.named_parameters()]
    group.sum_gradients([parameter for _, parameter in named])
    gradients_by_name = {name: torch.zeros(()) if p.grad is None else p.grad.to_dense() for name, p in named}
    assert any(p.grad is not None and p.grad.is_sparse for _, p in named) == ("sparse" in case)
    return {**gradients_by_name, "loss": total / pairs, "pairs": pairs}


def work(rank: int, port: int, folder: str) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=2)
    group = ProcessGroup(rank, 2)
    torch.save({case: gradients(case, group, SPLIT[rank]) for case in CASES}, Path(folder) / f"{rank}.pt")
    assert group.broadcast(rank) == 0
    # An empty part is gathered too.
    nothing = group.gather(torch.full((rank, 2), 7.0, requires_grad=True))
    assert nothing.tolist() == [[7.0, 7.0]]
    nothing.sum().backward()
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def of_two(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, dict[str, torch.Tensor]]]:
    folder = tmp_path_factory.mktemp("ranks")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    multiprocessing.start_processes(work, args=(port, str(folder)), nprocs=2, start_method="spawn")
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in (0, 1)]


@pytest.mark.parametrize("case", list(CASES))
def test_two_processes_are_as_one_on_the_joined_batch(of_two: list[Any], case: str) -> None:
    single = gradients(case, ProcessGroup(), slice(0, 5))
    assert single["pairs"] > 5
    for name, expected in single.items():
        for rank in (0, 1):
            torch.testing.assert_close(of_two[rank][case][name], expected, rtol=1e-4, atol=1e-6, msg=f"{case}: {name}")
    # A single process has another loss, because the other process's negatives count.
    of_first = gradients(case, ProcessGroup(), SPLIT[0])
    assert abs(float(of_first["loss"] - single["loss"])) > 1e-3
