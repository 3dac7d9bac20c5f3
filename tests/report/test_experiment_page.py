"""The page of an experiment in a browser: complete charts, accessible text, no scripts and no requests."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from learn_spark.ads.experiments.comparisons import compare
from learn_spark.ads.experiments.moments import Moments
from learn_spark.ads.experiments.result import Check, ExperimentResult, FalseAlarms
from learn_spark.ads.experiments.simulate import simulated_users
from learn_spark.core.settings import load_experiment
from learn_spark.evaluation.resampling import Resamples
from learn_spark.report.experiment import render
from tests.report.browser import measure

PHONE, DESKTOP = 390, 1280
HOSTILE = '"><script>alert(1)</script>'
METRICS = 6


def made() -> ExperimentResult:
    """A report over simulated users of two treatments, a cohort of two groups, and a group too small to compare."""
    tree = {
        "name": "page",
        "path": "/data",
        "logs": [{"files": "log.parquet", "format": "parquet"}],
        "cohorts": {"device": {"by": "context['device']"}},
    }
    settings = load_experiment(tree)
    moments: dict[tuple[str, str, str], Moments] = {}
    resamples = Resamples(60, seed=0)
    for seed, arm in enumerate(("control", "big", HOSTILE)):
        sums, _, seeds = simulated_users(900, seed=seed, lift=0.3 * seed)
        for group, rows in (("phone", slice(0, 500)), ("desktop", slice(500, 880)), ("watch", slice(880, 900))):
            moments["device", group, arm] = Moments.of(sums[rows])
        moments["all", "all", arm] = Moments.of(sums)
        keyed = [
            (key, range(*rows.indices(900)), sums[rows])
            for key, rows in (
                (("all", "all", arm), slice(0, 900)),
                (("device", "phone", arm), slice(0, 500)),
                (("device", "desktop", arm), slice(500, 880)),
            )
        ]
        resamples.add(seeds, [(key, list(rows), values) for key, rows, values in keyed])  # type: ignore[misc]
    whole, cohorts, skipped = compare(
        moments,
        resamples,
        treatments=["big", HOSTILE],
        metrics=settings.metrics,
        primary="revenue_per_user",
        settings=settings,
        with_history=True,
    )
    return ExperimentResult(
        name="page",
        control="control",
        users={"control": 900, "big": 900, HOSTILE: 900},
        shares={"control": 1.0, "big": 1.0, HOSTILE: 1.0},
        period={"before": "open", "start": "2024-05-01 00:00:00 UTC", "end": "open"},
        rows={"read": 32_400, "refused": 2, "repeated": 0},
        refused={"no user_id": 2},
        checks=(
            Check("sample ratio", "failed", "p = 1e-09", "users by arm against the shares"),
            Check("alike before", "passed", "smallest p = 0.4", "the same metrics before"),
        ),
        primary="revenue_per_user",
        whole=tuple(whole),
        cohorts=tuple(cohorts),
        false_alarms=(),
        skipped=tuple(skipped),
        notes=("12 rows have no arm.",),
        cohort_titles={"device": f"device: users ({HOSTILE})"},
        settings=settings.model_dump(exclude={"spark"}),
        files=((HOSTILE, "12:34"),),
        seconds=1.0,
        run_id="r",
        code_version="c",
    )


def made_aa() -> ExperimentResult:
    quantiles = tuple(0.05 * step for step in range(1, 20))
    alarms = tuple(FalseAlarms(name, 400, 22, 19, quantiles) for name in ("revenue_per_user", "conversion_rate"))
    return replace(made(), whole=(), cohorts=(), skipped=(), false_alarms=alarms)


@pytest.fixture(scope="module")
def page() -> str:
    return render(made())


@pytest.fixture(scope="module")
def views(page: str, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Measurements of the page by colour scheme and width; the last is of the page of an A/A test."""
    folder = tmp_path_factory.mktemp("experiment")
    measured = [
        view for dark in (False, True) for view in measure(page, folder, widths=(PHONE, DESKTOP), dark=dark).values()
    ]
    aa = measure(render(made_aa()), tmp_path_factory.mktemp("aa"), widths=(PHONE,), dark=False)[PHONE]
    return [*measured, aa]


def test_every_chart_has_all_its_marks(views: list[dict[str, Any]]) -> None:
    evil = "-script-alert-1-script-"
    series = 3  # with CUPED, without, bootstrap
    expected = {
        "lift-big": {"mark": METRICS * series, "bar": METRICS * series},
        f"lift-{evil}": {"mark": METRICS * series, "bar": METRICS * series},
        "cohort-big-device": {"mark": 2 * series, "bar": 2 * series},
        f"cohort-{evil}-device": {"mark": 2 * series, "bar": 2 * series},
        "power-big": {"mark": 2 * 25, "line": 2},
        f"power-{evil}": {"mark": 2 * 25, "line": 2},
    }
    aa = {"false-alarms": {"mark": 4, "bar": 4}, "p-quantiles": {"mark": 2 * 19, "line": 2}}
    for view, charts in zip(views, [expected] * 4 + [aa], strict=True):
        assert [plot["key"] for plot in view["plots"]] == list(charts)
        for plot in view["plots"]:
            kinds = [shape["kind"] for shape in plot["drawn"]]
            assert {kind: kinds.count(kind) for kind in kinds} == charts[plot["key"]], plot["key"]
            assert min(shape["size"] for shape in plot["drawn"]) > 4, plot["key"]
            assert plot["outside"] == [], plot["key"]
            assert plot["overlaps"] == [], plot["key"]
            assert plot["width"] > 250
            assert plot["text"] >= 11
            assert min(shape["contrast"] for shape in plot["drawn"]) >= 3.0, plot["key"]
            assert re.search(r"\d", plot["words"])


def test_the_page_is_accessible(views: list[dict[str, Any]]) -> None:
    for view in views:
        assert [text for text in view["texts"] if text["contrast"] < 4.5] == []
        assert (view["overflow"], view["trapped"]) == (0, 0)
        assert view["landmarks"] == [1, 1, 1, 1]
        levels = view["headings"]
        assert levels.count(1) == 1
        assert all(after <= before + 1 for before, after in pairwise(levels))
        assert (view["captionless"], view["scopeless"], view["repeated"], view["dangling"]) == (0, 0, [], [])


def test_the_page_has_no_scripts_and_makes_no_requests(page: str, views: list[dict[str, Any]]) -> None:
    assert not re.search(r'(?:src|href)\s*=\s*"(?!#)|https?://|@import|url\(|<script', page)
    for view in views:
        assert (view["scripts"], view["handlers"], view["requests"]) == (0, 0, [])


def test_the_page_lists_failed_checks_and_groups_without_a_comparison(views: list[dict[str, Any]]) -> None:
    text = views[1]["text"]
    assert "The figures below are not valid: the check sample ratio failed." in text
    assert "device: watch. 20 users of an arm; min_users is 100" in text
    assert "refused: no user_id" in text
    assert "12 rows have no arm." in text
    assert HOSTILE in text
    assert "split in two at random 400 times" in views[4]["text"]


def test_the_page_shows_the_figures_of_the_result(views: list[dict[str, Any]]) -> None:
    one = next(c for c in made().whole if (c.treatment, c.metric) == ("big", "conversion_rate"))
    assert one.best.lift is not None
    row = re.search(
        r"Conversion rate per exposure\s+big\s+900\s+and 900\s+([\d.]+)\s+([\d.]+)\s+([+-][\d.]+) %", views[1]["text"]
    )
    assert row
    assert [float(x) for x in row.groups()] == pytest.approx(
        [one.best.control, one.best.treatment, 100 * one.best.lift], rel=5e-3
    )
