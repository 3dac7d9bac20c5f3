"""What does a small day cost: 82 orders and 3 products into a shop of 300 products and 15,000 orders?

    make bench-daily                                 the first load, then two days; each run is a process of its own
    make bench-daily ARGS="--days 5 --without-keys"  without event_id and updated_at
    make bench-daily ARGS="--days 3 --corrections"   days with corrections and orders that wait
    make bench-daily ARGS="--code ../earlier"        with the code of another checkout

A day runs ingest, item_text, embed_items, histories, publish and export_index; the first load trains too, which is
not counted. A stage has wall and CPU seconds (of the process and all below it, the JVM among them), Spark jobs,
commits, and wall seconds by phase, each without the others. ``planning`` is the time in which Python waited for the
JVM and no Spark job ran, in whatever phase. On a shared machine compare CPU seconds and jobs.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
# These modules are of this checkout, the package that is measured may be of another.
sys.path.insert(0, str(ROOT))

from benchmarks.clock import OUTSIDE, Clock, cpu_seconds  # noqa: E402
from benchmarks.shop import add_corrections, add_day, open_shop, write_settings  # noqa: E402

sys.path.remove(str(ROOT))

DAY = "ingest,item_text,embed_items,histories,publish,export_index"
FIRST = "ingest,item_text,embed_items,histories,train,evaluate,publish,export_index"
NOT_COUNTED = ("train", "evaluate")


def run_here(config: str, stages: list[str]) -> None:
    """Run the stages in this process; print one line of JSON."""
    start, clock = time.monotonic(), Clock()
    with clock.phase("imports"):
        from learn_spark.commands.app import quiet_environment

        quiet_environment(False)
        from learn_spark.core.console import Reporter
        from learn_spark.core.settings import load_settings
        from learn_spark.pipeline import runner

        clock.watch_all()
    settings, commits = load_settings(config), {}
    run_stage = runner._run_stage

    def measured(stage: Any, *arguments: Any, **options: Any) -> Any:
        with clock.stage(stage.name):
            before = _commits(Path(settings.workspace))
            outcome = run_stage(stage, *arguments, **options)
            commits[stage.name] = _commits(Path(settings.workspace)) - before
            return outcome

    runner._run_stage = measured
    outcomes = runner.run_stages(stages, settings, console=Reporter(quiet=True))
    report: dict[str, Any] = {
        "seconds": round(time.monotonic() - start, 1),
        "cpu": round(cpu_seconds(), 1),
        "outside": {name: round(figures[0], 2) for name, figures in clock.phases[OUTSIDE].items()},
        "stages": {},
    }
    for name, phases in clock.phases.items():
        if name != OUTSIDE:
            waited, jobs = clock.waited[name]
            report["stages"][name] = {
                "seconds": round(sum(figures[0] for figures in phases.values()), 2),
                "cpu": round(sum(figures[1] for figures in phases.values()), 2),
                "jobs": round(sum(figures[2] for figures in phases.values())),
                "commits": commits[name],
                "planning": round(max(0.0, waited - jobs), 2),
                "phases": {phase: [round(n, 2) for n in figures] for phase, figures in phases.items()},
            }
    report["up_to_date"] = [outcome.stage.name for outcome in outcomes if outcome.up_to_date]
    print(json.dumps(report))


def _commits(workspace: Path) -> int:
    """Number of commits of all tables of the workspace."""
    return sum(1 for _ in workspace.glob("tables/*/_delta_log/*.json"))


def measure(code: Path, config: Path, stages: str) -> dict[str, Any]:
    """The report of a run of the stages in a process of its own, with a checkout's code; its [wall, CPU] in ``run``."""
    wall = time.monotonic()
    done = subprocess.run(
        [sys.executable, str(Path(__file__).resolve()), "--run-in", str(config), "--stages", stages],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(code)},
        cwd=code,
        check=True,
    )
    report: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    trained = [report["stages"].get(name, {"seconds": 0.0, "cpu": 0.0}) for name in NOT_COUNTED]
    report["run"] = [
        round(time.monotonic() - wall - sum(stage["seconds"] for stage in trained), 1),
        round(report["cpu"] - sum(stage["cpu"] for stage in trained), 1),
    ]
    return report


def show(title: str, report: dict[str, Any]) -> None:
    """Print the stages of a report as a table, on standard error."""
    phases = list(dict.fromkeys(name for stage in report["stages"].values() for name in stage["phases"]))
    print(f"\n{title}: {report['run'][0]} s, {report['run'][1]} CPU s without training", file=sys.stderr)
    print(" | ".join(["stage", "s", "CPU s", "jobs", "commits", "planning", *phases]), file=sys.stderr)
    for name, stage in report["stages"].items():
        cells = [f"{stage['phases'][phase][0]:.1f}" if phase in stage["phases"] else "" for phase in phases]
        figures = [stage[key] for key in ("seconds", "cpu", "jobs", "commits", "planning")]
        print(" | ".join([name, *map(str, figures), *cells]), file=sys.stderr, flush=True)


def main(arguments: list[str]) -> int:
    """Measure the first load and the days; print one line of JSON."""
    parser = argparse.ArgumentParser(prog="make bench-daily", description=__doc__)
    parser.add_argument("--days", type=int, default=2)
    parser.add_argument("--without-keys", action="store_true", help="map neither event_id nor updated_at")
    parser.add_argument("--corrections", action="store_true", help="days with corrections and orders that wait")
    parser.add_argument("--code", type=Path, default=ROOT, help="folder of another checkout")
    parser.add_argument("--keep", type=Path, help="an empty folder for the shop, which is kept")
    parser.add_argument("--run-in", help=argparse.SUPPRESS)
    parser.add_argument("--stages", help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    if chosen.run_in:
        run_here(chosen.run_in, chosen.stages.split(","))
        return 0
    with tempfile.TemporaryDirectory(prefix="bench-daily-") as temporary:
        folder = (chosen.keep or Path(temporary)).resolve()
        config, raw, code = folder / "shop.yaml", folder / "raw", chosen.code.resolve()
        open_shop(raw)
        write_settings(config, raw, folder / "workspace", with_keys=not chosen.without_keys)
        reports = {"first load": measure(code, config, FIRST)}
        show("first load", reports["first load"])
        for day in range(1, chosen.days + 1):
            add_day(raw, day)
            if chosen.corrections:
                add_corrections(raw, day)
            reports[f"day {day}"] = measure(code, config, DAY)
            show(f"day {day}", reports[f"day {day}"])
    print(
        json.dumps(
            {
                "benchmark": "daily",
                "with_keys": not chosen.without_keys,
                "corrections": chosen.corrections,
                "cores": os.cpu_count(),
                "load": round(os.getloadavg()[0], 1),
                **reports,
            }
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
