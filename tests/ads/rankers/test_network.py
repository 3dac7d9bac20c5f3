"""The network: cross layers and the adaptor by hand-written formulas, masks, sharing of nothing it should not know."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from learn_spark.ads.rankers.count_features import count_features
from learn_spark.ads.rankers.network import Adaptor, Batch, Cross, GroupDropout, Network, Shape
from learn_spark.ads.rankers.scalers import VectorScaler
from learn_spark.ads.rankers.statistics import statistics_of
from tests.ads.rankers.rankings import inputs

SHAPE = Shape("learn", "dcn_v2", (5, 4), 3, 2, (8, 4), 2, None, 6, gate=2.0)


def vectors(rows: int = 7) -> np.ndarray:
    drawn = np.random.default_rng(0).normal(size=(rows, 2)).astype(np.float32)
    drawn[0] = 0
    return drawn


def some(rows: int = 6) -> Batch:
    chance = np.random.default_rng(1)
    fields = np.stack([chance.integers(0, 5, rows), chance.integers(0, 4, rows)], axis=1)
    user, item = chance.integers(0, 7, (2, rows))
    user[0] = item[0] = item[1] = 0
    counts = chance.integers(0, 9, (rows, 6)) + np.array([9, 0, 9, 0, 0, 0])
    every = inputs(fields, np.zeros(rows), user=user, item=item, vectors=vectors(), counts=counts)
    return Batch.of(every, slice(None))


@torch.no_grad()
@pytest.mark.parametrize("rank", [None, 2])
def test_a_cross_layer_is_x0_times_w_x_plus_b_plus_x(rank: int | None) -> None:
    torch.manual_seed(0)
    layer, width = Cross(4, rank), 4
    x0, x = torch.randn(3, 4), torch.randn(3, 4)
    w = layer.outer.weight if rank is None else layer.outer.weight @ layer.inner.weight
    assert w.shape == (4, 4)
    assert sum(p.numel() for p in layer.parameters()) == (width * width if rank is None else 2 * width * rank) + width
    crossed = layer(x0, x)
    for row in range(3):
        for i in range(4):
            product = sum(float(w[i, j] * x[row, j]) for j in range(4)) + float(layer.outer.bias[i])
            assert float(crossed[row, i]) == pytest.approx(float(x0[row, i]) * product + float(x[row, i]), abs=1e-5)


def test_the_whole_of_dcn_v2_by_hand() -> None:
    torch.manual_seed(0)
    network, batch = Network(SHAPE).eval(), some()
    fields = np.array([[0, 3], [2, 3], [2, 3], [4, 3], [2, 1], [2, 1]])
    counts = np.array([[4, 1, 0, 0, 2, 0], [9, 2, 7, 0, 0, 0], *np.zeros((4, 6))])
    train = inputs(fields, np.arange(6) % 2, user=np.arange(6), item=np.arange(1, 7), vectors=vectors(), counts=counts)
    network.fit_scales(train, statistics_of(train))
    # n / (n + 2) of 0, 0, 4, 0, 1 and of 0, 2, 0, 4 exposures; the unknown row has none by definition.
    factors = [torch.tensor([0, 0, 2 / 3, 0, 1 / 3]), torch.tensor([0, 1 / 2, 0, 2 / 3])]
    tables = [embedding.table.weight for embedding in network.embeddings]
    parts = [
        table[rows] * factor[rows, None] for table, factor, rows in zip(tables, factors, batch.rows.T, strict=True)
    ]
    mean_square = torch.sqrt((count_features(torch.from_numpy(counts).float(), 0.5) ** 2).mean(dim=0))
    scale = torch.where(mean_square > 0, mean_square, 1)
    counted = (count_features(batch.counts, 0.5) / scale).clamp(-4, 4)
    user, item = network.user(batch.user, batch.has_vector[:, 0]), network.item(batch.item, batch.has_vector[:, 1])
    dot = torch.tensor([float(u @ i) for u, i in zip(batch.user, batch.item, strict=True)])
    of_train = np.einsum("nd,nd->n", vectors()[1:6], vectors()[2:7])  # all but the first have both vectors
    score = (dot - of_train.mean()) / of_train.std() * batch.has_vector.prod(dim=1)
    has_user, has_item = batch.has_vector.split(1, dim=1)
    x0 = torch.cat([*parts, batch.cyclic_time, counted, user, has_user, item, has_item, score[:, None]], dim=1)
    first = x0 * (x0 @ network.crosses[0].outer.weight.T + network.crosses[0].outer.bias) + x0
    second = x0 * (first @ network.crosses[1].outer.weight.T + network.crosses[1].outer.bias) + first
    deep = x0
    for at in (0, 2):
        deep = torch.relu(deep @ network.deep[at].weight.T + network.deep[at].bias)
    expected = torch.cat([second, deep], dim=1) @ network.out.weight[0] + network.out.bias
    logits, auxiliary = network(batch)
    assert auxiliary is None
    assert torch.allclose(logits, expected, atol=1e-6)


def test_counts_are_logarithms_and_log_odds_that_are_0_where_nothing_is_known() -> None:
    counts = torch.tensor([[0.0, 0, 0, 0, 0, 0], [30, 4, 8, 0, 2, 9]])
    features = count_features(counts, 0.25)
    assert features[0].tolist() == [0] * 8
    # Two conversions in eight exposures are added to each.
    expected = [np.log(31), np.log(5), np.log(6 / 32 * 3), np.log(3), np.log(9), 0, np.log(2 / 14 * 3), np.log(10)]
    assert features[1].tolist() == pytest.approx(expected, abs=1e-6)


def test_an_mlp_has_no_cross_layers_and_base_no_vectors() -> None:
    torch.manual_seed(0)
    network = Network(replace(SHAPE, model="mlp", variant="base")).eval()
    assert len(network.crosses) == 0
    batch = some()
    other = replace(batch, user=batch.user + 1, item=batch.item - 1, has_vector=1 - batch.has_vector)
    assert torch.equal(network(batch)[0], network(other)[0])
    with_features = Network(SHAPE).eval()
    assert not torch.allclose(with_features(batch)[0], with_features(other)[0])


def test_the_adaptor_hands_fused_user_and_item_on_and_is_supervised_by_itself() -> None:
    torch.manual_seed(0)
    adaptor = Adaptor(2, 6)
    user, item = torch.randn(5, 2), torch.randn(5, 2)
    fused, logit = adaptor(user, item)
    hidden = torch.relu(torch.cat([user, item], dim=1) @ adaptor.layers[0].weight.T + adaptor.layers[0].bias)
    assert torch.allclose(fused, hidden @ adaptor.layers[2].weight.T + adaptor.layers[2].bias, atol=1e-6)
    assert (fused.shape, logit.shape) == ((5, 6), (5,))
    network = Network(replace(SHAPE, variant="learn-adaptor", model="mlp"))
    batch = some()
    logits, auxiliary = network(batch)
    assert auxiliary is not None
    # [fields, cyclic_time, counts, user, item, has_vector, score, adapted] is what the MLP reads.
    assert network.deep[0].in_features == 2 * 3 + 4 + 8 + 2 * 2 + 2 + 1 + 6
    auxiliary.sum().backward(retain_graph=True)
    assert network.adaptor is not None
    assert network.adaptor.layers[0].weight.grad is not None
    assert network.deep[0].weight.grad is None
    logits.sum().backward()
    assert network.deep[0].weight.grad is not None


def test_masked_vectors_are_zero_whatever_the_scale() -> None:
    standard = VectorScaler(2)
    drawn = vectors()[1:] + 3
    standard.fit(drawn)
    known = torch.ones(6)
    known[2] = 0
    scaled = standard(torch.from_numpy(drawn), known)
    assert scaled[2].tolist() == [0, 0]
    rest = standard(torch.from_numpy(drawn), torch.ones(6)).numpy()
    assert rest.mean(axis=0) == pytest.approx([0, 0], abs=1e-6)
    assert np.sqrt((rest**2).mean()) == pytest.approx(1, abs=1e-5)
    # By one number: what is longer stays longer.
    assert rest == pytest.approx(
        (drawn - drawn.mean(axis=0)) / np.sqrt(((drawn - drawn.mean(axis=0)) ** 2).mean()), abs=1e-5
    )
    unused = VectorScaler(2)
    unused.fit(np.zeros((0, 2)))
    assert (unused.mean.tolist(), float(unused.scale)) == ([0, 0], 1)


def test_whole_groups_are_dropped_in_training_alone() -> None:
    torch.manual_seed(0)
    groups = [torch.ones(20_000, width) for width in (1, 3, 2)]
    drop = GroupDropout(0.3)
    dropped = drop(groups)
    for group in dropped:
        # All numbers of a group together, and those that are kept unchanged.
        assert torch.equal(group.amin(dim=1), group.amax(dim=1))
        assert float(group.mean()) == pytest.approx(0.7, abs=0.02)
    both = (dropped[0][:, 0] * dropped[1][:, 0]).mean()
    assert float(both) == pytest.approx(0.49, abs=0.02)
    drop.eval()
    assert all(torch.equal(a, b) for a, b in zip(drop(groups), groups, strict=True))


def test_a_shape_survives_json() -> None:
    import json

    for shape in (SHAPE, replace(SHAPE, cross_rank=3, variant="base")):
        assert Shape.of_dict(json.loads(json.dumps(shape.to_dict()))) == shape
