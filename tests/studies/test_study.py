"""A study of real trainings: two at once in one workspace, its figures by hand, resumed, and with a row that fails."""

from __future__ import annotations

import json
import math
import statistics
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from scipy import stats

from learn_spark.core.console import Reporter
from learn_spark.core.errors import LearnSparkError, SettingsError
from learn_spark.core.settings import load_settings
from learn_spark.core.settings.load import load_study
from learn_spark.core.settings.study import StudySettings
from learn_spark.core.storage.locks import LockedError, lock_or_refuse
from learn_spark.core.tables.log import read_rows
from learn_spark.core.tables.runs import Run, all_runs
from learn_spark.core.tables.snapshot import Snapshot
from learn_spark.model.manifest import read_manifest
from learn_spark.model.store import read_curve
from learn_spark.pipeline.locks import writing
from learn_spark.studies.figures import BASELINES, Study
from learn_spark.studies.show import show
from learn_spark.studies.study import StudyError, run_study
from tests.shelf import RIVAL, Shelf, reading

SHARED = {
    "training.epochs": 2,
    "evaluation": {"ks": [10, 100], "bootstrap_samples": 20},
}
PLUS = {
    "tower.kind": "learn-plus",
    "tower.reranker": {"hidden": 4, "batch_size": 16},
    "objective.predicts": "next_item",
}
ROWS: dict[str, dict[str, Any]] = {
    "LEARN+": PLUS,
    "SASRec": {key: yaml.safe_load(value) for key, value in (item.split("=") for item in RIVAL)},
}
ROWS["as SASRec"] = ROWS["SASRec"]  # equal settings: one training for both


class World:
    """A workspace, its settings file, and a plan of two rows with two seeds."""

    def __init__(self, folder: Path) -> None:
        self.shelf = Shelf(folder / "shelf", reading())
        self.folder = folder
        # The shelf's own settings in a file, as a study's processes read files.
        self.config = folder / "all.yaml"
        tree = self.shelf.settings().model_dump(mode="json")
        self.config.write_text(yaml.safe_dump(tree), encoding="utf-8")

    def plan(self, rows: dict[str, dict[str, Any]], seeds: list[int], **more: Any) -> StudySettings:
        path = self.folder / "plan.yaml"
        listed = {name: {"config": str(self.config), "set": overrides} for name, overrides in rows.items()}
        path.write_text(
            yaml.safe_dump({"set": SHARED, "seeds": seeds, "rows": listed, **more}, sort_keys=False), encoding="utf-8"
        )
        return load_study(path)

    def runs(self, job: str) -> list[Run]:
        return [run for run in all_runs(self.shelf.workspace) if (run.job, run.status) == (job, "done")]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, spark: object) -> World:
    return World(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def study(world: World) -> Study:
    plan = world.plan(ROWS, [3, 4], slices=["popularity"])
    # Whoever ingests meanwhile does not stop trainings.
    with writing(world.shelf.workspace, ("interactions", "items"), "a run of ingest"):
        result = run_study(plan, "two rows", [], Reporter(quiet=True), at_once=2)
    assert result is not None
    return result


def test_trainings_run_side_by_side_in_one_workspace(world: World, study: Study) -> None:
    runs = world.runs("train")
    assert len(runs) == 4
    spans = [(run.started_at, run.started_at + timedelta(seconds=run.seconds)) for run in runs]
    overlaps = [a for a in spans for b in spans if a is not b and a[0] < b[1] and b[0] < a[1]]
    assert overlaps
    # Each model is evaluated, not only the newest.
    assert {run.inputs["model"] for run in world.runs("evaluate")} == {run.model_id for run in runs}
    models = {run.model_id for run in runs if run.model_id}
    seeds = [read_manifest(world.shelf.workspace.root / "models" / model).seed for model in models]
    assert sorted(seeds) == [3, 3, 4, 4]


def test_the_figures_are_those_of_the_tables(world: World, study: Study) -> None:
    workspace = world.shelf.workspace
    values = {
        (r["run_id"], r["method"], r["metric"]): r["value"]
        for r in read_rows(workspace.table("evaluations"))
        if r["split"] == "test"
    }
    by_name = {row.name: row for row in study.rows}
    # Both seeds of LEARN+ may go without their reranker; then there is no row of vectors only.
    reranked = any((run, "learn-plus-vectors", "NDCG@10") in values for run in by_name["LEARN+"].runs.values())
    names = [*BASELINES.values(), "LEARN+", *(["LEARN+, vectors only"] if reranked else []), "SASRec", "as SASRec"]
    assert list(by_name) == names
    for name, method in (("LEARN+", "learn-plus"), ("SASRec", "sasrec")):
        row = by_name[name]
        assert list(row.runs) == [3, 4]
        for metric in ("HR@10", "NDCG@10", "HR@100", "NDCG@100"):
            assert row.figures[metric] == tuple(values[run, method, metric] for run in row.runs.values())
    models = {run.run_id: run.inputs["model"] for run in world.runs("evaluate")}
    row = by_name["SASRec"]
    first = models[row.runs[3]]
    assert row.validation[0] == read_manifest(workspace.root / "models" / first).validation["NDCG@10"]
    assert row.curve == tuple(point["validation NDCG@10"] for point in read_curve(workspace.root / "models" / first))
    trainings = [run for run in world.runs("train") if run.model_id in {models[run] for run in row.runs.values()}]
    assert row.costs is not None
    assert row.costs.seconds == pytest.approx(statistics.mean(run.seconds for run in trainings))
    assert row.costs.peak_mib == max(run.counts["peak_mib"] for run in trainings)
    assert not row.costs.resumed


def test_parts_of_the_split_by_a_second_way(world: World, study: Study) -> None:
    rows = Snapshot.open(world.shelf.workspace.table("evaluation_users")).to_arrow().to_pylist()
    for row in study.rows:
        for place, run in enumerate(row.runs.values()):
            targets = [r for r in rows if (r["run_id"], r["method"], r["split"]) == (run, row.method, "test")]
            assert targets
            for part, belongs in {
                "< 5 events": lambda r: r["popularity"] in ("unseen", "1-4"),
                "5 and more": lambda r: r["popularity"] not in ("unseen", "1-4"),
                "same day": lambda r: r["same_day"] == "yes",
            }.items():
                gains = [1 / math.log2(r["rank"] + 1) if r["rank"] <= 10 else 0.0 for r in targets if belongs(r)]
                expected = float(np.mean(gains)) if gains else math.nan
                assert row.figures[part][place] == pytest.approx(expected, nan_ok=True)


def test_the_written_tables_and_charts(world: World, study: Study, capsys: pytest.CaptureFixture[str]) -> None:
    folder = world.shelf.workspace.root / "studies" / "two-rows"
    text = (folder / "study.md").read_text()
    sasrec = next(row for row in study.rows if row.name == "SASRec")
    a, b = sasrec.figures["NDCG@10"]
    half = stats.t.ppf(0.975, 1) * np.std([a, b], ddof=1) / math.sqrt(2)
    cell = f"{(a + b) / 2:.4f} ± {half:.4f}".replace("0.", ".")
    assert cell in next(line for line in text.splitlines() if line.startswith("| SASRec |"))
    gain = sasrec.mean("NDCG@10") - next(row for row in study.rows if row.name == "LEARN+").mean("NDCG@10")
    assert f"| SASRec | {gain:+.4f}".replace("0.", ".", 1) in text
    written = json.loads((folder / "study.json").read_text())
    assert written["rows"]["SASRec"]["runs"] == {str(seed): run for seed, run in sasrec.runs.items()}
    assert written["rows"]["SASRec"]["NDCG@10"] == [a, b]
    assert "NaN" not in (folder / "study.json").read_text()
    console = Reporter(as_json=True)
    show(study, folder, console)
    console.print_json()
    printed = json.loads(capsys.readouterr().out)
    assert {name: printed[name] for name in written} == written
    assert [row["row"] for row in printed["Test split"]] == [row.name for row in study.rows]
    assert {row["rule"] for row in printed["Test split"]} == {"holdout"}
    assert printed["notes"] == [f"study  {folder / 'study.md'}"]
    slices = study.slices["popularity"]
    assert slices["all"]["as SASRec"] == slices["all"]["SASRec"]
    assert list(slices)[-1] == "all"
    assert slices["all"]["SASRec"].low <= slices["all"]["SASRec"].value <= slices["all"]["SASRec"].high
    for name in ("cost", "curves"):
        assert "<svg" in (folder / f"{name}.svg").read_text()
    assert {log.name for log in (folder / "logs").iterdir()} == {
        f"{row}-seed-{seed}.log" for row in ("LEARN", "SASRec") for seed in (3, 4)
    }


def test_what_is_done_is_not_done_again_and_a_row_that_fails_stops_no_other(world: World, study: Study) -> None:
    before = {run.run_id for run in all_runs(world.shelf.workspace)}
    rows = {**ROWS, "heads": {"tower.heads": 2, "training.learning_rate": 1e30}}
    plan = world.plan({"heads": rows["heads"], "SASRec": ROWS["SASRec"]}, [3])
    shown: list[str] = []
    console = Reporter(quiet=True)
    console.line = lambda text="": shown.append(text)  # type: ignore[method-assign]
    assert run_study(plan, "third", [], console, dry_run=True) is None
    done = next(row for row in study.rows if row.name == "SASRec").runs[3]
    assert shown[:2] == ["heads, seed 3: to train", f"SASRec, seed 3: done, run {done}"]
    with pytest.raises(StudyError) as failed:
        run_study(plan, "third", [], Reporter(quiet=True))
    assert list(failed.value.failures) == ["heads, seed 3"]
    new = [run for run in all_runs(world.shelf.workspace) if run.run_id not in before]
    assert [(run.job, run.status) for run in new] == [("train", "failed")]
    written = json.loads((world.shelf.workspace.root / "studies" / "third" / "study.json").read_text())
    assert written["rows"]["SASRec"]["runs"] == {"3": done}
    assert list(written["failures"]) == ["heads, seed 3"]


def test_a_study_runs_once_at_a_time_and_a_wrong_plan_runs_nothing(world: World, study: Study) -> None:
    plan = world.plan(ROWS, [3])
    folder = world.shelf.workspace.root / "studies" / "two-rows"
    with lock_or_refuse(folder / ".lock", "the study", "another"), pytest.raises(LockedError):
        run_study(plan, "two rows", [], Reporter(quiet=True))
    runs = len(all_runs(world.shelf.workspace))
    for rows, wrong in (
        ({"a": {"tower.layer": 1}}, "tower.layers"),
        ({"a": {}, "b": {"workspace": str(world.folder / "other")}}, "'b' has the workspace"),
    ):
        with pytest.raises(SettingsError, match=wrong):
            run_study(world.plan(rows, [3]), "wrong", [], Reporter(quiet=True))
    with pytest.raises(SettingsError, match="seeds"):
        world.plan(ROWS, [3, 3])
    with pytest.raises(SettingsError, match="no study plan"):
        load_study(world.folder / "missing.yaml")
    empty = world.plan({"a": {"workspace": str(world.folder / "empty")}}, [3])
    with pytest.raises(LearnSparkError, match="no table user_histories"):
        run_study(empty, "empty", [f"workspace={world.folder / 'empty'}"], Reporter(quiet=True))
    assert len(all_runs(world.shelf.workspace)) == runs


@pytest.mark.parametrize(
    "path", sorted((Path(__file__).parents[2] / "benchmarks" / "plans").glob("*.yaml")), ids=lambda path: path.stem
)
def test_the_settings_of_every_row_of_the_plans_load(path: Path) -> None:
    plan = load_study(path)
    assert plan.tables is not None
    workspace = load_settings(plan.tables, plan.overrides).workspace
    loaded = [load_settings(row.config, [*plan.overrides, *row.overrides]) for row in plan.rows.values()]
    assert len({settings.model_dump_json() for settings in loaded}) == len(plan.rows) > 1
    assert {settings.workspace for settings in loaded} == {workspace}
