"""The page of an experiment: checks, lift per metric, lift per cohort, power, and false alarms of an A/A test."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import yaml

from learn_spark.ads.experiments.aa import QUANTILES
from learn_spark.ads.experiments.ab_report import require_sound, run
from learn_spark.ads.experiments.lift import Effect
from learn_spark.ads.experiments.metrics import METRICS
from learn_spark.ads.experiments.power import power
from learn_spark.ads.experiments.result import Comparison, ExperimentResult, as_json
from learn_spark.core.console import Reporter
from learn_spark.core.settings.experiment import ExperimentSettings
from learn_spark.core.tables.workspace import Workspace
from learn_spark.report.figures import wilson
from learn_spark.report.plots.curve import draw_curve
from learn_spark.report.plots.dots import Group, Value, draw_dots
from learn_spark.report.plots.render import Plot
from learn_spark.report.plots.text import PERCENT_TENTHS, SIGNED_PERCENT, number, slug
from learn_spark.report.templates import Fact, environment

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

PLAIN, REDUCED, BOOTSTRAP = "without CUPED", "with CUPED", "bootstrap"
STEPS = 24


@dataclass(frozen=True)
class CohortView:
    """A cohort: a plot of the primary metric by group, and the comparisons of all groups and metrics."""

    key: str
    title: str
    plot: Plot | None
    lines: tuple[Comparison, ...]


def report_experiment(
    settings: ExperimentSettings, console: Reporter, *, verbose: bool = False, spark: SparkSession | None = None
) -> ExperimentResult:
    """Analyse the experiment, write ``reports/<name>.html`` and ``.json``, and return the result.

    Raises GateError after the page is written if a check failed; LearnSparkError as ``ab_report.run``.
    """
    result = run(settings, console, verbose=verbose, spark=spark)
    reports = Workspace.open(settings.workspace).place / "reports"
    page = reports / f"{settings.name}.html"
    page.write_text(render(result))
    (reports / f"{settings.name}.json").write_text(as_json(result))
    console.say(f"report  {page}")
    require_sound(result, page)
    return result


def render(result: ExperimentResult) -> str:
    """The page as one HTML file, without scripts and network requests."""
    settings_text = yaml.safe_dump(dict(result.settings), sort_keys=False, allow_unicode=True)
    template = environment()
    template.filters |= {"percent": percent, "p": p_value, "interval": _interval}
    return template.get_template("experiment.html.jinja").render(
        experiment=result,
        written=datetime.now(UTC),
        facts=list(_facts(result)),
        labels={name: metric.label for name, metric in METRICS.items()},
        lift_plots=list(_lift_plots(result)),
        cohorts=list(_cohorts(result)),
        power_plots=list(_power_plots(result)),
        alarm_plots=list(_alarm_plots(result)),
        settings=settings_text,
    )


def show(result: ExperimentResult, console: Reporter) -> None:
    """Print the checks, every metric over all users, the primary metric by cohort, and false alarms.

    JSON has every field of the result.
    """
    for name, value in asdict(result).items():
        if name != "notes":  # which are lines
            console.record(name, value)
    title = f"Experiment {result.name}: checks"
    console.table(title, ["check", "verdict", "observed"], [[c.name, c.verdict, c.observed] for c in result.checks])
    columns = ["metric", "control", "treated", "lift", "interval", "p", "corrected", "MDE"]
    for treatment in dict.fromkeys(one.treatment for one in result.whole):
        rows = [_line(METRICS[one.metric].label, one) for one in result.whole if one.treatment == treatment]
        console.table(f"{treatment} against {result.control}", columns, rows)
        rows = [
            _line(f"{one.cohort}: {one.group}", one)
            for one in result.cohorts
            if one.treatment == treatment and one.metric == result.primary
        ]
        if rows:
            name = METRICS[result.primary].label
            console.table(f"{name} by cohort: {treatment} against {result.control}", ["group", *columns[1:]], rows)
    if result.false_alarms:
        rows = [
            [METRICS[a.metric].label, f"{a.splits:,}", _share(a.plain, a.splits), _share(a.reduced, a.splits)]
            for a in result.false_alarms
        ]
        console.table("False alarms", ["metric", "splits", PLAIN, REDUCED], rows)
    console.line()
    if result.whole:
        console.line(
            f"MDE: the smallest lift detected with {100 * result.settings['power']:g} % power. p is corrected by "
            f"{result.settings['correction']}; intervals are not."
        )
    for note in result.notes:
        console.line(note)


def percent(value: float | None) -> str:
    """A relative change in percent with its sign; "none" for None."""
    return "none" if value is None else f"{100 * value:+.2f} %"


def _short(value: float | None) -> str:
    return "none" if value is None else f"{100 * value:+.1f} %"


def p_value(value: float) -> str:
    """A p value to four decimal places."""
    return "< 0.0001" if value < 0.0001 else f"{value:.4f}"


def _share(count: int | None, of: int) -> str:
    return "none" if count is None else f"{100 * count / of:.1f} %"


def _interval(effect: Effect) -> str:
    return interval_text(effect, percent)


def interval_text(effect: Effect, write: Callable[[float | None], str]) -> str:
    """The interval of a lift, which may lack an end."""
    if effect.lift_low is None:
        return "none" if effect.lift_high is None else f"{write(effect.lift_high)} or less"
    if effect.lift_high is None:
        return f"{write(effect.lift_low)} or more"
    return f"{write(effect.lift_low)} to {write(effect.lift_high)}"


def _line(label: str, one: Comparison) -> list[str]:
    best = one.best
    return [
        label,
        number(best.control),
        number(best.treatment),
        _short(best.lift),
        interval_text(best, _short),
        p_value(best.p),
        p_value(one.p_adjusted),
        _short(one.detectable),
    ]


def _facts(result: ExperimentResult) -> Iterator[Fact]:
    for one in result.whole:
        if one.metric == result.primary:
            verdict = "significant" if one.p_adjusted < result.settings["alpha"] else "not significant"
            yield Fact(
                f"{METRICS[one.metric].label}, {one.treatment} against {result.control}",
                percent(one.best.lift),
                f"{_interval(one.best)}; p {p_value(one.p_adjusted)}: {verdict}",
            )
    yield Fact(
        "Users", f"{sum(result.users.values()):,}", ", ".join(f"{arm} {count:,}" for arm, count in result.users.items())
    )
    count = {name: sum(c.verdict == name for c in result.checks) for name in ("passed", "warning", "failed")}
    yield Fact(
        "Checks passed",
        f"{count['passed']} of {len(result.checks)}",
        f"{count['warning']} warnings, {count['failed']} failed",
    )
    kept = [one.variance_kept for one in result.whole if one.metric == result.primary and one.variance_kept is not None]
    if kept:
        yield Fact("Variance reduction", f"{100 * (1 - kept[0]):.0f} %", "by the pre-experiment period (CUPED)")
    yield Fact("Time", f"{result.seconds:,.0f} s", f"{result.rows['read']:,} rows read")


def _value(effect: Effect | None) -> Value | None:
    return None if effect is None or effect.lift is None else Value(effect.lift, effect.lift_low, effect.lift_high)


def _values(one: Comparison) -> dict[str, Value]:
    interval = None
    if one.bootstrap is not None and one.best.lift is not None:
        interval = Value(one.best.lift, *one.bootstrap)
    named = {REDUCED: _value(one.reduced), BOOTSTRAP: interval, PLAIN: _value(one.plain)}
    return {name: value for name, value in named.items() if value is not None}


def _dots(key: str, title: str, groups: Sequence[Group], name: str, level: float) -> Plot | None:
    series = [one for one in (REDUCED, PLAIN, BOOTSTRAP) if any(one in group.values for group in groups)]
    if not series:
        return None
    x_name = f"lift, {100 * level:g} % interval"
    return draw_dots(key, title, series, groups, group_name=name, x_name=x_name, form=SIGNED_PERCENT)


def _lift_plots(result: ExperimentResult) -> Iterator[Plot]:
    level = 1 - result.settings["alpha"]
    for treatment in dict.fromkeys(one.treatment for one in result.whole):
        groups = [
            Group(METRICS[one.metric].label, "", _values(one)) for one in result.whole if one.treatment == treatment
        ]
        title = f"Lift of {treatment} over {result.control}"
        if plot := _dots(f"lift-{slug(treatment)}", title, groups, "metric", level):
            yield plot


def _cohorts(result: ExperimentResult) -> Iterator[CohortView]:
    level = 1 - result.settings["alpha"]
    for treatment in dict.fromkeys(one.treatment for one in result.whole):
        for cohort, title in result.cohort_titles.items():
            lines = tuple(one for one in result.cohorts if (one.treatment, one.cohort) == (treatment, cohort))
            if not lines:
                continue
            groups = [
                Group(one.group, f"{one.users_control + one.users_treatment:,} users", _values(one))
                for one in lines
                if one.metric == result.primary
            ]
            key, name = f"cohort-{slug(treatment)}-{slug(cohort)}", METRICS[result.primary].label
            yield CohortView(
                key,
                f"{title}; {treatment} against {result.control}",
                _dots(key, f"{name} by {cohort}: lift of {treatment}", groups, "group", level),
                lines,
            )


def _power_plots(result: ExperimentResult) -> Iterator[Plot]:
    """Power by the size of the true lift, for the primary metric."""
    alpha = result.settings["alpha"]
    for one in result.whole:
        if one.metric != result.primary or one.detectable_plain is None:
            continue
        highest = max(1, math.ceil(150 * one.detectable_plain))
        lifts = [highest * step / STEPS for step in range(STEPS + 1)]
        named = {REDUCED: one.reduced, PLAIN: one.plain}
        lines = {
            name: [power(lift / 100, best.standard_error / best.control, alpha) for lift in lifts]
            for name, best in named.items()
            if best is not None and best.control > 0
        }
        title = f"Power to detect a lift in {METRICS[one.metric].label.lower()} ({one.treatment})"
        yield draw_curve(f"power-{slug(one.treatment)}", title, lifts, lines, x_name="true lift, %")


def _alarm_plots(result: ExperimentResult) -> Iterator[Plot]:
    if not result.false_alarms:
        return
    groups = []
    for one in result.false_alarms:
        counts = {PLAIN: one.plain} | ({} if one.reduced is None else {REDUCED: one.reduced})
        values = {
            name: Value(count / one.splits, *wilson(count / one.splits, one.splits)) for name, count in counts.items()
        }
        groups.append(Group(METRICS[one.metric].label, f"{one.splits:,} splits", values))
    series = [name for name in (REDUCED, PLAIN) if name in groups[0].values]
    yield draw_dots(
        "false-alarms",
        f"False alarms at {result.settings['alpha']:g}",
        series,
        groups,
        group_name="metric",
        x_name="share of splits, 95 % interval",
        form=PERCENT_TENTHS,
    )
    xs = [100 * q for q in QUANTILES]
    lines = {METRICS[one.metric].label: [100 * q for q in one.quantiles] for one in result.false_alarms}
    yield draw_curve(
        "p-quantiles",
        "Quantiles of p over the splits (expected: a straight line)",
        xs,
        lines,
        x_name="% of splits",
    )
