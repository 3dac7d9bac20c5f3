"""The table of the benchmarks: rows of real runs, of which one seed's model has evidence and the other's has none."""

from __future__ import annotations

import itertools
import json
import math
import re
from argparse import Namespace
from pathlib import Path

import pytest

from benchmarks.plots import Point, draw_lines, draw_points
from benchmarks.table import BASELINES, Done, _rows, _show
from learn_spark.core.settings import load_settings
from learn_spark.core.tables.log import read_rows
from learn_spark.model.store import read_curve, read_manifest
from tests.shelf import Shelf, reading

PLUS = (
    "tower.kind=learn-plus",
    "tower.reranker={hidden: 4, batch_size: 16}",
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
    for seed, overrides in ((2024, PLUS), (2025, (*PLUS, "tower.reranker=null", "training.seed=2025"))):
        trained, _ = shelf.run("train", *overrides)
        model = next(iter(trained.outputs)).removeprefix("models/")
        run, _ = shelf.run("evaluate", *overrides)
        assert ("evidence" in read_manifest(shelf.workspace.root / "models" / model)) == (seed == 2024)
        done.append(Done("LEARN+", seed, model, run.run_id, 10.0, 100.0))
    done = [done[place] for place in order]
    plot, front, curves = (tmp_path / f"{name}.svg" for name in ("plot", "front", "curves"))
    given = Namespace(slices=["popularity"], plot=plot, front=front, curves=curves)
    _show(shelf.workspace, done, given, gains=True)
    printed = capsys.readouterr().out
    values = {
        (r["run_id"], r["method"]): r["value"]
        for r in read_rows(shelf.workspace.table("evaluations"))
        if (r["split"], r["metric"]) == ("test", "NDCG@10")
    }
    told = json.loads(printed.splitlines()[-1])
    evident, plain = (next(one.run_id for one in done if one.seed == seed) for seed in (2024, 2025))
    expected = {
        "LEARN+": {2024: values[evident, "learn-plus"], 2025: values[plain, "learn-plus"]},
        "LEARN+, its vectors alone": {2024: values[evident, "learn-plus-vectors"], 2025: values[plain, "learn-plus"]},
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
    learnt = [point["validation NDCG@10"] for point in read_curve(shelf.workspace.root / "models" / done[0].model_id)]
    best = learnt.index(max(learnt)) + 1
    assert f"<desc>LEARN+: best {max(learnt):.4f} at {best} of 2</desc>" in curves.read_text()


@pytest.mark.parametrize(
    "plan", sorted((Path(__file__).parents[2] / "benchmarks" / "plans").glob("*.yaml")), ids=lambda path: path.stem
)
def test_the_settings_of_every_row_of_a_plan_load(plan: Path) -> None:
    tables, rows, shared = _rows(Namespace(plan=plan, tables=None, rows=[]))
    assert load_settings(tables, shared).workspace
    loaded = [load_settings(row.config, [*shared, *row.overrides]) for row in rows]
    assert len({settings.model_dump_json() for settings in loaded}) == len(rows) > 1
    assert {settings.workspace for settings in loaded} == {load_settings(tables, shared).workspace}


def test_a_point_that_is_no_number_is_left_out() -> None:
    drawn = draw_points(
        [Point("a", 1.0, 0.5), Point("b", 2.0, math.nan), Point("c", math.inf, 0.1)], "x", "y", log_x=False
    )
    assert ">a<" in drawn
    assert ">b<" not in drawn
    assert ">c<" not in drawn
    with pytest.raises(ValueError, match="no point"):
        draw_points([Point("b", math.nan, 1.0)], "x", "y", log_x=False)


def test_a_line_goes_through_its_values_and_has_a_point_at_its_best() -> None:
    drawn = draw_lines({"up": [0.1, math.nan, 0.4, 0.3], "down": [0.2, 0.1], "none": [math.nan]}, "epoch", "y")
    lines = [
        [tuple(map(float, place.split())) for place in path.split("L")]
        for path in re.findall(r'<path d="M([\d. L]+)" fill="none"', drawn)
    ]
    assert [len(line) for line in lines] == [3, 2]
    (first, third, fourth), (one, two) = lines
    # Equal steps of x, and of y: to the right is later, and up (a smaller number) is more.
    assert third[0] - first[0] == pytest.approx(2 * (fourth[0] - third[0]), abs=0.2)
    assert first[1] - third[1] == pytest.approx(3 * (two[1] - one[1]), abs=0.2)
    assert two[1] > one[1]
    named = re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)"', drawn)
    assert {tuple(map(float, place)) for place in named} == {third, one}
    assert "up: best 0.4000 at 3 of 4; down: best 0.2000 at 1 of 2" in drawn
    assert re.findall(r"<text[^>]*>(up|down|none)<", drawn) == ["up", "down"]
    many = draw_lines({f"a rather long name of a row, {n}": [0.1, 0.1 + n] for n in range(8)}, "epoch", "y")
    styles = re.findall(r'<path d="M[\d. L]+" fill="none" (stroke="[^>]+)/>', many)
    assert len(set(styles)) == len(styles) == 8
    assert float(re.search(r'viewBox="0 0 (\d+) ', many)[1]) >= 530 + 8 + 28 + 30 * 6.5
    with pytest.raises(ValueError, match="no point"):
        draw_lines({"none": [math.nan]}, "epoch", "y")


def test_names_cover_neither_points_nor_each_other() -> None:
    named = {
        "a long name indeed": (30.0, 0.49),
        "right of it": (45.0, 0.485),
        "near": (60.0, 0.22),
        "nearer": (60.5, 0.2),
    }
    drawn = draw_points([Point(name, *at) for name, at in named.items()], "x", "y", log_x=False)
    points = [(float(x), float(y)) for x, y in re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)"', drawn)]
    boxes = []
    for x, y, end, name in re.findall(r'<text x="([\d.]+)" y="([\d.]+)"( text-anchor="end")?>([^<]+)<', drawn):
        if name in named:
            wide = 6.5 * len(name)
            left = float(x) - wide if end else float(x)
            boxes.append((left, float(y) - 9, left + wide, float(y) + 2))
    assert len(boxes) == len(points) == 4
    assert not [box for box in boxes for x, y in points if box[0] < x < box[2] and box[1] < y < box[3]]
    for one, other in itertools.combinations(boxes, 2):
        assert one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]
