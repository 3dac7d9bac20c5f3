"""What rank_ads writes of its metrics: a row each in ``ad_metrics``, and tables on the console."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict

from learn_spark.ads.rankers.evaluation import WHOLE, MetricValue
from learn_spark.ads.rankers.metrics import COMPARED, METRICS, AdMetricRow
from learn_spark.ads.rankers.request_metrics import REQUEST_METRICS
from learn_spark.ads.rankers.store import FOLDER
from learn_spark.core.console import Reporter
from learn_spark.core.stages.context import StageContext
from learn_spark.core.tables.contracts import contract
from learn_spark.core.tables.log import append_rows


def write_metrics(context: StageContext, models: Mapping[str, str], values: Sequence[MetricValue]) -> None:
    """Append ``values`` to ``ad_metrics``, and write them to rankings/<run_id>/metrics.json; ``models`` by variant."""
    rows = [asdict(_metric_row(context.run_id, models[value.variant], value)) for value in values]
    folder = context.workspace.place / FOLDER / context.run_id
    (folder / "metrics.json").write_text(json.dumps(rows, indent=1))
    append_rows(context.path("ad_metrics"), contract("ad_metrics"), rows)


def _metric_row(run_id: str, model: str, value: MetricValue) -> AdMetricRow:
    fields = asdict(value)
    fields |= fields.pop("size")
    for name in ("value", "low", "high", "p"):
        if fields[name] is not None and not math.isfinite(fields[name]):
            fields[name] = None
    return AdMetricRow(run_id=run_id, model=model, **fields)


def show_metrics(console: Reporter, values: Sequence[MetricValue]) -> None:
    """Print the metrics of every variant on all exposures, and what the features change, by cohort."""
    overall = [value for value in values if value.dimension == WHOLE]
    size = overall[0].size
    title = (
        f"Ads ranker on {size['exposures']:,.0f} later exposures ({size['conversions']:,.0f} conversions in "
        f"{size['weight']:,.0f}, {size['users']:,.0f} users); means over seeds"
    )
    means = {(v.variant, v.metric): v for v in overall if v.seed is None and v.against is None}
    variants = list(dict.fromkeys(value.variant for value in overall))
    names = [*METRICS, *(name for name in REQUEST_METRICS if (variants[0], name) in means)]
    lines = [[variant, *(_mean_text(means[variant, metric]) for metric in names)] for variant in variants]
    console.table(title, ["variant", *names], lines)
    cohorts = list(dict.fromkeys((value.dimension, value.cohort) for value in values))
    levels = {
        (v.variant, v.dimension, v.cohort): v
        for v in values
        if v.seed is None and v.against is None and v.metric == "calibration"
    }
    console.table(
        "Predicted / observed conversions; means over seeds",
        ["cohort", *variants],
        [
            [_cohort_text(*cohort), *(_mean_text(levels[variant, *cohort]) for variant in variants)]
            for cohort in cohorts
        ],
    )
    if lines := list(_difference_lines(values)):
        console.table(
            "What the features change (95 % interval, bootstrap over users)",
            ["difference, cohort", "exposures", "conversions", *COMPARED[:2]],
            lines,
        )


def _difference_lines(values: Sequence[MetricValue]) -> Iterator[list[str]]:
    """A line for each pair of variants and cohort: the differences in the first two of COMPARED."""
    by_pair: dict[tuple[str, str | None, str, str], dict[str, MetricValue]] = {}
    for value in values:
        if value.against is not None:
            pair = (value.variant, value.against, value.dimension, value.cohort)
            by_pair.setdefault(pair, {})[value.metric] = value
    for (variant, against, dimension, cohort), differences in by_pair.items():
        name = f"{variant} - {against}, {_cohort_text(dimension, cohort)}"
        first, second = (differences[metric] for metric in COMPARED[:2])
        size = first.size
        yield [
            name,
            f"{size['exposures']:,.0f}",
            f"{size['conversions']:,.0f}",
            _difference_text(first),
            _difference_text(second),
        ]


def _cohort_text(dimension: str, cohort: str) -> str:
    return cohort if dimension == WHOLE else f"{dimension} {cohort}"


def _mean_text(mean: MetricValue) -> str:
    if not math.isfinite(mean.value):
        return "none"
    half_width = "" if mean.high is None else f" ±{mean.high - mean.value:.4f}"
    return f"{mean.value:.4f}{half_width}"


def _difference_text(difference: MetricValue) -> str:
    value, low, high = (
        math.nan if number is None else number for number in (difference.value, difference.low, difference.high)
    )
    if not math.isfinite(value):
        return "none"
    return f"{value:+.3f}" + (f" ({low:+.3f} to {high:+.3f})" if math.isfinite(low) else "")
