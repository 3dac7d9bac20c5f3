"""What do the gates cost beside the jobs they guard?

    make bench-gates                          5 million events
    make bench-gates ARGS="--events 1e6"      a quick look

Ingests a generated skewed log (Parquet, described by settings) and assembles histories, as ``learn-spark ingest`` and
``learn-spark histories`` do. The gates run inside the stages; then each table's gate is run once more, alone and timed.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.histories import generate
from learn_spark.core.console import Reporter
from learn_spark.core.quality.table_gate import TableGate
from learn_spark.core.settings import load_settings
from learn_spark.core.tables.lineage import new_run_id
from learn_spark.core.tables.session import start_session
from learn_spark.core.tables.workspace import Workspace
from learn_spark.pipeline.runner import run_stages

GUARDS = {"ingest": ("items", "item_index", "interactions"), "histories": ("user_histories",)}


def main(arguments: list[str]) -> int:
    """Run all, print one line of JSON."""
    parser = argparse.ArgumentParser(prog="make bench-gates", description=__doc__)
    parser.add_argument("--events", type=float, default=5e6)
    events = int(parser.parse_args(arguments).events)
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
