"""The content adaptor of LEARN: frozen item embeddings, whitened, through one learned linear layer."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from learn_spark.encoder.space import fit_whitening as fit_whitening


class ContentAdaptor(nn.Module):
    """Whitening (fixed buffers) and a learned linear layer content_dim -> width (LEARN section 3).

    Until ``set_whitening`` is called the mean is 0 and the matrix the identity. Both are saved with the weights.

    Raises ValueError for sizes below 1.
    """

    mean: Tensor
    whitening: Tensor

    def __init__(self, *, content_dim: int, width: int) -> None:
        if content_dim < 1 or width < 1:
            raise ValueError(f"content_dim {content_dim} and width {width} must be at least 1")
        super().__init__()
        self.content_dim = content_dim
        self.register_buffer("mean", torch.zeros(content_dim))
        self.register_buffer("whitening", torch.eye(content_dim))
        self.linear = nn.Linear(content_dim, width)

    def set_whitening(self, mean: np.ndarray, matrix: np.ndarray) -> None:
        """Use ``mean`` [content_dim] and ``matrix`` [content_dim, content_dim]; ValueError for any other shape."""
        expected = ((self.content_dim,), (self.content_dim, self.content_dim))
        if (mean.shape, matrix.shape) != expected:
            raise ValueError(f"expected whitening of {expected[0]} and {expected[1]}, got {mean.shape}, {matrix.shape}")
        if not (np.isfinite(mean).all() and np.isfinite(matrix).all()):
            raise ValueError(f"the whitening of {self.content_dim} columns holds values not finite")
        self.mean.copy_(torch.from_numpy(np.ascontiguousarray(mean)))
        self.whitening.copy_(torch.from_numpy(np.ascontiguousarray(matrix)))

    def through(self, layer: nn.Linear, content: Tensor) -> Tensor:
        """``layer`` on the whitened ``content`` [..., content_dim]; returns [..., layer.out_features]."""
        if content.dim() < 1 or content.shape[-1] != self.content_dim:
            raise ValueError(f"expected content [..., {self.content_dim}], got {list(content.shape)}")
        # The matrix is folded into the layer's weight: once a call instead of once a row.
        return F.linear(content - self.mean, layer.weight @ self.whitening.T, layer.bias)

    def whitened(self, content: np.ndarray) -> np.ndarray:
        """L2-normalised whitened rows [n, content_dim] float32: the content space itself, without anything learned."""
        rows = (np.asarray(content) - self.mean.numpy()) @ self.whitening.numpy()
        norms = np.linalg.norm(rows, axis=1, keepdims=True)
        return (rows / np.maximum(norms, 1e-12)).astype(np.float32)

    def forward(self, content: Tensor) -> Tensor:
        """``content`` [..., content_dim] to [..., width]; ValueError for another last dimension."""
        return self.through(self.linear, content)
