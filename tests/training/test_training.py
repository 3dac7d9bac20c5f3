"""Training: it learns a planted taste, a cut-off run ends as an unbroken one, a model comes back as it was saved."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from learn_spark.feed.stream import HistoryStream
from learn_spark.progress import Reporter
from learn_spark.settings import load_settings
from learn_spark.settings.schema import Feed, Objective, Training
from learn_spark.tables.snapshot import Snapshot
from learn_spark.tables.workspace import Workspace
from learn_spark.towers.learn import LearnTower, TowerShape
from learn_spark.training.loop import TrainingFailed, TrainingLoop, learning_rate
from learn_spark.training.model_store import ModelError, load_model, read_curve, save_model

SHAPE = TowerShape(content_dim=8, width=16, layers=1, heads=2, ffn=32, output_dim=8, dropout=0.1, item_tower="a")


class Planted(HistoryStream):
    """Users who like the even or the odd items only, without Delta: the loop is what is tested here."""

    def __init__(self, length: int = 8, users: int = 64) -> None:
        self.snapshot = Snapshot("", 0, ("",), (users,))
        self.length, self.users = length, users

    def epoch(self, epoch: int, batch_size: int):  # type: ignore[no-untyped-def]
        generator = np.random.default_rng([9, epoch])
        parity = generator.integers(0, 2, self.users)
        items = 2 * generator.integers(1, 20, (self.users, 8)) + parity[:, None]
        lengths = np.full(self.users, self.length)
        for start in range(0, self.users, batch_size):
            chosen = slice(start, start + batch_size)
            yield {
                "item_index": items[chosen].astype(np.int32),
                "train_length": lengths[chosen].astype(np.int32),
                "cut_length": np.zeros_like(lengths[chosen], dtype=np.int32),
            }


def content() -> np.ndarray:
    matrix = np.random.default_rng(0).normal(size=(42, 8)).astype(np.float32)
    matrix[:, 0] += np.where(np.arange(42) % 2, 1.5, -1.5)
    matrix[0] = 0
    return matrix


def make_loop(
    folder: Path, *, epochs: int = 6, patience: int = 6, scores: list[float] | None = None, length: int = 8
) -> TrainingLoop:
    torch.manual_seed(5)
    given = iter(scores or [])

    def validate(tower: LearnTower) -> dict[str, float]:
        if scores is not None:
            return {"NDCG@10": next(given)}
        tower.eval()
        with torch.inference_mode():
            items = tower.items(torch.from_numpy(content()[2:])).numpy()
        even, odd = items[0::2].mean(0), items[1::2].mean(0)
        return {"NDCG@10": float(1 - even @ odd / np.linalg.norm(even) / np.linalg.norm(odd))}

    return TrainingLoop(
        tower=LearnTower.of(SHAPE),
        content=content(),
        log_q=None,
        stream=Planted(length),
        feed=Feed(batch_size=16),
        objective=Objective(history=6, targets=3, history_positions=2, target_positions=2, temperature=0.2),
        training=Training(seed=3, epochs=epochs, patience=patience, passes_per_epoch=2, learning_rate=3e-3),
        validate=validate,
        checkpoint=folder / "checkpoint.safetensors",
        report=Reporter(quiet=True),
    )


def test_it_learns_a_planted_taste(tmp_path: Path) -> None:
    loop = make_loop(tmp_path, epochs=10)
    before = loop.validate(loop.tower)["NDCG@10"]
    trained = loop.fit()
    assert trained.curve[-1]["loss"] < 0.8 * trained.curve[0]["loss"]
    # Even and odd items point in clearly different directions afterwards.
    assert trained.best_value > max(0.8, before)
    assert trained.curve[0]["samples"] == 2 * 64


@pytest.mark.parametrize("stops", [(1,), (2, 1), (3, 2)])
def test_a_run_cut_off_and_resumed_ends_with_the_same_weights(tmp_path: Path, stops: tuple[int, ...]) -> None:
    (tmp_path / "whole").mkdir(), (tmp_path / "parts").mkdir()
    whole = make_loop(tmp_path / "whole")
    unbroken = whole.fit()
    for stop in stops:
        make_loop(tmp_path / "parts").fit(stop_after=stop)
    last = make_loop(tmp_path / "parts")
    resumed = last.fit()
    assert resumed.resumed_at == sum(stops)
    for name, tensor in whole.tower.state_dict().items():
        assert torch.equal(tensor, last.tower.state_dict()[name]), name
    timing = {"samples_per_second", "waiting_share"}
    for ours, theirs in zip(resumed.curve, unbroken.curve, strict=True):
        assert {k: v for k, v in ours.items() if k not in timing} == {
            k: v for k, v in theirs.items() if k not in timing
        }


def test_a_damaged_checkpoint_is_not_trusted(tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    make_loop(tmp_path).fit(stop_after=1)
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    again, fresh = make_loop(tmp_path, epochs=2), make_loop(tmp_path / "whole", epochs=2)
    assert again.fit().resumed_at == 0
    fresh.fit()
    assert all(torch.equal(a, b) for a, b in zip(again.tower.parameters(), fresh.tower.parameters(), strict=True))


def test_it_stops_when_patience_is_out_and_keeps_the_best_epoch(tmp_path: Path) -> None:
    loop = make_loop(tmp_path, epochs=9, patience=2, scores=[0.1, 0.3, 0.2, 0.3, 0.9])
    trained = loop.fit()
    assert (trained.best_epoch, trained.best_value, len(trained.curve)) == (2, 0.3, 4)
    (tmp_path / "other").mkdir()
    short = make_loop(tmp_path / "other", epochs=9, patience=2, scores=[0.1, 0.3])
    short.fit(stop_after=2)
    # The weights are those after the second epoch, not the fourth.
    for name, tensor in short.tower.state_dict().items():
        assert torch.equal(tensor, loop.tower.state_dict()[name])


def test_users_with_one_training_event_teach_nothing(tmp_path: Path) -> None:
    with pytest.raises(TrainingFailed, match="nothing to contrast"):
        make_loop(tmp_path, length=1).fit()


def test_the_learning_rate_rises_and_falls() -> None:
    settings = Training(learning_rate=1.0, warmup_share=0.25)
    rates = [learning_rate(step, 8, settings) for step in range(8)]
    assert rates[:2] == [0.5, 1.0]
    assert rates[2:] == pytest.approx([0.5 * (1 + math.cos(math.pi * i / 6)) for i in range(6)])


def test_a_model_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    workspace = Workspace.open(str(tmp_path))
    torch.manual_seed(1)
    tower = LearnTower.of(SHAPE).eval()
    tower.adaptor.set_whitening(np.arange(8.0), np.eye(8) * 2)
    curve = [{"epoch": 1, "loss": 2.0}]
    model_id = save_model(workspace, tower, {"window": 5}, curve, load_settings("quickstart"))
    folder = tmp_path / "models" / model_id
    model = load_model(folder)
    x = torch.randn(3, 4, 8)
    assert torch.equal(model.tower.user(x), tower.user(x))
    assert (model.window, read_curve(folder)) == (5, curve)
    assert (folder / "settings.yaml").is_file()
    assert save_model(workspace, tower, {"window": 5}, curve, load_settings("quickstart")) == model_id
    assert save_model(workspace, tower, {"window": 6}, curve, load_settings("quickstart")) != model_id
    weights = folder / "model.safetensors"
    content_ = bytearray(weights.read_bytes())
    content_[-1] ^= 1
    weights.write_bytes(bytes(content_))
    with pytest.raises(ModelError, match="is damaged"):
        load_model(folder)
    weights.unlink()
    with pytest.raises(ModelError, match="not a whole model folder"):
        load_model(folder)
