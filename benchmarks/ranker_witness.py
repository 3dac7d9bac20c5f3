"""An independent witness of the ads ranker without features: DCN-v2 by FuxiCTR, on the exposures of a workspace.

    make bench-ranker_witness ARGS="beauty-ads --set workspace=DIR"
    make bench-ranker_witness ARGS="beauty-ads --set workspace=DIR --seeds 2024 2025 2026 --batch 1024 --steps 50"

It reads what ``base`` of the newest ``rank_ads`` reads, computed here a second time, by numpy: user and item (an
embedding for each with two training exposures or more), hour and weekday, and running counts. Training, validation
and test are those of that run. FuxiCTR has its own environment, --peers: its embedding of all fields, cross layers,
MLP, loop, early stopping by AUC on validation, and metrics. Other options go to benchmarks/ranker_witness_peer.py.
It fits settings with an outcome lag of 0 and a release as of the first exposure.
Prints a line of JSON: AUC and log loss of each seed, beside those of ``base``.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from benchmarks.peers import make_environment
from learn_spark.ads.rankers.count_features import CountScaler
from learn_spark.ads.rankers.inputs import cyclic_time
from learn_spark.ads.rankers.metrics import ad_metric_rows
from learn_spark.ads.rankers.store import load_rankings, saved_by
from learn_spark.core.settings import load_settings
from learn_spark.core.tables.snapshot import Snapshot
from learn_spark.core.tables.workspace import Workspace

PEERS = ("fuxictr==2.3.10",)
PARTS = ("train", "validation", "test")
LEAST = 2  # training exposures that an id needs for an embedding: the default of ranking.min_count


def before(keys: np.ndarray, times: np.ndarray, values: np.ndarray) -> np.ndarray:
    """[n] the sum of the ``values`` of the same key at strictly earlier times."""
    order = np.lexsort((times, keys))
    keys, times, running = keys[order], times[order], np.cumsum(values[order])
    new_key = np.append(True, np.diff(keys) != 0)
    new_time = new_key | np.append(True, np.diff(times) != 0)
    starts = np.maximum.accumulate(np.where(new_time, np.arange(len(keys)), 0))
    firsts = np.maximum.accumulate(np.where(new_key, np.arange(len(keys)), 0))
    padded = np.append(0.0, running)
    result = np.empty(len(keys))
    result[order] = padded[starts] - padded[firsts]
    return result


def numbered(values: pa.ChunkedArray, training: np.ndarray) -> tuple[np.ndarray, int]:
    """([n], size) numbers from 1 on of values with LEAST training rows, 0 for all others."""
    codes = values.combine_chunks().dictionary_encode().indices.to_numpy()
    counts = np.bincount(codes[training], minlength=codes.max() + 1)
    numbers = np.where(counts >= LEAST, np.cumsum(counts >= LEAST), 0)
    return numbers[codes], int((counts >= LEAST).sum()) + 1


def rows_of(workspace: Workspace, validation_from: int, test_from: int) -> dict[str, np.ndarray]:
    """Ids, numbers and labels of the parts, for ranker_witness_peer."""
    rows = Snapshot.open(workspace.table("exposures")).to_arrow().filter(pc.field("weight") > 0)
    times = rows["event_time"].cast(pa.timestamp("us", "UTC")).cast(pa.int64()).to_numpy()
    label = rows["converted"].to_numpy().astype(np.float32)
    place = np.digitize(times, [validation_from, test_from])
    ids, counts = [], []
    events = Snapshot.open(workspace.table("interactions")).to_arrow(["user_id", "item_id", "event_time"])
    events = events.filter(pc.field("event_time") < pc.min(rows["event_time"]))
    of_release = []
    for key in ("item_id", "user_id"):
        code, size = numbered(rows[key], place == 0)
        ids.append((code, size))
        every = rows[key].combine_chunks().dictionary_encode().indices.to_numpy()
        counts += [before(every, times, np.ones(len(times))), before(every, times, label)]
        known = events[key].value_counts()
        known = dict(zip(known.field("values").to_pylist(), known.field("counts").to_pylist(), strict=True))
        of_release.append(np.array([known.get(one, 0) for one in rows[key].to_pylist()], dtype=float))
    inputs = torch.from_numpy(np.stack([*counts, *of_release], axis=1).astype(np.float32))
    scaler = CountScaler()
    scaler.fit(float(label[place == 0].mean()), lambda: iter([inputs[torch.from_numpy(place == 0)]]))
    numbers = np.concatenate([scaler(inputs).numpy(), cyclic_time(times)], axis=1)
    data = {"sizes": np.array([size for _, size in ids])}
    for number, part in enumerate(PARTS):
        at = place == number
        data |= {
            f"{part}_ids": np.stack([code[at] for code, _ in ids], axis=1),
            f"{part}_numbers": numbers[at],
            f"{part}_label": label[at],
        }
    return data


def main(arguments: list[str]) -> int:
    """Train the witness once a seed and print its metrics beside those of ``base``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", help="Settings of a workspace in which rank_ads has trained base.")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--peers", type=Path, default=Path("var/peers-ranker"))
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    chosen, options = parser.parse_known_args(arguments)
    settings = load_settings(chosen.config, chosen.overrides)
    workspace = Workspace.existing(settings.workspace)
    run_id, _ = saved_by(workspace, None)
    split = load_rankings(workspace, run_id, ["base"], settings.ranking.seeds).split
    data = rows_of(workspace, split.validation_from, split.test_from)
    python = make_environment(chosen.peers, PEERS, ("torch",))
    found = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        np.savez(folder / "rows.npz", **data)
        for seed in chosen.seeds:
            command = [str(python), str(Path(__file__).with_name("ranker_witness_peer.py"))]
            command += [str(folder / "rows.npz"), "--seed", str(seed), *options]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            found.append({"seed": seed, **json.loads(done.stdout.splitlines()[-1])})
            print(found[-1], file=sys.stderr, flush=True)
    base = {
        f"{row.metric}, seed {row.seed}": round(row.value, 4)
        for row in ad_metric_rows(workspace, run_id)
        if row.variant == "base" and row.dimension == "all" and row.seed and row.value and row.against is None
    }
    rows = {part: len(data[f"{part}_label"]) for part in PARTS}
    print(json.dumps({"benchmark": "ranker_witness", "rows": rows, "FuxiCTR": found, "base": base}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
