"""The report's drawing; the page itself is tested where a whole road has run (tests/pipeline)."""

from __future__ import annotations

import re

import pytest

from learn_spark.report.curve import draw


def test_a_curve_goes_through_its_points() -> None:
    curve = draw("loss", [1, 2, 3], [4.0, 2.0, 3.0])
    points = [tuple(map(float, p)) for p in re.findall(r"[ML]([\d.]+),([\d.]+)", curve.path)]
    assert points[0][0] < points[1][0] < points[2][0]
    # The page counts downwards: the lowest value lies lowest, the middle one half-way.
    assert points[1][1] == curve.floor
    assert points[2][1] == pytest.approx((points[0][1] + points[1][1]) / 2)
    assert [label for _, label in curve.y_ticks] == ["2", "4"]
    assert curve.words == "loss: from 4 at epoch 1 to 3 at epoch 3; lowest 2, highest 4"
    assert draw("one", [1], [5.0]).path.startswith("M")
    with pytest.raises(ValueError, match="2 xs and 1 ys"):
        draw("bad", [1, 2], [1.0])
