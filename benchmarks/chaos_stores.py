"""Where benchmarks.chaos keeps its workspace, and how it sees that the store changes: the moments of its kills."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from learn_spark.core.storage.path import S3Access, StoragePath
from tests.servers import LostAnswers, hdfs_server, make_bucket, s3_server

# Folders of a workspace in which something appears at a commit, a rename or a checkpoint.
WATCHED = ("tables", "tables/*", "tables/*/_delta_log", "models", "models/unfinished/*/*", "indexes", "rankings")
WATCHED_TOO = ("staged", "staged/*", "staging", "reports", "runs")


@dataclass
class Store:
    """A place for workspaces. ``arm(n)`` awaits the n-th change from now, ``reached`` asks for it (for some
    milliseconds at most), and ``release`` lets go whoever is held there.
    """

    place: StoragePath
    overrides: list[str] = field(default_factory=list)

    def arm(self, changes: int, chance: random.Random) -> None:
        raise NotImplementedError

    def reached(self) -> bool:
        raise NotImplementedError

    def release(self) -> None:
        """Nothing is held."""


@dataclass
class WatchedFolders(Store):
    """A store whose changes are those of folders of this machine: a workspace in a folder, or what HDFS keeps."""

    watched: list[Path] = field(default_factory=list)
    patterns: tuple[str, ...] = ("",)

    def arm(self, changes: int, chance: random.Random) -> None:
        self._left, self._known = changes, self._times()

    def reached(self) -> bool:
        time.sleep(0.002)
        now = self._times()
        if now != self._known:
            self._left -= sum(1 for path, moment in now.items() if self._known.get(path) != moment)
            self._known = now
        return self._left <= 0

    def _times(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for root in self.watched:
            for pattern in self.patterns:
                for path in root.glob(pattern) if pattern else [root]:
                    with suppress(OSError):
                        found[str(path)] = os.stat(path).st_mtime_ns
        return found


@dataclass
class HeldUploads(Store):
    """A bucket behind a proxy, which holds the sender of the n-th upload: before the server has it, or after it."""

    proxy: LostAnswers | None = None

    def arm(self, changes: int, chance: random.Random) -> None:
        assert self.proxy is not None
        self.proxy.hold("", changes, after=chance.random() < 0.5)

    def reached(self) -> bool:
        assert self.proxy is not None
        return self.proxy.held()

    def release(self) -> None:
        assert self.proxy is not None
        self.proxy.drop()


@contextmanager
def open_store(kind: str, folder: Path) -> Iterator[Store]:
    """A "folder" below ``folder``, or a new "s3" or "hdfs" server of the tests."""
    folder.mkdir(parents=True, exist_ok=True)
    if kind == "folder":
        place = StoragePath(str(folder / "workspace"))
        yield WatchedFolders(place, [], [folder / "workspace"], (*WATCHED, *WATCHED_TOO))
    elif kind == "s3":
        with s3_server(folder) as url, LostAnswers(url, "", lose=0) as proxy:
            place = StoragePath(f"{make_bucket(url)}/workspace", S3Access(url))
            yield HeldUploads(place, [f"storage.endpoint={proxy.url}", f"scratch={folder / 'scratch'}"], proxy)
    else:
        with hdfs_server(folder) as address:
            edits = [path.parent for path in folder.rglob("edits_inprogress_*")]
            place = StoragePath(f"{address}/workspace")
            yield WatchedFolders(place, [f"scratch={folder / 'scratch'}"], edits, ("edits_inprogress_*",))
