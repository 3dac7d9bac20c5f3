"""An exported user tower by onnxruntime: item ids in, vectors out. It needs neither torch nor Spark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from learn_spark.features.export.manifest import ITEMS_FILE, ExportError, ExportManifest, read_manifest


class ExportedTower:
    """The user tower of an exported folder. ``threads`` are those of a call."""

    def __init__(self, folder: str | Path, *, threads: int = 1) -> None:
        """Open ``folder``. Raises ExportError where a file is missing or differs from its hash."""
        import onnxruntime

        self.folder = Path(folder)
        self.manifest: ExportManifest = read_manifest(self.folder)
        if not self.manifest.graph.endswith(".onnx"):
            raise ExportError(f"{self.folder} has no ONNX file; learn-spark export --format onnx writes one")
        listed = pq.read_table(self.folder / ITEMS_FILE)
        numbers = listed["item_index"].to_pylist()
        self._index: dict[str, int] = dict(zip(listed["item_id"].to_pylist(), numbers, strict=True))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(
            str(self.folder / self.manifest.graph), options, providers=["CPUExecutionProvider"]
        )

    def vectors(
        self,
        histories: Sequence[Sequence[str]],
        *,
        times: Sequence[Sequence[int]] | None = None,
        new_items: Mapping[str, np.ndarray] | None = None,
    ) -> np.ndarray:
        """User vectors [B, D] float32 after the last event of ``histories``, item ids from the oldest to the newest.

        Of a long history the last events are read (``manifest.window``). ``times`` are microseconds since 1970, for a
        tower that needs them. ``new_items``: id -> content [C] of items that are newer than the export
        (OpenWorkspace.new_items computes it). Raises ExportError for an empty history, unknown ids, and times or
        content that are missing, of another shape or not finite.
        """
        return np.asarray(self.run(self.inputs(histories, times=times, new_items=new_items))["vectors"])

    def inputs(
        self,
        histories: Sequence[Sequence[str]],
        *,
        times: Sequence[Sequence[int]] | None = None,
        new_items: Mapping[str, np.ndarray] | None = None,
    ) -> dict[str, np.ndarray]:
        """The graph's inputs by name, padded; arguments and errors as of ``vectors``."""
        new_items = new_items or {}
        index = self._index | {item: self.manifest.n_items + place for place, item in enumerate(new_items, 1)}
        unknown = [item for history in histories for item in history if item not in index]
        if unknown:
            total, hint = sum(map(len, histories)), "give its content in new_items, or leave its event out"
            raise ExportError(
                f"{len(unknown)} of {total} events have items that are not among the {self.manifest.n_items:,} "
                f"exported ones, the first is {unknown[0]!r}; "
                + (hint if self.manifest.content_dim else "leave its event out, or train and export again")
            )
        # The graph reads no more.
        last = [list(history)[-self.manifest.window :] for history in histories]
        for row, history in enumerate(last):
            if not history:
                raise ExportError(f"history {row} has no event, so that there is no vector of it")
        inputs = {"items": _padded([[index[item] for item in history] for history in last])}
        if self.manifest.content_dim:
            inputs["new_items"] = self._content(new_items)
        elif new_items:
            raise ExportError(f"a {self.manifest.method} tower knows items by their IDs alone: it takes no new_items")
        if self.manifest.needs_times:
            lengths = [len(history) for history in histories]
            if times is None or [len(row) for row in times] != lengths:
                raise ExportError(
                    f"a {self.manifest.method} tower needs times of all events, in microseconds; expected rows of "
                    f"{lengths[:5]} times, got {None if times is None else [len(row) for row in times][:5]}"
                )
            inputs["times"] = _padded([list(row)[-self.manifest.window :] for row in times])
        return inputs

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """The graph's outputs by name (vectors, events, unknown) for its inputs by name."""
        names = [output.name for output in self.session.get_outputs()]
        return dict(zip(names, self.session.run(names, dict(inputs)), strict=True))

    def _content(self, new_items: Mapping[str, np.ndarray]) -> np.ndarray:
        width = self.manifest.content_dim
        content = np.zeros((len(new_items), width), np.float32)
        for place, (item, vector) in enumerate(new_items.items()):
            values = np.asarray(vector, np.float32)
            if values.shape != (width,) or not np.isfinite(values).all():
                raise ExportError(
                    f"new_items: the content of {item!r} must be {width} finite numbers, got shape {values.shape}"
                )
            content[place] = values
        return content


def _padded(rows: Sequence[Sequence[int]]) -> np.ndarray:
    """``rows`` as [B, L] int64, right-padded with 0."""
    padded = np.zeros((len(rows), max(map(len, rows), default=0)), np.int64)
    for place, row in enumerate(rows):
        padded[place, : len(row)] = row
    return padded
