"""The table of the benchmarks: rows of real runs, of which one seed's model has evidence and the other's has none."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path

import pytest

from benchmarks.table import BASELINES, Done, _rows, _show
from learn_spark.core.settings import load_settings
from learn_spark.core.tables.log import read_rows
from learn_spark.model.manifest import read_manifest
from learn_spark.model.store import read_curve
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
        assert (read_manifest(shelf.workspace.root / "models" / model).reranker is not None) == (seed == 2024)
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
    assert f">LEARN+: best {max(learnt):.4f} at {best} of 2</desc>" in curves.read_text()


@pytest.mark.parametrize(
    "plan", sorted((Path(__file__).parents[2] / "benchmarks" / "plans").glob("*.yaml")), ids=lambda path: path.stem
)
def test_the_settings_of_every_row_of_a_plan_load(plan: Path) -> None:
    tables, rows, shared = _rows(Namespace(plan=plan, tables=None, rows=[]))
    assert load_settings(tables, shared).workspace
    loaded = [load_settings(row.config, [*shared, *row.overrides]) for row in rows]
    assert len({settings.model_dump_json() for settings in loaded}) == len(rows) > 1
    assert {settings.workspace for settings in loaded} == {load_settings(tables, shared).workspace}
