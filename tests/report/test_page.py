"""The report page in a browser: complete charts, accessible text, no scripts and no requests."""

from __future__ import annotations

import re
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from learn_spark.report.page import render
from tests.report.browser import chromium, measure
from tests.report.front_world import FrontWorld
from tests.report.workspace import ADS_COHORTS, HOSTILE, METHODS, SLICES

PHONE, DESKTOP = 390, 1280
Seen = dict[int, dict[str, Any]]


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> FrontWorld:
    return FrontWorld(tmp_path_factory.mktemp("page"))


@pytest.fixture(scope="module")
def page(planted: FrontWorld) -> str:
    return render(planted.workspace)


@pytest.fixture(scope="module")
def seen(page: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Seen]:
    """Measurements of the page by colour scheme and width in pixels."""
    folder = tmp_path_factory.mktemp("browser")
    return {
        name: measure(page, folder, widths=(PHONE, DESKTOP), dark=dark)
        for name, dark in (("light", False), ("dark", True))
    }


def views(seen: dict[str, Seen]) -> list[dict[str, Any]]:
    measured = [view for scheme in seen.values() for view in scheme.values()]
    assert len(measured) == 4
    return measured


def test_every_chart_has_all_its_marks(seen: dict[str, Seen]) -> None:
    methods = len(METHODS)
    expected = {
        "metric-test-ndcg-10": {"mark": methods, "bar": methods},
        "metric-test-hr-10": {"mark": methods, "bar": methods},
        **{
            f"slice-{dimension}": {"mark": methods * len(names), "bar": methods * len(names)}
            for dimension, names in SLICES.items()
        },
        "models-front": {"mark": 2},
        "models-popularity": {"mark": 8, "bar": 8},
        "models-curves": {"mark": 6, "line": 2},
        **{f"curve-{n}": {"mark": 3, "line": 1} for n in range(3)},
        # Items without an event, with 1-4 and 5-19; four shares of each.
        "popularity": {"mark": 12},
        "ads-auc": {"mark": 2 * len(ADS_COHORTS), "bar": 2 * len(ADS_COHORTS)},
    }
    for view in views(seen):
        assert [plot["key"] for plot in view["plots"]] == list(expected)
        for plot in view["plots"]:
            kinds = [shape["kind"] for shape in plot["drawn"]]
            assert {kind: kinds.count(kind) for kind in kinds} == expected[plot["key"]], plot["key"]
            assert min(shape["size"] for shape in plot["drawn"]) > 4, plot["key"]
            assert plot["outside"] == [], plot["key"]
            assert plot["overlaps"] == [], plot["key"]
            assert plot["width"] > 250


def test_series_differ_by_shape_and_not_only_by_colour(seen: dict[str, Seen]) -> None:
    (plot,) = (plot for plot in seen["light"][PHONE]["plots"] if plot["key"] == "slice-popularity")
    outlines = Counter(shape["outline"] for shape in plot["drawn"] if shape["kind"] == "mark")
    assert list(outlines.values()) == [len(SLICES["popularity"])] * len(METHODS)


def test_text_and_marks_have_enough_contrast_in_both_schemes(seen: dict[str, Seen]) -> None:
    assert seen["light"][PHONE]["paper"] == "rgb(255, 255, 255)"
    assert max(map(int, re.findall(r"\d+", seen["dark"][PHONE]["paper"]))) < 50
    for view in views(seen):
        assert len(view["texts"]) > 200
        assert [text for text in view["texts"] if text["contrast"] < 4.5] == []
        for plot in view["plots"]:
            assert min(shape["contrast"] for shape in plot["drawn"]) >= 3.0, plot["key"]
            assert plot["text"] >= 11, plot["key"]


def test_nothing_is_wider_than_the_window_and_scrolling_parts_are_reachable_by_keyboard(seen: dict[str, Seen]) -> None:
    for view in views(seen):
        assert view["overflow"] == 0
        assert view["trapped"] == 0
        assert (view["hidden"], view["ragged"]) == ([], [])


def test_the_page_has_landmarks_headings_and_names_for_a_screen_reader(seen: dict[str, Seen]) -> None:
    view = seen["light"][DESKTOP]
    assert view["language"] == "en"
    assert view["landmarks"] == [1, 1, 1, 1]
    levels = view["headings"]
    assert levels.count(1) == 1
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert (view["captionless"], view["scopeless"], view["repeated"], view["dangling"]) == (0, 0, [], [])
    assert view["nameless"] == []
    for plot in view["plots"]:
        assert plot["role"] == "img"
        assert plot["name"]
        assert re.search(r"\d", plot["words"]), plot["key"]
    (words,) = (plot["words"] for plot in view["plots"] if plot["key"] == "slice-same_day")
    assert "LEARN: another day 0.066 (0.033 to 0.132); same day 0.06 (0.03 to 0.12)" in words


def test_the_keyboard_reaches_every_link_and_is_seen_there(seen: dict[str, Seen]) -> None:
    for view in views(seen):
        assert view["reached"] > 60
        assert view["dim"] == []


def test_the_ads_rankers_metrics_are_listed_by_variant_and_by_cohort(page: str, seen: dict[str, Seen]) -> None:
    text = seen["light"][DESKTOP]["text"]
    assert "Conversion models (dcn_v2) on 100 exposures (900 by weight, 20 conversions) of 9 users and 8 items" in text
    assert re.search(r"without features\s+0\.6000\s*0\.5900 to 0\.6100", text)
    assert re.search(
        r"with features minus without features, items: cold\s+\+0\.0500\s*-0\.0125 to \+0\.1125\s+none", text
    )
    # The higher AUC and the lower log loss are the best ones.
    lines = re.findall(r"<tr><th scope=\"row\">(with|without) features</th>(.*?)</tr>", page)
    assert [(name, re.findall(r"<strong>([\d.]+)", cells)) for name, cells in lines] == [
        ("without", ["0.6000", "0.6000"]),
        ("with", ["0.6500"] * 4),
    ]


def test_a_model_has_its_whole_id_where_commands_ask_for_it(planted: FrontWorld, seen: dict[str, Seen]) -> None:
    table = seen["light"][PHONE]["text"].partition("models, the released one first")[2]
    assert re.search(rf"LEARN {planted.model_id}\s", table)


def test_hostile_titles_are_text_and_the_page_makes_no_requests(page: str, seen: dict[str, Seen]) -> None:
    assert not re.search(r'(?:src|href)\s*=\s*"(?!#|coupon\.html")|https?://|@import|url\(|<script', page)
    for view in views(seen):
        assert view["title"] == "learn-spark: workspace"
        assert view["links"] == ["coupon.html"]
        assert (view["scripts"], view["handlers"], view["requests"]) == (0, 0, [])
    assert re.search(r"LEARN\s+0\.2500\s+0\.5000\s+0\.7500\s+1\.00 bits", seen["light"][DESKTOP]["text"])
    # Cut to a line's length, but otherwise as it is.
    assert HOSTILE[:60] in seen["light"][DESKTOP]["text"]


def test_the_measurements_detect_planted_faults(page: str, tmp_path: Path) -> None:
    """An empty chart, faint text, a wide element, and headings that skip levels."""
    spoilt = re.sub(r'd="M[^"]*"', 'd=""', page)
    spoilt = spoilt.replace("--soft: #57606a", "--soft: #b0b8c0")
    spoilt = spoilt.replace("[tabindex]:focus-visible { outline: 3px", "[tabindex]:focus-visible { outline: 0px")
    spoilt = spoilt.replace("<h2 id=", "<h5 id=").replace("</nav>", '</nav><div style="width:2000px">wide</div>')
    view = measure(spoilt, tmp_path, widths=(PHONE,), dark=False)[PHONE]
    curve = next(plot for plot in view["plots"] if plot["key"] == "curve-0")
    assert min(shape["size"] for shape in curve["drawn"]) == 0
    assert min(text["contrast"] for text in view["texts"]) < 4.5
    assert view["overflow"] > 1000
    assert len(view["dim"]) > 60
    assert any(after > before + 1 for before, after in pairwise(view["headings"]))


def test_without_a_browser_the_error_explains_how_to_install_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("CHROMIUM", raising=False)
    with pytest.raises(AssertionError, match=r"no browser found .* apt-get install chromium"):
        chromium()
