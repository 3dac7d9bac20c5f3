"""Checks of constructor arguments that all towers share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

from torch import Tensor

Similarity = Literal["cosine", "dot"]


def check_arguments(sizes: Mapping[str, int], **shares: float) -> None:
    """Raise ValueError for a size below 1, a ``width`` that is no multiple of ``heads``, a share outside [0, 1)."""
    check_sizes(sizes)
    check_heads(sizes["width"], sizes["heads"])
    check_shares(**shares)


def check_sizes(sizes: Mapping[str, int]) -> None:
    """Raise ValueError for a size below 1."""
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name} {size} must be at least 1")


def check_heads(width: int, heads: int) -> None:
    """Raise ValueError where ``width`` is no multiple of ``heads``."""
    if width % heads:
        raise ValueError(f"width {width} is not a multiple of heads {heads}")


def check_shares(**shares: float) -> None:
    """Raise ValueError for a share outside [0, 1)."""
    for name, share in shares.items():
        if not 0.0 <= share < 1.0:
            raise ValueError(f"{name} {share} must be in [0, 1)")


def check_similarity(similarity: str) -> None:
    """Raise ValueError for an unknown ``similarity``."""
    if similarity not in get_args(Similarity):
        raise ValueError(f"similarity {similarity!r} must be one of {get_args(Similarity)}")


def check_lengths(lengths: Tensor, batch: int, longest: int) -> None:
    """Raise ValueError for ``lengths`` that are not [``batch``], and for a length outside 1..``longest``."""
    if lengths.shape != (batch,):
        raise ValueError(f"expected lengths [{batch}], got {list(lengths.shape)}")
    wrong = lengths[(lengths < 1) | (lengths > longest)]
    if len(wrong):
        raise ValueError(f"{len(wrong)} of {batch} lengths are outside 1..{longest}, the first is {int(wrong[0])}")
