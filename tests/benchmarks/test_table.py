"""The table of the benchmarks: rows of real runs, of which one seed's model has evidence and the other's has none."""

from __future__ import annotations

import json
import math
from argparse import Namespace
from pathlib import Path

import pytest

from benchmarks.scatter import Point, draw_points
from benchmarks.table import BASELINES, Done, _show
from learn_spark.tables.log import read_rows
from learn_spark.training.model_store import read_manifest
from tests.shelf import Shelf, reading

PLUS = (
    "tower.kind=learn-plus",
    "tower.evidence={hidden: 4, batch_size: 16}",
    "objective.predicts=next_item",
    "training.epochs=2",
    "evaluation={ks: [10, 100], bootstrap_samples: 20}",
)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_seeds_with_and_without_evidence_make_one_row(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], order: tuple[int, int]
) -> None:
    shelf = Shelf(tmp_path / "shelf", reading())
    done = []
    for seed, overrides in ((2024, PLUS), (2025, (*PLUS, "tower.evidence=null", "training.seed=2025"))):
        trained, _ = shelf.run("train", *overrides)
        model = next(iter(trained.outputs)).removeprefix("models/")
        run, _ = shelf.run("evaluate", *overrides)
        assert ("evidence" in read_manifest(shelf.workspace.root / "models" / model)) == (seed == 2024)
        done.append(Done("LEARN+", seed, model, run.run_id, 10.0, 100.0))
    done = [done[place] for place in order]
    plot, front = tmp_path / "plot.svg", tmp_path / "front.svg"
    _show(shelf.workspace, done, Namespace(slices=["popularity"], plot=plot, front=front), gains=True)
    printed = capsys.readouterr().out
    values = {
        (r["run_id"], r["method"]): r["value"]
        for r in read_rows(shelf.workspace.table("evaluations"))
        if (r["cut"], r["metric"]) == ("test", "NDCG@10")
    }
    told = json.loads(printed.splitlines()[-1])
    evident, plain = (next(one.run_id for one in done if one.seed == seed) for seed in (2024, 2025))
    expected = {
        "LEARN+": {2024: values[evident, "learn-plus"], 2025: values[plain, "learn-plus"]},
        "LEARN+, its vectors alone": {2024: values[evident, "learn-plus-alone"], 2025: values[plain, "learn-plus"]},
    }
    for row, of_seeds in expected.items():
        assert told[row]["NDCG@10"] == [of_seeds[one.seed] for one in done]
        assert f"\n| {row} |" in printed
    assert expected["LEARN+"] != expected["LEARN+, its vectors alone"]
    for method, name in BASELINES.items():
        assert told[name]["NDCG@10"] == values[done[0].run_id, method]
    # No target of this log is rare: JSON knows no NaN, and the drawing leaves out what is none.
    assert "NaN" not in printed.splitlines()[-1]
    assert "<svg" in plot.read_text()
    assert front.is_file()


def test_a_point_that_is_no_number_is_left_out() -> None:
    drawn = draw_points(
        [Point("a", 1.0, 0.5), Point("b", 2.0, math.nan), Point("c", math.inf, 0.1)], "x", "y", log_x=False
    )
    assert ">a<" in drawn
    assert ">b<" not in drawn
    assert ">c<" not in drawn
    with pytest.raises(ValueError, match="no point"):
        draw_points([Point("b", math.nan, 1.0)], "x", "y", log_x=False)
