"""The drawings: marks lie where their figures put them, ticks are round, and whatever is named is escaped."""

from __future__ import annotations

import math
import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from learn_spark.report.curve import draw_curve
from learn_spark.report.dots import Group, Value, draw_dots
from learn_spark.report.svg import KINDS, Plot, element, mark, percent, ticks


def attributes(plot: Plot, tag: str, style: str) -> list[dict[str, str]]:
    """The attributes of every element of a tag and class, in the order of drawing."""
    found = re.findall(rf'<{tag} class="{style}"([^>]*)>', plot.svg)
    return [dict(re.findall(r'([\w-]+)="([^"]*)"', one)) for one in found]


def test_a_curve_goes_through_its_points() -> None:
    plot = draw_curve("c", "loss", [1, 2, 3], {"loss": [4.0, 2.0, 3.0]})
    (line,) = attributes(plot, "path", "line s0")
    points = [tuple(map(float, p)) for p in re.findall(r"[ML]([\d.]+),([\d.]+)", line["d"])]
    dots = [(float(d["cx"]), float(d["cy"])) for d in attributes(plot, "circle", "mark s0")]
    assert points == dots
    assert points[1][0] - points[0][0] == pytest.approx(points[2][0] - points[1][0], abs=0.2)
    # The page counts downwards: the lowest value lies lowest, the middle one half-way.
    assert points[0][1] < points[2][1] < points[1][1]
    assert points[2][1] == pytest.approx((points[0][1] + points[1][1]) / 2, abs=0.1)
    assert plot.words == "loss: from 4 at epoch 1 to 3 at epoch 3; lowest 2, highest 4 at epoch 1"
    assert plot.rows == (("1", "4"), ("2", "2"), ("3", "3"))
    assert plot.legend == ()


def test_a_value_that_is_not_finite_breaks_the_line() -> None:
    plot = draw_curve("c", "t", [1, 2, 3, 4], {"a": [1.0, math.nan, 2.0, 3.0], "b": [2.0, 2.0, 2.0, 2.0]})
    lines = [attributes(plot, "path", f"line s{n}")[0]["d"] for n in (0, 1)]
    assert [re.findall("[ML]", line) for line in lines] == [["M", "M", "L"], ["M", "L", "L", "L"]]
    assert plot.legend == ("a", "b")
    assert plot.rows[1] == ("2", "nan", "2")


def test_one_epoch_is_a_mark() -> None:
    assert len(attributes(draw_curve("c", "one", [1], {"one": [5.0]}), "circle", "mark s0")) == 1


@pytest.mark.parametrize(
    ("xs", "ys", "message"),
    [([1, 2], [1.0], "2 xs and 1 ys of y"), ([], [], "0 xs"), ([1], [math.inf], "no finite value in 1 lines")],
)
def test_a_curve_refuses(xs: list[float], ys: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=f"bad: {message}"):
        draw_curve("c", "bad", xs, {"y": ys})


def test_dots_lie_in_proportion_and_bars_span_the_interval() -> None:
    groups = [
        Group("few", "3 users", {"ours": Value(0.2, 0.1, 0.4), "theirs": Value(0.1)}),
        Group("many", "9 users", {"ours": Value(0.4, 0.2, 0.4)}),
    ]
    plot = draw_dots("d", "NDCG", ["ours", "theirs"], groups, group_name="slice", x_name="NDCG@10")
    ours = [float(d["cx"]) for d in attributes(plot, "circle", "mark s0")]
    grid = [float(d["x1"]) for d in attributes(plot, "line", "grid")]  # 0, 0.1, 0.2, 0.3, 0.4
    assert len(grid) == 5
    assert ours == [pytest.approx(grid[2], abs=0.1), pytest.approx(grid[4], abs=0.1)]
    (squares,) = attributes(plot, "polygon", "mark s1")
    corners = [float(x) for x in re.findall(r"([\d.]+),", squares["points"])]
    assert sum(corners) / 4 == pytest.approx(grid[1], abs=0.1)
    bars = [(float(b["x1"]), float(b["x2"])) for b in attributes(plot, "line", "bar s0")]
    assert bars[0] == (pytest.approx(grid[1], abs=0.1), pytest.approx(grid[4], abs=0.1))
    assert attributes(plot, "line", "bar s1") == []
    assert plot.words == "ours: few 0.2 (0.1 to 0.4); many 0.4 (0.2 to 0.4). theirs: few 0.1"
    assert plot.head == ("slice", "holds", "ours", "theirs")
    assert plot.rows == (("few", "3 users", "0.2 (0.1 to 0.4)", "0.1"), ("many", "9 users", "0.4 (0.2 to 0.4)", "none"))


def test_dots_refuse_nothing_and_what_is_not_finite() -> None:
    def draw(*groups: Group) -> Plot:
        return draw_dots("d", "bad", ["a"], groups, group_name="g", x_name="x")

    with pytest.raises(ValueError, match="bad: 1 groups hold no value of a"):
        draw(Group("g", "", {"b": Value(1.0)}))
    with pytest.raises(ValueError, match="bad: 1 of 3 figures are not finite"):
        draw(Group("g", "", {"a": Value(1.0, 0.5, math.nan)}))


@given(st.floats(-1e9, 1e9), st.floats(0, 1e9))
def test_ticks_are_few_round_and_enclose(low: float, span: float) -> None:
    high = low + span
    found = ticks(low, high)
    assert 2 <= len(found) <= 8
    slack = 1e-6 * max(abs(low), abs(high), found[-1] - found[0])
    assert found[0] <= low + slack
    assert found[-1] >= high - slack
    steps = [after - before for before, after in pairwise(found)]
    assert max(steps) - min(steps) <= 1e-6 * max(abs(found[0]), abs(found[-1]))


def test_ticks_by_hand() -> None:
    assert ticks(0, 0.16) == [0, 0.05, 0.1, 0.15, 0.2]
    assert ticks(3.2, 4.9) == [3, 3.5, 4, 4.5, 5]
    assert ticks(0.5, 0.5)[0] < 0.5 < ticks(0.5, 0.5)[-1]
    for low, high in ((1, 0), (0, math.inf), (math.nan, 1)):
        with pytest.raises(ValueError, match="no ticks"):
            ticks(low, high)


def test_every_series_has_a_mark_of_its_own_shape() -> None:
    shapes = {re.sub(r"s\d", "", mark(kind, 0, 0)) for kind in range(KINDS)}
    assert len(shapes) == KINDS


def test_names_are_escaped() -> None:
    evil = '"><script>alert(1)</script>'
    plots = (
        draw_curve("c", evil, [1], {evil: [1.0]}, x_name=evil),
        draw_dots("d", evil, [evil], [Group(evil, evil, {evil: Value(1.0)})], group_name=evil, x_name=evil),
    )
    for plot in plots:
        assert "<script" not in plot.svg
        assert "&lt;script&gt;" in plot.svg
    assert (
        element("text", "a < b", class_="x", text_anchor='"') == '<text class="x" text-anchor="&#34;">a &lt; b</text>'
    )


def test_percentages() -> None:
    assert [percent(x) for x in (0, 0.0004, 0.0123, 0.0995, 0.5, 1)] == [
        "0 %",
        "0.0 %",
        "1.2 %",
        "10 %",
        "50 %",
        "100 %",
    ]
