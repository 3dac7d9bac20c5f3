"""The moving average of weights: its arithmetic, its place in a training, and its resume."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from learn_spark.model.training.average import WeightAverage
from tests.model.training.planted import make_loop


def test_the_average_by_hand() -> None:
    tower = torch.nn.Linear(1, 1, bias=False)
    tower.weight.data.fill_(10.0)
    average = WeightAverage(tower, 0.25)
    for step, weight in enumerate((20.0, 30.0, 40.0)):
        tower.weight.data.fill_(weight)
        average.update(step)
    # 1/10, then 2/11, then 0.25 (3/12, and the decay from here on) of what was before.
    expected = 10.0 * 0.1 + 20.0 * 0.9
    expected = expected * 2 / 11 + 30.0 * 9 / 11
    expected = expected * 0.25 + 40.0 * 0.75
    with average.applied():
        assert float(tower.weight.detach()) == pytest.approx(expected)
    assert float(tower.weight.detach()) == 40.0
    average.update(1000)
    with average.applied():
        assert float(tower.weight.detach()) == pytest.approx(expected * 0.25 + 40.0 * 0.75)


def test_the_weights_are_restored_where_validation_fails() -> None:
    tower = torch.nn.Linear(2, 2)
    average = WeightAverage(tower, 0.9)
    tower.weight.data.fill_(7.0)
    with pytest.raises(RuntimeError), average.applied():
        raise RuntimeError
    assert bool((tower.weight == 7.0).all())


def test_the_average_is_saved_and_the_raw_weights_are_trained(tmp_path: Path) -> None:
    plain, averaged = make_loop(tmp_path / "plain", epochs=2), make_loop(tmp_path / "averaged", epochs=2, average=0.8)
    weights = {name: parameter.detach().clone() for name, parameter in plain.tower.named_parameters()}
    followed: list[dict[str, torch.Tensor]] = []
    step = plain.optimizer.step

    def watched() -> None:
        step()
        followed.append({name: parameter.detach().clone() for name, parameter in plain.tower.named_parameters()})

    plain.optimizer.step = watched  # type: ignore[method-assign, assignment]
    scores = [loop.fit(epochs=2).curve for loop in (plain, averaged)]
    for number, seen in enumerate(followed):
        decay = min(0.8, (1 + number) / (10 + number))
        weights = {name: decay * weights[name] + (1 - decay) * seen[name] for name in weights}
    # The same steps were taken, and the tower has their average, which was validated.
    assert [point["loss"] for point in scores[0]] == [point["loss"] for point in scores[1]]
    assert scores[0][-1]["validation NDCG@10"] != scores[1][-1]["validation NDCG@10"]
    assert averaged.validate is not None
    best = averaged.checkpoints.load_best()
    assert best is not None
    assert scores[1][-1]["validation NDCG@10"] > scores[1][0]["validation NDCG@10"]
    for name, tensor in weights.items():
        torch.testing.assert_close(best[name], tensor)
    assert averaged.validate(averaged.tower)["NDCG@10"] == pytest.approx(
        max(point["validation NDCG@10"] for point in scores[1])
    )


def test_a_killed_run_resumes_with_its_average(tmp_path: Path) -> None:
    unbroken = make_loop(tmp_path / "whole", epochs=3, average=0.95)
    unbroken.fit()
    with pytest.raises(KeyboardInterrupt):
        make_loop(tmp_path / "parts", epochs=3, average=0.95, break_after=11).fit()
    last = make_loop(tmp_path / "parts", epochs=3, average=0.95)
    last.fit()
    assert any(name.startswith("average.") for name in unbroken.modules.state_dict())
    for name, tensor in unbroken.modules.state_dict().items():
        assert torch.equal(tensor, last.modules.state_dict()[name]), name
