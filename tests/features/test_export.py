"""An exported user tower gives the vectors of the tower, by onnxruntime, from its folder alone."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

import learn_spark as ls
from learn_spark.core.console import Reporter
from learn_spark.core.errors import LearnSparkError
from learn_spark.core.ragged import fixed_lists
from learn_spark.core.storage.path import storage_path
from learn_spark.core.tables.snapshot import Snapshot
from learn_spark.features.export.folder import export_user_tower
from learn_spark.features.export.manifest import ExportError
from learn_spark.features.export.served import ExportedTower
from learn_spark.features.pinned_model import PinnedModel
from learn_spark.model.blending.frequency_weights import FrequencyWeights
from learn_spark.model.narrowing.projections import Projections
from learn_spark.model.parts import ModelBlending, ModelNarrowing
from learn_spark.model.towers.bound import BoundTower
from learn_spark.model.towers.vectors import user_vectors
from tests.shelf import BOOKS, COLD, DAY, RIVAL, Shelf, reading

QUIET = Reporter(quiet=True)
SHORT = ("training.epochs=1",)
PLUS = "tower={kind: learn-plus, width: 16, layers: 1, heads: 2, ffn: 16, dropout: 0.1, time_gaps: true, members: 2}"
KINDS: dict[str, tuple[str, ...]] = {
    "learn": (),
    "learn-plus": (PLUS,),
    "sasrec": RIVAL,
    "hstu": (*RIVAL, "tower={kind: hstu, width: 16, layers: 1, heads: 2, dropout: 0.1}"),
    "bsarec": (
        *RIVAL,
        "tower={kind: bsarec, width: 16, layers: 1, heads: 2, ffn: 16, dropout: 0.1}",
        "objective.prefixes=true",
    ),
}


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    return Shelf(tmp_path_factory.mktemp("export") / "shelf", reading())


def pinned_of(shelf: Shelf, kind: str) -> PinnedModel:
    run, _ = shelf.run("train", *KINDS[kind], *SHORT)
    assert run.model_id is not None
    pinned = PinnedModel.open(shelf.workspace, shelf.settings(*KINDS[kind]), run.model_id)
    if kind != "learn-plus":
        return pinned
    # Blended and narrow in any case, also where the fit of so few users improved nothing.
    weights = FrequencyWeights(FrequencyWeights.start().weights + 0.2)
    blending = ModelBlending(weights, (), np.arange(BOOKS), reach=3, temperature=0.1)
    tower = pinned.model.tower
    assert isinstance(tower, BoundTower)
    chance, wide = np.random.default_rng(3), tower.output_dim + tower.content_dim + 2
    maps = [np.float32(chance.normal(size=size)) for size in ((wide, 6), (wide, 6), wide)]
    narrowing = ModelNarrowing(Projections(*maps, longest=9.0, unit=True), ())
    return replace(pinned, model=replace(pinned.model, blending=blending, narrowing=narrowing))


@pytest.mark.parametrize("kind", KINDS)
def test_vectors_are_those_of_the_tower_for_every_user(shelf: Shelf, kind: str, tmp_path: Path) -> None:
    pinned = pinned_of(shelf, kind)
    to = storage_path(tmp_path / "served")
    written = export_user_tower(pinned, to, "onnx", QUIET)
    assert written.method.startswith(kind)
    assert (written.n_items, written.release_id) == (BOOKS + COLD, None)
    tower = ls.user_tower(tmp_path / "served")

    rows = Snapshot.open(shelf.workspace.table("user_histories")).to_arrow()
    items, times = (fixed_lists(rows[name]).astype(np.int64) for name in ("item_index", "event_time"))
    lengths = rows["length"].to_numpy().astype(np.int64)
    expected = user_vectors(pinned.model.vectors(), items, lengths, pinned.model.window, times=times)
    ids = pq.read_table(tmp_path / "served" / "items.parquet")["item_id"].to_pylist()
    histories = [[ids[item - 1] for item in row[:length]] for row, length in zip(items, lengths, strict=True)]
    given = {}
    if written.needs_times:
        given["times"] = [row[:length].tolist() for row, length in zip(times, lengths, strict=True)]
    assert written.needs_times == (kind in ("hstu", "learn-plus"))
    found = tower.vectors(histories, **given)
    assert np.allclose(found, expected, atol=1e-4)
    assert max(lengths) > written.window, "a history longer than the window is read by its last events"

    # One user alone has the vector that they have among all, and a new event moves it at once.
    alone = {name: one[:1] for name, one in given.items()}
    assert np.allclose(tower.vectors(histories[:1], **alone), found[:1], atol=1e-5)
    later = {name: [[*one[0], one[0][-1] + DAY]] for name, one in given.items()}
    moved = tower.vectors([[*histories[0], ids[-1]]], **later)
    last = lengths[0]
    longer = [[*items[0][:last], len(ids)]]
    timed = [[*times[0][:last], times[0][last - 1] + DAY]]
    vectors = user_vectors(
        pinned.model.vectors(), np.array(longer), lengths[:1] + 1, pinned.model.window, times=np.array(timed)
    )
    assert np.allclose(moved, vectors, atol=1e-5)
    assert np.abs(moved - found[:1]).max() > 1e-4

    with np.load(tmp_path / "served" / "test_vectors.npz") as saved:
        inputs = {name.removeprefix("input_"): saved[name] for name in saved.files if name.startswith("input_")}
        for name, values in tower.run(inputs).items():
            assert np.allclose(values, saved[f"output_{name}"], atol=1e-4)


@pytest.fixture(scope="module")
def served(shelf: Shelf, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LEARN model exported by its id."""
    folder = tmp_path_factory.mktemp("served") / "learn"
    export_user_tower(pinned_of(shelf, "learn"), storage_path(folder), "onnx", QUIET)
    return folder


def test_wrong_input_has_a_clear_answer(served: Path) -> None:
    tower = ExportedTower(served)
    width = tower.manifest.content_dim
    for histories, new, message in (
        ([["b01", "b99"]], {}, r"1 of 2 events have items that are not among the 48 exported ones, the first is 'b99'"),
        ([["b01"], []], {}, "history 1 has no event"),
        ([["b01", "new"]], {"new": np.zeros(width + 1)}, rf"'new' must be {width} finite numbers, got shape"),
        ([["b01", "new"]], {"new": np.full(width, np.nan)}, "finite numbers"),
    ):
        with pytest.raises(ExportError, match=message):
            tower.vectors(histories, new_items=new)
    # The graph itself: an unknown event is left out and counted; of too many events the last ones are read.
    no_items = np.zeros((0, width), np.float32)
    odd = tower.run({"items": np.array([[1, 999, -4, 2], [0, 0, 0, 0]]), "new_items": no_items})
    plain = tower.run({"items": np.array([[1, 2]]), "new_items": no_items})
    assert (odd["unknown"].tolist(), odd["events"].tolist()) == ([2, 0], [2, 0])
    assert np.allclose(odd["vectors"][0], plain["vectors"][0], atol=1e-6)
    assert np.isnan(odd["vectors"][1]).all()
    many = np.random.default_rng(0).integers(1, 40, (1, 1000))
    long = tower.run({"items": many, "new_items": no_items})
    short = tower.run({"items": many[:, -tower.manifest.window :], "new_items": no_items})
    assert long["events"].tolist() == [tower.manifest.window]
    assert np.allclose(long["vectors"], short["vectors"], atol=1e-6)


def test_a_damaged_folder_and_a_folder_of_others_are_refused(shelf: Shelf, served: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(served, copy)
    (copy / "README.md").write_text("other")
    with pytest.raises(ExportError, match=r"README\.md differs from its hash"):
        ExportedTower(copy)
    with pytest.raises(ExportError, match="is not an exported user tower"):
        ExportedTower(tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    model = ExportedTower(served).manifest.model_id
    pinned = PinnedModel.open(shelf.workspace, shelf.settings(), model)
    with pytest.raises(ExportError, match="files that are not an export"):
        export_user_tower(pinned, storage_path(tmp_path / "mine"), "onnx", QUIET)
    assert (tmp_path / "mine" / "notes.txt").read_text() == "keep"
    with pytest.raises(LearnSparkError, match="no trained model 'absent'"):
        PinnedModel.open(shelf.workspace, shelf.settings(), "absent")
    # An earlier export is replaced.
    export_user_tower(pinned, storage_path(copy), "torch", QUIET)
    assert sorted(path.name for path in copy.iterdir()) == [
        "README.md",
        "items.parquet",
        "manifest.json",
        "test_vectors.npz",
        "user_tower.pt2",
    ]
