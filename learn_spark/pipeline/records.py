"""Files that runs leave beside tables: pages, settings, rankings, studies, logs and caches, and which ones are old.

The age of a page or folder that is named after a run is the time that the runs table has for it. Of everything else
(pages of experiments and of gates, studies, searches, logs, caches) no time is recorded: the storage's time of the last
change counts, of a folder that of its newest file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from learn_spark.ads.rankers.store import FOLDER as RANKINGS
from learn_spark.core.quality.data_docs import page_path
from learn_spark.core.storage.path import StoragePath, storage_path
from learn_spark.core.tables.runs import Run
from learn_spark.core.tables.workspace import Workspace
from learn_spark.pipeline.lineage import Lineage

NEWEST_REPORT = frozenset({"index.html", "settings.yaml"})
CACHES = "cache"


@dataclass(frozen=True)
class Record:
    """A file or folder that may be deleted: its path, bytes, and why."""

    path: StoragePath
    size: int
    why: str


@dataclass(frozen=True)
class Limits:
    """Times before which records, and logs and caches, are old."""

    records: datetime
    caches: datetime


def runs_in_use(runs: Sequence[Run], named: Iterable[str], models: Iterable[str]) -> set[str]:
    """Ids of the runs ``named``, of those that wrote ``models``, of the newest finished run of every stage, and of all
    runs that wrote what one of these read, directly or not.
    """
    lineage, wanted, written = Lineage(runs), set(named), set(models)
    wanted |= {run.run_id for run in {run.job: run for run in runs if run.status == "done"}.values()}
    left = [run for run in runs if run.run_id in wanted or run.model_id in written]
    used: set[str] = set()
    while left:  # a source may be of the same stage: rankers that another run of rank_ads saved
        run = left.pop()
        if run.run_id not in used:
            used.add(run.run_id)
            left.extend(lineage.sources(run))
    return wanted | used


def old_records(
    workspace: Workspace, runs: Sequence[Run], in_use: set[str], pages: Mapping[str, Iterable[str]], limits: Limits
) -> Iterator[Record]:
    """The records that are old and that nothing in use refers to.

    ``in_use``: ids of runs, see ``runs_in_use``; ``pages``: gate -> titles of the evaluations whose pages are kept.
    """
    started = {run.run_id: run.started_at for run in runs}

    def old(folder: StoragePath, kept: Iterable[str], limit: datetime, why: str) -> Iterator[Record]:
        keep = set(kept)
        for path, size, changed in _children(folder):
            name = path.name.rpartition(".")[0] if path.name.endswith((".html", ".json")) else path.name
            if not keep & {name, path.name} and started.get(name, changed) < limit:
                yield Record(path, size, why)

    reports, quality = workspace.place / "reports", workspace.place / "reports" / "quality"
    yield from old(reports, {*in_use, *NEWEST_REPORT, "quality"}, limits.records, "a report that is old")
    for gate in sorted(child.name for child in quality.children() if child.is_folder()):
        kept = {page_path(quality, gate, title).name for title in pages.get(gate, ())}
        yield from old(quality / gate, kept, limits.records, "a page of a version that is not kept")
    yield from old(workspace.place / "runs", in_use, limits.records, "settings of a run that nothing kept comes from")
    yield from old(workspace.place / RANKINGS, in_use, limits.records, "rankers that no newest run uses")
    for place, name in ((workspace.place, "studies"), (storage_path(workspace.scratch), "searches")):
        yield from old(place / name, (), limits.records, f"one of {name}, and old")
    yield from old(storage_path(workspace.scratch) / "logs", (), limits.caches, "a log that is old")
    for cache in (storage_path(workspace.scratch) / CACHES).children():
        newest = max(_children(cache), key=lambda child: child[2], default=None)
        kept = set() if newest is None else {newest[0].name}
        yield from old(cache, kept, limits.caches, "a copy in a cache, which is made again")


def _children(folder: StoragePath) -> list[tuple[StoragePath, int, datetime]]:
    """(path, bytes, time of the last change) of the files and folders directly below, from one listing; without hidden
    ones."""
    sizes: dict[str, int] = {}
    changed: dict[str, float] = {}
    for file in folder.files():
        name = file.path[len(folder) :].lstrip("/").partition("/")[0]
        sizes[name] = sizes.get(name, 0) + file.size
        changed[name] = max(changed.get(name, 0.0), file.changed)
    shown = sorted(name for name in sizes if not name.startswith("."))
    return [(folder / name, sizes[name], datetime.fromtimestamp(changed[name], UTC)) for name in shown]
