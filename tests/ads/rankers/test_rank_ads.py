"""The stage on real Delta tables: what it trains, saves, scores and counts, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from pyspark.sql import SparkSession

from learn_spark.ads.rankers.metrics import auc
from learn_spark.core.errors import LearnSparkError
from learn_spark.core.settings import Settings
from learn_spark.core.tables import delta
from learn_spark.core.tables.contracts import ContractError, contract
from learn_spark.core.tables.log import append_rows, read_rows
from learn_spark.core.tables.snapshot import current_version
from learn_spark.features.point_in_time import features_at
from learn_spark.pipeline.runner import Outcome
from tests.ads.rankers.ads_world import AdsWorld, at, exposure, tastes

Run = Callable[..., list[Outcome]]
USERS, ITEMS, ROWS = 30, 60, 2000
BEFORE, KNOWN = 100, 40  # exposures from before the release; items that training shows
SMALL = (
    "ranking.variants=[base, learn, gbdt-learn]",
    "ranking.seeds=[1, 2]",
    "ranking.context=[place]",
    "ranking.inputs=[vectors, score, nearest, list]",
    "ranking.hidden=[8]",
    "ranking.id_dim=4",
    "ranking.epochs=6",
    "ranking.patience=3",
    "ranking.learning_rate=0.005",
    "ranking.threads=1",
    "ranking.trees={leaves: 7, rounds: 30, min_leaf: 10}",
    "ranking.cohorts.item=[1, 5]",
    "quality.rules={exposures.refused_share: {most: null}, interactions.refused_share: {most: null}}",
)


def rows() -> list[dict[str, Any]]:
    """Exposures a minute apart, BEFORE of them from before the release; items from KNOWN on are in the test alone."""
    chance = np.random.default_rng(0)
    users, items = tastes(USERS, 3, 1), tastes(ITEMS, 3, 2)
    exposures = []
    for n in range(ROWS):
        late = n >= 0.8 * ROWS
        user, item = int(chance.integers(USERS)), int(chance.integers(0, ITEMS if late else KNOWN))
        converted = bool(chance.random() < 1 / (1 + np.exp(-8 * float(users[user] @ items[item]))))
        more = {"context": {"place": f"p{n % 3}"}, "weight": 1.0 if converted else 2.0}
        exposures.append(exposure(f"e{n:05}", f"u{user}", f"i{item}", 60 * (n - BEFORE), converted, **more))
    exposures.append(exposure("not shown", "u0", "i0", 0, weight=0.0))
    return exposures


@pytest.fixture(scope="module")
def world(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> AdsWorld:
    world = AdsWorld(tmp_path_factory.mktemp("ads"), spark)
    world.exposures(rows())
    # Ten events of each of the first 20 items, three of the next 20, none of the others.
    events = [("u0", f"i{n % 20}", -10_000 - n) for n in range(200)]
    events += [("u1", f"i{20 + n % 20}", -9000 - n) for n in range(60)]
    world.events([*events, *((f"u{n}", "i0", -8000.0 - n) for n in range(USERS))])
    vectors = [
        {f"{kind}{n}": vector for n, vector in enumerate(tastes(count, 3, seed).tolist())}
        for kind, count, seed in (("u", USERS, 1), ("i", ITEMS, 2))
    ]
    world.release("r1", 0, *vectors)
    # Backwards: it would turn every score around, if it were read. It is as of an hour after the last exposure.
    leak = [{name: [-x for x in vector] for name, vector in one.items()} for one in vectors[:1]]
    world.release("later", 60 * ROWS + 3600, leak[0], vectors[1])
    return world


@pytest.fixture(scope="module")
def settings(world: AdsWorld) -> Settings:
    return world.settings(*SMALL)


@pytest.fixture(scope="module")
def trained(world: AdsWorld, settings: Settings, spark: SparkSession) -> Outcome:
    from learn_spark.core.console import Reporter
    from learn_spark.pipeline.runner import run_stages

    return run_stages(["rank_ads"], settings, console=Reporter(quiet=True))[0]


def scores_of(world: AdsWorld, run_id: str) -> dict[tuple[str, int], list[dict[str, Any]]]:
    scores: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for row in read_rows(world.workspace.table("ad_scores")):
        if row["run_id"] == run_id:
            scores.setdefault((row["variant"], row["seed"]), []).append(row)
    return scores


def test_every_row_is_counted_and_every_test_exposure_scored_by_every_ranker(world: AdsWorld, trained: Outcome) -> None:
    counts = trained.run.counts
    assert counts["rows_in"] == ROWS + 1
    assert (counts["train"], counts["validation"], counts["test"], counts["not_ranked"]) == (1400, 200, 400, 1)
    assert counts["rows_out"] == 3 * 2 * 400
    assert counts["without_release"] == 0
    assert counts["users_known"] == counts["items_known"] == 400
    scores = scores_of(world, trained.run.run_id)
    assert set(scores) == {(v, s) for v in ("base", "learn", "gbdt-learn") for s in (1, 2)}
    expected = {row["event_id"]: row for row in rows()[ROWS - 400 : ROWS]}
    for scored in scores.values():
        assert {row["event_id"] for row in scored} == set(expected)
        for row in scored:
            exposed = expected[row["event_id"]]
            assert (row["user_id"], row["item_id"], row["event_time"]) == (
                exposed["user_id"],
                exposed["item_id"],
                exposed["event_time"],
            )
            assert (row["label"], row["weight"]) == (int(exposed["converted"]), exposed["weight"])
            assert (row["release_id"], row["as_of"]) == ("r1", at(0))
    assert len({row["ranker_id"] for scored in scores.values() for row in scored}) == 6


def test_the_features_carry_cold_items_and_the_figures_are_those_of_the_scores(
    world: AdsWorld, trained: Outcome
) -> None:
    figures = read_rows(world.workspace.table("ad_metrics"))
    by_place = {(f["variant"], f["seed"], f["against"], f["dimension"], f["cohort"], f["metric"]): f for f in figures}
    scored = scores_of(world, trained.run.run_id)["learn", 1]
    cold = [row for row in scored if int(row["item_id"][1:]) >= KNOWN]
    columns = (np.array([row[name] for row in cold]) for name in ("score", "label", "weight"))
    of_cold = by_place["learn", 1, None, "item", "cold", "AUC"]
    assert of_cold["value"] == pytest.approx(auc(*columns))
    assert of_cold["exposures"] == len(cold) > 50
    assert {f["cohort"] for f in figures if f["dimension"] == "item"} == {"cold", "long-tail", "other"}
    means = {v: by_place[v, None, None, "item", "cold", "AUC"]["value"] for v in ("base", "learn", "gbdt-learn")}
    assert means["learn"] > 0.85, means
    assert means["gbdt-learn"] > 0.75, means
    assert abs(means["base"] - 0.5) < 0.15, means
    gap = by_place["learn", None, "base", "item", "cold", "AUC"]
    assert gap["value"] == pytest.approx(means["learn"] - means["base"])
    assert gap["low"] > 0
    kept = json.loads((world.workspace.root / "rankings" / trained.run.run_id / "metrics.json").read_text())
    assert kept == [{name: f[name] for name in kept[0]} for f in figures]


def test_what_was_read_is_what_spark_joins_and_the_later_release_is_refused(world: AdsWorld, trained: Outcome) -> None:
    events = delta.read(world.spark, world.workspace.table("exposures"))
    joined = {
        r.event_id: r.release_id
        for r in features_at(world.spark, events, clock="as_of", workspace=world.workspace).collect()
    }
    scored = scores_of(world, trained.run.run_id)["base", 1]
    assert {row["event_id"]: row["release_id"] for row in scored} == {
        row["event_id"]: joined[row["event_id"]] for row in scored
    }
    # The table refuses a score that read the future.
    leak = {**scored[0], "run_id": "leak", "release_id": "later", "as_of": at(60 * ROWS + 3600)}
    with pytest.raises(ContractError, match=r"violate the contract of ad_scores: .*failed validation check"):
        append_rows(world.workspace.table("ad_scores"), contract("ad_scores"), [leak])


def test_a_second_run_rests_and_a_forced_one_gives_the_same_scores(
    world: AdsWorld, settings: Settings, trained: Outcome, run: Run
) -> None:
    (rested,) = run(settings, "rank_ads")
    assert rested.up_to_date
    (again,) = run(settings, "rank_ads", force=True)
    first, second = (scores_of(world, one.run.run_id) for one in (trained, again))
    assert first.keys() == second.keys()
    for name in first:
        for a, b in zip(first[name], second[name], strict=True):
            assert {**a, "run_id": ""} == {**b, "run_id": ""}


def test_more_exposures_than_memory_has_room_for_get_the_same_figures(
    world: AdsWorld, trained: Outcome, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Saved rankers score 64 rows at a time; metrics come from files sorted by runs of 128 rows."""
    for name, rows in (
        ("score.SCORED_ROWS", 64),
        ("score.ARRAY_ROWS", 100),
        ("external_sort.RUN_ROWS", 128),
        ("external_sort.LEAST_BLOCK", 16),
        ("streamed.CHUNK_ROWS", 50),
    ):
        monkeypatch.setattr(f"learn_spark.ads.rankers.{name}", rows)
    score = world.settings(*SMALL, "ranking.mode=score", f"ranking.ranker={trained.run.run_id}")
    (parted,) = run(score, "rank_ads", force=True)
    figures: dict[str, list[dict[str, Any]]] = {trained.run.run_id: [], parted.run.run_id: []}
    for row in read_rows(world.workspace.table("ad_metrics")):
        figures.get(row.pop("run_id"), []).append(row)
    whole, streamed = figures.values()
    assert len(whole) == len(streamed) > 100
    for one, other in zip(whole, streamed, strict=True):
        assert other == {
            name: pytest.approx(value, abs=1e-9) if isinstance(value, float) else value for name, value in one.items()
        }
    first, second = (scores_of(world, each.run.run_id) for each in (trained, parted))
    for ranker in first:
        assert [row["event_id"] for row in first[ranker]] == [row["event_id"] for row in second[ranker]]
        # A batch of another size rounds its sums otherwise.
        scores = ([row["score"] for row in each[ranker]] for each in (first, second))
        assert next(scores) == pytest.approx(next(scores), abs=1e-6)


def test_saved_rankers_score_the_same_and_what_came_since(
    world: AdsWorld, trained: Outcome, run: Run, settings: Settings
) -> None:
    score = world.settings(*SMALL, "ranking.mode=score", f"ranking.ranker={trained.run.run_id}")
    (again,) = run(score, "rank_ads")
    assert again.run.counts["test"] == 400
    assert again.run.counts["not_ranked"] == ROWS + 1 - 400
    assert f"rankings/{trained.run.run_id}" in again.run.inputs
    assert again.run.inputs.items() >= trained.run.outputs.items() & again.run.inputs.items()
    first, second = (scores_of(world, one.run.run_id) for one in (trained, again))
    for name in first:
        same = {row["event_id"]: row["score"] for row in first[name]}
        assert same == {row["event_id"]: row["score"] for row in second[name]}
        assert {row["ranker_id"] for row in first[name]} == {row["ranker_id"] for row in second[name]}
    # An exposure that came since, of a user nobody knows, and one ranker that is asked.
    world.exposures([*rows(), exposure("new", "stranger", "i1", 60 * ROWS, False, context={"place": "elsewhere"})])
    try:
        one = world.settings(
            *SMALL,
            "ranking.mode=score",
            "ranking.variants=[learn]",
            "ranking.seeds=[2]",
            f"ranking.ranker={trained.run.run_id}",
            f"ranking.since={at(60 * ROWS).isoformat()}",
        )
        (since,) = run(one, "rank_ads")
        ((name, (row,)),) = scores_of(world, since.run.run_id).items()
        assert (name, row["event_id"]) == (("learn", 2), "new")
        assert 0 < row["score"] < 1
        with pytest.raises(
            LearnSparkError, match=r"ranking.since 2024-01-01 is before .* where the rankers' test began"
        ):
            run(world.settings(*SMALL, "ranking.mode=score", "ranking.since=2024-01-01"), "rank_ads")
        with pytest.raises(LearnSparkError, match=r"the run nobody .* saved no rankers"):
            run(world.settings(*SMALL, "ranking.mode=score", "ranking.ranker=nobody"), "rank_ads")
        with pytest.raises(LearnSparkError, match=r"has no ranker of learn-adaptor-1, .*; it has base-1"):
            run(world.settings(*SMALL, "ranking.mode=score", "ranking.variants=[learn-adaptor]"), "rank_ads")
    finally:
        world.exposures(rows())


def test_rankers_do_not_read_another_towers_vectors(
    spark: SparkSession, tmp_path: Any, run: Run, world: AdsWorld
) -> None:
    other = AdsWorld(tmp_path, spark)
    other.exposures(rows()[:600])
    other.events([("u0", "i0", -10.0)])
    vectors = {f"i{n}": [1.0, 0.0, float(n)] for n in range(ITEMS)}
    other.release("r1", -60 * BEFORE, {"u0": [1.0, 0.0, 0.0]}, vectors)
    small = (*SMALL, "ranking.variants=[learn]", "ranking.seeds=[1]", "ranking.epochs=1")
    run(other.settings(*small), "rank_ads")
    last = 60 * 600
    other.release("r2", last, {"u0": [0.0, 1.0, 0.0]}, vectors, model="another")
    other.exposures([*rows()[:600], exposure("new", "u0", "i1", last + 60, context={"place": "p1"})])
    since = f"ranking.since={at(last).isoformat()}"
    with pytest.raises(LearnSparkError, match="read vectors of the tower m, but the exposures have vectors of another"):
        run(other.settings(*small, "ranking.mode=score", since), "rank_ads")


def test_exposures_from_before_every_release_are_masked_not_lost(spark: SparkSession, tmp_path: Any, run: Run) -> None:
    other = AdsWorld(tmp_path, spark)
    other.exposures(rows()[:600])
    other.events([("u0", "i0", -10.0)])
    # Before the last 50 of 600 exposures, which are all of the test that read it.
    other.release("r1", 60 * (550 - BEFORE), {"u0": [1.0]}, {"i0": [1.0]}, published=60 * 600)
    small = (*SMALL, "ranking.variants=[learn]", "ranking.seeds=[1]", "ranking.epochs=1")
    (done,) = run(other.settings(*small), "rank_ads")
    assert (done.run.counts["test"], done.run.counts["without_release"]) == (120, 70)
    scored = scores_of(other, done.run.run_id)["learn", 1]
    assert sum(row["release_id"] is None and row["as_of"] is None for row in scored) == 70
    with pytest.raises(LearnSparkError, match="by the clock published no release is from before any exposure"):
        run(other.settings(*small, "ranking.clock=published"), "rank_ads")


def test_a_dry_run_prints_what_it_would_read(world: AdsWorld, settings: Settings, trained: Outcome) -> None:
    from learn_spark.core.stages.registry import find_stage
    from learn_spark.pipeline.forecast import forecast

    lines: Sequence[str] = forecast(find_stage("rank_ads"), settings, world.workspace)
    assert f"exposures @ {current_version(world.workspace.table('exposures'))} ({ROWS + 1:,} rows)" in lines[0]
    assert lines[1] == "writes ad_scores, ad_metrics"
