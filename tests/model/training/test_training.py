"""Training: it learns a planted preference, a killed run ends as an unbroken one, a saved model is loaded unchanged."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from learn_spark.core.console import Reporter
from learn_spark.core.settings import load_settings
from learn_spark.core.settings.training import TrainingSettings
from learn_spark.core.storage.path import StoragePath
from learn_spark.core.tables.workspace import Workspace
from learn_spark.model.manifest import ModelError
from learn_spark.model.store import load_model, read_curve, save_model
from learn_spark.model.training.loop import TrainingError, TrainingLoop
from learn_spark.model.training.schedule import learning_rate
from tests.model.facts import training_facts
from tests.model.training.planted import content, make_loop, make_tower, parity_apart

KINDS = ("learn", "sasrec", "hstu")
NEXT_ITEM: dict[str, dict[str, Any]] = {
    "learn": {},
    "sasrec": {"predicts": "next_item", "negatives": "uniform", "n_negatives": 8, "per_position": True},
    "hstu": {"predicts": "next_item", "negatives": "full", "learn_temperature": True},
}
TIMING = {"samples_per_second", "waiting_share"}


def same_weights(one: TrainingLoop, other: TrainingLoop) -> None:
    for name, tensor in one.modules.state_dict().items():
        assert torch.equal(tensor, other.modules.state_dict()[name]), name


@pytest.mark.parametrize("kind", KINDS)
def test_it_learns_a_planted_preference(tmp_path: Path, kind: str) -> None:
    rate = {"learning_rate": 0.03} if kind != "learn" else {}
    loop = make_loop(tmp_path / "run", kind=kind, epochs=12, patience=12, objective=NEXT_ITEM[kind], **rate)
    before = loop.validate(loop.tower.eval())["NDCG@10"]
    trained = loop.fit()
    assert trained.curve[-1]["loss"] < 0.9 * trained.curve[0]["loss"]
    # Even and odd items point in clearly different directions afterwards.
    assert trained.best_value > max(0.8, before)
    assert trained.curve[0]["samples"] == 2 * 64
    assert parity_apart(loop.tower)["NDCG@10"] == pytest.approx(trained.best_value)


@pytest.mark.parametrize(("kind", "gradients"), [*((kind, "dense") for kind in KINDS), ("sasrec", "sparse")])
@pytest.mark.parametrize("breaks", [(3,), (8,), (11, 5, 1)])
def test_a_run_killed_anywhere_and_resumed_ends_with_the_same_weights(
    tmp_path: Path, kind: str, gradients: str, breaks: tuple[int, ...]
) -> None:
    """8 batches an epoch: killed in the middle of one, at its end, and several times."""
    options: dict[str, Any] = {
        "kind": kind,
        "epochs": 3,
        "objective": NEXT_ITEM[kind],
        "accumulate": 2,
        "id_gradients": gradients,
    }
    unbroken_loop = make_loop(tmp_path / "whole", **options)
    unbroken = unbroken_loop.fit()
    for after in breaks:
        with pytest.raises(KeyboardInterrupt):
            make_loop(tmp_path / "parts", break_after=after, **options).fit()
    last = make_loop(tmp_path / "parts", **options)
    resumed = last.fit()
    same_weights(unbroken_loop, last)
    for ours, theirs in zip(resumed.curve, unbroken.curve, strict=True):
        assert {k: v for k, v in ours.items() if k not in TIMING} == {
            k: v for k, v in theirs.items() if k not in TIMING
        }
    steps = [
        json.loads(line)["step"] for line in (tmp_path / "parts" / "logs" / "steps.jsonl").read_text().splitlines()
    ]
    assert steps == sorted(set(steps))


def test_a_killed_run_resumes_from_its_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        make_loop(tmp_path / "run", break_after=11).fit()
    (last,) = (tmp_path / "run" / "checkpoints").glob("last-*")
    progress = json.loads((last / "progress.json").read_text())
    # Batches are prefetched, so the kill came some batches after the last checkpoint.
    assert progress["epoch"] == 1 or progress["batch"] >= 4
    assert make_loop(tmp_path / "run").fit().resumed_at == progress["epoch"]
    assert make_loop(tmp_path / "run", resume="never").fit().resumed_at == 0


def test_another_machine_resumes_from_the_copy_of_checkpoints(tmp_path: Path, bucket: StoragePath) -> None:
    copy, options = bucket / "training" / "checkpoints", {"epochs": 3}
    whole = make_loop(tmp_path / "whole", **options)
    whole.fit()
    with pytest.raises(KeyboardInterrupt):
        make_loop(tmp_path / "one", break_after=13, copy=copy, **options).fit()
    # One newest state and one best state: older ones go from the copy too.
    assert [name.partition("-")[0] for name in copy.names()] == ["best", "last"]
    there = make_loop(tmp_path / "other", copy=copy, **options)
    there.checkpoints.fetch()
    assert there.fit().resumed_at == 1
    same_weights(whole, there)


def test_a_damaged_checkpoint_is_not_trusted(tmp_path: Path) -> None:
    make_loop(tmp_path / "cut", epochs=1).fit()
    (last,) = (tmp_path / "cut" / "checkpoints").glob("last-*")
    path = last / "state.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    again, fresh = make_loop(tmp_path / "cut", epochs=2), make_loop(tmp_path / "whole", epochs=2)
    assert again.fit().resumed_at == 0
    fresh.fit()
    same_weights(again, fresh)


def test_it_stops_when_patience_is_out_and_keeps_the_best_epoch(tmp_path: Path) -> None:
    loop = make_loop(tmp_path / "long", epochs=9, patience=2, scores=[0.1, 0.3, 0.2, 0.3, 0.9])
    trained = loop.fit()
    assert (trained.best_epoch, trained.best_value, len(trained.curve)) == (2, 0.3, 4)
    short = make_loop(tmp_path / "short", epochs=9, patience=2, scores=[0.1, 0.3], break_after=16)
    with pytest.raises(KeyboardInterrupt):
        short.fit()
    # The weights are those after the second epoch, not the fourth.
    best = short.checkpoints.load_best()
    assert best is not None
    for name, tensor in loop.tower.state_dict().items():
        assert torch.equal(tensor, best[name])


def test_users_with_one_training_event_are_no_samples(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="no pairs to contrast"):
        make_loop(tmp_path / "run", length=1).fit()


def test_accumulated_batches_are_one_step(tmp_path: Path) -> None:
    loop = make_loop(tmp_path / "run", epochs=1, accumulate=3)
    loop.fit()
    progress = json.loads(next((tmp_path / "run" / "checkpoints").glob("last-*/progress.json")).read_text())
    # 8 batches: two steps of three and one of two.
    assert progress["step"] == 3


def test_mixed_precision_learns_as_well(tmp_path: Path) -> None:
    exact = make_loop(tmp_path / "exact", epochs=2).fit()
    mixed = make_loop(tmp_path / "mixed", epochs=2, precision="bf16").fit()
    assert mixed.curve[-1]["loss"] == pytest.approx(exact.curve[-1]["loss"], rel=0.02)
    assert mixed.curve[-1]["loss"] != exact.curve[-1]["loss"]


def test_auto_is_bf16_where_the_device_has_it_and_says_which(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = Path("/proc/cpuinfo").read_text().split()
    has_it = any(flag in flags for flag in ("avx512_bf16", "amx_bf16", "bf16"))
    same = {"auto": "bf16" if has_it else "fp32"}
    losses = {
        precision: make_loop(tmp_path / precision, epochs=1, precision=precision, console=Reporter())
        .fit()
        .curve[-1]["loss"]
        for precision in ("auto", "fp32", "bf16")
    }
    assert losses["auto"] == losses[same["auto"]]
    assert losses["fp32"] != losses["bf16"]
    output = capsys.readouterr().out
    assert f"auto: {same['auto']} on this device" in output
    assert ("no bf16 products" in output) != has_it


def test_the_learning_rate_rises_and_falls() -> None:
    settings = TrainingSettings(learning_rate=1.0, warmup_share=0.25)
    rates = [learning_rate(step, 8, settings) for step in range(8)]
    assert rates[:2] == [0.5, 1.0]
    assert rates[2:] == pytest.approx([0.5 * (1 + math.cos(math.pi * i / 6)) for i in range(6)])
    constant = settings.model_copy(update={"schedule": "constant"})
    assert [learning_rate(step, 8, constant) for step in range(8)] == [0.5] + [1.0] * 7


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_model_is_loaded_unchanged(tmp_path: Path, kind: str) -> None:
    workspace = Workspace.open(str(tmp_path))
    tower = make_tower(kind).eval()
    curve = [{"epoch": 1, "loss": 2.0}]
    settings = load_settings("learn")
    logs = tmp_path / "logs"
    logs.mkdir()
    (logs / "steps.jsonl").write_text("{}\n")
    model_id = save_model(workspace, tower, training_facts(window=5), curve, settings, logs=logs)
    folder = tmp_path / "models" / model_id
    model = load_model(folder)
    if kind == "learn":
        with pytest.raises(RuntimeError, match="call bind"):
            model.tower.items(torch.tensor([1]))
        model.tower.bind(content())  # type: ignore[operator]
    items, times = torch.tensor([[3, 7, 1, 40]]), torch.tensor([[0, 10**6, 10**9, 10**12]])
    with torch.inference_mode():
        assert torch.equal(model.tower.user(items, times), tower.user(items, times))
        assert torch.equal(model.tower.items(items), tower.items(items))
    assert (model.method, model.window, read_curve(folder)) == (kind, 5, curve)
    assert (folder / "logs" / "steps.jsonl").is_file()
    assert (folder / "settings.yaml").is_file()
    assert save_model(workspace, tower, training_facts(window=5), curve, settings) == model_id
    assert save_model(workspace, tower, training_facts(window=6), curve, settings) != model_id


def test_a_damaged_model_is_refused(tmp_path: Path) -> None:
    workspace = Workspace.open(str(tmp_path))
    tower = make_tower("sasrec")
    folder = tmp_path / "models" / save_model(workspace, tower, training_facts(window=5), [], load_settings("learn"))
    weights = folder / "model.safetensors"
    damaged = bytearray(weights.read_bytes())
    damaged[-1] ^= 1
    weights.write_bytes(bytes(damaged))
    with pytest.raises(ModelError, match="is damaged"):
        load_model(folder)
    weights.unlink()
    with pytest.raises(ModelError, match="not a complete model folder"):
        load_model(folder)


def test_tensorboard_and_json_lines_agree(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    trained = make_loop(tmp_path / "run", epochs=2).fit()
    board = EventAccumulator(str(tmp_path / "run" / "logs" / "tensorboard"))
    board.Reload()
    values = [point.value for point in board.Scalars("validation NDCG_at_10")]
    assert np.allclose(values, [point["validation NDCG@10"] for point in trained.curve])
