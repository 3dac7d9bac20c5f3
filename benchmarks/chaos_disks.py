"""What does a road do on a disk that fills up, and on one that turns read-only? Needs the right to mount (root).

    make bench-chaos_disks ARGS="--folder /tmp/chaos-disks"

The shop of benchmarks.chaos has its workspace in a file system in memory (tmpfs). ``full``: that has few KiB at first,
and ``STEP`` more each time that a run fails. ``read-only``: while a run works it is turned read-only, at a random time,
and back when the run has ended. Each failed run must end with exit code 1 and the sentence about the disk; the last run
must leave what an unbroken road leaves. Runs are forks of a warm process (benchmarks.chaos_warm), whose logs are
elsewhere. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.chaos import Road, reference
from benchmarks.chaos_content import differences
from benchmarks.chaos_kills import LONGEST_RUN, where_it_ended
from benchmarks.chaos_shop import DELIVERIES, deliver, run_arguments, write_chaos_settings, write_encoder
from benchmarks.chaos_stores import open_store
from benchmarks.chaos_warm import warm_process

SENTENCES = {"full": "error: the disk is full", "read-only": "error: the file system is read-only"}
MOST_RUNS, TURNED = 60, 4  # failed runs of a road; of a delivery on a disk that turns read-only
STEP = 200  # KiB
LATEST = 40.0  # seconds from the start of a run to the moment at which its disk turns read-only


class Disk:
    """A file system of so many KiB at ``folder`` for a ``with`` block."""

    def __init__(self, folder: Path, kib: int) -> None:
        self.folder, self.kib = folder, kib

    def __enter__(self) -> Disk:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.mount()
        return self

    def __exit__(self, *_: object) -> None:
        _run("umount", "-l", str(self.folder))

    def mount(self) -> None:
        """Make the file system."""
        raise NotImplementedError

    def turn_read_only(self) -> None:
        """Nothing can be written from now on."""
        raise NotImplementedError

    def mend(self) -> None:
        """Give it more room, or let it be written again."""
        raise NotImplementedError


class MemoryDisk(Disk):
    """One in memory (tmpfs), which grows by STEP."""

    def mount(self) -> None:
        _run("mount", "-t", "tmpfs", "-o", f"size={self.kib}k", "chaos", str(self.folder))

    def mend(self) -> None:
        self.kib += STEP
        _run("mount", "-o", f"remount,size={self.kib}k", str(self.folder))


class FaultyDisk(Disk):
    """An ext4 in a file, which turns read-only as such a file system does at an error of its device.

    What was written before is synchronised first: this is no loss of power.
    """

    def mount(self) -> None:
        self.count, self.image = 0, self.folder.with_name("disk.img")
        with self.image.open("wb") as file:
            file.truncate(self.kib << 10)
        _run("mkfs.ext4", "-q", str(self.image))
        self._attach()

    def turn_read_only(self) -> None:
        _run("sync", "-f", str(self.folder))
        Path(f"/sys/fs/ext4/{self.device}/trigger_fs_error").write_text("a fault of the benchmark", encoding="utf-8")

    def mend(self) -> None:
        # Java may have files open for longer than a run: the next disk is a copy of what this one has.
        _run("umount", "-l", str(self.folder))
        self.count += 1
        mended = self.image.with_name(f"disk-{self.count}.img")
        _run("cp", "--sparse=always", str(self.image), str(mended))
        self.image.unlink()
        self.image = mended
        # Its exit code 1 says that it mended something.
        subprocess.run(["e2fsck", "-fy", str(self.image)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self._attach()

    def _attach(self) -> None:
        _run("mount", "-o", "loop,errors=remount-ro", str(self.image), str(self.folder))
        found = subprocess.run(
            ["findmnt", "-no", "SOURCE", str(self.folder)], capture_output=True, text=True, check=True
        )
        self.device = Path(found.stdout.strip()).name
        assert self.device.startswith("loop"), self.device


def _run(*command: str) -> None:
    subprocess.run(command, check=True)


def run_on(road: Road, disk: Disk, due: float | None) -> tuple[int, str, str]:
    """(exit code, stage, last line) of a run; ``disk`` turns read-only ``due`` seconds after its start, or never."""
    assert road.warm is not None
    log, began, turned = road.folder / "output.log", time.monotonic(), due is None
    log.write_bytes(b"")
    child = road.warm.start(run_arguments(road.settings, *road.store.overrides), log)
    while child.poll() is None and time.monotonic() - began < LONGEST_RUN:
        if not turned and time.monotonic() - began > (due or 0.0):
            disk.turn_read_only()
            turned = True
        time.sleep(0.02)
    return child.wait(), *where_it_ended(log.read_text(encoding="utf-8", errors="replace"))


def broken_road(kind: str, kib: int, folder: Path, encoder: Path, chance: random.Random) -> dict[str, Any]:
    """The report of a road on a disk of ``kind`` that begins with ``kib`` KiB."""
    failed, faults = Counter[str](), list[str]()
    with open_store("folder", folder / "store") as store:
        expected, _ = reference(folder, store, encoder)
        place = store.place.local.parent
        settings = write_chaos_settings(folder / "warm.yaml", folder / "raw", str(store.place), encoder)
        with (
            MemoryDisk(place, kib) if kind == "full" else FaultyDisk(place, kib) as disk,
            warm_process(settings, store.overrides, folder / "warm.log") as warm,
        ):
            road = Road(folder / "road", store, encoder, chance, warm)
            for delivery in range(DELIVERIES):
                deliver(road.folder / "raw", delivery)
                while True:
                    turns = kind == "read-only" and failed.total() < TURNED * (delivery + 1)
                    code, stage, last = run_on(road, disk, chance.uniform(0.2, LATEST) if turns else None)
                    print(f"  {kind}, {disk.kib} KiB, {stage}: {code} {last}", file=sys.stderr, flush=True)
                    if code or turns:
                        disk.mend()
                    if code == 0:
                        break
                    failed[stage] += 1
                    if code != 1 or not last.startswith(SENTENCES[kind]):
                        faults.append(f"{stage}: exit code {code}: {last}")
                    if failed.total() == MOST_RUNS:
                        faults.append(f"the road has not ended after {MOST_RUNS} failed runs")
                        return {"disk": kind, "failed runs": failed.total(), "by stage": failed, "faults": faults}
            return {
                "disk": kind,
                "KiB": [kib, disk.kib],
                "failed runs": failed.total(),
                "by stage": failed,
                "faults": faults,
                "wrong": differences(expected, road.content()),
            }


def main(arguments: list[str]) -> int:
    """1 where a run ended with anything but the sentence, or a road with anything but the right content."""
    parser = argparse.ArgumentParser(prog="make bench-chaos_disks", description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--kib", type=int, nargs="*", default=[200, 1000], help="sizes of the disks that fill up")
    parser.add_argument("--read-only", type=int, default=1, help="roads on a disk that turns read-only")
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args(arguments)
    folder = chosen.folder.resolve()
    encoder, chance = write_encoder(folder / "encoder"), random.Random(chosen.seed)
    reports = [broken_road("full", kib, folder, encoder, chance) for kib in chosen.kib]
    reports += [broken_road("read-only", 400_000, folder, encoder, chance) for _ in range(chosen.read_only)]
    print(json.dumps({"benchmark": "chaos_disks", "roads": reports}))
    return 1 if any(report["faults"] or report.get("wrong") for report in reports) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
