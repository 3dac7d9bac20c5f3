"""Events in, one vector out: the user tower with its preprocessing, as one module with tensors alone."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from learn_spark.model.blending.tower import BlendedTower, blend, profile_of, recency_weights
from learn_spark.model.export.padded import embedded_content, embedded_items, padded_user
from learn_spark.model.narrowing.projections import NarrowedTower, narrow_users
from learn_spark.model.towers.bound import BoundTower
from learn_spark.model.towers.id_based import IdTower
from learn_spark.model.towers.tower import Tower


class UserGraph(nn.Module):
    """Vectors of users after their last event, from item indices in any number, with padding anywhere.

    Zeros are padding; of the other events the last ``window`` are read. For a tower over content, index n_items + m is
    row m (from 1) of ``new_items``, content of items that are newer than the graph; they have no ID vector. Indices
    beyond these, and negative ones, are left out and counted.
    """

    content: Tensor | None
    co_visits: Tensor | None
    log_counts: Tensor | None
    of_users: Tensor | None

    def __init__(self, vectors: Tower, window: int) -> None:
        """``vectors`` is the tower whose vectors are released (Model.vectors), with content bound.

        Raises LearnSparkError for a kind of tower that has no padded form.
        """
        super().__init__()
        narrowed = vectors if isinstance(vectors, NarrowedTower) else None
        wide = vectors if narrowed is None else narrowed.tower
        blended = wide if isinstance(wide, BlendedTower) else None
        self.reach, self.decay = (0, 1.0) if blended is None else (blended.reach, blended.decay)
        tower = wide if blended is None else blended.tower
        self.needs_times, self.output_dim, self.n_items = vectors.needs_times, vectors.output_dim, tower.n_items
        self.unit = vectors.normalised
        self.window = min(window, tower.max_length) if isinstance(tower, IdTower) else window
        self.user = padded_user(tower)
        self.table = nn.Embedding.from_pretrained(embedded_items(tower))
        self.tower = tower if isinstance(tower, BoundTower) else None
        self.content_dim = tower.content_dim if isinstance(tower, BoundTower) else 0
        # In the type of the item matrix, of which the tower, too, makes float32.
        blended_content = torch.from_numpy(np.array(tower.bound)) if self.reach and self.tower is not None else None
        self.register_buffer("content", blended_content)
        self.register_buffer("co_visits", None if blended is None else blended.co_visits)
        self.register_buffer("log_counts", None if blended is None else blended.log_counts)
        self.register_buffer("of_users", None if narrowed is None else narrowed.of_users)

    def forward(
        self, items: Tensor, new_items: Tensor | None = None, times: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The vectors [B, D] float32 after the last event, the number of events read [B] and of those left out [B].

        ``items`` [B, L] int64 and ``times`` [B, L] int64 (microseconds, for a tower that needs them) are oldest first;
        ``new_items`` [M, C] float32. A row of which no event can be read has the vector NaN.
        """
        extra = 0 if new_items is None else new_items.shape[0]
        columns, counts, unknown = self._last_events(items, self.n_items + extra)
        read = _take(items, columns)
        in_table = read * (read <= self.n_items)
        embedded, content = self.table(in_table), None if self.content is None else self.content[in_table].float()
        if new_items is not None:
            assert self.tower is not None
            # A row for requests without a new item.
            rows = F.pad(new_items, (0, 0, 0, 1))[(read - self.n_items - 1).clamp(min=0)]
            is_new = (read > self.n_items).unsqueeze(2)
            embedded = torch.where(is_new, embedded_content(self.tower, None, rows), embedded)
            content = None if content is None else torch.where(is_new, rows, content)
        vectors = self.user(embedded, counts, None if times is None else _take(times, columns))
        if content is not None:
            weights = recency_weights(counts, columns.shape[1], self.reach, self.decay)
            compared = [F.normalize(content, dim=-1)]
            if self.co_visits is not None:
                compared.append(self.co_visits[in_table])
            profile = None if self.log_counts is None else profile_of(self.log_counts[in_table], weights, counts)
            sums = [(one * weights.unsqueeze(2)).sum(dim=1) for one in compared]
            vectors = blend(vectors, sums, profile, unit=self.unit)
        if self.of_users is not None:
            vectors = narrow_users(vectors, self.of_users, unit=self.unit)
        return torch.where(counts.unsqueeze(1) > 0, vectors, torch.nan), counts, unknown

    def _last_events(self, items: Tensor, highest: int) -> tuple[Tensor, Tensor, Tensor]:
        """(columns [B, K] of the last events, right-padded; their counts [B]; number of indices left out [B]).

        K is the lesser of the window and L + 1. At padding the columns are L, one after the last.
        """
        items = F.pad(items, (0, 1))
        length = items.shape[1]
        known = (items > 0) & (items <= highest)
        place = torch.arange(length)
        order = torch.where(known, place, place + length).argsort(dim=1)
        found = known.sum(dim=1)
        counts = found.clamp(max=self.window)
        taken = torch.arange(torch.sym_min(self.window, length))
        columns = ((found - counts).unsqueeze(1) + taken).clamp(max=length - 1)
        columns = torch.where(taken < counts.unsqueeze(1), order.gather(1, columns), length - 1)
        return columns, counts, ((items != 0) & ~known).sum(dim=1)


def _take(values: Tensor, columns: Tensor) -> Tensor:
    """``values`` [B, L] at ``columns`` [B, K]; 0 at column L."""
    return F.pad(values, (0, 1)).gather(1, columns)
