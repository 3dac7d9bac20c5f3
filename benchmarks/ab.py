"""Does the experiment report keep its promises over thousands of simulated experiments, and how fast does it read logs?

    make bench-ab
    make bench-ab ARGS="--experiments 10000 --log-users 1000000"

Simulated experiments whose truth is known (learn_spark/ads/experiments/simulate.py): without an effect, how often p is
below alpha (false alarms), by the user as the unit and, beside it, by the exposure as the unit; with one, how often an
interval holds the truth, how far the mean estimate is from it, and how often it is found; all without and with CUPED.
Then a log in Parquet goes through the whole command: rows a second, and the process's peak memory.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from learn_spark.ads.experiments.cuped import coefficients
from learn_spark.ads.experiments.lift import contrast, effect
from learn_spark.ads.experiments.metrics import METRICS
from learn_spark.ads.experiments.moments import SUMS, WIDTH, Moments
from learn_spark.ads.experiments.simulate import simulated_log, simulated_users

SECONDS_BETWEEN_LINES = 10.0
TOLD = ("revenue_per_user", "conversion_rate")  # a mean and a ratio; the planted lift is that of both
NONE = np.zeros(WIDTH)
ALPHA = 0.05


def main(arguments: list[str]) -> int:
    """Run all, print one line of JSON."""
    parser = argparse.ArgumentParser(prog="make bench-ab", description=__doc__)
    parser.add_argument("--experiments", type=int, default=4000, help="0: none")
    parser.add_argument("--users", type=int, default=1000, help="of a simulated experiment")
    parser.add_argument("--lift", type=float, default=0.1)
    parser.add_argument("--log-users", type=int, default=100_000, help="0: no log")
    parser.add_argument("--bootstrap-samples", type=int, default=1000, help="of the log's report")
    parser.add_argument("--repeats", type=int, default=1, help="of the log's report; the best counts")
    parser.add_argument("--make-log", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.make_log:
        make_log(options.make_log, options.log_users)
        return 0
    figures: dict[str, Any] = {
        "benchmark": "ab",
        "experiments": options.experiments,
        "users": options.users,
        "cores": os.cpu_count(),
    }
    if options.experiments:
        figures["aa"] = simulate(options.experiments, options.users, 0.0)
        figures["ab"] = {"lift": options.lift, **simulate(options.experiments, options.users, options.lift)}
    if options.log_users:
        figures["log"] = read_a_log(options.log_users, options.bootstrap_samples, options.repeats)
    print(json.dumps(figures))
    return 0


def simulate(experiments: int, users: int, lift: float) -> dict[str, dict[str, float]]:
    """By metric, shares of experiments: found at ALPHA, truth in the interval; the mean estimate; with CUPED too."""
    counts: dict[str, dict[str, list[float]]] = {
        name: {key: [] for key in ("found", "found_cuped", "held", "held_cuped", "lift", "lift_cuped", "variance_kept")}
        for name in TOLD
    }
    naive = []
    told = time.monotonic()
    for number in range(experiments):
        sums, treated, _ = simulated_users(users, seed=number, lift=lift)
        arms = Moments.of(sums[~treated]), Moments.of(sums[treated])
        for name in TOLD:
            one = counts[name]
            error = []
            for suffix, theta in (("", NONE), ("_cuped", coefficients(*arms, METRICS[name]))):
                found = effect(contrast(*arms, METRICS[name], theta), ALPHA)
                assert found.lift is not None
                assert found.lift_low is not None
                one[f"found{suffix}"].append(found.p < ALPHA)
                one[f"held{suffix}"].append(
                    found.lift_low <= lift <= (math.inf if found.lift_high is None else found.lift_high)
                )
                one[f"lift{suffix}"].append(found.lift)
                error.append(found.standard_error)
            one["variance_kept"].append((error[1] / error[0]) ** 2)
        naive.append(by_exposures(sums, treated) < ALPHA)
        if time.monotonic() - told > SECONDS_BETWEEN_LINES:
            told = time.monotonic()
            print(f"{number + 1:,} of {experiments:,} experiments", file=sys.stderr, flush=True)
    means = {
        name: {key: round(float(np.mean(values)), 4) for key, values in one.items()} for name, one in counts.items()
    }
    return {**means, "conversion_rate, exposures as the unit": {"found": round(float(np.mean(naive)), 4)}}


def by_exposures(sums: np.ndarray, treated: np.ndarray) -> float:
    """p of the conversion rates by a test that takes exposures for independent: why the user is the unit."""
    shown, taken = ([sums[chosen, at].sum() for chosen in (~treated, treated)] for at in map(SUMS.index, SUMS[:2]))
    rate = sum(taken) / sum(shown)
    error = math.sqrt(rate * (1 - rate) * (1 / shown[0] + 1 / shown[1]))
    return math.erfc(abs(taken[1] / shown[1] - taken[0] / shown[0]) / error / math.sqrt(2))


def make_log(path: Path, users: int) -> None:
    """A simulated log in one Parquet file."""
    import pyarrow.parquet as pq

    pq.write_table(simulated_log(users, seed=0, lift=0.05), path)


def read_a_log(users: int, samples: int, repeats: int) -> dict[str, float]:
    """The whole report over a simulated log: rows, seconds without Spark's start, rows a second, and peak memory."""
    import pyarrow.parquet as pq

    from learn_spark.ads.experiments import ab_report
    from learn_spark.ads.experiments.configure import settings_of
    from learn_spark.core.console import Reporter
    from learn_spark.core.settings.platform import SparkSettings
    from learn_spark.core.tables.session import start_session

    with tempfile.TemporaryDirectory(prefix="bench-ab-") as folder:
        log = Path(folder) / "log.parquet"
        # In a process of its own: its memory is not the report's.
        made = [sys.executable, "-m", "benchmarks.ab", "--make-log", str(log), "--log-users", str(users)]
        subprocess.run(made, check=True)
        rows = pq.ParquetFile(log).metadata.num_rows
        spark = start_session(SparkSettings(), app="bench-ab", log_file=Path(folder) / "spark.log")
        settings = settings_of(
            str(log),
            [
                f"workspace={folder}/workspace",
                f"bootstrap_samples={samples}",
                "cohorts={device: {by: \"context['device']\"}, items: {history: item}}",
            ],
        )
        seconds = []
        for _ in range(repeats):
            before = time.monotonic()
            ab_report.run(settings, Reporter(quiet=True), spark=spark)
            seconds.append(time.monotonic() - before)
        spark.stop()
    return {
        "users": users,
        "rows": rows,
        "bootstrap_samples": samples,
        "seconds": round(min(seconds), 1),
        "rows_per_s": round(rows / min(seconds)),
        "peak_python_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
