"""Colours, marks and text sizes that all charts share."""

from __future__ import annotations

from typing import Any

import altair as alt

# The width of a phone's text column: a chart is never scaled below its own size, so its text stays readable.
WIDTH = 360
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Liberation Sans', sans-serif"
TEXT = 12

# CSS variables of the pages, by colour scheme. A chart outside a page shows the light colours.
LIGHT = {
    "ink": "#1c2128", "soft": "#57606a", "paper": "#ffffff", "card": "#f6f8fa", "line": "#d5dae0", "edge": "#6e7781",
    "accent": "#0a5cb0", "good": "#176b2f", "warn": "#845306", "bad": "#b42318",
    "s0": "#0a5cb0", "s1": "#b1480b", "s2": "#176b2f", "s3": "#7a3fc2", "s4": "#a6185c", "s5": "#57606a",
}  # fmt: skip
DARK = {
    "ink": "#e6e9ec", "soft": "#a3adb8", "paper": "#13171b", "card": "#1b2026", "line": "#343c45", "edge": "#8b949e",
    "accent": "#6cb2ff", "good": "#57cc78", "warn": "#e3b341", "bad": "#ff9085",
    "s0": "#6cb2ff", "s1": "#ffa657", "s2": "#57cc78", "s3": "#cda4ff", "s4": "#ff8cbf", "s5": "#a3adb8",
}  # fmt: skip

# Outlines in a square from -1 to 1: circle, square, triangle, diamond, triangle upside down, bar.
SHAPES = (
    "M.9,0A.9,.9,0,1,1,-.9,0A.9,.9,0,1,1,.9,0",
    "M-.8,-.8L.8,-.8L.8,.8L-.8,.8Z",
    "M0,-1L1,.85L-1,.85Z",
    "M0,-1.15L1.15,0L0,1.15L-1.15,0Z",
    "M-1,-.85L1,-.85L0,1Z",
    "M-.45,-1.1L.45,-1.1L.45,1.1L-.45,1.1Z",
)
KINDS = len(SHAPES)


def colour(name: str) -> str:
    """A colour of ``LIGHT`` as a CSS variable of the page, with its light value where there is no such variable."""
    return f"var(--{name}, {LIGHT[name]})"


def colours_of(series: list[str], legend: alt.Legend | None = None) -> alt.Color:
    """The colour of each series by its place in ``series``; they repeat after ``KINDS``."""
    kinds = [colour(f"s{place % KINDS}") for place in range(len(series))]
    return alt.Color("series:N", scale=alt.Scale(domain=series, range=kinds), legend=legend, title=None)


def shapes_of(series: list[str], legend: alt.Legend | None = None) -> alt.Shape:
    """The shape of each series; with its colour it is unique among ``KINDS`` squared series."""
    kinds = [SHAPES[(place + place // KINDS) % KINDS] for place in range(len(series))]
    return alt.Shape("series:N", scale=alt.Scale(domain=series, range=kinds), legend=legend, title=None)


def axis(**options: Any) -> alt.Axis:
    """An axis with a grid, without a line and ticks."""
    shared: dict[str, Any] = {
        "domain": False,
        "ticks": False,
        "tickRound": False,
        "translate": 0,
        "grid": True,
        "gridColor": colour("line"),
        "labelColor": colour("soft"),
        "labelFont": FONT,
        "labelFontSize": TEXT,
        "labelFlush": False,
        "labelLimit": 0,
        "labelPadding": 6,
        "labelSeparation": 4,
        "titleColor": colour("soft"),
        "titleFont": FONT,
        "titleFontSize": TEXT,
        "titleFontWeight": "normal",
        "titleLimit": WIDTH - 60,
        "titlePadding": 8,
    }
    return alt.Axis(**shared | options)
