"""A chart as an accessible SVG: an image with a title, a description and the table behind it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt
import vl_convert
from markupsafe import Markup, escape

from learn_spark.report.plots.style import FONT, LIGHT, WIDTH

XMLNS = 'xmlns="http://www.w3.org/2000/svg"'
# Parts of Vega's SVG that a page does not use: markup for interactive renderers, labels that are hidden because they
# would overlap, and the font, which a text inherits from the page.
NOISE = re.compile(
    r'<text [^>]*opacity="0"[^>]*>[^<]*</text>|'
    r'<path class="(?:back|fore)ground"[^>]*/>'
    r'| (?:role="graphics-\w+"|aria-(?:roledescription|label|hidden)="[^"]*"|pointer-events="none"|font-family="[^"]*")'
)


@dataclass(frozen=True)
class Plot:
    """A chart, its description in words, and the figures behind it.

    ``legend`` names the series in the order of their marks, empty where the chart has its own legend or one series;
    ``head`` and ``rows`` are the table.
    """

    key: str
    title: str
    words: str
    svg: Markup
    legend: tuple[str, ...]
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def rows_of(rows: Sequence[dict[str, Any]]) -> alt.Data:
    """Rows as inline data of a chart."""
    return alt.Data(values=list(rows))


def to_svg(key: str, title: str, words: str, chart: alt.LayerChart) -> Markup:
    """The chart as an ``<svg>`` element scaled by its viewBox, without network requests; ids begin with ``key``."""
    spec = chart.properties(
        width=WIDTH,
        padding={"left": 6, "right": 14, "top": 4, "bottom": 4},
        autosize=alt.AutoSizeParams(type="fit-x", contains="padding"),
        background="transparent",
    ).configure_view(stroke=None)
    svg = vl_convert.vegalite_to_svg(spec.to_dict(), allowed_base_urls=[])
    root = re.match(r'<svg [^>]*viewBox="([^"]+)"[^>]*>', svg)
    if root is None:
        raise ValueError(f"{title}: the output of vl-convert is not an <svg>: {svg[:60]!r}")
    head = (
        f'<svg viewBox="{root[1]}" role="img" aria-labelledby="{escape(key)}-title" '
        f'aria-describedby="{escape(key)}-words"><title id="{escape(key)}-title">{escape(title)}</title>'
        f'<desc id="{escape(key)}-words">{escape(words)}</desc>'
    )
    return Markup(head + NOISE.sub("", svg[root.end() :]))


def svg_file(plot: Plot) -> str:
    """The chart as the text of an SVG file, in the light colours on white."""
    body = str(plot.svg).removeprefix("<svg ")
    size = re.match(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', body)
    if size is None:
        raise ValueError(f"{plot.title}: the viewBox of the chart does not begin at 0 0")
    paper = f'<rect width="{size[1]}" height="{size[2]}" fill="{LIGHT["paper"]}"/>'
    head = f'<svg {XMLNS} font-family="{FONT}" width="{size[1]}" height="{size[2]}" '
    return head + body.replace("</desc>", f"</desc>{paper}", 1) + "\n"
