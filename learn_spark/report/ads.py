"""Metrics of the ads rankers, overall and by cohort, and the effect of the released features."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from learn_spark.ads.cohorts import COHORTS
from learn_spark.ads.rankers.metrics import COMPARED, METRICS, AdMetricRow, ad_metric_rows
from learn_spark.core.tables.runs import Run
from learn_spark.core.tables.workspace import Workspace
from learn_spark.evaluation.labels import AD_DIMENSIONS, VARIANTS, WHOLE, variant_label
from learn_spark.report.figures import Cell
from learn_spark.report.plots.dots import Group, Value, draw_dots
from learn_spark.report.plots.render import Plot

LOWER_IS_BETTER = ("log loss", "ECE")
PLOTTED = "AUC"


@dataclass(frozen=True)
class Gap:
    """Differences of METRICS between two variants on one cohort; None for a metric that is undefined."""

    label: str
    cells: tuple[Cell | None, ...]


@dataclass(frozen=True)
class AdsRanker:
    """``lines``: (variant, a cell per metric) over all test exposures; ``gaps``: differences by cohort."""

    names: tuple[str, ...]
    lines: tuple[tuple[str, tuple[Cell | None, ...]], ...]
    gap_names: tuple[str, ...]
    gaps: tuple[Gap, ...]
    plots: tuple[Plot, ...]
    size: str
    model: str
    seeds: int


def ads_ranker(workspace: Workspace, ranked: Run) -> AdsRanker | None:
    """The metrics that a rank_ads run wrote; None if it wrote none."""
    rows = ad_metric_rows(workspace, ranked.run_id)
    whole = [row for row in rows if row.dimension == "all"]
    if not whole:
        return None
    means = [row for row in whole if row.seed is None and row.against is None]
    variants = _ordered([row.variant for row in means], tuple(VARIANTS))
    by_variant = {(row.variant, row.metric): row for row in means}
    best = {name: _best(name, means) for name in METRICS}
    lines = tuple(
        (
            variant_label(variant),
            tuple(_cell(by_variant.get((variant, name)), best[name]) for name in METRICS),
        )
        for variant in variants
    )
    first = whole[0]
    size = (
        f"{first.exposures:,} exposures ({first.weight:,.0f} by weight, {first.conversions:,.0f} conversions) "
        f"of {first.users:,} users and {first.items:,} items"
    )
    return AdsRanker(
        METRICS,
        lines,
        COMPARED,
        tuple(_gaps(rows)),
        tuple(_plots(rows, variants)),
        size,
        ", ".join(sorted({row.model for row in whole})),
        len({row.seed for row in whole if row.seed is not None}),
    )


def _gaps(rows: Sequence[AdMetricRow]) -> Iterator[Gap]:
    gaps = [row for row in rows if row.against is not None]
    for variant, against in dict.fromkeys((row.variant, row.against or "") for row in gaps):
        pair = [row for row in gaps if (row.variant, row.against) == (variant, against)]
        for dimension, cohort in _cohorts(pair):
            here = {row.metric: row for row in pair if (row.dimension, row.cohort) == (dimension, cohort)}
            where = _cohort(dimension, cohort)
            label = f"{variant_label(variant)} minus {variant_label(against)}, {where.lower()}"
            yield Gap(label, tuple(_cell(here.get(name), None) for name in COMPARED))


def _plots(rows: Sequence[AdMetricRow], variants: Sequence[str]) -> Iterator[Plot]:
    means = [row for row in rows if row.metric == PLOTTED and row.seed is None and row.against is None]
    shown = [row for row in means if row.value is not None]
    groups = []
    for dimension, cohort in _cohorts(shown):
        here = [row for row in shown if (row.dimension, row.cohort) == (dimension, cohort)]
        values = {variant_label(r.variant): Value(r.value, r.low, r.high) for r in here if r.value is not None}
        note = f"{here[0].exposures:,} exposures, {here[0].conversions:,.0f} conversions"
        groups.append(Group(_cohort(dimension, cohort), note, values))
    if groups:
        yield draw_dots(
            "ads-auc",
            f"{PLOTTED} by cohort",
            [variant_label(variant) for variant in variants],
            groups,
            group_name="cohort",
            x_name=f"{PLOTTED}, mean over seeds, 95 % interval",
        )


def _cohorts(rows: Sequence[AdMetricRow]) -> list[tuple[str, str]]:
    present = {(row.dimension, row.cohort) for row in rows}
    return [(d, c) for d in AD_DIMENSIONS for c in (WHOLE, *COHORTS) if (d, c) in present]


def _cohort(dimension: str, cohort: str) -> str:
    return AD_DIMENSIONS[dimension] if dimension == WHOLE else f"{AD_DIMENSIONS[dimension]}: {cohort}"


def _ordered(names: Sequence[str], order: Sequence[str]) -> list[str]:
    unique = dict.fromkeys(names)
    return [*(name for name in order if name in unique), *(name for name in unique if name not in order)]


def _best(name: str, rows: Sequence[AdMetricRow]) -> float | None:
    values = [row.value for row in rows if row.metric == name and row.value is not None]
    if not values:
        return None
    if name == "calibration":
        return float(min(values, key=lambda value: abs(value - 1)))
    return float(min(values) if name in LOWER_IS_BETTER else max(values))


def _cell(row: AdMetricRow | None, best: float | None) -> Cell | None:
    if row is None or row.value is None:
        return None
    return Cell(row.value, row.low, row.high, best is not None and row.value == best)
