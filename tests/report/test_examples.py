"""Examples, gate results and the report command, compared with a slow computation user by user and item by item."""

from __future__ import annotations

import re
from collections import Counter
from datetime import timedelta

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from learn_spark.commands.main import app
from learn_spark.core.tables.runs import all_runs
from learn_spark.core.tables.snapshot import SnapshotError
from learn_spark.encoder.embedding_space import read_embedding_space
from learn_spark.features.ledger import ledger
from learn_spark.model.store import load_model
from learn_spark.report.examples import OFFERED, examples_of
from learn_spark.report.gates import release_of, table_gates
from learn_spark.report.page import render
from learn_spark.report.road import road_of
from learn_spark.report.scores import best, rank_of, scores_of
from tests.report.planted import FIRST_DAY, plant, release_row
from tests.report.workspace import HOSTILE, N_ITEMS, WINDOW, Planted, embeddings, histories, item_id


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Planted:
    return Planted(tmp_path_factory.mktemp("examples"))


def title(index: int) -> str:
    if index == 3:
        return item_id(3)
    return HOSTILE[:79] + "…" if index == 2 else f"Film {index}: a story & more"


@pytest.fixture(scope="module")
def scores(planted: Planted) -> dict[str, dict[int, float]]:
    """Scores of every item by item_index for each user, computed user by user from the events before the target."""
    model = load_model(planted.workspace.root / "models" / planted.model_id)
    space = read_embedding_space(planted.workspace, model.manifest.space_key)
    content = np.vstack([np.zeros((1, space.dims), np.float32), space.apply(embeddings()[1:])])
    model.tower.bind(content)  # type: ignore[operator]
    scores = {}
    with torch.inference_mode():
        items = model.tower.items(torch.arange(1, N_ITEMS + 1)).double()
        for user, events in histories().items():
            vector = model.tower.user(torch.tensor(events[:-1][-WINDOW:])[None])[0, -1].double()
            scores[user] = {index + 1: float(items[index] @ vector) for index in range(N_ITEMS)}
    return scores


def test_recommendations_are_the_highest_scores_computed_from_events_before_the_target(
    planted: Planted, scores: dict[str, dict[int, float]]
) -> None:
    examples = examples_of(planted.workspace, planted.model_id, planted.versions)
    assert examples is not None
    assert (examples.sampled, examples.of_users, examples.catalogue) == (24, 24, N_ITEMS)
    lengths = [user.events for user in examples.users]
    assert lengths == sorted(lengths)
    assert len({user.user_id for user in examples.users}) == 5
    hits = again = 0
    for user in examples.users:
        *before, target = histories()[user.user_id]
        user_scores = scores[user.user_id]
        unseen = sorted(set(user_scores) - set(before), key=lambda index: -user_scores[index])
        assert [offer.title for offer in user.offers] == [title(index) for index in unseen[:OFFERED]]
        assert user.target == title(target)
        # The target counts even where the user had it before, and is not offered then.
        counted = sorted({*unseen, target}, key=lambda index: -user_scores[index])
        assert user.rank == counted.index(target) + 1
        again += target in before
        assert [offer.hit for offer in user.offers] == [index == target for index in unseen[:OFFERED]]
        hits += target in unseen[:OFFERED]
        assert user.history == tuple(title(index) for index in reversed(before))
        assert user.events == len(before)
    assert hits, "the planted world must have an example with a hit"
    assert again, "and one with a target that the user had before"


def test_scores_ranks_and_the_order_of_equal_scores() -> None:
    items = np.array([[1, 0], [0, 1], [1, 0], [0.5, 0], [1, 0]], np.float32)
    scores = scores_of(items, np.array([2.0, 1.0]), np.array([4]))
    assert scores.tolist() == [2, 1, 2, 1, -np.inf]
    assert best(scores, 3).tolist() == [0, 2, 1]
    assert best(scores, 9).tolist() == [0, 2, 1, 3]
    assert [rank_of(scores, at) for at in range(4)] == [1.5, 3.5, 1.5, 3.5]


def test_popularity_is_counted_over_all_sampled_users(planted: Planted, scores: dict[str, dict[int, float]]) -> None:
    examples = examples_of(planted.workspace, planted.model_id, planted.versions)
    assert examples is not None
    events = Counter(index for items in histories().values() for index in items[:-2])
    offered: Counter[int] = Counter()
    for user, items in histories().items():
        unseen = sorted(set(scores[user]) - set(items[:-1]), key=lambda index: -scores[user][index])
        offered.update(unseen[:OFFERED])
    targets = Counter(items[-1] for items in histories().values())
    assert examples.distinct == len(offered)
    shares = []
    for low, high in ((0, 0), (1, 4), (5, 19)):
        inside = [index for index in range(1, N_ITEMS + 1) if low <= events[index] <= high]
        consumed, next_, ours = (sum(c[i] for i in inside) / c.total() for c in (events, targets, offered))
        shares.append((f"{len(inside)} items", len(inside) / N_ITEMS, consumed, next_, ours))

    def written(share: float) -> str:
        return f"{100 * share:.0f} %" if share == 0 or share >= 0.0995 else f"{100 * share:.1f} %"

    assert [row[1:] for row in examples.popularity.rows] == [(note, *map(written, rest)) for note, *rest in shares]


def test_neighbours_are_the_nearest_by_cosine(planted: Planted) -> None:
    examples = examples_of(planted.workspace, planted.model_id, planted.versions)
    assert examples is not None
    raw = embeddings().astype(np.float64)
    events = Counter(index for items in histories().values() for index in items[:-2])
    by_title = {title(index): index for index in range(1, N_ITEMS + 1)}
    assert examples.items[0].events == max(events.values())
    assert examples.items[-1].events == 0
    for item in examples.items:
        index_of_item = by_title[item.title]
        assert item.events == events[index_of_item]
        cosines = {
            index: float(
                raw[index] @ raw[index_of_item] / np.linalg.norm(raw[index]) / np.linalg.norm(raw[index_of_item])
            )
            for index in range(1, N_ITEMS + 1)
            if index != index_of_item
        }
        nearest = sorted(cosines, key=lambda index: -cosines[index])[:5]
        assert [near.title for near in item.raw] == [title(index) for index in nearest]
        assert [near.cosine for near in item.raw] == [pytest.approx(cosines[index]) for index in nearest]
        both = {near.title for near in item.raw} & {near.title for near in item.trained}
        for near in (*item.raw, *item.trained):
            assert near.shared == (near.title in both)
            assert near.title != item.title


def test_a_missing_table_is_reported_and_the_rest_of_the_page_is_written(planted: Planted) -> None:
    with pytest.raises(SnapshotError, match="version 99"):
        examples_of(planted.workspace, planted.model_id, planted.versions | {"user_histories": "99"})
    texts = planted.workspace.root / "tables" / "item_text"
    texts.rename(texts.with_name("away"))
    try:
        page = render(planted.workspace)
    finally:
        texts.with_name("away").rename(texts)
    assert re.search(r"No examples: there is no Delta table at .*item_text", page)
    assert "Ranking on the test split" in page


def test_gates_have_the_newest_results_and_a_release_its_newest_status(planted: Planted) -> None:
    road = road_of(all_runs(planted.workspace))
    (gate,) = table_gates(planted.workspace, road)
    assert (gate.name, gate.verdict, gate.passed) == ("items @ 0", "warning", 2)
    assert {j.rule: j.verdict for j in gate.rules} == {
        "rows": "passed",
        "no_title": "warning",
        "repeated_keys": "passed",
    }
    release = release_of(ledger(planted.workspace), planted.runs["publish"])
    assert release is not None
    assert release.gate is not None
    assert (release.status, release.gate.verdict, release.gate.rules[0].observed) == ("released", "passed", 30.0)
    # A rollback is of another run, and of the same release.
    withdrawn = release_row(3, "r1", "withdrawn", FIRST_DAY + timedelta(days=30), run_id="rollback")
    plant(planted.workspace, "releases", [withdrawn])
    later = release_of(ledger(planted.workspace), planted.runs["publish"])
    assert later is not None
    assert (later.status, later.gate) == ("withdrawn", release.gate)


def test_the_command_writes_the_page_of_a_run(planted: Planted) -> None:
    def learn_spark(*arguments: str) -> tuple[int, str]:
        done = CliRunner().invoke(app, ["report", *arguments, "--config", str(planted.config)])
        return done.exit_code, done.output

    run_id = planted.runs["histories"]
    path = planted.workspace.root / "reports" / f"{run_id}.html"
    assert learn_spark(run_id) == (0, f"report  {path}\n")
    page = path.read_text(encoding="utf-8")
    assert f"About the histories run <code>{run_id}</code> (done)" in page
    assert planted.model_id in page, "the model was trained on these histories"
    for fault, message in (("20240101T000000-gone", "there is no run"), ("../index", "is not a run id")):
        code, output = learn_spark(fault)
        assert code == 1
        assert message in output
    assert learn_spark(run_id, "--force")[0] == 2
