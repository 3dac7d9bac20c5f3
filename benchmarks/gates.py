"""What do the gates cost beside the jobs they guard?

    make bench-gates                          5 million events
    make bench-gates ARGS="--events 1e6"      a quick look
    make bench-gates ARGS="--alone 300"       the fixed cost of a gate: a profile of eight numbers, 300 times, no Spark

Ingests a generated skewed log (Parquet, described by settings) and assembles histories, as ``learn-spark ingest`` and
``learn-spark histories`` do. The gates run inside the stages; then each table's gate is run once more, alone and timed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.histories import generate
from learn_spark.core.console import Reporter
from learn_spark.core.quality.gate import Rule, evaluate_rules
from learn_spark.core.quality.table_gate import TableGate
from learn_spark.core.settings import load_settings
from learn_spark.core.tables.runs import new_run_id
from learn_spark.core.tables.session import start_session
from learn_spark.core.tables.workspace import Workspace
from learn_spark.pipeline.runner import run_stages

GUARDS = {"ingest": ("items", "item_index", "interactions"), "histories": ("user_histories",)}


def gates_alone(gates: int) -> dict[str, object]:
    """Seconds of a gate of eight rules in one folder that ages: the first, then early and late ones (medians)."""
    rules = [Rule(f"measure_{n}", 0, 10, "any") for n in range(8)]
    profile: dict[str, float | None] = {rule.measure: 5.0 for rule in rules}
    evaluated, written = [], []
    with tempfile.TemporaryDirectory(prefix="bench-gates-") as root:
        for n in range(gates):
            started = time.monotonic()
            report = evaluate_rules(f"table_{n % 4}", profile, rules, Path(root), title=f"table_{n % 4} @ {n}")
            judged = time.monotonic()
            report.write_docs()
            evaluated.append(judged - started)
            written.append(time.monotonic() - judged)
    figures: dict[str, object] = {"benchmark": "gates", "gates": gates, "cores": os.cpu_count()}
    for name, seconds in (("evaluate", evaluated), ("data_docs", written)):
        figures[name] = {
            "first": round(seconds[0], 3),
            "second_to_tenth": round(statistics.median(seconds[1:10]), 3),
            "last_ten": round(statistics.median(seconds[-10:]), 3),
        }
    return figures


def main(arguments: list[str]) -> int:
    """Run all, print one line of JSON."""
    parser = argparse.ArgumentParser(prog="make bench-gates", description=__doc__)
    parser.add_argument("--events", type=float, default=5e6)
    parser.add_argument("--alone", type=int, metavar="GATES")
    chosen = parser.parse_args(arguments)
    if chosen.alone:
        print(json.dumps(gates_alone(chosen.alone)))
        return 0
    events = int(chosen.events)
    with tempfile.TemporaryDirectory(prefix="bench-gates-") as root:
        raw = Path(root) / "raw"
        raw.mkdir()
        source = {
            "format": "files",
            "path": str(raw),
            "time_unit": "iso",
            "items": {
                "files": "index/*.parquet",
                "format": "parquet",
                "columns": {"item_id": "item_id", "title": "item_id"},
            },
            "events": {
                "files": "log/*.parquet",
                "format": "parquet",
                "columns": {n: n for n in ("event_id", "user_id", "item_id", "event_type", "value", "event_time")},
            },
        }
        changes = [f"workspace={root}/workspace", "histories.max_length=256", "histories.rows_per_file=65536"]
        settings = load_settings("learn", [*changes, f"source={json.dumps(source)}"])
        session = start_session(settings.spark, app="bench-gates", log_file=Path(root) / "spark.log")
        generate(session, raw, events, 0.0)
        # The imports of Great Expectations are paid once a process, not once a gate.
        import great_expectations  # noqa: F401

        outcomes = run_stages(list(GUARDS), settings, console=Reporter(quiet=True))
        workspace = Workspace.open(settings.workspace)
        gate = TableGate(workspace, settings.quality, lambda: session)
        figures: dict[str, object] = {"benchmark": "gates", "events": events, "cores": os.cpu_count()}
        for outcome in outcomes:
            seconds = 0.0
            for table in GUARDS[outcome.stage.name]:
                started = time.monotonic()
                gate.evaluate(table, gate.newest(table), new_run_id())
                seconds += time.monotonic() - started
            whole = outcome.run.seconds
            figures[outcome.stage.name] = {
                "stage_seconds": round(whole, 1),
                "gate_seconds": round(seconds, 1),
                "gate_share": round(seconds / whole, 3),
                "events_per_s": round(events / whole),
            }
        session.stop()
    print(json.dumps(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
