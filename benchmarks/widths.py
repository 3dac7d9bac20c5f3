"""What do released vectors of fewer numbers cost? One trained model, narrowed to several widths, ranks the test split.

    make bench-widths ARGS="--config beauty-plus-prefixes --set source.path=DIR --set training.rule=strict"
    make bench-widths ARGS="--config beauty-plus-prefixes --model ID --widths 32 64 --chart FILE.svg"

The projections are those that train fits with tower.narrowing, for the weights of the newest model of the workspace, or
of --model. Beside each, the truncated singular value decomposition alone, which the fit starts from. NDCG@10 in all and
by the target's training events; at the end one line of JSON. About three minutes a width on one core, for 22,000 users
and 12,000 items.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from learn_spark.core.console import Reporter
from learn_spark.core.settings import Settings, load_settings
from learn_spark.core.settings.tower import NarrowingSettings
from learn_spark.core.tables.workspace import Workspace
from learn_spark.data.splits.selection import selection_of
from learn_spark.data.splits.split import Split, split_histories
from learn_spark.data.splits.training_view import TrainingView, Until
from learn_spark.evaluation.bands import POPULARITY, popularity_band
from learn_spark.features.pinned_model import PinnedModel
from learn_spark.model.narrowing.projections import NarrowedTower
from learn_spark.model.parts import wide_vectors
from learn_spark.model.scoring.metrics import ndcg
from learn_spark.model.scoring.ranks import ranks_from_vectors
from learn_spark.model.store import Model
from learn_spark.model.towers.tower import Tower
from learn_spark.model.towers.vectors import item_vectors, user_vectors
from learn_spark.model.trained import newest_model
from learn_spark.model.training.narrowing import narrow
from learn_spark.report.plots.curve import draw_curve
from learn_spark.report.plots.render import svg_file

FEW = "fewer than 5 events"


def figures(vectors: Tower, split: Split, counts: np.ndarray, model: Model) -> dict[str, float]:
    """NDCG@10 of one target a user, in all and by the target's training events."""
    users = user_vectors(vectors, split.items, split.lengths, model.window, times=split.times)
    targets = split.every_target
    ranks = ranks_from_vectors(
        users, item_vectors(vectors), targets.positions, split.hidden(mask_history=True), offsets=targets.offsets
    )
    values, bands = ndcg(ranks, 10), popularity_band(counts[targets.positions])
    few = np.isin(bands, list(POPULARITY.values())[:2])
    slices = {"all": np.ones(len(values), bool), FEW: few, **{name: bands == name for name in POPULARITY.values()}}
    return {name: round(float(values[rows].mean()), 4) for name, rows in slices.items() if rows.any()}


def measure(settings: Settings, model_id: str | None, widths: list[int]) -> dict[str, dict[str, float]]:
    """What is measured -> figures: the wide vectors, and of each width the decomposition and the fit."""
    workspace = Workspace.open(settings.place, settings.scratch)
    pinned = PinnedModel.open(workspace, settings, model_id or newest_model(workspace).model_id)
    pinned.bind()
    model = pinned.model
    wide = wide_vectors(model.tower, model.blending)
    histories = pinned.snapshot("user_histories")
    until: Until = "validation_length" if model.manifest.refit else "train_length"
    counts = TrainingView(histories).counts(model.tower.n_items, until=until).events
    split = split_histories(histories.to_arrow(), "test")
    if len(split.every_target.positions) != len(split.user_ids):
        raise SystemExit("benchmarks/widths.py is for protocols with one target a user")
    view = TrainingView.open(workspace.table("user_histories"), histories.version, selection_of(settings))
    fitted_on = split_histories(view.validation_sample(settings.training.validation_users), "validation")
    found = {f"{wide.output_dim} numbers, as they are": figures(wide, split, counts, model)}
    print(json.dumps(found), flush=True)
    for width in widths:
        for name, steps in {"decomposition": 0, "fit": NarrowingSettings().steps}.items():
            narrowing = NarrowingSettings(width=width, steps=steps)
            made = narrow(wide, model.manifest.temperature, fitted_on, narrowing, settings, Reporter(quiet=True))
            found[f"{width} numbers, {name}"] = figures(NarrowedTower(wide, made), split, counts, model)
            print(json.dumps({f"{width} numbers, {name}": found[f"{width} numbers, {name}"]}), flush=True)
    return found


def draw(found: dict[str, dict[str, float]], file: Path) -> None:
    """NDCG@10 against numbers of a vector, in all and of targets with fewer than five events."""
    wide, *narrow = found
    widths = [int(name.split()[0]) for name in narrow if name.endswith("fit")] + [int(wide.split()[0])]
    lines = {
        f"{how}, {whose}": [*(found[f"{width} numbers, {how}"][whose] for width in widths[:-1]), found[wide][whose]]
        for whose in ("all", FEW)
        for how in ("fit", "decomposition")
    }
    plot = draw_curve("widths", "NDCG@10 by numbers of a released vector", widths, lines, x_name="numbers of a vector")
    file.write_text(svg_file(plot), encoding="utf-8")


def main() -> None:
    """Measure, print a table and JSON, and draw the chart."""
    parser = argparse.ArgumentParser(prog="make bench-widths", description=__doc__)
    parser.add_argument("--config", required=True)
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--model")
    parser.add_argument("--widths", type=int, nargs="+", default=[32, 64, 128, 256])
    parser.add_argument("--chart", type=Path)
    given = parser.parse_args()
    found = measure(load_settings(given.config, given.set), given.model, given.widths)
    names = list(next(iter(found.values())))
    print(f"| | {' | '.join(names)} |\n|---|{'---:|' * len(names)}")
    for name, values in found.items():
        print(f"| {name} | {' | '.join(f'{values[n]:.4f}'[1:] for n in names)} |")
    print(json.dumps(found))
    if given.chart is not None:
        draw(found, given.chart)


if __name__ == "__main__":
    main()
