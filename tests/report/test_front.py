"""The front page's own parts: worth, growth, models, refused rows, releases, lineage and experiments."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from html import unescape
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable

from learn_spark.core.storage.path import StoragePath
from learn_spark.core.tables import log
from learn_spark.core.tables.runs import Run, all_runs
from learn_spark.features.ledger import ledger, release_in_force
from learn_spark.report.figures import Cell, MetricTable
from learn_spark.report.front.experiments import experiments_of
from learn_spark.report.front.graph import BOX, Graph, graph_of
from learn_spark.report.front.growth import table_states
from learn_spark.report.front.models import models_of
from learn_spark.report.front.refused import refusals
from learn_spark.report.front.releases import release_lines
from learn_spark.report.front.steps import steps_of
from learn_spark.report.front.worth import Measured, first_fact, sentence
from learn_spark.report.other_inputs import other_inputs
from learn_spark.report.page import render
from tests.report.front_world import FIRST_ITEMS, FrontWorld
from tests.report.planted import FIRST_DAY, plant, release_row
from tests.report.workspace import HOSTILE, N_ITEMS

RELEASE = release_row(1, "r1", "released", FIRST_DAY)


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> FrontWorld:
    return FrontWorld(tmp_path_factory.mktemp("front"))


def cut(values: Mapping[str, Mapping[str, float]], *, names: tuple[str, ...] = ("NDCG@10", "HR@10")) -> Measured:
    """An evaluation with these figures by method label and metric."""
    lines = tuple(
        (label, tuple(Cell(own[name], None, None, False) if name in own else None for name in names))
        for label, own in values.items()
    )
    return Measured(None, (MetricTable("test", names, lines, 9, 8, "", (), ()),))


def test_the_first_sentence_compares_what_is_released_with_the_best_simple_method() -> None:
    measure = cut(
        {
            "popularity": {"HR@10": 0.05},
            "item-to-item Markov": {"HR@10": 0.14},
            "LEARN+": {"HR@10": 0.3},
            "LEARN+, vectors only": {"HR@10": 0.22},
        }
    )
    assert sentence(RELEASE, measure, "learn-plus") == (
        "With the released vectors, the right item is among the first ten for 22 % of users; "
        "with the best simple method, item-to-item Markov, for 14 %."
    )
    assert sentence(None, measure, "learn-plus").startswith(
        "Nothing is released yet. With the vectors of the newest LEARN+ model, the right item"
    )
    # Worse than the baseline is said as plainly, and two figures that differ never look equal.
    worse = cut({"popularity": {"HR@10": 0.1412}, "LEARN": {"HR@10": 0.1391}})
    assert "for 13.91 % of users; with the best simple method, popularity, for 14.12 %." in sentence(
        RELEASE, worse, "learn"
    )


def test_with_several_targets_it_is_a_right_item_and_without_figures_nothing_is_claimed() -> None:
    several = cut({"LEARN": {"HR@10": 0.2, "recall@10": 0.1}}, names=("HR@10", "recall@10"))
    assert (
        sentence(RELEASE, several, "learn")
        == "The released vectors have a right item among their first ten for 20 % of users."
    )
    unmeasured = Measured(None, ())
    assert sentence(RELEASE, unmeasured, "learn") == "Release r1 is in force; what it is worth has not been measured."
    assert sentence(None, unmeasured, "learn") == "Nothing is released yet. The newest model has not been evaluated."
    assert sentence(None, unmeasured, None) == "Nothing is released yet. No model has been trained."


def test_the_first_figure_is_of_the_vectors_and_names_the_reranker_that_is_not_released() -> None:
    both = cut({"popularity": {"NDCG@10": 0.1}, "LEARN+": {"NDCG@10": 0.4}, "LEARN+, vectors only": {"NDCG@10": 0.3}})
    fact = first_fact(both.tables[0], "LEARN+", released=True)
    assert fact is not None
    assert (fact.name, fact.value) == ("LEARN+, released vectors: NDCG@10 on test", "0.3000")
    assert fact.note == ("best baseline: popularity, 0.1000; with the reranker, which is not released: 0.4000")


def test_the_page_is_about_the_model_that_is_released_and_not_about_the_newest(
    planted: FrontWorld, tmp_path: Path
) -> None:
    """A rollback to a release of the older model changes the sentence, the figures and the examples."""
    world = FrontWorld(tmp_path)
    page = unescape(render(world.workspace))
    assert "the right item is among the first ten for 12 % of users; with the best simple method, item-to-item" in page
    assert f"model <code>{world.model_id}</code>, which is released," in page
    plant(world.workspace, "releases", [release_row(9, "r0", "released", FIRST_DAY, model_id=world.newer_id)])
    page = unescape(render(world.workspace))
    assert "the right item is among the first ten for 18 % of users" in page
    assert f"model <code>{world.newer_id}</code>, which is released," in page
    # A model that is not in this workspace has no figures, and those of others are not taken for its.
    plant(world.workspace, "releases", [release_row(10, "r00", "released", FIRST_DAY, model_id="elsewhere")])
    page = unescape(render(world.workspace))
    assert "Release r00 is in force; what it is worth has not been measured." in page
    assert f"model <code>{world.newer_id}</code> on the test split" in page
    assert "LEARN, vectors: NDCG@10 on test" in page


def test_tables_grow_from_run_to_run(planted: FrontWorld) -> None:
    states = {
        one.name: one for one in table_states(planted.workspace, all_runs(planted.workspace), {"items @ 1": "failed"})
    }
    items = states["items"]
    assert (items.version, items.rows, items.grew, items.points) == (
        1,
        FIRST_ITEMS + N_ITEMS,
        N_ITEMS,
        ((0, 20), (1, 50)),
    )
    assert items.line == "1.0,11.8 73.0,1.0"  # from two fifths of the height to all of it
    assert (items.job, items.verdict) == ("ingest", "failed")
    assert items.bytes > 0
    index = states["item_index"]
    assert (index.grew, index.line, index.verdict) == (None, "", None)
    assert "exposures" not in states


def test_models_stand_side_by_side_and_only_the_same_data_is_compared(planted: FrontWorld) -> None:
    release = release_in_force(ledger(planted.workspace))
    found = models_of(planted.workspace, release)
    assert found is not None
    # The released one is first, though the other is newer.
    assert [(one.model_id, one.validation, one.test, one.comparable) for one in found.lines] == [
        (planted.model_id, 0.05, 0.06, True),
        (planted.newer_id, 0.05, pytest.approx(0.09), True),
    ]
    front, slices, curves = found.plots
    assert [(name, y) for name, _, y in front.rows] == [
        (f"LEARN {planted.newer_id[:8]}", "0.0900"),
        (f"LEARN {planted.model_id[:8]}", "0.0600"),
    ]
    assert len(slices.rows) == 4
    assert len(curves.rows) == 3
    # On other histories: its figure is listed and not drawn.
    other = {
        "run_id": planted.runs["evaluate"],
        "model_id": planted.newer_id,
        "method": "learn-vectors",
        "split": "test",
        "metric": "NDCG@10",
        "value": 0.9,
        "users": 3,
        "catalogue": N_ITEMS,
        "protocol": "leave_last_out",
        "settings_hash": "d" * 64,
        "tables": {"user_histories": "7"},
    }
    plant(planted.workspace, "evaluations", [other])
    found = models_of(planted.workspace, release)
    assert found is not None
    assert [(one.test, one.comparable) for one in found.lines] == [(0.06, True), (0.9, False)]
    assert [plot.key for plot in found.plots] == ["models-curves"]


def test_the_ledger_and_the_figures_of_models_are_read_once(
    planted: FrontWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[str] = []
    before = log.rows_of

    def rows_of(table: DeltaTable, place: StoragePath, *more: Any) -> pa.Table:
        reads.append(place.name)
        return before(table, place, *more)

    monkeypatch.setattr(log, "rows_of", rows_of)
    render(planted.workspace)
    assert reads.count("releases") == 1
    reads.clear()
    models_of(planted.workspace, None)
    assert reads.count("evaluations") == 1


def test_refused_rows_are_counted_by_reason(planted: FrontWorld) -> None:
    found = refusals(planted.workspace)
    assert found is not None
    assert found.rows == 3
    assert found.reasons == (("interactions", "no user_id", 3), ("interactions", HOSTILE, 2))


def test_releases_are_listed_with_the_one_in_force(planted: FrontWorld) -> None:
    refused, released = release_lines(planted.workspace, ledger(planted.workspace))
    assert (released.release_id, released.status, released.in_force) == ("r1", "released", True)
    assert (refused.release_id, refused.in_force, refused.sizes) == ("r2", False, (None, None))
    assert HOSTILE in refused.note


def test_experiments_are_results_with_a_page(planted: FrontWorld) -> None:
    (line,) = experiments_of(planted.workspace)
    assert (line.name, line.page, line.treatment) == ("coupon", "coupon.html", f"{HOSTILE} against control")
    assert (line.lift, line.interval, line.p, line.users, line.verdict) == (
        "+12.5 %",
        "+5 % to +20 %",
        0.0125,
        1010,
        "warning",
    )


def test_the_report_is_out_of_date_when_a_command_changed_the_releases_or_an_experiment_came(tmp_path: Path) -> None:
    world = FrontWorld(tmp_path)

    def changed() -> set[str]:
        nonlocal before
        now = other_inputs(world.settings, world.workspace)
        different = {name for name in now if now[name] != before.get(name)}
        before = now
        return different

    before = other_inputs(world.settings, world.workspace)
    assert changed() == set()
    plant(world.workspace, "releases", [release_row(9, "r1", "withdrawn", FIRST_DAY)])
    assert changed() == {"releases"}
    (world.workspace.place / "reports" / "broken.json").write_text("[12]")
    assert changed() == {"experiments"}


def run(job: str, inputs: Mapping[str, str], outputs: Mapping[str, str]) -> Run:
    return Run(
        f"1-{job}", job, "done", "c", "v", inputs, outputs, {"rows_out": 1}, 1.0, datetime(2024, 1, 1, tzinfo=UTC)
    )


ROAD = [
    run("ingest", {"files:/data/shop": "h"}, {"items": "1", "interactions": "1", "raw_files": "3"}),
    run("item_text", {"items": "1"}, {"item_text": "1"}),
    run("embed_items", {"item_text": "1"}, {"text_embeddings": "4"}),
    run("histories", {"interactions": "1"}, {"user_histories": "2"}),
    run("train", {"user_histories": "2", "item_text": "1", "text_embeddings": "4"}, {"models/abc": "x"}),
    run("publish", {"model": "abc", "user_histories": "2"}, {"user_features": "1"}),
]


def test_the_graph_leads_from_raw_files_down_and_no_arrow_runs_behind_a_box() -> None:
    graph = graph_of(ROAD, ROAD)
    boxes = {box.run.job: box for box in graph.boxes}
    assert boxes["ingest"].files == ("shop",)
    assert [made.name for made in boxes["ingest"].made] == ["items", "interactions"]
    assert boxes["train"].inputs == (
        ("item_text", "1", "item_text-0"),
        ("text_embeddings", "4", "embed_items-0"),
        ("user_histories", "2", "histories-0"),
    )
    assert boxes["histories"].made[0].readers == ("train", "publish")
    assert boxes["train"].above == ("embed_items", "histories", "ingest", "item_text", "train")
    assert boxes["histories"].below == ("histories", "publish", "train")
    # What another arrow says already is not drawn: the texts reach train by the embeddings.
    assert [(source, target) for source, target, _ in graph.arrows] == [
        ("ingest", "item_text"),
        ("item_text", "embed_items"),
        ("ingest", "histories"),
        ("embed_items", "train"),
        ("histories", "train"),
        ("train", "publish"),
    ]
    assert upright_lines_hidden(graph) == []


def upright_lines_hidden(graph: Graph) -> list[str]:
    hidden = []
    for source, target, path in graph.arrows:
        x, y, bend = map(int, re.findall(r"\d+", path)[:3])
        for box in graph.boxes:
            inside = box.x < x < box.x + BOX and box.y < bend and y < box.y + box.height
            if inside and box.run.job not in (source, target):
                hidden.append(box.run.job)
    return hidden


def test_a_step_has_its_gates_and_its_part_of_the_longest_time() -> None:
    runs = [replace(ROAD[0], seconds=10.0), replace(ROAD[1], seconds=40.0)]
    first, second = steps_of(runs, {"items @ 1": "passed", "interactions @ 1": "warning", "items @ 0": "failed"})
    assert (first.share, second.share) == (0.25, 1.0)
    assert first.gate is not None
    assert first.gate.words == "1 of 2 gates: warning"
    assert second.gate is None
