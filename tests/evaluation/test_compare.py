"""Comparisons: means and differences by hand from the stored ranks, the compared methods, and errors."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

import learn_spark.evaluation.compare as compare_module
from learn_spark.core.errors import LearnSparkError
from learn_spark.core.tables.log import read_rows
from learn_spark.core.tables.runs import Run
from learn_spark.evaluation import common_targets
from learn_spark.evaluation.common_targets import CommonTargets
from learn_spark.evaluation.compare import Comparison, SliceDifference, compare
from tests.report.planted import plant
from tests.shelf import RIVAL, Shelf, reading


class World:
    """A shelf with three models, each evaluated: LEARN with item tower a, SASRec, LEARN with item tower b."""

    def __init__(self, folder: Path) -> None:
        self.shelf = Shelf(folder, reading(), "time_split")
        self.trained: list[Run] = []
        self.evaluated: list[Run] = []
        for overrides in ((), RIVAL, ("tower.item_tower=b",)):
            self.trained.append(self.shelf.run("train", "training.epochs=1", *overrides)[0])
            self.evaluated.append(self.shelf.run("evaluate", *overrides)[0])
        self.models = [run.inputs["model"] for run in self.evaluated]

    def compare(self, *names: str, **options: object) -> Comparison:
        """With few resamples."""
        return compare(self.shelf.workspace, names, **{"samples": 200, **options})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("compare") / "shelf")


def of(comparison: Comparison, against: str, dimension: str = "all", name: str = "all") -> dict[str, SliceDifference]:
    key = (against, dimension, name)
    return {d.metric: d for d in comparison.differences if (d.model_id, d.dimension, d.slice) == key}


def ndcg(rows: list[dict], k: int) -> float:  # type: ignore[type-arg]
    """The mean over users, by definition."""
    users: dict[str, list[float]] = {}
    for row in rows:
        users.setdefault(row["user_id"], []).append(row["rank"])
    values = []
    for ranks in users.values():
        ideal = sum(1 / math.log2(1 + place) for place in range(1, min(k, len(ranks)) + 1))
        values.append(sum(1 / math.log2(1 + rank) for rank in ranks if rank <= k) / ideal)
    return sum(values) / len(values)


@pytest.mark.parametrize("split", ["test", "validation"])
def test_means_and_differences_are_those_of_the_ranks(world: World, split: str) -> None:
    comparison = world.compare(world.models[0], world.models[2], split=split, k=7)
    rows = [row for row in read_rows(world.shelf.workspace.table("evaluation_users")) if row["split"] == split]
    assert (comparison.split, comparison.users) == (split, 24)
    for dimension, name in (("all", "all"), ("popularity", "5-19"), ("mass", "tail"), ("history", "1-4")):
        inside = [row for row in rows if dimension == "all" or row[dimension] == name]
        for model in (*world.models[1:], "popularity", "markov", "frozen"):
            ours = [r for r in inside if r["run_id"] == world.evaluated[0].run_id and r["model_id"] == world.models[0]]
            theirs = [r for r in inside if r["model_id"] == model]
            if model in ("popularity", "markov", "frozen"):
                theirs = [r for r in theirs if r["run_id"] == world.evaluated[0].run_id]
            compared = of(comparison, model, dimension, name)["NDCG@7"]
            assert compared.first == pytest.approx(ndcg(ours, 7))
            assert compared.other == pytest.approx(ndcg(theirs, 7))
            assert compared.difference.value == pytest.approx(compared.first - compared.other)
            assert compared.difference.low <= compared.difference.value <= compared.difference.high
            assert 2 / 201 <= compared.difference.p <= 1
            assert compared.difference.users == len({r["user_id"] for r in ours})
            assert compared.items == len({r["item_id"] for r in ours})


def test_baselines_and_rivals_on_the_same_users_are_always_there(world: World) -> None:
    """A rival is included without its name; a model of the first's kind only by its name."""
    default = world.compare(world.models[2])
    assert {d.model_id for d in default.differences} == {"popularity", "markov", "frozen", world.models[1]}
    assert {d.against for d in default.differences} == {"popularity", "markov", "frozen", "sasrec"}
    both = world.compare(world.models[2], world.models[0])
    assert {d.model_id for d in both.differences} - {d.model_id for d in default.differences} == {world.models[0]}
    forth, back = (of(both, world.models[0]), of(world.compare(world.models[0], world.models[2]), world.models[2]))
    assert forth["HR@10"].difference.value == -back["HR@10"].difference.value
    assert forth["HR@10"].difference.p == back["HR@10"].difference.p


def test_users_are_compared_some_at_a_time(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same figures, intervals and counts, whatever fits into memory and however users are put together."""
    expected = world.compare(world.models[0], world.models[2])
    targets = CommonTargets(world.shelf.workspace, (world.evaluated[0].run_id, "learn"), [], "test")
    (whole,) = targets.parts()
    monkeypatch.setattr(common_targets, "PART_ROWS", 20)
    monkeypatch.setattr(common_targets, "BATCH_ROWS", 7)
    parts = list(targets.parts())
    assert len(parts) == -(-len(whole.item_ids) // 20)
    assert sorted(user for part in parts for user in part.user_ids.to_pylist()) == whole.user_ids.to_pylist()
    assert sum(len(part.item_ids) for part in parts) == len(whole.item_ids)
    assert world.compare(world.models[0], world.models[2]) == expected
    monkeypatch.setattr(compare_module, "BLOCK_USERS", 3)
    assert world.compare(world.models[0], world.models[2]) == expected


def test_a_model_is_named_by_its_id_or_by_its_train_and_evaluate_runs(world: World) -> None:
    expected = world.compare(world.models[0])
    assert world.compare(world.trained[0].run_id) == world.compare(world.evaluated[0].run_id) == expected
    # A run whose result was written before stands for that result.
    again, _ = world.shelf.run("evaluate")
    assert world.compare(again.run_id) == world.compare(world.models[2])


def test_incomparable_results_are_an_error(world: World, tmp_path: Path) -> None:
    with pytest.raises(
        LearnSparkError, match=rf"there is no evaluation of 'nobody'; .*{world.models[1]} \(sasrec, run"
    ):
        world.compare("nobody")
    with pytest.raises(LearnSparkError, match=r"names the learn model \w+ a second time"):
        world.compare(world.models[0], world.trained[0].run_id)
    shelf = Shelf(tmp_path / "shelf", reading())
    with pytest.raises(LearnSparkError, match="no model has been evaluated"):
        compare(shelf.workspace, ["m"])
    # The same model with histories masked and not; then on a newer version of the histories.
    shelf.run("train", "training.epochs=1")
    first, _ = shelf.run("evaluate")
    second, _ = shelf.run("evaluate", "evaluation.mask_history=false")
    with pytest.raises(LearnSparkError, match=r"their protocol differs \(leave_last_out; .* masked.* and .*not masked"):
        compare(shelf.workspace, [first.run_id, second.run_id])
    plant(shelf.workspace, "user_histories", [])
    third, _ = shelf.run("evaluate")
    with pytest.raises(LearnSparkError, match=r"their version of user_histories differs \(0 and 1\)"):
        compare(shelf.workspace, [first.run_id, third.run_id])
    row = {
        "run_id": first.run_id,
        "model_id": "markov",
        "method": "markov",
        "split": "test",
        "user_id": "zz",
        "rank": 1.0,
    }
    labels = dict.fromkeys(("item_id", "popularity", "mass", "cold", "history", "recency", "time", "same_day"), "x")
    plant(shelf.workspace, "evaluation_users", [row | labels])
    with pytest.raises(LearnSparkError, match=r"has 96 targets of 96 users, markov has 97 of 97, .*\(1 users are in"):
        compare(shelf.workspace, [first.run_id])


def test_the_command_prints_tables_or_json(world: World) -> None:
    def learn_spark(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [str(Path(sys.executable).parent / "learn-spark"), "compare", "--config", str(world.shelf.config)]
        return subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=120, check=False)

    process = learn_spark(world.models[0], "--k", "5", "--samples", "200")
    assert process.returncode == 0, process.stderr
    assert f"LEARN {world.models[0]} on the test split (24 users; time_split at 2024-06-01;" in process.stdout
    assert f"NDCG@5: LEARN {world.models[0]} against SASRec {world.models[1]}" in process.stdout
    assert "cold: no event before the split" in process.stdout
    answer = json.loads(learn_spark(world.models[0], "--samples", "200", "--json").stdout)
    expected = world.compare(world.models[0])
    assert len(answer["differences"]) == len(expected.differences)
    assert set(answer) == {"first", "split", "users", "samples", "differences"}
    one, same = answer["differences"][0], expected.differences[0]
    assert (one["difference"], one["p"], one["slice"]) == (same.difference.value, same.difference.p, "all")
    assert learn_spark(world.models[0], "--split", "training").returncode == 2
