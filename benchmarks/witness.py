"""Independent witnesses: RecTools' SASRec and HSTU on the very histories of a workspace, ranked by our rule.

    make bench-witness ARGS="movielens --epochs 20 40 60"
    make bench-witness ARGS="beauty --epochs 5 10 15 --only sasrec --set source.path=DIR"

They learn every event before the test target (the validation event too, as a tower with training.refit), rank the
catalogue whole, and are scored as ours are: history masked, ties by half. RecTools has its own environment, --peers.
Nothing is tuned: SASRec has the recipe of eSASRec's authors (arXiv 2508.06450: 64 wide, 1 block, 1 head, dropout .2,
256 negatives, sampled softmax, rate 1e-3), HSTU the same sizes and 2 blocks. One training goes to the last of --epochs,
and is scored after each of them: a curve on the test split, by which nothing is chosen. An item that only the test
target knows is ranked by neither, and counts as last. They learn from users with a test target alone.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.train import install_peers
from learn_spark.core.settings import load_settings
from learn_spark.core.tables.snapshot import Snapshot
from learn_spark.core.tables.workspace import Workspace
from learn_spark.data.splits.split import Split, split_histories
from learn_spark.model.scoring.metrics import summarise
from learn_spark.model.scoring.ranks import ranks_in

UNRANKED = -1e30  # in place of -inf, whose differences are no numbers
SHARED = {"n_factors": 64, "n_heads": 1, "dropout_rate": 0.2, "lr": 1e-3, "batch_size": 128}
RECIPES = {
    "sasrec": {**SHARED, "n_blocks": 1, "loss": "sampled_softmax", "n_negatives": 256},
    "hstu": {**SHARED, "n_blocks": 2, "loss": "sampled_softmax", "n_negatives": 256},
}


def main() -> None:
    """Train the witnesses and print a line of JSON each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", help="Settings of a workspace whose histories stand.")
    parser.add_argument("--epochs", type=int, nargs="+", required=True, help="After which to score.")
    parser.add_argument("--only", choices=list(RECIPES), default=None)
    parser.add_argument("--no-times", action="store_true", help="HSTU without its attention over times.")
    parser.add_argument("--seed", type=int, default=2024)
    parser.add_argument("--peers", type=Path, default=Path("var/peers-train"))
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    arguments = parser.parse_args()
    settings = load_settings(arguments.config, arguments.overrides)
    workspace = Workspace.open(settings.workspace)
    histories = Snapshot.open(workspace.table("user_histories")).to_arrow()
    n_items = int(max(Snapshot.open(workspace.table("item_index")).to_arrow()["item_index"].to_numpy()))
    cut = split_histories(histories, "test")
    python = install_peers(arguments.peers)
    for name in [arguments.only] if arguments.only else list(RECIPES):
        with tempfile.TemporaryDirectory() as made:
            folder = Path(made)
            _write(cut, n_items, folder / "histories.npz")
            own = {**RECIPES[name], "session_max_len": settings.objective.history, "seed": arguments.seed}
            if name == "hstu":
                # In training a target's time is known, in ranking that of the last event alone.
                own["relative_time_attention"] = not arguments.no_times
            peer = [str(python), str(Path(__file__).with_name("witness_peer.py")), str(folder), "--model", name]
            peer += ["--settings", json.dumps(own), "--epochs", *map(str, sorted(arguments.epochs))]
            for told in _scored(peer):
                ranks = _ranks(np.load(folder / "scores.npy", mmap_mode="r", allow_pickle=False), cut)
                found = summarise(ranks, [10, 100], cut.every_target.offsets)
                print(json.dumps({"witness": name, "seed": arguments.seed, **told, **found}), flush=True)


def _scored(command: list[str]) -> Iterator[dict[str, Any]]:
    """What the peer tells each time that its scores lie there; it goes on when the next is asked for."""
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as peer:
        assert peer.stdin is not None
        assert peer.stdout is not None
        for line in peer.stdout:
            if line.startswith("{"):
                yield json.loads(line)
                peer.stdin.write("\n")
                peer.stdin.flush()
    if peer.returncode:
        raise SystemExit(f"{' '.join(command[1:3])} ended with {peer.returncode}")


def _write(cut: Split, n_items: int, path: Path) -> None:
    inside = np.arange(cut.items.shape[1]) < cut.lengths[:, None]
    offsets = np.concatenate([[0], np.cumsum(cut.lengths)])
    items = cut.items[inside].astype(np.int64) - 1
    np.savez(path, items=items, times=cut.times[inside], offsets=offsets, n_items=np.int64(n_items))


def _ranks(scores: np.ndarray, cut: Split) -> np.ndarray:
    """Ranks [T] by the rule of retrieval/ranks.py, from scores [B, N]."""
    every = cut.every_target
    found = np.empty(len(every.positions))
    for user in range(len(scores)):
        own = slice(every.offsets[user], every.offsets[user + 1])
        targets = every.positions[own]
        row = np.maximum(scores[user].astype(np.float64), UNRANKED)
        wanted = row[targets]
        row[np.setdiff1d(cut.seen[user], targets)] = 2 * UNRANKED
        found[own] = np.where(wanted <= UNRANKED, len(row), ranks_in(np.tile(row, (len(targets), 1)), targets))
    return found


if __name__ == "__main__":
    main()
