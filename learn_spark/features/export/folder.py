"""Writing the folder of an exported user tower, after the graph was compared with the tower and the release."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from learn_spark.core.console import Reporter
from learn_spark.core.errors import LearnSparkError
from learn_spark.core.ragged import fixed_lists
from learn_spark.core.storage.folders import new_folder
from learn_spark.core.storage.path import StoragePath
from learn_spark.core.tables.scan import scan
from learn_spark.core.times import DAY
from learn_spark.features.export.card import model_card
from learn_spark.features.export.manifest import (
    CARD_FILE,
    FORMAT,
    ITEMS_FILE,
    KIND,
    MANIFEST_FILE,
    TEST_FILE,
    Checked,
    ExportError,
    ExportManifest,
    is_export,
    sha256,
)
from learn_spark.features.pinned_model import PinnedModel

if TYPE_CHECKING:
    from learn_spark.model.export.graph import UserGraph

Format = Literal["onnx", "torch"]
CHECKED_USERS, TEST_USERS = 256, 16
TOLERANCE = 1e-4
FIRST_TIME = 1_700_000_000_000_000  # microseconds


@dataclass(frozen=True)
class _Users:
    """Some users: ids [n], items and times [n, L] right-padded with 0, lengths [n]; ``vectors`` [n, D] of the tower."""

    ids: list[str]
    items: np.ndarray
    times: np.ndarray
    lengths: np.ndarray
    vectors: np.ndarray

    def inputs(self, graph: UserGraph) -> dict[str, np.ndarray]:
        """The graph's inputs."""
        inputs = {"items": self.items}
        if graph.content_dim:
            inputs["new_items"] = np.zeros((0, graph.content_dim), np.float32)
        if graph.needs_times:
            inputs["times"] = self.times
        return inputs


def export_user_tower(pinned: PinnedModel, to: StoragePath, form: Format, console: Reporter) -> ExportManifest:
    """Write the user tower of ``pinned`` as the folder ``to``, which appears whole; an earlier export is replaced.

    Raises ExportError where ``to`` has other files, and where the graph differs from the tower or from the release by
    more than 1e-4; then nothing is written.
    """
    from learn_spark.model.export.graph import UserGraph
    from learn_spark.model.export.write import FILES, write

    if (to.is_file() or to.names()) and not is_export(to):
        raise ExportError(f"{to} has files that are not an export, which would be lost; name another folder")
    console.at("loading the model")
    pinned.bind()
    model = pinned.model
    vectors = model.vectors()
    graph = UserGraph(vectors, model.window).eval()
    users = _users(pinned)
    with new_folder(to.parent, pinned.workspace.scratch) as folder:
        console.at("writing the graph")
        written_by = write(graph, folder.path, form)
        checked = _check(pinned, graph, users, folder.path / FILES[form])
        _write_items(pinned, graph.n_items, folder.path / ITEMS_FILE)
        _write_test_vectors(pinned, graph, folder.path / TEST_FILE)
        manifest = ExportManifest(
            kind=KIND,
            format=FORMAT,
            model_id=model.model_id,
            release_id=None if pinned.release is None else pinned.release.release_id,
            method=model.method,
            graph=FILES[form],
            window=graph.window,
            n_items=graph.n_items,
            output_dim=graph.output_dim,
            normalised=vectors.normalised,
            blended=model.blending is not None,
            needs_times=graph.needs_times,
            content_dim=graph.content_dim,
            encoder_key=model.manifest.encoder_key,
            template_version=model.manifest.template_version,
            space_key=model.manifest.space_key,
            trained_as_of=model.manifest.as_of,
            versions=dict(pinned.versions),
            written_by=written_by,
            checked=checked,
            files={},
        )
        (folder.path / CARD_FILE).write_text(model_card(manifest, model.manifest), encoding="utf-8")
        files = {path.name: sha256(path) for path in sorted(folder.path.iterdir())}
        manifest = manifest.model_copy(update={"files": files})
        text = json.dumps(manifest.model_dump(mode="json"), indent=1)
        (folder.path / MANIFEST_FILE).write_text(text + "\n", encoding="utf-8")
        folder.appear(to.name, MANIFEST_FILE, replace=True)
    return manifest


def _users(pinned: PinnedModel) -> _Users:
    """The first users of the pinned histories. Raises LearnSparkError where there is none."""
    from learn_spark.model.towers.vectors import user_vectors

    columns = ["user_id", "chunk", "length", "item_index", "event_time"]
    rows = pa.table({name: [] for name in columns})
    for batch in pinned.snapshot("user_histories").batches(columns, CHECKED_USERS):
        newest = pa.Table.from_batches([batch.filter(pc.equal(batch["chunk"], 0))])
        rows = newest if not rows.num_rows else pa.concat_tables([rows, newest])
        if rows.num_rows >= CHECKED_USERS:
            break
    if not rows.num_rows:
        raise LearnSparkError("user_histories has no user to compare the graph by; run histories")
    rows = rows.slice(0, CHECKED_USERS).combine_chunks()
    lengths = rows["length"].to_numpy().astype(np.int64)
    items, times = (fixed_lists(rows[name]).astype(np.int64) for name in ("item_index", "event_time"))
    inside = np.arange(items.shape[1]) < lengths[:, None]
    items, times = np.where(inside, items, 0), np.where(inside, times, 0)
    vectors = user_vectors(pinned.model.vectors(), items, lengths, pinned.model.window, times=times)
    return _Users(rows["user_id"].to_pylist(), items, times, lengths, vectors)


def _check(pinned: PinnedModel, graph: UserGraph, users: _Users, path: Path) -> Checked:
    """Compare the written graph with the tower, and with the release if there is one."""
    found = _computed(path, users.inputs(graph))
    difference = float(np.abs(found - users.vectors).max())
    of_release = None
    if pinned.release is not None:
        rows = scan(
            pinned.workspace,
            "user_features",
            pinned.release.version("user_features"),
            where=pc.field("user_id").isin(users.ids),
            columns=["user_id", "embedding"],
        )
        released = dict(zip(rows["user_id"].to_pylist(), fixed_lists(rows["embedding"]), strict=True))
        pairs = [(found[row], released[user]) for row, user in enumerate(users.ids) if user in released]
        of_release = float(max((np.abs(one - other).max() for one, other in pairs), default=0.0))
    if not np.max([difference, of_release or 0.0]) <= TOLERANCE:
        raise ExportError(
            f"the graph's vectors of {len(users.ids)} users differ from the tower's by up to {difference:.3g} and from "
            f"the release's by up to {of_release}; at most {TOLERANCE} is allowed, and nothing was written"
        )
    return Checked(users=len(users.ids), largest_difference=difference, of_release=of_release)


def _computed(path: Path, inputs: dict[str, np.ndarray]) -> np.ndarray:
    """The vectors [n, D] by the written file."""
    if path.suffix != ".onnx":
        from learn_spark.model.export.write import run_program

        return run_program(path, inputs)
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["vectors"], inputs)[0])


def _write_items(pinned: PinnedModel, n_items: int, path: Path) -> None:
    """The catalogue's items in the order of their indices."""
    listed = pinned.snapshot("item_index").to_arrow(["item_index", "item_id"]).sort_by("item_index")
    pq.write_table(listed.filter(pc.less_equal(listed["item_index"], n_items)), path)


def _write_test_vectors(pinned: PinnedModel, graph: UserGraph, path: Path) -> None:
    """Inputs and outputs of drawn histories, named as the graph names them; histories of real users stay here.

    Half of the histories of a tower over content have an item of ``new_items``.
    """
    from learn_spark.model.export.write import run
    from learn_spark.model.towers.vectors import user_vectors

    chance, longest = np.random.default_rng(0), graph.window + 2
    lengths = np.linspace(1, longest, TEST_USERS).astype(np.int64)
    inside = np.arange(longest) < lengths[:, None]
    items = np.where(inside, chance.integers(1, graph.n_items + 1, inside.shape), 0)
    times = np.where(inside, FIRST_TIME + chance.integers(0, 30 * DAY, inside.shape).cumsum(axis=1), 0)
    vectors = user_vectors(pinned.model.vectors(), items, lengths, graph.window, times=times)
    inputs = {"items": items}
    if graph.content_dim:
        inputs["new_items"] = chance.normal(size=(2, graph.content_dim)).astype(np.float32)
        items[::2, 0] = graph.n_items + 1
        items[np.arange(0, TEST_USERS, 2), lengths[::2] - 1] = graph.n_items + 2
    if graph.needs_times:
        inputs["times"] = times
    outputs = run(graph, inputs)
    if graph.content_dim:
        # The tower itself knows no new item.
        vectors[::2] = outputs["vectors"][::2]
    outputs["vectors"] = vectors
    np.savez_compressed(
        path,
        **{f"input_{name}": values for name, values in inputs.items()},
        **{f"output_{name}": values for name, values in outputs.items()},
    )
