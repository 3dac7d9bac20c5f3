"""What training may know: another test target changes no bit of batches, weights, choice or validation figures."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pyspark.sql import SparkSession

import learn_spark
from learn_spark.core.errors import SettingsError
from learn_spark.core.quality.profile import profile
from learn_spark.core.stages.context import StageContext
from learn_spark.core.tables import delta
from learn_spark.core.tables.contracts import contract
from learn_spark.core.tables.log import read_rows
from learn_spark.core.tables.snapshot import Snapshot
from learn_spark.data.histories.protocols import TEST
from learn_spark.data.splits.folds import FOLDS
from learn_spark.data.splits.split import split_histories
from learn_spark.data.splits.training_view import TrainingView
from learn_spark.evaluation.compare import compare
from learn_spark.evaluation.contenders import trained
from learn_spark.model.blending.co_visits import DECAY, co_visit_vectors
from learn_spark.model.content import bind_content
from learn_spark.model.feed.stream import HistoryStream
from learn_spark.model.manifest import ModelError, read_manifest
from learn_spark.model.reranking.co_visitation import Transitions
from learn_spark.model.scoring.metrics import summarise
from learn_spark.model.store import load_model, read_curve
from learn_spark.model.towers.vectors import item_vectors, user_vectors
from learn_spark.model.training import twice
from learn_spark.model.training.loop import Trained
from learn_spark.model.training.task import TrainingTask
from tests.shelf import BOOKS, COLD, RIVAL, Event, Shelf, reading, role_of

TIMING = {"samples_per_second", "waiting_share"}
PLUS = (
    "tower.kind=learn-plus",
    "tower.reranker={hidden: 4, epochs: 2}",
    "objective.predicts=next_item",
    "objective.negatives=full",
    "objective.learn_temperature=true",
    "training.seed=4",
)
FUSED = (*PLUS, "tower.reranker=null", "tower.blending={co_visits: 4, decay: 0.8, profile: true}", "training.epochs=3")
NARROW = (*FUSED, "tower.narrowing={width: 12, steps: 20}")
TREND = (
    *FUSED,
    "tower.blending={profile: true, trend_days: 10, text_floor: 0.5, tower_floor: 0.5}",
    "training.rule=holdout",
    "training.epochs=1",  # with more, the tower alone is better here, and the model goes without blending
)
COLUMNS = ["item_index", "event_time", "train_end", "train_length"]


def other_test_events(log: Sequence[Sequence[Event]], protocol: str) -> list[list[Event]]:
    """Another last book and another time of it; under time_split all that test users read from the cut on, and more."""
    changed = []
    for user, events in enumerate(log):
        last = max(day for day, _ in events)
        if protocol == "leave_last_out":
            changed.append([*((d, b) for d, b in events if d < last), (last + 5, 43 + user % 2)])
        elif role_of(user) == TEST:
            changed.append([*((d, b) for d, b in events if d < 0), *((d, 30 + user % 9 + d) for d in range(1, 5))])
        else:
            changed.append(list(events))
    return changed


@pytest.mark.parametrize("protocol", ["leave_last_out", "time_split"])
def test_another_test_target_changes_no_bit_of_training(tmp_path: Path, protocol: str) -> None:
    log = reading()
    here = Shelf(tmp_path / "here", log, protocol)
    there = Shelf(tmp_path / "there", other_test_events(log, protocol), protocol)
    paths = [shelf.workspace.table("user_histories") for shelf in (here, there)]
    whole = [next(HistoryStream(Snapshot.open(p), COLUMNS, shuffle_rows=99, seed=1).epoch(0, 96)) for p in paths]
    assert not np.array_equal(whole[0]["item_index"], whole[1]["item_index"])
    views = [TrainingView.open(path, 0) for path in paths]
    assert [*views[0].parts()] == [*views[1].parts()]
    assert views[0].validation_sample(60).equals(views[1].validation_sample(60))
    streams = [k.stream(HistoryStream, COLUMNS, shuffle_rows=40, seed=1).epoch(0, 20) for k in views]
    for ours, theirs in zip(*streams, strict=True):
        for name in COLUMNS:
            # Under time_split the cut of a test user's row tells how long the row is; the row is no sample.
            sample = ours["train_end"] < ours["train_length"]
            assert np.array_equal(ours[name][sample], theirs[name][sample]), name
        behind = np.arange(ours["item_index"].shape[1]) >= ours["train_length"][:, None]
        assert not ours["item_index"][behind].any()
        assert not ours["event_time"][behind].any()
    for overrides in ((), RIVAL, PLUS, FUSED, NARROW, *([TREND] if protocol == "time_split" else [])):
        models = []
        for shelf in (here, there):
            run, _ = shelf.run("train", *overrides)
            (model,) = run.outputs
            curve = read_curve(shelf.workspace.root / model)
            models.append((model, [{k: v for k, v in point.items() if k not in TIMING} for point in curve]))
        # The id is a hash of the weights and of the manifest, with the validation figures of the chosen epoch.
        assert models[0] == models[1]
        manifest = read_manifest(here.workspace.root / models[0][0])
        assert overrides != TREND or manifest.blending is not None
        if protocol == "leave_last_out":
            assert (manifest.reranker is not None, manifest.blending is not None) == (
                overrides == PLUS,
                overrides in (FUSED, NARROW),
            )
        assert "validation NDCG@10" in models[0][1][0]


def test_another_validation_target_does_change_the_figures(tmp_path: Path) -> None:
    """Else the test above could not fail."""
    log = reading()
    moved = [[*events[:-2], (events[-2][0], 1 + user % 40), events[-1]] for user, events in enumerate(log)]
    curves = []
    for name, planted in (("here", log), ("there", moved)):
        shelf = Shelf(tmp_path / name, planted)
        run, _ = shelf.run("train")
        curves.append(read_curve(shelf.workspace.root / next(iter(run.outputs))))
    assert curves[0][0]["loss"] == curves[1][0]["loss"]
    assert curves[0][0]["validation NDCG@10"] != curves[1][0]["validation NDCG@10"]


def test_the_training_room_has_no_other_way_to_histories() -> None:
    """Only training_view.py opens a snapshot; a stream is opened through it; nobody asks the context for the table."""
    package = Path(learn_spark.__file__).parent
    opened = []
    for path in sorted(
        [*(package / "model" / "training").glob("*.py"), package / "data" / "splits" / "training_view.py"]
    ):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            name = ast.unparse(node.func)
            asked = [a.value for a in node.args if isinstance(a, ast.Constant)]
            by_context = name.endswith((".snapshot", ".read", "scan")) and "user_histories" in asked
            if by_context or name in ("Snapshot.open", "HistoryStream", "Snapshot"):
                opened.append((path.name, name))
    assert sorted(opened) == [("training_view.py", "Snapshot.open")]


def test_a_refit_learns_the_validation_events_and_no_test_event(tmp_path: Path) -> None:
    log = reading()
    refit = ("training.rule=refit", "training.epochs=3", *RIVAL)
    models = []
    for name, planted in (("here", log), ("there", other_test_events(log, "leave_last_out"))):
        shelf = Shelf(tmp_path / name, planted)
        run, _ = shelf.run("train", *refit)
        (folder,) = run.outputs
        models.append(folder)
    assert models[0] == models[1]  # a hash of the weights: another test target changes no bit
    # Validation targets moved to books that nobody reads in training: the chosen tower never saw them, the refit did.
    unread = [[*events[:-2], (events[-2][0], 43 + user % 4), events[-1]] for user, events in enumerate(log)]
    shelf = Shelf(tmp_path / "moved", unread)
    run, _ = shelf.run("train", *refit)
    (model,) = run.outputs
    new, chosen = (load_model(shelf.workspace.root / model, before_refit=first) for first in (False, True))
    assert new.refit
    anew, before = (one.tower.state_dict()["embedding.weight"] for one in (new, chosen))
    assert not (anew[43:47] == before[43:47]).any()
    assert torch.equal(anew[47:], before[47:])  # test events alone
    # What the manifest and evaluate say of validation is the chosen tower's.
    best = max(point["validation NDCG@10"] for point in read_curve(shelf.workspace.root / model))
    assert new.manifest.validation["NDCG@10"] == best
    shelf.run("evaluate", *refit)
    metrics = {
        (r["method"], r["split"], r["metric"]): r["value"] for r in read_rows(shelf.workspace.table("evaluations"))
    }
    assert metrics["sasrec", "validation", "NDCG@10"] == pytest.approx(best, abs=1e-9)
    # On the test split the baselines know what the tower knows: a quarter of all users have read 43, as many 44, 45,
    # 46.
    assert metrics["popularity", "test", "novelty@5"] < metrics["popularity", "validation", "novelty@5"]


def test_a_refit_weighs_items_by_the_events_it_learns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Validation targets moved to books that nobody reads in training: a quarter of all users has each."""
    moved = [[*events[:-2], (events[-2][0], 43 + user % 4), events[-1]] for user, events in enumerate(reading())]
    shelf, train, shares = Shelf(tmp_path / "moved", moved), twice._train, []

    def watched(context: StageContext, task: TrainingTask, key: str) -> Trained:
        assert task.log_q is not None
        shares.append(np.exp(np.load(task.log_q)))
        return train(context, task, key)

    monkeypatch.setattr(twice, "_train", watched)
    shelf.run(
        "train",
        *RIVAL,
        "training.rule=refit",
        "training.epochs=1",
        "objective.negatives=in_batch",
        "objective.log_q=true",
    )
    chosen, anew = shares
    events = sum(len(one) for one in moved) - 2 * len(moved)
    # An item without an event counts as one.
    every = chosen[1:].min() ** -1
    assert events <= every < events + 60
    assert chosen[43:47] * every == pytest.approx(np.ones(4))
    assert anew[43:47] * (every + len(moved) - 4) == pytest.approx(np.full(4, len(moved) / 4), rel=0.2)


@pytest.mark.parametrize("refit", [True, False])
def test_evidence_is_fitted_on_validation_and_judges_nobody_it_was_fitted_on(
    tmp_path: Path, refit: bool, spark: SparkSession
) -> None:
    shelf = Shelf(tmp_path / "here", reading())
    settings = (*PLUS, f"training.rule={'refit' if refit else 'holdout'}", "training.epochs=3")
    run, _ = shelf.run("train", *settings)
    (folder,) = run.outputs
    model = load_model(shelf.workspace.root / folder)
    chosen = load_model(shelf.workspace.root / folder, before_refit=True)
    assert model.reranker is not None
    assert chosen.reranker is not None
    curve = read_curve(shelf.workspace.root / folder)
    best = curve[model.manifest.best_epoch - 1]
    assert model.manifest.validation_of_vectors is not None
    assert model.manifest.validation_of_vectors["NDCG@10"] == best["validation NDCG@10"]
    assert chosen.reranker.temperature == best["temperature"]
    assert (model.reranker.temperature == chosen.reranker.temperature) is not refit
    shelf.run("evaluate", *settings)
    metrics = {
        (r["method"], r["split"], r["metric"]): r["value"] for r in read_rows(shelf.workspace.table("evaluations"))
    }
    # The figure that the search chooses by is the one that evaluate finds again, head by head.
    assert metrics["learn-plus", "validation", "NDCG@10"] == pytest.approx(
        model.manifest.validation["NDCG@10"], abs=1e-6
    )
    vectors_only = metrics["learn-plus-vectors", "validation", "NDCG@10"]
    assert vectors_only == pytest.approx(model.manifest.validation_of_vectors["NDCG@10"], abs=1e-6)
    against = {
        d.against: (d.first, d.other)
        for d in compare(shelf.workspace, [model.model_id], split="validation", samples=100).differences
        if (d.dimension, d.metric) == ("all", "NDCG@10")
    }
    assert set(against) == {"popularity", "markov", "frozen", "learn-plus-vectors"}
    expected = (metrics["learn-plus", "validation", "NDCG@10"], vectors_only)
    assert against["learn-plus-vectors"] == pytest.approx(expected, abs=1e-6)
    second, _ = shelf.run("evaluate", *settings, "evaluation.reranker=false")
    ranks, path = contract("evaluation_users").rules, shelf.workspace.table("evaluation_users")
    written = delta.read(spark, path)
    measured = profile(written, ranks, lambda name: delta.read(spark, name))
    assert (measured["uneven"], measured["absent"], measured["repeated_keys"]) == (0, 0, 0)
    for method in ("learn-plus", "learn-plus-vectors", "frozen"):
        # One rank lost, of a run that has the tower twice.
        user = written.where(f"method = 'learn-plus' and run_id != '{second.run_id}'").first()
        assert user is not None
        lost = f"method = '{method}' and " + " and ".join(f"{c} = '{user[c]}'" for c in ("run_id", "split", "user_id"))
        fewer = written.where(f"not ({lost})")
        assert profile(fewer, ranks, lambda name: delta.read(spark, name))["uneven"] == 1
    rows = [r for r in read_rows(shelf.workspace.table("evaluations")) if r["run_id"] == second.run_id]
    assert {r["method"] for r in rows} == {"popularity", "markov", "frozen", "learn-plus-vectors"}
    assert vectors_only in {r["value"] for r in rows}


@pytest.mark.parametrize("refit", [True, False])
def test_fusion_is_fitted_on_validation_and_judges_nobody_it_was_fitted_on(tmp_path: Path, refit: bool) -> None:
    shelf = Shelf(tmp_path / "here", reading())
    settings = (*FUSED, f"training.rule={'refit' if refit else 'holdout'}")
    run, _ = shelf.run("train", *settings)
    (name,) = run.outputs
    folder = shelf.workspace.root / name
    model, chosen = load_model(folder), load_model(folder, before_refit=True)
    assert model.blending is not None
    assert chosen.blending is not None
    best = read_curve(folder)[model.manifest.best_epoch - 1]
    assert model.manifest.validation["NDCG@10"] > best["validation NDCG@10"]
    assert chosen.blending.temperature == best["temperature"]
    # What the released tower has learnt from is counted: with refit each user's validation event, too.
    assert model.blending.counts.sum() - chosen.blending.counts.sum() == (len(reading()) if refit else 0)
    # So are its co-visits: those that the weights were fitted with know no validation event.
    table = Snapshot.open(shelf.workspace.table("user_histories")).to_arrow()
    for blending, until in ((chosen.blending, "train_length"), (model.blending, "validation_length")):
        until = until if refit else "train_length"
        rows_ = zip(table["item_index"].to_pylist(), table[until].to_pylist(), strict=True)
        events = [np.array(row[:length]) - 1 for row, length in rows_]
        offsets = np.cumsum([0, *map(len, events)])
        pairs = Transitions.of(np.concatenate(events), offsets, model.tower.n_items, reach=10, decay=DECAY)
        products = (vectors := co_visit_vectors(pairs, 4)) @ vectors.T
        assert blending.co_visits is not None
        assert blending.co_visits @ blending.co_visits.T == pytest.approx(products, abs=1e-4)
    shelf.run("evaluate", *settings)
    metrics = {
        (r["method"], r["split"], r["metric"]): r["value"] for r in read_rows(shelf.workspace.table("evaluations"))
    }
    expected = pytest.approx(model.manifest.validation["NDCG@10"], abs=1e-6)
    assert metrics["learn-plus", "validation", "NDCG@10"] == expected
    # By levels that were fitted on all of them it would be another figure.
    histories = Snapshot.open(shelf.workspace.table("user_histories")).to_arrow()
    split = split_histories(histories, "validation")
    bind_content(shelf.context("evaluate", *settings), chosen)
    hidden = split.hidden(mask_history=True)
    unfolded = trained(chosen).scorer(split).ranks(hidden, lambda count: None)
    folded = trained(chosen, cross_fitted=True).scorer(split)
    ranks = folded.ranks(hidden, lambda count: None)
    assert summarise(ranks, [10], split.every_target.offsets)["NDCG@10"] == expected
    assert not np.array_equal(ranks, unfolded)
    # Lists are the ranks' own: who stands at r in a list has the rank r.
    rows = np.arange(0, len(split.targets), 3)
    top = folded.top(rows, 10, [hidden[row] for row in rows])
    firsts = split.every_target.positions[split.every_target.offsets[rows]]
    row, place = np.nonzero(top == firsts[:, None])
    assert len(row) > 10
    assert ranks[split.every_target.offsets[rows[row]]].tolist() == (place + 1).tolist()


@pytest.mark.parametrize("rule", ["refit", "strict", "holdout"])
def test_narrow_vectors_belong_to_the_weights_that_rank(tmp_path: Path, rule: str) -> None:
    """The projections of another tower than the ranked one would give figures of chance."""
    shelf = Shelf(tmp_path / "here", reading())
    settings = (*NARROW, f"training.rule={rule}")
    run, _ = shelf.run("train", *settings)
    model = load_model(shelf.workspace.root / next(iter(run.outputs)))
    facts = model.manifest.narrowing
    assert facts is not None
    bind_content(shelf.context("evaluate", *settings), model)
    assert model.blending is not None
    wide = model.blending.upon(model.tower)
    assert (facts.width, facts.wide, model.vectors().output_dim) == (12, wide.output_dim, 12)
    shelf.run("evaluate", *settings)
    metrics = {
        (r["method"], r["split"], r["metric"]): r["value"] for r in read_rows(shelf.workspace.table("evaluations"))
    }
    validation = model.manifest.validation["NDCG@10"]
    assert validation != facts.validation_of_wide["NDCG@10"]
    if rule != "strict":  # there validation is not what the parts were fitted on
        assert metrics["learn-plus", "validation", "NDCG@10"] == pytest.approx(validation, abs=1e-6)
    # On test the narrow vectors order the catalogue nearly as the wide ones do.
    split = split_histories(Snapshot.open(shelf.workspace.table("user_histories")).to_arrow(), "test")
    scores = []
    for vectors in (wide, model.vectors()):
        users = user_vectors(vectors, split.items, split.lengths, model.window)
        scores.append(users @ item_vectors(vectors).T)
    assert min(np.corrcoef(*pair)[0, 1] for pair in zip(*scores, strict=True)) > 0.9


def test_without_blending_and_a_second_training_one_fit_is_released_and_judged(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path / "here", reading())
    settings = (*RIVAL, "tower.narrowing={width: 6, steps: 5}")
    run, _ = shelf.run("train", *settings)
    model = load_model(shelf.workspace.root / next(iter(run.outputs)))
    assert model.narrowing is not None
    released, folds = model.narrowing.released, model.narrowing.folds
    assert released is not None
    assert [np.array_equal(one.users, released.users) for one in folds] == [True] * FOLDS
    shelf.run("evaluate", *settings)
    metrics = {
        (r["split"], r["metric"]): r["value"]
        for r in read_rows(shelf.workspace.table("evaluations"))
        if r["method"] == "sasrec"
    }
    assert metrics["validation", "NDCG@10"] == pytest.approx(model.manifest.validation["NDCG@10"], abs=1e-6)


@pytest.mark.parametrize("rule", ["refit", "holdout"])
def test_the_reranker_reads_the_blended_vectors_of_each_users_fold(tmp_path: Path, rule: str) -> None:
    shelf = Shelf(tmp_path / "here", reading())
    parts = ("tower.blending={}", "tower.reranker={hidden: 8, epochs: 10}", "training.epochs=1")
    settings = (*PLUS, *parts, f"training.rule={rule}")
    run, _ = shelf.run("train", *settings)
    model = load_model(shelf.workspace.root / next(iter(run.outputs)))
    assert model.blending is not None
    assert model.reranker is not None
    assert model.reranker.blended
    shelf.run("evaluate", *settings)
    metrics = {
        (r["method"], r["split"], r["metric"]): r["value"] for r in read_rows(shelf.workspace.table("evaluations"))
    }
    vectors = model.manifest.validation_of_vectors
    assert vectors is not None
    for method, expected in (("learn-plus", model.manifest.validation), ("learn-plus-vectors", vectors)):
        assert metrics[method, "validation", "NDCG@10"] == pytest.approx(expected["NDCG@10"], abs=1e-6)
    # The heads that were fitted upon the tower's vectors, of models of before, read those.
    bind_content(shelf.context("evaluate", *settings), model)
    before = replace(model, reranker=replace(model.reranker, blended=False))
    assert before.reranked_vectors(0) is model.tower
    assert model.reranked_vectors(0).output_dim == model.tower.output_dim + 8 + 2


def test_the_trend_counts_the_last_days_before_the_split(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path / "here", log := reading(), "time_split")
    run, _ = shelf.run("train", *TREND)
    model = load_model(shelf.workspace.root / next(iter(run.outputs)))
    assert model.blending is not None
    assert model.blending.recent is not None
    assert model.blending.profile
    books = [book for events in log for day, book in events if -10 <= day < 0]
    assert model.blending.recent.tolist() == np.bincount(books, minlength=BOOKS + COLD + 1)[1:].tolist()
    assert 0 < len(books) < model.blending.counts.sum()
    bind_content(shelf.context("train", *TREND), model)
    # tower 16, content 8, popularity and filler, and the profile
    assert model.vectors().output_dim == 16 + 8 + 2 + 2


@pytest.mark.parametrize("negatives", ["negatives=full", "negatives=uniform", "negatives=mixed"])
def test_an_item_without_a_training_event_is_nobodys_negative(tmp_path: Path, negatives: str) -> None:
    """Books 41 to 48 are test targets alone: their IDs stay at 0, where they begin; those that are read do not."""
    shelf = Shelf(tmp_path / "here", reading())
    many = ("objective.n_negatives=64", f"objective.{negatives}")
    run, _ = shelf.run("train", *PLUS, *many)
    identity = load_model(shelf.workspace.root / next(iter(run.outputs))).tower.state_dict()["identity.weight"]
    assert identity[1:41].any(dim=1).all()
    assert not identity[41:].any()


@pytest.mark.parametrize(
    ("settings", "name"),
    [(PLUS, "reranker.safetensors"), (FUSED, "blending.safetensors")],
    ids=["reranker", "blending"],
)
def test_a_damaged_head_or_level_is_refused(tmp_path: Path, settings: tuple[str, ...], name: str) -> None:
    shelf = Shelf(tmp_path / "here", reading())
    run, _ = shelf.run("train", *settings)
    folder = shelf.workspace.root / next(iter(run.outputs))
    file = folder / name
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(ModelError, match=f"{name} is damaged"):
        load_model(folder)
    file.unlink()
    with pytest.raises(ModelError, match="not a complete model folder"):
        load_model(folder)


def test_a_refit_needs_a_validation_event_of_every_user(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"training\.rule refit is for protocols"):
        Shelf(tmp_path, reading(), "time_split").settings("training.rule=refit")
