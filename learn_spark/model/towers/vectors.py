"""User and item vectors of a tower, in batches of bounded memory."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from learn_spark.model.towers.tower import Tower


def windows(lengths: np.ndarray, window: int, *columns: np.ndarray) -> tuple[np.ndarray, ...]:
    """The last ``window`` events of each history: their counts [B], and ``columns`` [B, L] as [B, <= window],
    right-padded with 0.
    """
    counts = np.minimum(lengths, window)
    places = np.arange(int(counts.max()) if len(counts) else 0)
    inside = places < counts[:, None]
    at = np.where(inside, (lengths - counts)[:, None] + places, 0)
    return counts, *(np.where(inside, np.take_along_axis(values, at, axis=1), 0) for values in columns)


@torch.inference_mode()
def user_vectors(
    tower: Tower,
    items: np.ndarray,
    lengths: np.ndarray,
    window: int,
    *,
    times: np.ndarray | None = None,
    batch: int = 256,
) -> np.ndarray:
    """User vectors [B, D] float32 after the last of each user's ``lengths`` [B] events.

    The tower reads the last ``window`` events. Raises ValueError where the tower needs ``times`` [B, L] and they are
    None.
    """
    if tower.needs_times and times is None:
        raise ValueError(f"a {tower.method} tower needs times [B, L] of the events; pass times")
    vectors = np.zeros((len(items), tower.output_dim), dtype=np.float32)
    device = next(tower.parameters()).device
    # Users of similar length share a batch, so that one long history does not pad all the others.
    order = np.argsort(lengths, kind="stable")
    for start in range(0, len(order), batch):
        rows = order[start : start + batch]
        columns = [items[rows], *([times[rows]] if tower.needs_times and times is not None else [])]
        counts, *columns = windows(lengths[rows], window, *columns)
        inputs = [torch.from_numpy(values.astype(np.int64)).to(device) for values in columns]
        batch_vectors = tower.user_last(inputs[0], torch.from_numpy(counts).to(device), *inputs[1:])
        vectors[rows] = batch_vectors.float().cpu().numpy()
    return vectors


@torch.inference_mode()
def item_vectors(tower: Tower, batch: int = 4096, *, positions: np.ndarray | None = None) -> np.ndarray:
    """Vectors [N, D] float32 of every item 1..N of the tower's catalogue, 4 D bytes an item.

    With ``positions`` [S] (item_index - 1), only of these items.
    """
    device = next(tower.parameters()).device
    items = torch.arange(1, tower.n_items + 1) if positions is None else torch.from_numpy(positions + 1)
    vectors = np.empty((len(items), tower.output_dim), np.float32)
    for start in range(0, len(items), batch):
        part = items[start : start + batch].to(device)
        vectors[start : start + batch] = tower.items(part).float().cpu().numpy()
    return vectors


def unit_rows(vectors: np.ndarray) -> np.ndarray:
    """``vectors`` [n, C], L2-normalised in their type; zero rows stay zero."""
    # In float16 neither the least length nor the squares of long vectors could be represented.
    exact = np.promote_types(vectors.dtype, np.float32)
    norms = np.linalg.norm(vectors.astype(exact, copy=False), axis=1, keepdims=True)
    return (vectors / np.maximum(norms, 1e-12)).astype(vectors.dtype, copy=False)


def mean_vectors(
    unit: np.ndarray, items: np.ndarray, lengths: np.ndarray, window: int, *, decay: float = 1.0
) -> np.ndarray:
    """The untrained user: the L2-normalised mean [B, C] of unit vectors [N + 1, C], of the last ``window`` events.

    An event weighs ``decay`` ^ (number of later events).
    """
    sums = np.zeros((len(items), unit.shape[1]), dtype=np.float32)
    weights = np.float32(decay) ** np.arange(window, dtype=np.float32)[::-1]
    for row, (history, length) in enumerate(zip(items, lengths, strict=True)):
        recent = history[max(0, length - window) : length]
        sums[row] = weights[window - len(recent) :] @ unit[recent]
    return unit_rows(sums)


def to_one_length(vectors: Tensor, longest: float) -> Tensor:
    """``vectors`` [..., D] with one more number, which makes all as long as ``longest``, scaled to length 1.

    The order of their inner products with any user stays (Bachrach et al. 2014, section 3.1). A longer vector gets 0.
    """
    filler = (longest**2 - vectors.square().sum(dim=-1, keepdim=True)).clamp(min=0.0).sqrt()
    return F.normalize(torch.cat([vectors, filler], dim=-1), dim=-1)
