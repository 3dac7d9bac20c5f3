"""User and item vectors of a tower, in batches of bounded memory."""

from __future__ import annotations

import numpy as np
import torch

from learn_spark.towers.learn import LearnTower


def windows(items: np.ndarray, lengths: np.ndarray, window: int) -> tuple[np.ndarray, np.ndarray]:
    """The last ``window`` events of each history: items [B, <= window] right-padded with 0, and their numbers [B]."""
    kept = np.minimum(lengths, window)
    columns = np.arange(int(kept.max()) if len(kept) else 0)
    inside = columns < kept[:, None]
    at = np.where(inside, (lengths - kept)[:, None] + columns, 0)
    return np.where(inside, np.take_along_axis(items, at, axis=1), 0), kept


@torch.inference_mode()
def user_vectors(
    tower: LearnTower, content: np.ndarray, items: np.ndarray, lengths: np.ndarray, window: int, batch: int = 256
) -> np.ndarray:
    """Vectors [B, D] after the last of each user's ``lengths`` events; the tower sees the last ``window`` of them."""
    found = np.zeros((len(items), tower.shape.output_dim), dtype=np.float32)
    # Users of like length together, so that a batch is not padded to one long history.
    order = np.argsort(lengths, kind="stable")
    for start in range(0, len(order), batch):
        rows = order[start : start + batch]
        kept, counts = windows(items[rows], lengths[rows], window)
        vectors = tower.user_last(torch.from_numpy(content[kept]), torch.from_numpy(counts))
        found[rows] = vectors.numpy()
    return found


@torch.inference_mode()
def item_vectors(tower: LearnTower, content: np.ndarray, batch: int = 4096) -> np.ndarray:
    """Vectors [N, D] of every item of the content matrix [N + 1, C], without its padding row."""
    parts = [
        tower.items(torch.from_numpy(np.array(content[start : start + batch]))).numpy()
        for start in range(1, len(content), batch)
    ]
    return np.concatenate(parts)


def mean_vectors(unit: np.ndarray, items: np.ndarray, lengths: np.ndarray, window: int) -> np.ndarray:
    """The untrained user: the L2-normalised mean [B, C] of unit vectors [N + 1, C], of the last ``window`` events."""
    sums = np.zeros((len(items), unit.shape[1]), dtype=np.float32)
    for row, (history, length) in enumerate(zip(items, lengths, strict=True)):
        sums[row] = unit[history[max(0, length - window) : length]].sum(axis=0)
    return sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-12)
