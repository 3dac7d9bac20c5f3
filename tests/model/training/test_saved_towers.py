"""The tower of a saved model is used again where only what is fitted upon it changes, and only there."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from learn_spark.core.stages.code import installed
from learn_spark.model.manifest import read_manifest
from learn_spark.model.store import both_weights, read_curve
from learn_spark.model.training.saved_towers import key_of_tower
from tests.shelf import Shelf, reading

PLUS = (
    "tower={kind: learn-plus, dropout: 0.3}",
    "objective.predicts=next_item",
    "objective.negatives=full",
    "objective.learn_temperature=true",
    "training.epochs=3",
    "training.seed=4",
)
FIRST = "tower.reranker={hidden: 4, epochs: 2}"
OTHERS = ("tower.reranker={hidden: 8, epochs: 3}", "tower.blending={co_visits: 4, decay: 0.8}")


@pytest.mark.parametrize("rule", ["holdout", "refit", "strict"])
def test_parts_upon_a_saved_tower_are_those_of_a_whole_training(tmp_path: Path, rule: str) -> None:
    shelf = Shelf(tmp_path / "here", reading())
    settings = (*PLUS, f"training.rule={rule}")
    first, _ = shelf.run("train", *settings, FIRST)
    torch.set_num_threads(2)
    again, _ = shelf.run("train", *settings, *OTHERS)
    assert torch.get_num_threads() == 1  # training.threads, as in a whole training
    whole, _ = shelf.run("train", *settings, *OTHERS, forced=True)
    assert [run.counts["reused_tower"] for run in (first, again, whole)] == [0, 1, 0]
    assert [run.counts["samples"] > 0 for run in (first, again, whole)] == [True, False, True]
    # The id has the hashes of all weights and every figure on validation.
    assert again.outputs == whole.outputs != first.outputs
    one, other = (shelf.workspace.place / name for run in (first, again) for name in run.outputs)
    manifest = read_manifest(other)
    assert manifest.reranker is not None
    assert manifest.reranker.hidden == 8
    assert [len(read_curve(folder)) for folder in (one, other)] == [3, 3]
    steps = [(folder / "logs" / "steps.jsonl").read_text() for folder in (one, other)]
    assert steps[0] == steps[1] != ""
    chosen, final = both_weights(other, manifest)
    same = all(chosen[name].equal(tensor) for name, tensor in final.items())
    assert same is (rule == "holdout")


def test_what_decides_the_weights_makes_another_tower(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path / "here", reading())
    shelf.run("train", *PLUS, FIRST)
    for change in ("training.seed=5", "tower.dropout=0.2"):
        run, _ = shelf.run("train", *PLUS, FIRST, change)
        assert run.counts["reused_tower"] == 0, change
        assert run.counts["samples"] > 0, change
    inputs = shelf.context("train", *PLUS, FIRST).inputs
    key = key_of_tower(shelf.settings(*PLUS, FIRST), inputs)
    assert key == key_of_tower(shelf.settings(*PLUS, *OTHERS), inputs)
    assert key != key_of_tower(shelf.settings(*PLUS, FIRST), {**inputs, "user_histories": "9"})
    shelf.plant_log(reading(seed=1)[:4])  # other histories
    run, _ = shelf.run("train", *PLUS, OTHERS[0])
    assert run.counts["reused_tower"] == 0


def test_a_damaged_or_incomplete_tower_is_trained_anew(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path / "here", reading())
    settings = (*PLUS, "training.rule=refit")
    first, _ = shelf.run("train", *settings, FIRST)
    (name,) = first.outputs
    folder = shelf.workspace.root / name
    for file, damage in (("before_refit.safetensors", b"half of the wei"), ("training.jsonl", b"")):
        whole = (folder / file).read_bytes()
        (folder / file).write_bytes(damage)
        run, _ = shelf.run("train", *settings, OTHERS[0])
        assert run.counts["reused_tower"] == 0, file
        (other,) = run.outputs
        assert read_curve(shelf.workspace.place / other)
        (folder / file).write_bytes(whole)
        (shelf.workspace.root / other / "manifest.json").unlink()
    # A manifest that cannot be read is no reason to stop.
    (folder / "manifest.json").write_bytes(b"\xff half of")
    run, _ = shelf.run("train", *settings, OTHERS[0])
    assert run.counts["reused_tower"] == 0
    run, _ = shelf.run("train", *settings, OTHERS[0], "training.resume=never")
    assert run.counts["reused_tower"] == 0


def test_no_code_of_the_parts_is_code_of_the_tower() -> None:
    modules = installed().closure("learn_spark.model.training.twice")
    assert "learn_spark.model.training.loop" in modules
    assert "learn_spark.model.towers.learn_plus" in modules
    parts = ("learn_spark.model.blending", "learn_spark.model.narrowing", "learn_spark.model.reranking")
    assert [module for module in modules if module.startswith(parts)] == []
