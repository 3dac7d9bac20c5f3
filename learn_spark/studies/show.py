"""A study's table for the console, as Markdown and JSON, and its charts."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from learn_spark.ads.rankers.evaluation import over_seeds
from learn_spark.core.console import Reporter
from learn_spark.core.machine import available_cores
from learn_spark.core.storage.path import StoragePath
from learn_spark.report.plots.render import svg_file
from learn_spark.report.plots.study import Point, draw_lines, draw_points
from learn_spark.studies.figures import MAIN, METRICS, PARTS, Costs, Row, Study


@dataclass(frozen=True)
class Table:
    """A title, the head of each column, and rows of as many cells."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def markdown(self) -> str:
        """The table in Markdown, with its title as the head of the first column."""
        head = (f"{self.title}: {self.head[0]}", *self.head[1:])
        lines = [f"| {' | '.join(head)} |", f"|---|{'---:|' * (len(head) - 1)}"]
        return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in self.rows)]) + "\n"


def tables(study: Study) -> Iterator[Table]:
    """The tables: metrics, parts of the test split, gains over the plan's first row, costs, slices, runs."""
    yield _by_row("Test split", study.rows, METRICS)
    yield _by_row(MAIN, study.rows, PARTS)
    first, *others = study.trained
    if others:
        gains = tuple((row.name, *(_signed(row.mean(m) - first.mean(m)) for m in (MAIN, *PARTS))) for row in others)
        yield Table(f"Gain in {MAIN} over {first.name}", ("row", "all", *PARTS), gains)
    head = ("row", "parameters trained", "seconds of training", "peak MiB", "samples/s")
    yield Table("Cost", head, tuple(_cost_cells(row) for row in study.trained))
    for dimension in study.slices:
        yield _slice_table(study, dimension)
    runs = tuple((row.name, str(seed), run) for row in study.trained for seed, run in row.runs.items())
    yield Table("Runs (learn-spark compare RUN RUN)", ("row", "seed", "run"), runs)


def show(study: Study, folder: StoragePath | Path, console: Reporter) -> None:
    """Print the tables and where the files are. In JSON ``rows`` has the figures by row and seed."""
    for name, value in _plain(study).items():
        console.record(name, value)
    for table in tables(study):
        console.table(table.title, table.head, table.rows)
    console.line()
    console.line(f"study  {folder / 'study.md'}")


def write(study: Study, folder: StoragePath) -> None:
    """Write study.json and, where a row is trained, study.md and charts of the rows that have the figures: cost.svg
    (quality against seconds), rare.svg (quality on items with fewer than five events against all) and curves.svg
    (validation by epoch).
    """
    (folder / "study.json").write_text(f"{json.dumps(_plain(study))}\n")
    if not study.rows:
        return
    text = "\n".join(table.markdown() for table in tables(study))
    (folder / "study.md").write_text(text)
    whole, rare = f"{MAIN} on test", f"{MAIN}, items with {PARTS[0]}"
    of_cost = [Point(r.name, r.costs.seconds, r.mean(MAIN)) for r in study.trained if r.costs is not None]
    of_rare = [Point(row.name, row.mean(MAIN), row.mean(PARTS[0])) for row in study.rows]
    if any(math.isfinite(point.y) for point in of_cost):
        cost = draw_points("cost", of_cost, "seconds of training", whole, log_x=True)
        (folder / "cost.svg").write_text(svg_file(cost))
    if any(math.isfinite(point.x) and math.isfinite(point.y) for point in of_rare):
        (folder / "rare.svg").write_text(svg_file(draw_points("rare", of_rare, whole, rare, log_x=False)))
    curves = {row.name: row.curve for row in study.trained}
    if any(math.isfinite(value) for curve in curves.values() for value in curve):
        lines = draw_lines("curves", curves, "epoch", f"{MAIN} on validation")
        (folder / "curves.svg").write_text(svg_file(lines))


def _plain(study: Study) -> dict[str, object]:
    """Figures by row and seed, rules, validation and costs, and what failed; None for NaN, which JSON lacks."""
    rows: dict[str, dict[str, object]] = {}
    for row in study.rows:
        figures = {name: [_or_none(value) for value in values] for name, values in row.figures.items()}
        rows[row.name] = {"method": row.method, "rule": row.rule, "runs": row.runs, **figures}
        if row.costs is not None:
            rows[row.name] |= {f"validation {MAIN}": row.validation, **row.costs.__dict__}
    return {"cores": len(available_cores()), "rows": rows, "failures": dict(study.failures)}


def _by_row(title: str, rows: Sequence[Row], figures: Sequence[str]) -> Table:
    return Table(
        title,
        ("row", "rule", *figures),
        tuple((row.name, row.rule, *(_interval(row.figures[name]) for name in figures)) for row in rows),
    )


def _slice_table(study: Study, dimension: str) -> Table:
    slices = study.slices[dimension]
    users = {name: max(figure.users for figure in by_row.values()) for name, by_row in slices.items()}
    rows = []
    for row in study.rows:
        figures = [by_row.get(row.name) for by_row in slices.values()]
        cells = ["-" if f is None else f"{_four(f.value)} ({_four(f.low)} to {_four(f.high)})" for f in figures]
        rows.append((row.name, *cells))
    head = ("row", *(f"{name} ({count:,} users)" for name, count in users.items()))
    return Table(f"{MAIN} by {dimension}, first seed", head, tuple(rows))


def _cost_cells(row: Row) -> tuple[str, ...]:
    assert row.costs is not None
    costs = row.costs
    return (
        row.name,
        f"{costs.parameters:,}",
        f"{costs.seconds:,.0f}{_without(costs)}",
        "-" if costs.peak_mib is None else f"{costs.peak_mib:,}",
        f"{costs.samples_per_second:,.0f}",
    )


def _without(costs: Costs) -> str:
    """What the seconds leave out."""
    if costs.reused_tower:
        return " (without the training of the tower, which another model has)"
    return " (resumed: the last part)" if costs.resumed else ""


def _interval(values: Sequence[float]) -> str:
    """The mean over seeds, with half of the 95 % interval (Student's t) where there are two seeds or more."""
    mean, low, _ = over_seeds(values)
    return _four(mean) if low is None else f"{_four(mean)} ± {_four(mean - low)}"


def _four(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.4f}".replace("0.", ".", 1)


def _signed(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:+.4f}".replace("0.", ".", 1)


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value
