"""Is a folder of daily files the same world whether ingested day by day, in any order and grouping, or all at once?

    make bench-days ARGS="--folder data/online-retail/daily"

ingests the folder three times, each into a workspace of its own: file by file in the order of their names; in random
groups in random order, with every tenth file delivered again; all at once. Then it compares the tables by content.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

from learn_spark.core.console import Reporter
from learn_spark.core.settings import Settings, load_settings
from learn_spark.core.tables.session import start_session
from learn_spark.core.tables.snapshot import Snapshot
from learn_spark.pipeline.runner import run_stages

COMPARED = {
    "items": None,
    "interactions": None,
    "quarantine": {"run_id"},
    "item_index": {"item_index"},
}


def main(arguments: list[str]) -> int:
    """0 if all three workspaces hold the same."""
    parser = argparse.ArgumentParser(prog="make bench-days", description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--config", default="online-retail")
    parser.add_argument("--files", type=int, default=None, help="only the first so many")
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args(arguments)
    files = sorted(path for path in chosen.folder.iterdir() if path.is_file())[: chosen.files]
    if not files:
        parser.error(f"there are no files in {chosen.folder}")
    chance = random.Random(chosen.seed)
    shuffled = chance.sample(files, len(files))
    groups: list[list[Path]] = []
    while shuffled:
        size = chance.randint(1, max(1, len(files) // 6))
        groups.append(shuffled[:size])
        shuffled = shuffled[size:]
    with tempfile.TemporaryDirectory(prefix="bench-days-") as root:
        worlds = {
            "all at once": [files],
            "random groups": groups,
            "day by day": [[file] for file in files],
        }
        settings = {
            name: load_settings(
                chosen.config,
                [
                    f"workspace={Path(root) / name.replace(' ', '-')}",
                    f"source.path={Path(root) / name.replace(' ', '-')}-raw",
                ],
            )
            for name in worlds
        }
        session = start_session(settings["all at once"].spark, app="bench-days", log_file=Path(root) / "spark.log")
        seconds = {}
        for name, deliveries in worlds.items():
            seconds[name] = _deliver(settings[name], deliveries, again=name == "random groups")
        session.stop()
        tables = {name: _content(settings[name]) for name in worlds}
        same = {
            table: all(tables[name][table] == tables["all at once"][table] for name in worlds) for table in COMPARED
        }
        daily = seconds["day by day"]
        print(
            json.dumps(
                {
                    "benchmark": "days",
                    "files": len(files),
                    "rows": {table: len(rows) for table, rows in tables["all at once"].items()},
                    "same": same,
                    "seconds_all_at_once": round(sum(seconds["all at once"]), 1),
                    "seconds_a_day_first_tenth": round(statistics.median(daily[: max(1, len(daily) // 10)]), 2),
                    "seconds_a_day_last_tenth": round(statistics.median(daily[-max(1, len(daily) // 10) :]), 2),
                    "groups": len(groups),
                    "cores": os.cpu_count(),
                }
            )
        )
    return 0 if all(same.values()) else 1


def _deliver(settings: Settings, deliveries: list[list[Path]], *, again: bool) -> list[float]:
    """Seconds of every delivery's ingest."""
    raw = Path(settings.source.path)
    raw.mkdir()
    seconds = []
    for number, files in enumerate(deliveries):
        for file in files:
            shutil.copy2(file, raw / file.name)
        if again:
            for file in sorted(raw.iterdir())[number % 10 :: 10]:
                os.utime(file)
        start = time.monotonic()
        run_stages(["ingest"], settings, console=Reporter(quiet=True))
        seconds.append(time.monotonic() - start)
        print(f"{len(seconds)}/{len(deliveries)}: {seconds[-1]:.1f} s", file=sys.stderr, flush=True)
    return seconds


def _content(settings: Settings) -> dict[str, list[str]]:
    found = {}
    for table, without in COMPARED.items():
        rows = Snapshot.open(str(Path(settings.workspace) / "tables" / table)).to_arrow()
        rows = rows.drop_columns(sorted(without)) if without else rows
        found[table] = sorted(map(repr, rows.to_pylist()))
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
