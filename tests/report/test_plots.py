"""The charts as drawn: marks lie where their figures put them, ticks are round, and whatever is named is escaped."""

from __future__ import annotations

import math
import re
import socket
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from learn_spark.report.plots.curve import draw_curve
from learn_spark.report.plots.dots import Group, Value, draw_dots
from learn_spark.report.plots.render import Plot, svg_file
from learn_spark.report.plots.study import Point, draw_lines, draw_points
from learn_spark.report.plots.style import KINDS, SHAPES
from learn_spark.report.plots.text import SIGNED_PERCENT, percent
from tests.report.browser import measure
from tests.report.drawn import drawn

NEAR = 0.6  # grid lines lie on whole pixels


def test_a_curve_goes_through_its_points() -> None:
    plot = draw_curve("c", "loss", [1, 2, 3], {"loss": [4.0, 2.0, 3.0]})
    found = drawn(plot)
    ((points,),) = found.lines
    assert [(mark.x, mark.y) for mark in found.marks] == [pytest.approx(point, abs=0.01) for point in points]
    assert points[1][0] - points[0][0] == pytest.approx(points[2][0] - points[1][0], abs=0.2)
    # The page counts downwards: the lowest value lies lowest, the middle one half-way.
    assert points[0][1] < points[2][1] < points[1][1]
    assert points[2][1] == pytest.approx((points[0][1] + points[1][1]) / 2, abs=0.1)
    assert plot.words == "loss: from 4 at epoch 1 to 3 at epoch 3; lowest 2, highest 4 at epoch 1"
    assert plot.rows == (("1", "4"), ("2", "2"), ("3", "3"))
    assert plot.legend == ()


def test_a_value_that_is_not_finite_breaks_the_line() -> None:
    plot = draw_curve("c", "t", [1, 2, 3, 4], {"a": [1.0, math.nan, 2.0, 3.0], "b": [2.0, 2.0, 2.0, 2.0]})
    assert [[len(piece) for piece in line] for line in drawn(plot).lines] == [[1, 2], [4]]
    assert plot.legend == ("a", "b")
    assert plot.rows[1] == ("2", "nan", "2")


def test_one_epoch_is_a_mark() -> None:
    found = drawn(draw_curve("c", "one", [1], {"one": [5.0]}))
    assert len(found.of(0)) == 1
    assert [text.text for text in found.axis if text.y == max(text.y for text in found.axis)] == ["1"]


@pytest.mark.parametrize(
    ("xs", "ys", "message"),
    [([1, 2], [1.0], "2 xs and 1 ys of y"), ([], [], "0 xs"), ([1], [math.inf], "no finite value in 1 lines")],
)
def test_a_curve_refuses(xs: list[float], ys: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=f"bad: {message}"):
        draw_curve("c", "bad", xs, {"y": ys})


def test_an_interval_without_an_upper_end_goes_to_the_end_of_the_axis() -> None:
    groups = [Group("few", "", {"ours": Value(0.2, 0.1)}), Group("many", "", {"ours": Value(0.4, 0.3, 0.8)})]
    plot = draw_dots("d", "lift", ["ours"], groups, group_name="slice", x_name="lift", form=SIGNED_PERCENT)
    (open_start, open_end), (_, closed_end) = ((start[0], end[0]) for start, end in drawn(plot).bars)
    assert open_start < drawn(plot).of(0)[0].x < open_end
    assert open_end == pytest.approx(closed_end, abs=NEAR)
    assert plot.rows[0][2].endswith("or more)")
    assert " to " not in plot.rows[0][2]


def test_dots_lie_in_proportion_and_bars_span_the_interval() -> None:
    groups = [
        Group("few", "3 users", {"ours": Value(0.2, 0.1, 0.4), "theirs": Value(0.1)}),
        Group("many", "9 users", {"ours": Value(0.4, 0.2, 0.4)}),
    ]
    plot = draw_dots("d", "NDCG", ["ours", "theirs"], groups, group_name="slice", x_name="NDCG@10")
    found = drawn(plot)
    grid = sorted(x for x, _ in found.grid)
    assert [text.text for text in found.axis] == ["0", "0.1", "0.2", "0.3", "0.4"]
    assert len(grid) == 5
    assert [mark.x for mark in found.of(0)] == [pytest.approx(grid[2], abs=NEAR), pytest.approx(grid[4], abs=NEAR)]
    (square,) = found.of(1)
    assert square.x == pytest.approx(grid[1], abs=NEAR)
    # Bars of the first series alone, each through its mark.
    assert [(start, end) for (start, _), (end, _) in found.bars] == [
        (pytest.approx(grid[1], abs=NEAR), pytest.approx(grid[4], abs=NEAR)),
        (pytest.approx(grid[2], abs=NEAR), pytest.approx(grid[4], abs=NEAR)),
    ]
    assert [y for (_, y), _ in found.bars] == [pytest.approx(mark.y, abs=NEAR) for mark in found.of(0)]
    # From the top: a group's name, its rows in the order of the series, the next group's.
    few, many = (next(text.y for text in found.texts if text.text == name) for name in ("few", "many"))
    assert few < found.of(0)[0].y < square.y < many < found.of(0)[1].y
    assert plot.words == "ours: few 0.2 (0.1 to 0.4); many 0.4 (0.2 to 0.4). theirs: few 0.1"
    assert plot.head == ("slice", "size", "ours", "theirs")
    assert plot.rows == (("few", "3 users", "0.2 (0.1 to 0.4)", "0.1"), ("many", "9 users", "0.4 (0.2 to 0.4)", "none"))


def test_dots_refuse_nothing_and_what_is_not_finite() -> None:
    def draw(*groups: Group) -> Plot:
        return draw_dots("d", "bad", ["a"], groups, group_name="g", x_name="x")

    with pytest.raises(ValueError, match="bad: 1 groups have no value of a"):
        draw(Group("g", "", {"b": Value(1.0)}))
    with pytest.raises(ValueError, match="bad: 1 of 3 figures are not finite"):
        draw(Group("g", "", {"a": Value(1.0, 0.5, math.nan)}))


@settings(max_examples=25, deadline=None)
@given(st.floats(-1e9, 1e9), st.floats(0, 1e9))
@example(2.2250738585e-313, 2.2250738585e-313)
@example(0.0, 2.2250738585e-313)
@example(0.0, 1e-199)
def test_ticks_are_few_round_and_enclose(low: float, span: float) -> None:
    found = drawn(draw_curve("c", "t", [1, 2], {"y": [low, low + span]}))
    left = min(text.x for text in found.axis)
    ticks = sorted((text for text in found.axis if text.x == left), key=lambda text: -text.y)
    assert 2 <= len(ticks) <= 8
    # Values lie between the lowest and the highest tick; a tick's text stands a little below its line.
    for mark in found.marks:
        assert ticks[-1].y - 5 <= mark.y <= ticks[0].y + 1
    steps = [before.y - after.y for before, after in pairwise(ticks)]
    assert max(steps) - min(steps) <= 0.01
    if span > 1e-6 * (abs(low) + 1):
        assert all(len(text.text) <= 11 for text in ticks)


def test_ticks_by_hand() -> None:
    def ticks(low: float, high: float) -> list[float]:
        axis = drawn(draw_curve("c", "t", [1, 2], {"y": [low, high]})).axis
        return sorted(float(text.text) for text in axis if text.x == min(one.x for one in axis))

    assert ticks(0, 0.16) == [0, 0.05, 0.1, 0.15, 0.2]
    assert ticks(3.2, 4.9) == [3, 3.5, 4, 4.5, 5]
    assert ticks(0.5, 0.5)[0] < 0.5 < ticks(0.5, 0.5)[-1]


def test_every_series_has_a_mark_of_its_own_shape() -> None:
    assert len(set(SHAPES)) == KINDS
    names = [f"row {n}" for n in range(2 * KINDS)]
    found = drawn(draw_points("p", [Point(name, n + 1, n) for n, name in enumerate(names)], "x", "y", log_x=False))
    assert len({(mark.outline, mark.fill) for mark in found.marks if len(mark.outline) > 0}) >= 2 * KINDS


def test_names_are_escaped() -> None:
    evil = '"><script>alert(1)</script>'
    plots = (
        draw_curve("c", evil, [1], {evil: [1.0]}, x_name=evil),
        draw_dots("d", evil, [evil], [Group(evil, evil, {evil: Value(1.0)})], group_name=evil, x_name=evil),
        draw_points("p", [Point(evil, 1.0, 1.0)], evil, evil, log_x=True),
        draw_lines("l", {evil: [1.0, 2.0]}, evil, evil),
    )
    for plot in plots:
        for text in (plot.svg, svg_file(plot)):
            assert "<script" not in text
            assert "&lt;script&gt;" in text
        assert evil in [text.text for text in drawn(plot).texts]


def test_percentages() -> None:
    assert [percent(x) for x in (0, 0.0004, 0.0123, 0.0995, 0.5, 1)] == [
        "0 %",
        "0.0 %",
        "1.2 %",
        "10 %",
        "50 %",
        "100 %",
    ]


def test_a_chart_asks_nothing_of_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a chart opened a connection")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    plot = draw_curve("c", "t", [1, 2], {"y": [1.0, 2.0]})
    assert not re.search(r"https?://|url\(|<script|<image", plot.svg)


def test_a_point_that_is_no_number_is_left_out() -> None:
    plot = draw_points(
        "p", [Point("a", 1.0, 0.5), Point("b", 2.0, math.nan), Point("c", math.inf, 0.1)], "x", "y", log_x=False
    )
    names = [text.text for text in drawn(plot).texts]
    assert "a" in names
    assert not {"b", "c"} & set(names)
    assert plot.rows == (("a", "1", "0.5000"),)
    with pytest.raises(ValueError, match="no finite point of 1"):
        draw_points("p", [Point("b", math.nan, 1.0)], "x", "y", log_x=False)


def test_a_line_goes_through_its_values_and_the_best_is_named_first() -> None:
    plot = draw_lines("l", {"up": [0.1, math.nan, 0.4, 0.3], "down": [0.2, 0.1], "none": [math.nan]}, "epoch", "y")
    found = drawn(plot)
    assert [[len(piece) for piece in line] for line in found.lines] == [[3], [2]]
    ((first, third, fourth),), ((one, two),) = found.lines
    # Equal steps of x, and of y: to the right is later, and up (a smaller number) is more.
    assert third[0] - first[0] == pytest.approx(2 * (fourth[0] - third[0]), abs=0.2)
    assert first[1] - third[1] == pytest.approx(3 * (two[1] - one[1]), abs=0.2)
    assert two[1] > one[1]
    # The upright axis begins at 0.
    assert "0" in [text.text for text in found.axis if text.x == min(other.x for other in found.axis)]
    assert plot.words == "up: best 0.4000 at 3 of 4; down: best 0.2000 at 1 of 2"
    legend = [text for text in found.texts if text.text in ("up", "down", "none")]
    assert [text.text for text in sorted(legend, key=lambda text: text.y)] == ["up", "down"]
    assert plot.rows[1] == ("2", "nan", "0.1")
    with pytest.raises(ValueError, match="no finite point in 1 lines"):
        draw_lines("l", {"none": [math.nan]}, "epoch", "y")


def test_a_studys_charts_are_readable_at_the_width_of_a_phone(tmp_path_factory: pytest.TempPathFactory) -> None:
    """In the browser: no name is outside, covers another, or is too small; the marks differ pair by pair."""
    names = [f"a rather long name of a row, number {n}" for n in range(9)]
    near = draw_points("near", [Point(n, 60 + i / 9, 0.2 + i / 900) for i, n in enumerate(names)], "x", "y", log_x=True)
    far = draw_points("far", [Point(n, 10.0**i, i) for i, n in enumerate(names)], "seconds", "y", log_x=True)
    lines = draw_lines("lines", {n: [0.1, 0.1 + i] for i, n in enumerate(names)}, "epoch", "NDCG@10 on validation")
    figures = "".join(f"<figure style='margin:0'>{plot.svg}</figure>" for plot in (near, far, lines))
    page = f"<!doctype html><html><body style='margin:15px;font-family:system-ui,sans-serif'>{figures}</body></html>"
    view = measure(page, tmp_path_factory.mktemp("study"), widths=(390,), dark=False)[390]
    for plot in view["plots"]:
        assert (plot["outside"], plot["overlaps"]) == ([], []), plot["key"]
        assert plot["text"] >= 11
        assert min(shape["contrast"] for shape in plot["drawn"] if shape["kind"] == "mark") >= 3.0
        assert re.search(r"\d", plot["words"])
    for plot in (near, far):
        assert [text.text for text in drawn(plot).texts if text.text in names] == names[::-1]
        middles = {(mark.outline, mark.fill) for mark in drawn(plot).marks}
        assert len(middles) >= len(names)
