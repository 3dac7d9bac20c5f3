"""Where does the time of a small run go: session, tables, landing, merges, gates; and of a run with nothing to do?

    make bench-fixed_costs                                  the quickstart's ingest, then the same run again
    make bench-fixed_costs ARGS="--earlier ../earlier"      beside another checkout, in turn, with ratios
    make bench-fixed_costs ARGS="--stages ingest,item_text,histories --rounds 3"

Each run is a process of its own, the first in a fresh workspace. CPU seconds are those of the process and all below it,
the JVM among them; a phase leaves out the phases inside it, and its third figure is its Spark jobs. On a shared machine
compare CPU seconds, and ratios.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
# These modules are of this checkout, the package that is measured may be of another.
sys.path.insert(0, str(ROOT))

from benchmarks.clock import OUTSIDE, REST, Clock, cpu_seconds  # noqa: E402

sys.path.remove(str(ROOT))


def run_here(workspace: str, stages: list[str]) -> None:
    """Run the stages in this process; print one line of JSON."""
    clock = Clock()
    with clock.phase(REST):
        with clock.phase("imports"):
            from learn_spark.commands.app import quiet_environment

            quiet_environment(False)
            from learn_spark.core.console import Reporter
            from learn_spark.core.settings import load_settings
            from learn_spark.pipeline.runner import run_stages

            clock.watch_all()
        settings = load_settings("quickstart", [f"workspace={workspace}"])
        outcomes = run_stages(stages, settings, console=Reporter(quiet=True))
    print(
        json.dumps(
            {
                "stages": {outcome.stage.name: round(outcome.run.seconds, 1) for outcome in outcomes},
                "phases": {name: [round(n, 2) for n in seconds] for name, seconds in clock.phases[OUTSIDE].items()},
            }
        )
    )


def measure(checkout: Path, stages: str) -> dict[str, Any]:
    """Phases of a fresh run with a checkout's code; [wall, CPU] seconds of all phases, and of the same run again."""
    with tempfile.TemporaryDirectory(prefix="bench-fixed-costs-") as folder:
        again = (
            f"import sys; sys.argv = ['learn-spark', 'run', 'quickstart', '--set', 'workspace={folder}', '--set', "
            f"'pipeline.stages=[{stages}]']; from learn_spark.commands.main import main; main()"
        )
        first = _output(checkout, str(Path(__file__).resolve()), "--run-in", folder, "--stages", stages)
        figures: dict[str, Any] = json.loads(first.splitlines()[-1])
        figures["run"] = [round(sum(seconds[n] for seconds in figures["phases"].values()), 2) for n in range(2)]
        wall, cpu = time.monotonic(), cpu_seconds()
        second = _output(checkout, "-c", again)
        figures["again"] = [round(time.monotonic() - wall, 2), round(cpu_seconds() - cpu, 2)]
        if "running:" in second:
            raise RuntimeError(f"the second run had something to do:\n{second}")
    return figures


def _output(checkout: Path, *arguments: str) -> str:
    """What this Python prints with the package of a checkout."""
    environment = os.environ | {"PYTHONPATH": str(checkout)}
    done = subprocess.run(
        [sys.executable, *arguments], stdout=subprocess.PIPE, text=True, env=environment, cwd=checkout, check=True
    )
    return done.stdout


def main(arguments: list[str]) -> int:
    """Measure, print one line of JSON: of each checkout the medians of all rounds, and the ratios of CPU seconds."""
    parser = argparse.ArgumentParser(prog="make bench-fixed_costs", description=__doc__)
    parser.add_argument("--stages", default="ingest", help="stages of the quickstart, with commas between them")
    parser.add_argument("--earlier", type=Path, help="folder of another checkout")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--run-in", help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    if chosen.run_in:
        run_here(chosen.run_in, chosen.stages.split(","))
        return 0
    checkouts = {"now": ROOT} | ({"earlier": chosen.earlier.resolve()} if chosen.earlier else {})
    rounds = [{name: measure(path, chosen.stages) for name, path in checkouts.items()} for _ in range(chosen.rounds)]
    figures: dict[str, Any] = {
        "benchmark": "fixed_costs",
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
    }
    for name in checkouts:
        figures[name] = _median([measured[name] for measured in rounds])
    if chosen.earlier:
        figures["cpu_ratio"] = {
            name: round(figures["now"][name][1] / figures["earlier"][name][1], 2) for name in ("run", "again")
        }
    print(json.dumps(figures))
    return 0


def _median(measured: list[Any]) -> Any:
    """The medians of numbers at the same place in several trees of dicts and lists."""
    if isinstance(measured[0], dict):
        return {name: _median([tree[name] for tree in measured]) for name in measured[0]}
    if isinstance(measured[0], list):
        return [_median([tree[n] for tree in measured]) for n in range(len(measured[0]))]
    return round(statistics.median(measured), 2)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
