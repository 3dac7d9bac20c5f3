"""The content adaptor of LEARN: frozen item embeddings through one learned linear layer."""

from __future__ import annotations

from torch import Tensor, nn


class ContentAdaptor(nn.Module):
    """A learned linear layer content_dim -> width (LEARN, section 3).

    It takes content as given: centring and whitening belong to learn_spark/encoder/embedding_space.py. Raises
    ValueError for sizes below 1.
    """

    def __init__(self, *, content_dim: int, width: int) -> None:
        if content_dim < 1 or width < 1:
            raise ValueError(f"content_dim {content_dim} and width {width} must be at least 1")
        super().__init__()
        self.content_dim = content_dim
        self.linear = nn.Linear(content_dim, width)

    def forward(self, content: Tensor) -> Tensor:
        """Map ``content`` [..., content_dim] to [..., width]. Raises ValueError for another last dimension."""
        if content.dim() < 1 or content.shape[-1] != self.content_dim:
            raise ValueError(f"expected content [..., {self.content_dim}], got {list(content.shape)}")
        adapted: Tensor = self.linear(content)
        return adapted
