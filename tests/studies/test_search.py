"""The search over settings: real trainings, chosen by validation alone, taken up where it was cut off."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna
import pytest

from learn_spark.core.console import Reporter
from learn_spark.core.errors import LearnSparkError, SettingsError
from learn_spark.core.settings import Settings, load_settings
from learn_spark.core.storage.locks import LockedError, lock_or_refuse
from learn_spark.model.manifest import read_manifest
from learn_spark.model.trained import newest_model
from learn_spark.studies.search import METRIC, SearchResult, _enqueue_interrupted, search
from tests.shelf import RIVAL, Shelf, reading

SPACE = (
    "search.parameters={training.learning_rate: {low: 1e-3, high: 0.1, log: true}, tower.layers: {choices: [1, 2]}, "
    "objective.history: {low: 2, high: 6}}"
)


TOWERS = "search.parameters={training.learning_rate: {low: 1e-4, high: 0.1, log: true}}"


class Interrupting(Reporter):
    """Stops the run, as Ctrl-C does, when the heading of a trial is shown."""

    def __init__(self, trial: int) -> None:
        super().__init__(quiet=True)
        self.trial = trial

    def heading(self, text: str) -> None:
        if text.startswith(f"trial {self.trial} "):
            raise KeyboardInterrupt


def searched(shelf: Shelf, *overrides: str, trials: int = 3, console: Reporter | None = None) -> SearchResult:
    def load(more: Sequence[str]) -> Settings:
        return shelf.settings(*RIVAL, *overrides, *more)

    result = search(load, console=console or Reporter(quiet=True), trials=trials)
    assert result is not None
    return result


def trials_of(result: SearchResult) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads((result.folder / "trials.json").read_text())
    return rows


def test_validation_chooses_and_a_search_that_was_cut_off_goes_on(tmp_path: Path, spark: object) -> None:
    whole = Shelf(tmp_path / "whole", reading())
    result = searched(whole, SPACE, "training.rule=refit")
    trials = trials_of(result)
    assert len(trials) == result.trials == 3
    # As they stand first; then what Optuna proposes, inside the space.
    assert trials[0]["values"] == {"training.learning_rate": 0.01, "tower.layers": 1, "objective.history": 6}
    for trial in trials:
        values = trial["values"]
        assert 1e-3 <= values["training.learning_rate"] <= 0.1
        assert values["tower.layers"] in (1, 2)
        assert values["objective.history"] in (2, 3, 4, 5, 6)
        manifest = read_manifest(whole.workspace.root / "models" / trial["model_id"])
        assert manifest.validation["NDCG@10"] == trial["NDCG@10"]
        assert not manifest.refit  # no trial was trained on validation events
        assert manifest.shape["layers"] == values["tower.layers"]
    best = max(trials, key=lambda trial: trial["NDCG@10"])
    assert (result.model_id, result.validation, result.values) == (best["model_id"], best["NDCG@10"], best["values"])
    chosen = load_settings(result.folder / "settings.yaml")
    assert chosen.training.learning_rate == best["values"]["training.learning_rate"]
    assert (chosen.objective.history, chosen.training.rule) == (best["values"]["objective.history"], "refit")

    # The same, stopped as the second trial began, and again after it.
    broken = Shelf(tmp_path / "broken", reading())
    with pytest.raises(KeyboardInterrupt):
        searched(broken, SPACE, "training.rule=refit", console=Interrupting(2))
    searched(broken, SPACE, "training.rule=refit", trials=2)
    again = trials_of(searched(broken, SPACE, "training.rule=refit"))
    figures = [[(t["values"], t["NDCG@10"], t["model_id"]) for t in rows] for rows in (trials, again)]
    assert sorted(figures[0], key=str) == sorted(figures[1], key=str)

    # A trial is neither evaluated nor released: without a training of its own there is no model.
    with pytest.raises(LearnSparkError, match="no trained model yet"):
        newest_model(broken.workspace)
    # Nothing is trained again where all trials are there.
    assert searched(broken, SPACE, "training.rule=refit").trials == 3


@pytest.mark.parametrize("judged_by", ["vectors", "model"])
def test_the_vectors_choose_or_the_model_with_its_reranker(tmp_path: Path, spark: object, judged_by: str) -> None:
    shelf = Shelf(tmp_path / "here", reading())
    plus = ("tower.kind=learn-plus", "tower.similarity=cosine", "tower.reranker={hidden: 4, batch_size: 16}")
    result = searched(shelf, *plus, TOWERS, f"search.judged_by={judged_by}", trials=3)
    trials = trials_of(result)
    for trial in trials:
        manifest = read_manifest(shelf.workspace.root / "models" / trial["model_id"])
        assert trial["model"] == manifest.validation
        assert trial["vectors"] == (manifest.validation_of_vectors or manifest.validation)
        assert trial[METRIC] == trial[judged_by][METRIC]
    # Otherwise both figures are one, and the test says nothing.
    assert any(trial["model"][METRIC] > trial["vectors"][METRIC] for trial in trials)
    assert result.validation == max(trial[judged_by][METRIC] for trial in trials)


def test_a_trial_that_ended_as_the_search_was_killed_keeps_its_figure() -> None:
    study = optuna.create_study(direction="maximize")
    trials = [study.ask({"x": optuna.distributions.FloatDistribution(0, 1)}) for _ in range(3)]
    trials[0].set_user_attr("vectors", {METRIC: 0.9})
    trials[0].set_user_attr("model", {METRIC: 0.95})
    trials[0].set_user_attr("seconds", 12.0)
    trials[1].set_user_attr("failure", "too wide")
    trials[1].set_user_attr("seconds", 1.0)
    _enqueue_interrupted(study, "vectors")
    states = [(trial.state.name, trial.value) for trial in study.trials]
    assert states == [("COMPLETE", 0.9), ("FAIL", None), ("FAIL", None), ("WAITING", None)]
    assert study.ask().params == {}  # what the third one proposed is asked again
    assert study.trials[3].system_attrs["fixed_params"] == trials[2].params


def test_a_training_that_fails_is_a_trial_and_not_the_end(tmp_path: Path, spark: object) -> None:
    shelf = Shelf(tmp_path / "here", reading())
    rates = "search.parameters={training.learning_rate: {choices: [0.01, 1e30]}}"
    result = searched(shelf, rates, "search.seed=1", trials=6)
    failed = [trial for trial in trials_of(result) if trial["NDCG@10"] is None]
    assert {trial["values"]["training.learning_rate"] for trial in failed} == {1e30}
    assert "loss is" in failed[0]["failure"]
    assert result.values == {"training.learning_rate": 0.01}
    assert len(trials_of(result)) == 6
    with pytest.raises(LearnSparkError, match="none of 1 trials has a figure"):
        searched(shelf, "search.parameters={training.learning_rate: {choices: [1e30]}}", trials=1)


def test_values_that_contradict_each_other_are_a_trial_without_a_figure(tmp_path: Path, spark: object) -> None:
    shelf = Shelf(tmp_path / "here", reading())
    result = searched(shelf, "search.parameters={tower.heads: {choices: [2, 3]}}", "search.seed=1", trials=5)
    failed = [trial for trial in trials_of(result) if trial["NDCG@10"] is None]
    assert {trial["values"]["tower.heads"] for trial in failed} == {3}
    assert "not a multiple of heads 3" in failed[0]["failure"]
    assert result.values == {"tower.heads": 2}


def test_the_same_search_runs_once_at_a_time(tmp_path: Path, spark: object) -> None:
    shelf = Shelf(tmp_path / "here", reading())
    result = searched(shelf, SPACE, trials=1)
    with lock_or_refuse(result.folder / ".lock", "the search", "another"), pytest.raises(LockedError) as refused:
        searched(shelf, SPACE, trials=2)
    assert str(result.folder) in refused.value.resource
    assert searched(shelf, SPACE, trials=1).trials == 1


@pytest.mark.parametrize(
    ("space", "wrong"),
    [
        ("{}", "search.parameters is empty"),
        ("{histories.max_length: {low: 3, high: 9}}", "histories.max_length cannot be searched over"),
        ("{tower.size: {choices: [1]}}", "which is not a setting"),
        ("{tower.layers: {low: 3, high: 1}}", "low must be below high"),
        ("{tower.layers: {low: 0, high: 2, log: true}}", "log needs low above 0"),
        ("{tower.layers: {low: 1, high: 2, choices: [1]}}", "either choices, or low and high"),
    ],
)
def test_a_space_that_is_wrong_is_told(tmp_path: Path, space: str, wrong: str) -> None:
    with pytest.raises(SettingsError, match=wrong):
        searched(Shelf(tmp_path / "here", reading()), f"search.parameters={space}")
