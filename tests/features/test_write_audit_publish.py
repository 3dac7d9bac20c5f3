"""Write, audit, publish: only changed rows are written, and a refused release never reaches a reader."""

from __future__ import annotations

import json
from datetime import UTC
from pathlib import Path

import numpy as np
import pytest
import torch
from pyspark.sql import SparkSession

from learn_spark.core.errors import GateError, LearnSparkError
from learn_spark.core.quality.gate import evaluate_rules
from learn_spark.core.settings.features import ReleaseSettings
from learn_spark.core.stages.stage import StageResult
from learn_spark.core.tables.contracts import contract
from learn_spark.core.tables.snapshot import Snapshot
from learn_spark.core.tables.workspace import Workspace
from learn_spark.features import changes
from learn_spark.features import publish as stage
from learn_spark.features.alignment import rotation
from learn_spark.features.audit import release_rules, table_profile, validation_profile
from learn_spark.features.ledger import NoReleaseError, add_row, ledger
from learn_spark.features.models import usable_model
from learn_spark.features.read import read_release, released_arrow
from learn_spark.features.withdrawal import NothingLeftError, roll_back, withdraw
from learn_spark.model.blending.frequency_weights import FrequencyWeights
from learn_spark.model.content import bind_content
from learn_spark.model.narrowing.projections import Projections
from learn_spark.model.parts import ModelBlending
from learn_spark.model.store import load_model
from learn_spark.model.towers.vectors import unit_rows
from tests.features.feature_world import DIMS, HIDDEN, FeatureWorld
from tests.report.planted import FIRST_DAY, release_row

TEXTS = {f"i{n}": f"a text of film {n}" for n in range(1, 9)}


@pytest.fixture(scope="module")
def first_release(
    spark: SparkSession, tmp_path_factory: pytest.TempPathFactory
) -> tuple[FeatureWorld, str, StageResult]:
    """100 users who saw items 1 to 6, the cold items 7 and 8, a model, and all of it published once."""
    world = FeatureWorld(tmp_path_factory.mktemp("published"), spark)
    world.items(TEXTS)
    world.users({f"u{n}": [1 + n % 6, 1 + (n + 1) % 6, 1 + (n // 6) % 6] for n in range(100)})
    world.train()
    return world, *world.publish()


@pytest.fixture
def world(first_release: tuple[FeatureWorld, str, StageResult], tmp_path: Path) -> FeatureWorld:
    """A copy of that world, to be changed."""
    return first_release[0].copy(tmp_path / "copy")


def test_a_day_writes_the_users_that_were_active_and_a_model_rewrites_all(
    first_release: tuple[FeatureWorld, str, StageResult], world: FeatureWorld
) -> None:
    _, first, done = first_release
    assert (done.rows_out, done.counts["users"], done.counts["items"]) == (108, 100, 8)
    assert "all 100 rewritten, because nothing was released before" in done.notes[0]
    before = world.vectors("user_features")
    rows = len(ledger(world.workspace))

    # Nothing changed: nothing is written, in no table.
    versions = {t: world.version(t) for t in ("user_features", "item_features", "releases")}
    same, done = world.publish()
    assert (same, done.rows_out) == (first, 0)
    assert {t: world.version(t) for t in versions} == versions
    assert not (world.workspace.root / "staged" / first).exists()

    # One of a hundred users was active: one row is written, of the items none. (What u8 did came late, and is so long
    # ago that the tower's window does not reach it: no vector changes.)
    world.users({"u7": [2, 3, 4, 5], "u8": [5, *world.histories["u8"]]})
    second, done = world.publish()
    assert second != first
    assert done.notes[0] == "user_features: 1 of 100 written; item_features: nothing changed"
    assert (done.counts["users_written"], done.counts["items_written"]) == (1, 0)
    assert world.version("item_features") == versions["item_features"]
    after = world.vectors("user_features")
    assert {user for user in after if not np.array_equal(after[user], before[user])} == {"u7"}
    owners = Snapshot.open(world.workspace.table("user_features")).to_arrow(["user_id", "release_id"]).to_pylist()
    assert {row["user_id"] for row in owners if row["release_id"] == second} == {"u7"}
    assert len(ledger(world.workspace)) == rows + 2

    # Another text of item 4, a new user and a new item, and a user who is gone.
    world.items({"i4": "another text", "i9": "a new film"})
    world.users({"new": [9]}, gone=["u3"])
    saw = {user for user, items in world.histories.items() if 4 in items[-3:]}
    done = world.publish()[1]
    assert done.counts["users_written"] == len(saw) + 1
    assert (done.counts["users_removed"], done.counts["items_written"]) == (1, 2)
    now = world.vectors("user_features")
    assert set(now) == set(world.histories)
    assert {user for user in now if user not in after or not np.array_equal(now[user], after[user])} == {*saw, "new"}

    # What changed since, applied to an online store's copy, row for row.
    path, names = world.workspace.table("user_features"), contract("user_features").names
    store, now_rows = (
        {row["user_id"]: row for row in Snapshot.open(path, version).to_arrow().to_pylist()}
        for version in (versions["user_features"], None)
    )
    for change in changes(world.spark, "user_features", first, workspace=world.workspace).collect():
        row = {name: change[name] for name in names}
        row["as_of"] = row["as_of"] and row["as_of"].replace(tzinfo=UTC)
        store.pop(change.user_id) if change.change == "delete" else store.update({change.user_id: row})
    assert store == now_rows

    # What was patched together is what a publishing of everything gives.
    patched = {table: world.vectors(table) for table in ("user_features", "item_features")}
    done = world.publish(force=True)[1]
    assert done.rows_out == 100 + 9
    for table, vectors in patched.items():
        whole = world.vectors(table)
        assert set(whole) == set(vectors)
        assert all(np.allclose(whole[key], vectors[key], atol=1e-5) for key in whole)

    # Another model rewrites all, and says so.
    old = world.model_id
    world.train(seed=2)
    done = world.publish("release.min_cosine=-1.0")[1]
    assert done.rows_out == 109
    assert f"all 100 rewritten, because the model changed ({old} -> {world.model_id})" in done.notes[0]
    assert [row.status for row in ledger(world.workspace)][-2:] == ["staged", "released"]

    # A person takes it away; a run that finds the same inputs again does not bring it back.
    (withdrawn,), in_force = roll_back(world.workspace)
    assert in_force is not None
    assert in_force.model_id == old
    done = world.publish("release.min_cosine=-1.0")[1]
    assert "was withdrawn, so that nothing is published" in done.notes[0]
    assert read_release(world.workspace).release_id == in_force.release_id != withdrawn.release_id
    # The note advises --force, and that works.
    assert world.publish("release.min_cosine=-1.0", force=True)[0] == withdrawn.release_id
    assert read_release(world.workspace).release_id == withdrawn.release_id


def test_fused_vectors_are_released_whole(world: FeatureWorld) -> None:
    chance = np.random.default_rng(3)
    levels = FrequencyWeights(chance.uniform(0.2, 1.0, size=(3, 5)))
    # Items 7 and 8 are newer than the counts.
    fusion = ModelBlending(levels, (levels, levels), np.array([3, 0, 40, 7, 1, 300]), reach=2, temperature=0.1)
    world.train(seed=2, blending=fusion)
    world.publish()
    model = load_model(world.workspace.root / "models" / world.model_id)
    bind_content(world.context(), model)
    fused = model.vectors()
    users, items = world.vectors("user_features"), world.vectors("item_features")
    assert fused.output_dim == len(items["i7"]) == len(users["u0"]) == DIMS + HIDDEN + 2
    with torch.inference_mode():
        expected = fused.items(torch.arange(1, 9)).numpy()
        tower_items = model.tower.items(torch.arange(1, 9)).numpy()
    assert np.array([items[f"i{n}"] for n in range(1, 9)]) == pytest.approx(expected, abs=1e-6)
    # A user's order of items, by hand: of the last two events the mean text.
    unit = unit_rows(model.tower.bound)  # type: ignore[arg-type]
    counts = np.append(fusion.counts, [0, 0])
    a, b, c = levels.of(counts)
    for user in ("u0", "u41"):
        history = world.histories[user]
        with torch.inference_mode():
            vector = model.tower.user(torch.tensor(history)[None])[0, -1].numpy()
        mean = unit_rows(unit[history[-2:]].sum(axis=0)[None])[0]
        scores = a * (tower_items @ vector) / 0.1 + b + 10 * c * (unit[1:] @ mean)
        assert np.argsort(expected @ users[user]).tolist() == np.argsort(scores).tolist()


def test_narrow_vectors_are_released_after_wide_ones(world: FeatureWorld) -> None:
    chance = np.random.default_rng(4)
    maps = [np.float32(chance.normal(size=size)) for size in ((DIMS, 5), (DIMS, 5), DIMS)]
    world.train(seed=1, narrowing=Projections(*maps, longest=20.0, unit=True))
    release, _ = world.publish()
    assert read_release(world.workspace).release_id == release
    model = load_model(world.workspace.root / "models" / world.model_id)
    bind_content(world.context(), model)
    users, items = world.vectors("user_features"), world.vectors("item_features")
    of_users, of_items, centre = maps
    with torch.inference_mode():
        tower_items = model.tower.items(torch.arange(1, 9)).numpy()
        user = model.tower.user(torch.tensor(world.histories["u41"])[None])[0, -1].numpy()
    narrow = (tower_items - centre) @ of_items
    # By hand: the order is that of the narrow products, and all vectors have length 1.
    scores = narrow @ (user @ of_users)
    released = np.array([items[f"i{n}"] for n in range(1, 9)])
    assert released.shape == (8, 6)
    assert np.linalg.norm([*released, *users.values()], axis=1) == pytest.approx(np.ones(108), abs=1e-5)
    assert np.argsort(released @ users["u41"]).tolist() == np.argsort(scores).tolist()
    assert released[:, :5] * 20.0 == pytest.approx(narrow, abs=1e-4)


def test_models_of_another_tower_or_encoder_are_not_released(world: FeatureWorld) -> None:
    before = world.model_id
    world.train(seed=5, encoder_key="another")
    assert usable_model(world.settings(), world.workspace) == before != world.model_id
    with pytest.raises(
        LearnSparkError,
        match=r"has no sasrec model over .* \(methods of its models: learn\); learn-spark train with these",
    ):
        usable_model(world.settings("tower.kind=sasrec"), world.workspace)


def test_a_failed_audit_leaves_the_release_before_and_keeps_what_was_staged(world: FeatureWorld) -> None:
    first = read_release(world.workspace).release_id
    read = {t: released_arrow(world.workspace, t) for t in ("user_features", "item_features")}
    versions = {table: world.version(table) for table in read}
    # Most users are gone: no day does that.
    world.users({"u1": [4, 4, 4]}, gone=[f"u{n}" for n in range(2, 90)])
    with pytest.raises(GateError) as failed:
        world.publish()
    assert failed.value.exit_code == 3
    assert {rule.rule: (rule.observed, rule.most) for rule in failed.value.broken} == {
        "user_vanished_share": (pytest.approx(0.88), 0.1)
    }
    assert read_release(world.workspace).release_id == first
    assert {table: world.version(table) for table in read} == versions
    assert all(released_arrow(world.workspace, table).equals(rows) for table, rows in read.items())
    refused = ledger(world.workspace)[-1]
    assert refused.status == "refused"
    assert {r["measure"] for r in json.loads(refused.gate_results) if not r["passed"]} == {"user_vanished_share"}
    # For inspection, by any Delta client.
    staged = world.workspace.root / refused.outputs["user_features"]
    assert Snapshot.open(str(staged)).to_arrow(["user_id"]).to_pylist() == [{"user_id": "u1"}]
    second, _ = world.publish("release.max_vanished_share=1.0")
    assert read_release(world.workspace).release_id == second
    assert len(world.vectors("user_features")) == 12


def test_a_publication_killed_between_its_tables_leaves_the_release_in_force_unchanged(
    world: FeatureWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = read_release(world.workspace).release_id
    read = {t: released_arrow(world.workspace, t) for t in ("user_features", "item_features")}
    world.items({"i2": "another text"})
    commit = stage.commit

    def killed(spark: SparkSession, path: str, part: object, rows: int) -> int:
        if path.endswith("item_features"):
            raise KeyboardInterrupt
        return commit(spark, path, part, rows)  # type: ignore[arg-type]

    monkeypatch.setattr(stage, "commit", killed)
    with pytest.raises(KeyboardInterrupt):
        world.publish()
    # The users' table is ahead of the items'; the release in force is unchanged.
    assert read_release(world.workspace).release_id == first
    assert all(released_arrow(world.workspace, table).equals(rows) for table, rows in read.items())
    monkeypatch.setattr(stage, "commit", commit)
    second, _ = world.publish()
    assert read_release(world.workspace).release_id == second
    saw = {user for user, items in world.histories.items() if 2 in items}
    for table, key, moved in (("user_features", "user_id", saw), ("item_features", "item_id", {"i2"})):
        old = dict(zip(read[table][key].to_pylist(), read[table]["embedding"].to_pylist(), strict=True))
        new = world.vectors(table)
        assert {entity for entity in new if not np.array_equal(new[entity], np.float32(old[entity]))} == moved


def test_withdrawing_and_rolling_back_add_rows(tmp_path: Path) -> None:
    workspace, ids = Workspace.open(str(tmp_path)), ["r0", "r1", "r2"]
    for release in ids:
        add_row(workspace, release_row(0, release, "released", FIRST_DAY))
    before = ledger(workspace)
    assert [row.sequence for row in before] == [1, 2, 3]
    withdrawn, in_force = withdraw(workspace, ids[1], "wrong prices")
    assert (withdrawn.release_id, in_force and in_force.release_id) == (ids[1], ids[2])
    with pytest.raises(NoReleaseError, match=f"release {ids[1]} was withdrawn on .*: wrong prices"):
        read_release(workspace, release=ids[1])
    with pytest.raises(NoReleaseError, match="was withdrawn"):
        withdraw(workspace, ids[1])
    with pytest.raises(NoReleaseError, match="there is no release 'r9'; the newest are r0, r1, r2"):
        withdraw(workspace, "r9")
    withdrawn, in_force = roll_back(workspace)
    assert ([row.release_id for row in withdrawn], in_force and in_force.release_id) == ([ids[2]], ids[0])
    assert ledger(workspace)[: len(before)] == before
    assert len(ledger(workspace)) == len(before) + 2
    with pytest.raises(NoReleaseError, match="is in force already"):
        roll_back(workspace, to=ids[0])
    for release in ("r3", "r4"):
        add_row(workspace, release_row(0, release, "released", FIRST_DAY))
    withdrawn, in_force = roll_back(workspace, to=ids[0])
    assert [row.release_id for row in withdrawn] == ["r4", "r3"]
    assert in_force is not None
    assert in_force.release_id == ids[0]
    with pytest.raises(NothingLeftError):
        roll_back(workspace)
    assert roll_back(workspace, allow_none=True)[1] is None
    with pytest.raises(NoReleaseError, match="learn-spark restore r0"):
        roll_back(workspace)


def test_the_loss_against_the_previous_model_on_validation() -> None:
    assert validation_profile({"NDCG@10": 0.07}, {"NDCG@10": 0.1})["validation_lost"] == pytest.approx(0.3)
    assert validation_profile({"NDCG@10": 0.12}, {"NDCG@10": 0.1})["validation_lost"] == 0
    for before in (None, {"NDCG@10": 0.0}):
        assert validation_profile({"NDCG@10": 0.07}, before)["validation_lost"] is None


@pytest.mark.parametrize(
    ("fault", "broken"),
    [
        ("none", set()),
        ("nan", {"item_not_finite"}),
        ("missing", {"item_ids", "item_missing"}),
        ("cold missing", {"item_ids", "item_missing", "item_cold_missing"}),
        ("another", {"item_missing", "item_unknown"}),
        ("twice", {"item_repeated"}),
        ("short", {"item_min_dim", "item_min_norm"}),
        ("long", {"item_max_norm"}),
        ("turned", {"item_cosine"}),
        ("vanished", {"item_vanished_share"}),
        ("new", {"item_new_share"}),
    ],
)
def test_a_planted_fault_breaks_its_rule_and_no_other(
    spark: SparkSession, tmp_path: Path, fault: str, broken: set[str]
) -> None:
    rows = [(f"i{n}", [0.6, 0.8]) for n in range(5)]
    before = list(rows)
    if fault == "nan":
        rows[2] = ("i2", [float("nan"), 1.0])
    elif fault in ("missing", "cold missing"):
        rows.pop(0 if fault == "missing" else 4)
        before = rows
    elif fault == "another":
        rows[1] = ("ix", [0.6, 0.8])
        before = rows
    elif fault == "twice":
        rows.append(("i0", [0.6, 0.8]))
    elif fault == "short":
        rows[1] = ("i1", [0.6])
    elif fault == "long":
        rows[1] = ("i1", [6.0, 8.0])
    elif fault == "turned":
        before = [(key, [0.8, -0.6]) for key, _ in rows]
    elif fault == "vanished":
        before = [*rows, ("gone", [0.6, 0.8])]
    elif fault == "new":
        before = rows[:2]
    columns = "item_id string, embedding array<float>"
    entities = spark.createDataFrame([(f"i{n}", n == 4) for n in range(5)], "id string, cold boolean")
    after, old = spark.createDataFrame(rows, columns), spark.createDataFrame(before, columns)
    profile = table_profile("item", "item_id", after, entities, old)
    profile |= {"validation_ndcg10": 0.5, "validation_lost": None}
    same = ("cosine", "vanished_share", "new_share")
    users = {"ids": 3, "repeated": 0, "missing": 0, "unknown": 0, "not_finite": 0}
    users |= {"min_dim": 2, "max_dim": 2, "min_norm": 1.0, "max_norm": 1.0}
    profile |= {f"user_{name}": float(value) for name, value in users.items()}
    rules = release_rules(ReleaseSettings(), profile, output_dim=2, users=3, items=5)
    report = evaluate_rules("release", profile, rules, tmp_path)
    assert {r.measure for r in report.results if not r.passed} == broken
    assert {f"item_{name}" for name in same} < {rule.measure for rule in rules}
    assert not {f"user_{name}" for name in same} & {rule.measure for rule in rules}


def test_a_turned_space_is_turned_back() -> None:
    chance = np.random.default_rng(3)
    vectors = chance.normal(size=(50, 5))
    turn, _ = np.linalg.qr(chance.normal(size=(5, 5)))
    assert np.allclose(rotation(vectors, vectors @ turn), turn, atol=1e-10)
    # For independent noise the result is still orthogonal.
    matrix = rotation(vectors, chance.normal(size=(50, 5)))
    assert np.allclose(matrix @ matrix.T, np.eye(5), atol=1e-10)
