"""What is each method worth on a data set, and what does it cost: one table, three seeds, a command for every row.

    make bench-table ARGS="movielens movielens-learn movielens-sasrec movielens-hstu movielens-plus"
    make bench-table ARGS="beauty beauty beauty-sasrec beauty-plus --seeds 2024 --no-search --set source.path=DIR"
    make bench-table ARGS="--plan benchmarks/plans/learn-movielens.yaml"

The first settings file makes the tables (its stages up to histories); every other is a row: searched over
(``learn-spark search``, as many trials for all), then trained with what validation liked best once for each seed, and
evaluated. A plan (benchmarks/plans) has rows that are a settings file with some of its keys set otherwise, for all rows
or for one, trained as they stand; each row then has its gain over the first, too. Each training and evaluation is a
``learn-spark`` process of its own; its seconds and its largest memory are those of the training. What is done is
written down beside the tables, and a run that was cut off goes on. At the end: metrics on the test split, mean and half
of the 95 % interval over seeds (Student's t); parts of the cut; with --slices those of ``evaluation_slices``; costs;
quality against cost, on rare items against all, and on validation by epoch, as SVG files (--plot, --front, --curves);
and one line of JSON.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import yaml

from learn_spark.ads.rankers.evaluation import over_seeds
from learn_spark.core.console import Reporter
from learn_spark.core.settings import load_settings
from learn_spark.core.stages.code import stage_version
from learn_spark.core.stages.registry import find_stage
from learn_spark.core.tables.log import read_rows
from learn_spark.core.tables.runs import Run, last_done
from learn_spark.core.tables.snapshot import Snapshot
from learn_spark.core.tables.workspace import Workspace
from learn_spark.evaluation.results import VECTORS_ONLY, ResultKey, written_by
from learn_spark.evaluation.slices import DIMENSIONS
from learn_spark.model.manifest import read_manifest
from learn_spark.model.store import read_curve
from learn_spark.pipeline.runner import run_stages
from learn_spark.report.plots.render import svg_file
from learn_spark.report.plots.study import Point, draw_lines, draw_points
from learn_spark.studies.search import search

COMMAND = [sys.executable, "-c", "from learn_spark.commands.main import main; main()"]
BASELINES = {"popularity": "popularity", "markov": "item-to-item Markov", "frozen": "frozen embeddings, untrained"}
METRICS = ("HR@10", "NDCG@10", "HR@100", "NDCG@100")
PARTS = ("< 5 events", "5 and more", "same day", "other days")


@dataclass(frozen=True)
class Row:
    """A line of the table: a settings file with some keys set."""

    name: str
    config: str
    overrides: tuple[str, ...] = ()


@dataclass(frozen=True)
class Done:
    """A row's training with one seed."""

    row: str
    seed: int
    model_id: str
    run_id: str
    seconds: float
    peak_mib: float


def main() -> None:
    """Train what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="?", help="Settings whose stages make the tables.")
    parser.add_argument("rows", nargs="*", help="Settings of one row each.")
    parser.add_argument("--plan", type=Path, default=None, help="A YAML file of tables and rows in their place.")
    parser.add_argument("--seeds", type=int, nargs="+", default=None, help="2024 2025 2026; one for a plan.")
    parser.add_argument("--trials", type=int, default=None, help="Of each search; search.trials if left out.")
    parser.add_argument("--no-search", action="store_true", help="Train the settings as they stand, as a plan's are.")
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--slices", nargs="+", default=[], metavar="DIMENSION", help="Such as popularity, history.")
    parser.add_argument("--plot", type=Path, default=None, help="An SVG file of quality against seconds.")
    parser.add_argument("--front", type=Path, default=None, help="One of quality on rare items against all.")
    parser.add_argument("--curves", type=Path, default=None, help="One of validation by epoch, first seed.")
    arguments = parser.parse_args()
    overrides: list[str] = arguments.overrides
    if (arguments.plan is None) != bool(arguments.rows):
        parser.error("give settings of tables and of rows, or --plan")
    tables, rows, shared = _rows(arguments)
    overrides = [*shared, *overrides]
    seeds = arguments.seeds or ([2024, 2025, 2026] if arguments.plan is None else [2024])
    _make(tables, overrides, ("ingest", "item_text", "embed_items", "histories"))
    workspace = Workspace.open(load_settings(tables, overrides).workspace)
    done = []
    for row in rows:
        config = row.config if arguments.no_search or arguments.plan else _searched(row, overrides, arguments.trials)
        _make(config, [*overrides, *row.overrides], ("embed_items",))
        done += [_train(workspace, row, config, seed, overrides) for seed in seeds]
    _show(workspace, done, arguments, gains=arguments.plan is not None)


def _rows(arguments: argparse.Namespace) -> tuple[str, list[Row], list[str]]:
    """(settings of the tables, rows, what all rows set) as they are given, or as the plan has them."""
    if arguments.plan is None:
        return arguments.tables, [Row(config, config) for config in arguments.rows], []
    plan = yaml.safe_load(arguments.plan.read_text(encoding="utf-8"))
    rows = [Row(name, own["config"], tuple(_overrides(own))) for name, own in plan["rows"].items()]
    return plan["tables"], rows, _overrides(plan)


def _overrides(own: dict[str, Any]) -> list[str]:
    return [f"{key}={json.dumps(value)}" for key, value in own.get("set", {}).items()]


def _make(config: str, overrides: Sequence[str], stages: Sequence[str]) -> None:
    run_stages(list(stages), load_settings(config, overrides), console=Reporter())


def _searched(row: Row, overrides: Sequence[str], trials: int | None) -> str:
    """The best settings that the row's search found, or its own where it has nothing to search over."""
    if not load_settings(row.config, overrides).search.parameters:
        return row.config
    found = search(lambda more: load_settings(row.config, [*overrides, *more]), console=Reporter(), trials=trials)
    assert found is not None
    return str(found.folder / "settings.yaml")


def _train(workspace: Workspace, row: Row, config: str, seed: int, overrides: Sequence[str]) -> Done:
    own = [*overrides, *row.overrides, f"training.seed={seed}"]
    code = [stage_version(find_stage(name)) for name in ("train", "evaluate")]
    plan = f"{load_settings(config, own).model_dump_json()}{_versions(workspace)}{code}"
    key = hashlib.sha256(plan.encode()).hexdigest()[:16]
    note = workspace.folder("results") / f"{key}.json"
    if note.is_file():
        return replace(Done(**json.loads(note.read_text(encoding="utf-8"))), row=row.name)
    clock = time.monotonic()
    # Whole, even where a training was cut off: its seconds and memory are told.
    peak = _command("train", config, [*own, "training.resume=never"], "--force")
    seconds = time.monotonic() - clock
    model = _last(workspace, "train").model_id
    assert model is not None
    _command("evaluate", config, own)
    # Other code may give the same model, and its result is written once.
    wrote = written_by(workspace, ResultKey.of_run(_last(workspace, "evaluate")))
    assert wrote is not None
    found = Done(row.name, seed, model, wrote, seconds, peak)
    note.write_text(json.dumps(found.__dict__), encoding="utf-8")
    return found


def _versions(workspace: Workspace) -> str:
    # Not text_embeddings': it has the rows of other encoders, too.
    return " ".join(str(Snapshot.open(workspace.table(name)).version) for name in ("user_histories", "item_text"))


def _last(workspace: Workspace, job: str) -> Run:
    run = last_done(workspace, job)
    assert run is not None
    return run


def _command(stage: str, config: str, overrides: Sequence[str], *flags: str) -> float:
    """Run one stage; the largest memory of its process in MiB."""
    arguments = [*COMMAND, stage, "--config", config, *flags, *(part for one in overrides for part in ("--set", one))]
    process, peak = subprocess.Popen(arguments), 0.0
    while True:
        try:
            status = process.wait(timeout=0.2)
            break
        except subprocess.TimeoutExpired:
            # Not rusage's maximum, in which a child begins with what its parent has.
            found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{process.pid}/status").read_text())
            peak = max(peak, int(found[1]) / 1024) if found else peak
    if status:
        raise SystemExit(f"{' '.join(arguments[3:])} ended with {status}")
    return peak


def _show(workspace: Workspace, done: Sequence[Done], arguments: argparse.Namespace, *, gains: bool) -> None:
    rows = read_rows(workspace.table("evaluations"))
    values = {(r["run_id"], r["method"], r["metric"]): r["value"] for r in rows if r["split"] == "test"}
    parts = _parts(workspace, {one.run_id for one in done})
    table: list[list[str]] = []
    split: list[list[str]] = []
    told: dict[str, Any] = {}
    first = done[0].run_id
    measured = {name: (first, method) for method, name in BASELINES.items()}
    for method, name in BASELINES.items():
        table.append([name, *(_four(values[first, method, metric]) for metric in METRICS)])
        split.append([name, *(_four(parts[first, method, part]) for part in PARTS)])
        told[name] = {m: values[first, method, m] for m in METRICS} | {p: parts[first, method, p] for p in PARTS}
    costs: list[list[str]] = []
    gained: list[list[str]] = []
    bases: dict[str, float] = {}
    points: list[Point] = []
    curves: dict[str, list[float]] = {}
    for row in dict.fromkeys(one.row for one in done):
        own = [one for one in done if one.row == row]
        manifests = [read_manifest(workspace.root / "models" / one.model_id) for one in own]
        plain, alone = manifests[0].method, f"{manifests[0].method}{VECTORS_ONLY}"
        told_of = {one.run_id: [m for m in (plain, alone) if (one.run_id, m, METRICS[0]) in values] for one in own}
        by, measured[row] = _figures(values, parts, {run: methods[0] for run, methods in told_of.items()})
        table.append([row, *(_interval(by[metric]) for metric in METRICS)])
        split.append([row, *(_interval(by[part]) for part in PARTS)])
        if any(len(methods) > 1 for methods in told_of.values()):
            # A seed whose evidence validation did not like has its vectors alone.
            name = f"{row}, its vectors alone"
            told[name], measured[name] = _figures(values, parts, {run: found[-1] for run, found in told_of.items()})
            table.append([name, *(_interval(told[name][metric]) for metric in METRICS)])
            split.append([name, *(_interval(told[name][part]) for part in PARTS)])
        means = {name: statistics.mean(seeds) for name, seeds in by.items() if name in ("NDCG@10", *PARTS)}
        bases = bases or means
        gained.append([row, *(_signed(mean - bases[name]) for name, mean in means.items())])
        learnt = [read_curve(workspace.root / "models" / one.model_id) for one in own]
        curves[row] = [point["validation NDCG@10"] for point in learnt[0]]
        rates = [statistics.median(point["samples_per_second"] for point in curve) for curve in learnt]
        seconds = statistics.mean(one.seconds for one in own)
        peak = max(one.peak_mib for one in own)
        validation = statistics.mean(manifest.validation["NDCG@10"] for manifest in manifests)
        costs.append(
            [
                row,
                f"{manifests[0].parameters:,}",
                f"{seconds:,.0f}",
                f"{peak:,.0f}",
                f"{statistics.mean(rates):,.0f}",
            ]
        )
        points.append(Point(row, seconds, statistics.mean(by["NDCG@10"])))
        told[row] = {
            "seeds": [one.seed for one in own],
            **by,
            "validation NDCG@10": validation,
            "parameters": manifests[0].parameters,
            "seconds": seconds,
            "peak MiB": peak,
            "samples/s": statistics.mean(rates),
        }
    _markdown(["", *METRICS], table)
    _markdown(["NDCG@10", *PARTS], split)
    _markdown(["cost", "parameters trained", "seconds of training", "peak MiB", "samples/s"], costs)
    for dimension in arguments.slices:
        _show_slices(workspace, measured, dimension)
    if gains:
        _markdown(["gain in NDCG@10", "all", *PARTS], gained[1:])
    if arguments.plot is not None:
        drawn = draw_points("cost", points, "seconds of training", "NDCG@10 on test", log_x=True)
        arguments.plot.write_text(svg_file(drawn), "utf-8")
    if arguments.curves is not None:
        arguments.curves.write_text(svg_file(draw_lines("curves", curves, "epoch", "NDCG@10 on validation")), "utf-8")
    if arguments.front is not None:
        whole, rare = "NDCG@10 on test", f"NDCG@10, items with {PARTS[0]}"
        front = [
            Point(name, statistics.mean(_many(v["NDCG@10"])), statistics.mean(_many(v[PARTS[0]])))
            for name, v in told.items()
        ]
        arguments.front.write_text(svg_file(draw_points("front", front, whole, rare, log_x=False)), "utf-8")
    print(json.dumps(_without_nan({"cores": len(os.sched_getaffinity(0)), **told})))


def _figures(
    values: Mapping[tuple[str, str, str], float], parts: Mapping[tuple[str, str, str], float], runs: Mapping[str, str]
) -> tuple[dict[str, list[float]], tuple[str, str]]:
    """(METRICS and PARTS of ``runs``, each by its method, in their order; the first run and its method)."""
    found = {metric: [values[run, method, metric] for run, method in runs.items()] for metric in METRICS}
    found |= {part: [parts[run, method, part] for run, method in runs.items()] for part in PARTS}
    return found, next(iter(runs.items()))


def _show_slices(workspace: Workspace, measured: Mapping[str, tuple[str, str]], dimension: str) -> None:
    """NDCG@10 on every slice of a dimension, of each row's first seed, with the interval over users."""
    found = {
        (r["run_id"], r["method"], r["slice"]): r
        for r in read_rows(workspace.table("evaluation_slices"))
        if r["split"] == "test" and r["metric"] == "NDCG@10" and r["dimension"] in (dimension, "all")
    }
    parts = sorted({part for _, _, part in found}, key=lambda part: (part == "all", *_order(dimension, part)))
    first = next(iter(measured.values()))
    told = [f"{part} ({found[*first, part]['users']:,} users)" if (*first, part) in found else part for part in parts]
    lines = []
    for name, run in measured.items():
        own = [found.get((*run, part)) for part in parts]
        cells = ["-" if r is None else f"{_four(r['value'])} ({_four(r['low'])} to {_four(r['high'])})" for r in own]
        lines.append([name, *cells])
    _markdown([f"NDCG@10 by {dimension}, first seed", *told], lines)


def _order(dimension: str, part: str) -> tuple[int, str]:
    named = DIMENSIONS.get(dimension) or ()
    return (list(named).index(part) if part in named else len(named), part)


def _parts(workspace: Workspace, runs: set[str]) -> dict[tuple[str, str, str], float]:
    """NDCG@10 of each run and method on PARTS of the test split: the mean over targets of each one's own."""
    ranks = Snapshot.open(workspace.table("evaluation_users")).to_arrow(
        ["run_id", "method", "split", "rank", "popularity", "same_day"]
    )
    ranks = ranks.filter(pc.equal(ranks["split"], "test"))
    found = {}
    for run in sorted(runs):
        of_run = ranks.filter(pc.equal(ranks["run_id"], run))
        for method in pc.unique(of_run["method"]).to_pylist():
            own = of_run.filter(pc.equal(of_run["method"], method))
            rank = own["rank"].to_numpy()
            gain = np.where(rank <= 10, 1.0 / np.log2(rank + 1.0), 0.0)
            rare = np.isin(own["popularity"].to_numpy(zero_copy_only=False), ["unseen", "1-4"])
            same = own["same_day"].to_numpy(zero_copy_only=False) == "yes"
            for part, mask in zip(PARTS, (rare, ~rare, same, ~same), strict=True):
                found[run, method, part] = float(gain[mask].mean()) if mask.any() else math.nan
    return found


def _without_nan(told: Any) -> Any:
    """``told`` with None for NaN, which JSON does not know."""
    if isinstance(told, dict):
        return {key: _without_nan(value) for key, value in told.items()}
    if isinstance(told, list):
        return [_without_nan(value) for value in told]
    return None if isinstance(told, float) and math.isnan(told) else told


def _many(values: float | Sequence[float]) -> Sequence[float]:
    return [values] if isinstance(values, float) else values


def _interval(values: Sequence[float]) -> str:
    mean, low, _ = over_seeds(values)
    return _four(mean) if low is None else f"{_four(mean)} ± {_four(mean - low)}"


def _four(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.4f}".replace("0.", ".", 1)


def _signed(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:+.4f}".replace("0.", ".", 1)


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    print(f"\n| {' | '.join(head)} |\n|---|{'---:|' * (len(head) - 1)}")
    for row in rows:
        print(f"| {' | '.join(row)} |")
    print(flush=True)


if __name__ == "__main__":
    main()
