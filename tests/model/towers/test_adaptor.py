"""The content adaptor: one linear layer."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from learn_spark.model.towers.adaptor import ContentAdaptor


def test_it_is_one_linear_layer() -> None:
    torch.manual_seed(0)
    adaptor = ContentAdaptor(content_dim=6, width=4).double()
    rows = np.random.default_rng(1).normal(size=(2, 3, 6))
    weight, bias = adaptor.linear.weight.detach().numpy(), adaptor.linear.bias.detach().numpy()
    np.testing.assert_allclose(adaptor(torch.from_numpy(rows)).detach().numpy(), rows @ weight.T + bias, atol=1e-12)
    assert set(adaptor.state_dict()) == {"linear.weight", "linear.bias"}


def test_refuses_shapes_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match=r"content \[..., 3\], got \[5, 4\]"):
        ContentAdaptor(content_dim=3, width=2)(torch.zeros(5, 4))
    with pytest.raises(ValueError, match="content_dim 0"):
        ContentAdaptor(content_dim=0, width=2)
