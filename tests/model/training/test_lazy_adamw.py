"""Sparse gradients of ID vectors: AdamW's steps for the rows of a batch, and nothing for the others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from learn_spark.core.settings.training import ObjectiveSettings, TrainingSettings
from learn_spark.model.towers.learn_plus import LearnPlus
from learn_spark.model.training import lazy_adamw
from learn_spark.model.training.lazy_adamw import LazyAdamW, clip_gradients, has_sparse_ids
from tests.model.training.planted import make_loop, make_tower

OPTIONS: dict[str, Any] = {"lr": 0.05, "betas": (0.9, 0.99), "weight_decay": 0.1}


def steps(table: nn.Embedding, optimizer: torch.optim.Optimizer, batches: list[list[int]]) -> None:
    """A step a batch of rows, clipped, of a loss that is another one in each step."""
    for number, batch in enumerate(batches, 1):
        rows = torch.tensor(batch)
        loss = ((table(rows) - number * torch.arange(3)) ** 2).sum() + table(rows[:1]).sum()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if table.sparse:
            table.weight.grad = table.weight.grad.coalesce()
        clip_gradients([table.weight], 2.0)
        optimizer.step()


def tables() -> tuple[nn.Embedding, nn.Embedding]:
    torch.manual_seed(1)
    dense, sparse = nn.Embedding(5, 3), nn.Embedding(5, 3, sparse=True)
    sparse.load_state_dict(dense.state_dict())
    return dense, sparse


def test_with_every_row_in_every_step_it_is_adamw() -> None:
    dense, sparse = tables()
    before = dense.weight.detach().clone()
    batches = [[0, 1, 2, 3, 4], [4, 3, 2, 1, 0, 0, 2], [1, 0, 2, 4, 3]] * 4
    steps(dense, torch.optim.AdamW(dense.parameters(), **OPTIONS), batches)
    steps(sparse, LazyAdamW(sparse.parameters(), **OPTIONS), batches)
    torch.testing.assert_close(sparse.weight, dense.weight, rtol=1e-5, atol=1e-6)
    assert (dense.weight - before).abs().min() > 0.01


def test_other_rows_keep_their_weights_and_moments() -> None:
    dense, sparse = tables()
    optimizer = LazyAdamW(sparse.parameters(), **OPTIONS)
    steps(sparse, optimizer, [[0, 1, 2, 3, 4]])
    state = {name: value.clone() for name, value in optimizer.state[sparse.weight].items()}
    before = sparse.weight.detach().clone()
    steps(sparse, optimizer, [[1, 3, 1], [3]])
    kept, moved = [0, 2, 4], [1, 3]
    assert torch.equal(sparse.weight[kept], before[kept])
    assert not torch.isclose(sparse.weight[moved], before[moved]).any()
    for name in ("exp_avg", "exp_avg_sq"):
        assert torch.equal(optimizer.state[sparse.weight][name][kept], state[name][kept])
    # With dense gradients, momentum and weight decay go on.
    adamw = torch.optim.AdamW(dense.parameters(), **OPTIONS)
    steps(dense, adamw, [[0, 1, 2, 3, 4]])
    before = dense.weight.detach().clone()
    steps(dense, adamw, [[1, 3, 1], [3]])
    assert not torch.isclose(dense.weight[kept], before[kept]).any()


def test_a_step_by_hand() -> None:
    """Gradient 4 clipped to 2, first step: the mean is 2, the root of the mean square 2; so the step is the rate."""
    table = nn.Embedding.from_pretrained(torch.tensor([[1.0], [7.0]]), freeze=False, sparse=True)
    optimizer = LazyAdamW(table.parameters(), lr=0.5, weight_decay=0.1)
    (4 * table(torch.tensor([0]))).sum().backward()
    assert table.weight.grad is not None
    table.weight.grad = table.weight.grad.coalesce()
    clip_gradients([table.weight], 2.0)
    assert table.weight.grad.values().item() == pytest.approx(2.0, rel=1e-5)
    optimizer.step()
    assert table.weight.detach().ravel().tolist() == pytest.approx([1.0 * (1 - 0.5 * 0.1) - 0.5, 7.0])


def test_norms_of_sparse_and_dense_gradients_are_clipped_together() -> None:
    weights, table = nn.Parameter(torch.zeros(2)), nn.Embedding(4, 1, sparse=True)
    weights.grad = torch.tensor([3.0, 0.0])
    table.weight.grad = torch.sparse_coo_tensor(
        [[2, 2]], torch.tensor([[1.0], [3.0]]), (4, 1), check_invariants=True
    ).coalesce()
    clip_gradients([weights, table.weight], 1.0)
    assert weights.grad.tolist() == pytest.approx([0.6, 0.0], rel=1e-5)
    assert table.weight.grad.to_dense().ravel().tolist() == pytest.approx([0, 0, 0.8, 0], rel=1e-5)


def test_learn_plus_has_the_same_gradients_either_way() -> None:
    gradients = []
    for sparse in (False, True):
        torch.manual_seed(2)
        tower = LearnPlus(n_items=9, content_dim=4, max_length=6, width=8, layers=1, heads=2, ffn=16, dropout=0.0)
        tower.bind(torch.randn(10, 4).numpy())
        (table,) = tower.id_tables
        nn.init.normal_(table.weight)
        table.sparse = sparse
        items = torch.tensor([[1, 2, 2, 0], [9, 1, 0, 0]])
        torch.manual_seed(3)
        ((tower.user(items) * tower.items(torch.tensor([5, 2]))[:, None]) ** 2).sum().backward()
        assert table.weight.grad is not None
        assert table.weight.grad.is_sparse == sparse
        gradients.append(table.weight.grad.to_dense())
    torch.testing.assert_close(gradients[1], gradients[0])
    assert gradients[0].abs().sum(1).gt(0).tolist() == [item in (1, 2, 5, 9) for item in range(10)]


def test_auto_is_sparse_where_it_pays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    objective = ObjectiveSettings(predicts="next_item", negatives="uniform")
    large = lazy_adamw.MOST_DENSE_IDS + 1
    auto = TrainingSettings()
    assert has_sparse_ids(auto, objective, large)
    assert not has_sparse_ids(auto, objective, large - 1)
    assert not has_sparse_ids(auto, objective.model_copy(update={"negatives": "full"}), large)
    assert not has_sparse_ids(auto.model_copy(update={"average": 0.9}), objective, large)
    assert has_sparse_ids(auto.model_copy(update={"id_gradients": "sparse"}), objective, 3)
    assert not has_sparse_ids(auto.model_copy(update={"id_gradients": "dense"}), objective, large)
    monkeypatch.setattr(lazy_adamw, "MOST_DENSE_IDS", 3)
    chosen: dict[str, Any] = {"objective": {"predicts": "next_item", "negatives": "uniform"}}
    loop = make_loop(tmp_path / "run", kind="sasrec", **chosen)
    assert [table.sparse for table in loop.tower.id_tables] == [True]
    assert not make_tower("learn").id_tables
    make_loop(tmp_path / "content", kind="learn", **chosen)


def test_it_learns_as_well(tmp_path: Path) -> None:
    options: dict[str, Any] = {"kind": "sasrec", "epochs": 12, "patience": 12, "learning_rate": 0.03}
    options["objective"] = {"predicts": "next_item", "negatives": "uniform", "n_negatives": 8, "per_position": True}
    best = {kind: make_loop(tmp_path / kind, **options, id_gradients=kind).fit() for kind in ("dense", "sparse")}
    assert best["sparse"].best_value > max(0.8, 0.9 * best["dense"].best_value)
