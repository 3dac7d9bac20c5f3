"""What is each method worth on a data set, and what does it cost: one table, three seeds, a command for every row.

    make bench-table ARGS="movielens movielens-learn movielens-sasrec movielens-hstu movielens-plus"
    make bench-table ARGS="beauty beauty beauty-sasrec beauty-plus --seeds 2024 --no-search --set source.path=DIR"

The first settings file makes the tables (its stages up to histories); every other is a row: searched over
(``learn-spark search``, as many trials for all), then trained with what validation liked best once for each seed, and
evaluated. Each training and evaluation is a ``learn-spark`` process of its own; its seconds and its largest memory are
those of the training. What is done is written down beside the tables, and a run that was cut off goes on. At the end:
metrics on the test cut, mean and half of the 95 % interval over seeds (Student's t); parts of the cut; costs; quality
against cost as an SVG file (--plot); and one line of JSON.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc

from benchmarks.cost_plot import Point, draw_costs
from learn_spark.pipeline.runner import run_stages
from learn_spark.progress import Reporter
from learn_spark.ranking.judge import over_seeds
from learn_spark.settings import load_settings
from learn_spark.tables.lineage import Run, code_version, last_done
from learn_spark.tables.log import read_rows
from learn_spark.tables.snapshot import Snapshot
from learn_spark.tables.workspace import Workspace
from learn_spark.training.model_store import read_curve, read_manifest
from learn_spark.training.search import search

COMMAND = [sys.executable, "-c", "from learn_spark.cli import main; main()"]
BASELINES = {"popularity": "popularity", "markov": "item-to-item Markov", "frozen": "frozen embeddings, untrained"}
METRICS = ("HR@10", "NDCG@10", "HR@100", "NDCG@100")
PARTS = ("< 5 events", "5 and more", "same day", "other days")


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
    parser.add_argument("tables", help="Settings whose stages make the tables.")
    parser.add_argument("rows", nargs="+", help="Settings of one row each.")
    parser.add_argument("--seeds", type=int, nargs="+", default=[2024, 2025, 2026])
    parser.add_argument("--trials", type=int, default=None, help="Of each search; search.trials if left out.")
    parser.add_argument("--no-search", action="store_true", help="Train the settings as they stand.")
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--plot", type=Path, default=None, help="An SVG file of quality against seconds.")
    arguments = parser.parse_args()
    overrides: list[str] = arguments.overrides
    shared = load_settings(arguments.tables, overrides)
    upto = [stage for stage in shared.pipeline.stages if stage in ("ingest", "item_text", "embed_items", "histories")]
    run_stages(upto, shared, report=Reporter())
    workspace = Workspace.open(shared.workspace)
    done = [
        _train(workspace, row, _settings_of(row, arguments), seed, overrides)
        for row in arguments.rows
        for seed in arguments.seeds
    ]
    _show(workspace, done, arguments.plot)


def _settings_of(row: str, arguments: argparse.Namespace) -> str:
    """The row's own settings, or the best that its search found."""
    overrides: list[str] = arguments.overrides
    if arguments.no_search or not load_settings(row, overrides).search.space:
        return row
    found = search(lambda more: load_settings(row, [*overrides, *more]), report=Reporter(), trials=arguments.trials)
    assert found is not None
    return str(found.folder / "settings.yaml")


def _train(workspace: Workspace, row: str, config: str, seed: int, overrides: Sequence[str]) -> Done:
    settings = load_settings(config, overrides)
    plan = f"{settings.model_dump_json()}{seed}{_versions(workspace)}{code_version()}"
    key = hashlib.sha256(plan.encode()).hexdigest()[:16]
    note = workspace.folder("results") / f"{key}.json"
    if note.is_file():
        return Done(**json.loads(note.read_text(encoding="utf-8")))
    own = [*overrides, f"training.seed={seed}"]
    clock = time.monotonic()
    # Whole, even where a training was cut off: its seconds and memory are told.
    peak = _command("train", config, [*own, "training.resume=never"], "--force")
    seconds = time.monotonic() - clock
    model = next(
        name.removeprefix("models/") for name in _last(workspace, "train").outputs if name.startswith("models/")
    )
    _command("evaluate", config, own)
    found = Done(row, seed, model, _last(workspace, "evaluate").run_id, seconds, peak)
    note.write_text(json.dumps(found.__dict__), encoding="utf-8")
    return found


def _versions(workspace: Workspace) -> str:
    return str(Snapshot.open(workspace.table("user_histories")).version)


def _last(workspace: Workspace, job: str) -> Run:
    run = last_done(workspace, job)
    assert run is not None
    return run


def _command(stage: str, config: str, overrides: Sequence[str], *flags: str) -> float:
    """Run one stage; the largest memory of its process in MiB."""
    arguments = [*COMMAND, stage, "--config", config, *flags, *(part for one in overrides for part in ("--set", one))]
    process = subprocess.Popen(arguments)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(arguments[3:])} ended with {process.returncode}")
    return usage.ru_maxrss / 1024


def _show(workspace: Workspace, done: Sequence[Done], plot: Path | None) -> None:
    rows = read_rows(workspace.table("evaluations"))
    values = {(r["run_id"], r["method"], r["metric"]): r["value"] for r in rows if r["cut"] == "test"}
    parts = _parts(workspace, {one.run_id for one in done})
    table: list[list[str]] = []
    split: list[list[str]] = []
    told: dict[str, Any] = {}
    first = done[0].run_id
    for method, name in BASELINES.items():
        table.append([name, *(_four(values[first, method, metric]) for metric in METRICS)])
        split.append([name, *(_four(parts[first, method, part]) for part in PARTS)])
        told[name] = {m: values[first, method, m] for m in METRICS} | {p: parts[first, method, p] for p in PARTS}
    costs: list[list[str]] = []
    points: list[Point] = []
    for row in dict.fromkeys(one.row for one in done):
        own = [one for one in done if one.row == row]
        manifests = [read_manifest(workspace.root / "models" / one.model_id) for one in own]
        method = manifests[0]["method"]
        by = {m: [values[one.run_id, method, m] for one in own] for m in METRICS}
        by |= {p: [parts[one.run_id, method, p] for one in own] for p in PARTS}
        table.append([row, *(_interval(by[metric]) for metric in METRICS)])
        split.append([row, *(_interval(by[part]) for part in PARTS)])
        rates = [
            statistics.median(
                point["samples_per_second"] for point in read_curve(workspace.root / "models" / one.model_id)
            )
            for one in own
        ]
        seconds = statistics.mean(one.seconds for one in own)
        peak = max(one.peak_mib for one in own)
        validation = statistics.mean(manifest["validation"]["NDCG@10"] for manifest in manifests)
        costs.append(
            [
                row,
                f"{manifests[0]['parameters']:,}",
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
            "parameters": manifests[0]["parameters"],
            "seconds": seconds,
            "peak MiB": peak,
            "samples/s": statistics.mean(rates),
        }
    _markdown(["", *METRICS], table)
    _markdown(["NDCG@10", *PARTS], split)
    _markdown(["cost", "parameters trained", "seconds of training", "peak MiB", "samples/s"], costs)
    if plot is not None:
        plot.write_text(draw_costs(points, "NDCG@10 on test"), encoding="utf-8")
    print(json.dumps({"cores": len(os.sched_getaffinity(0)), **told}))


def _parts(workspace: Workspace, runs: set[str]) -> dict[tuple[str, str, str], float]:
    """NDCG@10 of each run and method on PARTS of the test cut: the mean over targets of each one's own."""
    ranks = Snapshot.open(workspace.table("evaluation_users")).to_arrow(
        ["run_id", "method", "cut", "rank", "popularity", "same_day"]
    )
    ranks = ranks.filter(pc.equal(ranks["cut"], "test"))
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


def _interval(values: Sequence[float]) -> str:
    mean, low, _ = over_seeds(values)
    return _four(mean) if low is None else f"{_four(mean)} ± {_four(mean - low)}"


def _four(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.4f}".replace("0.", ".", 1)


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    print(f"\n| {' | '.join(head)} |\n|---|{'---:|' * (len(head) - 1)}")
    for row in rows:
        print(f"| {' | '.join(row)} |")
    print(flush=True)


if __name__ == "__main__":
    main()
