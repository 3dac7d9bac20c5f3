"""Does a road that is killed again and again end with what an unbroken road ends with?

    make bench-chaos ARGS="--folder /tmp/chaos --kills 100"                  in a folder
    make bench-chaos ARGS="--folder /tmp/chaos-s3 --store s3 --kills 100"    in the tests' S3 server, behind a proxy
    make bench-chaos ARGS="--folder /tmp/chaos-hdfs --store hdfs --kills 30"

A tiny shop goes the whole road, from ingest to the report, twice: with its first files, and with a delivery that
corrects earlier orders. The same is done again with kills (SIGKILL), drawn by the number of the road: of all processes
of a run at once, or of its driver, its Java process or a worker alone; after a time, or at a change of the store and
the milliseconds after it. The command is repeated until it succeeds. Then every table, the model, the index, rankers
and the released vectors are compared with those of the unbroken road.

``--of SETTINGS`` runs ``--stages`` on copies of a finished workspace in a folder, in place of the shop's road.

Each road is a line of FOLDER/roads.jsonl; a benchmark that is started again goes on with the next road. The last line
printed is JSON: roads, kills, roads with losses or wrong results, seconds lost by a kill, kills by stage and victim.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.chaos_content import content, differences
from benchmarks.chaos_kills import SIGNALS, VICTIMS, Attempt, Child, await_end, draw, run_killed, start
from benchmarks.chaos_shop import DELIVERIES, PROGRAM, deliver, run_arguments, write_chaos_settings, write_encoder
from benchmarks.chaos_stores import Store, open_store
from benchmarks.chaos_warm import Warm, warm_process
from learn_spark.core.settings import load_settings
from learn_spark.core.storage.path import StoragePath
from learn_spark.core.tables.workspace import Workspace

MOST_FAILURES = 4  # runs in a row that fail without a kill of their own
# A signal of ``--victims signals``: the exit code, and what the last line says.
ENDINGS = {
    "terminated": (143, "stopped by SIGTERM; run the same command again to continue"),
    "group terminated": (143, "stopped by SIGTERM; run the same command again to continue"),
    "interrupted": (130, "stopped; run the same command again to continue"),
}
LONGEST_ENDING = 10.0  # seconds


@dataclass(frozen=True)
class Origin:
    """A finished workspace: roads begin on copies of it, with its settings and ``overrides``."""

    settings: Path
    overrides: list[str]

    def copy_to(self, place: StoragePath) -> None:
        """Copy the workspace, without its locks."""
        workspace = load_settings(str(self.settings), self.overrides).workspace
        shutil.copytree(workspace, place.local, ignore=shutil.ignore_patterns("locks"))


class Road:
    """One shop with its workspace: every delivery, until its run succeeds."""

    def __init__(
        self, folder: Path, store: Store, origin: Origin | Path, chance: random.Random, warm: Warm | None = None
    ) -> None:
        self.folder, self.store, self.chance, self.warm = folder, store, chance, warm
        self.attempts: list[Attempt] = []
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        store.place.remove()
        self.overrides = list(store.overrides)
        if isinstance(origin, Origin):
            origin.copy_to(store.place)
            self.settings, self.deliveries = origin.settings, 1
            self.overrides += [*origin.overrides, f"workspace={store.place}"]
        else:
            raw = folder / "raw"
            self.settings = write_chaos_settings(folder / "shop.yaml", raw, str(store.place), origin)
            self.deliveries = DELIVERIES
        self.shop = not isinstance(origin, Origin)

    def go(self, kills: int = 0, seconds: float = 0.0, victims: Mapping[str, int] = VICTIMS) -> str | None:
        """Run every delivery, with so many kills of runs that would take ``seconds``; a fault, or None."""
        for delivery in range(self.deliveries):
            if self.shop:
                deliver(self.folder / "raw", delivery)
            most, failures = kills * (delivery + 1) // self.deliveries, 0
            while True:
                kills_left = most - sum(one.killed for one in self.attempts)
                attempt = self._run(draw(self.chance, seconds, victims) if kills_left > 0 else None)
                failures = 0 if attempt.killed or attempt.code == 0 else failures + 1
                fault = _badly_ended(attempt)
                if fault or attempt.last == "hangs" or failures == MOST_FAILURES:
                    return f"delivery {delivery}, stage {attempt.stage}: {fault or attempt.last}"
                if attempt.code == 0:
                    break
        left = [attempt.session for attempt in self.attempts if not await_end(attempt.session)]
        return f"processes of the sessions {left} are still there" if left else None

    def _run(self, kill: Any) -> Attempt:
        log = self.folder / "output.log"
        arguments = run_arguments(self.settings, *self.overrides)

        def begin() -> Child:
            return self.warm.start(arguments, log) if self.warm else start([*PROGRAM, *arguments], log)

        attempt = run_killed(begin, log, kill, self.store, self.chance)
        self.attempts.append(attempt)
        print(f"  {attempt}", file=sys.stderr, flush=True)
        return attempt

    def content(self) -> dict[str, list[str]]:
        """What the workspace holds."""
        return content(Workspace.existing(self.store.place))


def _badly_ended(attempt: Attempt) -> str | None:
    """What is wrong with the end of a run that got a signal; None for nothing, and for other runs."""
    if not attempt.killed or attempt.kill is None or attempt.kill["victim"] not in SIGNALS or attempt.code == 0:
        return None
    victim, ending = attempt.kill["victim"], attempt.ending or 0.0
    if (attempt.code, attempt.last) != ENDINGS[victim] or ending > LONGEST_ENDING:
        return f"{victim}: exit code {attempt.code} after {ending} s: {attempt.last}"
    return None


def reference(
    folder: Path, store: Store, origin: Origin | Path, warm: Warm | None = None
) -> tuple[dict[str, list[str]], float]:
    """(content, seconds of a run) of an unbroken road in a store of its kind; made once a ``folder``."""
    file = folder / "reference.json"
    if not file.is_file():
        road = Road(folder / "unbroken", store, origin, random.Random(0), warm)
        fault = road.go()
        if fault is not None:
            raise SystemExit(f"the unbroken road fails: {fault}; see {road.folder}/output.log")
        seconds = [attempt.seconds for attempt in road.attempts]
        file.write_text(json.dumps({"content": road.content(), "seconds": seconds}), encoding="utf-8")
    known = json.loads(file.read_text(encoding="utf-8"))
    return known["content"], sum(known["seconds"])


def killed_road(
    number: int,
    folder: Path,
    store: Store,
    origin: Origin | Path,
    most: int,
    victims: Mapping[str, int],
    warm: Warm | None,
) -> dict[str, Any]:
    """The report of road ``number``, which has up to ``most`` kills."""
    expected, unbroken = reference(folder, store, origin, warm)
    chance = random.Random(number)
    road = Road(folder / "road", store, origin, chance, warm)
    fault = road.go(chance.randint(max(1, most // 2), most), unbroken / road.deliveries, victims)
    wrong = [] if fault else differences(expected, road.content())
    if fault or wrong:
        shutil.copytree(road.folder, folder / f"fault-{number}", dirs_exist_ok=True)
        if store.place.is_local:
            shutil.copytree(store.place.local, folder / f"fault-{number}" / "workspace", dirs_exist_ok=True)
    return {
        "road": number,
        "kills": sum(attempt.killed for attempt in road.attempts),
        "fault": fault,
        "wrong": wrong,
        "seconds": round(sum(attempt.seconds for attempt in road.attempts), 1),
        "unbroken": unbroken,
        "attempts": [asdict(attempt) for attempt in road.attempts],
    }


def summary(roads: list[dict[str, Any]]) -> dict[str, Any]:
    """Totals of the reports of roads."""
    killed = [attempt for road in roads for attempt in road["attempts"] if attempt["killed"]]
    lost = sum(road["seconds"] - road["unbroken"] for road in roads)
    return {
        "roads": len(roads),
        "runs": sum(len(road["attempts"]) for road in roads),
        "kills": len(killed),
        "roads that did not end": sum(road["fault"] is not None for road in roads),
        "roads with a wrong result": sum(bool(road["wrong"]) for road in roads),
        "seconds lost by a kill": round(lost / max(1, len(killed)), 1),
        "seconds of an unbroken road": roads[0]["unbroken"] if roads else None,
        "kills by stage": dict(Counter(attempt["stage"] for attempt in killed)),
        "kills by victim": dict(Counter(attempt["kill"]["victim"] for attempt in killed)),
        "at a change of the store": sum(attempt["kill"]["changes"] is not None for attempt in killed),
    }


def main(arguments: list[str]) -> int:
    """Kill until ``--kills`` are reached; 1 where a road did not end, or ended with something else."""
    parser = argparse.ArgumentParser(prog="make bench-chaos", description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="of the state; a second start goes on there")
    parser.add_argument("--store", choices=("folder", "s3", "hdfs"), default="folder")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--kills-of-a-road", type=int, default=12)
    parser.add_argument("--victims", choices=("kills", "signals"), default="kills", help="signals: SIGTERM and Ctrl-C")
    parser.add_argument("--warm", action="store_true", help="runs are forks, whose Java process goes on after a kill")
    parser.add_argument("--of", type=Path, help="settings of a finished workspace, in place of the shop")
    parser.add_argument("--stages", help="of --of: its stages, with commas; with --warm those that need no Spark")
    parser.add_argument("--set", action="append", default=[], help="of --of: a setting")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no road after so many")
    chosen = parser.parse_args(arguments)
    folder, began = chosen.folder.resolve(), time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    overrides = [*chosen.set, *([f"pipeline.stages=[{chosen.stages}]"] if chosen.stages else [])]
    origin = Origin(chosen.of.resolve(), overrides) if chosen.of else write_encoder(folder / "encoder")
    results = folder / "roads.jsonl"
    roads = [json.loads(line) for line in results.read_text(encoding="utf-8").splitlines()] if results.exists() else []
    victims = VICTIMS if chosen.victims == "kills" else dict.fromkeys(SIGNALS, 1)
    with ExitStack() as stack:
        store = stack.enter_context(open_store(chosen.store, folder / "store"))
        warm = None
        if chosen.warm:
            settings = None
            if isinstance(origin, Path):
                settings = write_chaos_settings(folder / "warm.yaml", folder / "raw", str(store.place), origin)
            warm = stack.enter_context(warm_process(settings, store.overrides, folder / "warm.log"))
            victims = {"driver": 1}
        while sum(road["kills"] for road in roads) < chosen.kills and time.monotonic() - began < 60 * chosen.minutes:
            roads.append(killed_road(len(roads) + 1, folder, store, origin, chosen.kills_of_a_road, victims, warm))
            with results.open("a", encoding="utf-8") as file:
                file.write(json.dumps(roads[-1]) + "\n")
            print(json.dumps(summary(roads)), file=sys.stderr, flush=True)
    total = summary(roads)
    print(json.dumps({"benchmark": "chaos", "store": chosen.store, "warm": chosen.warm, **total}))
    return 1 if total["roads that did not end"] or total["roads with a wrong result"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
