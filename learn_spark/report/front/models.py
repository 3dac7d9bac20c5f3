"""The trained models of a workspace side by side: figures, cost, slices and learning curves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow.dataset as ds

from learn_spark.core.tables.runs import Run
from learn_spark.core.tables.workspace import Workspace
from learn_spark.evaluation.labels import DIMENSIONS, FIRST_METRIC, WHOLE, method_label, place_of_slice
from learn_spark.evaluation.results import VECTORS_ONLY, MetricRow, slice_rows
from learn_spark.features.ledger import LedgerRow
from learn_spark.model.manifest import ModelFormatError, ModelManifest
from learn_spark.model.store import read_curve
from learn_spark.model.trained import SavedModel, trained_models
from learn_spark.pipeline.models import SPLIT, Figures, TrainedModel, describe_models, newest_figures
from learn_spark.report.plots.dots import Group, Value, draw_dots
from learn_spark.report.plots.render import Plot
from learn_spark.report.plots.study import Point, draw_lines, draw_points
from learn_spark.report.plots.text import slug

SHOWN, DRAWN = 12, 6
SLICED = ("popularity", "history", "cold")


@dataclass(frozen=True)
class ModelLine:
    """A model. ``validation`` and ``test``: NDCG@10 of its vectors, as a release has them; ``comparable``: whether
    ``test`` is by the protocol, data and users of the first model that is shown.
    """

    model_id: str
    label: str
    manifest: ModelManifest
    run: Run
    validation: float | None
    test: float | None
    comparable: bool
    tags: tuple[str, ...]

    @property
    def name(self) -> str:
        """The model in a legend: its method, and the first characters of its id."""
        return f"{self.label} {self.model_id[:8]}"


@dataclass(frozen=True)
class Models:
    """``lines``: at most ``SHOWN`` of ``of_models``, the released model first, then the newest first."""

    lines: tuple[ModelLine, ...]
    of_models: int
    plots: tuple[Plot, ...]


def models_of(workspace: Workspace, release: LedgerRow | None) -> Models | None:
    """All models side by side; None where there is none. ``release``: the release in force."""
    try:
        saved = {one.model_id: one for one in trained_models(workspace, trials=True)}
    except ModelFormatError:
        return None
    if not saved:
        return None
    newest = newest_figures(workspace)
    listed = describe_models(list(saved.values()), newest, release)
    ordered = sorted(listed, key=lambda one: release is None or one.model_id != release.model_id)[:SHOWN]
    figures = {one.model_id: row for one in ordered if (row := _of_vectors(one, newest))}
    first = next((figures[one.model_id] for one in ordered if one.model_id in figures), None)
    lines = [_line(one, saved[one.model_id], figures.get(one.model_id), first) for one in ordered]
    drawn = [line for line in lines if line.comparable][:DRAWN]
    plots = [*_front(drawn), *_slices(workspace, drawn, figures), *_curves(workspace, lines[:DRAWN])]
    return Models(tuple(lines), len(listed), tuple(plots))


def _line(one: TrainedModel, saved: SavedModel, figure: MetricRow | None, first: MetricRow | None) -> ModelLine:
    return ModelLine(
        model_id=one.model_id,
        label=method_label(one.method),
        manifest=saved.manifest,
        run=saved.run,
        validation=saved.manifest.released_validation.get(FIRST_METRIC),
        test=None if figure is None else figure.value,
        comparable=figure is not None and first is not None and _measured_on(figure) == _measured_on(first),
        tags=one.tags,
    )


def _measured_on(row: MetricRow) -> object:
    """What two figures must share to be compared: protocol, users, catalogue and histories."""
    return row.protocol, row.users, row.catalogue, row.tables.get("user_histories")


def _of_vectors(one: TrainedModel, figures: Figures) -> MetricRow | None:
    """The newest figure of a model, of its vectors alone where it has a reranker."""
    return figures.get((one.model_id, one.method + VECTORS_ONLY)) or figures.get((one.model_id, one.method))


def _front(lines: Sequence[ModelLine]) -> list[Plot]:
    """Quality against cost, where there are two models to compare."""
    points = [Point(line.name, line.run.seconds, line.test) for line in lines if line.test is not None]
    if len(points) < 2:
        return []
    log_x = all(point.x > 0 for point in points)
    return [draw_points("models-front", points, "seconds of training", f"{FIRST_METRIC} on {SPLIT}", log_x=log_x)]


def _slices(workspace: Workspace, lines: Sequence[ModelLine], figures: dict[str, MetricRow]) -> list[Plot]:
    if len(lines) < 2:
        return []
    named = {(figures[line.model_id].run_id, figures[line.model_id].method): line.name for line in lines}
    where = (ds.field("split") == SPLIT) & (ds.field("metric") == FIRST_METRIC) & (ds.field("dimension") != WHOLE)
    runs = ds.field("run_id").isin(sorted({run_id for run_id, _ in named}))
    rows = [row for row in slice_rows(workspace, where & runs) if (row.run_id, row.method) in named]
    plots = []
    for dimension in SLICED:
        mine = [row for row in rows if row.dimension == dimension]
        groups = []
        for name in dict.fromkeys(row.slice for row in sorted(mine, key=lambda row: place_of_slice(row.slice))):
            inside = {named[row.run_id, row.method]: row for row in mine if row.slice == name}
            users = next(iter(inside.values())).users
            values = {label: Value(row.value, row.low, row.high) for label, row in inside.items()}
            groups.append(Group(name, f"{users:,} user{'' if users == 1 else 's'}", values))
        if groups:
            title = f"{DIMENSIONS[dimension]}, by model"
            x_name = f"{FIRST_METRIC} on the {SPLIT} split, 95 % interval"
            series = [line.name for line in lines]
            plots.append(
                draw_dots(f"models-{slug(dimension)}", title, series, groups, group_name="slice", x_name=x_name)
            )
    return plots


def _curves(workspace: Workspace, lines: Sequence[ModelLine]) -> list[Plot]:
    """Validation by epoch, where there are two models."""
    name = f"validation {FIRST_METRIC}"
    curves: dict[str, list[float]] = {}
    for line in lines:
        points = read_curve(workspace.place / "models" / line.model_id)
        values = [float(point.get(name, math.nan)) for point in points]
        if any(map(math.isfinite, values)):
            curves[line.name] = values
    return [draw_lines("models-curves", curves, "epoch", f"{FIRST_METRIC} on validation")] if len(curves) > 1 else []
