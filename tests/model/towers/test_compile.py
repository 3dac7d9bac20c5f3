"""Blocks under torch.compile: the same vectors and gradients, for batches of any size."""

from __future__ import annotations

import copy

import torch

from learn_spark.model.towers.sasrec import SASRec


def test_compiled_blocks_compute_the_same() -> None:
    torch.manual_seed(0)
    tower = SASRec(n_items=20, max_length=6, width=8, layers=2, heads=2, ffn=8, dropout=0.0)
    compiled = copy.deepcopy(tower)
    compiled.compile_blocks()
    calls = [block._compiled_call_impl for block in compiled.blocks]
    assert all(call is not None for call in calls)
    for rows, length in ((3, 4), (5, 6)):
        items = torch.randint(1, 21, (rows, length))
        vectors = [one.user(items) for one in (tower, compiled)]
        torch.testing.assert_close(vectors[1], vectors[0], rtol=1e-4, atol=1e-6)
        for one, actual in zip((tower, compiled), vectors, strict=True):
            one.zero_grad()
            (actual * torch.arange(8.0)).sum().backward()
        for (name, ours), theirs in zip(tower.named_parameters(), compiled.parameters(), strict=True):
            torch.testing.assert_close(theirs.grad, ours.grad, rtol=1e-3, atol=1e-5, msg=name)
    assert compiled.state_dict().keys() == tower.state_dict().keys()
