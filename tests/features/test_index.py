"""The exported index: recall against exact search, adding of new items, and errors of its loader."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from learn_spark.core.console import Reporter
from learn_spark.core.settings import load_settings
from learn_spark.core.stages.context import SparkHolder, StageContext
from learn_spark.core.stages.stage import StageResult
from learn_spark.core.tables.workspace import Workspace
from learn_spark.data.splits.sample import user_hashes
from learn_spark.features import index_vectors
from learn_spark.features.export_index import run
from learn_spark.features.faiss_index import ItemIndex, load
from learn_spark.features.index_manifest import ItemIndexError, TrainedOn
from learn_spark.features.ledger import add_row
from learn_spark.features.read import read_release
from learn_spark.features.withdrawal import roll_back
from learn_spark.report.explain import explain
from tests.report.planted import FIRST_DAY, history_row, plant, release_row
from tests.world import write_config

DIM, USERS, ITEMS = 8, 60, 400


def unit(rows: int, seed: int) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(rows, DIM)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


class Released:
    """A workspace with planted releases, and the stage over it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.workspace = Workspace.open(str(folder / "workspace"))
        (folder / "llm").mkdir()
        self.config = write_config(folder / "c.yaml", raw=folder, workspace=self.workspace.root, model=folder / "llm")

    def release(self, name: str, items: Mapping[str, np.ndarray], model: str = "m", **inputs: str) -> None:
        """Release these item vectors, with the same user vectors each time."""
        common = {"release_id": name, "as_of": FIRST_DAY, "fingerprint": 0}
        users = {f"u{n}": vector for n, vector in enumerate(unit(USERS, 7))}
        outputs = {
            table: plant(
                self.workspace,
                table,
                [{**common, key: entity, "embedding": vector.tolist()} for entity, vector in vectors.items()],
                mode="overwrite",
            )
            for table, key, vectors in (("user_features", "user_id", users), ("item_features", "item_id", items))
        }
        row = release_row(0, name, "released", FIRST_DAY, outputs=outputs, inputs=inputs, model_id=model)
        add_row(self.workspace, row)

    def export(self, *overrides: str) -> tuple[StageResult, ItemIndex]:
        """Run the stage; (its result, the loaded index)."""
        settings = load_settings(self.config, overrides)
        holder = SparkHolder(settings, verbose=False)
        done = run(StageContext(settings, self.workspace, "run", {}, Reporter(quiet=True), holder, "v"))
        return done, self.load()

    def load(self) -> ItemIndex:
        """The index of the release in force."""
        name = read_release(self.workspace).release_id
        return load(self.workspace.root / "indexes" / name, release_id=name)


def catalogue(count: int = ITEMS) -> dict[str, np.ndarray]:
    """Item id -> vector; the order of ids differs from the order of numbers."""
    return {f"i{(n * 7919) % 10007:05}": vector for n, vector in enumerate(unit(count, 3))}


def exact(items: Mapping[str, np.ndarray], k: int) -> list[set[str]]:
    ids, vectors = list(items), np.stack(list(items.values()))
    return [{ids[n] for n in np.argsort(-(vectors @ user))[:k]} for user in unit(USERS, 7)]


@pytest.mark.parametrize(
    ("overrides", "least"),
    [
        (("index.kind=flat",), 1.0),
        (("index.kind=hnsw", "index.ef_search=200"), 0.95),
        (("index.kind=ivf", "index.nlist=20", "index.nprobe=6"), 0.6),
        (("index.kind=ivf_pq", "index.nlist=4", "index.nprobe=4", "index.code_bytes=8"), 0.7),
        (("index.kind=ivf_pq", "index.nlist=4", "index.nprobe=4", "index.code_bytes=3"), 0.2),
    ],
)
def test_the_manifest_has_the_measured_recall_of_every_kind(
    tmp_path: Path, overrides: tuple[str, ...], least: float
) -> None:
    world, items = Released(tmp_path), catalogue()
    world.release("r1", items)
    done, index = world.export(*overrides)
    assert done.rows_out == len(index.item_ids) == ITEMS
    scores, returned = index.search(unit(USERS, 7), 100)
    # The recall computed here, from the ids that a consumer gets.
    for k in (10, 100):
        hits = [len(truth & set(ids[:k])) / k for truth, ids in zip(exact(items, k), returned, strict=True)]
        recall = index.manifest.measured[f"recall@{k}"]
        assert recall == pytest.approx(np.mean(hits), abs=1e-9)
        assert least <= recall <= 1.0
    approximate = 0.1 if "index.kind=ivf_pq" in overrides else 1e-5  # a compressed vector's score is not exact
    assert scores[0, 0] == pytest.approx(float(items[returned[0][0]] @ unit(USERS, 7)[0]), abs=approximate)
    assert index.manifest.measured["queries"] == USERS
    assert index.manifest.measured["queries_per_second"] > 0
    assert index.manifest.normalised is True
    assert index.manifest.trained_on == TrainedOn(release_id="r1", features_version=0, vectors=ITEMS)
    if {"index.kind=ivf", "index.kind=ivf_pq"} & set(overrides):
        assert index.manifest.measured["recall@100"] < 1.0


@pytest.mark.parametrize("kind", ["flat", "ivf", "ivf_pq"])
def test_blocks_of_vectors_give_the_index_of_all_at_once(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for block, queries in ((1 << 16, 1000), (37, 20)):
        folder = tmp_path / str(block)
        folder.mkdir()
        monkeypatch.setattr(index_vectors, "BLOCK_ROWS", block)
        world = Released(folder)
        world.release("r1", catalogue())
        options = () if kind == "flat" else ("index.nlist=8", "index.nprobe=2")
        _, index = world.export(f"index.kind={kind}", *options, f"index.queries={queries}")
        assert index.manifest.measured["queries"] == min(USERS, queries)
        assert index.manifest.normalised
        _, returned = index.search(unit(USERS, 7), 10)
        found.append((index.item_ids.to_pylist(), returned))
        lowest = np.argsort(user_hashes(pa.array([f"u{n}" for n in range(USERS)])))[:queries]
        hits = [len(exact(catalogue(), 10)[n] & set(returned[n])) / 10 for n in lowest]
        assert index.manifest.measured["recall@10"] == pytest.approx(np.mean(hits), abs=1e-9)
        assert not list((world.workspace.root / "cache" / "index_vectors").glob("*"))
    assert found[0] == found[1]


def test_new_items_are_added_without_a_rebuild_and_nothing_else_is(tmp_path: Path) -> None:
    world, items = Released(tmp_path), catalogue()
    ivf = ("index.kind=ivf", "index.nlist=10", "index.nprobe=10")
    first = dict(list(items.items())[:350])
    world.release("r1", first)
    _, old = world.export(*ivf)
    world.release("r2", items)
    done, index = world.export(*ivf)
    assert done.counts["items_added"] == 50
    assert "50 items added to the index of release r1" in done.notes
    # The old numbers are unchanged, the new items follow; the cells are those of the first release.
    assert index.item_ids.to_pylist()[:350] == old.item_ids.to_pylist()
    assert set(index.item_ids.to_pylist()[350:]) == set(items) - set(first)
    assert index.manifest.trained_on == old.manifest.trained_on
    assert index.manifest.measured["recall@100"] == pytest.approx(1.0)
    _, returned = index.search(unit(USERS, 7), 10)
    assert [set(ids) for ids in returned] == exact(items, 10)
    # Not where a vector changed, an item is gone, the model or the settings are others, or the cells are outgrown.
    changed = {**items, next(iter(items)): unit(1, 9)[0]}
    for name, vectors, model, more, why in (
        ("r3", changed, "m", (), "vectors of the earlier index changed"),
        ("r4", dict(list(changed.items())[1:]), "m", (), "1 items of the earlier index are no longer released"),
        ("r5", items, "other", (), "there is no earlier index of this model"),
        ("r6", items, "m", ("index.nprobe=9",), "there is no earlier index of this model"),
    ):
        world.release(name, vectors, model)
        done, index = world.export(*ivf, *more)
        assert done.counts["items_added"] == 0
        assert why in done.notes[0]
        assert set(index.item_ids.to_pylist()) == set(vectors)
        assert index.manifest.trained_on.release_id == name
        shutil.rmtree(world.workspace.root / "indexes" / name)
    world.release("r7", {**items, **{f"j{n}": vector for n, vector in enumerate(unit(300, 11))}})
    done, index = world.export(*ivf)
    assert "the share of items added since the cells were trained is above index.max_added_share" in done.notes[0]
    assert len(index.item_ids) == 700


def test_the_loader_refuses_files_that_differ_from_their_manifest(tmp_path: Path) -> None:
    world = Released(tmp_path)
    world.release("r1", catalogue(30))
    world.export()
    folder, copy = world.workspace.root / "indexes" / "r1", tmp_path / "copy"
    manifest = json.loads((folder / "manifest.json").read_text())

    def refused(match: str, **which: Any) -> None:
        with pytest.raises(ItemIndexError, match=match):
            load(copy, **which)
        shutil.rmtree(copy)
        shutil.copytree(folder, copy)

    shutil.copytree(folder, copy)
    assert len(load(copy, release_id="r1").item_ids) == 30
    refused("is an index of release r1, not of r2", release_id="r2")
    for change in ({"release_id": "r2"}, {"kind": "hnsw"}, {"items": 29}, {"normalised": False}):
        (copy / "manifest.json").write_text(json.dumps({**manifest, **change}))
        refused("manifest.json was changed after it was written")
    (copy / "manifest.json").write_text(json.dumps({**manifest, "format": 1}))
    refused("has the format 1, this version reads 2")
    (copy / "manifest.json").write_text("{")
    refused("is not an index folder")
    # Another index, and ids in another order: whole files, but not these.
    other = faiss.IndexFlatIP(DIM)
    other.add(unit(30, 99))
    faiss.write_index(other, str(copy / "items.faiss"))
    refused("items.faiss differs from its checksum in the manifest")
    ids = pq.read_table(copy / "item_ids.parquet")
    pq.write_table(ids.take(list(range(29, -1, -1))), copy / "item_ids.parquet")
    refused("item_ids.parquet differs from its checksum in the manifest")
    (copy / "item_ids.parquet").unlink()
    refused("lacks item_ids.parquet")


def test_recommend_by_the_index_gives_what_scoring_every_item_gives(tmp_path: Path) -> None:
    world, items = Released(tmp_path), catalogue(50)
    plant(world.workspace, "items", [{"item_id": item, "title": item.upper()} for item in items])
    plant(world.workspace, "item_index", [{"item_id": item, "item_index": n} for n, item in enumerate(items, 1)])
    # u3 has seen what would be its five best.
    best = sorted(items, key=lambda item: -float(items[item] @ unit(USERS, 7)[3]))
    numbers = {item: n for n, item in enumerate(items, 1)}
    plant(world.workspace, "user_histories", [history_row("u3", [numbers[item] for item in best[:5]])])
    world.release("r1", items, user_histories="0", item_index="0")
    with pytest.raises(ItemIndexError, match="is not an index folder"):
        explain(world.workspace, "u3", by_index=True)
    world.export("index.kind=hnsw")
    explanation = explain(world.workspace, "u3", k=7, by_index=True)
    assert [offer.item_id for offer in explanation.recommendations] == best[5:12]
    assert explanation == explain(world.workspace, "u3", k=7)


def test_after_a_rollback_the_index_is_that_of_the_release_in_force(tmp_path: Path) -> None:
    world = Released(tmp_path)
    for name, count in (("r1", 30), ("r2", 40)):
        world.release(name, catalogue(count))
        world.export()
    assert len(world.load().item_ids) == 40
    roll_back(world.workspace)
    assert len(world.load().item_ids) == 30
